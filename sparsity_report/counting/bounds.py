"""Global magnitude pruning with bounds on single layers; the other layers compensate."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from sparsity_report.counting import ranks
from sparsity_report.counting.allocation import check_sparsity
from sparsity_report.counting.disk_cache import CacheFolder
from sparsity_report.counting.histogram import Integers, Magnitudes
from sparsity_report.counting.policies import prunable_counts, threshold_cuts
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Cut, Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.weights import Weights

Bounds = Mapping[str, float | tuple[float, float]]
"""By module or group: the largest pruned share of a layer, or the smallest and the largest."""
_Counts = Mapping[str, Magnitudes]


@dataclass(frozen=True, eq=False)
class BoundCounts:
    """Bounds on the pruned weights of each module with prunable weights.

    Attributes
    ----------
    modules : list of str
        Names, in model order.
    tensors : list of list of str
        Names of the prunable parameters of each.
    starts : numpy.ndarray of int64
        Index of the first tensor of each among all prunable tensors.
    least, most : numpy.ndarray of int64
        Smallest and largest number of weights to prune.
    totals, zeros : numpy.ndarray of int64
        Prunable weights, and those that are zero before pruning.
    """

    modules: list[str]
    tensors: list[list[str]]
    starts: Integers
    least: Integers
    most: Integers
    totals: Integers
    zeros: Integers

    def split(self, rows: Integers) -> Integers:
        """Return the pruned weights per module, from the magnitudes below a level per tensor."""
        counts: Integers = np.add.reduceat(rows, self.starts, axis=1)
        return np.clip(counts, self.least, self.most)

    def taken(self, rows: Integers) -> Integers:
        """Return the pruned weights of all modules, from magnitudes below a level per tensor."""
        sums: Integers = self.split(rows).sum(axis=1)
        return sums

    @property
    def reach(self) -> tuple[int, int]:
        """Smallest and largest number of pruned weights."""
        return int(self.least.sum()), int(self.most.sum())

    def check(self, target: int) -> None:
        """Raise an error if the bounds do not allow so many pruned weights."""
        low, high = self.reach
        if not low <= target <= high:
            total = int(self.totals.sum())
            asked, first, last = (f"{100 * number / total:.2f} %" for number in (target, low, high))
            raise SparsityReportError(
                f"bounds= leave room for {first} to {last} of the prunable weights, not {asked}; "
                "ask for another sparsity, or loosen a bound"
            )


@with_bar("pruning")
def bounded_magnitude(
    weights: Weights,
    sparsity: float,
    bounds: Bounds,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> Pruning:
    """Prune the smallest magnitudes over all layers together, within bounds for some layers.

    Like :func:`global_magnitude`, this prunes ``round(sparsity·n)`` of all n prunable weights, the
    smallest magnitudes first, and equal ones in model order and by position. A layer at its bound
    loses no more weights, and the other layers compensate. No other pruning within the bounds
    removes less magnitude.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float
        Share of all prunable weights, from 0 to 1.
    bounds : mapping
        Bounds by module or by group; a group's bound applies to each of its layers that has none.
        A number is the largest pruned share of a layer's prunable weights, and 0 keeps the layer.
        A pair is the smallest and the largest share. Weights that are zero before pruning count
        as pruned, so that a bound below their share has no effect.
    progress, executor, cache : optional
        See :func:`global_magnitude`.

    Returns
    -------
    Pruning
        The cut of each tensor; the model is not modified.

    Raises
    ------
    SparsityReportError
        As for :func:`global_magnitude`; or a bound is not a share, names no prunable layer, or the
        bounds do not allow `sparsity`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> bounds = {"attention_linear": 0.2, "model.decoder.layers.0.fc1": 0}
    >>> pruning = sr.bounded_magnitude(sr.load(), 0.5, bounds)
    >>> pruning.pruned == round(0.5 * sum(p.total for p in pruning.weights.prunable))
    True
    >>> sr.masked(pruning).name
    'Masked50Bounded'
    """
    level = check_sparsity(sparsity)
    counts = prunable_counts(weights, progress, executor, cache)
    parts = resolve_bounds(weights, bounds, counts)
    gone = _quotas(weights, counts, parts, round(level * int(parts.totals.sum())), executor)
    cuts: dict[str, Cut] = {}
    for tensors, number in zip(parts.tensors, gone, strict=True):
        mine = {name: counts[name] for name in tensors}
        cuts |= threshold_cuts(mine, weights.slices, number, executor)
    return Pruning(weights, level, "global_magnitude, bounded", cuts)


def resolve_bounds(weights: Weights, bounds: Bounds, counts: _Counts) -> BoundCounts:
    """Return bounds in weights from bounds in shares.

    Parameters
    ----------
    weights : Weights
    bounds : mapping
        See :func:`bounded_magnitude`.
    counts : mapping of str to Magnitudes
        Counts of the prunable tensors, in model order.

    Raises
    ------
    SparsityReportError
        A name belongs to no prunable module or group, or a bound is not a share.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> some = resolve_bounds(weights, {"attention_linear": 0.25}, prunable_counts(weights))
    >>> some.most[:6].tolist(), some.totals[:6].tolist()
    ([4096, 4096, 4096, 4096, 65536, 65536], [16384, 16384, 16384, 16384, 65536, 65536])
    """
    modules = [m for m in weights.modules if any(p.prunable for p in m.parameters)]
    names, groups = {m.name for m in modules}, {m.group for m in modules}
    if unknown := [name for name in bounds if name not in names | groups]:
        raise SparsityReportError(
            f"bounds=: {weights.name} has no prunable module or group {unknown[0]!r}; "
            "see the names in study.layers"
        )
    tensors = [[p.name for p in m.parameters if p.name in counts] for m in modules]
    sizes = np.array([len(part) for part in tensors])
    starts = np.cumsum(sizes) - sizes
    each = [counts[name] for part in tensors for name in part]
    totals = np.add.reduceat([magnitudes.total for magnitudes in each], starts)
    zeros = totals - np.add.reduceat([magnitudes.nonzero for magnitudes in each], starts)
    given = {name: _pair(name, bound) for name, bound in bounds.items()}
    low, high = np.array([given.get(m.name, given.get(m.group, (0.0, 1.0))) for m in modules]).T
    # The tolerance undoes the rounding error of a share that is a whole number of weights.
    error = np.maximum(1e-6, totals * 2.0**-50)
    most = np.floor(high * totals + error).astype(np.int64)
    return BoundCounts(
        [m.name for m in modules],
        tensors,
        starts,
        # If no whole number is within the bounds, the largest below.
        np.minimum(np.ceil(low * totals - error).astype(np.int64), most),
        np.maximum(most, zeros),
        totals,
        zeros,
    )


def find_bounded_levels(
    counts: _Counts, parts: BoundCounts, targets: Sequence[int]
) -> Iterator[tuple[Integers, Integers]]:
    """Yield the pruned weights per module, and their possible error, for ascending targets."""
    low, _ = parts.reach
    held = sum(target <= low for target in targets)
    for _ in targets[:held]:
        yield parts.least, np.zeros_like(parts.least)
    for level, before, through in ranks.Ranking(counts).reaching(parts.taken, targets[held:]):
        gone, first, last = parts.split(np.stack([_pruned(level), before, through]))
        slack = np.maximum(last - gone, gone - first)
        yield gone, np.zeros_like(gone) if level.exact else slack


def _quotas(
    weights: Weights, counts: _Counts, parts: BoundCounts, target: int, executor: Executor | None
) -> list[int]:
    """Return the exact number of pruned weights per module for a number in all."""
    parts.check(target)
    if target == parts.reach[0]:
        return [int(number) for number in parts.least]
    ((coarse, before, through),) = ranks.Ranking(counts).reaching(parts.taken, [target])
    level = coarse
    if not level.exact:
        magnitudes = ranks.read_buckets(
            counts, weights.slices, level.bucket, level.bucket, executor
        )

        def at(rank: int) -> ranks.Level:
            return ranks.refine_level(replace(coarse, target=rank), magnitudes)

        level = ranks.find_first_level(parts.taken, target, at, before, through)
    return [int(number) for number in parts.split(_pruned(level)[None])[0]]


def _pruned(level: ranks.Level) -> Integers:
    return level.below + level.ties


def _pair(name: str, bound: object) -> tuple[float, float]:
    try:
        low, high = bound if isinstance(bound, tuple | list) else (0.0, bound)
        pair = check_sparsity(low), check_sparsity(high)
    except (SparsityReportError, ValueError) as error:
        raise SparsityReportError(
            f"bounds=: the bound {bound!r} of {name!r} is not valid; give a share from 0 to 1, or "
            "two shares such as (0.1, 0.3)"
        ) from error
    if pair[0] > pair[1]:
        raise SparsityReportError(
            f"bounds=: the lower bound of {name!r} is above the upper one; swap them"
        )
    return pair
