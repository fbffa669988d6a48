"""Charts with a line per pruning policy: quality or bytes by sparsity, and zeros by block."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.marks import Rows
from sparsity_report.draw.theme import NARROW, TEXT_WIDTH
from sparsity_report.study.derived.paired_scores import distance
from sparsity_report.study.derived.protocol_scores import ANY_TOKENIZER, by_protocol
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import any_level
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.words.display_names import layout_name, method_name, text_name
from sparsity_report.words.number_format import figures, known, perplexity, scaled
from sparsity_report.words.sentences import say

#: Ratio of the ends of a vertical axis from which it is logarithmic.
FAR = 10
# Letters of names on narrow and on wide charts.
_SHORT, _LONG = 24, 40
_TIPS = {"line": "label.policy", "variant": "label.variant"}


class Figure(NamedTuple):
    """A column of quality, its notation, and the keys of the chart's texts."""

    column: str
    title: str
    axis: str
    alt_text: str
    label: Callable[[Any], str]
    kind: str
    interval: str = ""


_PERPLEXITY = Figure(
    "perplexity", "chart.perplexity_title", "label.perplexity", "chart.perplexity_alt",
    partial(perplexity, space=""), "number", "chart.interval_note",
)  # fmt: skip
_DISTANCE = Figure(
    "kl", "chart.kl_divergence_title", "chart.y_kl_divergence", "chart.kl_divergence_alt",
    partial(figures, spec="#.3g"), "small", "chart.distance_interval_note",
)  # fmt: skip
_BYTES = Figure(
    "bytes", "chart.smallest_bytes_title", "chart.y_smallest_bytes", "chart.smallest_bytes_alt",
    partial(scaled, unit="B"), "number",
)  # fmt: skip


def hero_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return perplexity against sparsity, or bytes of the smallest lossless layout if unknown.

    Returns
    -------
    altair.LayerChart or None
        None of fewer than two distinct prunings.
    """
    return _drawn(study, *hero_points(study), width)


def hero_points(study: StudyFigures) -> tuple[Figure, Rows]:
    """Return the figure of :func:`hero_chart` and a point per variant; none without a chart."""
    pruned = study.facts.contenders
    if len(pruned) < 2:
        return _BYTES, []
    scores = _scores(study, _PERPLEXITY)
    if len({row["variant"] for row in scores if row["value"] and row["variant"] in pruned}) > 1:
        return _PERPLEXITY, scores
    names = dict.fromkeys([study.facts.baseline, *pruned])
    return _BYTES, _points(study, _BYTES, [_size(study, name) for name in names])


def _quality(
    figure: Figure, study: StudyFigures, width: float = TEXT_WIDTH
) -> alt.LayerChart | None:
    """Return a figure against sparsity by the text and protocol with the most scores.

    Returns
    -------
    altair.LayerChart or None
        None if all known values are equal.
    """
    return _drawn(study, figure, _scores(study, figure), width)


quality_chart = partial(_quality, _PERPLEXITY)
distance_chart = partial(_quality, _DISTANCE)


def _scores(study: StudyFigures, figure: Figure) -> Rows:
    frame = study.quality
    if frame is not None and figure.column == "kl":  # dense from itself is no measurement
        frame = frame[frame["kl"].notna() & (frame["variant"] != frame["against"])]
    scores = records(max(by_protocol(frame, ANY_TOKENIZER), key=len, default=pd.DataFrame()))
    number = [row["scored"] for row in scores if known(row["scored"])]
    for row in scores:
        text = text_name(row["text"], row["text_fingerprint"])
        row["note"] = say("chart.scored_text_note", text=text, scored=number)
    return _points(study, figure, scores)


def _size(study: StudyFigures, variant: str) -> dict[str, Any]:
    """Return the sparsity and the bytes of a variant in its smallest lossless layout."""
    facts, layout = study.facts, study.facts.smallest_layout(variant, "model")
    return {
        "variant": variant,
        "sparsity": facts.total(variant, "sparsity_prunable"),
        "bytes": facts.storage(variant, "model")["bytes"].get(layout),
        "note": say("chart.smallest_bytes_note"),
    }


def _points(study: StudyFigures, figure: Figure, rows: Rows) -> Rows:
    """Return a point per row, with the policy and the name of its line.

    Perplexities no better than uniform guessing are at the size of the vocabulary.
    """
    variants = {row["variant"]: row for row in records(study.variants)}
    policies, points = theme.policies(study), []
    for row in rows:
        variant, value = row["variant"], row[figure.column]
        about = variants.get(variant, row)
        method, model = (about[key] if known(about.get(key)) else "" for key in ("method", "model"))
        policy = policies.get(variant, any_level(method) or (variant if row["sparsity"] else ""))
        size = study.facts.vocabulary(variant) if figure is _PERPLEXITY else None
        is_beyond = bool(size and known(value) and value >= size)
        place: Any = size if is_beyond else value
        point = {
            "variant": variant, "policy": policy, "model": clip(model), "note": row["note"],
            "name": method_name(method) if method else short_name(policy) or layout_name("dense"),
            "x": float(row["sparsity"]) if known(row["sparsity"]) else None,
            "value": float(place) if known(place) and math.isfinite(place) else None,
            "label": say("name.worse_than_uniform_guessing") if is_beyond else figure.label(value),
            "form": "triangle-up" if is_beyond else "circle",
        }  # fmt: skip
        ends = () if is_beyond else _interval(study, figure, row)
        point |= {key: end for key, end in zip(("low", "high"), ends, strict=False) if known(end)}
        points.append(point)
    return points


def _interval(study: StudyFigures, figure: Figure, row: dict[str, Any]) -> tuple[float, ...]:
    """Return the ends of the interval of a figure; none if it is unknown."""
    if figure is _PERPLEXITY:
        return study.facts.score_ends(row["variant"], row["perplexity"]) or ()
    known_distance = distance(row, "kl") if figure is _DISTANCE else None
    return known_distance[1:] if known_distance else ()


def _drawn(
    study: StudyFigures, figure: Figure, points: Rows, width: float
) -> alt.LayerChart | None:
    """Return the points with a line from dense for each policy at several levels."""
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
    notes = [drawn[0]["note"]]
    if any("low" in row for row in drawn):
        notes.append(say(figure.interval))
    if omitted := [
        f"{r['variant']} ({r['label']})" for r in points if None in (r["value"], r["x"])
    ]:
        notes.append(say("chart.omitted_points_note", names=[*map(short_name, omitted)]))
    texts = [f"{row['line']}, {theme.write(row['x'], 'share')}: {row['label']}" for row in drawn]
    looks = theme.looks(study, lines.values())
    strokes = tuple(marks.Line(names[key], *looks[policy]) for key, policy in lines.items())
    chart = marks.lines(_from_dense(drawn), _shape(drawn, strokes, width, figure))
    alt_text = say(figure.alt_text, rows="; ".join(texts))
    return theme.titled(chart, say(figure.title), " · ".join(notes), alt_text)


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


def _shape(rows: Rows, lines: tuple[marks.Line, ...], width: float, figure: Figure) -> marks.Lines:
    values = [row[key] for row in rows for key in ("value", "low", "high") if key in row]
    low, high = min(values), max(values)
    room, ticks = (high - low) / 8, []
    ends, edge = (low - room, high + room), ""
    if 0 < low < high / FAR:
        ends = (low / 1.3, high * 1.3)
    if any(row["form"] == "triangle-up" for row in rows):
        ends, edge = (ends[0], high), say("name.worse_than_uniform_guessing")
    if 0 < low < high / FAR:
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
        kind=figure.kind if ticks or figure is _BYTES else "plain",
        x_title=say("chart.x_prunable_sparsity"),
        y_title=say(figure.axis),
        x_domain=(-0.03 * right, right),
        y_domain=ends,
        ticks=tuple(ticks),
        edge=edge,
        tips=marks.tips(**_TIPS, label=figure.axis),
    )


def blocks_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the sparsity of each block, one line per pruning of a model.

    Prunings with the same labels in every block share a line.

    Returns
    -------
    altair.LayerChart or None
        None if fewer than two prunings have zeros in two blocks, or none is uneven.
    """
    blocks = {
        variant: rows.assign(label=[theme.write(share, "share") for share in rows["sparsity"]])
        for variant in study.facts.rivals
        if len(rows := study.facts.blocks(variant))
    }
    if not any(rows["label"].nunique() > 1 for rows in blocks.values()):
        return None
    limit = _LONG if width > NARROW else _SHORT
    names = _shared_names({v: (*r["block"], *r["label"]) for v, r in blocks.items()}, limit)
    looks, policies = theme.looks(study), theme.policies(study)
    frame = pd.concat([blocks[v].assign(line=name) for v, name in names.items()])
    low, high = float(frame["sparsity"].min()), float(frame["sparsity"].max())
    room = (high - low) / 8
    rows = frame.rename(columns={"block": "x", "sparsity": "value"})
    shape = marks.Lines(
        lines=tuple(marks.Line(name, *looks[policies[v]]) for v, name in names.items()),
        names={name: name for name in names.values()},
        width=width,
        x_title=say("kind.block"),
        y_title=say("chart.y_block_zeros"),
        x_kind="plain",
        x_domain=(float(frame["block"].min()), float(frame["block"].max())),
        y_domain=(max(0.0, low - room), min(1.0, high + room)),
        points=False,
    )
    model = str(study.facts.methods.set_index("variant")["model"][study.facts.rivals[0]])
    ranges = frame.groupby("line", sort=False)["sparsity"].agg(["min", "max"])
    texts = [
        say("chart.variant_zeros_range", variant=name, low=low, high=high)
        for name, low, high in ranges.itertuples()
    ]
    columns = ["x", "value", "line", "label"]
    return theme.titled(
        marks.lines(records(rows[columns]), shape),
        say("chart.zeros_by_block_title"),
        clip(model),
        say("chart.zeros_by_block_alt", rows="; ".join(texts)),
    )


def _shared_names(labels: Mapping[str, Iterable[Any]], limit: int) -> dict[str, str]:
    """Return the names of lines by the first of the prunings that share each."""
    alike: dict[Any, list[str]] = {}
    for variant, name in zip(labels, distinct_names(list(labels)), strict=True):
        alike.setdefault(labels[variant], [variant]).append(name)
    joined = [", ".join(names) for _, *names in alike.values()]
    firsts = [variant for variant, *_ in alike.values()]
    return dict(zip(firsts, distinct_names(joined, limit), strict=True))
