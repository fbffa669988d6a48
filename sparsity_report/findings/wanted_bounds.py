"""Rules for a checkpoint as values, read from texts; contradictions are refused."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from itertools import combinations
from typing import TypedDict

from sparsity_report.counting.n_m_patterns import Pattern, read_pattern
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.sparse.runtime_support import RUNTIMES

_SCALES = {"": 1, "%": Fraction(1, 100), **{unit: 1000**i for i, unit in enumerate("KMBT", 1)}}


@dataclass(frozen=True)
class Bound:
    """A closed interval, and the text it was written as.

    ``==`` holds for values that round to the written one at its precision.
    """

    text: str
    low: Fraction
    high: Fraction

    def __contains__(self, value: Fraction | int) -> bool:
        return self.low <= value <= self.high


class Wanted(TypedDict, total=False):
    """Rules of :func:`sparsity_report.check` by name, as they are written; None is no rule."""

    zeros: str | None
    layers: str | None
    pattern: str | None
    mask_of: str | os.PathLike[str] | None
    params: str | None
    no_nan: bool
    runtime: str | None
    audit: bool


@dataclass(frozen=True)
class Rules:
    """Rules for one model; None, empty or False where nothing is asked for.

    Attributes
    ----------
    zeros : Bound or None
        Share of zeros among all prunable weights.
    layers : Bound or None
        Share of zeros of each prunable matrix.
    pattern : Pattern or None
        Pattern of every prunable matrix along its inputs.
    mask_of : str
        Model whose zeros must be zeros here, too.
    params : Bound or None
        Number of parameters.
    no_nan : bool
        Whether NaN and infinite values are violations.
    runtime : str
        Runtime that must not refuse or misread the layout of the weights.
    audit : bool
        Whether notes about deployment are violations.
    """

    zeros: Bound | None = None
    layers: Bound | None = None
    pattern: Pattern | None = None
    mask_of: str = ""
    params: Bound | None = None
    no_nan: bool = False
    runtime: str = ""
    audit: bool = False

    def __post_init__(self) -> None:
        shares = {"zeros": self.zeros, "layers": self.layers}
        if self.pattern:
            least = Fraction(self.pattern.m - self.pattern.n, self.pattern.m)
            shares["pattern"] = Bound(str(self.pattern), least, Fraction(1))
        given = [(name, bound) for name, bound in shares.items() if bound]
        for (one, a), (other, b) in combinations(given, 2):
            if max(a.low, b.low) > min(a.high, b.high):
                raise SparsityReportError(
                    f"{one} {a.text} contradicts {other} {b.text}: no model has both; drop one"
                )

    @property
    def reads_prunable(self) -> bool:
        """True if a rule needs the values of prunable matrices."""
        return bool(self.zeros or self.layers or self.pattern or self.mask_of or self.runtime)

    @property
    def reads_all(self) -> bool:
        """True if all values are read, as without any rule."""
        return self.no_nan or self.audit or self == Rules()


def read_rules(texts: Wanted) -> Rules:
    """Return rules from values by name, such as ``{"zeros": ">=50%"}``; None is no rule.

    Raises
    ------
    SparsityReportError
        A name or value is unknown, or rules contradict each other.

    Examples
    --------
    >>> rules = read_rules({"zeros": "50%..60%", "params": "==6.7B"})
    >>> rules.zeros.low, float(rules.params.high)
    (Fraction(1, 2), 6750000000.0)
    """
    known = [*Wanted.__annotations__]
    if unknown := next((name for name in texts if name not in known), None):
        raise SparsityReportError(f"unknown rule {unknown!r}{_near(unknown, known)}")
    given = {name: each for name, each in texts.items() if each is not None}
    return Rules(**{name: _value(name, each) for name, each in given.items()})  # type: ignore[arg-type]


def _near(name: str, known: list[str]) -> str:
    """Return the end of an error about an unknown name: close matches, or all known ones."""
    close = get_close_matches(name, known, n=3) or known
    return f"; use {' or '.join(map(printable, close))}"


def _value(name: str, value: object) -> object:
    text = str(value).strip()
    if name in {"zeros", "layers", "params"}:
        return _bound(name, text, "KMBT" if name == "params" else "%")
    if name == "pattern":
        if (pattern := read_pattern(text)) is None:
            raise SparsityReportError(
                f"pattern: {text!r} is no pattern; write at most N nonzeros of M weights, as 2:4"
            )
        return pattern
    if name in {"no_nan", "audit"}:
        if not isinstance(value, bool):
            raise SparsityReportError(f"{name}: {text!r} is neither True nor False")
        return value
    if name == "runtime" and text.lower() not in RUNTIMES:
        raise SparsityReportError(f"unknown runtime {text!r}{_near(text.lower(), [*RUNTIMES])}")
    return text.lower() if name == "runtime" else text


def _bound(name: str, text: str, units: str) -> Bound:
    """Return the intersection of intervals such as ``>=40%, <=60%`` or ``40%..60%``."""
    most = Fraction(1 if units == "%" else 10**18)
    number = rf"\d{{1,15}}(?:\.\d{{1,12}})?[{units}]?"
    one = re.compile(rf"(<=|≤|>=|≥|==)\s*({number})|({number})\s*\.\.\s*({number})")
    low, high = Fraction(0), most
    for part in text.split(","):
        match = one.fullmatch(part.strip())
        numbers = [_number(each) for each in match.groups()[1:] if each] if match else []
        if match is None or max(numbers)[0] > most:
            example = "50%, 0.6 or 40%..60%" if units == "%" else "6.5B or 6B..7B"
            raise SparsityReportError(
                f"{name}: {part.strip()!r} is no bound; write <=, >= or == and a number, or a "
                f"range: {example}"
            )
        (value, half), (end, _) = numbers[0], numbers[-1]
        ends = {
            "<": (low, value), "≤": (low, value), ">": (value, high), "≥": (value, high),
            "=": (value - half, value + half), "": (value, end),
        }  # fmt: skip
        below, above = ends[(match[1] or "")[:1]]
        low, high = max(low, below), min(high, above)
    if low > high:
        raise SparsityReportError(f"{name} {text} contradicts itself: no number fits; drop a part")
    return Bound(text, low, high)


def _number(text: str) -> tuple[Fraction, Fraction]:
    """Return a number with its unit, and half of its last written digit."""
    digits = text.rstrip("%KMBT")
    scale = Fraction(_SCALES[text[len(digits) :]])
    return Fraction(digits) * scale, scale / (2 * 10 ** len(digits.partition(".")[2]))
