"""The report as PDF: Jinja2 writes the structure, Typst sets it, values pass between as JSON.

A value is never part of what Typst reads as markup: the template holds its place in a list, and
the list is data. Typst sees no file, no system font and no network, so the same study gives the
same bytes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import typst
from jinja2 import Environment
from markupsafe import Markup

from sparsity_report.errors import SparsityReportError, legible, spelled
from sparsity_report.files.filesystem import scratch
from sparsity_report.report.tables.table_model import Table, to_typst
from sparsity_report.report.templates import render
from sparsity_report.untrusted.display_text import BREAK, breakable

_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
# Marks in one text that Typst replaces; between 500 and 1,000 it gives up.
_BREAKS = 250
_QUANTITY = re.compile(r"(?<=\d)[ \u00a0](?=%|[kMGTP]?(?:B|FLOPs)\b)")


def typeset(templates: Environment, shown: Mapping[str, Any]) -> bytes:
    """Return the report as tagged PDF (PDF/UA-1).

    Parameters
    ----------
    templates : jinja2.Environment
        Finds the template.
    shown : mapping
        See :func:`sparsity_report.report.sections.document`.

    Raises
    ------
    SparsityReportError
        Typst cannot set what a template says.
    """
    values: list[Any] = []

    def place(value: Any) -> str:
        values.append(_readable(to_typst(value) if isinstance(value, Table) else value))
        return f"value({len(values) - 1})"

    placing = templates.overlay(finalize=place, autoescape=False)
    source = render(placing, "report.typ.j2", shown, "typeset the report")
    with scratch() as empty:
        try:
            compiler = typst.Compiler(
                root=empty,
                package_path=empty,
                package_cache_path=empty,
                ignore_system_fonts=True,
                sys_inputs={"values": json.dumps(values)},
            )
            paper = compiler.compile(source.encode(), format="pdf", pdf_standards=["ua-1"])
        except typst.TypstError as error:
            first = error.diagnostic.split("error:")[1]
            raise SparsityReportError(
                f"cannot typeset the report: {first}; check template_dir"
            ) from error
    assert isinstance(paper, bytes)
    return paper


def _readable(value: Any) -> Any:
    """Spell out what the fonts lack; outside pictures, break long words and no quantities."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, dict):
        return {key: _readable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(part) for part in value]
    if isinstance(value, Markup):
        # Pictures have one font, in which a mark has no place but on its own letter.
        whole = unicodedata.normalize("NFC", value)
        return _NOT_ASCII.sub(lambda match: _drawn(match[0]), whole)
    text = _NOT_ASCII.sub(
        lambda match: match[0] if _held(match[0]) else spelled(match[0]), legible(str(value))
    )
    return _broken(_QUANTITY.sub("\u202f", text))


def _drawn(character: str) -> str:
    held = _held(character) and not unicodedata.category(character).startswith("M")
    return character if held else spelled(character)


def _broken(text: str) -> str:
    """Mark where long words may break, in so many places as Typst can set."""
    pieces = breakable(text).split(BREAK)
    step = -(-len(pieces) // _BREAKS)
    return BREAK.join("".join(pieces[at : at + step]) for at in range(0, len(pieces), step))


def _held(character: str) -> bool:
    """Whether the fonts in Typst have a character: letters of Europe, punctuation, mathematics."""
    code = ord(character)
    known = code < 0x500 or 0x1E00 <= code < 0x2040 or 0x2190 <= code < 0x2400
    return known and (character.isprintable() or character in "\u00a0\u202f")
