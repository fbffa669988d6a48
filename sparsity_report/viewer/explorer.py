"""The explorer of a study: the viewer with a kernel, for a notebook cell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import pandas as pd
import traitlets

from sparsity_report.counting.counts import count_weights
from sparsity_report.errors import SparsityReportError
from sparsity_report.hooks import hooks
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.histograms import module_magnitudes
from sparsity_report.study.files.json_files import value_or_saved
from sparsity_report.study.levels.budget import budget_finding, level_within
from sparsity_report.study.levels.sweep import pruned_at
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.schema import METRICS, Column
from sparsity_report.study.variants import Variant, csr, fingerprint, masked
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.viewer.base_explorer import (
    BaseExplorer,
    RefusedValueError,
)
from sparsity_report.viewer.copied_code import FORMS, Shown
from sparsity_report.viewer.layer_values import AT_LEVEL, LayerValues, State
from sparsity_report.viewer.pair_explorer import PairExplorer
from sparsity_report.viewer.payload import encode
from sparsity_report.viewer.study_payload import (
    coarse_histogram,
    own_figures,
    policy_label,
    study_contents,
)
from sparsity_report.weights.weights import Weights
from sparsity_report.words.number_format import level
from sparsity_report.words.sentences import say
from sparsity_report.words.value_formats import OWN

LAYOUTS = ("csr", "bitmask", "dense")


@overload
def explore(
    study: Study, weights: Weights | None = None, *, columns: pd.DataFrame | None = None
) -> Explorer: ...


@overload
def explore(study: Pair) -> PairExplorer: ...


@overload
def explore(
    study: str | os.PathLike[str],
    weights: Weights | None = None,
    *,
    columns: pd.DataFrame | None = None,
) -> Explorer | PairExplorer: ...


def explore(
    study: Study | Pair | str | os.PathLike[str],
    weights: Weights | None = None,
    *,
    columns: pd.DataFrame | None = None,
) -> Explorer | PairExplorer:
    """Return the explorer of a study or a pair, for a notebook cell.

    Parameters
    ----------
    study : Study, Pair or path-like
        Value to explore, or the path of a saved one.
    weights : Weights, optional
        Weights of the first variant, for a study that was read from a file. They are needed for
        histograms and to add a level as a variant.
    columns : pandas.DataFrame, optional
        Further metrics of the map: ``module_name``, once each, and columns of numbers, whose names
        are those of the metrics.

    Returns
    -------
    Explorer or PairExplorer
        The widget.

    Raises
    ------
    SparsityReportError
        If `study` is neither a study nor a pair, or is empty, `weights` are not those of the
        first variant, or `columns` holds other values than numbers.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> explorer = sr.explore(sr.compare(sr.dense(sr.load()), sr.masked(pruning)))
    >>> explorer.sparsity = 0.6
    >>> explorer.selection = [n for n in explorer.layers()["module_name"] if "fc1" in n]
    >>> len(explorer.layers())
    4
    >>> pair = sr.compare_checkpoints(sr.load(), pruning)
    >>> sr.explore(pair).metric
    'moved'
    """
    value: Study | Pair = value_or_saved("explore", study, Study, Pair)
    if isinstance(value, Pair):
        if weights is not None or columns is not None:
            raise SparsityReportError(
                "explore: a pair takes no weights= and no columns=; call explore(pair)"
            )
        return PairExplorer(value)
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
    return Explorer(value, columns)


class Explorer(BaseExplorer):
    """A study on one screen; every attribute here can be set and observed.

    Attributes
    ----------
    study : Study
        The study; :meth:`add` adds variants.
    variant : str
        The variant in view, or ``"at level"``: the first model at a level of sparsity.
    sparsity : float
        The level of the slider. Moving it shows the level instead of a variant. While a variant
        is shown, the slider stands at its sparsity.
    policy : str
        Pruning policy of the level: ``"global_magnitude"``, and those of
        ``"layerwise_magnitude"``, ``"N:4"`` and ``"N:8"`` that follow exactly from the counts.
    byte_layout : {"csr", "bitmask", "dense"}
        Layout of the prunable matrices, to which all bytes and budgets belong.
    metric : str
        The metric of the map, ``"sparsity"``, a column of numbers, or a name in ``columns``.
    against : str
        The variant that the metric ``"difference"`` is relative to.
    modules : str
        ``"prunable"``, ``"all"`` or a group of modules, for the map and the table.
    grouping : {"group", "projection", "block"}
        Unit of the bars.
    sort : str
        Column of the table, with ``-`` before it for descending; empty in the order of the model.
    curve : {"bytes", "quality"}
        Figure that the curve shows over sparsity.
    search : str
        Words that the names of layers in the table contain.
    selection : tuple of str
        Names of the selected modules.
    detail : str or None
        The layer in detail.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
    >>> explorer.sparsity = 0.6
    >>> explorer.variant, explorer.policy
    ('at level', 'global_magnitude')
    """

    _state_type = State
    study = traitlets.Instance(Study)
    policy = traitlets.Unicode().tag(sync=True)
    sparsity = traitlets.Float().tag(sync=True)
    variant = traitlets.Unicode().tag(sync=True)
    byte_layout = traitlets.Unicode().tag(sync=True)
    against = traitlets.Unicode().tag(sync=True)
    modules = traitlets.Unicode().tag(sync=True)
    grouping = traitlets.Unicode().tag(sync=True)
    curve = traitlets.Unicode().tag(sync=True)
    detail = traitlets.Unicode(None, allow_none=True).tag(sync=True)

    def __init__(self, study: Study, columns: pd.DataFrame | None = None) -> None:
        self._columns = columns
        self._known, payload = self._read(study)
        start = dict(self._known["start"])
        start["byte_layout"] = start.pop("layout")
        super().__init__(payload, study=study, **start)

    def _read(self, study: Study) -> tuple[dict[str, Any], bytes]:
        """Take over a study; return its header and payload."""
        header, self._arrays = study_contents(study, self._columns)
        self._own = {each["key"]: each["figure"] for each in own_figures(study, self._columns)}
        return header, encode(header, self._arrays)

    @property
    def value(self) -> Study:
        """The study.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.value is explorer.study
        True
        """
        study: Study = self.study
        return study

    @property
    def _values(self) -> LayerValues:
        return LayerValues(self.value, self._own)

    def _page_payload(self) -> bytes:
        """Return a payload that starts with the state in view."""
        traits = self.state._asdict()
        traits["layout"] = traits.pop("byte_layout")
        return encode({**self._known, "start": traits}, self._arrays)

    def layers(self) -> pd.DataFrame:
        """Return the layers of the table, in its order: the selected ones, or else those in view.

        The columns are those of ``study.layers``, at a level those of
        :meth:`Study.at_level`; bytes and FLOPs are those of the byte layout.

        Returns
        -------
        pandas.DataFrame
            One row per layer.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.search = "fc1"
        >>> len(explorer.layers())  # one of each block
        4
        """
        return self._values.in_view(self.state, self._values.rows(self.state))

    @property
    def chart(self) -> Any:
        """The map of the metric in view as an Altair chart, ready for ``.save``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> type(explorer.chart).__module__.startswith("altair")
        True
        """
        state, (cells, grid) = self.state, self._values.cells(self.state)
        shown = say("explorer.shown_variant", name=short_name(state.variant))
        if state.is_level:
            words = {"policy": policy_label(state.policy), "level": level(state.sparsity)}
            shown = say("viewer.level_of", **words)
        of_user = Column(state.metric, text=clip(state.metric, 40), format=OWN)
        metric = METRICS.get(state.metric, of_user)
        return hooks.chart(cells, (grid.blocks, grid.projections), metric, shown)

    def add(self) -> None:
        """Prune exactly at the level and add the variants, masked and CSR, to the study.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.sparsity = 0.6
        >>> explorer.add()
        >>> explorer.study.variants["variant"].tolist()
        ['Dense', 'Masked60', 'CSR60']
        """
        pruned = self._level_variants()
        names = set(self.value.variants["variant"])
        self.study = self.value.with_variants(*(v for v in pruned if v.name not in names))
        self.variant = pruned[self.byte_layout == "csr"].name

    def _level_variants(self) -> list[Variant]:
        state, weights = self.state, self.value.weights
        if weights is None:
            raise SparsityReportError(
                say("explorer.add_needs_weights", code="explore(study, weights=sr.load(…))")
            )
        pruning = pruned_at(weights, state.policy, state.sparsity)
        return [masked(pruning), csr(pruning)]

    def within(self, budget: str) -> str:
        """Move the slider to the level that meets a budget, and return the reason.

        See :func:`sparsity_report.level_within` for budgets. Budgets of bytes and FLOPs use the
        levels of the policy in the byte layout.

        Parameters
        ----------
        budget : str
            Such as ``"100 MB"``, ``"0.5 × FLOPs"`` or ``"perplexity ≤ 15"``.

        Returns
        -------
        str
            A sentence on the level and the next one, which does not meet the budget.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.byte_layout = "csr"
        >>> reason = explorer.within("0.5 × FLOPs")
        >>> 0 < explorer.sparsity < 1
        True
        """
        layout = self.byte_layout
        solved = level_within(self.value, budget, policy=self.policy, layout=layout)
        with self._quietly():
            self.sparsity, self.variant = solved.sparsity, AT_LEVEL
            self.byte_layout = "dense" if solved.dense else layout
        self._note()
        return budget_finding(solved)

    def copied(self, form: str) -> str:
        """Return the value in view as Python code or a command.

        Parameters
        ----------
        form : {"python", "command"}
            Python code, or a command of ``sparsity-report``.

        Returns
        -------
        str
            The text.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> explorer = sr.explore(sr.compare(sr.dense(sr.load())))
        >>> explorer.search = "fc1"
        >>> "explorer.search = 'fc1'" in explorer.copied("python")
        True
        """
        if form not in FORMS:
            raise SparsityReportError(
                f"copied: {str(form)[:40]!r} is no form; use one of {', '.join(FORMS)}"
            )
        state, first = self.state, self.states[0]._asdict()
        level_only = () if state.is_level else ("policy", "sparsity")
        # Setting a level shows it, so these two come before the variant.
        changed = {
            name: value
            for name, value in state._asdict().items()
            if name not in level_only and (value != first[name] or name == "byte_layout")
        }
        if state.is_level:
            changed = {"sparsity": state.sparsity, "variant": AT_LEVEL} | changed
        variant = None if state.is_level else state.variant
        return FORMS[form](Shown(self.value, variant, state.sparsity, changed, state.policy))

    def _heard(self, message: dict[str, Any]) -> None:
        """Answer a message of the page."""
        kind = message.get("type")
        if kind == "add":
            self.add()
            self.send(
                {"type": "said", "text": say("explorer.added", name=short_name(self.variant))}
            )
        elif kind == "copy":
            self.send({"type": "copied", "text": self.copied(str(message.get("form")))})
        elif kind == "histogram" and self.value.weights is not None:
            module = str(message.get("module"))
            counts = module_magnitudes(self.value.weights).get(module)
            if counts is not None and (drawn := coarse_histogram(counts)):
                answer = {"type": "histogram", "module": module, "top": drawn[0]}
                self.send({**answer, "heights": drawn[1].tolist()})

    # Changes of traits in Python and their consequences.

    @traitlets.observe(*State._fields)
    def _changed(self, change: Any) -> None:
        if self._is_quiet or not self.states:
            return
        name = change["name"]
        with self._quietly():
            if name in {"policy", "sparsity"} and self.value.by_policy:
                self.sparsity = self._nearest(self.sparsity)
                self.variant = AT_LEVEL
            elif name == "variant":
                self._follow_variant()
            elif name == "selection" and self.selection and self.detail not in self.selection:
                self.detail = self.selection[-1]
        self._note()

    def _follow_variant(self) -> None:
        """Show the layout of the variant, and move the slider to its sparsity."""
        if self.variant == AT_LEVEL:
            return
        facts = self.value.facts
        self.byte_layout = "csr" if facts.layouts[self.variant] == "csr" else "dense"
        share = facts.total(self.variant, "sparsity_prunable")
        if share is not None and facts.is_of_first(self.variant):
            self.sparsity = self._nearest(share)

    @traitlets.observe("study")
    def _extended(self, _: Any) -> None:
        """Send a longer study to the page."""
        if self.states:
            self._known, self.payload = self._read(self.value)

    def _nearest(self, sparsity: float) -> float:
        """Return the nearest level of the policy."""
        levels = self.value.by_policy.get(self.policy)
        shares = levels.sparsities if levels else [sparsity]
        return min(shares, key=lambda share: abs(share - sparsity))

    # Checks of new values.

    def _choices(self, name: str) -> Sequence[str]:
        """Return the values that the menu of a trait offers."""
        known, metrics = self._known, [*METRICS, *self._own]
        variants = [each["name"] for each in known["variants"]]
        policies = [each["key"] for each in known["policies"] if "levels" in each]
        if name == "sort":
            keys = ("module", *metrics)
            return ["", *keys, *(f"-{key}" for key in keys)]
        choices: dict[str, Sequence[str]] = {
            "policy": policies or [""],
            "variant": [*variants, *([AT_LEVEL] if policies else [])],
            "byte_layout": LAYOUTS,
            "metric": metrics,
            "against": variants,
            "modules": known["scopes"],
            "grouping": ("group", "projection", "block"),
            "curve": ("bytes", "quality"),
        }
        return choices[name]

    @property
    def _module_names(self) -> Sequence[str]:
        """Names of the modules of the study."""
        names: list[str] = self._known["modules"]["names"]
        return names

    @traitlets.validate("sparsity")
    def _check_sparsity(self, proposal: Any) -> float:
        """Return the nearest level; refuse what is not a sparsity."""
        value = proposal["value"]
        if self.states and self.value.by_policy and not 0 <= value < 1:
            raise RefusedValueError(say("explorer.sparsity_out_of_range", value=repr(value)))
        return self._nearest(value) if self.states else value

    @traitlets.validate("study")
    def _check_study(self, proposal: Any) -> Study:
        """Refuse studies that do not begin with the variants of this one."""
        study: Study = proposal["value"]
        if self.states:
            columns = ["variant", "fingerprint"]
            before, after = (one.variants[columns] for one in (self.value, study))
            if not after.head(len(before)).equals(before):
                raise RefusedValueError(say("explorer.study_not_extended"))
        return study
