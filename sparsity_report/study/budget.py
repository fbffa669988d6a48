"""The lowest level of sparsity that keeps a budget of bytes or FLOPs."""

import re
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.errors import SparsityReportError
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.levels import in_layout
from sparsity_report.study.policy_names import GLOBAL
from sparsity_report.study.sweep import pruned_at
from sparsity_report.study.variants import masked
from sparsity_report.words.number_format import level

_NUMBER = r"([0-9]+\.?[0-9]*|\.[0-9]+)"
_SIZE = re.compile(_NUMBER + r" ?([kmgtp]?)(i?)(b|bytes?|flops?)(?: per token)?")
_SHARE = re.compile(_NUMBER + r" ?([x×%]?)((?: ?(?:of|the|dense|model|file|bytes?|flops?))*)")
_AT_MOST = re.compile(r"≤|<=|<|=|\bat most\b|\s+")
_PREFIXES = {prefix: power for power, prefix in enumerate(("", "k", "m", "g", "t", "p"))}
# Words of a share that do not contradict each other: FLOPs are not those of a file.
_CLEAR = re.compile("(dense|file)? ?(byte)?|(dense )?(flop)?")
_LAYOUTS = ("csr", "bitmask", "dense")


class Budget(NamedTuple):
    """The most bytes or FLOPs.

    Attributes
    ----------
    quantity : {"stored_bytes", "flops_per_token"}
    most : float
        Bytes, FLOPs per token, or a ratio.
    base : {None, "", "dense", "file"}
        None for a number of bytes or FLOPs. For a ratio, what it is relative to: dense, the file,
        or ``""`` where the text says neither.
    """

    quantity: str
    most: float
    base: str | None


class Within(NamedTuple):
    """The level that keeps a budget.

    Attributes
    ----------
    sparsity : float
        The lowest kept level that is surely within the budget.
    value : float
        Bytes or FLOPs of the whole model at that level; a ratio to dense if the budget is one.
    most : float
        The most that the uncertainty of the level allows; it keeps the budget. It equals `value`
        if the study has its weights.
    layout : {"csr", "bitmask", "dense", "file"}
        Layout of the prunable matrices. If the unpruned model keeps the budget, it is ``"dense"``,
        or ``"file"`` where a file packs its weights.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.level_within(sr.compare(sr.dense(sr.load())), "4 MB")
    Within(sparsity=0.0, value=3829760.0, most=3829760.0, layout='dense')
    """

    sparsity: float
    value: float
    most: float
    layout: str


def read_budget(text: str) -> Budget:
    """Return a budget written in words.

    Raises
    ------
    SparsityReportError
        The text is not a budget.

    Examples
    --------
    >>> read_budget("100 MB")
    Budget(quantity='stored_bytes', most=100000000.0, base=None)
    >>> read_budget("0.6 of dense")
    Budget(quantity='stored_bytes', most=0.6, base='dense')
    """
    plain = re.sub(" +", " ", _AT_MOST.sub(" ", text.casefold())).strip()
    if match := _SHARE.fullmatch(plain):
        number, sign, words = float(match[1]) / (100 if match[2] == "%" else 1), match[2], match[3]
        named = " ".join(word for word in ("dense", "file", "byte", "flop") if word in words)
        # A number above 1 without a sign is no factor.
        if (sign or number <= 1) and (clear := _CLEAR.fullmatch(named)):
            quantity = "flops_per_token" if "flop" in named else "stored_bytes"
            return Budget(quantity, number, clear[1] or (clear[3] or "").strip())
    if not (match := _SIZE.fullmatch(plain)):
        raise SparsityReportError(
            f"budget: {text[:80]!r} is not a budget; write one such as 100 MB, 60 % or 0.5 × FLOPs"
        )
    quantity = "flops_per_token" if match[4].startswith("f") else "stored_bytes"
    unit = (1024 if match[3] else 1000) ** _PREFIXES[match[2]]
    return Budget(quantity, float(match[1]) * unit, None)


def level_within(
    study: StudyFigures, budget: str, *, policy: str = GLOBAL, layout: str = "csr"
) -> Within:
    """Return the lowest level of sparsity that keeps a budget of bytes or FLOPs.

    Parameters
    ----------
    study : Study
        A study with levels; they are those of its first variant.
    budget : str
        ``"100 MB"``, ``"1.5 GiB"``, ``"60 %"``, ``"0.6 of dense"``, ``"50 % FLOPs"`` or
        ``"2 GFLOPs"``. Bytes and performed FLOPs per token are those of the whole model with its
        prunable matrices in the layout. A share is one of the bytes, unless it names FLOPs.
        It is relative to the file if that packs the weights, else to dense; ``"of dense"`` and
        ``"of the file"`` choose.
    policy : str
        A pruning policy, one of ``study.by_policy``.
    layout : {"csr", "bitmask", "dense"}
        Only CSR saves FLOPs.

    Returns
    -------
    Within
        The lowest level that is within the budget; the dense model if that is within it. With the
        weights, levels are counted exactly. For a study that was read from a file, the level is the
        lowest that is within the budget however its zeros are distributed over layers, see
        :func:`sweep`.

    Raises
    ------
    SparsityReportError
        The budget cannot be read or reached, or the costs that it needs are unknown. The message
        gives what can be reached.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> sr.level_within(study, "0.5 x FLOPs").sparsity
    0.59
    """
    quantity, limit, relative_to = read_budget(budget)
    if policy not in study.by_policy:
        known = ", ".join(study.by_policy)
        advice = f"use one of {known}" if known else "compare known prunable weights first"
        raise SparsityReportError(f"policy: the study has no levels of {policy!r}; {advice}")
    if layout not in _LAYOUTS:
        raise SparsityReportError(
            f"layout: {str(layout)[:40]!r} is not one of {', '.join(_LAYOUTS)}; use one of these"
        )
    levels = study.by_policy[policy]
    dense, unpruned = levels.total(quantity, "dense").iloc[0], "dense"
    base = dense
    first = str(study.variants["variant"].iloc[0])
    if quantity == "stored_bytes" and study.facts.packings(first):
        base, unpruned = study.facts.size_before(first), "file"
    if pd.isna(base):
        raise SparsityReportError(
            f"budget: {quantity} of the levels are unknown; give a budget of another quantity"
        )
    scale = 1.0 if relative_to is None else float(dense if relative_to == "dense" else base)
    cost = float(base) / scale
    if cost <= limit:
        return Within(levels.sparsities[0], cost, cost, unpruned)
    value, most = (
        (costs / scale).to_numpy(dtype=float)
        for costs in (levels.total(quantity, layout), levels.at_most(quantity, layout))
    )
    place = int(np.append(most <= limit, True).argmax())
    if (weights := study.weights) is not None:
        layers = study.facts.layers(first).reset_index(drop=True)

        def exact(place: int) -> float:
            if value[place] < most[place]:
                left = masked(pruned_at(weights, policy, levels.sparsities[place])).layers()
                costs = in_layout(layers, layout, left["weight_nonzero"])[quantity]
                value[place] = most[place] = costs.sum() / scale
            return float(value[place])

        # No level costs more than the one before it.
        place = bisect_left(range(place), True, key=lambda k: exact(k) <= limit)
        exact(min(place, most.size - 1))
    if place == most.size:
        raise SparsityReportError(
            f"budget: {budget[:80]!r} is out of reach; the least in layout {layout} is at most "
            f"{most.min():,.6g}, at {level(levels.sparsities[int(most.argmin())], '')}, and "
            f"{unpruned} {cost:,.6g}: give a larger budget"
        )
    return Within(levels.sparsities[place], float(value[place]), float(most[place]), layout)
