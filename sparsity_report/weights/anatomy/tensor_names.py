"""Map from tensors on disk to parameters in memory, by transformers' loading rules."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy.conversion import Computed, Conversion
from sparsity_report.weights.tensor_slices import Entry

# Buffers of older checkpoints that current classes compute: masks, position ids, rotary tables.
_BUFFER = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|attn\.bias|attention\.bias|inv_freq|"
    r"rotary_emb\.\w+|num_batches_tracked)$"
)
# Limit on computed parameters, whose size comes from a config only.
_MOST_COMPUTED = 2**24


def fits(model: nn.Module, entries: Mapping[str, Entry]) -> bool:
    """Return whether tensors on disk and the parameters of a model match completely."""
    try:
        return not without_tensor(model, memory_parts(model, entries))
    except SparsityReportError:
        return False


def memory_parts(model: nn.Module | None, entries: Mapping[str, Entry]) -> dict[str, list[Entry]]:
    """Return the tensors that make up each parameter in memory, in the order of its values.

    Saved buffers are included. Tensors that transformers ignores are left out, parameters that it
    computes instead of saving are added.

    Parameters
    ----------
    model : nn.Module or None
        On the meta device. Without one, each tensor is a parameter.
    entries : mapping of str to Entry
        Tensors on disk by their keys.

    Raises
    ------
    SparsityReportError
        A tensor has no place in the model.
    """
    if model is None:
        return {key: [entry] for key, entry in entries.items()}
    parts, extra = _placed(model, entries)
    ignored = [*map(re.compile, getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]
    extra = {
        key: name
        for key, name in extra.items()
        if not (_BUFFER.search(key) or any(p.search(name) for p in ignored))
    }
    if masks := [key for key in extra if key.endswith("_mask")]:
        raise SparsityReportError(
            f"the checkpoint holds {len(masks)} pruning masks that were never applied, first "
            f"{masks[0]!r}; call torch.nn.utils.prune.remove before saving it"
        )
    if extra:
        raise SparsityReportError(_misplaced(model, [*extra], without_tensor(model, parts)))
    for name in without_tensor(model, parts):
        if name in (getattr(model, "_keys_to_ignore_on_save", None) or ()):
            values = _computed(model, name)
            parts[name] = [Entry(name, tuple(values.tensor.shape), values)]
    return parts


def _placed(
    model: nn.Module, entries: Mapping[str, Entry]
) -> tuple[dict[str, list[Entry]], dict[str, str]]:
    """Return the tensors of each parameter or buffer, and those that belong to none."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    rules = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    prefix, state = getattr(model, "base_model_prefix", None), model.state_dict()
    parts: dict[str, list[Entry]] = defaultdict(list)
    extra: dict[str, str] = {}
    taken: dict[str, tuple[Any, list[tuple[str, Entry]]]] = {}
    # Rules may depend on earlier matches, so keep transformers' order.
    for key in sorted(entries, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:  # already under its name in memory
            name, pattern = rename_source_key(key, [], [], prefix, state)
        if name not in state:
            extra[key] = name
        elif pattern is None:
            parts[name].append(entries[key])
        else:
            taken.setdefault(name, (rules[pattern], []))[1].append((pattern, entries[key]))
    for first, (rule, sources) in taken.items():
        for name, converted in Conversion(model, rule, first, sources).entries().items():
            if name in state:
                parts[name] += converted
            else:
                extra[sources[0][1].key] = name
    return dict(parts), extra


def without_tensor(model: nn.Module, parts: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Return the parameters without a tensor, tied ones considered."""
    names = model.named_parameters(remove_duplicate=False)
    filled = {id(parameter) for name, parameter in names if name in parts}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in filled]


def _misplaced(model: nn.Module, extra: Sequence[str], lacking: Sequence[str]) -> str:
    """Return the error for tensors without a place, with parameters that lack a tensor."""
    message = (
        f"{len(extra)} tensor(s) of the checkpoint have no place in {type(model).__name__}, "
        f"first {extra[0]!r}"
    )
    if not lacking:
        return f"{message}; is config.json of the same model?"
    return (
        f"{message}, and {len(lacking)} of its parameters have no tensor, first {lacking[0]!r}: "
        "config.json is of another model, or the names are those of other code; "
        "load it with that code and give the module"
    )


def _computed(model: nn.Module, name: str) -> Computed:
    """Return a parameter that transformers computes on loading instead of saving."""
    if (total := model.get_parameter(name).numel()) > _MOST_COMPUTED:
        raise SparsityReportError(
            f"{name!r} is never saved, and config.json gives it {total:,} values, more than the "
            f"{_MOST_COMPUTED:,} that are computed; is it of the same model?"
        )
    path, _, leaf = name.rpartition(".")
    around = [model.get_submodule(path[: m.start()]) for m in re.finditer(r"\.|$", path)]
    initialise = next(
        m._init_weights for m in (*around[::-1], model) if hasattr(m, "_init_weights")
    )
    values = []
    # The result must not depend on prior values: otherwise it is random or not computed.
    for before in (0, 1):
        module = deepcopy(model.get_submodule(path)).to_empty(device="cpu")
        parameter = module.get_parameter(leaf)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(before)
            parameter.fill_(before)
            cast(Any, initialise)(module)
        values.append(parameter.detach())
    if not torch.equal(*values):
        raise SparsityReportError(
            f"{name!r} is never saved, and what transformers puts there is not known before it is "
            "loaded; load it with transformers and give the module"
        )
    return Computed(values[0])
