"""Match of tensors on disk with the class of their ``config.json``, built on the meta device.

The renaming rules of transformers map tensors on disk to parameters in memory, so files and
modules in memory give the same counts.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy.config_sizes import parameters_for
from sparsity_report.weights.anatomy.describe import describe
from sparsity_report.weights.anatomy.meta_model import read_config, without_head
from sparsity_report.weights.anatomy.names_only import Description, ReaderOptions, incomplete
from sparsity_report.weights.anatomy.parameter_places import walk
from sparsity_report.weights.anatomy.tensor_names import fits, memory_parts, without_tensor
from sparsity_report.weights.packed.format_detection import check_weights
from sparsity_report.weights.tensor_slices import Entry, pieces
from sparsity_report.words.sentences import say


def match_class(
    folder: Path, entries: Mapping[str, Entry], count: int, settings: Mapping[str, Any] | None
) -> tuple[nn.Module, dict[str, list[Entry]], tuple[str, ...]]:
    """Return the model of a configuration, and what it is made of.

    Parameters
    ----------
    folder : Path
        Folder of the configuration.
    entries : mapping of str to Entry
        Tensors on disk, each packed weight as one.
    count : int
        Number of tensors in the files, parts of packed weights included.
    settings : mapping or None
        Content in place of ``config.json``.

    Returns
    -------
    tuple
        The model, the tensors of each parameter and buffer, and notes on the choice of the class
        and on tensors that it leaves out.
    """
    most = parameters_for(count)
    notes: tuple[str, ...] = ()
    model = read_config(folder, lambda each: fits(each, entries), most, settings)
    if body := _saved_body(model, entries, most):
        classes = {"named": type(model).__name__, "model": type(body).__name__}
        model, notes = body, (say("note.body_only", **classes),)
    parts, left_out = memory_parts(model, entries)
    buffers = {name for name, _ in model.named_buffers()}
    for name, tensors in parts.items():
        if name not in buffers:
            check_weights(*tensors)
    return model, parts, notes + left_out


def describe_class(
    options: ReaderOptions,
    model: nn.Module,
    parts: Mapping[str, list[Entry]],
    any_arrangement: bool,
) -> tuple[dict[str, list[Entry]], Description, tuple[str, ...]]:
    """Return the tensors of each parameter, tied ones included, the modules, and a note on ties."""
    untied = _untie_(model, parts)
    complete = _complete(options.name, model, parts, any_arrangement)
    return complete, describe(walk(model), options, complete), untied


def _saved_body(model: nn.Module, entries: Mapping[str, Entry], most: int) -> nn.Module | None:
    """Return the model without a head if its class wrote the files: no name has a body's prefix."""
    prefix = str(getattr(model, "base_model_prefix", ""))
    is_prefixed = not prefix or any(key.startswith(f"{prefix}.") for key in entries)
    if is_prefixed or fits(model, entries) or not hasattr(model, prefix):
        return None
    body = without_head(model, most)
    return body if fits(body, entries) else None


def _complete(
    name: str, model: nn.Module, parts: Mapping[str, list[Entry]], any_arrangement: bool
) -> dict[str, list[Entry]]:
    """Return the tensors of each parameter, tied ones included; refuse missing tensors."""
    twins = _twins(model)
    if missing := without_tensor(model, parts):
        raise incomplete(name, missing)
    complete: dict[str, list[Entry]] = {}
    for parameter, names in twins.items():
        entries = next(parts[twin] for twin in names if twin in parts)
        shape = entries[0].shape
        # A stack of one expert may lack its first dimension.
        same_shape = tuple(parameter.shape) in {shape, (1, *shape)} or any_arrangement
        same_size = sum(entry.total for entry in entries) == parameter.numel()
        if not same_size or (len(entries) == 1 and not same_shape):
            shapes = ", ".join(str(e.shape) for e in entries[:3])
            raise SparsityReportError(
                f"{name}: {names[0]} has shape {shapes} on disk but {tuple(parameter.shape)} "
                "in the model of config.json; give the config.json of these weights"
            )
        complete |= dict.fromkeys(names, entries)
    return complete


def _untie_(model: nn.Module, parts: Mapping[str, list[Entry]]) -> tuple[str, ...]:
    """Untie parameters whose values on disk differ, as transformers does, and return a note."""
    apart = []
    for parameter, names in _twins(model).items():
        first, *others = [name for name in names if name in parts] or names[:1]
        for name in others:
            if not _equal(parts[first], parts[name]):
                parent, _, leaf = name.rpartition(".")
                untied = nn.Parameter(torch.empty_like(parameter), parameter.requires_grad)
                model.get_submodule(parent).register_parameter(leaf, untied)
                apart.append(name)
    return (say("note.untied", names=apart),) if apart else ()


def _twins(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Return all names of each parameter; tied ones have several."""
    twins: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        twins[parameter].append(name)
    return twins


def _equal(one: Sequence[Entry], other: Sequence[Entry]) -> bool:
    """Return True if tensors are equal bit by bit."""
    if [(e.shape, e.dtype) for e in one] != [(e.shape, e.dtype) for e in other]:
        return False
    values = (pieces(part for e in entries for part in e.slices()) for entries in (one, other))
    pairs = zip(*values, strict=True)
    return all(np.array_equal(left.view(np.uint8), right.view(np.uint8)) for left, right in pairs)
