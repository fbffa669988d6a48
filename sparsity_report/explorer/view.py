"""What is in view: the layers of a variant or at a level, and where they stand in the map."""

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
from sparsity_report.explorer.control_state import (
    COSTS,
    LIVE,
    MASKED_AT_LEVEL,
    MODEL_ORDER,
    QUALITY,
    SMALLEST_FIRST,
    State,
)
from sparsity_report.explorer.layer_histogram import LayerMagnitudes
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

# Bars up to which each stands for one Transformer block.
_BLOCK_BARS = 32


class Placement(NamedTuple):
    """Where the modules of one model stand that are in view.

    Attributes
    ----------
    inside : numpy.ndarray of bool
        Which rows of the model's layers are in view; all else is of those rows.
    names : numpy.ndarray of str
        Of the modules.
    grid : Grid
        Their cells in the heat map.
    tips : list of str
        What each cell holds, for people.
    bars : dict
        By grouping, the names of the bars, and of each module the place of its bar.
    """

    inside: npt.NDArray[np.bool_]
    names: npt.NDArray[np.object_]
    grid: Grid
    tips: list[str]
    bars: dict[str, tuple[list[str], npt.NDArray[np.intp]]]


class View:
    """A study prepared for looking: what depends on no control is computed once."""

    def __init__(
        self, study: Comparison, bounds: Bounds | None = None, columns: pd.DataFrame | None = None
    ) -> None:
        self.policies: dict[str, Levels] = study.by_policy
        if bounds:
            study = replace(study, levels=bounded_levels(study.weights, tuple(bounds.items())))
            # What other policies leave is not bound.
            self.policies = {GLOBAL: study.by_policy[GLOBAL]}
        self.study, self.bounded = study, bool(bounds)
        self.magnitudes = LayerMagnitudes(study, self.policies)
        self.figures = Figures(study, self.policies, self.magnitudes, columns)
        self.variants: list[str] = list(study.variants["variant"])
        self.names: list[str] = list(dict.fromkeys(study.layers["module_name"]))
        self._layers = {
            name: study.facts.layers(name)
            .assign(dense_bytes=study.facts.dense_bytes(name))
            .reset_index(drop=True)
            for name in self.variants
        }
        self._places = {
            variant: {module: place for place, module in enumerate(rows["module_name"])}
            for variant, rows in self._layers.items()
        }
        self.placed = lru_cache(maxsize=None)(self._place)
        # Both layouts, at the level shown and with nothing pruned.
        self._at_level = lru_cache(maxsize=4)(self._level)
        # Of the whole model and of what is selected.
        self._level_sums = lru_cache(maxsize=8)(self._sums_at_levels)
        self._even_at = lru_cache(maxsize=8)(self._even)

    def scopes(self) -> list[str]:
        """Return what the view can be narrowed to."""
        layers = self.study.layers
        prunable = ["prunable"] if layers["prunable"].any() else []
        return [*prunable, "all", *dict.fromkeys(layers["group"])]

    @property
    def curves(self) -> list[str]:
        """What curves there are, the main one first."""
        measured = [QUALITY] if self.study.facts.tradeoff is not None else []
        return [*measured, *([COSTS] if self.policies else [])]

    def shown(self, state: State) -> str:
        """Name what is shown for people."""
        if not state.live:
            return say("explorer.variant_label", name=short_name(state.variant))
        if state.variant == MASKED_AT_LEVEL:
            return say("explorer.masked_level_label", level=state.sparsity)
        return say("explorer.csr_level_label", level=state.sparsity)

    def model(self, variant: str) -> str:
        """Return the variant whose rows stand for a shown one: at a level, the first."""
        return self.variants[0] if variant in LIVE else variant

    def frame(self, state: State) -> pd.DataFrame:
        """Return every layer of what is shown, with ``dense_bytes``."""
        if state.live:
            return self._at_level(state.variant, state.policy, state.sparsity)
        return self._layers[state.variant]

    def _level(self, variant: str, policy: str, sparsity: float) -> pd.DataFrame:
        rows = self.policies[policy].at(sparsity)
        if variant == MASKED_AT_LEVEL:
            return rows.assign(stored_bytes=rows["dense_bytes"])
        sparse = {"stored_bytes": rows["csr_bytes"], "flops_per_token": rows["csr_flops_per_token"]}
        return rows.assign(**sparse)

    def layers(self, state: State) -> pd.DataFrame:
        """Return the selected layers of the shown variant, else all in view, as sorted."""
        frame = self.frame(state)
        keep = _in_scope(frame, state.modules)
        if state.selection:
            keep = frame["module_name"].isin(state.selection)
        rows = frame[keep].reset_index(drop=True)
        if state.sort == MODEL_ORDER:
            return rows
        by = pd.Series(self.values(state, rows))
        order = by.sort_values(
            ascending=state.sort == SMALLEST_FIRST, kind="stable", na_position="last"
        )
        return rows.loc[order.index].reset_index(drop=True)

    def sparsest(self, state: State) -> str | None:
        """Return the layer to look at first: the one with the largest share of zeros."""
        rows = self.layers(state)
        if rows.empty:
            return None
        shares = counted(rows, "sparsity")
        return str(rows["module_name"].iloc[int(np.nan_to_num(shares, nan=-1).argmax())])

    def placement(self, state: State) -> Placement:
        """Return where the modules in view of what is shown stand."""
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
        return Placement(
            inside,
            rows["module_name"].to_numpy(dtype=object),
            grid,
            [_tip(names) for names in grid.members],
            {grouping: _coded(names) for grouping, names in bars.items()},
        )

    def cell_values(self, state: State) -> Floats:
        """Return the metric per cell of the map, zeros among the weights of its matrices."""
        grid = self.placement(state).grid
        return self._summed(state, grid.codes, len(grid.cells), weights=True)

    def bar_values(self, state: State) -> dict[str, float]:
        """Return the metric per bar of what is selected, zeros among all parameters."""
        placement = self.placement(state)
        names, codes = placement.bars[state.grouping]
        if self.figures.of_whole_parts(state.metric):
            return dict(zip(names, self._alike(state, codes, len(names)), strict=True))
        if not state.selection:
            values = self._summed(state, codes, len(names))
            return dict(zip(names, values.tolist(), strict=True))
        chosen = np.isin(placement.names, list(state.selection))
        # What is not selected is of a bar that is not drawn.
        values = self._summed(state, np.where(chosen, codes, len(names)), len(names) + 1)[:-1]
        empty = np.bincount(codes[chosen], minlength=len(names)) == 0
        return dict(zip(names, np.where(empty, np.nan, values).tolist(), strict=True))

    def values(self, state: State, rows: pd.DataFrame) -> Floats:
        """Return the metric of layers of what is shown; NaN where it is unknown."""
        if not self.figures.is_figure(state.metric):
            return counted(rows, state.metric)
        figure = self.figures.of(state, self.frame(state))
        return _means(*_aligned(figure, rows["module_name"]))

    def layer_values(self, state: State) -> Floats:
        """Return a metric of counts of each layer in view, as bars have it of several."""
        rows = self.frame(state)[self.placement(state).inside]
        return _values(state.metric, _parts(rows, state.metric))

    def _summed(
        self, state: State, codes: npt.NDArray[np.intp], size: int, *, weights: bool = False
    ) -> Floats:
        """Return the metric of layers that share a code; what is unknown of one is of all."""
        inside, frame = self.placement(state).inside, self.frame(state)
        figure = self.figures.is_figure(state.metric)
        if figure:
            parts = _aligned(self.figures.of(state, frame), frame["module_name"])
        else:
            parts = _parts(frame, state.metric, weights=weights)
        sums = [np.bincount(codes, part[inside], size).astype(float) for part in parts]
        return _means(*sums) if figure else _values(state.metric, sums)

    def _alike(self, state: State, codes: npt.NDArray[np.intp], size: int) -> list[float]:
        """Return the metric of layers that share a code where they are of one part."""
        frame, inside = self.frame(state), self.placement(state).inside
        values = self.values(state, frame)[inside]
        of = [set(values[(codes == code) & ~np.isnan(values)].tolist()) for code in range(size)]
        return [found.pop() if len(found) == 1 else math.nan for found in of]

    def furthest(self, state: State, codes: npt.NDArray[np.intp], size: int) -> float:
        """Return how far from 0 a figure of layers that share a code is at any level."""
        found = self.figures.levels(state)
        if found is None:
            return 0.0
        names = self.frame(state)["module_name"][self.placement(state).inside]
        places = found.names.get_indexer(pd.Index(names))
        part = places >= 0
        sums = np.zeros((size, found.amounts.shape[1]))
        np.add.at(sums, codes[part], found.amounts[places[part]])
        sizes = np.bincount(codes[part], found.sizes[places[part]], size)
        with np.errstate(invalid="ignore", divide="ignore"):
            away = np.abs(sums / sizes[:, None])
        return float(np.max(away, initial=0.0, where=np.isfinite(away)))

    def start(self, state: State) -> float:
        """Return the lowest level of the policy."""
        levels = self.levels(state)
        return levels.sparsities[0] if levels else 0.0

    def levels(self, state: State) -> Levels | None:
        """Return the levels of the policy; None where the study keeps none."""
        return self.policies.get(state.policy)

    def curve(self, state: State) -> pd.DataFrame | None:
        """Return what is selected, or the whole model, at every level of the policy."""
        if not self.policies:
            return None
        return self._level_sums(state.policy, state.selection)

    def _sums_at_levels(self, policy: str, selection: tuple[str, ...]) -> pd.DataFrame:
        return self.study.by_policy[policy].sums(selection)

    def sums(self, state: State) -> pd.Series[Any]:
        """Return what is selected of what is shown, or all of it, under the names of a level."""
        if not state.live:
            return self.study.facts.sums(state.variant, state.selection)
        levels, curve = self.levels(state), self.curve(state)
        assert levels is not None
        assert curve is not None
        return curve.iloc[levels.sparsities.index(state.sparsity)]

    def break_even(self, selection: tuple[str, ...] = ()) -> float | None:
        """Return the sparsity from which CSR of what is selected, or of all, is smaller."""
        return self._even_at(selection) if self.policies else None

    def _even(self, selection: tuple[str, ...]) -> float | None:
        facts = self.study.facts
        variant = self.variants[0] if selection else facts.baseline
        return facts.break_even(variant, modules=selection)

    def layouts(self, state: State) -> pd.DataFrame:
        """Return ``bytes`` and ``ratio`` to dense by layout of the matrices looked at."""
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
        """Return the layer looked at, of what is shown; None where that has none of the name."""
        model = self.model(state.variant)
        place = self._places[model].get(state.detail or "")
        return None if place is None else self.frame(state).iloc[place]

    def brushed(self, state: State, blocks: Sequence[str], projections: Sequence[str]) -> list[str]:
        """Return the names behind the cells of a brush."""
        place = self.placement(state)
        hit = [
            block_name(cell.block) in blocks and cell.projection in projections
            for cell in place.grid.cells
        ]
        return list(place.names[np.array(hit, dtype=bool)[place.grid.codes]]) if hit else []


@lru_cache(maxsize=16)
def bounded_levels(
    weights: Weights | None, bounds: tuple[tuple[str, float | tuple[float, float]], ...]
) -> pd.DataFrame:
    """Return the table of levels within bounds.

    Raises
    ------
    SparsityReportError
        There are no weights to rank, or a bound is none, or they leave no room for any level.
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
    """Return the label of a block for people."""
    return say("explorer.block_outside") if block == OUTSIDE else block


def counted(rows: pd.DataFrame, metric: str) -> Floats:
    """Return a metric of counts of layers, zeros among the weights; NaN where it is unknown."""
    return _values(metric, _parts(rows, metric, weights=True))


def _parts(rows: pd.DataFrame, metric: str, *, weights: bool = False) -> list[Floats]:
    """Return the columns that a metric is made of; their sums make the metric of a sum."""
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
    """Return amounts and sizes of modules; what the figure does not speak of adds nothing."""
    places = pd.Index(figure.amounts.index).get_indexer(pd.Index(names))
    return [
        np.where(places >= 0, part.to_numpy(dtype=float)[places], 0.0)
        if len(part)
        else 0.0 * places
        for part in figure
    ]


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
