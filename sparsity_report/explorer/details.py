"""Text beside the picture: totals, large numbers, the layers in view, and one in detail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.n_m_patterns import pattern_at
from sparsity_report.draw.histogram_rows import about
from sparsity_report.draw.theme import palette, write
from sparsity_report.explorer.base_explorer import Shown
from sparsity_report.explorer.control_state import MASKED_AT_LEVEL, State
from sparsity_report.explorer.view import View, counted
from sparsity_report.report.tables.table_model import (
    COUNT,
    DURATION,
    SHAPE,
    SHARE,
    TIMES,
    Body,
    Column,
    Kind,
    Table,
    kind_of,
    name,
    scaled,
    table_of,
)
from sparsity_report.sparse.shares import zero_share
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.heads_experts import Inner
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words import number_format
from sparsity_report.words.column_titles import head
from sparsity_report.words.display_names import group_name, layout_name, method_name
from sparsity_report.words.sentences import say

LISTED = 200
_LAYOUTS = ("dense", "csr_int32", "csr_int64", "bitmask")
_AS = {"masked": "layout.masked", "csr": "explorer.as_csr"}
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
_VARIANT, _MODULE = name(24), name(70)
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
    """Return the totals of the variants with their colours."""
    size = Column("stored_bytes", head("stored_bytes"), scaled("B"))
    sizes = [size]
    if study.facts.packings():
        held = Column("file_bytes", head("file_bytes"), scaled("B"))
        sizes = [held, size._replace(head=say("column.stored_bytes_unpacked"))]
    columns = (
        Column("variant", head("variant"), _VARIANT),
        Column(
            "sparsity_prunable",
            say("column.prunable"),
            SHARE,
            over=say("explorer.column_sparsity_span"),
        ),
        Column(
            "sparsity_model", say("column.model"), SHARE, over=say("explorer.column_sparsity_span")
        ),
        *sizes,
        Column("flops_per_token", head("flops_per_token"), scaled("")),
    )
    inks = (f"--sx-outline: {ink}; --sx-fill: {fill}" for ink, fill in palette(study).values())
    table = table_of("totals", "", columns, study.totals, "sx-totals")
    return _marked(table, ({"style": ink} for ink in inks))


def shown(state: State) -> Shown:
    """Return the label of the variant or level in view."""
    part = say("explorer.scope_whole_model")
    if state.selection:
        part = say("explorer.scope_selected_layers", n=number_format.count(len(state.selection)))
    if not state.live:
        name = short_name(state.variant)
        return Shown(False, say("label.variant"), say("explorer.shown_variant", name=name), part)
    layout = "masked" if state.variant == MASKED_AT_LEVEL else "csr"
    text = say(
        "explorer.shown_level",
        level=state.sparsity,
        policy=_policy_at(state),
        layout=say(_AS[layout]),
    )
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
    row, is_selection, scaled = view.sums(state), bool(state.selection), number_format.scaled
    figures = [
        Figure(
            say(key),
            number_format.percent(row[share]),
            say("format.part_of_whole", part=scaled(row[zeros]), whole=scaled(row[total])),
        )
        for key, share, zeros, total in zip(
            _ZEROS[is_selection],
            ("sparsity_prunable", "sparsity_model"),
            ("zeros", "model_zeros"),
            ("prunable_total", "total"),
            strict=True,
        )
    ]
    even = view.break_even(state.selection)
    pays = say("explorer.csr_no_break_even")
    if even is not None:
        pays = say("explorer.break_even", share=even)
    dense_bytes = scaled(row["dense_stored_bytes"], "B")
    if view.study.facts.unpacked_dtypes(view.model(state.variant)):
        dense_bytes = say("explorer.dense_bytes_unpacked", whole=dense_bytes)
    costs = (
        ("bytes_ratio", scaled(row["stored_bytes"], "B"), dense_bytes, pays),
        (
            "flops_ratio",
            scaled(row["flops_per_token"]),
            scaled(row["dense_flops_per_token"]),
            say("explorer.flops_theoretical"),
        ),
    )
    for key, (ratio, part, dense, more) in zip(
        _COSTS[is_selection, state.live], costs, strict=True
    ):
        note = say("explorer.card_cost_note", part=part, whole=dense, more=more)
        figures.append(Figure(say(key), number_format.times(row[ratio]), note))
    if not row["uncertainty"]:
        return figures, ""
    slack = number_format.count(row["uncertainty"])
    return figures, say("explorer.interpolation_note", slack=slack, share=row["uncertainty_share"])


def layers(view: View, state: State) -> Reading:
    """Return the table of the layers in view."""
    rows = view.layers(state)
    total, left = rows["weight_total"].sum(), rows["weight_nonzero"].sum(skipna=False)
    which = "explorer.count_selected" if state.selection else "explorer.count_in_view"
    about = (
        say(which, count=number_format.count(len(rows))),
        view.shown(state),
        say("format.count_weights", count=number_format.scaled(total)),
        say("format.share_zeros", share=number_format.percent(zero_share(total, left))),
    )
    more, rows = len(rows) - LISTED, rows.head(LISTED)
    columns = (
        Column("module_name", head("module_name"), _MODULE),
        Column("group", head("group"), Kind(group_name)),
        Column("shape", head("shape"), SHAPE),
        *_counts(scaled("")),
        Column("bytes_ratio", say("column.ratio_to_dense"), TIMES),
    )
    shown = _with_shares(rows).assign(bytes_ratio=counted(rows, "bytes_ratio"))
    if view.figures.is_figure(state.metric):
        columns += (_figure(view, state),)
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
        note = say("explorer.layers_left_out", count=number_format.count(more), code=code)
    return Reading(say("explorer.layers_heading"), " · ".join(about), [], [table], note)


def _figure(view: View, state: State) -> Column:
    """Return the column of a metric that is not a count."""
    kind = view.figures.metrics[state.metric].kind
    return Column("figure", view.figures.name(state.metric), Kind(partial(write, kind=kind)))


def layer(view: View, state: State) -> Reading | None:
    """Return figures and tables of the layer in detail."""
    if (row := view.row(state)) is None:
        return None
    about = (group_name(row["group"]), number_format.shape(row["shape"]), row["dtype"])
    tables = (_variants(view, state), _layouts(view, state), _times(view, state))
    return Reading(
        clip(row["module_name"], 90),
        " · ".join(about),
        _layer_figures(view, state, row),
        [table for table in tables if table.rows],
        "" if view.magnitudes.find(state) else view.magnitudes.why_none(bool(row["prunable"])),
        tuple(_cells(view, state)),
    )


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
        low, high = number_format.percent(min(shares)), number_format.percent(max(shares))
        head = say(title, n=number_format.count(len(shares)), low=low, high=high)
        shown = shares if len(shares) <= _PARTS else ()
        named = [
            (
                say(one, n=str(n), share=number_format.percent(x)),
                number_format.figures(100 * x, ".0f"),
                x,
            )
            for n, x in enumerate(shown)
        ]
        yield Cells(head, len(shares) > _NUMBERED, named)


def _layer_figures(view: View, state: State, row: pd.Series[Any]) -> list[Figure]:
    magnitudes = view.magnitudes
    total, nonzero = row["weight_total"], row["weight_nonzero"]
    held = say(
        "format.part_of_whole_weights",
        part=number_format.count(None if pd.isna(nonzero) else total - nonzero),
        whole=number_format.count(total),
    )
    figures = [Figure(say("metric.zeros"), number_format.percent(zero_share(total, nonzero)), held)]
    if view.figures.is_figure(state.metric):
        value = view.values(state, row.to_frame().T)[0]
        kind = view.figures.metrics[state.metric].kind
        name, note = view.figures.name(state.metric), view.figures.note(state.metric)
        figures.append(Figure(name, write(None if math.isnan(value) else value, kind), note))
    if (expected := magnitudes.expected(state)) is not None:
        why = say("explorer.expected_zeros_note")
        figures.append(Figure(say("column.expected_zeros"), number_format.percent(expected), why))
    if (inner := _inner(view, state)) is not None:
        for key, zeros, size in (
            ("explorer.zero_rows", inner.zero_rows, inner.rows),
            ("explorer.zero_columns", inner.zero_columns, inner.columns),
        ):
            note = say("format.of_whole", whole=number_format.count(size))
            figures.append(Figure(say(key), number_format.count(zeros), note))
    useful = say(
        "explorer.flops_on_nonzeros", count=number_format.scaled(row["useful_flops_per_token"])
    )
    figures.append(
        Figure(head("flops_per_token"), number_format.scaled(row["flops_per_token"]), useful)
    )
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
    columns = (Column("variant", head("variant"), _VARIANT), *_counts(COUNT))
    marks = ({"class": "is-detail"} if v == state.variant else {} for v in rows["variant"])
    return _marked(table_of("variants", "", columns, _with_shares(rows)), marks)


def _layouts(view: View, state: State) -> Table:
    """Return the bytes of the layer's matrices by layout."""
    columns = (
        Column("layout", say("column.stored_as"), Kind(layout_name)),
        Column("bytes", say("explorer.column_bytes"), COUNT),
        Column("ratio", say("column.ratio_to_dense"), TIMES),
    )
    sizes = view.layouts(state).reindex(_LAYOUTS)[["bytes", "ratio"]].dropna()
    return table_of("layouts", "", columns, sizes.rename_axis("layout").reset_index())


def _times(view: View, state: State) -> Table:
    """Return the measured times of layers of this shape, out × in."""
    columns = (
        Column("variant", say("explorer.column_measured_variant"), _VARIANT),
        Column("tokens", head("tokens"), COUNT),
        Column("cache", say("explorer.column_weights"), kind_of("cache")),
        Column("seconds", say("explorer.column_time"), DURATION),
    )
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


def _counts(kind: Kind) -> tuple[Column, ...]:
    """Return the columns of layers in every table; sparsity is that of weights."""
    return (
        Column("share", say("metric.zeros"), SHARE),
        Column("weight_nonzero", head("nonzero"), kind),
        Column("flops_per_token", say("explorer.column_flops"), scaled("")),
        Column("stored_bytes", say("explorer.column_bytes"), scaled("B")),
    )


def _with_shares(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(share=counted(rows, "sparsity"))


def _marked(table: Table, marks: Iterable[Mapping[str, str]]) -> Table:
    """Return a table with attributes of HTML for its rows."""
    rows = (row._replace(attributes=mark) for row, mark in zip(table.rows, marks, strict=True))
    return replace(table, bodies=(Body(tuple(rows)),))
