"""What was measured as Altair charts: speed, crossover, perplexity and sensitivity."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import charts
from sparsity_report.draw.charts import BLACK, BLUE, GREEN, INK, MUTED, TEXT_WIDTH, VERMILLION
from sparsity_report.findings.measured import reference, tokens_name
from sparsity_report.study.layers import records
from sparsity_report.study.study import Comparison
from sparsity_report.words.sentences import number, percent, say, scaled

_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
_HUES = (BLUE, VERMILLION, BLACK, GREEN, "#CC79A7", "#E69F00")
# Parts of a model that a chart can name.
_PARTS = 40
# Where on a sparsity axis stands what no sparsity reaches.
_NEVER = 1.12


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
    own = frame[(frame["scope"] == "model") & (frame["variant"] != base)]
    if own.empty:
        return None
    rows: list[dict[str, Any]] = []
    for row in records(own):
        variant = charts._clip(row["variant"], 30)
        usual = row["seconds"] * row["realised_speedup"]
        promised = row["promised_speedup"]
        rows.append(
            {
                "name": f"{variant} · {tokens_name(row['tokens'])}",
                "realised": row["realised_speedup"],
                "low": usual / row["seconds_high"],
                "high": usual / row["seconds_low"],
                "promised": None if pd.isna(promised) else promised,
                "label": f"{number(row['realised_speedup'], '.2f')} ×",
            }
        )
    numbers = [row[key] for row in rows for key in ("low", "high", "promised") if row[key]]
    domain = [min(0.8, min(numbers) / 1.15), max(1.25, max(numbers) * 1.15)]
    title = say("times as fast as {base}", base=charts._clip(base, 40))
    x = alt.X(
        "realised:Q",
        title=title,
        scale=alt.Scale(type="log", domain=domain, nice=False),
        axis=alt.Axis(labelExpr="datum.value + ' ×'", values=_ticks(*domain), grid=False),
    )
    marks = {"promised": say("promised by FLOPs"), "realised": say("realised")}
    y = charts._y("name", [row["name"] for row in rows], grid=True)
    known = [{**row, "mark": marks["promised"]} for row in rows if row["promised"]]
    seen = [{**row, "mark": marks["realised"]} for row in rows]
    colour = alt.Color(
        "mark:N",
        scale=alt.Scale(domain=[*marks.values()], range=[VERMILLION, BLUE]),
        legend=alt.Legend(title=None, orient="top"),
    )
    kind = alt.Shape(
        "mark:N", scale=alt.Scale(domain=[*marks.values()], range=["diamond", "circle"])
    )
    tips = charts._tips(name=say("variant"), mark=say("speed-up"), label=say("realised"))
    link = charts._chart(known).mark_rule(color=MUTED, strokeDash=[2, 2])
    layers = [
        charts._chart([{"one": 1}]).mark_rule(color=MUTED).encode(x=alt.X("one:Q")),
        link.encode(x=x, x2="promised:Q", y=y),
        charts._chart(seen)
        .mark_rule(color=BLUE, strokeWidth=3)
        .encode(x="low:Q", x2="high:Q", y=y),
        charts._chart(known)
        .mark_point(filled=True, size=45, opacity=1)
        .encode(x="promised:Q", y=y, color=colour, shape=kind, tooltip=tips),
        charts._chart(seen)
        .mark_point(filled=True, size=55, opacity=1)
        .encode(x=x, y=y, color=colour, shape=kind, tooltip=tips),
        charts._chart(seen)
        .mark_text(align="right", dx=-2, dy=-7, fontSize=8, color=INK)
        .encode(x=alt.value("width"), y=y, text="label:N"),
    ]
    machine = f"{frame['machine'].iloc[0]}, {int(frame['threads'].iloc[0])}"
    said = "; ".join(f"{row['name']}: {row['label']}" for row in rows)
    return charts._fitted(
        charts._layer(
            layers,
            size=(width, 24 * len(rows)),
            title=charts._title(
                say("Promised and realised speed"),
                say("whole forward pass; {machine} threads", machine=machine),
            ),
            said=charts._clip(say("Realised speed-up: {rows}.", rows=said), 1500),
        )
    )


def crossover_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the sparsity from which CSR is faster than dense, per layer shape and tokens.

    Returns
    -------
    altair.LayerChart or None
        None where no crossover was measured.
    """
    frame = study.latency
    if frame is None or "crossover_sparsity" not in frame or frame.empty:
        return None
    own = frame[(frame["scope"] == "layer") & (frame["variant"] == reference(frame))]
    if own["crossover_sparsity"].isna().all():
        return None
    names, never = list(dict.fromkeys(own["name"])), say("never")
    counts = sorted(set(own["tokens"]))
    rows = []
    for row in records(own):
        edge = row["crossover_sparsity"]
        unknown = pd.isna(edge)
        rows.append(
            {
                "name": row["name"],
                "tokens": number(row["tokens"], ","),
                "at": _NEVER if unknown else edge,
                "label": never if unknown else percent(edge, 0),
            }
        )
    x = alt.X(
        "at:Q",
        title=say("sparsity from which CSR is faster"),
        scale=alt.Scale(domain=[0, _NEVER + 0.04], nice=False),
        axis=alt.Axis(
            values=[0, 0.2, 0.4, 0.6, 0.8, 1, _NEVER],
            labelOverlap=False,
            labelExpr=f"datum.value > 1 ? {_quoted(never)} : {charts._percent_tick()}",
        ),
    )
    labels = [number(n, ",") for n in counts]
    legend = alt.Legend(title=say("tokens at a time"), orient="top", titleOrient="left")
    base = charts._chart(rows).encode(
        x=x,
        y=charts._y("name", names, grid=True),
        yOffset=alt.YOffset("tokens:N", scale=alt.Scale(domain=labels, padding=0.5)),
    )
    dots = base.mark_point(filled=True, size=50, opacity=1).encode(
        color=alt.Color(
            "tokens:N", scale=alt.Scale(domain=labels, range=_cycle(_HUES, labels)), legend=legend
        ),
        shape=alt.Shape(
            "tokens:N", scale=alt.Scale(domain=labels, range=_cycle(_SHAPES, labels)), legend=legend
        ),
        tooltip=charts._tips(name=say("shape"), tokens=say("tokens"), label=say("from")),
    )
    said = "; ".join(f"{row['name']}, {row['tokens']}: {row['label']}" for row in rows)
    return charts._fitted(
        charts._layer(
            [dots],
            size=(width, (10 * len(counts) + 12) * len(names)),
            title=charts._title(
                say("Where CSR overtakes dense on this machine"),
                say("layer by shape, out × in; zeros at random"),
            ),
            said=charts._clip(say("Crossover sparsity: {rows}.", rows=said), 1500),
        )
    )


def quality_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return perplexity against the sparsity of the prunable weights.

    Returns
    -------
    altair.LayerChart or None
        None where fewer than two sparsities were scored.
    """
    frame = study.quality
    if frame is None or frame.empty:
        return None
    own = frame[frame["perplexity"].notna() & frame["sparsity"].notna()]
    # Layouts of one pruning score alike but for rounding.
    own = own.assign(at=own["sparsity"].astype(float).round(4)).sort_values("at", kind="stable")
    own = own.drop_duplicates(["text", "at"])
    if own["sparsity"].nunique() < 2:
        return None
    rows = [
        {
            "text": charts._clip(row["text"]),
            "sparsity": row["sparsity"],
            "perplexity": row["perplexity"],
            "label": _short(row["perplexity"]),
            "variant": charts._clip(row["variant"], 40),
            "top1": percent(row["top1"]),
        }
        for row in records(own)
    ]
    low, high = float(own["perplexity"].min()), float(own["perplexity"].max())
    wide = high / low > 8
    if wide:
        scale = alt.Scale(type="log", domain=[low / 1.2, high * 1.35], nice=False)
    else:
        scale = alt.Scale(domain=[low - (high - low) / 8, high * 1.1], nice=False, zero=False)
    axis = alt.Axis(tickCount=5)
    if wide:
        axis = alt.Axis(values=_ticks(low / 1.2, high * 1.35), labelExpr=charts._SI_TICK)
    right = max(float(own["sparsity"].max()), 0.1)
    x = charts._x(
        "sparsity",
        say("sparsity of the prunable weights"),
        [-0.06 * right, 1.04 * right],
        labelExpr=charts._percent_tick(),
        grid=False,
    )
    base = charts._chart(rows).encode(
        x=x, y=alt.Y("perplexity:Q", title=say("perplexity"), scale=scale, axis=axis)
    )
    texts = list(dict.fromkeys(row["text"] for row in rows))
    colour = alt.Color(
        "text:N",
        scale=alt.Scale(domain=texts, range=_cycle(_HUES, texts)),
        legend=alt.Legend(title=None, orient="top") if len(texts) > 1 else None,
    )
    tips = charts._tips(variant=say("variant"), label=say("perplexity"), top1=say("first guesses"))
    named = base.mark_text(dy=-9, dx=-7, fontSize=8, color=INK).encode(text="label:N")
    first = own.iloc[0]
    protocol = say(
        "{text}: {scored:,} tokens in windows of {window:,}",
        text=charts._clip(first["text"]),
        scored=int(first["scored"]),
        window=int(first["window"]),
    )
    said = "; ".join(f"{percent(row['sparsity'])}: {row['label']}" for row in rows)
    return charts._fitted(
        charts._layer(
            [
                base.mark_line(strokeWidth=1.5).encode(color=colour),
                base.mark_point(filled=True, size=36, opacity=1).encode(color=colour, tooltip=tips),
                *([named] if len(texts) == 1 else []),
            ],
            size=(width, 200),
            title=charts._title(say("Perplexity against sparsity"), protocol),
            said=charts._clip(say("Perplexity by sparsity: {rows}.", rows=said), 1500),
        ),
        right=10,
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
    own = frame.assign(cost=frame["nll_increase"].astype(float))
    shown = own.loc[own["cost"].nlargest(_PARTS).index].sort_index()
    names = charts.distinct_names([str(part) for part in shown["part"]], 60)
    rows = [
        {"part": name, "cost": cost, "from": min(cost, 0), "label": number(cost, "+.3f")}
        for name, cost in zip(names, shown["cost"].tolist(), strict=True)
    ]
    low, high = min(0.0, *shown["cost"]), max(1e-3, *shown["cost"])
    room = (high - low) * 0.14
    x = charts._x(
        "cost",
        say("more nats per token than dense"),
        [low - (room if low < 0 else 0), high + room],
        grid=False,
    )
    y = charts._y("part", names)
    base = charts._chart(rows).encode(y=y)
    level, text = float(frame["sparsity"].median()), charts._clip(frame["text"].iloc[0])
    kept = say(", {shown} of {parts} parts", shown=len(rows), parts=len(frame))
    said = "; ".join(f"{row['part']}: {row['label']}" for row in rows)
    return charts._fitted(
        charts._layer(
            [
                base.mark_bar(color=BLUE, height=9).encode(x=x, x2=alt.datum(0)),
                base.transform_filter("datum.cost >= 0")
                .mark_text(align="left", dx=4, fontSize=8, color=INK)
                .encode(x=x, text="label:N"),
                base.transform_filter("datum.cost < 0")
                .mark_text(align="right", dx=-4, fontSize=8, color=INK)
                .encode(x=x, text="label:N"),
            ],
            size=(width, 15 * len(rows)),
            title=charts._title(
                say("What each part costs when pruned alone"),
                say("{level:percent0} of the part; {text}", level=level, text=text)
                + (kept if len(rows) < len(frame) else ""),
            ),
            said=charts._clip(say("Nats per token by part: {rows}.", rows=said), 1500),
        )
    )


CHARTS = {
    "speed": speed_chart,
    "crossover": crossover_chart,
    "quality": quality_chart,
    "sensitivity": sensitivity_chart,
}


def _short(perplexity: float) -> str:
    if perplexity >= 10_000:
        return scaled(perplexity, "")
    return number(perplexity, ",.1f" if perplexity < 100 else ",.0f")


def _ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis at 1, 2 and 5; more where it is short, fewer where long."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps: tuple[float, ...] = (1, 2, 5) if high / low < 1000 else (1,)
    if high / low < 8:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    marks = [float(f"{step}e{power}") for power in powers for step in steps]
    return [mark for mark in marks if low <= mark <= high]


def _cycle(values: tuple[str, ...], names: list[str]) -> list[str]:
    return [values[place % len(values)] for place in range(len(names))]


def _quoted(text: str) -> str:
    """Write a word of ours as a literal of Vega's expressions."""
    return "'" + text.replace("\\", "").replace("'", "\\'") + "'"
