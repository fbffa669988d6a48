"""Columns of tables by key or by a name from a model: heads and formats of their cells."""

from collections.abc import Iterable, Mapping

import pandas as pd

from sparsity_report.report.tables.table_model import COUNT, Column, Kind, Table, kind_of, table_of
from sparsity_report.study.heatmap_grid import Grid
from sparsity_report.untrusted.display_text import distinct_names
from sparsity_report.words.display_names import head
from sparsity_report.words.sentences import say

# Heads of columns that differ from their titles.
_HEADS = {
    "share": "column.zero_share_of_weights",
    "expected_sparsity": "column.expected_zeros",
    "n_m": "column.n_m_compliance",
    "ratio": "column.ratio_to_dense",
    "model_bytes": "explorer.column_bytes",
    "model_ratio": "column.ratio_to_dense",
    "threshold": "column.threshold_magnitude",
    "bound_share": "column.memory_limit_share",
    "bits": "column.bits_per_weight",
}


def columns_of(
    keys: str,
    widths: tuple[float, ...] = (1.6, 1),
    kinds: Mapping[str, Kind] | None = None,
    /,
    **heads: str,
) -> list[Column]:
    """Return columns by key.

    Parameters
    ----------
    keys : str
        Separated by spaces.
    widths : tuple of float
        Widths on paper; the last is that of all further columns.
    kinds : mapping, optional
        Formats of cells that differ from those of :func:`kind_of`.
    **heads
        Heads that differ from those of :func:`head_of`.
    """
    names = keys.split()
    sizes = [*widths, *widths[-1:] * len(names)]
    return [
        Column(key, heads.get(key) or head_of(key), (kinds or {}).get(key, kind_of(key)), "", width)
        for key, width in zip(names, sizes, strict=False)
    ]


def head_of(key: str) -> str:
    """Return the head of a column."""
    return say(_HEADS[key]) if key in _HEADS else head(key)


def key_of_name(name: str) -> str:
    """Return the key of a column for a name from a model, unlike any other key."""
    return f"{name} ="


def side_by_side(names: Iterable[str], kind: Kind = COUNT) -> list[Column]:
    """Return columns of one kind for names from a model, see :func:`key_of_name`."""
    listed = list(names)
    shown = zip(listed, distinct_names(listed), strict=True)
    return [Column(key_of_name(name), text, kind, width=1) for name, text in shown]


def by_cell(
    key: str, caption: str, grid: Grid, frame: pd.DataFrame, figure: str, kind: Kind
) -> Table:
    """Return a table of a figure of each cell of a heat map, block by projection."""
    wide = frame.pivot(index="block", columns="projection", values=figure)
    wide = wide.reindex(index=grid.blocks, columns=grid.projections)
    return wide_table(key, caption, wide, kind)


def wide_table(key: str, caption: str, wide: pd.DataFrame, kind: Kind) -> Table:
    """Return a table of a frame: its index, and a column of one kind per name from a model."""
    columns = [*columns_of(str(wide.index.name)), *side_by_side(wide.columns, kind)]
    return table_of(key, caption, columns, wide.rename(columns=key_of_name).reset_index())


def caption_of(complete: str, first: str, shown: int, number: int) -> str:
    """Return a caption by its key, or by another key where only the first rows are shown."""
    return say(complete if shown == number else first, shown=shown, number=number)
