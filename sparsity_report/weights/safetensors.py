"""Weights in safetensors files: one file, or shards named by an index."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.checkpoint import CheckpointWeights
from sparsity_report.weights.config import read_config
from sparsity_report.weights.names import memory_names
from sparsity_report.weights.tensors import Entry, FileSlice, Stamp

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# https://github.com/huggingface/safetensors: names in the header, torch dtypes in memory.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


class SafetensorsWeights(CheckpointWeights):
    """A safetensors checkpoint: the headers are read at once, values slice by slice."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        blacklist: Collection[str] = ("lm_head",),
        groups: Mapping[str, str] | None = None,
    ) -> None:
        files = [path] if path.is_file() else shard_files(path)
        entries: dict[str, Entry] = {}
        self._values: dict[str, FileSlice] = {}
        for file in files:
            for entry, values in read_header(file).items():
                if entry.key in entries:
                    other = entries[entry.key].file.name
                    raise SparsityReportError(
                        f"{file}: tensor {entry.key!r} is in {other} too; which one counts?"
                    )
                entries[entry.key] = entry
                self._values[entry.key] = values
        directory = path.parent if path.is_file() else path
        skeleton, notes = read_config(directory)
        super().__init__(
            path,
            entries,
            name=name,
            source="safetensors",
            skeleton=skeleton,
            keys=memory_names(skeleton, entries),
            blacklist=blacklist,
            groups=groups,
            notes=notes,
        )
        self._directory = directory

    def cut(self, entry: Entry) -> Iterator[FileSlice]:
        """Yield one tensor as slices of its file."""
        return self._values[entry.key].cut(entry.shape)

    def module(self) -> nn.Module:
        """Load the model with transformers, in the checkpoint's own dtype."""
        return load_with_transformers(self, self._directory)


def shard_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint directory, shard names checked."""
    index = directory / INDEX
    if not index.is_file():
        single = directory / SINGLE
        found = [single] if single.is_file() else sorted(directory.glob("*.safetensors"))
        if len(found) > 1:
            raise SparsityReportError(
                f"{directory} holds {len(found)} safetensors files and no {INDEX}; "
                "name the one to open"
            )
        return found
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted(set(shards), key=str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SparsityReportError(f"{index} is not a safetensors index: {error!r}") from error
    for name in names:
        # Untrusted: only a plain file name inside the directory may be opened.
        plain = isinstance(name, str) and Path(name).name == name and "\\" not in name
        if not plain or not name.endswith(".safetensors"):
            raise SparsityReportError(f"{index} names a shard outside its folder: {name!r}")
        if not _stays_inside(directory / name):
            raise SparsityReportError(
                f"{directory / name} is a link that leads out of its folder; put the file there"
            )
        if not (directory / name).exists():
            raise SparsityReportError(
                f"{directory / name} is missing, but {INDEX} names it; fetch the whole checkpoint"
            )
    return [directory / name for name in names]


def _stays_inside(file: Path) -> bool:
    """Whether a link stays in its folder, or in the blobs of its own Hub cache entry."""
    home, target = file.parent.resolve(), file.resolve()
    allowed = {home}
    if home.parent.name == "snapshots":
        allowed.add(home.parent.parent / "blobs")
    return target.parent in allowed


def read_header(file: Path) -> dict[Entry, FileSlice]:
    """Return the tensors of one safetensors file in the order of their values, and where they are.

    Layout: https://github.com/huggingface/safetensors#format
    """
    found = {}
    try:
        stamp = Stamp.of(file)
        # The library checks what a header may claim; where values are it does not tell.
        with safe_open(file, framework="pt") as opened, file.open("rb") as raw:
            (length,) = struct.unpack("<Q", raw.read(8))
            header = json.loads(raw.read(length))
            for key in opened.offset_keys():
                part = opened.get_slice(key)
                dtype = _dtype(file, key, part.get_dtype())
                entry = Entry(file, key, tuple(part.get_shape()), dtype)
                offset = 8 + length + header[key]["data_offsets"][0]
                # Workers have working directories of their own.
                found[entry] = FileSlice(
                    file.absolute(), stamp, offset, entry.total, getattr(torch, dtype)
                )
    except (OSError, SafetensorError) as error:
        raise _damaged(file, error) from error
    return found


def load_with_transformers(
    weights: CheckpointWeights, directory: Path, **options: Any
) -> nn.Module:
    """Load a runnable model and refuse one with missing or mismatched tensors."""
    import transformers

    if not weights.architecture:
        raise SparsityReportError(
            f"{weights.name} can be counted but not run: transformers knows no class for it"
        )
    cls = getattr(transformers, weights.architecture)
    model, info = cls.from_pretrained(
        directory, dtype="auto", local_files_only=True, output_loading_info=True, **options
    )
    if bad := [*info["missing_keys"], *info["mismatched_keys"]]:
        raise SparsityReportError(
            f"{weights.name}: {len(bad)} tensor(s) missing or mis-shaped on loading, first {bad[0]}"
        )
    assert isinstance(model, nn.Module)
    return model.eval()


def _dtype(file: Path, key: str, stored: str) -> str:
    if stored not in _DTYPES:
        raise SparsityReportError(f"{file}: tensor {key!r} has dtype {stored}, which is not known")
    return _DTYPES[stored]


def _damaged(file: Path, error: Exception) -> SparsityReportError:
    return SparsityReportError(
        f"{file} cannot be read as safetensors: {error}; it may be truncated, fetch it again"
    )
