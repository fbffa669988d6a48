"""A written checkpoint appears whole or not at all, and never touches the model that is read."""

import errno
import os
import shutil
import signal
from contextlib import suppress

import numpy as np
import pytest
import torch
from faults import calls, fail, tree
from helpers import command, small_files, small_llama
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.counting import checkpoint_writer
from sparsity_report.errors import SparsityReportError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "source"
    small_llama().save_pretrained(folder, max_shard_size="30KB")
    return folder


@pytest.fixture
def variant(source):
    return sr.masked(sr.global_magnitude(sr.load(source), 0.5))


def refused(variant, folder, match):
    with pytest.raises(SparsityReportError, match=match) as caught:
        sr.write_checkpoint(variant, folder)
    assert "\n" not in str(caught.value)


def test_each_call_of_the_system_may_fail(variant, tmp_path):
    with calls(tmp_path) as seen:
        sr.write_checkpoint(variant, tmp_path / "in" / "out")
    complete = tree(tmp_path / "in")
    places = {seen.index(name) for name in ("open", "write", "fsync", "mkdir", "replace")}
    places |= {len(seen) - 1 - seen[::-1].index(name) for name in ("open", "write", "fsync")}
    for at in sorted(places):
        folder = tmp_path / str(at)
        folder.mkdir()
        with calls(folder, fail(errno.EIO), at), suppress(SparsityReportError):
            sr.write_checkpoint(variant, folder / "out")
        assert tree(folder) in ({}, complete), (at, seen[at])


@pytest.mark.parametrize("writes", [0, 3, 15])
def test_a_disk_that_is_full_in_the_middle(variant, tmp_path, monkeypatch, writes):
    real, done = os.write, []

    def write(handle, data):
        done.append(len(data))
        if len(done) > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    refused(variant, tmp_path / "deep" / "out", "cannot write .*out: No space left on device; ")
    assert list(tmp_path.iterdir()) == []


def test_too_long_a_file_leaves_nothing(variant, tmp_path):
    with small_files(20_000):
        refused(variant, tmp_path / "out", "cannot write .*out: File too large; ")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_reported_before_writing(variant, tmp_path, monkeypatch):
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(checkpoint_writer.shutil, "disk_usage", lambda _: free)
    refused(variant, tmp_path / "out", "bytes and the disk has 1,000 left")
    assert list(tmp_path.iterdir()) == []


def test_the_model_and_other_files_stay(variant, source, tmp_path):
    before = tree(source)
    refused(variant, source, "inside the model")
    refused(variant, source / "deep" / "out", "inside the model")
    refused(variant, source.parent, "inside the model")
    (tmp_path / "link").symlink_to(source)
    refused(variant, tmp_path / "link", "inside the model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    refused(variant, tmp_path / "full", "exists")
    refused(variant, tmp_path / "full" / "mine.txt", "exists")
    (tmp_path / "loop").symlink_to("loop")
    refused(variant, tmp_path / "loop" / "x", "cannot write .*: Too many levels of symbolic links")
    refused(variant, "a\0b", "cannot write .*: embedded null byte")
    (tmp_path / "empty").mkdir()
    sr.write_checkpoint(variant, tmp_path / "empty")
    assert tree(source) == before
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_model_that_changed_since_it_was_counted(source, tmp_path):
    copy = shutil.copytree(source, tmp_path / "copy")
    variant = sr.masked(sr.global_magnitude(sr.load(copy), 0.5))
    file = next(copy.glob("*.safetensors"))
    state = file.stat()
    save_file({k: v + 0.01 for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    refused(variant, tmp_path / "out", "changed")
    # With its old time, its numbers give it away.
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    refused(variant, tmp_path / "out", "changed")
    assert not (tmp_path / "out").exists()


def test_written_zeros_are_counted(variant, tmp_path, monkeypatch):
    real = checkpoint_writer.masked_copy

    def wrong(values, stays):
        kept = real(values, stays)
        kept.reshape(-1)[np.flatnonzero(~stays)[0]] = 1.0
        return kept

    monkeypatch.setattr(checkpoint_writer, "masked_copy", wrong)
    refused(variant, tmp_path / "out", "nonzeros in .* instead of")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(variant, tmp_path):
    def interrupt(done, total, _):
        assert any(tmp_path.iterdir())
        if 0 < done < total:
            signal.raise_signal(signal.SIGINT)

    # A process that a shell starts in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sr.write_checkpoint(variant, tmp_path / "out", progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []


def test_variants_that_no_checkpoint_holds(variant, tmp_path):
    refused(sr.csr(variant.pruning), tmp_path / "out", "no format of checkpoints holds CSR")
    refused(variant.weights, tmp_path / "out", "accepts a variant")
    with pytest.raises(SparsityReportError, match="is not a Hub id"):
        sr.write_checkpoint(variant, tmp_path / "out", base_model="a/b/c")


def test_commands(source, tmp_path):
    done = command("prune", source, "--out", tmp_path / "out", "--sparsity", "50%")
    assert done.returncode == 0, done.stderr
    weights = sr.load(tmp_path / "out")
    pruned = sr.global_magnitude(sr.load(source), 0.5)
    nonzero = sr.masked(pruned).layers()["nonzero"]
    assert sr.dense(weights).layers()["nonzero"].tolist() == nonzero.tolist()
    total = sum(p.total for p in weights.stored)
    numbers = done.stdout.replace("\u202f", "").replace(" ", " ")
    zeros, prunable = total - nonzero.sum(), sum(p.total for p in weights.prunable)
    assert f"{zeros} of {prunable} prunable weights are zero" in numbers
    assert f"and {100 * zeros / total:.1f} % of all {total} parameters" in numbers
    mask = tmp_path / "mask.safetensors"
    save_file(
        {p.name: (weights.tensor(p.name) != 0).to(torch.uint8) for p in weights.prunable}, mask
    )
    done = command("prune", source, "--out", tmp_path / "masked", "--mask", mask)
    assert done.returncode == 0, done.stderr
    for file in (tmp_path / "out").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "masked" / file.name).read_bytes()


WRONG = [
    (["--policy", "magnitude,wanda"], "2 prunings, and one is written"),
    (["--sparsity", "0.1,0.2"], "2 prunings"),
    (["--mask", "x.safetensors", "--sparsity", "0.5"], "--mask decides what is pruned"),
    (["--calibration", "text"], "--calibration has no effect"),
    (["--policy", "nonsense"], "is unknown"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_options_that_contradict_each_other(options, message, source, tmp_path):
    done = command("prune", source, "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_expand(source, tmp_path):
    done = command("expand", source, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "holds no packed weights" in done.stderr
