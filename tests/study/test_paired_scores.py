"""Perplexities that a text separates: made-up losses, and the definition computed again."""

import measurements
import numpy as np
import pandas as pd
import pytest
from helpers import Tiny

import sparsity_report as sr
from sparsity_report.findings.quality_findings import paired_findings
from sparsity_report.findings.verdict import verdict
from sparsity_report.report.tables.method_tables import results
from sparsity_report.report.tables.study_tables import quality
from sparsity_report.report.tables.task_tables import score_pairs
from sparsity_report.study.derived.paired_scores import ranked_parts
from sparsity_report.study.losses import FIGURES

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


def by_definition(one, other, comparisons, rank, level=0.95):
    """The interval of the ratio of two perplexities, corrected for the comparisons."""
    share = (1 - level) / (comparisons - rank)
    return np.exp(measurements.mean_ends(np.subtract(one, other), 1 - share))


def distances(study, seed=5):
    """Divergences and agreement by span of all but dense, and scores that agree with them."""
    draws = np.random.default_rng(seed)
    rows = [(draws.gamma(4, 2, SPANS), draws.binomial(16, 0.7, SPANS)) for _ in study.quality.index]
    lists = zip(*rows, strict=True)
    columns = dict(zip(("span_kl", "span_agreed"), lists, strict=True))
    frame = study.quality.assign(
        kl=[np.mean(kl) / 16 for kl, _ in rows],
        agreement=[np.mean(agreed) / 16 for _, agreed in rows],
        **{key: pd.Series([tuple(map(float, each)) for each in value], dtype=object)
           for key, value in columns.items()},
    )  # fmt: skip
    return measurements.put_in(study, quality=frame), columns


def test_intervals_by_definition(rivals):
    sums = nats(0, 0.1, 0.1004, 0.4)
    study, spans = distances(scored(rivals, sums))
    frame, names = study.score_pairs, ("Dense", "Global", "Layerwise", "Random")
    ends = ["value", "low", "high"]
    ratios = frame[frame["figure"] == "perplexity_ratio"].sort_values("p", kind="stable")
    assert len(ratios) == 6
    still, rank = True, 0
    for row in ratios.to_dict("records"):
        one, other = (sums[names.index(row[side])] for side in ("variant", "against"))
        expected = by_definition(one, other, 6, rank, 0.95)
        assert [row[key] for key in ends] == pytest.approx(expected, rel=1e-6)
        still &= row["p"] < 0.05 / (6 - rank)
        rank += still
        assert row["separated"] == (row["low"] > 1 or row["high"] < 1)
    assert rank == 5
    for figure, column in (("kl", "span_kl"), ("agreement", "span_agreed")):
        rows = frame[frame["figure"] == figure]
        assert rows["variant"].tolist() == ["Global", "Layerwise", "Random"]
        for row, each in zip(rows.to_dict("records"), spans[column][1:], strict=True):
            expected = measurements.mean_ends(each, 0.95)
            assert [row[key] for key in ends] == pytest.approx(expected, rel=1e-6)
    # The table writes these numbers, the difference of perplexities apart.
    table = score_pairs(study)
    shown = frame[frame["figure"] != "perplexity_difference"]
    assert len(table.rows) == len(shown) == 12
    row, first = [cell.text for cell in table.rows[0].cells], shown.iloc[0]
    low, high = first[["low", "high"]]
    written = ["Global against Dense", f"{first['value']:.3f}", f"{low:.3f} to {high:.3f}"]
    assert row[:3] == written
    assert row[4] == "worse"
    # Results have the perplexity of dense times the ratio and its ends.
    one = next(r for r in shown.to_dict("records") if (r["variant"], r["against"]) == names[1::-1])
    base = study.quality["perplexity"][0]
    value, low, high = (base * one[key] for key in ends)
    assert f"{value:.2f} ({low:.2f}–{high:.2f})" in [c.text for c in results(study).rows[1].cells]


def test_scores_without_losses_have_no_pairs(rivals):
    study, _ = distances(scored(rivals, nats(0, 0.1, 0.2, 0.4)))
    frame = study.quality.assign(span=None, **dict.fromkeys(
        [f"span_{key}" for key in FIGURES], None))  # fmt: skip
    bare = measurements.put_in(rivals, quality=frame)
    assert bare.score_pairs is None
    assert score_pairs(bare) is None
    assert f"{frame['perplexity'][1]:.2f}" in [cell.text for cell in results(bare).rows[1].cells]
    assert rivals.score_pairs is None


def test_a_winner_is_apart_from_all_others(rivals):
    study = scored(rivals, nats(0, 0.1, 0.2, 0.4))
    pairs = pairs_of(study)
    assert pairs.rivals == [["Global", "Layerwise", "Random"]]
    assert pairs.best(pairs.rivals[0]) == ("Global",)
    _, low, high = pairs.from_dense("Global").ratio
    assert (
        f"4.9 ({low:.2f}–{high:.2f} ×, 95 % interval). At 50 %, global magnitude has the lowest"
        in (verdict(study))
    )
    sentences = [str(each) for each in paired_findings(study)]
    gap, low, high = pairs.get("Layerwise", "Global").gap
    assert sentences == [
        "At 50 % sparsity, global magnitude beats layerwise magnitude by "
        f"{gap:.2f} perplexity (95 % interval, Holm-corrected for 6 comparisons: "
        f"{low:.2f} to {high:.2f})."
    ]
    assert 0 < low < gap < high


def test_fewer_zeros_do_not_win():
    """Of two masks of 50.0 %, the one with 300 zeros less beats none; with the lead it may."""
    weights = sr.load()
    half = sr.global_magnitude(weights, 0.5)
    masks = {name: half.mask(name) for name in half.cuts}
    first = next(iter(masks))
    masks[first].reshape(-1)[np.flatnonzero(~masks[first])[:300]] = True
    names = ("Dense", "Imported", "Global")
    imported = sr.masked(sr.import_mask(weights, masks), name="Imported")
    counted = sr.compare(sr.dense(weights), imported, sr.masked(half, name="Global"))
    levels = [(0, 1.0), (0.5, 1.0), (0.5, 1.0)]
    for losses, lowest in ((nats(0, 0.1, 0.2), "Imported"), (nats(0, 0.2, 0.1), "Global")):
        frame = measurements.with_losses(measurements.quality(levels, names), losses)
        study = measurements.put_in(counted, quality=frame)
        (rivals,) = pairs_of(study).rivals
        assert rivals[0] == lowest
        assert pairs_of(study).get(rivals[1], lowest).is_apart
        texts = [*map(str, paired_findings(study)), verdict(study)]
        marks = [cell.note for row in results(study).rows for cell in row.cells]
        is_fair = lowest == "Global"
        assert pairs_of(study).best(rivals) == (("Global",) if is_fair else ())
        assert any("beats" in text for text in texts) == is_fair
        assert any("the lowest perplexity" in text for text in texts) == is_fair
        assert ("lowest" in marks) == is_fair
        reason = "no perplexity is called lowest: the leading pruning has fewer"
        assert (reason in texts[0]) != is_fair


def test_a_model_is_not_compared_with_itself():
    """Rounding in another kernel is neither a comparison nor a divergence."""
    weights = sr.load(Tiny(), name="tiny")
    shares = {"None": 0.0, "Half": 0.5}
    prunings = (sr.masked(sr.global_magnitude(weights, s), name=n) for n, s in shares.items())
    counted = sr.compare(sr.dense(weights), *prunings)
    sums = nats(0, 0, 0.3)
    study, _ = distances(
        scored(counted, [sums[0], sums[0] + 1e-9, sums[2]], ("Dense", "None", "Half"))
    )
    assert {*pairs_of(study).contrasts} == {("Half", "Dense")}
    assert study.score_pairs["variant"].unique().tolist() == ["Half"]
    _, row, other = quality(study).rows
    texts = [cell.text for cell in row.cells]
    assert "same weights" in texts
    assert not any("(" in text for text in texts)
    assert sum("(" in cell.text for cell in other.cells) == 1
    alone = quality(scored(counted, [sums[0], sums[0] + 1e-9], ("Dense", "None")))
    assert "same weights" in [cell.text for cell in alone.rows[1].cells]
    assert "bootstrap" not in alone.note


def test_a_single_comparison_is_not_corrected():
    weights = sr.load(Tiny(), name="tiny")
    study = sr.compare(sr.dense(weights), sr.masked(sr.global_magnitude(weights, 0.5), name="M"))
    caption = results(scored(study, nats(0, 0.1), ("Dense", "M"))).note
    assert caption.endswith(" spans.")


def test_captions_say_where_blocks_do_not_fit(rivals):
    """A common drift of one variant makes all spans depend on each other."""
    sums = nats(0, 0.1, 0.2, 0.4)
    assert "may cover less" not in results(scored(rivals, sums)).note
    sums[1] = sums[1] + np.sin(np.arange(SPANS) / 12)
    study = scored(rivals, sums)
    needed = max(each.nll.needed for each in pairs_of(study).contrasts.values())
    assert needed > SPANS // 5
    assert f"asks for blocks of {needed:,} spans" in results(study).note


def test_ties_share(rivals):
    study = scored(rivals, nats(0, 0.2, 0.2001, 0.4))
    pairs = pairs_of(study)
    assert set(pairs.best(pairs.rivals[0])) == {"Global", "Layerwise"}
    assert "layerwise magnitude and global magnitude share the lowest" in verdict(study)
    sentences = [str(each) for each in paired_findings(study)]
    assert "the text does not separate" in sentences[0]
    assert "beats random" in sentences[1]


def test_nothing_is_best_of_what_is_not_separated(rivals):
    study = scored(rivals, nats(0, 0.2, 0.2, 0.2))
    pairs = pairs_of(study)
    assert pairs.best(pairs.rivals[0]) == ()
    assert "At 50 %, the text does not separate the 3 methods" in verdict(study)
    (sentence,) = map(str, paired_findings(study))
    assert "the text does not separate" in sentence


@pytest.mark.parametrize(
    ("cells", "reason"),
    [({"span": None}, "keeps no losses"), ({"window": 10**6, "tokens": 10**6}, "one window")],
)
def test_nothing_is_best_of_what_is_unpaired(rivals, cells, reason):
    study = scored(rivals, nats(0, 0.1, 0.2, 0.4), **cells)
    if "span" in cells:
        frame = study.quality.assign(span_nll=None)
        study = measurements.put_in(rivals, quality=frame)
    pairs = pairs_of(study)
    assert pairs.contrasts == {}
    assert pairs.best(pairs.rivals[0]) == ()
    (sentence,) = map(str, paired_findings(study))
    assert "no perplexity is called lowest" in sentence
    assert reason in sentence
    assert verdict(study).endswith(" and none is called lowest.")


def test_few_spans_have_no_interval(rivals):
    study = scored(rivals, [row[:10] for row in nats(0, 0.1, 0.2, 0.4)])
    assert pairs_of(study).contrasts == {}
    assert "too few tokens" in next(map(str, paired_findings(study)))


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
    assert "changes perplexity insignificantly from" in str(verdict(study))


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
