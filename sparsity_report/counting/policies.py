"""Pruning policies: global and layerwise magnitude, N:M patterns and random pruning."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.activation_scores import check_n_m, cut_groups
from sparsity_report.counting.allocation import Allocation, check_sparsity, compute_quotas
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.disk_cache import CacheFolder
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import CountedCut, Cut, Pruning, ThresholdCut, ZeroCut
from sparsity_report.counting.ranks import find_levels, read_buckets, refine_level
from sparsity_report.deferred import torch
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.shares import zero_share
from sparsity_report.weights.tensor_slices import Slice, pieces
from sparsity_report.weights.weights import Weights

Words = npt.NDArray[np.uint64]

# Random words drawn at a time.
_BLOCK = 2**20
_TOP = np.uint64(48)


@with_bar("pruning")
def global_magnitude(
    weights: Weights,
    sparsity: float,
    *,
    modules: Collection[str] | None = None,
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
    modules : collection of str, optional
        Names of the modules to prune; n counts their weights only. Default: all.
    progress : callable, optional
        Called with bytes done, bytes in all and the name of the tensor.
    executor : concurrent.futures.Executor, optional
        Counts checkpoints in files, for example a ``ProcessPoolExecutor``,
        ``dask.distributed``'s ``Client.get_executor()`` or an
        ``mpi4py.futures.MPIPoolExecutor``. Its workers must see the files under the same path.
        Threads of this process count models in memory.
    cache : path-like or Cache, optional
        Folder that caches the counts of large tensors in files, see :class:`Cache`.

    Returns
    -------
    Pruning
        The cut of each tensor; the model is not modified.

    Raises
    ------
    SparsityReportError
        `sparsity` is not a number from 0 to 1, the model or a module has no prunable weights, or
        a weight is NaN.

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
    method = "global_magnitude"
    if modules is not None:
        prunable = {m.name for m in weights.modules if any(p.prunable for p in m.parameters)}
        if unknown := sorted(set(modules) - prunable):
            raise SparsityReportError(
                f"{weights.name} has no prunable module {unknown[0]!r}; see study.layers"
            )
        names = {p.name for m in weights.modules if m.name in set(modules) for p in m.parameters}
        counts = {name: magnitudes for name, magnitudes in counts.items() if name in names}
        method = f"global_magnitude in {len(set(modules))} of {len(prunable)} modules"
    target = round(level * sum(magnitudes.total for magnitudes in counts.values()))
    cuts = threshold_cuts(counts, weights.slices, target, executor)
    return Pruning(weights, level, method, cuts)


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
    cuts: dict[str, Cut] = {name: ZeroCut(number) for name, number in zeros.items() if number}
    return Pruning(weights, share, "existing_zeros", cuts)


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

    This prunes ``round(sparsity·n)`` of the n weights of every tensor (half to even, like
    ``torch.nn.utils.prune.l1_unstructured``), equal magnitudes by position.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float or None
        From 0 to 1. None: the share that the allocation adds up to.
    allocation : DataFrame, mapping or callable, optional
        A share for each module with prunable weights: a frame with the columns ``module_name`` and
        ``sparsity``, such as that of :func:`owl`, a mapping by name, or a function of a module
        with its ``name``, ``group``, ``block`` and ``parameters``. All tensors together lose
        ``round(sparsity·n)`` of n weights: each its share rounded down, and those with the largest
        remainders one more. Default: the same share for all.
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
    return Pruning(weights, shares.sparsity, shares.method("layerwise_magnitude"), cuts)


@dataclass(frozen=True, slots=True)
class RandomCut(CountedCut):
    """A cut of the weights with the lowest random words.

    Weight number i of the tensor, in memory order, gets the i-th 64-bit word of NumPy's Philox
    generator, whose stream is the same on every machine and in every version.

    Attributes
    ----------
    key : int
        Key of the generator, 128 bits.
    lot : int
        Weights with a lower word are pruned.
    pruned : int
        Number of pruned elements.
    ties : int
        Pruned weights with exactly this word, the first by position.
    nonzero : int
        Kept weights that are not zero.
    """

    key: int
    lot: int
    pruned: int
    ties: int
    nonzero: int

    def _chosen(self, parts: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator, ties = np.random.Philox(key=self.key), self.ties
        for part in parts:
            lots: Words = generator.random_raw(part.numel())
            stays = lots >= np.uint64(self.lot)
            if ties:
                on_it = np.flatnonzero(lots == np.uint64(self.lot))[:ties]
                stays[on_it] = False
                ties -= len(on_it)
            yield part, torch.from_numpy(stays).reshape(part.shape).to(part.device)


@with_bar("pruning")
def random_unstructured(
    weights: Weights,
    sparsity: float | None,
    *,
    seed: int = 0,
    allocation: Allocation = None,
    progress: Progress | None = None,
) -> Pruning:
    """Prune random weights of each prunable tensor: a baseline for other policies.

    This prunes exactly ``round(sparsity·n)`` of the n weights of every tensor, like
    ``torch.nn.utils.prune.random_unstructured``. Weight number i in memory order gets word number
    i of NumPy's Philox generator, keyed by the first half of the SHA-256 of seed and parameter
    name. The weights with the lowest words are pruned: the same ones on every machine.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float or None
        From 0 to 1. None: the share that the allocation adds up to.
    seed : int
        Seed of the generator, 0 or more.
    allocation : DataFrame, mapping or callable, optional
        See :func:`layerwise_magnitude`.
    progress : callable, optional
        See :func:`global_magnitude`.

    Returns
    -------
    Pruning
        The cut of each tensor; the model is not modified.

    Raises
    ------
    SparsityReportError
        `sparsity`, `allocation` or `seed` is not valid, or no weight is prunable.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.random_unstructured(sr.load(), sparsity=0.5)
    >>> sr.masked(pruning).name, pruning.method
    ('Masked50Random', 'random, seed 0')
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise SparsityReportError(f"seed must be a whole number of 0 or more, not {seed!r}")
    check_values(weights)
    shares = compute_quotas(weights, sparsity, allocation)
    counts, cuts = count_weights(weights, progress), {}
    for p in weights.prunable:
        if pruned := shares.counts[p.name]:
            cut = random_cut(seed, p.name, p.total, pruned)
            if counts[p.name].nonzero < p.total:
                cut = replace(cut, nonzero=cut.kept(pieces(weights.as_in_memory(p.name))))
            cuts[p.name] = cut
    return Pruning(weights, shares.sparsity, shares.method(f"random, seed {seed}"), cuts)


def random_cut(seed: int, name: str, total: int, pruned: int) -> RandomCut:
    """Return a random cut of a tensor, with all kept weights assumed to be nonzero.

    The key of the generator is the first half of the SHA-256 of seed and name.

    Examples
    --------
    >>> cut = random_cut(0, "fc1.weight", 10, 3)
    >>> cut.mask(torch.ones(2, 5)).int().tolist()
    [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    """
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16], "little")
    tally = np.zeros(2**16, dtype=np.int64)
    for lots in _lots(key, total):
        tally += np.bincount((lots >> _TOP).astype(np.int64), minlength=tally.size)
    reached = np.cumsum(tally)
    bucket = int(np.searchsorted(reached, pruned))
    before = int(reached[bucket] - tally[bucket])
    inside = np.concatenate([lots[lots >> _TOP == np.uint64(bucket)] for lots in _lots(key, total)])
    inside.sort()
    lot = inside[pruned - before - 1]
    below = before + int(np.searchsorted(inside, lot))
    return RandomCut(key, int(lot), pruned, pruned - below, total - pruned)


def _lots(key: int, total: int) -> Iterator[Words]:
    generator = np.random.Philox(key=key)
    for start in range(0, total, _BLOCK):
        yield generator.random_raw(min(_BLOCK, total - start))


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
    check_n_m(weights, n, m)
    prunable_counts(weights, progress, executor, cache)

    cuts = cut_groups(weights, None, (n, m), executor=executor)
    return Pruning(weights, zero_share(m, n) or 0.0, f"{n}:{m}", cuts)


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


def threshold_cuts(
    counts: Mapping[str, Magnitudes],
    slices: Callable[[str], Iterable[Slice]],
    target: int,
    executor: Executor | None = None,
) -> dict[str, Cut]:
    """Return the cuts by one threshold that prune so many weights of several tensors."""
    if target == 0:
        return {}
    (level,) = find_levels(counts, [target])
    if not level.exact:
        level = refine_level(
            level, read_buckets(counts, slices, level.bucket, level.bucket, executor)
        )
    return {
        name: ThresholdCut(level.threshold, int(below + ties), int(ties))
        for name, below, ties in zip(counts, level.below, level.ties, strict=True)
    }
