"""Weights in a GGUF file, quantised blocks dequantised one tensor at a time."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.weights.checkpoint import CheckpointWeights
from sparsity_report.weights.config import skeleton_of
from sparsity_report.weights.parameters import ONCE, Module, Parameter
from sparsity_report.weights.safetensors import load_with_transformers
from sparsity_report.weights.tensors import Entry, FileSlice, Slice, Stamp, dtype_name, held, joined

_UNQUANTISED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
# Vectors, convolutions and other small tensors; matrices are at most rearranged.
_MAY_DIFFER = 2**16
_UNQUANTISED |= {"I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}
# What the file says of the model and transformers' reader leaves at its default.
_UNREAD = {
    "attention.key_length": "head_dim",
    "context_length": "n_positions",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}


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
        self._values: dict[str, FileSlice] = {}
        entries: dict[str, Entry] = {}
        facts, tensors = read_header(path)
        for tensor in tensors:
            dtype = _UNQUANTISED.get(tensor.kind, torch.float32)
            entry = Entry(path, tensor.name, tensor.shape, dtype_name(dtype))
            kind = "" if tensor.kind in _UNQUANTISED else tensor.kind
            entries[tensor.name] = entry
            self._values[tensor.name] = FileSlice(
                path.absolute(), stamp, tensor.offset, entry.total, dtype, kind
            )
        skeleton, keys, notes, self._processor = _match(path, entries, facts)
        self._config = skeleton.config if skeleton else None
        kinds = {part.quantisation for part in self._values.values()} - {"", "BF16"}
        quantised = sorted(kinds)
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
            experts_used=_experts_used(facts),
        )
        if skeleton is None and (head := _tied_head(entries, facts)):
            self.modules += head
            self.notes += ("the file holds no output.weight, so the output head is the embedding",)

    def cut(self, entry: Entry) -> Iterable[Slice]:
        """Return one tensor as slices of its file, which are dequantised as they are read."""
        stored = self._values[entry.key].cut(entry.shape)
        # llama.cpp keeps some values as a function of the model's, e.g. Gemma's norms plus one.
        if entry.total >= _MAY_DIFFER and not entry.key.endswith(".ssm_a"):
            return stored
        values = joined(list(stored), self._values[entry.key].dtype, entry.shape)
        return held(self._in_memory(entry.key, values))

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of a parameter as they are arranged in the model in memory."""
        entries = self._entries(name)
        if len(entries) > 1:  # of each expert gate and up, one above the other in memory
            dtype = getattr(torch, entries[0].dtype)
            pieces = [joined(list(self.cut(entry)), dtype, entry.shape) for entry in entries]
            return torch.cat(pieces, dim=1)
        tensor = super().tensor(name)
        if entries[0].total < _MAY_DIFFER:
            return tensor
        whole = self._in_memory(entries[0].key, tensor.reshape(entries[0].shape))
        return whole.reshape(self[name].shape)

    def _in_memory(self, key: str, values: torch.Tensor) -> torch.Tensor:
        if self._processor is None or "_exps" in key:
            return values  # experts come as they are, one after the other
        done = self._processor.process(values.numpy(), key, parsed_parameters={"tensors": {}})
        return torch.from_numpy(np.ascontiguousarray(done.weights))

    def module(self) -> nn.Module:
        """Load the dequantised model with transformers, in float32."""
        return load_with_transformers(
            self, self.path.parent, gguf_file=self.path.name, config=self._config
        )


@dataclass(frozen=True)
class _Tensor:
    """What a GGUF header says of a tensor; `kind` is GGML's name of its type."""

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int


def read_header(path: Path) -> tuple[dict[str, Any], list[_Tensor]]:
    """Return the numbers, architecture and tensors a GGUF file announces, every length checked.

    The public reader trusts them: 49 bytes that announce 2⁶⁰ entries keep it busy for ever.
    Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    size = path.stat().st_size
    found: dict[str, _Tensor] = {}
    facts: dict[str, Any] = {}
    with path.open("rb") as file:
        try:
            magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                raise _MalformedError(
                    f"not a little-endian GGUF file of version 2 or 3 ({magic!r})"
                )
            for _ in range(pairs):
                key = _string(file, size)
                (kind,) = struct.unpack("<I", file.read(4))
                if kind in _SCALARS:
                    scalar = f"<{_SCALARS[kind]}"
                    (facts[key],) = struct.unpack(scalar, file.read(struct.calcsize(scalar)))
                elif key == "general.architecture" and kind == 8:
                    facts[key] = _string(file, size)
                else:
                    _skip_value(file, size, kind)
            alignment = facts.get("general.alignment", 32)
            if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
                raise _MalformedError(f"alignment {alignment} is no power of two")
            for _ in range(tensors):
                name = _string(file, size)
                (dimensions,) = struct.unpack("<I", file.read(4))
                if dimensions > 4:
                    raise _MalformedError(f"a tensor of {dimensions} dimensions")
                # GGUF counts dimensions from within.
                shape = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))[::-1]
                number, offset = struct.unpack("<IQ", file.read(12))
                if name in found:
                    raise _MalformedError(f"two tensors are called {name!r}")
                found[name] = _Tensor(name, shape, GGMLQuantizationType(number).name, offset)
            start = -(-file.tell() // alignment) * alignment
            for tensor in found.values():
                values, block = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.kind]]
                total = math.prod(tensor.shape)
                if total % values or start + tensor.offset + total // values * block > size:
                    raise _MalformedError(f"tensor {tensor.name!r} does not fit the file")
        except (struct.error, _MalformedError, ValueError) as error:
            raise _damaged(path, error) from error
    tensors_found = [replace(t, offset=start + t.offset) for t in found.values()]
    return facts, tensors_found


class _MalformedError(Exception):
    pass


# The scalar value types 0 … 12 as struct writes them; 8 is a string, 9 an array.
_SCALARS = dict(zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True))


def _skip(file: BinaryIO, size: int, count: int) -> None:
    if file.tell() + count > size:
        raise _MalformedError(f"{count} bytes announced at {file.tell()}, {size} in the file")
    file.seek(count, 1)


def _skip_string(file: BinaryIO, size: int) -> None:
    _skip(file, size, *struct.unpack("<Q", file.read(8)))


def _string(file: BinaryIO, size: int) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if file.tell() + length > size:
        raise _MalformedError(f"a name of {length} bytes at {file.tell()}, {size} in the file")
    return file.read(length).decode("utf-8")


def _skip_value(file: BinaryIO, size: int, kind: int) -> None:
    if kind == 8:
        _skip_string(file, size)
    elif kind == 9:
        item, count = struct.unpack("<IQ", file.read(12))
        if item in _SCALARS:
            _skip(file, size, count * struct.calcsize(f"<{_SCALARS[item]}"))
        elif item == 8:
            for _ in range(count):
                _skip_string(file, size)
        else:
            raise _MalformedError(f"array of value type {item}")
    else:
        raise _MalformedError(f"value type {kind}")


def _tied_head(entries: Mapping[str, Entry], facts: Mapping[str, Any]) -> tuple[Module, ...]:
    """Return the output head that a causal model without one has in its embedding."""
    embedding = entries.get("token_embd.weight")
    causal = facts.get(f"{facts.get('general.architecture')}.attention.causal", True)
    if embedding is None or "output.weight" in entries or not causal:
        return ()
    rows, columns = embedding.shape
    head = Parameter(
        name="output.weight",
        shape=(rows, columns),
        dtype=embedding.dtype,
        itemsize=value_bytes(embedding.dtype),
        matrix=(rows, columns),
        tied_to=embedding.key,
    )
    return (Module("output", "", "lm_head", (head,)),)


def _experts_used(facts: Mapping[str, Any]) -> Fraction:
    """Share of the experts that a token is sent to."""
    architecture = facts.get("general.architecture")
    used, held = (facts.get(f"{architecture}.expert_{word}count") for word in ("used_", ""))
    return Fraction(used, held) if used and held else ONCE


def _match(
    path: Path, entries: Mapping[str, Entry], facts: Mapping[str, Any]
) -> tuple[nn.Module | None, dict[str, str | None], tuple[str, ...], Any]:
    """Find the transformers model, the name of each tensor in it, and what converts values."""
    from transformers import AutoConfig
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    architecture = facts.get("general.architecture", "")
    by_names: dict[str, str | None] = {
        key: key if key.endswith((".weight", ".bias")) else f"{key}.values" for key in entries
    }
    alone = f"groups of this {printable(architecture, 40)} file follow from tensor names alone: "
    try:
        config: Any = AutoConfig.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True
        )
        known = config.to_dict()
        for key, attribute in _UNREAD.items():
            if attribute in known and f"{architecture}.{key}" in facts:
                setattr(config, attribute, facts[f"{architecture}.{key}"])
        if not any(".ffn_gate" in key for key in entries) and "is_gated_act" in known:
            config.is_gated_act = False  # transformers takes every T5 for a gated one
        skeleton = skeleton_of(config, path)
        processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict())
        # Whole models first: transformers asks every module anew, seconds for a large one.
        names = _names(entries, get_gguf_hf_weights_map(_Childless(skeleton), processor))
        if None in names.values():
            names = _names(entries, get_gguf_hf_weights_map(skeleton, processor))
    except Exception as error:  # transformers knows only some GGUF architectures
        return None, by_names, (alone + printable(str(error), 200),), None
    if unknown := [key for key, name in names.items() if name is None]:
        note = f"{alone}transformers' {type(skeleton).__name__} has no place for {unknown[0]!r}"
        return None, by_names, (note,), None
    return skeleton, names, (), processor


def _names(entries: Collection[str], known: Mapping[str, str]) -> dict[str, str | None]:
    """Map tensors to parameters, gate before up; the map may leave the `.weight` of experts out."""
    # llama.cpp precomputes rotary tables; they are not parameters.
    keys = sorted(key for key in entries if not key.startswith("rope_"))
    return {key: known.get(key) or known.get(key.removesuffix(".weight")) for key in keys}


class _Childless:
    """A model seen as one module by transformers' name map."""

    def __init__(self, model: nn.Module) -> None:
        self.config, self.state_dict = model.config, model.state_dict

    def named_children(self) -> list[tuple[str, nn.Module]]:
        return []


def _damaged(path: Path, error: Exception) -> SparsityReportError:
    return SparsityReportError(f"{path} cannot be read as GGUF: {error}; fetch it again")
