"""Figures of layers that are no counts: differences, zeros beyond a bell curve, what was measured.

Each is a sum over a size, so that several layers have one, too: a difference and what lies beyond
a bell curve are zeros ÷ weights, sensitivity and figures of one's own are means over layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.errors import SparsityReportError
from sparsity_report.study.layers import summed

# How parts of a model are cut, the finest last.
_CUTS = ("group", "block", "layer")
# Columns of one's own that a study can be looked at by.
_MOST = 50


class LayerFigure(NamedTuple):
    """A figure by ``module_name``: of several layers the sum of amounts ÷ that of sizes.

    Attributes
    ----------
    amounts, sizes : pandas.Series of float
        Null where it is not known.
    """

    amounts: pd.Series
    sizes: pd.Series


def difference(rows: pd.DataFrame, before: pd.DataFrame) -> LayerFigure:
    """Return by how much the share of zeros among weights rose from some rows to others.

    Parameters
    ----------
    rows, before : pandas.DataFrame
        Of ``study.layers`` or a level; a layer whose number of weights differs has no difference.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> more = difference(study.at_level(0.5), study.at_level(0.3))
    >>> round(more.amounts.sum() / more.sizes.sum(), 2)
    0.2
    """
    zeros, total = _zeros(rows)
    zeros_before, total_before = (part.reindex(zeros.index) for part in _zeros(before))
    same = total == total_before
    return LayerFigure((zeros - zeros_before).where(same), total.where(same))


def beyond(patterns: pd.DataFrame) -> LayerFigure:
    """Return zeros minus what Gaussians of the matrices' own spread would have, ÷ weights.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of ``study.patterns`` of one variant.
    """
    weights = (patterns["rows"] * patterns["columns"]).astype(float)
    excess = (patterns["sparsity"] - patterns["expected_sparsity"]).astype(float)
    parts = pd.DataFrame({"amounts": weights * excess, "sizes": weights})
    # What is not known of one matrix of a layer is not known of the layer.
    sums = summed(parts.groupby(patterns["module_name"], sort=False)).astype(float)
    return LayerFigure(sums["amounts"], sums["sizes"])


def beyond_at(rows: pd.DataFrame, expected: Mapping[str, float | None]) -> LayerFigure:
    """Return the same of a level, whose layers' expected shares of zeros are known."""
    zeros, total = _zeros(rows[rows["module_name"].isin(list(expected))])
    shares = pd.Series(expected, dtype=float).reindex(zeros.index)
    return LayerFigure(zeros - shares * total, total)


def measured_sensitivity(frame: pd.DataFrame, layers: pd.DataFrame) -> LayerFigure:
    """Return what pruning a part alone costs in nats per token, for every layer of the part.

    Of parts cut in several ways layers are taken, else blocks, else groups.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``study.sensitivity``.
    layers : pandas.DataFrame
        Rows of one variant.
    """
    cut = max(frame["by"].unique(), key=_CUTS.index)
    first = frame[frame["by"] == cut].drop_duplicates("part").set_index("part")["nll_increase"]
    rows = layers[layers["prunable"]]
    blocks = ["outside blocks" if pd.isna(b) else f"block {int(b)}" for b in rows["block"]]
    named = {"block": blocks, "group": list(rows["group"]), "layer": list(rows["module_name"])}
    parts = [first.get(part, np.nan) for part in named[cut]]
    amounts = pd.Series(parts, index=list(rows["module_name"]), dtype=float)
    return _means(amounts)


def own_figures(columns: pd.DataFrame, layers: pd.DataFrame) -> dict[str, LayerFigure]:
    """Return one's own columns by name.

    Parameters
    ----------
    columns : pandas.DataFrame
        ``module_name``, once each, and columns of numbers; null where one is not known.
    layers : pandas.DataFrame
        Of the study.

    Raises
    ------
    SparsityReportError
        There is no such column, a module is named twice or is none of the study's, or a column
        holds what is no number.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> layers = sr.compare(sr.dense(sr.load())).layers
    >>> mine = pd.DataFrame({"module_name": layers["module_name"], "rank": range(len(layers))})
    >>> list(own_figures(mine, layers))
    ['rank']
    """
    if not isinstance(columns, pd.DataFrame) or "module_name" not in columns:
        raise SparsityReportError(
            "columns= takes a frame with module_name and columns of numbers, such as "
            "pandas.DataFrame({'module_name': […], 'rank': […]})"
        )
    names = columns["module_name"]
    for wrong, said in (
        (names.duplicated(), "names a module twice"),
        (~names.isin(layers["module_name"]), "names a module that the study does not have"),
    ):
        if wrong.any():
            raise SparsityReportError(f"columns= {said}: {str(names[wrong].iloc[0])[:200]!r}")
    values = columns.drop(columns="module_name")
    if not 0 < values.shape[1] <= _MOST:
        raise SparsityReportError(
            f"columns= has {values.shape[1]} columns of numbers; give 1 to {_MOST}"
        )
    figures = {}
    for name, column in values.items():
        kind = column.dtype
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
            raise SparsityReportError(f"columns=: {str(name)[:80]!r} holds what is no number")
        numbers = column.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
        figures[str(name)] = _means(pd.Series(numbers, index=list(names)))
    return figures


def _means(amounts: pd.Series) -> LayerFigure:
    known = amounts.where(np.isfinite(amounts))
    return LayerFigure(known, pd.Series(1.0, index=known.index).where(known.notna()))


def _zeros(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return zeros and weights of prunable matrices by ``module_name``; null where not known."""
    matrices = rows[rows["prunable"] & (rows["weight_total"] > 0)].set_index("module_name")
    total, left = (matrices[f"weight_{part}"].astype("Float64") for part in ("total", "nonzero"))
    return (total - left).astype(float), total.astype(float)
