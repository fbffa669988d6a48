"""Comparison of two models in one pass over the values of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from operator import methodcaller

import numpy as np

from sparsity_report.counting.histogram import split
from sparsity_report.counting.progress import Progress, bar
from sparsity_report.counting.workers import in_order
from sparsity_report.pairing.alignment import ParameterMatch, Plan
from sparsity_report.pairing.fingerprints import matrix_of_slices, whole_groups
from sparsity_report.pairing.tally import SideCount, Tally
from sparsity_report.pairing.value_loops import compile_for, count_values, tally_values
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.tensor_slices import FileSlice, Slice, pieces

# Rows compared at a time in memory.
_ROWS = 256


@dataclass(frozen=True, eq=False)
class PairedSlice(Slice):
    """Values of two tensors in the same positions, or values of one tensor.

    Attributes
    ----------
    before, after : tuple of Slice
        Equally many values of both, or none of one.
    grouped : bool
        True if the values are whole groups of eight along the input.
    """

    before: tuple[Slice, ...]
    after: tuple[Slice, ...]
    grouped: bool

    def pieces(self) -> Iterator[Array]:
        """Yield the values of the model after."""
        return pieces(self.after)

    def sources(self) -> Sequence[FileSlice]:
        """Return the file slices of both, or none if one is in memory."""
        sources = [part.sources() for part in (*self.before, *self.after)]
        return [each for some in sources for each in some] if all(sources) else ()

    def compile(self) -> None:
        """Compile the loop that :meth:`tally` calls."""
        if self.before and self.after:
            compile_for(self.before[0].dtype, self.after[0].dtype)

    def tally(self) -> Tally:
        """Read both sides and compare them."""
        if not (self.before and self.after):
            alone = SideCount()
            for piece in whole_groups(pieces(self.before or self.after), 8):
                alone += count_values(piece, self.grouped and piece.size % 8 == 0)
            return Tally(before=alone) if self.before else Tally(after=alone)
        sums = Tally()
        sides = (whole_groups(pieces(side), 8) for side in (self.before, self.after))
        for one, other in in_step(*sides):
            sums += tally_values(one, other, self.grouped and one.size % 8 == 0)
        return sums


@dataclass(frozen=True, eq=False)
class PieceSlice(PairedSlice):
    """A matrix of each of two tensors, one of which has some rows and columns of the other.

    Attributes
    ----------
    match : ParameterMatch
    """

    match: ParameterMatch

    def tally(self) -> Tally:
        """Read both matrices and compare them; count all of the base."""
        match, sums = self.match, Tally()
        assert match.before
        assert match.pieces
        one, other = match.pieces
        old = matrix_of_slices(self.before, match.before, one.expert)[one.first : one.last]
        for some in split(old, _ROWS):
            sums += Tally(before=count_values(some.reshape(-1), self._is_grouped(some)))
        if match.after is None:
            return sums
        new = matrix_of_slices(self.after, match.after, other.expert)[other.first : other.last]
        rows = np.arange(len(new)) if match.rows is None else match.rows
        columns = slice(None) if match.columns is None else match.columns
        for some, places in zip(split(new, _ROWS), split(rows, _ROWS), strict=True):
            kept = old[places][:, columns]
            counted = tally_values(kept.reshape(-1), some.reshape(-1), self._is_grouped(some))
            sums += replace(counted, before=SideCount())
        return sums

    def _is_grouped(self, rows: Array) -> bool:
        return self.grouped and rows.shape[1] % 8 == 0


def in_step(one: Iterator[Array], other: Iterator[Array]) -> Iterator[tuple[Array, Array]]:
    """Yield the values of two tensors of one size in pieces of equal length.

    Examples
    --------
    >>> halves = iter([np.arange(2), np.arange(2, 6)])
    >>> [a.tolist() for a, _ in in_step(halves, iter([np.arange(3), np.arange(3)]))]
    [[0, 1], [2], [3, 4, 5]]
    """
    left: Array = np.empty(0)
    right = left
    while True:
        left = left if left.size else next(one, left)
        right = right if right.size else next(other, right)
        if not (size := min(left.size, right.size)):
            return
        yield left[:size], right[:size]
        left, right = left[size:], right[size:]


def compare_parameters(
    plan: Plan, progress: Progress | None, executor: Executor | None
) -> Mapping[str, Tally]:
    """Read both models of a plan; return the tally of each match by its name."""
    tallies = {match.name: Tally() for match in plan.matches}
    size = sum(p.total * p.itemsize for match in plan.matches for p in match.parameters)
    done = 0

    def jobs() -> Iterator[tuple[str, PairedSlice, Callable[[PairedSlice], Tally]]]:
        for match in plan.matches:
            for part in _split(plan, match):
                # Other processes compile their own loops.
                if executor is None or not part.sources():
                    part.compile()
                yield match.name, part, methodcaller("tally")

    with bar("comparing", given=progress) as show:
        for name, part, sums in in_order(jobs(), executor):
            tallies[name] += sums
            done += sum(s.total * value_bytes(s.dtype) for s in (*part.before, *part.after))
            show(min(done, size), size, name.split("\n")[0] or name.split("\n")[1])
    return tallies


def _split(plan: Plan, match: ParameterMatch) -> Iterator[PairedSlice]:
    """Yield the slices of a match, or all of it if its slices differ or rows moved."""
    models = ((plan.before, match.before), (plan.after, match.after))
    one, other = sides = [
        () if part is None else tuple(weights.as_in_memory(part.parameter.name))
        for weights, part in models
    ]
    parts = [(one[n : n + 1], other[n : n + 1]) for n in range(max(map(len, sides)))]
    if match.pieces or (all(sides) and [s.total for s in one] != [s.total for s in other]):
        parts = [(one, other)]
    # N:M is visible in consecutive values if whole groups are along the input.
    grouped = any(
        p.prunable and p.matrix and not p.transposed and p.matrix[1] % 8 == 0
        for p in match.parameters
    )
    for before, after in parts:
        slices = before or after
        fields = sum(s.total for s in slices), slices[0].dtype, before, after, grouped
        yield PieceSlice(*fields, match) if match.pieces else PairedSlice(*fields)
