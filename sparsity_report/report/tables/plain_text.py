"""Tables as lines of text for a terminal."""

import textwrap
import unicodedata
from collections.abc import Sequence

from sparsity_report.errors import legible
from sparsity_report.report.tables.table_model import Table, body_lines, head_lines

# Gap between columns, and most lines of a head.
_GAP, _LINES = "  ", 3


def to_text(table: Table) -> str:
    r"""Write a table as lines: words left, numbers right, heads broken at spaces.

    Examples
    --------
    >>> from sparsity_report.report.tables.table_model import table_of
    >>> weights = {"fc1": 48, "out_proj": 1200}
    >>> rows = [{"module": name, "prunable_total": n} for name, n in weights.items()]
    >>> table = table_of("t", "", "module prunable_total", rows)
    >>> print(to_text(table).replace("\u202f", " "))
             Prunable
    Module    weights
    fc1            48
    out_proj    1 200
    """
    heads = [column.label for column in table.columns]
    texts = [[cell.text_with_note for cell in row.cells] for row in table.rows]
    widths = [
        _room(head, max(_width(text) for text in (*column, *head.split(), "")))
        for head, *column in zip(heads, *texts, strict=True)
    ]
    left = [column.format.unit is None or not place for place, column in enumerate(table.columns)]
    lines = [table.caption] if table.caption else []
    lines += [_line(head, widths, left) for head in head_lines(heads, widths)]
    lines += body_lines(
        table,
        lambda row: _line([cell.text_with_note for cell in row.cells], widths, left),
        lambda title: title,
    )
    return "\n".join(legible(line) for line in lines)


def _room(head: str, width: int) -> int:
    """Return the width at which a head takes few lines."""
    while len(textwrap.wrap(head, width)) > _LINES:
        width += 1
    return width


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = (
        text + " " * (width - _width(text)) if words else " " * (width - _width(text)) + text
        for text, width, words in zip(cells, widths, left, strict=True)
    )
    return _GAP.join(padded).rstrip()


def _width(text: str) -> int:
    """Return the number of terminal cells that a text takes."""
    marks = sum(unicodedata.category(sign) in {"Mn", "Me", "Cf"} for sign in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
