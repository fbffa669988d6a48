"""A study's own levels say, without the model, what pruning at that level gives."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Tiny, models, study_of, swept
from hypothesis import given, settings
from torch import nn
from torch.nn.utils import prune
from zoo.cases import CASES

import sparsity_report as sr
from sparsity_report.sparse.cost import csr_bytes

EXACT = ("module_name", "block", "group", "total", "nonzero", "weight_total", "weight_nonzero")


def agrees_with_pruning(study, weights, sparsity, slack=0):
    pruning = sr.global_magnitude(weights, sparsity)
    masked, csr = sr.masked(pruning).layers(), sr.csr(pruning).layers()
    here = study.at_level(sparsity)
    assert here["uncertainty"].max() <= slack
    for column in EXACT:
        if slack and "nonzero" in column:
            assert ((here[column] - masked[column]).abs() <= here["uncertainty"]).all()
        else:
            assert here[column].equals(masked[column]), column
    # In all, the count is exact whatever the dtype.
    for column in ("nonzero", "weight_nonzero"):
        assert here[column].sum() == masked[column].sum()
    assert here["flops_per_token"].equals(masked["flops_per_token"])
    # Fused experts: the file counts each matrix, the level their sum, rounded once.
    assert (
        (here["useful_flops_per_token"] - masked["useful_flops_per_token"]).abs()
        <= 1 + 2 * here["uncertainty"]
    ).all()
    assert here["dense_bytes"].equals(masked["stored_bytes"])
    assert ((here["csr_bytes"] - csr["stored_bytes"]).abs() <= 12 * here["uncertainty"]).all()
    return here, masked, csr


@pytest.mark.parametrize("case", swept(CASES, 3), ids=lambda case: case.name)
def test_every_architecture_at_several_levels(case):
    torch.manual_seed(0)
    weights = sr.load(case.build().to(torch.bfloat16))
    study = sr.compare(sr.dense(weights))
    for sparsity in (0.0, 0.3, 0.99):
        agrees_with_pruning(study, weights, sparsity)


@pytest.mark.parametrize("first", ["dense", "masked", "csr"])
def test_whichever_variant_stands_first(tiny, first):
    weights = sr.load(tiny.to(torch.float16))
    pruning = sr.global_magnitude(weights, 0.6)
    variant = sr.dense(weights) if first == "dense" else getattr(sr, first)(pruning)
    agrees_with_pruning(sr.compare(variant), weights, 0.35)


def test_float32_says_by_how_much_it_may_be_off(demo, demo_study):
    here, masked, _ = agrees_with_pruning(demo_study, demo, 0.3, slack=10_000)
    assert 0 < here["uncertainty"].sum() < 0.03 * masked["weight_total"].sum()


def test_a_quantized_checkpoint(smollm2):
    study = study_of(smollm2)
    agrees_with_pruning(study, smollm2, 0.3, slack=10_000)


def total_at(study, sparsity, quantity, layout="csr"):
    """Return a sum over the whole model at a level."""
    levels = study.by_level
    return levels.total(quantity, layout)[levels.sparsities.index(sparsity)]


def test_layers_without_csr_stay_dense_at_every_level():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 2, bias=False)
    model = nn.ModuleDict({"attn": attention, "fc1": nn.Linear(16, 8)}).to(torch.bfloat16)
    weights = sr.load(model)
    for first in (sr.dense(weights), sr.csr(sr.global_magnitude(weights, 0.6))):
        study = sr.compare(first)
        for sparsity in (0.0, 0.35, 0.99):
            here, masked, csr = agrees_with_pruning(study, weights, sparsity)
            left = int(masked["weight_nonzero"].iloc[-1])
            stay = 2 * (3 * 16 * 16 + 16 * 16)
            assert here["csr_flops_per_token"].equals(csr["flops_per_token"])
            assert total_at(study, sparsity, "stored_bytes") == stay + left * 6 + 9 * 4 + 2 * 8
            assert total_at(study, sparsity, "flops_per_token") == stay + 2 * left
            swept = sr.sweep(weights, [sparsity])
            assert swept["csr_bytes"].tolist() == csr["stored_bytes"].tolist()


def test_a_level_in_numbers_written_out():
    layer = nn.Linear(5, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1, 11).reshape(2, 5).to(torch.float32))
        layer.bias.copy_(torch.tensor([1.0, 0.0]))
    study = sr.compare(sr.dense(sr.load(nn.ModuleDict({"fc1": layer}))))
    (row,) = study.at_level(0.3).to_dict("records")
    assert row["weight_nonzero"] == 10 - 3
    assert row["nonzero"] == 10 - 3 + 1
    assert row["flops_per_token"] == 2 * 2 * 5
    assert row["useful_flops_per_token"] == 2 * 7
    assert row["dense_bytes"] == (10 + 2) * 4
    assert row["csr_bytes"] == csr_bytes(7, 2, 4, 4) + 2 * 4 == 7 * 8 + 3 * 4 + 8
    # 80 n/10 + 12 < 40 where less than 3.5 of 10 weights are left; levels are 1 % apart.
    assert study.facts.break_even("Dense") == (80 + 12 - 40) / 80
    assert total_at(study, 0.3, "stored_bytes") == row["csr_bytes"]
    assert total_at(study, 0.0, "stored_bytes", "dense") == 48
    assert total_at(study, 0.0, "flops_per_token", "dense") == 20


@settings(max_examples=15)
@given(models())
def test_small_matrices_that_tie_have_levels_that_are_read_back(tmp_path_factory, model):
    study = sr.compare(sr.dense(model))
    read = sr.read_study(study.save(tmp_path_factory.mktemp("study") / "study.json"))
    assert read.levels.equals(study.levels)
    frame = study.levels.pivot(index="sparsity", columns="module_name", values="weight_nonzero")
    assert (frame.diff().dropna() <= 0).all(axis=None)
    weights = [layer.weight for layer in model.children()]
    total = sum(weight.numel() for weight in weights)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    for sparsity, left in frame.sum(axis=1).items():
        assert total - left == max(round(sparsity * total), zeros)


def test_small_matrices_lose_as_many_as_by_torch():
    torch.manual_seed(0)
    model = nn.ModuleDict({f"fc{n}": nn.Linear(n, 9 - n, bias=False) for n in range(1, 9)})
    levels = sr.compare(sr.dense(model)).levels.set_index(["sparsity", "module_name"])
    weights = sr.load(model)
    for percent in range(100):
        theirs = copy.deepcopy(model)
        layers = [(layer, "weight") for layer in theirs.values()]
        prune.global_unstructured(layers, prune.L1Unstructured, amount=percent / 100)
        left = {name: int(layer.weight_mask.sum()) for name, layer in theirs.items()}
        exact = sr.masked(sr.global_magnitude(weights, percent / 100)).layers()
        assert exact.set_index("module_name")["weight_nonzero"].to_dict() == left
        off = levels.loc[percent / 100, "weight_nonzero"] - pd.Series(left)
        assert (off.abs() <= levels.loc[percent / 100, "uncertainty"]).all()
        assert off.sum() == 0


def test_zeros_that_are_there_already_are_certain_and_go_first():
    torch.manual_seed(0)
    model = nn.ModuleDict({f"fc{n}": nn.Linear(50, 50, bias=False) for n in range(2)})
    with torch.no_grad():
        model["fc0"].weight[:30] = 0
        model["fc1"].weight[:10] = 0
        # So small that they share the bucket of zeros.
        model["fc1"].weight[10:] = 1e-42
    levels = sr.compare(sr.dense(model)).levels
    below = levels[levels["sparsity"] <= 0.4]
    assert below["uncertainty"].eq(0).all()
    assert set(below["weight_nonzero"]) == {1000, 2000}
    left = levels.groupby("sparsity")["weight_nonzero"].sum()
    assert left.to_dict() == {n / 100: min(5000 - 50 * n, 3000) for n in range(100)}


def test_thresholds_are_those_of_pruning():
    from sparsity_report.study.sweep import thresholds

    torch.manual_seed(1)
    weights = sr.load(Tiny(dtype=torch.bfloat16))
    found = thresholds(weights, [0.0, 0.3, 0.8])
    assert found[0] is None
    for sparsity, threshold in zip((0.3, 0.8), found[1:], strict=True):
        assert threshold == sr.global_magnitude(weights, sparsity).threshold


def test_levels_that_are_not_kept(demo_study):
    with pytest.raises(sr.SparsityReportError, match=r"keeps the levels 0, 0.01.*not 0.305"):
        demo_study.at_level(0.305)
    nothing = sr.compare(sr.dense(sr.load(nn.ModuleDict({"norm": nn.LayerNorm(4)}))))
    with pytest.raises(sr.SparsityReportError, match="keeps no levels"):
        nothing.at_level(0.3)
    with pytest.raises(sr.SparsityReportError, match="compare known prunable weights first"):
        sr.level_within(nothing, "2 MB")
    with torch.device("meta"):
        unknown = sr.compare(sr.dense(sr.load(Tiny())))
    assert unknown.by_level is None


def test_further_variants_join_a_study(demo, demo_study):
    pruning = sr.global_magnitude(demo, 0.42)
    more = demo_study.with_variants(sr.masked(pruning), sr.csr(pruning))
    together = sr.compare(
        sr.dense(demo),
        *(of(p) for p in (sr.global_magnitude(demo, 0.3), pruning) for of in (sr.masked, sr.csr)),
    )
    for part in ("variants", "layers", "groups", "totals", "levels"):
        assert getattr(more, part).equals(getattr(together, part)), part
    assert list(demo_study.variants["variant"]) == ["Dense", "Masked30", "CSR30"]
    assert demo_study.with_variants() is demo_study
    with pytest.raises(sr.SparsityReportError, match="two variants are called 'CSR42'"):
        more.with_variants(sr.csr(pruning))


def test_at_a_level_no_tensor_is_read(demo_study, monkeypatch):
    monkeypatch.setattr(
        type(demo_study.weights), "slices", lambda *_: pytest.fail("a tensor was read")
    )
    assert np.isfinite(demo_study.at_level(0.5)["csr_bytes"].sum())
