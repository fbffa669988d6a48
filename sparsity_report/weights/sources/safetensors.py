"""Weights in one safetensors file, or in shards that an index names."""

import fnmatch
import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from sparsity_report.errors import SparsityReportError, explained
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, check_name, parse_json, read_json
from sparsity_report.weights.tensor_slices import (
    DTYPES,
    E8M0,
    FP4,
    Entry,
    FileSlice,
    LocalFile,
    Origin,
)

F = TypeVar("F", bound=Path | Origin)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Most bytes of a file name.
_LONGEST = 255

# Bytes of a header above which one at a time is held in memory.
_LARGE = 2**22
_LARGE_HEADERS = Lock()

# Dtypes that torch lacks, read as bytes.
_BYTES = (E8M0, FP4)


@dataclass(frozen=True)
class Shards(Generic[F]):
    """The safetensors files of a checkpoint.

    Attributes
    ----------
    files : sequence of Path or Origin
    weight_map : mapping of str to str, optional
        File of each tensor, from the index.
    """

    files: Sequence[F]
    weight_map: Mapping[str, str] | None = None

    def read(self, file: F) -> list[Entry]:
        """Return the tensors of a file.

        Raises
        ------
        SparsityReportError
            The file and the index disagree on its tensors.
        """
        entries = read_header(file)
        if self.weight_map is None:
            return entries
        keys, name = {entry.key for entry in entries}, file.name
        placed = {key for key, holder in self.weight_map.items() if holder == name}
        if lacking := sorted(placed - keys):
            raise SparsityReportError(
                f"{file} lacks {len(lacking)} tensor(s) that the index places in it, "
                f"first {lacking[0]!r}; download both again"
            )
        for stray in sorted(keys - placed)[:1]:
            other = self.weight_map.get(stray)
            claim = f"places it in {other}" if other else "does not name it"
            raise SparsityReportError(
                f"{file} holds tensor {stray!r}, but the index {claim}; download both again"
            )
        return entries


def index_name(names: Collection[str]) -> str:
    """Return the name of the one index among files, empty without one; diffusers has its own."""
    named = [INDEX] if INDEX in names else fnmatch.filter(names, "*.safetensors.index.json")
    return named[0] if len(named) == 1 else ""


def read_index(index: Path) -> dict[str, str]:
    """Return the file of each tensor, with checked file names."""
    with explained(lambda e: f"{index} is not a safetensors index: {e!r}; download it again"):
        weight_map: dict[str, str] = read_json(index, once=True)["weight_map"]
        if not isinstance(weight_map, dict):
            raise ValueError("its weight_map is not a JSON object")
        names = sorted({str(name) for name in weight_map.values()})
    if not names:
        raise SparsityReportError(f"{index} names no tensor; download it again")
    for name in names:
        if not (
            Path(name).name == name
            and "\\" not in name
            and name.isprintable()
            and len(name.encode()) <= _LONGEST
            and name.endswith(".safetensors")
        ):
            raise SparsityReportError(
                f"{index} names a shard outside its folder: {name!r}; download it again"
            )
    return weight_map


def is_within(file: Path) -> bool:
    """Return True if a link leads to its folder or to the blobs of its Hub cache entry."""
    try:
        home, target = file.parent.resolve(), file.resolve()
    except (OSError, RuntimeError):  # circular links
        return False
    allowed = {home}
    if home.parent.name == "snapshots":
        allowed.add(home.parent.parent / "blobs")
    return target.parent in allowed


def read_header(file: Path | Origin) -> list[Entry]:
    """Return the tensors of a file in the order of their values.

    Layout: https://github.com/huggingface/safetensors#format
    """
    entries = []
    with explained(lambda e: f"{file} cannot be read as safetensors: {e}; download it again"):
        origin = LocalFile.look_up(file) if isinstance(file, Path) else file
        length = _header_length(origin)
        with _LARGE_HEADERS if length > _LARGE else nullcontext():
            tensors = _tensors(origin.read(8, length).tobytes(), origin.size - 8 - length)
        for key, dtype_name, shape, begin in tensors:
            shape, dtype = _stored_shape(f"{file}: tensor {key!r}", shape, dtype_name)
            values = FileSlice(math.prod(shape), dtype, origin, 8 + length + begin)
            entries.append(Entry(key, shape, values, dtype_name if dtype_name in _BYTES else ""))
    return entries


def _stored_shape(where: str, shape: tuple[int, ...], dtype: str) -> tuple[tuple[int, ...], str]:
    """Return shape and name of the dtype of the stored values of a tensor."""
    if dtype == FP4:
        if 0 in shape or shape[-1] % 2:
            raise SparsityReportError(
                f"{where} has dtype {dtype} and shape {shape}, not rows of whole bytes; "
                "save it again"
            )
        return (*shape[:-1], shape[-1] // 2), "uint8"
    if dtype not in DTYPES and dtype not in _BYTES:
        raise SparsityReportError(
            f"{where} has dtype {dtype[:40]}, which is not known; convert it to another one"
        )
    return shape, DTYPES.get(dtype, "uint8")


def _header_length(origin: Origin) -> int:
    """Return the bytes of the JSON text at the beginning of a file."""
    if origin.size < 8:
        raise ValueError(f"it has {origin.size} bytes")
    length = int(origin.read(0, 8).view("<u8")[0])
    if length > origin.size - 8:
        raise ValueError(f"its header announces {length:,} bytes, but the file has {origin.size:,}")
    if length > limits.HEADER_BYTES:
        raise ValueError(
            f"its header announces {length:,} bytes, more than the {limits.HEADER_BYTES:,} of "
            "the format"
        )
    return length


def _tensors(text: bytes, size: int) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Return name, dtype, shape and offset of each tensor in the order of their values.

    Refuse everything that the safetensors library refuses, and duplicate names. The values must
    fill all `size` bytes after the header without gaps or overlaps.
    """
    if text[:1] != b"{":
        raise ValueError("its header is not a JSON object")
    header = parse_json(text, once=True, finite=True)
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata is not a mapping of texts")
    if len(header) > limits.TENSORS:
        raise ValueError(
            f"it announces {len(header):,} tensors, more than the limit of {limits.TENSORS:,}"
        )
    tensors = [(key, *_checked(key, fields)) for key, fields in header.items()]
    tensors.sort(key=lambda tensor: tensor[3:])
    next_begin = 0
    for key, _, _, begin, end in tensors:
        if begin != next_begin:
            raise ValueError(f"the values of {key!r} begin at {begin:,}, not at {next_begin:,}")
        next_begin = end
    if next_begin != size:
        raise ValueError(
            f"its header announces {next_begin:,} bytes of values, but the file has {size:,}"
        )
    return [tensor[:4] for tensor in tensors]


def _checked(key: str, fields: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Return dtype, shape, begin and end of a tensor if they agree."""
    match fields:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]}:
            check_name(key)
        case _:
            raise ValueError(f"it lacks dtype, shape or data_offsets of {key!r}")
    for number in (*shape, begin, end):
        check_integer(number, f"shape or data_offsets of {key!r}")
    if len(shape) > limits.DIMENSIONS:
        raise ValueError(f"{key!r} has {len(shape):,} dimensions")
    if math.prod(max(n, 1) for n in shape) > limits.VALUES:
        raise ValueError(f"the shape of {key!r} has too many values")
    digits = re.search(r"\d{1,3}", dtype)
    bits = math.prod(shape) * (8 if dtype == "BOOL" else int(digits[0]) if digits else 0)
    if bits != 8 * (end - begin):
        raise ValueError(f"{key!r} takes {end - begin:,} bytes for {dtype[:40]} {tuple(shape)}")
    return dtype, tuple(shape), begin, end
