"""Studies saved by the versions before, brought to the tables of today."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

# Experts of a layer, and depths of a model, that uses are looked for among.
_LARGEST = 1024
# What speeds are told by since version 6, and the column it stands behind; it was not recorded.
_BEHIND = {
    "cache": "tokens",
    "realised_low realised_high": "realised_speedup",
    "control control_low control_high weight_bytes bound_seconds bound_share": "realised_share",
    "crossover_low crossover_high": "crossover_sparsity",
    "cores others load frequency cache_bytes bandwidth": "threads",
}


def upgrade(data: dict[str, Any]) -> None:
    """Change a study of version 1 to 6, as read from JSON, to what this one would have saved.

    ``uses`` of a module follow from its FLOPs, the model and method of a perplexity from its
    variant; every prunable matrix was taken to run as CSR. What follows from nothing, such as how
    a file packed weights, is null.
    """
    if data["version"] not in {1, 2, 3, 4, 5, 6}:
        raise ValueError(f"version {data['version']!r} never was")
    if data["version"] == 1:
        _to_version_2(data)
    if data["version"] < 3:
        _to_version_3(data)
    if data["version"] < 4:
        _to_version_4(data)
    if data["version"] < 6:
        _to_version_6(data)
    _to_version_7(data)


def _to_version_7(data: dict[str, Any]) -> None:
    if patterns := data["patterns"]:
        for column in ("zstd_version", "zstd_bytes"):
            _insert(patterns, column, "tile_padding")
    data["speedups"] = None


def _to_version_6(data: dict[str, Any]) -> None:
    """Put in what is new; version 5 brought the digest, which is no part of the study."""
    if patterns := data["patterns"]:
        for column in ("tile_padding", "gap_padding"):
            _insert(patterns, column, "fill_32")
    last = "attention_flops_per_token"
    for column in ("basis_window", "basis_windows", "basis_fingerprint", "basis"):
        _insert(data["variants"], column, last)
    data["tasks"] = data["continuations"] = None
    # There was one protocol, and no distance from dense.
    for table, before in (("quality", "top1"), ("sensitivity", "global_sparsity")):
        if (measured := data[table]) is None:
            continue
        _insert(measured, "protocol", before, ["sliding"] * len(measured["rows"]))
        if table == "quality":
            for column in ("flips", "agreement", "kl", "against"):
                _insert(measured, column, before)
    if latency := data["latency"]:
        for columns, before in _BEHIND.items():
            for column in reversed(columns.split()):
                _insert(latency, column, before)


def _to_version_4(data: dict[str, Any]) -> None:
    prunable = (row["prunable"] for row in _dicts(data["layers"]))
    _insert(data["layers"], "runs_as_csr", "prunable", [each or None for each in prunable])


def _to_version_3(data: dict[str, Any]) -> None:
    _insert(data["layers"], "packing", "dtype")
    for table in ("layers", "groups", "totals"):
        _insert(data[table], "file_bytes", "stored_bytes")
    for column in ("near_zero_share", "expected_rounding_sparsity"):
        _insert(data["layers"], column, "file_bytes")


def _to_version_2(data: dict[str, Any]) -> None:
    layers, totals = data["layers"], data["totals"]
    variants = {row["variant"]: row for row in _dicts(data["variants"])}
    _insert(layers, "uses", "columns", _uses(_dicts(layers), variants))
    if "attention_flops_per_token" not in totals["columns"]:
        last = totals["columns"][-1]
        _insert(totals, "attention_flops_per_token", last)
    if quality := data["quality"]:
        for column, before in (("model", "layout"), ("method", "model")):
            cells = [variants.get(row["variant"], {}).get(column) for row in _dicts(quality)]
            _insert(quality, column, before, cells)
    prunable = [row["uses"] is not None for row in _dicts(layers) if row["prunable"]]
    if not all(prunable):
        data["levels"] = None


def _dicts(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def _insert(
    table: dict[str, Any], column: str, before: str, cells: Iterable[Any] | None = None
) -> None:
    """Put a column behind another, of nulls unless cells are given."""
    place = table["columns"].index(before) + 1
    table["columns"].insert(place, column)
    rows = table["rows"]
    for row, cell in zip(rows, [None] * len(rows) if cells is None else cells, strict=True):
        row.insert(place, cell)


def _uses(
    layers: Iterable[Mapping[str, Any]], variants: Mapping[str, Mapping[str, Any]]
) -> list[float | None]:
    """Find uses row by row; where a row does not show them, another variant of the model may."""
    keys: list[tuple[Any, str]] = []
    uses: dict[tuple[Any, str], float | None] = {}
    for row in layers:
        key = variants.get(row["variant"], {}).get("fingerprint"), row["module_name"]
        keys.append(key)
        if uses.get(key) is None:
            uses[key] = uses_of(row)
    return [uses[key] for key in keys]


def uses_of(row: Mapping[str, Any]) -> float | None:
    """Return the simplest ratio whose FLOPs are those of the row."""
    if row["row_pointers"] is None:
        return None
    if row["flops_per_sequence"]:
        return 0.0
    sparse = row["layout"] == "csr"
    elements = row["weight_nonzero"] if sparse else row["weight_total"] or math.prod(row["shape"])
    flops = row["flops_per_token"]
    if not elements or flops is None:
        return None
    # The version before rounded each of a module's tensors of experts by itself.
    slack = 1.0 if len(row["shape"]) == 3 else 0.5
    for parts in range(1, _LARGEST + 1):
        share: float = round(flops * parts / (2 * elements)) / parts
        if abs(2 * elements * share - flops) <= slack:
            return share
    return float(flops / (2 * elements))
