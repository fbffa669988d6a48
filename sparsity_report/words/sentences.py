"""How numbers and sentences are written, in the language that is spoken."""

import re
import string
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from sparsity_report.errors import SparsityReportError
from sparsity_report.words.language import spoken


def say(template: str, /, **values: Any) -> str:
    """Say a sentence in the language that is spoken, with its values put in.

    Parameters
    ----------
    template : str
        In English, the key of its translations, with placeholders such as ``{name}``. What
        follows a colon says how a value is written: ``percent`` (``percent0``, ``percent2``:
        digits), ``level``, ``names``, ``some``, ``scaled UNIT``, or a Python format such as
        ``,`` or ``.2f``.
    **values
        Numbers, text, or lists of text.

    Examples
    --------
    >>> say("{names:names} hold {n:,} zeros, {share:percent}", names=["A", "B"], n=1000, share=0.5)
    'A and B hold 1,000 zeros, 50.0 %'
    """
    known = spoken()
    try:
        return _SENTENCE.vformat(known.sentences.get(template, template), (), values)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise SparsityReportError(
            f"languages/{known.code}.json: the translation of {template!r} does not fit: {error!r}"
        ) from error


def message(template: str) -> str:
    """Mark a sentence that is said elsewhere, so that it is known to need a translation."""
    return template


def say_note(text: str) -> str:
    """Say a note, which comes from a study as English text, in the language that is spoken."""
    for english, other in spoken().notes.items():
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.*)", re.escape(english))
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return _SENTENCE.vformat(other, (), found.groupdict())
    return text


def number(value: Any, spec: str) -> str:
    """Write a number by a Python format, with the signs of the language that is spoken.

    Examples
    --------
    >>> number(1234.5, ",.1f")
    '1,234.5'
    """
    known = spoken()
    signs = str.maketrans({",": known.thousands, ".": known.decimal})
    return format(value, spec).translate(signs)


def percent(share: float, digits: int = 1) -> str:
    """Write a share as a percentage.

    Examples
    --------
    >>> percent(0.3), percent(0.00001), percent(0.9999999)
    ('30.0 %', '< 0.1 %', '> 99.9 %')
    """
    smallest = 10.0**-digits
    shown, sign = 100 * share, ""
    if 0 < shown < smallest / 2:
        shown, sign = smallest, "< "
    elif 100 - smallest / 2 < shown < 100:
        shown, sign = 100 - smallest, "> "
    return f"{sign}{number(shown, f'.{digits}f')}{spoken().space}%"


def level(share: float) -> str:
    """Write a level of sparsity that was asked for, as in 30 %."""
    return f"{number(100 * share, 'g')}{spoken().space}%"


def scaled(quantity: float, unit: str) -> str:
    """Write a quantity with a decimal prefix (k = 10³, M = 10⁶, …) and three digits.

    Examples
    --------
    >>> scaled(108_160_356, "B"), scaled(999, "FLOPs")
    ('108 MB', '999 FLOPs')
    """
    prefixes = ("", "k", "M", "G", "T", "P")
    step = 0
    while abs(quantity) >= 999.5 and step < len(prefixes) - 1:
        quantity, step = quantity / 1000, step + 1
    digits = 0 if step == 0 or abs(quantity) >= 99.95 else 1 if abs(quantity) >= 9.995 else 2
    known = spoken()
    name = f"{prefixes[step]}{known.units.get(unit, unit)}"
    return number(quantity, f".{digits}f") + (f"{known.space}{name}" if name else "")


def join(words: Sequence[str]) -> str:
    """Write an enumeration.

    Examples
    --------
    >>> join(["a"]), join(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} {spoken().conjunction} {words[-1]}"


def some(names: Sequence[str], limit: int = 3) -> str:
    """Write the first few of many names.

    Examples
    --------
    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = list(names[:limit])
    left = len(names) - limit
    return join([*shown, say("{count:,} more", count=left)] if left > 0 else shown)


class _Sentence(string.Formatter):
    """Values written by kind, so that a translation need not know how."""

    def format_field(self, value: Any, spec: str) -> str:
        kind, _, unit = spec.partition(" ")
        if kind.startswith("percent"):
            return percent(value, int(kind[7:] or 1))
        if kind == "scaled":
            return scaled(value, unit)
        if kind in _KINDS:
            return _KINDS[kind](value)
        return number(value, spec) if isinstance(value, Real) else str(value)


_KINDS: dict[str, Callable[[Any], str]] = {"level": level, "names": join, "some": some}
_SENTENCE = _Sentence()
