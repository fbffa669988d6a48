"""JSON Schema (draft 2020-12) of the file of a study, and the page that explains it.

``python tests/support/json_schema.py`` writes both after a change of columns.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparsity_report.study.files.json_files import DERIVED, FORMAT, MAYBE
from sparsity_report.study.files.json_files import TABLES as STORED
from sparsity_report.study.schema import (
    CELL_KINDS,
    CHANGED,
    CONVENTIONS,
    ITEMS,
    MATCHED,
    TABLES,
    VERSION,
    Column,
)
from sparsity_report.words.display_names import head

TOP = Path(__file__).parents[2]
FILE = TOP / "sparsity_report" / "schemas" / f"study-{VERSION}.schema.json"
PAGE = TOP / "docs" / "reference" / "study-file.md"
# Settings of a study.
SETTINGS = {
    "convention": {"enum": list(CONVENTIONS)},
    "context": {"type": ["integer", "null"], "minimum": 1},
}
TEXT, MAYBE_TEXT = {"type": "string"}, {"type": ["string", "null"]}
PROVENANCE = {
    "command": MAYBE_TEXT,
    "date": TEXT | {"pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"},
    "versions": {"type": "object", "additionalProperties": MAYBE_TEXT},
    "platform": TEXT,
    "study": TEXT,
    "weights": {"type": "array", "items": TEXT},
    "seeds": {"type": "array", "items": {"type": "integer", "minimum": 0}},
}
NULLABLE = {*MAYBE, *CHANGED}
BEGIN, END = "<!-- columns -->\n", "<!-- end of columns -->\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of saved studies, with room for later additions."""
    properties = {
        "format": {"const": FORMAT},
        "version": {"const": VERSION},
        "written_by": {"type": "string"},
        "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        **SETTINGS,
        "notes": array({"type": "string"}),
        "findings": array({"type": "string"}),
        "provenance": _or_null(properties_of(PROVENANCE), optional=True),
        **{table: _or_null(_table(table), table in NULLABLE) for table in (*STORED, *DERIVED)},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:sparsity-report:study:{VERSION}",
        "title": "A study of sparsity-report",
        "description": "Tables have columns and rows of as many cells. An unknown value is null. "
        "Later releases may add sections, and columns at the end of a table; readers leave out "
        "those that they do not know.",
        **properties_of(properties),
    }


def schema_text() -> str:
    """Return the text of the schema."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _table(name: str) -> dict[str, Any]:
    table = TABLES[name]
    cells = [_column(column) for column in table.values()]
    if name == "levels":  # one row of counts per module, one count per sparsity
        modules, sparsities, *counts = cells
        rows = {column["title"]: array(array(column)) for column in counts}
        return properties_of({"modules": array(modules), "sparsities": array(sparsities), **rows})
    names = [{"const": each} for each in table]
    columns = {"type": "array", "prefixItems": names, "items": {"type": "string"}}
    row = {"type": "array", "prefixItems": cells, "minItems": len(cells)}
    return properties_of({"columns": columns | {"minItems": len(cells)}, "rows": array(row)})


def _column(column: Column) -> dict[str, Any]:
    bounds = {"minimum": column.low, "maximum": column.high}
    limits = {key: bound for key, bound in bounds.items() if bound is not None}
    _, json_type, _ = CELL_KINDS[ITEMS.get(column.dtype, column.dtype)]
    cell: dict[str, Any] = {"type": json_type, **limits}
    if column.dtype in ITEMS:
        cell = array(cell)
    if column.optional:
        cell["type"] = [cell["type"], "null"]
    if column.among:
        cell["enum"] = [*column.among, *([None] if column.optional else [])]
    return {"title": column.name, "description": head(column.name), **cell}


def _or_null(schema: dict[str, Any], optional: bool) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]} if optional else schema


def array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def properties_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


def page_tables() -> str:
    """Return the tables of columns of the page, as Markdown."""
    parts = ["## Columns\n"]
    for table in (*STORED, *DERIVED):
        parts.append(f"### `{table}`\n")
        if table in (*MATCHED, *CHANGED):
            parts.append("Null, unless two checkpoints were compared.\n")
        elif table in MAYBE:
            parts.append("Null, unless it is known or measured.\n")
        parts.append("\n".join(_lines(TABLES[table].values())) + "\n")
    return "\n".join(parts)


def _lines(columns: Iterable[Column]) -> Iterable[str]:
    yield "| column | holds | type | null | range or texts |"
    yield "|---|---|---|---|---|"
    for column in columns:
        holds = head(column.name).replace("|", r"\|")
        kind, _, _ = CELL_KINDS[ITEMS.get(column.dtype, column.dtype)]
        kind = f"list, each {kind}" if column.dtype in ITEMS else kind
        low, high = ("" if x is None else f"{x:,g}" for x in (column.low, column.high))
        bounds = f"{low} to {high}" if low and high else f"from {low}" * bool(low)
        bounds = bounds or f"up to {high}" * bool(high)
        texts = ", ".join(f"`{text}`" for text in column.among)
        null = "yes" if column.optional else "no"
        yield f"| `{column.name}` | {holds} | {kind} | {null} | {texts or bounds} |"


def page_text(text: str) -> str:
    """Return the text of the page with the tables of today between their marks."""
    return re.sub(f"(?s)(?<={BEGIN}).*(?={END})", lambda _: "\n" + page_tables() + "\n", text)


if __name__ == "__main__":
    FILE.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
