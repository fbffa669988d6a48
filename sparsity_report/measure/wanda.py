"""Wanda and OWL: pruning by magnitude times input norm from one calibration pass."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Unpack

import pandas as pd

from sparsity_report.counting import activation_scores
from sparsity_report.counting.activation_scores import map_rows, score_blocks
from sparsity_report.counting.allocation import NAME, Allocation, check_sparsity, compute_quotas
from sparsity_report.counting.policies import prunable_counts
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import InputNorms, Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.measure.calibration import Calibration, CalibrationOptions, calibrated
from sparsity_report.measure.texts import Text
from sparsity_report.sparse.shares import zero_share
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.weights import Module, Weights


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
    ``round(sparsity·c)`` lowest scores are pruned (half to even; the paper's code rounds down),
    ties by position. The sparsity of the whole model is therefore close to `sparsity`, not exact.

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
        defaults. Exactly ``round(sparsity·n)`` of all n weights are pruned: each matrix gets its
        share rounded down, those with the largest remainders one more. The rows of a matrix get
        equal numbers, the first rows one more where they do not divide evenly.
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
    if n_m is not None:
        pattern = activation_scores.check_n_m(weights, *n_m)
        level = zero_share(pattern[1], pattern[0]) or 0.0
        if sparsity not in {None, level} or allocation is not None:
            raise SparsityReportError(
                f"n_m={n_m} prunes {level:g} of every layer; leave sparsity= and allocation= out"
            )
    elif allocation is None:
        check_sparsity(sparsity)
    prunable_counts(weights)
    calibration = _inputs(calibrated(weights, calibration, progress, options))
    if n_m is not None:
        cuts = activation_scores.cut_groups(weights, calibration.scales, pattern, progress)
        method = f"wanda_one_pass, {pattern[0]}:{pattern[1]}"
        return Pruning(weights, level, method, cuts, calibration.basis)
    if isinstance(allocation, str) and allocation == "owl":
        allocation = owl(weights, check_sparsity(sparsity), calibration, progress=progress)
    shares = compute_quotas(weights, sparsity, allocation)
    counts, scales = shares.counts, calibration.scales
    if allocation is None:
        counts = {n: s.rows * round(shares.sparsity * s.inputs) for n, s in scales.items()}
    cuts = activation_scores.cut_rows(weights, scales, counts, progress)
    method = shares.method("wanda_one_pass")
    return Pruning(weights, shares.sparsity, method, cuts, calibration.basis)


@with_bar("pruning")
def owl(
    weights: Weights,
    sparsity: float,
    calibration: Text | Calibration | None = None,
    *,
    m: float = 5.0,
    lam: float = 0.08,
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
    level = check_sparsity(sparsity)
    for option, number in (("m", m), ("lam", lam)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
            raise SparsityReportError(f"{option}={number!r} is not a number above 0; change it")
    prunable_counts(weights)
    calibration = _inputs(calibrated(weights, calibration, progress, options))
    modules = {mod: sum(p.total for p in mod.parameters if p.prunable) for mod in weights.modules}
    modules = {module: total for module, total in modules.items() if total}
    ratios = _outlier_ratios(calibration, modules, m, progress)
    shares = _stretched(weights.name, ratios, modules, level, lam)
    frame = pd.DataFrame(
        {
            "module_name": [module.name for module in modules],
            "block": pd.array([module.block for module in modules], dtype="Int64"),
            "weights": list(modules.values()),
            "outlier_ratio": pd.array([ratios.get(_block(o)) for o in modules], dtype="Float64"),
            "sparsity": [shares.get(_block(module), level) for module in modules],
        }
    )
    frame.attrs[NAME] = "owl"
    return frame


def _inputs(calibration: Calibration) -> Calibration:
    """Return a calibration in which every matrix has inputs; refuse one with idle experts."""
    for name, tokens in calibration.tokens.items():
        if 0 in tokens:
            raise SparsityReportError(
                f"{calibration.weights.name}: no token of the calibration text reached expert "
                f"{tokens.index(0)} of {name} ({tokens.count(0):,} of {len(tokens):,} got none), "
                "so its inputs are unknown; give a longer text"
            )
    return calibration


def _block(module: Module) -> str:
    """Return the name of the Transformer block of a module, empty outside blocks."""
    words = module.name.split(".")
    at = next((place for place, word in enumerate(words, 1) if word.isdecimal()), 0)
    return ".".join(words[:at])


def _outlier_ratios(
    calibration: Calibration, modules: Mapping[Module, int], m: float, progress: Progress | None
) -> dict[str, float]:
    """Return the share of outliers among the scores of each block."""
    weights = calibration.weights
    blocks = {p.name: _block(o) for o in modules if _block(o) for p in o.parameters if p.prunable}
    scales = {name: calibration.scales[name] for name in blocks}
    totals, outliers = Counter[str](), Counter[str]()
    sums = defaultdict[str, list[float]](list)
    work = {name: partial(_sum, scale=scale) for name, scale in scales.items()}
    for p, parts in map_rows(weights, work, progress):
        totals[blocks[p.name]] += p.total
        sums[blocks[p.name]] += parts
    limits = {block: m * math.fsum(parts) / totals[block] for block, parts in sums.items()}
    above = {
        name: partial(_above, scale=scale, limit=limits[blocks[name]])
        for name, scale in scales.items()
    }
    for p, counts in map_rows(weights, above, progress):
        outliers[blocks[p.name]] += sum(counts)
    return {block: outliers[block] / total for block, total in totals.items()}


def _sum(part: Slice, scale: InputNorms, first: int) -> float:
    return math.fsum(float(scores.sum()) for _, scores, _ in score_blocks(part, scale, first))


def _above(part: Slice, scale: InputNorms, limit: float, first: int) -> int:
    return sum(int((scores > limit).sum()) for _, scores, _ in score_blocks(part, scale, first))


def _stretched(
    name: str, ratios: Mapping[str, float], modules: Mapping[Module, int], level: float, lam: float
) -> dict[str, float]:
    """Return the sparsity of each block."""
    if not ratios:
        raise SparsityReportError(
            f"{name} has no prunable weights in numbered blocks, which OWL needs; use wanda"
        )
    low, high = min(ratios.values()), max(ratios.values())
    room = 2 * lam / (high - low) if high > low else 0.0
    density = {block: room * (ratio - low) for block, ratio in ratios.items()}
    sizes = {module: total for module, total in modules.items() if _block(module)}
    mean = math.fsum(density[_block(o)] * n for o, n in sizes.items()) / sum(sizes.values())
    shares = {block: level - (each - mean) for block, each in density.items()}
    for block, share in shares.items():
        if not 0 <= share <= 1:
            raise SparsityReportError(
                f"OWL with lam={lam:g} would prune {share:.2%} of {block} at {level:.2%} overall; "
                "use a smaller lam="
            )
    return shares
