"""How much each layer is to lose: the same share, or one of its own; exact to the weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy.parameters import Module, Parameter
from sparsity_report.weights.weights import Weights

Allocation = pd.DataFrame | Mapping[str, float] | Callable[[Module], float] | str | None
"""Shares of modules: a frame (``module_name``, ``sparsity``), a mapping, or a rule."""

# What `attrs` of a frame says of where its shares are from.
NAME = "allocation"


@dataclass(frozen=True)
class Quotas:
    """How many weights of each prunable parameter go.

    Attributes
    ----------
    name : str
        Of the allocation: empty where it is uniform, ``"owl"``, or ``"given"``.
    sparsity : float
        Share of all prunable weights that was asked for.
    counts : mapping of str to int
        By parameter name.
    """

    name: str
    sparsity: float
    counts: Mapping[str, int]

    def method(self, policy: str) -> str:
        """Name a policy that prunes so."""
        return f"{policy}, {self.name}" if self.name else policy


def check_sparsity(sparsity: object) -> float:
    """Return `sparsity` as a float or refuse it."""
    if (
        isinstance(sparsity, bool)
        or not isinstance(sparsity, int | float | np.number)
        or not 0 <= sparsity <= 1
    ):
        raise SparsityReportError(
            f"sparsity must be a number from 0 to 1, not {sparsity!r}; 30 % is 0.3"
        )
    return float(sparsity)


def quotas(weights: Weights, sparsity: float | None, allocation: Allocation) -> Quotas:
    """Settle how many weights of each prunable parameter go.

    Parameters
    ----------
    weights : Weights
    sparsity : float or None
        Share of all prunable weights; with an allocation None stands for what that comes to.
    allocation : DataFrame, mapping, callable or None
        None: of the n weights of every parameter ``round(sparsity·n)`` go (half to even). A share
        for each module that holds prunable parameters, by name or from a rule that takes a
        :class:`~sparsity_report.weights.anatomy.parameters.Module`: ``round(Σ share·n)`` go in all,
        of
        every parameter ``share·n`` rounded down, and one more of those with the largest
        remainders, of equal ones the first.

    Raises
    ------
    SparsityReportError
        A share is missing, is none, or is one of a module that has nothing to prune; or together
        they are not `sparsity`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> given = quotas(weights, 0.5, lambda module: 0.4 if module.block in (0, 3) else 0.6)
    >>> sum(given.counts.values()) == round(0.5 * sum(p.total for p in weights.prunable))
    True
    """
    if allocation is None:
        level = check_sparsity(sparsity)
        return Quotas("", level, {p.name: round(level * p.total) for p in weights.prunable})
    shares = _shares(weights, allocation)
    exact = {p.name: shares[m.name] * p.total for m, p in _prunable(weights)}
    total, asked = sum(p.total for p in weights.prunable), math.fsum(exact.values())
    level = asked / total if sparsity is None else check_sparsity(sparsity)
    if abs(asked - level * total) > 0.5:
        raise SparsityReportError(
            f"allocation= takes {asked:,.1f} of the {total:,} prunable weights, not the "
            f"{level * total:,.1f} asked for; change one of the two, or give sparsity=None"
        )
    name = allocation.attrs.get(NAME, "given") if isinstance(allocation, pd.DataFrame) else "given"
    return Quotas(str(name), level, _whole(exact, round(level * total)))


def _whole(exact: Mapping[str, float], target: int) -> dict[str, int]:
    """Round numbers so that they add up to a target: down, then up where most was lost."""
    counts = {name: math.floor(number) for name, number in exact.items()}
    lost = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in lost[: target - sum(counts.values())]:
        counts[name] += 1
    return counts


def _prunable(weights: Weights) -> list[tuple[Module, Parameter]]:
    return [(m, p) for m in weights.modules for p in m.parameters if p.prunable]


def _shares(weights: Weights, allocation: Allocation) -> dict[str, float]:
    """Return the share of every module with prunable parameters."""
    modules = {m.name: m for m in weights.modules if any(p.prunable for p in m.parameters)}
    if isinstance(allocation, str) or allocation is None:
        raise SparsityReportError(
            f"allocation={allocation!r} runs the model on a text, which this policy does not: give "
            "allocation=sr.owl(weights, sparsity, text), or a share for each module"
        )
    if callable(allocation):
        given = {name: allocation(module) for name, module in modules.items()}
    elif isinstance(allocation, pd.DataFrame):
        if missing := {"module_name", "sparsity"}.difference(allocation.columns):
            raise SparsityReportError(f"allocation= is a frame without the column {min(missing)!r}")
        given = dict(zip(allocation["module_name"], allocation["sparsity"], strict=True))
        if len(given) < len(allocation):
            raise SparsityReportError("allocation= is a frame that names a module twice")
    elif isinstance(allocation, Mapping):
        given = dict(allocation)
    else:
        raise SparsityReportError(
            "allocation= takes a frame, a mapping or a rule, not a "
            f"{type(allocation).__name__}; see sr.owl"
        )
    for names, said in (
        (given.keys() - modules.keys(), "has no prunable module"),
        (modules.keys() - given.keys(), "gets no share from allocation= for"),
    ):
        if names:
            raise SparsityReportError(f"{weights.name} {said} {min(map(str, names))!r}")
    try:
        return {name: check_sparsity(share) for name, share in given.items()}
    except SparsityReportError as error:
        raise SparsityReportError(f"allocation=: {error}") from error
