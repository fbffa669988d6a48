"""Charts and sentences of what was measured, from frames whose numbers are made up."""

import json

import pytest
from helpers import study_of
from measurements import latency, quality, sensitivity

import sparsity_report as sr
from sparsity_report.draw import measured as drawn

HOSTILE = "</script>{{7*7}}" + "x" * 5000


@pytest.fixture(scope="module")
def study(demo):
    return study_of(demo).with_measured(
        latency=latency(), quality=quality(), sensitivity=sensitivity(20)
    )


def values(chart):
    spec = chart.to_dict()
    inline = [part["data"].get("values", []) for part in [spec, *spec["layer"]] if "data" in part]
    return [row for rows in [*inline, *spec.get("datasets", {}).values()] for row in rows]


def code(spec, key=""):
    """Whatever a chart evaluates: fields and expressions."""
    if isinstance(spec, dict):
        return [text for name, own in spec.items() if name != "data" for text in code(own, name)]
    if isinstance(spec, list):
        return [text for own in spec for text in code(own, key)]
    return [spec] if key in {"field", "expr", "labelExpr", "filter", "calculate"} else []


def test_speed_shows_what_was_promised_and_realised(study):
    chart = drawn.speed_chart(study)
    rows = {row["name"]: row for row in values(chart) if "realised" in row}
    assert set(rows) == {
        f"{v} · {t}" for v in ("Masked30", "CSR30") for t in ("1 token", "128 tokens")
    }
    csr = rows["CSR30 · 1 token"]
    assert csr["realised"] == 0.4
    assert csr["promised"] == 1.25
    assert csr["label"] == "0.40 ×"
    assert csr["low"] == pytest.approx(2.0 / (2.2 / 0.4))
    assert csr["high"] == pytest.approx(2.0 / (1.9 / 0.4))
    assert "CSR30 · 1 token: 0.40 ×" in chart.to_dict()["description"]


def test_crossover_shows_never(study):
    rows = values(drawn.crossover_chart(study))
    assert [(row["tokens"], row["label"]) for row in rows] == [("1", "62 %"), ("128", "never")]
    assert rows[0]["at"] == 0.62
    assert rows[1]["at"] > 1


def test_quality_is_drawn_over_sparsity(study):
    rows = values(drawn.quality_chart(study))
    seen = {(row["sparsity"], row["value"], row["label"]) for row in rows}
    assert seen == {(0.0, 10.0, "10.0"), (0.3, 12.5, "12.5"), (0.9, 1234.0, "1,234")}


def test_sensitivity_keeps_order_and_those_that_cost_most(demo_study):
    chart = drawn.sensitivity_chart(demo_study.with_measured(sensitivity=sensitivity(60)))
    names = list(dict.fromkeys(row["group"] for row in values(chart)))
    assert names == [f"block {n}" for n in range(40)]
    assert "40 of 60 parts" in chart.to_dict()["title"]["subtitle"]


@pytest.mark.parametrize(
    "draw", [drawn.speed_chart, drawn.crossover_chart, drawn.quality_chart, drawn.sensitivity_chart]
)
def test_nothing_measured_nothing_drawn(draw, demo_study):
    assert draw(demo_study) is None
    empty = demo_study.with_measured(
        latency=latency().head(0), quality=quality().head(0), sensitivity=sensitivity(0)
    )
    assert draw(empty) is None
    assert sr.summarize(empty) == sr.summarize(demo_study)


def test_sentences_say_the_numbers(study):
    said = " ".join(sr.summarize(study))
    for sentence in (
        "With 1 and 128 tokens at a time CSR30 runs 0.40 and 0.40 times as fast as Dense on this "
        "machine (2 threads); its FLOPs promise 1.25.",
        "Sparsity from which CSR layers overtake dense ones here, by tokens at a time: 62 % with "
        "1; never with 128.",
        "Perplexity on some.txt (99 tokens scored in windows of 64) is 10.00 for Dense (25.0 % "
        "first guesses right) and 12.50 for Masked30 (25.0 % first guesses right).",
        "Pruned alone at 50 %, block 0 costs most (+0.090 nats per token) and block 19 least "
        "(-0.005).",
        "Over 20 parts sensitivity goes most with the position in the model (Spearman's ρ = "
        "-1.00).",
        "The smallest of 7 lossless layouts for the prunable weights of Masked30 and CSR30 is "
        "bitmask, at 0.73 times their dense bytes.",
    ):
        assert sentence in said


def test_hostile_names_are_data(demo):
    pruning = sr.global_magnitude(demo, 0.3)
    names = ["Dense", "Masked30", HOSTILE]
    variants = [sr.dense(demo), sr.masked(pruning), sr.csr(pruning, name=HOSTILE)]
    study = sr.compare(*variants).with_measured(
        latency=latency(names), quality=quality(names=names), sensitivity=sensitivity(3)
    )
    for draw in (drawn.speed_chart, drawn.quality_chart):
        evaluated = code(draw(study).to_dict())
        assert evaluated
        assert not any("script" in text for text in evaluated)
    assert any(HOSTILE[:20] in sentence for sentence in sr.summarize(study))


def test_saved_and_read(study, tmp_path):
    again = sr.read_study(study.save(tmp_path / "study.json"))
    assert sr.summarize(again) == sr.summarize(study)
    saved = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert saved["findings"] == sr.summarize(study)
    assert drawn.speed_chart(again).to_dict() == drawn.speed_chart(study).to_dict()
    assert drawn.crossover_chart(again).to_dict() == drawn.crossover_chart(study).to_dict()
