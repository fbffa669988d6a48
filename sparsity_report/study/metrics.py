"""Figures of layers that are no counts: zeros beyond those of a bell curve.

Each is a sum over a size, so that several layers have one, too.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from sparsity_report.study.layers import summed


class LayerFigure(NamedTuple):
    """A figure by ``module_name``: of several layers the sum of amounts ÷ that of sizes.

    Attributes
    ----------
    amounts, sizes : pandas.Series of float
        Null where it is not known.
    """

    amounts: pd.Series
    sizes: pd.Series


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
