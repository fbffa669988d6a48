"""Tables as Markdown, for README files, issues and notebooks."""

import re
from collections.abc import Iterable

from sparsity_report.errors import legible
from sparsity_report.report.tables.table_model import Cell, Table, body_lines
from sparsity_report.words.number_format import THIN

# Characters with a meaning in Markdown or in HTML inside it, or by which an address becomes a link.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&@!^]|:(?=//)|(?<=www)\.)")
# Beginnings of lines that Markdown reads as lists, rules or underlines of headings.
_MARKER = re.compile(r"^(\d{1,9}(?=[.)](?:\s|$))|(?=[-+=]))(.)")


def to_markdown(table: Table) -> str:
    r"""Write a table with pipes, as GitHub and Jupyter read them, in which no name is markup.

    Examples
    --------
    >>> from sparsity_report.report.tables.table_model import table_of
    >>> from sparsity_report.study.schema import columns_of
    >>> columns = columns_of("variant sparsity", variant="<b>")
    >>> print(to_markdown(table_of("t", "", columns, [{"variant": "a|b", "sparsity": 0.5}])))
    | \<b\> | Sparsity |
    |:---|---:|
    | a\|b | 50.0 % |
    <BLANKLINE>
    """
    columns = table.columns
    lines = [_line(map(markdown, table.heads))]
    lines += ["|" + "|".join(":---" if c.format.unit is None else "---:" for c in columns) + "|"]
    rest = [""] * (len(columns) - 1)
    lines += body_lines(
        table,
        lambda row: _line(map(_cell, row.cells)),
        lambda title: _line([f"**{markdown(title)}**", *rest]),
    )
    caption = f"{paragraph(table.caption)}\n\n" if table.caption else ""
    return caption + "\n".join(lines) + "\n"


def paragraph(text: str) -> str:
    r"""Write text that begins a line so that none of it is markup.

    Examples
    --------
    >>> print(paragraph("1. item"), paragraph("- item"))
    1\. item \- item
    """
    return _MARKER.sub(r"\1\\\2", markdown(text).strip())


def markdown(text: str) -> str:
    r"""Write text so that none of it is markup.

    Examples
    --------
    >>> print(markdown("*a* <script>"))
    \*a\* \<script\>
    """
    return SPECIAL.sub(r"\\\1", re.sub(r"\s+", " ", legible(text).replace(THIN, " ")))


def _cell(cell: Cell) -> str:
    return markdown(cell.text_with_note)


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
