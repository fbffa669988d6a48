"""The explorer: the viewer with a kernel, for a notebook cell."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anywidget
import pandas as pd
import traitlets
from IPython.display import display

from sparsity_report.api.study import Study, as_study
from sparsity_report.counting.counts import count_weights
from sparsity_report.errors import SparsityReportError
from sparsity_report.study.files.json_files import study_or_saved
from sparsity_report.study.schema import COLUMNS
from sparsity_report.study.sweep import pruned_at
from sparsity_report.study.variants import csr, fingerprint, masked
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.viewer.embed import asset, embed, widget_module
from sparsity_report.viewer.payload import Contents, encode
from sparsity_report.viewer.study_payload import policy_label, study_contents
from sparsity_report.viewer.view_state import AT_LEVEL, LayerValues, check_state, with_consequences
from sparsity_report.weights.weights import Weights
from sparsity_report.words.number_format import level
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    import altair as alt


def explore(
    study: Study | str | os.PathLike[str],
    weights: Weights | None = None,
) -> Explorer:
    """Return the explorer of a study, for a notebook cell.

    Parameters
    ----------
    study : Study or path-like
        Study to explore, or the path of a saved one.
    weights : Weights, optional
        Weights of the first variant, for a study that was read from a file. They are needed for
        histograms and to add a level as a variant.

    Returns
    -------
    Explorer
        The widget.

    Raises
    ------
    SparsityReportError
        If `study` is not a study or is empty, or `weights` are not those of the first variant.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> explorer = sr.explore(sr.compare(sr.dense(sr.load()), sr.masked(pruning)))
    >>> fc1 = [n for n in explorer.layers()["module_name"] if "fc1" in n]
    >>> explorer.select(sparsity=0.6, selection=fc1)
    >>> len(explorer.layers())
    4
    >>> pair = sr.compare_checkpoints(sr.load(), pruning)
    >>> sr.explore(pair).state["metric"]
    'moved'
    """
    value = as_study(study_or_saved("explore", study))
    if value.matches is not None:
        if weights is not None:
            raise SparsityReportError(
                "explore: two checkpoints take no weights=; call explore(study)"
            )
        return Explorer(value)
    if value.layers.empty:
        raise SparsityReportError("explore: the study has no layers; compare() a model first")
    if weights is not None:
        given = fingerprint(weights, count_weights(weights))
        first = value.variants["fingerprint"].iloc[0]
        if given != first:
            raise SparsityReportError(
                f"explore: {weights.name} has the fingerprint {given}, the study's first variant "
                f"{first}; give the weights the study was made of"
            )
        value = replace(value, weights=weights)
    return Explorer(value)


class Explorer(anywidget.AnyWidget):
    """A study on one screen, whose state page and kernel share.

    Attributes
    ----------
    study : Study
        The study; :meth:`add` adds variants.
    state : dict
        What is in view; :meth:`select` changes it, and it can be observed. For two checkpoints it
        has ``metric``, ``modules``, ``sort``, ``search``, ``selection`` and ``detail`` only.

        - ``variant``: the variant in view, or ``"at level"`` for the first model at a level.
        - ``sparsity``: the level of the slider. While a variant is shown, the slider stands at
          its sparsity.
        - ``policy``: pruning policy of the level: ``"global_magnitude"``, and those of
          ``"layerwise_magnitude"``, ``"N:4"`` and ``"N:8"`` that follow exactly from the counts.
        - ``layout``: layout of the prunable matrices, to which bytes and budgets belong:
          ``"csr"``, ``"bitmask"`` or ``"dense"``.
        - ``metric``: the metric of the map, ``"sparsity"`` or a column of numbers. For two
          checkpoints, ``"moved"`` is the share of the base's weights that is zero or removed,
          after − before; the others are ``"kept_share"`` of the zeros, ``"revived_share"`` and
          ``"new_share"`` of the weights that are in both, ``"relative_change"``, and ``"iou"``,
          zeros in both ÷ zeros in either.
        - ``against``: the variant that the metric ``"difference"`` is relative to.
        - ``modules``: ``"prunable"``, ``"all"`` or a group of modules, for the map and the table.
        - ``grouping``: unit of the bars, ``"group"``, ``"projection"`` or ``"block"``.
        - ``sort``: ``"module"`` or a metric, with ``-`` before it for descending; empty in the
          order of the model.
        - ``curve``: figure that the curve shows over sparsity, ``"bytes"`` or ``"quality"``.
        - ``search``: words that the names of layers in the table contain.
        - ``selection``: names of the selected modules.
        - ``detail``: the layer in detail, or None.
    payload : bytes
        What the page shows.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
    >>> explorer.select(sparsity=0.6)
    >>> explorer.state["variant"], explorer.state["policy"]
    ('at level', 'global_magnitude')
    """

    _esm = widget_module()
    _css = asset("viewer.css")
    study = traitlets.Instance(Study, read_only=True)
    payload = traitlets.Bytes().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    # Common to all views of an explorer.
    key = traitlets.Unicode().tag(sync=True)

    def __init__(self, study: Study) -> None:
        self._contents = study_contents(study)
        header = self._contents.header
        self.set_trait("study", study)
        super().__init__(
            payload=encode(header, self._contents.arrays), state=header["start"], key=uuid4().hex
        )

    def select(self, **changes: str | float | list[str] | None) -> None:
        """Change what is in view.

        Setting ``sparsity`` or ``policy`` shows the nearest level, setting ``variant`` shows the
        variant in its layout.

        Parameters
        ----------
        **changes : str, float, list of str or None
            New values of keys of ``state``.

        Raises
        ------
        SparsityReportError
            A key or a value is unknown; nothing has changed.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.select(search="fc1", sort="-sparsity")
        >>> explorer.state["search"], explorer.state["sort"]
        ('fc1', '-sparsity')
        """
        header = self._contents.header
        check_state(header, changes)
        self.state = with_consequences(header, self.state, changes)

    def layers(self) -> pd.DataFrame:
        """Return the layers of the table, in its order: the selected ones, or else those in view.

        The columns are those of ``study.layers``, at a level those of
        :meth:`Study.at_level`; bytes and FLOPs are those of the byte layout. For two checkpoints
        they are those of ``matches``, and the metrics.

        Returns
        -------
        pandas.DataFrame
            One row per layer.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.select(search="fc1")
        >>> len(explorer.layers())  # one of each block
        4
        """
        return self._values.in_view()

    @property
    def _values(self) -> LayerValues:
        return LayerValues(self.study, self._contents, self.state)

    @traitlets.validate("state")
    def _checked(self, proposal: Any) -> dict[str, Any]:
        """Return a state, with the first value of each key that it lacks, or refuse it."""
        check_state(self._contents.header, proposal["value"])
        return {**self._contents.header["start"], **proposal["value"]}

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Set what the page has changed; a refused state goes back with the reason.

        Parameters
        ----------
        sync_data : dict
            Values by the names of traits. Of the state, the page names the keys that it has
            ``changed``; the others may be older than those here.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.set_state({"state": {"search": "fc1", "changed": ["search"]}})
        >>> explorer.state["search"]
        'fc1'
        """
        state = sync_data.get("state")
        if isinstance(state, dict) and (changed := state.get("changed")):
            newer = {key: value for key, value in state.items() if key in changed}
            sync_data = {**sync_data, "state": {**self.state, **newer}}
        try:
            super().set_state(sync_data)
        except traitlets.TraitError as error:
            self.send({"type": "error", "text": str(error)})
            self.send_state("state")

    def _handle_custom_msg(self, content: dict[str, Any], buffers: Any) -> None:  # noqa: ARG002
        """Add the level in view, which is what the page asks for."""
        if content.get("type") != "add":
            return
        try:
            self.add()
            name = short_name(self.state["variant"])
            self.send({"type": "said", "text": say("explorer.added", name=name)})
        except SparsityReportError as error:
            self.send({"type": "error", "text": str(error)})

    def _widget_bundle(self) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        # An export without the widget shows nothing in its place, and does not warn.
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": ""}

    def _ipython_display_(self, **_: Any) -> None:
        """Show the widget, and after it the page without a kernel, which the widget hides."""
        for part in (self._widget_bundle(), self._page_bundle()):
            display(part, raw=True)  # type: ignore[no-untyped-call]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the widget, and the viewer as HTML for a page without a kernel."""
        return self._widget_bundle() | self._page_bundle()

    def _page_bundle(self) -> dict[str, Any]:
        """Return a page without a kernel that starts with the state in view."""
        from sparsity_report.report.value_display import bundle

        still = bundle(self.study)["text/html"]
        start = {**self._contents.header, "start": self.state}
        page = embed(encode(start, self._contents.arrays), still, self.key)
        return {"text/html": page, "text/plain": "\n".join(self.study.sentences())}

    def add(self) -> None:
        """Prune exactly at the level and add the variants, masked and CSR, to the study.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.select(sparsity=0.6)
        >>> explorer.add()
        >>> explorer.study.variants["variant"].tolist()
        ['Dense', 'Masked60', 'CSR60']
        """
        study, state = self.study, self.state
        if study.matches is not None:
            raise SparsityReportError(
                "add: two checkpoints have no levels; explore a study that compare() returned"
            )
        if study.weights is None:
            raise SparsityReportError(
                say("explorer.add_needs_weights", code="explore(study, weights=sr.load(…))")
            )
        pruning = pruned_at(study.weights, state["policy"], state["sparsity"])
        pruned, rows = [masked(pruning), csr(pruning)], study.variants
        same = rows[rows["fingerprint"] == rows["fingerprint"].iloc[0]]
        same = same[(same["method"] == pruning.method) & (same["asked_sparsity"] == pruning.target)]
        longer = study.with_variants(*(v for v in pruned if v.name not in set(same["variant"])))
        self._contents = study_contents(longer)
        with self.hold_sync():
            self.set_trait("study", longer)
            self.payload = encode(self._contents.header, self._contents.arrays)
            self.select(variant=pruned[state["layout"] == "csr"].name)

    @property
    def chart(self) -> alt.LayerChart:
        """The map of the metric in view as an Altair chart, ready for ``.save``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> type(explorer.chart).__module__.startswith("altair")
        True
        """
        from sparsity_report.draw.heat_maps import metric_map

        cells, grid = self._values.cells()
        label = state_label(self._contents, self.state)
        metric = COLUMNS[self.state["metric"]]
        return metric_map(cells, (grid.blocks, grid.projections), metric, label)


def state_label(contents: Contents, state: dict[str, Any]) -> str:
    """Return the name of the variant or level in view, or of two checkpoints."""
    if contents.header["kind"] == "pair":
        return str(contents.header["title"])
    if state["variant"] == AT_LEVEL:
        policy = policy_label(state["policy"])
        return say("viewer.level_of", policy=policy, level=level(state["sparsity"]))
    return say("explorer.shown_variant", name=short_name(state["variant"]))
