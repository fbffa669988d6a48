"""Counts of a model, from its headers or its values."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsity_report.counting.kept_experts import routed_parameters
from sparsity_report.counting.matrix_counts import MatrixCount, count_entry
from sparsity_report.counting.n_m_patterns import Pattern, find_pattern
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.shares import bits_per_weight, ratio
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.weights.anatomy.names_only import expert_stacks, experts_per_token
from sparsity_report.weights.sources.checkpoint import CheckpointWeights
from sparsity_report.weights.weights import Module, Parameter, Weights
from sparsity_report.words.sentences import say

_Key = Callable[[Module, Parameter], str]

_SIZES = ("total", "stored_bytes")
# Threads that count tensors: the smallest machines have two cores.
_THREADS = 2


def model_counts(
    weights: Weights, differences: Sequence[str], values: CountedModel | None = None
) -> dict[str, Any]:
    """Return the counts of a model as plain values, the keys of which are stable.

    Parameters are logical: a 4-bit weight is one. Tied tensors count once. Zeros are null without
    `values`. Groups, patterns and active parameters of an undecided file are null.

    Returns
    -------
    dict
        ``model``, ``source``, ``files``, ``file_bytes``, ``tensor_bytes`` (with duplicates),
        ``parameters``, ``stored_values`` (null for GGUF), ``bits_per_weight`` (without duplicates),
        ``zeros``, ``patterns``, ``groups`` and ``formats`` (rows by name), ``tied``, ``experts``
        (from :func:`model_experts`), ``differences`` and ``notes``.
    """
    notes, on_file = weights.notes, set[str]()
    if isinstance(weights, CheckpointWeights):
        notes, on_file = weights.options.notes + weights.contents.notes, {*weights.contents.parts}
    tied = [p for p in weights.parameters if p.tied_to]
    twins = [p for p in tied if p.name in on_file]
    ties = {"names": [p.name for p in twins or tied], "reason": "equal" if twins else "absent"}
    zeros = values and model_zeros(values)
    groups = None if weights.undecided else _sums(weights, lambda module, _: module.group)
    for group, row in (groups or {}).items():
        row["zeros"] = zeros and zeros["groups"].get(group, 0)
    stored_bytes = sum(p.stored_bytes for p in weights.stored)
    return {
        "model": weights.name,
        "source": weights.source,
        "files": len(weights.files),
        "file_bytes": sum(file.size for file in weights.files),
        "tensor_bytes": stored_bytes + sum(p.stored_bytes for p in twins),
        "parameters": weights.total,
        "stored_values": stored_values(weights),
        "bits_per_weight": bits_per_weight(stored_bytes, weights.total),
        "zeros": zeros and sum(zeros["groups"].values()),
        "patterns": groups and zeros and {key: zeros[key] for key in ("matrices", "patterns")},
        "groups": groups and {group: groups[group] for group in GROUPS if group in groups},
        "formats": _sums(weights, lambda _, parameter: parameter.format),
        "tied": ties if tied else None,
        "experts": model_experts(weights, values),
        "differences": list(differences),
        "notes": list(notes),
    }


def expert_counts(weights: Weights) -> list[int]:
    """Return the numbers of experts that stacks have."""
    stacks = expert_stacks({p.name: p.shape for p in weights.parameters}).values()
    routed = (p.experts for p in weights.parameters if p.experts > 1 and 0 < p.uses < 1)
    return sorted({*stacks, *routed})


def model_experts(weights: Weights, values: CountedModel | None = None) -> dict[str, Any] | None:
    """Return the experts of a mixture as plain values; None of a model without any.

    Biases of experts belong to them.

    Returns
    -------
    dict or None
        ``counts`` of the stacks, ``per_token``, ``parameters`` of the model, ``active_parameters``
        and ``active_share`` (null if unknown), and ``modules``. Their rows are ``module``,
        ``experts``, ``parameters`` of one, its mean ``bytes`` and ``bits_per_weight``, and
        ``all_zero``, the experts whose matrices have no nonzero (null if not counted).
    """
    if not (counts := expert_counts(weights)):
        return None
    beside = {p.name: module.parameters for module in weights.modules for p in module.parameters}
    matrices, rows = values.matrices if values else (), []
    nonzero = {each.parameter.name: each.counts.rows.any(axis=1) for each in matrices}
    for name, stack in routed_parameters(weights).items():
        count = stack[0].experts
        parts = {each.name: each for each in stack}
        parts |= {p.name: p for o in stack for p in beside[o.name] if p.shape[:1] == (count,)}
        total, size = (sum(getattr(p, key) for p in parts.values()) for key in _SIZES)
        row = {"module": name, "experts": count, "parameters": total // count}
        row |= {"bytes": size / count, "bits_per_weight": bits_per_weight(size, total)}
        is_counted = nonzero.keys() >= {p.name for p in stack}
        left = [nonzero[p.name] for p in stack] if is_counted else []
        zeros = np.flatnonzero(~np.any(left, axis=0)).tolist() if is_counted else None
        rows.append(row | {"all_zero": zeros})
    active = active_total(weights)
    return {
        "counts": counts,
        "per_token": experts_per_token(weights.configuration()),
        "parameters": weights.total,
        "active_parameters": active,
        "active_share": ratio(active, weights.total),
        "modules": rows,
    }


def expert_sentences(experts: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on :func:`model_experts`."""
    is_known, rows = experts["active_parameters"] is not None, experts["modules"]
    key = "count.experts" if experts["per_token"] else "count.active"
    yield say(key if is_known else "count.experts_unknown", **experts)
    if rows:
        keys = ("parameters", "bytes", "bits_per_weight")
        yield say("count.each_expert", **{key: [row[key] for row in rows] for key in keys})


def zero_experts(experts: Mapping[str, Any] | None) -> list[tuple[str, int]]:
    """Return module and number of the experts of :func:`model_experts` that are all zero."""
    rows = experts["modules"] if experts else ()
    return [(row["module"], number) for row in rows for number in row["all_zero"] or ()]


def active_total(weights: Weights) -> int | None:
    """Return the parameters that a token is multiplied by; None if unknown or all."""
    if weights.undecided or not expert_counts(weights):
        return None
    active = int(sum(module.active_total for module in weights.modules))
    is_known = active < weights.total or experts_per_token(weights.configuration()) is not None
    return active if is_known else None


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


@dataclass(frozen=True)
class Counted:
    """A parameter and its counts; in both directions where that of its matrix is not known."""

    module: Module
    parameter: Parameter
    counts: MatrixCount
    turned: MatrixCount | None = None

    @property
    def name(self) -> str:
        """Module, or the parameter where it is not the module's weight."""
        is_weight = self.parameter.name.rpartition(".")[2] == "weight"
        return self.module.name if is_weight else self.parameter.name

    def broken(self, pattern: Pattern) -> str | None:
        """Return the place where the matrix breaks a pattern along its inputs; None if nowhere.

        Raises
        ------
        SparsityReportError
            The direction of the matrix is unknown and decides.
        """
        matrix = self.parameter.stack
        assert matrix is not None
        place = _broken(self.counts, pattern, matrix.inputs)
        if self.turned and bool(place) != bool(_broken(self.turned, pattern, matrix.outputs)):
            raise SparsityReportError(
                f"{self.name} has {pattern} in one direction, and no bias of another length "
                "tells which is that of its inputs; check it with the model's other tensors"
            )
        return place


@dataclass(frozen=True)
class CountedModel:
    """A model and the counts of those of its tensors that were read."""

    weights: Weights
    tensors: Sequence[Counted]

    @property
    def matrices(self) -> list[Counted]:
        """Prunable matrices that have elements."""
        return [each for each in self.tensors if each.parameter.stack and each.counts.total]

    @property
    def settled(self) -> list[Counted]:
        """Prunable matrices whose direction is known."""
        return [each for each in self.matrices if each.turned is None]

    @property
    def zeros(self) -> int:
        """Zeros among the prunable weights."""
        return sum(each.counts.zeros for each in self.matrices)

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(each.counts.total for each in self.matrices)


def count_tensors(
    weights: Weights, is_read: Callable[[Parameter], bool], patterns: Sequence[Pattern]
) -> CountedModel:
    """Return the counts of some parameters of a model, from one pass over the values of each."""

    def count(module: Module, parameter: Parameter) -> Counted:
        entry, matrix = weights.entry(parameter), parameter.stack
        directions = [matrix]
        if matrix and parameter.name in weights.unsettled:
            directions.append(matrix.turned)
        counts = (count_entry(entry, each, patterns) for each in directions)
        return Counted(module, parameter, *counts)

    read = [
        (module, parameter)
        for module in weights.modules
        for parameter in module.parameters
        if parameter.tied_to is None and is_read(parameter)
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        return CountedModel(weights, [*pool.map(count, *zip(*read, strict=True))] if read else [])


def model_zeros(model: CountedModel) -> dict[str, Any]:
    """Return the zeros of each group, and the number of prunable matrices in all and by pattern.

    A packed weight is zero if it stands for exactly zero. A matrix has the sparsest pattern that
    99 % of its groups keep; it is left out if the direction of its inputs is not known.
    """
    zeros = Counter[str]()
    for each in model.tensors:
        zeros[each.module.group] += each.counts.zeros
    counts = (each.counts for each in model.settled)
    kept = [find_pattern(each.complying, each.total) for each in counts]
    patterns = Counter(str(pattern) for pattern in kept if pattern)
    return {"groups": dict(zeros), "matrices": len(kept), "patterns": dict(patterns)}


def _broken(counts: MatrixCount, pattern: Pattern, inputs: int) -> str | None:
    if pattern not in counts.complying:
        return say("check.no_groups", inputs=inputs, m=pattern.m)
    if (place := counts.violations.get(pattern)) is None:
        return None
    expert, row, column = place
    where = {"row": row, "first": column, "last": column + pattern.m - 1}
    key = "check.place_in_expert" if expert else "check.place"
    groups = counts.total // pattern.m
    numbers = {"broken": groups - counts.complying[pattern], "groups": groups}
    return say("check.broken", place=say(key, expert=expert, **where), **numbers)
