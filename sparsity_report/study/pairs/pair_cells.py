"""Where two checkpoints differ, as cells: of a map of blocks, of strips, of small matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from sparsity_report.sparse.shares import ratio
from sparsity_report.study.derived.heatmap_grid import Cell, Grid
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_frames import gone_weights, survival_of, zeros_left
from sparsity_report.untrusted.display_text import distinct_names
from sparsity_report.words.sentences import say

_TITLES = {
    "block": "pair.removed_blocks",
    "expert": "pair.removed_experts",
    "head": "pair.removed_attention_heads",
    "kv_head": "pair.removed_kv_heads",
}
# Kinds of things that stand in a row and can be drawn one by one, the largest first.
ROWS = tuple(_TITLES)


class DifferenceMap(NamedTuple):
    """How much more of the base is zero or gone, block by projection.

    Attributes
    ----------
    grid : Grid
    cells : pandas.DataFrame
        ``block, projection, layers, weight_before, gone, zeros_before, zero_or_gone`` and
        ``moved`` = (zero or gone after − zeros before) ÷ weights of the base.
    """

    grid: Grid
    cells: pd.DataFrame


class StripRow(NamedTuple):
    """Things of one kind beside each other, and which of them are gone.

    Attributes
    ----------
    module : str
        Where they stand in the base.
    block : int or None
    among : int
    gone : tuple of int
        Their numbers in the base.
    certainty : float
        That it is these, of the least sure one.
    """

    module: str
    block: int | None
    among: int
    gone: tuple[int, ...]
    certainty: float


class Strip(NamedTuple):
    """All places where something of one kind is gone."""

    kind: str
    rows: tuple[StripRow, ...]

    @property
    def title(self) -> str:
        """What it shows."""
        return say(_TITLES[self.kind])

    @property
    def names(self) -> list[str]:
        """What its rows are called: by their block, where that tells them apart."""
        blocks = [row.block for row in self.rows]
        if None not in blocks and len(set(blocks)) == len(blocks):
            return [say("name.numbered_block", block=str(block)) for block in blocks]
        return distinct_names([row.module or "–" for row in self.rows], 40)


class FigureMap(NamedTuple):
    """What became of the layers of the base, block by projection.

    Attributes
    ----------
    grid : Grid
    cells : pandas.DataFrame
        As of :class:`DifferenceMap`, and for the weights that stand in both ``kept_share``,
        ``iou`` and ``relative_change`` as of ``pair.survival``, ``revived_share`` and ``new_share``
        = revived and new ÷ the weights that stand in both; null where nothing is known.
    """

    grid: Grid
    cells: pd.DataFrame


def difference_map(pair: Pair, group: str | None = None) -> DifferenceMap | None:
    """Return the prunable layers of the base in numbered blocks; None where there is none.

    With a group, of its layers alone.

    A weight that stands in both is zero or not; one that does not is gone. What only the model
    after has is not a part of the base.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> shown = difference_map(sr.compare_checkpoints(weights, sr.n_m(weights, 2, 4)))
    >>> set(shown.cells["moved"])
    {0.5}
    """
    rows = _in_blocks(pair, group)
    if rows.empty:
        return None
    grid = Grid(rows)
    gone = gone_weights(rows)
    parts = rows[["weight_before", "zeros_before"]].assign(
        gone=gone, zero_or_gone=gone + zeros_left(rows)
    )
    sums = parts.groupby(grid.codes).sum()
    moved = (sums["zero_or_gone"] - sums["zeros_before"]) / sums["weight_before"]
    cells = sums.assign(layers=parts.groupby(grid.codes).size(), moved=moved)
    places = pd.DataFrame(grid.cells, columns=list(Cell._fields))
    return DifferenceMap(grid, pd.concat([places, cells], axis=1))


def figure_map(pair: Pair, group: str | None = None) -> FigureMap | None:
    """Return what :func:`difference_map` has, and what became of zeros and weights in each cell."""
    if (shown := difference_map(pair, group)) is None:
        return None
    rows = _in_blocks(pair, group)
    figures = []
    for _, part in rows.groupby(shown.grid.codes):
        of_cell = survival_of(None, part[part["compared"] > 0])
        figures.append(
            {
                **{name: of_cell[name] for name in ("kept_share", "iou", "relative_change")},
                "revived_share": ratio(of_cell["revived"], of_cell["compared"]),
                "new_share": ratio(of_cell["new"], of_cell["compared"]),
            }
        )
    cells = pd.concat([shown.cells, pd.DataFrame(figures, dtype=float)], axis=1)
    return FigureMap(shown.grid, cells)


def _in_blocks(pair: Pair, group: str | None) -> pd.DataFrame:
    """Return the prunable layers of the base in numbered blocks, of a group or of all."""
    layers = pair.layers
    rows = layers[layers["prunable"] & layers["block"].notna() & (layers["weight_before"] > 0)]
    return rows if group is None else rows[rows["group"] == group]


def strips(pair: Pair) -> Iterator[Strip]:
    """Yield rows of blocks, experts, heads and key-value heads, each where some are gone."""
    for kind in ROWS:
        frame = pair.removed
        of_kind = frame[(frame["kind"] == kind) & frame["index"].notna()]
        rows = [
            StripRow(
                str(module),
                None if pd.isna(part["block"].iloc[0]) or kind == "block"
                else int(part["block"].iloc[0]),
                int(part["among"].iloc[0]),
                tuple(sorted(int(number) for number in part["index"])),
                float(part["certainty"].min()),
            )
            for module, part in of_kind.groupby("module", sort=False)
        ]  # fmt: skip
        if kind == "block" and rows:
            rows = list(_stacks(rows))
        if rows:
            yield Strip(kind, tuple(rows))


def _stacks(rows: list[StripRow]) -> Iterator[StripRow]:
    """Put blocks that each have a module of their own back into the stack they stood in."""
    stacks: dict[tuple[str, int], list[StripRow]] = {}
    for row in rows:
        alone = len(row.gone) == 1 and row.module.endswith(f".{row.gone[0]}")
        stack = row.module.rpartition(".")[0] if alone else row.module
        stacks.setdefault((stack, row.among), []).append(row)
    for (stack, among), parts in stacks.items():
        gone = tuple(sorted(number for part in parts for number in part.gone))
        yield StripRow(stack, None, among, gone, min(part.certainty for part in parts))


def overlaps(pair: Pair) -> list[dict[str, object]]:
    """Return the rows of ``pair.survival`` with zeros on a side, all of them first."""
    frame = pair.survival
    return records(frame[(frame["zeros_before"] > 0) | (frame["zeros_after"] > 0)])
