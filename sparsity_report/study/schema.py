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
from sparsity_report.words.sentences import say

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
        _text("variant", "label.variant"),
        _text("layout", "label.layout"),
        _text("model", "column.model"),
        _text("architecture", "column.architecture"),
        _text("source", "column.source"),
        _text("fingerprint", "column.fingerprint"),
        _text("method", "column.method", optional=True),
        _share("asked_sparsity", "column.asked_sparsity"),
        _maybe("pruned", "column.pruned"),
        _number("threshold", "column.threshold"),
        _text("basis", "column.basis", optional=True),
        _text("basis_fingerprint", "column.basis_fingerprint", optional=True),
        Column("basis_windows", "Int64", 1, title="column.basis_windows", optional=True),
        Column("basis_window", "Int64", 1, title="column.basis_window", optional=True),
        _maybe("attention_width", "column.attention_width"),
        _maybe("attention_flops_per_token", "column.attention_flops_per_token"),
        _text("module_name", "column.module"),
        _maybe("block", "kind.block"),
        _text("group", "label.group", among=GROUPS),
        Column("shape", "shape", 0, title="label.shape"),
        _text("dtype", "column.dtype"),
        _text("packing", "column.packing", optional=True),
        _count("modules", "column.modules"),
        _count("total", "quantity.parameters"),
        _count("nonzero", "label.nonzero", optional=True),
        _share("sparsity", "label.sparsity"),
        Column("prunable", "bool", title="column.prunable"),
        Column("runs_as_csr", "boolean", title="column.runs_as_csr", optional=True),
        _count("weight_total", "label.weights"),
        _count("weight_nonzero", "column.weight_nonzero", optional=True),
        _maybe("row_pointers", "column.row_pointers"),
        _maybe("columns", "column.columns"),
        _number("uses", "column.uses"),
        _count("flops_per_token", "metric.flops_per_token", optional=True),
        _count("useful_flops_per_token", "column.useful_flops_per_token", optional=True),
        _count("flops_per_sequence", "column.flops_per_sequence", optional=True),
        _count("active_total", "quantity.active_parameters_per_token"),
        _count("stored_bytes", "quantity.stored_bytes", optional=True),
        _maybe("file_bytes", "column.file_bytes"),
        _share("expected_rounding_sparsity", "column.expected_rounding_sparsity"),
        _share("near_zero_share", "column.near_zero_share"),
        _share("param_frac", "column.param_frac"),
        _text("tied_to", "column.tied_to", optional=True),
        _count("prunable_total", "column.prunable_weights"),
        _count("prunable_nonzero", "column.prunable_nonzero", optional=True),
        _count("non_embedding_total", "column.non_embedding_total"),
        _count(
            "non_embedding_nonzero", "column.non_embedding_nonzero", optional=True
        ),
        _share("sparsity_prunable", "label.prunable_zeros"),
        _share("sparsity_non_embedding", "column.sparsity_non_embedding"),
        _share("sparsity_model", "column.sparsity_model"),
        _count("dense_bytes", "column.dense_bytes", optional=True),
        _count("csr_bytes", "column.csr_bytes", optional=True),
        _count("csr_flops_per_token", "column.csr_flops_per_token", optional=True),
        _count("uncertainty", "column.uncertainty"),
        _text("scope", "column.scope", among=SCOPES),
        _text("name", "column.name"),
        _maybe("bytes", "label.bytes"),
        _number("ratio", "label.bytes_ratio"),
        _share("break_even", "column.break_even"),
        Column("lossless", "boolean", title="column.lossless", optional=True),
        _text("parameter", "column.parameter"),
        _maybe("expert", "kind.expert"),
        _count("rows", "column.rows"),
        _share("expected_sparsity", "column.expected_sparsity"),
        _number("mean_abs", "column.mean_abs"),
        _number("std", "column.std"),
        _share("zero_rows", "column.zero_rows"),
        _share("zero_columns", "column.zero_columns"),
        Column("head_sparsity", "shares", 0, 1, "column.head_sparsity", optional=True),
        _text("n_m", "column.n_m", optional=True),
        _share("n_m_share", "column.n_m_compliance"),
        _share("fill_4", "column.fill_4"),
        _share("fill_8", "column.fill_8"),
        _share("fill_16", "column.fill_16"),
        _share("fill_32", "column.fill_32"),
        _maybe("gap_padding", "column.gap_padding"),
        _maybe("tile_padding", "column.tile_padding"),
        _maybe("zstd_bytes", "column.zstd_bytes"),
        _text("zstd_version", "column.zstd_version", optional=True),
        _count("tokens", "label.tokens", low=1),
        _text("cache", "column.cache", optional=True, among=CACHES),
        _text("kernel", "column.kernel"),
        _number("seconds", "column.seconds", low=_PICOSECOND, optional=False),
        _number("seconds_low", "column.seconds_low", low=_PICOSECOND, optional=False),
        _number("seconds_high", "column.seconds_high", low=_PICOSECOND, optional=False),
        _count("measurement", "column.measurement", low=1),
        _count("runs", "column.runs", low=1),
        _number("promised_speedup", "column.promised_speedup"),
        _number("realised_speedup", "label.realised_speed_up", optional=False),
        _number("realised_low", "column.realised_low"),
        _number("realised_high", "column.realised_high"),
        _number("realised_share", "column.realised_share"),
        _text("control", "column.control", optional=True),
        _number("control_low", "column.control_low", low=_PICOSECOND),
        _number("control_high", "column.control_high"),
        _maybe("weight_bytes", "column.weight_bytes"),
        _number("bound_seconds", "column.bound_seconds"),
        _number("bound_share", "column.bound_share"),
        _share("crossover_sparsity", "label.csr_crossover_sparsity"),
        _share("crossover_low", "column.crossover_low"),
        _share("crossover_high", "column.crossover_high"),
        _count("threads", "column.threads", low=1),
        _maybe("cores", "column.cores"),
        _number("others", "column.others"),
        _number("load", "column.load"),
        _number("frequency", "column.frequency"),
        _maybe("cache_bytes", "column.cache_bytes"),
        _number("bandwidth", "column.bandwidth", low=1),
        _text("machine", "column.machine"),
        _number("dense_seconds", "layout.dense", low=_PICOSECOND, optional=False),
        _number("csr_seconds", "layout.csr", low=_PICOSECOND, optional=False),
        _number("speedup", "label.speed_up", optional=False),
        _number("speedup_low", "column.speedup_low"),
        _number("speedup_high", "column.speedup_high"),
        _number("perplexity", "label.perplexity"),
        _number("nll", "explorer.unit_nats_per_token", optional=False),
        _share("top1", "column.top1", optional=False),
        _text("against", "column.against", optional=True),
        _number("kl", "column.kl"),
        _share("agreement", "column.agreement"),
        _share("flips", "column.flips"),
        _text("protocol", "column.protocol", among=tuple(PROTOCOLS)),
        _count("scored", "column.scored", low=1),
        _count("window", "column.window", low=2),
        _count("stride", "column.stride", low=1),
        _text("text", "column.text"),
        _text("text_fingerprint", "column.text_fingerprint"),
        _text("prompt", "column.prompt"),
        _text("continuation", "column.continuation"),
        _text("by", "column.by", among=PARTS),
        _text("part", "label.part"),
        _number("dense_perplexity", "column.dense_perplexity"),
        _number("nll_increase", "column.nll_increase", low=None, optional=False),
        Column("top1_drop", "float64", -1, 1, "column.top1_drop"),
        _share("global_sparsity", "column.global_sparsity", optional=False),
        _text("task", "column.task"),
        _text("metric", "column.metric"),
        _text("filter", "column.filter", optional=True),
        _number("value", "column.value", low=None),
        _number("stderr", "column.stderr"),
        Column("higher_is_better", "boolean", title="column.higher_is_better", optional=True),
        _maybe("n_shot", "column.n_shot"),
        Column("samples", "Int64", 1, title="column.samples", optional=True),
        Column("limited", "boolean", title="column.partial_run", optional=True),
        _text("task_version", "column.task_version", optional=True),
        _text("evaluated_model", "column.evaluated_model", optional=True),
        _text("harness", "column.harness", optional=True),
        _text("harness_version", "column.harness_version", optional=True),
        _text("results_file", "column.results_file", optional=True),
        _text("results_fingerprint", "column.results_fingerprint", optional=True),
        _text("side", "column.side", among=SIDES),
        _text("after_name", "column.after_name", optional=True),
        Column("shape_before", "shape", 0, title="column.shape_before", optional=True),
        Column("shape_after", "shape", 0, title="column.shape_after", optional=True),
        _text("alignment", "column.alignment", among=ALIGNMENTS),
        _share("certainty", "column.certainty"),
        _count("weight_before", "column.weight_before"),
        _count("weight_after", "column.weight_after"),
        _count("zeros_before", "column.zeros_before"),
        _count("zeros_after", "column.zeros_after"),
        _count("compared", "column.compared"),
        _count("kept", "column.kept"),
        _count("revived", "column.revived"),
        _count("new", "column.new"),
        _count("changed", "column.changed"),
        _number("relative_change", "column.relative_change"),
        _number("norm", "column.norm"),
        _share("kept_share", "column.kept_share"),
        _count("surviving", "column.surviving"),
        Column("correlation", "float64", -1, 1, "column.correlation", optional=True),
        _share("iou", "pair.metric_zeros_iou_note"),
        Column("untouched", "bool", title="column.untouched"),
        _text("n_m_before", "column.n_m_before", optional=True),
        _text("n_m_after", "column.n_m_after", optional=True),
        _maybe("kv_cache_before", "column.kv_cache_before"),
        _maybe("kv_cache_after", "column.kv_cache_after"),
        _text("kind", "column.kind", among=KINDS),
        _text("module", "column.module"),
        _maybe("index", "column.index"),
        _count("among", "column.among", low=1),
        _count("weights", "label.weights_removed"),
        _count("parameters", "column.removed_parameters"),
        _text("figure", "column.figure", among=FIGURES),
        _maybe("before", "label.before"),
        _maybe("after", "label.after"),
        Column("removed", "Int64", title="column.removed", optional=True),
        Column("share", "float64", None, 1, "column.removed_share", optional=True),
        _text("of", "label.of_total", among=DENOMINATORS),
        _count("total_before", "column.total_before"),
        _count("total_after", "column.total_after"),
        _share("sparsity_before", "column.sparsity_before"),
        _share("sparsity_itself", "column.sparsity_itself"),
        _share("gone_of_base", "column.gone_of_base"),
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
        "file_bytes expected_rounding_sparsity near_zero_share param_frac tied_to"
    ),
    "groups": _table(f"variant group modules {_SUMMED} sparsity param_frac"),
    "totals": _table(
        f"variant layout asked_sparsity pruned threshold {_SUMMED} prunable_total "
        "prunable_nonzero non_embedding_total non_embedding_nonzero sparsity_prunable "
        "sparsity_non_embedding sparsity_model attention_flops_per_token"
    ),
    "levels": _table("module_name sparsity weight_nonzero uncertainty"),
    # Of the model at one level, see Comparison.at_level.
    "level": _table(
        "module_name block group shape dtype prunable total nonzero weight_total weight_nonzero "
        "row_pointers flops_per_token useful_flops_per_token csr_flops_per_token sparsity "
        "uncertainty dense_bytes csr_bytes"
    ),
    "sweep": _table(
        "sparsity threshold module_name block group total nonzero weight_total weight_nonzero "
        "useful_flops_per_token dense_bytes csr_bytes uncertainty"
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
        f"crossover_sparsity crossover_low crossover_high {_CONDITIONS}"
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
        "task_version evaluated_model harness harness_version results_file results_fingerprint"
    ),
    # Of a pair of checkpoints, see study.pair.
    "pair_models": _table("side model architecture source"),
    "pair_layers": _table(
        "module_name after_name block group prunable shape_before shape_after alignment certainty "
        "weight_before weight_after zeros_before zeros_after compared kept revived new changed "
        "relative_change norm correlation iou untouched n_m_before n_m_after kv_cache_before "
        "kv_cache_after"
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
        "gone_of_base"
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
