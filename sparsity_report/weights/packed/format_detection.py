"""Detection of packed formats: the role of each tensor, decided before anything is counted.

Tensors that make up one weight become one entry with a decoder. Scales, zero points and tensors
of activations are not parameters, but count in the bytes of a weight. Tensors that look packed in
an unknown way are refused.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.packed.bitsandbytes import FourBit, LlmInt8
from sparsity_report.weights.packed.compressed_tensors import PackQuantized, SparseBitmask
from sparsity_report.weights.packed.gptq_awq import GptqAwq
from sparsity_report.weights.packed.mlx import Mlx
from sparsity_report.weights.packed.packed_format import PackedFormat, Parts, Scheme
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.scaled_floats import FusedMxfp4, Scaled, TorchAo
from sparsity_report.weights.tensor_slices import FP4, FP8, Entry, is_float
from sparsity_report.words.sentences import say

#: All packed formats; a weight is decoded by the first that fits its tensors.
FORMATS: list[PackedFormat] = [
    SparseBitmask(), PackQuantized(), GptqAwq(), FusedMxfp4(), FourBit(), LlmInt8(), Mlx(),
    Scaled(), TorchAo(),
]  # fmt: skip

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
_FLOATS = {"float64", "float32", "float16", "bfloat16"}

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
    decoders = _with_scales({parts.name: _decoder(parts) for parts in groups}, scales)
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
        elif entry.dtype == FP4 or (scheme.method and entry.dtype in FP8):
            raise entry.wrong(f"holds {entry.dtype} and has no scale; fetch the whole checkpoint")
        else:
            parameters[key] = entry
    layouts = sorted({decoder.packing for decoder in decoders.values()})
    return parameters, (say("note.packed_as_float32", layouts=layouts),) if layouts else ()


def _sort(
    entries: Mapping[str, Entry], scheme: Scheme
) -> tuple[Collection[Parts], dict[str, Entry], dict[str, Entry]]:
    """Return the parts of packed weights, single tensors, and scales of activations."""
    weights: dict[tuple[str, bool], Parts] = {}
    alone: dict[str, Entry] = {}
    scales: dict[str, Entry] = {}
    pattern, calibrates = _leaf_pattern(), set().union(*(form.calibrates for form in FORMATS))
    for key, entry in entries.items():
        if match := pattern.match(key):
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
            if leaf not in calibrates:
                alone[entry.key] = entry
    _check_names(weights.values(), alone)
    _check_neighbors(weights.values(), alone)
    return weights.values(), alone, scales


def _with_scales(decoders: Mapping[str, Packed], scales: Mapping[str, Entry]) -> dict[str, Packed]:
    """Return the decoders, with scales of activations as parts of the nearest packed weight."""
    nearest: dict[str, str] = {}
    for name in decoders:
        for owner in _owners(name):
            nearest.setdefault(owner, name)
    further: dict[str, list[Entry]] = {}
    for key, scale in scales.items():
        if name := next((nearest[owner] for owner in _owners(key) if owner in nearest), ""):
            further.setdefault(name, []).append(scale)
    return {
        name: replace(decoder, parts=(*decoder.parts, *further.get(name, ())))
        for name, decoder in decoders.items()
    }


def _owners(name: str) -> Iterator[str]:
    """Yield the names of the modules around a tensor, the innermost first."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _leaf_pattern() -> re.Pattern[str]:
    """Return the pattern of the owner and the leaf of a part of a packed weight."""
    leaves: dict[bool, set[str]] = {True: set(), False: set()}
    for form in FORMATS:
        leaves[form.fused] |= {*form.needs, *form.allows} - {"weight"}
    # Longer leaves first.
    fused, single = ("|".join(sorted(leaves[kind], key=len)[::-1]) for kind in (True, False))
    return re.compile(
        rf"^(?P<owner>.+?)(?:\.weight)?\.(?P<leaf>{single})$|^(?P<fused>.+)_(?P<part>{fused})$"
    )


def _calibrated_by(method: str) -> frozenset[str]:
    """Return the parts that a method leaves beside weights that it does not pack."""
    return frozenset().union(*(form.calibrates for form in FORMATS if form.method == method))


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
    telling = parts.keys() - {"weight"}.union(*(form.common for form in FORMATS))
    plain = weight is not None and weight.values.dtype in _FLOATS
    if plain:
        # Weights that were calibrated but saved unpacked keep their scales.
        telling -= _calibrated_by(parts.scheme.method)
    if {"scales", "biases"} <= parts.keys():
        # MLX stores both beside its codes.
        return True
    return bool(telling) or (weight is not None and not plain)


def _decoder(parts: Parts) -> Packed:
    """Return the decoder of a packed weight; refuse one whose smallest slice exceeds memory."""
    for form in FORMATS:
        if form.fits(parts):
            parts.only(*form.needs, *form.allows)
            packed = form.decode(parts)
            if packed.unit > _LARGEST:
                raise packed.parts[0].wrong(
                    f"would be unpacked to the shape {packed.shape}, larger than any layer; "
                    "fetch the file again"
                )
            return packed
    first = next(iter(parts.values()))
    names = ", ".join(sorted(parts))
    raise SparsityReportError(
        f"{first.origin}: {parts.owner!r} holds {names}, which no known packed format "
        "combines; fetch the whole checkpoint, or give one that is not packed"
    )


def _check_method(scheme: Scheme, layouts: Collection[str]) -> None:
    """Refuse a configuration that contradicts the tensors."""
    method, may_be_plain = scheme.method, scheme.settings.get("format") in {None, "dense"}
    if not method or (not layouts and may_be_plain and _calibrated_by(method)):
        return
    declared: dict[str, tuple[str, ...]] = {}
    for form in FORMATS:
        for layout, words in form.layouts.items():
            declared |= {word: (*declared.get(word, ()), layout) for word in words}
    if method not in declared:
        raise SparsityReportError(
            f"{scheme.file}: weights are packed by {method!r}, which is not supported; "
            "give a checkpoint that is not packed"
        )
    if not layouts:
        raise SparsityReportError(
            f"{scheme.file}: declares weights packed by {method}, but none is packed; "
            "delete the setting if these are the unpacked weights, else fetch the packed ones"
        )
    further = {
        word: f", {key} {value}"
        for key, value in scheme.settings.items()
        if (value is True or key == "format")
        and (word := key if value is True else value) in declared
    }
    for layout in layouts:
        if not all(layout.startswith(declared[word]) for word in (method, *further)):
            raise SparsityReportError(
                f"{scheme.file}: declares weights packed by {method}{''.join(further.values())}, "
                f"but they are {layout}; give the configuration of these weights"
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
