"""Figures of layers besides counts: differences, excess over Gaussian zeros, sensitivity.

Each figure is an amount ÷ a size, so that several layers have one, too. Differences and excesses
are zeros ÷ weights; sensitivity and columns of the user are means over layers.
"""

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
# Kinds of parts of a model, the finest last.
_CUTS = ("group", "block", "layer")
# Largest number of columns of the user.
_MOST = 50


class LayerFigure(NamedTuple):
    """A figure by module; the figure of several layers is Σ amounts ÷ Σ sizes.

    Attributes
    ----------
    amounts, sizes : pandas.Series of float
        Indexed by ``module_name``; null where unknown.
    """

    amounts: pd.Series
    sizes: pd.Series


class LevelFigures(NamedTuple):
    """A figure by module at every level of a policy.

    Attributes
    ----------
    names : pandas.Index
        Names of modules.
    amounts : numpy.ndarray
        Shape (modules, levels).
    sizes : numpy.ndarray
        Shape (modules,); NaN where unknown.
    """

    names: pd.Index
    amounts: Floats
    sizes: Floats

    def at(self, place: int) -> LayerFigure:
        """Return the figure at the level in a position."""
        amounts, sizes = self.amounts[:, place], self.sizes
        return LayerFigure(pd.Series(amounts, self.names), pd.Series(sizes, self.names))


def difference(rows: pd.DataFrame, before: pd.DataFrame) -> LayerFigure:
    """Return the change of sparsity from one set of rows to another.

    Parameters
    ----------
    rows, before : pandas.DataFrame
        Rows of ``study.layers`` or of a level. A layer whose number of weights differs is null.

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
    """Return the change of sparsity to every level, see :func:`difference`.

    Parameters
    ----------
    levels : Levels
    layers : pandas.DataFrame
        Rows of the variant that the levels describe.
    before : pandas.DataFrame
        Rows that the levels are compared with.
    """
    names = pd.Index(layers["module_name"].iloc[levels.rows])
    total = layers["weight_total"].iloc[levels.rows].to_numpy(dtype=float)
    zeros_before, total_before = (part.reindex(names).to_numpy() for part in _zeros(before))
    gone = np.where(total == total_before, zeros_before, np.nan)
    sizes = np.where(np.isnan(gone), np.nan, total)
    return LevelFigures(names, levels.zeros.astype(float) - gone[:, None], sizes)


def beyond(patterns: pd.DataFrame) -> LayerFigure:
    """Return the excess of zeros over those of Gaussian weights with the matrices' spread.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of ``study.patterns`` of one variant.
    """
    weights = (patterns["rows"] * patterns["columns"]).astype(float)
    excess = (patterns["sparsity"] - patterns["expected_sparsity"]).astype(float)
    parts = pd.DataFrame({"amounts": weights * excess, "sizes": weights})
    # A layer with an unknown matrix is unknown.
    sums = summed(parts.groupby(patterns["module_name"], sort=False)).astype(float)
    return LayerFigure(sums["amounts"], sums["sizes"])


def beyond_at(
    rows: pd.DataFrame, threshold: float | None, spreads: Mapping[str, float]
) -> LayerFigure:
    """Return the excess of layers that lost all weights up to a threshold.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of ``study.layers``.
    threshold : float or None
        None if the layers were not pruned by a threshold.
    spreads : mapping of str to float
        Root mean squares of weights, by module.
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
    """Return the excess at every level of pruning by one threshold.

    Parameters
    ----------
    levels : Levels
    layers : pandas.DataFrame
        Rows of the variant that the levels describe.
    thresholds : sequence of float or None
        Threshold of each level; None where nothing is pruned.
    spreads : mapping of str to float
        Root mean squares of weights, by module.
    """
    names = pd.Index(layers["module_name"].iloc[levels.rows])
    total = layers["weight_total"].iloc[levels.rows].to_numpy(dtype=float)
    wide = [spreads.get(name, np.nan) for name in names]
    shares: Any = [[expected_sparsity(cut, spread) for cut in thresholds] for spread in wide]
    expected = np.array(shares, dtype=float).reshape(len(names), len(thresholds))
    return LevelFigures(names, levels.zeros - expected * total[:, None], total)


def measured_sensitivity(frame: pd.DataFrame, layers: pd.DataFrame) -> LayerFigure:
    """Return the loss in nats per token of pruning a part alone, for every layer of the part.

    Single layers take precedence over blocks, and blocks over groups.

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
    """Return the finest kind of part in a table of sensitivity: layer, block or group."""
    return str(max(frame["by"].unique(), key=_CUTS.index))


def own_figures(columns: pd.DataFrame, layers: pd.DataFrame) -> dict[str, LayerFigure]:
    """Return the columns of a user's frame as figures, by name.

    Parameters
    ----------
    columns : pandas.DataFrame
        ``module_name``, each once, and columns of numbers; null where unknown.
    layers : pandas.DataFrame
        Rows of the study.

    Raises
    ------
    SparsityReportError
        A column is missing or is not numeric, or a module occurs twice or is not in the study.

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
    """Return zeros and weights of prunable matrices by ``module_name``; null where unknown."""
    matrices = rows[rows["prunable"] & (rows["weight_total"] > 0)].set_index("module_name")
    total, left = (matrices[f"weight_{part}"].astype("Float64") for part in ("total", "nonzero"))
    return (total - left).astype(float), total.astype(float)
