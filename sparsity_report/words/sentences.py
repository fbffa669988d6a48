"""Sentences, their values put in, in the language that is spoken."""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.words import number_format
from sparsity_report.words.languages import spoken
from sparsity_report.words.number_format import figures


def say(template: str, /, **values: Any) -> str:
    r"""Say a sentence in the language that is spoken, with its values put in.

    Parameters
    ----------
    template : str
        In English, the key of its translations, with placeholders such as ``{name}``. What
        follows a colon says how a value is written: ``percent`` (``percent0``, ``percent2``:
        digits), ``level``, ``times``, ``duration``, ``scaled UNIT``, ``plural ONE|MANY`` (a number,
        or several, and what they are of), ``names``, ``some``, or a Python format such as ``,`` or
        ``.2f``. An unknown number is a dash.
    **values
        Numbers, text, or lists of text; of texts, what would not be seen is spelled out.

    Examples
    --------
    >>> said = say("{names:names} hold {n:,} zeros", names=["A", "B"], n=1000)
    >>> said.replace("\u202f", " ")
    'A and B hold 1 000 zeros'
    >>> say("{share:percent}", share=0.5)
    '50.0 %'
    >>> [say("{n:plural thread|threads}", n=n) for n in (1, 2, [1], [1, 16])]
    ['1 thread', '2 threads', '1 thread', '1 and 16 threads']
    """
    return _filled(template, spoken().sentences.get(template, template), values)


def message(template: str) -> str:
    """Mark a sentence that is said elsewhere, so that it is known to need a translation."""
    return template


def say_note(text: str) -> str:
    """Say a note, which comes from a study as English text, in the language that is spoken."""
    for english, other in spoken().notes.items():
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.*)", re.escape(english))
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return _filled(english, other, found.groupdict())
    return text


def say_noted(text: str) -> str:
    """Say a note as a sentence: notes begin small and end without a stop."""
    note = say_note(text)
    return say("{note}.", note=note[:1].upper() + note[1:])


def join(words: Sequence[str]) -> str:
    """Write an enumeration.

    Examples
    --------
    >>> join(["a"]), join(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    words = [_text(word) for word in words]
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


def _filled(english: str, template: str, values: Mapping[str, Any]) -> str:
    """Put values into what stands for an English sentence."""
    try:
        return _SENTENCE.vformat(template, (), values)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise SparsityReportError(
            f"languages/{spoken().code}.json: the translation of {english!r} does not fit: "
            f"{error!r}"
        ) from error


class _Sentence(string.Formatter):
    """Values written by kind, so that a translation need not know how."""

    def format_field(self, value: Any, spec: str) -> str:
        kind, _, unit = spec.partition(" ")
        space = spoken().space
        if digits := re.fullmatch(r"percent(\d?)", kind):
            return number_format.percent(value, int(digits[1] or 1), space)
        if kind == "scaled":
            return number_format.scaled(value, unit, space)
        if kind == "plural":
            return _counted(value if isinstance(value, list) else [value], *unit.split("|"))
        if kind in _KINDS:
            return _KINDS[kind](value, space)
        if kind in _LISTS:
            return _LISTS[kind](value)
        if value is None or isinstance(value, Real):
            return figures(value, spec)
        return _text(value)


def _counted(counts: list[Any], one: str, many: str) -> str:
    """Write numbers, and what they are of as the language does for so many."""
    (last,) = counts[-1:]
    below_two = spoken().singular_below_two and number_format.known(last) and abs(last) < 2
    single = len(counts) == 1 and (last == 1 or below_two)
    return f"{join([figures(count, ',') for count in counts])} {one if single else many}"


def _text(value: Any) -> str:
    """Write what may be a name, or a sentence already, so that it does not fill the page."""
    return printable(_ENDLESS.sub(r"\1…", str(value)))


# A word that nobody reads to its end.
_ENDLESS = re.compile(r"(\S{200})\S+")
_KINDS = {
    "level": number_format.level,
    "times": number_format.times,
    "duration": number_format.duration,
}
_LISTS: dict[str, Callable[[Any], str]] = {"names": join, "some": some}
_SENTENCE = _Sentence()
