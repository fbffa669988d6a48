"""Text beside the picture: totals, large numbers, the layers in view, and one in detail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.n_m_patterns import pattern_at
from sparsity_report.draw.histogram_rows import about
from sparsity_report.draw.theme import palette, write
from sparsity_report.explorer.box_explorer import Shown
from sparsity_report.explorer.control_state import State
from sparsity_report.explorer.view import View, counted
from sparsity_report.report.tables import table_model
from sparsity_report.report.tables.column_heads import columns_of
from sparsity_report.report.tables.table_model import Column, Kind, Table, table_of
from sparsity_report.sparse.shares import zero_share
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.heads_experts import Inner
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words import number_format
from sparsity_report.words.display_names import group_name, head, method_name
from sparsity_report.words.number_format import count, percent, scaled
from sparsity_report.words.sentences import say

LISTED = 200
_LAYOUTS = ("dense", "csr_int32", "csr_int64", "bitmask")
# Keys of the large numbers: zeros of the model or the selection, then costs, by whether there is a
# selection and whether a level is in view.
_ZEROS = {
    False: ("explorer.card_sparsity_prunable", "explorer.card_sparsity_model"),
    True: ("explorer.card_sparsity_selected_prunable", "explorer.card_sparsity_selected_layers"),
}
_COSTS = {
    (False, True): ("explorer.card_bytes_csr", "explorer.card_flops_csr"),
    (True, True): ("explorer.card_selection_bytes_csr", "explorer.card_selection_flops_csr"),
    (False, False): ("explorer.card_bytes_ratio", "explorer.card_flops_ratio"),
    (True, False): ("explorer.card_selection_bytes_ratio", "explorer.card_selection_flops_ratio"),
}
# Formats of columns that differ from those of other tables, and keys of their heads.
_KINDS = {
    "variant": table_model.name(24),
    "module_name": table_model.name(70),
    **dict.fromkeys(("file_bytes", "stored_bytes"), table_model.scaled("B")),
    "flops_per_token": table_model.scaled(""),
    "bytes_ratio": table_model.TIMES,
}
_HEADS = {
    "share": "metric.zeros",
    "flops_per_token": "explorer.column_flops",
    "stored_bytes": "explorer.column_bytes",
    "bytes": "explorer.column_bytes",
    "bytes_ratio": "column.ratio_to_dense",
}
_COLUMNS = "share weight_nonzero flops_per_token stored_bytes"
# Most parts of a matrix with a cell each, and with a number each.
_PARTS, _NUMBERED = 1024, 64

# Keys for one head or expert, and for all of them.
_INSIDE = (
    ("explorer.head_zeros", "explorer.heads_zeros_range"),
    ("explorer.expert_zeros", "explorer.experts_zeros_range"),
)


class Figure(NamedTuple):
    """A number with its name and a note."""

    name: str
    text: str
    note: str


class Cells(NamedTuple):
    """Heads or experts of a layer: a title, and label, text and sparsity of each."""

    title: str
    small: bool
    parts: list[tuple[str, str, float]]


class Reading(NamedTuple):
    """A heading with figures and tables, and a closing note."""

    heading: str
    about: str
    figures: list[Figure]
    tables: list[Table]
    note: str
    cells: tuple[Cells, ...] = ()


def totals(study: Comparison) -> Table:
    """Return the totals of the variants with their colors."""
    keys = "variant sparsity_prunable sparsity_model stored_bytes flops_per_token"
    heads = {"sparsity_prunable": say("column.prunable"), "sparsity_model": say("column.model")}
    if study.facts.packings():
        keys = keys.replace("stored_bytes", "file_bytes stored_bytes")
        heads["stored_bytes"] = say("column.stored_bytes_unpacked")
    over = say("explorer.column_sparsity_span")
    columns = [
        column._replace(over=over if column.key.startswith("sparsity") else "")
        for column in columns_of(keys, (0,), _KINDS, **heads)
    ]
    inks = (f"--sx-outline: {ink}; --sx-fill: {fill}" for ink, fill in palette(study).values())
    table = table_of("totals", "", columns, study.totals, "sx-totals")
    return _marked(table, ({"style": ink} for ink in inks))


def shown(state: State) -> Shown:
    """Return the label of the variant or level in view."""
    part = say("explorer.scope_whole_model")
    if state.selection:
        part = say("explorer.scope_selected_layers", n=count(len(state.selection)))
    if not state.live:
        name = short_name(state.variant)
        return Shown(False, say("label.variant"), say("explorer.shown_variant", name=name), part)
    key = "layout.masked" if state.masked else "explorer.as_csr"
    policy = _policy_at(state)
    text = say("explorer.shown_level", level=state.sparsity, policy=policy, layout=say(key))
    return Shown(True, say("chart.level_label"), text, part)


def policy_label(policy: str) -> str:
    """Return the name of a pruning policy."""
    if policy.startswith("N:"):
        return say("explorer.n_m_patterns", m=policy[2:])
    return method_name(policy)


def _policy_at(state: State) -> str:
    if state.bounds:
        return method_name(f"{state.policy}, bounded")
    if pattern := pattern_at(state.policy, state.sparsity):
        return say("explorer.n_m_pattern", n=str(pattern.n), m=str(pattern.m))
    return policy_label(state.policy)


def cards(view: View, state: State) -> tuple[list[Figure], str]:
    """Return the large numbers of the selection or the model, and a note on their precision."""
    if not view.policies and state.live:
        return [], ""
    row, is_selection = view.sums(state), bool(state.selection)
    zeros = (
        ("sparsity_prunable", "zeros", "prunable_total"), ("sparsity_model", "model_zeros", "total")
    )  # fmt: skip
    figures = []
    for key, (share, part, total) in zip(_ZEROS[is_selection], zeros, strict=True):
        note = say("format.part_of_whole", part=scaled(row[part]), whole=scaled(row[total]))
        figures.append(Figure(say(key), percent(row[share]), note))
    even = view.break_even(state.selection)
    pays = say("explorer.csr_no_break_even")
    if even is not None:
        pays = say("explorer.break_even", share=even)
    dense_bytes = scaled(row["dense_stored_bytes"], "B")
    if view.study.facts.unpacked_dtypes(view.model(state.variant)):
        dense_bytes = say("explorer.dense_bytes_unpacked", whole=dense_bytes)
    flops, dense_flops = (scaled(row[f"{kind}flops_per_token"]) for kind in ("", "dense_"))
    costs = (
        ("bytes_ratio", scaled(row["stored_bytes"], "B"), dense_bytes, pays),
        ("flops_ratio", flops, dense_flops, say("explorer.flops_theoretical")),
    )
    keys = _COSTS[is_selection, state.live]
    for key, (ratio, part, dense, more) in zip(keys, costs, strict=True):
        note = say("explorer.card_cost_note", part=part, whole=dense, more=more)
        figures.append(Figure(say(key), number_format.times(row[ratio]), note))
    if not row["uncertainty"]:
        return figures, ""
    slack = count(row["uncertainty"])
    return figures, say("explorer.interpolation_note", slack=slack, share=row["uncertainty_share"])


def layers(view: View, state: State) -> Reading:
    """Return the table of the layers in view."""
    rows = view.layers(state)
    total, left = rows["weight_total"].sum(), rows["weight_nonzero"].sum(skipna=False)
    which = "explorer.count_selected" if state.selection else "explorer.count_in_view"
    about = (
        say(which, count=count(len(rows))),
        view.shown(state),
        say("format.count_weights", count=scaled(total)),
        say("format.share_zeros", share=percent(zero_share(total, left))),
    )
    more, rows = len(rows) - LISTED, rows.head(LISTED)
    keys = f"module_name group shape {_COLUMNS} bytes_ratio"
    columns = _columns(keys, nonzero=table_model.scaled(""))
    shown = _with_shares(rows).assign(bytes_ratio=counted(rows, "bytes_ratio"))
    if view.figures.is_figure(state.metric):
        kind = Kind(partial(write, kind=view.figures.metrics[state.metric].kind))
        columns.append(Column("figure", view.figures.name(state.metric), kind))
        shown["figure"] = view.values(state, rows)
    places = {module: place for place, module in enumerate(view.names)}
    marks = (
        {"data-row": str(places[module]), "tabindex": "0" if module == state.detail else "-1"}
        | ({"class": "is-detail", "aria-current": "true"} if module == state.detail else {})
        for module in rows["module_name"]
    )
    table = _marked(table_of("layers", "", columns, shown), marks)
    note = ""
    if more > 0:
        code = "explorer.layers()"
        note = say("explorer.layers_left_out", count=count(more), code=code)
    return Reading(say("explorer.layers_heading"), " · ".join(about), [], [table], note)


def layer(view: View, state: State) -> Reading | None:
    """Return figures and tables of the layer in detail."""
    if (row := view.row(state)) is None:
        return None
    about = (group_name(row["group"]), number_format.shape(row["shape"]), row["dtype"])
    tables = (_variants(view, state), _layouts(view, state), _times(view, state))
    note = "" if view.magnitudes.find(state) else view.magnitudes.why_none(bool(row["prunable"]))
    figures, cells = _layer_figures(view, state, row), tuple(_cells(view, state))
    known = [table for table in tables if table.rows]
    return Reading(clip(row["module_name"], 90), " · ".join(about), figures, known, note, cells)


def _inner(view: View, state: State) -> Inner | None:
    """Return the counts within the layer in detail, which variants have and levels do not."""
    if state.live or state.detail is None:
        return None
    return view.study.facts.inner(state.variant, state.detail)


def _cells(view: View, state: State) -> Iterator[Cells]:
    """Yield heads and experts of the layer in detail."""
    inner = _inner(view, state)
    if inner is None:
        return
    for (one, title), shares in zip(_INSIDE, (inner.heads, inner.experts), strict=True):
        if not shares:
            continue
        low, high = percent(min(shares)), percent(max(shares))
        head = say(title, n=count(len(shares)), low=low, high=high)
        shown = shares if len(shares) <= _PARTS else ()
        named = [
            (say(one, n=str(n), share=percent(x)), number_format.figures(100 * x, ".0f"), x)
            for n, x in enumerate(shown)
        ]
        yield Cells(head, len(shares) > _NUMBERED, named)


def _layer_figures(view: View, state: State, row: pd.Series[Any]) -> list[Figure]:
    magnitudes = view.magnitudes
    total, nonzero = row["weight_total"], row["weight_nonzero"]
    zeros = count(None if pd.isna(nonzero) else total - nonzero)
    held = say("format.part_of_whole_weights", part=zeros, whole=count(total))
    figures = [Figure(say("metric.zeros"), percent(zero_share(total, nonzero)), held)]
    if view.figures.is_figure(state.metric):
        value = view.values(state, row.to_frame().T)[0]
        kind = view.figures.metrics[state.metric].kind
        name, note = view.figures.name(state.metric), view.figures.note(state.metric)
        figures.append(Figure(name, write(None if math.isnan(value) else value, kind), note))
    if (expected := magnitudes.expected(state)) is not None:
        why = say("explorer.expected_zeros_note")
        figures.append(Figure(say("column.expected_zeros"), percent(expected), why))
    if (inner := _inner(view, state)) is not None:
        note = say("format.of_whole", whole=count(inner.rows))
        figures.append(Figure(say("explorer.zero_rows"), count(inner.zero_rows), note))
        note = say("format.of_whole", whole=count(inner.columns))
        figures.append(Figure(say("explorer.zero_columns"), count(inner.zero_columns), note))
    useful = say("explorer.flops_on_nonzeros", count=scaled(row["useful_flops_per_token"]))
    figures.append(Figure(head("flops_per_token"), scaled(row["flops_per_token"]), useful))
    threshold = magnitudes.threshold(state)
    if threshold is not None and row["prunable"]:
        why = say("explorer.threshold_note")
        # At a level the threshold is known to a bucket of the histogram, 0.8 % wide.
        text = about(threshold) if state.live else number_format.figures(threshold, ".4g")
        figures.append(Figure(say("explorer.threshold_heading"), text, why))
    return figures


def _variants(view: View, state: State) -> Table:
    """Return the layer in every variant."""
    rows = view.study.layers
    rows = rows[rows["module_name"] == state.detail]
    columns = _columns(f"variant {_COLUMNS}")
    marks = ({"class": "is-detail"} if v == state.variant else {} for v in rows["variant"])
    return _marked(table_of("variants", "", columns, _with_shares(rows)), marks)


def _layouts(view: View, state: State) -> Table:
    """Return the bytes of the layer's matrices by layout."""
    columns = _columns("layout bytes ratio", layout=say("column.stored_as"))
    sizes = view.layouts(state).reindex(_LAYOUTS)[["bytes", "ratio"]].dropna()
    return table_of("layouts", "", columns, sizes.rename_axis("layout").reset_index())


def _times(view: View, state: State) -> Table:
    """Return the measured times of layers of this shape, out × in."""
    variant, cache = say("explorer.column_measured_variant"), say("explorer.column_weights")
    time = say("explorer.column_time")
    columns = _columns("variant tokens cache seconds", variant=variant, cache=cache, seconds=time)
    frame = view.study.latency
    row = view.row(state._replace(variant=view.model(state.variant)))
    if frame is None or row is None or pd.isna(row["row_pointers"]):
        return table_of("times", "", columns, [])
    inputs = row["columns"]
    outputs = row["row_pointers"] - 1 if len(row["shape"]) == 2 else math.prod(row["shape"][1:])
    if len(row["shape"]) == 3:
        outputs //= inputs
    rows = frame[(frame["scope"] == "layer") & (frame["name"] == f"{outputs} × {inputs}")]
    return table_of("times", "", columns, rows)


def _columns(keys: str, nonzero: Kind = table_model.COUNT, **heads: str) -> list[Column]:
    """Return columns of tables about layers; sparsity is that of weights."""
    kinds = _KINDS | {"weight_nonzero": nonzero}
    known = {key: say(title) for key, title in _HEADS.items()} | {"weight_nonzero": head("nonzero")}
    return columns_of(keys, (0,), kinds, **(known | heads))


def _with_shares(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(share=counted(rows, "sparsity"))


def _marked(table: Table, marks: Iterable[Mapping[str, str]]) -> Table:
    """Return a table with attributes of HTML for its rows."""
    rows = (row._replace(attributes=mark) for row, mark in zip(table.rows, marks, strict=True))
    return table.with_rows(list(rows))
