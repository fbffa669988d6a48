"""Tensors of a model from its headers, with the direction of each prunable matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sparsity_report.weights.anatomy.matrix_direction import Matrix, as_matrix, input_first
from sparsity_report.weights.anatomy.names_only import ReaderOptions
from sparsity_report.weights.outline import Outline, OutlineParameter
from sparsity_report.weights.tensor_slices import Entry


@dataclass(frozen=True)
class Tensor:
    """A stored tensor.

    Attributes
    ----------
    name : str
        Module, or the parameter where it is not a module's weight.
    parameter : OutlineParameter
    entry : Entry
    matrix : Matrix or None
        Sizes of a prunable matrix; None for other tensors.
    is_settled : bool
        Whether the direction of the matrix is known.
    """

    name: str
    parameter: OutlineParameter
    entry: Entry
    matrix: Matrix | None
    is_settled: bool = True


def model_tensors(outline: Outline) -> Iterator[Tensor]:
    """Yield the stored tensors of a model.

    Prunable are the matrices of linear layers and the stacks of experts, without embeddings,
    output head, norms and routers, as for :func:`sparsity_report.load`.
    """
    directions = input_first({each.name: each.shape for each in outline.parameters})
    tables = [each.shape for each in outline.parameters if each.group == "embedding"]
    # A matrix of the shape of the token embedding is an output head under another name.
    head = max((shape for shape in tables if len(shape) == 2), default=None)
    for each in outline.stored:
        if each.entry is None:
            continue
        is_weight = each.name.rpartition(".")[2] == "weight"
        name = each.module_name if is_weight else each.name
        is_head = each.group == "other_linear" and each.shape == head
        if is_head or not _is_prunable(each, outline):
            yield Tensor(name, each, each.entry, None)
            continue
        # llama.cpp stores outputs first.
        turned = False if outline.source == "gguf" else directions[each.name]
        matrix = as_matrix(each.shape, bool(turned))
        yield Tensor(name, each, each.entry, matrix, turned is not None)


def _is_prunable(each: OutlineParameter, outline: Outline) -> bool:
    if not (each.total and ReaderOptions().may_prune(each.module_name, each.group)):
        return False
    is_weight = each.name.endswith("weight") and ".lora_" not in each.name
    if len(each.shape) == 2:
        return is_weight
    is_stack = each.module_name in outline.stacks or each.name in outline.stacks
    is_expert = each.group == "mlp_linear" and (is_weight or is_stack)
    return len(each.shape) == 3 and is_expert and min(each.shape[1:]) > 1
