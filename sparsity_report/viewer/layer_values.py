"""Values of layers in view: of a variant or at a level, in a byte layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.study.comparison import Study
from sparsity_report.study.derived import layer_metrics
from sparsity_report.study.derived.layer_metrics import LayerFigure
from sparsity_report.study.heatmap_grid import Grid
from sparsity_report.study.levels.levels import dense_sizes, in_layout
from sparsity_report.study.levels.sweep import thresholds
from sparsity_report.study.policy_names import GLOBAL
from sparsity_report.viewer.payload import Codes, Floats, common_ratio
from sparsity_report.viewer.study_payload import aligned, spreads

#: The variant in view while a level is.
AT_LEVEL = "at level"


class State(NamedTuple):
    """Values of an explorer's traits."""

    policy: str
    sparsity: float
    variant: str
    byte_layout: str
    metric: str
    against: str
    modules: str
    grouping: str
    sort: str
    curve: str
    search: str
    selection: tuple[str, ...]
    detail: str | None

    @property
    def is_level(self) -> bool:
        """True if a level is in view, not a variant."""
        return self.variant == AT_LEVEL


class LayerValues:
    """Values of the layers of a study.

    Parameters
    ----------
    study : Study
    figures : mapping of str to LayerFigure
        Figures that do not depend on the variant.
    """

    def __init__(self, study: Study, figures: Mapping[str, LayerFigure]) -> None:
        self._study, self._figures = study, figures
        self._first = str(study.variants["variant"].iloc[0])

    def rows(self, state: State) -> pd.DataFrame:
        """Return every layer of the variant or level in view.

        The columns are those of ``study.layers`` or of a level, with bytes and FLOPs in the byte
        layout, and ``dense_bytes``.
        """
        described = self._study.facts.layers(self._first if state.is_level else state.variant)
        rows = described = described.reset_index(drop=True)
        if state.is_level:
            rows = self._study.by_policy[state.policy].at(state.sparsity)
            described = described.assign(weight_nonzero=rows["weight_nonzero"])
            dense = in_layout(described, "dense")["stored_bytes"]
        else:
            sparse = rows["prunable"] & rows["layout"].eq("csr")
            dense = rows["stored_bytes"].mask(sparse, dense_sizes(rows))
            is_csr = self._study.facts.layouts[state.variant] == "csr"
            if state.byte_layout == ("csr" if is_csr else "dense"):
                return rows.assign(dense_bytes=dense)
        return rows.assign(dense_bytes=dense, **in_layout(described, state.byte_layout))

    def in_view(self, state: State, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the selected layers, or those that the search finds in the scope, sorted."""
        rows = matching(rows, state.modules, state.selection, state.search)

        def values(key: str) -> Floats:
            return self.values(state._replace(metric=key), rows)

        return arranged(rows, state.sort, values)

    def values(self, state: State, rows: pd.DataFrame, codes: Codes = None) -> Floats:
        """Return the metric of layers, or of those with a common code; NaN where unknown."""
        amounts, sizes = self._parts(state, rows)
        if sizes is not None:
            amounts = np.where(sizes == 0, 0.0, amounts)
        return common_ratio(amounts, sizes, codes, is_root=state.metric == "deviation")

    def cells(self, state: State) -> tuple[pd.DataFrame, Grid]:
        """Return ``block``, ``projection`` and ``value`` of the cells of the map, and its grid."""
        rows = self.rows(state)
        inside = in_scope(rows, state.modules)
        grid = Grid(inside)
        frame = pd.DataFrame(grid.cells, columns=["block", "projection"])
        return frame.assign(value=self.values(state, inside, grid.codes)), grid

    def _parts(self, state: State, rows: pd.DataFrame) -> tuple[Floats, Floats | None]:
        """Return amounts and sizes of the metric; the value of several layers is their ratio."""

        def numbers(column: str) -> Floats:
            values: Floats = rows[column].to_numpy(dtype=float, na_value=np.nan)
            return values

        metric, weights = state.metric, numbers("weight_total")
        if metric == "sparsity":
            return weights - numbers("weight_nonzero"), weights
        if metric == "bytes_ratio":
            return numbers("stored_bytes"), numbers("dense_bytes")
        if metric in rows:
            return numbers(metric), None
        names = pd.Index(rows["module_name"])
        if metric in self._figures:
            return aligned(self._figures[metric], names)
        is_first = state.is_level or self._study.facts.is_of_first(state.variant)
        known = spreads(self._study) if is_first else {}
        if metric == "deviation":
            squares = np.array([known.get(name, np.nan) for name in names]) ** 2
            return squares * weights, weights
        zeros = layer_metrics.zeros_of(rows)
        if metric == "difference":
            before = layer_metrics.zeros_of(self._study.facts.layers(state.against))
            return aligned(layer_metrics.difference(zeros, before), names)
        return aligned(layer_metrics.beyond_at(zeros, self._threshold(state), known), names)

    def _threshold(self, state: State) -> float | None:
        """Return the threshold that all layers share; None if there is none."""
        weights: Any = self._study.weights
        if not state.is_level:
            cut = self._study.variants.set_index("variant")["threshold"][state.variant]
            return None if pd.isna(cut) else float(cut)
        if state.policy != GLOBAL or weights is None:
            return None
        return thresholds(weights, [state.sparsity])[0]


def in_scope(rows: pd.DataFrame, modules: str) -> pd.DataFrame:
    """Return the layers of a group, the prunable ones, or all."""
    if modules == "all":
        return rows
    return rows[rows["prunable"] if modules == "prunable" else rows["group"] == modules]


def matching(
    rows: pd.DataFrame, modules: str, selection: Sequence[str], search: str
) -> pd.DataFrame:
    """Return the selected layers, or those that the search finds in the scope."""
    if selection:
        return rows[rows["module_name"].isin(selection)]
    rows = in_scope(rows, modules)
    for word in search.casefold().split():
        rows = rows[rows["module_name"].str.casefold().str.contains(word, regex=False)]
    return rows


def arranged(rows: pd.DataFrame, sort: str, values: Callable[[str], Any]) -> pd.DataFrame:
    """Return layers sorted by their names or by values of a metric, unknown ones last."""
    key, is_down = sort.removeprefix("-"), sort.startswith("-")
    if key:
        column = rows["module_name"] if key == "module" else pd.Series(values(key), rows.index)
        rows = rows.loc[column.sort_values(ascending=not is_down, kind="stable").index]
    return rows.reset_index(drop=True)
