"""What each tensor of a checkpoint is, decided before anything is counted.

Tensors that make up one weight become one entry with a decoder; scales, zero points and what
belongs to activations are not parameters. What looks packed and is not understood is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.packed import (
    bitsandbytes,
    compressed_tensors,
    gptq_awq,
    mlx,
    scaled_floats,
)
from sparsity_report.weights.packed.packed_tensor import Packed, Undecoded
from sparsity_report.weights.packed.part_slices import FP4, origin
from sparsity_report.weights.packed.quantization_config import Scheme
from sparsity_report.weights.packed.tensor_groups import Parts
from sparsity_report.weights.tensor_slices import Entry

# A leaf of a packed weight, and what stands before it. Longer ones first.
_LEAF = re.compile(
    r"^(?P<owner>.+?)(?:\.weight)?\.(?P<leaf>weight_(?:packed|scale_inv|scale_2|scale|global_scale|"
    r"zero_point|shape|g_idx|format)|qweight|qzeros|scales|biases|g_idx|compressed|bitmask|"
    r"row_offsets|shape|scale_packed|meta|SCB|absmax|quant_map|nested_absmax|nested_quant_map|"
    r"quant_state\.bitsandbytes__\w+|_weight_\w+)$"
    r"|^(?P<fused>.+)_(?P<part>blocks|scales)$"
)
# Of activations and of the cache, never of weights.
_BESIDE = re.compile(
    r"\.((input|output)_(scale|global_scale|zero_point)|(q|k|v|prob|prob_output)_(scale|zero_point)|"
    r"act_scale|act_scales)$"
)
# Masks, places and rotary tables that older checkpoints carry: of integers, yet not packed.
_INDEX = re.compile(
    r"(^|\.)(position_ids|token_type_ids|position_index|relative_position_index|"
    r"num_batches_tracked|attn\.bias|attention\.bias|cu_seqlens|\w*_mask|mask)$"
)
# Of weights, too, but not needed to read those that are not packed.
_TOLD_BESIDE = {
    "weight_scale", "weight_zero_point", "weight_g_idx", "weight_global_scale",
}  # fmt: skip
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_SMALL_FLOATS = {"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"}

# By what a weight's leaves are called; the first that knows them all decodes them.
_FORMATS: tuple[tuple[frozenset[str], Callable[[Parts, Scheme], Packed]], ...] = (
    (frozenset({"compressed", "bitmask", "shape"}), compressed_tensors.bitmasked),
    (frozenset({"weight_packed", "scale_packed", "meta"}), compressed_tensors.marlin),
    (frozenset({"weight_packed", "weight_scale"}), compressed_tensors.compressed),
    (frozenset({"qweight", "scales"}), gptq_awq.gptq_or_awq),
    (frozenset({"blocks", "scales"}), scaled_floats.fused_mxfp4),
    (frozenset({"weight", "absmax", "quant_map"}), bitsandbytes.bitsandbytes_4bit),
    (frozenset({"weight", "SCB"}), bitsandbytes.bitsandbytes_8bit),
    (frozenset({"weight", "scales"}), mlx.mlx),
    (frozenset({"weight", "weight_scale_2"}), scaled_floats.modelopt),
    (frozenset({"weight", "weight_scale"}), scaled_floats.scaled),
    (frozenset({"weight", "weight_scale_inv"}), scaled_floats.scaled),
    (frozenset({"_weight_qdata", "_weight_scale"}), scaled_floats.torchao),
)

# What a configuration may call it, and how the layouts that it then holds begin.
_METHODS = {
    "auto-round": ("gptq-", "awq-"),
    "awq": ("awq-",),
    "bitsandbytes": ("nf4", "fp4", "bitsandbytes-"),
    "compressed-tensors": (
        "sparse-", "marlin-24-", "pack-quantized-", "nvfp4", "mxfp4", "mxfp6", "mxfp8", "int8",
        "fp8",
    ),
    "fbgemm-fp8": ("fp8",),
    "fp8": ("fp8",),
    "gptq": ("gptq-",),
    "mlx": ("mlx-",),
    "modelopt": ("nvfp4", "mxfp8", "fp8"),
    "mxfp4": ("mxfp4",),
    "torchao": ("torchao-",),
}  # fmt: skip
# The same, where a further word of it says more.
_FORMS = {
    ("load_in_4bit", True): ("nf4", "fp4"),
    ("load_in_8bit", True): ("bitsandbytes-",),
    ("format", "pack-quantized"): ("sparse-", "pack-quantized-"),
    ("format", "int-quantized"): ("sparse-", "int8"),
    ("format", "float-quantized"): ("sparse-", "fp8"),
    ("format", "nvfp4-pack-quantized"): ("nvfp4",),
    ("format", "mxfp4-pack-quantized"): ("mxfp4",),
    ("format", "mxfp6-pack-quantized"): ("mxfp6",),
    ("format", "mxfp8-quantized"): ("mxfp8",),
    ("format", "marlin-24"): ("marlin-24-",),
}
# Weights that come out of a decoder at once, in 1 GB: a row that is longer is no layer's.
_LARGEST = 2**28


@dataclass(frozen=True)
class Recognised:
    """The parameters of a checkpoint, packed ones among them.

    Attributes
    ----------
    entries : mapping of str to Entry
    notes : tuple of str
        What a careful reader should know.
    """

    entries: Mapping[str, Entry]
    notes: tuple[str, ...] = ()


@dataclass
class _Sorted:
    """Tensors by what they are: parts of packed weights, or by themselves."""

    weights: dict[tuple[str, bool], Parts] = field(default_factory=dict)
    alone: dict[str, Entry] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)


def recognise(entries: Mapping[str, Entry], scheme: Scheme) -> Recognised:
    """Decide what each tensor of a checkpoint is.

    Raises
    ------
    SparsityReportError
        A tensor looks packed and is not understood, parts of one are missing or do not fit, or
        the configuration says that weights are packed which are not.
    """
    for size in scheme.group_sizes():
        if size == 0 or size < -1:
            raise SparsityReportError(
                f"{scheme.file} says that {size} weights share a scale, which cannot be; fetch it "
                "again"
            )
    sorted_ = _sort(entries, scheme)
    decoders = {parts.name: _decoder(parts, scheme) for parts in sorted_.weights.values()}
    packed = {name: Entry(name, values.shape, values) for name, values in decoders.items()}
    _check_method(scheme, {decoder.packing for decoder in decoders.values()})
    # A scale beside plain weights may be a parameter of its own.
    plain = {
        key: entry
        for key, entry in entries.items()
        if key in sorted_.alone or (key in sorted_.beside and not (packed or scheme.method))
    }
    known = {key: entry for key, entry in plain.items() if not _is_index(entry)}
    for entry in known.values():
        if scheme.method and entry.dtype in {*_SMALL_FLOATS, FP4}:
            raise SparsityReportError(
                f"{origin(entry)}: {entry.key!r} holds {entry.dtype} and has no scale; fetch the "
                "whole checkpoint"
            )
    fours = {
        key: _bounded(scaled_floats.unscaled(entry))
        for key, entry in known.items()
        if entry.kind == FP4
    }
    known |= {key: Entry(key, values.shape, values) for key, values in fours.items()}
    places = {key: place for place, key in enumerate(entries)}
    firsts = {
        min((part.key for part in decoder.parts), key=places.__getitem__): name
        for name, decoder in decoders.items()
    }
    ordered = {
        firsts.get(key, key): packed[firsts[key]] if key in firsts else known[key]
        for key in entries
        if key in firsts or key in known
    }
    return Recognised(ordered, _notes([*decoders.values(), *fours.values()]))


def _sort(entries: Mapping[str, Entry], scheme: Scheme) -> _Sorted:
    sorted_ = _Sorted()
    for key, entry in entries.items():
        if found := _LEAF.match(key):
            fused = found["fused"] is not None
            owner = found["fused"] or found["owner"]
            parts = sorted_.weights.setdefault((owner, fused), Parts(owner, fused))
            parts.add(found["part"] or found["leaf"], entry)
        elif _BESIDE.search(key):
            sorted_.beside.append(key)
        else:
            sorted_.alone[key] = entry
    for owner, parts in list(sorted_.weights.items()):
        if not parts.fused and (plain := sorted_.alone.pop(parts.name, None)) is not None:
            parts.add("weight", plain)
        if _is_packed(parts, scheme):
            continue
        del sorted_.weights[owner]
        for leaf, entry in parts.leaves.items():
            if leaf not in _TOLD_BESIDE:
                sorted_.alone[entry.key] = entry
    _check_names(sorted_)
    return sorted_


def _check_names(sorted_: _Sorted) -> None:
    """Refuse a weight that is there twice, packed and plain, or by the name of its module."""
    taken = {key: key for key in sorted_.alone}
    for parts in sorted_.weights.values():
        first = next(iter(parts.leaves.values()))
        for name in dict.fromkeys((parts.owner, parts.name)):
            if name in taken:
                raise SparsityReportError(
                    f"{origin(first)}: {first.key!r} and {taken[name]!r} both stand for {name!r}; "
                    "which one counts? Give a checkpoint with one of them"
                )
            taken[name] = first.key


def _is_packed(parts: Parts, scheme: Scheme) -> bool:
    """Whether tensors with telling names are parts of a packed weight, not parameters."""
    if parts.fused:
        blocks = parts.get("blocks")
        return blocks is not None and blocks.values.dtype not in _FLOATS
    weight = parts.leaves.get("weight")
    telling = parts.leaves.keys() - {"weight", "scales", "biases", "shape", "meta", "g_idx"}
    plain = weight is not None and weight.values.dtype in _FLOATS
    if plain and scheme.method == "compressed-tensors":
        # Calibrated and saved as they were, weights have the scales of their rounding beside them.
        telling -= _TOLD_BESIDE
    if {"scales", "biases"} <= parts.leaves.keys():
        # What MLX has beside codes, whatever has become of these.
        return True
    return bool(telling) or (weight is not None and not plain)


def _decoder(parts: Parts, scheme: Scheme) -> Packed:
    for leaves, decoder in _FORMATS:
        if leaves <= parts.leaves.keys():
            return _bounded(decoder(parts, scheme))
    first = next(iter(parts.leaves.values()))
    names = ", ".join(sorted(parts.leaves))
    raise SparsityReportError(
        f"{origin(first)}: {parts.owner!r} holds {names}, which no known format of packed weights "
        "has together; fetch the whole checkpoint, or give one that is not packed"
    )


def _bounded(packed: Packed) -> Packed:
    """Refuse a weight of which no part could be unpacked within memory."""
    if packed.unit > _LARGEST:
        first = packed.parts[0]
        raise SparsityReportError(
            f"{origin(first)}: {first.key!r} would be unpacked to the shape {packed.shape}, "
            "which is no layer's; fetch the file again"
        )
    return packed


def _notes(decoders: Collection[Packed]) -> tuple[str, ...]:
    """Say what is counted as what."""
    unread = {decoder.packing for decoder in decoders if isinstance(decoder, Undecoded)}
    decoded = {decoder.packing for decoder in decoders} - unread
    told = "packed weights ({}) are counted as the float32 values they stand for"
    shown = "packed weights ({}) are counted by their shapes only: what of them is zero is unknown"
    return tuple(
        sentence.format(", ".join(sorted(layouts)))
        for sentence, layouts in ((told, decoded), (shown, unread))
        if layouts
    )


def _check_method(scheme: Scheme, layouts: Collection[str]) -> None:
    """Refuse a configuration that says something else than the tensors do."""
    if not scheme.method or (not layouts and _keeps_plain(scheme)):
        return
    if scheme.method not in _METHODS:
        raise SparsityReportError(
            f"{scheme.file} says that weights are packed by {scheme.method!r}, which is not known; "
            "give a checkpoint that is not packed"
        )
    if not layouts:
        raise SparsityReportError(
            f"{scheme.file} says that weights are packed by {scheme.method}, but none is; if these "
            "are the unpacked weights, delete what it says, else fetch the right ones"
        )
    said = [form for form in _FORMS if scheme.told.get(form[0]) == form[1]]
    for layout in layouts:
        begins = (_METHODS[scheme.method], *(_FORMS[form] for form in said))
        if not all(layout.startswith(begin) for begin in begins):
            further = "".join(f", {key} {word}" for key, word in said)
            raise SparsityReportError(
                f"{scheme.file} says that weights are packed by {scheme.method}{further}, but they "
                f"are {layout}; it is not of these weights"
            )


def _keeps_plain(scheme: Scheme) -> bool:
    """Whether what is said allows for weights that are not packed at all."""
    return scheme.method == "compressed-tensors" and scheme.told.get("format") in {None, "dense"}


def _is_index(entry: Entry) -> bool:
    is_float = entry.values.dtype in _FLOATS or entry.kind == FP4
    return not is_float and bool(_INDEX.search(entry.key))


def check_weights(*entries: Entry) -> None:
    """Refuse tensors to be counted that hold integers: codes of a packing that is not known."""
    for entry in entries:
        dtype = entry.values.dtype
        if not (dtype in _FLOATS or entry.dtype in _SMALL_FLOATS or dtype.is_complex):
            raise SparsityReportError(
                f"{origin(entry)}: {entry.key!r} holds {entry.dtype}, not weights: it looks packed "
                "in a way that is not known; give a checkpoint that is not packed"
            )
