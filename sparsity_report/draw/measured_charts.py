"""Charts of measurements: perplexity by sparsity, sensitivity, and speed with its control."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.theme import INK, LABEL, MUTED, NARROW, TEXT_WIDTH
from sparsity_report.draw.vega_lite import Rows, VegaLite, layer, layered, nominal, quantity, titled
from sparsity_report.study.derived.protocol_scores import ANY_TOKENIZER, by_protocol
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import any_level
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.words.display_names import layout_name, method_name, part_name, text_name
from sparsity_report.words.number_format import figures, is_guessing, known, perplexity
from sparsity_report.words.sentences import say

# Most parts of a model in a chart.
_PARTS = 40
# Width of a chart per letter of a name beside it.
_LETTER = 11


def quality_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> VegaLite | None:
    """Return perplexity against sparsity by the text and protocol with the most scores.

    Without prunings, it is against the share of removed experts. Each policy at several levels has
    a line from dense.

    Returns
    -------
    VegaLite or None
        None if all known perplexities are equal.
    """
    frames = by_protocol(study.quality, ANY_TOKENIZER)
    scores = records(max(frames, key=len, default=pd.DataFrame()))
    points = [_point(study, row) for row in scores]
    drawn = [row for row in points if row["value"] is not None and row["x"] is not None]
    if len({row["label"] for row in drawn}) < 2:
        return None
    if len({row["model"] for row in drawn} - {""}) > 1:
        models = [dict.fromkeys(filter(None, (row["name"], row["model"]))) for row in drawn]
        drawn = [{**r, "name": ", ".join(parts)} for r, parts in zip(drawn, models, strict=True)]
    lines = {(row["model"], row["name"]): row["policy"] for row in drawn}
    short = distinct_names([name for _, name in lines], round(width / _LETTER))
    names = dict(zip(lines, short, strict=True))
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
    order = [*names.values()]
    ranked = sorted(drawn, key=lambda row: (order.index(row["line"]), row["x"]))
    # Layouts of one pruning have one text.
    texts = dict.fromkeys(f"{row['line']}, {row['tip']}: {row['label']}" for row in ranked)
    styles = theme.styles(study, lines.values())
    strokes = [marks.Line(names[key], *styles[policy]) for key, policy in lines.items()]
    chart = _lines(drawn, strokes, width, quality_axis(study))
    alt_text = say(f"chart.perplexity_alt.{quality_axis(study)}", rows="; ".join(texts))
    title = say(f"chart.perplexity_title.{quality_axis(study)}")
    return titled(chart, title, " · ".join(notes), alt_text)


def quality_axis(study: StudyFigures) -> str:
    """Return the axis of :func:`quality_chart`, ``sparsity`` or removed ``experts``."""
    return "experts" if study.facts.expert_lists and not study.facts.contenders else "sparsity"


def _point(study: StudyFigures, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the point of a score, with the policy and the name of its line.

    A perplexity no better than uniform guessing is at the size of the vocabulary.
    """
    variants = {each["variant"]: each for each in records(study.variants)}
    variant, value = row["variant"], row["perplexity"]
    details = variants.get(variant, row)
    method, model = (details[key] if known(details.get(key)) else "" for key in ("method", "model"))
    unnamed = any_level(method) or (variant if row["sparsity"] else "")
    policy = theme.policies(study).get(variant, unnamed)
    share = row["sparsity"]
    if quality_axis(study) == "experts":
        model, method = "", details.get("expert_score")
        rows = study.facts.lacking.get(variant)
        share = 0.0 if rows is None else 1 - rows["is_kept"].mean()
    size = study.facts.vocabulary(variant)
    is_beyond = is_guessing(value, size)
    place: Any = size if is_beyond else value
    label = perplexity((value, size), space="")
    point = {
        "variant": variant, "policy": policy, "model": clip(model),
        "name": method_name(method) if method else short_name(policy) or layout_name("dense"),
        "x": float(share) if known(share) else None,
        "tip": theme.write(share, "share"),
        "value": float(place) if known(place) and 0 < place < math.inf else None,
        "label": label,
        "form": "triangle-up" if is_beyond else "circle",
    }  # fmt: skip
    low, high = study.facts.score_ends(variant, value) or (0, 0)
    is_drawn = not is_beyond and 0 < low <= high < math.inf
    return point | ({"low": low, "high": high} if is_drawn else {})


def _from_dense(rows: Rows) -> Rows:
    """Return the rows of each line from dense on, and a line at the height of dense."""
    dense = [row for row in rows if not row["policy"]]
    pruned = sorted((row for row in rows if row["policy"]), key=lambda row: row["x"])
    plain = [{key: row[key] for key in row if key not in ("low", "high")} for row in dense]
    starts = {row["model"]: row for row in reversed(plain)}
    levels: dict[tuple[str, str], set[float]] = {}
    for row in pruned:
        levels.setdefault((row["model"], row["line"]), set()).add(round(row["x"], 4))
    begun = [
        {**starts[model], "line": line, "form": ""}
        for (model, line), shares in levels.items()
        if len(shares) > 1 and model in starts
    ]
    right = max(row["x"] for row in rows)
    ends = [{**row, "x": right, "form": ""} for row in starts.values()]
    return [*begun, *pruned, *dense, *ends]


def _lines(rows: Rows, lines: Sequence[marks.Line], width: float, axis: str) -> VegaLite:
    """Return perplexities as lines from dense on, up to that of uniform guessing."""
    values = [row[key] for row in rows for key in ("value", "low", "high") if key in row]
    low, high = min(values), max(values)
    room, edge = (high / low) ** 0.1, ""
    ends = (low / room, high * room)
    if any(row["form"] == "triangle-up" for row in rows):
        ends, edge = (ends[0], high), say("name.worse_than_uniform_guessing")
    right = max(0.1, *(round(row["x"], 4) for row in rows))
    last = {row["line"]: row for row in sorted(rows, key=lambda row: row["x"])}
    labels = {
        line: line if row["form"] == "triangle-up" else f"{line} {row['label']}"
        for line, row in last.items()
    }
    x, y = say(f"chart.x.{axis}"), say("label.perplexity")
    axes = marks.share_axis("x", x, (-0.03 * right, right)), marks.log_axis(y, ends)
    named = marks.tips(line="label.policy", variant="label.variant")
    tips = (*named, ("tip", x), ("label", y))
    labeled = [line._replace(label=labels[line.name]) for line in lines]
    return marks.lines(_from_dense(rows), labeled, width, axes, tips=tips, edge=edge)


# Labels in place of a speed-up that noise may explain, by verdict.
_WITHHELD = {"same": "chart.speed_same_kernels", "noise": "chart.speed_no_difference"}

# Numbers of a row, and their columns.
_SPEEDS = {
    "low": "realised_low",
    "high": "realised_high",
    "control_low": "control_low",
    "control_high": "control_high",
    "promised": "promised_speedup",
}


def speed_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> VegaLite | None:
    """Return promised and realised speed-up of the forward pass, per variant and tokens.

    A band shows the control, the same kernel timed twice. A speed-up within it has an interval
    but no point and no number.

    Returns
    -------
    VegaLite or None
        None if the latency of fewer than two variants was measured, or all run the same kernels.
    """
    frame = study.facts.speeds
    if frame is None:
        return None
    base = study.facts.speed_base
    rows = _speeds(frame[(frame["scope"] == "model") & (frame["variant"] != base)])
    if all(row["label"] == say(_WITHHELD["same"]) for row in rows):
        return None
    machine, threads = frame["machine"].iloc[0], int(frame["threads"].iloc[0])
    notes = (
        say("chart.speed_up_over_base", base=short_name(base)),
        say("chart.speed_intervals_note"),
        say("chart.speed_conditions_note", machine=machine, threads=threads),
    )
    texts = [f"{row['name']}: {row['label']}" for row in rows]
    alt_text = say("chart.speed_alt", rows="; ".join(texts))
    styles = theme.styles(study)
    inks = {variant: styles[policy].color for variant, policy in theme.policies(study).items()}
    chart = layered(_speed_layers(rows, width, inks), width, 24 * len(rows))
    return titled(chart, say("chart.speed_title"), " · ".join(notes), alt_text)


def _speeds(frame: pd.DataFrame) -> Rows:
    """Return the speed-ups of each variant, with the intervals of the variant and the control."""
    known = frame.astype(object).where(frame.notna(), None)
    rows = []
    for row in records(known):
        label, realised = say(_WITHHELD.get(row["verdict"], "chart.speed_not_reported")), None
        if row["verdict"] == "stated":
            realised = row["realised_speedup"]
            label = theme.write(realised, "ratio")
        tokens = say("format.token_count", tokens=row["tokens"])
        name, variant = f"{clip(row['variant'], 30)} · {tokens}", row["variant"]
        texts = {"name": name, "variant": variant, "realised": realised, "label": label}
        rows.append(texts | {column: row[key] for column, key in _SPEEDS.items()})
    return rows


def _speed_layers(rows: Rows, width: float, inks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the layers; realised speed-ups have the color of their policy."""
    drawn = {short_name(row["variant"]): inks.get(row["variant"], MUTED) for row in rows}
    rows = [{**row, "variant": short_name(row["variant"])} for row in rows]
    numbers = [row[key] for row in rows for key in _SPEEDS if row[key]] or [1.0]
    domain = [min(0.8, min(numbers) / 1.15), max(1.25, max(numbers) * 1.15)]
    ticks = theme.log_ticks(domain[0], domain[1], few=width < NARROW)
    axis = {"labelExpr": theme.tick("ratio"), "values": ticks, "grid": False, "format": ".3~r"}
    scale = {"type": "log", "domain": domain}
    x = quantity("realised", title=say("label.speed_up"), scale=scale, axis=axis)
    names = [say("chart.speed_promised_by_flops"), say("label.realised_speed_up")]
    y = marks.names_axis("name", [row["name"] for row in rows], grid=True)

    def known(*keys: str, kind: str = "") -> Rows:
        """Return the rows in which all of some values are known."""
        return [{**row, "mark": kind} for row in rows if all(row[key] for key in keys)]

    def rule(low: str, high: str, encoding: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Return a layer of lines between two values."""
        ends = {"x": quantity(low), "x2": {"field": high}, "y": y}
        return layer(known(low, high), "rule", {**ends, **encoding}, **options)

    columns = 1 if width < NARROW else 2
    legend = {"title": None, "orient": "top", "columns": columns, "symbolFillColor": MUTED}
    kinds = marks.channels("mark", names, legend, shape=["diamond", "circle"])
    color = marks.channels("variant", [*drawn], None, color=[*drawn.values()])
    tips = marks.tips(name="label.variant", mark="label.speed_up", label="label.realised_speed_up")
    kinds |= marks.tooltips(tips) | {"y": y}
    point: dict[str, Any] = {"filled": True, "size": 50, "opacity": 1}
    promised, realised = known("promised", kind=names[0]), known("realised", kind=names[1])
    texts = {"y": y, "x": {"value": "width"}, "text": nominal("label")}
    return [
        rule("control_low", "control_high", {}, color=MUTED, strokeWidth=11, opacity=0.25),
        layer([{"one": 1}], "rule", {"x": quantity("one")}, color=MUTED),
        rule("realised", "promised", {"x": x}, color=MUTED, strokeDash=[2, 2]),
        rule("low", "high", color, strokeWidth=3),
        layer(promised, "point", {"x": quantity("promised"), **kinds}, color=MUTED, **point),
        layer(realised, "point", {"x": x, **kinds, **color}, **point),
        layer(known(), "text", texts, align="right", dx=-2, dy=-7, fontSize=LABEL, color=INK),
    ]


def sensitivity_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> VegaLite | None:
    """Return the cost of pruning each part alone, in nats per token.

    Returns
    -------
    VegaLite or None
        The parts with the highest cost; None if no sensitivity was measured or all are equal.
    """
    frame = study.sensitivity
    if frame is None or frame.empty:
        return None
    costs = frame["nll_increase"].astype(float)
    largest = frame.loc[costs.nlargest(_PARTS).index].sort_index()
    parts = zip(largest["by"], largest["part"], strict=True)
    names = distinct_names([part_name(by, str(part)) for by, part in parts], 60)
    rows = [
        {"group": name, "value": cost, "label": figures(cost, "+.3f")}
        for name, cost in zip(names, costs[largest.index].tolist(), strict=True)
    ]
    if len({row["label"] for row in rows}) < 2:
        return None
    shape = marks.Bars(
        width=width,
        row=15,
        least=1e-3,
        axis=say("chart.x_nll_increase"),
        kind="plain",
        tips=marks.tips(group="label.part", label="chart.x_nll_increase"),
    )
    level, text = float(frame["sparsity"].median()), clip(frame["text"].iloc[0])
    note = say("chart.sensitivity_note", level=level, text=text)
    if len(rows) < len(frame):
        note += say("chart.parts_shown_note", shown=len(rows), parts=len(frame))
    texts = [f"{row['group']}: {row['label']}" for row in rows]
    alt_text = say("chart.sensitivity_alt", rows="; ".join(texts))
    chart = marks.bars(rows, shape)
    return titled(chart, say("chart.sensitivity_title"), note, alt_text)


CHARTS: dict[str, Callable[..., VegaLite | None]] = {
    "speed": speed_chart,
    "quality": quality_chart,
    "sensitivity": sensitivity_chart,
}
