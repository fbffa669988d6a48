"""The cache rejects invalid entries, computes them again, and notes this once."""

import hashlib
import os
import struct
import threading

import pytest
import torch
from helpers import same_counts, study_of
from safetensors.torch import save_file

import sparsity_report as sr
from sparsity_report.counting import count_cache
from sparsity_report.counting.counts import count_notes, count_weights
from sparsity_report.words.sentences import say, says


@pytest.fixture
def model(tmp_path):
    """Two matrices of one shape, the first with zeros."""
    torch.manual_seed(0)
    weights = {f"layers.{n}.fc1.weight": torch.randn(16, 8).bfloat16() for n in range(2)}
    weights["layers.0.fc1.weight"][:4] = 0
    save_file(weights, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def cache_note(problem, *names):
    return say(f"note.cache_{problem}", count=len(names), names=names)


def counted(model, cache):
    weights = sr.load(model)
    count_weights(weights, cache=cache)
    return weights


def by_size(folder):
    """Return the entries by size; the matrix with zeros has the smaller one."""
    return sorted(folder.iterdir(), key=lambda file: file.stat().st_size)


def test_entry_of_another_key_is_rejected(model, tmp_path):
    counted(model, tmp_path / "kept")
    one, other = by_size(tmp_path / "kept")
    other.write_bytes(one.read_bytes())
    weights = counted(model, tmp_path / "kept")
    same_counts(weights, sr.load(model))
    assert count_notes(weights) == (cache_note("damaged", "layers.1.fc1.weight"),)


DAMAGED = {
    "flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]), "cut short": lambda data: data[:-1],
    "empty": lambda _: b"", "foreign": lambda _: b"something else altogether" * 100,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_noted_once(model, tmp_path, damage):
    counted(model, tmp_path / "kept")
    for entry in (tmp_path / "kept").iterdir():
        entry.write_bytes(damage(entry.read_bytes()))
    weights = counted(model, tmp_path / "kept")
    same_counts(weights, sr.load(model))
    _, note = study_of(weights).notes  # the first says that there is no config
    assert note == cache_note("damaged", "layers.0.fc1.weight", "layers.1.fc1.weight")
    assert note.startswith("the cache held damaged counts")
    assert not count_notes(counted(model, tmp_path / "kept"))  # the entries are right again


def changed(place, value, kind="<q"):
    size = struct.calcsize(kind)

    def change(payload):
        return payload[:place] + struct.pack(kind, value) + payload[place + size :]

    return change


# nonzero, nan, near, buckets, steps; values; counts
NONSENSE = {
    "nothing": lambda _: b"", "half": lambda payload: payload[: len(payload) // 2],
    "longer": lambda payload: payload + bytes(16), "more nonzeros": changed(0, 97),
    "fewer nonzeros": changed(0, 95), "negative nonzeros": changed(0, -1), "NaN": changed(8, 1),
    "near": changed(16, 1), "endless buckets": changed(24, 2**62),
    "negative buckets": changed(24, -1), "steps": changed(32, 1),
    "endless steps": changed(32, 2**62), "no zeros": changed(40, 1e-30, "<d"),
    "minus zero": changed(40, -0.0, "<d"), "unordered": changed(48, 1e30, "<d"),
    "NaN magnitude": changed(48, float("nan"), "<d"), "negative magnitude": changed(40, -1.0, "<d"),
    "more": lambda payload: changed(len(payload) - 8, 2)(payload),
    "none": lambda payload: changed(len(payload) - 8, 0)(payload),
    "overflow": lambda payload: changed(len(payload) - 8, 2**63 - 1)(payload),
}  # fmt: skip


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE)
def test_impossible_entry_with_a_valid_digest_is_rejected(model, tmp_path, change):
    counted(model, tmp_path / "kept")
    entry, _ = by_size(tmp_path / "kept")
    data = entry.read_bytes()
    begin = data.index(bytes.fromhex(entry.stem)) + 32
    head, payload = data[:begin], data[begin + 32 :]
    assert hashlib.sha256(head + payload).digest() == data[begin : begin + 32]
    assert struct.unpack_from("<3q", payload) == (96, 0, 0)
    assert struct.unpack_from("<d", payload, 40) == (0.0,)
    payload = change(payload)
    entry.write_bytes(head + hashlib.sha256(head + payload).digest() + payload)
    weights = counted(model, tmp_path / "kept")
    same_counts(weights, sr.load(model))
    assert len(count_notes(weights)) == 1


@pytest.mark.parametrize("harm", ["pipe", "folder", "link", "device"])
def test_special_files_are_neither_read_nor_waited_for(model, tmp_path, harm):
    counted(model, tmp_path / "kept")
    for entry in (tmp_path / "kept").iterdir():
        entry.rename(tmp_path / entry.name)
        if harm == "pipe":
            os.mkfifo(entry)
        elif harm == "folder":
            entry.mkdir()
        else:
            entry.symlink_to("/dev/zero" if harm == "device" else tmp_path / entry.name)
    weights = counted(model, tmp_path / "kept")
    same_counts(weights, sr.load(model))
    (note,) = count_notes(weights)
    assert says(note, "note.cache_unwritable")


def test_a_folder_that_cannot_be_written_to_is_read(model, tmp_path, monkeypatch):
    counted(model, tmp_path / "kept")

    def refuse(path):
        raise sr.SparsityReportError(f"cannot write to {path}")

    monkeypatch.setattr(count_cache, "check_folder", refuse)
    monkeypatch.setattr(count_cache, "write_file", None)
    weights = counted(model, tmp_path / "kept")
    same_counts(weights, sr.load(model))
    (note,) = count_notes(weights)
    reason = f"cannot write to {tmp_path}/kept"
    assert note == say("note.cache_unwritable", reason=reason)
    with pytest.raises(sr.SparsityReportError, match=r"cannot write to .*nowhere"):
        counted(model, tmp_path / "nowhere")


def test_concurrent_writers_leave_whole_entries(model, tmp_path):
    for number in range(5):
        folder = tmp_path / f"kept{number}"
        threads = [threading.Thread(target=counted, args=(model, folder)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([*folder.iterdir()]) == 2
        weights = counted(model, folder)
        same_counts(weights, sr.load(model))
        assert count_notes(weights) == ()
