"""Levels of sparsity that keep a budget of bytes, FLOPs or perplexity."""

import re
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.errors import SparsityReportError
from sparsity_report.study.derived.protocol_scores import by_protocol
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.levels.levels import same_level
from sparsity_report.study.policy_names import GLOBAL, is_level_of
from sparsity_report.words.sentences import say

_NUMBER = r"(\d+(?:\.\d+)?)\s*"
_PERPLEXITY = re.compile(rf"(?:perplexity|ppl)\s*{_NUMBER}")
_SHARE = re.compile(rf"{_NUMBER}([x×%])\s*(flops?|bytes?)")
_SIZE = re.compile(rf"{_NUMBER}([kmgtp]?)(i?)(b|bytes?|flops?)")
_AT_MOST = re.compile(r"≤|<=|<|=")
_PREFIXES = {prefix: power for power, prefix in enumerate(("", "k", "m", "g", "t", "p"))}
# Columns of `Levels.sums`.
_COLUMNS = {"bytes": "stored_bytes", "flops": "flops_per_token"}
_COSTS = {"bytes": "budget.bytes_level", "flops": "budget.flops_level"}
_LAYOUTS = {"csr": "CSR", "bitmask": "a bitmask", "dense": "dense tensors"}
# Amounts in the catalogue, and in error messages.
_AMOUNTS = {
    "perplexity": ("budget.amount_perplexity", "perplexity {:,.2f}"),
    "ratio": ("budget.amount_ratio", "{:.2f} × dense"),
    "bytes": ("budget.amount_bytes", "{:,.0f} bytes"),
    "flops": ("budget.amount_flops", "{:,.0f} FLOPs per token"),
}


class Budget(NamedTuple):
    """The largest allowed bytes, FLOPs or perplexity.

    Attributes
    ----------
    kind : {"bytes", "flops", "perplexity"}
    most : float
        Bytes, FLOPs per token, a perplexity, or a ratio to dense.
    relative : bool
        True if `most` is a ratio to dense.
    """

    kind: str
    most: float
    relative: bool

    def write(self, value: float) -> str:
        """Return a value as a phrase in the unit of the budget."""
        return say(_AMOUNTS[self._unit][0], value=value)

    def plain(self, value: float) -> str:
        """Return a value in English for an error message."""
        return _AMOUNTS[self._unit][1].format(value)

    @property
    def _unit(self) -> str:
        return "ratio" if self.relative else self.kind


class Within(NamedTuple):
    """The level that keeps a budget.

    Attributes
    ----------
    sparsity : float
        A kept level. For bytes and FLOPs, the lowest within the budget. For perplexity, the
        highest up to which every measured level is within it.
    budget : Budget
        The budget as it was read: ``kind``, ``most`` and ``relative``.
    value : float
        Bytes or FLOPs of the whole model at that level in the layout, or the
        perplexity of the measured level; a ratio to dense if the budget is one.
    measured : float or None
        The measured level that a perplexity is of.
    beyond : tuple of float or None
        The next measured level and its perplexity, which exceeds the budget; None where none was
        measured.
    dense : bool
        True if the dense model is within the budget.
    most : float or None
        The largest bytes or FLOPs that the uncertainty of the level allows; they keep the budget.
        None for a perplexity and the dense model.
    layout : {"csr", "bitmask", "dense"}
        Layout of the prunable matrices.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> study = sr.compare(sr.dense(weights), sr.masked(sr.global_magnitude(weights, 0.3)))
    >>> within = sr.level_within(study, "0.9 × FLOPs")
    >>> isinstance(within, sr.Within), within.value <= within.budget.most
    (True, True)
    """

    sparsity: float
    budget: Budget
    value: float
    measured: float | None = None
    beyond: tuple[float, float] | None = None
    dense: bool = False
    most: float | None = None
    layout: str = "csr"

    def __repr__(self) -> str:
        return budget_finding(self)


def read_budget(text: str) -> Budget:
    """Return a budget written in words.

    Parameters
    ----------
    text : str
        For example ``"100 MB"``.

    Raises
    ------
    SparsityReportError
        The text is not a budget.

    Examples
    --------
    >>> read_budget("100 MB")
    Budget(kind='bytes', most=100000000.0, relative=False)
    >>> read_budget("0.5 × FLOPs"), read_budget("perplexity ≤ 15")[:2]
    (Budget(kind='flops', most=0.5, relative=True), ('perplexity', 15.0))
    """
    plain = re.sub(r"\s+", " ", _AT_MOST.sub(" ", text.casefold())).strip()
    if match := _PERPLEXITY.fullmatch(plain):
        return Budget("perplexity", float(match[1]), relative=False)
    if match := _SHARE.fullmatch(plain):
        share = float(match[1]) / (100 if match[2] == "%" else 1)
        return Budget("flops" if match[3][0] == "f" else "bytes", share, relative=True)
    if match := _SIZE.fullmatch(plain):
        number, prefix, binary, unit = match.groups()
        size = float(number) * (1024 if binary else 1000) ** _PREFIXES[prefix]
        return Budget("flops" if unit[0] == "f" else "bytes", size, relative=False)
    raise SparsityReportError(
        f"budget: {text[:80]!r} is not a budget; write one such as 100 MB, 0.5 × FLOPs or "
        "perplexity ≤ 15"
    )


def level_within(
    study: StudyFigures, budget: str, *, policy: str = GLOBAL, layout: str = "csr"
) -> Within:
    """Return the level of sparsity that keeps a budget.

    A perplexity is never interpolated between measured levels.

    Parameters
    ----------
    study : Study
        A study with levels; they are those of its first variant.
    budget : str
        ``"100 MB"``, ``"1.5 GiB"``, ``"0.5 × bytes"``, ``"0.5 × FLOPs"``, ``"2 GFLOPs"`` or
        ``"perplexity ≤ 15"``. Bytes and FLOPs per token are those of the whole model with its
        prunable matrices in the layout.
    policy : str
        A pruning policy, one of ``study.by_policy``. Perplexities are those of variants pruned by
        it.
    layout : {"csr", "bitmask", "dense"}
        Only CSR saves FLOPs.

    Returns
    -------
    Within
        For bytes and FLOPs the lowest level that is within the budget even if the distribution of
        its zeros over layers is as expensive as its uncertainty allows, see :func:`sweep`; 0 if the
        dense model is within it.
        For perplexity the highest level up to which all levels measured on one text by one
        protocol are within it.

    Raises
    ------
    SparsityReportError
        The budget cannot be read or reached, or the costs or perplexities that it needs are
        unknown. The message gives what can be reached.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> sr.level_within(study, "0.5 x FLOPs").sparsity
    0.59
    """
    asked = read_budget(budget)
    if policy not in study.by_policy:
        known = ", ".join(study.by_policy)
        advice = f"use one of {known}" if known else "compare known prunable weights first"
        raise SparsityReportError(f"policy: the study has no levels of {policy!r}; {advice}")
    if layout not in _LAYOUTS:
        raise SparsityReportError(
            f"layout: {str(layout)[:40]!r} is not one of {', '.join(_LAYOUTS)}; use one of these"
        )
    if asked.kind == "perplexity":
        return _by_perplexity(study, asked, policy)
    return _by_cost(study, asked, policy, layout)


def budget_finding(solved: Within) -> str:
    """Return the level that meets a budget, and for perplexity the measured levels around it.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> print(budget_finding(sr.level_within(study, "2 MB")))
    80 %: the model takes 1.96 MB as CSR, within 2.00 MB
    """
    budget = solved.budget
    if solved.dense:
        key = "budget.dense_within"
    elif solved.measured is None:
        key = _COSTS[budget.kind]
    elif solved.beyond is None:
        key = "budget.perplexity_highest_measured"
    else:
        key = "budget.perplexity_next_measured"
    beyond, score = solved.beyond or (None, None)
    amounts = {"value": solved.value, "budget": budget.most, "score": score}
    texts: dict[str, Any] = {
        name: n if n is None else budget.write(n) for name, n in amounts.items()
    }
    if solved.most is not None and solved.most > solved.value:
        most = budget.write(solved.most)
        texts["value"] = say("budget.amount_at_most", value=texts["value"], most=most)
    texts["layout"] = solved.layout
    levels = {"level": solved.sparsity, "measured": solved.measured, "beyond": beyond}
    return say(key, **texts, **levels)


def _by_cost(study: StudyFigures, asked: Budget, policy: str, layout: str) -> Within:
    quantity, levels = _COLUMNS[asked.kind], study.by_policy[policy]
    frame = pd.DataFrame(
        {
            "sparsity": levels.sparsities,
            "value": levels.total(quantity, layout),
            "dense": levels.total(quantity, "dense"),
            "most": levels.at_most(quantity, layout),
        }
    )
    rows = frame[frame["value"].notna()].astype(float)
    if rows.empty:
        raise SparsityReportError(
            f"budget: the {asked.kind} of the levels are unknown; give a budget of perplexity"
        )
    if asked.relative:
        rows[["value", "most", "dense"]] = rows[["value", "most", "dense"]].div(
            rows["dense"], axis=0
        )
    dense = float(rows["dense"].iloc[0])
    if dense <= asked.most:
        return Within(float(rows["sparsity"].iloc[0]), asked, dense, dense=True)
    fits = rows[rows["most"] <= asked.most]
    if fits.empty:
        least = rows.iloc[int(rows["most"].to_numpy().argmin())]
        raise SparsityReportError(
            f"budget: {asked.plain(asked.most)} is out of reach; {_LAYOUTS[layout]} "
            f"{'is' if layout != 'dense' else 'are'} sure to take no more than "
            f"{asked.plain(least['most'])}, at {100 * least['sparsity']:g} %, and dense "
            f"{asked.plain(dense)}: give a larger budget"
        )
    first = fits.iloc[0]
    value, most = float(first["value"]), float(first["most"])
    return Within(float(first["sparsity"]), asked, value, most=most, layout=layout)


def _by_perplexity(study: StudyFigures, asked: Budget, policy: str) -> Within:
    points = measured_levels(study, policy)
    if len(points) < 2:
        raise SparsityReportError(
            f"budget: perplexity was measured at {len(points)} "
            f"level{'' if len(points) == 1 else 's'} of this policy; measure at least two"
        )
    over = [place for place, (_, score) in enumerate(points) if score > asked.most]
    last = over[0] if over else len(points)
    if last == 0:
        scores = [score for _, score in points]
        raise SparsityReportError(
            f"budget: {asked.plain(asked.most)} is out of reach; at "
            f"{100 * round(points[0][0], 4):g} % it is {points[0][1]:,.2f} already, and measured "
            f"were {min(scores):,.2f} to {max(scores):,.2f}: give a larger budget"
        )
    measured, score = points[last - 1]
    kept = study.by_policy[policy].sparsities
    below = [s for s in kept if s <= measured or same_level(s, measured)]
    if not below:
        raise SparsityReportError(
            "budget: no kept level is as low as the measured one; give a budget of bytes or FLOPs"
        )
    beyond = points[last] if over else None
    return Within(below[-1], asked, score, measured, beyond)


def measured_levels(study: StudyFigures, policy: str) -> list[tuple[float, float]]:
    """Return the sparsity and perplexity of variants of the first model pruned by a policy.

    The unpruned model is at the level of the zeros it has. Only the text and protocol by which most
    variants were scored counts, the first of several. Of two variants at one level, such as one
    masked and one CSR, the worse counts.
    """
    if study.quality is None:
        return []
    named = zip(study.variants["variant"], study.variants["method"], strict=True)
    counted = [v for v, how in named if study.facts.is_of_first(v) and is_level_of(how, policy)]
    scores = study.quality[study.quality["variant"].isin(counted)]
    most: dict[float, float] = {}
    for rows in by_protocol(scores[scores["perplexity"].notna()]):
        points: dict[float, float] = {}
        for row in records(rows):
            if (share := study.facts.total(row["variant"], "sparsity_prunable")) is not None:
                level = next((known for known in points if same_level(known, share)), share)
                points[level] = max(points.get(level, 0.0), float(row["perplexity"]))
        most = points if len(points) > len(most) else most
    return sorted(most.items())
