"""Geometry of charts: everything is inside, on its scale and in its place; tooltips are right."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from drawings import boxes, rows_of, tooltips, units, unread_fields
from measurements import latency, put_in, quality, sensitivity, with_losses
from wording import wording

import sparsity_report as sr
from sparsity_report.draw import charts, export, heat_maps, measured_charts, theme
from sparsity_report.words.display_names import group_name

COLUMN = 8.5 * 72 / 2.54
TEXT = 16 * 72 / 2.54


@pytest.fixture(scope="module")
def study(demo_study):
    return put_in(demo_study, latency=latency(), quality=quality(), sensitivity=sensitivity(6))


@pytest.fixture(scope="module")
def levels(demo):
    """Levels given in no order, the highest near the right end."""
    prunings = [sr.global_magnitude(demo, level) for level in (0.5, 0.95, 0.1)]
    return sr.compare(sr.dense(demo), *map(sr.masked, prunings))


def drawn(chart):
    """Texts, marks, width and height of a chart as it is."""
    return boxes(export.svg(chart))


def x_domain(spec, layer=0):
    return spec["layer"][layer]["encoding"]["x"]["scale"]["domain"]


def group_bars(study, metric="sparsity", **_):
    frame = study.groups[study.groups["variant"] == "CSR30"]
    return sr.bar_plot(frame, "group", metric, "Groups")


CHARTS = {
    "bars": group_bars, "map": heat_maps.sparsity_map, "curve": charts.csr_bytes_curve,
    **measured_charts.CHARTS,
}  # fmt: skip


def built(name, study, width):
    member = ["Masked30"] if name == "map" else []
    return CHARTS[name](study, *member, width=width)


@pytest.mark.parametrize("width", [COLUMN, TEXT])
@pytest.mark.parametrize("name", CHARTS)
def test_nothing_leaves_a_chart_or_hides_another_text(study, name, width):
    texts, _, wide, high = drawn(built(name, study, width))
    assert wide == pytest.approx(TEXT if name == "bars" else width, abs=1)
    for text in texts:
        assert text.left >= -1, text
        assert text.right <= wide + 1 or text.text.endswith("…"), text
        assert -1 <= text.top < text.bottom <= high + 1, text
    # Texts that are drawn twice are halos around letters.
    for one, other in itertools.combinations({text[:5]: text for text in texts}.values(), 2):
        assert not one.meets(other), (one, other)


@pytest.mark.parametrize("name", sorted(CHARTS.keys() - {"map"}))
def test_every_field_that_is_read_is_in_the_data(study, name):
    spec = built(name, study, TEXT).to_dict()
    assert unread_fields(spec) == []


def test_tooltips_of_bars(study):
    read = tooltips(group_bars(study, "param_frac").to_dict())
    groups = study.groups[study.groups["variant"] == "CSR30"]
    for row in groups.to_dict("records"):
        assert {
            "group": group_name(row["group"]),
            "Share of parameters": theme.write(row["param_frac"], "share"),
        } in read


def test_tooltips_of_measurements(study):
    bars, points, parts = (
        tooltips(draw(study).to_dict())
        for draw in (
            measured_charts.speed_chart,
            measured_charts.quality_chart,
            measured_charts.sensitivity_chart,
        )
    )
    for mark in ("performed FLOPs promise", "realised"):
        assert {"variant": "CSR30 · 1 token", "speed-up": mark, "realised": "0.40 ×"} in bars
    assert {
        "policy": "global magnitude", "variant": "Masked30",
        "sparsity of the prunable weights": "30.0 %", "perplexity": "12.5",
    } in points  # fmt: skip
    assert {"part": "block 0", "increase over dense, nats per token": "+0.090"} in parts


@pytest.mark.parametrize("name", CHARTS)
def test_no_mark_is_named_by_a_number_in_all_digits(study, name):
    """Neither in the SVG of the kit nor in the tooltips of the page."""
    odd = {"nll_increase": study.sensitivity["nll_increase"] / 3}
    noise = np.random.default_rng(4).normal(size=(3, 90))
    scores = quality([(share, 1.0) for share in (0.0, 0.29817708, 0.90123456)])
    measured = put_in(
        study,
        latency=study.latency.assign(realised_speedup=0.3712345, promised_speedup=1.2345678),
        quality=with_losses(scores, np.add(noise, [[32], [33], [40]])),
        sensitivity=study.sensitivity.assign(**odd),
    )
    chart = built(name, measured, TEXT)
    svg = export.svg(chart)
    named = re.findall(r'aria-label="([^"]*)"', svg) + re.findall("<title>(.*?)</title>", svg)
    if name != "map":
        named += re.findall("<title>(.*?)</title>", export.slim(svg))
    assert len(named) > 3
    assert [text for text in named if re.search(r"\d\.\d{4}", text)] == []


def test_alternative_texts_have_the_numbers(study):
    layers = study.layers[(study.layers["variant"] == "Masked30") & study.layers["prunable"]]
    shares = 1 - layers["weight_nonzero"] / layers["weight_total"]
    least, most = (layers.loc[end] for end in (shares.idxmin(), shares.idxmax()))
    projections = [one["module_name"].rpartition(".")[2] for one in (least, most)]
    drawn = {name: built(name, study, TEXT) for name in CHARTS}
    heard = {"map": drawn.pop("map").alt}
    heard |= {name: chart.to_dict()["description"] for name, chart in drawn.items()}
    assert heard["map"] == (
        f"Heat map of projections by block: zeros range from {100 * shares.min():.1f} % in "
        f"{projections[0]} of block {least['block']} to {100 * shares.max():.1f} % in "
        f"{projections[1]} of block {most['block']}."
    )
    assert "; MLP 30.0 %; " in heard["bars"]
    assert heard["curve"].endswith(
        "CSR with int32 indices is smaller than dense from 50.3 % sparsity. "
        "This study: 30.0 %: CSR 1.41 × dense."
    )
    assert "global magnitude, 30.0 %: 12.5; " in heard["quality"]
    assert heard["sensitivity"].startswith(
        "Increase in nats per token by part: block 0: +0.090; block 1: +0.0"
    )


def bars_of(values, metric="sparsity", **options):
    frame = pd.DataFrame({"part": [f"p{n}" for n in range(len(values))], metric: values})
    return x_domain(sr.bar_plot(frame, "part", metric, "t", **options).to_dict())


def test_axes_of_bars_do_not_magnify_noise():
    """Shares reach to a tenth, numbers to one, beyond where the axis starts."""
    scale = bars_of([0.5])[1] / 0.5
    assert bars_of([0.001, 0.02])[1] == pytest.approx(0.1 * scale)
    assert bars_of([0.2], "cost")[1] == pytest.approx(1.0 * scale)
    low, high = bars_of([0.5, 0.55], y_min=0.5)
    assert low == 0.5
    assert high - low == pytest.approx(0.1 * scale)


def test_charts_of_one_end_share_a_scale():
    scale = bars_of([0.5])[1] / 0.5
    for low in (0.0, 0.25):
        for value in (0.3, 0.5, 0.75):
            ends = bars_of([value], y_min=low, y_max=0.75)
            assert ends == pytest.approx([low, low + (0.75 - low) * scale])
    assert bars_of([0.8], y_max=0.75) == bars_of([0.8])  # no bar is cut


# Curves of bytes.


def test_levels_are_points_of_csr_with_their_bytes(levels):
    """Each label stands left of its point, and the axis ends above the highest line."""
    for width in (COLUMN, TEXT):
        texts, *_ = drawn(charts.csr_bytes_curve(levels, width))
        labels = [text for text in texts if re.match(r"\d\.\d\d", text.text)]
        assert {text.text[:4] for text in labels} == {"1.81", "1.01", "0.11"}
        for one, other in itertools.combinations(texts, 2):
            assert one[:5] == other[:5] or not one.meets(other) or "×" not in one.text


def test_a_level_that_prunes_nothing_is_not_marked(demo):
    study = sr.compare(sr.dense(demo), sr.masked(sr.global_magnitude(demo, 0.0)))
    spec = charts.csr_bytes_curve(study).to_dict()
    assert not [
        row
        for _, data, _ in units(spec)
        for row in rows_of(spec, data)
        if "×" in str(row.get("label"))
    ]


def test_each_layout_has_one_style_everywhere(study):
    """Dense is a solid blue line, the others are black, each with a dash of its own."""
    looks = {}
    for unit, *_ in units(charts.csr_bytes_curve(study).to_dict()):
        if "strokeDash" in unit.get("encoding", {}):
            colors, dashes = (unit["encoding"][c]["scale"] for c in ("color", "strokeDash"))
            assert colors["domain"] == dashes["domain"]
            member = zip(colors["domain"], colors["range"], dashes["range"], strict=True)
            looks |= {name: (color, dash) for name, color, dash in member}
    solid = [1, 0]
    assert looks["dense and masked"] == (theme.BLUE, solid)
    others = [look for name, look in looks.items() if name != "dense and masked"]
    assert {color for color, _ in others} == {theme.BLACK}
    assert len({str(dash) for _, dash in looks.values()}) == len(looks) == 3


# Measurements.


def test_speeds_have_an_axis_that_does_not_magnify(study):
    """From 0.8 to 1.25, extended to equal distances and a tenth beyond the values."""
    same = latency().assign(realised_speedup=1.0, realised_low=0.98, realised_high=1.02)
    same = same.assign(promised_speedup=1.0, seconds=1.0, seconds_low=0.98, seconds_high=1.02)
    near = put_in(study, latency=pd.concat([latency().iloc[:2], same.iloc[2:6]]))
    low, high = speed_domain(near)
    assert (low, high) == (0.8, 1.25)
    spec = measured_charts.speed_chart(study).to_dict()
    low, high = speed_domain(study)
    rows = [row for _, data, _ in units(spec) for row in rows_of(spec, data) if "low" in row]
    numbers = [row[key] for row in rows for key in ("low", "high", "promised", "control_high")]
    assert low * 1.1 < min(numbers) < low * 1.3
    assert high / 1.3 < max(numbers) < high / 1.1


def speed_domain(study):
    """The ends of the axis of speeds, which all layers of the chart share."""
    spec = measured_charts.speed_chart(study).to_dict()
    axes = [unit["encoding"]["x"] for unit, *_ in units(spec)]
    (domain,) = {tuple(axis["scale"]["domain"]) for axis in axes if "scale" in axis}
    return domain


def test_the_band_of_the_control_lies_behind_the_speeds(study):
    spec = measured_charts.speed_chart(study).to_dict()
    band, *others = units(spec)
    unit, data, _ = band
    assert (unit["encoding"]["x"]["field"], unit["encoding"]["x2"]["field"]) == (
        "control_low", "control_high",
    )  # fmt: skip
    assert {(row["control_low"], row["control_high"]) for row in rows_of(spec, data)} == {
        (0.93, 1.04)
    }
    assert unit["mark"]["opacity"] < 0.5
    (interval,) = [(u, data) for u, data, _ in others if u["encoding"]["x"].get("field") == "low"]
    ends = {(round(row["low"], 9), round(row["high"], 9)) for row in rows_of(spec, interval[1])}
    assert ends == {(0.931, 1.029), (0.38, 0.42)}
    assert interval[0]["encoding"]["x2"]["field"] == "high"


def test_promised_and_realised_speed_ups_differ_in_style(study):
    spec = measured_charts.speed_chart(study).to_dict()
    for unit, data, _ in units(spec):
        field = unit["encoding"]["x"].get("field")
        if unit["mark"]["type"] == "point":
            (mark,) = {row["mark"] for row in rows_of(spec, data)}
            assert mark == {"promised": "performed FLOPs promise", "realised": "realised"}[field]
            assert unit["mark"]["filled"]
            shape = unit["encoding"]["shape"]["scale"]
            assert shape["range"][shape["domain"].index(mark)] == {
                "realised": "circle", "promised": "diamond",
            }[field]  # fmt: skip
            assert (unit["mark"].get("color") == theme.MUTED) is (field == "promised")
    (even,) = [data for u, data, _ in units(spec) if u["encoding"]["x"].get("field") == "one"]
    assert rows_of(spec, even) == [{"one": 1}]


def test_an_unknown_promise_has_no_diamond(study):
    frame = latency()
    frame.loc[frame["variant"] == "CSR30", "promised_speedup"] = None
    spec = measured_charts.speed_chart(put_in(study, latency=frame)).to_dict()
    promised = [
        rows_of(spec, data)
        for unit, data, _ in units(spec)
        if unit["mark"]["type"] == "point" and unit["encoding"]["x"]["field"] == "promised"
    ]
    assert {row["name"] for row in promised[0]} == {"Masked30 · 1 token", "Masked30 · 128 tokens"}


@pytest.mark.parametrize("most", [10.06, 10.5, 13.0, 61.0, 101.0, 900.0])
def test_perplexities_have_a_logarithmic_axis_with_ticks_to_read(demo_study, most):
    """Equal ratios are equally long, and three to eight round ticks stand on the axis."""
    scores = {"Dense": (0.0, 10.0), "Masked30": (0.3, most)}
    frame = quality([*scores.values()], [*scores])
    chart = measured_charts.quality_chart(put_in(demo_study, quality=frame))
    encoding = chart.to_dict()["layer"][0]["encoding"]["y"]
    assert encoding["scale"]["type"] == "log"
    low, high = encoding["scale"]["domain"]
    assert 10 / low == pytest.approx(high / most)
    assert 1 < 10 / low < (most / 10) ** 0.2
    ticks = encoding["axis"]["values"]
    assert 3 <= len(ticks) <= 8
    assert all(low <= tick <= high and tick == float(f"{tick:.4g}") for tick in ticks)
    texts, *_ = drawn(chart)
    assert {f"{tick:g}" for tick in ticks if tick < 1000} <= {text.text for text in texts}


def test_an_axis_of_sparsity_is_a_tenth_wide_at_least(demo):
    study = sr.compare(sr.dense(demo), sr.dense(demo, name="Again"))
    frame = quality([(0.0, 10.0), (0.0, 10.5)], ["Dense", "Again"])
    low, high = x_domain(measured_charts.quality_chart(put_in(study, quality=frame)).to_dict())
    assert -0.02 < low < 0
    assert high == 0.1


def test_names_of_lines_stand_apart_at_the_height_of_their_ends(demo):
    """Three of five ends meet; each name is level with its end or beside its neighbors."""
    makers = [sr.global_magnitude, sr.layerwise_magnitude, sr.random_unstructured]
    masked = [sr.masked(make(demo, 0.5), name=f"v{n}") for n, make in enumerate(makers)]
    masked.append(sr.masked(sr.n_m(demo, 2, 4), name="v3"))
    study = sr.compare(sr.dense(demo), *masked)
    scores = {"Dense": (0.0, 10.0), "v0": (0.5, 14.14), "v1": (0.5, 14.15), "v2": (0.5, 14.13),
              "v3": (0.5, 20.0)}  # fmt: skip
    frame = quality([*scores.values()], [*scores])
    texts, *_ = drawn(measured_charts.quality_chart(put_in(study, quality=frame)))
    names = [text for text in texts if re.search(r" \d\d\.\d$", text.text)]
    assert len(names) == 5
    for one, other in itertools.combinations(names, 2):
        assert not one.meets(other)
    order = [text.text for text in sorted(names, key=lambda text: text.top)]
    assert order[0].startswith("2:4")
    assert order[1].startswith("layerwise")
    assert order[-1].startswith("dense")
    middle = [text.top for text in names if text.text.partition(" ")[0] not in {"2:4", "dense"}]
    ends = {text.text.partition(" ")[0]: text.top for text in names}
    even = (ends["dense"] + ends["2:4"]) / 2  # 14.14 lies halfway in ratio
    assert sum(middle) / 3 == pytest.approx(even, abs=0.5)


def test_the_text_with_the_most_scores_is_drawn(demo_study):
    frame = quality(names=("Dense", "Masked30", "M90"))
    both = pd.concat([frame.head(2).assign(text="few"), frame.assign(text="many")])
    chart = measured_charts.quality_chart(put_in(demo_study, quality=both))
    note = wording("chart.scored_text_note", text="many", scored="99")
    assert chart.to_dict()["title"]["subtitle"] == [note]
