"""Cuts: the pruned weights of one tensor, from which its mask follows, and cuts by scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np

from sparsity_report.counting.histogram import (
    Floats,
    Integers,
    Magnitudes,
    Values,
    nonzero_flags,
    split,
)
from sparsity_report.counting.n_m_patterns import Flags, Pattern, group_counts
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.workers import in_order, unflushed
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.tensor_slices import Slice, memory_slices
from sparsity_report.weights.weights import Parameter, Weights

T = TypeVar("T")

# Weights masked at a time: bounds the memory beyond the copy that is pruned.
_BLOCK = 2**22
# Scores in memory at a time.
_SCORES = 2**21
_NO_SIGN = np.int16(0x7FFF)


def inputs_last(array: Values, sizes: tuple[int, int]) -> Values:
    """Return a view with the inputs last of matrices whose inputs come first.

    Examples
    --------
    >>> inputs_last(np.arange(6).reshape(2, 3), (2, 3)).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    matrices = array.reshape(-1, *sizes) if array.shape[-2:] != sizes else array
    return matrices.swapaxes(-1, -2)


def masked_copy(array: Values, kept: Flags) -> Values:
    """Return a copy with pruned weights set to zero, without changing a bit of the others.

    Examples
    --------
    >>> masked_copy(np.array([1.0, -2.0]), np.array([False, True])).tolist()
    [0.0, -2.0]
    """
    return (array.view(f"u{array.itemsize}") * kept).view(array.dtype)


class Cut(ABC):
    """The pruned weights of one tensor.

    Attributes
    ----------
    pruned : int
        Number of pruned elements, including those that were zero before.
    """

    __slots__ = ()
    pruned: int
    # False for a cut that takes the zeros that a tensor has.
    changes = True
    # Inputs and outputs of the matrices if their inputs come first, as in ``Conv1D``.
    input_first: tuple[int, int] | None = None

    @abstractmethod
    def nonzero_after(self, before: Magnitudes) -> int:
        """Return the nonzeros after pruning a tensor with these magnitudes."""

    @abstractmethod
    def _flags(self, parts: Iterable[Values]) -> Iterator[Flags]:
        """Yield True for the kept elements of each part of the tensor, inputs last."""

    def _views(self, array: Values) -> Iterator[Values]:
        return _blocks(inputs_last(array, self.input_first) if self.input_first else array)

    @unflushed()
    def mask(self, array: Values) -> Flags:
        """Return a mask in the shape of `array`: True for kept elements."""
        keep = np.empty(array.shape, dtype=bool)
        for kept, part in zip(self._flags(self._views(array)), self._views(keep), strict=True):
            part[...] = kept
        return keep

    def masks(self, parts: Iterable[Values]) -> Iterator[Flags]:
        """Yield the mask of each part of a tensor.

        Parameters
        ----------
        parts : iterable of numpy.ndarray
            All rows of the tensor in order; whole matrices if `input_first` is set.
        """
        if self.input_first is None:
            return self._flags(parts)
        return (kept.swapaxes(-1, -2) for kept in self._flags(p.swapaxes(-1, -2) for p in parts))

    @unflushed()
    def apply_(self, array: Values) -> None:
        """Set pruned elements of a contiguous array to zero in place, block by block."""
        for kept, part in zip(self._flags(self._views(array)), self._views(array), strict=True):
            part[...] = masked_copy(part, kept)


@dataclass(frozen=True, eq=False, slots=True)
class InputNorms:
    """Norms of the inputs of a tensor, by which its magnitudes are multiplied.

    Attributes
    ----------
    norms : numpy.ndarray
        float64 of shape (matrices, inputs), over the calibration tokens of each matrix.
    outputs : int
        Rows of each matrix.
    """

    norms: Floats
    outputs: int

    @property
    def inputs(self) -> int:
        """Columns of each matrix."""
        return int(self.norms.shape[1])

    @property
    def rows(self) -> int:
        """Rows of all matrices."""
        return len(self.norms) * self.outputs

    def scores(self, part: Values, first: int) -> Floats:
        """Return |w|·‖x‖ of whole rows in float64.

        The score of an infinite weight is infinite even if its norm is zero.

        Parameters
        ----------
        part : numpy.ndarray
            Rows of the tensor, inputs last.
        first : int
            Number of the first row among those of all matrices.
        """
        rows, norms = part.reshape(-1, self.inputs).astype(np.float64), self.norms
        if len(norms) > 1:
            norms = norms[np.arange(first, first + len(rows)) // self.outputs]
        with np.errstate(invalid="ignore", over="ignore"):
            scores = np.abs(rows, out=rows) * norms
        scores[np.isnan(scores)] = np.inf
        return scores


@dataclass(frozen=True, slots=True)
class ThresholdCut(Cut):
    """A cut of all magnitudes below a threshold, and of some exactly on it.

    Attributes
    ----------
    threshold : float
        Magnitudes below it are pruned.
    pruned : int
        Number of pruned elements.
    ties : int
        Pruned elements exactly on the threshold, the first by position.
    spared : int
        Kept elements exactly on the threshold.
    changes : bool
        False for a cut that takes the zeros that a tensor has.
    """

    threshold: float
    pruned: int
    ties: int
    spared: int
    changes: bool = True

    def nonzero_after(self, before: Magnitudes) -> int:
        """Return the nonzeros after pruning a tensor with these magnitudes."""
        return before.total - max(self.pruned, before.total - before.nonzero)

    def _flags(self, parts: Iterable[Values]) -> Iterator[Flags]:
        ties, removed = self.ties, 0
        for part in parts:
            size, level = _comparable(part, self.threshold)
            kept = np.asarray(size >= level)
            if ties and (on_it := int(np.count_nonzero(tied := size == level))):
                if on_it > ties:  # slow, but at most once per tensor
                    tied[tuple(np.argwhere(tied)[ties:].T)] = False
                kept &= ~tied
                ties -= min(ties, on_it)
            removed += kept.size - int(np.count_nonzero(kept))
            yield kept
        check_unchanged(removed, self.pruned)


@dataclass(frozen=True, slots=True)
class CountedCut(Cut):
    """A cut that stores the counted number of kept nonzeros.

    Attributes
    ----------
    pruned : int
        Number of pruned elements.
    nonzero : int
        Kept weights that are not zero.
    """

    pruned: int
    nonzero: int

    @abstractmethod
    def _masked(self, parts: Iterable[Values]) -> Iterator[tuple[Values, Flags]]:
        """Yield each part of the tensor, inputs last, and True for its kept elements."""

    def nonzero_after(self, before: Magnitudes) -> int:
        """Return the nonzeros after pruning."""
        return min(self.nonzero, before.nonzero)

    @unflushed()
    def kept(self, parts: Iterable[Values]) -> int:
        """Return the kept nonzeros of a tensor, given in parts."""
        return sum(nonzeros(part, kept) for part, kept in self._masked(parts))

    def _flags(self, parts: Iterable[Values]) -> Iterator[Flags]:
        nonzero = 0
        for part, kept in self._masked(parts):
            nonzero += nonzeros(part, kept)
            yield kept
        check_unchanged(nonzero, self.nonzero)


@dataclass(frozen=True, slots=True)
class GroupCut(CountedCut):
    """A cut of all but the `keep` largest of every `group` weights along the input dimension.

    Attributes
    ----------
    keep, group : int
    input_first : tuple of int or None
        Inputs and outputs of the matrices if their inputs come first, as in ``Conv1D``.
    scale : InputNorms or None
        Scores to rank instead of magnitudes.
    """

    keep: int
    group: int
    input_first: tuple[int, int] | None = None
    scale: InputNorms | None = None

    def _masked(self, parts: Iterable[Values]) -> Iterator[tuple[Values, Flags]]:
        first = 0
        for part in parts:
            scores = self.scale.scores(part, first) if self.scale else magnitude(part)
            first += len(part)
            ranks = group_ranks(scores.reshape(-1, self.group))
            yield part, (ranks >= self.group - self.keep).reshape(part.shape)


def group_ranks(scores: Values) -> Integers:
    """Return the rank of each score in its row, smallest first, equal ones by position.

    Examples
    --------
    >>> group_ranks(np.array([[3.0, 1.0, 3.0, 0.0]])).tolist()
    [[2, 1, 3, 0]]
    """
    # One contiguous row for each place in a group.
    columns = np.ascontiguousarray(scores.T)
    ranks = np.zeros(columns.shape, dtype=np.int16)
    for i, one in enumerate(columns):
        ranks[:i] += one < columns[:i]
        ranks[i + 1 :] += one <= columns[i + 1 :]
    return ranks.T  # type: ignore[return-value]


def _blocks(array: Values) -> Iterator[Values]:
    """Yield views of whole rows that cover an array of any strides in order."""
    if array.ndim > 2:
        for inner in array:
            yield from _blocks(inner)
    elif array.ndim:
        yield from split(array, max(_BLOCK // max(array[:1].size, 1), 1))
    else:
        yield array


def magnitude(array: Values, threshold: float = 0.0) -> Values:
    """Return magnitudes in a dtype that represents them and the threshold exactly."""
    if np.iscomplexobj(array):
        return np.asarray(np.abs(array))
    wide = array.itemsize > 4 or float(np.float32(threshold)) != threshold
    numbers = array.astype(np.float64 if wide or array.dtype == np.int32 else np.float32)
    return np.asarray(np.abs(numbers, out=numbers))


def _comparable(part: Values, threshold: float) -> tuple[Values, Any]:
    """Return magnitudes and a threshold that compare alike: of 16-bit floats their bits."""
    if part.itemsize == 2 and part.dtype.kind not in "iu":
        with np.errstate(over="ignore"):
            level = np.array(threshold).astype(part.dtype)
        if float(level) == threshold:
            return part.view(np.int16) & _NO_SIGN, level.view(np.int16)
    return magnitude(part, threshold), threshold


def nonzeros(part: Values, kept: Flags) -> int:
    """Return the number of kept nonzeros."""
    return int(np.count_nonzero(kept & nonzero_flags(part)))


def check_unchanged(taken: int, counted: int) -> None:
    """Raise an error if the pruned weights differ in number from the counted ones."""
    if taken != counted:
        raise SparsityReportError(
            f"the weights changed since they were counted: {taken:,} instead of {counted:,} "
            "would be taken; load them again and prune anew"
        )


@dataclass(frozen=True, eq=False, slots=True)
class RowCut(CountedCut):
    """A cut of the scores below the threshold of each row, and of some on it.

    Scores are computed again when the cut is applied. The cut holds a few numbers per row.

    Attributes
    ----------
    scale : InputNorms
    thresholds : numpy.ndarray
        float64, one for each row of all matrices.
    ties : numpy.ndarray
        int64: scores exactly on the threshold that are pruned too, the first by position.
    input_first : tuple of int or None
        Inputs and outputs of the matrices if their inputs come first, as in ``Conv1D``.
    """

    scale: InputNorms
    thresholds: Floats
    ties: Integers
    input_first: tuple[int, int] | None = None

    def _masked(self, parts: Iterable[Values]) -> Iterator[tuple[Values, Flags]]:
        first = 0
        for part in parts:
            scores = self.scale.scores(part, first)
            rows = slice(first, first + len(scores))
            kept = _above(scores, self.thresholds[rows], self.ties[rows])
            first += len(scores)
            yield part, kept.reshape(part.shape)


def cut_rows(
    weights: Weights,
    scales: Mapping[str, InputNorms],
    counts: Mapping[str, int],
    progress: Progress | None = None,
) -> dict[str, Cut]:
    """Return the cuts that prune a number of weights per parameter, the lowest scores of each row.

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
        limits = np.concatenate(thresholds), np.concatenate(ties)
        cuts[p.name] = RowCut(counts[p.name], sum(kept), scales[p.name], *limits, p.inputs_outputs)
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
        p.name: GroupCut(p.total // m * (m - n), sum(kept), n, m, p.inputs_outputs, chosen[p.name])
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
        array = weights.array(parameter.name)
        parts = list(memory_slices(inputs_last(array, sizes) if sizes else array))
    for part in parts:
        yield first, part
        first += part.total // columns


def score_blocks(
    part: Slice, scale: InputNorms, first: int
) -> Iterator[tuple[Values, Floats, int]]:
    """Yield blocks of rows of a slice, their scores, and the number of the first row."""
    rows = np.concatenate(list(part.pieces())).reshape(-1, scale.inputs)
    for block in split(rows, max(_SCORES // max(scale.inputs, 1), 1)):
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
    limits: list[tuple[Floats, Integers]] = []
    nonzero = 0
    for block, scores, row in score_blocks(part, scale, first):
        at = min(max(more - row, 0), len(block))
        for begin, end, count in ((0, at, each + 1), (at, len(block), each)):
            if begin < end:
                limits.append(_limit(scores[begin:end], count))
                nonzero += nonzeros(block[begin:end], _above(scores[begin:end], *limits[-1]))
    thresholds, ties = map(np.concatenate, zip(*limits, strict=True))
    return thresholds, ties, nonzero


def _limit(scores: Floats, count: int) -> tuple[Floats, Integers]:
    """Return the highest pruned score of each row, and the number of pruned ones equal to it."""
    if not count:
        return np.zeros(len(scores)), np.zeros(len(scores), dtype=np.int64)
    threshold = np.partition(scores, count - 1, axis=1)[:, count - 1]
    return threshold, count - np.count_nonzero(scores < threshold[:, None], axis=1)


def _above(scores: Floats, thresholds: Floats, ties: Integers) -> Flags:
    """Return True for the scores of each row that stay."""
    kept, on_it = scores > thresholds[:, None], scores == thresholds[:, None]
    rows = np.flatnonzero(np.count_nonzero(on_it, axis=1) > ties)
    place = on_it[rows].cumsum(axis=1)
    kept[rows] |= on_it[rows] & (place > ties[rows, None])
    return kept


def _group_part(part: Slice, scale: InputNorms | None, pattern: tuple[int, int], first: int) -> int:
    """Return the kept nonzeros of a slice."""
    n, m = pattern
    if scale is None:
        flags = nonzero_flags(np.concatenate(list(part.pieces())))
        return int(np.minimum(group_counts(flags[None], m), n).sum(dtype=np.int64))
    return sum(
        nonzeros(block, (group_ranks(scores.reshape(-1, m)) >= m - n).reshape(block.shape))
        for block, scores, _ in score_blocks(part, scale, first)
    )
