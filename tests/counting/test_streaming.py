"""Checkpoints read in slices: bounded memory, refused changed files, cached counts."""

import io
import os
import shutil
import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from helpers import count, known_counts, same_counts, study_of, write_gguf
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.counting import count_cache as cache_module
from sparsity_report.counting import counts
from sparsity_report.weights import tensor_slices as tensors
from sparsity_report.words.sentences import says


@pytest.fixture
def small_slices(monkeypatch):
    """Use small slices and buffers, so that a small model has many."""
    monkeypatch.setattr(tensors, "_SLICE", 96)
    monkeypatch.setattr(tensors, "_BUFFER", 40)


def refused(match, weights):
    with pytest.raises(sr.SparsityReportError, match=match) as caught:
        sr.global_magnitude(weights, 0.3)
    assert "\n" not in str(caught.value)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.usefixtures("small_slices")
def test_slices_join_to_the_tensor(tmp_path, dtype):
    torch.manual_seed(0)
    shapes = {"a.weight": (7, 60), "b.weight": (3, 200), "c.bias": (101,), "d.weight": (2, 3, 50)}
    tensors = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "x.safetensors")
    weights = sr.load(tmp_path / "x.safetensors")
    for name, tensor in tensors.items():
        parts = list(weights.slices(name))
        assert len(parts) > 1
        values = np.concatenate([piece for part in parts for piece in part.pieces()])
        assert values.tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert torch.equal(weights.tensor(name).view(torch.uint8), tensor.view(torch.uint8))
    # Matrices are cut between rows, as long as a row fits a slice.
    assert [part.total for part in weights.slices("a.weight")] == [60] * 7


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16", "BF16"])
def test_gguf_blocks_are_cut_like_whole_tensors(tmp_path, monkeypatch, kind):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 64)).astype(np.float32)
    quant = gguf.GGMLQuantizationType[kind]
    blocks = {"blk.0.attn_q.weight": (values, quant)}
    write_gguf(tmp_path / "x.gguf", blocks, architecture="mystery")
    complete = sr.load(tmp_path / "x.gguf").tensor("blk.0.attn_q.weight")
    expected = gguf.dequantize(gguf.quantize(values, quant), quant).reshape(9, 64)
    assert np.array_equal(complete.float().numpy(), expected)
    monkeypatch.setattr(tensors, "_SLICE", 130)
    monkeypatch.setattr(tensors, "_BUFFER", 32)
    weights = sr.load(tmp_path / "x.gguf")
    assert [part.total for part in weights.slices("blk.0.attn_q.weight")] == [128] * 4 + [64]
    assert torch.equal(weights.tensor("blk.0.attn_q.weight"), complete)


def test_slices_count_like_whole_tensors(folder, monkeypatch):
    complete = sr.load(folder)
    study = study_of(complete)
    monkeypatch.setattr(tensors, "_SLICE", 96)
    monkeypatch.setattr(tensors, "_BUFFER", 40)
    cut = sr.load(folder)
    same_counts(cut, complete)
    assert study_of(cut).layers.equals(study.layers)
    assert sr.n_m(cut, 2, 4).cuts == sr.n_m(complete, 2, 4).cuts
    assert sr.sweep(cut).equals(sr.sweep(complete))


@pytest.mark.usefixtures("small_slices")
def test_a_tensor_in_memory_is_cut_too():
    torch.manual_seed(0)
    tensor = torch.randn(30, 50)
    tensor[3, 4:9] = torch.tensor([0.0, -0.0, torch.inf, torch.nan, 1e-45])
    for view in (tensor, tensor.T, tensor[:, ::3], tensor[0, 0]):
        sizes = count(view)
        values = view.reshape(-1).double().abs()
        assert sizes.total == values.numel()
        assert sizes.nan == int(values.isnan().sum())
        assert sizes.nonzero == sizes.total - int((values == 0).sum())
        assert sizes.counts.sum() == sizes.total - sizes.nan


@pytest.mark.usefixtures("small_slices")
def test_progress_counts_bytes_slice_by_slice(folder):
    calls = []
    weights = sr.load(folder)
    sr.global_magnitude(weights, 0.3, progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    size = sum(p.total * p.itemsize for p in weights.stored)
    assert len(calls) > 2 * len(list(weights.stored))
    assert done == sorted(done)
    assert done[-1] == size
    assert {call[1] for call in calls} == {size}


def test_special_numbers_in_a_file(tmp_path):
    weight = torch.ones(4, 4)
    weight[0] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf])
    weight[1, :2] = torch.tensor([1e-45, -1e-45])
    save_file({"fc1.weight": weight, "fc2.weight": weight.bfloat16()}, tmp_path / "x.safetensors")
    weights = sr.load(tmp_path / "x.safetensors")
    sr.global_magnitude(weights, 1.0)
    # 1e-45 rounds to zero in bfloat16.
    assert [known_counts(weights)[f"fc{i}.weight"].nonzero for i in (1, 2)] == [14, 12]
    assert known_counts(weights)["fc1.weight"].values[-1] == np.inf
    weight[2, 2] = torch.nan
    save_file({"fc1.weight": weight}, tmp_path / "y.safetensors")
    refused(r"fc1\.weight holds 1 NaN", sr.load(tmp_path / "y.safetensors"))


def shard_of(weights):
    name = weights.prunable[0].name
    return next(iter(weights.slices(name))).file.path, name


@pytest.mark.parametrize("harm", ["truncated", "vanished", "changed", "replaced", "directory"])
def test_a_shard_that_changes_after_opening(folder, harm):
    weights = sr.load(folder)
    file, name = shard_of(weights)
    data = file.read_bytes()
    if harm == "truncated":
        os.truncate(file, len(data) // 2)
    elif harm == "changed":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(file, ns=(1, 1))
    else:
        file.unlink()
        if harm == "replaced":
            file.write_bytes(data + b" ")
        if harm == "directory":
            file.mkdir()
    refused(rf"\.weight: {file}.*(changed after it was opened|cannot be read)", weights)
    assert not known_counts(weights).get(name)


def test_a_shard_that_changes_while_it_is_read(folder, monkeypatch):
    weights = sr.load(folder)
    file, name = shard_of(weights)

    class Changing(io.BufferedReader):
        def readinto(self, buffer):
            size = super().readinto(buffer)
            os.utime(file, ns=(1, 1))
            return size

    monkeypatch.setattr(tensors, "open_file", lambda path: Changing(io.FileIO(path)))
    (part,) = weights.slices(name)
    with pytest.raises(sr.SparsityReportError, match="changed after it was opened"):
        list(part.pieces())
    assert name not in known_counts(weights)


def test_a_file_that_ends_while_it_is_read_is_no_bus_error(folder, monkeypatch):
    weights = sr.load(folder)
    file, _ = shard_of(weights)
    os.truncate(file, 1000)
    monkeypatch.setattr(tensors.LocalFile, "_check", lambda *_: None)
    refused("cannot be read: it ends .* bytes too early; is it still complete", weights)


def forget(monkeypatch):
    """Make counting raise an error."""

    def fail(*_, **__):
        raise AssertionError("counted again")

    monkeypatch.setattr(counts, "count_slice", fail)


@pytest.fixture
def all_kept(monkeypatch):
    """Cache small tensors too, so that nothing is counted again."""
    monkeypatch.setattr(cache_module, "_SMALL", -1)


@pytest.mark.usefixtures("all_kept")
def test_the_same_checkpoint_is_not_counted_twice(folder, tmp_path, monkeypatch):
    first = sr.load(folder)
    expected = study_of(first)
    sr.global_magnitude(sr.load(folder), 0.3, cache=tmp_path / "kept")
    shutil.copytree(folder, tmp_path / "copy")  # keeps times
    forget(monkeypatch)
    for place in (folder, tmp_path / "copy"):
        again = sr.load(place, name=first.name)
        sr.global_magnitude(again, 0.6, cache=tmp_path / "kept")
        same_counts(again, first)
        assert study_of(again).layers.equals(expected.layers)
    sr.sweep(sr.load(folder), cache=tmp_path / "kept")


@pytest.mark.parametrize("keep_time", [False, True])
def test_another_content_is_another_key(folder, tmp_path, keep_time):
    sr.global_magnitude(sr.load(folder), 0.3, cache=tmp_path / "kept")
    file, name = shard_of(sr.load(folder))
    status = file.stat()
    tensors = load_file(file)
    key = next(key for key in tensors if key == name)
    tensors[key][0, :5] = 0
    save_file(tensors, file, metadata={"format": "pt"})
    if keep_time:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    weights = sr.load(folder)
    sr.global_magnitude(weights, 0.3, cache=tmp_path / "kept")
    same_counts(weights, sr.load(folder))
    assert known_counts(weights)[name].nonzero == tensors[key].numel() - 5


def test_a_cache_of_another_version_is_not_read(folder, tmp_path, monkeypatch):
    sr.global_magnitude(sr.load(folder), 0.3, cache=tmp_path / "kept")
    before = {entry.name for entry in (tmp_path / "kept").iterdir()}
    monkeypatch.setattr(cache_module, "_VERSION", "sparsity-report counts 0")
    weights = sr.load(folder)
    sr.global_magnitude(weights, 0.3, cache=tmp_path / "kept")
    after = {entry.name for entry in (tmp_path / "kept").iterdir()}
    assert before < after
    assert len(after) == 2 * len(before)
    same_counts(weights, sr.load(folder))


def test_a_change_outside_the_sampled_blocks_shows_in_the_time(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"fc1.weight": torch.ones(512, 512)}, file)  # 1 MiB, of which 256 KiB are sampled
    sr.global_magnitude(sr.load(file), 0.3, cache=tmp_path / "kept")
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size - 2**20 + 100_000)
        opened.write(b"\0" * 40)
    os.utime(file, ns=(1, 1))  # clocks of file systems may be slower than this test
    weights = sr.load(file)
    sr.global_magnitude(weights, 0.3, cache=tmp_path / "kept")
    assert known_counts(weights)["fc1.weight"].nonzero == 512 * 512 - 10


def test_an_interrupted_run_goes_on(folder, tmp_path, monkeypatch):
    def stop(done, size, _):
        if done > size / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sr.global_magnitude(sr.load(folder), 0.3, progress=stop, cache=tmp_path / "kept")
    kept = len(list((tmp_path / "kept").iterdir()))
    assert 0 < kept < len(sr.load(folder).prunable)
    calls = []
    weights = sr.load(folder)
    real = counts.count_slice
    monkeypatch.setattr(
        counts,
        "count_slice",
        lambda part, histogram: calls.append(histogram) or real(part, histogram),
    )
    sr.global_magnitude(weights, 0.3, cache=tmp_path / "kept")
    assert sum(calls) == len(weights.prunable) - kept
    monkeypatch.undo()
    same_counts(weights, sr.load(folder))


def test_full_disk_ends_caching_but_not_counting(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    weights = sr.load(folder)
    sr.global_magnitude(weights, 0.3, cache=tmp_path / "kept")
    same_counts(weights, sr.load(folder))
    (note,) = sr.compare(sr.dense(weights)).notes
    assert says(note, "note.cache_unwritable")
    assert "No space left" in note
    assert list((tmp_path / "kept").iterdir()) == []


def test_kill_during_caching_leaves_no_partial_entry(folder, tmp_path):
    code = (
        "import os, sys, sparsity_report as sr\n"
        "real, calls = os.fsync, []\n"
        "def fsync(n):\n"
        "    calls.append(n)\n"
        "    if len(calls) == 3: os._exit(9)\n"
        "    real(n)\n"
        "os.fsync = fsync\n"
        "sr.global_magnitude(sr.load(sys.argv[1]), 0.3, cache=sys.argv[2])\n"
    )
    kept = tmp_path / "kept"
    killed = subprocess.run([sys.executable, "-c", code, folder, kept], check=False)
    assert killed.returncode == 9
    assert len(list(kept.glob("*.counts"))) == 2
    weights = sr.load(folder)
    sr.global_magnitude(weights, 0.3, cache=kept)
    same_counts(weights, sr.load(folder))


def test_a_cache_that_cannot_be(folder, tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(sr.SparsityReportError, match="cannot write to the folder"):
        sr.global_magnitude(sr.load(folder), 0.3, cache=tmp_path / "file")


def test_models_in_memory_are_not_kept(tiny, tmp_path):
    sr.global_magnitude(sr.load(tiny), 0.3, cache=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
