"""Tables as columns and cells that keep their values, and their HTML and Typst.

A cell is written once, as text. Every renderer uses this text, so that no two show different
digits.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any, ClassVar, NamedTuple, TypeAlias

import pandas as pd
from markupsafe import Markup, escape

from sparsity_report.errors import printable
from sparsity_report.study.layers import records
from sparsity_report.study.schema import TABLES
from sparsity_report.untrusted.display_text import BREAK, breakable, clip, short_name
from sparsity_report.words import number_format as numbers
from sparsity_report.words.display_names import display_name, group_name, layout_name, method_name
from sparsity_report.words.sentences import say

# Letters of a name that a copy of it has.
_LETTERS = 2000
#: Letters that a line of a paper holds beside each other.
LINE_LETTERS = 90
# Between the parts of a name such as Masked30Layerwise.
_JOINT = re.compile("(?<=[0-9a-z])(?=[A-Z][a-z])")
# Units that numbers without them need in their heads.
_IN_HEADS = ("%", "s")


class Kind(NamedTuple):
    """A format of the cells of a column.

    Attributes
    ----------
    write : callable
        Return the text of a value, which is null where unknown.
    unit : str or None
        Unit of numbers: ``"%"``, ``"×"``, ``""``, or ``"s"`` for times, whose unit differs by cell.
        None for words, which are aligned left.
    tag : str
        HTML element around the text: ``bdi`` keeps a name from changing the direction of the text
        around it.
    places : int
        Decimal places by which the unit scales a value: 2 for shares in percent.
    """

    write: Callable[[Any], str]
    unit: str | None = None
    tag: str = ""
    places: int = 0


def name(limit: int) -> Kind:
    """Return the format of names from a model, clipped to so many letters."""
    return Kind(lambda text: "–" if text is None else clip(text, limit), tag="bdi")


def share(digits: int = 1) -> Kind:
    """Return the format of shares of 1: percentages."""
    return Kind(partial(numbers.percent, digits=digits), "%", places=2)


def scaled(unit: str) -> Kind:
    """Return the format of quantities with a decimal prefix, such as 1.2 MB."""
    return Kind(partial(numbers.scaled, unit=unit), "")


def one_unit(sizes: Iterable[float]) -> tuple[str, Kind]:
    """Return a unit in which every number of bytes has three digits at least, and its format."""
    least = min(sizes, default=0)
    step = max((step for step in range(4) if least >= 1000**step), default=0)
    amount = least / 1000**step
    digits = 0 if step == 0 or amount >= 99.95 else 1 if amount >= 9.995 else 2

    def write(size: Any) -> str:
        return numbers.figures(None if size is None else size / 1000**step, f",.{digits}f")

    unit = numbers.scaled(1000**step, "B").rpartition(numbers.THIN)[2]
    return unit, Kind(write, "", places=-3 * step)


def perplexity(vocabulary: int | None) -> Kind:
    """Return the format of perplexities of a model with so many tokens."""
    return Kind(lambda value: numbers.perplexity((value, vocabulary), digits=2), "")


def figures(spec: str) -> Kind:
    """Return the format of numbers by a Python format."""
    return Kind(partial(numbers.figures, spec=spec), "")


def estimate(write: Callable[[Any], str]) -> Kind:
    """Return the format of a mean and the ends of its interval, which are null where unknown."""

    def written(ends: tuple[Any, Any, Any] | None) -> str:
        mean, low, high = map(write, ends or (None, None, None))
        if numbers.UNKNOWN in (low, high):
            return mean
        first, second = (text.removesuffix(f"{numbers.THIN}%") for text in (mean, low))
        return f"{first} ({second}–{high})"

    return Kind(written)


def estimates(kind: Kind, values: Iterable[Any]) -> Kind:
    """Return the format of values, see :func:`estimate`; as numbers if none has an interval."""
    if any(value and numbers.known(value[1]) for value in values):
        return estimate(kind.write)
    return kind._replace(write=lambda value: kind.write(value and value[0]))


def interval(write: Callable[[Any], str]) -> Kind:
    """Return the format of the ends of an interval."""
    return Kind(lambda ends: say("format.range", low=write(ends[0]), high=write(ends[1])))


WORDS = Kind(lambda text: "–" if text is None else printable(str(text)))
NAME = name(40)
SHAPE = Kind(numbers.shape)
COUNT = Kind(numbers.count, "")
SHARE = share()
TIMES = Kind(numbers.times, "×")
# Differences of shares in percentage points.
POINTS = Kind(numbers.points, "")
DURATION = Kind(numbers.duration, "s")
# Pairs of a value and its standard error: a share, and a figure in any unit.
SCORE = Kind(
    lambda pair: numbers.with_error(*(pair or (None, None))).removesuffix(f"{numbers.THIN}%"),
    "",
    places=2,
)
FIGURE = Kind(lambda pair: numbers.plus_minus(*(pair or (None, None))), "")


def _span(ends: tuple[Any, Any]) -> str:
    low, high = ends
    if not (numbers.known(low) and numbers.known(high)):
        return numbers.UNKNOWN
    return f"{numbers.figures(low, '.2f')}–{numbers.times(high)}"


def _realised(speed_up: tuple[Any, Any, Any] | None) -> str:
    """Write a ratio and its interval; the interval alone if the ratio is within the noise."""
    ratio, low, high = speed_up or (None, None, None)
    span = _span((low, high))
    if span == numbers.UNKNOWN:
        return span
    return f"{numbers.figures(ratio, '.2f')} ({span})" if numbers.known(ratio) else f"({span})"


def _crossing(crossover: tuple[str, Any, Any, Any]) -> str:
    """Write the sparsity from which CSR is faster, or its bound."""
    verdict, low, edge, high = crossover
    if verdict != "stated":
        above = say("format.above_percent", low=low) if verdict == "above" else numbers.UNKNOWN
        return say("chart.crossover_never") if verdict == "never" else above
    first = numbers.figures(100 * low, ".0f")
    return f"{numbers.percent(edge, 0)} ({first}–{numbers.percent(high, 0)})"


_LOSSLESS = {True: "format.yes", False: "format.no", None: "explorer.value_unknown"}
_DECLARED = [column for table in TABLES.values() for column in table.columns]
# Formats of columns, by their type in the schema or by their name.
_KINDS: Mapping[str, Kind] = {
    **{column.name: NAME for column in _DECLARED if column.dtype == "text"},
    **{column.name: SHARE for column in _DECLARED if column.high == 1},
    **dict.fromkeys(("model", "architecture", "module_name", "parameter"), name(80)),
    **dict.fromkeys(("block", "dtype", "stored_as"), WORDS),
    **dict.fromkeys(("ratio", "model_ratio", "promised_speedup", "realised_speedup"), TIMES),
    **dict.fromkeys(("mean_abs", "std"), figures("#.3g")),
    **dict.fromkeys(("before", "after"), Kind(printable, "")),
    "bound_share": share(0),
    "cache": Kind(lambda cache: "–" if cache is None else display_name("cache", cache)),
    "control_span": Kind(_span),
    "crossover": Kind(_crossing),
    "crossover_sparsity": share(0),
    **dict.fromkeys(
        ("fingerprint", "text_fingerprint", "results_fingerprint"), NAME._replace(tag="code")
    ),
    **dict.fromkeys(("task", "evaluated_model", "results_file"), name(200)),
    "group": Kind(group_name),
    "layout": Kind(layout_name),
    "p": Kind(numbers.p_value, ""),
    "difference": POINTS,
    **dict.fromkeys(("interval", "interval_99"), interval(numbers.points)),
    **dict.fromkeys(("pair", "outcome"), WORDS),
    "lossless": Kind(lambda known: say(_LOSSLESS[known])),
    "method": Kind(lambda m: "–" if m is None else short_name(method_name(m)), tag="bdi"),
    "n_m": Kind(
        lambda n_m: "–" if n_m is None else f"{clip(n_m[0], 20)}, {numbers.percent(n_m[1])}", ""
    ),
    "rounding_error": SHARE,
    **dict.fromkeys(("kl", "reverse_kl"), figures("#.3g")),
    "perplexity_ratio": figures(".3f"),
    "perplexity_difference": figures(",.2f"),
    **dict.fromkeys(("agreement", "flips"), share(2)),
    **dict.fromkeys(("nll_increase", "increase_low", "increase_high"), figures("+.4f")),
    "perplexity": perplexity(None),
    "bits_per_weight": figures(".2f"),
    "realised": Kind(_realised),
    "quartiles": Kind(lambda ends: numbers.span(*ends), "s"),
    "seconds": DURATION,
    "shape": SHAPE,
    "share": SHARE,
    "relative_change": SHARE,
    "correlation": figures(".4f"),
    "source": name(200),
    "threshold": Kind(numbers.threshold),
    "top1_drop": share(2),
    "windows": Kind(lambda sizes: " / ".join(numbers.count(size) for size in sizes)),
}


def kind_of(key: str) -> Kind:
    """Return the format of a column."""
    return _KINDS.get(key, COUNT)


class Column(NamedTuple):
    """A column of a table.

    Attributes
    ----------
    key : str
        Of its values in the rows a table is made of.
    head : str
    kind : Kind
    over : str
        A head that neighbors share.
    width : float
        On paper, in shares of what is left; 0 is as wide as the text.
    """

    key: str
    head: str
    kind: Kind
    over: str = ""
    width: float = 0


class Cell(NamedTuple):
    """A value, how it is written, and a small note below it."""

    value: Any
    kind: Kind
    note: str = ""

    @property
    def text(self) -> str:
        """The value as people read it."""
        return self.kind.write(self.value)

    @property
    def text_with_note(self) -> str:
        """The text and the note on one line."""
        return f"{self.text} ({self.note})" if self.note else self.text

    @property
    def plain(self) -> str | None:
        r"""The value with all its digits, or letters; None where the text has them.

        Examples
        --------
        >>> Cell(0.30125, SHARE).plain, Cell(1234567, COUNT).plain, Cell(1234, scaled("B")).plain
        ('30.125', None, '1234')
        """
        text, value = self.text, self.value
        if isinstance(value, str):
            complete = printable(value, _LETTERS)
            return complete if text.endswith("…") and complete.startswith(text[:-1]) else None
        parts = value if isinstance(value, tuple) else (value,)
        known = [part for part in parts if numbers.known(part)]
        if self.kind.unit is None or not known or not all(isinstance(p, Real) for p in known):
            return None
        joint = "–" if "–" in text else " ± "
        digits = joint.join(numbers.plain(part, self.kind.places) for part in known)
        return None if digits == text.replace(numbers.THIN, "") else digits


class Row(NamedTuple):
    """Cells, the first of which names the row.

    Attributes
    ----------
    cells : tuple of Cell
    style : str
        A class for HTML; on paper ``"lead"`` is strong and ``"part"`` below it.
    key : str
        Of the column that the row becomes in a table that is turned.
    """

    cells: tuple[Cell, ...]
    style: str = ""
    key: str = ""


class Body(NamedTuple):
    """Rows that belong together, under a title if they have one."""

    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table, whatever it is shown on.

    Attributes
    ----------
    key : str
        Of its place in the product, such as ``"totals"``.
    caption : str
    columns : tuple of Column
    bodies : tuple of Body
    style : str
        Classes for HTML.
    fold : int
        Letters up to which words of a head share a line on paper.
    """

    key: str
    caption: str
    columns: tuple[Column, ...]
    bodies: tuple[Body, ...]
    style: str = ""
    fold: int = 11
    kind: ClassVar[str] = "table"

    @property
    def rows(self) -> list[Row]:
        """Rows of all bodies."""
        return [row for body in self.bodies for row in body.rows]

    @property
    def heads(self) -> list[str]:
        """Heads of the columns on one line, with those that neighbors share."""
        return [f"{c.over}, {c.head}" if c.over else c.head for c in self.columns]

    @property
    def spans(self) -> list[tuple[str, int]]:
        """Heads that neighbors share and how many do, "" over others; empty where none do."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and column.over and spans[-1][0] == column.over:
                spans[-1] = (column.over, spans[-1][1] + 1)
            else:
                spans.append((column.over, 1))
        return spans if any(over for over, _ in spans) else []

    def only(self, *keys: str) -> Table:
        """Return the table with the first and some other of its columns."""
        places = [p for p, column in enumerate(self.columns) if not p or column.key in keys]
        return self._with_columns(places)

    def for_medium(self, columns: Mapping[str, Mapping[str, str]], medium: str) -> Table:
        """Return the table with the columns of a medium, by its key; with all if none is given."""
        keys = columns.get(self.key, {}).get(medium)
        return self.only(*keys.split()) if keys else self

    def parts(self, continued: str, letters: int = LINE_LETTERS) -> list[Table]:
        """Return tables of about so many letters in a row, each with the names of the rows."""
        first, *sizes = map(self.letters, range(len(self.columns)))
        places, room = [[0]], letters - first
        for place, size in enumerate(sizes, start=1):
            if size > room and len(places[-1]) > 1:
                places.append([0])
                room = letters - first
            places[-1].append(place)
            room -= size
        tables = [self._with_columns(chosen) for chosen in places]
        return [tables[0], *(replace(table, caption=continued) for table in tables[1:])]

    def letters(self, place: int) -> int:
        """Return the letters of a column with its gap; heads break between words."""
        texts = [row.cells[place].text_with_note for row in self.rows]
        return 2 + max(map(len, [*texts, *self.columns[place].head.split()]), default=0)

    def turned(self, head: str) -> Table:
        """Return the table with its rows as columns, the names of its columns under `head`."""
        rows = self.rows
        columns = [Column("", head, NAME)]
        columns += [Column(row.key, row.cells[0].text, row.cells[-1].kind) for row in rows]
        turned = [
            Row((Cell(column.head, NAME), *(row.cells[place] for row in rows)))
            for place, column in enumerate(self.columns)
            if place
        ]
        return replace(self, columns=tuple(columns), bodies=(Body(tuple(turned)),), style="")

    def _with_columns(self, places: Sequence[int]) -> Table:
        def chosen(row: Row) -> Row:
            return row._replace(cells=tuple(row.cells[place] for place in places))

        bodies = tuple(Body(tuple(map(chosen, body.rows)), body.title) for body in self.bodies)
        return replace(self, columns=tuple(self.columns[p] for p in places), bodies=bodies)


# Rows by column; what is unknown in a frame is None.
Values: TypeAlias = pd.DataFrame | Iterable[Mapping[str, Any]]


def rows_of(columns: Sequence[Column], values: Values) -> tuple[Row, ...]:
    """Return rows of cells from mappings.

    ``<key>_note`` is a note, ``<key>_kind`` a format of one cell.
    """
    rows = []
    for row in plain_rows(values) if isinstance(values, pd.DataFrame) else values:
        cells = (
            Cell(row[c.key], row.get(f"{c.key}_kind") or c.kind, row.get(f"{c.key}_note") or "")
            for c in columns
        )
        rows.append(Row(tuple(cells)))
    return tuple(rows)


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as plain values; what is unknown is None."""
    return records(frame.astype(object).where(frame.notna(), None))


def table_of(
    key: str, caption: str, columns: Sequence[Column], values: Values, style: str = ""
) -> Table:
    r"""Return a table of one body.

    Examples
    --------
    >>> table = table_of("t", "Zeros", [Column("share", "Share", SHARE)], [{"share": 0.25}])
    >>> table.rows[0].cells[0].text.replace("\u202f", " ")
    '25.0 %'
    """
    return grouped(key, caption, columns, [("", values)], style)


def grouped(
    key: str,
    caption: str,
    columns: Sequence[Column],
    groups: Iterable[tuple[str, Values]],
    style: str = "",
) -> Table:
    """Return a table with a body for each title and its values."""
    bodies = tuple(Body(rows_of(columns, values), title) for title, values in groups)
    return Table(key, caption, tuple(columns), bodies, style)


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
    table: Table,
    row: Callable[[Row], str],
    title: Callable[[str], str],
    before: str | None = None,
    after: str | None = None,
) -> Iterator[str]:
    """Yield the lines of the bodies for any renderer.

    Parameters
    ----------
    table : Table
    row, title : callable
        Write a row, and the title of a body that has one.
    before, after : str, optional
        Lines around each body.
    """
    for body in table.bodies:
        if before is not None:
            yield before
        if body.title:
            yield title(body.title)
        yield from map(row, body.rows)
        if after is not None:
            yield after


def to_html(table: Table, plain: bool = False) -> Markup:
    """Write a table as HTML; every text is escaped.

    Where it is to be copied as `plain` digits, ``data-v`` has those that a cell's text lacks, and
    ``data-u`` the unit of a column or row.

    Examples
    --------
    >>> table = table_of("t", "", [Column("n", "<n>", COUNT)], [{"n": None}])
    >>> print(to_html(table).splitlines()[-3])
    <tr><th scope="row">–</th></tr>
    """
    words = [place for place, column in enumerate(table.columns, 1) if column.kind.unit is None]
    styles = " ".join([*table.style.split(), *(f"left{place}" for place in words if place > 1)])
    lines = [f'<table class="{styles}">' if styles else "<table>"]
    lines += [f"<caption><span>{escape(table.caption)}</span></caption>"] if table.caption else []
    lines += ["<thead>", *_head_rows(table, plain), "</thead>"]
    span = f'<tr class="variant"><th scope="rowgroup" colspan="{len(table.columns)}"><bdi>'
    lines += body_lines(
        table,
        lambda row: _html_row(row, table.columns, plain),
        lambda title: f"{span}{escape(title)}</bdi></th></tr>",
        "<tbody>",
        "</tbody>",
    )
    return Markup("\n".join([*lines, "</table>"]))


def _head_rows(table: Table, plain: bool) -> list[str]:
    def head(text: str, more: str = "") -> str:
        if not text:
            return f"<td{more}></td>"
        return f'<th scope="col"{more}><bdi>{_jointed(text)}</bdi></th>'

    over = "".join(head(text, f' colspan="{width}"') for text, width in table.spans)
    heads = "".join(head(c.head, _unit(c.kind.unit if plain else "")) for c in table.columns)
    return [f"<tr>{row}</tr>" for row in (over, heads) if row]


def _html_row(row: Row, columns: Sequence[Column], plain: bool) -> str:
    style = f' class="{row.style}"' if row.style else ""
    first, *others = row.cells
    # In tables with variants as columns a row may have another unit than the columns.
    same = plain and len({cell.kind.unit for cell in others}) == 1
    unit = others[0].kind.unit if same and others[0].kind.unit != columns[-1].kind.unit else ""
    lead = f'<th scope="row"{_unit(unit)}{_digits(first, plain)}>{_html_cell(first)}</th>'
    rest = "".join(f"<td{_digits(cell, plain)}>{_html_cell(cell)}</td>" for cell in others)
    return f"<tr{style}>{lead}{rest}</tr>"


def _unit(unit: str | None) -> str:
    return f' data-u="{unit}"' if unit in _IN_HEADS else ""


def _digits(cell: Cell, plain: bool) -> str:
    digits = cell.plain if plain else None
    return "" if digits is None else f' data-v="{escape(digits)}"'


def _html_cell(cell: Cell) -> str:
    tag = cell.kind.tag
    text = _jointed(cell.text) if tag == "bdi" else str(escape(cell.text))
    if tag:
        text = f"<{tag}>{text}</{tag}>"
    return f"{text}<small>{escape(cell.note)}</small>" if cell.note else text


def _jointed(text: str) -> Markup:
    """Escape a name for a narrow column, where it may break between its parts, too."""
    return broken(_JOINT.sub(BREAK, text))


def broken(text: str) -> Markup:
    """Escape a name or sentence for HTML; its long words may break at dots."""
    return Markup("<wbr>").join(breakable(text).split(BREAK))


def to_typst(table: Table) -> dict[str, Any]:
    """Return a table as data for ``numbers`` in ``typst/look.typ.j2``, which sets it."""

    def row(cells: Row) -> dict[str, Any]:
        shown = [{"text": c.text, "note": c.note} for c in cells.cells]
        return {"style": cells.style, "cells": shown}

    columns = [
        {"head": c.head, "width": c.width, "words": c.kind.unit is None} for c in table.columns
    ]
    bodies = [{"title": body.title, "rows": [*map(row, body.rows)]} for body in table.bodies]
    return {
        "caption": table.caption,
        "columns": columns,
        "spans": table.spans,
        "bodies": bodies,
        "fold": table.fold,
        # May break over pages.
        "long": len(table.rows) > (12 if len(bodies) == 1 else 30),
    }
