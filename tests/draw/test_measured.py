"""Charts and sentences of what was measured, from frames whose numbers are made up."""

import json
import math
import re

import numpy as np
import pytest
from helpers import small_llama, study_of
from hostile import TEXTS
from measurements import latency, mean_ends, put_in, quality, sensitivity, with_losses

import sparsity_report as sr
from sparsity_report.draw import export, measured_charts
from sparsity_report.draw.measured_charts import speed_chart

HOSTILE = [TEXTS[key] for key in ("script", "windows path", "longest")]


@pytest.fixture(scope="module")
def study(demo):
    return put_in(study_of(demo), latency=latency(), quality=quality(), sensitivity=sensitivity(20))


def values(chart):
    spec = chart.to_dict()
    inline = [part["data"].get("values", []) for part in [spec, *spec["layer"]] if "data" in part]
    return [row for rows in [*inline, *spec.get("datasets", {}).values()] for row in rows]


def code(spec, key=""):
    """Whatever a chart evaluates: fields and expressions."""
    if isinstance(spec, dict):
        return [
            text for name, custom in spec.items() if name != "data" for text in code(custom, name)
        ]
    if isinstance(spec, list):
        return [text for custom in spec for text in code(custom, key)]
    evaluated = {"field", "expr", "labelExpr", "filter", "calculate", "title", "values"}
    return [spec] if key in evaluated else []


def test_speed_shows_promised_and_realised(study):
    chart = speed_chart(study)
    rows = {row["name"]: row for row in values(chart) if "realised" in row}
    assert set(rows) == {
        f"{v} · {t}" for v in ("Masked30", "CSR30") for t in ("1 token", "128 tokens")
    }
    csr = rows["CSR30 · 1 token"]
    assert csr["realised"] == 0.4
    assert csr["promised"] == 1.25
    assert csr["label"] == "0.40 ×"
    assert (csr["low"], csr["high"]) == (pytest.approx(0.38), pytest.approx(0.42))
    assert (csr["control_low"], csr["control_high"]) == (0.93, 1.04)
    described = chart.to_dict()["description"]
    assert "CSR30 · 1 token: 0.40 ×" in described
    # A variant with the same kernels has an interval and a control, but no speed.
    masked = rows["Masked30 · 1 token"]
    assert masked["realised"] is None
    assert masked["label"] == "same kernels"
    assert "0.98" not in described
    same = study.latency[study.latency["variant"] != "CSR30"]
    assert speed_chart(put_in(study, latency=same)) is None


@pytest.mark.parametrize("width", [241, 454])
@pytest.mark.parametrize("machine", ["some machine", "AMD EPYC 9R14, torch 2.13.0+cpu, MKL"])
def test_a_note_is_whole_in_lines(study, machine, width):
    chart = speed_chart(put_in(study, latency=study.latency.assign(machine=machine)), width)
    text = re.sub("<[^>]+>", " ", export.svg(chart))
    assert f"{machine}, 2 threads" in " ".join(text.split())


def test_noise_has_no_point_and_no_number(study):
    within = study.latency.assign(control_low=0.3)
    chart = speed_chart(put_in(study, latency=within))
    labels = {row["name"]: row["label"] for row in values(chart) if "label" in row}
    assert labels["CSR30 · 1 token"] == "no difference measured"
    assert not [row for row in values(chart) if row.get("realised")]
    for cells in ({"others": 3.9}, {"control_low": 1.03}, {"control_low": None}):
        untold = put_in(study, latency=study.latency.assign(**cells))
        labels = {row.get("label") for row in values(speed_chart(untold))}
        assert labels - {None} == {"same kernels", "not reported"}


def points(chart):
    """The rows that are points, each once."""
    rows = {row["variant"]: row for row in values(chart) if row.get("form") and "place" not in row}
    return [*rows.values()]


@pytest.fixture(scope="module")
def policies(demo):
    """Three policies at two levels on one model, two policies on another."""
    other = sr.load(small_llama(), name="other")
    prunings = {"D": {}, "O": {}}
    for level in (50, 80):
        prunings["D"][f"G{level}"] = sr.global_magnitude(demo, level / 100)
        prunings["D"][f"L{level}"] = sr.layerwise_magnitude(demo, level / 100)
    prunings["D"]["N24"] = sr.n_m(demo, 2, 4)
    prunings["O"] = {
        "oG": sr.global_magnitude(other, 0.5),
        "oL": sr.layerwise_magnitude(other, 0.5),
    }
    return sr.compare(
        sr.dense(demo, name="D"),
        *[sr.masked(pruning, name=name) for name, pruning in prunings["D"].items()],
        sr.dense(other, name="O"),
        *[sr.masked(pruning, name=name) for name, pruning in prunings["O"].items()],
    )


SCORES = {
    "D": (0.0, 10.0), "G50": (0.5, 12.0), "L50": (0.5, 11.0), "N24": (0.5, 15.0),
    "L80": (0.8, 40.0), "G80": (0.8, 30.0), "O": (0.0, 20.0), "oL": (0.5, 28.0), "oG": (0.5, 26.0),
}  # fmt: skip


def scored(study, scores):
    return put_in(study, quality=quality(list(scores.values()), list(scores)))


def lines_of(chart):
    """The points of each line that is measured."""
    lines = {}
    for row in lines_drawn(chart):
        lines.setdefault(row["line"], []).append((row["variant"], row["x"], row["value"]))
    return lines


def lines_drawn(chart):
    spec = chart.to_dict()
    (data,) = [layer["data"] for layer in spec["layer"] if layer["mark"]["type"] == "line"]
    return spec["datasets"][data["name"]] if "name" in data else data["values"]


def labels_of(chart):
    """The names right of the plot, by line."""
    return {row["line"]: row["name"] for row in values(chart) if "place" in row}


def test_each_policy_of_each_model_has_a_named_line(policies):
    """From dense; a policy at one level is a point, and dense a line to the right end."""
    chart = measured_charts.quality_chart(scored(policies, SCORES))
    demo = policies.variants["model"].iloc[0]
    expected = {
        f"global magnitude, {demo}": ["D", "G50", "G80"],
        f"layerwise magnitude, {demo}": ["D", "L50", "L80"],
    }
    assert lines_of(chart) == {
        **{line: [(v, *SCORES[v]) for v in variants] for line, variants in expected.items()},
        f"dense, {demo}": [("D", 0.0, 10.0), ("D", 0.8, 10.0)],
        "dense, other": [("O", 0.0, 20.0), ("O", 0.8, 20.0)],
    }
    names = labels_of(chart)
    assert {name: text.removeprefix(name) for name, text in names.items()} == {
        f"dense, {demo}": " 10.0", f"global magnitude, {demo}": " 30.0",
        f"layerwise magnitude, {demo}": " 40.0", f"2:4, {demo}": " 15.0", "dense, other": " 20.0",
        "global magnitude, other": " 26.0", "layerwise magnitude, other": " 28.0",
    }  # fmt: skip
    assert "legend" not in json.dumps(chart.to_dict()["layer"]).replace('"legend": null', "")


def test_intervals_stand_on_their_points(policies):
    """Those of two policies at 50 % overlap, and neither hides the other."""
    names = ("D", "G50", "L50", "G80")
    noise = np.random.default_rng(2).normal(size=(4, 400))
    sums = [16 * mean + each for mean, each in zip((2, 2.1, 2.105, 2.9), noise, strict=True)]
    shares = (0.0, 0.5, 0.498046875, 0.8)
    frame = with_losses(quality([(share, 1.0) for share in shares], names), sums)
    chart = measured_charts.quality_chart(put_in(policies, quality=frame))
    spec = chart.to_dict()
    heard = spec["description"].removeprefix("Perplexity by sparsity: ").split("; ")
    assert len({*heard}) == len(heard)
    assert [text.rpartition(":")[0] for text in heard] == [
        "dense, 0.0 %", "global magnitude, 50.0 %", "global magnitude, 80.0 %",
        "layerwise magnitude, 49.8 %",
    ]  # fmt: skip
    (rule,) = [u for u in spec["layer"] if u["encoding"].get("y2", {}).get("field") == "high"]
    bars = {row["variant"]: row for row in spec["datasets"][rule["data"]["name"]]}
    assert {name: bars[name]["x"] for name in bars} == dict(zip(names[1:], shares[1:], strict=True))
    for name, each in zip(names[1:], sums[1:], strict=True):
        wide = np.exp(np.sum(sums[0]) / 6400 + mean_ends(each - sums[0]))
        # Holm's correction of six comparisons widens them.
        assert bars[name]["low"] < wide[1] < bars[name]["value"] < wide[2] < bars[name]["high"]
        assert bars[name]["value"] == pytest.approx(wide[0])
    assert bars["L50"]["low"] < bars["G50"]["high"]
    assert bars["G50"]["wide"] != bars["L50"]["wide"]
    assert bars["G80"]["wide"] == 1.5
    svg = export.svg(spec)
    dots = {float(x) for x in re.findall(r'"point"[^>]*transform="translate\(([\d.]+),', svg)}
    drawn = re.findall(r'<line transform="translate\(([\d.]+),[\d.]+\)" x2="0" y2="-[\d.]+"', svg)
    places = [float(x) for x in drawn if float(x)]
    assert len(places) == 3
    assert {*places} <= dots
    assert "not of gaps between methods" in " ".join(spec["title"]["subtitle"])


def test_models_that_came_pruned_are_named_once(demo):
    """A line of a model that nobody pruned here has the name of its variant."""
    came = sr.load(sr.masked(sr.global_magnitude(demo, 0.5)).module(), name="half")
    study = sr.compare(sr.dense(demo), sr.dense(came, name="half"))
    chart = measured_charts.quality_chart(scored(study, {"Dense": (0, 10.0), "half": (0.5, 12.0)}))
    assert {*labels_of(chart).values()} == {"dense, demo 10.0", "half 12.0"}


def test_a_row_of_no_variant_is_drawn(policies):
    chart = measured_charts.quality_chart(scored(policies, {**SCORES, "stranger": (0.6, 17.0)}))
    assert labels_of(chart)["stranger"] == "stranger 17.0"


def test_the_note_names_points_that_are_not_drawn(policies):
    study = scored(policies, {**SCORES, "G80": (0.8, 30.0), "L80": (math.nan, 40.0)})
    study.quality.loc[study.quality["variant"] == "N24", "perplexity"] = math.nan
    spec = measured_charts.quality_chart(study).to_dict()
    shown = {row["variant"] for row in points(measured_charts.quality_chart(study))}
    assert shown == set(SCORES) - {"L80", "N24"}
    assert "not drawn: N24 (–) and L80 (40.0)" in " ".join(spec["title"]["subtitle"])
    json.dumps(spec, allow_nan=False)


@pytest.mark.parametrize("score", [1024.0, 5e6, math.inf])
def test_no_perplexity_is_drawn_beyond_uniform_guessing(policies, score):
    """The demo knows 1,024 tokens, so that guessing evenly has a perplexity of 1,024."""
    study = scored(policies, {**SCORES, "G80": (0.8, 30.0)})
    study.quality.loc[study.quality["variant"] == "G80", "perplexity"] = score
    chart = measured_charts.quality_chart(study)
    (row,) = [row for row in points(chart) if row["variant"] == "G80"]
    assert (row["value"], row["form"]) == (1024, "triangle-up")
    assert row["label"] == "worse than uniform guessing"
    scales = [
        u["encoding"]["y"].get("scale") for u in chart.to_dict()["layer"] if "y" in u["encoding"]
    ]
    (domain,) = {tuple(scale["domain"]) for scale in scales if scale}
    assert domain[1] == 1024
    assert all(not re.search(r"\d", text.split(",")[0]) for text in [labels_of(chart)[row["line"]]])
    assert "worse than uniform guessing" in export.svg(chart.to_dict())
    study.quality.loc[study.quality["variant"] == "G80", "perplexity"] = 1023.0
    assert {row["form"] for row in points(measured_charts.quality_chart(study))} == {"circle"}


def test_layouts_of_one_pruning_are_all_drawn(study):
    scores = {"Dense": (0.0, 10.0), "Masked30": (0.3, 12.5), "CSR30": (0.3, 12.5)}
    chart = measured_charts.quality_chart(scored(study, scores))
    assert {row["variant"] for row in points(chart)} == {"Dense", "Masked30", "CSR30"}
    assert labels_of(chart) == {"dense": "dense 10.0", "global magnitude": "global magnitude 12.5"}


def test_sensitivity_keeps_order_and_those_that_cost_most(demo_study):
    chart = measured_charts.sensitivity_chart(put_in(demo_study, sensitivity=sensitivity(60)))
    names = list(dict.fromkeys(row["group"] for row in values(chart)))
    assert names == [f"block {n}" for n in range(40)]
    assert "40 of 60 parts" in " ".join(chart.to_dict()["title"]["subtitle"])


@pytest.mark.parametrize(
    "draw", [speed_chart, measured_charts.quality_chart, measured_charts.sensitivity_chart]
)
def test_nothing_measured_nothing_drawn(draw, demo_study):
    assert draw(demo_study) is None
    empty = put_in(
        demo_study, latency=latency().head(0), quality=quality().head(0), sensitivity=sensitivity(0)
    )
    assert draw(empty) is None
    assert sr.summarize(empty) == sr.summarize(demo_study)


def test_hostile_names_are_data(demo):
    pruning = sr.global_magnitude(demo, 0.3)
    makers = (sr.dense, sr.masked, sr.csr)
    built = zip(makers, (demo, pruning, pruning), HOSTILE, strict=True)
    variants = [maker(target, name=name) for maker, target, name in built]
    study = put_in(
        sr.compare(*variants), latency=latency(HOSTILE), quality=quality(names=HOSTILE),
        sensitivity=sensitivity(3).assign(part=HOSTILE),
    )  # fmt: skip
    for draw in measured_charts.CHARTS.values():
        spec = draw(study).to_dict()
        evaluated = [text for text in code(spec) if isinstance(text, str)]
        assert evaluated
        assert not any("script" in text or "new" in text or "xx" in text for text in evaluated)
        assert export.svg(spec)
    assert any(HOSTILE[0] in sentence for sentence in sr.summarize(study))
