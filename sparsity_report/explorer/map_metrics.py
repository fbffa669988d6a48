"""Metrics of the map, and values of those that are not counts, per variant or level."""

from collections.abc import Mapping
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

from sparsity_report.draw.theme import METRICS, Metric
from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer.control_state import State
from sparsity_report.explorer.layer_histogram import LayerMagnitudes
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived import layer_metrics
from sparsity_report.study.derived.layer_metrics import LayerFigure
from sparsity_report.study.derived.policy_names import GLOBAL
from sparsity_report.study.levels.levels import Levels
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.sentences import say

# Counts and ratios of counts, which layers and groups have.
COUNTED = ("sparsity", "total", "nonzero", "flops_per_token", "stored_bytes", "bytes_ratio")
DIFFERENCE, BEYOND, SENSITIVITY = "difference", "beyond", "sensitivity"
_CUT = {
    "group": "explorer.sensitivity_note_group",
    "block": "explorer.sensitivity_note_block",
    "layer": "explorer.sensitivity_note_layer",
}


class Figures:
    """Metrics that a study has, and their values per layer.

    Parameters
    ----------
    study : Comparison
    policies : mapping of str to Levels
    columns : pandas.DataFrame or None
        Columns of the user, see :func:`sparsity_report.explore`.

    Attributes
    ----------
    magnitudes : LayerMagnitudes
    """

    def __init__(
        self, study: Comparison, policies: Mapping[str, Levels], columns: pd.DataFrame | None
    ) -> None:
        self._study, self._policies = study, policies
        self.magnitudes = LayerMagnitudes(study, policies)
        self._first = str(study.variants["variant"].iloc[0])
        self._own = {} if columns is None else layer_metrics.own_figures(columns, study.layers)
        if taken := set(self._own) & set(METRICS):
            wrong = sorted(taken)[0]
            raise SparsityReportError(say("explorer.metric_name_taken", name=repr(wrong)))
        self._at_levels = lru_cache(maxsize=8)(self._everywhere)
        self._of_variant = lru_cache(maxsize=32)(self._variant)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Metrics of the map in the order of the menu."""
        shown = {key: METRICS[key] for key in COUNTED}
        if len(self._study.variants) > 1 or self._policies:
            shown[DIFFERENCE] = METRICS[DIFFERENCE]
        patterns = self._study.patterns
        known = patterns is not None and patterns["expected_sparsity"].notna().any()
        if known or (self._study.weights is not None and GLOBAL in self._policies):
            shown[BEYOND] = METRICS[BEYOND]
        if self._study.sensitivity is not None and len(self._study.sensitivity):
            shown[SENSITIVITY] = METRICS[SENSITIVITY]
        note = "explorer.custom_metric_note"
        return shown | {name: Metric(name, "own", note) for name in self._own}

    def is_figure(self, metric: str) -> bool:
        """Return whether a metric is not a count."""
        return metric not in COUNTED

    def depends_on_variant(self, metric: str) -> bool:
        """Return whether a metric depends on the variant or level in view."""
        return metric in COUNTED or metric in {DIFFERENCE, BEYOND}

    def is_of_parts(self, metric: str) -> bool:
        """Return whether a figure belongs to groups or blocks, so that layers have no mean."""
        frame = self._study.sensitivity
        return (
            metric == SENSITIVITY and frame is not None and layer_metrics.finest(frame) != "layer"
        )

    def depends_on_level(self, state: State) -> bool:
        """Return whether the metric in view depends on the level."""
        return state.live and state.metric in {DIFFERENCE, BEYOND}

    def name(self, metric: str) -> str:
        """Return the name of a metric."""
        return clip(metric, 40) if metric in self._own else say(self.metrics[metric].name)

    def note(self, metric: str) -> str:
        """Return the definition of a metric of a layer."""
        if metric == SENSITIVITY:
            frame = self._study.sensitivity
            assert frame is not None
            level = float(frame["sparsity"].median())
            return say(_CUT[layer_metrics.finest(frame)], level=level)
        meant = self.metrics[metric]
        return say(meant.layer_note or meant.note)

    def find(self, state: State, rows: pd.DataFrame) -> LayerFigure:
        """Return the figure of every layer in view; `rows` hold the counts."""
        if self.depends_on_level(state):
            if (levels := self.levels(state)) is None:
                return unknown(rows)
            return levels.at(self._policies[state.policy].sparsities.index(state.sparsity))
        variant = self._first if state.live else state.variant
        return self._of_variant(state.metric, variant, state.against)

    def levels(self, state: State) -> LayerFigure | None:
        """Return the figure at every level; None if the levels do not have it."""
        bounded = bool(state.bounds)
        return self._at_levels(state.metric, state.policy, state.against, bounded)

    def _everywhere(
        self, metric: str, policy: str, against: str, bounded: bool
    ) -> LayerFigure | None:
        levels, facts = self._policies[policy], self._study.facts
        zeros = layer_metrics.zeros_at_levels(levels, facts.layers(self._first))
        if metric == DIFFERENCE:
            return layer_metrics.difference(zeros, self._zeros(against))
        # Other policies have no common threshold.
        if policy != GLOBAL or bounded or not self.magnitudes.thresholds:
            return None
        cuts = [self.magnitudes.thresholds[level] for level in levels.sparsities]
        return layer_metrics.beyond_at(zeros, cuts, self.magnitudes.spreads)

    def _variant(self, metric: str, variant: str, against: str) -> LayerFigure:
        study, rows = self._study, self._study.facts.layers(variant)
        if metric == DIFFERENCE:
            return layer_metrics.difference(self._zeros(variant), self._zeros(against))
        if metric == SENSITIVITY:
            assert study.sensitivity is not None
            layers = study.facts.layers(self._first)
            known = layer_metrics.measured_sensitivity(study.sensitivity, layers)
            return known if study.facts.is_of_first(variant) else unknown(rows)
        if metric in self._own:
            return self._own[metric]
        if study.patterns is not None:
            patterns = study.patterns[study.patterns["variant"] == variant]
            if patterns["expected_sparsity"].notna().any():
                return layer_metrics.beyond(patterns)
        cut = study.variants.set_index("variant")["threshold"][variant]
        if pd.isna(cut) or not study.facts.is_of_first(variant):
            return unknown(rows)
        spreads = self.magnitudes.spreads
        return layer_metrics.beyond_at(self._zeros(variant), [float(cut)], spreads)

    def _zeros(self, variant: str) -> LayerFigure:
        return layer_metrics.zeros_of(self._study.facts.layers(variant))


def unknown(rows: pd.DataFrame) -> LayerFigure:
    """Return an unknown figure for every layer with prunable weights."""
    names = pd.Index(rows.loc[rows["prunable"], "module_name"])
    nothing = np.full(len(names), np.nan)
    return LayerFigure(names, nothing, nothing)
