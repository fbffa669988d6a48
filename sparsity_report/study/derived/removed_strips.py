"""Differences of two checkpoints as numbers for maps of blocks and for strips of removed parts."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from sparsity_report.study.heatmap_grid import Cell, Grid
from sparsity_report.study.schema import SIDES
from sparsity_report.study.survival import gone_weights, zeros_left

# Kinds of parts that a module has several of, which a strip shows one by one; the largest first.
ROWS = ("block", "expert", "head", "kv_head")
# Fates of weights by the most severe first, and their denominators.
_SIZES = {"revived": "zeros", "removed": "weight_before", "new": "nonzero"}
_FATES = ["kept", "revived", "new"]
# Smallest spread of shares that is no constant, relative to the largest.
_VARIES = 0.05


class StripRow(NamedTuple):
    """Blocks, experts or heads of one module, with the removed ones.

    Attributes
    ----------
    module : str
        Name of the module in the base.
    block : int or None
        Number of its Transformer block.
    among : int
        Number of such things in the base.
    gone : tuple of int
        Indices of the removed ones in the base.
    """

    module: str
    block: int | None
    among: int
    gone: tuple[int, ...]


class BlockShares(NamedTuple):
    """Shares of the base by block.

    Attributes
    ----------
    figure : str
        ``"revived"`` (of the base's zeros), ``"removed"`` (of its weights) or ``"new"`` (zeros, of
        its nonzero weights).
    rows : pandas.DataFrame
        ``block, group, weight_before, zeros, kept, revived, new, removed, share``; ``block``
        is null outside blocks, and ``group`` is known without blocks.
    """

    figure: str
    rows: pd.DataFrame


def base_maps(matches: pd.DataFrame) -> tuple[Grid, pd.DataFrame] | None:
    """Return shares of the base by block and projection; None without numbered blocks.

    The cells have ``block``, ``projection``, the share that was zero ``before``, and the share that
    is zero or removed ``after``. Additions of the model after are not part of the base.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> _, cells = base_maps(sr.compare_checkpoints(weights, sr.n_m(weights, 2, 4)).matches)
    >>> set(cells["before"]), set(cells["after"])
    ({0.0}, {0.5})
    """
    rows = matches[matches["prunable"] & matches["block"].notna()]
    rows = rows[rows["weight_before"] > 0]
    if rows.empty:
        return None
    grid = Grid(rows)
    parts = rows[["weight_before", "zeros_before"]]
    parts = parts.assign(zeros_after=gone_weights(rows) + zeros_left(rows))
    sums = parts.groupby(grid.codes).sum()
    shares = {side: sums[f"zeros_{side}"] / sums["weight_before"] for side in SIDES}
    return grid, pd.DataFrame(grid.cells, columns=list(Cell._fields)).assign(**shares)


def strips(removed: pd.DataFrame) -> Iterator[tuple[str, list[StripRow]]]:
    """Yield each kind of removed things with the modules from which some were removed.

    Kinds are blocks, experts, heads and key-value heads.
    """
    for kind in ROWS:
        of_kind = removed[removed["kind"] == kind]
        rows = []
        for module, part in of_kind.groupby("module", sort=False):
            first, gone = part.iloc[0], tuple(sorted(part["index"].astype(int)))
            block = None if kind == "block" or pd.isna(first["block"]) else int(first["block"])
            rows.append(StripRow(str(module), block, int(first["among"]), gone))
        if kind == "block":
            rows = list(_stacks(rows))
        if rows:
            yield kind, rows


def _stacks(rows: list[StripRow]) -> Iterator[StripRow]:
    """Yield one row per stack of blocks, where each block is a module."""
    stacks: dict[tuple[str, int], list[StripRow]] = {}
    for row in rows:
        alone = len(row.gone) == 1 and row.module.endswith(f".{row.gone[0]}")
        stack = row.module.rpartition(".")[0] if alone else row.module
        stacks.setdefault((stack, row.among), []).append(row)
    for (stack, among), parts in stacks.items():
        gone = tuple(sorted(number for part in parts for number in part.gone))
        yield StripRow(stack, None, among, gone)


def block_shares(matches: pd.DataFrame) -> BlockShares | None:
    """Return the fate of the base by block: the first of three shares that varies.

    Layers outside numbered blocks are the last row. Without numbered blocks, rows are groups.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> study = sr.compare_checkpoints(sr.n_m(weights, 2, 4), sr.global_magnitude(weights, 0.5))
    >>> shown = block_shares(study.matches)
    >>> shown.figure, shown.rows["block"].tolist()
    ('revived', [0, 1, 2, 3])
    """
    layers = matches[matches["prunable"] & (matches["weight_before"] > 0)]
    rows = layers[["block", "group", "weight_before", "compared", *_FATES]]
    rows = rows.assign(
        removed=gone_weights(layers),
        zeros=rows["kept"] + rows["revived"],
        group=rows["group"] if rows["block"].isna().all() else None,
    )
    rows = rows.assign(nonzero=rows["compared"] - rows["zeros"])
    sums = rows.groupby(["block", "group"], dropna=False, sort=False).sum().reset_index()
    sums = sums.sort_values("block", kind="stable", ignore_index=True)
    for figure, size in _SIZES.items():
        shares = sums[figure] / sums[size].where(sums[size] > 0)
        shares = shares.astype("float64")
        if shares.max() > 0 and shares.max() - shares.min() >= _VARIES * shares.max():
            return BlockShares(figure, sums.assign(share=shares))
    return None
