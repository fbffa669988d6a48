"""The explorer: the viewer with a kernel, for a notebook cell."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from shutil import make_archive
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anywidget
import pandas as pd
import traitlets
from IPython.display import display

from sparsity_report.api.study import Study, as_study
from sparsity_report.counting.counts import count_weights
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.filesystem import scratch
from sparsity_report.study.derived.heads_experts import inner
from sparsity_report.study.files.study_sources import StudySource, study_or_saved
from sparsity_report.study.patterns import variant_patterns
from sparsity_report.study.schema import COLUMNS
from sparsity_report.study.sweep import pruned_at, with_level
from sparsity_report.study.variants import csr, fingerprint, masked
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.viewer.embed import asset, embed, embed_state, widget_module
from sparsity_report.viewer.payload import Contents, encode, nearest
from sparsity_report.viewer.study_payload import policy_label, study_contents
from sparsity_report.viewer.view_state import (
    AT_LEVEL,
    A,
    B,
    LayerValues,
    check_state,
    other_side,
    with_consequences,
)
from sparsity_report.weights.weights import Weights
from sparsity_report.words.number_format import level
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from sparsity_report.draw.vega_lite import VegaLite


def explore(study: StudySource, weights: Weights | None = None) -> Explorer:
    """Return the explorer of a study, for a notebook cell.

    Parameters
    ----------
    study : Study, Explorer or path-like
        Study to explore, that of another explorer, or the path of a saved one.
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


def _with_id(state: dict[str, Any], explorer: Explorer) -> dict[str, Any]:
    return {**state, "answered": explorer._answered}


def _without_id(state: dict[str, Any], _: Explorer) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != "answered"}


class Explorer(anywidget.AnyWidget):
    """A study on one screen, whose state page and kernel share.

    Attributes
    ----------
    study : Study
        The study; :meth:`add` adds variants.
    state : dict
        What is in view; :meth:`select` changes it, and it can be observed. For two checkpoints it
        has ``metric``, ``modules``, ``colors``, ``sort``, ``search``, ``selection`` and ``detail``
        only.

        - ``variant``: the variant in view, or ``"at level"`` for the first model at a level.
        - ``sparsity``: the level of the slider, exact for a level that the study lacks if it has
          its weights. While a variant is shown, the slider stands at its sparsity.
        - ``policy``: pruning policy of the level: ``"global_magnitude"``, and those of
          ``"layerwise_magnitude"``, ``"N:4"`` and ``"N:8"`` that follow exactly from the counts.
        - ``layout``: layout of the prunable matrices, to which bytes belong: ``"csr"``,
          ``"bitmask"`` or ``"dense"``.
        - ``metric``: the metric of the map, ``"sparsity"`` or a column of numbers. For two
          checkpoints, ``"moved"`` is the share of the base's weights that is zero or removed,
          after − before; the others are ``"kept_share"`` of the zeros, ``"revived_share"`` and
          ``"new_share"`` of the weights that are in both, ``"relative_change"``, and ``"iou"``,
          zeros in both ÷ zeros in either.
          ``"difference"`` is the sparsity of side A, the variant or level in view, − that of B.
        - ``against``, ``against_policy``, ``against_sparsity``: side B, with the values of
          ``variant``, ``policy`` and ``sparsity``.
        - ``modules``: ``"prunable"``, ``"all"``, a group of modules, or all modules of a block such
          as ``"block 3"``, for the map and the table.
        - ``colors``: scale of the map, ``"full"``, ``"fitted"`` to the values in view, or
          ``"auto"``: fitted where they span less than half of the full scale.
        - ``grouping``: unit of the bars, ``"group"``, ``"projection"`` or ``"block"``.
        - ``sort``: ``"module"`` or a metric, with ``-`` before it for descending; empty in the
          order of the model. ``"sparsity_b"`` and ``"stored_bytes_b"`` are those of side B.
        - ``search``: words, each in the name, the group or the place of a layer, for the table.
          ``"attention block 1"`` finds the attention of block 1, and not of block 10.
        - ``selection``: names of the selected modules.
        - ``detail``: the layer in detail, or None. Its panel has a square for each attention head
          and each expert of its block; click one or walk with the arrow keys to read its zeros.
          The kernel counts them for variants of the study.
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
    state = traitlets.Dict().tag(sync=True, to_json=_with_id, from_json=_without_id)
    # Common to all views of an explorer.
    key = traitlets.Unicode().tag(sync=True)
    _shown = False
    # Id of the last change of the page that the kernel has seen: older states may lack later ones.
    _answered: str | None = None

    def __init__(self, study: Study) -> None:
        self._replace(study)
        start = self._contents.header["start"]
        # The width leaves room for other widgets in the same row.
        super().__init__(state=start, key=uuid4().hex, layout={"width": "100%"})

    def select(self, **changes: str | float | list[str] | None) -> None:
        """Change what is in view.

        Setting ``sparsity`` shows the level, which is counted exactly if it is not among those of
        the study. Without weights, and among N:M patterns, it shows the nearest level with a
        warning. Setting ``policy`` shows the nearest level of the policy, setting ``variant`` shows
        the variant in its layout. The same is true of side B.

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
        check_state(self._contents.header, changes)
        with self.hold_sync():
            after = {**self.state, **changes}
            for _, policy, share in (A, B):
                if share in changes:
                    self._keep_level(after[policy], after[share])
            self.state = with_consequences(self._contents.header, self.state, changes)

    def _keep_level(self, policy: str, share: float, *, exact: bool = False) -> None:
        """Count a level exactly if the study lacks it; warn where that cannot be.

        With `exact`, also count one that the study has with an uncertainty.
        """
        study, sparsity = self.study, round(float(share), 6)
        if (kept := study.by_policy.get(policy)) is None:
            return
        place = nearest(kept.sparsities, sparsity)
        is_kept = abs(place - sparsity) < 1e-9
        if is_kept and not (exact and kept.slack[:, kept.sparsities.index(place)].any()):
            return
        if study.levels is not None and study.weights is not None and ":" not in policy:
            self._replace(replace(study, levels=with_level(study.levels, study.weights, sparsity)))
            return
        words = {"level": sparsity, "policy": policy_label(policy), "nearest": place}
        if not is_kept:
            warnings.warn(say("explorer.level_nearest", **words), stacklevel=3)

    def _replace(self, study: Study) -> None:
        """Show another study of the same model."""
        self._contents = study_contents(study)
        self.set_trait("study", study)
        self.payload = encode(self._contents.header, self._contents.arrays)

    def layers(self) -> pd.DataFrame:
        """Return the layers of the table, in its order: the selected ones, or else those in view.

        The columns are those of ``study.layers``, at a level those of
        :meth:`Study.at_level`, with the ``uncertainty`` that the page shows; bytes and FLOPs are
        those of the byte layout. For two checkpoints they are those of ``matches``, and the
        metrics.

        While the difference is in view, the counts, bytes and FLOPs of side B follow, with ``_b``
        at the end of their names, and ``difference``. They are null for a layer that B lacks;
        ``difference`` also for one of another size.

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
        state = {**self._contents.header["start"], **proposal["value"]}
        for shown, policy, share in (A, B):
            if state.get(shown) == AT_LEVEL:
                self._keep_level(state[policy], state[share])
                level = {share: state[share]}
                state = with_consequences(self._contents.header, state, level)
        return state

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
            self._answered = state.get("id")
            sync_data = {**sync_data, "state": _with_id({**self.state, **newer}, self)}
        try:
            super().set_state(sync_data)
        except traitlets.TraitError as error:
            self.send_state("state")
            self.send({"type": "error", "text": str(error)})

    def _handle_custom_msg(self, content: dict[str, Any], buffers: Any) -> None:  # noqa: ARG002
        """Answer a request of the page, or say why not; ``data`` of an answer is sent as bytes."""
        answers = {
            "add": self._answer_add,
            "inner": self._answer_inner,
            "level": self._answer_level,
            "report": self._answer_report,
        }
        if (answer := answers.get(content.get("type", ""))) is None:
            return
        sent: dict[str, Any] = {"type": "error", "text": say("explorer.request_failed")}
        try:
            sent = {"type": "said", **answer(content)}
        except SparsityReportError as error:
            sent["text"] = str(error)
        finally:
            data = sent.pop("data", None)
            self.send({**sent, "id": content.get("id")}, None if data is None else [data])

    def _answer_add(self, _: dict[str, Any]) -> dict[str, Any]:
        self.add()
        return {"text": say("explorer.added", name=short_name(self.state["variant"]))}

    def _answer_level(self, content: dict[str, Any]) -> dict[str, Any]:
        """Count a level for the page, which then shows it unless the view has changed."""
        check_state(self._contents.header, content["level"])
        sparsity = content["level"]["sparsity"]
        self._keep_level(content["level"]["policy"], sparsity, exact=True)
        return {"text": say("explorer.level_exact", level=sparsity)}

    def _answer_report(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the bytes of a report: of the page, the PDF or the LaTeX kit as a ZIP archive."""
        from sparsity_report.report.page import write_report
        from sparsity_report.report.thesis import write_thesis

        suffix = {"html": ".html", "pdf": ".pdf", "zip": ""}[content["kind"]]
        self.send({"type": "said", "text": say("explorer.report_writing")})
        with scratch() as folder:
            path = folder / f"report{suffix}"
            if suffix:
                return {"data": write_report(self, path).read_bytes()}
            write_thesis(self, path)
            return {"data": Path(make_archive(str(path), "zip", path)).read_bytes()}

    def _answer_inner(self, content: dict[str, Any]) -> dict[str, Any]:
        """Count the zeros of the heads or experts of a layer of a variant."""
        module = content["module"]
        variants = [v for v in self.study.opened if v.name == content["variant"]]
        rows = variant_patterns(variants, module=module, progress=lambda *_: None)
        return {"inner": inner(rows)[module]._asdict()}

    def open(self) -> None:
        """Open the widget; after ``close``, a display or a box opens it again.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.close()
        >>> explorer.open()
        >>> explorer.comm is None
        False
        """
        self.__dict__.pop("_repr_mimebundle_", None)  # close() sets it to None
        self.layout.open()  # Widget.close_all() closes it, too
        super().open()

    @property
    def model_id(self) -> str:
        """Id of the widget, which is opened if it is closed.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.close()
        >>> len(explorer.model_id)
        32
        """
        self.open()
        return str(super().model_id)

    def _widget_bundle(self) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        # An export without the widget shows nothing in its place, and does not warn.
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": ""}

    def _ipython_display_(self, **_: Any) -> None:
        """Show the widget, and after it the page without a kernel, which the widget hides."""
        self._shown = True
        for part in ("state", "widget", "page"):
            self._show(part)

    def _show(self, part: str, *, update: bool = False) -> None:
        """Show a part, or replace it where it is shown, as in a notebook that is saved later."""
        bundle, place = getattr(self, f"_{part}_bundle")(), f"{self.key}-{part}"
        display(bundle, raw=True, display_id=place, update=update)  # type: ignore[no-untyped-call]

    @traitlets.observe("state", "payload")
    def _save(self, change: dict[str, Any]) -> None:
        """Save a change in the notebook, for the page without a kernel."""
        if self._shown:
            self._show("state" if change["name"] == "state" else "page", update=True)

    def _state_bundle(self) -> dict[str, Any]:
        return {"text/html": embed_state(self.state, self.key), "text/plain": ""}

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
        with self.hold_sync():
            self._replace(longer)
            layout = state["layout"]
            self.select(variant=pruned[layout == "csr"].name, layout=layout)

    @property
    def chart(self) -> VegaLite:
        """The map of the metric in view as a Vega-Lite chart, ready for ``.save``.

        Shares have colors from 0 to 100 %, so that charts of several models compare.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.chart["title"]["text"]
        'Weight sparsity'
        """
        from sparsity_report.draw.heat_maps import metric_map

        cells, grid = self._values.cells()
        label = state_label(self._contents, self.state)
        metric = COLUMNS[key := self.state["metric"]]
        (name,) = (m["label"] for m in self._contents.header["metrics"] if m["key"] == key)
        return metric_map(cells, (grid.blocks, grid.projections), metric, (name, label))


def state_label(contents: Contents, state: dict[str, Any]) -> str:
    """Return the name of the variant or level in view, of both sides, or of two checkpoints."""
    if contents.header["kind"] == "pair":
        return str(contents.header["title"])
    if state["metric"] == "difference":
        return say("viewer.a_minus_b", a=_name(state), b=_name(other_side(state)))
    is_level = state["variant"] == AT_LEVEL
    return _name(state) if is_level else say("explorer.shown_variant", name=_name(state))


def _name(state: dict[str, Any]) -> str:
    """Return the name of a variant or level."""
    if state["variant"] != AT_LEVEL:
        return short_name(state["variant"])
    policy = policy_label(state["policy"])
    return say("viewer.level_of", policy=policy, level=level(state["sparsity"]))
