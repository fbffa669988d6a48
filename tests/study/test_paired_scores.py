"""Which perplexities a text separates: made-up losses, and the definition computed again."""

import math
from dataclasses import replace

import measurements
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers import Tiny

import sparsity_report as sr
from sparsity_report.findings.difference_findings import difference_verdict
from sparsity_report.findings.quality_findings import quality_findings
from sparsity_report.findings.verdict import comparison_title, verdict
from sparsity_report.study.derived.paired_scores import ranked_parts

SPANS = 100
NOISE = np.random.default_rng(7).normal(size=(4, SPANS))


def nats(*means, noise=0.2):
    """Losses of spans of 16 tokens: a common text, and noise of each variant."""
    text = 24 + 3 * np.random.default_rng(1).normal(size=SPANS)
    return [text + 16 * mean + noise * n for mean, n in zip(means, NOISE, strict=False)]


@pytest.fixture(scope="module")
def rivals():
    weights = sr.load(Tiny(), name="tiny")
    prunings = {
        "Global": sr.global_magnitude(weights, 0.5),
        "Layerwise": sr.layerwise_magnitude(weights, 0.5),
        "Random": sr.random_unstructured(weights, 0.5),
    }
    masked = [sr.masked(pruning, name=name) for name, pruning in prunings.items()]
    return sr.compare(sr.dense(weights), *masked, sr.csr(prunings["Global"], name="CSR"))


def scored(study, sums, names=("Dense", "Global", "Layerwise", "Random"), **cells):
    levels = [(0.5 * (name != "Dense"), 1.0) for name in names]
    frame = measurements.with_losses(measurements.quality(levels, names), sums, **cells)
    return measurements.put_in(study, quality=frame)


def pairs_of(study):
    return study.facts.paired(study.quality.to_dict("records")[0])


def by_definition(one, other, comparisons, rank):
    """The interval of the ratio of two perplexities, by loops over blocks of ten spans."""
    gaps = np.subtract(one, other) / 16
    around = gaps - gaps.mean()
    blocks = [sum(around[(start + k) % SPANS] for k in range(10)) for start in range(SPANS)]
    error = math.sqrt(np.mean(np.square(blocks)) / 10 / SPANS * 10 / 9)
    reach = error * scipy.stats.t.ppf(1 - 0.05 / (comparisons - rank) / 2, 9)
    return [math.exp(gaps.mean() + sign * reach) for sign in (0, -1, 1)]


def test_contrasts_by_definition(rivals):
    sums = nats(0, 0.1, 0.2, 0.4)
    pairs = pairs_of(scored(rivals, sums))
    # Three prunings against dense, and three pairs of them.
    assert len(pairs.contrasts) == 6
    order = sorted(pairs.contrasts.values(), key=lambda each: each.nll.p_value)
    names = ("Dense", "Global", "Layerwise", "Random")
    for rank, contrast in enumerate(order):
        one, other = (sums[names.index(n)] for n in (contrast.variant, contrast.against))
        assert contrast.ratio == pytest.approx(by_definition(one, other, 6, rank), rel=1e-6)
        base = math.exp(np.sum(other) / 16 / SPANS)
        ratio, low, high = contrast.ratio
        gap = [base * (each - 1) for each in (ratio, low, high)]
        assert contrast.gap == pytest.approx(gap)
        assert contrast.turned.ratio == pytest.approx((1 / ratio, 1 / high, 1 / low))
        assert contrast.turned.gap[0] == pytest.approx(-gap[0])


def test_a_winner_is_apart_from_all_others(rivals):
    study = scored(rivals, nats(0, 0.1, 0.2, 0.4))
    pairs = pairs_of(study)
    assert pairs.rivals == [["Global", "Layerwise", "Random"]]
    assert pairs.best(pairs.rivals[0]) == ("Global",)
    assert str(comparison_title(study)) == (
        "At 50 % sparsity, global magnitude has the lowest perplexity"
    )
    sentences = [str(each) for each in quality_findings(study)]
    gap, low, high = pairs.get("Layerwise", "Global").gap
    assert sentences == [
        "At 50 % sparsity, global magnitude beats layerwise magnitude by "
        f"{gap:.2f} perplexity ({low:.2f} to {high:.2f})."
    ]
    assert 0 < low < gap < high


def test_ties_share(rivals):
    study = scored(rivals, nats(0, 0.2, 0.2001, 0.4))
    pairs = pairs_of(study)
    assert set(pairs.best(pairs.rivals[0])) == {"Global", "Layerwise"}
    assert "global magnitude and layerwise magnitude share the lowest" in str(
        comparison_title(study)
    ) or "layerwise magnitude and global magnitude share" in str(comparison_title(study))
    sentences = [str(each) for each in quality_findings(study)]
    assert "the text does not separate" in sentences[0]
    assert "beats random" in sentences[1]


def test_nothing_is_best_of_what_is_not_separated(rivals):
    study = scored(rivals, nats(0, 0.2, 0.2, 0.2))
    pairs = pairs_of(study)
    assert pairs.best(pairs.rivals[0]) == ()
    assert "does not separate the perplexities" in str(comparison_title(study))
    assert "and the text does not separate the two" in str(verdict(study))
    (sentence,) = map(str, quality_findings(study))
    assert "the text does not separate" in sentence


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"span": None}, "keeps no losses"),
        ({"window": 10**6, "tokens": 10**6}, "one window"),
    ],
)
def test_nothing_is_best_of_what_is_unpaired(rivals, cells, reason):
    study = scored(rivals, nats(0, 0.1, 0.2, 0.4), **cells)
    if "span" in cells:
        frame = study.quality.assign(span_nll=None)
        study = measurements.put_in(rivals, quality=frame)
    pairs = pairs_of(study)
    assert pairs.contrasts == {}
    assert pairs.best(pairs.rivals[0]) == ()
    (sentence,) = map(str, quality_findings(study))
    assert "no perplexity is called lowest" in sentence
    assert reason in sentence
    assert "lowest" not in str(comparison_title(study))


def test_few_spans_have_no_interval(rivals):
    study = scored(rivals, [row[:10] for row in nats(0, 0.1, 0.2, 0.4)])
    assert pairs_of(study).contrasts == {}
    assert "too few tokens" in next(map(str, quality_findings(study)))


def test_layouts_of_one_pruning_are_one_comparison(rivals):
    """CSR has the zeros of Global: it neither counts for Holm nor rivals it."""
    sums = nats(0, 0.1, 0.2, 0.4)
    names = ("Dense", "CSR", "Global", "Layerwise", "Random")
    both = scored(rivals, [sums[0], sums[1], *sums[1:]], names)
    pairs = pairs_of(both)
    assert len(pairs.contrasts) == 6
    assert pairs.from_dense("CSR") == pairs.from_dense("Global")
    assert pairs.from_dense("Dense") is None


def test_one_pruning_that_the_text_does_not_separate_from_dense(rivals):
    study = scored(rivals, nats(0, 0.05, noise=6), ("Dense", "Global"))
    assert not pairs_of(study).from_dense("Global").is_apart
    assert "that the text does not separate from none" in str(verdict(study))


def sides(study, before, after):
    """Two studies of one variant each."""
    rows = study.quality
    both = []
    for name in (before, after):
        frame = rows[rows["variant"].isin(["Dense", name])]
        frame = frame.assign(variant=frame["variant"].replace({name: "Pruned"}))
        frames = {
            part: getattr(study, part)[getattr(study, part)["variant"].isin(["Dense", name])]
            .assign(variant=lambda f, name=name: f["variant"].replace({name: "Pruned"}))
            .reset_index(drop=True)
            for part in ("variants", "layers")
        }
        both.append(replace(study, quality=frame.reset_index(drop=True), **frames))
    return both


def test_two_studies_pair_without_running_a_model(rivals):
    study = scored(rivals, nats(0, 0.1, 0.2, 0.2))
    apart = sr.diff(*sides(study, "Global", "Layerwise"))
    row = apart.measured.query("variant_after == 'Pruned'").iloc[0]
    # The two comparisons are of Dense with itself and of Pruned.
    expected = by_definition(study.quality["span_nll"][2], study.quality["span_nll"][1], 2, 0)
    base = row["before"]
    assert row["change_low"] == pytest.approx(base * (expected[1] - 1), rel=1e-6)
    assert row["change_high"] == pytest.approx(base * (expected[2] - 1), rel=1e-6)
    assert row["apart"]
    assert " rises from " in str(difference_verdict(apart)[0])
    assert f"(by {row['change_low']:.2f} to {row['change_high']:.2f})" in str(apart)
    near = sr.diff(*sides(study, "Layerwise", "Random"))
    assert not near.measured["apart"].any()
    assert "which the text does not separate" in str(near) or "remains" in str(near)


def test_texts_that_differ_do_not_pair(rivals):
    study = scored(rivals, nats(0, 0.1, 0.2, 0.2))
    before, after = sides(study, "Global", "Layerwise")
    other = after.quality.assign(tokens_fingerprint="0" * 16)
    changed = sr.diff(before, replace(after, quality=other))
    assert changed.measured["change_low"].isna().all()
    assert "It has no interval: the scores are unpaired, because their tokens differ" in str(
        changed
    )


def parts(*means, spans=SPANS):
    draws = np.random.default_rng(3).normal(size=(len(means), spans))
    rows = [tuple(16 * mean + 0.5 * n) for mean, n in zip(means, draws, strict=True)]
    return pd.DataFrame({"span_increase": rows, "scored": 16 * spans, "span": 16, "window": 64})


def test_parts_that_cost_alike_share_a_rank():
    ranks = ranked_parts(parts(0.1, 0.5, 0.1, 0.9))
    assert ranks["rank"].tolist() == [3, 2, 3, 1]
    assert (ranks["increase_low"] > 0).all()
    assert (ranks["increase_low"] < [0.1, 0.5, 0.1, 0.9]).all()
    assert (ranks["increase_high"] > [0.1, 0.5, 0.1, 0.9]).all()
    assert ranked_parts(parts(0.1, 0.1, 0.1))["rank"].tolist() == [1, 1, 1]


def test_parts_without_losses_have_no_rank():
    assert ranked_parts(parts(0.1, 0.5, spans=8)) is None
    assert ranked_parts(parts(0.1, 0.5).assign(window=10**6)) is None
    assert ranked_parts(parts(0.1, 0.5).assign(span_increase=None)) is None
