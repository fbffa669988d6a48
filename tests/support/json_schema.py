"""The JSON Schema (draft 2020-12) of a saved study, which ``docs/study.schema.json`` holds."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from sparsity_report.study.files.json_files import LATER, MAYBE, STUDY
from sparsity_report.study.schema import CELL_KINDS, CONVENTIONS, ITEMS, TABLES, VERSION, Column

Titles = Mapping[str, str]


def json_schema(titles: Titles) -> dict[str, Any]:
    """Return the JSON Schema of a saved study.

    Parameters
    ----------
    titles : mapping of str to str
        What each column holds, in English, by its name.
    """
    tables = {**STUDY.tables, **STUDY.derived}
    properties = {
        "format": {"const": STUDY.format},
        "version": {"const": VERSION},
        "written_by": {"type": "string"},
        "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "convention": {"enum": list(CONVENTIONS)},
        "context": {"type": ["integer", "null"], "minimum": 1},
        "notes": _array(_object({"key": {"type": "string"}, "values": {"type": "object"}})),
        "findings": _array({"type": "string"}),
        **{part: _or_null(_table(table, titles), part in MAYBE) for part, table in tables.items()},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of sparsity-report",
        "description": "Tables have columns and rows. An unknown value is null.",
        **_object(properties, LATER),
    }


def json_schema_text(titles: Titles) -> str:
    """Return :func:`json_schema` as the text of the file that documents it."""
    return json.dumps(json_schema(titles), indent=1, ensure_ascii=False) + "\n"


def _table(name: str, titles: Titles) -> dict[str, Any]:
    table = TABLES[name]
    cells = [_column(column, titles) for column in table.columns]
    if name == "levels":  # one row of counts per module, one count per sparsity
        modules, sparsities, *counts = cells
        rows = {column["title"]: _array(_array(column)) for column in counts}
        return _object({"modules": _array(modules), "sparsities": _array(sparsities), **rows})
    row = {"type": "array", "prefixItems": cells, "items": False, "minItems": len(cells)}
    return _object({"columns": {"const": list(table.names)}, "rows": _array(row)})


def _column(column: Column, titles: Titles) -> dict[str, Any]:
    bounds = {"minimum": column.low, "maximum": column.high}
    limits = {key: bound for key, bound in bounds.items() if bound is not None}
    _, json_type, _ = CELL_KINDS[ITEMS.get(column.dtype, column.dtype)]
    cell: dict[str, Any] = {"type": json_type, **limits}
    if column.dtype in ITEMS:
        cell = _array(cell)
    if column.optional:
        cell["type"] = [cell["type"], "null"]
    if column.among:
        cell["enum"] = [*column.among, *([None] if column.optional else [])]
    return {"title": column.name, "description": titles[column.name], **cell}


def _or_null(schema: dict[str, Any], optional: bool) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]} if optional else schema


def _array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(properties: Mapping[str, Any], maybe: Collection[str] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in maybe]
    return {"type": "object", "properties": properties, "required": required}
