"""Models that were pruned before they were opened, against torch.nn.utils.prune and the tensors."""

import measurements
import numpy as np
import packing
import pandas as pd
import pytest
import torch
from helpers import Tiny
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
        assert np.array_equal(pruning.mask(p.name), weights.array(p.name) != 0)


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


def test_ninety_percent_at_random_is_not_two_of_four():
    """Random zeros comply with 2:4 in 99.6 % of groups, which do not make the pattern."""
    matrix = torch.randn(256, 256) * (torch.rand(256, 256) > 0.9)
    assert existing_zeros.positions(opened(matrix).patterns, None) is None


def opened(*matrices):
    """Return a study of a model with these matrices."""
    model = torch.nn.ModuleDict()
    for number, matrix in enumerate(matrices):
        model[f"fc{number}"] = torch.nn.Linear(*reversed(matrix.shape), bias=False)
        model[f"fc{number}"].weight.data = matrix
    return sr.compare(sr.dense(model), patterns=True)


def pruned_gaussians(pruner, count=4, size=512, **options):
    """Prune matrices of equal deviation with a function of torch.nn.utils.prune."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(size, size, bias=False) for _ in range(count)]
    for layer in layers:
        torch.nn.init.normal_(layer.weight, std=0.02)
    if pruner is prune.global_unstructured:
        pairs = [(layer, "weight") for layer in layers]
        pruner(pairs, pruning_method=prune.L1Unstructured, **options)
    else:
        for layer in layers:
            pruner(layer, "weight", **options)
    for layer in layers:
        prune.remove(layer, "weight")
    return [layer.weight.data for layer in layers]


def lines_of(matrix):
    """Return the standard deviations of the sparsity of rows and of columns, by NumPy."""
    zeros = (matrix == 0).numpy()
    return {"rows": zeros.mean(axis=1).std(), "columns": zeros.mean(axis=0).std()}


def test_random_zeros_are_as_random_zeros():
    for share in (0.02, 0.5, 0.97):
        study = opened(*pruned_gaussians(prune.random_unstructured, amount=share, size=128))
        assert of_key(sr.summarize(study), "existing.lines_as_random")
        assert existing_zeros.uneven_lines(study.patterns) is None


@pytest.mark.parametrize("lines", ["rows", "columns"])
def test_uneven_lines_are_compared_with_random_zeros(lines):
    """Each input has another scale, as for Wanda, so that some inputs lose nearly all weights."""
    torch.manual_seed(0)
    scaled = torch.randn(256, 128) * torch.linspace(0.1, 2, 128)
    scaled[scaled.abs() < scaled.abs().median()] = 0
    scaled[:, :3] = 0
    even = torch.randn(128, 128) * (torch.rand(128, 128) > 0.5)
    study = opened(even, scaled if lines == "columns" else scaled.T.contiguous())
    found = existing_zeros.uneven_lines(study.patterns)
    assert (found.key, found.figures["module"]) == (lines, "fc1")
    share = float((scaled == 0).double().mean())
    assert found.figures["random_std"] == pytest.approx(np.sqrt(share * (1 - share) / 256))
    assert found.figures["std"] == pytest.approx(lines_of(scaled)["columns"])
    text = " ".join(sr.summarize(study))
    dead = int((scaled == 0).all(dim=0).sum())
    assert dead >= 3
    assert f"They include {dead} all-zero {lines}. {lines.capitalize()} differ in sparsity" in text
    assert "no structure" not in text


def test_rows_and_columns_of_the_frame_are_those_of_numpy():
    torch.manual_seed(0)
    matrix = torch.randn(40, 70) * (torch.rand(40, 70) > torch.rand(40, 1))
    row = opened(matrix).patterns.iloc[0]
    due = lines_of(matrix)
    assert (row["row_std"], row["column_std"]) == pytest.approx((due["rows"], due["columns"]))
    flat = matrix.abs().double().numpy().ravel()
    assert row["equal_neighbors"] == 0
    levels = np.round(flat * 3)
    few = opened(torch.from_numpy(levels.reshape(40, 70)).float()).patterns.iloc[0]
    both = (levels[1:] > 0) & (levels[:-1] > 0)
    due = (levels[1:] == levels[:-1])[both].mean()
    assert few["equal_neighbors"] == pytest.approx(due)


def kept_key(*matrices):
    found = existing_zeros.smallest_kept(opened(*matrices).patterns)
    return found and found.key


def test_equal_shares_in_all_layers_exclude_a_global_threshold():
    """Layers of equal deviation have nearly one threshold, however they were pruned."""
    layerwise = pruned_gaussians(prune.l1_unstructured, amount=0.5)
    least = [float(matrix[matrix != 0].abs().min()) for matrix in layerwise]
    assert max(least) < 1.02 * min(least)
    assert kept_key(*layerwise) == "layerwise"
    assert kept_key(*pruned_gaussians(prune.global_unstructured, amount=0.5)) == "global"
    assert kept_key(*pruned_gaussians(prune.random_unstructured, amount=0.5)) == "other"


def test_magnitude_pruning_of_each_row_names_no_layer_threshold():
    torch.manual_seed(0)
    matrices = [torch.randn(256, 256) for _ in range(3)]
    for matrix in matrices:
        matrix[matrix.abs() < matrix.abs().median(dim=1, keepdim=True).values] = 0
    assert kept_key(*matrices) in (None, "other")


def rounded_to_levels(group, levels):
    """Return Gaussian weights rounded to symmetric levels by group, and not pruned."""
    values = torch.randn(256, 256).reshape(-1, group)
    scale = values.abs().amax(dim=1, keepdim=True) / levels
    return ((values / scale).round() * scale).reshape(256, 256)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_magnitudes_decide_nothing(dtype):
    torch.manual_seed(0)
    for share in (0.1, 0.5, 0.95):
        signs = [torch.randn(256, 256).sign() * (torch.rand(256, 256) > share) for _ in range(3)]
        assert kept_key(*signs) is None
    for group, levels in ((32, 7), (256, 7), (256, 127), (65536, 127)):
        rounded = [rounded_to_levels(group, levels).to(dtype) for _ in range(3)]
        assert kept_key(*rounded) is None
    # The type alone decides nothing: magnitude pruning is found in it.
    kept = [matrix.to(dtype) for matrix in pruned_gaussians(prune.l1_unstructured, amount=0.9)]
    assert kept_key(*kept) == "layerwise"


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
