"""What a GGUF file announces, checked before any value of it is read.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from sparsity_report.errors import SparsityReportError
from sparsity_report.untrusted import limits
from sparsity_report.weights.anatomy.rounding_levels import Rounding
from sparsity_report.weights.gguf.gguf_metadata import HeaderReader, Opened, read_facts
from sparsity_report.weights.gguf.gguf_steps import ROUNDINGS, block_steps
from sparsity_report.weights.tensor_slices import Entry, FileSlice, LocalFile, Origin, Stamp

_UNQUANTISED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
_KINDS = {kind.value: kind for kind in GGMLQuantizationType if kind in GGML_QUANT_SIZES}
# As many as the format has.
_DIMENSIONS = 4

# What a file says of its model, and its tensors by name.
Header = tuple[dict[str, Any], dict[str, Entry]]


@dataclass(frozen=True, eq=False)
class BlockSlice(FileSlice):
    """Values packed in blocks, of the kind that GGUF gives the name `quantisation`."""

    quantisation: str

    @property
    def packing(self) -> str:
        """The kind of blocks."""
        return self.quantisation

    @property
    def rounding(self) -> Rounding | None:
        """What these blocks round to zero."""
        return ROUNDINGS.get(self.quantisation)

    def rounded(self) -> Iterator[tuple[torch.Tensor, npt.NDArray[np.float32]]]:
        """Yield each piece with the steps of its blocks."""
        _, size = GGML_QUANT_SIZES[GGMLQuantizationType[self.quantisation]]
        for raw in self.raw():
            yield self.decode(raw), block_steps(self.quantisation, raw.reshape(-1, size))

    def bytes_of(self, count: int) -> int:
        """Bytes that so many values, whole blocks, take in the file."""
        values, size = GGML_QUANT_SIZES[GGMLQuantizationType[self.quantisation]]
        return int(count // values * size)

    def decode(self, raw: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return the values that blocks stand for."""
        try:
            # Scales that are not numbers, or too large, make values so; that is no mistake here.
            with np.errstate(all="ignore"):
                values = dequantize(raw, GGMLQuantizationType[self.quantisation])
        except (NotImplementedError, ValueError) as error:
            raise SparsityReportError(
                f"{self.file}: blocks of type {self.quantisation} cannot be dequantised: {error}"
            ) from error
        return torch.from_numpy(values)


def read_header(path: Path) -> Header:
    """Return what a GGUF file announces."""
    try:
        with path.open("rb") as file:
            return parse_header(file, LocalFile(path.absolute(), Stamp.of(file)))
    except OSError as error:
        raise SparsityReportError(f"{path} cannot be read: {error.strerror}") from error


def parse_header(file: Opened, origin: Origin) -> Header:
    """Return the numbers, architecture and tensors that an open file announces.

    Raises
    ------
    SparsityReportError
        It is damaged, or has values that are not read here.
    """
    reader = HeaderReader(file, origin)
    try:
        magic, version, tensors, facts = reader.numbers("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(
                f"not a little-endian GGUF file of version 2 or 3 ({magic!r}, version {version})"
            )
        reader.check_counts(tensors, facts)
        told = read_facts(reader, facts)
        return told, _read_tensors(reader, tensors, told.get("general.alignment", 32))
    except SparsityReportError:
        raise
    except ValueError as error:
        raise SparsityReportError(
            f"{origin} cannot be read as GGUF: {error}; fetch it again"
        ) from error


def _read_tensors(reader: HeaderReader, count: int, alignment: object) -> dict[str, Entry]:
    """Return tensors, whose values follow each other, as llama.cpp writes and asks for them."""
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"alignment {alignment} is no power of two")
    tensors: dict[str, tuple[tuple[int, ...], GGMLQuantizationType, int]] = {}
    reached = end = 0
    for _ in range(count):
        name = reader.name()
        if name in tensors:
            raise ValueError(f"two tensors are called {name!r}")
        shape, kind, offset = tensors[name] = _read_tensor(reader, name)
        if offset != reached:
            raise ValueError(f"the values of {name!r} begin at {offset:,}, not at {reached:,}")
        values, size = GGML_QUANT_SIZES[kind]
        end = offset + math.prod(shape) // values * size
        reached = -(-end // alignment) * alignment
    start = -(-reader.place // alignment) * alignment
    if tensors and start + end > reader.origin.size:
        raise ValueError(f"tensor {name!r} does not fit the file")
    return {
        name: Entry(name, shape, _slice(math.prod(shape), kind, reader.origin, start + offset))
        for name, (shape, kind, offset) in tensors.items()
    }


def _slice(total: int, kind: GGMLQuantizationType, origin: Origin, offset: int) -> FileSlice:
    if dtype := _UNQUANTISED.get(kind.name):
        return FileSlice(total, dtype, origin, offset)
    return BlockSlice(total, torch.float32, origin, offset, kind.name)


def _read_tensor(
    reader: HeaderReader, name: str
) -> tuple[tuple[int, ...], GGMLQuantizationType, int]:
    """Return shape and type of a tensor, and where its values are after those of the first."""
    (dimensions,) = reader.numbers("I")
    if dimensions > _DIMENSIONS:
        raise ValueError(f"tensor {name!r} has {dimensions:,} dimensions")
    *inward, number, offset = reader.numbers(f"{dimensions}QIQ")
    # GGUF counts dimensions from within.
    shape = tuple(inward[::-1])
    if not 0 < math.prod(shape) <= limits.VALUES:
        raise ValueError(f"tensor {name!r} has the shape {shape}")
    kind = _kind(number, reader.origin, name)
    if math.prod(shape[-1:]) % GGML_QUANT_SIZES[kind][0]:
        raise ValueError(f"rows of tensor {name!r} are not whole blocks")
    return shape, kind, offset


def _kind(number: int, origin: Origin, name: str) -> GGMLQuantizationType:
    """Return the type of a tensor, if its values can be had."""
    kind = _KINDS.get(number)
    if kind is None or not (kind.name in _UNQUANTISED or _is_decoded(kind)):
        called = number if kind is None else kind.name
        raise SparsityReportError(
            f"{origin}: tensor {name!r} is of type {called}, which the installed gguf library "
            "cannot dequantise; update it, or give a file of another type"
        )
    return kind


@lru_cache
def _is_decoded(kind: GGMLQuantizationType) -> bool:
    """Whether the library has a decoder, which it says only when it is asked to decode."""
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
