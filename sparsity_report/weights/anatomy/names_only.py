"""Modules and parameters from names and shapes of tensors, without the class of the model."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy import groups
from sparsity_report.weights.matrix_direction import Shape, as_matrix, input_first
from sparsity_report.weights.packed.packed_tensor import Packed, is_remote
from sparsity_report.weights.tensor_slices import Entry, FileSlice
from sparsity_report.weights.weights import ONCE, Module, Parameter, check_modules, in_order
from sparsity_report.words.sentences import say

# Buffers of older checkpoints that current classes compute: masks, position ids, rotary tables.
_BUFFER = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|attn\.bias|attention\.bias|inv_freq|"
    r"rotary_emb\.\w+|num_batches_tracked|final_logits_bias)$"
)
# Routed experts; llama.cpp keeps those of a block in one tensor.
_EXPERT = re.compile(
    r"(?P<stack>(?:.*\.)?(?:experts|\w+_exps))(?:\.(?:expert_)?(?P<number>\d+))?(?:\.|$)"
)
#: Ends of the names of classes that have an output head.
HEADED = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForConditionalGeneration")
# Tensors before an output head, and the name of the head in memory; ``lm_head`` otherwise.
_TIED_HEADS = (
    (re.compile(r"^cls\.predictions\.transform\."), "cls.predictions.decoder"),
    (re.compile(r"^lm_head\.dense\."), "lm_head.decoder"),
    (re.compile(r"^vocab_transform\."), "vocab_projector"),
    (re.compile(r"^model\.encoder\.conv1\."), "proj_out"),
)
# Parts of two tables that are compared over the network, and the most values of each.
_PARTS, _COMPARED_REMOTELY = 4, 2**12
# Tables of positions, which may be longer than the vocabulary.
_POSITION = re.compile(r"(^|[._])(positions?|pos|wpe|relative)([._]|$)")
# Groups whose matrices tokens are multiplied by.
_MULTIPLIED = groups.LINEAR_GROUPS | {"lm_head", "router"}
# A number of a module that holds others.
_NUMBER = re.compile(r"(?:^|\.)\d+(?=\.)")
#: Low-rank adapters belong to fine-tuning; pruning applies to the base weights.
ADAPTER = re.compile(r"(^|\.)lora_")
#: Settings that hold the number of experts per token.
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "moe_topk", "num_selected_experts")


@dataclass(frozen=True)
class ReaderOptions:
    """Options for opening a model in any format.

    Attributes
    ----------
    name : str
        Name of the model in tables and reports; empty for the default.
    blacklist : collection of str or None
        Words in the dotted names of linear layers that are not pruned; ``lm_head`` stands for the
        output head under any name. None prunes linear layers inside blocks alone.
    groups : mapping of pattern to group, optional
        User rules for groups, see :func:`sparsity_report.weights.anatomy.groups.classify`.
    notes : tuple of str
        Facts about the origin of the model.
    allow_pickle, stream, config : bool
        See :func:`sparsity_report.weights.loading.load`.
    only_counted : bool
        Whether the model is opened for counting alone: files on the Hub are read by ranges, and
        tensors that their class refuses are parameters of unknown groups.
    """

    name: str = ""
    blacklist: Collection[str] | None = None
    groups: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    allow_pickle: bool = False
    stream: bool = False
    config: bool = True
    only_counted: bool = False

    def __post_init__(self) -> None:
        groups.check_rules(self.groups)
        if isinstance(self.blacklist, str):
            object.__setattr__(self, "blacklist", (self.blacklist,))

    def may_prune(self, module_name: str, group: str) -> bool:
        """Return whether a module of a group may be pruned."""
        words = {"lm_head"} if group == "lm_head" else set()
        is_linear = group in groups.LINEAR_GROUPS or group == "lm_head"
        is_base = is_linear and not ADAPTER.search(module_name)
        spared = ("lm_head",) if self.blacklist is None else self.blacklist
        return is_base and words.union(module_name.split(".")).isdisjoint(spared)

    def within_blocks(self, modules: list[Module]) -> list[Module]:
        """Return modules whose matrices are prunable only inside blocks.

        A block is a numbered module that holds others, such as ``layers.0``. Modules stay as they
        are with a blacklist, and in models without blocks.
        """
        holders = (module.name for module in modules if not ADAPTER.search(module.name))
        blocks = {block for name in holders for block in _numbered(name)}
        if self.blacklist is not None or not blocks:
            return modules
        return [
            m.changed(_spared) if blocks.isdisjoint(_numbered(f"{m.name}.")) else m for m in modules
        ]


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
    notes : tuple of str
        Facts for a careful reader.
    unsettled : frozenset of str
        Matrices of which names and shapes do not tell whether inputs or outputs come first.
    undecided : str
        Reason why groups, prunable weights and uses are unknown; empty if they are known.
    """

    modules: tuple[Module, ...]
    attention_widths: dict[int | None, int] | None
    notes: tuple[str, ...] = ()
    unsettled: frozenset[str] = frozenset()
    undecided: str = ""


def _spared(p: Parameter) -> Parameter:
    return replace(p, prunable=False, runs_as_csr=True)


def _numbered(name: str) -> list[str]:
    """Return the numbered modules around a module."""
    return [name[: match.end()] for match in _NUMBER.finditer(name)]


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
    """Return whether a tensor is a bias of zeros that the format of its weight adds."""
    weight = entries.get(f"{key.removesuffix('bias')}weight")
    is_padded = weight is not None and isinstance(weight.values, Packed) and weight.values.pads_bias
    return is_padded and key.endswith(".bias") and not entries[key].numbers().any()


def on_disk(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the attributes of a parameter that follow from its tensors on disk."""
    stored = {"file_bytes": Entry.file_bytes(entries), "packing": Entry.packings(entries)}
    return {"dtype": entries[0].dtype, **stored}


def text_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration, with those of its text model where it gives none."""
    inner = config.get("text_config")
    given = {key: value for key, value in config.items() if value is not None}
    return {**inner, **given} if isinstance(inner, dict) else given


def experts_per_token(config: Mapping[str, Any]) -> int | None:
    """Return the experts that a configuration, or GGUF metadata, sends a token to; else None."""
    settings = text_settings(config)
    names = (*EXPERTS_PER_TOKEN, f"{config.get('general.architecture')}.expert_used_count")
    return first_count(settings, *names)


def first_count(settings: Mapping[str, Any], *names: str) -> int | None:
    """Return the first positive integer among settings; None without one."""
    return next((n for name in names if type(n := settings.get(name)) is int and n > 0), None)


def expert_stacks(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Return the number of experts of each stack that a token is routed to, by its name.

    A stack is a group of numbered modules inside ``experts``, or a tensor with an expert for each
    place of its first dimension.

    Examples
    --------
    >>> expert_stacks({f"experts.{number}.w1.weight": (4, 4) for number in range(3)})
    {'experts': 3}
    """
    numbers: dict[str, set[str]] = defaultdict(set)
    fused: dict[str, int] = {}
    for name, shape in shapes.items():
        if match := _EXPERT.match(name):
            if match["number"]:
                numbers[match["stack"]].add(match["number"])
            elif len(shape) == 3:
                fused[match["stack"]] = shape[0]
    return {**fused, **{stack: len(each) for stack, each in numbers.items()}}


def describe_names(
    parts: Mapping[str, Sequence[Entry]],
    options: ReaderOptions,
    per_token: int | None,
    ties: Mapping[str, str],
    *,
    outputs_first: bool = False,
    undecided: str = "",
) -> Description:
    """Return the modules of tensors by names and shapes alone.

    Parameters
    ----------
    parts : mapping of str to sequence of Entry
        Tensors of each parameter.
    options : ReaderOptions
    per_token : int or None
        Experts that a token is sent to; None for all of them.
    ties : mapping of str to str
        Owners of tied parameters, which need no tensors.
    outputs_first : bool
        Whether every matrix stores its outputs first, as in GGUF; biases decide otherwise.
    undecided : str
        Reason why groups and prunable weights are unknown; nothing is prunable then.
    """
    tensors = {**parts, **{name: parts[owner] for name, owner in ties.items()}}
    shapes = {name: shape_of(name, entries) for name, entries in tensors.items()}
    stacks = expert_stacks(shapes)
    directions = dict.fromkeys(shapes, False) if outputs_first else input_first(shapes)
    owned: dict[str, dict[str, Shape]] = defaultdict(dict)
    for name, shape in shapes.items():
        owned[name.rpartition(".")[0]][name] = shape
    check_modules(options.name, len(owned))  # before spending half a minute on them
    kinds = {name: _group(name, members, stacks, options) for name, members in owned.items()}
    tables = (
        shape
        for name, shape in shapes.items()
        if kinds[name.rpartition(".")[0]] == "embedding" and is_of_tokens(name, shape)
    )
    vocabulary = max(tables, default=())
    of_head = {vocabulary, vocabulary[:1]} - {()}  # its matrix and its bias
    modules, unsettled = [], set()
    for module_name, members in owned.items():
        group = kinds[module_name]
        if group in {"other", "other_linear"} and not of_head.isdisjoint(members.values()):
            group = groups.ruled(module_name, options.groups) or "lm_head"
        parameters = []
        for name, shape in members.items():
            match = _EXPERT.match(name) if per_token else None
            uses = expert_share(per_token, stacks.get(match["stack"], 0) if match else 0)
            facts = {"uses": uses, **on_disk(tensors[name])}
            facts |= {"tied_to": ties.get(name), "head_axis": groups.head_axis(module_name)}
            if _is_matrix(name, shape, stacks, group) and group in _MULTIPLIED:
                sizes = as_matrix(shape, bool(directions[name]))
                facts |= {"matrix": sizes[:2], "experts": sizes.experts}
                facts["transposed"] = sizes.input_first
                is_known = directions[name] is not None
                unsettled |= set() if is_known else {name}
                facts["prunable"] = (
                    not undecided
                    and options.may_prune(module_name, group)
                    and math.prod(shape) > 0
                    and (is_known or len(shape) == 2)
                    and name not in ties
                )
            parameters.append(Parameter(name, shape, **facts))
        modules.append(Module(module_name, "", group, tuple(parameters)))
    notes = (say("note.experts_per_token"),) if stacks and not (per_token or undecided) else ()
    modules = options.within_blocks(modules)
    return Description(in_order(modules), None, notes, frozenset(unsettled), undecided)


def incomplete(name: str, missing: Sequence[str]) -> SparsityReportError:
    """Return the error for a model whose files lack tensors of parameters."""
    return SparsityReportError(
        f"{name}: {len(missing)} tensor(s) are missing from the checkpoint, "
        f"first {missing[0]!r}; download the whole checkpoint. If it is complete, config.json "
        "names another class than the saved one"
    )


def shape_of(name: str, entries: Sequence[Entry]) -> Shape:
    """Return the shape of a parameter: that of its tensor, or of the experts stacked in it.

    Both input projections of an expert are joined as ``gate_up_proj``.
    """
    if len(entries) == 1:
        return entries[0].shape
    joined = 2 if name.endswith("gate_up_proj") else 1
    rows, *columns = entries[0].shape
    return (len(entries) // joined, joined * rows, *columns)


def is_of_tokens(name: str, shape: Shape) -> bool:
    """Return whether a tensor of an embedding may have a row for each token of a vocabulary."""
    return len(shape) == 2 and not _POSITION.search(name)


def _group(
    name: str, shapes: Mapping[str, Shape], stacks: Mapping[str, int], options: ReaderOptions
) -> str:
    linear = any(_is_matrix(each, shape, stacks, "mlp_linear") for each, shape in shapes.items())
    group = groups.classify(name, linear=linear, rules=options.groups)
    is_convolution = any(len(shape) > 2 and key.endswith("weight") for key, shape in shapes.items())
    return "other_linear" if group == "other" and is_convolution else group


def _is_matrix(name: str, shape: Shape, stacks: Mapping[str, int], group: str) -> bool:
    """Return whether a tensor has the shape of a matrix, or of a stack of experts."""
    module_name, is_weight = name.rpartition(".")[0], name.endswith("weight")
    if len(shape) == 2:  # llama.cpp keeps kernels of convolutions without their middle 1
        return is_weight and not module_name.endswith("conv1d")
    is_stack = is_weight or module_name in stacks or name in stacks
    return len(shape) == 3 and group == "mlp_linear" and is_stack and min(shape[1:]) > 1


def tied_names(parts: Mapping[str, Sequence[Entry]], config: Mapping[str, Any]) -> dict[str, str]:
    """Return the owners of tied parameters: tables of equal bytes, and tables that files leave out.

    Both towers of a model use one embedding called ``shared``. Files may leave out the output head,
    unless the configuration says that it is not tied.
    """
    settings = text_settings(config)
    shapes = {name: shape_of(name, tensors) for name, tensors in parts.items()}
    tables = {n: s for n, s in shapes.items() if is_of_tokens(n, s) and n.endswith("weight")}
    kinds = {name: groups.classify(name.rpartition(".")[0], linear=True) for name in tables}
    sizes = {
        name: (tables[name][0], name.endswith("shared.weight"))
        for name, kind in kinds.items()
        if kind == "embedding"
    }
    if not sizes:
        return {}
    owner, ties = max(sizes, key=sizes.__getitem__), {}
    stem = owner.removesuffix("shared.weight")
    if stem != owner:
        towers = (f"{stem}{tower}." for tower in ("encoder", "decoder"))
        used = [tower for tower in towers if any(name.startswith(tower) for name in parts)]
        names = (f"{tower}embed_tokens.weight" for tower in used)
        ties = {name: owner for name in names if name not in parts}
    if settings.get("tie_word_embeddings") is False:
        return ties
    classes = settings.get("architectures")
    heads = [
        name
        for name, kind in kinds.items()
        if kind == "lm_head" or (kind[:5] == "other" and tables[name] == tables[owner])
    ]
    is_headed = isinstance(classes, list) and any(str(c).endswith(HEADED) for c in classes)
    if is_headed and not heads:
        before = (after for first, after in _TIED_HEADS if any(map(first.search, parts)))
        head = next(before, "lm_head")
        ties[f"{head}.weight"] = owner
        if (bias := f"{head.rpartition('.')[0]}.bias") in parts:
            ties[f"{head}.bias"] = bias
    equal = (n for n in tables if n != owner and _is_equal(parts[n], parts[owner]))
    return ties | dict.fromkeys(equal, owner)


def _is_equal(one: Sequence[Entry], other: Sequence[Entry]) -> bool:
    """Return True if two tables are equal, on the Hub in rows at their start and further on."""
    entries = [*one, *other]
    files = [entry.values for entry in entries if isinstance(entry.values, FileSlice)]
    if len({(each.shape, each.dtype) for each in entries}) > 1 or len(files) < 2:
        return False
    rows, columns = entries[0].shape
    starts, most = range(1), rows
    if is_remote(entries):
        starts = range(0, rows, rows // _PARTS + 1)
        most = _COMPARED_REMOTELY // max(columns, 1) + 1
    parts = ((start * columns, min(most, rows - start) * columns) for start in starts)
    pairs = ([values.part(*part).raw() for values in files] for part in parts)
    return all(np.array_equal(*each) for pair in pairs for each in zip(*pair, strict=True))


def expert_share(chosen: int | None, experts: int) -> Fraction:
    """Return the share of experts per token; 1 if no number is known."""
    if chosen is None or not experts:
        return ONCE
    if chosen > experts:
        raise SparsityReportError(
            f"the configuration sends a token to {chosen:,} of {experts:,} experts, which cannot "
            "be; is it of the same model?"
        )
    return Fraction(chosen, experts)
