"""Frame → Altair chart: pure functions of a study; no model is read and nothing is printed.

Names of models and modules are only ever data of a chart: columns have fixed names of their own,
and orders are given as domains, because a sort order would be compiled into an expression.
One pixel is one point, so that a chart of ``TEXT_WIDTH`` prints 16 cm wide.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from sparsity_report.draw.fonts import FAMILY
from sparsity_report.draw.vega import VEGALITE
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files import write_file
from sparsity_report.findings.summary import baseline
from sparsity_report.sparse.cost import bitmask_bytes, csr_bytes, dense_bytes, value_bytes
from sparsity_report.study.study import Comparison
from sparsity_report.words.language import spoken
from sparsity_report.words.sentences import message, percent, say, scaled

TEXT_WIDTH = round(16 * 72 / 2.54)
HERO_WIDTH = 640
INK, MUTED, GRID = "#222222", "#666666", "#e4e4e4"
BLUE, VERMILLION, BLACK, GREEN = "#0072B2", "#D55E00", "#000000", "#009E73"
GROUP_NAMES = {
    "embedding": message("embedding"),
    "attention_linear": message("attention"),
    "mlp_linear": message("MLP"),
    "lm_head": message("output head"),
    "norm": message("norm"),
    "router": message("router"),
    "ssm": message("state space"),
    "other_linear": message("other linear"),
    "other": message("other"),
}

_METHODS = {
    "global_magnitude": message("global magnitude"),
    "layerwise_magnitude": message("layerwise magnitude"),
}
_LAYOUTS = {"dense": BLUE, "masked": VERMILLION, "csr": BLACK}
_MORE_COLOURS = (GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_STORED = {
    message("dense and masked"): (BLUE, [1, 0]),
    message("CSR, int32 indices"): (BLACK, [1, 0]),
    message("CSR, int64 indices"): (BLACK, [5, 3]),
    message("bitmask"): (GREEN, [1, 2]),
}
# Below this width a column of a paper is meant, with less to say beside lines.
_NARROW = 260
# Points a column of a heat map takes where a number stands in it.
_CELL = 28
_BARE: dict[str, Any] = {"ticks": False, "domain": False}
_NAMES: dict[str, Any] = {**_BARE, "labelLimit": 140, "labelPadding": 7}
_SI_TICK = "format(datum.value, '~s')"
_LABELS = {"labelColor": INK, "labelFontSize": 9, "titleColor": MUTED, "titleFontSize": 9}
_LINES = {"gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED, "tickSize": 4}
_SUBTITLE = {"subtitleColor": MUTED, "subtitleFontSize": 9, "subtitlePadding": 4}
_TITLE = {"anchor": "start", "frame": "bounds", "fontSize": 12, "color": INK, "offset": 12}
_PLAIN = {**_LABELS, "titleFontWeight": "normal"}
_CONFIG: dict[str, Any] = {
    "font": FAMILY,
    "padding": {"left": 4, "top": 4, "right": 4, "bottom": 4},
    "view": {"stroke": None},
    "title": {**_TITLE, **_SUBTITLE},
    "axis": {**_PLAIN, **_LINES, "titlePadding": 8, "labelFlush": False},
    "legend": {**_PLAIN, "symbolStrokeWidth": 1.4, "rowPadding": 4, "offset": 12},
}


class Metric(NamedTuple):
    """How a column of ``study.groups`` is drawn."""

    title: str
    axis: str
    note: str
    file: str
    share: bool = True


METRICS = {
    "sparsity": Metric(
        message("Zeros per group"),
        message("share of zeros in the group"),
        message("zeros ÷ parameters, biases included"),
        "sparsity",
    ),
    "param_frac": Metric(
        message("Parameters per group"),
        message("share of all parameters"),
        message("parameters of the group ÷ all parameters, zeros included"),
        "param_frac",
    ),
    "flops_per_token": Metric(
        message("Arithmetic per group"),
        message("FLOPs per token"),
        message("two FLOPs per multiply-add; only CSR skips zeros"),
        "flops",
        share=False,
    ),
}


def group_bars(study: Comparison, metric: str, width: float = TEXT_WIDTH) -> alt.LayerChart:
    """Return bars per group with the variants side by side; what is unknown shows as "–".

    Parameters
    ----------
    study : Comparison
    metric : {"sparsity", "param_frac", "flops_per_token"}
    width : float
        In points, everything included.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> group_bars(study, "sparsity").to_dict()["width"]
    454
    """
    return _fitted(_group_bars(study, metric, list(study.variants["variant"]), width))


def variant_bars(study: Comparison, variant: str, metric: str) -> alt.LayerChart:
    """Return one bar per group for one variant; `metric` as for :func:`group_bars`."""
    prunable_rows(study, variant)
    return _fitted(_group_bars(study, metric, [variant]))


def sparsity_map(
    study: Comparison, variant: str, width: float = TEXT_WIDTH
) -> alt.LayerChart | None:
    """Return a heat map of the prunable weights' sparsity, Transformer block × projection.

    `width` is in points, everything included.

    Returns
    -------
    altair.LayerChart or None
        None where the variant has no prunable weights in numbered blocks.
    """
    drawn = _map(study, variant, width)
    return None if drawn is None else _fitted(drawn)


def csr_bytes_curve(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return bytes ÷ dense bytes of each layout against sparsity, with the study's own levels.

    `width` is in points, everything included.

    Returns
    -------
    altair.LayerChart or None
        None where nothing is prunable.
    """
    drawn = _curve(study, width, 220)
    # The label of a level near the right end stands outside the plot.
    levels = _levels(study)
    outside = any(level > 0.8 for level in levels) and (width >= _NARROW or len(levels) > 1)
    room = 50 if width >= _NARROW else 20
    return None if drawn is None else _fitted(drawn, right=room if outside else 0)


def hero(study: Comparison) -> alt.LayerChart | alt.VConcatChart:
    """Return a study as one picture: where the zeros land, how unevenly, and when CSR pays."""
    pruned = distinct_prunings(study)
    if not pruned:
        return group_bars(study, "param_frac")
    height = max(210, 12 * map_rows(study, pruned[0])["projection"].nunique())
    top = _map(study, pruned[0], HERO_WIDTH - 130)
    strip, curve = _strip(study, pruned[0], 190, height), _curve(study, 270, height)
    if top is None or strip is None or curve is None:
        return group_bars(study, "sparsity")
    below = alt.hconcat(strip, curve, spacing=44).resolve_scale(
        color="independent", strokeDash="independent"
    )
    chart = alt.vconcat(top, below, spacing=26).resolve_scale(
        color="independent", strokeDash="independent"
    )
    said = " ".join(part.description for part in (top, strip, curve))
    drawn = chart.properties(description=said, background="white").configure(**_config())
    assert isinstance(drawn, alt.VConcatChart)
    return drawn


def bar_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    title: str,
    file_name: str | os.PathLike[str] | None = None,
    directory: str | os.PathLike[str] | None = None,
    *,
    y_min: float | None = None,
) -> alt.LayerChart:
    """Draw one bar per row of any frame, and write it as PNG if a file name is given.

    Parameters
    ----------
    frame : pandas.DataFrame
    x, y : str
        Columns with the names and the lengths of the bars; a name occurs once.
    title : str
    file_name : path-like, optional
        Ends in ``.png``.
    directory : path-like, optional
        Where `file_name` goes; default the current folder.
    y_min : float, optional
        Where the bars start; default 0.

    Raises
    ------
    SparsityReportError
        A column is missing or not of numbers, a name occurs twice, or the file cannot be written.

    Examples
    --------
    >>> groups = pd.DataFrame({"group": ["norm", "mlp_linear"], "sparsity": [0.0, 0.3]})
    >>> chart = bar_plot(groups, "group", "sparsity", "Zeros per group")
    >>> chart.to_dict()["description"]
    'Bar chart, share of zeros in the group: norm 0.0 %; MLP 30.0 %.'
    """
    for column in (x, y):
        if column not in frame.columns:
            found = ", ".join(str(name) for name in frame.columns)
            raise SparsityReportError(f"bar_plot: no column {column!r}; the frame has {found}")
    if not pd.api.types.is_numeric_dtype(frame[y]):
        raise SparsityReportError(f"bar_plot: column {y!r} does not hold numbers")
    names = [group_name(str(name)) for name in frame[x]]
    if len(set(names)) < len(names):
        raise SparsityReportError(
            f"bar_plot: a name occurs twice in column {x!r}; give the rows of one variant"
        )
    known = METRICS.get(y)
    rows = [
        _bar(name, "", value, known.share if known else False)
        for name, value in zip(names, frame[y], strict=True)
    ]
    chart = _fitted(
        _bars(
            rows,
            {"": (BLUE, BLUE)},
            axis=say(known.axis) if known else y,
            share=known.share if known else False,
            title=_title(title),
            start=y_min or 0.0,
        )
    )
    if file_name is not None:
        target = Path(directory or ".") / file_name
        if target.suffix.lower() != ".png":
            raise SparsityReportError(f"bar_plot writes .png files only, not {target}")
        write_file(target, png(chart))
    return chart


def png(chart: alt.TopLevelMixin, scale: float = 2) -> bytes:
    """Return a chart as PNG, `scale` pixels per point; nothing is fetched."""
    data: bytes = vl_convert.vegalite_to_png(
        chart.to_dict(), vl_version=VEGALITE, scale=scale, ppi=72, allowed_base_urls=[]
    )
    return data


def svg(spec: Mapping[str, Any], key: str = "part") -> str:
    """Draw a chart as SVG, the same text whatever was drawn before.

    Clips and gradients are named after `key`: several drawings may share a page, where one's
    gradient would otherwise fill another.
    """
    drawn = vl_convert.vegalite_to_svg(dict(spec), vl_version=VEGALITE, allowed_base_urls=[])
    names: dict[str, str] = {}
    return re.sub(
        r'(id="|url\(#)((?:clip|gradient)_?\d+)',
        lambda found: found[1] + names.setdefault(found[2], f"{key}-{len(names)}"),
        drawn,
    )


def distinct_prunings(study: Comparison) -> list[str]:
    """Return the first variant of each distinct set of zeros, whoever pruned it."""
    shares = study.totals.set_index("variant")["sparsity_prunable"].astype(float)
    by_us = set(study.variants.loc[study.variants["pruned"].notna(), "variant"])
    seen: dict[tuple[Any, ...], str] = {}
    for variant in study.variants["variant"]:
        if variant in by_us or shares[variant] > 0.01:
            own = study.layers[study.layers["variant"] == variant]
            seen.setdefault(tuple(own["weight_nonzero"].fillna(-1)), variant)
    return list(seen.values())


def prunable_rows(study: Comparison, variant: str) -> pd.DataFrame:
    """Return a variant's layers with prunable weights of known values, and their zeros' ``share``.

    Raises
    ------
    SparsityReportError
        The study has no such variant.
    """
    known = list(study.variants["variant"])
    if variant not in known:
        raise SparsityReportError(f"no variant {variant!r}; the study has {', '.join(known)}")
    own = study.layers[study.layers["variant"] == variant]
    own = own[own["prunable"] & (own["weight_total"] > 0) & own["weight_nonzero"].notna()]
    return own.assign(share=(1 - own["weight_nonzero"] / own["weight_total"]).astype(float))


def map_rows(study: Comparison, variant: str) -> pd.DataFrame:
    """Return ``block, projection, total, nonzero, sparsity`` of a variant's prunable weights."""
    own = prunable_rows(study, variant)
    own = own[own["block"].notna()]
    places = grid(own)
    frame = pd.DataFrame(
        {
            "block": places["block"].to_numpy(dtype=int),
            "projection": places["projection"].to_numpy(),
            "total": own["weight_total"].to_numpy(dtype=int),
            "nonzero": own["weight_nonzero"].to_numpy(dtype=int),
        }
    )
    frame = frame.groupby(["block", "projection"], sort=False, as_index=False).sum()
    return frame.assign(sparsity=1 - frame["nonzero"] / frame["total"])


def grid(own: pd.DataFrame) -> pd.DataFrame:
    """Return where modules stand in a heat map: their ``block``, null outside, and ``projection``.

    Projections stand in model order, under the shortest names that tell them apart. More than 40,
    such as the experts of a mixture, are merged; so are neighbours of very many blocks.
    """
    blocks = own["block"].astype("Int64")
    merged = 1 + blocks.nunique() // 120
    names = np.full(len(own), "", dtype=object)
    for inside, path in ((True, _path), (False, lambda name: ("", *(name or "linear").split(".")))):
        here = (blocks.notna() == inside).to_numpy()
        part = own[here]
        paths = [path(name) for name in part["module_name"]]
        short = _short_names(paths)
        if len(set(short)) > 40:
            short = _short_names([tuple(w for w in path if not w.isdigit()) for path in paths])
        if len(set(short)) > 40:
            short = [group_name(group) for group in part["group"]]
        names[here] = short
    return pd.DataFrame(
        {"block": blocks // merged * merged, "projection": distinct_names(list(names), 80)}
    )


def curve_rows(study: Comparison, sparsities: Sequence[float] | None = None) -> pd.DataFrame:
    """Return ``sparsity, layout, dtype, bytes, ratio`` of the prunable weights in each layout.

    From integers, for the commonest dtype among the prunable weights of the first dense variant;
    ``ratio`` is bytes ÷ dense bytes. `sparsities` defaults to 0, 1, … 100 %.
    """
    own = study.layers[study.layers["variant"] == baseline(study)]
    own = own[own["prunable"] & (own["weight_total"] > 0)]
    rows: list[tuple[float, str, str, int, float]] = []
    if not own.empty:
        dtype = str(own.groupby("dtype", sort=False)["weight_total"].sum().idxmax())
        own = own[own["dtype"] == dtype]
        v, n = value_bytes(dtype), int(own["weight_total"].sum())
        pointers = int(own["row_pointers"].sum())
        for share in sparsities or [step / 100 for step in range(101)]:
            nonzero = n - round(n * share)
            sizes = (
                dense_bytes(n, v),
                csr_bytes(nonzero, pointers - 1, v, 4),
                csr_bytes(nonzero, pointers - 1, v, 8),
                bitmask_bytes(n, nonzero, v),
            )
            for layout, size in zip(_STORED, sizes, strict=True):
                rows.append((share, layout, dtype, size, size / (n * v)))
    return pd.DataFrame(rows, columns=["sparsity", "layout", "dtype", "bytes", "ratio"])


def group_name(group: str) -> str:
    """Return a group's name for people, ``attention_linear`` → ``attention``."""
    return say(GROUP_NAMES[group]) if group in GROUP_NAMES else group


def method_name(method: str) -> str:
    """Return the name of a way to prune for people, ``global_magnitude`` → ``global magnitude``."""
    return say(_METHODS[method]) if method in _METHODS else method.replace("_", " ")


def palette(study: Comparison) -> dict[str, tuple[str, str]]:
    """Return outline and filling per variant, by layout, then further Okabe-Ito colours.

    Masked variants are filled lightly, so that the layouts differ in black and white, too.
    """
    looks: dict[str, tuple[str, str]] = {}
    further = 0
    for variant, layout in zip(study.variants["variant"], study.variants["layout"], strict=True):
        colour = _LAYOUTS[layout]
        if colour in {used for used, _ in looks.values()}:
            colour = _MORE_COLOURS[further % len(_MORE_COLOURS)]
            further += 1
        looks[variant] = (colour, _tint(colour) if layout == "masked" else colour)
    return looks


def layout_inks() -> dict[str, tuple[str, str]]:
    """Return outline and filling of each layout."""
    return {
        layout: (colour, _tint(colour) if layout == "masked" else colour)
        for layout, colour in _LAYOUTS.items()
    }


def distinct_names(names: Sequence[str], limit: int = 40) -> list[str]:
    """Shorten names for people; different ones stay different."""
    short: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        made, number = _clip(name, limit), 2
        while made in taken:
            made, number = f"{_clip(name, limit)} ({number})", number + 1
        short[name] = made
        taken.add(made)
    return [short[name] for name in names]


def model_names(study: Comparison, limit: int = 60) -> str:
    """Return the names of a study's models, shortened to be read."""
    return ", ".join(_clip(name, limit) for name in dict.fromkeys(study.variants["model"]))


def _group_bars(
    study: Comparison, metric: str, variants: list[str], width: float = TEXT_WIDTH
) -> alt.LayerChart:
    if metric not in METRICS:
        raise SparsityReportError(f"no chart of {metric!r}; use one of {', '.join(METRICS)}")
    look, table, looks = METRICS[metric], study.pivot(metric), palette(study)
    shown = dict(zip(looks, distinct_names(list(looks), 40), strict=True))
    rows = [
        _bar(group_name(str(group)), shown[variant], table.loc[group, variant], look.share)
        for group in table.index
        for variant in variants
    ]
    of = say("{variant} of ", variant=shown[variants[0]]) if len(variants) == 1 else ""
    title = _title(say(look.title), f"{of}{model_names(study)} · {say(look.note)}")
    own = {shown[variant]: looks[variant] for variant in variants}
    return _bars(rows, own, axis=say(look.axis), share=look.share, title=title, width=width)


def _bar(group: str, variant: str, value: Any, share: bool) -> dict[str, Any]:
    known = pd.notna(value) and math.isfinite(value)
    text = (percent(value) if share else "".join(scaled(value, "").split())) if known else "–"
    number = float(value) if known else None
    return {"group": group, "variant": variant, "value": number, "at": number or 0.0, "label": text}


def _bars(
    rows: list[dict[str, Any]],
    looks: Mapping[str, tuple[str, str]],
    *,
    axis: str,
    share: bool,
    title: alt.TitleParams,
    start: float = 0.0,
    width: float = TEXT_WIDTH,
) -> alt.LayerChart:
    groups, variants = list(dict.fromkeys(row["group"] for row in rows)), list(looks)
    band, gap = 11 * len(variants), 9
    # An axis of thousandths would make noise look like a finding.
    top = max([row["at"] for row in rows] + [start + (0.1 if share else 1.0)])
    tick = _percent_tick() if share else _SI_TICK
    # The labels stand right of the bars and take the same room at any width.
    end = start + (top - start) * (1 + 0.15 * TEXT_WIDTH / width)
    x = _x("value", axis, [start, end], labelExpr=tick, grid=False, tickCount=round(width / 75))
    columns = int(0.8 * width) // (34 + min(140, 5 * max(len(name) for name in variants)))
    legend = alt.Legend(
        title=None, orient="top", columns=columns, symbolType="square", labelLimit=140
    )
    outlines, fillings = (
        {"scale": alt.Scale(domain=variants, range=list(part)), "legend": legend}
        if len(variants) > 1
        else {"scale": alt.Scale(domain=variants, range=list(part)), "legend": None}
        for part in zip(*looks.values(), strict=True)
    )
    base = _chart(rows).encode(
        y=_y("group", groups, paddingInner=gap / (band + gap), paddingOuter=0.12),
        yOffset=alt.YOffset("variant:N", scale=alt.Scale(domain=variants, paddingInner=0.14)),
        tooltip=_tips(group=say("group"), variant=say("variant"), label=axis),
    )
    bars = base.transform_filter("isValid(datum.value)").mark_bar(clip=True, strokeWidth=1)
    bars = bars.encode(
        x=x,
        x2=alt.datum(start),
        fill=alt.Fill("variant:N", **fillings),
        stroke=alt.Stroke("variant:N", **outlines),
    )
    text = base.mark_text(align="left", dx=4, fontSize=8, color=INK)
    said = "; ".join(
        " ".join(filter(None, (row["group"], row["variant"], row["label"]))) for row in rows
    )
    return _layer(
        [bars, text.encode(x=alt.X("at:Q"), text="label:N")],
        size=(width, len(groups) * (band + gap)),
        title=title,
        said=_clip(say("Bar chart, {axis}: {bars}.", axis=axis, bars=said), 1500),
    )


def _map(study: Comparison, variant: str, width: float) -> alt.LayerChart | None:
    frame = map_rows(study, variant)
    if frame.empty:
        return None
    least, most = (
        frame.iloc[int(place)] for place in (frame["sparsity"].argmin(), frame["sparsity"].argmax())
    )
    low = math.floor(least["sparsity"] * 20) / 20
    high = math.ceil(most["sparsity"] * 20) / 20
    # A scale of less than 20 points would make noise look like a finding.
    while high - low < 0.199:
        low, high = max(0.0, low - 0.05), min(1.0, high + 0.05)
    blocks = [int(block) for block in sorted(frame["block"].unique())]
    names = list(dict.fromkeys(frame["projection"]))
    shares = [float(share) for share in frame["sparsity"]]
    rows = frame.assign(
        label=[percent(share) for share in shares],
        digits=[f"{100 * share:.0f}" for share in shares],
        light=[share > low + 0.6 * (high - low) for share in shares],
    )
    axis = alt.Axis(values=blocks[:: math.ceil(len(blocks) * _CELL / width)], labelAngle=0, **_BARE)
    base = _chart(rows).encode(
        x=alt.X("block:O", title=say("Transformer block"), scale=_flush(blocks), axis=axis),
        y=alt.Y("projection:N", title=None, scale=_flush(names), axis=alt.Axis(**_NAMES)),
        tooltip=_tips(block=say("block"), projection=say("projection"), label=say("zeros")),
    )
    length = max(60, min(120, 20 * len(names)))
    legend = alt.Legend(
        title=say("zeros"),
        labelExpr=_percent_tick(),
        tickCount=4,
        gradientLength=length,
        gradientThickness=10,
    )
    scale = alt.Scale(scheme="viridis", domain=[low, high], nice=False)
    cells = base.mark_rect(stroke="#ffffff", strokeWidth=0.5)
    layers = [cells.encode(color=alt.Color("sparsity:Q", scale=scale, legend=legend))]
    if len(blocks) * _CELL <= width:
        digits = base.mark_text(fontSize=8)
        ink = alt.condition("datum.light", alt.value("#1a1a1a"), alt.value("#fdfdfd"))
        layers.append(digits.encode(text="digits:N", color=ink))
    span = [percent(float(end["sparsity"])) for end in (least, most)]
    facts = study.variants.set_index("variant").loc[variant]
    heading, how = say("Where the zeros are"), _clip(variant)
    if pd.notna(facts["asked_sparsity"]):
        method = str(facts["method"] or "")
        heading = say(
            "Where {asked:level} {method} pruning lands",
            asked=facts["asked_sparsity"],
            method=method_name(method),
        )
        how = _clip(variant)
        if pd.notna(facts["threshold"]):
            how = say("one threshold |w| ≤ {threshold:.3g}", threshold=facts["threshold"])
    spread = say("{low} to {high} zeros per matrix", low=span[0], high=span[1])
    return _layer(
        layers,
        size=(width, 20 * len(names)),
        title=_title(heading, f"{_clip(facts['model'])} · {how} · {spread}"),
        said=say(
            "Heat map, {blocks} blocks by {projections} projections: from {low} zeros in block "
            "{low_block}, {low_projection}, to {high} in block {high_block}, {high_projection}.",
            blocks=str(len(blocks)),
            projections=str(len(names)),
            low=span[0],
            low_block=str(least["block"]),
            low_projection=least["projection"],
            high=span[1],
            high_block=str(most["block"]),
            high_projection=most["projection"],
        ),
    )


def _strip(study: Comparison, variant: str, width: int, height: int) -> alt.LayerChart | None:
    frame = map_rows(study, variant)
    if frame.empty:
        return None
    own = prunable_rows(study, variant)
    mean = float(1 - own["weight_nonzero"].sum() / own["weight_total"].sum())
    far = frame.loc[frame.groupby("projection")["sparsity"].idxmax()].nlargest(2, "sparsity")
    far = far[far["sparsity"] > max(1.5 * mean, mean + 0.1)]
    far = far.assign(label=[say("block {block}", block=str(block)) for block in far["block"]])
    top = min(1.0, max(0.2, math.ceil(frame["sparsity"].max() * 10) / 10))
    x = _x("sparsity", say("share of zeros"), [0, top], labelExpr=_percent_tick())
    y = _y("projection", list(dict.fromkeys(frame["projection"])), grid=True)
    rule = _chart([{"sparsity": mean}]).mark_rule(color=VERMILLION, strokeDash=[4, 3])
    dots = _chart(frame).mark_circle(size=26, color=BLUE, opacity=0.5)
    text = _chart(far).mark_text(align="right", dx=4, dy=-8, fontSize=8.5)
    return _layer(
        [rule.encode(x=x), dots.encode(x=x, y=y), text.encode(x=x, y=y, text="label:N")],
        size=(width, height),
        title=_title(
            say("How unevenly"),
            say("one dot per matrix; dashed: {mean:percent} overall", mean=mean),
        ),
        said=say(
            "One dot per matrix at its share of zeros, around {mean:percent} overall.", mean=mean
        ),
    )


def _curve(study: Comparison, width: float, height: int) -> alt.LayerChart | None:
    frame = curve_rows(study)
    if frame.empty:
        return None
    dtype, top, wide = str(frame["dtype"].iloc[0]), float(frame["ratio"].max()), width > 300
    levels = _level_marks(study, top, width)
    prunable = say("sparsity of the prunable weights")
    x = _x("sparsity", prunable, [0, 1], labelExpr=_percent_tick(), grid=False)
    y = alt.Y(
        "ratio:Q",
        title=say("bytes ÷ dense bytes"),
        scale=alt.Scale(domain=[0, top * (1.06 + 0.075 * len(levels))], nice=False),
        axis=alt.Axis(values=list(range(math.ceil(top) + 1)), labelExpr="datum.value + ' ×'"),
    )
    legend = alt.Legend(
        title=None,
        orient="top" if wide else "bottom",
        columns=4 if wide else 2 if width >= _NARROW else 1,
        symbolSize=220,
    )
    colours, dashes = (
        alt.Scale(domain=[say(layout) for layout in _STORED], range=list(part))
        for part in zip(*_STORED.values(), strict=True)
    )
    drawn = frame[["sparsity", "layout", "ratio"]]
    lines = _chart(drawn.assign(layout=drawn["layout"].map(say))).mark_line(clip=True)
    even, own = _chart(breaks := _break_evens(frame)).encode(x=x, y=y), _chart(levels).encode(x=x)
    row = alt.Y("row:Q")
    note: dict[str, Any] = {"align": "left", "dx": 5, "fontSize": 8.5}
    turned = width < _NARROW and len(levels) == 1 and levels[0]["sparsity"] > 0.6
    beside = {**note, "align": "right", "dx": -5} if turned else note
    layers = [
        own.mark_rule(color=VERMILLION, strokeWidth=1.2).encode(y=row, y2=alt.datum(0)),
        lines.encode(
            x=x,
            y=y,
            color=alt.Color("layout:N", scale=colours, legend=legend),
            strokeDash=alt.StrokeDash("layout:N", scale=dashes, legend=legend),
        ),
        even.mark_point(color=BLACK, fill="white", size=30, strokeWidth=1.2, opacity=1),
        even.mark_text(color=INK, dy=-7, **note).encode(text="label:N"),
        own.mark_point(color=VERMILLION, filled=True, size=40, opacity=1).encode(y=y),
        own.mark_text(color=VERMILLION, **beside).encode(y=row, text="label:N"),
    ]
    said = [say("Lines of bytes ÷ dense bytes against sparsity, {dtype} values.", dtype=dtype)]
    said += [
        say(
            "{layout}: smaller than dense from {share}.",
            layout=say(mark["layout"]),
            share=mark["label"],
        )
        for mark in breaks
    ]
    said += [say("This study: {level}.", level=mark["label"]) for mark in levels]
    return _layer(
        layers,
        size=(width, height),
        title=_title(
            say("Bytes against sparsity"),
            say("prunable weights, {dtype}; circles: break-even", dtype=dtype),
        ),
        said=" ".join(said),
    )


def _break_evens(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return where the straight lines of CSR meet dense, if they do."""
    marks = []
    for layout in ("CSR, int32 indices", "CSR, int64 indices"):
        ratios = frame.loc[frame["layout"] == layout, "ratio"]
        share = (ratios.iloc[0] - 1) / (ratios.iloc[0] - ratios.iloc[-1])
        mark = {"sparsity": share, "ratio": 1.0, "label": percent(share, 0), "layout": layout}
        marks += [mark] if share < 1 else []
    return marks


def _levels(study: Comparison) -> list[float]:
    """Return the study's own sparsities of the prunable weights, the lowest eight."""
    totals = study.totals.set_index("variant")["sparsity_prunable"].dropna()
    pruned = [variant for variant in distinct_prunings(study) if variant in totals.index]
    return sorted({round(float(totals[variant]), 6) for variant in pruned} - {0.0})[:8]


def _level_marks(study: Comparison, top: float, width: float) -> list[dict[str, Any]]:
    """Return where each level's rule and label stand; they step down so that no rule cuts one."""
    shares = _levels(study)
    if not shares:
        return []
    frame = curve_rows(study, shares)
    ratios = frame[frame["layout"] == "CSR, int32 indices"]["ratio"]
    one = message("{share:percent}: CSR {ratio:.2f} × dense")
    several = message("{share:percent}: {ratio:.2f} ×")
    said = several if width >= _NARROW or len(shares) == 1 else "{share:percent}"
    if len(shares) == 1 and width >= _NARROW:
        said = one
    return [
        {
            "sparsity": share,
            "ratio": float(ratio),
            "label": say(said, share=share, ratio=float(ratio)),
            "row": top * (1.05 + 0.075 * (len(shares) - 1 - place)),
        }
        for place, (share, ratio) in enumerate(zip(shares, ratios, strict=True))
    ]


def _path(name: str) -> tuple[str, ...]:
    """Split a module's name into its stack of blocks and the words after the block's number."""
    words = name.split(".")
    at = next((place for place, word in enumerate(words) if word.isdigit()), 0)
    inner = words[at + 1 :] or ["linear"]
    if inner[-1] in {"dense", "linear"} and len(inner) > 1:
        inner = inner[:-1]
    return (".".join(words[:at]), *inner)


def _short_names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Return for each path the shortest tail no other path has, after its stack if several."""
    distinct = list(dict.fromkeys(paths))
    stacks = list(dict.fromkeys(stack for stack, *_ in distinct))
    words = [stack.split(".") for stack in stacks]
    # Of encoder.block and decoder.block, the first word says it; else the whole name has to.
    heads = [first for first, *_ in words]
    if len(set(heads)) < len(heads):
        heads = stacks
    head = dict(zip(stacks, heads, strict=True)) if len(stacks) > 1 else {}
    tails: dict[tuple[str, ...], int] = {}
    for path in distinct:
        for k in range(1, len(path)):
            tail = (path[0], *path[-k:])
            tails[tail] = tails.get(tail, 0) + 1
    names = {}
    for path in distinct:
        k = next(
            (k for k in range(1, len(path)) if tails[(path[0], *path[-k:])] == 1), len(path) - 1
        )
        names[path] = ".".join(word for word in (head.get(path[0], ""), *path[-k:]) if word)
    return [names[path] for path in paths]


def _tint(colour: str) -> str:
    """Mix a colour with white, to a third."""
    return "#" + "".join(f"{255 - (255 - int(colour[i : i + 2], 16)) // 3:02X}" for i in (1, 3, 5))


def _chart(rows: pd.DataFrame | list[dict[str, Any]]) -> alt.Chart:
    values: Any = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    return alt.Chart(alt.InlineData(values=values))


def _layer(
    layers: list[alt.Chart], *, size: tuple[float, float], title: alt.TitleParams, said: str
) -> alt.LayerChart:
    width, height = size
    return alt.LayerChart(layer=layers, width=width, height=height, title=title, description=said)


def _x(field: str, title: str, domain: list[float], **axis: Any) -> alt.X:
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    return alt.X(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(**{"tickCount": 6, **axis}))


def _y(field: str, names: list[str], *, grid: bool = False, **padding: Any) -> alt.Y:
    scale, axis = alt.Scale(domain=names, **padding), alt.Axis(grid=grid, **_NAMES)
    return alt.Y(f"{field}:N", title=None, scale=scale, axis=axis)


def _flush(domain: Sequence[Any]) -> alt.Scale:
    return alt.Scale(domain=list(domain), paddingInner=0, paddingOuter=0)


def _tips(**titles: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in titles.items()]


def _clip(text: object, limit: int = 60) -> str:
    return printable(str(text), limit)


def _title(text: str, subtitle: str = "") -> alt.TitleParams:
    title = alt.TitleParams(text=_clip(text, 100))
    if subtitle:
        title["subtitle"] = subtitle
    return title


def _percent_tick() -> str:
    return f"format(100 * datum.value, '~r') + '{spoken().space}%'"


def _config() -> dict[str, Any]:
    known = spoken()
    if known.code == "en":
        return _CONFIG
    signs = {"decimal": known.decimal, "thousands": known.thousands, "grouping": [3]}
    return {**_CONFIG, "locale": {"number": {**signs, "currency": ["", ""]}}}


def _fitted(chart: alt.LayerChart, right: int = 0) -> alt.LayerChart:
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    padding = {**_CONFIG["padding"], "right": 4 + right}
    title = {**_CONFIG["title"], "limit": float(chart.width) - 8}
    config = {**_config(), "padding": padding, "title": title}
    fitted = chart.properties(autosize=fit, background="white").configure(**config)
    assert isinstance(fitted, alt.LayerChart)
    return fitted
