"""Layers in view, of a variant or at a level, with their values and their places in the map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.bounds import Bounds
from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer.control_state import COSTS, LIVE, QUALITY, State, order_of
from sparsity_report.explorer.map_metrics import Figures
from sparsity_report.sparse.shares import ratio, zero_shares
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.heatmap_grid import OUTSIDE, Grid, block_labels
from sparsity_report.study.derived.layer_metrics import LayerFigure
from sparsity_report.study.derived.policy_names import GLOBAL
from sparsity_report.study.levels.levels import Levels
from sparsity_report.study.levels.sweep import level_table
from sparsity_report.study.storage_layouts import layer_ends
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.weights.weights import Weights
from sparsity_report.words.display_names import group_name
from sparsity_report.words.number_format import count
from sparsity_report.words.sentences import say

Floats = npt.NDArray[np.float64]

# Most bars with one Transformer block each.
_BLOCK_BARS = 32


class Placement(NamedTuple):
    """Places of the modules in view in the heat map and the bars.

    Attributes
    ----------
    inside : numpy.ndarray of bool
        Rows of the model's layers that are in view.
    names : numpy.ndarray of str
        Names of the modules.
    grid : Grid
        Cells of the heat map.
    tips : list of str
        Tooltip of each cell.
    bars : dict
        By grouping, the names of the bars, and the index of each module's bar.
    """

    inside: npt.NDArray[np.bool_]
    names: npt.NDArray[np.object_]
    grid: Grid
    tips: list[str]
    bars: dict[str, tuple[list[str], npt.NDArray[np.intp]]]


class View:
    """A study prepared for the explorer; values that depend on no control are computed once."""

    def __init__(
        self, study: Comparison, bounds: Bounds | None = None, columns: pd.DataFrame | None = None
    ) -> None:
        self.policies: dict[str, Levels] = study.by_policy
        if bounds:
            study = replace(study, levels=bounded_levels(study.weights, tuple(bounds.items())))
            # Bounds apply to global pruning only.
            self.policies = {GLOBAL: study.by_policy[GLOBAL]}
        self.study, self.bounded = study, bool(bounds)
        self.figures = Figures(study, self.policies, columns)
        self.magnitudes = self.figures.magnitudes
        self.variants: list[str] = list(study.variants["variant"])
        self.names: list[str] = list(dict.fromkeys(study.layers["module_name"]))
        self._layers: dict[str, pd.DataFrame] = {}
        for name in self.variants:
            rows = study.facts.layers(name).assign(dense_bytes=study.facts.dense_bytes(name))
            self._layers[name] = rows.reset_index(drop=True)
        self.placed = lru_cache(maxsize=None)(self._place)
        # Both layouts, at the level in view and without pruning.
        self._at_level = lru_cache(maxsize=4)(self._level)
        # Sums of the model and of the selection.
        self._level_sums = lru_cache(maxsize=8)(
            lambda policy, modules: study.by_policy[policy].sums(modules)
        )
        self._even_at = lru_cache(maxsize=8)(self._even)

    def scopes(self) -> list[str]:
        """Return the choices of modules in view."""
        layers = self.study.layers
        prunable = ["prunable"] if layers["prunable"].any() else []
        return [*prunable, "all", *dict.fromkeys(layers["group"])]

    @property
    def curves(self) -> list[str]:
        """Available curves, the main one first."""
        measured = [QUALITY] if self.study.tradeoff is not None else []
        return [*measured, *([COSTS] if self.policies else [])]

    def shown(self, state: State) -> str:
        """Return the name of the variant or level in view."""
        if not state.live:
            return say("explorer.variant_label", name=short_name(state.variant))
        key = "explorer.masked_level_label" if state.masked else "explorer.csr_level_label"
        return say(key, level=state.sparsity)

    def model(self, variant: str) -> str:
        """Return the variant whose model is in view: at a level, the first one."""
        return self.variants[0] if variant in LIVE else variant

    def frame(self, state: State) -> pd.DataFrame:
        """Return every layer of the variant or level in view, with ``dense_bytes``."""
        if state.live:
            return self._at_level(state.masked, state.policy, state.sparsity)
        return self._layers[state.variant]

    def _level(self, masked: bool, policy: str, sparsity: float) -> pd.DataFrame:
        rows = self.policies[policy].at(sparsity)
        if masked:
            return rows.assign(stored_bytes=rows["dense_bytes"])
        sparse = {"stored_bytes": rows["csr_bytes"], "flops_per_token": rows["csr_flops_per_token"]}
        return rows.assign(**sparse)

    def layers(self, state: State) -> pd.DataFrame:
        """Return the selected layers, or all layers in view, sorted."""
        frame = self.frame(state)
        keep = _in_scope(frame, state.modules)
        if state.selection:
            keep = frame["module_name"].isin(state.selection)
        rows = frame[keep]
        order = order_of(self.values(state, rows).tolist(), state.sort)
        return rows.iloc[order].reset_index(drop=True)

    def sparsest(self, state: State) -> str | None:
        """Return the layer with the highest sparsity."""
        rows = self.layers(state)
        if rows.empty:
            return None
        shares = counted(rows, "sparsity")
        return str(rows["module_name"].iloc[int(np.nan_to_num(shares, nan=-1).argmax())])

    def placement(self, state: State) -> Placement:
        """Return the places of the modules in view."""
        return self.placed(self.model(state.variant), state.modules)

    def _place(self, model: str, modules: str) -> Placement:
        frame = self._layers[model]
        inside = _in_scope(frame, modules).to_numpy()
        rows = frame[inside]
        grid = Grid(rows)
        bars = {
            "group": [group_name(str(group)) for group in rows["group"]],
            "projection": [grid.cells[code].projection for code in grid.codes],
            "block": _block_bars(rows),
        }
        names, tips = rows["module_name"].to_numpy(dtype=object), list(map(_tip, grid.members))
        coded = {grouping: _coded(labels) for grouping, labels in bars.items()}
        return Placement(inside, names, grid, tips, coded)

    def cell_values(self, state: State) -> Floats:
        """Return the metric per cell of the map; sparsity is that of its weights."""
        grid = self.placement(state).grid
        return self._summed(state, grid.codes, len(grid.cells), weights=True)

    def bar_values(self, state: State) -> dict[str, float]:
        """Return the metric per bar of the selection; sparsity is that of all parameters."""
        placement = self.placement(state)
        names, codes = placement.bars[state.grouping]
        if self.figures.is_of_parts(state.metric):
            return dict(zip(names, self._alike(state, codes, len(names)), strict=True))
        if not state.selection:
            values = self._summed(state, codes, len(names))
            return dict(zip(names, values.tolist(), strict=True))
        chosen = np.isin(placement.names, list(state.selection))
        # Modules outside the selection go to a bar that is not drawn.
        values = self._summed(state, np.where(chosen, codes, len(names)), len(names) + 1)[:-1]
        empty = np.bincount(codes[chosen], minlength=len(names)) == 0
        return dict(zip(names, np.where(empty, np.nan, values).tolist(), strict=True))

    def values(self, state: State, rows: pd.DataFrame) -> Floats:
        """Return the metric of layers in view; NaN if it is unknown."""
        if not self.figures.is_figure(state.metric):
            return counted(rows, state.metric)
        figure = self.figures.find(state, self.frame(state))
        return _means(*_aligned(figure, rows["module_name"]))

    def layer_values(self, state: State) -> Floats:
        """Return a count of each layer in view as bars define it."""
        rows = self.frame(state)[self.placement(state).inside]
        return _values(state.metric, _parts(rows, state.metric))

    def _summed(
        self, state: State, codes: npt.NDArray[np.intp], size: int, *, weights: bool = False
    ) -> Floats:
        """Return the metric of layers with a common code; unknown if one of them is."""
        inside, frame = self.placement(state).inside, self.frame(state)
        figure = self.figures.is_figure(state.metric)
        if figure:
            parts = _aligned(self.figures.find(state, frame), frame["module_name"])
        else:
            parts = _parts(frame, state.metric, weights=weights)
        sums = [np.bincount(codes, part[inside], size).astype(float) for part in parts]
        return _means(*sums) if figure else _values(state.metric, sums)

    def _alike(self, state: State, codes: npt.NDArray[np.intp], size: int) -> list[float]:
        """Return the metric of layers with a common code if all of them belong to one part."""
        frame, inside = self.frame(state), self.placement(state).inside
        values = self.values(state, frame)[inside]
        known = [set(values[(codes == code) & ~np.isnan(values)].tolist()) for code in range(size)]
        return [distinct.pop() if len(distinct) == 1 else math.nan for distinct in known]

    def furthest(self, state: State, codes: npt.NDArray[np.intp], size: int) -> float:
        """Return the largest absolute figure of layers with a common code at any level."""
        figure = self.figures.levels(state)
        if figure is None:
            return 0.0
        names = self.frame(state)["module_name"][self.placement(state).inside]
        places = figure.names.get_indexer(pd.Index(names))
        part = places >= 0
        sums = np.zeros((size, figure.amounts.shape[1]))
        np.add.at(sums, codes[part], figure.amounts[places[part]])
        sizes = np.bincount(codes[part], figure.sizes[places[part]], size)
        with np.errstate(invalid="ignore", divide="ignore"):
            away = np.abs(sums / sizes[:, None])
        return float(np.max(away, initial=0.0, where=np.isfinite(away)))

    def start(self, state: State) -> float:
        """Return the lowest level of the policy."""
        levels = self.levels(state)
        return levels.sparsities[0] if levels else 0.0

    def levels(self, state: State) -> Levels | None:
        """Return the levels of the policy; None if the study has none."""
        return self.policies.get(state.policy)

    def curve(self, state: State) -> pd.DataFrame | None:
        """Return sums over the selection, or the model, at every level of the policy."""
        if not self.policies:
            return None
        return self._level_sums(state.policy, state.selection)

    def sums(self, state: State) -> pd.Series[Any]:
        """Return sums over the selection, or the model, of the variant or level in view."""
        if not state.live:
            return self.study.facts.sums(state.variant, state.selection)
        levels, curve = self.levels(state), self.curve(state)
        assert levels is not None
        assert curve is not None
        return curve.iloc[levels.sparsities.index(state.sparsity)]

    def break_even(self, selection: tuple[str, ...] = ()) -> float | None:
        """Return the sparsity from which CSR of the selection, or of the model, is smaller."""
        return self._even_at(selection) if self.policies else None

    def _even(self, selection: tuple[str, ...]) -> float | None:
        facts = self.study.facts
        variant = self.variants[0] if selection else facts.baseline
        return facts.break_even(variant, modules=selection)

    def layouts(self, state: State) -> pd.DataFrame:
        """Return ``bytes`` and ``ratio`` to dense by layout of the layer in detail."""
        if not state.live:
            rows = self.study.facts.storage(state.variant, "layer")
            return rows[rows["name"] == state.detail]
        ends, row = self._ends[self._ends["name"] == state.detail], self.row(state)
        nonzero = pd.NA if row is None else row["weight_nonzero"]
        size = ends["empty"] + (ends["full"] - ends["empty"]) * nonzero // ends["total"]
        ratios = [ratio(*pair) for pair in zip(size, ends["dense"], strict=True)]
        return pd.DataFrame({"bytes": size, "ratio": ratios})

    @cached_property
    def _ends(self) -> pd.DataFrame:
        return layer_ends(self._layers[self.variants[0]]).reset_index("name")

    def row(self, state: State) -> pd.Series | None:
        """Return the row of the layer in detail; None if the variant does not have it."""
        frame = self.frame(state)
        rows = frame[frame["module_name"] == state.detail]
        return None if rows.empty else rows.iloc[0]

    def brushed(self, state: State, blocks: Sequence[str], projections: Sequence[str]) -> list[str]:
        """Return the modules in the cells of a brush."""
        place = self.placement(state)
        cells = [(block_name(cell.block), cell.projection) for cell in place.grid.cells]
        hit = np.array([b in blocks and p in projections for b, p in cells], dtype=bool)
        return list(place.names[hit[place.grid.codes]])


@lru_cache(maxsize=16)
def bounded_levels(
    weights: Weights | None, bounds: tuple[tuple[str, float | tuple[float, float]], ...]
) -> pd.DataFrame:
    """Return the table of levels within bounds.

    Raises
    ------
    SparsityReportError
        If there are no weights to rank, a bound is invalid, or no level is within them.
    """
    if weights is None:
        raise SparsityReportError(
            say("explorer.bound_needs_weights", code="sr.explore(study, weights=sr.load(…))")
        )
    table = level_table(weights, dict(bounds))
    if table is None:
        raise SparsityReportError(say("explorer.bound_nothing_prunable"))
    return table


def block_name(block: str) -> str:
    """Return the label of a block."""
    return say("explorer.block_outside") if block == OUTSIDE else block


def counted(rows: pd.DataFrame, metric: str) -> Floats:
    """Return a count of layers; sparsity is that of weights. NaN if it is unknown."""
    return _values(metric, _parts(rows, metric, weights=True))


def _parts(rows: pd.DataFrame, metric: str, *, weights: bool = False) -> list[Floats]:
    """Return the columns of a metric; the metric of a sum follows from their sums."""
    part = "weight_" if weights else ""
    columns = {
        "sparsity": (f"{part}total", f"{part}nonzero"),
        "bytes_ratio": ("stored_bytes", "dense_bytes"),
    }.get(metric, (metric,))
    return [rows[column].to_numpy(dtype=float, na_value=np.nan) for column in columns]


def _values(metric: str, parts: list[Floats]) -> Floats:
    values: Floats = parts[0]
    if metric == "sparsity":
        values = zero_shares(*parts)
    elif metric == "bytes_ratio":
        values = np.array([ratio(*pair) for pair in zip(*parts, strict=True)], dtype=float)
    return values


def _aligned(figure: LayerFigure, names: pd.Series[str]) -> list[Floats]:
    """Return amounts and sizes of modules, 0 for those that the figure lacks."""
    places = figure.names.get_indexer(pd.Index(names))
    # The last element serves the modules that the figure lacks, whose place is -1.
    return [np.append(part, 0.0)[places] for part in (figure.amounts, figure.sizes)]


def _means(amounts: Floats, sizes: Floats) -> Floats:
    means: Floats = np.divide(amounts, sizes, out=np.full(len(sizes), np.nan), where=sizes != 0)
    return means


def _in_scope(frame: pd.DataFrame, modules: str) -> pd.Series[bool]:
    if modules == "all":
        return pd.Series(True, index=frame.index)
    return frame["prunable"] if modules == "prunable" else frame["group"] == modules


def _tip(names: Sequence[str]) -> str:
    first, more = clip(names[0], 90), len(names) - 1
    return say("explorer.map_cell_more", name=first, count=count(more)) if more else first


def _coded(names: Sequence[str]) -> tuple[list[str], npt.NDArray[np.intp]]:
    codes, distinct = pd.factorize(np.array(names, dtype=object))
    return list(distinct), codes


def _block_bars(rows: pd.DataFrame) -> list[str]:
    blocks = rows["block"].astype("Int64")
    numbers = sorted(blocks.dropna().unique())
    labels = block_labels(numbers, max(1, -(-len(numbers) // _BLOCK_BARS)))
    return [block_name(OUTSIDE if pd.isna(block) else labels[int(block)]) for block in blocks]
