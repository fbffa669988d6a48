"""Text, numbers, names and tables as LaTeX, in which no value is read as a command."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from sparsity_report.errors import printable, spelled
from sparsity_report.report.tables.table_model import (
    FOLD,
    Cell,
    Row,
    Table,
    body_lines,
    head_lines,
)
from sparsity_report.study.figures import StudyFigures
from sparsity_report.untrusted.display_text import breakable
from sparsity_report.words.display_names import group_name
from sparsity_report.words.number_format import THIN, UNKNOWN
from sparsity_report.words.value_formats import Format

_UNKNOWN = "\\textendash{}"
# Letters from which texts of a column break, and the setting of such columns.
_LONG, _WORDS = 40, ">{\\raggedright\\arraybackslash}p{9cm}"
# Numbers that siunitx aligns.
_PLAIN = re.compile(r"([<>+-]?)(\d+)\.?(\d*)")
# BibTeX counts escaped braces, too, so that braces have names.
ESCAPED = {
    "\\": "\\textbackslash{}", "{": "\\textbraceleft{}", "}": "\\textbraceright{}", "$": "\\$",
    "&": "\\&", "#": "\\#", "%": "\\%", "_": "\\_", "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}",
    "\"": "\\textquotedbl{}", "`": "\\textasciigrave{}", "\u00a0": "~", "\u202f": "\\,",
    "\u200b": "\\allowbreak{}", "≤": "$\\le$", "−": "$-$", "–": "\\textendash{}",
    "…": "\\textellipsis{}", "‘": "\\textquoteleft{}", "’": "\\textquoteright{}",
    "“": "\\textquotedblleft{}", "”": "\\textquotedblright{}", "ρ": "$\\rho$", "→": "$\\to$",
    "÷": "\\textdiv{}", "×": "\\texttimes{}", "·": "\\textperiodcentered{}", "±": "$\\pm$",
    "²": "\\texttwosuperior{}", "³": "\\textthreesuperior{}",
}  # fmt: skip
# Characters that LaTeX has: ASCII and the accented letters of Europe.
HELD = re.compile("(?![\u00adĦħĸĿŀŉŦŧſ])[ -~\u00a1-\u017f]")
_ONES = (
    "Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven",
    "Twelve", "Thirteen", "Fourteen", "Fifteen", "Sixteen", "Seventeen", "Eighteen", "Nineteen",
)  # fmt: skip
_TENS = ("Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety")


class Tex(str):
    """Text that is LaTeX already."""

    __slots__ = ()


def tex(value: Any, longest: int = 80) -> Tex:
    r"""Write a value as LaTeX text: specials escaped, what pdflatex lacks spelled out.

    Words longer than `longest` end in "…"; long ones may break.

    Examples
    --------
    >>> print(tex("50 % of \\input{x}_1 🦙"))
    50~\% of \textbackslash{}input\textbraceleft{}x\textbraceright{}\_1 \textbackslash{}U0001f999
    """
    if isinstance(value, Tex):
        return value
    text = re.sub(r"\S+", lambda word: printable(word[0], longest), str(value))
    text = "".join(c if c in ESCAPED or HELD.match(c) else spelled(c) for c in text)
    text = "".join(ESCAPED.get(c, c) for c in breakable(text))
    # Ligatures would join pairs of these to one sign.
    text = re.sub(r"([-,'!?])(?=[-,'`])", r"\1{}", text)
    # At the start of a row these would be arguments of the line end before it.
    text = re.sub(r"^(?=\s*[\[*])", "{}", text)
    return Tex(re.sub(r"(\d) (?=\\%)", r"\1~", text))


def command_names(wanted: Iterable[str], longest: int | None = 40) -> list[str]:
    r"""Return names of LaTeX commands: letters only, all different, numbers in words.

    Each is made of the first `longest` characters.

    Examples
    --------
    >>> command_names(["Masked30", "masked 30", "2:4", "opt-125m", "é", "🦙"])
    ['MaskedThirty', 'MaskedThirtyB', 'TwoFour', 'OptOneTwoFiveM', 'E', 'X']
    """
    names: list[str] = []
    for name in wanted:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()[:longest]
        words = re.findall(r"[A-Za-z]+|\d+", plain)
        base = "".join(_in_words(word) for word in words) or "X"
        command, number = base, 1
        while command in names:
            number += 1
            command = base + (chr(64 + number) if number <= 26 else _in_words(str(number)))
        names.append(command)
    return names


def group_commands(groups: Iterable[str | None]) -> dict[str | None, str]:
    """Return a part of a command per group."""
    listed = list(groups)
    names = command_names(group_name(group) if group else "All" for group in listed)
    return dict(zip(listed, names, strict=True))


def variant_commands(study: StudyFigures) -> dict[str, str]:
    """Return the start of the names of LaTeX commands of each variant."""
    variants = list(study.variants["variant"])
    return dict(zip(variants, command_names(variants), strict=True))


def quantity(value: Any, form: Format) -> Tex:
    r"""Write a number for siunitx, with the digits of every other renderer.

    Examples
    --------
    >>> from sparsity_report.words.value_formats import SHARE, scaled
    >>> print(quantity(0.3, SHARE), quantity(5_106_576, scaled("B")))
    \qty{30.0}{\percent} \num{5.11}\,MB
    """
    text = form.write(value)
    if text == UNKNOWN:
        return Tex(_UNKNOWN)
    if not any(map(str.isdigit, text)):
        return tex(text)
    if form.unit == "%":
        return Tex(f"\\qty{{{siunitx(text)}}}{{\\percent}}")
    number, _, prefixed = text.rpartition(THIN) if text[-1:].isalpha() else (text, "", "")
    plain = f"\\num{{{siunitx(number)}}}"
    return Tex(f"{plain}\\,{prefixed}" if prefixed else plain)


def siunitx(text: str) -> str:
    """Return a written number as input of siunitx, which sets the marks of the document.

    Examples
    --------
    >>> siunitx("< 0.1 %"), siunitx("1 234.50"), siunitx("1.33 ×")
    ('<0.1', '1234.50', '1.33')
    """
    return re.sub(r"[\s%×]", "", text).replace("−", "-")


def to_latex(table: Table, label: str) -> str:
    r"""Write a table for booktabs, siunitx and graphicx, smaller where it is wider than the text.

    Parameters
    ----------
    table : Table
        Its first column is text.
    label : str
        Label of the table: ``\ref{tab:label}``.
    """
    settings = " ".join(_setting(table, place) for place in range(len(table.columns)))
    are_words = [not place or c.format.unit is None for place, c in enumerate(table.columns)]

    note = tex(table.note)

    def row(row: Row) -> str:
        cells = zip(row.cells, are_words, strict=True)
        return " & ".join(tex(c.text) if words else _cell(c) for c, words in cells) + " \\\\"

    def title(text: str) -> str:
        setting = _WORDS if len(text) > 2 * _LONG else "l"
        title = f"\\emph{{{tex(text)}}}"
        return f"\\multicolumn{{{len(table.columns)}}}{{{setting}}}{{{title}}} \\\\"

    return "\n".join(
        [
            "\\begin{table}[!htbp]",
            "\\centering\\small",
            f"\\caption{{{tex(table.caption)}}}",
            f"\\label{{tab:{label}}}",
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{{settings}}}",
            "\\toprule",
            *(f"{line} \\\\" for line in _heads(table)),
            *body_lines(table, row, title, "\\midrule"),
            "\\bottomrule",
            "\\end{tabular}%",
            "}",
            *([f"\\par\\medskip\n{{\\footnotesize\\raggedright {note}\\par}}"] if note else []),
            "\\end{table}",
            "",
        ]
    )


def _setting(table: Table, place: int) -> str:
    """Return the LaTeX setting of a column: numbers aligned, long texts broken."""
    cells = [row.cells[place] for row in table.rows]
    if not place or table.columns[place].format.unit is None:
        longest = max((len(cell.text) for cell in cells), default=0)
        return _WORDS if longest > _LONG else "l"
    return f"S[table-format={_number_format(map(_cell, cells))}]"


def _cell(cell: Cell) -> str:
    """Write a cell of a column of numbers; siunitx does not read what is in braces."""
    plain = siunitx(cell.text)
    if _PLAIN.fullmatch(plain) and not cell.note:
        return plain
    if "±" in cell.text and not cell.note:
        value, error = plain.split("±")
        return f"{{\\num{{{value}}}{{\\scriptsize\\,$\\pm$\\,\\num{{{error}}}}}}}"
    return f"{{{tex(cell.text_with_note if cell.note else cell.text.rstrip('%×').rstrip())}}}"


def _heads(table: Table) -> list[str]:
    """Return the lines of the head, with the words of each column wrapped."""
    heads = [f"{c.label} /\u00a0%" if c.format.unit == "%" else c.label for c in table.columns]
    words: dict[str, bool] = {"break_long_words": False, "break_on_hyphens": False}
    wrapped = head_lines(heads, [FOLD] * len(heads), **words)
    return [" & ".join(f"{{{tex(words)}}}" for words in line) for line in wrapped]


def _number_format(cells: Iterable[str]) -> str:
    """Return the width of a column for siunitx: ``<2.1`` leaves room for <10.0."""
    parts = map(_PLAIN.fullmatch, cells)
    known = [part.groups() for part in parts if part]
    sign = max((sign for sign, _, _ in known), default="")
    before, after = (max((len(part[k]) for part in known), default=1) for k in (1, 2))
    return f"{sign}{before}.{after}"


def _in_words(word: str) -> str:
    if not word.isdigit():
        return word[0].upper() + word[1:]
    number = int(word)
    if len(word) > 2 or word != str(number):
        return "".join(_ONES[int(digit)] for digit in word)
    if number < len(_ONES):
        return _ONES[number]
    return _TENS[number // 10 - 2] + (_ONES[number % 10] if number % 10 else "")
