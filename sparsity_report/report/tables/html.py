"""Tables as HTML, in which every text is escaped."""

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from sparsity_report.report.tables.table_model import Cell, Row, Table, body_lines
from sparsity_report.study.schema import Column
from sparsity_report.untrusted.display_text import BREAK, breakable

# Between the parts of a name such as Masked30Layerwise.
_JOINT = re.compile("(?<=[0-9a-z])(?=[A-Z][a-z])")
# Units that numbers without them need in their heads.
_IN_HEADS = ("%", "s")


def to_html(table: Table, plain: bool = False) -> Markup:
    """Write a table as HTML.

    With `plain`, ``data-v`` has the digits that the text of a cell lacks, and ``data-u`` the unit
    of a column or row, for copies of the table.

    Examples
    --------
    >>> from sparsity_report.report.tables.table_model import table_of
    >>> from sparsity_report.study.schema import Column
    >>> table = table_of("t", "", [Column("n", text="<n>")], [{"n": None}])
    >>> print(to_html(table).splitlines()[-3])
    <tr><th scope="row">–</th></tr>
    """
    words = [place for place, c in enumerate(table.columns, 1) if c.format.unit is None]
    styles = " ".join([*table.style.split(), *(f"left{place}" for place in words if place > 1)])
    lines = [f'<table class="{styles}">' if styles else "<table>"]
    lines += [f"<caption><span>{escape(table.caption)}</span></caption>"] if table.caption else []
    heads = "".join(_head(column, plain) for column in table.columns)
    lines += ["<thead>", f"<tr>{heads}</tr>", "</thead>"]
    span = f'<tr class="variant"><th scope="rowgroup" colspan="{len(table.columns)}"><bdi>'
    lines += body_lines(
        table,
        lambda row: _row(row, table.columns, plain),
        lambda title: f"{span}{escape(title)}</bdi></th></tr>",
        "<tbody>",
        "</tbody>",
    )
    return Markup("\n".join([*lines, "</table>"]))


def broken(text: str) -> Markup:
    """Escape a name or sentence for HTML; its long words may break at dots."""
    return Markup("<wbr>").join(breakable(text).split(BREAK))


def _head(column: Column, plain: bool) -> str:
    if not column.label:
        return "<td></td>"
    unit = _unit(column.format.unit if plain else "")
    return f'<th scope="col"{unit}><bdi>{_jointed(column.label)}</bdi></th>'


def _row(row: Row, columns: Sequence[Column], plain: bool) -> str:
    style = f' class="{row.style}"' if row.style else ""
    first, *others = row.cells
    # In tables with variants as columns a row may have another unit than the columns.
    units = {cell.format.unit for cell in others} if plain else set()
    unit = units.pop() if len(units) == 1 and columns[-1].format.unit not in units else ""
    lead = f'<th scope="row"{_unit(unit)}{_digits(first, plain)}>{_cell(first)}</th>'
    rest = "".join(f"<td{_digits(cell, plain)}>{_cell(cell)}</td>" for cell in others)
    return f"<tr{style}>{lead}{rest}</tr>"


def _unit(unit: str | None) -> str:
    return f' data-u="{unit}"' if unit in _IN_HEADS else ""


def _digits(cell: Cell, plain: bool) -> str:
    digits = cell.plain if plain else None
    return "" if digits is None else f' data-v="{escape(digits)}"'


def _cell(cell: Cell) -> str:
    tag = cell.format.tag
    text = _jointed(cell.text) if tag == "bdi" else escape(cell.text)
    content = f"<{tag}>{text}</{tag}>" if tag else str(text)
    return f"{content}<small>{escape(cell.note)}</small>" if cell.note else content


def _jointed(text: str) -> Markup:
    """Escape a name for a narrow column, where it may break between its parts, too."""
    return broken(_JOINT.sub(BREAK, text))
