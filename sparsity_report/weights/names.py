"""Which tensor on disk is which parameter in memory, by transformers' own renaming rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from sparsity_report.errors import SparsityReportError

# Buffers older checkpoints carry and current classes compute: masks, position ids, rotary tables.
_BUFFER = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|attn\.bias|attention\.bias|inv_freq|"
    r"rotary_emb\.\w+|num_batches_tracked)$"
)


# What transformers does with pieces of a tensor that stay as they are.
_STACKING = {"Concatenate", "MergeModulelist"}


def memory_names(model: nn.Module | None, keys: Collection[str]) -> dict[str, str]:
    """Map each tensor on disk to its parameter in memory; what transformers ignores is left out.

    Tensors that are fused in memory come in the order in which they are: expert by expert, within
    an expert in the order of transformers' conversion rule.
    """
    if model is None:
        return {key: key for key in keys}
    converters, renamed = _rules(model)
    fused = [pattern for converter in converters for pattern in converter.source_patterns]
    meta_state = model.state_dict()
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    ignored = [*map(re.compile, getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]
    names: list[tuple[tuple[list[int], int], str, str]] = []
    extra = []
    for key in keys:
        name, pattern = renamed(key)
        if name in parameters:
            place = [int(part) for part in key.split(".") if part.isdecimal()]
            order = (place, fused.index(pattern) if pattern in fused else -1)
            names.append((order, key, name))
        elif not (
            name in meta_state or _BUFFER.search(key) or any(p.search(name) for p in ignored)
        ):
            extra.append(key)
    if masks := [key for key in extra if key.endswith("_mask")]:
        raise SparsityReportError(
            f"the checkpoint holds {len(masks)} pruning masks that were never applied, first "
            f"{masks[0]!r}; call torch.nn.utils.prune.remove before saving it"
        )
    if extra:
        raise SparsityReportError(
            f"{len(extra)} tensor(s) of the checkpoint have no place in "
            f"{type(model).__name__}, first {extra[0]!r}; is config.json of the same model?"
        )
    return {key: name for _, key, name in sorted(names, key=lambda item: item[0])}


def rearranged(model: nn.Module, keys: Collection[str]) -> str | None:
    """Return the first tensor on disk that transformers turns, permutes or splits on loading."""
    converters, renamed = _rules(model)
    turning = {
        pattern
        for converter in converters
        if any(type(operation).__name__ not in _STACKING for operation in converter.operations)
        for pattern in converter.source_patterns
    }
    return next((key for key in keys if renamed(key)[1] in turning), None)


def _rules(model: nn.Module) -> tuple[list[Any], Callable[[str], tuple[str, str | None]]]:
    """Return transformers' converters, and what gives a tensor's name in memory and its pattern."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    prefix, meta_state = getattr(model, "base_model_prefix", None), model.state_dict()
    return converters, lambda key: rename_source_key(key, renamings, converters, prefix, meta_state)
