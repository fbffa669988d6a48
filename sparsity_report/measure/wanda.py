"""Prune by magnitude times the norm of the input, with one pass over a calibration text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from sparsity_report.counting.activation_scores import (
    InputNorms,
    check_n_m,
    cut_groups,
    cut_rows,
    map_rows,
    score_blocks,
)
from sparsity_report.counting.allocation import NAME, Allocation, check_sparsity, compute_quotas
from sparsity_report.counting.policies import prunable_counts
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.measure.calibration import Calibration, CalibrationOptions, calibrate
from sparsity_report.measure.texts import Text
from sparsity_report.sparse.shares import zero_share
from sparsity_report.weights.anatomy.parameters import Module
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.weights import Weights

if TYPE_CHECKING:
    from typing_extensions import Unpack


@with_bar("pruning")
def wanda(
    weights: Weights,
    sparsity: float | None,
    text: Text | Calibration | None = None,
    *,
    n_m: tuple[int, int] | None = None,
    allocation: Allocation = None,
    progress: Progress | None = None,
    **options: Unpack[CalibrationOptions],
) -> Pruning:
    """Prune by |w|·‖x‖₂, compared within each output, with one pass over a calibration text.

    The score of Wanda (Sun et al. 2023, https://arxiv.org/abs/2306.11695): the magnitude of a
    weight times the norm of its input over all tokens of the text. Of each row of c weights the
    ``round(sparsity·c)`` lowest scores go (half to even; the paper's code rounds down), of equal
    ones the first. So of a whole model about, not exactly, `sparsity` goes, as ``pruned`` says.

    What differs from the paper's code is the one pass: all norms are those of the dense model,
    where the code prunes block after block and measures each on what the pruned ones before it put
    out. The method is called ``wanda_one_pass``. Scores are float64 products of the norms and the
    weights; the last bits of a norm may differ between machines, as those of activations do.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`, and not streamed: it is run.
    sparsity : float or None
        Between 0 and 1. None: what the allocation or ``n_m`` come to.
    text : optional
        See :func:`calibrate`; or what it returned, for several prunings of one pass.
    n_m : tuple of int, optional
        ``(2, 4)`` keeps the two highest scores of every four consecutive weights of a row.
    allocation : DataFrame, mapping, callable or "owl", optional
        A share for each module, see :func:`layerwise_magnitude`; ``"owl"`` is :func:`owl` with its
        defaults. Then ``round(sparsity·n)`` of all n weights go: of each matrix its share rounded
        down, and one more of those with the largest remainders; of its r rows each as many, and
        one more of the first that are left over.
    progress : callable, optional
        Called with what is done, what there is to do, and of what.
    tokenizer, windows, window : optional
        See :func:`calibrate`.

    Returns
    -------
    Pruning

    Raises
    ------
    SparsityReportError
        As of :func:`calibrate`, :func:`layerwise_magnitude` and :func:`n_m`.

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
        pattern = check_n_m(weights, *n_m)
        level = zero_share(pattern[1], pattern[0]) or 0.0
        if sparsity not in {None, level} or allocation is not None:
            raise SparsityReportError(
                f"n_m={n_m} prunes {level:g} of every layer: leave sparsity= and allocation= out"
            )
    elif allocation is None:
        check_sparsity(sparsity)
    prunable_counts(weights)
    calibration = calibrated(weights, text, progress, options)
    if n_m is not None:
        cuts = cut_groups(weights, calibration.scales, pattern, progress)
        method = f"wanda_one_pass, {pattern[0]}:{pattern[1]}"
        return Pruning(weights, level, method, cuts, calibration.basis)
    if isinstance(allocation, str) and allocation == "owl":
        allocation = owl(weights, check_sparsity(sparsity), calibration, progress=progress)
    shares = compute_quotas(weights, sparsity, allocation)
    counts = dict(shares.counts)
    if allocation is None:
        rows = {p.name: p.total // p.matrix[1] for p in weights.prunable if p.matrix}
        counts = {
            p.name: rows[p.name] * round(shares.sparsity * p.matrix[1])
            for p in weights.prunable
            if p.matrix
        }
    cuts = cut_rows(weights, calibration.scales, counts, progress)
    method = shares.method("wanda_one_pass")
    return Pruning(weights, shares.sparsity, method, cuts, calibration.basis)


@with_bar("pruning")
def owl(
    weights: Weights,
    sparsity: float,
    text: Text | Calibration | None = None,
    *,
    m: float = 5.0,
    lam: float = 0.08,
    progress: Progress | None = None,
    **options: Unpack[CalibrationOptions],
) -> pd.DataFrame:
    """Give blocks with many outliers a lower sparsity, for ``allocation=`` of any policy.

    Outlier weighed layerwise sparsity (Yin et al. 2023, https://arxiv.org/abs/2310.05175): the
    outlier ratio of a block is the share of its prunable weights whose score |w|·‖x‖₂ is more than
    `m` times the mean of the block. Densities are these ratios stretched to a range of 2·`lam`,
    ``2·lam·(ratio − min) ÷ (max − min)``, and shifted so that their mean is ``1 − sparsity``; all
    matrices of a block get the same. As in the paper's code, but for the mean: it is that over
    weights, not blocks, so that the whole comes to `sparsity` where blocks differ in size, too.
    What stands outside blocks gets `sparsity` itself.

    Parameters
    ----------
    weights : Weights
    sparsity : float
        Of all prunable weights.
    text, progress, tokenizer, windows, window : optional
        See :func:`wanda`.
    m, lam : float
        The paper's M and λ.

    Returns
    -------
    pandas.DataFrame
        One row per module with prunable weights: ``module_name``, ``block``, ``weights``,
        ``outlier_ratio`` (null outside blocks) and ``sparsity``.

    Raises
    ------
    SparsityReportError
        As of :func:`calibrate`; there are no blocks, or a block would get less than 0 or more than
        all.

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
    for what, number in (("m", m), ("lam", lam)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
            raise SparsityReportError(f"{what} must be a number above 0, not {number!r}")
    prunable_counts(weights)
    calibration = calibrated(weights, text, progress, options)
    modules = {mod: sum(p.total for p in mod.parameters if p.prunable) for mod in weights.modules}
    modules = {module: total for module, total in modules.items() if total}
    ratios = _outlier_ratios(calibration, modules, m, progress)
    shares = _stretched(weights, ratios, modules, level, lam)
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


def calibrated(
    weights: Weights,
    text: Text | Calibration | None,
    progress: Progress | None,
    options: CalibrationOptions,
) -> Calibration:
    """Return a calibration of just this model, or make one."""
    if not isinstance(text, Calibration):
        return calibrate(weights, text, progress=progress, **options)
    if options:
        raise SparsityReportError(f"a calibration is done: {min(options)}= comes too late for it")
    if text.weights is not weights:
        raise SparsityReportError(
            f"the calibration is one of {text.weights.name}, opened apart: give the same weights, "
            "or calibrate(weights, …) anew"
        )
    return text


def _block(module: Module) -> str:
    """Name the Transformer block that a module stands in; empty outside."""
    words = module.name.split(".")
    at = next((place for place, word in enumerate(words, 1) if word.isdecimal()), 0)
    return ".".join(words[:at])


def _outlier_ratios(
    calibration: Calibration, modules: Mapping[Module, int], m: float, progress: Progress | None
) -> dict[str, float]:
    """Return the share of outliers among the scores of each block."""
    weights = calibration.weights
    blocks = {p.name: _block(o) for o in modules for p in o.parameters if p.prunable}
    blocks = {name: block for name, block in blocks.items() if block}
    scales = {name: calibration.scales[name] for name in blocks}
    totals: dict[str, int] = {}
    sums: dict[str, list[float]] = {}
    work = {name: partial(_sum, scale=scale) for name, scale in scales.items()}
    for p, parts in map_rows(weights, work, progress):
        block = blocks[p.name]
        totals[block] = totals.get(block, 0) + p.total
        sums.setdefault(block, []).extend(parts)
    limits = {block: m * math.fsum(parts) / totals[block] for block, parts in sums.items()}
    outliers = dict.fromkeys(totals, 0)
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
    weights: Weights,
    ratios: Mapping[str, float],
    modules: Mapping[Module, int],
    level: float,
    lam: float,
) -> dict[str, float]:
    """Return the sparsity of each block."""
    if not ratios:
        raise SparsityReportError(
            f"{weights.name} has no prunable weights in numbered blocks, which OWL tells apart"
        )
    low, high = min(ratios.values()), max(ratios.values())
    room = 2 * lam / (high - low) if high > low else 0.0
    density = {block: room * (ratio - low) for block, ratio in ratios.items()}
    sizes = dict.fromkeys(ratios, 0)
    for module, total in modules.items():
        if block := _block(module):
            sizes[block] += total
    mean = math.fsum(density[b] * sizes[b] for b in sizes) / sum(sizes.values())
    shares = {block: level - (each - mean) for block, each in density.items()}
    for block, share in shares.items():
        if not 0 <= share <= 1:
            raise SparsityReportError(
                f"OWL with lam={lam:g} would prune {share:.2%} of {block}: at {level:.2%} in all "
                "take a smaller lam="
            )
    return shares
