"""The report as PDF: Jinja2 writes the structure, Typst sets it, values pass between as JSON.

A value is never markup: the template has its place in a list, and Typst reads the list as data.
Typst reads no file, no system font and no network, so that equal studies give equal bytes.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from sparsity_report.errors import SparsityReportError, legible, spelled
from sparsity_report.files.filesystem import scratch
from sparsity_report.report.tables.table_model import FOLD, Row, Table
from sparsity_report.report.templates import render
from sparsity_report.untrusted.display_text import BREAK, breakable

_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
# Most marks in one text; Typst fails at 500 to 1,000.
_BREAKS = 250
# Sizes of text in points, the first of which is chosen that fills the last page to here.
_SIZES, _FULL = (10.5, 10, 9.5, 9, 11, 11.5, 12), 0.66
_QUANTITY = re.compile(r"(?<=\d)[ \u00a0](?=%|(?:[kMGTP]?(?:B|FLOPs?)|[kMGTP])\b)")


def typeset(templates: Environment, document: Mapping[str, Any]) -> bytes:
    """Return the report as tagged PDF (PDF/UA-1).

    Parameters
    ----------
    templates : jinja2.Environment
        Finds the template.
    document : mapping
        See :func:`sparsity_report.report.study_sections.study_document`.

    Raises
    ------
    SparsityReportError
        A template is faulty.
    """
    import typst

    values: list[Any] = []

    def place(value: Any) -> str:
        values.append(_readable(to_typst(value) if isinstance(value, Table) else value))
        return f"value({len(values) - 1})"

    placing = templates.overlay(finalize=place, autoescape=False)
    source = render(placing, "report.typ.j2", document, "typeset the report").encode()
    papers: list[tuple[float, bytes]] = []
    with scratch() as empty:
        world: dict[str, Any] = dict.fromkeys(("root", "package_path", "package_cache_path"), empty)
        for size in _SIZES:
            inputs = {"values": json.dumps(values), "size": str(size)}
            world |= {"ignore_system_fonts": True, "sys_inputs": inputs}
            try:
                paper = typst.compile(source, format="pdf", pdf_standards=["ua-1"], **world)
                ends = json.loads(typst.query(source, "<end>", field="value", **world))
            except typst.TypstError as error:
                first = error.diagnostic.split("error:")[1].split("\n")[0]
                raise SparsityReportError(
                    f"cannot typeset the report: {first}; check template_dir"
                ) from error
            assert isinstance(paper, bytes)
            papers.append((ends[-1] if ends else 1.0, paper))
            if papers[-1][0] >= _FULL:
                break
    paper = max(papers, key=lambda known: known[0])[1]
    # Without the entry it is false as well, and poppler reports an error for a stated false.
    return paper.replace(b"/Marked true/Suspects false", b"/Marked true" + 15 * b" ", 1)


def _readable(value: Any) -> Any:
    """Spell out characters that fonts lack; outside pictures, break long words, not quantities."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, dict):
        return {key: _readable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(part) for part in value]
    if isinstance(value, Markup):
        # The one font of pictures has no combining marks.
        return _NOT_ASCII.sub(lambda m: _drawn(m[0]), unicodedata.normalize("NFC", value))
    text = _NOT_ASCII.sub(lambda m: m[0] if _in_font(m[0]) else spelled(m[0]), legible(str(value)))
    return _broken(_QUANTITY.sub("\u202f", text))


def _drawn(character: str) -> str:
    has_glyph = _in_font(character) and not unicodedata.category(character).startswith("M")
    return character if has_glyph else spelled(character)


def _broken(text: str) -> str:
    """Mark breaks of long words, no more than Typst can set."""
    pieces = breakable(text).split(BREAK)
    step = -(-len(pieces) // _BREAKS)
    return BREAK.join("".join(pieces[at : at + step]) for at in range(0, len(pieces), step))


def _in_font(character: str) -> bool:
    """Tell whether Typst's fonts have a character: European letters, punctuation, mathematics."""
    code = ord(character)
    known = code < 0x500 or 0x1E00 <= code < 0x2040 or 0x2190 <= code < 0x2400
    return known and (character.isprintable() or character in "\u00a0\u202f")


def to_typst(table: Table) -> dict[str, Any]:
    """Return a table as data for ``numbers`` in ``typst/look.typ.j2``, which sets it."""

    def row(cells: Row) -> dict[str, Any]:
        texts = [{"text": c.text, "note": c.note} for c in cells.cells]
        return {"style": cells.style, "cells": texts}

    widths = [*table.widths, *table.widths[-1:] * len(table.columns)]
    columns = [
        {"head": c.label, "width": width, "words": c.format.unit is None}
        for c, width in zip(table.columns, widths, strict=False)
    ]
    bodies = [{"title": body.title, "rows": [*map(row, body.rows)]} for body in table.bodies]
    return {
        "caption": table.caption,
        "note": table.note,
        "columns": columns,
        "bodies": bodies,
        "fold": FOLD,
        # May break over pages.
        "long": len(table.rows) > min(24, 8 * len(table.bodies)),
    }
