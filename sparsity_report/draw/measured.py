"""What was measured as charts: speed, crossover, perplexity and sensitivity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from sparsity_report.draw import look, marks
from sparsity_report.draw.look import BLUE, INK, MUTED, TEXT_WIDTH, VERMILLION
from sparsity_report.draw.marks import Rows
from sparsity_report.findings.measured import reference
from sparsity_report.study.layers import records
from sparsity_report.study.study import Comparison
from sparsity_report.words.names import clip, distinct_names, method_name, short_name, tokens_name
from sparsity_report.words.numbers import UNKNOWN, figures
from sparsity_report.words.sentences import message, say

_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
# Parts of a model that a chart can name.
_PARTS = 40
# Where on a sparsity axis stands what no sparsity reaches.
_NEVER = 1.2
# Perplexities this many times apart need a logarithmic axis.
_FAR = 8


def speed_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return promised and realised speed-up of the whole forward pass, per variant and tokens.

    Returns
    -------
    altair.LayerChart or None
        None where no latency was measured of a second variant.
    """
    frame = study.latency
    if frame is None or frame.empty:
        return None
    base = reference(frame)
    rows = _speeds(frame[(frame["scope"] == "model") & (frame["variant"] != base)])
    if not rows:
        return None
    machine = f"{frame['machine'].iloc[0]}, {int(frame['threads'].iloc[0])}"
    than = say("times as fast as {base}", base=short_name(base))
    note = f"{than} · {say('whole forward pass; {machine} threads', machine=machine)}"
    said = [f"{row['name']}: {row['label']}" for row in rows]
    layers = _speed_layers(rows, width)
    chart = alt.LayerChart(layer=layers, width=width, height=24 * len(rows))
    described = say("Realised speed-up: {rows}.", rows="; ".join(said))
    return look.fitted(look.titled(chart, say("Promised and realised speed"), note, described))


def _speeds(frame: pd.DataFrame) -> Rows:
    """Return each variant's speed-up, promised and realised, and the quartiles of the latter."""
    rows = []
    for row in records(frame):
        usual, promised = row["seconds"] * row["realised_speedup"], row["promised_speedup"]
        rows.append(
            {
                "name": f"{clip(row['variant'], 30)} · {tokens_name(row['tokens'])}",
                "realised": row["realised_speedup"],
                "low": usual / row["seconds_high"],
                "high": usual / row["seconds_low"],
                "promised": None if pd.isna(promised) else promised,
                "label": look.write(row["realised_speedup"], "ratio"),
            }
        )
    return rows


def _speed_layers(rows: Rows, width: float) -> list[alt.Chart]:
    numbers = [row[key] for row in rows for key in ("low", "high", "promised") if row[key]]
    domain = [min(0.8, min(numbers) / 1.15), max(1.25, max(numbers) * 1.15)]
    x = alt.X(
        "realised:Q",
        title=say("speed-up"),
        scale=alt.Scale(type="log", domain=domain),
        axis=alt.Axis(
            labelExpr=look.tick("ratio"),
            values=look.log_ticks(domain[0], domain[1], few=width < look.NARROW),
            grid=False,
        ),
    )
    names = [say("promised by FLOPs"), say("realised")]
    y = marks.names_axis("name", [row["name"] for row in rows], grid=True)
    realised = alt.Chart(marks.inline([{**row, "mark": names[1]} for row in rows])).encode(y=y)
    known = [{**row, "mark": names[0]} for row in rows if row["promised"]]
    promised = alt.Chart(marks.inline(known)).encode(y=y)
    kinds = {
        "color": alt.Color(
            "mark:N",
            scale=alt.Scale(domain=names, range=[VERMILLION, BLUE]),
            legend=alt.Legend(title=None, orient="top", columns=1 if width < look.NARROW else 2),
        ),
        "shape": alt.Shape("mark:N", scale=alt.Scale(domain=names, range=["diamond", "circle"])),
        "tooltip": marks.tooltips(
            (("name", say("variant")), ("mark", say("speed-up")), ("label", say("realised")))
        ),
    }
    point: dict[str, Any] = {"filled": True, "size": 50, "opacity": 1}
    text = realised.mark_text(align="right", dx=-2, dy=-7, fontSize=8, color=INK)
    one = alt.Chart(marks.inline([{"one": 1}])).mark_rule(color=MUTED)
    return [
        one.encode(x=alt.X("one:Q")),
        promised.mark_rule(color=MUTED, strokeDash=[2, 2]).encode(x=x, x2="promised:Q"),
        realised.mark_rule(color=BLUE, strokeWidth=3).encode(x="low:Q", x2="high:Q"),
        promised.mark_point(**point).encode(x="promised:Q", **kinds),
        realised.mark_point(**point).encode(x=x, **kinds),
        text.encode(x=alt.value("width"), text="label:N"),
    ]


def crossover_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the sparsity from which CSR is faster than dense, per layer shape and tokens.

    Returns
    -------
    altair.LayerChart or None
        None where no crossover was measured.
    """
    frame = study.latency
    if frame is None or frame.empty:
        return None
    layers = frame[(frame["scope"] == "layer") & (frame["variant"] == reference(frame))]
    if layers["crossover_sparsity"].isna().all():
        return None
    never, rows = say("never"), []
    for row in records(layers):
        at, label = _NEVER, never
        if pd.notna(edge := row["crossover_sparsity"]):
            at, label = edge, say("{edge:percent0}", edge=edge)
        tokens = figures(row["tokens"], ",")
        rows.append({"name": row["name"], "tokens": tokens, "at": at, "label": label})
    names = list(dict.fromkeys(layers["name"]))
    counts = [figures(tokens, ",") for tokens in sorted(set(layers["tokens"]))]
    said = [f"{row['name']}, {row['tokens']}: {row['label']}" for row in rows]
    points = _crossover_points(rows, names, counts, never)
    height = (10 * len(counts) + 12) * len(names)
    chart = look.titled(
        alt.LayerChart(layer=[points], width=width, height=height),
        say("Where CSR overtakes dense on this machine"),
        say("layer by shape, out × in; zeros at random"),
        say("Crossover sparsity: {rows}.", rows="; ".join(said)),
    )
    return look.fitted(chart)


def _crossover_points(rows: Rows, names: list[str], counts: list[str], never: str) -> alt.Chart:
    x = marks.share_axis(
        "at",
        say("sparsity from which CSR is faster"),
        [0, _NEVER + 0.04],
        values=[0, 0.2, 0.4, 0.6, 0.8, 1, _NEVER],
        labelOverlap=False,
        labelExpr=f"datum.value > 1 ? {look.quoted(never)} : {look.tick('share')}",
        grid=True,
    )
    legend = alt.Legend(title=say("tokens at a time"), orient="top", titleOrient="left")
    hues, forms = look.cycle(look.HUES, len(counts)), look.cycle(_SHAPES, len(counts))
    points = alt.Chart(marks.inline(rows)).mark_point(filled=True, size=50, opacity=1)
    drawn: alt.Chart = points.encode(
        x=x,
        y=marks.names_axis("name", names, grid=True),
        yOffset=alt.YOffset("tokens:N", scale=alt.Scale(domain=counts, padding=0.5)),
        color=alt.Color("tokens:N", scale=alt.Scale(domain=counts, range=hues), legend=legend),
        shape=alt.Shape("tokens:N", scale=alt.Scale(domain=counts, range=forms), legend=legend),
        tooltip=marks.tooltips(
            (("name", say("shape")), ("tokens", say("tokens")), ("label", say("from")))
        ),
    )
    return drawn


def quality_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return perplexity against sparsity: one named line per policy, model, text and protocol.

    A line starts at its model as it comes, where that was scored. What has no finite perplexity or
    no known sparsity is named under the title.

    Returns
    -------
    altair.LayerChart or None
        None where fewer than two points can be drawn.
    """
    return _drawn(study, _PERPLEXITY, width)


def distance_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the mean KL divergence of dense from variants against sparsity, see quality_chart.

    Returns
    -------
    altair.LayerChart or None
        None where fewer than two points can be drawn.
    """
    return _drawn(study, _KL, width)


class _Figure(NamedTuple):
    """What is drawn against sparsity: a column of quality, and how it is called and written."""

    column: str
    title: str
    axis: str
    said: str
    label: Callable[[Any], str]


def _drawn(study: Comparison, figure: _Figure, width: float) -> alt.LayerChart | None:
    frame = study.quality
    if frame is None or frame.empty:
        return None
    if figure.column == "kl":  # of itself dense is not far, and that is no point of a line
        frame = frame[frame["kl"].notna() & (frame["variant"] != frame["against"])]
    rows = _scored(study, frame, figure)
    drawn = [row for row in rows if row["value"] is not None and row["sparsity"] is not None]
    lines = _lines(drawn)
    if len(drawn) < 2:
        return None
    first = records(frame)[0]
    first["text"] = clip(first["text"])
    notes = [say("{text} ({protocol}): {scored:,} tokens in windows of {window:,}", **first)]
    names = list(dict.fromkeys(row["line"] for row in lines))
    if len(names) == 1:
        notes.insert(0, names[0])
    if left_out := [f"{row['variant']} ({row['label']})" for row in rows if row not in drawn]:
        notes.append(say("not drawn: {names:some}", names=left_out))
    said = [
        f"{row['line']}, {look.write(row['sparsity'], 'share')}: {row['label']}" for row in lines
    ]
    chart = look.titled(
        marks.curve(marks.inline(lines), _quality_shape(drawn, names, width, say(figure.axis))),
        say(figure.title),
        " · ".join(notes),
        say(figure.said, rows="; ".join(said)),
    )
    return look.fitted(chart)


def _scored(study: Comparison, frame: pd.DataFrame, figure: _Figure) -> Rows:
    """Return every row of a study's quality: where it stands and whose it is."""
    variants = study.variants.set_index("variant")
    sources = dict(zip(variants["model"], variants["fingerprint"], strict=True))
    rows = []
    for row in records(frame):
        facts = variants.loc[row["variant"]] if row["variant"] in variants.index else row
        model, method = facts.get("model"), facts.get("method")
        model = row["variant"] if pd.isna(model) else model
        source = facts.get("fingerprint", sources.get(model, model))
        value, sparsity = row[figure.column], row["sparsity"]
        rows.append(
            {
                "source": (source, row["text"], row["protocol"]),
                "model": clip(model),
                "method": None if pd.isna(method) else str(method),
                "text": clip(row["text"]),
                "protocol": row["protocol"],
                "variant": short_name(row["variant"]),
                "sparsity": float(sparsity) if pd.notna(sparsity) else None,
                "value": float(value) if pd.notna(value) and math.isfinite(value) else None,
                "label": figure.label(value),
                "top1": look.write(row["top1"], "share"),
            }
        )
    return rows


def _lines(rows: Rows) -> Rows:
    """Return the rows of each line in order; what nobody pruned begins every line of its model."""
    shared = ("model", "text", "protocol")
    models, texts, protocols = ({row[key] for row in rows} for key in shared)
    policies: dict[Any, dict[str | None, None]] = {}
    for row in sorted(rows, key=lambda row: row["method"] is None):
        known = policies.setdefault(row["source"], {})
        if row["method"] or not known:
            known[row["method"]] = None
    lines = []
    for source, method in [(source, method) for source, ms in policies.items() for method in ms]:
        line = [r for r in rows if r["source"] == source and r["method"] in (method, None)]
        parts = [
            method_name(method) if method else "" if len(models) > 1 else say("as it comes"),
            line[0]["model"] if len(models) > 1 else "",
            line[0]["text"] if len(texts) > 1 else "",
            line[0]["protocol"] if len(protocols) > 1 else "",
        ]
        name = ", ".join(filter(None, parts))
        shown = ("sparsity", "value", "label", "variant", "top1")
        lines += [
            {"line": name, "shown": "", **{key: row[key] for key in shown}}
            for row in sorted(line, key=lambda row: row["sparsity"])
        ]
    if len({row["line"] for row in lines}) == 1:
        # Layouts of one pruning score alike but for rounding: each place is labelled once.
        once = {(round(row["sparsity"], 4), row["label"]): row for row in lines}
        for row in once.values():
            row["shown"] = row["label"]
    return lines


def _quality_shape(rows: Rows, names: list[str], width: float, axis: str) -> marks.Curve:
    low, high = (end(row["value"] for row in rows) for end in (min, max))
    room = high - low or 1
    scale = alt.Scale(domain=[low - room / 8, high + room / 8])
    ticks: list[float] = []
    if low > 0 and high / low > _FAR:
        ends = (low / 1.3, high * 1.3)
        scale, ticks = alt.Scale(type="log", domain=[*ends]), look.log_ticks(*ends)
    right = max(0.1, *(row["sparsity"] for row in rows))
    hues, dashes = look.cycle(look.HUES, len(names)), look.cycle(look.DASHES, len(names))
    return marks.Curve(
        lines=tuple(marks.Line(*line) for line in zip(names, hues, dashes, strict=True)),
        width=width,
        height=200,
        top=high,
        x_title=say("sparsity of the prunable weights"),
        y_title=axis,
        kind="number" if ticks else "plain",
        x_domain=(-0.06 * right, 1.04 * right),
        scale=scale,
        ticks=tuple(ticks),
        points=True,
        columns=max(1, int(width / (40 + 5 * max(map(len, names))))),
        tips=(
            ("line", say("policy")),
            ("variant", say("variant")),
            ("label", axis),
            ("top1", say("first guesses")),
        ),
    )


def sensitivity_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return what pruning each part alone costs, in nats per token.

    Returns
    -------
    altair.LayerChart or None
        None where no sensitivity was measured. Of very many parts those that cost most.
    """
    frame = study.sensitivity
    if frame is None or frame.empty:
        return None
    costs = frame["nll_increase"].astype(float)
    shown = frame.loc[costs.nlargest(_PARTS).index].sort_index()
    names = distinct_names([str(part) for part in shown["part"]], 60)
    rows = [
        {"group": name, "variant": "", "value": cost, "label": figures(cost, "+.3f")}
        for name, cost in zip(names, costs[shown.index].tolist(), strict=True)
    ]
    low, high = min(0.0, *costs[shown.index]), max(1e-3, *costs[shown.index])
    room = (high - low) * 0.14
    shape = marks.Bars(
        groups=tuple(names),
        width=width,
        domain=(low - (room if low < 0 else 0), high + room),
        band=9,
        gap=look.SLIM_GAP,
        axis=say("more nats per token than dense"),
        kind="plain",
        tips=(("group", say("part")), ("label", say("more nats per token than dense"))),
    )
    level, text = float(frame["sparsity"].median()), clip(frame["text"].iloc[0])
    note = say("{level:percent0} of the part; {text}", level=level, text=text)
    if len(rows) < len(frame):
        note += say(", {shown} of {parts} parts", shown=len(rows), parts=len(frame))
    said = [f"{row['group']}: {row['label']}" for row in rows]
    chart = look.titled(
        marks.bars(marks.inline(rows), shape),
        say("What each part costs when pruned alone"),
        note,
        say("Nats per token by part: {rows}.", rows="; ".join(said)),
    )
    return look.fitted(chart)


CHARTS: dict[str, Callable[..., alt.LayerChart | None]] = {
    "speed": speed_chart,
    "crossover": crossover_chart,
    "quality": quality_chart,
    "distance": distance_chart,
    "sensitivity": sensitivity_chart,
}


def _perplexity(value: Any) -> str:
    if pd.isna(value):
        return UNKNOWN
    if value < 10_000:
        return figures(value, ",.1f" if value < 100 else ",.0f")
    return look.write(value, "number")


_PERPLEXITY = _Figure(
    "perplexity",
    message("Perplexity against sparsity"),
    message("perplexity"),
    message("Perplexity by sparsity: {rows}."),
    _perplexity,
)
_KL = _Figure(
    "kl",
    message("Distance from dense against sparsity"),
    message("KL divergence, nats per token"),
    message("Distance from dense by sparsity: {rows}."),
    lambda value: figures(value, "#.3g"),
)
