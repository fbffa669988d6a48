"""Modules and parameters from names and shapes of tensors, without the class of the model.

A file is decided if each tensor has a known place and each key of ``config.json`` that matters is
there: names and shapes then describe it as its class does. A tensor that no pattern explains, such
as a buffer, an adapter or a further block, leaves it undecided. The class of transformers is then
asked.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from sparsity_report.weights.anatomy import groups
from sparsity_report.weights.matrix_direction import Shape, as_matrix, input_first
from sparsity_report.weights.packed.packed_tensor import Packed, is_remote
from sparsity_report.weights.packed.quantization_config import SETTINGS_KEYS
from sparsity_report.weights.tensor_slices import Entry, FileSlice
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
# Classes of models that have an output head; those of the first may be decided.
_HEADED = ("ForCausalLM", "LMHeadModel")
_WITH_HEAD = (*_HEADED, "ForConditionalGeneration")
# Most values of two tables that are compared on this disk and over the network.
_COMPARED, _COMPARED_REMOTELY = 2**26, 2**14
# Groups whose matrices tokens are multiplied by.
_MULTIPLIED = groups.LINEAR_GROUPS | {"lm_head", "router"}
#: Low-rank adapters belong to fine-tuning; pruning applies to the base weights.
ADAPTER = re.compile(r"(^|\.)lora_")
#: Settings that hold the number of experts per token.
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "moe_topk", "num_selected_experts")
# Groups of the modules of decided files.
_DECIDED = {"embedding", "attention_linear", "mlp_linear", "norm", "lm_head", "router"}
# Names of the numbers of blocks, channels and experts in the configurations of different models.
_BLOCKS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim", "n_embed")
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
# Blocks of one tower: the text before their number, the number, and the rest.
_BLOCK = re.compile(
    r"(?P<tower>(?:[A-Za-z_]+\.)*(?:h|layers?|blocks?))\.(?P<number>\d{1,9})\.(?P<rest>.+)"
)
# Modules beside the blocks; the pooler belongs to models without a head.
_POOLER = re.compile(r"(^|\.)pooler\.dense$")


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
    notes : tuple of str
        Facts about the origin of the model.
    config : bool
        Whether ``config.json`` decides which model it is, rather than names and shapes.
    decide : bool
        Whether names describe a decided file, or one whose class is unknown; otherwise the class
        is always asked.
    """

    name: str = ""
    blacklist: Collection[str] = ("lm_head",)
    groups: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    config: bool = True
    decide: bool = False

    def __post_init__(self) -> None:
        groups.check_rules(self.groups)
        if isinstance(self.blacklist, str):
            object.__setattr__(self, "blacklist", (self.blacklist,))

    def may_prune(self, module_name: str, group: str) -> bool:
        """Return whether a module of a group may be pruned."""
        words = {"lm_head"} if group == "lm_head" else set()
        is_linear = group in groups.LINEAR_GROUPS or group == "lm_head"
        is_base = is_linear and not ADAPTER.search(module_name)
        return is_base and words.union(module_name.split(".")).isdisjoint(self.blacklist)


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
    """

    modules: tuple[Module, ...]
    attention_widths: dict[int | None, int] | None
    notes: tuple[str, ...] = ()
    unsettled: frozenset[str] = frozenset()

    def with_ties(self, owners: Mapping[str, str]) -> Description:
        """Return the description with parameters tied to others; those of no module are added."""
        held = {p.name: p for module in self.modules for p in module.parameters}

        def tied(each: Parameter) -> Parameter:
            is_tied = each.name in owners
            return replace(each, tied_to=owners[each.name], prunable=False) if is_tied else each

        modules = [module.changed(tied) for module in self.modules]
        modules += [
            tied_head(name, held[owner]) for name, owner in owners.items() if name not in held
        ]
        return replace(self, modules=tuple(modules))


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
    held = {"file_bytes": Entry.file_bytes(entries), "packing": Entry.packings(entries)}
    return {"dtype": entries[0].dtype, **held}


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
    *,
    outputs_first: bool = False,
) -> Description:
    """Return the modules of tensors on disk, by names and shapes alone.

    Parameters
    ----------
    parts : mapping of str to sequence of Entry
        Tensors of each parameter.
    options : ReaderOptions
    per_token : int or None
        Experts that a token is sent to; None for all of them.
    outputs_first : bool
        Whether every matrix stores its outputs first, as in GGUF; biases decide otherwise.
    """
    shapes = {name: entry.shape for name, (entry, *_) in parts.items()}
    stacks = expert_stacks(shapes)
    directions = dict.fromkeys(shapes, False) if outputs_first else input_first(shapes)
    owned: dict[str, dict[str, Shape]] = defaultdict(dict)
    for name, shape in shapes.items():
        owned[name.rpartition(".")[0]][name] = shape
    check_modules(options.name, len(owned))  # before spending half a minute on them
    kinds = {name: _group(name, held, stacks, options) for name, held in owned.items()}
    tables = [s for each, s in shapes.items() if kinds[each.rpartition(".")[0]] == "embedding"]
    vocabulary = max((shape for shape in tables if len(shape) == 2), default=())
    of_head = {vocabulary, vocabulary[:1]} - {()}  # its matrix and its bias
    modules, unsettled = [], set()
    for module_name, held in owned.items():
        group = kinds[module_name]
        if group in {"other", "other_linear"} and not of_head.isdisjoint(held.values()):
            group = groups.classify(module_name, head=True, rules=options.groups)
        parameters = []
        for name, shape in held.items():
            facts = {"uses": _share(name, stacks, per_token), **on_disk(parts[name])}
            if _is_matrix(name, shape, stacks, group) and group in _MULTIPLIED:
                sizes = as_matrix(shape, bool(directions[name]))
                facts |= {"matrix": sizes[:2], "experts": sizes.experts}
                facts["transposed"] = sizes.input_first
                is_known = directions[name] is not None
                unsettled |= set() if is_known else {name}
                facts["prunable"] = (
                    options.may_prune(module_name, group)
                    and math.prod(shape) > 0
                    and (is_known or len(shape) == 2)
                )
            parameters.append(Parameter(name, shape, **facts))
        modules.append(Module(module_name, "", group, tuple(parameters)))
    return Description(tuple(modules), None, unsettled=frozenset(unsettled))


def _group(
    name: str, held: Mapping[str, Shape], stacks: Mapping[str, int], options: ReaderOptions
) -> str:
    linear = any(_is_matrix(each, shape, stacks, "mlp_linear") for each, shape in held.items())
    group = groups.classify(name, linear=linear, rules=options.groups)
    is_convolution = any(len(shape) > 2 and each.endswith("weight") for each, shape in held.items())
    return "other_linear" if group == "other" and is_convolution else group


def _is_matrix(name: str, shape: Shape, stacks: Mapping[str, int], group: str) -> bool:
    """Return whether a tensor has the shape of a matrix, or of a stack of experts."""
    module_name, is_weight = name.rpartition(".")[0], name.endswith("weight")
    if len(shape) == 2:  # llama.cpp keeps kernels of convolutions without their middle 1
        return is_weight and not module_name.endswith("conv1d")
    is_stack = is_weight or module_name in stacks or name in stacks
    return len(shape) == 3 and group == "mlp_linear" and is_stack and min(shape[1:]) > 1


def tied_head(name: str, embedding: Parameter) -> Module:
    """Return an output head, a parameter of which the embedding is the weight."""
    matrix = as_matrix(embedding.shape)[:2]
    head = replace(embedding, name=name, matrix=matrix, tied_to=embedding.name)
    return Module(name.rpartition(".")[0], "", "lm_head", (head,))


def tied_names(
    description: Description, parts: Mapping[str, Sequence[Entry]], config: Mapping[str, Any]
) -> dict[str, str]:
    """Return the embedding as owner of tables of equal bytes, or of an absent output head.

    The configuration may rule both out.
    """
    settings = text_settings(config)
    embeddings = [module for module in description.modules if module.group == "embedding"]
    held = (p for module in embeddings for p in module.parameters if len(p.shape) == 2)
    owner = max(held, key=lambda p: p.shape[0], default=None)
    if owner is None or settings.get("tie_word_embeddings") is False:
        return {}
    classes = settings.get("architectures") or ()
    is_headless = all(module.group != "lm_head" for module in description.modules)
    if is_headless and any(str(name).endswith(_WITH_HEAD) for name in classes):
        return {"lm_head.weight": owner.name}
    return {
        name: owner.name
        for name, entries in parts.items()
        if name != owner.name and _is_equal(entries, parts[owner.name])
    }


def _is_equal(one: Sequence[Entry], other: Sequence[Entry]) -> bool:
    """Return True if the compared bytes of two tables are equal."""
    entries = [*one, *other]
    files = [entry.values for entry in entries if isinstance(entry.values, FileSlice)]
    if len({(each.shape, each.dtype) for each in entries}) > 1 or len(files) < 2:
        return False
    most = min(entries[0].total, _COMPARED_REMOTELY if is_remote(entries) else _COMPARED)
    return all(map(np.array_equal, *(values.part(0, most).raw() for values in files)))


def _share(name: str, stacks: Mapping[str, int], per_token: int | None) -> Fraction:
    """Return the share of a parameter that a token is multiplied by."""
    match = _EXPERT.match(name) if per_token else None
    total = stacks.get(match["stack"], 0) if match else 0
    return Fraction(min(per_token or 0, total), total) if total else ONCE


def is_decided(
    description: Description, stored: Collection[str], config: Mapping[str, Any]
) -> bool:
    """Return whether names, shapes and a configuration describe a model without its class.

    Parameters
    ----------
    description : Description
        Modules by names.
    stored : collection of str
        Parameters that the files hold.
    config : mapping
        Content of ``config.json``.
    """
    return not description.unsettled and all(_requirements(description, stored, config))


def _requirements(
    description: Description, stored: Collection[str], config: Mapping[str, Any]
) -> Iterator[bool]:
    """Yield whether each requirement on a file is met; cheap ones first."""
    architectures = config.get("architectures")
    yield isinstance(architectures, list) and len(architectures) == 1
    assert isinstance(architectures, list)
    is_headed = str(architectures[0]).endswith(_HEADED)
    yield is_headed or str(architectures[0]).endswith("Model")
    # Configurations inside of others belong to models of several towers.
    inner = [value for key, value in config.items() if key not in SETTINGS_KEYS]
    yield not any(isinstance(value, dict) and "model_type" in value for value in inner)
    named = [(m.name, m.group, p) for m in description.modules for p in m.parameters]
    shapes = {p.name: p.shape for _, _, p in named if p.name in stored}
    # No other parameters, convolutions or fused experts.
    yield all(name.endswith((".weight", ".bias")) for name in shapes)
    yield all(len(shape) < 3 for shape in shapes.values())
    pooler = set() if is_headed else {name for name, *_ in named if _POOLER.search(name)}
    yield all(group in _DECIDED or name in pooler for name, group, _ in named)
    yield _has_whole_blocks(shapes, config)
    of_groups: dict[str, list[Shape]] = defaultdict(list)
    for _, group, parameter in named:
        of_groups[group].append(parameter.shape)
    yield _has_known_experts(shapes, of_groups["router"], config)
    # One table of the announced vocabulary, and each matrix of the announced width.
    width, tables = first_count(config, *_WIDTH) or 0, of_groups["embedding"]
    yield tables.count((first_count(config, "vocab_size") or 0, width)) == 1
    yield all(len(table) == 2 and table[1] == width for table in tables)
    yield all(width in s for name, s in shapes.items() if len(s) == 2 and _BLOCK.match(name))
    # A head that is stored or tied, none in a body; the setting decides on equal bytes.
    heads = {p.name for _, group, p in named if group == "lm_head" and len(p.shape) == 2}
    ties = {p.name for _, _, p in named if p.tied_to}
    yield len(heads | ties) == int(is_headed)
    yield config.get("tie_word_embeddings") is True or ties.isdisjoint(stored)


def _has_whole_blocks(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> bool:
    """Return whether there is one tower, of as many blocks as announced, all of the same shapes."""
    numbers: dict[str, set[int]] = defaultdict(set)
    kinds: dict[str, set[Shape]] = defaultdict(set)
    for name, shape in shapes.items():
        if match := _BLOCK.match(name):
            numbers[match["tower"]].add(int(match["number"]))
            kinds[match["rest"]].add(shape)
        elif re.search(r"\.\d", name):
            return False
    count = first_count(config, *_BLOCKS) or 0
    is_even = all(len(sizes) == 1 for sizes in kinds.values())
    return is_even and [(len(n), max(n)) for n in numbers.values()] == [(count, count - 1)]


def _has_known_experts(
    shapes: Mapping[str, Shape], routers: Collection[Shape], config: Mapping[str, Any]
) -> bool:
    """Return whether the experts are those of the configuration, with a router for each stack."""
    stacks, per_token = expert_stacks(shapes), first_count(config, *EXPERTS_PER_TOKEN)
    announced = {config[key] for key in _EXPERT_COUNTS if isinstance(config.get(key), int)}
    chosen = [shape for shape in routers if len(shape) == 2 and shape[0] in announced]
    if not stacks and not per_token:
        return not chosen
    counts = {*stacks.values()}
    return bool(stacks and per_token) and counts == announced and len(chosen) == len(stacks)
