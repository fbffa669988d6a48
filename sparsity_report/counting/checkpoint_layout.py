"""The files of a checkpoint to be written: headers, and the place of each tensor."""

import io
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparsity_report.counting.pruning import Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.weights.anatomy.converted_values import Converted
from sparsity_report.weights.packed.packed_tensor import Packed, is_remote
from sparsity_report.weights.sources.checkpoint import CheckpointWeights
from sparsity_report.weights.sources.gguf_files import ARCHITECTURE, TYPE_NUMBERS, read_pairs
from sparsity_report.weights.sources.gguf_model import GGUFWeights
from sparsity_report.weights.sources.safetensors import INDEX, SINGLE, index_name
from sparsity_report.weights.tensor_slices import (
    DTYPES,
    FP4,
    Entry,
    FileSlice,
    HeldSlice,
    LazyValues,
)
from sparsity_report.weights.weights import Weights

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Layout:
    """Files, and the tensors in them.

    Attributes
    ----------
    headers : mapping of str to bytes
        First bytes of each file, by its name.
    tensors : mapping of str to Entry
        Values to write, by the name of the tensor.
    places : mapping of str to (str, int)
        File of each tensor, and the offset of its first byte.
    index : str
        Content of the index; empty for a single file.
    index_name : str
    by_parameter : bool
        True if tensors are parameters as in memory, False if they are those of the source's files.
    unpacks : bool
        True if packed weights are written unpacked.
    alignment : int
        Multiple of bytes of each tensor of a GGUF file, whose tensors are bytes of the source; 0
        for safetensors.
    """

    headers: Mapping[str, bytes]
    tensors: Mapping[str, Entry]
    places: Mapping[str, tuple[str, int]]
    index: str = ""
    index_name: str = INDEX
    by_parameter: bool = False
    unpacks: bool = False
    alignment: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        sizes = {name: len(header) for name, header in self.headers.items()}
        for key, (file, offset) in self.places.items():
            end = offset + _size(self.tensors[key])
            sizes[file] = max(sizes[file], end + -end % (self.alignment or 1))
        return sizes

    def parts(self, weights: Weights, name: str) -> list[Entry]:
        """Return the tensors, or their rows, that hold a parameter, in the order of its values."""
        if self.by_parameter or not isinstance(weights, CheckpointWeights):
            return [self.tensors[name]]
        parts = weights.entries(name)
        if any(isinstance(part.values, Converted) for part in parts):
            raise rearranged(weights, name)
        return parts

    def place(self, part: Entry) -> tuple[str, int, int]:
        """Return the file of one of :meth:`parts`, its first byte there, and its values."""
        (file, offset), tensor = self.places[part.key], self.tensors[part.key]
        if isinstance(part.values, FileSlice) and isinstance(tensor.values, FileSlice):
            offset += part.values.offset - tensor.values.offset
        return file, offset, part.total


def rearranged(weights: Weights, name: str) -> SparsityReportError:
    """Return the error for a parameter whose values are in another order on disk."""
    return weights.wrong(
        f"has {name}, which transformers rearranges on loading, so that its values have no known "
        "place in a file; write it with masked(…).module().save_pretrained(…)"
    )


def layout_of(weights: Weights, pruning: Pruning | None, unpack: bool, name: str) -> Layout:
    """Return the files of a model: those of its source, or new ones if tensors change their form.

    Parameters
    ----------
    weights : Weights
    pruning : Pruning or None
    unpack : bool
        Whether to unpack all packed weights. They are unpacked, too, if `pruning` changes one.
    name : str
        Name of the folder, or of a GGUF file.
    """
    if name.endswith(".gguf"):
        return _gguf_file(weights, name)
    changed = pruning.changed if pruning else ()
    unpack = unpack or any(p.packing for p in weights.stored if p.name in changed)
    if not isinstance(weights, CheckpointWeights) or weights.source == "gguf":
        # The values in memory, also where a file has them in the same order.
        entries = {p.name: Weights.entry(weights, p) for p in weights.stored}
        for name, values in weights.buffers().items():
            entries[name] = Entry(name, values.shape, HeldSlice.from_array(values))
        return _new_files(entries, by_parameter=True, unpacks=True)
    if is_remote([*weights.raw.values()]):
        raise weights.wrong("is streamed from the Hub; load it without stream to write it")
    if unpack and any(isinstance(e.values, Packed) for e in weights.unpacked.values()):
        dense = {key: _dense(entry) for key, entry in weights.unpacked.items()}
        return _new_files(dense, unpacks=True)
    if weights.source != "safetensors" or weights.settings is not None:
        return _new_files(weights.raw)
    return _same_files(weights)


def _gguf_file(weights: Weights, name: str) -> Layout:
    """Return one GGUF file with the metadata and blocks of another one."""
    assert isinstance(weights, GGUFWeights)
    weights.require_local()
    from gguf import GGUFWriter, WriterState, size_label

    pairs = read_pairs(weights.header)
    pairs = {key: pair for key, pair in pairs.items() if not key.startswith("split.")}
    key = f"{weights.metadata.get(ARCHITECTURE)}.expert_count"
    if type(count := weights.metadata.get(key)) is int:
        size = len(pairs[key]) - len(key) - 12  # after the length of the key, it and the type
        pairs[key] = pairs[key][:-size] + count.to_bytes(size, "little")
    alignment = weights.metadata.get("general.alignment", 32)
    # The writer of the library, to memory, and around the pairs, which keep their bytes.
    writer, content = GGUFWriter(None, ""), io.BytesIO()
    tensors, starts, end = dict[str, Entry](), list[int](), 0
    for key, entry in weights.raw.items():
        values = entry.values
        assert isinstance(values, FileSlice)
        number, size = TYPE_NUMBERS[values.packing or _NAMES[values.dtype]], values.nbytes
        writer.add_tensor_info(key, entry.shape, np.dtype(np.float32), size, number)
        # The bytes as such, of plain values and of blocks.
        tensors[key] = Entry(key, (size,), FileSlice(size, "uint8", values.file, values.offset))
        starts.append(end)
        end += size + -size % alignment
    if type(weights.metadata.get(key := "general.size_label")) is str:
        label = size_label(*writer.get_total_parameter_count()).encode()
        pairs[key] = pairs[key][: len(key) + 12] + len(label).to_bytes(8, "little") + label
    writer.fout, writer.state, writer.data_alignment = [content], WriterState.EMPTY, alignment
    writer.kv_data = [dict.fromkeys(pairs)]
    writer.write_header_to_file()
    writer.kv_data = [{}]
    writer.write_kv_data_to_file()
    content.write(b"".join(pairs.values()))
    writer.write_ti_data_to_file()
    header = content.getvalue() + b"\0" * (-content.tell() % alignment)
    places = {key: (name, len(header) + start) for key, start in zip(tensors, starts, strict=True)}
    return Layout({name: header}, tensors, places, alignment=alignment)


def _dense(entry: Entry) -> Entry:
    """Return a tensor as it is written when packed ones are unpacked."""
    packed = entry.values
    if not isinstance(packed, Packed):
        return entry
    return replace(entry, values=LazyValues(packed.exact_dtype, packed.cut))


def _same_files(weights: CheckpointWeights) -> Layout:
    """Return the files of the source, headers included."""
    is_folder = weights.path.is_dir()
    named = index_name([file.name for file in weights.path.iterdir()]) if is_folder else ""
    index = (weights.path / named).read_text(encoding="utf-8") if named else ""
    headers: dict[str, bytes] = {}
    places: dict[str, tuple[str, int]] = {}
    for key, entry in weights.raw.items():
        assert isinstance(entry.values, FileSlice)
        name = entry.values.file.name if is_folder else SINGLE
        places[key] = name, entry.values.offset
        if name not in headers:
            origin = entry.values.file
            headers[name] = origin.read(0, 8 + int(origin.read(0, 8).view("<u8")[0])).tobytes()
    return Layout(headers, weights.raw, places, index, named)


def _new_files(
    tensors: Mapping[str, Entry], by_parameter: bool = False, unpacks: bool = False
) -> Layout:
    """Return files of at most 5 GB each, or of a single larger tensor."""
    from huggingface_hub import split_state_dict_into_shards_factory

    shards = split_state_dict_into_shards_factory(
        {**tensors}, get_storage_size=_size, filename_pattern="model{suffix}.safetensors"
    )
    headers: dict[str, bytes] = {}
    places: dict[str, tuple[str, int]] = {}
    for name, keys in shards.filename_to_tensors.items():
        # Readers expect values at multiples of their size.
        entries = sorted(map(tensors.__getitem__, keys), key=lambda e: -value_bytes(e.values.dtype))
        headers[name], starts = _header(entries)
        places |= {e.key: (name, start) for e, start in zip(entries, starts, strict=True)}
    content = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
    index = json.dumps(content, indent=2) + "\n" if shards.is_sharded else ""
    return Layout(headers, tensors, places, index, INDEX, by_parameter, unpacks)


def _header(entries: list[Entry]) -> tuple[bytes, list[int]]:
    """Return the header of a file, and the offset of each tensor in it."""
    fields: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = [], 0
    for entry in entries:
        shape, dtype = list(entry.shape), entry.kind or _NAMES[entry.values.dtype]
        if dtype == FP4:
            shape[-1] *= 2  # two to a byte
        starts.append(end)
        end += _size(entry)
        fields[entry.key] = {"dtype": dtype, "shape": shape, "data_offsets": [starts[-1], end]}
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return header, [len(header) + start for start in starts]


def _size(entry: Entry) -> int:
    return math.prod(entry.shape) * value_bytes(entry.values.dtype)
