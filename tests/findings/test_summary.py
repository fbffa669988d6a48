import re

import pytest
from helpers import study_of
from torch import nn
from wording import of_key

import sparsity_report as sr
from sparsity_report.findings.study_findings import conventions, study_findings, topics
from sparsity_report.findings.verdict import verdict
from sparsity_report.words.sentences import say


def sentences_of(study, key):
    return of_key(study_findings(study), key)


def test_the_verdict_opens_and_every_topic_follows(tiny):
    study = study_of(sr.load(tiny), 0.5)
    opening, *rest = sr.summarize(study)
    assert opening == verdict(study)
    assert rest == [finding for findings in topics(study).values() for finding in findings]


def test_different_shares_have_different_sentences():
    """Two models have equal counts, but one has 16 of its parameters in a norm."""

    def model(rows, *more):
        layers = {"embed": nn.Embedding(rows, 8), "fc1": nn.Linear(8, 8, bias=False)}
        return nn.ModuleDict({**layers, **dict(more)})

    norm = nn.LayerNorm(8)
    nn.init.ones_(norm.bias)
    sources = {"A": model(10), "B": model(9, ("norm", norm))}
    prunings = {
        name: sr.global_magnitude(sr.load(source, name=name), 0.5)
        for name, source in sources.items()
    }
    study = sr.compare(*[sr.masked(p, name=name) for name, p in prunings.items()])
    pruned = of_key(study_findings(study), "finding.pruned_weights")
    sizes = {"A": 10 * 8 + 64, "B": 9 * 8 + 64 + 16}
    for finding, (name, total) in zip(pruned, sizes.items(), strict=True):
        assert f"32 of 64 prunable weights in {name}: " in finding
        assert f"50.0 %, or {100 * 32 / total:.1f} % of all parameters" in finding


def test_a_table_has_the_zeros_of_more_than_two_prunings(demo):
    levels = (0.3, 0.5, 0.6)
    for number in (2, 3):
        study = sr.compare(*(sr.masked(sr.global_magnitude(demo, s)) for s in levels[:number]))
        pruned = sentences_of(study, "finding.pruned_weights")
        assert len(pruned) == (2 if number == 2 else 0)


def test_flops_are_compared_with_those_of_another_variant(demo):
    """No model is left out, and CSR is compared with the dense variant of its own model only."""
    pruning = sr.global_magnitude(demo, 0.5)
    small = sr.dense(nn.ModuleDict({"fc1": nn.Linear(8, 8)}), name="Small")
    for variants, flops in (
        (
            [sr.masked(pruning)],
            "Masked50 performs 1.84 MFLOPs. Dense kernels do not skip zeros",
        ),
        (
            [small, sr.csr(pruning)],
            "Small performs 128 FLOPs. Per token, CSR50 performs 1.05 MFLOPs",
        ),
        (
            [small, sr.dense(demo), sr.csr(pruning)],
            "Small performs 128 FLOPs. Per token, Dense performs 1.84 MFLOPs. "
            "CSR50 performs 1.05 MFLOPs, 43 % fewer than Dense on paper",
        ),
    ):
        assert f"Per token, {flops}." in study_findings(sr.compare(*variants))


@pytest.mark.parametrize("variants", ["dense", "masked", "csr", "both"])
def test_fewer_variants_have_findings_without_nan(tiny, variants):
    weights = sr.load(tiny)
    pruning = sr.global_magnitude(weights, 0.3)
    chosen = {
        "dense": [sr.dense(weights)], "masked": [sr.masked(pruning)], "csr": [sr.csr(pruning)],
        "both": [sr.masked(pruning), sr.csr(pruning)],
    }[variants]  # fmt: skip
    sentences = sr.summarize(sr.compare(*chosen))
    assert all(re.search(r"\d", sentence) for sentence in sentences)
    assert not any("nan" in sentence.lower() for sentence in sentences)


def test_conventions_name_the_convention_of_the_study(tiny):
    for convention in ("standard", "notebook"):
        used = conventions(sr.compare(sr.dense(tiny), convention=convention))
        heads = [say(f"convention.tied_head.{each}") for each in ("standard", "notebook")]
        assert [text for text in used if text in heads] == [
            say(f"convention.tied_head.{convention}")
        ]
