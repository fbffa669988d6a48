"""Every table's columns, declared once: names, types, bounds and titles.

Making, reading and checking a table, heads of tables, and the JSON Schema of a saved study all
follow from :data:`TABLES`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.errors import writable
from sparsity_report.pairing.matches import ALIGNMENTS
from sparsity_report.pairing.removed import KINDS
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.words.sentences import message, say

BLOCKS = (4, 8, 16, 32)
# Rows and columns of a tile of a tensor-core bitmap, and zeros in a row of which MACKO stores one.
TILE, GAP = 64, 16
LAYOUTS = (
    "dense",
    "csr_int16",
    "csr_int32",
    "csr_int64",
    "coo_int32",
    "coo_int64",
    *(f"bsr_{size}" for size in BLOCKS),
    "bitmask",
    "tca_bme",
    "macko",
    "2:4",
    "marlin_2:4",
    "zstd",
)
# Layouts that a file may have, and nothing computes from.
FILES = ("zstd",)
SCOPES = ("layer", "group", "prunable", "model")
# Where the weights of a timed layer come from.
CACHES = ("in cache", "out of cache")
PARTS = ("block", "group", "layer")
# Protocols of perplexity: tokens of a window, or None for what the model takes, and how many
# windows at most. Ours is for any text, and its windows overlap.
SLIDING = "sliding"
PROTOCOLS: Mapping[str, tuple[int | None, int | None]] = {
    SLIDING: (None, None),
    "wikitext2-2048": (2048, None),
    "wikitext2-max": (None, None),
    "c4-256x2048": (2048, 256),
    "ptb": (2048, None),
}
FORMAT = "sparsity-report study"
VERSION = 7
CONVENTIONS = ("standard", "notebook")
# Tables that only running a model gives; tasks are run by other programs.
MEASURED = ("latency", "speedups", "quality", "sensitivity", "continuations", "tasks")
# Of a pair of checkpoints: its sides, and what is summed.
SIDES = ("before", "after")
FIGURES = (
    "prunable_weights",
    "parameters",
    "active_parameters",
    "flops_per_token",
    "stored_bytes",
    "kv_cache_bytes_per_token",
)
DENOMINATORS = ("prunable", "non_embedding", "model")
# Tables of a saved study, and those that may be null there; levels are written in another form.
ALWAYS = ("variants", "layers", "groups", "totals")
OPTIONAL = ("patterns", *MEASURED)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
    dtype : str
        ``"text"``, ``"int64"``, ``"Int64"``, ``"float64"``, ``"bool"``, ``"boolean"``, ``"shape"``
        (a tuple of sizes) or ``"shares"`` (a tuple of fractions of 1). ``"int64"`` becomes
        ``Int64`` where an optional cell is null.
    low, high : float or None
        Bounds of its numbers, both inside.
    title : str
        What people read, in English.
    optional : bool
        Whether cells may be null, which is unknown.
    among : tuple of str
        The only texts there are, if not any.
    """

    name: str
    dtype: str = "int64"
    low: float | None = None
    high: float | None = None
    title: str = ""
    optional: bool = False
    among: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The columns of a table, in order."""

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)


def _text(name: str, title: str, *, optional: bool = False, among: tuple[str, ...] = ()) -> Column:
    return Column(name, "text", title=title, optional=optional, among=among)


def _count(name: str, title: str, *, low: int = 0, optional: bool = False) -> Column:
    return Column(name, "int64", low, title=title, optional=optional)


def _maybe(name: str, title: str) -> Column:
    return Column(name, "Int64", 0, title=title, optional=True)


def _share(name: str, title: str, *, optional: bool = True) -> Column:
    return Column(name, "float64", 0, 1, title, optional)


def _number(name: str, title: str, *, low: float | None = 0, optional: bool = True) -> Column:
    return Column(name, "float64", low, title=title, optional=optional)


# What a cell of each type is in JSON: for people, in a schema, as it is read.
_KINDS: Mapping[str, tuple[str, str, set[type]]] = {
    "text": ("text", "string", {str}),
    "int64": ("a whole number", "integer", {int}),
    "Int64": ("a whole number", "integer", {int}),
    "float64": ("a number", "number", {int, float}),
    "bool": ("true or false", "boolean", {bool}),
    "boolean": ("true or false", "boolean", {bool}),
    "shape": ("one", "array", {list}),
    "shares": ("a list of shares", "array", {list}),
}
# What the items of a list are.
_INFINITE = [np.inf, -np.inf]
_ITEMS = {"shape": "int64", "shares": "float64"}
# A time is not zero.
_PICOSECOND = 1e-12
# By name. A name means the same in every table; where its type differs, see below.
_COLUMNS = {
    column.name: column
    for column in (
        _text("variant", message("variant")),
        _text("layout", message("layout")),
        _text("model", message("model")),
        _text("architecture", message("architecture")),
        _text("source", message("source")),
        _text("fingerprint", message("fingerprint")),
        _text("method", message("method"), optional=True),
        _share("asked_sparsity", message("asked sparsity")),
        _maybe("pruned", message("weights set to zero")),
        _number("threshold", message("threshold")),
        _text("basis", message("rests on"), optional=True),
        _text("basis_fingerprint", message("fingerprint of what it rests on"), optional=True),
        Column("basis_windows", "Int64", 1, title=message("calibration windows"), optional=True),
        Column("basis_window", "Int64", 1, title=message("tokens of a window"), optional=True),
        _maybe("attention_width", message("query and value widths")),
        _maybe("attention_flops_per_token", message("FLOPs of attention itself per token")),
        _text("module_name", message("module")),
        _maybe("block", message("block")),
        _text("group", message("group"), among=GROUPS),
        Column("shape", "shape", 0, title=message("shape")),
        _text("dtype", message("type")),
        _text("packing", message("packed in the file as"), optional=True),
        _count("modules", message("modules")),
        _count("total", message("parameters")),
        _count("nonzero", message("nonzero"), optional=True),
        _share("sparsity", message("share of zeros")),
        Column("prunable", "bool", title=message("prunable")),
        Column("runs_as_csr", "boolean", title=message("runs as CSR"), optional=True),
        _count("weight_total", message("weights")),
        _count("weight_nonzero", message("nonzero weights"), optional=True),
        _maybe("row_pointers", message("row pointers")),
        _maybe("columns", message("columns")),
        _number("uses", message("uses per token")),
        _count("flops_per_token", message("FLOPs per token"), optional=True),
        _count("useful_flops_per_token", message("useful FLOPs per token"), optional=True),
        _count("flops_per_sequence", message("FLOPs once per sequence"), optional=True),
        _count("active_total", message("active parameters per token")),
        _count("stored_bytes", message("stored bytes"), optional=True),
        _maybe("file_bytes", message("bytes in the file")),
        _share("expected_rounding_sparsity", message("zeros that rounding explains")),
        _share("near_zero_share", message("within half a step of zero")),
        _share("param_frac", message("share of parameters")),
        _text("tied_to", message("tied to"), optional=True),
        _count("prunable_total", message("prunable weights")),
        _count("prunable_nonzero", message("nonzero prunable weights"), optional=True),
        _count("non_embedding_total", message("non-embedding parameters")),
        _count(
            "non_embedding_nonzero", message("nonzero non-embedding parameters"), optional=True
        ),
        _share("sparsity_prunable", message("zeros of the prunable weights")),
        _share("sparsity_non_embedding", message("zeros of the non-embedding parameters")),
        _share("sparsity_model", message("zeros of the whole model")),
        _count("dense_bytes", message("bytes as dense"), optional=True),
        _count("csr_bytes", message("bytes as CSR"), optional=True),
        _count("csr_flops_per_token", message("FLOPs per token as CSR"), optional=True),
        _count("uncertainty", message("uncertainty in weights")),
        _text("scope", message("scope"), among=SCOPES),
        _text("name", message("name")),
        _maybe("bytes", message("bytes")),
        _number("ratio", message("bytes ÷ dense bytes")),
        _share("break_even", message("break-even")),
        Column("lossless", "boolean", title=message("lossless"), optional=True),
        _text("parameter", message("matrix")),
        _maybe("expert", message("expert")),
        _count("rows", message("rows")),
        _share("expected_sparsity", message("expected share of zeros")),
        _number("mean_abs", message("mean |w|")),
        _number("std", message("std")),
        _share("zero_rows", message("zero rows")),
        _share("zero_columns", message("zero columns")),
        Column("head_sparsity", "shares", 0, 1, message("zeros per head"), optional=True),
        _text("n_m", message("N:M"), optional=True),
        _share("n_m_share", message("N:M, complying")),
        _share("fill_4", message("4 × 4 blocks filled")),
        _share("fill_8", message("8 × 8 blocks filled")),
        _share("fill_16", message("16 × 16 blocks filled")),
        _share("fill_32", message("32 × 32 blocks filled")),
        _maybe("gap_padding", message("zeros that MACKO stores")),
        _maybe("tile_padding", message("zeros that a SpInfer bitmap stores")),
        _maybe("zstd_bytes", message("bytes of a zstd frame")),
        _text("zstd_version", message("version of zstd"), optional=True),
        _count("tokens", message("tokens"), low=1),
        _text("cache", message("weights come"), optional=True, among=CACHES),
        _text("kernel", message("kernel")),
        _number("seconds", message("median"), low=_PICOSECOND, optional=False),
        _number("seconds_low", message("lower quartile"), low=_PICOSECOND, optional=False),
        _number("seconds_high", message("upper quartile"), low=_PICOSECOND, optional=False),
        _count("measurement", message("measurement"), low=1),
        _count("runs", message("runs"), low=1),
        _number("promised_speedup", message("promised")),
        _number("realised_speedup", message("realised"), optional=False),
        _number("realised_low", message("lower end of the realised speed-up")),
        _number("realised_high", message("upper end of the realised speed-up")),
        _number("realised_share", message("realised ÷ promised")),
        _text("control", message("control"), optional=True),
        _number("control_low", message("smallest ratio of the control"), low=_PICOSECOND),
        _number("control_high", message("largest ratio of the control")),
        _maybe("weight_bytes", message("bytes of the weights that are read")),
        _number("bound_seconds", message("least time to read them from memory")),
        _number("bound_share", message("share of memory’s limit")),
        _share("crossover_sparsity", message("sparsity from which CSR is faster")),
        _share("crossover_low", message("lower end of that sparsity")),
        _share("crossover_high", message("upper end of that sparsity")),
        _count("threads", message("threads"), low=1),
        _maybe("cores", message("cores")),
        _number("others", message("cores other programs took")),
        _number("load", message("load average")),
        _number("frequency", message("frequency of the processor")),
        _maybe("cache_bytes", message("last-level cache")),
        _number("bandwidth", message("bytes read from memory per second"), low=1),
        _text("machine", message("machine")),
        _number("dense_seconds", message("dense"), low=_PICOSECOND, optional=False),
        _number("csr_seconds", message("CSR"), low=_PICOSECOND, optional=False),
        _number("speedup", message("speed-up"), optional=False),
        _number("speedup_low", message("lower end of the speed-up")),
        _number("speedup_high", message("upper end of the speed-up")),
        _number("perplexity", message("perplexity")),
        _number("nll", message("nats per token"), optional=False),
        _share("top1", message("first guesses right"), optional=False),
        _text("against", message("measured against"), optional=True),
        _number("kl", message("KL, nats per token")),
        _share("agreement", message("same first guess")),
        _share("flips", message("flips")),
        _text("protocol", message("protocol"), among=tuple(PROTOCOLS)),
        _count("scored", message("tokens scored"), low=1),
        _count("window", message("window"), low=2),
        _count("stride", message("stride"), low=1),
        _text("text", message("text")),
        _text("text_fingerprint", message("fingerprint of the text")),
        _text("prompt", message("prompt")),
        _text("continuation", message("continuation")),
        _text("by", message("cut by"), among=PARTS),
        _text("part", message("part")),
        _number("dense_perplexity", message("perplexity of dense")),
        _number("nll_increase", message("nats per token more"), low=None, optional=False),
        Column("top1_drop", "float64", -1, 1, message("first guesses lost")),
        _share("global_sparsity", message("globally pruned"), optional=False),
        _text("task", message("task")),
        _text("metric", message("metric")),
        _text("filter", message("filter of the answers"), optional=True),
        _number("value", message("value"), low=None),
        _number("stderr", message("standard error")),
        Column("higher_is_better", "boolean", title=message("higher is better"), optional=True),
        _maybe("n_shot", message("examples in the prompt")),
        Column("samples", "Int64", 1, title=message("samples"), optional=True),
        Column("limited", "boolean", title=message("only a part was run"), optional=True),
        _text("task_version", message("version of the task"), optional=True),
        _text("evaluated_model", message("model as the harness names it"), optional=True),
        _text("harness", message("harness"), optional=True),
        _text("harness_version", message("version of the harness"), optional=True),
        _text("results_file", message("file of the results"), optional=True),
        _text("results_fingerprint", message("fingerprint of the file"), optional=True),
        _text("side", message("side"), among=SIDES),
        _text("after_name", message("module after"), optional=True),
        Column("shape_before", "shape", 0, title=message("shape before"), optional=True),
        Column("shape_after", "shape", 0, title=message("shape after"), optional=True),
        _text("alignment", message("recognised by"), among=ALIGNMENTS),
        _share("certainty", message("certainty")),
        _count("weight_before", message("weights before")),
        _count("weight_after", message("weights after")),
        _count("zeros_before", message("zeros before")),
        _count("zeros_after", message("zeros after")),
        _count("compared", message("weights in both")),
        _count("kept", message("zeros kept")),
        _count("revived", message("zeros revived")),
        _count("new", message("zeros made")),
        _count("changed", message("weights changed")),
        _number("relative_change", message("relative change of the weights")),
        _number("norm", message("norm before of what is nonzero in both")),
        _share("kept_share", message("share of zeros kept")),
        _count("surviving", message("weights nonzero in both")),
        Column("correlation", "float64", -1, 1, message("correlation"), optional=True),
        _share("iou", message("zeros in both ÷ zeros in either")),
        Column("untouched", "bool", title=message("untouched")),
        _text("n_m_before", message("N:M before"), optional=True),
        _text("n_m_after", message("N:M after"), optional=True),
        _maybe("kv_cache_before", message("bytes of key and value before")),
        _maybe("kv_cache_after", message("bytes of key and value after")),
        _text("kind", message("kind"), among=KINDS),
        _text("module", message("module")),
        _maybe("index", message("number in the base")),
        _count("among", message("of how many"), low=1),
        _count("weights", message("weights gone")),
        _count("parameters", message("parameters gone")),
        _text("figure", message("figure"), among=FIGURES),
        _maybe("before", message("before")),
        _maybe("after", message("after")),
        Column("removed", "Int64", title=message("taken away"), optional=True),
        Column("share", "float64", None, 1, message("share taken away"), optional=True),
        _text("of", message("of"), among=DENOMINATORS),
        _count("total_before", message("parameters before")),
        _count("total_after", message("parameters after")),
        _share("sparsity_before", message("zeros of the base")),
        _share("sparsity_itself", message("zeros of what is left")),
        _share("gone_of_base", message("zeros and weights gone, of the base")),
    )
}  # fmt: skip
_SUMMED = (
    "total nonzero weight_total weight_nonzero flops_per_token useful_flops_per_token "
    "flops_per_sequence active_total stored_bytes file_bytes"
)
SUMMED = tuple(_SUMMED.split())
# On what machine something was timed, and how it stood meanwhile.
_CONDITIONS = "threads cores others load frequency cache_bytes bandwidth machine"


def _table(names: str, /, **differing: Mapping[str, Any]) -> Table:
    """Declare a table by the names of its columns, and what of them differs in it."""
    columns = (replace(_COLUMNS[each], **differing.get(each, {})) for each in names.split())
    return Table(tuple(columns))


_NULLABLE: Mapping[str, Any] = {"dtype": "Int64", "optional": True}
_MAYBE: Mapping[str, Any] = {"optional": True}
TABLES: Mapping[str, Table] = {
    "variants": _table(
        "variant layout model architecture source fingerprint method asked_sparsity pruned "
        "threshold attention_width attention_flops_per_token basis basis_fingerprint "
        "basis_windows basis_window",
        layout={"among": ("dense", "masked", "csr")},
    ),
    "layers": _table(
        "variant module_name block group shape dtype packing layout total nonzero sparsity "
        "prunable runs_as_csr weight_total weight_nonzero row_pointers columns uses "
        "flops_per_token useful_flops_per_token flops_per_sequence active_total stored_bytes "
        "file_bytes expected_rounding_sparsity near_zero_share param_frac tied_to",
    ),
    "groups": _table(f"variant group modules {_SUMMED} sparsity param_frac"),
    "totals": _table(
        f"variant layout asked_sparsity pruned threshold {_SUMMED} prunable_total "
        "prunable_nonzero non_embedding_total non_embedding_nonzero sparsity_prunable "
        "sparsity_non_embedding sparsity_model attention_flops_per_token",
    ),
    "levels": _table("module_name sparsity weight_nonzero uncertainty"),
    # Of the model at one level, see Comparison.at_level.
    "level": _table(
        "module_name block group shape dtype prunable total nonzero weight_total weight_nonzero "
        "row_pointers flops_per_token useful_flops_per_token csr_flops_per_token sparsity "
        "uncertainty dense_bytes csr_bytes",
    ),
    "sweep": _table(
        "sparsity threshold module_name block group total nonzero weight_total weight_nonzero "
        "useful_flops_per_token dense_bytes csr_bytes uncertainty",
    ),
    "patterns": _table(
        "variant module_name parameter expert block group rows columns sparsity "
        "expected_sparsity mean_abs std zero_rows zero_columns head_sparsity n_m n_m_share "
        + " ".join(f"fill_{size}" for size in BLOCKS)
        + " gap_padding tile_padding zstd_bytes zstd_version",
        columns={"dtype": "int64", "optional": False},
    ),
    "storage": _table(
        "variant scope name layout total nonzero bytes ratio break_even lossless",
        layout={"among": LAYOUTS},
        total=_NULLABLE,
        nonzero=_NULLABLE,
    ),
    "latency": _table(
        "variant scope name modules tokens cache sparsity dtype kernel seconds seconds_low "
        "seconds_high runs promised_speedup realised_speedup realised_low realised_high "
        "realised_share control control_low control_high weight_bytes bound_seconds bound_share "
        f"crossover_sparsity crossover_low crossover_high {_CONDITIONS}",
        modules=_NULLABLE,
        dtype=_MAYBE,
        kernel=_MAYBE,
    ),
    "speedups": _table(
        "measurement variant against scope name tokens cache kernel runs realised_speedup "
        f"realised_low realised_high control control_low control_high {_CONDITIONS}",
        against={"optional": False},
        kernel=_MAYBE,
    ),
    "crossover": _table(
        "name tokens cache dtype sparsity dense_seconds csr_seconds speedup speedup_low "
        "speedup_high runs control_low control_high weight_bytes bound_seconds bound_share "
        f"crossover_sparsity crossover_low crossover_high {_CONDITIONS}",
    ),
    "quality": _table(
        "variant layout model method sparsity perplexity nll top1 against kl agreement flips "
        "protocol scored tokens window stride dtype text text_fingerprint",
        model=_MAYBE,
    ),
    "sensitivity": _table(
        "by part modules weight_total pruned sparsity perplexity dense_perplexity "
        "nll_increase top1 top1_drop threshold std global_sparsity protocol window stride dtype "
        "text text_fingerprint",
        pruned={"dtype": "int64", "optional": False},
    ),
    "continuations": _table("variant prompt continuation"),
    "tasks": _table(
        "variant task metric filter value stderr higher_is_better n_shot samples limited "
        "task_version evaluated_model harness harness_version results_file results_fingerprint",
    ),
    # Of a pair of checkpoints, see study.pair.
    "pair_models": _table("side model architecture source"),
    "pair_layers": _table(
        "module_name after_name block group prunable shape_before shape_after alignment certainty "
        "weight_before weight_after zeros_before zeros_after compared kept revived new changed "
        "relative_change norm correlation iou untouched n_m_before n_m_after kv_cache_before "
        "kv_cache_after",
    ),
    "pair_removed": _table(
        "kind module index among block certainty weights parameters bytes flops_per_token"
    ),
    "pair_groups": _table("group figure before after removed share"),
    "pair_totals": _table("figure before after removed share"),
    "pair_survival": _table(
        "group modules untouched compared zeros_before zeros_after kept revived new kept_share iou "
        "surviving changed relative_change",
        group=_MAYBE,
        untouched={"dtype": "int64", "low": 0},
    ),
    "pair_sparsities": _table(
        "of total_before total_after zeros_before zeros_after sparsity_before sparsity_itself "
        "gone_of_base",
    ),
}


def title(name: str) -> str:
    """Return what people read for a column, in the language that is spoken.

    Examples
    --------
    >>> title("stored_bytes"), title("sparsity_prunable")
    ('stored bytes', 'zeros of the prunable weights')
    """
    return say(_COLUMNS[name].title) if name in _COLUMNS else name.replace("_", " ")


def head(name: str) -> str:
    """Return a column's title as the head of a table writes it.

    Examples
    --------
    >>> head("stored_bytes")
    'Stored bytes'
    """
    text = title(name)
    return text[:1].upper() + text[1:]


def typed(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with the columns of a table, in order, each of its type.

    Raises
    ------
    ValueError
        A cell does not fit its column's type.

    Examples
    --------
    >>> rows = {"module_name": ["fc1"], "sparsity": [0], "weight_nonzero": [8], "uncertainty": [0]}
    >>> typed("levels", pd.DataFrame(rows)).dtypes.astype(str).tolist()[1:]
    ['float64', 'int64', 'int64']
    """
    columns = TABLES[table].columns
    for column in columns:
        if not column.optional and frame[column.name].dtype.name not in {"int64", "bool"}:
            refuse(table, frame[column.name].notna(), f"{column.name}: is missing")
    return pd.DataFrame({column.name: _cast(frame[column.name], column) for column in columns})


def check(table: str, frame: pd.DataFrame) -> None:
    """Refuse cells outside the bounds of their column.

    Raises
    ------
    ValueError
        Names the first row and column that is not good, and what is wrong with it.
    """
    for column in TABLES[table].columns:
        cells, among = frame[column.name], list(column.among)
        if among:
            good = cells.isna() | cells.isin(among)
            refuse(table, good, f"{column.name}: is not one of {', '.join(among)}")
        if column.low is None:
            continue
        low, high = column.low, np.inf if column.high is None else column.high
        bounds = f"less than {low:g}" if high == np.inf else f"not between {low:g} and {high:g}"
        if column.dtype in _ITEMS:
            *_, types = _KINDS[_ITEMS[column.dtype]]
            inside: Any = [
                all(type(item) in types and low <= item <= high for item in cell or ())
                for cell in cells
            ]
        else:
            inside = (cells.isna() | cells.between(low, high)).fillna(True)
        refuse(table, inside, f"{column.name}: is {bounds}")


def read(table: str, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table from its columns and rows in JSON, typed and checked.

    Raises
    ------
    ValueError
        It has other columns than the schema says, or cells that do not belong there.
    """
    columns = TABLES[table].columns
    if tuple(data["columns"]) != TABLES[table].names:
        raise ValueError(f"{table}: columns {data['columns']}")
    # Short rows would be filled up with nothing.
    for place, row in enumerate(data["rows"]):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ValueError(
                f"{table}, row {place} does not have {len(columns)} cells: {str(row)[:60]}"
            )
    for column, cells in zip(columns, zip(*data["rows"], strict=True), strict=False):
        kind, _, types = _KINDS[column.dtype]
        if not set(map(type, cells)) <= {*types, type(None)}:
            good = [cell is None or type(cell) in types for cell in cells]
            refuse(table, good, f"{column.name}: is not {kind}")
    frame = typed(table, pd.DataFrame(data["rows"], columns=list(TABLES[table].names)))
    check(table, frame)
    return frame


def plain_table(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Return columns and rows of plain values for JSON; what is unknown is null."""
    columns = [_plain(frame[column]) for column in frame.columns]
    return {
        "columns": list(frame.columns),
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }


def refuse(table: str, good: Any, wrong: str) -> None:
    """Name the first row of a table that is not good, by raising a ValueError."""
    flags = np.asarray(good, dtype=bool)
    if not flags.all():
        raise ValueError(f"{table}, row {int(flags.argmin())}, {wrong}")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a saved study.

    ``docs/study.schema.json`` is this, written with :func:`json_schema_text`.
    """
    properties = {
        "format": {"const": FORMAT},
        "version": {"const": VERSION},
        "written_by": {"type": "string"},
        "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "convention": {"enum": list(CONVENTIONS)},
        "context": {"type": ["integer", "null"], "minimum": 1},
        "notes": _array({"type": "string"}),
        "findings": _array({"type": "string"}),
        **{name: _json_table(TABLES[name]) for name in ALWAYS},
        "levels": _or_null(_json_levels()),
        **{name: _or_null(_json_table(TABLES[name])) for name in OPTIONAL},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of sparsity-report",
        "description": "Tables have columns and rows; what is unknown is null.",
        **_object(properties),
    }


def json_schema_text() -> str:
    """Return :func:`json_schema` as the file that documents it."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _plain(cells: pd.Series[Any]) -> list[Any]:
    known = cells.astype(object).where(cells.notna(), None)
    return [list(cell) if isinstance(cell, tuple) else cell for cell in known.tolist()]


def _cast(cells: pd.Series[Any], column: Column) -> pd.Series[Any]:
    if column.dtype == "text":
        # Null in a column of pandas' own text would be NaN.
        known = cells.astype(object) if column.optional else cells
        if column.optional and known.hasnans:
            known = known.where(known.notna(), None)
        if not "".join(map(str, known)).isascii():
            known = known.map(lambda text: writable(text) if isinstance(text, str) else text)
        return known if column.optional else known.astype(str)
    if column.dtype in _ITEMS:
        tuples = [tuple(cell) if isinstance(cell, list | tuple) else None for cell in cells]
        return pd.Series(tuples, index=cells.index, dtype=object)
    if column.dtype == "float64" and (infinite := cells.isin(_INFINITE)).any():
        # JSON has no infinity, and a figure that is infinite is not known.
        cells = cells.mask(infinite)
    if cells.dtype.name == column.dtype:
        return cells
    try:
        if column.dtype == "int64" and column.optional:
            known = cells.astype("Int64")
            return known if known.hasnans else known.astype("int64")
        if column.dtype == "float64" and cells.dtype == object:
            return cells.astype("Float64").astype(float)
        return cells.astype(column.dtype)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{column.name}: {error}") from error


def _json_table(table: Table) -> dict[str, Any]:
    row = {
        "type": "array",
        "prefixItems": [_json_column(column) for column in table.columns],
        "items": False,
        "minItems": len(table.columns),
    }
    return _object({"columns": {"const": list(table.names)}, "rows": _array(row)})


def _json_column(column: Column) -> dict[str, Any]:
    bounds = {"minimum": column.low, "maximum": column.high}
    limits = {key: bound for key, bound in bounds.items() if bound is not None}
    _, json_type, _ = _KINDS[_ITEMS.get(column.dtype, column.dtype)]
    cell: dict[str, Any] = {"type": json_type, **limits}
    if column.dtype in _ITEMS:
        cell = _array(cell)
    if column.optional:
        cell["type"] = [cell["type"], "null"]
    if column.among:
        cell["enum"] = [*column.among, *([None] if column.optional else [])]
    return {"title": column.name, "description": column.title, **cell}


def _json_levels() -> dict[str, Any]:
    """One row of counts per module, one count per sparsity."""
    names, sparsities, *counts = TABLES["levels"].columns
    return _object(
        {
            "modules": _array(_json_column(names)),
            "sparsities": _array(_json_column(sparsities)),
            **{column.name: _array(_array(_json_column(column))) for column in counts},
        }
    )


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
