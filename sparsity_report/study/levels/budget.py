"""The level of sparsity that a budget of bytes, FLOPs or perplexity comes to."""

from __future__ import annotations

import re
from typing import NamedTuple

from sparsity_report.errors import SparsityReportError
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.perplexity import ALIKE
from sparsity_report.study.derived.policy_names import GLOBAL, is_level_of
from sparsity_report.study.layers import records
from sparsity_report.study.levels.levels import same_level
from sparsity_report.words.languages import spoken
from sparsity_report.words.number_format import figures, scaled, times
from sparsity_report.words.sentences import say

_NUMBER = r"(\d+(?:[.,]\d+)?)\s*"
_PERPLEXITY = re.compile(rf"(?:perplexity|perplexité|ppl)\s*{_NUMBER}")
_SHARE = re.compile(rf"{_NUMBER}([x×%])\s*(flops?|bytes?|octets?)")
_SIZE = re.compile(rf"{_NUMBER}([kmgtp]?)(i?)(b|o|bytes?|octets?|flops?)")
_AT_MOST = re.compile(r"≤|<=|<|=")
_PREFIXES = {prefix: power for power, prefix in enumerate(("", "k", "m", "g", "t", "p"))}
# Columns of `Facts.levels` of a quantity and of its ratio to dense.
_COLUMNS = {"bytes": ("stored_bytes", "bytes_ratio"), "flops": ("flops_per_token", "flops_ratio")}


class Budget(NamedTuple):
    """What a text asks for.

    Attributes
    ----------
    kind : {"bytes", "flops", "perplexity"}
    most : float
        Bytes, FLOPs per token, a perplexity, or a ratio to dense.
    relative : bool
        Whether it is a ratio.
    """

    kind: str
    most: float
    relative: bool

    def write(self, value: float) -> str:
        """Write a value as the budget is meant."""
        if self.kind == "perplexity":
            return figures(value, ",.2f")
        if self.relative:
            return times(value, spoken().space)
        return scaled(value, "B" if self.kind == "bytes" else "FLOPs", spoken().space)


class Within(NamedTuple):
    """The level that a budget comes to.

    Attributes
    ----------
    sparsity : float
        One of the kept levels: of bytes and FLOPs the lowest within the budget, of perplexity
        the highest up to which every level that was measured is.
    budget : Budget
    value : float
        What it is there, as ``budget`` is meant: of bytes and FLOPs those of the whole model with
        its prunable matrices in CSR, of perplexity that of the measured level.
    measured : float or None
        Of perplexity, the measured level in question.
    beyond : tuple of float or None
        The next measured level and its perplexity, which is more; None where none was measured.
    dense : bool
        Whether the model is within the budget with all its matrices dense.
    """

    sparsity: float
    budget: Budget
    value: float
    measured: float | None = None
    beyond: tuple[float, float] | None = None
    dense: bool = False


def read_budget(text: str) -> Budget:
    """Read a budget as people write it.

    Raises
    ------
    SparsityReportError
        It is none.

    Examples
    --------
    >>> read_budget("100 MB")
    Budget(kind='bytes', most=100000000.0, relative=False)
    >>> read_budget("0.5 × FLOPs"), read_budget("perplexity ≤ 15")[:2]
    (Budget(kind='flops', most=0.5, relative=True), ('perplexity', 15.0))
    """
    plain = re.sub(r"\s+", " ", _AT_MOST.sub(" ", text.casefold())).strip()
    if found := _PERPLEXITY.fullmatch(plain):
        return Budget("perplexity", _read(found[1]), relative=False)
    if found := _SHARE.fullmatch(plain):
        share = _read(found[1]) / (100 if found[2] == "%" else 1)
        return Budget("flops" if found[3][0] == "f" else "bytes", share, relative=True)
    if found := _SIZE.fullmatch(plain):
        number, prefix, binary, unit = found.groups()
        size = _read(number) * (1024 if binary else 1000) ** _PREFIXES[prefix]
        return Budget("flops" if unit[0] == "f" else "bytes", size, relative=False)
    raise SparsityReportError(
        say(
            "budget.invalid_text",
            bytes="100 MB",
            flops="0.5 × FLOPs",
            perplexity=say("budget.perplexity_example"),
            text=repr(text[:80]),
        )
    )


def level_within(study: Comparison, budget: str, *, policy: str = GLOBAL) -> Within:
    """Return the level of sparsity that a budget comes to, as far as it is known.

    Parameters
    ----------
    study : Comparison
    budget : str
        ``"100 MB"``, ``"1.5 GiB"``, ``"0.5 × bytes"``, ``"0.5 × FLOPs"``, ``"2 GFLOPs"``,
        ``"perplexity ≤ 15"``. Bytes and FLOPs per token are those of the whole model with its
        prunable matrices in CSR; a model that is within it with all of them dense need not be
        pruned. A perplexity is never interpolated: the level is the highest measured one up to
        which all that were measured, on one text by one protocol, are within the budget.
    policy : str
        How levels are pruned: one of ``study.by_policy``. Only variants that were pruned so say
        what perplexity a level has.

    Returns
    -------
    Within

    Raises
    ------
    SparsityReportError
        The budget cannot be read, is out of reach, or what it speaks of is not known; the message
        says what can be reached.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> sr.level_within(study, "0.5 x FLOPs").sparsity
    0.59
    """
    asked = read_budget(budget)
    if policy not in study.by_policy:
        raise SparsityReportError(say("budget.policy_without_levels"))
    if asked.kind == "perplexity":
        return _by_perplexity(study, asked, policy)
    return _by_cost(study, asked, policy)


def _by_cost(study: Comparison, asked: Budget, policy: str) -> Within:
    quantity, share = _COLUMNS[asked.kind]
    column = share if asked.relative else quantity
    frame = study.by_policy[policy].model
    rows = frame[frame[column].notna()]
    if rows.empty:
        raise SparsityReportError(say("budget.unknown_costs"))
    dense = 1.0 if asked.relative else float(rows[f"dense_{quantity}"].iloc[0])
    if dense <= asked.most:
        return Within(float(rows["sparsity"].iloc[0]), asked, dense, dense=True)
    fits = rows[rows[column] <= asked.most]
    if fits.empty:
        least = rows.iloc[int(rows[column].astype(float).to_numpy().argmin())]
        raise SparsityReportError(
            say(
                "budget.cost_out_of_reach",
                budget=asked.write(asked.most),
                least=asked.write(float(least[column])),
                level=float(least["sparsity"]),
                dense=asked.write(dense),
            )
        )
    first = fits.iloc[0]
    return Within(float(first["sparsity"]), asked, float(first[column]))


def _by_perplexity(study: Comparison, asked: Budget, policy: str) -> Within:
    levels = study.by_policy[policy]
    points = measured_levels(study, policy)
    if len(points) < 2:
        raise SparsityReportError(say("budget.too_few_perplexities", count=len(points)))
    over = [place for place, (_, score) in enumerate(points) if score > asked.most]
    last = over[0] if over else len(points)
    if last == 0:
        scores = [score for _, score in points]
        raise SparsityReportError(
            say(
                "budget.perplexity_out_of_reach",
                budget=asked.write(asked.most),
                least=round(points[0][0], 4),
                score=asked.write(points[0][1]),
                low=asked.write(min(scores)),
                high=asked.write(max(scores)),
            )
        )
    measured, score = points[last - 1]
    kept = levels.sparsities
    below = [level for level in kept if level <= measured or same_level(level, measured)]
    if not below:
        raise SparsityReportError(say("budget.no_level_below_measured"))
    beyond = points[last] if over else None
    return Within(below[-1], asked, score, measured, beyond)


def measured_levels(study: Comparison, policy: str) -> list[tuple[float, float]]:
    """Return zeros ÷ prunable weights and perplexity of a policy's variants of the first model.

    Of several texts and protocols those of the most variants are taken, of equally many the first;
    of variants at one level, such as one masked and one CSR, the worse. The model as it comes
    counts as the level of the zeros it has.
    """
    if study.quality is None:
        return []
    variants = study.variants
    methods = variants["method"].astype(object).where(variants["method"].notna(), None)
    alike = methods.map(lambda method: is_level_of(method, policy))
    first = variants["fingerprint"] == variants["fingerprint"].iloc[0]
    counted = variants[first & alike.astype(bool)]
    scores = study.quality[study.quality["variant"].isin(counted["variant"])]
    scores = scores[scores["perplexity"].notna()].astype(dict.fromkeys(ALIKE, object))
    best: dict[float, float] = {}
    for _, rows in scores.groupby(ALIKE, sort=False, dropna=False):
        points: dict[float, float] = {}
        for row in records(rows):
            share = study.facts.total(row["variant"], "sparsity_prunable")
            if share is None:
                continue
            level = next((known for known in points if same_level(known, share)), share)
            points[level] = max(points.get(level, 0.0), float(row["perplexity"]))
        best = points if len(points) > len(best) else best
    return sorted(best.items())


def _read(number: str) -> float:
    return float(number.replace(",", "."))
