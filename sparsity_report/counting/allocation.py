"""Numbers of weights to prune per layer: a uniform share, or a share for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.histogram import Integers
from sparsity_report.counting.pruning_policies import check_sparsity
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.weights import Module, Weights

if TYPE_CHECKING:
    import pandas as pd

Allocation: TypeAlias = (
    "pd.DataFrame | Mapping[str, float] | Callable[[Module], float] | str | None"
)
"""Shares of modules: a frame (``module_name``, ``sparsity``), a mapping, or a function."""

# Key in `attrs` of a frame with the name of its allocation.
NAME = "allocation"


@dataclass(frozen=True)
class Quotas:
    """Numbers of weights to prune in each prunable parameter.

    Attributes
    ----------
    name : str
        Name of the allocation: empty if uniform, ``"owl"``, or ``"given"``.
    sparsity : float
        Requested share of all prunable weights.
    counts : mapping of str to int
        By parameter name.
    """

    name: str
    sparsity: float
    counts: Mapping[str, int]


def compute_quotas(weights: Weights, sparsity: float | None, allocation: Allocation) -> Quotas:
    """Return the number of weights to prune in each prunable parameter.

    Parameters
    ----------
    weights : Weights
    sparsity : float or None
        Share of all prunable weights; None for the share that the allocation adds up to.
    allocation : DataFrame, mapping, callable or None
        A share for each module with prunable parameters, by name or from a function of a
        :class:`~sparsity_report.weights.weights.Module`; None for `sparsity` everywhere. All
        parameters together lose ``round(Σ share·n)`` (half to even): each ``share·n`` rounded down,
        and those with the largest remainders one more, the first of equal ones.

    Raises
    ------
    SparsityReportError
        A share is missing, is not from 0 to 1, or belongs to a module without prunable weights;
        or the shares do not add up to `sparsity`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> given = compute_quotas(weights, 0.5, lambda module: 0.4 if module.block in (0, 3) else 0.6)
    >>> sum(given.counts.values()) == round(0.5 * sum(p.total for p in weights.prunable))
    True
    """
    import pandas as pd

    sizes = {p.name: p.total for p in weights.prunable}
    if allocation is None:
        level = check_sparsity(sparsity)
        counts = even_counts([*sizes.values()], level)
        return Quotas("", level, dict(zip(sizes, counts.tolist(), strict=True)))
    shares = _shares(weights, allocation)
    exact = [shares[m.name] * p.total for m in weights.modules for p in m.parameters if p.prunable]
    total, asked = sum(sizes.values()), math.fsum(exact)
    level = asked / total if sparsity is None else check_sparsity(sparsity)
    if abs(asked - level * total) >= 0.5:
        raise SparsityReportError(
            f"allocation= takes {asked:,.1f} of the {total:,} prunable weights, not the "
            f"{level * total:,.1f} asked for; change one of the two, or give sparsity=None"
        )
    kind = allocation.attrs.get(NAME, "given") if isinstance(allocation, pd.DataFrame) else "given"
    counts = _round_to_sum(np.array(exact), round(level * total))
    return Quotas(str(kind), level, dict(zip(sizes, counts.tolist(), strict=True)))


def even_counts(sizes: npt.ArrayLike, share: float) -> Integers:
    """Return how many weights of each parameter a share of all weights prunes.

    Examples
    --------
    >>> even_counts([5, 5, 3], 0.5).tolist()
    [3, 2, 1]
    """
    totals = np.asarray(sizes, dtype=np.int64)
    return _round_to_sum(share * totals, round(share * int(totals.sum())))


def _round_to_sum(exact: npt.NDArray[np.floating[Any]], target: int) -> Integers:
    """Return whole numbers with a given sum: round down, then up from the largest remainder."""
    counts: Integers = np.floor(exact).astype(np.int64)
    lost = np.argsort(counts - exact, kind="stable")
    counts[lost[: target - int(counts.sum())]] += 1
    return counts


def _shares(weights: Weights, allocation: Allocation) -> dict[str, float]:
    """Return the share of each module with prunable parameters."""
    import pandas as pd

    modules = {m.name: m for m in weights.modules if any(p.prunable for p in m.parameters)}
    if isinstance(allocation, str) or allocation is None:
        raise SparsityReportError(
            f"allocation={allocation!r} needs a calibration text, which this policy does not read; "
            "give allocation=sr.owl(weights, sparsity, text), or a share for each module"
        )
    if callable(allocation):
        given = {name: allocation(module) for name, module in modules.items()}
    elif isinstance(allocation, pd.DataFrame):
        if missing := {"module_name", "sparsity"}.difference(allocation.columns):
            raise SparsityReportError(
                f"allocation=: the frame has no column {min(missing)!r}; add it"
            )
        given = dict(zip(allocation["module_name"], allocation["sparsity"], strict=True))
        if len(given) < len(allocation):
            raise SparsityReportError(
                "allocation=: the frame names a module twice; keep one row for each"
            )
    elif isinstance(allocation, Mapping):
        given = dict(allocation)
    else:
        raise SparsityReportError(
            "allocation= accepts a frame, a mapping or a function, not a "
            f"{type(allocation).__name__}; see sr.owl"
        )
    for names, problem in (
        (given.keys() - modules.keys(), "has no prunable module"),
        (modules.keys() - given.keys(), "gets no share from allocation= for"),
    ):
        if names:
            raise SparsityReportError(f"{weights.name} {problem} {min(map(str, names))!r}")
    try:
        return {name: check_sparsity(share) for name, share in given.items()}
    except SparsityReportError as error:
        raise SparsityReportError(f"allocation=: {error}") from error
