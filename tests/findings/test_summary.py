import re

import pytest
import torch
from helpers import Tiny, study_of
from torch import nn

import sparsity_report as sr
from sparsity_report.findings.study_findings import conventions
from sparsity_report.words.number_format import percent, scaled


def test_the_three_sentences(tiny):
    study = study_of(sr.load(tiny), 0.5)
    zeros, storage, arithmetic, *_ = sr.summarize(study)
    assert zeros.startswith(
        "Masked50 and CSR50 set 156 of 312 prunable weights to zero (asked 50 %): 50.0 % of the "
        "prunable weights,"
    )
    parameters = sum(p.numel() for p in tiny.parameters())
    rows = 2 * (6 + 10 + 6)
    csr = 4 * (parameters - 312) + 156 * (4 + 4) + (rows + 6) * 4
    assert f"CSR50 stores {csr / (4 * parameters):.2f} times the bytes of Dense" in storage
    even = (4 * 312 + (rows + 6) * 4) / (8 * 312)
    assert f"with float32 values and int32 indices from {100 * even:.1f} % sparsity" in storage
    dense = 2 * (312 + 66)
    sparse = 2 * (156 + 66)
    assert f"Per token Dense does {dense} FLOPs; Masked50 the same" in arithmetic
    assert f"CSR50 does {sparse} FLOPs, {sparse / dense:.2f} times" in arithmetic


def test_one_share_apart_is_another_sentence():
    """Of two models with equal counts one has 16 of its parameters in a norm."""

    def model(rows, *more):
        layers = {"embed": nn.Embedding(rows, 8), "fc1": nn.Linear(8, 8, bias=False)}
        return nn.ModuleDict({**layers, **dict(more)})

    norm = nn.LayerNorm(8)
    nn.init.ones_(norm.bias)
    sources = {"A": model(10), "B": model(8, ("norm", norm))}
    prunings = {
        name: sr.global_magnitude(sr.load(source, name=name), 0.5)
        for name, source in sources.items()
    }
    said = sr.summarize(sr.compare(*[sr.masked(p, name=name) for name, p in prunings.items()]))
    for name, share in (("A", 32 / 64), ("B", 32 / 80)):
        sentence = next(s for s in said if s.startswith(f"{name} sets 32 of 64"))
        assert f"{100 * share:.1f} % of the non-embedding parameters" in sentence


def test_shares_that_are_written_alike_are_said_once(demo):
    levels = {"A": 0.3, "B": 0.50005, "C": 0.30004}
    study = sr.compare(
        *(sr.masked(sr.global_magnitude(demo, s), name=n) for n, s in levels.items())
    )
    assert study.totals["pruned"].nunique() == 3
    said = next(sentence for sentence in sr.summarize(study) if sentence.startswith("Zeros among"))
    assert "30.0 % in A and C (" in said
    assert said.count("% in ") == 2


def test_break_even_of_half_precision():
    model = Tiny(dtype=torch.bfloat16)
    storage = sr.summarize(study_of(sr.load(model)))[1]
    # 2-byte values: (n·(v + i) + p·i − n·v) ÷ n·(v + i), p row pointers of six matrices.
    even = (4 * 312 + 4 * (2 * (6 + 10 + 6) + 6)) / (6 * 312)
    assert f"bfloat16 values and int32 indices from {100 * even:.1f} % sparsity" in storage


def test_where_zeros_land_is_said_with_both_ends():
    model = nn.ModuleDict({"fc1": nn.Linear(10, 10), "fc2": nn.Linear(10, 10)})
    with torch.no_grad():
        model["fc1"].weight.mul_(1e-6)
    sentence = next(s for s in sr.summarize(study_of(sr.load(model), 0.5)) if "evenly" in s)
    assert "0.0 % of fc2 and 100.0 % of fc1" in sentence


def test_zeros_that_were_there(tiny):
    sr.freeze_pruning_(sr.prune_global_magnitude_(sr.select_prunable_linears(tiny), 0.5))
    zeros = sum(int((p == 0).sum()) for p in tiny.parameters())
    text = " ".join(sr.summarize(sr.compare(sr.dense(tiny))))
    assert f"Dense holds {zeros} zeros as it comes" in text


def test_unclassified_is_said():
    class Mystery(nn.Module):
        def __init__(self):
            super().__init__()
            self.strange = nn.Parameter(torch.ones(3))

    study = sr.compare(sr.dense(nn.ModuleDict({"fc1": nn.Linear(2, 3), "m": Mystery()})))
    assert (
        "1 module matches no grouping rule and stands under other (25.0 % of"
        in (sr.summarize(study)[-1])
    )


def test_unclassified_is_said_of_all_models():
    """Two models of one class, of which only the second holds what no rule knows."""
    plain, strange = (
        nn.ModuleDict({"fc1": nn.Linear(2, 3)}),
        nn.ModuleDict({"fc1": nn.Linear(2, 3)}),
    )
    strange["m"] = nn.ParameterList([nn.Parameter(torch.ones(3))])
    models = [sr.load(model, name=name) for name, model in (("a", plain), ("b", strange))]
    said = sr.summarize(sr.compare(*(sr.dense(model, name=model.name) for model in models)))
    assert f"({3 / (9 + 9 + 3):.1%}".replace("%", " %") in said[-1].replace("\u00a0", " ")


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
    said = sr.summarize(sr.compare(*chosen))
    assert all(re.search(r"\d", sentence) for sentence in said)
    assert not any("nan" in sentence.lower() for sentence in said)


def test_conventions_name_the_one_in_force(tiny):
    standard, notebook = (
        " ".join(conventions(sr.compare(sr.dense(tiny), convention=c)))
        for c in ("standard", "notebook")
    )
    assert "look-up costs no FLOPs" in standard
    assert "counted again" in notebook


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
