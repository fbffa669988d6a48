"""Damaged folders of cached counts and scores, which change no result.

Of an entry whose digest was computed anew the counts may be other ones, but sound ones.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import packing
import torch
from helpers import small_llama
from safetensors.torch import save_file

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import damage_bytes
from sparsity_report.counting.counts import count_weights
from sparsity_report.measure import sensitivity as measured
from sparsity_report.study.layers import layer_frame

MAGIC = b"sparsity-report kept 3\n"
HEAD, DIGEST = len(MAGIC) + 32, 32
NUMBERS = (0, 1, 2, -1, 7, 255, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 5e-324, 1e308, float("inf"), float("nan"), float("-inf"))
SCORING: dict[str, Any] = {
    "sparsity": 0.5, "by": "group", "text": torch.arange(40) * 7 % 61, "window": 16,
}  # fmt: skip


def seal(head: bytes, payload: bytes) -> bytes:
    """Return an entry whose digest fits."""
    return head + hashlib.sha256(head + payload).digest() + payload


def is_sealed(data: bytes, name: str) -> bool:
    """Whether the digest of an entry fits, and the key in it is that of its name."""
    head, payload = data[:HEAD], data[HEAD + DIGEST :]
    told = MAGIC + bytes.fromhex(name.partition(".")[0])
    return head == told and data == seal(head, payload)


def damage_entry(random: Random, files: Files) -> None:
    """Change some bytes of an entry."""
    name, data = _entry(random, files)
    if data is not None:
        files[name] = damage_bytes(random, data)


def forge_entry(random: Random, files: Files) -> None:
    """Change a number of an entry, or some bytes, and compute its digest anew."""
    name, data = _entry(random, files)
    if data is None:
        return
    payload = data[HEAD + DIGEST :]
    if random.random() < 0.3 or len(payload) < 8:
        payload = damage_bytes(random, payload)
    else:
        place = 8 * random.randrange(min(len(payload) // 8, random.choice((5, 10_000))))
        old = struct.unpack_from("<q", payload, place)[0]
        near = (old + 1, old - 1, *NUMBERS)
        number = struct.pack("<q", max(min(random.choice(near), 2**63 - 1), -(2**63)))
        if random.random() < 0.3:
            number = struct.pack("<d", random.choice(FLOATS))
        payload = payload[:place] + number + payload[place + 8 :]
    files[name] = seal(data[:HEAD], payload)


def replace_entry(random: Random, files: Files) -> None:
    """Put something else in the place of an entry."""
    name, data = _entry(random, files)
    if data is None:
        return
    other = files[random.choice(list(files))]
    link = random.choice((name, "/dev/zero", "nowhere", *files))
    old = data.replace(b"kept 3", b"kept 2")
    files[name] = random.choice((None, link, other, b"", data[:HEAD], old, data + b"\0"))
    if random.random() < 0.2:
        files[f"{random.randbytes(32).hex()}.{name.rpartition('.')[2]}"] = files.pop(name)


def _entry(random: Random, files: Files) -> tuple[str, bytes | None]:
    names = sorted(name for name, data in files.items() if isinstance(data, bytes))
    name = random.choice(names or [""])
    data = files.get(name)
    return name, data if isinstance(data, bytes) else None


def _forged(folder: Path, base: Base) -> bool:
    """Whether an entry is another one than it was, and its digest fits."""
    for name, data in base.files.items():
        file = folder / name
        if file.is_symlink() or not file.is_file() or (now := file.read_bytes()) == data:
            continue
        if is_sealed(now, name):
            return True
    return False


def _counts(weights: sr.Weights, folder: Path) -> dict[str, Any]:
    tallies = count_weights(weights, cache=folder)
    return {name: _plain(tally) for name, tally in tallies.items()}


def _plain(tally: Any) -> tuple[Any, ...]:
    steps = tally.steps
    known = (tally.total, tally.nonzero, tally.nan, tally.exact)
    arrays = (tally.values.tobytes(), tally.counts.tobytes())
    if steps is None:
        return (*known, *arrays)
    return (*known, *arrays, steps.rounding, steps.values.tobytes(), steps.counts.tobytes())


def _models(folder: Path) -> dict[str, Path]:
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"layers.{n}.fc1.weight": torch.randn(9, 12, generator=generator).to(dtype)
        for n, dtype in enumerate((torch.float32, torch.bfloat16, torch.float8_e4m3fn))
    }
    weights["layers.0.fc1.weight"][0, :4] = torch.tensor([0.0, -0.0, torch.inf, 1e-45])
    # Large enough to be kept without a histogram.
    weights["embed_tokens.weight"] = torch.arange(2**19 + 8).reshape(-1, 8).half()
    folder.mkdir(parents=True)
    save_file(weights, folder / "plain.safetensors")
    unclean = {"layers.0.fc1.weight": torch.tensor([[0.0, torch.nan, 1.0]])}
    save_file(unclean, folder / "unclean.safetensors")
    models = {file.stem: file for file in sorted(folder.iterdir())}
    torch.manual_seed(0)
    packing.packed_matrix(folder / "packed", "nf4", torch.randn(64, 64))
    return {**models, "packed": folder / "packed"}


def _bases(folder: Path) -> list[Base]:
    bases = []
    for name, model in _models(folder).items():
        kept = folder / f"kept-{name}"
        truth = _counts(sr.load(model), kept)
        files: Files = {file.name: file.read_bytes() for file in kept.iterdir()}
        bases.append(Base(name, files, (model, truth)))
    return bases


def _judge(folder: Path, base: Base) -> str:
    model, truth = base.truth
    forged, weights = _forged(folder, base), sr.load(model)
    counts = _counts(weights, folder)
    if forged:  # nothing that follows ends in more than a line
        sr.sweep(weights, [0.2, 0.7], exact=True)
        sr.compare(sr.dense(weights), sr.masked(sr.global_magnitude(weights, 0.4)))
        return ""
    if counts != truth:
        return f"counted as {counts}, is {truth}"
    verified = _counts(sr.load(model), sr.Cache(folder, verify=True))  # type: ignore[arg-type]
    return "" if verified == truth else f"verified as {verified}, is {truth}"


def _score_bases(folder: Path) -> list[Base]:
    weights = sr.load(small_llama(), name="small")
    frame = sr.sensitivity(weights, cache=folder / "kept", **SCORING)
    files: Files = {file.name: file.read_bytes() for file in (folder / "kept").iterdir()}
    pruning = sr.global_magnitude(weights, SCORING["sparsity"])
    layers = layer_frame(weights, count_weights(weights), variant="", pruning=pruning)
    return [Base("small", files, (weights, layers, frame))]


def _judge_scores(folder: Path, base: Base) -> str:
    weights, layers, truth = base.truth
    forged = _forged(folder, base)
    # What takes most of the time, and has nothing to do with what is kept.
    with mock.patch.object(measured, "layer_frame", return_value=layers):
        frame = sr.sensitivity(weights, cache=folder, **SCORING)
    if forged:
        return "" if frame["nll_increase"].notna().all() else "unknown"
    return "" if frame.equals(truth) else f"scored as {frame.to_dict()}, is {truth.to_dict()}"


_DAMAGE = (damage_entry, damage_entry, replace_entry, forge_entry)
CACHE = Family("cache", _bases, _DAMAGE, _judge, quick=40, refused=False)
SCORES = Family("scores", _score_bases, _DAMAGE, _judge_scores, quick=8, refused=False)
