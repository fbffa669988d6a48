"""Charts of measured quality and sensitivity, and the names of all charts of measurements."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.marks import Rows
from sparsity_report.draw.speed_charts import crossover_chart, speed_chart
from sparsity_report.draw.theme import TEXT_WIDTH
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.protocol_scores import ANY_TOKENIZER, PROTOCOL
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.words.display_names import method_name, part_name, text_name
from sparsity_report.words.number_format import figures, perplexity
from sparsity_report.words.sentences import say

# Most parts of a model in a chart.
_PARTS = 40
# Most texts and protocols in a note.
_PASSAGES = 2
_TIPS = {"line": "label.policy", "variant": "label.variant"}
#: Ratio of perplexities from which the axis is logarithmic.
FAR = 8


class _Figure(NamedTuple):
    """A column of quality, its notation, and the keys of the chart's texts."""

    column: str
    title: str
    axis: str
    alt_text: str
    label: Callable[[Any, int | None], str]
    kind: str


def _quality(
    figure: _Figure, study: Comparison, width: float = TEXT_WIDTH
) -> alt.LayerChart | None:
    """Return a figure against sparsity, one line per policy, model, text and protocol.

    A line starts at its unpruned model if that was scored. The note names variants without a
    finite figure or a known sparsity.

    Returns
    -------
    altair.LayerChart or None
        None if fewer than two points can be drawn.
    """
    frame = study.quality
    if frame is None or frame.empty:
        return None
    if figure.column == "kl":  # the divergence of dense from itself is no measurement
        frame = frame[frame["kl"].notna() & (frame["variant"] != frame["against"])]
    rows = _scored(study, frame, figure)
    drawn = [row for row in rows if row["value"] is not None and row["sparsity"] is not None]
    if len(drawn) < 2:
        return None
    lines = _labeled(policy_lines(drawn, ("value", "label", "variant", "top1")))
    names = list(dict.fromkeys(row["line"] for row in lines))
    notes = [*(names if len(names) == 1 else []), *_passages(frame)]
    if omitted := [f"{row['variant']} ({row['label']})" for row in rows if row not in drawn]:
        notes.append(say("chart.omitted_points_note", names=omitted))
    texts = [
        f"{row['line']}, {theme.write(row['sparsity'], 'share')}: {row['label']}" for row in lines
    ]
    return theme.titled(
        marks.curve(marks.inline(lines), _quality_shape(drawn, names, width, figure)),
        say(figure.title),
        " · ".join(notes),
        say(figure.alt_text, rows="; ".join(texts)),
    )


def _passages(frame: pd.DataFrame) -> list[str]:
    """Return the texts and protocols of the scores, or their number if there are many."""
    texts = ["text", "protocol", "text_fingerprint"]
    different = frame.drop_duplicates([*PROTOCOL]).groupby(texts, sort=False)
    if different.ngroups > _PASSAGES:
        return [say("chart.texts_protocols_count", number=different.ngroups)]
    return [
        say(
            "chart.scored_text_note",
            text=text_name(str(text), str(fingerprint)),
            protocol=protocol,
            sizes=[*dict.fromkeys(say("chart.scored_tokens_windows", **r) for r in records(rows))],
        )
        for (text, protocol, fingerprint), rows in different
    ]


def _scored(study: Comparison, frame: pd.DataFrame, figure: _Figure) -> Rows:
    """Return every row of a study's quality with its model, its policy and its labels."""
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
                "source": (source, *(row[key] for key in ANY_TOKENIZER)),
                "model": clip(model),
                "method": None if pd.isna(method) else str(method),
                "text": text_name(row["text"], row["text_fingerprint"]),
                "protocol": row["protocol"],
                "dtype": row["dtype"] or "",
                "variant": short_name(row["variant"]),
                "sparsity": float(sparsity) if pd.notna(sparsity) else None,
                "value": float(value) if pd.notna(value) and math.isfinite(value) else None,
                "label": figure.label(value, study.facts.vocabulary(row["variant"])),
                "top1": theme.write(row["top1"], "share"),
            }
        )
    return rows


def policy_lines(rows: Rows, shown: Sequence[str]) -> Rows:
    """Return the rows of each line in order; the unpruned model begins all of its lines.

    Parameters
    ----------
    rows : list of dict
        With ``source``, ``model``, ``method``, ``sparsity``, and ``text``, ``protocol`` and
        ``dtype`` where these may differ.
    shown : sequence of str
        Keys to keep besides ``line`` and ``sparsity``.
    """
    shared = ("text", "protocol", "dtype")
    models = {row["model"] for row in rows}
    differing = [key for key in shared if len({row.get(key) for row in rows}) > 1]
    policies: dict[Any, dict[str | None, None]] = {}
    for row in sorted(rows, key=lambda row: row["method"] is None):
        known = policies.setdefault(row["source"], {})
        if row["method"] or not known:
            known[row["method"]] = None
    lines = []
    for source, method in ((source, method) for source, ms in policies.items() for method in ms):
        line = [r for r in rows if r["source"] == source and r["method"] in (method, None)]
        parts = [method_name(method)] if method else []
        if len(models) > 1:
            parts.append(line[0]["model"])
        elif not method:
            parts.append(say("name.unpruned_model"))
        name = ", ".join(filter(None, [*parts, *(line[0][key] for key in differing)]))
        lines += [
            {"line": name, **{key: row[key] for key in ("sparsity", *shown)}}
            for row in sorted(line, key=lambda row: row["sparsity"])
        ]
    return lines


def _labeled(lines: Rows) -> Rows:
    """Return the rows with labels beside the marks if there is one line."""
    rows = [{**row, "shown": ""} for row in lines]
    if len({row["line"] for row in rows}) == 1:
        # Layouts of one pruning have almost equal scores: label each place once.
        once = {(round(row["sparsity"], 4), row["label"]): row for row in rows}
        for row in once.values():
            row["shown"] = row["label"]
    return rows


def _quality_shape(rows: Rows, names: list[str], width: float, figure: _Figure) -> marks.Curve:
    values = [row["value"] for row in rows]
    low, high = min(values), max(values)
    room = high - low or 1
    scale = alt.Scale(domain=[low - room / 8, high + room / 8])
    ticks: list[float] = []
    if low > 0 and high / low > FAR:
        ends = (low / 1.3, high * 1.3)
        scale, ticks = alt.Scale(type="log", domain=[*ends]), theme.log_ticks(*ends)
    right = max(0.1, *(row["sparsity"] for row in rows))
    hues, dashes = theme.cycle(theme.HUES, len(names)), theme.cycle(theme.DASHES, len(names))
    return marks.Curve(
        lines=tuple(marks.Line(*line) for line in zip(names, hues, dashes, strict=True)),
        width=width,
        x_title=say("chart.x_prunable_sparsity"),
        y_title=say(figure.axis),
        kind=figure.kind if ticks else "plain",
        x_domain=(-0.06 * right, 1.04 * right),
        scale=scale,
        ticks=tuple(ticks),
        points=True,
        columns=marks.legend_columns(names, width),
        tips=marks.tips(**_TIPS, label=figure.axis, top1="chart.top1_accuracy"),
    )


def sensitivity_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the cost of pruning each part alone, in nats per token.

    Returns
    -------
    altair.LayerChart or None
        The parts with the highest cost; None if no sensitivity was measured.
    """
    frame = study.sensitivity
    if frame is None or frame.empty:
        return None
    costs = frame["nll_increase"].astype(float)
    shown = frame.loc[costs.nlargest(_PARTS).index].sort_index()
    parts = zip(shown["by"], shown["part"], strict=True)
    names = distinct_names([part_name(by, str(part)) for by, part in parts], 60)
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
        gap=theme.SLIM_GAP,
        axis=say("chart.x_nll_increase"),
        kind="plain",
        tips=marks.tips(group="label.part", label="chart.x_nll_increase"),
    )
    level = float(frame["sparsity"].median())
    text = text_name(*frame[["text", "text_fingerprint"]].iloc[0])
    note = say("chart.sensitivity_note", level=level, text=text)
    if len(rows) < len(frame):
        note += say("chart.parts_shown_note", shown=len(rows), parts=len(frame))
    texts = [f"{row['group']}: {row['label']}" for row in rows]
    alt_text = say("chart.sensitivity_alt", rows="; ".join(texts))
    chart = marks.bars(marks.inline(rows), shape)
    return theme.titled(chart, say("chart.sensitivity_title"), note, alt_text)


quality_chart = partial(_quality, _Figure(
    "perplexity", "chart.perplexity_title", "label.perplexity", "chart.perplexity_alt",
    lambda value, tokens: perplexity((value, tokens), ""), "number",
))  # fmt: skip
distance_chart = partial(_quality, _Figure(
    "kl", "chart.kl_divergence_title", "chart.y_kl_divergence", "chart.kl_divergence_alt",
    lambda value, _: figures(value, "#.3g"), "small",
))  # fmt: skip
CHARTS: dict[str, Callable[..., alt.LayerChart | None]] = {
    "speed": speed_chart,
    "crossover": crossover_chart,
    "quality": quality_chart,
    "distance": distance_chart,
    "sensitivity": sensitivity_chart,
}
