"""Masks imported from other tools and from checkpoints."""

import io
import tracemalloc
import zipfile
from unittest import mock

import numpy as np
import pytest
import torch
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


def saved(path, masks):
    """Write masks in the format of a suffix."""
    if path.suffix == ".npz":
        np.savez_compressed(path, **{name: mask.numpy() for name, mask in masks.items()})
    else:
        save_file(masks, path)
    return path


def same(pruning, masks):
    for p in pruning.weights.prunable:
        due = masks.get(p.name, torch.ones(p.shape, dtype=torch.bool))
        assert torch.equal(pruning.mask(p.name), due.bool())


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
        assert torch.equal(pruning.mask(p.name), magnitude.mask(p.name))
    for variant in (sr.masked(pruning), sr.csr(pruning)):
        real, _ = sr.analyze_layers(variant.module(), variant.name)
        assert real["nonzero"].tolist() == variant.layers()["nonzero"].tolist()


@pytest.mark.parametrize(
    "kind", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64]
)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ""])
@pytest.mark.parametrize("pruned_is", [0, 1])
def test_files_and_mappings_are_one(weights, masks, tmp_path, kind, suffix, pruned_is):
    given = {name: (m if pruned_is == 0 else ~m).to(kind) for name, m in masks.items()}
    if suffix == ".npz" and kind == torch.bfloat16:
        given = {name: m.half() for name, m in given.items()}
    file = saved(tmp_path / f"masks{suffix}", given) if suffix else given
    pruning = sr.import_mask(weights, file, pruned_is=pruned_is)
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
    real, _ = sr.analyze_layers(sr.masked(one).module(), "A")
    assert real["nonzero"].tolist() == sr.masked(one).layers()["nonzero"].tolist()


def test_arrays_whose_columns_come_first(weights, tmp_path):
    name = weights.prunable[1].name
    mask = np.asfortranarray(np.arange(60).reshape(10, 6) % 7 > 2)
    np.savez(tmp_path / "m.npz", **{name: mask})
    same(sr.import_mask(weights, tmp_path / "m.npz"), {name: torch.from_numpy(mask.copy())})


def test_masks_of_unprunable_parameters_are_refused(weights):
    table = weights["embed_tokens.weight"]
    kept = {"embed_tokens.weight": torch.ones(table.shape), "layers.0.fc1.weight": torch.eye(10, 6)}
    assert sr.import_mask(weights, kept).pruned == 54
    with pytest.raises(sr.SparsityReportError, match=r"prunes 66 weights of embed_tokens\.weight"):
        sr.import_mask(weights, kept, pruned_is=1)


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
    ("masks.pt", r"torch\.load\(path, weights_only=True\)"),
    ("gone.npz", "gone.npz cannot be read as .npz"),
    ("gone.safetensors", "cannot be read as safetensors"),
]


@pytest.mark.parametrize(("masks", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_masks_are_one_line(weights, masks, message):
    with pytest.raises(sr.SparsityReportError, match=message) as caught:
        sr.import_mask(weights, masks)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [2, -1, True, "0", None])
def test_the_value_of_what_goes_is_not_guessed(weights, masks, value):
    with pytest.raises(sr.SparsityReportError, match="pruned_is must be 0 or 1"):
        sr.import_mask(weights, masks, pruned_is=value)


def npy(header, body=b""):
    """Return the bytes of an array file with any header."""
    text = header.encode().ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def plain(shape="(10, 6)", descr="'|b1'", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


ONES = b"\1" * 60
HOSTILE = [
    (npy(plain(), ONES[:-1]), "does not fit its shape"),
    (npy(plain(), ONES + b"\1"), "does not fit its shape"),
    (npy(plain(descr="'|O'"), ONES), "array of numbers"),
    (npy(plain(descr="[('a', '|b1')]"), ONES), "array of numbers"),
    (npy(plain(shape="(-10, -6)"), ONES), "has shape"),
    (npy(plain(shape="(2**40,)"), ONES), "cannot be read as .npz"),
    (npy(plain(shape="(10.0, 6)"), ONES), "cannot be read as .npz"),
    (npy("__import__('os').system('touch hacked')", ONES), "cannot be read as .npz"),
    (b"\x93NUMPY\x09\x00" + ONES, "cannot be read as .npz"),
    (b"\x80\x04K\x01.", "cannot be read as .npz"),
    (b"", "cannot be read as .npz"),
]


@pytest.mark.parametrize(("content", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_arrays_that_lie_are_one_line(weights, tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr(f"{FC1}.npy", content)
    with pytest.raises(sr.SparsityReportError, match=message):
        sr.import_mask(weights, tmp_path / "m.npz")
    assert not (tmp_path / "hacked").exists()


def test_archives_cut_or_flipped_anywhere_are_one_line(weights, masks, tmp_path):
    complete = saved(tmp_path / "m.npz", masks).read_bytes()
    path = tmp_path / "cut.npz"
    damaged = [complete[:size] for size in range(0, len(complete), 97)]
    for place in range(0, len(complete), 61):
        damaged.append(complete[:place] + bytes([complete[place] ^ 0x41]) + complete[place + 1 :])
    message = []
    for content in damaged:
        path.write_bytes(content)
        try:
            same(sr.import_mask(weights, path), masks)
        except sr.SparsityReportError as error:
            message.append(str(error))
    assert len(message) > len(damaged) / 2
    assert all("cut.npz" in each for each in message)


def test_an_endless_name_is_one_line(weights, tmp_path):
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr(f"{'x' * 5000}.npy", npy(plain(), ONES))
    with pytest.raises(sr.SparsityReportError, match="a name of 5,004 characters"):
        sr.import_mask(weights, tmp_path / "m.npz")


def test_an_array_far_larger_than_its_file_is_not_read(weights, tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{FC1}.npy", npy(plain(shape="(50000000,)"), bytes(50_000_000)))
    path = tmp_path / "bomb.npz"
    path.write_bytes(content.getvalue())
    with pytest.raises(sr.SparsityReportError, match=r"has shape \(50000000,\)"):
        sr.import_mask(weights, path)


def test_a_header_far_larger_than_its_file_is_not_read(weights, tmp_path):
    claimed = 2**26
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        head = b"\x93NUMPY\x02\x00" + claimed.to_bytes(4, "little")
        archive.writestr(f"{FC1}.npy", head + b" " * claimed)
    tracemalloc.start()
    with pytest.raises(sr.SparsityReportError, match=r"bomb\.npz cannot be read as .npz"):
        sr.import_mask(weights, tmp_path / "bomb.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < claimed / 8


def test_an_archive_is_opened_once(weights, masks, tmp_path):
    """Its directory is as long as it has arrays, so time would grow with their square."""
    path = saved(tmp_path / "m.npz", masks)
    with mock.patch("zipfile.ZipFile", wraps=zipfile.ZipFile) as opened:
        same(sr.import_mask(weights, path), masks)
    assert opened.call_count == 1
