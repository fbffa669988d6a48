"""Which of a base's units, rows or blocks, are those that stayed: equal ones first, then alike."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsity_report.pairing.fingerprints import Floats, Index

Likeness = Callable[[int, int], Floats]
"""How much some of what stayed, from one to before another, are like all of the base."""

# Likenesses that are looked at at a time, and the digits of them that are no noise.
_AT_ONCE, _DIGITS = 2**21, 5
# A unit stands somewhere else where it is so much like another one, and more than like its own.
_LIKE, _MORE = 0.6, 0.3
# Units of very many that are looked at before all are.
_SOME = 512


@dataclass(frozen=True, eq=False)
class Match:
    """Where units of the model after come from.

    Attributes
    ----------
    index : numpy.ndarray of int64
        The number in the base of each.
    certainty : numpy.ndarray of float64
        That it is this one: 1 where the values are equal, and no other has them, else
        (likeness − likeness of the next best) ÷ (1 − the latter), and 1 ÷ n where n are alike.
    gone : mapping of int to float
        Of the units that are not there any more, the certainty that none that stayed is it: of n
        that are alike, of which k are gone, k ÷ n.
    likeness : float
        Of what stayed to what it was taken for, the mean cosine; 1 of equal values.
    """

    index: Index
    certainty: npt.NDArray[np.float64]
    gone: dict[int, float]
    likeness: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether all are there, in their places."""
        return not self.gone and not self.moved.size

    @property
    def moved(self) -> Index:
        """Return the units, by their numbers after, that stand where another one stood."""
        places = np.arange(self.index.size)
        if not self.gone:
            return np.flatnonzero(self.index != places)
        # Among those that are left.
        return np.flatnonzero(np.argsort(np.argsort(self.index)) != places)


def same(number: int) -> Match:
    """Return the match of units that are all there, in their places."""
    return Match(np.arange(number), np.ones(number), {})


def untold(base: int, stayed: int) -> Match:
    """Return a match of so many units of which nothing says which of the base's they are.

    Examples
    --------
    >>> untold(3, 2).certainty.tolist(), untold(3, 2).gone
    ([0.0, 0.0], {2: 0.0})
    """
    return Match(np.arange(stayed), np.zeros(stayed), dict.fromkeys(range(stayed, base), 0.0), 0.0)


def equal(base: Sequence[bytes], stayed: Sequence[bytes]) -> Match | None:
    """Match units by digests; None where some of what stayed has no equal in the base.

    Of equal ones, each is in its own place where all are there, else they are in order.

    Examples
    --------
    >>> found = equal([b"a", b"b", b"c"], [b"c", b"a"])
    >>> found.index.tolist(), found.gone
    ([2, 0], {1: 1.0})
    >>> found = equal([b"a", b"a", b"b"], [b"a", b"b"])
    >>> found.index.tolist(), found.certainty.tolist(), found.gone
    ([0, 2], [0.5, 1.0], {1: 0.5})
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for number, digest in enumerate(base):
        places[digest].append(number)
    copies = {digest: len(numbers) for digest, numbers in places.items()}
    index = np.full(len(stayed), -1)
    if len(base) == len(stayed):
        for number, digest in enumerate(stayed):
            if base[number] == digest:
                index[number] = number
                places[digest].remove(number)
    last = -1
    for number, digest in enumerate(stayed):
        if index[number] >= 0:
            continue
        if not (numbers := places.get(digest)):
            return None
        later = bisect.bisect(numbers, last)
        index[number] = last = numbers.pop(later if later < len(numbers) else 0)
    # Of units that are equal nobody can tell which one is gone.
    left = {digest: len(numbers) for digest, numbers in places.items() if numbers}
    certainty = [1 / copies[digest] if digest in left else 1.0 for digest in stayed]
    gone = {n: left[d] / copies[d] for d, numbers in places.items() for n in numbers}
    return Match(index, np.array(certainty), dict(sorted(gone.items())))


def one_of(candidates: Sequence[set[int]], base: int) -> Match | None:
    """Match units each of which can be any of some; None where one is left without.

    Where all are there, one that can be in its own place is there for sure.

    Examples
    --------
    >>> found = one_of([{0, 1}, {2}], 3)
    >>> found.index.tolist(), found.certainty.tolist(), found.gone
    ([0, 2], [0.5, 1.0], {1: 0.5})
    """
    index, free = np.full(len(candidates), -1), set(range(base))
    for number in sorted(range(len(candidates)), key=lambda n: len(candidates[n])):
        if not (some := sorted(candidates[number] & free)):
            return None
        last = max(index[:number], default=-1)
        if len(candidates) < base or number not in some:
            number_in_base = next((n for n in some if n > last), some[0])
        else:
            number_in_base = number
        index[number] = number_in_base
        free.remove(number_in_base)
    whole = len(candidates) == base
    certainty = [
        1.0 if whole and index[number] == number else 1 / len(some)
        for number, some in enumerate(candidates)
    ]
    gone = {}
    for number in sorted(free):
        claims = [some for some in candidates if number in some]
        rivals = len(set().union(*claims))
        gone[number] = (rivals - len(claims)) / rivals if claims else 1.0
    return Match(index, np.array(certainty), gone)


def alike(base: Floats, stayed: Floats) -> Match:
    """Match units by the cosine of their projections, each with one of its own.

    Examples
    --------
    >>> base = np.eye(3, dtype=np.float32)
    >>> found = alike(base, base[[2, 0]])
    >>> found.index.tolist(), found.certainty.round(4).tolist(), [*found.gone]
    ([2, 0], [1.0, 1.0], [1])
    """
    return likest(cosines(base, stayed), len(stayed), len(base))


def cosines(base: Floats, stayed: Floats) -> Likeness:
    """Return the likeness of units by their projections."""
    return lambda start, stop: stayed[start:stop] @ base.T


def _chunks(
    likeness: Likeness, stayed: int, base: int
) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    step = max(_AT_ONCE // max(base, 1), 1)
    for start in range(0, stayed, step):
        some = slice(start, min(start + step, stayed))
        yield some, likeness(some.start, some.stop).astype(np.float64).round(_DIGITS)


def likest(likeness: Likeness, stayed: int, base: int) -> Match:
    """Match by likeness, given for some of what stayed with all of the base at a time."""
    found = [
        np.stack([like.argmax(axis=1), like.max(axis=1)])
        for _, like in _chunks(likeness, stayed, base)
    ]
    best, most = np.concatenate(found, axis=1)
    index = _apart(likeness, best.astype(np.int64), most, base)
    certainty, sums = np.ones(stayed), 0.0
    absent = np.setdiff1d(np.arange(base), index)
    surest = np.ones(absent.size)
    for some, like in _chunks(likeness, stayed, base):
        margins, ties = _margins(like, index[some])
        sums += float(like[np.arange(len(like)), index[some]].sum())
        certainty[some] = margins.min(axis=1)
        if absent.size:
            share = ties[:, absent].sum(axis=1) / ties.sum(axis=1)
            told = np.where(ties[:, absent], share[:, None], margins[:, absent])
            surest = np.minimum(surest, told.min(axis=0))
    gone = dict(zip(absent.tolist(), surest.tolist(), strict=True))
    return Match(index, certainty, gone, sums / max(stayed, 1))


def reordered(likeness: Likeness, number: int) -> Match | None:
    """Match units that are all there, in another order; None unless their values clearly say so.

    What is moved stands for something else: copies of what stays in its place are no other order.

    Examples
    --------
    >>> base = np.eye(3, dtype=np.float32)
    >>> reordered(cosines(base, base[[2, 1, 0]]), 3).index.tolist()
    [2, 1, 0]
    >>> reordered(cosines(base, base[[2, 1, 2]]), 3) is None
    True
    """
    if not _any_away(likeness, number):
        return None
    found = []
    for some, like in _chunks(likeness, number, number):
        rows = np.arange(len(like))
        best = like.argmax(axis=1)
        found.append(np.stack([best, like[rows, best], like[rows, rows + some.start]], axis=1))
    table = np.concatenate(found)
    index, most, own = table[:, 0].astype(np.int64), table[:, 1], table[:, 2]
    home = (own >= _LIKE) | (most - own < _MORE) & (most >= _LIKE)
    moves = (most >= _LIKE) & (most - own >= _MORE)
    home &= ~moves
    targets, counts = np.unique(index[moves], return_counts=True)
    taken = np.zeros(number, dtype=bool)
    taken[np.flatnonzero(home)] = True
    moves &= ~np.isin(index, targets[counts > 1]) & ~taken[index]
    lost = np.flatnonzero(~home & ~moves)
    if moves.sum() <= lost.size:
        return None
    taken[index[moves]] = True
    index = np.where(moves, index, np.arange(number))
    stays = lost[~taken[lost]]
    taken[stays] = True
    others, places = np.setdiff1d(lost, stays), np.flatnonzero(~taken)
    index[others] = places
    certainty, sums = np.ones(number), 0.0
    for some, like in _chunks(likeness, number, number):
        certainty[some] = _margins(like, index[some])[0].min(axis=1)
        sums += float(like[np.arange(len(like)), index[some]].sum())
    return Match(index, certainty, {}, sums / number)


def _any_away(likeness: Likeness, number: int) -> bool:
    """Whether one of many units, evenly spread, is like another one and not like its own."""
    for place in range(0, number, max(number // _SOME, 1)):
        like = likeness(place, place + 1)[0]
        if like.max() >= max(_LIKE, like[place] + _MORE):
            return True
    return False


def _margins(
    like: npt.NDArray[np.float64], index: Index
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return how sure it is that each is none of the others, and which are as much like it."""
    rows = np.arange(index.size)
    best = like[rows, index][:, None]
    ties = like >= best
    margins = np.clip((best - like) / (1 - like + 10.0**-_DIGITS), 0, 1)
    margins = np.where(ties, 1 / ties.sum(axis=1, keepdims=True), margins)
    margins[rows, index] = 1
    return margins, ties


def _apart(likeness: Likeness, index: Index, most: npt.NDArray[np.float64], base: int) -> Index:
    """Give each a unit of its own, the likest pairs first.

    Whoever is less like a unit than somebody else takes the best of those that it is likest to.
    """
    owner, held = np.full(base, -1), np.full(base, -np.inf)
    # The last one comes first off the stack: of those that are as much alike, the first of all.
    waiting = np.lexsort((-np.arange(index.size), most)).tolist()
    claimed = index.copy()
    first = np.ones(index.size, dtype=bool)
    while waiting:
        number = waiting.pop()
        if first[number] and most[number] > held[claimed[number]]:
            place, like = claimed[number], most[number]
        else:
            row = likeness(number, number + 1)[0].astype(np.float64).round(_DIGITS)
            row[row <= held] = -np.inf
            place = int(row.argmax())
            like = row[place]
        first[number] = False
        if owner[place] >= 0:
            waiting.append(int(owner[place]))
        owner[place], held[place] = number, like
    taken = np.flatnonzero(owner >= 0)
    index = index.copy()
    index[owner[taken]] = taken
    return index
