"""The chart with a line per pruning policy: perplexity by sparsity."""

import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.marks import Rows
from sparsity_report.draw.theme import NARROW, TEXT_WIDTH
from sparsity_report.study.derived.paired_scores import score_ends
from sparsity_report.study.derived.protocol_scores import ANY_TOKENIZER, by_protocol
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import any_level
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.words.display_names import layout_name, method_name, text_name
from sparsity_report.words.number_format import known, perplexity
from sparsity_report.words.sentences import say

# Ratio of the ends of a vertical axis from which it is logarithmic.
_FAR = 10
# Letters of names on narrow and on wide charts.
_SHORT, _LONG = 24, 40


def quality_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return perplexity against sparsity by the text and protocol with the most scores.

    Each policy at several levels has a line from dense.

    Returns
    -------
    altair.LayerChart or None
        None if all known perplexities are equal.
    """
    frames = by_protocol(study.quality, ANY_TOKENIZER)
    scores = records(max(frames, key=len, default=pd.DataFrame()))
    points = [_point(study, row) for row in scores]
    drawn = [row for row in points if row["value"] is not None and row["x"] is not None]
    if len({row["label"] for row in drawn}) < 2:
        return None
    if len({row["model"] for row in drawn} - {""}) > 1:
        drawn = [{**r, "name": ", ".join(filter(None, (r["name"], r["model"])))} for r in drawn]
    lines = {(row["model"], row["name"]): row["policy"] for row in drawn}
    limit = _LONG if width > NARROW else _SHORT
    names = dict(zip(lines, distinct_names([name for _, name in lines], limit), strict=True))
    drawn = [
        {**row, "line": names[row["model"], row["name"]], "variant": short_name(row["variant"])}
        for row in drawn
    ]
    text = text_name(scores[0]["text"], scores[0]["text_fingerprint"])
    scored = [row["scored"] for row in scores if known(row["scored"])]
    notes = [say("chart.scored_text_note", text=text, scored=scored)]
    if any("low" in row for row in drawn):
        notes.append(say("chart.interval_note"))
    if omitted := [
        f"{r['variant']} ({r['label']})" for r in points if None in (r["value"], r["x"])
    ]:
        notes.append(say("chart.omitted_points_note", names=[*map(short_name, omitted)]))
    texts = [f"{row['line']}, {theme.write(row['x'], 'share')}: {row['label']}" for row in drawn]
    looks = theme.looks(study, lines.values())
    strokes = tuple(marks.Line(names[key], *looks[policy]) for key, policy in lines.items())
    chart = marks.lines(_from_dense(drawn), _shape(drawn, strokes, width))
    alt_text = say("chart.perplexity_alt", rows="; ".join(texts))
    return theme.titled(chart, say("chart.perplexity_title"), " · ".join(notes), alt_text)


def _point(study: StudyFigures, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the point of a score, with the policy and the name of its line.

    A perplexity no better than uniform guessing is at the size of the vocabulary.
    """
    variants = {each["variant"]: each for each in records(study.variants)}
    variant, value = row["variant"], row["perplexity"]
    about = variants.get(variant, row)
    method, model = (about[key] if known(about.get(key)) else "" for key in ("method", "model"))
    unnamed = any_level(method) or (variant if row["sparsity"] else "")
    policy = theme.policies(study).get(variant, unnamed)
    size = study.facts.vocabulary(variant)
    is_beyond = bool(size and known(value) and value >= size)
    place: Any = size if is_beyond else value
    label = perplexity((value, size), space="")
    point = {
        "variant": variant, "policy": policy, "model": clip(model),
        "name": method_name(method) if method else short_name(policy) or layout_name("dense"),
        "x": float(row["sparsity"]) if known(row["sparsity"]) else None,
        "value": float(place) if known(place) and math.isfinite(place) else None,
        "label": label,
        "form": "triangle-up" if is_beyond else "circle",
    }  # fmt: skip
    ends = () if is_beyond else score_ends(study.facts, variant, value) or ()
    return point | {key: end for key, end in zip(("low", "high"), ends, strict=False) if known(end)}


def _from_dense(rows: Rows) -> Rows:
    """Return the rows of each line from dense on, and a line at the height of dense."""
    dense = [row for row in rows if not row["policy"]]
    pruned = sorted((row for row in rows if row["policy"]), key=lambda row: row["x"])
    starts = {row["model"]: row for row in reversed(dense)}
    levels: dict[tuple[str, str], set[float]] = {}
    for row in pruned:
        levels.setdefault((row["model"], row["line"]), set()).add(round(row["x"], 4))
    begun = [
        {**starts[model], "line": line}
        for (model, line), shares in levels.items()
        if len(shares) > 1 and model in starts
    ]
    right = max(row["x"] for row in rows)
    ends = [{**row, "x": right, "form": ""} for row in starts.values()]
    begun = [{key: row[key] for key in row if key not in ("low", "high")} for row in begun]
    return [*begun, *pruned, *dense, *ends]


def _shape(rows: Rows, lines: tuple[marks.Line, ...], width: float) -> marks.Lines:
    values = [row[key] for row in rows for key in ("value", "low", "high") if key in row]
    low, high = min(values), max(values)
    room, ticks = (high - low) / 8, []
    ends, edge = (low - room, high + room), ""
    if 0 < low < high / _FAR:
        ends = (low / 1.3, high * 1.3)
    if any(row["form"] == "triangle-up" for row in rows):
        ends, edge = (ends[0], high), say("name.worse_than_uniform_guessing")
    if 0 < low < high / _FAR:
        ticks = theme.log_ticks(*ends)
    right = max(0.1, *(row["x"] for row in rows))
    last = {row["line"]: row for row in sorted(rows, key=lambda row: row["x"])}
    return marks.Lines(
        lines=lines,
        names={
            line: line if row["form"] == "triangle-up" else f"{line} {row['label']}"
            for line, row in last.items()
        },
        width=width,
        kind="number" if ticks else "plain",
        y_title=say("label.perplexity"),
        x_domain=(-0.03 * right, right),
        y_domain=ends,
        ticks=tuple(ticks),
        edge=edge,
        tips=marks.tips(line="label.policy", variant="label.variant", label="label.perplexity"),
    )
