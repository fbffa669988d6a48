"""Nothing to count is one clear line; tensors without elements are counted as what they are."""

import pytest
import torch
from helpers import command, refused, write_gguf
from safetensors.torch import save_file
from torch import nn

import sparsity_report as sr
from sparsity_report.weights.loading import open_to_count

NOTHING = "so there is nothing to count; open another"


@pytest.mark.parametrize("model", [nn.Module(), nn.ReLU(), nn.ModuleDict()], ids=repr)
def test_a_module_without_parameters(model):
    for look in (
        sr.load, sr.dense, sr.params_size_and_sparsity,
        lambda module: sr.analyze_layers(module, "x"),
    ):  # fmt: skip
        with pytest.raises(
            sr.SparsityReportError, match=rf"^{type(model).__name__} has no .*, {NOTHING} model$"
        ):
            look(model)
    assert sr.select_prunable_linears(model) == []


def no_safetensors(path):
    save_file({}, path, {"format": "pt"})


def no_pickle(path):
    torch.save({}, path)


def no_gguf(path):
    write_gguf(path, {}, block_count=1)


@pytest.mark.parametrize(
    ("name", "write"),
    [("m.safetensors", no_safetensors), ("m.gguf", no_gguf), ("pytorch_model.bin", no_pickle)],
)
@pytest.mark.parametrize("opened", [sr.load, open_to_count])
def test_a_file_without_tensors(tmp_path, name, write, opened):
    write(tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(sr.SparsityReportError, match=f"holds no tensors, {NOTHING} file"):
            opened(path, allow_pickle=True)


@pytest.mark.parametrize("name", ["m.safetensors", "m.gguf", "m.bin"])
def test_a_file_without_bytes(tmp_path, name):
    (tmp_path / name).touch()
    refused(rf"{name} has 0 bytes.*download it again", tmp_path / name, allow_pickle=True)
    outcome = command("run", tmp_path / name, "--out", tmp_path / "out")
    assert (outcome.returncode, outcome.stderr.count("\n")) == (2, 1)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_tensors_without_elements_are_rows_of_nothing(tmp_path):
    model = nn.ModuleDict({"fc1": nn.Linear(0, 4, bias=False), "fc2": nn.Linear(4, 0)})
    weights = sr.load(model)
    with pytest.raises(sr.SparsityReportError, match="no prunable matrices"):
        sr.check(weights, layers="<=1%")
    pruning = sr.global_magnitude(weights, 0.5)
    study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning), patterns=True)
    assert study.layers["total"].tolist() == [0] * 6
    assert study.layers["sparsity"].isna().all()
    assert study.patterns["zero_rows"].fillna(-1).tolist() == [1.0, -1] * 3
    assert study.patterns["zero_columns"].fillna(-1).tolist() == [-1, 1.0] * 3
    assert study.levels["weight_nonzero"].eq(0).all()
    read = sr.read_study(study.save(tmp_path / "s.json"))
    assert read.patterns.equals(study.patterns)
    assert sr.csr(pruning).module()["fc1"].dense_shape == (4, 0)
    save_file({"fc1.weight": torch.zeros(0, 4)}, tmp_path / "m.safetensors")
    assert sr.dense(tmp_path / "m.safetensors").layers()["total"].tolist() == [0]
