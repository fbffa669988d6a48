"""Text of phrases: catalogue templates with their values put in, in the language in use."""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.phrases import Phrase
from sparsity_report.words import number_format
from sparsity_report.words.languages import spoken
from sparsity_report.words.number_format import figures


def say(key: str, /, **values: Any) -> str:
    r"""Return the text of a key of the catalogue with values put in, in the language in use.

    Parameters
    ----------
    key : str
        Key of ``templates/languages/<code>.json``. Its template has placeholders such as
        ``{name}``. A format after a colon says how the value is written: ``percent`` (``percent0``,
        ``percent2``: digits), ``level``, ``times``, ``duration``, ``scaled UNIT``, ``plural
        ONE|MANY`` (a number, or several, and the noun), ``names``, ``some``, or a Python format
        such as ``,`` or ``.2f``. An unknown number becomes a dash.
    **values
        Numbers, text, phrases, or lists of these. Invisible characters of text are spelled out.

    Examples
    --------
    >>> say("format.name_percent_share", name="MLP", share=0.5)
    'MLP: 50.0 %'
    >>> [say("format.token_count", tokens=n) for n in (1, 2, [1], [1, 16])]
    ['1 token', '2 tokens', '1 token', '1 and 16 tokens']
    """
    return _filled(key, values)


def render(phrase: Phrase) -> str:
    """Return the text of a phrase in the language in use."""
    return _filled(phrase.key, phrase.values)


def say_note(text: str) -> str:
    """Say a note, which comes from a study as English text, in the language that is spoken."""
    for english, other in spoken().notes.items():
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.*)", re.escape(english))
        if match := re.fullmatch(pattern, text, re.DOTALL):
            return _put_in(english, other, match.groupdict())
    return text


def say_noted(text: str) -> str:
    """Say a note as a sentence: notes begin small and end without a stop."""
    note = say_note(text)
    return say("format.note_sentence", note=note[:1].upper() + note[1:])


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
    return join([*shown, say("format.count_more", count=left)] if left > 0 else shown)


def _filled(key: str, values: Mapping[str, Any]) -> str:
    return _put_in(key, spoken().template(key), values)


def _put_in(key: str, template: str, values: Mapping[str, Any]) -> str:
    """Return a template with its values put in."""
    try:
        return _SENTENCE.vformat(template, (), values)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise SparsityReportError(
            f"languages/{spoken().code}.json: the text of {key!r} does not fit its values: "
            f"{error!r}; compare its placeholders with languages/en.json"
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
