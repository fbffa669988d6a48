"""The report as PDF: Jinja2 writes the structure, Typst sets it, values pass between as JSON.

A value is never part of what Typst reads as markup: the template holds its place in a list, and
the list is data. Typst sees no file, no system font and no network, so the same study gives the
same bytes on every machine.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from typing import Any

import typst
from jinja2 import Environment

from sparsity_report.errors import SparsityReportError


def typeset(templates: Environment, shown: Mapping[str, Any]) -> bytes:
    """Return the report as tagged PDF (PDF/UA-1).

    Parameters
    ----------
    templates : jinja2.Environment
        Finds ``report.typ.j2``.
    shown : mapping
        See :func:`sparsity_report.context.context`.

    Raises
    ------
    SparsityReportError
        Typst cannot set what a template says.
    """
    values: list[Any] = []

    def place(value: Any) -> str:
        values.append(value)
        return f"value({len(values) - 1})"

    source = (
        templates.overlay(finalize=place, autoescape=False)
        .get_template("report.typ.j2")
        .render(shown)
    )
    data = "".join(map(_shown, json.dumps(values, ensure_ascii=False, separators=(",", ":"))))
    with tempfile.TemporaryDirectory() as empty:
        try:
            paper: bytes = typst.compile(
                source.encode(),
                root=empty,
                package_path=empty,
                package_cache_path=empty,
                ignore_system_fonts=True,
                sys_inputs={"values": data},
                pdf_standards=["ua-1"],
            )
        except typst.TypstError as error:
            raise SparsityReportError(
                f"cannot typeset the report: {error.diagnostic}; check template_dir"
            ) from error
    return paper


def _shown(character: str) -> str:
    r"""Spell out, inside JSON, a character that the fonts in Typst do not have.

    They have Latin, Greek and Cyrillic letters, punctuation, arrows and mathematical signs.
    """
    code = ord(character)
    held = code < 0x500 or 0x1E00 <= code < 0x2040 or 0x2190 <= code < 0x2400
    if held and (character.isprintable() or character in "\u00a0\u202f"):
        return character
    return f"\\\\u{{{code:x}}}"
