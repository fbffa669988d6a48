"""What is read beside the picture: totals, cards of a level, the layers in view, one closely."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.draw.theme import palette, write
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
from sparsity_report.study.derived.histograms import about
from sparsity_report.study.schema import head
from sparsity_report.words import number_format
from sparsity_report.words.display_names import (
    clip,
    group_name,
    layout_name,
    method_name,
    short_name,
)
from sparsity_report.words.sentences import message, say

LISTED = 200
_LAYOUTS = ("dense", "csr_int32", "csr_int64", "bitmask")
_AS = {"masked": message("masked"), "csr": message("as CSR")}
# Names of the large numbers: of the whole or of what is selected, of a variant or of a level.
_CARDS = {
    (False, True): (
        message("Zeros of the prunable weights"),
        message("Zeros of the whole model"),
        message("Stored bytes as CSR"),
        message("FLOPs as CSR"),
    ),
    (True, True): (
        message("Zeros of the selected prunable weights"),
        message("Zeros of the selected layers"),
        message("Stored bytes of the selection as CSR"),
        message("FLOPs of the selection as CSR"),
    ),
    (False, False): (
        message("Zeros of the prunable weights"),
        message("Zeros of the whole model"),
        message("Stored bytes ÷ dense"),
        message("FLOPs ÷ dense"),
    ),
    (True, False): (
        message("Zeros of the selected prunable weights"),
        message("Zeros of the selected layers"),
        message("Stored bytes of the selection ÷ dense"),
        message("FLOPs of the selection ÷ dense"),
    ),
}
_VARIANT, _MODULE = name(24), name(70)
# Parts of a matrix up to which each is a cell, and up to which each has its number.
_PARTS, _NUMBERED = 1024, 64

# How a head or an expert is called, and all of them together.
_INSIDE = (
    (message("head {n}: {share}"), message("heads: {n}, zeros from {low} to {high}")),
    (message("expert {n}: {share}"), message("experts: {n}, zeros from {low} to {high}")),
)


class Figure(NamedTuple):
    """A number as it is read: its name, the number, and what belongs to it."""

    name: str
    text: str
    note: str


class Cells(NamedTuple):
    """Parts of a matrix as a row of cells: what they are, and each with its share of zeros."""

    title: str
    small: bool
    parts: list[tuple[str, str, float]]


class Reading(NamedTuple):
    """A heading, what stands below it, and a closing note."""

    heading: str
    about: str
    figures: list[Figure]
    tables: list[Table]
    note: str
    cells: tuple[Cells, ...] = ()


def totals(study: Comparison) -> Table:
    """Return the totals of the variants, each with its colours."""
    size = Column("stored_bytes", head("stored_bytes"), scaled("B"))
    sizes = [size]
    if study.facts.packings():
        held = Column("file_bytes", head("file_bytes"), scaled("B"))
        sizes = [held, size._replace(head=say("Stored bytes, unpacked"))]
    columns = (
        Column("variant", head("variant"), _VARIANT),
        Column("sparsity_prunable", say("prunable"), SHARE, over=say("zeros of the")),
        Column("sparsity_model", say("model"), SHARE, over=say("zeros of the")),
        *sizes,
        Column("flops_per_token", head("flops_per_token"), scaled("")),
    )
    inks = (f"--sx-outline: {ink}; --sx-fill: {fill}" for ink, fill in palette(study).values())
    table = table_of("totals", "", columns, study.totals, "sx-totals")
    return _marked(table, ({"style": ink} for ink in inks))


class Shown(NamedTuple):
    """What is shown: a level or a variant, and of how much."""

    live: bool
    kind: str
    text: str
    part: str


def shown(state: State) -> Shown:
    """Return what is shown, so that a level is never taken for a variant."""
    part = say("whole model")
    if state.selection:
        part = say("selected layers: {n}", n=number_format.count(len(state.selection)))
    if not state.live:
        name = short_name(state.variant)
        return Shown(False, say("variant"), say("{name}, in the study", name=name), part)
    layout = "masked" if state.variant == MASKED_AT_LEVEL else "csr"
    text = say(
        "{level:level} by {policy}, {layout}: not in the study",
        level=state.sparsity,
        policy=_policy_at(state),
        layout=say(_AS[layout]),
    )
    return Shown(True, say("level"), text, part)


def policy_label(policy: str) -> str:
    """Return the name of a way to prune to a level, for people."""
    if policy.startswith("N:"):
        return say("patterns N:{m}", m=policy[2:])
    return method_name(policy)


def _policy_at(state: State) -> str:
    if state.bounds:
        return method_name(f"{state.policy}, bounded")
    if not state.policy.startswith("N:"):
        return policy_label(state.policy)
    of = int(state.policy[2:])
    return say("pattern {n}:{m}", n=str(of - round(state.sparsity * of)), m=str(of))


def cards(view: View, state: State) -> tuple[list[Figure], str]:
    """Return what is shown in large numbers, of the selection if any, and how sure they are."""
    facts, row = view.study.facts, view.sums(state)
    if not view.policies and state.live:
        return [], ""

    def zeros(name: str, share: str, part: str, total: str) -> Figure:
        whole = number_format.scaled(row[total])
        note = say("{part} of {whole}", part=number_format.scaled(row[part]), whole=whole)
        return Figure(name, number_format.percent(row[share]), note)

    def cost(name: str, share: str, column: str, unit: str, more: str) -> Figure:
        part, whole = (number_format.scaled(row[key], unit) for key in (column, f"dense_{column}"))
        if column == "stored_bytes" and facts.unpacked_dtypes(view.model(state.variant)):
            whole = say("{whole} unpacked", whole=whole)
        note = say("{part} against {whole}; {more}", part=part, whole=whole, more=more)
        return Figure(name, number_format.times(row[share]), note)

    sure = ""
    if row["uncertainty"]:
        sure = say(
            "The number pruned in all is exact; how it spreads over layers is interpolated, to "
            "within {slack} weights of a layer, {share:percent2} at most. A variant is exact.",
            slack=number_format.count(row["uncertainty"]),
            share=row["uncertainty_share"],
        )
    first, second, third, fourth = _CARDS[bool(state.selection), state.live]
    return [
        zeros(say(first), "sparsity_prunable", "zeros", "prunable_total"),
        zeros(say(second), "sparsity_model", "model_zeros", "total"),
        cost(say(third), "bytes_ratio", "stored_bytes", "B", _pays(view, state)),
        cost(say(fourth), "flops_ratio", "flops_per_token", "", say("on paper")),
    ], sure


def _pays(view: View, state: State) -> str:
    even = view.break_even(state.selection)
    return say("CSR never pays") if even is None else say("pays from {share:percent}", share=even)


def layers(view: View, state: State) -> Reading:
    """Return what is read of the layers in view."""
    rows = view.layers(state)
    total, left = rows["weight_total"].sum(), rows["weight_nonzero"].sum(skipna=False)
    which = message("{count} selected") if state.selection else message("{count} in view")
    about = (
        say(which, count=number_format.count(len(rows))),
        view.shown(state),
        say("{count} weights", count=number_format.scaled(total)),
        say("{share} zeros", share=number_format.percent(zero_share(total, left))),
    )
    more, rows = len(rows) - LISTED, rows.head(LISTED)
    columns = (
        Column("module_name", head("module_name"), _MODULE),
        Column("group", head("group"), Kind(group_name)),
        Column("shape", head("shape"), SHAPE),
        *_counts(scaled("")),
        Column("bytes_ratio", say("÷ dense"), TIMES),
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
        note = say("{count} more: {code} has them all.", count=number_format.count(more), code=code)
    return Reading(say("Layers"), " · ".join(about), [], [table], note)


def _figure(view: View, state: State) -> Column:
    """Return the column of a metric that is no count."""
    kind = view.figures.metrics[state.metric].kind
    return Column("figure", view.figures.name(state.metric), Kind(partial(write, kind=kind)))


def layer(view: View, state: State) -> Reading | None:
    """Return what is read of the layer looked at."""
    if (row := view.row(state)) is None:
        return None
    about = (group_name(row["group"]), number_format.shape(row["shape"]), row["dtype"])
    tables = (_variants(view, state), _layouts(view, state), _times(view, state))
    return Reading(
        clip(row["module_name"], 90),
        " · ".join(about),
        _layer_figures(view, state, row),
        [table for table in tables if table.rows],
        "" if view.magnitudes.of(state) else view.magnitudes.why_none(bool(row["prunable"])),
        tuple(_cells(view, state)),
    )


def _inner(view: View, state: State) -> Inner | None:
    """Return what was counted inside the layer looked at: of variants, not of levels."""
    if state.live or state.detail is None:
        return None
    return view.study.facts.inner(state.variant, state.detail)


def _cells(view: View, state: State) -> Iterator[Cells]:
    """Yield heads and experts of the layer looked at, where they were counted."""
    found = _inner(view, state)
    if found is None:
        return
    for (one, title), shares in zip(_INSIDE, (found.heads, found.experts), strict=True):
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
        "{part} of {whole} weights",
        part=number_format.count(None if pd.isna(nonzero) else total - nonzero),
        whole=number_format.count(total),
    )
    figures = [Figure(say("Zeros"), number_format.percent(zero_share(total, nonzero)), held)]
    if view.figures.is_figure(state.metric):
        value = view.values(state, row.to_frame().T)[0]
        kind = view.figures.metrics[state.metric].kind
        name, note = view.figures.name(state.metric), view.figures.note(state.metric)
        figures.append(Figure(name, write(None if math.isnan(value) else value, kind), note))
    if (expected := magnitudes.expected(state)) is not None:
        why = say("for a Gaussian of the layer's own spread")
        figures.append(Figure(say("Expected"), number_format.percent(expected), why))
    if (inner := _inner(view, state)) is not None:
        for name, gone, whole in (
            (say("Rows of zeros"), inner.zero_rows, inner.rows),
            (say("Columns of zeros"), inner.zero_columns, inner.columns),
        ):
            of = say("of {whole}", whole=number_format.count(whole))
            figures.append(Figure(name, number_format.count(gone), of))
    useful = say("{count} on nonzeros", count=number_format.scaled(row["useful_flops_per_token"]))
    figures.append(
        Figure(head("flops_per_token"), number_format.scaled(row["flops_per_token"]), useful)
    )
    threshold = magnitudes.threshold(state)
    if threshold is not None and row["prunable"]:
        why = say("magnitudes up to it are pruned")
        # At a level it is known to a bucket of the count, 0.8 % wide.
        said = about(threshold) if state.live else number_format.figures(threshold, ".4g")
        figures.append(Figure(say("Threshold"), said, why))
    return figures


def _variants(view: View, state: State) -> Table:
    """Return the layer in every variant."""
    rows = view.study.layers
    rows = rows[rows["module_name"] == state.detail]
    columns = (Column("variant", head("variant"), _VARIANT), *_counts(COUNT))
    marks = ({"class": "is-detail"} if v == state.variant else {} for v in rows["variant"])
    return _marked(table_of("variants", "", columns, _with_shares(rows)), marks)


def _layouts(view: View, state: State) -> Table:
    """Return the bytes of the layer's matrices in some layouts."""
    columns = (
        Column("layout", say("Stored as"), Kind(layout_name)),
        Column("bytes", say("Bytes"), COUNT),
        Column("ratio", say("÷ dense"), TIMES),
    )
    sizes = view.layouts(state).reindex(_LAYOUTS)[["bytes", "ratio"]].dropna()
    return table_of("layouts", "", columns, sizes.rename_axis("layout").reset_index())


def _times(view: View, state: State) -> Table:
    """Return what was measured of layers of this shape, out × in."""
    columns = (
        Column("variant", say("Measured"), _VARIANT),
        Column("tokens", head("tokens"), COUNT),
        Column("cache", say("Weights"), kind_of("cache")),
        Column("seconds", say("Time"), DURATION),
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


def _counts(whole: Kind) -> tuple[Column, ...]:
    """Return the columns that layers have in every table, their zeros among the weights."""
    return (
        Column("share", say("Zeros"), SHARE),
        Column("weight_nonzero", head("nonzero"), whole),
        Column("flops_per_token", say("FLOPs"), scaled("")),
        Column("stored_bytes", say("Bytes"), scaled("B")),
    )


def _with_shares(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(share=counted(rows, "sparsity"))


def _marked(table: Table, marks: Iterable[Mapping[str, str]]) -> Table:
    """Return a table of one body whose rows have attributes of HTML."""
    rows = (row._replace(attributes=mark) for row, mark in zip(table.rows, marks, strict=True))
    return replace(table, bodies=(Body(tuple(rows)),))
