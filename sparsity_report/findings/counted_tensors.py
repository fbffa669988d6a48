"""Tensors of a model with the counts of their values, and the places that break a pattern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sparsity_report.counting.matrix_counts import MatrixCount, count_entry
from sparsity_report.counting.n_m_patterns import Pattern, find_pattern
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.weights import Module, Parameter, Weights
from sparsity_report.words.sentences import say

# Threads that count tensors: the smallest machines have two cores.
_THREADS = 2


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
        """Prunable matrices."""
        return [each for each in self.tensors if each.parameter.stack]

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
