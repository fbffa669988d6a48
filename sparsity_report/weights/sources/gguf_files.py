"""GGUF files: headers, checked before any value is read, quantized blocks, and shards of a model.

The public readers trust lengths and sizes: a file of 49 bytes that announces 2⁶⁰ entries keeps them
busy for ever, and they would build a model of 10⁹ blocks.

Layout of the file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, of the blocks:
https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsity_report.errors import SparsityReportError, explained
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.tensor_slices import (
    DTYPES,
    Bytes,
    Entry,
    FileSlice,
    Floats,
    LocalFile,
    Origin,
    Rounding,
)

#: Types of tensors by number: name, values of a block and its bytes.
#: https://github.com/ggml-org/ggml/blob/master/include/ggml.h
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}  # fmt: skip
# Values and bytes of a block by the name of its type.
_BLOCKS = {name: sizes for name, *sizes in TYPES.values()}
# Most dimensions of a tensor in the format.
_DIMENSIONS = 4

Metadata = dict[str, Any]
# Metadata, and tensors by name.
Header = tuple[Metadata, dict[str, Entry]]
#: Headers of the shards of a model, in order.
Headers = Mapping[Path, Header]
# Shape and type of a tensor, and the offset of its values from the first.
_Tensor = tuple[tuple[int, ...], str, int]
# Models in shards, as llama.cpp names them.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
#: Numbers of the types by name.
TYPE_NUMBERS = {name: number for number, (name, *_) in TYPES.items()}
#: Key of the vocabulary; its value is kept as the number of tokens.
TOKENS = "tokenizer.ggml.tokens"
ARCHITECTURE = "general.architecture"

# Format characters of struct by scalar value type; 7 is a boolean, 8 a string, 9 an array.
_SCALARS = dict(zip((*range(8), 10, 11, 12), "BbHhIifBQqd", strict=True))
_BOOL, _STRING, _ARRAY = 7, 8, 9
# Value types of keys, as llama.cpp requires; integers of other keys are read in any width.
_KINDS = {
    "general.alignment": 4, "split.no": 2, "split.count": 2, "split.tensors.count": 5,
    TOKENS: _ARRAY,
}  # fmt: skip
# Fewest bytes of a metadata pair and of a tensor: length of the name, type, value, offset.
_PAIR, _TENSOR = 13, 24
# Bytes of the header that are read at a time.
_CHUNK = 2**20

# Names of sizes of a model, and their largest values.
_SIZES = {
    r"block_count|nextn_predict_layers": limits.BLOCKS,
    r"expert\w*_count": limits.EXPERTS,
    r"head_count\w*|\w*(group|bucket)s?_count": limits.HEADS,
    r"vocab_size": limits.VOCABULARY,
    r"\w*context_length": limits.POSITIONS,
    r"\w*_(length|size|rank|kernel)|dimension_count|l_cache": limits.WIDTH,
}


@dataclass(frozen=True, eq=False)
class BlockSlice(FileSlice):
    """Quantized values in blocks, of the GGUF type `packing`."""

    @property
    def rounding(self) -> Rounding | None:
        """Rounding of these blocks."""
        return ROUNDINGS.get(self.packing)

    def rounded(self) -> Iterator[tuple[Array, Floats]]:
        """Yield each chunk of values with the rounding steps of its blocks."""
        _, size = _BLOCKS[self.packing]
        for raw in self.raw():
            yield self.decode(raw), block_steps(self.packing, raw.reshape(-1, size))

    def bytes_of(self, count: int) -> int:
        """Return the bytes of `count` values, which fill whole blocks."""
        values, size = _BLOCKS[self.packing]
        return count // values * size

    def unpack(self, raw: Bytes) -> Floats:
        """Return the dequantized values of blocks."""
        from gguf import GGMLQuantizationType, dequantize

        # Older versions of the library do not name every type.
        undecoded = explained(self._explain, KeyError, NotImplementedError, ValueError)
        # NaN or huge scales give NaN or infinite values, which are counted as such.
        with np.errstate(all="ignore"), undecoded:
            values: Floats = dequantize(raw, GGMLQuantizationType[self.packing])
            return values

    def _explain(self, error: Exception) -> str:
        return (
            f"{self.file}: blocks of type {self.packing} cannot be dequantized: {error}; "
            "update the gguf library, or give a file of another type"
        )


def read_header(file: Path | Origin) -> Header:
    """Return metadata and tensors of a GGUF file.

    Raises
    ------
    SparsityReportError
        The header is damaged, or a tensor has an unknown type.
    """
    origin = LocalFile.look_up(file) if isinstance(file, Path) else file
    reader = HeaderReader(origin)
    with explained(lambda e: f"{origin} cannot be read as GGUF: {e}; download it again"):
        magic, version, tensors, pairs = reader.numbers("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(
                f"not a little-endian GGUF file of version 2 or 3 ({magic!r}, version {version})"
            )
        reader.check_counts(tensors, pairs)
        metadata = _read_metadata(reader, pairs)
        return metadata, _read_tensors(reader, tensors, metadata)


def _read_tensors(reader: HeaderReader, count: int, metadata: Metadata) -> dict[str, Entry]:
    """Read the tensors; their values must follow each other, as llama.cpp requires."""
    alignment = metadata.get("general.alignment", 32)
    if alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"alignment {alignment} is not a power of two")
    tensors: dict[str, _Tensor] = {}
    next_offset = end = 0
    for _ in range(count):
        name = reader.name()
        if name in tensors:
            raise ValueError(f"two tensors have the name {name!r}")
        shape, kind, offset = tensors[name] = _read_tensor(reader, name)
        if offset != next_offset:
            raise ValueError(f"the values of {name!r} begin at {offset:,}, not at {next_offset:,}")
        values, size = _BLOCKS[kind]
        end = offset + math.prod(shape) // values * size
        next_offset = -(-end // alignment) * alignment
    start = -(-reader.place // alignment) * alignment
    if tensors and start + end > reader.origin.size:
        raise ValueError(f"tensor {name!r} does not fit the file")
    entries = {}
    for name, (shape, kind, offset) in tensors.items():
        place = math.prod(shape), DTYPES.get(kind, "float32"), reader.origin, start + offset
        # Plain values have the names of safetensors.
        stored = FileSlice(*place) if kind in DTYPES else BlockSlice(*place, kind)
        entries[name] = Entry(name, shape, stored)
    return entries


def _read_tensor(reader: HeaderReader, name: str) -> _Tensor:
    """Return shape and type of a tensor, and the offset of its values from the first."""
    (dimensions,) = reader.numbers("I")
    if dimensions > _DIMENSIONS:
        raise ValueError(f"tensor {name!r} has {dimensions:,} dimensions")
    *inward, number, offset = reader.numbers(f"{dimensions}QIQ")
    # GGUF lists the innermost dimension first.
    shape = tuple(inward[::-1])
    if not 0 < math.prod(shape) <= limits.VALUES:
        raise ValueError(f"tensor {name!r} has the shape {shape}")
    if number not in TYPES:
        raise SparsityReportError(
            f"{reader.origin}: tensor {name!r} is of type {number}, which is not known; give a "
            "file of another type"
        )
    kind, size, _ = TYPES[number]
    if math.prod(shape[-1:]) % size:
        raise ValueError(f"rows of tensor {name!r} are not whole blocks")
    return shape, kind, offset


class HeaderReader:
    """A header read from its beginning, never beyond its end.

    Attributes
    ----------
    origin : Origin
    place : int
        Offset of the next byte.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin, self.place = origin, 0
        self._end = min(origin.size, limits.GGUF_HEADER_BYTES)
        # The last bytes that were read, their offset in the file, and the number of skipped texts.
        self._chunk, self._begin, self._texts = b"", 0, 0

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Read numbers in a layout of :mod:`struct`, little-endian."""
        layout = f"<{layout}"
        return struct.unpack(layout, self._read(struct.calcsize(layout)))

    def name(self) -> str:
        """Read a length and a text of that length."""
        (length,) = self.numbers("Q")
        if length > limits.NAME_LENGTH:
            raise ValueError(f"a name of {length:,} bytes at {self.place:,}")
        return self._read(length).decode("utf-8")

    def value(self, key: str, kind: int) -> object:
        """Read a value, and skip long texts and lists.

        Returns
        -------
        object
            A number, boolean, text or list of them; for the vocabulary the number of tokens;
            None for a value that is skipped.
        """
        if kind in _SCALARS:
            return self._scalars(kind, 1)[0]
        if kind == _STRING:
            (length,) = self.numbers("Q")
            if length > limits.NAME_LENGTH:
                self._read(length)
                return None
            # Other texts are only displayed, so invalid bytes in them do no harm.
            errors = "strict" if key == ARCHITECTURE else "replace"
            return self._read(length).decode("utf-8", errors)
        if kind != _ARRAY:
            raise ValueError(f"{key!r} is of value type {kind}")
        item, count = self.numbers("IQ")
        if item in _SCALARS and key != TOKENS:
            if count <= limits.BLOCKS:
                return self._scalars(item, count)
            self._read(count * struct.calcsize(f"<{_SCALARS[item]}"))
            return None
        if item != _STRING:
            raise ValueError(f"{key!r} is an array of value type {item}")
        if key == "imatrix.datasets" and count <= limits.BLOCKS:
            return [self.value(key, _STRING) for _ in range(count)]
        self._skip_texts(count)
        return count if key == TOKENS else None

    def check_counts(self, tensors: int, pairs: int) -> None:
        """Refuse more tensors and metadata pairs than the limits or the file size allow."""
        if tensors > limits.TENSORS:
            raise ValueError(
                f"it announces {tensors:,} tensors, more than the limit of {limits.TENSORS:,}"
            )
        least = self.place + _TENSOR * tensors + _PAIR * pairs
        if pairs > limits.GGUF_PAIRS or least > self._end:
            raise ValueError(
                f"it announces {tensors:,} tensors and {pairs:,} metadata pairs but has "
                f"{self.origin.size:,} bytes"
            )

    def _scalars(self, kind: int, count: int) -> list[Any]:
        values = list(self.numbers(f"{count}{_SCALARS[kind]}"))
        if kind != _BOOL:
            return values
        if not set(values) <= {0, 1}:
            raise ValueError("a boolean that is neither 0 nor 1")
        return [bool(value) for value in values]

    def _skip_texts(self, count: int) -> None:
        self._check(8 * count)  # their lengths alone
        self._texts += count
        if self._texts > limits.GGUF_TEXTS:
            raise ValueError(f"lists of more than {limits.GGUF_TEXTS:,} texts")
        length_at = struct.Struct("<Q").unpack_from
        for _ in range(count):
            start = self.place - self._begin
            if (buffered := len(self._chunk) - start - 8) >= 0:
                (length,) = length_at(self._chunk, start)
                if length <= buffered:  # the usual case, skipped without a seek
                    self.place += 8 + length
                    continue
            self._read(*self.numbers("Q"))

    def _read(self, count: int) -> bytes:
        """Return the next bytes."""
        start = self.place - self._begin
        if (lacking := start + count - len(self._chunk)) > 0:
            self._check(count)
            stop = self._begin + len(self._chunk)
            raw = self.origin.read(stop, min(max(lacking, _CHUNK), self._end - stop))
            self._chunk, self._begin = self._chunk[start:] + raw.tobytes(), self.place
            start = 0
        self.place += count
        return self._chunk[start : start + count]

    def _check(self, count: int) -> None:
        if self.place + count <= self._end:
            return
        if self._end < self.origin.size:
            raise ValueError(f"its header is longer than the limit of {self._end:,} bytes")
        raise ValueError(
            f"it announces {count:,} bytes at {self.place:,} but has {self.origin.size:,}"
        )


def _read_metadata(reader: HeaderReader, count: int) -> Metadata:
    """Return the metadata of a model, with its sizes within limits.

    Raises
    ------
    ValueError
        A key is there twice, or a value is impossible.
    """
    metadata: Metadata = {}
    for _ in range(count):
        key = reader.name()
        if key in metadata:
            raise ValueError(f"the key {key!r} is there twice")
        (kind,) = reader.numbers("I")
        due = _BOOL if key.endswith(".attention.causal") else _KINDS.get(key, kind)
        if kind != due:
            raise ValueError(f"{key!r} is of value type {kind}, not {due}")
        metadata[key] = reader.value(key, kind)
    architecture = metadata.get(ARCHITECTURE, "")
    if not isinstance(architecture, str):
        raise ValueError(f"{ARCHITECTURE} is not text")
    for key, value in metadata.items():
        if key.startswith(f"{architecture}."):
            _check_size(key, value)
    keys = (f"{architecture}.expert_used_count", f"{architecture}.expert_count")
    if all(metadata.get(key) is not None for key in keys):
        used, total = (check_integer(metadata[key], key) for key in keys)
        if not (used == total == 0 or 0 < used <= total):
            raise ValueError(f"{used:,} of {total:,} experts are used, which cannot be")
    return metadata


def _check_size(key: str, value: object) -> None:
    name = key.rpartition(".")[2]
    for pattern, most in _SIZES.items():
        if re.fullmatch(pattern, name):
            # Some sizes are lists with one item per block.
            for each in value if isinstance(value, list) else [value]:
                check_integer(each, key, high=most)


def block_steps(kind: str, blocks: Bytes) -> Floats:
    """Return the steps of blocks in order; each step covers equally many weights.

    Parameters
    ----------
    kind : str
        One of :data:`ROUNDINGS`.
    blocks : numpy.ndarray
        uint8, shape (blocks, bytes of a block).
    """
    return np.abs(_STEPS[kind](blocks)).astype(np.float32, copy=False)


def _half(blocks: Bytes, place: int) -> Floats:
    """Return the 16-bit float at a byte offset of each block, shape (blocks, 1)."""
    number = np.ascontiguousarray(blocks[:, place : place + 2]).view(np.float16)
    return number.astype(np.float32)


def _q3_k(blocks: Bytes) -> Floats:
    low: Bytes = np.concatenate([blocks[:, 96:104] & 15, blocks[:, 96:104] >> 4], axis=1)
    shifts = np.array([[0], [2], [4], [6]], np.uint8)
    high = (blocks[:, None, 104:108] >> shifts & 3).reshape(-1, 16)
    return _half(blocks, 108) * ((low | high << 4).astype(np.int16) - 32)


def _q4_k(blocks: Bytes) -> Floats:
    from gguf.quants import Q4_K

    scales: Bytes = Q4_K.get_scale_min(np.ascontiguousarray(blocks[:, 4:16]))[0]
    return _half(blocks, 0) * scales


# Rounding steps by type of blocks, which the public decoder does not return.
_STEPS: Mapping[str, Callable[[Bytes], Floats]] = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "Q4_1", "Q5_1"), lambda blocks: _half(blocks, 0)),
    "Q2_K": lambda blocks: _half(blocks, 80) * (blocks[:, :16] & 15),
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q4_k,
    "Q6_K": lambda blocks: (
        _half(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    ),
    "MXFP4": lambda blocks: np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 127),
}
_AFFINE = ("Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K")

#: Rounding by type of blocks. Missing are ternary types, whose models are trained to be ternary,
#: and types that look up runs of weights in a table.
ROUNDINGS: Mapping[str, Rounding] = {
    **dict.fromkeys(_STEPS, Rounding()),
    **dict.fromkeys(_AFFINE, Rounding(has_zero=False)),
    "MXFP4": Rounding(0.25, 0.25),
}


def shard_names(name: str) -> list[str]:
    """Return the names of all shards of the model that a file belongs to, in order.

    Examples
    --------
    >>> shard_names("x-00002-of-00002.gguf"), shard_names("x.gguf")
    (['x-00001-of-00002.gguf', 'x-00002-of-00002.gguf'], ['x.gguf'])
    """
    match = _SHARD.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return [name]
    total = int(match["count"])
    return [f"{match['stem']}-{number:05}-of-{total:05}.gguf" for number in range(1, total + 1)]


def model_names(names: Iterable[str]) -> list[str]:
    """Return the name of the first shard of each GGUF model among files, present or not.

    Examples
    --------
    >>> model_names(["b.gguf", "a-00002-of-00002.gguf", "a-00001-of-00002.gguf", "a.txt"])
    ['a-00001-of-00002.gguf', 'b.gguf']
    """
    return sorted({shard_names(name)[0] for name in names if name.endswith(".gguf")})


def unsharded_name(name: str) -> str:
    """Return the name that the file of a model would have without shards.

    Examples
    --------
    >>> unsharded_name("x-00002-of-00003.gguf")
    'x.gguf'
    """
    return name if len(shard_names(name)) == 1 else _SHARD.sub(r"\g<stem>.gguf", name)


def read_model(headers: Headers) -> tuple[Path, Metadata, dict[str, Entry]]:
    """Return the first shard of a model, its metadata, and the tensors of all shards.

    Parameters
    ----------
    headers : mapping
        Headers of all shards in order.

    Raises
    ------
    SparsityReportError
        A shard is missing, or shards belong to different models.
    """
    first, *_ = headers
    metadata, _ = headers[first]
    entries: dict[str, Entry] = {}
    for number, (file, (claims, tensors)) in enumerate(headers.items()):
        _check_claims(file, claims, number, len(headers))
        for key in ("split.tensors.count", "general.architecture"):
            if claims.get(key, metadata.get(key)) != metadata.get(key):
                raise SparsityReportError(
                    f"{file}: {key} is {claims[key]} but {metadata.get(key)} in {first.name}, so "
                    "they are shards of two models; download all shards of one again"
                )
        if repeated := sorted(entries.keys() & tensors):
            raise SparsityReportError(
                f"{file}: tensor {repeated[0]!r} is in {entries[repeated[0]].origin} too, so they "
                "are shards of two models; download all shards of one again"
            )
        entries |= tensors
    if len(headers) > 1 and len(entries) != metadata.get("split.tensors.count"):
        raise SparsityReportError(
            f"{first}: its shards hold {len(entries)} tensors, but split.tensors.count is "
            f"{metadata.get('split.tensors.count')}; download all shards again"
        )
    _check_scales(first, entries)
    return first, metadata, entries


def read_pairs(origin: Origin) -> dict[str, bytes]:
    """Return each pair of metadata of an opened file by key, as its bytes."""
    reader, pairs = HeaderReader(origin), dict[str, bytes]()
    for _ in range(reader.numbers("4sIQQ")[3]):
        start, key = reader.place, reader.name()
        reader.value(key, *reader.numbers("I"))
        pairs[key] = origin.read(start, reader.place - start).tobytes()
    return pairs


def read_headers(path: Path) -> Headers:
    """Return the headers of all shards of the model that a file belongs to."""
    files = [path.with_name(name) for name in shard_names(path.name)]
    if missing := [file.name for file in files if not file.is_file()]:
        raise SparsityReportError(
            f"{path.with_name(unsharded_name(path.name))} is in {len(files)} shards, and "
            f"{len(missing)} of them are missing, first {missing[0]}; download all into one folder"
        )
    return {file: read_header(file) for file in files}


def _check_claims(file: Path, claims: Metadata, number: int, count: int) -> None:
    """Refuse a file whose header and name disagree on the shard."""
    # llama.cpp writes a count of 0 when it merges shards.
    claimed_number, claimed_count = claims.get("split.no", 0), claims.get("split.count") or 1
    if (claimed_number, claimed_count) == (number, count):
        return
    if count == 1:
        raise SparsityReportError(
            f"{file} is one of {claimed_count} shards of a model; give each the name that "
            "llama.cpp gives it, such as name-00001-of-00003.gguf, and put all into one folder"
        )
    raise SparsityReportError(
        f"{file}: split.no is {claimed_number} and split.count {claimed_count}, but its name "
        f"means {number} and {count}; download it again, or give it its original name"
    )


def _check_scales(path: Path, entries: Mapping[str, Entry]) -> None:
    """Refuse blocks with a separate tensor of scales, as NVFP4 and BitNet may have."""
    for key in entries:
        weight = entries.get(f"{key.removesuffix('.scale')}.weight")
        if key.endswith(".scale") and weight and isinstance(weight.values, BlockSlice):
            raise SparsityReportError(
                f"{path}: {key!r} multiplies the blocks ({weight.values.packing}) of "
                f"{weight.key!r}, which is not supported; give a file of another type"
            )
