"""Wanda and OWL: pruning by magnitude times input norm from one calibration pass."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import pandas as pd

from sparsity_report.counting.allocation import Allocation
from sparsity_report.counting.policies import wanda_policy
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Calibration, Pruning
from sparsity_report.measure.calibration import CalibrationOptions, calibrated
from sparsity_report.measure.texts import Text
from sparsity_report.weights.weights import Weights


@with_bar("pruning")
def wanda(
    weights: Weights,
    sparsity: float | None,
    calibration: Text | Calibration | None = None,
    *,
    n_m: tuple[int, int] | None = None,
    allocation: Allocation = None,
    progress: Progress | None = None,
    **options: Unpack[CalibrationOptions],
) -> Pruning:
    """Prune each output by ``|w|·‖x‖₂``, the score of Wanda, from one calibration pass.

    The score of Wanda (Sun et al. 2023, https://arxiv.org/abs/2306.11695) is the magnitude of a
    weight times the norm of its input over all tokens of the text. In each row of c weights the
    ``⌊sparsity·c⌋`` lowest scores are pruned, as in the paper's code, ties by position. The first
    rows of each matrix lose one more, so that the model loses exactly ``round(sparsity·n)`` of n
    weights, as by :func:`layerwise_magnitude`.

    Unlike the paper's code, which measures each block on the output of the pruned blocks before
    it, all norms are those of the dense model. The method is called ``wanda_one_pass``. Scores are
    float64 products; the last bits of a norm may differ between machines.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`; not streamed, because the model runs.
    sparsity : float or None
        Share of weights to prune, from 0 to 1. None: that of `allocation` or `n_m`.
    calibration : Calibration or text, optional
        Text of :func:`calibrate`, or its result for several prunings from one pass.
    n_m : tuple of int, optional
        ``(2, 4)`` keeps the two highest scores of every four consecutive weights of a row.
    allocation : DataFrame, mapping, callable or "owl", optional
        A share for each module, see :func:`layerwise_magnitude`; ``"owl"`` is :func:`owl` with its
        defaults. The rows of a matrix lose equal numbers, the first rows one more where they do
        not divide evenly.
    progress : callable, optional
        Called with work done, work in total and the name of the tensor.
    **options
        ``tokenizer, windows, window``, see :func:`calibrate`.

    Returns
    -------
    Pruning
        For :func:`masked` and :func:`csr`. No weight is changed.

    Raises
    ------
    SparsityReportError
        For the reasons of :func:`calibrate`, :func:`layerwise_magnitude` and :func:`n_m`; or no
        token reaches an expert.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> calibration = sr.calibrate(weights, windows=8)
    >>> [sr.masked(sr.wanda(weights, s, calibration)).name for s in (0.3, 0.5)]
    ['Masked30Wanda', 'Masked50Wanda']
    >>> sr.wanda(weights, None, calibration, n_m=(2, 4)).label
    '2:4Wanda'
    """
    calibrate = partial(calibrated, weights, calibration, progress, options)
    return wanda_policy.prune_by_scores(weights, sparsity, calibrate, n_m, allocation, progress)


@with_bar("pruning")
def owl(
    weights: Weights,
    sparsity: float,
    calibration: Text | Calibration | None = None,
    *,
    m: float = wanda_policy.OUTLIER,
    lam: float = wanda_policy.RANGE,
    progress: Progress | None = None,
    **options: Unpack[CalibrationOptions],
) -> pd.DataFrame:
    """Allocate lower sparsity to blocks with many outliers, for ``allocation=`` of any policy.

    Outlier weighed layerwise sparsity (Yin et al. 2023, https://arxiv.org/abs/2310.05175): the
    outlier ratio of a block is the share of its prunable weights whose score ``|w|·‖x‖₂`` exceeds
    `m` times the mean of the block. The densities ``2·lam·(ratio − min) ÷ (max − min)`` span
    2·`lam` and are shifted to the mean ``1 − sparsity``. All matrices of a block get the same
    density. Unlike the paper's code, the mean is weighted by weights, not blocks, so that the model
    has `sparsity` even if blocks differ in size. Modules outside blocks get `sparsity`.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float
        Share of all prunable weights, from 0 to 1.
    calibration : Calibration or text, optional
        See :func:`wanda`.
    m : float
        Multiple of the mean above which a score is an outlier, the paper's M.
    lam : float
        Half the range of densities, the paper's λ.
    progress : callable, optional
        See :func:`wanda`.
    **options
        ``tokenizer, windows, window``, see :func:`calibrate`.

    Returns
    -------
    pandas.DataFrame
        One row per module with prunable weights: ``module_name``, ``block``, ``weights``,
        ``outlier_ratio`` (null outside blocks) and ``sparsity``.

    Raises
    ------
    SparsityReportError
        For the reasons of :func:`calibrate`; no token reaches an expert; there are no blocks; or a
        block would get a sparsity below 0 or above 1.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> frame = sr.owl(weights, 0.5, windows=8)
    >>> bool(frame["sparsity"].max() - frame["sparsity"].min() < 0.1600001)
    True
    >>> sr.masked(sr.layerwise_magnitude(weights, 0.5, allocation=frame)).name
    'Masked50LayerwiseOWL'
    """
    calibrate = partial(calibrated, weights, calibration, progress, options)
    return wanda_policy.allocate_by_outliers(weights, sparsity, calibrate, m, lam, progress)
