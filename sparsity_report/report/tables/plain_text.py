"""Tables as lines of text, for a terminal or a mail."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from sparsity_report.errors import legible
from sparsity_report.report.tables.table_model import Row, Table

# Between two columns; and lines that a head may take.
_GAP, _LINES = "  ", 3


def to_text(table: Table) -> str:
    r"""Write a table as lines: words stand left, numbers right, heads above them broken at spaces.

    Examples
    --------
    >>> from sparsity_report.report import cells
    >>> heads = {"layer": ("Layer", cells.NAME), "weights": ("All weights", cells.COUNT)}
    >>> columns = [cells.Column(key, *of) for key, of in heads.items()]
    >>> rows = [{"layer": "fc1", "weights": 48}, {"layer": "out_proj", "weights": 1200}]
    >>> print(to_text(cells.table_of("t", "", columns, rows)).replace("\u202f", " "))
                  All
    Layer     weights
    fc1            48
    out_proj    1 200
    """
    bodies = [(body.title, [_texts(row) for row in body.rows]) for body in table.bodies]
    texts = [cells for _, rows in bodies for cells in rows]
    heads = [f"{c.over}, {c.head}" if c.over else c.head for c in table.columns]
    widths = [
        _room(head, max(_width(text) for text in (*column, *head.split(), "")))
        for head, *column in zip(heads, *texts, strict=True)
    ]
    over = [textwrap.wrap(head, width) or [""] for head, width in zip(heads, widths, strict=True)]
    deep = max(map(len, over))
    above = zip(*([""] * (deep - len(lines)) + lines for lines in over), strict=True)
    left = [column.kind.unit is None or not place for place, column in enumerate(table.columns)]
    lines = [table.caption] if table.caption else []
    lines += [_line(head, widths, left) for head in above]
    for title, rows in bodies:
        lines += [title] if title else []
        lines += [_line(cells, widths, left) for cells in rows]
    return "\n".join(legible(line) for line in lines)


def _room(head: str, width: int) -> int:
    """Return the width of a column, of which a head may take a few lines."""
    while len(textwrap.wrap(head, width)) > _LINES:
        width += 1
    return width


def _texts(row: Row) -> list[str]:
    return [f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row.cells]


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = (
        text + " " * (width - _width(text)) if words else " " * (width - _width(text)) + text
        for text, width, words in zip(cells, widths, left, strict=True)
    )
    return _GAP.join(padded).rstrip()


def _width(text: str) -> int:
    """Return how many places of a terminal a text takes."""
    marks = sum(unicodedata.category(sign) in {"Mn", "Me", "Cf"} for sign in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
