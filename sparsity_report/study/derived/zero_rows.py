"""What pruning, or training, left without a single nonzero weight: rows, columns, heads, layers."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd


class Dead(NamedTuple):
    """What of a variant's prunable matrices is zero throughout.

    Attributes
    ----------
    rows, columns : pandas.Series of int
        Outputs, and inputs, that are zero throughout, by module; of those that have any.
    heads : pandas.Series of int
        Attention heads, by module, of the projections whose heads were counted.
    layers : list of str
        Modules with no nonzero weight at all; their rows, columns and heads stand above, too.
    """

    rows: pd.Series
    columns: pd.Series
    heads: pd.Series
    layers: list[str]


def dead(patterns: pd.DataFrame) -> Dead:
    """Return what of one variant is zero throughout.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    >>> found = dead(sr.weight_patterns(sr.masked(pruning)))
    >>> int(found.rows.sum()), int(found.heads.sum()), found.layers
    (45, 0, [])
    """
    names = patterns["module_name"]

    def counted(share: str, of: str) -> pd.Series:
        # The shares are of whole rows or columns, which they give back.
        many = (patterns[share].fillna(0.0) * patterns[of]).round().astype("int64")
        return _some(many, names)

    heads = patterns["head_sparsity"].map(lambda shares: 0 if shares is None else shares.count(1))
    sparsity = patterns["sparsity"].groupby(names, sort=False).min()
    return Dead(
        counted("zero_rows", "rows"),
        counted("zero_columns", "columns"),
        _some(heads.astype("int64"), names),
        [str(name) for name in sparsity.index[sparsity == 1]],
    )


def _some(counts: pd.Series, names: pd.Series) -> pd.Series:
    sums = counts.groupby(names, sort=False).sum()
    return sums[sums > 0]
