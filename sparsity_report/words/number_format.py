"""One format for each kind of number; a dash for an unknown value.

A thin no-break space separates thousands and, in cells, cards and labels, precedes a unit. In
sentences, :func:`sparsity_report.words.sentences.say` passes a plain space.
"""

import math
from collections.abc import Iterable, Sequence
from ctypes import c_float
from decimal import ROUND_CEILING, Context, Decimal
from numbers import Integral
from typing import SupportsFloat, TypeAlias, TypeGuard

from sparsity_report.words.catalogue import catalogue

# Smallest p-value that is written with its digits.
_SMALLEST = 1e-4
UNKNOWN = "–"
THIN = "\u202f"
# A number of a frame; an unknown one is None, NaN or pandas' NA.
Number: TypeAlias = SupportsFloat | None
_PREFIXES = ("", "k", "M", "G", "T", "P")


def known(value: object) -> bool:
    """Return False for None, NaN and pandas' NA."""
    try:
        return value is not None and bool(value == value)
    except TypeError:  # comparing pandas' NA gives NA, which has no truth value
        return False


def _is_known(value: Number) -> TypeGuard[float]:
    return known(value)


def figures(value: Number, spec: str) -> str:
    r"""Write a number by a Python format, with thin spaces between thousands.

    Examples
    --------
    >>> figures(1234.5, ",.1f").replace("\u202f", " "), figures(None, ".2f")
    ('1 234.5', '–')
    """
    if not _is_known(value):
        return UNKNOWN
    return format(value, spec).replace(",", THIN)


def count(number: Number) -> str:
    r"""Write an integer with spaces between thousands.

    Examples
    --------
    >>> count(1234567).replace("\u202f", " ")
    '1 234 567'
    """
    return f"{int(number):,}".replace(",", THIN) if _is_known(number) else UNKNOWN


def plain(value: SupportsFloat, places: int = 0) -> str:
    """Write a number for programs: all its digits, with the decimal point moved.

    Examples
    --------
    >>> plain(0.30125, 2), plain(1234567), plain(1.5e-7)
    ('30.125', '1234567', '0.00000015')
    """
    digits = Decimal(int(value) if isinstance(value, Integral) else repr(float(value)))
    return format(digits.scaleb(places), "f")


def percent(share: Number, digits: int = 1, space: str = THIN) -> str:
    """Write a share as a percentage; only 0 and 1 become 0 % and 100 %.

    Examples
    --------
    >>> percent(0.3, space=" "), percent(0.00001, space=" "), percent(0.9999999, space=" ")
    ('30.0 %', '< 0.1 %', '> 99.9 %')
    """
    if not _is_known(share):
        return UNKNOWN
    smallest = 10.0**-digits
    hundredths, sign = 100 * share, ""
    if 0 < hundredths < smallest / 2:
        hundredths, sign = smallest, "<"
    elif 100 - smallest / 2 < hundredths < 100:
        hundredths, sign = 100 - smallest, ">"
    return _joined(space, sign, figures(hundredths, f".{digits}f"), "%")


def points(share: float) -> str:
    """Write a difference of shares in percentage points.

    Examples
    --------
    >>> points(0.1234), points(-0.05), points(-0.0001), points(None)
    ('+12.3', '−5.0', '0.0', '–')
    """
    if _is_known(share) and abs(share) < 0.0005:
        return figures(0.0, ".1f")
    return figures(100 * share if _is_known(share) else None, "+.1f").replace("-", "−")


def p_value(probability: Number) -> str:
    """Write a p-value.

    Examples
    --------
    >>> p_value(0.0313), p_value(1e-9)
    ('0.0313', '< 0.0001')
    """
    is_small = _is_known(probability) and probability < _SMALLEST
    return f"< {figures(_SMALLEST, '.4f')}" if is_small else figures(probability, ".4f")


def with_error(value: Number, error: Number) -> str:
    r"""Write a share as a percentage with its standard error, if known.

    Examples
    --------
    >>> with_error(0.75, 0.0076).replace("\u202f", " ")
    '75.00 ± 0.76 %'
    """
    text = percent(value, 2)
    if text == UNKNOWN or not _is_known(error):
        return text
    return text.removesuffix("%") + _joined(THIN, "±", percent(error, 2))


def plus_minus(value: Number, error: Number) -> str:
    r"""Write a score as its harness does, with its standard error, if known.

    Examples
    --------
    >>> plus_minus(5.5, 0.25).replace("\u202f", " "), plus_minus(None, 0.25)
    ('5.5000 ± 0.2500', '–')
    """
    text = figures(value, ",.4f")
    if text == UNKNOWN or not _is_known(error):
        return text
    return _joined(THIN, text, "±", figures(error, ",.4f"))


def is_guessing(score: Number, vocabulary: Number) -> bool:
    """Return whether a guess among all tokens at random has no higher perplexity."""
    return _is_known(score) and _is_known(vocabulary) and score >= vocabulary


def perplexity(
    value: Number | tuple[Number, Number], space: str = THIN, digits: int | None = None
) -> str:
    """Write a perplexity with one digit up to 100, and in short from 10,000.

    Parameters
    ----------
    value : float, or (float, int or None)
        With the size of the vocabulary, a perplexity of at least that is written in words: a guess
        among all tokens at random has it.
    space : str
        Space before a prefix.
    digits : int, optional
        Decimal places, for columns of a table.

    Examples
    --------
    >>> perplexity(4.96), perplexity(576.9), perplexity(66_600, ""), perplexity(None)
    ('5.0', '577', '66.6k', '–')
    >>> perplexity((1_024.0, 1_024)), perplexity((1_023.9, 1_024), digits=2)
    ('worse than uniform guessing', '1\u202f023.90')
    """
    number, vocabulary = value if isinstance(value, tuple) else (value, None)
    if is_guessing(number, vocabulary):
        return catalogue()["name.worse_than_uniform_guessing"]
    if digits is not None:
        return figures(number, f",.{digits}f")
    if not _is_known(number) or number >= 10_000:
        return scaled(number, space=space)
    return figures(number, ",.1f" if number < 100 else ",.0f")


def perplexity_gap(difference: float, sign: str = "") -> str:
    """Write a difference of perplexities with two decimals up to 10, one up to 100, else none.

    Examples
    --------
    >>> perplexity_gap(0.494), perplexity_gap(254.6), perplexity_gap(-21.03, sign="+")
    ('0.49', '255', '−21.0')
    """
    size = abs(difference)
    digits = 2 if size < 10 else 1 if size < 100 else 0
    return figures(difference, f"{sign},.{digits}f").replace("-", "−")


def threshold(magnitude: Number) -> str:
    """Write the largest pruned magnitude with the digits that make it a rule.

    No larger magnitude of its type is at most the written number, and it is itself, in comparisons
    of float32 and of float64 alike.

    Examples
    --------
    >>> threshold(0.026242438703775406), threshold(0.5), threshold(0.1196)
    ('0.026242439', '0.5', '0.1196')
    """
    if not _is_known(magnitude):
        return UNKNOWN
    # Nine digits tell all float32 numbers apart.
    for digits in range(3, 10):
        written = float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(magnitude))
        if c_float(written).value == magnitude:
            return figures(written, f".{digits}g")
    return figures(magnitude, "")


def level(share: Number, space: str = THIN) -> str:
    """Write a target sparsity, as in 30 %."""
    return _joined(space, figures(100 * share, "g"), "%") if _is_known(share) else UNKNOWN


def scaled(quantity: Number, unit: str = "", space: str = THIN) -> str:
    """Write a quantity with a decimal prefix (k = 10³, M = 10⁶, …) and three digits.

    Examples
    --------
    >>> scaled(108_160_356, "B", " "), scaled(999, "FLOPs", " "), scaled(1234, space="")
    ('108 MB', '999 FLOPs', '1.23k')
    """
    if not _is_known(quantity):
        return UNKNOWN
    if math.isinf(quantity):
        return "∞" if quantity > 0 else "−∞"
    step = 0
    while abs(quantity) >= 999.5 and step < len(_PREFIXES) - 1:
        quantity, step = quantity / 1000, step + 1
    digits = 0 if step == 0 or abs(quantity) >= 99.95 else 1 if abs(quantity) >= 9.995 else 2
    name = f"{_PREFIXES[step]}{unit}"
    return _joined(space, figures(quantity, f".{digits}f"), name)


def times(ratio: Number, space: str = THIN) -> str:
    """Write a measured ratio, as in 1.33 ×."""
    return _joined(space, figures(ratio, ".2f"), "×") if _is_known(ratio) else UNKNOWN


def multiple(ratio: Number, space: str = THIN) -> str:
    """Write an exact ratio, as in 1.33 ×; digits are added until one other than 1 reads so.

    Examples
    --------
    >>> multiple(1.329, " "), multiple(1, " "), multiple(1.0004, " "), multiple(0.99996, " ")
    ('1.33 ×', '1.00 ×', '1.0004 ×', '0.99996 ×')
    """
    if not _is_known(ratio) or ratio == 1 or not math.isfinite(ratio):
        return times(ratio, space)
    digits = next(digits for digits in range(2, 18) if round(float(ratio), digits) != 1)
    return _joined(space, figures(ratio, f".{digits}f"), "×")


def quantities(values: Sequence[Number], unit: str = "", space: str = THIN) -> list[str]:
    r"""Write quantities that are read together: different ones never read the same.

    Three digits with a decimal prefix, or all digits where these read the same or where only some
    have a unit.

    Examples
    --------
    >>> quantities([3_829_760, 5_000_000], "B", " "), quantities([999, 1000], space=" ")
    (['3.83 MB', '5.00 MB'], ['999', '1\u202f000'])
    >>> quantities([90_870_144, 90_871_296], "B", " ")
    ['90\u202f870\u202f144 B', '90\u202f871\u202f296 B']
    """
    texts = [scaled(value, unit, space) for value in values]
    amounts = [value for value in values if _is_known(value)]
    bare = [not unit and abs(amount) < 999.5 for amount in amounts]
    if len({*texts}) >= len({*values}) and len({*bare}) < 2:
        return texts
    return [_joined(space, count(value), unit) if _is_known(value) else UNKNOWN for value in values]


def unit_once(texts: Sequence[str]) -> list[str]:
    r"""Return quantities without the units that all quantities after them repeat.

    Examples
    --------
    >>> unit_once(["1.84\u202fM", "731\u202fk", "1.37\u202fM"])
    ['1.84\u202fM', '731\u202fk', '1.37\u202fM']
    >>> unit_once(["538\u202fMB", "339\u202fMB", "424\u202fMB"])
    ['538', '339', '424\u202fMB']
    """
    kept, unit = [], ""
    for place, text in enumerate(reversed(texts)):
        number, _, end = text.rpartition(THIN)
        is_unit = bool(number) and not end.isdigit()
        unit = end if is_unit and (place == 0 or end == unit) else ""
        kept.append(number if place and unit else text)
    return kept[::-1]


def duration(seconds: Number, space: str = THIN) -> str:
    """Write a time with three digits.

    Examples
    --------
    >>> duration(0.0000123, " "), duration(0.9996, " ")
    ('12.3 µs', '1.00 s')
    """
    if not _is_known(seconds):
        return UNKNOWN
    # The unit is that of the rounded number: 999.96 ms are written as 1 s.
    rounded = Decimal(f"{float(seconds):.2e}")
    units = ((0, "s"), (3, "ms"), (6, "µs"))
    power, unit = next(each for each in units if each[0] == 6 or rounded.scaleb(each[0]) >= 1)
    digits = max(0, 2 - rounded.adjusted() - power) if rounded else 0
    return _joined(space, figures(float(rounded.scaleb(power)), f".{digits}f"), unit)


def span(low: Number, high: Number) -> str:
    r"""Write a range of times, with the unit once if both have the same.

    Examples
    --------
    >>> span(0.0000121, 0.0000134).replace("\u202f", " ")
    '12.1–13.4 µs'
    """
    if not (_is_known(low) and _is_known(high)):
        return UNKNOWN
    return "–".join(unit_once([duration(low), duration(high)]))


def shape(sizes: Iterable[int]) -> str:
    """Write the shape of a tensor, as in 3072 × 768."""
    return f"{THIN}×{THIN}".join(str(size) for size in sizes)


def read_share(text: str) -> float:
    """Read a share of 1, also as a percentage.

    Raises
    ------
    ValueError
        The text is not a number.

    Examples
    --------
    >>> read_share("0.3"), read_share("33.3 %"), read_share("30%") == 0.3
    (0.3, 0.333, True)
    """
    number = text.strip()
    if not number.endswith("%"):
        return float(number)
    try:
        return float(Decimal(number[:-1].rstrip()).scaleb(-2))
    except ArithmeticError as error:
        raise ValueError(f"{text!r} is not a number") from error


def _joined(space: str, *parts: str) -> str:
    return space.join(part for part in parts if part)
