"""Tables as Markdown, for README files, issues and notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sparsity_report.errors import legible
from sparsity_report.report.tables.table_model import Cell, Row, Table
from sparsity_report.words.number_format import THIN

# What Markdown, or HTML inside it, would take for its own.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&@!])")


def to_markdown(table: Table) -> str:
    r"""Write a table as pipes, as GitHub and Jupyter read them; a name is never markup.

    Examples
    --------
    >>> from sparsity_report.report import cells
    >>> columns = [cells.Column("n", "<b>", cells.NAME), cells.Column("s", "Zeros", cells.SHARE)]
    >>> print(to_markdown(cells.table_of("t", "", columns, [{"n": "a|b", "s": 0.5}])))
    | \<b\> | Zeros |
    |:---|---:|
    | a\|b | 50.0 % |
    <BLANKLINE>
    """
    columns = table.columns
    heads = [f"{c.over}, {c.head}" if c.over else c.head for c in columns]
    lines = [_line(map(markdown, heads))]
    lines += ["|" + "|".join(":---" if c.kind.unit is None else "---:" for c in columns) + "|"]
    for body in table.bodies:
        if body.title:
            lines.append(_line([f"**{markdown(body.title)}**", *[""] * (len(columns) - 1)]))
        lines += [_line(_cells(row)) for row in body.rows]
    caption = f"{markdown(table.caption)}\n\n" if table.caption else ""
    return caption + "\n".join(lines) + "\n"


def markdown(text: str) -> str:
    r"""Write text so that none of it is markup.

    Examples
    --------
    >>> print(markdown("*a* <script>"))
    \*a\* \<script\>
    """
    return SPECIAL.sub(r"\\\1", re.sub(r"\s+", " ", legible(text).replace(THIN, " ")))


def _cells(row: Row) -> Iterator[str]:
    for cell in row.cells:
        text = _text(cell)
        yield f"**{text}**" if cell.strong else text


def _text(cell: Cell) -> str:
    text = markdown(cell.text)
    return f"{text} ({markdown(cell.note)})" if cell.note else text


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
