"""Numbers and names as text for readers: thin spaces, units, a dash for what is unknown."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from sparsity_report.words.sentences import number, percent, scaled

_MISSING = "–"
_THIN_SPACE = "\u202f"
_LONG_WORD = re.compile(r"\S{24,}")
_PART = re.compile(r"[^._/]{0,23}[._/]|.{24}")
_DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def count(whole: Any) -> str:
    """Write an integer with thin spaces between thousands."""
    return _MISSING if pd.isna(whole) else f"{int(whole):,}".replace(",", _THIN_SPACE)


def percent_text(share: Any, digits: int = 1) -> str:
    """Write a share of 1 as a percentage."""
    return _MISSING if pd.isna(share) else percent(share, digits).replace(" ", _THIN_SPACE)


def scaled_text(quantity: Any, unit: str) -> str:
    """Write a number with a decimal prefix, as in 1.2 MB."""
    return _MISSING if pd.isna(quantity) else scaled(quantity, unit).replace(" ", _THIN_SPACE)


def figures(value: Any, spec: str) -> str:
    """Write a number by a Python format, such as ``.3g``."""
    return _MISSING if pd.isna(value) else number(value, spec)


def duration(seconds: Any) -> str:
    """Write a time, as in 12.3 ms.

    Examples
    --------
    >>> duration(0.0000123).replace("\u202f", " ")
    '12.3 µs'
    """
    if pd.isna(seconds):
        return _MISSING
    scale, unit = next(((s, u) for s, u in ((1, "s"), (1e-3, "ms")) if seconds >= s), (1e-6, "µs"))
    shown = seconds / scale
    digits = max(0, 2 - math.floor(math.log10(shown))) if shown else 0
    return f"{number(shown, f'.{digits}f')}{_THIN_SPACE}{unit}"


def span(low: Any, high: Any) -> str:
    """Write a range of times, its unit once where both have the same.

    Examples
    --------
    >>> span(0.0000121, 0.0000134).replace("\u202f", " ")
    '12.1–13.4 µs'
    """
    first, unit = duration(low).rsplit(_THIN_SPACE, 1)
    last = duration(high)
    return f"{first}–{last}" if last.endswith(f"{_THIN_SPACE}{unit}") else f"{duration(low)}–{last}"


def times(ratio: Any) -> str:
    """Write a ratio."""
    return _MISSING if pd.isna(ratio) else f"{number(ratio, '.2f')}{_THIN_SPACE}×"


def shape(sizes: Any) -> str:
    """Write the shape of a tensor."""
    return " × ".join(str(n) for n in sizes).replace(" ", _THIN_SPACE)


def unbroken(sentence: str) -> Markup:
    """Keep numbers with their percent signs, and names from turning the text around them."""
    steady = _DIRECTIONS.sub(lambda mark: f"\\u{ord(mark[0]):04x}", sentence)
    text = re.sub(r"([\d.,]+\s%)", r'<span class="unbroken">\1</span>', str(escape(steady)))
    return Markup(text)


def breakable(text: str) -> str:
    r"""Mark with zero-width spaces where a long word, such as a module's name, may break.

    Examples
    --------
    >>> breakable("of model.layers.0.self_attn.q_proj").split("\u200b")
    ['of model.', 'layers.', '0.', 'self_', 'attn.', 'q_', 'proj']
    """
    mark = "\u200b"
    return _LONG_WORD.sub(lambda word: _PART.sub(rf"\g<0>{mark}", word[0]).rstrip(mark), text)


def spelled(character: str) -> str:
    r"""Write a character that a font lacks so that it can be read.

    Examples
    --------
    >>> print(spelled("🦙"))
    \U0001f999
    """
    return character.encode("unicode_escape").decode()
