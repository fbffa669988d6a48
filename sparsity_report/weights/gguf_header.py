"""What a GGUF file announces, every length checked before it is believed.

The public reader trusts them: 49 bytes that announce 2⁶⁰ entries keep it busy for ever.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.gguf_steps import ROUNDINGS, block_steps
from sparsity_report.weights.rounding import Rounding
from sparsity_report.weights.tensors import Entry, FileSlice, LocalFile, Origin, Stamp

# The scalar value types 0 … 12 as struct writes them; 8 is a string, 9 an array.
_SCALARS = dict(zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
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


# What a file says of its model, and its tensors by name.
Header = tuple[dict[str, Any], dict[str, Entry]]


class Opened(Protocol):
    """A file that is read from its begin."""

    def tell(self) -> int:
        """Return the place of the next byte."""

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer before the end."""

    def seek(self, count: int, whence: int, /) -> object:
        """Pass over bytes, with :data:`os.SEEK_CUR`."""


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
            values = dequantize(raw, GGMLQuantizationType[self.quantisation])
        except (NotImplementedError, ValueError) as error:
            raise SparsityReportError(
                f"{self.file}: blocks of type {self.quantisation} cannot be dequantised: {error}"
            ) from error
        return torch.from_numpy(values)


def read_header(path: Path) -> Header:
    """Return what a GGUF file announces."""
    with path.open("rb") as file:
        return parse_header(file, LocalFile(path.absolute(), Stamp.of(file)))


def parse_header(file: Opened, origin: Origin) -> Header:
    """Return the numbers, architecture and tensors that an open file announces."""
    reader = _Reader(file, origin)
    try:
        magic, version, tensors, pairs = reader.numbers("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"not a little-endian GGUF file of version 2 or 3 ({magic!r})")
        facts = _read_facts(reader, pairs)
        return facts, _read_tensors(reader, tensors, facts.get("general.alignment", 32))
    except SparsityReportError:
        raise
    except (struct.error, ValueError) as error:
        raise SparsityReportError(
            f"{origin} cannot be read as GGUF: {error}; fetch it again"
        ) from error


def _read_facts(reader: _Reader, pairs: int) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.string()
        (kind,) = reader.numbers("I")
        if kind in _SCALARS:
            (facts[key],) = reader.numbers(_SCALARS[kind])
        elif key == "general.architecture" and kind == _STRING:
            facts[key] = reader.string()
        else:
            reader.skip_value(kind)
    return facts


def _read_tensors(reader: _Reader, count: int, alignment: object) -> dict[str, Entry]:
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"alignment {alignment} is no power of two")
    slices: dict[str, tuple[tuple[int, ...], FileSlice]] = {}
    for _ in range(count):
        name = reader.string()
        (dimensions,) = reader.numbers("I")
        if dimensions > 4:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        # GGUF counts dimensions from within.
        shape = reader.numbers(f"{dimensions}Q")[::-1]
        number, offset = reader.numbers("IQ")
        if name in slices:
            raise ValueError(f"two tensors are called {name!r}")
        kind = _kind(number, reader.origin, name)
        if math.prod(shape[-1:]) % GGML_QUANT_SIZES[kind][0]:
            raise ValueError(f"rows of tensor {name!r} are not whole blocks")
        where = (reader.origin, offset)
        if dtype := _UNQUANTISED.get(kind.name):
            slices[name] = shape, FileSlice(math.prod(shape), dtype, *where)
        else:
            slices[name] = shape, BlockSlice(math.prod(shape), torch.float32, *where, kind.name)
    start = -(-reader.file.tell() // alignment) * alignment
    entries = {}
    for name, (shape, values) in slices.items():
        entries[name] = Entry(name, shape, replace(values, offset=start + values.offset))
        if start + values.offset + values.nbytes > reader.origin.size:
            raise ValueError(f"tensor {name!r} does not fit the file")
    return entries


def _kind(number: int, origin: Origin, name: str) -> GGMLQuantizationType:
    """Return the type of a tensor, if its values can be had."""
    kinds = {kind.value: kind for kind in GGMLQuantizationType}
    kind = kinds.get(number)
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


class _Reader:
    """A file read from its begin, never beyond its end."""

    def __init__(self, file: Opened, origin: Origin) -> None:
        self.file, self.origin = file, origin

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Read numbers as :mod:`struct` writes them."""
        return struct.unpack(f"<{layout}", self.file.read(struct.calcsize(f"<{layout}")))

    def string(self) -> str:
        """Read a length and so many bytes of text."""
        (length,) = self.numbers("Q")
        self._check(length)
        return self.file.read(length).decode("utf-8")

    def skip_value(self, kind: int) -> None:
        """Pass over a string or an array."""
        if kind == _STRING:
            self._skip(*self.numbers("Q"))
        elif kind == _ARRAY:
            item, count = self.numbers("IQ")
            if item in _SCALARS:
                self._skip(count * struct.calcsize(f"<{_SCALARS[item]}"))
            elif item == _STRING:
                for _ in range(count):
                    self._skip(*self.numbers("Q"))
            else:
                raise ValueError(f"array of value type {item}")
        else:
            raise ValueError(f"value type {kind}")

    def _skip(self, count: int) -> None:
        self._check(count)
        self.file.seek(count, os.SEEK_CUR)

    def _check(self, count: int) -> None:
        if self.file.tell() + count > self.origin.size:
            raise ValueError(
                f"{count} bytes announced at {self.file.tell()}, {self.origin.size} in the file"
            )
