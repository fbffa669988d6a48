"""Matching of the units of a model with those of its base, by equal values or by similarity."""

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsity_report.pairing.fingerprints import Floats, Index

# Similarities in memory at a time, and their digits above the noise.
_AT_ONCE, _DIGITS = 2**21, 5
# Similarity of a moved unit to its match, and its margin over the unit in the same place.
_SIMILAR, _MARGIN = 0.6, 0.3

Similarity = Callable[[Floats, Floats, slice], npt.NDArray[np.float64]]
"""Returns the similarities of some units with all of the base."""


@dataclass(frozen=True, eq=False)
class UnitMatch:
    """The units of the base that the units of a model come from.

    Attributes
    ----------
    index : numpy.ndarray of int64
        Number in the base of each unit.
    certainty : numpy.ndarray of float64
        1 for equal values that no other unit has, 1 ÷ n among n equal units, else
        (similarity − that of the next best) ÷ (1 − that of the next best).
    removed : dict of int to float
        Units of the base without a match, and their certainty: k ÷ n if k of n equal units were
        removed.
    similarity : float
        Mean cosine of the matched units; 1 for equal values.
    module : str
        Module of the base that holds the units.
    """

    index: Index
    certainty: npt.NDArray[np.float64]
    removed: dict[int, float]
    similarity: float = 1.0
    module: str = ""

    @property
    def is_identity(self) -> bool:
        """True if all units are in their places."""
        return not self.removed and not self.moved.size

    @property
    def moved(self) -> Index:
        """Units, by their numbers after, in another order among the remaining ones."""
        return np.flatnonzero(np.argsort(np.argsort(self.index)) != np.arange(self.index.size))


def match_identical(number: int) -> UnitMatch:
    """Return the match of units that are all in their places."""
    return UnitMatch(np.arange(number), np.ones(number), {})


def match_equal(base: Sequence[bytes], remaining: Sequence[bytes]) -> UnitMatch | None:
    """Match units by digests; return None if a unit has no equal in the base.

    Equal units are matched in place if none was removed, else in order.

    Examples
    --------
    >>> match = match_equal([b"a", b"b", b"c"], [b"c", b"a"])
    >>> match.index.tolist(), match.removed
    ([2, 0], {1: 1.0})
    >>> match = match_equal([b"a", b"a", b"b"], [b"a", b"b"])
    >>> match.index.tolist(), match.certainty.tolist(), match.removed
    ([0, 2], [0.5, 1.0], {1: 0.5})
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for number, digest in enumerate(base):
        places[digest].append(number)
    copies = {digest: len(numbers) for digest, numbers in places.items()}
    index = np.full(len(remaining), -1)
    if len(base) == len(remaining):
        for number, digest in enumerate(remaining):
            if base[number] == digest:
                index[number] = number
                places[digest].remove(number)
    last = -1
    for number, digest in enumerate(remaining):
        if index[number] >= 0:
            continue
        if not (numbers := places.get(digest)):
            return None
        later = bisect.bisect(numbers, last)
        index[number] = last = numbers.pop(later if later < len(numbers) else 0)
    # Among equal units any one may be the removed one.
    left = {digest: len(numbers) for digest, numbers in places.items() if numbers}
    certainty = [1 / copies[digest] if digest in left else 1.0 for digest in remaining]
    removed = {n: left[d] / copies[d] for d, numbers in places.items() for n in numbers}
    return UnitMatch(index, np.array(certainty), dict(sorted(removed.items())))


def match_candidates(candidates: Sequence[set[int]], base: int) -> UnitMatch | None:
    """Match units with several candidates each; return None if a unit is left without one.

    If none was removed, a unit that can be in its place is certainly there.

    Examples
    --------
    >>> match = match_candidates([{0, 1}, {2}], 3)
    >>> match.index.tolist(), match.certainty.tolist(), match.removed
    ([0, 2], [0.5, 1.0], {1: 0.5})
    """
    index, free = np.full(len(candidates), -1), set(range(base))
    complete = len(candidates) == base
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
    certainty = [
        1.0 if complete and index[number] == number else 1 / len(some)
        for number, some in enumerate(candidates)
    ]
    removed = {}
    for number in sorted(free):
        claims = [some for some in candidates if number in some]
        rivals = len(set().union(*claims))
        removed[number] = (rivals - len(claims)) / rivals if claims else 1.0
    return UnitMatch(index, np.array(certainty), removed)


def match_similar(base: Floats, remaining: Floats) -> UnitMatch:
    """Match units one to one by the cosine of their projections, computed in chunks.

    Examples
    --------
    >>> base = np.eye(3, dtype=np.float32)
    >>> match = match_similar(base, base[[2, 0]])
    >>> match.index.tolist(), match.certainty.round(4).tolist(), [*match.removed]
    ([2, 0], [1.0, 1.0], [1])
    """
    return _unit_match(base, remaining, _assign(base, remaining, _cosines))


def match_in_place(base: Floats, remaining: Floats) -> UnitMatch:
    """Match as many units as in the base: in place, unless they clearly are permuted.

    A unit that moved makes room for another: copies of a unit in its place are no permutation.

    Examples
    --------
    >>> base = np.eye(3, dtype=np.float32)
    >>> match_in_place(base, base[[2, 1, 0]]).index.tolist()
    [2, 1, 0]
    >>> match_in_place(base, base[[2, 1, 2]]).index.tolist()
    [0, 1, 2]
    """
    index = _assign(base, remaining, _lead_of_place)
    is_similar = np.einsum("ij,ij->i", remaining, base[index]) >= _SIMILAR
    is_moved = index != np.arange(index.size)
    if (is_moved & is_similar).sum() <= (~is_similar).sum():
        return match_identical(index.size)
    return _unit_match(base, remaining, index)


def _chunks(
    base: Floats, remaining: Floats, similarity: Similarity
) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Yield the similarities of some units with all of the base."""
    step = max(_AT_ONCE // max(len(base), 1), 1)
    for start in range(0, len(remaining), step):
        some = slice(start, min(start + step, len(remaining)))
        yield some, similarity(base, remaining, some)


def _cosines(base: Floats, remaining: Floats, some: slice) -> npt.NDArray[np.float64]:
    return (remaining[some] @ base.T).astype(np.float64).round(_DIGITS)


def _lead_of_place(base: Floats, remaining: Floats, some: slice) -> npt.NDArray[np.float64]:
    """Return cosines in place, and elsewhere what exceeds the lead of a unit in its place."""
    cosines = _cosines(base, remaining, some)
    rows = np.arange(len(cosines))
    in_place = cosines[rows, rows + some.start]
    # Dissimilar units come after all others.
    cosines -= np.where(cosines >= _SIMILAR, _MARGIN, 3)
    cosines[rows, rows + some.start] = in_place
    return cosines


def _unit_match(base: Floats, remaining: Floats, index: Index) -> UnitMatch:
    """Return a match with its certainty and mean similarity."""
    certainty, total = np.ones(index.size), 0.0
    absent = np.setdiff1d(np.arange(len(base)), index)
    absent_certainty = np.ones(absent.size)
    for some, chunk in _chunks(base, remaining, _cosines):
        margins, ties = _margins(chunk, index[some])
        total += float(chunk[np.arange(len(chunk)), index[some]].sum())
        certainty[some] = margins.min(axis=1)
        if absent.size:
            share = ties[:, absent].sum(axis=1) / ties.sum(axis=1)
            distinct = np.where(ties[:, absent], share[:, None], margins[:, absent])
            absent_certainty = np.minimum(absent_certainty, distinct.min(axis=0))
    removed = dict(zip(absent.tolist(), absent_certainty.tolist(), strict=True))
    return UnitMatch(index, certainty, removed, total / max(index.size, 1))


def _margins(
    chunk: npt.NDArray[np.float64], index: Index
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the certainty of each match against each unit of the base, and the ties."""
    rows = np.arange(index.size)
    best = chunk[rows, index][:, None]
    ties = chunk >= best
    margins = np.clip((best - chunk) / (1 - chunk + 10.0**-_DIGITS), 0, 1)
    margins = np.where(ties, 1 / ties.sum(axis=1, keepdims=True), margins)
    margins[rows, index] = 1
    return margins, ties


def _assign(base: Floats, remaining: Floats, similarity: Similarity) -> Index:
    """Assign units one to one, the most similar pairs first.

    A unit that loses its match to a more similar one takes its next-best free match.
    """
    chunks = (chunk for _, chunk in _chunks(base, remaining, similarity))
    tables = [np.stack([chunk.argmax(axis=1), chunk.max(axis=1)]) for chunk in chunks]
    best, highest = np.concatenate(tables, axis=1)
    claimed: Index = best.astype(np.int64)
    owner, best_value = np.full(len(base), -1), np.full(len(base), -np.inf)
    # The last is popped first; the first unit wins ties.
    waiting = np.lexsort((-np.arange(claimed.size), highest)).tolist()
    is_first = np.ones(claimed.size, dtype=bool)
    while waiting:
        number = waiting.pop()
        place, value = claimed[number], highest[number]
        if not is_first[number] or value <= best_value[place]:
            row = similarity(base, remaining, slice(number, number + 1))[0]
            row[row <= best_value] = -np.inf
            place = int(row.argmax())
            value = row[place]
        is_first[number] = False
        if owner[place] >= 0:
            waiting.append(int(owner[place]))
        owner[place], best_value[place] = number, value
    taken = np.flatnonzero(owner >= 0)
    claimed[owner[taken]] = taken
    return claimed
