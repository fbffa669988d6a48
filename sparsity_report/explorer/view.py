"""What is in view: the layers of a variant or at a level, and where they stand in the map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.sparse.shares import ratio, zero_shares
from sparsity_report.study.grid import OUTSIDE, Grid, block_labels
from sparsity_report.study.levels import Levels
from sparsity_report.study.storage import layer_ends
from sparsity_report.study.study import Comparison
from sparsity_report.words.names import clip, group_name
from sparsity_report.words.numbers import count
from sparsity_report.words.sentences import message, say

Floats = npt.NDArray[np.float64]

LIVE = (MASKED_AT_LEVEL, CSR_AT_LEVEL) = (message("Masked at level"), message("CSR at level"))
SORTS = (MODEL_ORDER, LARGEST_FIRST, SMALLEST_FIRST) = (
    message("model order"),
    message("largest first"),
    message("smallest first"),
)
GROUPINGS = (message("group"), message("projection"), message("block"))
# Bars up to which each stands for one Transformer block.
_BLOCK_BARS = 32


class State(NamedTuple):
    """What the controls say."""

    variant: str
    sparsity: float
    metric: str
    modules: str
    grouping: str
    sort: str
    log: bool
    selection: tuple[str, ...]
    detail: str | None
    width: int

    @property
    def live(self) -> bool:
        """Whether a level is shown, not a variant."""
        return self.variant in LIVE


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

    def __init__(self, study: Comparison) -> None:
        self.study = study
        self.levels: Levels | None = study.by_level
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
        self._storage: dict[str, pd.DataFrame] = {}
        self._placements: dict[tuple[str, str], Placement] = {}
        self._at_level: dict[tuple[str, float], pd.DataFrame] = {}

    def scopes(self) -> list[str]:
        """Return what the view can be narrowed to."""
        layers = self.study.layers
        prunable = ["prunable"] if layers["prunable"].any() else []
        return [*prunable, "all", *dict.fromkeys(layers["group"])]

    def shown(self, state: State) -> str:
        """Name what is shown for people."""
        if not state.live:
            return clip(state.variant, 40)
        if state.variant == MASKED_AT_LEVEL:
            return say("Masked at {level:level}", level=state.sparsity)
        return say("CSR at {level:level}", level=state.sparsity)

    def model(self, variant: str) -> str:
        """Return the variant whose rows stand for a shown one: at a level, the first."""
        return self.variants[0] if variant in LIVE else variant

    def frame(self, variant: str, sparsity: float) -> pd.DataFrame:
        """Return every layer of a variant, or at the level, with ``dense_bytes``."""
        if variant not in LIVE:
            return self._layers[variant]
        assert self.levels is not None
        if (variant, sparsity) not in self._at_level:
            # The level before is not asked for again; what nothing is pruned from is.
            self._at_level = {key: rows for key, rows in self._at_level.items() if key[1] == 0}
            rows = self.levels.at(sparsity)
            sparse = rows["flops_per_token"].where(
                ~rows["prunable"], rows["useful_flops_per_token"]
            )
            self._at_level |= {
                (MASKED_AT_LEVEL, sparsity): rows.assign(stored_bytes=rows["dense_bytes"]),
                (CSR_AT_LEVEL, sparsity): rows.assign(
                    stored_bytes=rows["csr_bytes"], flops_per_token=sparse
                ),
            }
        return self._at_level[variant, sparsity]

    def layers(self, state: State) -> pd.DataFrame:
        """Return the selected layers of the shown variant, else all in view, as sorted."""
        frame = self.frame(state.variant, state.sparsity)
        keep = _in_scope(frame, state.modules)
        if state.selection:
            keep = frame["module_name"].isin(state.selection)
        rows = frame[keep].reset_index(drop=True)
        if state.sort == MODEL_ORDER:
            return rows
        by = pd.Series(layer_values(rows, state.metric))
        order = by.sort_values(
            ascending=state.sort == SMALLEST_FIRST, kind="stable", na_position="last"
        )
        return rows.loc[order.index].reset_index(drop=True)

    def sparsest(self, state: State) -> str | None:
        """Return the layer to look at first: the one with the largest share of zeros."""
        rows = self.layers(state)
        if rows.empty:
            return None
        shares = layer_values(rows, "sparsity")
        return str(rows["module_name"].iloc[int(np.nan_to_num(shares, nan=-1).argmax())])

    def placement(self, variant: str, modules: str) -> Placement:
        """Return where the modules in view of what is shown stand."""
        model = self.model(variant)
        if (model, modules) not in self._placements:
            frame = self._layers[model]
            inside = _in_scope(frame, modules).to_numpy()
            rows = frame[inside]
            grid = Grid(rows)
            bars = {
                "group": [group_name(str(group)) for group in rows["group"]],
                "projection": [grid.cells[code].projection for code in grid.codes],
                "block": _block_bars(rows),
            }
            self._placements[model, modules] = Placement(
                inside,
                rows["module_name"].to_numpy(dtype=object),
                grid,
                [_tip(names) for names in grid.members],
                {grouping: _coded(names) for grouping, names in bars.items()},
            )
        return self._placements[model, modules]

    def cell_values(self, state: State, sparsity: float) -> Floats:
        """Return the metric per cell of the map, zeros among the weights of its matrices."""
        place = self.placement(state.variant, state.modules)
        parts = _parts(self.frame(state.variant, sparsity), state.metric, weights=True)
        size = len(place.grid.cells)
        return _values(state.metric, _sums(parts, place.inside, place.grid.codes, size))

    def bar_values(self, state: State, variant: str, sparsity: float) -> dict[str, float]:
        """Return the metric per bar of any variant, zeros among all parameters."""
        place = self.placement(variant, state.modules)
        names, codes = place.bars[state.grouping]
        parts = _parts(self.frame(variant, sparsity), state.metric)
        values = _values(state.metric, _sums(parts, place.inside, codes, len(names)))
        return dict(zip(names, values.tolist(), strict=True))

    def level_row(self, sparsity: float) -> pd.Series | None:
        """Return the model at a level, see :attr:`Facts.levels`; None where none are kept."""
        if self.levels is None or self.study.facts.levels is None:
            return None
        return self.study.facts.levels.iloc[self.levels.sparsities.index(sparsity)]

    def layouts(self, state: State) -> pd.DataFrame:
        """Return ``bytes`` and ``ratio`` to dense by layout of the matrices looked at."""
        if not state.live:
            if state.variant not in self._storage:
                rows = self.study.facts.storage(state.variant, "layer").reset_index()
                self._storage[state.variant] = rows.set_index(["name", "layout"]).sort_index()
            return _of_layer(self._storage[state.variant], state.detail)
        ends, row = _of_layer(self._ends, state.detail), self.row(state)
        nonzero = pd.NA if row is None else row["weight_nonzero"]
        size = ends["empty"] + (ends["full"] - ends["empty"]) * nonzero // ends["total"]
        ratios = [ratio(*pair) for pair in zip(size, ends["dense"], strict=True)]
        return pd.DataFrame({"bytes": size, "ratio": ratios})

    @cached_property
    def _ends(self) -> pd.DataFrame:
        return layer_ends(self._layers[self.variants[0]]).sort_index()

    @cached_property
    def break_even(self) -> float | None:
        """The sparsity from which CSR is smaller than dense; None without levels."""
        facts = self.study.facts
        return None if self.levels is None else facts.break_even(facts.baseline)

    def row(self, state: State) -> pd.Series | None:
        """Return the layer looked at, of what is shown; None where that has none of the name."""
        model = self.model(state.variant)
        place = self._places[model].get(state.detail or "")
        return None if place is None else self.frame(state.variant, state.sparsity).iloc[place]

    def brushed(self, state: State, blocks: Sequence[str], projections: Sequence[str]) -> list[str]:
        """Return the names behind the cells of a brush."""
        place = self.placement(state.variant, state.modules)
        hit = [
            block_name(cell.block) in blocks and cell.projection in projections
            for cell in place.grid.cells
        ]
        return list(place.names[np.array(hit, dtype=bool)[place.grid.codes]]) if hit else []


def block_name(block: str) -> str:
    """Return the label of a block for people."""
    return say("outside") if block == OUTSIDE else block


def _of_layer(frame: pd.DataFrame, module: str | None) -> pd.DataFrame:
    rows = frame.loc[[module]] if module in frame.index else frame[:0]
    return rows.droplevel("name")


def layer_values(rows: pd.DataFrame, metric: str) -> Floats:
    """Return a metric of layers, zeros among the weights; NaN where it is unknown."""
    return _values(metric, _parts(rows, metric, weights=True))


def _parts(rows: pd.DataFrame, metric: str, *, weights: bool = False) -> list[Floats]:
    """Return the columns that a metric is made of; their sums make the metric of a sum."""
    part = "weight_" if weights else ""
    columns = {
        "sparsity": (f"{part}total", f"{part}nonzero"),
        "bytes_ratio": ("stored_bytes", "dense_bytes"),
    }.get(metric, (metric,))
    return [rows[column].to_numpy(dtype=float, na_value=np.nan) for column in columns]


def _sums(
    parts: list[Floats], inside: npt.NDArray[np.bool_], codes: npt.NDArray[np.intp], size: int
) -> list[Floats]:
    """Sum rows that share a code; what is unknown of one is unknown of all."""
    return [np.bincount(codes, part[inside], size).astype(float) for part in parts]


def _values(metric: str, parts: list[Floats]) -> Floats:
    values: Floats = parts[0]
    if metric == "sparsity":
        values = zero_shares(*parts)
    elif metric == "bytes_ratio":
        values = np.array([ratio(*pair) for pair in zip(*parts, strict=True)], dtype=float)
    return values


def _in_scope(frame: pd.DataFrame, modules: str) -> pd.Series[bool]:
    if modules == "all":
        return pd.Series(True, index=frame.index)
    return frame["prunable"] if modules == "prunable" else frame["group"] == modules


def _tip(names: Sequence[str]) -> str:
    first, more = clip(names[0], 90), len(names) - 1
    return say("{name} and {count} more", name=first, count=count(more)) if more else first


def _coded(names: Sequence[str]) -> tuple[list[str], npt.NDArray[np.intp]]:
    codes, distinct = pd.factorize(np.array(names, dtype=object))
    return list(distinct), codes


def _block_bars(rows: pd.DataFrame) -> list[str]:
    blocks = rows["block"].astype("Int64")
    numbers = sorted(blocks.dropna().unique())
    labels = block_labels(numbers, max(1, -(-len(numbers) // _BLOCK_BARS)))
    return [block_name(OUTSIDE if pd.isna(block) else labels[int(block)]) for block in blocks]
