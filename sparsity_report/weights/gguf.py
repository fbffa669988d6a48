"""Weights in a GGUF file, quantised blocks dequantised one tensor at a time."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.weights.checkpoint import CheckpointWeights, Entry, skeleton_of
from sparsity_report.weights.safetensors import load_with_transformers
from sparsity_report.weights.slices import FileSlice, Stamp

_UNQUANTISED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
_UNQUANTISED |= {"I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}


class GGUFWeights(CheckpointWeights):
    """A GGUF file: counted as the float32 values its blocks stand for."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        blacklist: Collection[str] = ("lm_head",),
        groups: Mapping[str, str] | None = None,
    ) -> None:
        stamp = Stamp.of(path)
        check_header(path)
        from gguf import GGUFReader

        try:
            reader = GGUFReader(path)
        except Exception as error:  # the reader raises whatever a hostile file provokes
            raise _damaged(path, error) from error
        entries = {
            tensor.name: Entry(
                path,
                tensor.name,
                tuple(int(n) for n in reversed(tensor.shape)),  # GGUF counts dimensions from within
                str(_UNQUANTISED.get(tensor.tensor_type.name, torch.float32)).removeprefix(
                    "torch."
                ),
            )
            for tensor in reader.tensors
        }
        self._values = {
            tensor.name: FileSlice(
                path,
                stamp,
                int(tensor.data_offset),
                entries[tensor.name].total,
                getattr(torch, entries[tensor.name].dtype),
                "" if tensor.tensor_type.name in _UNQUANTISED else tensor.tensor_type.name,
            )
            for tensor in reader.tensors
        }
        skeleton, keys, notes = _match(path, entries)
        quantised = sorted(
            {t.tensor_type.name for t in reader.tensors} - _UNQUANTISED.keys() - {"BF16"}
        )
        if quantised:
            notes += (
                f"quantised blocks ({', '.join(quantised)}) are counted as the float32 values "
                "they stand for",
            )
        super().__init__(
            path,
            entries,
            name=name,
            source="gguf",
            skeleton=skeleton,
            keys=keys,
            blacklist=blacklist,
            groups=groups,
            notes=notes,
        )

    def cut(self, entry: Entry) -> Iterator[FileSlice]:
        """Yield one tensor as slices of its file, which are dequantised as they are read."""
        return self._values[entry.key].cut(entry.shape)

    def module(self) -> nn.Module:
        """Load the dequantised model with transformers, in float32."""
        return load_with_transformers(self, self.path.parent, gguf_file=self.path.name)


def check_header(path: Path) -> None:
    """Walk the metadata of a GGUF file and refuse lengths that the file cannot hold.

    The public reader trusts them: 49 bytes that announce 2⁶⁰ entries keep it busy for ever.
    Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                raise _MalformedError(
                    f"not a little-endian GGUF file of version 2 or 3 ({magic!r})"
                )
            for _ in range(pairs):
                _skip_string(file, size)
                _skip_value(file, size, *struct.unpack("<I", file.read(4)))
            for _ in range(tensors):
                _skip_string(file, size)
                (dimensions,) = struct.unpack("<I", file.read(4))
                if dimensions > 4:
                    raise _MalformedError(f"a tensor of {dimensions} dimensions")
                _skip(file, size, 8 * dimensions + 12)
        except (struct.error, _MalformedError) as error:
            raise _damaged(path, error) from error


class _MalformedError(Exception):
    pass


# Bytes of the scalar value types 0 … 12; 8 is a string, 9 an array.
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def _skip(file: BinaryIO, size: int, count: int) -> None:
    if file.tell() + count > size:
        raise _MalformedError(f"{count} bytes announced at {file.tell()}, {size} in the file")
    file.seek(count, 1)


def _skip_string(file: BinaryIO, size: int) -> None:
    _skip(file, size, *struct.unpack("<Q", file.read(8)))


def _skip_value(file: BinaryIO, size: int, kind: int) -> None:
    if kind == 8:
        _skip_string(file, size)
    elif kind == 9:
        item, count = struct.unpack("<IQ", file.read(12))
        if item in _SCALAR_BYTES:
            _skip(file, size, count * _SCALAR_BYTES[item])
        elif item == 8:
            for _ in range(count):
                _skip_string(file, size)
        else:
            raise _MalformedError(f"array of value type {item}")
    elif kind in _SCALAR_BYTES:
        _skip(file, size, _SCALAR_BYTES[kind])
    else:
        raise _MalformedError(f"value type {kind}")


def _match(
    path: Path, entries: Mapping[str, Entry]
) -> tuple[nn.Module | None, dict[str, str | None], tuple[str, ...]]:
    """Find the transformers model and the name of each tensor in it."""
    from transformers import AutoConfig
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    try:
        config: Any = AutoConfig.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True
        )
    except Exception as error:  # transformers knows only some GGUF architectures
        note = f"groups follow from GGUF tensor names alone: {printable(str(error), 200)}"
        return None, {key: key for key in entries}, (note,)
    skeleton = skeleton_of(config, path)
    processor = TENSOR_PROCESSORS.get(config.model_type, TensorProcessor)(config=config.to_dict())
    known = get_gguf_hf_weights_map(skeleton, processor)
    # llama.cpp precomputes rotary tables; they are not parameters.
    names: dict[str, str | None] = {
        key: known.get(key) for key in entries if not key.startswith("rope_")
    }
    if unknown := [key for key, name in names.items() if name is None]:
        note = f"groups follow from GGUF tensor names alone: no place for {unknown[0]!r}"
        return None, {key: key for key in entries}, (note,)
    return skeleton, names, ()


def _damaged(path: Path, error: Exception) -> SparsityReportError:
    return SparsityReportError(f"{path} cannot be read as GGUF: {error}; fetch it again")
