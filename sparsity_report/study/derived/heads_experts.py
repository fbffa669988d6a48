"""Sparsity of attention heads and experts, and zeros inside one module's matrices."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd

from sparsity_report.study.derived.zero_rows import dead
from sparsity_report.study.layers import records


class Part(NamedTuple):
    """Heads of one projection, or experts.

    Attributes
    ----------
    key : {"heads", "experts"}
    projection : str
        Projection of the heads; empty for experts, whose matrices are summed.
    rows : pandas.DataFrame
        ``block``, ``part`` (number of the head or expert) and ``sparsity`` of its weights.
    """

    key: str
    projection: str
    rows: pd.DataFrame


class Inner(NamedTuple):
    """Zeros inside the matrices of one module.

    Attributes
    ----------
    heads, experts : tuple of float
        Sparsity of each, in order; empty if there are fewer than two.
    rows, zero_rows, columns, zero_columns : int
        Numbers of rows and columns of all matrices, and of those that are all zero.
    """

    heads: tuple[float, ...]
    experts: tuple[float, ...]
    rows: int
    zero_rows: int
    columns: int
    zero_columns: int


def inner(patterns: pd.DataFrame) -> Inner:
    """Return the zeros inside a module's matrices.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one module of a variant, at least one, of
        :func:`sparsity_report.weight_patterns`.
    """
    shares = patterns["head_sparsity"].iloc[0]
    heads = tuple(shares) if len(patterns) == 1 and shares is not None else ()
    known = patterns[patterns["expert"].notna()]
    weights = (known["rows"] * known["columns"]).astype(float)
    by = known["expert"].astype("int64")
    zeros = (weights * known["sparsity"]).groupby(by).sum() / weights.groupby(by).sum()
    zero, name = dead(patterns), str(patterns["module_name"].iloc[0])
    return Inner(
        heads if len(heads) > 1 else (),
        tuple(zeros) if len(zeros) > 1 else (),
        int(patterns["rows"].sum()),
        int(zero.rows.get(name, 0)),
        int(patterns["columns"].sum()),
        int(zero.columns.get(name, 0)),
    )


def parts(patterns: pd.DataFrame, projections: Mapping[str, str]) -> Iterator[Part]:
    """Yield the heads of each projection, then the experts, of a variant's numbered blocks.

    Kinds without zeros are left out, and projections of which a block has several matrices.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`.
    projections : mapping of str to str
        Short names of projections, by module.
    """
    known = patterns[patterns["block"].notna() & patterns["head_sparsity"].notna()]
    inside = known[known["module_name"].isin(projections)]
    lines = inside["module_name"].map(projections)
    for projection, rows in inside.groupby(lines, sort=False):
        heads = [
            {"block": int(row["block"]), "part": number, "sparsity": share}
            for row in records(rows)
            for number, share in enumerate(row["head_sparsity"])
        ]
        yield from _sparse_parts("heads", str(projection), pd.DataFrame(heads))
    experts = patterns[patterns["block"].notna() & patterns["expert"].notna()]
    if len(experts):
        weights = (experts["rows"] * experts["columns"]).astype(float)
        sums = (
            pd.DataFrame({"weights": weights, "zeros": weights * experts["sparsity"]})
            .groupby([experts["block"].astype(int), experts["expert"].astype(int)])
            .sum()
        )
        frame = sums.reset_index(names=["block", "part"])
        frame["sparsity"] = frame["zeros"] / frame["weights"]
        yield from _sparse_parts("experts", "", frame[["block", "part", "sparsity"]])


def _sparse_parts(key: str, projection: str, rows: pd.DataFrame) -> Iterator[Part]:
    # Two matrices of one projection in a block would share a cell of the chart.
    is_unique = not rows.duplicated(["block", "part"]).any()
    if len(rows) > 1 and is_unique and (rows["sparsity"] > 0).any():
        yield Part(key, projection, rows)
