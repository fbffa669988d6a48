"""Limits told: files of a size that no machine likes work in bounded memory, or end in one line.

Sparse files stand for large ones.
"""

import json
import math
import multiprocessing
import os
import re
import resource
import struct
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from dying import starve
from helpers import command, count, same_counts, small_llama, study_of
from safetensors.torch import save_file

import sparsity_report as sr
from sparsity_report.counting import counts, matrix_counts
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.ranks import find_levels
from sparsity_report.draw import export
from sparsity_report.findings.model_counts import model_counts
from sparsity_report.study.storage_layouts import storage_frame
from sparsity_report.untrusted import limits
from sparsity_report.weights.loading import open_to_count
from sparsity_report.weights.sources import checkpoint, safetensors
from sparsity_report.weights.sources.model_files import read_in_parallel

MB, GB = 2**20, 2**30
SIZES = {"F64": 8, "F32": 4, "BF16": 2, "U8": 1}


def sparse(path, shapes, dtype="BF16", nonzero=(), metadata=None):
    """Write a safetensors file of zeros, which takes no disk, with 1 at some flat places of it."""
    header, end, size = {"__metadata__": metadata or {}}, 0, SIZES[dtype]
    for name, shape in shapes.items():
        begin, end = end, end + size * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    one = {"BF16": b"\x80\x3f", "F32": b"\0\0\x80\x3f", "U8": b"\1"}.get(dtype)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
        for place in nonzero:
            file.seek(8 + len(text) + size * place)
            file.write(one)
    return path


def layers(number, rows, columns=4096):
    return {f"layers.{i}.mlp.fc1.weight": (rows, columns) for i in range(number)}


def many(number):
    return {f"layers.{i // 1000}.experts.{i % 1000}.w1.weight": (2, 2) for i in range(number)}


def refused(function, *arguments):
    """Return the one line that a call ends in."""
    with pytest.raises(sr.SparsityReportError) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    """A sharded checkpoint."""
    small_llama().save_pretrained(tmp_path / "model", max_shard_size="20KB")
    return tmp_path / "model"


# A process of its own, and what it may take.


def memory(field):
    """Return what Linux says of this process, in bytes: VmRSS, VmHWM (its peak), VmSize."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def apart(function, *arguments, addresses=None):
    """Return what a function returns in a fork, and by how much its memory grew there.

    Parameters
    ----------
    addresses : int, optional
        Bytes of addresses that it may have besides those of this process.
    """

    def work(pipe):
        torch.set_num_threads(1)  # a fork has none of OpenMP's threads
        if addresses is not None:
            limit = memory("VmSize") + addresses
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        before = memory("VmRSS")
        try:
            result = function(*arguments)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        pipe.send((result, memory("VmHWM") - before))

    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=work, args=(there,))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        process.join()
        return f"exit code {process.exitcode}", 0
    finally:
        process.join()
        here.close()


def looked_at(path):
    """Count a checkpoint, prune it and look at its patterns; return some figures."""
    weights = sr.load(path)
    study = study_of(weights, 0.5, patterns=True)
    return {name: study.totals[name].tolist() for name in ("total", "nonzero", "stored_bytes")}


def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    """Nor with a tensor: one of 512 MiB is counted, pruned and inspected in far less."""
    file = sparse(tmp_path / "x.safetensors", layers(1, 2**15), "F32", nonzero=(0, 7, 2**27 - 1))
    assert file.stat().st_size > 512 * MB
    figures, grown = apart(looked_at, file)
    # Half of them go, the last by position among those that are not zero first: none but zeros.
    assert figures["total"] == [2**27] * 3
    assert figures["nonzero"] == [3] * 3
    assert figures["stored_bytes"] == [2**29, 2**29, 3 * 8 + (2**15 + 1) * 4]
    assert grown < 256 * MB


def test_structure_of_fifty_gigabytes(tmp_path):
    file = sparse(tmp_path / "x.safetensors", layers(8, 762_940, 4096))
    assert file.stat().st_size > 50_000_000_000
    began = time.process_time()
    counts = model_counts(open_to_count(file), ())
    assert time.process_time() - began < 1
    total = 8 * 762_940 * 4096
    assert (counts["parameters"], counts["tensor_bytes"], counts["zeros"]) == (
        total, 2 * total, None,
    )  # fmt: skip


# Addresses that a process may not have.


def test_charts_without_room_for_them_are_refused_at_once(tmp_path):
    """V8 would end the process where it cannot reserve its heap."""

    def run(*options):
        export.check_room.cache_clear()
        return command("run", "--out", tmp_path / "out", *options)

    for options in ((), ("--write", "png"), ("--write", "thesis")):
        (outcome, _) = apart(run, *options, addresses=GB)
        assert outcome.returncode == 2, outcome
        assert re.fullmatch(
            r"sparsity-report: charts cannot be drawn: this process may not reserve 64\.5 GiB .*\n",
            outcome.stderr,
        )
    assert not (tmp_path / "out" / "study.json").exists()
    (outcome, _) = apart(run, "--write", "csv,study", addresses=GB)
    assert outcome.returncode == 0, outcome
    assert (tmp_path / "out" / "study.json").exists()


@pytest.mark.parametrize("allocate", [np.empty, torch.empty], ids=["numpy", "torch"])
def test_memory_that_runs_out_is_one_line(folder, monkeypatch, tmp_path, allocate):
    """More bytes than there are addresses: each library says so in its own way."""

    def greedy(*_, **__):
        allocate(2**55)

    for module, name, place in (
        (counts, "count_slice", r"\S+\.weight: memory ran out; nothing was counted wrong"),
        (
            matrix_counts.MatrixCount, "add",
            r"\S+/model: patterns: memory ran out; leave them out \(patterns=False",
        ),
        (checkpoint, "decide", r".* cannot be opened: memory ran out; "),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(module, name, greedy)
            said = refused(looked_at, folder)
        assert re.match(place, said), said
    monkeypatch.setattr(sr.Study, "save", greedy)
    outcome = command("run", "--write", "study", "--out", tmp_path / "out")
    assert outcome.returncode == 2
    assert re.fullmatch(r"sparsity-report: this run: memory ran out; .*\n", outcome.stderr)


def test_a_worker_that_has_no_memory_left(folder):
    """It lives, and says so; its pool can go on."""
    weights = sr.load(folder)
    with ThreadPoolExecutor(1) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(counts, "count_slice", starve)
            said = refused(lambda: sr.global_magnitude(weights, 0.3, executor=pool))
        assert re.search(r"\.weight: memory ran out; .* or with fewer workers$", said), said
        sr.global_magnitude(weights, 0.3, executor=pool)
    same_counts(weights, sr.load(folder))


# Numbers beyond 32 bits.


def test_ranks_beyond_32_bits_are_exact():
    """A tensor taken 2⁴⁰ + 1 times has as many times the counts, below and on every threshold."""
    torch.manual_seed(0)
    few = {name: count(torch.randn(50).half().round(decimals=1)) for name in "ab"}
    scale = 2**40 + 1  # no float32
    many = {
        name: Magnitudes(
            scale * held.total, scale * held.nonzero, 0, held.values, scale * held.counts
        )
        for name, held in few.items()
    }
    targets = range(1, 101)
    for one, other in zip(
        find_levels(few, targets), find_levels(many, [scale * target for target in targets]),
        strict=True,
    ):  # fmt: skip
        assert other.threshold == one.threshold
        assert other.below.tolist() == [scale * below for below in one.below.tolist()]
        assert other.ties.tolist() == [scale * ties for ties in one.ties.tolist()]
    both = many["a"] + many["b"]
    assert both.total == 100 * scale
    assert int(both.counts.sum()) == 100 * scale


def test_csr_of_more_than_two_thousand_million_nonzeros_has_eight_byte_indices(tiny):
    """Nonzeros and columns each decide."""
    layers = study_of(sr.load(tiny)).layers
    rows = layers[layers["prunable"]].head(1).assign(dtype="bfloat16", row_pointers=5)
    for nonzero, columns, fits in (
        (2**31 - 1, 2**31 - 1, True), (2**31, 2**20, False), (7, 2**31, False),
    ):  # fmt: skip
        frame = storage_frame(
            rows.assign(weight_total=2**34, weight_nonzero=nonzero, columns=columns)
        )
        sizes = frame[frame["scope"] == "layer"].set_index("layout")["bytes"]
        assert sizes["csr_int64"] == nonzero * 10 + 5 * 8
        assert sizes["csr_int32"] == nonzero * 6 + 5 * 4 if fits else pd.isna(sizes["csr_int32"])


# What is refused.


def test_too_many_tensors_are_one_line(tmp_path, monkeypatch):
    file = sparse(tmp_path / "x.safetensors", many(9))
    monkeypatch.setattr(limits, "TENSORS", 8)
    said = refused(sr.load, file)
    assert "it announces 9 tensors, more than the limit of 8" in said
    header = struct.pack("<4sIQQ", b"GGUF", 3, 9, 0)
    (gguf := tmp_path / "x.gguf").write_bytes(header + bytes(1000))
    assert "it announces 9 tensors, more than the limit of 8" in refused(sr.load, gguf)
    # Of several files together, too.
    (tmp_path / "model").mkdir()
    small_llama().save_pretrained(tmp_path / "model", max_shard_size="20KB")
    said = refused(sr.load, tmp_path / "model")
    assert "and the files before it hold more than 8 tensors" in said


def test_too_many_modules_are_one_line(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(limits, "MODULES", 8)
    for model in (sparse(tmp_path / "x.safetensors", many(9)), tiny):
        said = refused(sr.load, model)
        assert re.search(r"has \d+ modules with parameters, more than the 8 that a study", said)
    sr.load(sparse(tmp_path / "x.safetensors", many(8)))


def test_more_values_than_are_counted_exactly(tmp_path, monkeypatch):
    file = sparse(tmp_path / "x.safetensors", many(4))
    monkeypatch.setattr(limits, "ALL_VALUES", 15)
    assert "has 16 values, more than the 15 up to which figures are exact" in refused(sr.load, file)
    # CSR takes the most of them: value and index of eight bytes, nearly.
    assert 16 * (2**48) <= 2**53


def test_a_header_beyond_the_format_is_one_line(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", limits.HEADER_BYTES + 1) + b"{")
    os.truncate(file, limits.HEADER_BYTES + 1000)
    assert "more than the 100,000,000 of the format" in refused(sr.load, file)


def test_values_of_json_are_limited_before_they_are_built(tmp_path):
    """Lists take 26 times the bytes of their text."""
    text = b'{"a":[' + b"[]," * 2**23 + b"1]}"
    (file := tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    said, grown = apart(refused, sr.load, file)
    assert "it has more than 6,815,744 values" in said
    assert grown < 150 * MB
    # A header with as many tensors as are allowed, and a study of the largest model.
    tensor = '"x":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},'
    assert sum(map(tensor.count, ",:[{")) * limits.TENSORS < limits.JSON_VALUES
    study = study_of(sr.load(), 0.3, patterns=True)
    saved = study.save(tmp_path / "study.json").read_text()
    per_module = sum(map(saved.count, ",:[{")) / study.layers["module_name"].nunique()
    assert per_module * limits.MODULES < limits.STUDY_VALUES


def test_large_headers_are_parsed_one_at_a_time(tmp_path, monkeypatch):
    """Eight files of the Hub are opened at once, and each may have 100 MB of header."""
    files = [sparse(tmp_path / f"{n}.safetensors", layers(1, 1)) for n in range(4)]
    running, most = [], []

    def parse(text, size):
        running.append(text)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()
        return read(text, size)

    read = safetensors._tensors
    monkeypatch.setattr(safetensors, "_tensors", parse)
    read_in_parallel(files, safetensors.read_header)
    assert max(most) > 1
    monkeypatch.setattr(safetensors, "_LARGE", 0)
    most.clear()
    read_in_parallel(files, safetensors.read_header)
    assert most == [1] * 4


# Files that change while they are counted.


@pytest.mark.parametrize("harm", ["truncated", "replaced", "rewritten"])
@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_a_file_that_changes_between_two_readings(tmp_path, kind, harm):
    """Counts are of one state of it, and so are patterns: else there are none."""
    tensors = {"a.fc1.weight": torch.randn(64, 64), "a.fc2.weight": torch.randn(64, 64)}
    if kind == "pickle":
        torch.save(tensors, file := tmp_path / "pytorch_model.bin")
    else:
        save_file(tensors, file := tmp_path / "x.safetensors")

    def study():
        weights = sr.load(file, allow_pickle=True)
        sr.global_magnitude(weights, 0.3)
        change()
        return sr.compare(sr.dense(weights), patterns=True)

    def change():
        data = file.read_bytes()
        if harm == "truncated":
            os.truncate(file, 1000)
        elif harm == "replaced":
            file.unlink()
            file.write_bytes(data)
            os.utime(file, ns=(1, 1))
        else:
            with file.open("r+b") as opened:
                opened.seek(len(data) - 2000)
                opened.write(bytes(100))
            os.utime(file, ns=(1, 1))

    # A mapped file that is cut short would end the process.
    said, _ = apart(study)
    assert re.match(
        rf"SparsityReportError: {re.escape(str(file))} changed after it was opened; "
        "load it and count again",
        said,
    ), said


def test_pickled_tensors_are_where_they_are_read(tmp_path):
    """Views, sparse and other dtypes: what is counted is what torch loads."""
    torch.manual_seed(0)
    base = torch.randn(40, 30)
    base[::3] = 0
    tensors = {
        "whole.weight": base, "part.weight": base[10:20], "turned.weight": base.T,
        "columns.weight": base[:, ::2], "sparse.weight": base.to_sparse(),
        "half.weight": base.bfloat16(), "eighth.weight": base.to(torch.float8_e4m3fn),
        "negative.weight": torch._neg_view(base), "scalar.bias": torch.tensor(3.0),
        "empty.bias": torch.zeros(0),
    }  # fmt: skip
    torch.save(tensors, file := tmp_path / "pytorch_model.bin")
    weights = sr.load(file, allow_pickle=True)
    for name, tensor in tensors.items():
        dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
        assert torch.equal(weights.tensor(name).float(), dense.float()), name
    streamed = {n for n in tensors if any(part.sources() for part in weights.slices(n))}
    assert tensors.keys() - streamed == {
        "turned.weight", "columns.weight", "sparse.weight", "negative.weight", "empty.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"byteorder": b"big" if sys.byteorder == "little" else b"little"}, "another byte order"),
        ({}, "is compressed or split, which torch never writes"),
    ],
)
def test_a_pickle_that_is_not_as_in_memory_is_refused(tmp_path, change, said):
    """Torch, which maps it, would end the process, or take compressed bytes for weights."""
    torch.save({"fc1.weight": torch.randn(40, 30)}, file := tmp_path / "pytorch_model.bin")
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    packing = zipfile.ZIP_STORED if change else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, change.get(name.rpartition("/")[2], data))
    assert said in apart(refused, lambda: sr.load(file, allow_pickle=True))[0]


# The full sizes.
