"""Modules and parameters from names and shapes of tensors alone, without a model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sparsity_report.phrases import Phrase
from sparsity_report.weights.anatomy import groups
from sparsity_report.weights.anatomy.matrix_direction import input_first
from sparsity_report.weights.packed.gptq_awq import Columnwise
from sparsity_report.weights.packed.packed_tensor import Undecoded
from sparsity_report.weights.tensor_slices import Entry
from sparsity_report.weights.weights import ONCE, Module, Parameter, check_modules

# Buffers of older checkpoints that current classes compute: masks, position ids, rotary tables.
_BUFFER = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|attn\.bias|attention\.bias|inv_freq|"
    r"rotary_emb\.\w+|num_batches_tracked)$"
)


# Routed experts; llama.cpp keeps those of a block in one tensor.
_EXPERT = re.compile(
    r"(?P<stack>(?:.*\.)?(?:experts|\w+_exps))(?:\.(?:expert_)?(?P<number>\d+))?(?:\.|$)"
)
#: Settings that hold the number of experts per token.
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "moe_topk", "num_selected_experts")


@dataclass(frozen=True)
class ReaderOptions:
    """Options for opening a model in any format.

    Attributes
    ----------
    name : str
        Name of the model in tables and reports; empty for the default.
    blacklist : collection of str
        Modules with one of these words in their dotted name are not pruned; ``lm_head`` stands for
        the output head under any name.
    groups : mapping of pattern to group, optional
        User rules for groups, see :func:`sparsity_report.weights.anatomy.groups.classify`.
    notes : tuple of Phrase
        Facts about the origin of the model.
    config : bool
        Whether ``config.json`` decides which model it is, rather than names and shapes.
    """

    name: str = ""
    blacklist: Collection[str] = ("lm_head",)
    groups: Mapping[str, str] | None = None
    notes: tuple[Phrase, ...] = ()
    config: bool = True

    def __post_init__(self) -> None:
        groups.check_rules(self.groups)
        if isinstance(self.blacklist, str):
            object.__setattr__(self, "blacklist", (self.blacklist,))

    def may_prune(self, module_name: str, group: str) -> bool:
        """Return whether a module of a group may be pruned."""
        words = {"lm_head"} if group == "lm_head" else set()
        is_linear = group in groups.LINEAR_GROUPS or group == "lm_head"
        return is_linear and words.union(module_name.split(".")).isdisjoint(self.blacklist)


@dataclass(frozen=True)
class Description:
    """Description of a model without its values.

    Attributes
    ----------
    modules : tuple of Module
        Every module that owns parameters. A matrix whose use count differs from its module's
        others is a separate module.
    attention_widths : dict or None
        See :class:`sparsity_report.weights.weights.Weights`.
    notes : tuple of Phrase
        Facts for a careful reader.
    """

    modules: tuple[Module, ...]
    attention_widths: dict[int | None, int] | None
    notes: tuple[Phrase, ...] = ()


def named_parts(entries: Mapping[str, Entry]) -> dict[str, list[Entry]]:
    """Return each tensor that is no buffer as a parameter."""
    if padding := next((key for key in entries if is_padding(key, entries)), ""):
        raise entries[padding].wrong(
            "is zero, as programs write it for layers without a bias; add config.json, which says "
            "whether there is one"
        )
    return {key: [entry] for key, entry in entries.items() if not is_buffer(entry)}


def is_buffer(entry: Entry) -> bool:
    """Return whether a tensor is a buffer that older checkpoints hold.

    A causal mask that is named as a bias is one square.
    """
    is_mask = len(entry.shape) > 1 and entry.total == entry.shape[-1] ** 2
    return bool(_BUFFER.search(entry.key)) and (is_mask or not entry.key.endswith(".bias"))


def is_padding(key: str, entries: Mapping[str, Entry]) -> bool:
    """Return whether a tensor is a bias of zeros beside a GPTQ weight, written for any layer."""
    weight = entries.get(f"{key.removesuffix('bias')}weight")
    is_gptq = weight is not None and isinstance(weight.values, Columnwise)
    return is_gptq and key.endswith(".bias") and not entries[key].numbers().any()


def on_disk(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the attributes of a parameter that follow from its tensors on disk."""
    known = not any(isinstance(entry.values, Undecoded) for entry in entries)
    held = {"file_bytes": Entry.file_bytes(entries), "packing": Entry.packings(entries)}
    return {"dtype": entries[0].dtype, "known": known, **held}


def experts_per_token(config: Mapping[str, Any]) -> int | None:
    """Return the experts that a configuration sends a token to; None if it does not say."""
    inner = config.get("text_config")
    holders = (config, inner if isinstance(inner, dict) else {})
    numbers = (holder.get(key) for holder in holders for key in EXPERTS_PER_TOKEN)
    return next((n for n in numbers if type(n) is int and n > 0), None)


def expert_stacks(parts: Mapping[str, Sequence[Entry]]) -> dict[str, int]:
    """Return the number of experts of each stack that a token is routed to, by its name.

    A stack is a group of numbered modules inside ``experts``, or a tensor with an expert for each
    place of its first dimension.
    """
    numbers: dict[str, set[str]] = defaultdict(set)
    fused: dict[str, int] = {}
    for name, (entry, *_) in parts.items():
        if match := _EXPERT.match(name):
            if match["number"]:
                numbers[match["stack"]].add(match["number"])
            elif len(entry.shape) == 3:
                fused[match["stack"]] = entry.shape[0]
    return {**fused, **{stack: len(each) for stack, each in numbers.items()}}


def describe_names(
    parts: Mapping[str, Sequence[Entry]], options: ReaderOptions, per_token: int | None = None
) -> Description:
    """Return the modules of tensors on disk, by names and shapes alone.

    Without the number of experts per token, a token counts as sent to all of them.
    """
    stacks = expert_stacks(parts)
    directions = input_first({name: entry.shape for name, (entry, *_) in parts.items()})
    owned: dict[str, dict[str, Entry]] = defaultdict(dict)
    for name, (entry, *_) in parts.items():
        owned[name.rpartition(".")[0]][name] = entry
    check_modules(options.name, len(owned))  # before spending half a minute on them
    modules = []
    for module_name, tensors in owned.items():
        # llama.cpp keeps the experts of a block in one tensor, and kernels without their middle 1.
        fused, kernel = module_name.endswith("_exps"), module_name.endswith("conv1d")
        weights = [entry for name, entry in tensors.items() if name.rpartition(".")[2] == "weight"]
        wide = next((e for e in weights if len(e.shape) == 2 + fused and not kernel), None)
        group = groups.classify(module_name, linear=wide is not None, rules=options.groups)
        if group == "other" and any(len(entry.shape) > 2 for entry in weights):
            group = "other_linear"  # a convolution
        multiplied = group in groups.LINEAR_GROUPS or group in {"lm_head", "router"}
        may_prune = options.may_prune(module_name, group)
        turned = any(directions[name] and not fused for name, e in tensors.items() if e is wide)
        matrix = outputs_inputs(wide.shape, turned) if wide and multiplied else None
        parameters = tuple(
            Parameter(
                name=name,
                shape=entry.shape,
                matrix=matrix if entry is wide else None,
                transposed=turned and entry is wide and multiplied,
                experts=entry.shape[0] if fused and entry is wide else 1,
                uses=_share(name, stacks, per_token),
                prunable=may_prune and entry is wide,
                **on_disk(parts[name]),
            )
            for name, entry in tensors.items()
        )
        modules.append(Module(module_name, "", group, parameters))
    return Description(tuple(modules), None)


def _share(name: str, stacks: Mapping[str, int], per_token: int | None) -> Fraction:
    """Return the share of a parameter that a token is multiplied by."""
    match = _EXPERT.match(name) if per_token else None
    total = stacks.get(match["stack"], 0) if match else 0
    return Fraction(min(per_token or 0, total), total) if total else ONCE


def outputs_inputs(shape: tuple[int, ...], transposed: bool) -> tuple[int, int]:
    """Return the sizes of a matrix as (outputs, inputs)."""
    *_, rows, columns = (1, 1, *shape)  # a vector is a row
    return (columns, rows) if transposed else (rows, columns)
