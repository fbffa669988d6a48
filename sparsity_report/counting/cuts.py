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
import numpy.typing as npt

from sparsity_report.counting.histogram import Floats, Integers, Magnitudes
from sparsity_report.counting.n_m_patterns import Pattern
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.workers import in_order, unflushed
from sparsity_report.deferred import torch
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.tensor_slices import Slice, memory_slices
from sparsity_report.weights.weights import Parameter, Weights

T = TypeVar("T")

# Weights masked at a time: bounds the memory beyond the copy that is pruned.
_BLOCK = 2**22
# Scores in memory at a time.
_SCORES = 2**21
_NO_SIGN = np.int16(0x7FFF)
# Integer dtypes by the bytes of a weight.
_BITS = {1: "uint8", 2: "int16", 4: "int32"}


def inputs_last(tensor: torch.Tensor, sizes: tuple[int, int]) -> torch.Tensor:
    """Return a view with the inputs last of matrices whose inputs come first.

    Examples
    --------
    >>> inputs_last(torch.arange(6).reshape(2, 3), (2, 3)).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    return tensor.view(-1, *sizes).mT if tensor.shape[-2:] != sizes else tensor.mT


def masked_copy(tensor: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return a copy with pruned weights set to zero, without changing a bit of the others.

    Examples
    --------
    >>> masked_copy(torch.tensor([1.0, -2.0]), torch.tensor([False, True])).tolist()
    [0.0, -2.0]
    """
    # Bits are multiplied by 0 or 1, because float8 lacks masked_fill.
    if (bits := _BITS.get(tensor.itemsize)) is not None:
        return (tensor.view(getattr(torch, bits)) * kept).view(tensor.dtype)
    return tensor.masked_fill(~kept, 0)


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
    def _flags(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield True for the kept elements of each part of the tensor, inputs last."""

    def _views(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        return _blocks(inputs_last(tensor, self.input_first) if self.input_first else tensor)

    @unflushed()
    def mask(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a mask in the shape of `tensor`: True for kept elements."""
        tensor = tensor.detach()
        keep = torch.empty_like(tensor, dtype=torch.bool)
        for kept, part in zip(self._flags(self._views(tensor)), self._views(keep), strict=True):
            part.copy_(kept)
        return keep

    def masks(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield the mask of each part of a tensor.

        Parameters
        ----------
        parts : iterable of torch.Tensor
            All rows of the tensor in order; whole matrices if `input_first` is set.
        """
        if self.input_first is None:
            return self._flags(parts)
        return (kept.mT for kept in self._flags(part.mT for part in parts))

    @unflushed()
    def apply_(self, tensor: torch.Tensor) -> None:
        """Set pruned elements to zero in place, block by block."""
        for kept, part in zip(self._flags(self._views(tensor)), self._views(tensor), strict=True):
            part.copy_(masked_copy(part, kept))


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

    def scores(self, part: torch.Tensor, first: int) -> torch.Tensor:
        """Return |w|·‖x‖ of whole rows in float64.

        The score of an infinite weight is infinite even if its norm is zero.

        Parameters
        ----------
        part : torch.Tensor
            Rows of the tensor, inputs last.
        first : int
            Number of the first row among those of all matrices.
        """
        rows = part.reshape(-1, self.inputs).to(torch.float64).abs()
        norms = torch.from_numpy(self.norms).to(rows.device)
        if len(norms) > 1:
            numbers = torch.arange(first, first + len(rows), device=rows.device)
            norms = norms[numbers // self.outputs]
        scores = rows * norms
        return torch.nan_to_num(scores, nan=torch.inf, posinf=torch.inf)


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

    def _flags(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
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
            yield torch.from_numpy(kept).to(part.device)
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
    def _masked(self, parts: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield each part of the tensor, inputs last, and True for its kept elements."""

    def nonzero_after(self, before: Magnitudes) -> int:
        """Return the nonzeros after pruning."""
        return min(self.nonzero, before.nonzero)

    @unflushed()
    def kept(self, parts: Iterable[torch.Tensor]) -> int:
        """Return the kept nonzeros of a tensor, given in parts."""
        return sum(nonzeros(part, kept) for part, kept in self._masked(parts))

    def _flags(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
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

    def _masked(self, parts: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        first = 0
        for part in parts:
            scores = self.scale.scores(part, first) if self.scale else magnitude(part)
            first += len(part)
            ranks = group_ranks(scores.reshape(-1, self.group))
            yield part, (ranks >= self.group - self.keep).reshape(part.shape)


def group_ranks(scores: torch.Tensor) -> torch.Tensor:
    """Return the rank of each score in its row, smallest first, equal ones by position.

    Examples
    --------
    >>> group_ranks(torch.tensor([[3.0, 1.0, 3.0, 0.0]])).tolist()
    [[2, 1, 3, 0]]
    """
    rank = torch.zeros_like(scores, dtype=torch.int16)
    for i in range(scores.shape[1]):
        one = scores[:, i : i + 1]
        rank += one < scores
        rank[:, i + 1 :] += one == scores[:, i + 1 :]
    return rank


def _blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield views of whole rows that cover a tensor of any strides in order."""
    if tensor.ndim > 2:
        for inner in tensor:
            yield from _blocks(inner)
    elif tensor.ndim:
        row = max(tensor[0].numel(), 1) if len(tensor) else 1
        yield from tensor.split(max(_BLOCK // row, 1))
    else:
        yield tensor


def magnitude(tensor: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """Return magnitudes in a dtype that represents them and the threshold exactly."""
    if tensor.is_complex():
        return tensor.abs()
    wide = tensor.dtype.itemsize > 4 or float(np.float32(threshold)) != threshold
    return tensor.to(torch.float64 if wide or tensor.dtype == torch.int32 else torch.float32).abs()


def _comparable(part: torch.Tensor, threshold: float) -> tuple[npt.NDArray[Any], Any]:
    """Return magnitudes and a threshold that compare alike: of 16-bit floats their bits."""
    if part.dtype in {torch.float16, torch.bfloat16}:
        level = torch.tensor(threshold, dtype=part.dtype)
        if float(level) == threshold:
            return part.cpu().view(torch.int16).numpy() & _NO_SIGN, level.view(torch.int16).numpy()
    return magnitude(part, threshold).cpu().numpy(), threshold


def nonzeros(part: torch.Tensor, kept: torch.Tensor) -> int:
    """Return the number of kept nonzeros."""
    return int(torch.count_nonzero(kept & part.bool()))


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

    def _masked(self, parts: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        first = 0
        for part in parts:
            scores = self.scale.scores(part, first)
            rows = slice(first, first + len(scores))
            limits = (torch.from_numpy(each[rows]) for each in (self.thresholds, self.ties))
            kept = _above(scores, *(each.to(scores.device) for each in limits))
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
        cuts[p.name] = RowCut(
            counts[p.name],
            sum(kept),
            scales[p.name],
            np.concatenate(thresholds),
            np.concatenate(ties),
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
    for block in rows.split(max(_SCORES // max(scale.inputs, 1), 1)):
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
    kept, on_it = scores > thresholds[:, None], scores == thresholds[:, None]
    rows = torch.nonzero(on_it.sum(dim=1) > ties)[:, 0]
    place = on_it[rows].cumsum(dim=1)
    kept[rows] |= on_it[rows] & (place > ties[rows, None])
    return kept


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
