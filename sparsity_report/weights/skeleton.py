"""Describe the modules and parameters of a model from its ``nn.Module``, values not needed.

A model built from its config on the meta device serves as well as a loaded one, so the file and
the module route share this single description.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from operator import attrgetter
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.nn.utils import parametrize

from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.experts import ExpertCSR, ExpertsCSR
from sparsity_report.sparse.linear import LinearCSR
from sparsity_report.weights.base import ONCE, Module, Parameter
from sparsity_report.weights.groups import LINEAR_GROUPS, classify, is_linear

# torch.compile and PEFT put these names around modules; they are not part of the model.
_WRAPPER_WORDS = {"_orig_mod", "base_layer"}
# Low-rank adapters belong to fine-tuning; pruning is about the weights beneath.
_ADAPTER = re.compile(r"(^|\.)lora_")
_PER_SEQUENCE_CLASS = re.compile("Pooler|ClassificationHead")
_PER_SEQUENCE_WORDS = frozenset(
    ("classifier", "score", "pooler", "pre_classifier", "text_projection", "visual_projection")
)


@dataclass(slots=True)
class Place:
    """A module of a model where it is first met.

    Attributes
    ----------
    path : str
        Dotted name, words of wrappers left out.
    module : nn.Module
    around : tuple of nn.Module
        What encloses it, nearest first.
    tensors : dict
        Its own parameters under their plain names; masks of torch's pruning folded in.
    times : int
        How often the model holds it.
    """

    path: str
    module: nn.Module
    around: tuple[nn.Module, ...]
    tensors: dict[str, torch.Tensor]
    times: int = 1


def walk(model: nn.Module) -> list[Place]:
    """Return every module of a model once, the model itself without its wrappers first."""
    found: dict[int, Place] = {}
    waiting: list[tuple[str, nn.Module, tuple[nn.Module, ...]]] = [("", _unwrapped(model), ())]
    while waiting:
        path, module, around = waiting.pop()
        if id(module) in found:
            found[id(module)].times += 1
        else:
            found[id(module)] = Place(path, module, around, _tensors(module))
        if children := module._modules:
            dot, inside = f"{path}." if path else "", (module, *around)
            waiting += [
                (path if name in _WRAPPER_WORDS else dot + name, child, inside)
                for name, child in reversed(children.items())
                if child is not None
            ]
    return list(found.values())


def meta_model(config: Any, classes: Sequence[str]) -> nn.Module:
    """Build a model from a transformers config without memory for its weights.

    Parameters
    ----------
    config : transformers.PretrainedConfig
    classes : sequence of str
        The config's ``architectures``; the first that transformers has is built, else the
        model type's causal or encoder-decoder LM, else its base model.
    """
    import transformers

    with torch.device("meta"):
        for name in classes:
            found = getattr(transformers, name, None)
            if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
                return cast(nn.Module, found(config))
        for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM):
            if type(config) in auto._model_mapping:
                return cast(nn.Module, auto.from_config(config))
        return cast(nn.Module, transformers.AutoModel.from_config(config))


def describe(
    places: Sequence[Place],
    *,
    blacklist: Collection[str] = ("lm_head",),
    rules: Mapping[str, str] | None = None,
    dtype: Callable[[str], str] | None = None,
    known: bool | None = None,
) -> tuple[Module, ...]:
    """Return every module of a model that owns parameters, with its group and parameters.

    Parameters
    ----------
    places : sequence of Place
        From :func:`walk` of a model on any device, ``meta`` included.
    blacklist : collection of str
        Modules with one of these words in their dotted name are not prunable.
    rules : mapping of pattern to group, optional
        The user's own grouping, see :func:`sparsity_report.weights.groups.classify`.
    dtype : callable, optional
        Gives the dtype a parameter has at its source, by name; the model's own by default.
    known : bool, optional
        Whether the values are there to be counted; by default where they are not on ``meta``.
    """
    model = places[0].module
    embedding_id, head_id = (_embedding_id(model, side) for side in ("input", "output"))
    owners = _owners(places, embedding_id)
    modules = []
    for place in places:
        if not place.tensors:
            continue
        name, module, around = place.path, place.module, place.around
        class_name, words = type(module).__name__, name.split(".")
        enclosing = tuple([type(m).__name__ for m in around])
        is_head = id(module) == head_id
        group = classify(name, class_name, enclosing=enclosing, head=is_head, rules=rules)
        may_prune = group in LINEAR_GROUPS and not set(blacklist).intersection(words)
        may_prune = may_prune and not _ADAPTER.search(name)
        uses = _uses(model, module, around)
        uses = uses * place.times if place.times > 1 else uses
        parameters = []
        for leaf, tensor in place.tensors.items():
            full = f"{name}.{leaf}" if name else leaf
            owner = owners[id(tensor)]
            csr = as_csr(module, leaf)
            shape = csr.dense_shape if csr else tuple(tensor.shape)
            matrix, experts = _matrix(module, leaf, shape, is_head or group == "router")
            kind = dtype(full) if dtype else dtype_name(tensor.dtype)
            parameters.append(
                Parameter(
                    name=full,
                    shape=shape,
                    dtype=kind,
                    itemsize=_itemsize(kind),
                    matrix=matrix,
                    transposed=matrix is not None and _is_transposed(module),
                    experts=experts,
                    uses=uses,
                    head_dim=_head_dim(around) if matrix else None,
                    head_axis=int(words[-1] in _OUTPUT),
                    prunable=may_prune
                    and matrix is not None
                    and owner == full
                    and "." not in leaf
                    and not _is_direction(module, leaf),
                    tied_to=None if owner == full else owner,
                    layout=_layout(module, leaf, tensor),
                    held_bytes=_held_bytes(module, leaf, tensor),
                    known=not tensor.is_meta if known is None else known,
                )
            )
        once = _sees_a_sequence(enclosing) or not _PER_SEQUENCE_WORDS.isdisjoint(words)
        per = "sequence" if once else "token"
        modules.append(Module(name, class_name, group, tuple(parameters), per))
    shared = {p.tied_to for m in modules for p in m.parameters if p.tied_to}
    return tuple(_unprunable(module, shared) for module in modules) if shared else tuple(modules)


def attention_widths(places: Sequence[Place]) -> dict[int | None, int] | None:
    """Sum query and value widths over the attention layers; None where one cannot be told.

    Scores and weighted values of one token cost ``2·(query width + value width)`` FLOPs for
    every position it attends to: of all, or of a sliding window, by which the sums are kept.
    """
    totals: dict[int | None, Fraction] = {}
    for place in places:
        module = place.module
        if not _is_attention(module) or any(map(_is_attention, module.children())):
            continue  # not attention, or a wrapper around the attention proper, as in BERT
        leaves = {
            name.rpartition(".")[2]: child
            for name, child in module.named_modules()
            if name.count(".") <= 1
        }
        query = _out_features(next((leaves[n] for n in _QUERY if n in leaves), None))
        value = _in_features(next((leaves[n] for n in _OUTPUT if n in leaves), None)) or query
        if value is None:
            return None
        width = ((query or value) + value) * _uses(places[0].module, module, place.around)
        window = _window(places[0].module, module)
        totals[window] = totals.get(window, Fraction(0)) + width
    return {window: round(total) for window, total in totals.items()} or None


def _window(model: nn.Module, attention: nn.Module) -> int | None:
    """Positions an attention layer can see: its own word, or the config's for all layers alike."""
    config: Any = getattr(model, "config", None)
    # A config may carry words its model does not know, and may say it layer by layer.
    alike = hasattr(type(config), "sliding_window") and not getattr(config, "layer_types", None)
    window = getattr(attention, "sliding_window", config.sliding_window if alike else None)
    return window if isinstance(window, int) else None


def _is_attention(module: nn.Module) -> bool:
    # RWKV's "attention" is a recurrence without scores.
    return _names_attention(type(module).__name__)


@lru_cache(maxsize=1024)
def _names_attention(class_name: str) -> bool:
    return bool(re.search(r"^(?!Rwkv).*(Attention|Attn)", class_name))


def locate(places: Sequence[Place]) -> dict[str, tuple[nn.Module, str]]:
    """Map the name of every described parameter to the module and attribute that hold it."""
    return {
        f"{place.path}.{leaf}" if place.path else leaf: (place.module, leaf)
        for place in places
        for leaf in place.tensors
    }


def value(module: nn.Module, leaf: str) -> torch.Tensor:
    """Return the tensor a described parameter stands for: dense, pruning mask applied."""
    if f"{leaf}_mask" in module._buffers:
        tensor = getattr(module, f"{leaf}_orig") * getattr(module, f"{leaf}_mask")
    else:
        csr = as_csr(module, leaf)
        tensor = csr.weight if csr else attrgetter(leaf)(module)
    assert isinstance(tensor, torch.Tensor)
    return tensor.detach() if _is_strided(tensor) else tensor.detach().to_dense()


def put_(module: nn.Module, leaf: str, tensor: torch.Tensor) -> None:
    """Make a changed tensor from :func:`value` the module's own; CSR stays CSR, others dense."""
    if csr := as_csr(module, leaf):
        csr.assign_(tensor)
    elif not _is_strided(held := attrgetter(leaf)(module)):
        if held.layout == torch.sparse_csr:
            tensor = tensor.to_sparse_csr()
            indices = (tensor.crow_indices().int(), tensor.col_indices().int())
            tensor = torch.sparse_csr_tensor(*indices, tensor.values(), tensor.shape)
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))


@lru_cache(maxsize=64)
def dtype_name(dtype: torch.dtype) -> str:
    """Name of a torch dtype, e.g. ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")


@lru_cache(maxsize=64)
def _itemsize(dtype: str) -> int:
    return int(getattr(torch, dtype).itemsize)


def _unwrapped(model: nn.Module) -> nn.Module:
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrapped(cast(nn.Module, model.module))
    if type(model).__module__.startswith("peft."):
        return _unwrapped(cast(Any, model).get_base_model())
    return cast(nn.Module, getattr(model, "_orig_mod", model))


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Own parameters under their plain names; masks of torch's pruning folded in."""
    found: dict[str, torch.Tensor] = {}
    parametrized = "parametrizations" in module._modules
    experts = [name for name, own in module._modules.items() if isinstance(own, ExpertsCSR)]
    if isinstance(module, ExpertCSR) or not (
        module._parameters or parametrized or experts or isinstance(module, LinearCSR)
    ):
        return found  # an expert is told with the module whose tensor it comes from
    if isinstance(module, parametrize.ParametrizationList):
        return found  # its originals are told with the module they parametrise
    if isinstance(module, LinearCSR):
        found["weight"] = module.values
    for name in experts:
        found[name] = cast(ExpertsCSR, module._modules[name])[0].values
    for leaf, parameter in module._parameters.items():
        if parameter is None:
            continue
        # The mixin, as torch's test for UninitializedParameter itself is slow.
        if isinstance(parameter, UninitializedTensorMixin):
            raise SparsityReportError(
                f"{type(module).__name__}.{leaf} is lazy and has no shape yet; "
                "run one forward pass first"
            )
        plain = leaf.removesuffix("_orig")
        found[plain if f"{plain}_mask" in module._buffers else leaf] = parameter
    if parametrized:
        for name, originals in cast(nn.ModuleDict, module.parametrizations).items():
            for leaf, parameter in originals._parameters.items():
                if parameter is not None:
                    found[f"parametrizations.{name}.{leaf}"] = parameter
    return found


def _owners(places: Sequence[Place], embedding_id: int | None) -> dict[int, str]:
    """Name the parameter under which each tensor is counted: the embedding, else the first.

    A parameter whose memory lies inside another's is a view of it and counted there.
    """
    owners: dict[int, str] = {}
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for place in places:
        for leaf, tensor in place.tensors.items():
            full = f"{place.path}.{leaf}" if place.path else leaf
            owning = id(place.module) == embedding_id and leaf == "weight"
            if id(tensor) in owners and not owning:
                continue
            owners[id(tensor)] = full
            if not _has_memory(tensor):
                continue
            start = tensor.data_ptr()
            end = start + tensor.numel() * tensor.element_size()
            there = spans.setdefault(tensor.untyped_storage().data_ptr(), [])
            inside = next((name for a, b, name in there if a <= start and end <= b), None)
            if inside and not owning:
                owners[id(tensor)] = inside
            else:
                there.append((start, end, full))
    return owners


def _has_memory(tensor: torch.Tensor) -> bool:
    return not tensor.is_meta and _is_strided(tensor) and tensor.numel() > 0


def _is_strided(tensor: torch.Tensor) -> bool:
    semi_structured = isinstance(tensor, torch.sparse.SparseSemiStructuredTensor)
    return tensor.layout == torch.strided and not semi_structured


def _embedding_id(model: nn.Module, side: str) -> int | None:
    try:
        found = getattr(model, f"get_{side}_embeddings")()
    except (AttributeError, NotImplementedError):
        return None
    return id(found) if isinstance(found, nn.Module) else None


def _head_dim(around: Sequence[nn.Module]) -> int | None:
    """Width of a head of the attention a matrix belongs to."""
    for module in around[:2]:
        if _is_attention(module):
            for name in ("head_dim", "attention_head_size", "key_value_proj_dim", "head_size"):
                if isinstance(getattr(module, name, None), int):
                    return int(getattr(module, name))
    return None


def _matrix(
    module: nn.Module, leaf: str, shape: tuple[int, ...], multiplied: bool
) -> tuple[tuple[int, int] | None, int]:
    """``(out, in)`` of the matrix a token is multiplied by, and how many of them there are."""
    class_name = type(module).__name__
    if class_name.endswith("Experts"):
        if len(shape) != 3:
            return None, 1
        experts, rows, columns = shape
        return ((columns, rows) if _is_transposed(module) else (rows, columns)), experts
    if leaf.startswith("parametrizations.weight."):
        # Weight norm: the direction has the weight's shape, the magnitude a column of it.
        of_weight = shape == tuple(cast(torch.Tensor, module.weight).shape)
    else:
        of_weight = leaf == "weight" or _is_direction(module, leaf)
    is_weight = of_weight and (multiplied or is_linear(class_name))
    if len(shape) != 2 or not (is_weight or leaf == "in_proj_weight"):
        return None, 1
    rows, columns = shape
    return ((columns, rows) if _is_transposed(module) else (rows, columns)), 1


def _is_direction(module: nn.Module, leaf: str) -> bool:
    """Whether this is the direction that torch's older weight norm keeps of a weight."""
    return leaf == "weight_v" and "weight_g" in module._parameters


def _is_transposed(module: nn.Module) -> bool:
    """Whether the input dimension of a matrix comes first: the shape of a square one hides it."""
    class_name = type(module).__name__
    if class_name.endswith("Experts"):
        return bool(getattr(module, "is_transposed", False))
    return class_name == "Conv1D"


def _uses(model: nn.Module, module: nn.Module, around: Sequence[nn.Module]) -> Fraction:
    """How often one token passes through a module."""
    uses = ONCE
    classes = (type(module).__name__, *(type(m).__name__ for m in around))
    if not _shared_or_mixed(classes):
        return uses
    config: Any = getattr(model, "config", None)
    if "AlbertLayerGroup" in classes:
        uses *= Fraction(config.num_hidden_layers, config.num_hidden_groups)
    if type(module).__name__.endswith("Experts") and not isinstance(module, nn.ModuleList):
        leaf = next(iter(_tensors(module)))
        csr = as_csr(module, leaf)
        experts = (csr.dense_shape if csr else getattr(module, leaf).shape)[0]
        return uses * Fraction(_top_k(config, around) or experts, experts)
    for inner, outer in zip([module, *around], around, strict=False):
        if isinstance(outer, nn.ModuleList) and re.search("Expert|MLP", type(inner).__name__):
            block = around[around.index(outer) + 1 :]
            if block and re.search(r"Moe|MoE", type(block[0]).__name__):
                return uses * Fraction(_top_k(config, block) or len(outer), len(outer))
    return uses


@lru_cache(maxsize=4096)
def _shared_or_mixed(classes: tuple[str, ...]) -> bool:
    return any(re.search(r"^AlbertLayerGroup$|Expert|Mo[eE]", name) for name in classes)


@lru_cache(maxsize=4096)
def _sees_a_sequence(classes: tuple[str, ...]) -> bool:
    return any(map(_PER_SEQUENCE_CLASS.search, classes))


def _top_k(config: Any, around: Sequence[nn.Module]) -> int | None:
    """Experts per token, from the block's router, the block itself, or the config."""
    for place in (*(around[0].children() if around else ()), *around[:1]):
        if isinstance(getattr(place, "top_k", None), int):
            return int(place.top_k)
    for source in (config, getattr(config, "text_config", None)):
        for name in ("num_experts_per_tok", "moe_topk", "num_selected_experts"):
            if isinstance(getattr(source, name, None), int):
                return int(getattr(source, name))
    return None


_QUERY = ("q_proj", "query", "q", "q_b_proj", "q_lin", "Wq")
_OUTPUT = ("o_proj", "out_proj", "dense", "c_proj", "o", "wo", "out_lin", "Wo", "output")


def _out_features(layer: nn.Module | None) -> int | None:
    return layer.out_features if isinstance(layer, nn.Linear | LinearCSR) else None


def _in_features(layer: nn.Module | None) -> int | None:
    if type(layer).__name__ == "Conv1D":
        return int(cast(Any, layer).weight.shape[0])
    return layer.in_features if isinstance(layer, nn.Linear | LinearCSR) else None


def as_csr(module: nn.Module, leaf: str) -> LinearCSR | ExpertsCSR | None:
    """Return what holds a described parameter as CSR, None where it is a tensor."""
    if isinstance(module, LinearCSR):
        return module if leaf == "weight" else None
    child = module._modules.get(leaf)
    return child if isinstance(child, ExpertsCSR) else None


def _layout(module: nn.Module, leaf: str, tensor: torch.Tensor) -> str:
    if isinstance(tensor, torch.sparse.SparseSemiStructuredTensor):
        return "2:4"
    if as_csr(module, leaf):
        return "csr"
    return {torch.strided: "dense", torch.sparse_coo: "coo"}.get(
        tensor.layout, str(tensor.layout).removeprefix("torch.sparse_")
    )


def _held_bytes(module: nn.Module, leaf: str, tensor: torch.Tensor) -> int | None:
    """Bytes of the arrays behind a sparse tensor, explicit zeros and all."""
    held: list[Any]
    if csr := as_csr(module, leaf):
        held = [*csr.buffers()]
    elif isinstance(tensor, torch.sparse.SparseSemiStructuredTensor):
        held = [part for part in (tensor.packed, tensor.meta) if isinstance(part, torch.Tensor)]
    elif tensor.layout == torch.strided:
        return None
    elif tensor.layout == torch.sparse_coo:
        held = [tensor._values(), tensor._indices()]
    elif tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        held = [tensor.values(), tensor.crow_indices(), tensor.col_indices()]
    else:
        held = [tensor.values(), tensor.ccol_indices(), tensor.row_indices()]
    return sum(int(part.numel()) * int(part.element_size()) for part in held)


def _unprunable(module: Module, names: Collection[str | None]) -> Module:
    """Take back `prunable` from parameters that others are tied to."""
    if not any(p.prunable and p.name in names for p in module.parameters):
        return module
    parameters = tuple(
        replace(p, prunable=p.prunable and p.name not in names) for p in module.parameters
    )
    return replace(module, parameters=parameters)
