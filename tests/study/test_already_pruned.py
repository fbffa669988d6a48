"""Models that were pruned before they were opened, against torch.nn.utils.prune and the tensors."""

import measurements
import packing
import pandas as pd
import pytest
import torch
from helpers import Tiny, counted
from torch.nn.utils import prune
from wording import of_key

import sparsity_report as sr
from sparsity_report.study.derived import existing_zeros

LEVEL = 0.5


def pruned_by_torch(amount=LEVEL):
    """Prune the demo model by torch's global magnitude pruning."""
    weights = sr.load()
    model = weights.module()
    parts = [(model.get_submodule(p.name.rpartition(".")[0]), "weight") for p in weights.prunable]
    prune.global_unstructured(parts, prune.L1Unstructured, amount=amount)
    for part in parts:
        prune.remove(*part)
    return model


def named(model):
    return sr.load(model, name="opened")


def zeros_of(model):
    weights = sr.load(model)
    return sum(int((weights.tensor(p.name) == 0).sum()) for p in weights.prunable)


@pytest.fixture(scope="module")
def model():
    return pruned_by_torch()


def test_existing_zeros_are_those_of_the_tensors(model):
    weights = named(model)
    pruning = sr.existing_zeros(weights)
    assert (
        pruning.pruned == zeros_of(model) == round(LEVEL * sum(p.total for p in weights.prunable))
    )
    for p in weights.prunable:
        assert torch.equal(pruning.mask(p.name), weights.tensor(p.name) != 0)


@pytest.mark.parametrize("variant", [sr.masked, sr.csr])
def test_the_model_of_a_variant_has_the_counted_nonzeros(model, variant):
    each = variant(sr.existing_zeros(named(model)))
    frame, _ = sr.analyze_layers(each.module(), each.name)
    pd.testing.assert_frame_equal(counted(each.layers()), counted(frame))


def test_names_say_the_share():
    weights = named(pruned_by_torch(0.4987))
    pruning = sr.existing_zeros(weights)
    assert [sr.masked(pruning).name, sr.csr(pruning).name] == ["Pruned49.9", "CSR49.9"]
    study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
    assert study.facts.prunings == ("Pruned49.9",)
    assert study.facts.headline == "CSR49.9"
    assert study.variants["asked_sparsity"].isna().all()


def test_scores_of_an_opened_model_name_that_model(model):
    """Only a variant that was pruned here has another name than its file should have."""
    weights = named(model)
    prunings = {"Kept": sr.existing_zeros(weights), "Further": sr.global_magnitude(weights, 0.6)}
    study = sr.compare(*(sr.masked(each, name=name) for name, each in prunings.items()))
    tasks = measurements.tasks(["Kept", "Further"])
    due = {"opened": ("before_pruning", "Further"), "other": ("of_other_model", "Kept")}
    for file, (key, variant) in due.items():
        audit = study.with_measured(tasks=tasks.assign(evaluated_model=f"org/{file}")).audit
        flagged = [text for text in audit if " come from a file that names " in text]
        assert flagged == of_key(audit, f"audit.scores_{key}")
        assert [text.split()[3] for text in flagged] == [variant]


def test_three_figures_when_pruned_further(model):
    weights = named(model)
    study = sr.compare(sr.masked(sr.global_magnitude(weights, 0.6)))
    before = zeros_of(model)
    target = round(0.6 * sum(p.total for p in weights.prunable))
    (row,) = study.totals.to_dict("records")
    assert (row["zeros_before"], row["newly_zeroed"]) == (before, target - before)


def test_nothing_is_newly_zeroed_below_the_zeros_of_the_model(model):
    study = sr.compare(sr.masked(sr.global_magnitude(named(model), 0.3)))
    assert study.totals["newly_zeroed"].tolist() == [0]


@pytest.mark.parametrize(("share", "is_pruned"), [(0.005, False), (0.02, True)])
def test_a_trace_of_zeros_is_no_pruning(share, is_pruned):
    assert sr.dense(named(pruned_by_torch(share))).is_pruned is is_pruned


@pytest.mark.parametrize("way", ["pack-quantized-4-symmetric", "nf4", "mxfp4"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_zeros_of_rounding_are_no_pruning(tmp_path, way, share):
    weights, _ = packing.packed_matrix(tmp_path / "packed", way, packing.gaussian(share))
    variant = sr.dense(weights)
    assert variant.layers()["sparsity"].iloc[0] > 0.05
    assert variant.is_pruned == (share > 0)


def test_packed_weights_stay_packed(tmp_path):
    weights, _ = packing.packed_matrix(tmp_path / "p", "nf4", packing.gaussian(0.5))
    kept = sr.masked(sr.existing_zeros(weights)).layers()
    pd.testing.assert_series_equal(kept["file_bytes"], sr.dense(weights).layers()["file_bytes"])
    assert kept["packing"].tolist() == sr.dense(weights).layers()["packing"].tolist()


def positions_of(matrix):
    model = torch.nn.ModuleDict({"fc1": torch.nn.Linear(matrix.shape[1], matrix.shape[0])})
    model["fc1"].weight.data = matrix
    study = sr.compare(sr.dense(model), patterns=True)
    return existing_zeros.positions(study.patterns, None)


def test_ninety_percent_at_random_is_not_two_of_four():
    """Random zeros comply with 2:4 in 99.6 % of groups, which do not make the pattern."""
    matrix = torch.randn(256, 256) * (torch.rand(256, 256) > 0.9)
    assert positions_of(matrix) is None


def test_groups_of_four_are_recognized():
    matrix = torch.randn(64, 64)
    smallest = matrix.abs().reshape(-1, 4).argsort(dim=1)[:, :2]
    matrix.reshape(-1, 4).scatter_(1, smallest, 0.0)
    assert positions_of(matrix).figures["pattern"] == "2:4"


def test_whole_rows_are_recognized():
    matrix = torch.randn(64, 64)
    matrix[::3] = 0
    assert positions_of(matrix) == ("rows", {"rows": 22, "columns": 0})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_smallest_magnitude_is_that_of_the_tensor(dtype):
    matrix = torch.randn(40, 70).to(dtype)
    matrix[matrix.abs() < 0.5] = 0
    model = torch.nn.ModuleDict({"fc1": torch.nn.Linear(70, 40, dtype=dtype)})
    model["fc1"].weight.data = matrix
    least = sr.weight_patterns(sr.dense(model))["least_abs"].item()
    assert least == matrix[matrix != 0].abs().min().item()


def test_no_zeros_and_only_zeros():
    for value, zeros in ((1.0, 0), (0.0, 312)):
        tiny = Tiny()
        for layer in sr.select_prunable_linears(tiny):
            torch.nn.init.constant_(layer.weight, value)
        pruning = sr.existing_zeros(sr.load(tiny))
        assert pruning.pruned == zeros
        assert len(sr.summarize(sr.compare(sr.masked(pruning), sr.csr(pruning), patterns=True)))
