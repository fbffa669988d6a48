"""Magnitudes of one layer: histogram, threshold, and zeros expected of a Gaussian."""

import math
from collections.abc import Mapping
from functools import cached_property

import pandas as pd

from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.draw.histogram_rows import histogram_rows, outline_rows
from sparsity_report.draw.marks import Rows
from sparsity_report.explorer.control_state import State
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.histograms import module_magnitudes
from sparsity_report.study.derived.policy_names import GLOBAL, LAYERWISE
from sparsity_report.study.levels.levels import Levels
from sparsity_report.study.levels.sweep import layer_threshold, thresholds
from sparsity_report.study.patterns import expected_sparsity
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.sentences import say


class LayerMagnitudes:
    """Magnitudes of the layers of the first variant's model, if its weights are loaded."""

    def __init__(self, study: Comparison, policies: Mapping[str, Levels]) -> None:
        self._study, self._policies = study, policies
        self._thresholds = study.variants.set_index("variant")["threshold"]

    @cached_property
    def counts(self) -> dict[str, Magnitudes]:
        """Magnitudes per prunable module before pruning; empty without the weights."""
        weights = self._study.weights
        return {} if weights is None else module_magnitudes(weights)

    @cached_property
    def spreads(self) -> dict[str, float]:
        """Spread of the weights of each module with a single weight tensor."""
        alone = ((name, counts) for name, counts in self.counts.items() if name in self._one_tensor)
        return {name: counts.root_mean_square for name, counts in alone if counts.total}

    def find(self, state: State) -> Magnitudes | None:
        """Return the magnitudes of the layer in detail; None if they are unknown."""
        known = state.live or self._study.facts.is_of_first(state.variant)
        return self.counts.get(state.detail or "") if known else None

    def threshold(self, state: State) -> float | None:
        """Return the largest magnitude that the variant or the level in view prunes."""
        if not state.live:
            cut = self._thresholds[state.variant]
            return None if pd.isna(cut) else float(cut)
        if state.bounds:  # each layer has another threshold
            return None
        if state.policy == GLOBAL:
            return self.thresholds.get(state.sparsity)
        magnitudes = self.find(state)
        # A pattern has no threshold, and a module of several tensors has several.
        if state.policy != LAYERWISE or magnitudes is None or state.detail not in self._one_tensor:
            return None
        return layer_threshold(magnitudes, state.sparsity)

    @cached_property
    def _one_tensor(self) -> set[str]:
        rows = self._study.facts.layers(str(self._study.variants["variant"].iloc[0]))
        sizes = zip(rows["module_name"], rows["shape"], rows["weight_total"], strict=True)
        return {name for name, shape, total in sizes if math.prod(shape) == total}

    @cached_property
    def thresholds(self) -> dict[float, float | None]:
        """Largest magnitude that each level of global pruning prunes; None if it prunes nothing."""
        weights, levels = self._study.weights, self._policies.get(GLOBAL)
        if weights is None or levels is None:
            return {}
        at_levels = thresholds(weights, levels.sparsities)
        return dict(zip(levels.sparsities, at_levels, strict=True))

    def expected(self, state: State) -> float | None:
        """Return the sparsity of a Gaussian with the spread of the layer at its threshold."""
        magnitudes, threshold = self.find(state), self.threshold(state)
        if magnitudes is not None and threshold is not None and magnitudes.counts.sum():
            return expected_sparsity(threshold, magnitudes.root_mean_square)
        frame = self._study.patterns
        if frame is None or state.live:
            return None
        rows = frame[(frame["variant"] == state.variant) & (frame["module_name"] == state.detail)]
        mean = rows["expected_sparsity"].mean()
        return None if pd.isna(mean) else float(mean)

    def rows(self, state: State) -> dict[str, Rows]:
        """Return the rows of the histogram, with another pruning's threshold or another layer."""
        outline: Rows = []
        magnitudes = self.find(state)
        if magnitudes is None:
            return {"magnitudes": [], "threshold": [], "outline": []}
        threshold = self.threshold(state)
        bars, marks = histogram_rows(magnitudes, threshold, to_a_bucket=state.live)
        if bars and (other := self._other_threshold(state)) is not None:
            label = say("format.name_value", name=short_name(state.against), value=other)
            left = other > 0.55 * bars[-1]["to"]
            marks.append({"at": other, "label": label, "left": left, "other": True})
        if (module := self.other_layer(state)) is not None:
            shrunk, outline = outline_rows(magnitudes, threshold, self.counts[module])
            bars = [bar | {"height": shrunk * bar["height"]} for bar in bars]
        return {"magnitudes": bars, "threshold": marks, "outline": outline}

    def _other_threshold(self, state: State) -> float | None:
        """Return the threshold of the variant to compare with, if it has one for the same model."""
        if state.against == state.variant:
            return None
        other = state._replace(variant=state.against)
        return None if self.find(other) is None else self.threshold(other)

    def other_layer(self, state: State) -> str | None:
        """Return the selected layer if exactly one is selected besides the layer in detail."""
        others = [name for name in state.selection if name != state.detail]
        return others[0] if len(others) == 1 and others[0] in self.counts else None

    def why_none(self, prunable: bool) -> str:
        """Return the reason why there is no histogram."""
        if not prunable:
            return say("explorer.histogram_prunable_only")
        if self._study.weights is None:
            code = "sr.explore(study, weights=sr.load(…))"
            return say("explorer.histogram_needs_weights", code=code)
        return say("explorer.histogram_unavailable")
