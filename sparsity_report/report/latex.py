"""Text, numbers and names for LaTeX: a value is never read as a command."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import pandas as pd

from sparsity_report.errors import printable
from sparsity_report.words.language import spoken
from sparsity_report.words.numbers import breakable, spelled
from sparsity_report.words.sentences import percent, scaled

UNKNOWN = "\\textendash{}"
_ESCAPED = {
    "\\": "\\textbackslash{}",
    "{": "\\{",
    "}": "\\}",
    "$": "\\$",
    "&": "\\&",
    "#": "\\#",
    "%": "\\%",
    "_": "\\_",
    "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "\\textquotedbl{}",
    "`": "\\textasciigrave{}",
    "\u00a0": "~",
    "\u202f": "\\,",
    "\u200b": "\\allowbreak{}",
    "≤": "$\\le$",
    "−": "$-$",
    "–": "\\textendash{}",
    "…": "\\textellipsis{}",
    "‘": "\\textquoteleft{}",
    "’": "\\textquoteright{}",
    "“": "\\textquotedblleft{}",
    "”": "\\textquotedblright{}",
    "ρ": "$\\rho$",
    "→": "$\\to$",
    "÷": "\\textdiv{}",
    "×": "\\texttimes{}",
    "·": "\\textperiodcentered{}",
    "²": "\\texttwosuperior{}",
    "³": "\\textthreesuperior{}",
}
# fmt: off
_ONES = (
    "Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven",
    "Twelve", "Thirteen", "Fourteen", "Fifteen", "Sixteen", "Seventeen", "Eighteen", "Nineteen",
)
_TENS = (
    "Zero", "Ten", "Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety",
)
# fmt: on


class Tex(str):
    """Text that is LaTeX already."""

    __slots__ = ()


def tex(value: Any, longest: int = 80) -> Tex:
    r"""Write a value as LaTeX text: specials escaped, what pdflatex lacks spelled out.

    Words longer than `longest` end in "…"; long ones may break.

    Examples
    --------
    >>> print(tex("50 % of \\input{x}_1 🦙"))
    50~\% of \textbackslash{}input\{x\}\_1 \textbackslash{}U0001f999
    """
    if isinstance(value, Tex):
        return value
    text = re.sub(r"\S+", lambda word: printable(word[0], longest), str(value))
    text = "".join(c if _held(c) else spelled(c) for c in " ".join(text.split(" ")))
    # Pairs of these would be joined to one sign.
    text = re.sub(r"([-,'!?])(?=[-,'`])", r"\1{}", _escaped(breakable(text)))
    return Tex(re.sub(r"(\d) (?=\\%)", r"\1~", text))


def clipped(value: Any, limit: int) -> Tex:
    """Write a name of any length; a longer one ends in "…"."""
    return tex(printable(str(value), limit))


def command_names(wanted: Iterable[str]) -> list[str]:
    r"""Make names of LaTeX commands, letters only and all different, numbers in words.

    Examples
    --------
    >>> command_names(["Masked30", "masked 30", "2:4", "opt-125m", "é", "🦙"])
    ['MaskedThirty', 'MaskedThirtyB', 'TwoFour', 'OptOneTwoFiveM', 'E', 'X']
    """
    made: list[str] = []
    for name in wanted:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()[:40]
        words = re.findall(r"[A-Za-z]+|\d+", plain)
        base = "".join(_in_words(word) for word in words) or "X"
        found, number = base, 1
        while found in made:
            number += 1
            found = base + (chr(64 + number) if number <= 26 else _in_words(str(number)))
        made.append(found)
    return made


def whole(number: Any) -> Tex:
    """Write an integer for siunitx, which sets the thousands apart."""
    return Tex(UNKNOWN if pd.isna(number) else f"\\num{{{int(number)}}}")


def decimal(number: Any, digits: str = ".2f") -> Tex:
    """Write a number for siunitx."""
    return Tex(UNKNOWN if pd.isna(number) else f"\\num{{{number:{digits}}}}")


def share(value: Any) -> Tex:
    """Write a share of 1 as a percentage, with the digits it has in sentences."""
    return Tex(UNKNOWN if pd.isna(value) else f"\\qty{{{bare_percent(value)}}}{{\\percent}}")


def bare_percent(value: float) -> str:
    """Write a share of 1 as the number of percent that siunitx reads, such as 30.0 or <0.1."""
    return _for_siunitx(re.sub(r"[\s%]", "", percent(value)))


def prefixed(number: Any, unit: str) -> Tex:
    """Write a quantity with three digits and a decimal prefix."""
    if pd.isna(number):
        return Tex(UNKNOWN)
    digits, _, with_prefix = scaled(number, unit).partition(spoken().space)
    plain = f"\\num{{{_for_siunitx(digits)}}}"
    return Tex(f"{plain}\\,{with_prefix}" if with_prefix else plain)


def _for_siunitx(written: str) -> str:
    """Write a number as siunitx reads it; it sets the decimal marker of the document."""
    return written.replace(spoken().decimal, ".")


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(c, c) for c in text)


def _held(character: str) -> bool:
    """Whether LaTeX has a character as it comes: ASCII and the accented letters of Europe."""
    if character in _ESCAPED or " " <= character <= "~":
        return True
    return "\u00a1" <= character <= "\u017f" and character not in "\u00adĦħĸĿŀŉŦŧſ"


def _in_words(word: str) -> str:
    if not word.isdigit():
        return word[0].upper() + word[1:]
    number = int(word)
    if len(word) > 2 or word != str(number):
        return "".join(_ONES[int(digit)] for digit in word)
    if number < len(_ONES):
        return _ONES[number]
    return _TENS[number // 10] + (_ONES[number % 10] if number % 10 else "")
