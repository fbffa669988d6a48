"""Two models read in step, piece by piece, each value once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import torch

from sparsity_report.counting.disk_cache import CacheFolder, Entries
from sparsity_report.counting.progress import Progress, bar
from sparsity_report.counting.workers import in_order
from sparsity_report.pairing.compiled_loops import alone, make_ready, tally
from sparsity_report.pairing.fingerprints import read, whole_rows
from sparsity_report.pairing.matches import Link, Piece, Plan
from sparsity_report.pairing.tally import NO_GROUPS, Tally
from sparsity_report.pairing.tally_cache import decode_tally, encode_tally, tally_key
from sparsity_report.weights.tensor_slices import FileSlice, Slice, pieces

# Rows that are compared at a time where they are in memory.
_ROWS = 256


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

    def make_ready(self) -> None:
        """Compile what :meth:`tally` needs."""
        make_ready(*(side[0].dtype for side in (self.before, self.after) if side))

    def tally(self) -> Tally:
        """Read both and compare them."""
        sums = Tally()
        if not (self.before and self.after):
            for piece in _by_groups(pieces(self.before or self.after)):
                grouped = self.grouped and piece.numel() % 8 == 0
                sums += alone(piece, before=bool(self.before), grouped=grouped)
            return sums
        sides = (_by_groups(pieces(side)) for side in (self.before, self.after))
        for one, other in in_step(*sides):
            sums += tally(one, other, self.grouped and one.numel() % 8 == 0)
        return sums


@dataclass(frozen=True, eq=False)
class Moved(Stretch):
    """Values of two tensors of which one has only some rows and columns of the other.

    Attributes
    ----------
    link : Link
    """

    link: Link

    def make_ready(self) -> None:
        """Compile what :meth:`tally` needs; of the base more is counted than is compared."""
        super().make_ready()
        make_ready(self.before[0].dtype)

    def tally(self) -> Tally:
        """Read both once, the base as far ahead as its rows are out of order, and compare them."""
        if self.link.pieces:
            return self._in_pieces(*self.link.pieces)
        assert self.link.before
        assert self.link.after
        widths = [
            p.parameter.shape[-1] if p.columns else 1 for p in (self.link.before, self.link.after)
        ]
        ahead = whole_rows(pieces(self.before), widths[0])
        total = self.total // widths[1]
        rows = np.arange(total) if self.link.rows is None else self.link.rows
        # No later row comes from before this one.
        lowest = np.minimum.accumulate(rows[::-1])[::-1]
        window, low, sums, done = torch.empty(0), 0, Tally(), 0
        each = total // len(self.link.columns)
        for some in whole_rows(pieces(self.after), widths[1]):
            for chunk in _split(some, done, each):
                last = int(rows[done : done + len(chunk)].max())
                fresh: list[torch.Tensor] = []
                high = low + len(window) + sum(map(len, fresh))
                while high <= last:
                    fresh.append(next(ahead))
                    sums += self._base(fresh[-1])
                    high += len(fresh[-1])
                keep = min(int(lowest[done]), low + len(window)) - low
                window = (
                    torch.cat([window[keep:], *fresh])
                    if fresh and len(window)
                    else (torch.cat(fresh) if fresh else window[keep:])
                )
                low += keep
                wanted = torch.from_numpy(rows[done : done + len(chunk)] - low)
                columns = self.link.columns[done // each]
                old = window[wanted]
                old = old if columns is None else old[:, torch.from_numpy(columns)]
                sums += self._both(old, chunk)
                done += len(chunk)
        for left in ahead:
            sums += self._base(left)
        return sums

    def _base(self, rows: torch.Tensor) -> Tally:
        grouped = self.grouped and rows.shape[1] % 8 == 0
        return alone(rows.reshape(-1), before=True, grouped=grouped)

    def _both(self, old: torch.Tensor, new: torch.Tensor) -> Tally:
        """Compare rows; those of the base have been counted already."""
        grouped = self.grouped and new.shape[1] % 8 == 0
        found = tally(old.reshape(-1), new.reshape(-1), grouped)
        return replace(
            found, total_before=0, zeros_before=0, groups_before=NO_GROUPS, grouped_before=0
        )

    def _in_pieces(self, one: Piece, other: Piece) -> Tally:
        """Compare matrices that lie in parts of larger ones, or the other way."""
        assert self.link.before
        assert self.link.after
        old = read(self.before, self.link.before, one.expert)[one.first : one.last]
        new = read(self.after, self.link.after, other.expert)[other.first : other.last]
        sums, columns = Tally(), self.link.columns[0]
        for start in range(0, len(old), _ROWS):
            sums += self._base(old[start : start + _ROWS])
        for start in range(0, len(new), _ROWS):
            chunk = new[start : start + _ROWS]
            wanted = np.arange(start, start + len(chunk))
            wanted = wanted if self.link.rows is None else self.link.rows[wanted]
            some = old[torch.from_numpy(wanted)]
            some = some if columns is None else some[:, torch.from_numpy(columns)]
            sums += self._both(some, chunk)
        return sums


def _split(rows: torch.Tensor, done: int, each: int) -> Iterator[torch.Tensor]:
    """Cut rows where one expert ends and the next begins."""
    start = 0
    while start < len(rows):
        stop = min(len(rows), start + each - (done + start) % each)
        yield rows[start:stop]
        start = stop


def _by_groups(parts: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Cut values where groups of eight end, wherever they were cut; the last may be fewer."""
    rest = torch.empty(0)
    for part in parts:
        values = torch.cat([rest, part]) if rest.numel() else part
        whole = values.numel() - values.numel() % 8
        if whole:
            yield values[:whole]
        rest = values[whole:]
    if rest.numel():
        yield rest


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
    entries = None if cache is None else Entries(cache, "pairs")
    for link in plan.links if entries else ():
        method = link.how + repr(_is_grouped(link))
        if entries and (key := tally_key(_slices(plan, link), method)):
            keys[link.name] = key
            if known := entries.get(key, link.name, decode_tally):
                tallies[link.name] = known
    waiting = [link for link in plan.links if link.name not in tallies]
    tallies |= {link.name: Tally() for link in waiting}
    size = sum(p.total * p.itemsize for link in waiting for p in link.parameters)
    done = 0

    def jobs() -> Iterator[tuple[str, Stretch, Callable[[Stretch], Tally]]]:
        for link in waiting:
            for part in _parts(plan, link):
                # What goes to other processes is compiled there.
                if executor is None or not part.sources():
                    part.make_ready()
                yield link.name, part, _tallied

    with bar("comparing", given=progress) as told:
        for name, part, found in in_order(jobs(), executor):
            tallies[name] += found
            done += sum(s.total * s.dtype.itemsize for s in (*part.before, *part.after))
            told(min(done, size), size, name.split("\n")[0] or name.split("\n")[1])
    for link in waiting if entries else ():
        if entries and link.name in keys:
            entries.put(keys[link.name], link.name, encode_tally(tallies[link.name]))
    return tallies, tuple(entries.notes()) if entries else ()


def _tallied(part: Stretch) -> Tally:
    return part.tally()


def _slices(plan: Plan, link: Link) -> tuple[tuple[Slice, ...], tuple[Slice, ...]]:
    """Return how each side's tensor is cut."""
    one, other = (
        () if p is None else tuple(weights.as_in_memory(p.parameter.name))
        for weights, p in ((plan.before, link.before), (plan.after, link.after))
    )
    return one, other


def _parts(plan: Plan, link: Link) -> Iterator[Stretch]:
    """Cut a link where both of its tensors are cut; where they are not alike it is one part."""
    grouped, sides = _is_grouped(link), _slices(plan, link)
    if link.apart:
        yield from (_stretch((cut,), (), grouped) for cut in sides[0])
        yield from (_stretch((), (cut,), grouped) for cut in sides[1])
        return
    if not link.in_step:
        yield Moved(link.total, sides[1][0].dtype, *sides, grouped, link)
        return
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
