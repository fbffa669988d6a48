"""Two models read in step, piece by piece, each value once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch

from sparsity_report.counting.bars import bar
from sparsity_report.counting.counts import Progress
from sparsity_report.counting.entries import CacheFolder
from sparsity_report.counting.workers import in_order
from sparsity_report.pairing.kept import KeptTallies
from sparsity_report.pairing.plan import Link, Plan
from sparsity_report.pairing.tally import Tally, alone, tally
from sparsity_report.weights.tensors import FileSlice, Slice, pieces


@dataclass(frozen=True, eq=False)
class Stretch(Slice):
    """Values of two tensors that belong to each other, place by place, or of one alone.

    Attributes
    ----------
    before, after : tuple of Slice
        Equally many values in all, or none of one.
    grouped : bool
        Whether they are whole groups along the input.
    """

    before: tuple[Slice, ...]
    after: tuple[Slice, ...]
    grouped: bool

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield the values of the model after."""
        return pieces(self.after)

    def sources(self) -> Sequence[FileSlice]:
        """Return the stretches of both, if all are in files."""
        stretches = [part.sources() for part in (*self.before, *self.after)]
        return [each for some in stretches for each in some] if all(stretches) else ()

    def tally(self) -> Tally:
        """Read both and compare them."""
        sums = Tally()
        if not (self.before and self.after):
            for piece in pieces(self.before or self.after):
                grouped = self.grouped and piece.numel() % 8 == 0
                sums += alone(piece, before=bool(self.before), grouped=grouped)
            return sums
        for one, other in in_step(pieces(self.before), pieces(self.after)):
            sums += tally(one, other, self.grouped and one.numel() % 8 == 0)
        return sums


def in_step(
    one: Iterator[torch.Tensor], other: Iterator[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Cut the values of two tensors of one size in the same places.

    Examples
    --------
    >>> halves = iter([torch.arange(2), torch.arange(2, 6)])
    >>> [a.tolist() for a, _ in in_step(halves, iter([torch.arange(3), torch.arange(3)]))]
    [[0, 1], [2], [3, 4, 5]]
    """
    left = right = torch.empty(0)
    while True:
        left = left if left.numel() else next(one, left)
        right = right if right.numel() else next(other, right)
        if not (size := min(left.numel(), right.numel())):
            return
        yield left[:size], right[:size]
        left, right = left[size:], right[size:]


def compared(
    plan: Plan,
    progress: Progress | None = None,
    *,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> tuple[Mapping[str, Tally], tuple[str, ...]]:
    """Read both models of a plan; return what became of each link's weights, and notes.

    What is kept of a link in the cache is not read again.
    """
    tallies: dict[str, Tally] = {}
    keys: dict[str, str] = {}
    kept = None if cache is None else KeptTallies(cache)
    for link in plan.links if kept else ():
        if key := kept.key(_slices(plan, link), repr(_is_grouped(link))) if kept else None:
            keys[link.name] = key
            if kept and (found := kept.get(key, link.name)):
                tallies[link.name] = found
    waiting = [link for link in plan.links if link.name not in tallies]
    tallies |= {link.name: Tally() for link in waiting}
    size = sum(p.total * p.itemsize for link in waiting for p in link.parameters)
    done = 0
    jobs = ((link.name, part, Stretch.tally) for link in waiting for part in _parts(plan, link))
    with bar("comparing", given=progress) as told:
        for name, part, found in in_order(jobs, executor):
            tallies[name] += found
            done += sum(s.total * s.dtype.itemsize for s in (*part.before, *part.after))
            told(min(done, size), size, name)
    if kept:
        for link in waiting:
            if link.name in keys:
                kept.put(keys[link.name], link.name, tallies[link.name])
    return tallies, tuple(kept.notes()) if kept else ()


def _slices(plan: Plan, link: Link) -> tuple[tuple[Slice, ...], tuple[Slice, ...]]:
    """Return how each side's tensor is cut."""
    one, other = (
        () if p is None else tuple(weights.as_in_memory(p.name))
        for weights, p in ((plan.before, link.before), (plan.after, link.after))
    )
    return one, other


def _parts(plan: Plan, link: Link) -> Iterator[Stretch]:
    """Cut a link where both of its tensors are cut; where they are not alike it is one part."""
    grouped, sides = _is_grouped(link), _slices(plan, link)
    if all(sides) and [s.total for s in sides[0]] != [s.total for s in sides[1]]:
        yield _stretch(*sides, grouped)
        return
    for place in range(max(map(len, sides))):
        before, after = (side[place : place + 1] for side in sides)
        yield _stretch(before, after, grouped)


def _stretch(before: tuple[Slice, ...], after: tuple[Slice, ...], grouped: bool) -> Stretch:
    shown = after or before
    return Stretch(sum(part.total for part in shown), shown[0].dtype, before, after, grouped)


def _is_grouped(link: Link) -> bool:
    """Whether N:M can be seen in a stretch of values: inputs lie side by side, in whole groups."""
    return any(
        p.prunable and p.matrix and not p.transposed and p.matrix[1] % 8 == 0
        for p in link.parameters
    )
