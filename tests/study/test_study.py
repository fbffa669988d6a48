"""Variants in a study: names, fingerprints, and models that stay unchanged."""

import pytest
import torch
from helpers import Tiny, study_of

import sparsity_report as sr


@pytest.fixture
def study(tiny):
    return study_of(sr.load(tiny, name="tiny"), 0.5)


def test_names_follow_the_level(tiny):
    weights = sr.load(tiny)
    names = {
        0.3: "Masked30", 0.5: "Masked50", 0.305: "Masked30.5", 0.0: "Masked0", 1.0: "Masked100",
    }  # fmt: skip
    for level, name in names.items():
        assert sr.masked(sr.global_magnitude(weights, level)).name == name
    assert sr.csr(sr.global_magnitude(weights, 0.29)).name == "CSR29"


def test_any_number_of_variants_of_any_models(tiny):
    others = [sr.dense(Tiny(blocks=b), name=f"Blocks{b}") for b in (1, 3)]
    pruned = sr.masked(sr.global_magnitude(sr.load(tiny), 0.3))
    study = sr.compare(sr.dense(tiny), pruned, *others)
    assert study.totals["variant"].tolist() == ["Dense", "Masked30", "Blocks1", "Blocks3"]
    assert study.pivot("modules").loc["attention_linear"].tolist() == [2, 2, 1, 3]


def test_other_values_are_refused_with_advice(tiny):
    weights = sr.load(tiny)
    pruning, study = sr.global_magnitude(weights, 0.3), sr.compare(sr.dense(weights))
    for call in (
        sr.compare, study.with_variants, sr.perplexity, lambda value: sr.perplexity([value]),
        lambda value: sr.continuations(value, "a"), lambda value: sr.latency([value]),
    ):  # fmt: skip
        for value in (pruning, weights, tiny):
            with pytest.raises(sr.SparsityReportError, match=r"wrap it: sr.masked\(pruning\)"):
                call(value)
    with pytest.raises(sr.SparsityReportError, match="a str cannot be pruned; open the model with"):
        sr.global_magnitude("tiny", 0.3)


def test_names_must_differ(tiny):
    with pytest.raises(sr.SparsityReportError, match="two variants are called 'Dense'"):
        sr.compare(sr.dense(tiny), sr.dense(tiny))
    with pytest.raises(sr.SparsityReportError, match="there are no variants"):
        sr.compare()
    with pytest.raises(sr.SparsityReportError, match="no metric 'beauty'"):
        sr.compare(sr.dense(tiny)).pivot("beauty")


def test_masked_and_csr_want_a_pruning(tiny):
    for make in (sr.masked, sr.csr):
        with pytest.raises(sr.SparsityReportError, match="already-pruned model to dense"):
            make(sr.load(tiny))


def test_fingerprint_distinguishes_models(tiny):
    one = sr.compare(sr.dense(tiny)).variants.loc[0, "fingerprint"]
    with torch.no_grad():
        tiny.layers[0]["fc1"].weight[0, 0] *= 2
    two = sr.compare(sr.dense(tiny)).variants.loc[0, "fingerprint"]
    assert one != two
    assert len(one) == 16


def test_nothing_is_modified(tiny):
    before = {name: p.clone() for name, p in tiny.named_parameters()}
    weights = sr.load(tiny)
    study_of(weights)
    sr.csr(sr.global_magnitude(weights, 0.9)).module()
    assert all(torch.equal(p, before[name]) for name, p in tiny.named_parameters())
    assert sr.compare(sr.dense(weights)).layers.equals(sr.compare(sr.dense(tiny)).layers)
