"""Description of the modules and parameters of a model, without their values.

:func:`describe` serves models built on the meta device from a config as well as loaded ones.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import torch
from torch import nn

from sparsity_report.errors import first_line
from sparsity_report.sparse.csr_swap import runs_as_csr
from sparsity_report.sparse.linear_csr import LinearCSR
from sparsity_report.weights.anatomy import groups
from sparsity_report.weights.anatomy.names_only import (
    ADAPTER,
    EXPERTS_PER_TOKEN,
    Description,
    ReaderOptions,
    expert_share,
    on_disk,
)
from sparsity_report.weights.anatomy.parameter_places import Place, as_csr
from sparsity_report.weights.anatomy.parameter_uses import Behavior, Usage, trace_uses
from sparsity_report.weights.matrix_direction import as_matrix
from sparsity_report.weights.tensor_slices import Entry
from sparsity_report.weights.torch_tensors import (
    is_strided,
    local_values,
    sparse_bytes,
    tensor_dtype,
)
from sparsity_report.weights.weights import NEVER, ONCE, Module, Parameter, in_order
from sparsity_report.words.sentences import say

# In an adapter of an embedding, the first matrix is looked up and the second multiplied.
_MULTIPLIED = re.compile(r"(^|\.)lora_embedding_B$")
_PER_SEQUENCE_CLASS = re.compile("Pooler|ClassificationHead")
_PER_SEQUENCE_WORDS = frozenset(
    ("classifier", "score", "pooler", "pre_classifier", "text_projection", "visual_projection")
)
# RWKV's "attention" is a recurrence without scores.
_ATTENTION = re.compile("^(?!Rwkv).*(Attention|Attn)")


def describe(
    places: Sequence[Place],
    options: ReaderOptions,
    parts: Mapping[str, Sequence[Entry]] | None = None,
) -> Description:
    """Return the modules of a model with their groups, parameters and use counts.

    Parameters
    ----------
    places : sequence of Place
        From :func:`walk` of a model on any device, ``meta`` included.
    options : ReaderOptions
    parts : mapping of str to sequence of Entry, optional
        Tensors on disk with the values of each parameter; by default the values of the model.
    """
    behavior, ties = _behavior(places), _Ties(places)
    usages = behavior.usages
    known: dict[str, str] = {}
    read = _read(places, ties, usages)
    described: list[Module] = []
    for place in places:
        if not place.tensors:
            continue
        group = known[place.path] = _group(place, options, known, ties, usages)
        parent, called = next(iter(place.around), None), place.path.rpartition(".")[2]
        may_prune = options.may_prune(place.path, group)
        parameters = []
        for leaf, tensor in place.tensors.items():
            name, owner = place.full_name(leaf), ties.owners[id(tensor)]
            usage = usages.get(name)
            if usage is None or not usage.touched:
                rule = _by_rule(places[0].module, place, leaf, group)
                unread = replace(rule, per_token=NEVER, per_sequence=NEVER)
                is_lent = name in read and rule.shape is None
                usage = rule if usage is None or is_lent else unread
            facts = _facts(place, leaf, usage)
            here = {"dtype": tensor_dtype(tensor.dtype), "known": not tensor.is_meta}
            stored = here if parts is None else on_disk(parts[name])
            prunable = (
                may_prune
                and facts["matrix"] is not None
                and owner == name
                and name not in ties.shared
                and "." not in leaf
                and not _is_direction(place.module, leaf)
                and not usage.is_vector
                and not groups.is_table(leaf)
            )
            parameters.append(
                Parameter(
                    name=name,
                    prunable=prunable,
                    runs_as_csr=not prunable
                    or (not usage.read_outside and runs_as_csr(place.module, leaf, parent, called)),
                    tied_to=None if owner == name else owner,
                    **stored,
                    **facts,
                )
            )
        kind = type(place.module).__name__
        described.append(Module(place.path, kind, group, tuple(parameters)))
    modules = [part for module in options.within_blocks(described) for part in _apart(module)]
    notes = behavior.notes
    if usages:
        notes += (*_unused(modules), *_unsorted(modules))
    return Description(in_order(modules), behavior.attention, notes)


def _behavior(places: Sequence[Place]) -> Behavior:
    """Return the traced use of a model, or only a note that it cannot run."""
    model = places[0].module
    # The module of their class takes seconds to load, and models of it have loaded it.
    loaded = sys.modules.get("transformers.modeling_utils")
    if loaded is None or not isinstance(model, loaded.PreTrainedModel):
        return Behavior({}, None)
    try:
        return trace_uses(places)
    except Exception as error:  # a model may fail anywhere on made-up inputs
        name, reason = type(model).__name__, first_line(error)
        return Behavior({}, None, (say("note.uses_by_rule", model=name, error=reason),))


def _read(places: Sequence[Place], ties: _Ties, usages: Mapping[str, Usage]) -> set[str]:
    """Return the parameters that a model reads, under their own name or a tied one."""
    return {
        ties.owners[id(tensor)]
        for place in places
        for leaf, tensor in place.tensors.items()
        if (usage := usages.get(place.full_name(leaf))) and usage.touched
    }


def _group(
    place: Place,
    options: ReaderOptions,
    known: Mapping[str, str],
    ties: _Ties,
    usages: Mapping[str, Usage],
) -> str:
    """Return the group of a module: by user rules, traced use, class and name."""
    if rule := groups.ruled(place.path, options.groups):
        return rule
    enclosing = tuple([type(module).__name__ for module in place.around])
    traced = [usages[name] for name in map(place.full_name, place.tensors) if name in usages]
    roles, module = {usage.role for usage in traced}, id(place.module)
    head = module == ties.output or ("lm_head" in roles and module != ties.input)
    kind = type(place.module).__name__
    group = "lm_head" if head else groups.classify(place.path, kind, enclosing=enclosing)
    if adapter := ADAPTER.search(place.path):
        return known.get(place.path[: adapter.start()], group)
    if "router" in roles:
        return "router"
    return _by_use(place, traced) if group == "other" else group


def _by_use(place: Place, traced: Sequence[Usage]) -> str:
    """Return the group of a module that no rule knows, from its traced use."""
    multiplied = (usage.convolved or (usage.shape and not usage.is_vector) for usage in traced)
    if any(multiplied) or groups.is_other_linear(type(place.module).__name__):
        return "other_linear"
    # Rows added or concatenated to the input: positions, queries, separators.
    sizes = [sorted(tensor.shape)[-2:] for tensor in place.tensors.values()]
    if traced and any(len(size) > 1 and size[0] > 1 for size in sizes):
        return "embedding"
    return "other"


def _by_rule(model: nn.Module, place: Place, leaf: str, group: str) -> Usage:
    """Return the use of a parameter according to its class and name."""
    shape = place.shape(leaf)
    multiplied = _is_matrix(place.module, leaf, shape, group in {"lm_head", "router"})
    multiplied = multiplied or bool(_MULTIPLIED.search(place.path))
    turned = multiplied and _is_transposed(place.module)
    matrix = as_matrix(shape, turned)[:2] if multiplied else None
    return Usage(*_uses_by_rule(model, place), shape=matrix, turned=turned)


def _facts(place: Place, leaf: str, usage: Usage) -> dict[str, Any]:
    """Return the attributes of a parameter that follow from its module and its use."""
    module, tensor = place.module, place.tensors[leaf]
    shape = place.shape(leaf)
    matrix, size = usage.shape, math.prod(shape)
    stacked = len(shape) > 2 or "Expert" in type(module).__name__
    if matrix and size and (not stacked or size % math.prod(matrix)):
        # In a product with joined parameters or with a part of one, the matrix is the whole
        # parameter.
        matrix = as_matrix(shape, usage.turned)[:2]
    experts = size // math.prod(matrix) if matrix and size else 1
    layout, memory_bytes = _layout(module, leaf, tensor)
    return {
        "shape": shape,
        "matrix": matrix,
        "transposed": usage.turned,
        "experts": experts,
        "expert_groups": _expert_groups(place.around, experts),
        "uses": usage.per_token,
        "uses_per_sequence": usage.per_sequence,
        "head_dim": _head_dim(place.around) if matrix else None,
        "head_axis": groups.head_axis(place.path),
        "layout": layout,
        "memory_bytes": memory_bytes,
    }


def _apart(module: Module) -> Iterator[Module]:
    """Yield a module, and a separate module for each matrix with another use count."""
    matrices = [p for p in module.parameters if p.matrix]
    often = {p.name: (p.uses, p.uses_per_sequence) for p in matrices}
    others = [p for p in matrices if often[p.name] != often[matrices[0].name]]
    yield replace(module, parameters=tuple(p for p in module.parameters if p not in others))
    for p in others:
        yield replace(module, name=p.name, parameters=(p,))


def _unused(modules: Iterable[Module]) -> Iterator[str]:
    """Yield a note on modules whose matrices no token of a text uses."""
    unused = [
        module.name
        for module in modules
        if any(p.matrix and not p.uses and not p.uses_per_sequence for p in module.parameters)
    ]
    if unused:
        yield say("note.unused_modules", modules=len(unused), first=unused[0])


def _unsorted(modules: Sequence[Module]) -> Iterator[str]:
    """Yield a note on experts that all tokens use although a router chooses among them."""
    routed = any(module.group == "router" for module in modules)
    experts = (module for module in modules if module.class_name.endswith("Experts"))
    stacks = [p for module in experts for p in module.parameters if p.experts > 1 and p.uses >= 1]
    if routed and stacks:
        yield say("note.experts_all_used", experts=stacks[0].experts, parameter=stacks[0].name)


class _Ties:
    """Tied parameters, and the parameter under which each is counted.

    Attributes
    ----------
    owners : dict of int to str
        Parameter under which each tensor is counted, by id: the embedding, else the first.
    shared : set of str
        Parameters that others are tied to.
    input, output : int or None
        Ids of the input and output embeddings.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        model = places[0].module
        self.input, self.output = (_embedding_id(model, side) for side in ("input", "output"))
        self.owners = _owners(places, self.input)
        self.shared = {
            self.owners[id(tensor)]
            for place in places
            for leaf, tensor in place.tensors.items()
            if self.owners[id(tensor)] != place.full_name(leaf)
        }


def _owners(places: Sequence[Place], embedding_id: int | None) -> dict[int, str]:
    """Return the parameter under which each tensor is counted: the embedding, else the first.

    A parameter whose memory is inside another's is a view and counted there.
    """
    owners: dict[int, str] = {}
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for place in places:
        for leaf, tensor in place.tensors.items():
            full = place.full_name(leaf)
            owning = id(place.module) == embedding_id and leaf == "weight"
            if id(tensor) in owners and not owning:
                continue
            owners[id(tensor)] = full
            local = local_values(tensor)
            if local.is_meta or not is_strided(local) or not local.numel():
                continue
            start = local.data_ptr()
            end = start + local.numel() * local.element_size()
            there = spans.setdefault(local.untyped_storage().data_ptr(), [])
            inside = next((name for a, b, name in there if a <= start and end <= b), None)
            if inside and not owning:
                owners[id(tensor)] = inside
            else:
                there.append((start, end, full))
    return owners


def _embedding_id(model: nn.Module, side: str) -> int | None:
    try:
        embedding = getattr(model, f"get_{side}_embeddings")()
    except (AttributeError, NotImplementedError):
        return None
    return id(embedding) if isinstance(embedding, nn.Module) else None


def _is_matrix(module: nn.Module, leaf: str, shape: tuple[int, ...], multiplied: bool) -> bool:
    """Return whether tokens are multiplied by a tensor, or by the experts inside it."""
    class_name = type(module).__name__
    if class_name.endswith("Experts"):
        return len(shape) == 3
    if leaf.startswith("parametrizations.weight."):
        # Weight norm: the direction has the weight's shape, the magnitude a column of it.
        of_weight = shape == tuple(cast(torch.Tensor, module.weight).shape)
    else:
        of_weight = leaf == "weight" or _is_direction(module, leaf)
    is_weight = of_weight and (multiplied or groups.is_linear(class_name))
    return len(shape) == 2 and (is_weight or leaf == "in_proj_weight")


def _is_direction(module: nn.Module, leaf: str) -> bool:
    """Return whether a tensor is the direction of torch's older weight norm."""
    return leaf == "weight_v" and "weight_g" in module._parameters


def _is_transposed(module: nn.Module) -> bool:
    """Return whether the input dimension comes first, which a square shape does not show."""
    if isinstance(module, LinearCSR):
        return module.transposed
    class_name = type(module).__name__
    declared = class_name.endswith("Experts") and getattr(module, "is_transposed", False)
    return class_name == "Conv1D" or bool(declared)


def _layout(module: nn.Module, leaf: str, tensor: torch.Tensor) -> tuple[str, int | None]:
    """Return the layout and, if sparse, the bytes of its arrays, explicit zeros included."""
    if csr := as_csr(module, leaf):
        return "csr", sum(array.nbytes for array in csr.buffers())
    if isinstance(tensor, torch.sparse.SparseSemiStructuredTensor):
        arrays = tensor.packed, tensor.meta
        return "2:4", sum(array.nbytes for array in arrays if array is not None)
    if tensor.layout == torch.strided:
        return "dense", None
    return str(tensor.layout).removeprefix("torch.sparse_"), sparse_bytes(tensor)


def _uses_by_rule(model: nn.Module, place: Place) -> tuple[Fraction, Fraction]:
    """Return the uses of a module per token and per sequence."""
    classes = tuple(type(module).__name__ for module in place.around)
    words = place.path.split(".")
    # A score inside attention is a weight of its inputs, not of classes.
    is_head = not any(map(_ATTENTION.search, classes)) and _PER_SEQUENCE_WORDS.intersection(words)
    if is_head or any(map(_PER_SEQUENCE_CLASS.search, classes)):
        return NEVER, ONCE * place.times
    return _uses_per_token(model, place) * place.times, NEVER


def _uses_per_token(model: nn.Module, place: Place) -> Fraction:
    module, around = place.module, place.around
    if not re.search(r"Expert|Mo[eE]", " ".join(type(m).__name__ for m in (module, *around))):
        return ONCE
    config: Any = getattr(model, "config", None)
    if type(module).__name__.endswith("Experts") and not isinstance(module, nn.ModuleList):
        experts = place.shape(next(iter(place.tensors)))[0]
        return expert_share(_top_k(config, around), experts)
    for inner, outer in zip([module, *around], around, strict=False):
        if isinstance(outer, nn.ModuleList) and re.search("Expert|MLP", type(inner).__name__):
            block = around[around.index(outer) + 1 :]
            if block and re.search(r"Moe|MoE", type(block[0]).__name__):
                return expert_share(_top_k(config, block), len(outer))
    return ONCE


def _top_k(config: Any, around: Sequence[nn.Module]) -> int | None:
    """Return the experts per token, from the router, the block or the config."""
    block = (*around[0].children(), around[0]) if around else ()
    configs, names = (config, getattr(config, "text_config", None)), EXPERTS_PER_TOKEN
    return _declared(block, "top_k") or _declared(configs, *names)


def _expert_groups(around: Sequence[nn.Module], experts: int) -> tuple[int, int]:
    """Return the groups that a router chooses from before it chooses experts, and its choice."""
    configs = [getattr(module, "config", None) for module in around]
    groups = _declared(configs, "n_group") or 1
    chosen = _declared(configs, "topk_group") or groups
    return (groups, chosen) if experts > 1 and not experts % groups and chosen < groups else (1, 1)


def _declared(sources: Iterable[object], *names: str) -> int | None:
    """Return the first positive integer that a source has under one of the names."""
    values = (getattr(source, name, None) for source in sources for name in names)
    return next((n for n in values if isinstance(n, int) and n is not True and n > 0), None)


def _head_dim(around: Sequence[nn.Module]) -> int | None:
    """Width of a head of the attention a matrix belongs to."""
    # BERT's output projection is a sibling of the module that knows its heads.
    layers = (a for a in around[:2] if _ATTENTION.search(type(a).__name__))
    tellers = (module for layer in layers for module in (layer, *layer.children()))
    return _declared(tellers, "head_dim", "attention_head_size", "key_value_proj_dim", "head_size")
