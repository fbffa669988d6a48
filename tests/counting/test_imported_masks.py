"""Masks imported from other tools and from checkpoints."""

import numpy as np
import pytest
import torch
from helpers import counts_as_derived
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

import sparsity_report as sr
from sparsity_report.words.sentences import say


@pytest.fixture
def weights(tiny):
    return sr.load(tiny, name="tiny")


@pytest.fixture
def masks(weights):
    generator = torch.Generator().manual_seed(5)
    return {
        p.name: torch.rand(p.shape, generator=generator) > 0.4 for p in list(weights.prunable)[1:5]
    }


def same(pruning, masks):
    for p in pruning.weights.prunable:
        due = masks.get(p.name, torch.ones(p.shape, dtype=torch.bool))
        np.testing.assert_array_equal(pruning.mask(p.name), due.bool())


def test_masks_of_torch_come_back(tiny):
    dense = sr.load(tiny)
    other = type(tiny)()
    other.load_state_dict(tiny.state_dict())
    layers = [m for n, m in other.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    prune.global_unstructured([(m, "weight") for m in layers], prune.L1Unstructured, amount=0.3)
    masks = {name: m for name, m in other.state_dict().items() if name.endswith("_mask")}
    pruning = sr.import_mask(dense, masks)
    same(pruning, {name.removesuffix("_mask"): mask for name, mask in masks.items()})
    assert pruning.pruned == round(0.3 * 312)
    magnitude = sr.global_magnitude(dense, 0.3)
    for p in dense.prunable:
        np.testing.assert_array_equal(pruning.mask(p.name), magnitude.mask(p.name))
    counts_as_derived(sr.masked(pruning), sr.csr(pruning))


@pytest.mark.parametrize(
    "kind", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64]
)
@pytest.mark.parametrize("suffix", [".safetensors", ""])
def test_files_and_mappings_are_one(weights, masks, tmp_path, kind, suffix):
    given = {name: m.to(kind) for name, m in masks.items()}
    file = tmp_path / "masks.safetensors" if suffix else given
    if suffix:
        save_file(given, file)
    pruning = sr.import_mask(weights, file)
    same(pruning, masks)
    assert pruning.basis.fingerprint == sr.import_mask(weights, masks).basis.fingerprint
    assert pruning.basis.name == (f"masks{suffix}" if suffix else "masks")
    assert pruning.pruned == sum(int((~mask).sum()) for mask in masks.values())
    assert pruning.sparsity == pytest.approx(pruning.pruned / 312)


@pytest.mark.parametrize("block", [1, 7, 40])
def test_bits_are_taken_block_by_block(weights, masks, monkeypatch, block):
    monkeypatch.setattr("sparsity_report.counting.cuts._BLOCK", block)
    same(sr.import_mask(weights, masks), masks)


def test_zeros_before_study_and_distinct_masks(tiny, masks, tmp_path):
    with torch.no_grad():
        tiny.layers[0]["fc1"].weight[:, :3] = 0
    weights = sr.load(tiny)
    one = sr.import_mask(weights, masks)
    other = sr.import_mask(weights, {name: mask.flip(0) for name, mask in masks.items()})
    study = sr.compare(
        sr.dense(weights), sr.masked(one, name="A"), sr.csr(one, name="B"),
        sr.masked(other, name="C"), patterns=True,
    )  # fmt: skip
    study.save(tmp_path / "study.json")
    study = sr.read_study(tmp_path / "study.json", strict=True)
    assert {"A", "C"} <= set(study.facts.prunings)
    assert "B" not in study.facts.prunings
    assert study.variants["method"].tolist()[1:] == ["imported_masks"] * 3
    fingerprint = one.basis.fingerprint
    assert say("note.imported_masks", name="masks", fingerprint=fingerprint) in study.notes
    counts_as_derived(sr.masked(one))


def test_arrays_whose_columns_come_first(weights, tmp_path):
    name = weights.prunable[1].name
    mask = np.asfortranarray(np.arange(60).reshape(10, 6) % 7 > 2)
    np.savez(tmp_path / "m.npz", **{name: mask})
    due = {name: torch.from_numpy(mask.copy())}
    same(sr.import_mask(weights, np.load(tmp_path / "m.npz")), due)


def test_masks_of_unprunable_parameters_are_refused(weights):
    table = weights["embed_tokens.weight"]
    kept = {"embed_tokens.weight": torch.ones(table.shape), "layers.0.fc1.weight": torch.eye(10, 6)}
    assert sr.import_mask(weights, kept).pruned == 54
    with pytest.raises(sr.SparsityReportError, match=r"prunes 66 weights of embed_tokens\.weight"):
        sr.import_mask(weights, {name: 1 - mask for name, mask in kept.items()})


FC1 = "layers.0.fc1.weight"
WRONG = [
    ({}, "there are no masks"),
    ({"fc9.weight": np.ones(3)}, "'fc9.weight' is no parameter of tiny; give masks"),
    ({FC1: np.ones((6, 10))}, r"has shape \(6, 10\), but layers.0.fc1.weight has \(10, 6\)"),
    ({FC1: np.full((10, 6), 0.5)}, "holds 0.5; a mask holds zeros and ones"),
    ({FC1: np.full((10, 6), np.nan)}, "holds nan; a mask"),
    ({FC1: np.full((10, 6), -1)}, "holds -1; a mask"),
    ({FC1: np.full((10, 6), "1")}, "is not an array of numbers"),
    ({FC1: [[1], [1, 2]]}, "is not an array"),
    ({FC1: torch.ones(10, 6).to_sparse()}, "is not a dense tensor with values"),
    ({FC1: np.ones((10, 6)), f"{FC1}_mask": np.ones((10, 6))}, "two masks of"),
    ("masks.pt", r"torch\.load\(path, weights_only=True\)"), ("masks.npz", r"numpy\.load\(path\)"),
    ("gone.safetensors", "cannot be read as safetensors"),
]  # fmt: skip


@pytest.mark.parametrize(("masks", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_masks_are_one_line(weights, masks, message):
    with pytest.raises(sr.SparsityReportError, match=message) as caught:
        sr.import_mask(weights, masks)
    assert "\n" not in str(caught.value)
