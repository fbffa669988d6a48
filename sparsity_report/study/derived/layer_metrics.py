"""Figures of layers that are no counts: differences, zeros beyond a bell curve, what was measured.

Each is a sum over a size, so that several layers have one, too: a difference and what lies beyond
a bell curve are zeros ÷ weights, sensitivity and figures of one's own are means over layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.errors import SparsityReportError
from sparsity_report.study.layers import summed
from sparsity_report.study.levels.levels import Levels
from sparsity_report.study.patterns import expected_sparsity

Floats = npt.NDArray[np.float64]
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


class LevelFigures(NamedTuple):
    """The same at every level of a policy.

    Attributes
    ----------
    names : pandas.Index
        Of modules.
    amounts : numpy.ndarray
        Shape (modules, levels).
    sizes : numpy.ndarray
        Shape (modules,); NaN where it is not known.
    """

    names: pd.Index
    amounts: Floats
    sizes: Floats

    def at(self, place: int) -> LayerFigure:
        """Return the figure at the level that stands there."""
        amounts, sizes = self.amounts[:, place], self.sizes
        return LayerFigure(pd.Series(amounts, self.names), pd.Series(sizes, self.names))


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
    >>> round(float(more.amounts.sum() / more.sizes.sum()), 2)
    0.2
    """
    zeros, total = _zeros(rows)
    zeros_before, total_before = (part.reindex(zeros.index) for part in _zeros(before))
    same = total == total_before
    return LayerFigure((zeros - zeros_before).where(same), total.where(same))


def differences(levels: Levels, layers: pd.DataFrame, before: pd.DataFrame) -> LevelFigures:
    """Return the difference of every level, see :func:`difference`.

    Parameters
    ----------
    levels : Levels
    layers : pandas.DataFrame
        Rows of the variant whose levels they are.
    before : pandas.DataFrame
    """
    names = pd.Index(layers["module_name"].iloc[levels.rows])
    total = layers["weight_total"].iloc[levels.rows].to_numpy(dtype=float)
    zeros_before, total_before = (part.reindex(names).to_numpy() for part in _zeros(before))
    gone = np.where(total == total_before, zeros_before, np.nan)
    sizes = np.where(np.isnan(gone), np.nan, total)
    return LevelFigures(names, levels.zeros.astype(float) - gone[:, None], sizes)


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


def beyond_at(
    rows: pd.DataFrame, threshold: float | None, spreads: Mapping[str, float]
) -> LayerFigure:
    """Return the same of layers that lost all weights up to a threshold, by their spreads.

    Parameters
    ----------
    rows : pandas.DataFrame
        Of ``study.layers``.
    threshold : float or None
        None: they were not pruned so, and nothing is expected.
    spreads : mapping of str to float
        Of modules whose weights are known.
    """
    zeros, total = _zeros(rows)
    shares = [expected_sparsity(threshold, spreads.get(name, np.nan)) for name in zeros.index]
    return LayerFigure(zeros - pd.Series(shares, zeros.index, dtype=float) * total, total)


def beyond_levels(
    levels: Levels,
    layers: pd.DataFrame,
    thresholds: Sequence[float | None],
    spreads: Mapping[str, float],
) -> LevelFigures:
    """Return the same of every level of pruning by one threshold.

    Parameters
    ----------
    levels : Levels
    layers : pandas.DataFrame
        Rows of the variant whose levels they are.
    thresholds : sequence of float or None
        Of the levels; None where nothing is pruned, and nothing is expected.
    spreads : mapping of str to float
        Of modules whose weights are known.
    """
    names = pd.Index(layers["module_name"].iloc[levels.rows])
    total = layers["weight_total"].iloc[levels.rows].to_numpy(dtype=float)
    wide = [spreads.get(name, np.nan) for name in names]
    shares: Any = [[expected_sparsity(cut, spread) for cut in thresholds] for spread in wide]
    expected = np.array(shares, dtype=float).reshape(len(names), len(thresholds))
    return LevelFigures(names, levels.zeros - expected * total[:, None], total)


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
    cut = finest(frame)
    first = frame[frame["by"] == cut].drop_duplicates("part").set_index("part")["nll_increase"]
    rows = layers[layers["prunable"]]
    blocks = ["outside blocks" if pd.isna(b) else f"block {int(b)}" for b in rows["block"]]
    named = {"block": blocks, "group": list(rows["group"]), "layer": list(rows["module_name"])}
    parts = [first.get(part, np.nan) for part in named[cut]]
    return _means(pd.Series(parts, index=list(rows["module_name"]), dtype=float))


def finest(frame: pd.DataFrame) -> str:
    """Return how the parts of a table of sensitivity are cut: by layer, else by block or group."""
    return str(max(frame["by"].unique(), key=_CUTS.index))


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
            "columns: is not a frame with the column module_name; give "
            "pandas.DataFrame({'module_name': […], 'rank': […]})"
        )
    names = columns["module_name"]
    twice, unknown = names.duplicated(), ~names.isin(layers["module_name"])
    for wrong, fault in ((twice, "occurs twice"), (unknown, "is not in the study")):
        if wrong.any():
            raise SparsityReportError(
                f"columns: module {str(names[wrong].iloc[0])[:200]!r} {fault}; give each module of "
                "the study at most once"
            )
    values = columns.drop(columns="module_name")
    titles = [str(name) for name in values.columns]
    if not 0 < len(titles) <= _MOST or len(set(titles)) < len(titles):
        raise SparsityReportError(
            f"columns: has {len(titles)} columns beside module_name, or two of one name; give 1 to "
            f"{_MOST} with different names"
        )
    figures = {}
    for place, title in enumerate(titles):
        column = values.iloc[:, place]
        kind = column.dtype
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
            raise SparsityReportError(
                f"columns: {title[:80]!r} is not a column of real numbers; convert or drop it"
            )
        numbers = column.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
        figures[title] = _means(pd.Series(numbers, index=list(names)))
    return figures


def _means(amounts: pd.Series) -> LayerFigure:
    known = amounts.where(np.isfinite(amounts))
    return LayerFigure(known, pd.Series(1.0, index=known.index).where(known.notna()))


def _zeros(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return zeros and weights of prunable matrices by ``module_name``; null where not known."""
    matrices = rows[rows["prunable"] & (rows["weight_total"] > 0)].set_index("module_name")
    total, left = (matrices[f"weight_{part}"].astype("Float64") for part in ("total", "nonzero"))
    return (total - left).astype(float), total.astype(float)
