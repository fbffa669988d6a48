"""Zeros of the parts of matrices that were counted: attention heads, and experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd

from sparsity_report.study.derived.zero_rows import dead
from sparsity_report.study.layers import records


class Part(NamedTuple):
    """Parts of one kind.

    Attributes
    ----------
    key : {"heads", "experts"}
    projection : str
        Whose heads they are; "" of experts, of which all matrices are added.
    rows : pandas.DataFrame
        ``block, part`` (its number) and ``sparsity``, of all weights of the part.
    """

    key: str
    projection: str
    rows: pd.DataFrame


class Inner(NamedTuple):
    """What one module's matrices hold, where that was counted.

    Attributes
    ----------
    heads, experts : tuple of float
        Zeros ÷ weights of each, in their order; empty where there is no more than one.
    rows, zero_rows, columns, zero_columns : int
        Of all its matrices, and those that are zero throughout.
    """

    heads: tuple[float, ...]
    experts: tuple[float, ...]
    rows: int
    zero_rows: int
    columns: int
    zero_columns: int


def inner(patterns: pd.DataFrame) -> Inner:
    """Return what the rows of one module of a variant say, one at least."""
    shares = patterns["head_sparsity"].iloc[0]
    heads = tuple(shares) if len(patterns) == 1 and shares is not None else ()
    known = patterns[patterns["expert"].notna()]
    weights = (known["rows"] * known["columns"]).astype(float)
    by = known["expert"].astype("int64")
    zeros = (weights * known["sparsity"]).groupby(by).sum() / weights.groupby(by).sum()
    found, name = dead(patterns), str(patterns["module_name"].iloc[0])
    return Inner(
        heads if len(heads) > 1 else (),
        tuple(zeros) if len(zeros) > 1 else (),
        int(patterns["rows"].sum()),
        int(found.rows.get(name, 0)),
        int(patterns["columns"].sum()),
        int(found.columns.get(name, 0)),
    )


def parts(patterns: pd.DataFrame, projections: Mapping[str, str]) -> Iterator[Part]:
    """Yield heads by projection, then experts, of a variant's numbered blocks.

    What has no zeros is left out, and projections of which a block has several matrices.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`.
    projections : mapping of str to str
        Short names, by module.
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
        yield from _shown("heads", str(projection), pd.DataFrame(heads))
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
        yield from _shown("experts", "", frame[["block", "part", "sparsity"]])


def _shown(key: str, projection: str, rows: pd.DataFrame) -> Iterator[Part]:
    # Two matrices of one projection in a block would lie on each other.
    alone = not rows.duplicated(["block", "part"]).any()
    if len(rows) > 1 and alone and (rows["sparsity"] > 0).any():
        yield Part(key, projection, rows)
