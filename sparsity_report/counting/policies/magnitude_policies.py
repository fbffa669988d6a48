"""Pruning by magnitude: global, layerwise and N:M; and the zeros that a model has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor

import numpy as np

from sparsity_report.counting.allocation import Allocation, compute_quotas, even_counts
from sparsity_report.counting.count_cache import CacheFolder
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.cuts import Cut, ThresholdCut, check_n_m, cut_groups
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Ladder, ModuleCounts, Pruning
from sparsity_report.counting.pruning_policies import (
    ExistingZeros,
    GlobalMagnitude,
    LayerwiseMagnitude,
    NMPattern,
    check_sparsity,
)
from sparsity_report.counting.ranks import find_levels, refine_level
from sparsity_report.counting.workers import unflushed
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.shares import zero_share
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say


def layerwise_left(counts: ModuleCounts) -> Ladder | str:
    """Return the weights that layerwise magnitude leaves, by the sizes and zeros of tensors."""
    if counts.tensors is None:
        code = "sr.explore(study, weights=sr.load(…))"
        return say("explorer.policy_needs_weights", code=code)
    sparsities, (sizes, nonzero, codes) = counts.ladder.sparsities, counts.tensors
    pruned = np.stack([even_counts(sizes, sparsity) for sparsity in sparsities], axis=1)
    kept = sizes[:, None] - np.maximum(pruned, (sizes - nonzero)[:, None])
    left = np.zeros((len(counts.totals), len(sparsities)), dtype=np.int64)
    np.add.at(left, codes, kept)
    return Ladder(sparsities, left, np.zeros_like(left))


def pattern_left(counts: ModuleCounts, m: int) -> Ladder | str:
    """Return the weights that remain, at n of m weights pruned, if no weight was zero."""
    if counts.zeros:
        return say("explorer.policy_needs_no_zeros", m=m)
    if (counts.columns % m).any():
        return say("explorer.policy_needs_groups", m=m)
    kept = np.arange(m, 0, -1)
    left = counts.totals[:, None] // m * kept
    return Ladder([float(1 - k / m) for k in kept], left, np.zeros_like(left))


@with_bar("pruning")
def global_magnitude(
    weights: Weights,
    sparsity: float,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> Pruning:
    """Prune the smallest magnitudes over all prunable weights together, exactly.

    This prunes ``round(sparsity·n)`` of n prunable weights (half to even, like
    ``torch.nn.utils.prune.global_unstructured``). Weights that are zero already count as pruned.
    Equal magnitudes are pruned in model order, then by position in the tensor.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float
        From 0 to 1.
    progress : callable, optional
        Called with bytes done, bytes in all and the name of the tensor.
    executor : concurrent.futures.Executor, optional
        Counts checkpoints in files, for example a ``ProcessPoolExecutor``,
        ``dask.distributed``'s ``Client.get_executor()`` or an
        ``mpi4py.futures.MPIPoolExecutor``. Its workers must see the files under the same path.
        Threads of this process count models in memory.
    cache : path-like, optional
        Folder that caches the counts of large tensors in files; created when it is missing.

    Returns
    -------
    Pruning
        The cut of each tensor; the model is not modified.

    Raises
    ------
    SparsityReportError
        `sparsity` is not a number from 0 to 1, the model has no prunable weights, or a weight is
        NaN.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pruning = sr.global_magnitude(weights, sparsity=0.5)
    >>> pruning.pruned == round(0.5 * sum(p.total for p in weights.prunable))
    True
    """
    level = check_sparsity(sparsity)
    counts = prunable_counts(weights, progress, executor, cache)
    return prune_together(weights, level, counts, executor)


def prune_together(
    weights: Weights,
    level: float,
    counts: Mapping[str, Magnitudes],
    executor: Executor | None = None,
) -> Pruning:
    """Prune the smallest magnitudes of counted tensors by one threshold."""
    target = round(level * sum(magnitudes.total for magnitudes in counts.values()))
    cuts = threshold_cuts(counts, weights.slices, target, executor)
    return Pruning(weights, level, GlobalMagnitude(), cuts)


@with_bar("pruning")
def existing_zeros(
    weights: Weights,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> Pruning:
    """Take exactly the zeros of the prunable weights of an already-pruned model.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    progress, executor, cache : optional
        See :func:`global_magnitude`.

    Returns
    -------
    Pruning
        The zeros of each tensor; no weight changes.

    Raises
    ------
    SparsityReportError
        The model has no prunable weights, or a weight is NaN.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> model = sr.masked(sr.global_magnitude(sr.load(), 0.5)).module()
    >>> pruning = sr.existing_zeros(sr.load(model))
    >>> pruning.pruned, sr.masked(pruning).name, sr.csr(pruning).name
    (393216, 'Pruned50', 'CSR50')
    """
    counts = prunable_counts(weights, progress, executor, cache)
    zeros = {name: counted.total - counted.nonzero for name, counted in counts.items()}
    share = sum(zeros.values()) / sum(counted.total for counted in counts.values())
    cuts = {name: ThresholdCut(0.0, n, n, 0, changes=False) for name, n in zeros.items() if n}
    return Pruning(weights, share, ExistingZeros(), cuts)


@with_bar("pruning")
def layerwise_magnitude(
    weights: Weights,
    sparsity: float | None,
    *,
    allocation: Allocation = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> Pruning:
    """Prune the smallest magnitudes of each prunable tensor separately, exactly.

    This prunes ``round(sparsity·n)`` of n prunable weights (half to even), as
    :func:`global_magnitude` does: of every tensor its share rounded down, and one more of those
    with the largest remainders. Equal magnitudes are pruned by position.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float or None
        From 0 to 1. None: the share that the allocation adds up to.
    allocation : DataFrame, mapping or callable, optional
        A share for each module with prunable weights: a frame with the columns ``module_name`` and
        ``sparsity``, such as that of :func:`owl`, a mapping by name, or a function of a module
        with its ``name``, ``group``, ``block`` and ``parameters``. Default: the same share for all.
    progress, executor, cache : optional
        See :func:`global_magnitude`.

    Returns
    -------
    Pruning
        The cut of each tensor; the model is not modified.

    Raises
    ------
    SparsityReportError
        As for :func:`global_magnitude`; or the allocation lacks a module, names an unknown one, or
        does not add up to `sparsity`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.layerwise_magnitude(sr.load(), sparsity=0.5)
    >>> {pruning.cuts[p.name].pruned / p.total for p in pruning.weights.prunable}
    {0.5}
    >>> rule = lambda module: 0.7 if module.group == "mlp_linear" else 0.1
    >>> sr.masked(sr.layerwise_magnitude(pruning.weights, None, allocation=rule)).name
    'Masked50LayerwiseGiven'
    """
    check_values(weights)
    shares = compute_quotas(weights, sparsity, allocation)
    cuts: dict[str, Cut] = {}
    for name, magnitudes in prunable_counts(weights, progress, executor, cache).items():
        cuts |= threshold_cuts({name: magnitudes}, weights.slices, shares.counts[name], executor)
    return Pruning(weights, shares.sparsity, LayerwiseMagnitude(allocation=shares.name), cuts)


@with_bar("pruning")
def n_m(
    weights: Weights,
    n: int,
    m: int,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> Pruning:
    """Keep the `n` largest magnitudes of every `m` consecutive weights of an output.

    Sparse tensor cores multiply by 2:4 patterns. Groups run along the input dimension. The first
    of equal magnitudes in a group are pruned.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    n, m : int
        ``n_m(weights, 2, 4)`` keeps two of every four weights.
    progress, executor, cache : optional
        See :func:`global_magnitude`.

    Returns
    -------
    Pruning
        Its sparsity is ``1 − n/m``.

    Raises
    ------
    SparsityReportError
        `n` is not from 0 to `m`, `m` does not divide the inputs of a matrix, no weight is
        prunable, or a weight is NaN.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.masked(sr.n_m(sr.load(), 2, 4)).name
    'Masked2:4'
    """
    pattern = check_n_m(weights, n, m)
    prunable_counts(weights, progress, executor, cache)
    cuts = cut_groups(weights, None, pattern, executor=executor)
    return Pruning(weights, zero_share(m, n) or 0.0, NMPattern(pattern), cuts)


def prunable_counts(
    weights: Weights,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> dict[str, Magnitudes]:
    """Count a model; return the counts of its prunable tensors, in the order that breaks ties."""
    check_values(weights)
    counts = count_weights(weights, progress, executor=executor, cache=cache)
    return check_rankable({p.name: counts[p.name] for p in weights.prunable})


def check_values(weights: Weights) -> None:
    """Raise an error if a model has no prunable weights or no values, or is not opened."""
    if not isinstance(weights, Weights):
        raise SparsityReportError(
            f"a {type(weights).__name__} cannot be pruned; open the model with sr.load first"
        )
    if not weights.prunable:
        raise SparsityReportError(
            f"{weights.name} has no prunable linear layer; see the groups in study.layers"
        )
    if unknown := [p.name for p in weights.prunable if not p.known]:
        raise SparsityReportError(
            f"{weights.name}: {unknown[0]} has no values to count; load the model with them, "
            "in a format that can be unpacked"
        )


def check_rankable(counts: dict[str, Magnitudes]) -> dict[str, Magnitudes]:
    """Return `counts`, or raise an error if a tensor holds NaN, which has no rank."""
    for name, magnitudes in counts.items():
        if magnitudes.nan:
            raise SparsityReportError(
                f"{name} holds {magnitudes.nan:,} NaN: its magnitudes cannot be ranked; "
                "repair the checkpoint before pruning it, or count it as it is: compare(dense(…))"
            )
    return counts


@unflushed()
def threshold_cuts(
    counts: Mapping[str, Magnitudes],
    slices: Callable[[str], Iterable[Slice]],
    target: int,
    executor: Executor | None = None,
) -> dict[str, Cut]:
    """Return the cuts by one threshold that prune a number of weights of several tensors."""
    if target == 0:
        return {}
    (level,) = find_levels(counts, [target])
    if not level.exact:
        level = refine_level(level, counts, slices, executor)
    return {
        name: ThresholdCut(level.threshold, int(below + ties), int(ties), int(on - ties))
        for name, below, ties, on in zip(counts, level.below, level.ties, level.on, strict=True)
    }
