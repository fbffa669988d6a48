"""Which of a base's units, rows or blocks, are those that stayed: equal ones first, then alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsity_report.pairing.look import Floats, Index

# Likenesses that are looked at at a time.
_AT_ONCE = 2**21


@dataclass(frozen=True, eq=False)
class Match:
    """Where units of the model after come from.

    Attributes
    ----------
    index : numpy.ndarray of int64
        The number in the base of each.
    certainty : numpy.ndarray of float64
        That it is this one: 1 where the values are equal, and no other has them, else
        (likeness − likeness of the next best) ÷ (1 − the latter).
    gone : mapping of int to float
        Of the units that are not there any more, the certainty that none that stayed is it.
    """

    index: Index
    certainty: npt.NDArray[np.float64]
    gone: dict[int, float]

    @property
    def is_identity(self) -> bool:
        """Whether all are there, in their places."""
        return not self.gone and bool((self.index == np.arange(self.index.size)).all())


def same(number: int) -> Match:
    """Return the match of units that are all there, in their places."""
    return Match(np.arange(number), np.ones(number), {})


def equal(base: Sequence[bytes], stayed: Sequence[bytes]) -> Match | None:
    """Match units by digests; None where some of what stayed has no equal in the base.

    Examples
    --------
    >>> found = equal([b"a", b"b", b"c"], [b"c", b"a"])
    >>> found.index.tolist(), found.gone
    ([2, 0], {1: 1.0})
    >>> equal([b"a", b"a"], [b"a"]).certainty.tolist()
    [0.0]
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for number, digest in enumerate(base):
        places[digest].append(number)
    copies = {digest: len(numbers) for digest, numbers in places.items()}
    index, certainty = [], []
    for digest in stayed:
        if not places.get(digest):
            return None
        index.append(places[digest].pop(0))
        certainty.append(1.0)
    left = {digest for digest, numbers in places.items() if numbers}
    # Of units that are equal nobody can tell which one is gone.
    unsure = {digest for digest in stayed if copies[digest] > 1 and digest in left}
    certainty = [0.0 if digest in unsure else 1.0 for digest in stayed]
    gone = {n: 0.0 if d in unsure else 1.0 for d, numbers in places.items() for n in numbers}
    return Match(np.array(index, dtype=np.int64), np.array(certainty), dict(sorted(gone.items())))


def alike(base: Floats, stayed: Floats) -> Match:
    """Match units by the cosine of their projections, each with one of its own.

    Examples
    --------
    >>> base = np.eye(3, dtype=np.float32)
    >>> found = alike(base, base[[2, 0]])
    >>> found.index.tolist(), found.certainty.round(6).tolist(), [*found.gone]
    ([2, 0], [1.0, 1.0], [1])
    """
    return likest(lambda start, stop: stayed[start:stop] @ base.T, len(stayed), len(base))


def likest(likeness: Callable[[int, int], Floats], stayed: int, base: int) -> Match:
    """Match by likeness, given for some of what stayed with all of the base at a time."""
    step = max(_AT_ONCE // max(base, 1), 1)
    chunks = [(start, min(start + step, stayed)) for start in range(0, stayed, step)]
    index = np.concatenate([likeness(*chunk).argmax(axis=1) for chunk in chunks]).astype(np.int64)
    if len(set(index.tolist())) < stayed:
        index = _apart(likeness, chunks, index)
    certainty = np.ones(stayed)
    absent = np.setdiff1d(np.arange(base), index)
    surest = np.ones(absent.size)
    for start, stop in chunks:
        # Nothing is sure to more digits than float32 has.
        like = np.clip(likeness(start, stop).astype(np.float64), -1, 1 - 1e-7)
        rows = np.arange(stop - start)
        best = like[rows, index[start:stop]].copy()
        like[rows, index[start:stop]] = -1
        margins = np.clip((best[:, None] - like) / (1 - like), 0, 1)
        certainty[start:stop] = margins.min(
            axis=1, where=_others(margins, index[start:stop]), initial=1
        )
        if absent.size:
            surest = np.minimum(surest, margins[:, absent].min(axis=0))
    return Match(index, certainty, dict(zip(absent.tolist(), surest.tolist(), strict=True)))


def _others(margins: npt.NDArray[np.float64], index: Index) -> npt.NDArray[np.bool_]:
    flags = np.ones(margins.shape, dtype=bool)
    flags[np.arange(index.size), index] = False
    return flags


def _apart(
    likeness: Callable[[int, int], Floats], chunks: Sequence[tuple[int, int]], index: Index
) -> Index:
    """Give each a unit of its own, the likest pairs first."""
    whole = np.concatenate([likeness(*chunk) for chunk in chunks])
    free_rows, free = np.ones(len(whole), dtype=bool), np.ones(whole.shape[1], dtype=bool)
    index = index.copy()
    for flat in np.argsort(-whole, axis=None, kind="stable"):
        row, column = divmod(int(flat), whole.shape[1])
        if free_rows[row] and free[column]:
            index[row], free_rows[row], free[column] = column, False, False
            if not free_rows.any():
                break
    return index
