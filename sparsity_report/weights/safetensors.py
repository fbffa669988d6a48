"""Weights in safetensors files: one file, or shards named by an index."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.packed.reading import E8M0, FP4
from sparsity_report.weights.tensors import Entry, FileSlice, Stamp

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# https://github.com/huggingface/safetensors: names of dtypes in the header.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
# Read as bytes.
_BYTES = (E8M0, FP4)
# Four to three bytes, in an order of bits that the format does not state.
_FP6 = ("F6_E2M3", "F6_E3M2")


@dataclass(frozen=True)
class Shards:
    """The safetensors files of a checkpoint.

    Attributes
    ----------
    files : list of Path
    weight_map : mapping of str to str, optional
        The file that an index places each tensor in.
    """

    files: list[Path]
    weight_map: Mapping[str, str] | None = None

    def read(self, file: Path) -> list[Entry]:
        """Return the tensors of a file, which are those that the index places there.

        Raises
        ------
        SparsityReportError
            The file lacks a tensor, or holds one that the index does not place there.
        """
        entries = read_header(file)
        if self.weight_map is None:
            return entries
        held = {entry.key for entry in entries}
        placed = {key for key, name in self.weight_map.items() if name == file.name}
        if lacking := sorted(placed - held):
            raise SparsityReportError(
                f"{file} lacks {len(lacking)} tensor(s) that {INDEX} places in it, "
                f"first {lacking[0]!r}; fetch both again"
            )
        for stray in sorted(held - placed)[:1]:
            other = self.weight_map.get(stray)
            where = f"places it in {other}: which one counts?" if other else "does not name it:"
            raise SparsityReportError(
                f"{file} holds tensor {stray!r}, but {INDEX} {where} Fetch both again"
            )
        return entries


def find_shards(directory: Path) -> Shards:
    """Return the safetensors files of a checkpoint directory, shard names checked."""
    index, single = directory / INDEX, directory / SINGLE
    if not index.is_file():
        files = [single] if single.is_file() else sorted(directory.glob("*.safetensors"))
        if len(files) > 1:
            raise SparsityReportError(
                f"{directory} holds {len(files)} safetensors files and no {INDEX}; "
                "name the one to open"
            )
        return Shards(files)
    weight_map = read_index(index)
    names = sorted(set(weight_map.values()))
    if single.is_file() and SINGLE not in names:
        raise SparsityReportError(
            f"{directory} holds {SINGLE}, and {INDEX} names other files; which ones count? "
            f"Name {SINGLE}, or move one of the two away"
        )
    for name in names:
        if not _stays_inside(directory / name):
            raise SparsityReportError(
                f"{directory / name} is a link that leads out of its folder; put the file there"
            )
        if not (directory / name).exists():
            raise SparsityReportError(
                f"{directory / name} is missing, but {INDEX} names it; fetch the whole checkpoint"
            )
    return Shards([directory / name for name in names], weight_map)


def read_index(index: Path) -> dict[str, str]:
    """Return which tensor is in which file, the names of files checked."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()), key=str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SparsityReportError(f"{index} is not a safetensors index: {error!r}") from error
    if not names:
        raise SparsityReportError(f"{index} names no tensor; fetch it again")
    for name in names:
        # Untrusted: only a plain file name inside the directory may be opened.
        plain = isinstance(name, str) and Path(name).name == name and "\\" not in name
        plain = plain and name.isprintable()
        if not plain or not name.endswith(".safetensors"):
            raise SparsityReportError(f"{index} names a shard outside its folder: {name!r}")
    return cast(dict[str, str], weight_map)


def _stays_inside(file: Path) -> bool:
    """Whether a link stays in its folder, or in the blobs of its own Hub cache entry."""
    home, target = file.parent.resolve(), file.resolve()
    allowed = {home}
    if home.parent.name == "snapshots":
        allowed.add(home.parent.parent / "blobs")
    return target.parent in allowed


def read_header(file: Path) -> list[Entry]:
    """Return the tensors of one safetensors file in the order of their values.

    Layout: https://github.com/huggingface/safetensors#format
    """
    entries = []
    try:
        stamp = Stamp.of(file)
        # The library checks what a header may claim; where values are it does not tell.
        with safe_open(file, framework="pt") as opened, file.open("rb") as raw:
            (length,) = struct.unpack("<Q", raw.read(8))
            header = json.loads(raw.read(length))
            for key in opened.offset_keys():
                part = opened.get_slice(key)
                shape, told = tuple(part.get_shape()), part.get_dtype()
                try:
                    shape, dtype = _held(shape, told)
                except ValueError as error:
                    raise SparsityReportError(f"{file}: tensor {key!r} {error}") from error
                offset = 8 + length + header[key]["data_offsets"][0]
                # Absolute, as workers have working directories of their own.
                values = FileSlice(math.prod(shape), dtype, file.absolute(), stamp, offset)
                entries.append(Entry(key, shape, values, told if told in _BYTES else ""))
    except (OSError, SafetensorError) as error:
        raise SparsityReportError(
            f"{file} cannot be read as safetensors: {error}; it may be truncated, fetch it again"
        ) from error
    return entries


def _held(shape: tuple[int, ...], told: str) -> tuple[tuple[int, ...], torch.dtype]:
    """Return shape and dtype of what a file holds of a tensor; ValueError where it is not known."""
    if told in _FP6:
        raise ValueError(
            f"has dtype {told}, of which the format does not state in which order its bits stand, "
            "so it cannot be counted; give a checkpoint that is not packed"
        )
    if told == FP4:
        if 0 in shape or shape[-1] % 2:
            raise ValueError(f"has dtype {told} and shape {shape}, not rows of whole bytes")
        return (*shape[:-1], shape[-1] // 2), torch.uint8
    if told not in _DTYPES and told not in _BYTES:
        raise ValueError(f"has dtype {told}, which is not known")
    return shape, _DTYPES.get(told, torch.uint8)
