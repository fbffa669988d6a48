"""Formats of the values of columns: text of a cell, unit, and notation on axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from sparsity_report.errors import printable
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words import number_format as numbers
from sparsity_report.words.display_names import display_name, group_name, layout_name, method_name
from sparsity_report.words.sentences import say


class Format(NamedTuple):
    """A format of values.

    Attributes
    ----------
    write : callable
        Return the text of a value, which is null where unknown.
    unit : str or None
        Unit of numbers: ``"%"``, ``"×"``, ``""``, or ``"s"`` for times, whose unit differs by cell.
        None for words, which are aligned left.
    tag : str
        HTML element around the text: ``bdi`` keeps a name from changing the direction of the text
        around it.
    places : int
        Decimal places by which the unit scales a value: 2 for shares in percent.
    axis : str
        Notation on axes, in heat maps and in the viewer: ``"share"`` of 1, ``"number"``,
        ``"bytes"``, ``"ratio"`` even at 1, ``"points"`` for a difference of shares, ``"nats"`` for
        a difference of losses, or ``"own"`` for a number that is known to two digits.
    """

    write: Callable[[Any], str]
    unit: str | None = None
    tag: str = ""
    places: int = 0
    axis: str = "number"


def name_format(limit: int) -> Format:
    """Return the format of names from a model, clipped to so many letters."""
    return Format(lambda text: "–" if text is None else clip(text, limit), tag="bdi")


def share(digits: int = 1) -> Format:
    """Return the format of shares of 1: percentages."""
    return Format(partial(numbers.percent, digits=digits), "%", places=2, axis="share")


def scaled(unit: str) -> Format:
    """Return the format of quantities with a decimal prefix, such as 1.2 MB."""
    return Format(partial(numbers.scaled, unit=unit), "")


def one_unit(sizes: Iterable[float], unit: str) -> tuple[str, Format]:
    """Return a multiple of a unit by which every number has three digits, and its format."""
    least = min(sizes, default=0)
    step = max((step for step in range(4) if least >= 1000**step), default=0)
    amount = least / 1000**step
    digits = 0 if step == 0 or amount >= 99.95 else 1 if amount >= 9.995 else 2

    def write(size: Any) -> str:
        return numbers.figures(None if size is None else size / 1000**step, f",.{digits}f")

    unit = numbers.scaled(1000**step, unit).rpartition(numbers.THIN)[2]
    return unit, Format(write, "", places=-3 * step)


def perplexity(vocabulary: int | None) -> Format:
    """Return the format of perplexities of a model with so many tokens."""
    return Format(lambda value: numbers.perplexity((value, vocabulary), digits=2), "")


def figures(spec: str, axis: str = "number") -> Format:
    """Return the format of numbers by a Python format."""
    return Format(partial(numbers.figures, spec=spec), "", axis=axis)


def estimate(form: Format) -> Format:
    """Return the format of a mean with the ends of its interval."""

    def write(ends: tuple[Any, Any, Any]) -> str:
        mean, low, high = map(form.write, ends)
        return f"{mean} ({low}–{high})"

    return Format(write)


def interval(form: Format) -> Format:
    """Return the format of the ends of an interval."""

    def write(ends: tuple[Any, Any]) -> str:
        low, high = map(form.write, ends)
        return say("format.range", low=low, high=high)

    return Format(write)


def name_of(family: str) -> Format:
    """Return the format of raw values that have a name in a family of the catalogue."""
    return Format(lambda value: "–" if value is None else display_name(family, value))


def _span(ends: tuple[Any, Any]) -> str:
    low, high = ends
    if not (numbers.known(low) and numbers.known(high)):
        return numbers.UNKNOWN
    return f"{_joined_ends(low, high)}{numbers.THIN}×"


def _joined_ends(low: Any, high: Any) -> str:
    """Write the ends of an interval of ratios, with digits enough to tell them and 1 apart."""
    for digits in (2, 3, 4):
        texts = [numbers.figures(end, f".{digits}f") for end in (low, high)]
        if len({*texts}) > 1 and all(float(t) != 1 for t in texts):
            break
    return "–".join(texts)


def _realised(speed_up: tuple[Any, Any, Any] | None) -> str:
    """Write a ratio and its interval; the interval alone if the ratio is within the noise."""
    ratio, low, high = speed_up or (None, None, None)
    if _span((low, high)) == numbers.UNKNOWN:
        return numbers.UNKNOWN
    ends = _joined_ends(low, high)
    text = numbers.figures(ratio, f".{len(ends.rpartition('.')[2])}f")
    return f"{text}{numbers.THIN}× ({ends})" if numbers.known(ratio) else f"({_span((low, high))})"


def _crossing(crossover: tuple[str, Any, Any, Any]) -> str:
    """Write the sparsity from which CSR is faster, or its bound."""
    verdict, low, edge, high = crossover
    if verdict != "stated":
        above = say("format.above_percent", low=low) if verdict == "above" else numbers.UNKNOWN
        return say("chart.crossover_never") if verdict == "never" else above
    first = numbers.figures(100 * low, ".0f")
    return f"{numbers.percent(edge, 0)} ({first}–{numbers.percent(high, 0)})"


WORDS = Format(lambda text: "–" if text is None else printable(str(text)))
NAME = name_format(40)
CODE = NAME._replace(tag="code")
GROUP = Format(group_name)
LAYOUT = Format(layout_name)
METHOD = Format(lambda m: "–" if m is None else short_name(method_name(m)), tag="bdi")
SHAPE = Format(numbers.shape)
COUNT = Format(numbers.count, "")
BYTES = COUNT._replace(axis="bytes")
SHARE = share()
TIMES = Format(numbers.times, "×", axis="ratio")
# Ratios of integers, which are not measured.
MULTIPLE = TIMES._replace(write=numbers.multiple)
# Differences of shares in percentage points.
POINTS = Format(numbers.points, "", axis="points")
# Estimates from the buckets of magnitudes, which are 0.8 % wide.
OWN = figures("#.2g", "own")
DURATION = Format(numbers.duration, "s")
QUARTILES = Format(lambda ends: numbers.span(*ends), "s")
THRESHOLD = Format(numbers.threshold)
P_VALUE = Format(numbers.p_value, "")
SIZES = Format(lambda sizes: " / ".join(numbers.count(size) for size in sizes))
# Pairs of a value and its standard error: a share, and a figure in any unit.
SCORE = Format(
    lambda pair: numbers.with_error(*(pair or (None, None))).removesuffix(f"{numbers.THIN}%"),
    "",
    places=2,
)
FIGURE = Format(lambda pair: numbers.plus_minus(*(pair or (None, None))), "")
# Ends of an interval of ratios, a ratio with such an interval, and a crossover with its verdict.
SPAN, REALISED, CROSSOVER = Format(_span), Format(_realised), Format(_crossing)
