"""Figures of a study against arithmetic on the weights themselves, and against each other."""

import measurements
import numpy as np
import pytest
import torch
from helpers import Tiny, study_of
from torch import nn

import sparsity_report as sr
from sparsity_report.study.derived.strip import strip
from sparsity_report.study.storage_layouts import layout_curve


def zeros_of(variant):
    """Return the positions of zeros of prunable weights, from a module that runs."""
    weights = dict(variant.module().named_parameters())
    return {
        parameter.name: (weights[parameter.name] == 0).numpy()
        for parameter in variant.weights.prunable
    }


def blocks(number, width=4):
    model = nn.Module()
    model.layers = nn.ModuleList(
        nn.ModuleDict({"fc": nn.Linear(width, width)}) for _ in range(number)
    )
    return model


def policies(weights):
    pruning = sr.global_magnitude(weights, 0.3)
    return sr.compare(
        sr.dense(weights), sr.masked(pruning), sr.csr(pruning),
        sr.masked(sr.n_m(weights, 2, 4), name="Two of four"),
        sr.masked(sr.layerwise_magnitude(weights, 0.5), name="Layerwise"),
    )  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        "demo", "bfloat16", "modules", "policies", pytest.param("minilm", marks=pytest.mark.tools),
    ],
)  # fmt: skip
def study(request):
    torch.manual_seed(0)
    if request.param in {"demo", "minilm"}:
        return study_of(request.getfixturevalue(request.param))
    if request.param == "modules":
        return study_of(sr.load(blocks(1_000)))
    if request.param == "policies":
        return policies(request.getfixturevalue("demo"))
    return study_of(sr.load(Tiny(width=24, hidden=40, blocks=3, dtype=torch.bfloat16)))


def csr_bytes(nonzero, rows, value):
    """Values, int32 columns and int32 row pointers, as scipy's and torch's arrays would take."""
    return nonzero * value + nonzero * 4 + (rows + 1) * 4


@pytest.mark.parametrize(("dtype", "value"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize("shape", [(5, 2), (24, 40), (3, 64)])
def test_break_even_is_where_zeros_begin_to_save_bytes(dtype, value, shape):
    torch.manual_seed(0)
    inputs, rows = shape
    model = nn.ModuleDict({"fc1": nn.Linear(inputs, rows, bias=False, dtype=dtype)})
    weights, total = sr.load(model), inputs * rows
    saves = [z for z in range(total + 1) if csr_bytes(total - z, rows, value) < total * value]
    found = sr.compare(sr.dense(weights)).facts.break_even("Dense")
    if not saves:
        assert found is None
        return
    assert saves[0] - 1 <= found * total < saves[0]
    for zeros, smaller in ((saves[0] - 1, False), (saves[0], True)):
        variant = sr.csr(sr.global_magnitude(weights, zeros / total), name="CSR")
        facts = sr.compare(sr.dense(weights), variant).facts
        assert (facts.ratio("CSR", "stored_bytes") < 1) == smaller
        assert (facts.storage("CSR").loc["csr_int32", "ratio"] < 1) == smaller


def test_break_even_is_one_number_and_where_the_lines_of_the_curve_cross(study):
    facts = study.facts
    for layout in ("csr_int32", "csr_int64", "bitmask"):
        found = {facts.break_even(variant, layout) for variant in study.variants["variant"]}
        assert len(found) == 1
        (share,) = found
        curve = layout_curve(facts.layers(facts.baseline)).query("layout == @layout")
        assert (curve["ratio"] > 1).equals(curve["sparsity"] < share)


def test_prunings_are_distinct_where_zeros_are(demo):
    pruning, wide = sr.global_magnitude(demo, 0.3), sr.global_magnitude(demo, 0.6)
    variants = [
        sr.dense(demo), sr.masked(pruning), sr.csr(pruning),
        sr.masked(sr.n_m(demo, 2, 4), name="2:4"), sr.masked(sr.n_m(demo, 4, 8), name="4:8"),
        sr.masked(sr.layerwise_magnitude(demo, 0.5), name="Layerwise50"), sr.csr(wide),
        sr.masked(sr.layerwise_magnitude(demo, 0.6), name="Layerwise60"),
        sr.masked(sr.global_magnitude(demo, 0.0), name="Nothing"),
    ]  # fmt: skip
    seen, first = [], []
    for variant in variants[1:]:
        zeros = zeros_of(sr.masked(variant.pruning))
        if not any(all(np.array_equal(a[n], zeros[n]) for n in zeros) for a in seen):
            seen.append(zeros)
            first.append(variant.name)
    assert sr.compare(*variants).facts.prunings == tuple(first)
    assert {"2:4", "4:8", "Layerwise50"} <= set(first)
    assert "CSR30" not in first


def test_policies_that_take_the_same_weights_are_one_pruning():
    torch.manual_seed(0)
    weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(8, 8)}))
    one, other = sr.global_magnitude(weights, 0.5), sr.layerwise_magnitude(weights, 0.5)
    variants = [sr.masked(one), sr.masked(other, name="Layerwise")]
    assert all(
        np.array_equal(a, b) for a, b in zip(*(zeros_of(v).values() for v in variants), strict=True)
    )
    assert sr.compare(sr.dense(weights), *variants).facts.prunings == ("Masked50",)


def test_a_model_that_others_pruned_is_a_pruning():
    torch.manual_seed(0)
    model = nn.ModuleDict({"fc1": nn.Linear(8, 8)})
    plain = sr.load(nn.ModuleDict({"fc1": nn.Linear(8, 8)}))
    with torch.no_grad():
        model["fc1"].weight[:4] = 0
    pruned = sr.load(model)
    study = sr.compare(sr.dense(plain), sr.dense(pruned, name="Wanda50"))
    assert study.facts.prunings == ("Wanda50",)
    # Pruning no more than was zero removes nothing: the same zeros again.
    again = sr.masked(sr.global_magnitude(pruned, 0.5), name="Again")
    assert sr.compare(sr.dense(pruned, name="Wanda50"), again).facts.prunings == ("Wanda50",)


@pytest.mark.parametrize("number", [120, 121, 1681])
def test_a_merged_cell_says_what_it_holds(number):
    torch.manual_seed(0)
    weights = sr.load(blocks(number))
    pruning = sr.global_magnitude(weights, 0.3)
    facts = sr.compare(sr.dense(weights), sr.masked(pruning)).facts
    shares = np.array([zeros.mean() for zeros in zeros_of(sr.masked(pruning)).values()])
    merged = -(-number // 120)
    cells = facts.cells("Masked30")
    assert cells["layers"].tolist() == [
        len(shares[first : first + merged]) for first in range(0, number, merged)
    ]
    for place, cell in enumerate(cells.to_dict("records")):
        held = shares[place * merged : (place + 1) * merged]
        assert (cell["low"], cell["high"]) == (held.min(), held.max())
        assert cell["sparsity"] == pytest.approx(held.mean())
    spread = facts.spread("Masked30")
    assert (spread.low, spread.high) == (shares.min(), shares.max())
    assert (spread.low, spread.high) == (cells["low"].min(), cells["high"].max())


def test_levels_agree_with_the_variants_of_the_study(study):
    facts, levels = study.facts, study.by_level
    level, place = study.at_level(0.3), levels.sparsities.index(0.3)
    prunable = level[level["prunable"]]
    for rows, part in ((prunable, "prunable"), (level, "model")):
        prefix = "weight_" if part == "prunable" else ""
        zeros = (rows[f"{prefix}total"] - rows[f"{prefix}nonzero"]).sum()
        share = facts.total("Masked30", f"sparsity_{part}")
        assert zeros / rows[f"{prefix}total"].sum() == pytest.approx(share)
    # Which layer a weight is taken from does not change the bytes.
    assert levels.total("stored_bytes")[place] == facts.total("CSR30", "stored_bytes")
    # Only from a pooler, which no token passes, a weight costs a token nothing.
    once = level.query("prunable and flops_per_token == 0")["uncertainty"].sum()
    flops = levels.total("flops_per_token")[place]
    assert abs(flops - facts.total("CSR30", "flops_per_token")) <= 2 * once
    real = study.groups[study.groups["variant"] == "Masked30"].set_index("group")
    groups = level.groupby("group")[["total", "nonzero", "uncertainty"]].sum()
    off = (groups["nonzero"] - real["nonzero"]).abs()
    assert (off <= groups["uncertainty"]).all()
    assert groups["total"].to_dict() == real["total"].to_dict()


@pytest.mark.parametrize(
    ("low", "high", "after"), [(0.3, 0.5, (0.4, 0.4)), (0.95, 1.01, ())], ids=["stated", "noise"]
)
def test_measured_figures_are_in_the_strip(demo, low, high, after):
    """The strip has the speed with 1 token at a time, or says that there is no difference."""
    study = measurements.put_in(
        study_of(demo), latency=measurements.latency().assign(realised_low=low, realised_high=high),
        quality=measurements.quality(names=("Dense", "Masked30", "CSR30")),
    )  # fmt: skip
    quality, *_, speed = strip(study.facts)
    assert (quality.key, quality.before, quality.after) == ("perplexity", 10.0, (12.5, 12.5))
    assert (quality.more["text"], quality.more["window"]) == ("some.txt", 64)
    assert speed.after == after
    expected = {"tokens": 1, "low": low, "high": high, "reason": "stated"}
    assert speed.more == (expected if after else {"reason": "noise"})


def test_the_strip_compares_a_pruning_with_its_own_model(demo):
    torch.manual_seed(0)
    tiny = sr.load(Tiny(), name="tiny")
    study = sr.compare(sr.dense(demo), sr.masked(sr.global_magnitude(tiny, 0.5), name="M"))
    study = measurements.put_in(
        study, quality=measurements.quality(((0.0, 10.0), (0.5, 4.0)), ("Dense", "M"))
    )
    quality, size, flops, _ = strip(study.facts)
    assert (quality.before, quality.after) == (None, (4.0, 4.0))
    layers = study.layers[study.layers["variant"] == "M"]
    assert size.before == layers["stored_bytes"].sum()
    assert (flops.key, flops.before) == ("useful_flops", None)
    assert flops.more["performed"] == layers["flops_per_token"].sum()
