"""The columns of every table, declared once: names, types, bounds, formats and labels.

Tables are made, read and checked by :data:`TABLES`, and the JSON Schema of a saved study follows
from it. Tables for readers, axes of charts, and metrics of the viewer have the formats and labels
of :data:`COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.errors import writable
from sparsity_report.pairing.alignment import ALIGNMENTS
from sparsity_report.pairing.removed import KINDS
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.words import value_formats as formats
from sparsity_report.words.display_names import head
from sparsity_report.words.value_formats import Format

BLOCKS = (4, 8, 16, 32)
LAYOUTS = (
    *("file", "dense", "csr_int32", "csr_int64"),
    *(f"bsr_{size}" for size in BLOCKS),
    *("bitmask", "2:4"),
)
SCOPES = ("layer", "group", "prunable", "model")
# Sources of the weights of a timed layer.
CACHES = ("in cache", "out of cache")
PARTS = ("block", "group", "layer")
# Protocols of perplexity: tokens per window (None: as many as the model accepts) and the largest
# number of windows. The sliding protocol is for any text, and its windows overlap.
SLIDING = "sliding"
PROTOCOLS: Mapping[str, tuple[int | None, int | None]] = {
    SLIDING: (None, None),
    "wikitext2-2048": (2048, None),
    "wikitext2-max": (None, None),
    "c4-256x2048": (2048, 256),
}
VERSION = 3
CONVENTIONS = ("standard", "notebook")
# Tables of measurements; tasks are run by other programs.
MEASURED = ("latency", "quality", "sensitivity", "continuations", "tasks", "experts")
# The sides of two checkpoints, and the figures that are summed.
SIDES = ("before", "after")
FIGURES = (
    *("prunable_weights", "parameters", "active_parameters"),
    *("flops_per_token", "stored_bytes", "file_bytes"),
)
DENOMINATORS = ("prunable", "non_embedding", "model")
# Tables of a study of two checkpoints, and those that follow from them.
MATCHED, CHANGED = ("matches", "removed"), ("survival", "changes")
# Tables of a study that may be null, besides its levels and those of two checkpoints.
OPTIONAL = ("patterns", *MEASURED, "history")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
        ``column.<name>`` is the key of its label in the catalogue.
    dtype : str
        ``"text"``, ``"int64"``, ``"Int64"``, ``"float64"``, ``"bool"``, ``"boolean"``, ``"shape"``
        (a tuple of sizes), ``"counts"``, ``"sums"`` (tuples of numbers) or ``"shares"`` (a tuple of
        fractions of 1). ``"int64"`` becomes ``Int64`` where an optional cell is null.
    low, high : float or None
        Smallest and largest number.
    optional : bool
        True if a cell may be null, which means unknown.
    among : tuple of str
        The only texts allowed; any text if empty.
    format : Format
        Text of a cell, unit, and notation on axes.
    is_metric : bool
        True for a metric of the viewer.
    ratio : tuple of str
        Amount and size of a metric that is a ratio of sums; empty for a sum.
    text : str
        A label for a table whose columns have names from a model.
    """

    name: str
    dtype: str = "int64"
    low: float | None = None
    high: float | None = None
    optional: bool = False
    among: tuple[str, ...] = ()
    format: Format = formats.COUNT
    is_metric: bool = False
    ratio: tuple[str, ...] = ()
    text: str = ""

    @property
    def label(self) -> str:
        """Head of the column in tables, and title of its axis in charts and in the viewer."""
        return self.text or head(self.name)


def _columns(dtype: str, names: str, /, form: Format = formats.COUNT, **alike: Any) -> list[Column]:
    """Return columns that differ only by name."""
    return [Column(name, dtype, format=form, **alike) for name in names.split()]


# A cell of each type in JSON: in words, in a JSON Schema, as Python reads it.
CELL_KINDS: Mapping[str, tuple[str, str, set[type]]] = {
    "text": ("text", "string", {str}),
    **dict.fromkeys(("int64", "Int64"), ("a whole number", "integer", {int})),
    "float64": ("a number", "number", {int, float}),
    **dict.fromkeys(("bool", "boolean"), ("true or false", "boolean", {bool})),
    "shape": ("one", "array", {list}),
    "shares": ("a list of shares", "array", {list}),
    "counts": ("a list of whole numbers", "array", {list}),
    "sums": ("a list of numbers", "array", {list}),
}
# The type of the items of a list.
ITEMS = {"shape": "int64", "counts": "int64", "shares": "float64", "sums": "float64"}
# A time is not zero.
_PICOSECOND = 1e-12
_NATS = formats.figures("+.4f", "nats")
_SHARES: Mapping[str, Any] = {"low": 0, "high": 1, "optional": True}
_POSITIVE: Mapping[str, Any] = {"low": 0, "optional": True}
# By name. A name means the same in every table; tables may change its type.
COLUMNS = {
    column.name: column
    for column in (
        # Metrics of the viewer, in its order; not all of them are columns of a table.
        *_columns("float64", "sparsity", formats.SHARE, is_metric=True,
                  ratio=("zeros", "weight_total"), **_SHARES),
        *_columns("float64", "deviation", formats.OWN, is_metric=True,
                  ratio=("squares", "weight_total")),
        Column("total", low=0, is_metric=True),
        *_columns("int64", "nonzero flops_per_token", is_metric=True, **_POSITIVE),
        *_columns("int64", "stored_bytes", formats.BYTES, is_metric=True, **_POSITIVE),
        *_columns("float64", "bytes_ratio", formats.MULTIPLE, is_metric=True,
                  ratio=("stored_bytes", "bytes_before")),
        *_columns("float64", "difference", formats.POINTS, is_metric=True),
        *_columns("float64", "sensitivity", _NATS, is_metric=True),
        *_columns("text", """
            variant name kernel machine text prompt continuation part metric module
        """, formats.NAME),
        *_columns("text", """
            basis basis_fingerprint packing tied_to n_m control against filter task_version harness
            harness_version documents_fingerprint targets_fingerprint prompts_fingerprint
            outcomes after_name n_m_before n_m_after tokens_fingerprint
        """, formats.NAME, optional=True),
        *_columns("text", "fingerprint text_fingerprint weights_fingerprint", formats.CODE),
        *_columns("text", "results_fingerprint", formats.CODE, optional=True),
        *_columns("text", "model architecture module_name parameter policy",
                  formats.name_format(80)),
        *_columns("text", "source task", formats.name_format(200)),
        *_columns("text", "evaluated_model results_file", formats.name_format(200), optional=True),
        *_columns("text", "dtype pair outcome", formats.WORDS),
        *_columns("text", "layout", formats.LAYOUT),
        *_columns("text", "method expert_score", formats.METHOD, optional=True),
        Column("group", "text", among=GROUPS, format=formats.GROUP),
        Column("scope", "text", among=SCOPES, format=formats.NAME),
        Column("cache", "text", optional=True, among=CACHES, format=formats.name_of("cache")),
        Column("protocol", "text", among=tuple(PROTOCOLS), format=formats.NAME),
        Column("by", "text", among=PARTS, format=formats.NAME),
        Column("alignment", "text", among=ALIGNMENTS, format=formats.name_of("alignment")),
        Column("kind", "text", among=KINDS, format=formats.name_of("kind")),
        Column("figure", "text", among=FIGURES, format=formats.NAME),
        *_columns("int64", """
            modules weight_total active_total prunable_total non_embedding_total
            uncertainty rows weight_before weight_after zeros_before zeros_after compared kept
            revived new changed surviving weights parameters step
        """, low=0),
        *_columns("int64", """
            weight_nonzero useful_flops_per_token flops_per_sequence
            prunable_nonzero non_embedding_nonzero dense_bytes csr_bytes csr_flops_per_token
        """, **_POSITIVE),
        *_columns("int64", "tokens runs threads scored stride among", low=1),
        *_columns("int64", "window", low=2),
        *_columns("Int64", """
            pruned newly_zeroed attention_width attention_flops_per_token row_pointers columns
            file_bytes bytes expert weight_bytes cores
            cache_bytes n_shot index before after at_threshold spared filled
        """, **_POSITIVE),
        *_columns("Int64", "block", formats.WORDS, **_POSITIVE),
        *_columns("Int64", "basis_windows basis_window samples span", low=1, optional=True),
        *_columns("Int64", "removed", optional=True),
        *_columns("float64", """
            asked_sparsity expected_rounding_sparsity near_zero_share param_frac
            sparsity_prunable sparsity_non_embedding sparsity_model break_even expected_sparsity
            zero_rows zero_columns n_m_share n_m_kept fill_4 fill_8 fill_16 fill_32
            row_std column_std equal_neighbors
            crossover_low crossover_high certainty kept_share iou
        """, formats.SHARE, **_SHARES),
        *_columns("float64", "crossover_sparsity", formats.share(0), **_SHARES),
        *_columns("float64", "agreement flips", formats.share(2), **_SHARES),
        *_columns("float64", """
            uses realised_share control_high others load
            dense_perplexity stderr norm gate_mass output_norm saliency least_abs
        """, **_POSITIVE),
        *_columns("float64", "threshold", formats.THRESHOLD, **_POSITIVE),
        *_columns("float64", "ratio", formats.MULTIPLE, **_POSITIVE),
        *_columns("float64", """
            promised_speedup realised_low realised_high
        """, formats.TIMES, **_POSITIVE),
        *_columns("float64", "mean_abs std kl", formats.figures("#.3g"), **_POSITIVE),
        *_columns("float64", "perplexity", formats.perplexity(None), **_POSITIVE),
        *_columns("float64", "relative_change", formats.SHARE, **_POSITIVE),
        *_columns("float64", "seconds", formats.DURATION, low=_PICOSECOND),
        *_columns("float64", "seconds_low seconds_high", low=_PICOSECOND),
        *_columns("float64", "nll", low=0),
        *_columns("float64", "realised_speedup", formats.TIMES, low=0),
        *_columns("float64", "control_low", low=_PICOSECOND, optional=True),
        *_columns("float64", "top1 global_sparsity", formats.SHARE, low=0, high=1),
        *_columns("float64", "nll_increase increase_low increase_high", _NATS),
        *_columns("float64", "top1_drop", formats.POINTS, low=-1, high=1),
        *_columns("float64", "value", optional=True),
        *_columns("float64", "correlation", formats.figures(".4f"), low=-1, high=1, optional=True),
        *_columns("float64", "share", formats.SHARE, high=1, optional=True),
        *_columns("shares", "head_sparsity", formats.SHARE, **_SHARES),
        *_columns("counts", "span_hits span_agreed", **_POSITIVE),
        *_columns("sums", "span_nll span_kl", **_POSITIVE),
        *_columns("sums", "span_increase", optional=True),
        *_columns("shape", "shape", formats.SHAPE, low=0),
        *_columns("shape", "shape_before shape_after", formats.SHAPE, **_POSITIVE),
        *_columns("bool", "prunable untouched is_kept"),
        *_columns("boolean", "runs_as_csr higher_is_better limited", optional=True),
        *_columns("boolean", "lossless", optional=True),
        # Columns of tables for readers, and metrics of two checkpoints, only.
        *_columns("float64", "moved", formats.POINTS),
        *_columns("float64", "gone_of_base zeros revived_share new_share", formats.SHARE),
        *_columns("float64", "accuracy", formats.SCORE),
        *_columns("float64", "ratio_to_dense", formats.MULTIPLE),
        *_columns("float64", "perplexity_ratio", formats.figures(".3f")),
        *_columns("float64", "perplexity_difference", formats.figures(",.2f")),
        *_columns("float64", "bits_per_weight", formats.figures(".2f")),
        *_columns("float64", "p", formats.P_VALUE),
        *_columns("float64", "interval", formats.interval(formats.POINTS)),
        *_columns("float64", "realised perplexity_vs_dense", formats.REALISED),
        *_columns("float64", "control_span", formats.SPAN),
        *_columns("float64", "crossover", formats.CROSSOVER),
        *_columns("float64", "quartiles", formats.QUARTILES),
        *_columns("int64", "windows", formats.SIZES),
    )
}  # fmt: skip
#: Figures of layers that the map of the viewer shows, besides those of the user.
METRICS = {name: column for name, column in COLUMNS.items() if column.is_metric}


def columns_of(
    names: str, differing: Mapping[str, Format] | None = None, /, **texts: str
) -> list[Column]:
    """Return columns by name; a name that the table of columns lacks is that of a count.

    Parameters
    ----------
    names : str
        Separated by spaces.
    differing : mapping, optional
        Formats other than those of the columns.
    **texts
        Labels other than those of the columns.

    Examples
    --------
    >>> [column.label for column in columns_of("stored_bytes rank")]
    ['Stored bytes', 'Rank']
    """
    columns = (COLUMNS.get(name, Column(name)) for name in names.split())
    return [
        replace(c, format=(differing or {}).get(c.name, c.format), text=texts.get(c.name, c.text))
        for c in columns
    ]


_SUMMED = (
    "total nonzero weight_total weight_nonzero flops_per_token useful_flops_per_token "
    "flops_per_sequence active_total stored_bytes file_bytes"
)
SUMMED = tuple(_SUMMED.split())
# The machine of a measurement and its state meanwhile.
_CONDITIONS = "threads cores others load cache_bytes machine"


def _table(names: str, /, **differing: Mapping[str, Any]) -> Mapping[str, Column]:
    """Return the columns of a table by name, some with changed attributes."""
    return {name: replace(COLUMNS[name], **differing.get(name, {})) for name in names.split()}


_NULLABLE: Mapping[str, Any] = {"dtype": "Int64", "optional": True}
_MAYBE: Mapping[str, Any] = {"optional": True}
#: Columns by name, in order, of each table.
TABLES: Mapping[str, Mapping[str, Column]] = {
    "variants": _table(
        "variant layout model architecture source fingerprint method asked_sparsity zeros_before "
        "pruned threshold attention_width attention_flops_per_token basis basis_fingerprint "
        "basis_windows basis_window at_threshold spared expert_score",
        layout={"among": ("dense", "masked", "csr")},
        zeros_before=_NULLABLE,
    ),
    "layers": _table(
        "variant module_name block group shape dtype packing layout total nonzero sparsity "
        "prunable runs_as_csr weight_total weight_nonzero row_pointers columns uses "
        "flops_per_token useful_flops_per_token flops_per_sequence active_total stored_bytes "
        "file_bytes expected_rounding_sparsity near_zero_share param_frac tied_to"
    ),
    "groups": _table(f"variant group modules {_SUMMED} sparsity param_frac"),
    "totals": _table(
        "variant layout asked_sparsity zeros_before newly_zeroed pruned threshold "
        f"{_SUMMED} prunable_total "
        "prunable_nonzero non_embedding_total non_embedding_nonzero sparsity_prunable "
        "sparsity_non_embedding sparsity_model attention_flops_per_token",
        zeros_before=_NULLABLE,
    ),
    "levels": _table("module_name sparsity weight_nonzero uncertainty"),
    # The model at one level, see Study.at_level.
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
        "expected_sparsity mean_abs std least_abs zero_rows zero_columns head_sparsity n_m "
        "n_m_share " + " ".join(f"fill_{size}" for size in BLOCKS) + " "
        "row_std column_std equal_neighbors",
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
        "realised_share control control_low control_high weight_bytes "
        f"crossover_sparsity crossover_low crossover_high {_CONDITIONS}",
        modules=_NULLABLE,
        dtype=_MAYBE,
        kernel=_MAYBE,
    ),
    "quality": _table(
        "variant layout model method sparsity perplexity nll top1 against kl agreement flips "
        "protocol scored tokens window stride dtype text text_fingerprint tokens_fingerprint "
        "span span_nll span_hits span_kl span_agreed",
        model=_MAYBE,
    ),
    "sensitivity": _table(
        "by part modules weight_total pruned sparsity perplexity dense_perplexity "
        "nll_increase top1 top1_drop threshold std global_sparsity protocol window stride dtype "
        "text text_fingerprint tokens_fingerprint scored span span_increase",
        scored=_NULLABLE,
        pruned={"dtype": "int64", "optional": False},
    ),
    "continuations": _table("variant prompt continuation"),
    "tasks": _table(
        "variant task metric filter value stderr higher_is_better n_shot samples limited "
        "task_version evaluated_model harness harness_version results_file results_fingerprint "
        "documents_fingerprint targets_fingerprint prompts_fingerprint outcomes"
    ),
    # Use of experts by the router on a text; the variant keeps some of them.
    "experts": _table(
        "variant module_name block expert is_kept tokens gate_mass output_norm saliency",
        expert={"dtype": "int64", "optional": False},
        tokens={**_NULLABLE, "low": 0},
    ),
    # Zeros of a model over training, see Study.history.
    "history": _table(
        "step module_name group nonzero zeros useful_flops_per_token kept revived new n_m n_m_kept "
        "filled",
        zeros={**_NULLABLE, "low": 0, "format": formats.COUNT},
        kept=_NULLABLE,
        revived=_NULLABLE,
        new=_NULLABLE,
    ),
    # Two checkpoints, see Study.matches.
    "matches": _table(
        "module_name after_name block group prunable shape_before shape_after alignment certainty "
        "weight_before weight_after zeros_before zeros_after compared kept revived new changed "
        "relative_change norm correlation iou untouched n_m_before n_m_after",
        changed=_NULLABLE,
        untouched={"dtype": "boolean", "optional": True},
    ),
    "removed": _table(
        "kind module index among block certainty weights parameters bytes flops_per_token"
    ),
    "survival": _table(
        "group modules untouched compared zeros_before zeros_after kept revived new kept_share iou "
        "surviving changed relative_change",
        group=_MAYBE,
        untouched={"dtype": "int64", "low": 0, "optional": True},
        changed=_MAYBE,
    ),
    "changes": _table("group figure before after removed share", group=_MAYBE),
}


def typed(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with the columns of a table, in order and typed.

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
    columns = TABLES[table].values()
    for column in columns:
        if not column.optional:
            refuse(table, ~pd.isna(frame[column.name].array), f"{column.name}: is missing")
    cells = {column.name: _cast(frame[column.name], column) for column in columns}
    # Without an index pandas aligns every column.
    return pd.DataFrame(cells, index=frame.index)


def check(table: str, frame: pd.DataFrame) -> None:
    """Refuse cells outside the bounds of their column.

    Raises
    ------
    ValueError
        Names the first bad row and its column.
    """
    for column in TABLES[table].values():
        cells, among = frame[column.name], list(column.among)
        if among:
            good = cells.isna() | cells.isin(among)
            refuse(table, good, f"{column.name}: is not one of {', '.join(among)}")
        if column.low is None:
            continue
        low, high = column.low, np.inf if column.high is None else column.high
        bounds = f"less than {low:g}" if high == np.inf else f"not between {low:g} and {high:g}"
        if column.dtype in ITEMS:
            *_, types = CELL_KINDS[ITEMS[column.dtype]]
            inside: Any = [
                all(type(item) in types and low <= item <= high for item in cell or ())
                for cell in cells
            ]
        else:
            inside = (cells.isna() | cells.between(low, high)).fillna(True)
        refuse(table, inside, f"{column.name}: is {bounds}")


def read(table: str, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table from its columns and rows in JSON, typed and checked.

    Columns after those of the schema are left out.

    Raises
    ------
    ValueError
        The columns are not those of the schema, or a cell does not fit.
    """
    columns, names = [*TABLES[table].values()], data["columns"]
    # Other releases of this format write fewer or more columns at the end.
    known = names[: len(columns)]
    later = [column.name for column in columns[len(known) :] if column.optional]
    if [*known, *later] != [*TABLES[table]]:
        raise ValueError(f"{table}: columns {names}")
    columns = columns[: len(known)]
    # pandas would fill short rows with nulls.
    for place, row in enumerate(data["rows"]):
        if not isinstance(row, list) or len(row) != len(names):
            wrong = f"does not have {len(names)} cells: {str(row)[:60]}"
            raise ValueError(f"{table}, row {place} {wrong}")
    rows = [row[: len(known)] for row in data["rows"]]
    for column, cells in zip(columns, zip(*rows, strict=True), strict=False):
        kind, _, types = CELL_KINDS[column.dtype]
        if not set(map(type, cells)) <= {*types, type(None)}:
            good = [cell is None or type(cell) in types for cell in cells]
            refuse(table, good, f"{column.name}: is not {kind}")
    frame = pd.DataFrame(rows, columns=list(known))
    frame = typed(table, frame.assign(**dict.fromkeys(later)))
    check(table, frame)
    return frame


def plain_table(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Return columns and rows of plain values for JSON; an unknown value is null."""
    columns = [_plain(frame[column]) for column in frame.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return {"columns": list(frame.columns), "rows": rows}


def refuse(table: str, good: Any, wrong: str) -> None:
    """Raise a ValueError that names the first row of a table that is not good."""
    flags = np.asarray(good, dtype=bool)
    if not flags.all():
        raise ValueError(f"{table}, row {int(flags.argmin())}, {wrong}")


def _plain(cells: pd.Series[Any]) -> list[Any]:
    known = cells.astype(object).where(cells.notna(), None)
    return [list(cell) if isinstance(cell, tuple) else cell for cell in known.tolist()]


def _cast(cells: pd.Series[Any], column: Column) -> pd.Series[Any]:
    if column.dtype == "text":
        if not "".join(map(str, cells.unique())).isascii():
            cells = cells.map(lambda text: writable(text) if isinstance(text, str) else text)
        if not column.optional:
            return cells.astype(str)
        # A null in a string column of pandas would become NaN.
        texts = cells.to_numpy(object, copy=True)
        texts[pd.isna(cells.array)] = None
        return pd.Series(texts, cells.index, dtype=object)
    if column.dtype in ITEMS:
        tuples = [tuple(cell) if isinstance(cell, list | tuple) else None for cell in cells]
        return pd.Series(tuples, index=cells.index, dtype=object)
    if cells.dtype.name == column.dtype != "float64":
        return cells
    try:
        if column.dtype == "float64":
            known = cells.astype("Float64") if cells.dtype == object else cells
            numbers = known.to_numpy(float, na_value=np.nan)
            # JSON has no infinity, and an infinite figure is unknown.
            finite = np.where(np.isinf(numbers), np.nan, numbers)
            return pd.Series(finite, index=cells.index)
        if column.dtype == "int64" and column.optional:
            known = cells.astype("Int64")
            return known if known.hasnans else known.astype("int64")
        return cells.astype(column.dtype)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{column.name}: {error}") from error
