"""Rows, columns, heads and layers without a single nonzero weight."""

from typing import NamedTuple

import pandas as pd


class Dead(NamedTuple):
    """Rows, columns, heads and layers of a variant's prunable matrices that are all zero.

    Attributes
    ----------
    rows, columns : pandas.Series of int
        Numbers of zero outputs and zero inputs, by module; modules without any are left out.
    heads : pandas.Series of int
        Numbers of zero attention heads, by projection whose heads were counted.
    layers : list of str
        Modules without a nonzero weight; their rows, columns and heads count above, too.
    """

    rows: pd.Series
    columns: pd.Series
    heads: pd.Series
    layers: list[str]


def dead(patterns: pd.DataFrame) -> Dead:
    """Return the all-zero rows, columns, heads and layers of one variant.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    >>> zeros = dead(sr.weight_patterns(sr.masked(pruning)))
    >>> int(zeros.rows.sum()), int(zeros.heads.sum()), zeros.layers
    (45, 0, [])
    """
    names = patterns["module_name"]

    def counted(share: str, size: str) -> pd.Series:
        # The share times the size is a whole number but for rounding.
        numbers = (patterns[share].fillna(0.0) * patterns[size]).round().astype("int64")
        return _positive_sums(numbers, names)

    heads = patterns["head_sparsity"].map(lambda shares: 0 if shares is None else shares.count(1))
    sparsity = patterns["sparsity"].groupby(names, sort=False).min()
    return Dead(
        counted("zero_rows", "rows"),
        counted("zero_columns", "columns"),
        _positive_sums(heads.astype("int64"), names),
        [str(name) for name in sparsity.index[sparsity == 1]],
    )


def _positive_sums(counts: pd.Series, names: pd.Series) -> pd.Series:
    sums = counts.groupby(names, sort=False).sum()
    return sums[sums > 0]
