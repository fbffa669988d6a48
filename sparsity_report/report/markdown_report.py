"""The report as Markdown, for GitHub, model cards of the Hub and language models; no pictures."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sparsity_report.errors import legible
from sparsity_report.report.sections import (
    Block,
    Bullets,
    Chart,
    Partial,
    Section,
    Text,
    Viewer,
)
from sparsity_report.report.tables.table_model import Table, body_lines, table_of
from sparsity_report.study.schema import Column
from sparsity_report.words.display_names import head
from sparsity_report.words.number_format import THIN
from sparsity_report.words.sentences import say
from sparsity_report.words.value_formats import WORDS

# Characters with a meaning in Markdown or in HTML inside it, or by which an address becomes a link.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&@!^]|:(?=//)|(?<=www)\.)")
# Beginnings of lines that Markdown reads as lists, rules or underlines of headings.
_MARKER = re.compile(r"^(\d{1,9}(?=[.)](?:\s|$))|(?=[-+=]))(.)")


def to_report(document: Mapping[str, Any]) -> str:
    """Return a report as Markdown in which no name is markup.

    Parameters
    ----------
    document : mapping
        See :func:`sparsity_report.report.study_sections.study_document`.
    """
    parts = [f"# {paragraph(document['verdict'])}", *_summary(document)]
    is_appendix = False
    for section in document["sections"]:
        if section.is_appendix and not is_appendix:
            is_appendix = True
            parts.append(f"## {paragraph(say('page.appendix'))}")
        parts += _section(section, "###" if is_appendix else "##")
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _summary(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield names, the figures at the head of the report, the lines below them, and the hero."""
    yield " · ".join(map(markdown, document["kicker"]))
    heads = {"title": "figure", "number": "value", "note": "note"}
    columns = [Column(key, text=head(name), format=WORDS) for key, name in heads.items()]
    yield to_markdown(table_of("strip", "", columns, document["strip"]))
    for line in document["all_lines"]:
        code = f" `{line.code}`" if line.code else ""
        yield f"**{markdown(line.label)}:** {markdown(line.text)}{code}"
    if document["hero"]:
        yield from _section(document["hero"], "##")


def _section(section: Section, level: str) -> Iterator[str]:
    yield f"{level} {paragraph(section.title)}" if section.title else ""
    yield from _blocks(section.blocks)


def _blocks(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Text(text):
                yield paragraph(text)
            case Bullets(texts):
                yield "\n".join(f"- {paragraph(text)}" for text in texts)
            case Table():
                yield to_markdown(block)
            case Chart():
                yield _data(block)
            case Viewer(_, still):
                yield _data(still) if still else ""
            case Partial(_, values):
                yield from map(paragraph, values["texts"])
                # LaTeX text has no backquotes.
                yield "\n".join(["```bibtex", *values["bibtex"], "```"])


def _data(chart: Chart) -> str:
    return to_markdown(chart.table) if chart.table else ""


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
    lines = [_table_line(markdown(column.label) for column in columns)]
    lines += ["|" + "|".join(":---" if c.format.unit is None else "---:" for c in columns) + "|"]
    rest = [""] * (len(columns) - 1)
    lines += body_lines(
        table,
        lambda row: _table_line(markdown(cell.text_with_note) for cell in row.cells),
        lambda title: _table_line([f"**{markdown(title)}**", *rest]),
    )
    parts = [paragraph(table.caption), "\n".join(lines), paragraph(table.note)]
    return "\n\n".join(filter(None, parts)) + "\n"


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


def _table_line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
