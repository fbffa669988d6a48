"""Pruning by magnitude times input norm, row by row, as Wanda does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import numpy as np

from sparsity_report.counting.cuts import (
    CountedCut,
    Cut,
    FrozenArray,
    GroupCut,
    InputNorms,
    group_ranks,
    inputs_last,
    nonzeros,
)
from sparsity_report.counting.histogram import Floats, Integers
from sparsity_report.counting.n_m_patterns import Pattern
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.workers import in_order
from sparsity_report.deferred import torch
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.tensor_slices import Slice, memory_slices
from sparsity_report.weights.weights import Parameter, Weights

T = TypeVar("T")

# Scores in memory at a time.
_BLOCK = 2**21


@dataclass(frozen=True, slots=True)
class RowCut(CountedCut):
    """A cut of the scores below the threshold of each row, and of some on it.

    Scores are computed again when the cut is applied. The cut holds a few numbers per row.

    Attributes
    ----------
    scale : InputNorms
    thresholds : FrozenArray
        float64, one for each row of all matrices.
    ties : FrozenArray
        int64: scores exactly on the threshold that are pruned too, the first by position.
    pruned : int
        Number of pruned elements.
    nonzero : int
        Kept elements that are not zero.
    input_first : tuple of int or None
        Inputs and outputs of the matrices if their inputs come first, as in ``Conv1D``.
    """

    scale: InputNorms
    thresholds: FrozenArray
    ties: FrozenArray
    pruned: int
    nonzero: int
    input_first: tuple[int, int] | None = None

    def _chosen(self, parts: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        first = 0
        for part in parts:
            scores = self.scale.scores(part, first)
            rows = slice(first, first + len(scores))
            limits = (torch.from_numpy(f.values[rows].copy()) for f in (self.thresholds, self.ties))
            stays = _above(scores, *(each.to(scores.device) for each in limits))
            first += len(scores)
            yield part, stays.reshape(part.shape)


def cut_rows(
    weights: Weights,
    scales: Mapping[str, InputNorms],
    counts: Mapping[str, int],
    progress: Progress | None = None,
) -> dict[str, Cut]:
    """Return the cuts that prune the lowest scores of each row, so many per parameter.

    Every one of the r rows of a parameter loses ``count // r`` weights, and the first
    ``count % r`` rows, in memory order, lose one more.
    """
    work = {
        name: partial(_row_part, scale=scale, quota=divmod(counts[name], scale.rows))
        for name, scale in scales.items()
    }
    cuts: dict[str, Cut] = {}
    for p, parts in map_rows(weights, work, progress):
        thresholds, ties, kept = zip(*parts, strict=True)
        cuts[p.name] = RowCut(
            scales[p.name],
            FrozenArray(np.concatenate(thresholds)),
            FrozenArray(np.concatenate(ties)),
            counts[p.name],
            sum(kept),
            p.inputs_outputs,
        )
    return cuts


def cut_groups(
    weights: Weights,
    scales: Mapping[str, InputNorms] | None,
    pattern: tuple[int, int],
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> dict[str, Cut]:
    """Return the cuts that keep the n largest of every m consecutive weights of a row.

    Parameters
    ----------
    weights : Weights
    scales : mapping of str to InputNorms or None
        By parameter name; None compares magnitudes.
    pattern : (int, int)
        n and m.
    progress, executor : optional
        See :func:`global_magnitude`.
    """
    n, m = pattern
    chosen: Mapping[str, InputNorms | None]
    chosen = dict.fromkeys(p.name for p in weights.prunable) if scales is None else scales
    work = {name: partial(_group_part, scale=s, pattern=pattern) for name, s in chosen.items()}
    return {
        p.name: GroupCut(n, m, p.total // m * (m - n), sum(kept), p.inputs_outputs, chosen[p.name])
        for p, kept in map_rows(weights, work, progress, executor)
    }


def map_rows(
    weights: Weights,
    works: Mapping[str, Callable[..., T]],
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Iterator[tuple[Parameter, list[T]]]:
    """Apply functions to prunable parameters, in slices of whole rows.

    Parameters
    ----------
    weights : Weights
    works : mapping of str to callable
        By parameter name; called with a slice, inputs last, and ``first=``, the number of its
        first row.
    progress, executor : optional
        See :func:`global_magnitude`.

    Yields
    ------
    Parameter
    list
        The results of its slices, in order.
    """
    chosen = {p.name: p for p in weights.prunable if p.name in works}
    size, done = sum(p.total * p.itemsize for p in chosen.values()), 0
    jobs = (
        (p.name, part, partial(works[p.name], first=first))
        for p in chosen.values()
        for first, part in _row_slices(weights, p)
    )
    for name, parts in groupby(in_order(jobs, executor), itemgetter(0)):
        results = []
        for _, part, result in parts:
            results.append(result)
            done += part.total * chosen[name].itemsize
            if progress:
                progress(done, size, name)
        yield chosen[name], results


def _row_slices(weights: Weights, parameter: Parameter) -> Iterator[tuple[int, Slice]]:
    """Yield slices of whole rows of a parameter, inputs last, after the number of the first row."""
    assert parameter.matrix is not None
    columns, first = parameter.matrix[1], 0
    sizes, parts = parameter.inputs_outputs, list[Slice]()
    if not sizes:
        parts = list(weights.as_in_memory(parameter.name))
    if sizes or any(part.total % columns for part in parts):
        tensor = weights.tensor(parameter.name)
        parts = list(memory_slices(inputs_last(tensor, sizes) if sizes else tensor))
    for part in parts:
        yield first, part
        first += part.total // columns


def score_blocks(
    part: Slice, scale: InputNorms, first: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Yield blocks of rows of a slice, their scores, and the number of the first row."""
    rows = torch.cat(list(part.pieces())).reshape(-1, scale.inputs)
    for block in rows.split(max(_BLOCK // max(scale.inputs, 1), 1)):
        yield block, scale.scores(block, first), first
        first += len(block)


def check_n_m(weights: Weights, n: object, m: object) -> Pattern:
    """Return a pattern that keeps n of every m weights, or raise an error."""
    if not (isinstance(n, int) and isinstance(m, int) and 0 <= n <= m and 0 < m < 2**15):
        raise SparsityReportError(
            f"n_m keeps n of every m weights: give whole numbers, 0 ≤ n ≤ m, not {n!r} of {m!r}"
        )
    for p in weights.prunable:
        assert p.matrix is not None
        if p.matrix[1] % m:
            raise SparsityReportError(
                f"{p.name} has {p.matrix[1]:,} inputs, which do not divide into groups of {m}; "
                "choose another m"
            )
    return Pattern(n, m)


def _row_part(
    part: Slice, scale: InputNorms, quota: tuple[int, int], first: int
) -> tuple[Floats, Integers, int]:
    """Return the threshold and ties of each row of a slice, and its kept nonzeros."""
    each, more = quota
    limits: list[tuple[torch.Tensor, torch.Tensor]] = []
    nonzero = 0
    for block, scores, row in score_blocks(part, scale, first):
        at = min(max(more - row, 0), len(block))
        for begin, end, count in ((0, at, each + 1), (at, len(block), each)):
            if begin < end:
                limits.append(_limit(scores[begin:end], count))
                nonzero += nonzeros(block[begin:end], _above(scores[begin:end], *limits[-1]))
    thresholds, ties = (torch.cat(several).numpy() for several in zip(*limits, strict=True))
    return thresholds, ties, nonzero


def _limit(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the highest pruned score of each row, and the number of pruned ones equal to it."""
    if not count:
        return torch.zeros(len(scores), dtype=torch.float64), torch.zeros(len(scores)).long()
    threshold = scores.kthvalue(count, dim=1).values
    return threshold, count - (scores < threshold[:, None]).sum(dim=1)


def _above(scores: torch.Tensor, thresholds: torch.Tensor, ties: torch.Tensor) -> torch.Tensor:
    """Return True for the scores of each row that stay."""
    stays, on_it = scores > thresholds[:, None], scores == thresholds[:, None]
    rows = torch.nonzero(on_it.sum(dim=1) > ties)[:, 0]
    place = on_it[rows].cumsum(dim=1)
    stays[rows] |= on_it[rows] & (place > ties[rows, None])
    return stays


def _group_part(part: Slice, scale: InputNorms | None, pattern: tuple[int, int], first: int) -> int:
    """Return the kept nonzeros of a slice."""
    n, m = pattern
    if scale is None:
        there = torch.cat(list(part.pieces())).bool().reshape(-1, m)
        return int(there.sum(dim=1, dtype=torch.int16).clamp(max=n).sum())
    return sum(
        nonzeros(block, (group_ranks(scores.reshape(-1, m)) >= m - n).reshape(block.shape))
        for block, scores, _ in score_blocks(part, scale, first)
    )
