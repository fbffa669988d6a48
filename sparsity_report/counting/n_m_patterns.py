"""N:M patterns: at most n nonzeros in every m consecutive weights along the input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Flags: TypeAlias = "npt.NDArray[np.bool_]"
GroupCounts: TypeAlias = "npt.NDArray[Any]"


class Pattern(NamedTuple):
    """A pattern that keeps at most `n` of every `m` weights.

    Examples
    --------
    >>> str(Pattern(2, 4))
    '2:4'
    """

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def implies(self, other: Pattern) -> bool:
        """Return whether every matrix with this pattern has the other one, too.

        Examples
        --------
        >>> [str(each) for each in KNOWN if each.implies(Pattern(2, 4))]
        ['1:4', '2:8', '2:4']
        """
        if self.m % other.m == 0:
            return self.n <= other.n
        return other.m % self.m == 0 and self.n * other.m // self.m <= other.n


KNOWN = (Pattern(1, 4), Pattern(2, 8), Pattern(2, 4), Pattern(4, 8))
"""Patterns that are looked for, sparsest first: 2:4 of sparse tensor cores, and its relatives."""
COMPLIANCE = 0.99
"""Share of groups from which a matrix has a pattern."""
_PATTERN = re.compile(r"[0-9]{1,5}:[0-9]{1,5}")
# Largest M of a pattern that is read from a text, as groups are read as a whole.
_MOST = 1024


def find_pattern(complying: Mapping[Pattern, int], total: int) -> Pattern | None:
    """Return the sparsest pattern that a matrix has.

    Parameters
    ----------
    complying : mapping of Pattern to int
        Complying groups, sparsest pattern first.
    total : int
        Weights of the matrix.

    Returns
    -------
    Pattern or None

    Examples
    --------
    >>> find_pattern({Pattern(1, 4): 40, Pattern(2, 4): 99}, 400)
    Pattern(n=2, m=4)
    """
    shares = compliance(complying, total)
    return next((pattern for pattern, share in shares.items() if share >= COMPLIANCE), None)


def compliance(complying: Mapping[Pattern, int], total: int) -> dict[Pattern, float]:
    """Return the share of complying groups by pattern, of a matrix with so many weights."""
    return {p: groups / (total // p.m) for p, groups in complying.items() if total >= p.m}


def group_counts(flags: Flags, m: int) -> GroupCounts:
    """Return the number of flags in each group of `m` columns, row by row.

    Examples
    --------
    >>> import numpy as np
    >>> group_counts(np.array([[True, False, True, True, True, False]]), 3).tolist()
    [[2, 2]]
    """
    size = next(size for size in (8, 4, 1) if m % size == 0)
    words = flags.view(f"u{size}")
    ones = words.dtype.type(0x0101010101010101 >> 8 * (8 - size))
    # The product adds the bytes of a word in its highest byte.
    counts: GroupCounts = (words * ones) >> words.dtype.type(8 * size - 8)
    return counts.reshape(len(flags), -1, m // size).sum(axis=2) if m > size else counts


def is_pattern(text: str | None) -> bool:
    """Return whether a text, such as a policy, is a pattern such as ``"2:4"``."""
    return text is not None and _PATTERN.fullmatch(text) is not None


def read_pattern(text: str) -> Pattern | None:
    """Return the pattern of a text; None for other texts and for impossible or huge patterns.

    Examples
    --------
    >>> read_pattern("2:4"), read_pattern("4:4"), read_pattern("unstructured")
    (Pattern(n=2, m=4), None, None)
    """
    n, m = map(int, text.split(":")) if is_pattern(text) else (0, 0)
    return Pattern(n, m) if 0 < n < m <= _MOST else None


def parse_pattern(method: str) -> Pattern | None:
    """Return the pattern in the method of a pruning.

    Examples
    --------
    >>> parse_pattern("wanda_one_pass, 2:4"), parse_pattern("random, seed 0")
    (Pattern(n=2, m=4), None)
    """
    text = next(filter(is_pattern, method.split(", ")), None)
    return Pattern(*map(int, text.split(":"))) if text else None
