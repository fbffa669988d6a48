"""Tables for readers: a frame and a list of columns, with cells that keep their values.

A cell is written once, as text. Every renderer uses this text, so that no two show different
digits.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, NamedTuple, TypeAlias

import pandas as pd

from sparsity_report.errors import printable
from sparsity_report.study.layers import records
from sparsity_report.study.schema import Column, columns_of
from sparsity_report.untrusted.display_text import distinct_names
from sparsity_report.words import number_format as numbers
from sparsity_report.words.sentences import say
from sparsity_report.words.value_formats import COUNT, Format

# Letters of a name that a copy of it has.
_LETTERS = 2000
#: Letters up to which words of a head share a line on paper.
FOLD = 11
_OF_COLUMN = Format(str)


class Cell(NamedTuple):
    """A value, a small note below it, and its format, by default that of the column."""

    value: Any
    note: str = ""
    format: Format = _OF_COLUMN

    @property
    def text(self) -> str:
        """Text of the value."""
        return self.format.write(self.value)

    @property
    def text_with_note(self) -> str:
        """The text and the note on one line."""
        return f"{self.text} ({self.note})" if self.note else self.text

    @property
    def plain(self) -> str | None:
        r"""The value with all its digits, or letters; None where the text has them.

        Examples
        --------
        >>> from sparsity_report.words.value_formats import SHARE, scaled
        >>> Cell(0.30125, "", SHARE).plain, Cell(1234567, "", COUNT).plain
        ('30.125', None)
        >>> Cell(1234, "", scaled("B")).plain
        '1234'
        """
        text, value = self.text, self.value
        if isinstance(value, str):
            complete = printable(value, _LETTERS)
            return complete if text.endswith("…") and complete.startswith(text[:-1]) else None
        parts = value if isinstance(value, tuple) else (value,)
        known = [part for part in parts if numbers.known(part)]
        if self.format.unit is None or not known or not all(isinstance(p, Real) for p in known):
            return None
        joint = "–" if "–" in text else " ± "
        digits = joint.join(numbers.plain(part, self.format.places) for part in known)
        return None if digits == text.replace(numbers.THIN, "") else digits


class Row(NamedTuple):
    """Cells, the first of which names the row.

    Attributes
    ----------
    cells : tuple of Cell
    style : str
        Class for HTML; on paper ``"lead"`` is strong, and ``"part"`` stands below it.
    """

    cells: tuple[Cell, ...]
    style: str = ""


class Body(NamedTuple):
    """Rows that belong together, under a title if they have one."""

    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table for readers, in any medium.

    Attributes
    ----------
    key : str
        Name of the table in files and templates, such as ``"totals"``.
    caption : str
    columns : tuple of Column
    bodies : tuple of Body
    style : str
        Classes for HTML.
    widths : tuple of float
        Widths of the columns on paper, in shares of what is left; 0 is as wide as the text. The
        last is that of all further columns.
    note : str
        Small print under the table.
    """

    key: str
    caption: str
    columns: tuple[Column, ...]
    bodies: tuple[Body, ...]
    style: str = ""
    widths: tuple[float, ...] = (1.6, 1)
    note: str = ""
    kind: ClassVar[str] = "table"

    @property
    def rows(self) -> list[Row]:
        """Rows of all bodies."""
        return [row for body in self.bodies for row in body.rows]

    def only(self, *names: str) -> Table:
        """Return the table with the first and some other of its columns."""
        places = [p for p, column in enumerate(self.columns) if not p or column.name in names]

        def chosen(row: Row) -> Row:
            return row._replace(cells=tuple(row.cells[place] for place in places))

        bodies = tuple(body._replace(rows=tuple(map(chosen, body.rows))) for body in self.bodies)
        return replace(self, columns=tuple(self.columns[p] for p in places), bodies=bodies)


# A frame, in which what is unknown is null, or its rows, in which it is None.
Values: TypeAlias = pd.DataFrame | Iterable[Mapping[str, Any]]


def table_of(
    key: str,
    caption: str,
    columns: str | Sequence[Column],
    values: Values,
    *,
    title: str = "",
    **options: Any,
) -> Table:
    r"""Return a table of a frame.

    Parameters
    ----------
    key, caption : str
    columns : str or sequence of Column
        Names of columns, separated by spaces, or columns.
    values : pandas.DataFrame or iterable of mapping
        Values by the names of the columns, each with a note if it is a :class:`Cell`.
    title : str
        Name of the column of the titles of bodies; without it, the table has one body.
    **options
        Further fields of :class:`Table`.

    Examples
    --------
    >>> table = table_of("t", "Zeros", "sparsity", [{"sparsity": 0.25}])
    >>> table.columns[0].label, table.rows[0].cells[0].text.replace("\u202f", " ")
    ('Sparsity', '25.0 %')
    """
    listed = tuple(columns_of(columns) if isinstance(columns, str) else columns)
    bodies: dict[str, list[Row]] = {} if title else {"": []}
    for row in plain_rows(values) if isinstance(values, pd.DataFrame) else values:
        cells = (cell_of(row[column.name], column) for column in listed)
        bodies.setdefault(row[title] if title else "", []).append(Row(tuple(cells)))
    groups = tuple(Body(tuple(rows), head) for head, rows in bodies.items())
    return Table(key, caption, listed, groups, **options)


def cell_of(value: Any, column: Column) -> Cell:
    """Return a value as a cell in the format of its column, unless it has another."""
    cell = value if isinstance(value, Cell) else Cell(value)
    return cell._replace(format=column.format) if cell.format is _OF_COLUMN else cell


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as plain values; what is unknown is None."""
    return records(frame.astype(object).where(frame.notna(), None))


def key_of_name(name: str) -> str:
    """Return the name of a column for a name from a model, unlike any other column's."""
    return f"{name} ="


def side_by_side(names: Iterable[str], form: Format = COUNT) -> list[Column]:
    """Return columns of one format for names from a model, see :func:`key_of_name`."""
    listed = list(names)
    heads = zip(listed, distinct_names(listed), strict=True)
    return [Column(key_of_name(name), text=text, format=form) for name, text in heads]


def wide_table(key: str, caption: str, wide: pd.DataFrame, form: Format) -> Table:
    """Return a table of a frame: its index, and a column of one format per name from a model."""
    columns = [*columns_of(str(wide.index.name)), *side_by_side(wide.columns, form)]
    return table_of(key, caption, columns, wide.rename(columns=key_of_name).reset_index())


def caption_of(complete: str, first: str, count: int, number: int) -> str:
    """Return a caption by its key, or by another key where only the first rows are shown."""
    return say(complete if count == number else first, shown=count, number=number)


def head_lines(
    heads: Iterable[str], widths: Iterable[int], **wrapping: Any
) -> list[tuple[str, ...]]:
    """Return the lines of wrapped heads, the last lines side by side."""
    sized = zip(heads, widths, strict=True)
    texts = [textwrap.wrap(head, width, **wrapping) or [""] for head, width in sized]
    height = max(map(len, texts))
    padded = ([""] * (height - len(lines)) + lines for lines in texts)
    return [*zip(*padded, strict=True)]


def body_lines(
    table: Table, row: Callable[[Row], str], title: Callable[[str], str], *around: str
) -> Iterator[str]:
    """Yield the lines of the bodies for any renderer, those `around` before and after each body."""
    for body in table.bodies:
        yield from around[:1]
        if body.title:
            yield title(body.title)
        yield from map(row, body.rows)
        yield from around[1:]
