"""Bounds on what single layers lose to global pruning: the others make up for it, exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from sparsity_report.counting.allocation import check_sparsity
from sparsity_report.counting.disk_cache import CacheFolder
from sparsity_report.counting.histogram import Integers, Magnitudes
from sparsity_report.counting.policies import prunable_counts, threshold_cuts
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Cut, Pruning
from sparsity_report.counting.ranks import Level, Ranking, first_reaching, look_into, settle
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.weights import Weights

Bounds = Mapping[str, float | tuple[float, float]]
"""By module or group: the largest share of a layer that goes, or the smallest and the largest."""


@dataclass(frozen=True, eq=False)
class Bounded:
    """How many weights of each module with prunable weights may go.

    Attributes
    ----------
    modules : list of str
        Their names, in the model's order.
    tensors : list of list of str
        Names of the prunable parameters of each.
    starts : numpy.ndarray of int64
        Where the tensors of each begin among all that are prunable.
    least, most : numpy.ndarray of int64
        How many of its weights go.
    totals, zeros : numpy.ndarray of int64
        Its prunable weights, and those that were zero before.
    """

    modules: list[str]
    tensors: list[list[str]]
    starts: Integers
    least: Integers
    most: Integers
    totals: Integers
    zeros: Integers

    def split(self, rows: Integers) -> Integers:
        """Return how many weights of each module go of those below a level, row by row."""
        counts: Integers = np.add.reduceat(rows, self.starts, axis=1)
        return np.clip(counts, self.least, self.most)

    def taken(self, rows: Integers) -> Integers:
        """Return how many weights go in all of those below a level, row by row."""
        sums: Integers = self.split(rows).sum(axis=1)
        return sums

    @property
    def reach(self) -> tuple[int, int]:
        """How many weights go at least, and at most."""
        return int(self.least.sum()), int(self.most.sum())

    def check(self, target: int) -> None:
        """Refuse a number of weights that the bounds do not allow."""
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
    """Prune the smallest magnitudes over all layers together, but of some only so many.

    As :func:`global_magnitude`, ``round(sparsity·n)`` of all n prunable weights go, the smallest
    magnitudes first, equal ones in the model's order and by position; of a layer that has come to
    its bound no more go, and the others make up for it. Of all prunings within the bounds it is the
    one that takes the least magnitude.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float
        Between 0 and 1, of all prunable weights, bound or not.
    bounds : mapping
        By name of a module or of a group, whose layers it then holds for one by one; a module's
        own comes first. A number is the largest share of the layer's prunable weights that goes,
        0 keeps it as it is; a pair is the smallest and the largest. Weights that were zero before
        count as gone: no layer is bound below what it came with.
    progress, executor, cache : optional
        See :func:`sparsity_report.counting.counts.count_weights`.

    Returns
    -------
    Pruning

    Raises
    ------
    SparsityReportError
        As of :func:`global_magnitude`; a bound is none, or one of what is not prunable, or together
        they leave no room for `sparsity`.

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
    parts = bounded(weights, bounds, counts)
    gone = _quotas(counts, weights.slices, parts, round(level * int(parts.totals.sum())), executor)
    cuts: dict[str, Cut] = {}
    for tensors, number in zip(parts.tensors, gone, strict=True):
        mine = {name: counts[name] for name in tensors}
        cuts |= threshold_cuts(mine, weights.slices, number, executor)
    return Pruning(weights, level, "global_magnitude, bounded", cuts)


def bounded(weights: Weights, bounds: Bounds, counts: Mapping[str, Magnitudes]) -> Bounded:
    """Turn shares into numbers of weights.

    Parameters
    ----------
    weights : Weights
    bounds : mapping
        See :func:`bounded_magnitude`.
    counts : mapping of str to Magnitudes
        Of the prunable tensors, in their order.

    Raises
    ------
    SparsityReportError
        A name is none of a prunable module or of a group that has one, or a share is none.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> some = bounded(weights, {"attention_linear": 0.25}, prunable_counts(weights))
    >>> some.most[:6].tolist(), some.totals[:6].tolist()
    ([4096, 4096, 4096, 4096, 65536, 65536], [16384, 16384, 16384, 16384, 65536, 65536])
    """
    modules = [m for m in weights.modules if any(p.prunable for p in m.parameters)]
    names, groups = {m.name for m in modules}, {m.group for m in modules}
    if unknown := [name for name in bounds if name not in names | groups]:
        raise SparsityReportError(
            f"bounds=: {weights.name} has no prunable module or group {unknown[0]!r}"
        )
    tensors = [[p.name for p in m.parameters if p.name in counts] for m in modules]
    sizes = np.array([len(part) for part in tensors], dtype=np.int64)
    totals = [sum(counts[name].total for name in part) for part in tensors]
    nonzero = [sum(counts[name].nonzero for name in part) for part in tensors]
    zeros = np.array(totals, dtype=np.int64) - np.array(nonzero, dtype=np.int64)
    given = {name: _pair(name, bound) for name, bound in bounds.items()}
    pairs = [given.get(m.name, given.get(m.group, (0.0, 1.0))) for m in modules]
    # A share of n that was a whole number of weights is that number again.
    least = [math.ceil(low * n - _error(n)) for (low, _), n in zip(pairs, totals, strict=True)]
    most = [math.floor(high * n + _error(n)) for (_, high), n in zip(pairs, totals, strict=True)]
    return Bounded(
        [m.name for m in modules],
        tensors,
        np.cumsum(sizes) - sizes,
        # Where no whole number lies in between, the one below.
        np.minimum(np.array(least, dtype=np.int64), np.array(most, dtype=np.int64)),
        np.maximum(np.array(most, dtype=np.int64), zeros),
        np.array(totals, dtype=np.int64),
        zeros,
    )


def levels_within(
    counts: Mapping[str, Magnitudes], parts: Bounded, targets: Sequence[int]
) -> Iterator[tuple[Integers, Integers]]:
    """Yield for ascending targets how many of each module go, and by how many that may be off."""
    low, _ = parts.reach
    held = sum(target <= low for target in targets)
    for _ in targets[:held]:
        yield parts.least, np.zeros_like(parts.least)
    for reached in Ranking(counts).reaching(parts.taken, targets[held:]):
        gone, first, last = parts.split(
            np.stack([_pruned(reached.level), reached.before, reached.through])
        )
        slack = np.zeros_like(gone)
        if not reached.level.exact:
            slack = np.maximum(last - gone, gone - first)
        yield gone, slack


def _quotas(
    counts: Mapping[str, Magnitudes],
    slices: Callable[[str], Iterable[Slice]],
    parts: Bounded,
    target: int,
    executor: Executor | None,
) -> list[int]:
    """Return how many weights of each module go when so many go in all, exactly."""
    parts.check(target)
    if target == parts.reach[0]:
        return [int(number) for number in parts.least]
    (reached,) = Ranking(counts).reaching(parts.taken, [target])
    level = reached.level
    if not level.exact:
        magnitudes = look_into(counts, slices, level.bucket, level.bucket, executor)

        def at(rank: int) -> Level:
            return settle(replace(reached.level, target=rank), magnitudes)

        level = first_reaching(parts.taken, target, at, reached.before, reached.through)
    return [int(number) for number in parts.split(_pruned(level)[None])[0]]


def _pruned(level: Level) -> Integers:
    return level.below + level.ties


def _pair(name: str, bound: object) -> tuple[float, float]:
    try:
        low, high = bound if isinstance(bound, tuple | list) else (0.0, bound)
        pair = check_sparsity(low), check_sparsity(high)
    except (SparsityReportError, ValueError) as error:
        raise SparsityReportError(
            f"bounds=: {name!r} is bound to {bound!r}, which is neither a share from 0 to 1 nor "
            "two of them, such as (0.1, 0.3)"
        ) from error
    if pair[0] > pair[1]:
        raise SparsityReportError(f"bounds=: {name!r} is bound to at least more than at most")
    return pair


def _error(total: int) -> float:
    """Return what a share of so many weights, as a float, may be off in weights."""
    return max(1e-6, total * 2.0**-50)
