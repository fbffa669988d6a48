"""Detection of packed formats: the role of each tensor, decided before anything is counted.

Tensors that make up one weight become one entry with a decoder. Scales, zero points and tensors
of activations are not parameters. Tensors that look packed in an unknown way are refused.
"""

import re
from collections.abc import Callable, Collection, Mapping

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.packed import bitsandbytes, compressed_tensors, gptq_awq, scaled_floats
from sparsity_report.weights.packed.mlx import mlx
from sparsity_report.weights.packed.packed_tensor import Packed, Undecoded
from sparsity_report.weights.packed.quantization_config import Scheme
from sparsity_report.weights.packed.tensor_groups import Parts
from sparsity_report.weights.tensor_slices import FP4, FP8, Entry, is_float
from sparsity_report.words.sentences import say

# Owner and leaf of a part of a packed weight; longer leaves first.
_LEAF = re.compile(
    r"^(?P<owner>.+?)(?:\.weight)?\.(?P<leaf>weight_(?:packed|scale_inv|scale_2|scale|global_scale|"
    r"zero_point|shape|g_idx|format)|qweight|qzeros|scales|biases|g_idx|compressed|bitmask|"
    r"row_offsets|shape|scale_packed|meta|SCB|absmax|quant_map|nested_absmax|nested_quant_map|"
    r"quant_state\.bitsandbytes__\w+|_weight_\w+)$"
    r"|^(?P<fused>.+)_(?P<part>blocks|scales)$"
)
# Scales of activations and of the KV cache.
_ACTIVATION = re.compile(
    r"\.((input|output)_(scale|global_scale|zero_point)|(q|k|v|prob|prob_output)_(scale|zero_point)|"
    r"act_scale|act_scales)$"
)
# Integer masks, positions and rotary tables of older checkpoints, which are not packed.
_INDEX = re.compile(
    r"(^|\.)(position_ids|token_type_ids|position_index|relative_position_index|"
    r"num_batches_tracked|attn\.bias|attention\.bias|cu_seqlens|\w*_mask|mask)$"
)
# Scales that may also accompany unpacked weights.
_OPTIONAL_LEAVES = {
    "weight_scale", "weight_zero_point", "weight_g_idx", "weight_global_scale",
}  # fmt: skip
_FLOATS = {"float64", "float32", "float16", "bfloat16"}

# Decoders by the leaves they need; the first whose leaves are all present is used.
_FORMATS: tuple[tuple[frozenset[str], Callable[[Parts], Packed]], ...] = (
    (frozenset({"compressed", "bitmask", "shape"}), compressed_tensors.bitmasked),
    (frozenset({"weight_packed", "scale_packed", "meta"}), compressed_tensors.marlin),
    (frozenset({"weight_packed", "weight_scale"}), compressed_tensors.compressed),
    (frozenset({"qweight", "scales"}), gptq_awq.gptq_or_awq),
    (frozenset({"blocks", "scales"}), scaled_floats.fused_mxfp4),
    (frozenset({"weight", "absmax", "quant_map"}), bitsandbytes.bitsandbytes_4bit),
    (frozenset({"weight", "SCB"}), bitsandbytes.bitsandbytes_8bit),
    (frozenset({"weight", "scales"}), mlx),
    (frozenset({"weight", "weight_scale_2"}), scaled_floats.modelopt),
    (frozenset({"weight", "weight_scale"}), scaled_floats.scaled),
    (frozenset({"weight", "weight_scale_inv"}), scaled_floats.scaled),
    (frozenset({"_weight_qdata", "_weight_scale"}), scaled_floats.torchao),
)

# Methods that a configuration may declare, and the prefixes of their layouts.
_METHODS = {
    "auto-round": ("gptq-", "awq-"), "awq": ("awq-",), "gptq": ("gptq-",), "mlx": ("mlx-",),
    "bitsandbytes": ("nf4", "fp4", "bitsandbytes-"), "fbgemm-fp8": ("fp8",), "fp8": ("fp8",),
    "compressed-tensors": (
        "sparse-", "marlin-24-", "pack-quantized-", "nvfp4", "mxfp4", "mxfp6", "mxfp8", "int8",
        "fp8",
    ),
    "modelopt": ("nvfp4", "mxfp8", "fp8"), "mxfp4": ("mxfp4",), "torchao": ("torchao-",),
}  # fmt: skip
# Further settings, and the prefixes of the layouts they allow.
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
# Largest number of weights decoded at once, 1 GB: no layer has a longer row.
_LARGEST = 2**28


def detect_parameters(
    entries: Mapping[str, Entry], scheme: Scheme
) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """Return the parameters of a checkpoint, packed ones with their decoders, and notes on them.

    Raises
    ------
    SparsityReportError
        A tensor looks packed in an unknown way, parts are missing or do not fit, the
        configuration contradicts the tensors, or a pruning mask was never applied.
    """
    stems = {key: key.removesuffix("_mask") for key in entries if key.endswith("_mask")}
    if masks := [key for key, stem in stems.items() if {stem, f"{stem}_orig"} & entries.keys()]:
        raise SparsityReportError(
            f"the checkpoint holds {len(masks)} pruning masks that were never applied, first "
            f"{masks[0]!r}; call torch.nn.utils.prune.remove before saving it"
        )
    groups, plain, scales = _sort(entries, scheme)
    decoders = {parts.name: _decoder(parts) for parts in groups}
    _check_method(scheme, {decoder.packing for decoder in decoders.values()})
    owners = {part.key: name for name, decoder in decoders.items() for part in decoder.parts}
    if not (decoders or scheme.method):  # beside plain weights, a scale may be a parameter
        plain |= scales
    parameters: dict[str, Entry] = {}
    for key, entry in entries.items():
        if name := owners.get(key):
            parameters[name] = Entry(name, decoders[name].shape, decoders[name])
        elif key not in plain or _is_index(entry):
            continue
        elif scheme.method and entry.dtype in {*FP8, FP4}:
            raise entry.wrong(f"holds {entry.dtype} and has no scale; fetch the whole checkpoint")
        elif entry.kind == FP4:
            decoders[key] = _bounded(scaled_floats.unscaled(entry))
            parameters[key] = Entry(key, decoders[key].shape, decoders[key])
        else:
            parameters[key] = entry
    return parameters, _notes(decoders.values())


def _sort(
    entries: Mapping[str, Entry], scheme: Scheme
) -> tuple[Collection[Parts], dict[str, Entry], dict[str, Entry]]:
    """Return the parts of packed weights, single tensors, and scales of activations."""
    weights: dict[tuple[str, bool], Parts] = {}
    alone: dict[str, Entry] = {}
    scales: dict[str, Entry] = {}
    for key, entry in entries.items():
        if match := _LEAF.match(key):
            fused = match["fused"] is not None
            owner = match["fused"] or match["owner"]
            parts = weights.setdefault((owner, fused), Parts(owner, fused, scheme))
            parts.add(match["part"] or match["leaf"], entry)
        elif _ACTIVATION.search(key):
            scales[key] = entry
        else:
            alone[key] = entry
    for name, parts in list(weights.items()):
        if not parts.fused and (plain := alone.pop(parts.name, None)) is not None:
            parts.add("weight", plain)
        if _is_packed(parts):
            continue
        del weights[name]
        for leaf, entry in parts.items():
            if leaf not in _OPTIONAL_LEAVES:
                alone[entry.key] = entry
    _check_names(weights.values(), alone)
    _check_neighbors(weights.values(), alone)
    return weights.values(), alone, scales


def _check_names(groups: Collection[Parts], alone: Collection[str]) -> None:
    """Refuse a weight that is present twice: packed and plain, or under its module's name."""
    taken = {key: key for key in alone}
    for parts in groups:
        first = next(iter(parts.values()))
        for name in dict.fromkeys((parts.owner, parts.name)):
            if name in taken:
                raise first.wrong(f"and {taken[name]!r} both stand for {name!r}; keep one of them")
            taken[name] = first.key


def _check_neighbors(groups: Collection[Parts], alone: Mapping[str, Entry]) -> None:
    """Refuse unknown tensors in the module of a packed or FP8 weight, which may scale it."""
    owners = {parts.owner for parts in groups if not parts.fused}
    small = {key for key, entry in alone.items() if entry.dtype in {*FP8, FP4}}
    owners |= {key.removesuffix(".weight") for key in small}
    for key in alone.keys() - small:
        owner, _, leaf = key.rpartition(".")
        if owner in owners and leaf not in {"weight", "bias"}:
            raise alone[key].wrong(
                f"is beside the packed weight of {owner!r}, and its effect on it is not known; "
                "give a checkpoint that is not packed"
            )


def _is_packed(parts: Parts) -> bool:
    """Return whether tensors with names of parts make up a packed weight."""
    if parts.fused:
        blocks = parts.get("blocks")
        return blocks is not None and blocks.values.dtype not in _FLOATS
    weight = parts.get("weight")
    telling = parts.keys() - {"weight", "scales", "biases", "shape", "meta", "g_idx"}
    plain = weight is not None and weight.values.dtype in _FLOATS
    if plain and parts.scheme.method == "compressed-tensors":
        # Weights that were calibrated but saved unpacked keep their scales.
        telling -= _OPTIONAL_LEAVES
    if {"scales", "biases"} <= parts.keys():
        # MLX stores both beside its codes.
        return True
    return bool(telling) or (weight is not None and not plain)


def _decoder(parts: Parts) -> Packed:
    for leaves, decoder in _FORMATS:
        if leaves <= parts.keys():
            return _bounded(decoder(parts))
    first = next(iter(parts.values()))
    names = ", ".join(sorted(parts))
    raise SparsityReportError(
        f"{first.origin}: {parts.owner!r} holds {names}, which no known packed format "
        "combines; fetch the whole checkpoint, or give one that is not packed"
    )


def _bounded(packed: Packed) -> Packed:
    """Return a decoder; refuse one whose smallest slice exceeds memory."""
    if packed.unit > _LARGEST:
        raise packed.parts[0].wrong(
            f"would be unpacked to the shape {packed.shape}, which is no layer's; "
            "fetch the file again"
        )
    return packed


def _notes(decoders: Collection[Packed]) -> tuple[str, ...]:
    """Return notes on what packed weights are counted as."""
    unread = {decoder.packing for decoder in decoders if isinstance(decoder, Undecoded)}
    decoded = {decoder.packing for decoder in decoders} - unread
    notes = (("note.packed_as_float32", decoded), ("note.packed_shapes_only", unread))
    return tuple(say(key, layouts=sorted(layouts)) for key, layouts in notes if layouts)


def _check_method(scheme: Scheme, layouts: Collection[str]) -> None:
    """Refuse a configuration that contradicts the tensors."""
    form, is_compressed = scheme.settings.get("format"), scheme.method == "compressed-tensors"
    if not scheme.method or (not layouts and is_compressed and form in {None, "dense"}):
        return
    if scheme.method not in _METHODS:
        raise SparsityReportError(
            f"{scheme.file}: weights are packed by {scheme.method!r}, which is not supported; "
            "give a checkpoint that is not packed"
        )
    if not layouts:
        raise SparsityReportError(
            f"{scheme.file}: declares weights packed by {scheme.method}, but none is packed; "
            "delete the setting if these are the unpacked weights, else fetch the packed ones"
        )
    forms = [form for form in _FORMS if scheme.settings.get(form[0]) == form[1]]
    for layout in layouts:
        begins = (_METHODS[scheme.method], *(_FORMS[form] for form in forms))
        if not all(layout.startswith(begin) for begin in begins):
            further = "".join(f", {key} {word}" for key, word in forms)
            raise SparsityReportError(
                f"{scheme.file}: declares weights packed by {scheme.method}{further}, but they "
                f"are {layout}; give the configuration of these weights"
            )


def _is_index(entry: Entry) -> bool:
    is_weight = is_float(entry.values.dtype) or entry.kind == FP4
    return not is_weight and bool(_INDEX.search(entry.key))


def check_weights(*entries: Entry) -> None:
    """Refuse tensors to be counted that hold integers, codes of an unknown packing."""
    for entry in entries:
        if not (entry.dtype in {*_FLOATS, *FP8} or entry.dtype.startswith("complex")):
            raise entry.wrong(
                f"holds {entry.dtype}, not weights: it looks packed in an unknown way; "
                "give a checkpoint that is not packed"
            )
