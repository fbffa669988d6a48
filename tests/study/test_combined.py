"""Several studies as one: the same as comparing all at once, and no figure with two values."""

import math

import measurements
import pandas as pd
import pytest
import torch
from helpers import Tiny
from pandas.testing import assert_frame_equal

import sparsity_report as sr
from sparsity_report.report.tables.speed_tables import speedups

TEXT = torch.arange(40) % 7


def pruned(weights, *shares):
    return [sr.masked(sr.global_magnitude(weights, share)) for share in shares]


@pytest.fixture(scope="module")
def weights():
    return sr.load()


def test_the_same_as_comparing_all_at_once(weights, tmp_path):
    dense, low, high = sr.dense(weights), *pruned(weights, 0.3, 0.5)
    whole = sr.compare(dense, low, high, patterns=True)
    whole = whole.with_measured(quality=sr.perplexity([dense, low, high], TEXT))
    studies = [
        sr.compare(dense, level, patterns=True).with_measured(
            quality=sr.perplexity([dense, level], TEXT)
        )
        for level in (low, high)
    ]
    study = sr.combine(*studies)
    for part in ("variants", "layers", "totals", "groups", "storage", "quality", "levels"):
        assert_frame_equal(getattr(study, part), getattr(whole, part))
    order = ["variant", "module_name"]
    assert_frame_equal(
        study.patterns.sort_values(order, ignore_index=True),
        whole.patterns.sort_values(order, ignore_index=True),
    )
    assert study.fingerprint == whole.fingerprint
    study.save(tmp_path / "study.json")
    assert_frame_equal(sr.read_study(tmp_path / "study.json").quality, study.quality)


def test_names_that_stand_for_two_models(weights):
    torch.manual_seed(0)
    other = sr.load(Tiny(), name="tiny")
    studies = [sr.compare(sr.dense(w), *pruned(w, 0.5)) for w in (weights, other)]
    study = sr.combine(*studies)
    assert study.variants["variant"].tolist() == [
        f"{name} ({model})" for model in (weights.name, "tiny") for name in ("Dense", "Masked50")
    ]
    for before in studies:
        for row in before.totals.itertuples():
            model = before.variants["model"].iloc[0]
            after = study.totals.set_index("variant").loc[f"{row.variant} ({model})"]
            assert after["nonzero"] == row.nonzero
    quality = sr.perplexity([sr.dense(weights), *pruned(weights, 0.5)], TEXT)
    scored = sr.combine(studies[0].with_measured(quality=quality), studies[1])
    assert scored.quality["against"].iloc[-1] == f"Dense ({weights.name})"
    again = sr.combine(study, *studies)
    assert set(again.variants["variant"]) >= set(study.variants["variant"])


def test_scores_that_disagree(weights):
    dense = sr.dense(weights)
    study = sr.compare(dense)
    frame = sr.perplexity(dense, TEXT)
    bare = frame.assign(**{name: None for name in frame if name.startswith("span")})
    other = bare.assign(nll=frame["nll"] * 1.01)
    other["perplexity"] = other["nll"].map(math.exp)
    with pytest.raises(sr.SparsityReportError, match="Dense has two values of nll"):
        sr.combine(study.with_measured(quality=frame), study.with_measured(quality=other))
    near = bare.assign(nll=frame["nll"] * (1 + 1e-6))
    near["perplexity"] = near["nll"].map(math.exp)
    kept = sr.combine(study.with_measured(quality=frame), study.with_measured(quality=near))
    assert_frame_equal(kept.quality, study.with_measured(quality=frame).quality)
    shorter = sr.perplexity(dense, TEXT[:20])
    both = sr.combine(study.with_measured(quality=frame), study.with_measured(quality=shorter))
    assert both.quality["scored"].tolist() == [39, 19]


def test_what_cannot_be_combined(weights):
    dense = sr.dense(weights)
    with pytest.raises(sr.SparsityReportError, match="there are no studies"):
        sr.combine()
    with pytest.raises(sr.SparsityReportError, match="context=None and context=64"):
        sr.combine(sr.compare(dense), sr.compare(dense, context=64))
    one, two = (
        sr.compare(sr.masked(sr.global_magnitude(weights, share), name="Mine"))
        for share in (0.3, 0.5)
    )
    with pytest.raises(
        sr.SparsityReportError, match="two different variants are called Mine \\(demo\\)"
    ):
        sr.combine(one, two)


@pytest.mark.slow
@pytest.mark.usefixtures("small_cache")
def test_times_of_two_runs_are_not_mixed():
    torch.manual_seed(0)
    tiny = sr.load(Tiny(), name="tiny")
    studies = [
        sr.compare(*pair).with_measured(latency=sr.latency(pair, tokens=[1], crossovers=False))
        for pair in ([sr.dense(tiny), level] for level in pruned(tiny, 0.3, 0.5))
    ]
    study = sr.combine(*studies)
    assert_frame_equal(study.latency, studies[0].latency)
    other = sr.compare(sr.dense(sr.load(Tiny(hidden=8), name="other")))
    names = sr.combine(studies[0], other).latency[["variant", "control"]]
    assert set(names.stack()) == {"Dense (tiny)", "Masked30"}
    assert "first study that measured them" in " ".join(map(str, study.notes))


def timed(weights, speed):
    """Dense and CSR50, whose whole forward passes are as many times as fast, 5 % sure."""
    variants = [sr.dense(weights), sr.csr(sr.global_magnitude(weights, 0.5))]
    frame = measurements.latency(("Dense", "CSR50", "x"))
    frame = frame[(frame["scope"] == "model") & (frame["tokens"] == 1) & (frame["variant"] != "x")]
    ratio = pd.Series([1.0, speed], index=frame.index)
    frame = frame.assign(
        seconds=2 / ratio, seconds_low=1.9 / ratio, seconds_high=2.2 / ratio, control="Dense",
        realised_speedup=ratio, realised_low=[1.0, 0.95 * speed], realised_high=[1.0, 1.05 * speed],
        promised_speedup=float("nan"), others=0.0,
    )  # fmt: skip
    return sr.compare(*variants).with_measured(latency=frame)


def test_speed_ups_of_several_runs_keep_their_own_references(weights, tmp_path):
    torch.manual_seed(0)
    studies = [timed(weights, 2.0), timed(sr.load(Tiny(), name="tiny"), 1.01)]
    study = sr.combine(*studies)
    told = study.facts.speedups
    names = [f"{name} ({m})" for m in (weights.name, "tiny") for name in ("Dense", "CSR50")]
    assert told["variant"].tolist() == names
    assert told["against"].tolist() == [names[0], names[0], names[2], names[2]]
    assert told["measurement"].tolist() == [1, 1, 2, 2]
    assert told["realised_speedup"].tolist() == [1, 2, 1, 1.01]
    assert told["verdict"].tolist() == ["same", "stated", "same", "noise"]
    study.save(tmp_path / "s.json")
    assert_frame_equal(sr.read_study(tmp_path / "s.json", strict=True).speedups, study.speedups)
    # What is there twice was measured once, and one run alone has no table of several.
    assert_frame_equal(sr.combine(study, *studies).speedups, study.speedups)
    assert sr.combine(studies[0], sr.compare(sr.dense(weights))).speedups is None

    table = speedups(study)
    assert [body.title[:10] for body in table.bodies] == ["1: against", "2: against"]
    cells = [[c.text for c in row.cells] for row in table.rows]
    assert [row[0] for row in cells] == ["CSR50 (demo)", "CSR50 (tiny)"]
    realised = [row[4].replace("\u202f", " ") for row in cells]
    assert realised == ["2.00 (1.90–2.10 ×)", "(0.96–1.06 ×)"]
    assert speedups(studies[0]) is None
