"""Sentences: texts of the catalogue with their values put in."""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, TypeVar

from sparsity_report.errors import printable
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words import display_names, number_format
from sparsity_report.words.catalogue import catalogue
from sparsity_report.words.number_format import UNKNOWN, figures, known

_Name = TypeVar("_Name")
# Placeholders of names that a user gave.
_NAMES = ("variant", "model")
# A word too long to be read to its end.
_LONG_WORD = re.compile(r"(\S{200})\S+")


def say(key: str, /, **values: object) -> str:
    r"""Return the text of a key of the catalogue with values put in.

    Parameters
    ----------
    key : str
        Key of ``sentences.json``. Its text has placeholders such as
        ``{name}`` or ``{name:format}``. The formats are:

        - numbers: ``percent`` (one digit; ``percent0``), ``level``, ``times``,
          ``multiple``, ``perplexity`` (alone, or with the size of the vocabulary),
          ``perplexity_gap`` (``perplexity_change`` with its sign), ``threshold``, ``duration``,
          ``points``, ``scaled UNIT``, or a Python format such as ``,`` or ``.2f``;
        - names of raw values: ``variant`` (shortened), ``group``, ``layout``, ``method``, ``part``,
          and ``text``, a text and its fingerprint;
        - ``plural ONE|MANY``: a number or several, and the noun;
        - ``choose ONE|MANY``: a word for one, or for several, by a number or the length of a list;
        - ``names FORMAT`` and ``some FORMAT``: all or the first names of a list;
        - ``span FORMAT``: the lowest and the highest number of a list;
        - ``sentences``: texts joined by full stops; ``paragraph``: sentences with capitals;
        - ``sentence``: the first letter as a capital.

        A format may be a value itself: ``{share:{format}}``.

        An unknown value becomes a dash.
    **values
        Numbers, texts, or lists of these. Invisible characters of text are spelled out.

    Examples
    --------
    >>> say("audit.excluded_share", reason="norms", count=5)
    '5 in norms'
    >>> [say("format.token_count", tokens=n) for n in (1, 2, [1], [1, 16])]
    ['1 token', '2 tokens', '1 token', '1 and 16 tokens']
    """
    return _TEMPLATES.vformat(catalogue()[key], (), values)


def says(text: str, key: str) -> bool:
    """Return True if a text is that of a key, with any values put in.

    Examples
    --------
    >>> says("5 in norms", "audit.excluded_share"), says("5 norms", "audit.excluded_share")
    (True, False)
    """
    parts = _TEMPLATES.parse(catalogue()[key])
    patterns = (re.escape(fixed) + ".*" * (name is not None) for fixed, name, *_ in parts)
    return re.fullmatch("".join(patterns), text, re.DOTALL) is not None


def join(words: Sequence[object]) -> str:
    """Return an enumeration of words.

    Examples
    --------
    >>> join(["a"]), join(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *others, last = map(_text, words)
    return f"{', '.join(others)} and {last}" if others else last


def some(names: Sequence[object], limit: int = 3) -> str:
    """Return an enumeration of the first names and the number of the others.

    Examples
    --------
    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return join(first(names, limit))


def first(names: Sequence[_Name], limit: int) -> list[_Name | str]:
    """Return the first names, and last the number of the others if there are any."""
    others = len(names) - limit
    more = [say("format.count_more", count=others)] if others > 0 else []
    return [*names[:limit], *more]


class _Said(str):
    """Text from the catalogue."""

    __slots__ = ()


class _NameFirst(_Said):
    """Text that begins with the name of a variant or a model, whose case is its own."""

    __slots__ = ()


class _Templates(string.Formatter):
    """Formatter that writes each value by the format its placeholder names."""

    def vformat(self, template: str, args: Any, values: Any) -> str:
        text = super().vformat(template, args, values)
        fixed, name, *_ = next(iter(self.parse(template)))
        value = values.get(name)
        is_given = name in _NAMES and not isinstance(value, _Said)
        is_name = not fixed and (is_given or isinstance(value, _NameFirst))
        return _NameFirst(text) if is_name else _Said(text)

    def format_field(self, value: Any, spec: str) -> str:
        kind, _, rest = spec.partition(" ")
        if kind in _LIST_FORMATS:
            return _LIST_FORMATS[kind](value, rest)
        if not known(value):
            return UNKNOWN
        if kind in _FORMATS:
            return _text(_FORMATS[kind](value))
        if kind in _NUMBERS:
            return _NUMBERS[kind](value, space=" ")
        if kind == "scaled":
            return number_format.scaled(value, rest, " ")
        return figures(value, spec) if isinstance(value, Real) else _text(value)


def _text(value: Any) -> str:
    """Return a name or sentence on one line; invisible characters are spelled out."""
    return printable(_LONG_WORD.sub(r"\1…", str(value)))


def _each(value: Sequence[Any], spec: str) -> list[Any]:
    return [_TEMPLATES.format_field(each, spec) for each in value] if spec else list(value)


def _plural(value: Any, nouns: str) -> str:
    counts = value if isinstance(value, list | tuple) else [value]
    number = counts[0] if len(counts) == 1 else len(counts)
    return f"{join([figures(count, ',') for count in counts])} {_choose(number, nouns)}"


def _choose(value: Any, words: str) -> str:
    one, many = words.split("|")
    number = len(value) if isinstance(value, list | tuple) else value
    return one if number == 1 else many


def _span(values: Sequence[Any], spec: str) -> str:
    if not values:
        return ""
    low, high = (_TEMPLATES.format_field(end(values), spec) for end in (min, max))
    return low if low == high else say("format.range", low=low, high=high)


def _sentence(value: Any) -> str:
    text = _text(value)
    return text if isinstance(value, _NameFirst) else text[:1].upper() + text[1:]


_LIST_FORMATS: Mapping[str, Callable[[Any, str], str]] = {
    "names": lambda value, spec: join(_each(value, spec)),
    "some": lambda value, spec: some(_each(value, spec)),
    "plural": _plural,
    "choose": _choose,
    "span": _span,
    "sentences": lambda value, _: " ".join(f"{_text(each)}." for each in value),
    "paragraph": lambda value, _: " ".join(f"{_sentence(each)}." for each in value),
}
_FORMATS: Mapping[str, Callable[[Any], str]] = {
    "points": number_format.points,
    "perplexity_gap": number_format.perplexity_gap,
    "perplexity_change": partial(number_format.perplexity_gap, sign="+"),
    "threshold": number_format.threshold,
    "variant": short_name,
    "layout": display_names.layout_name,
    "method": display_names.method_name,
    "part": lambda value: display_names.part_name(*value),
    "text": lambda value: display_names.text_name(*value),
    "sentence": _sentence,
    "group": display_names.group_name,
}
_NUMBERS: Mapping[str, Callable[..., str]] = {
    "percent": number_format.percent,
    "percent0": partial(number_format.percent, digits=0),
    "level": number_format.level,
    "perplexity": number_format.perplexity,
    "times": number_format.times,
    "multiple": number_format.multiple,
    "duration": number_format.duration,
}
_TEMPLATES = _Templates()
