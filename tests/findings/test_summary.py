import re

import pytest
import torch
from helpers import Tiny, study_of
from torch import nn
from wording import of_key

import sparsity_report as sr
from sparsity_report.findings.study_findings import conventions, study_findings, topics
from sparsity_report.findings.verdict import verdict
from sparsity_report.words.number_format import percent, scaled
from sparsity_report.words.sentences import say, says


def sentences_of(study, key):
    return of_key(study_findings(study), key)


def test_the_verdict_opens_and_every_topic_follows(tiny):
    study = study_of(sr.load(tiny), 0.5)
    opening, *rest = sr.summarize(study)
    assert opening == verdict(study)
    assert rest == [finding for findings in topics(study).values() for finding in findings]


def test_zeros_bytes_and_flops(tiny):
    study = study_of(sr.load(tiny), 0.5)
    parameters = sum(p.numel() for p in tiny.parameters())
    (zeros,) = sentences_of(study, "finding.pruned_weights")
    assert zeros == (
        "Pruning zeroed 156 of 312 prunable weights in each of Masked50 and CSR50: 50.0 %, or "
        f"{100 * 156 / parameters:.1f} % of all parameters"
    )
    (storage,) = sentences_of(study, "finding.csr_break_even")
    rows = 2 * (6 + 10 + 6)
    csr = 4 * (parameters - 312) + 156 * (4 + 4) + (rows + 6) * 4
    assert f"CSR50 stores {csr / (4 * parameters):.2f} times the bytes of Dense" in storage
    even = (4 * 312 + (rows + 6) * 4) / (8 * 312)
    assert (
        f"With float32 values and int32 indices, CSR pays off from {100 * even:.1f} % sparsity"
        in storage
    )
    (arithmetic,) = (text for text in study_findings(study) if text.startswith("Per token, "))
    dense = 2 * (312 + 66)
    sparse = 2 * (156 + 66)
    assert f"Dense performs {dense} FLOPs. The same holds for Masked50" in arithmetic
    fewer = 100 * (1 - sparse / dense)
    assert f"CSR50 performs {sparse} FLOPs, {fewer:.0f} % fewer on paper" in arithmetic


def test_one_share_apart_is_another_sentence():
    """Of two models with equal counts one has 16 of its parameters in a norm."""

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


def test_break_even_of_half_precision():
    model = Tiny(dtype=torch.bfloat16)
    (storage,) = sentences_of(study_of(sr.load(model)), "finding.csr_break_even")
    # 2-byte values: (n·(v + i) + p·i − n·v) ÷ n·(v + i), p row pointers of six matrices.
    even = (4 * 312 + 4 * (2 * (6 + 10 + 6) + 6)) / (6 * 312)
    assert (
        f"bfloat16 values and int32 indices, CSR pays off from {100 * even:.1f} % sparsity"
        in storage
    )


def test_where_zeros_land_is_said_with_both_ends():
    model = nn.ModuleDict({"fc1": nn.Linear(10, 10), "fc2": nn.Linear(10, 10)})
    with torch.no_grad():
        model["fc1"].weight.mul_(1e-6)
    findings = study_findings(study_of(sr.load(model), 0.5))
    (uneven,) = of_key(findings, "finding.uneven_sparsity")
    assert "0.0 % of fc2 and 100.0 % of fc1" in uneven


def test_zeros_that_were_there(tiny):
    sr.freeze_pruning_(sr.prune_global_magnitude_(sr.select_prunable_linears(tiny), 0.5))
    zeros = sum(int((layer.weight == 0).sum()) for layer in sr.select_prunable_linears(tiny))
    prunable = sum(p.total for p in sr.load(tiny).prunable)
    (loaded,) = of_key(study_findings(sr.compare(sr.dense(tiny))), "existing.zeros_of_model")
    assert f"{zeros} of {prunable} prunable weights (50.0 %) of Dense were zero" in loaded


def test_unclassified_is_said():
    class Mystery(nn.Module):
        def __init__(self):
            super().__init__()
            self.strange = nn.Parameter(torch.ones(3))

    study = sr.compare(sr.dense(nn.ModuleDict({"fc1": nn.Linear(2, 3), "m": Mystery()})))
    unclassified = study_findings(study)[-1]
    assert says(unclassified, "finding.unclassified_modules")
    assert "1 module matches no grouping rule" in unclassified
    assert "(25.0 % of" in unclassified


def test_unclassified_is_said_of_all_models():
    """Two models of one class, of which only the second holds what no rule knows."""
    plain, strange = (
        nn.ModuleDict({"fc1": nn.Linear(2, 3)}),
        nn.ModuleDict({"fc1": nn.Linear(2, 3)}),
    )
    strange["m"] = nn.ParameterList([nn.Parameter(torch.ones(3))])
    models = [sr.load(model, name=name) for name, model in (("a", plain), ("b", strange))]
    sentences = sr.summarize(sr.compare(*(sr.dense(model, name=model.name) for model in models)))
    assert f"({3 / (9 + 9 + 3):.1%}".replace("%", " %") in sentences[-1].replace("\u00a0", " ")


@pytest.mark.parametrize("variants", ["dense", "masked", "csr", "both"])
def test_fewer_variants_say_less_but_never_fail(tiny, variants):
    weights = sr.load(tiny)
    pruning = sr.global_magnitude(weights, 0.3)
    chosen = {
        "dense": [sr.dense(weights)],
        "masked": [sr.masked(pruning)],
        "csr": [sr.csr(pruning)],
        "both": [sr.masked(pruning), sr.csr(pruning)],
    }[variants]
    sentences = sr.summarize(sr.compare(*chosen))
    assert all(re.search(r"\d", sentence) for sentence in sentences)
    assert not any("nan" in sentence.lower() for sentence in sentences)


def test_conventions_name_the_one_in_force(tiny):
    for convention in ("standard", "notebook"):
        used = conventions(sr.compare(sr.dense(tiny), convention=convention))
        heads = [say(f"convention.tied_head_{each}") for each in ("standard", "notebook")]
        assert [text for text in used if text in heads] == [
            say(f"convention.tied_head_{convention}")
        ]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0 %"), (1, "100.0 %"), (0.0004, "< 0.1 %"), (0.9996, "> 99.9 %"), (0.123456, "12.3 %")],
)
def test_percent(share, text):
    assert percent(share, space=" ") == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"), (999, "999 B"), (999.6, "1.00 kB"), (1000, "1.00 kB"), (12_345, "12.3 kB"),
        (999_500, "1.00 MB"), (123_456_789, "123 MB"), (10**15, "1.00 PB"),
    ],
)  # fmt: skip
def test_scaled(number, text):
    assert scaled(number, "B", " ") == text
