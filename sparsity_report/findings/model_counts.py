"""Counts of a model from its headers: parameters and bytes by group and by format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsity_report.sparse.shares import bits_per_weight
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.weights.anatomy.names_only import expert_stacks, experts_per_token
from sparsity_report.weights.sources.checkpoint import CheckpointWeights
from sparsity_report.weights.weights import Module, Parameter, Weights

_Key = Callable[[Module, Parameter], str]


def model_counts(
    weights: Weights, differences: Sequence[str], zeros: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the counts of a model as plain values, the keys of which are stable.

    Parameters are logical: a 4-bit weight is one. Tied tensors count once. Zeros are null unless
    they were counted by :func:`sparsity_report.findings.counted_tensors.model_zeros`.

    Returns
    -------
    dict
        ``model``, ``source``, ``files``, ``file_bytes``, ``tensor_bytes`` (with duplicates),
        ``parameters``, ``active_parameters`` (null without experts), ``stored_values`` (null for
        GGUF), ``bits_per_weight``, ``zeros``, ``patterns``, ``groups`` and ``formats`` (rows by
        name), ``tied``, ``experts``, ``differences`` and ``notes``.
    """
    notes, held = weights.notes, set[str]()
    if isinstance(weights, CheckpointWeights):
        notes, held = weights.options.notes + weights.contents.notes, {*weights.contents.parts}
    tied = [p for p in weights.parameters if p.tied_to]
    twins = [p for p in tied if p.name in held]
    reason = "equal" if twins else "absent"
    experts = {
        "counts": expert_counts(weights),
        "per_token": experts_per_token(weights.configuration()),
    }
    groups = _sums(weights, lambda module, _: module.group)
    for group, row in groups.items():
        row["zeros"] = None if zeros is None else zeros["groups"].get(group, 0)
    tensor_bytes = sum(p.stored_bytes for p in (*weights.stored, *twins))
    return {
        "model": weights.name,
        "source": weights.source,
        "files": len(weights.files),
        "file_bytes": sum(file.size for file in weights.files),
        "tensor_bytes": tensor_bytes,
        "parameters": weights.total,
        "active_parameters": active_total(weights),
        "stored_values": stored_values(weights),
        "bits_per_weight": bits_per_weight(tensor_bytes, weights.total),
        "zeros": None if zeros is None else sum(row["zeros"] for row in groups.values()),
        "patterns": zeros and {key: zeros[key] for key in ("matrices", "patterns")},
        "groups": {group: groups[group] for group in GROUPS if group in groups},
        "formats": _sums(weights, lambda _, parameter: parameter.format),
        "tied": {"names": [p.name for p in tied], "reason": reason} if tied else None,
        "experts": experts if any(experts.values()) else None,
        "differences": list(differences),
        "notes": list(notes),
    }


def expert_counts(weights: Weights) -> list[int]:
    """Return the numbers of experts that stacks have."""
    stacks = expert_stacks({p.name: p.shape for p in weights.parameters}).values()
    return sorted({*stacks, *(p.experts for p in weights.parameters if p.experts > 1)})


def active_total(weights: Weights) -> int | None:
    """Return the parameters that a token is multiplied by; None if unknown or all."""
    if not expert_counts(weights) or experts_per_token(weights.configuration()) is None:
        return None
    return int(sum(module.active_total for module in weights.modules))


def stored_values(weights: Weights) -> int | None:
    """Return the values of all tensors as files store them, packed words and scales included."""
    if not isinstance(weights, CheckpointWeights) or weights.source == "gguf":
        return None
    return sum(entry.total for entry in weights.raw.values())


def _sums(weights: Weights, key: _Key) -> dict[str, dict[str, Any]]:
    rows: dict[str, list[Parameter]] = defaultdict(list)
    for module in weights.modules:
        for parameter in module.parameters:
            if parameter.tied_to is None:
                rows[key(module, parameter)].append(parameter)
    return {
        name: {
            "parameters": (total := sum(each.total for each in members)),
            "stored_bytes": (size := sum(p.stored_bytes for p in members)),
            "bits_per_weight": bits_per_weight(size, total),
            "packed": any(each.packing for each in members),
            "formats": sorted({each.format for each in members}),
        }
        for name, members in rows.items()
    }
