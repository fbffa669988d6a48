"""Masks in one file; NumPy and safetensors say what a whole one holds."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import TEXTS, damage_bytes, number
from fuzz.safetensors import damage_header

ZIPPED, PLAIN = "masks.npz", "masks.safetensors"
_SHAPES = {"fc1.weight": (5, 8), "fc2.weight": (8, 5)}
_DTYPES = ("?", "u1", "i8", "f2", "f8", "c8", "U1", "M8[s]", ">f4")


def _weights() -> sr.Weights:
    torch.manual_seed(0)
    return sr.load(nn.ModuleDict({"fc1": nn.Linear(8, 5), "fc2": nn.Linear(5, 8)}), name="model")


def _bases(_: Path) -> list[Base]:
    draw = np.random.default_rng(0)
    masks = {name: draw.random(shape) > 0.4 for name, shape in _SHAPES.items()}
    some = {f"{name}_mask": mask.astype("f4") for name, mask in masks.items()}
    tensors = {name: torch.from_numpy(mask) for name, mask in masks.items()}
    return [
        Base("stored", {ZIPPED: _saved(some)}),
        Base("deflated", {ZIPPED: _saved(masks, zipfile.ZIP_DEFLATED)}),
        Base("plain", {PLAIN: save(tensors)}),
    ]


def _saved(arrays: dict[str, Any], how: int = zipfile.ZIP_STORED) -> bytes:
    members = {}
    for name, array in arrays.items():
        member = io.BytesIO()
        np.save(member, array)
        members[f"{name}.npy"] = member.getvalue()
    return _archive(members, how)


def _archive(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", how) as archive:
        for name, content in members.items():
            # The format has no longer ones.
            plain = name.encode(errors="replace").decode().partition("\0")[0][:10_000]
            archive.writestr(plain or "x", content)
    return made.getvalue()


def _members(data: bytes) -> dict[str, bytes]:
    """Take an archive apart as far as it goes; nothing of one that is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:  # damaged archives fail in every way there is
        return {}


def damage_file(random: Random, files: Files) -> None:
    """Change some bytes anywhere."""
    for name, data in files.items():
        files[name] = damage_bytes(random, data)


def damage_member(random: Random, files: Files) -> None:
    """Change some bytes of an array, its name or how often it is there; the archive is whole."""
    if not (members := _members(files.get(ZIPPED, b""))):
        return
    name = random.choice(list(members))
    kind = random.randrange(4)
    if kind == 0:
        members[random.choice((*TEXTS, *members)) + ".npy"] = members.pop(name)
    elif kind == 1:
        members[f"{name.removesuffix('.npy')}_mask.npy"] = members[name]
    elif kind == 2:
        head, body = members[name][:128], members[name][128:]
        members[name] = damage_bytes(random, head) + body
    else:
        members[name] = damage_bytes(random, members[name])
    files[ZIPPED] = _archive(members, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def change_validly(random: Random, files: Files) -> None:
    """Change an array into another that is whole: type, order, shape, values."""
    if not (members := _members(files.get(ZIPPED, b""))):
        return
    name = random.choice(list(members))
    try:
        array = np.load(io.BytesIO(members[name]), allow_pickle=False)
        kind = random.randrange(5)
        if kind == 0:
            array = array.astype(random.choice(_DTYPES))
        elif kind == 1:
            array = np.asfortranarray(array)
        elif kind == 2:
            array = array.T
        elif kind == 3:
            array = array.reshape(random.choice([(-1,), (1, *array.shape), array.shape[::-1]]))
        else:
            array = array.astype("f8")
            array.flat[random.randrange(array.size)] = number(random)
    except Exception:  # a damaged header fails in every way there is
        return
    member = io.BytesIO()
    np.save(member, array)
    members[name] = member.getvalue()
    files[ZIPPED] = _archive(members)


def header_of_tensors(random: Random, files: Files) -> None:
    """Change one thing that the header of a safetensors file says."""
    if PLAIN in files:
        damage_header(random, files, PLAIN)


def judge(folder: Path, base: Base) -> str:  # noqa: ARG001
    """Compare the masks with those that the format's library reads."""
    weights = _weights()
    file = folder / (ZIPPED if (folder / ZIPPED).exists() else PLAIN)
    pruning = sr.import_mask(weights, file)
    try:
        told = _told(file)
    except (SafetensorError, Exception) as error:
        return f"masks of a file that its library refuses: {error!r}"
    masks = {name.removesuffix("_mask"): mask for name, mask in told.items()}
    for p in weights.prunable:
        due = np.asarray(masks.get(p.name, np.ones(p.shape)))
        if not np.array_equal(pruning.mask(p.name).numpy(), due == 1):
            return f"{p.name}: another mask"
    return ""


def _told(file: Path) -> dict[str, Any]:
    if file.name == ZIPPED:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    with safe_open(file, "pt") as tensors:
        return {name: tensors.get_tensor(name).float().numpy() for name in tensors.keys()}  # noqa: SIM118


MASKS = Family(
    "masks",
    _bases,
    (damage_file, damage_member, change_validly, header_of_tensors),
    judge,
    quick=60,
)
