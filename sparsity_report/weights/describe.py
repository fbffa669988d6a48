"""Describe the modules and parameters of a model, values not needed.

A model built from its config on the meta device serves as well as a loaded one, so the file and
the module route share :func:`describe`. Where transformers knows no model, names and shapes alone
decide: :func:`describe_names`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn

from sparsity_report.sparse.linear import LinearCSR
from sparsity_report.sparse.swap import runs_as_csr
from sparsity_report.weights.attention import OUTPUT_WORDS, head_dim
from sparsity_report.weights.groups import LINEAR_GROUPS, check_rules, classify, is_linear, ruled
from sparsity_report.weights.parameters import ONCE, Module, Parameter
from sparsity_report.weights.places import Place, as_csr, is_strided
from sparsity_report.weights.tensors import Entry, dtype_name
from sparsity_report.weights.uses import uses_per_token

# Low-rank adapters belong to fine-tuning; pruning is about the weights beneath.
_ADAPTER = re.compile(r"(^|\.)lora_")
# Of an adapter of an embedding the first matrix is looked up in, and the second multiplied by.
_MULTIPLIED = re.compile(r"(^|\.)lora_embedding_B$")
_PER_SEQUENCE_CLASS = re.compile("Pooler|ClassificationHead")
_PER_SEQUENCE_WORDS = frozenset(
    ("classifier", "score", "pooler", "pre_classifier", "text_projection", "visual_projection")
)


@dataclass(frozen=True)
class ReaderOptions:
    """What every format is opened with.

    Attributes
    ----------
    name : str
        What to call the model in tables and reports; of a module in memory empty for its own.
    blacklist : collection of str
        Modules with one of these words in their dotted name are not pruned.
    groups : mapping of pattern to group, optional
        The user's own grouping, see :func:`sparsity_report.weights.groups.classify`.
    notes : tuple of str
        What is known of where the model came from.
    """

    name: str = ""
    blacklist: Collection[str] = ("lm_head",)
    groups: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_rules(self.groups)
        if isinstance(self.blacklist, str):
            object.__setattr__(self, "blacklist", (self.blacklist,))

    def spares(self, module_name: str) -> bool:
        """Whether pruning leaves a module alone."""
        return not set(self.blacklist).isdisjoint(module_name.split("."))


def describe(
    places: Sequence[Place],
    options: ReaderOptions,
    parts: Mapping[str, Sequence[Entry]] | None = None,
) -> tuple[Module, ...]:
    """Return every module of a model that owns parameters, with its group and parameters.

    Parameters
    ----------
    places : sequence of Place
        From :func:`walk` of a model on any device, ``meta`` included.
    options : ReaderOptions
    parts : mapping of str to sequence of Entry, optional
        Tensors on disk that hold the values of each parameter. Without, values are those of the
        model; on ``meta`` there are none.
    """
    model = places[0].module
    embedding_id, head_id = (_embedding_id(model, side) for side in ("input", "output"))
    owners = _owners(places, embedding_id)
    shared = {
        owners[id(tensor)]
        for place in places
        for leaf, tensor in place.tensors.items()
        if owners[id(tensor)] != place.full_name(leaf)
    }
    modules: list[Module] = []
    groups: dict[str, str] = {}
    for place in places:
        if not place.tensors:
            continue
        class_name, words = type(place.module).__name__, place.path.split(".")
        enclosing = tuple([type(module).__name__ for module in place.around])
        is_head, parent = id(place.module) == head_id, next(iter(place.around), None)
        group = classify(
            place.path, class_name, enclosing=enclosing, head=is_head, rules=options.groups
        )
        if adapter := _ADAPTER.search(place.path):
            adapted = groups.get(place.path[: adapter.start()], group)
            group = ruled(place.path, options.groups) or adapted
        groups[place.path] = group
        may_prune = group in LINEAR_GROUPS and not options.spares(place.path) and not adapter
        uses = uses_per_token(model, place.module, place.around) * place.times
        parameters = []
        for leaf, tensor in place.tensors.items():
            facts = _facts(place, leaf, is_head or group == "router")
            name, owner = place.full_name(leaf), owners[id(tensor)]
            held = {"dtype": dtype_name(tensor.dtype)} if parts is None else on_disk(parts[name])
            prunable = (
                may_prune
                and facts["matrix"] is not None
                and owner == name
                and name not in shared
                and "." not in leaf
                and not _is_direction(place.module, leaf)
            )
            parameters.append(
                Parameter(
                    name=name,
                    uses=uses,
                    prunable=prunable,
                    runs_as_csr=not prunable or runs_as_csr(place.module, leaf, parent, words[-1]),
                    tied_to=None if owner == name else owner,
                    known=parts is not None or not tensor.is_meta,
                    **held,
                    **facts,
                )
            )
        once = _sees_a_sequence(enclosing) or not _PER_SEQUENCE_WORDS.isdisjoint(words)
        per = "sequence" if once else "token"
        modules.append(Module(place.path, class_name, group, tuple(parameters), per))
    return tuple(modules)


def on_disk(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what the tensors on disk that make up a parameter tell of it."""
    sizes = [entry.file_bytes for entry in entries]
    packings = sorted({entry.packing for entry in entries} - {""})
    return {
        "dtype": entries[0].dtype,
        "file_bytes": None if None in sizes else sum(size or 0 for size in sizes),
        "packing": ", ".join(packings),
    }


def _facts(place: Place, leaf: str, multiplied: bool) -> dict[str, Any]:
    """Return what the module of a parameter tells of it."""
    module, tensor = place.module, place.tensors[leaf]
    csr = as_csr(module, leaf)
    shape = csr.weight_shape if csr else tuple(tensor.shape)
    is_matrix = _is_matrix(module, leaf, shape, multiplied) or bool(_MULTIPLIED.search(place.path))
    transposed = is_matrix and _is_transposed(module)
    layout, held_bytes = _layout(module, leaf, tensor)
    return {
        "shape": shape,
        "matrix": _outputs_inputs(shape, transposed) if is_matrix else None,
        "transposed": transposed,
        "experts": shape[0] if is_matrix and len(shape) == 3 else 1,
        "head_dim": head_dim(place.around) if is_matrix else None,
        "head_axis": int(place.path.rpartition(".")[2] in OUTPUT_WORDS),
        "layout": layout,
        "held_bytes": held_bytes,
    }


def _owners(places: Sequence[Place], embedding_id: int | None) -> dict[int, str]:
    """Name the parameter under which each tensor is counted: the embedding, else the first.

    A parameter whose memory lies inside another's is a view of it and counted there.
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
    return not tensor.is_meta and is_strided(tensor) and tensor.numel() > 0


def _embedding_id(model: nn.Module, side: str) -> int | None:
    try:
        embedding = getattr(model, f"get_{side}_embeddings")()
    except (AttributeError, NotImplementedError):
        return None
    return id(embedding) if isinstance(embedding, nn.Module) else None


def _is_matrix(module: nn.Module, leaf: str, shape: tuple[int, ...], multiplied: bool) -> bool:
    """Whether a token is multiplied by a tensor, or by one expert after the other of it."""
    class_name = type(module).__name__
    if class_name.endswith("Experts"):
        return len(shape) == 3
    if leaf.startswith("parametrizations.weight."):
        # Weight norm: the direction has the weight's shape, the magnitude a column of it.
        of_weight = shape == tuple(cast(torch.Tensor, module.weight).shape)
    else:
        of_weight = leaf == "weight" or _is_direction(module, leaf)
    is_weight = of_weight and (multiplied or is_linear(class_name))
    return len(shape) == 2 and (is_weight or leaf == "in_proj_weight")


def _outputs_inputs(shape: tuple[int, ...], transposed: bool) -> tuple[int, int]:
    *_, rows, columns = shape
    return (columns, rows) if transposed else (rows, columns)


def _is_direction(module: nn.Module, leaf: str) -> bool:
    """Whether this is the direction that torch's older weight norm keeps of a weight."""
    return leaf == "weight_v" and "weight_g" in module._parameters


def _is_transposed(module: nn.Module) -> bool:
    """Whether the input dimension of a matrix comes first: the shape of a square one hides it."""
    if isinstance(module, LinearCSR):
        return module.transposed
    class_name = type(module).__name__
    declared = class_name.endswith("Experts") and getattr(module, "is_transposed", False)
    return class_name == "Conv1D" or bool(declared)


@lru_cache(maxsize=4096)
def _sees_a_sequence(classes: tuple[str, ...]) -> bool:
    return any(map(_PER_SEQUENCE_CLASS.search, classes))


def _layout(module: nn.Module, leaf: str, tensor: torch.Tensor) -> tuple[str, int | None]:
    """Name the layout, and if it is sparse the bytes of its arrays, explicit zeros and all."""
    layout, arrays = str(tensor.layout).removeprefix("torch.sparse_"), []
    if csr := as_csr(module, leaf):
        layout, arrays = "csr", [*csr.buffers()]
    elif isinstance(tensor, torch.sparse.SparseSemiStructuredTensor):
        layout, arrays = "2:4", [part for part in (tensor.packed, tensor.meta) if part is not None]
    elif tensor.layout == torch.strided:
        return "dense", None
    elif layout == "coo":
        arrays = [tensor._values(), tensor._indices()]
    elif layout in {"csr", "bsr"}:
        arrays = [tensor.values(), tensor.crow_indices(), tensor.col_indices()]
    else:
        arrays = [tensor.values(), tensor.ccol_indices(), tensor.row_indices()]
    return layout, sum(array.numel() * array.element_size() for array in arrays)


def describe_names(
    parts: Mapping[str, Sequence[Entry]], options: ReaderOptions, experts_used: Fraction
) -> tuple[Module, ...]:
    """Return the modules that tensors on disk belong to, by their names and shapes alone."""
    owned: dict[str, dict[str, Entry]] = defaultdict(dict)
    for name, (entry, *_) in parts.items():
        owned[name.rpartition(".")[0]][name] = entry
    modules = []
    for module_name, tensors in owned.items():
        # llama.cpp keeps the experts of a block in one tensor, and kernels without their middle 1.
        fused, kernel = module_name.endswith("_exps"), module_name.endswith("conv1d")
        weights = (entry for name, entry in tensors.items() if name.rpartition(".")[2] == "weight")
        wide = next((e for e in weights if len(e.shape) == 2 + fused and not kernel), None)
        group = classify(module_name, linear=wide is not None, rules=options.groups)
        multiplied = group in LINEAR_GROUPS or group in {"lm_head", "router"}
        may_prune = group in LINEAR_GROUPS and not options.spares(module_name)
        # A bias has a value per output: it tells where the inputs come first, as in ``Conv1D``.
        bias = tensors.get(f"{module_name}.bias")
        turned = wide and bias and bias.shape == wide.shape[-1:] != wide.shape[-2:-1]
        parameters = tuple(
            Parameter(
                name=name,
                shape=entry.shape,
                matrix=_outputs_inputs(entry.shape, bool(turned))
                if entry is wide and multiplied
                else None,
                transposed=bool(turned) and entry is wide and multiplied,
                experts=entry.shape[0] if fused and entry is wide else 1,
                uses=experts_used if fused else ONCE,
                prunable=may_prune and entry is wide,
                **on_disk(parts[name]),
            )
            for name, entry in tensors.items()
        )
        modules.append(Module(module_name, "", group, parameters))
    return tuple(modules)
