"""Counts of a model from its headers: parameters and bytes by group and by format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsity_report.sparse.shares import bits_per_weight
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.weights.outline import Outline, Tensor


def model_counts(
    outline: Outline, differences: Sequence[str], zeros: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the counts of a model as plain values, the keys of which are stable.

    Parameters are logical: a 4-bit weight is one. Tied tensors count once. Zeros are null unless
    they were counted by :func:`sparsity_report.findings.rules.counted_tensors.model_zeros`.

    Returns
    -------
    dict
        ``model``, ``source``, ``files``, ``file_bytes``, ``tensor_bytes`` (with duplicates),
        ``parameters``, ``active_parameters`` (null without experts), ``stored_values`` (null for
        GGUF), ``bits_per_weight``, ``zeros``, ``patterns``, ``groups`` and ``formats`` (rows by
        name), ``tied``, ``experts``, ``differences`` and ``notes``.
    """
    tied = [p.name for each in outline.tensors if (p := each.parameter).tied_to]
    counts = sorted({*outline.stacks.values()})
    has_experts = bool(counts) or outline.per_token is not None
    groups = _sums(outline, lambda each: each.module.group)
    for group, row in groups.items():
        row["zeros"] = None if zeros is None else zeros["groups"].get(group, 0)
    return {
        "model": outline.name,
        "source": outline.source,
        "files": len(outline.files),
        "file_bytes": outline.file_bytes,
        "tensor_bytes": sum(each.stored_bytes for each in outline.tensors),
        "parameters": outline.total,
        "active_parameters": outline.active_total,
        "stored_values": outline.stored_values,
        "bits_per_weight": _bits(outline.tensors, outline.total),
        "zeros": None if zeros is None else sum(row["zeros"] for row in groups.values()),
        "patterns": zeros and {key: zeros[key] for key in ("matrices", "patterns")},
        "groups": {group: groups[group] for group in GROUPS if group in groups},
        "formats": _sums(outline, lambda each: each.format),
        "tied": {"names": tied, "reason": outline.tie} if tied else None,
        "experts": {"counts": counts, "per_token": outline.per_token} if has_experts else None,
        "differences": list(differences),
        "notes": list(outline.notes),
    }


def _sums(outline: Outline, key: Callable[[Tensor], str]) -> dict[str, dict[str, Any]]:
    rows: dict[str, list[Tensor]] = defaultdict(list)
    for each in outline.stored:
        rows[key(each)].append(each)
    return {
        name: {
            "parameters": (total := sum(each.parameter.total for each in members)),
            "stored_bytes": sum(each.stored_bytes for each in members),
            "bits_per_weight": _bits(members, total),
            "packed": any(each.parameter.packing for each in members),
            "formats": sorted({each.format for each in members}),
        }
        for name, members in rows.items()
    }


def _bits(members: Sequence[Tensor], total: int) -> float | None:
    return bits_per_weight(sum(each.stored_bytes for each in members), total)
