"""Comparisons of perplexities span by span: from dense, among rivals, and of pruned parts.

A comparison is apart if its interval excludes zero. Intervals are corrected for the
number of comparisons (Holm).
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.study.block_bootstrap import Mean, holm_levels, mean_over
from sparsity_report.study.derived.protocol_scores import by_protocol, key_of
from sparsity_report.study.layers import records
from sparsity_report.study.losses import paired_mean, token_counts, why_unpaired
from sparsity_report.words.number_format import is_guessing
from sparsity_report.words.sentences import say

#: Distances of predictions from those of dense: their losses by span, and their largest value.
DISTANCES = {"kl": ("kl", math.inf), "agreement": ("agreed", 1.0)}
_COLUMNS = [
    *("text", "protocol", "variant", "against", "p", "separated"),
    *("figure", "value", "low", "high"),
]
_NEW = "newly_zeroed"
_Row = Mapping[str, Any]
Ends = tuple[float, float, float]


class Contrast(NamedTuple):
    """A score less another one of the same text.

    Attributes
    ----------
    variant, against : str
    nll : Mean
        Difference in nats per token.
    base : float
        The perplexity of ``against``.
    level : float
        Confidence of its interval.
    """

    variant: str
    against: str
    nll: Mean
    base: float
    level: float

    @property
    def is_apart(self) -> bool:
        """True if the interval excludes zero."""
        low, high = self.nll.interval(self.level)
        return low > 0 or high < 0

    @property
    def ratio(self) -> Ends:
        """The ratio of the perplexities and its interval."""
        ends = (self.nll.estimate, *self.nll.interval(self.level))
        low, middle, high = sorted(math.exp(min(end, 700.0)) for end in ends)
        return middle, low, high

    @property
    def gap(self) -> Ends:
        """The difference of the perplexities: the ratio less one, of the perplexity against."""
        estimate, low, high = ((end - 1) * self.base for end in self.ratio)
        return estimate, low, high


@dataclass(frozen=True)
class Paired:
    """Comparisons of the scores of one text by one protocol.

    Attributes
    ----------
    contrasts : mapping
        By the names of both variants.
    reasons : mapping
        Why a comparison is missing, see :func:`.losses.why_unpaired`; ``"few"`` if the spans are
        too few.
    rivals : sequence of list of str
        Prunings of one model at one sparsity, the lowest perplexity first.
    first_alike : mapping of str to str
        The variant that stands for those with the same zeros.
    dense : mapping of str to str
        The variant that each variant is compared with as dense.
    shares : mapping of str to float
        Shares of zeros of the rivals.
    guessing : set of str
        Variants with perplexities no better than uniform guessing; their ratios say nothing.
    """

    contrasts: Mapping[tuple[str, str], Contrast]
    reasons: Mapping[tuple[str, str], str]
    rivals: Sequence[list[str]]
    first_alike: Mapping[str, str]
    dense: Mapping[str, str]
    shares: Mapping[str, float]
    guessing: Set[str] = frozenset()

    @property
    def correction(self) -> str:
        """The correction of intervals as a clause; empty for one comparison."""
        return say("format.correction", number=len(self.contrasts))

    def first(self, variant: str | None) -> str:
        """Return the variant that stands for those with the zeros of a variant."""
        return self.first_alike.get(str(variant), str(variant))

    def are_alike(self, variant: str, against: str | None) -> bool:
        """Return whether two variants have the same weights."""
        return self.first(variant) == self.first(against)

    def get(self, variant: str, against: str | None) -> Contrast | None:
        """Return a comparison with dense or with a lower perplexity; None if it is unknown."""
        return self.contrasts.get((self.first(variant), self.first(against)))

    def from_dense(self, variant: str) -> Contrast | None:
        """Return the comparison with dense; None if it is unknown or the variant guesses."""
        if variant in self.guessing:
            return None
        return self.get(variant, self.dense.get(self.first(variant)))

    def why(self, rivals: Sequence[str]) -> str:
        """Return why none of the rivals is called lowest; empty if some are, or all alike.

        A comparison is missing, or one of them has fewer zeros than another that is not lowest.
        """
        pairs = ((name, rivals[0]) for name in rivals[1:])
        if reason := next((self.reasons[pair] for pair in pairs if pair in self.reasons), ""):
            return reason
        beaten = [self.shares.get(name, 0.0) for name in rivals if name not in self._lowest(rivals)]
        zeros = (self.shares.get(name, 0.0) for name in self._lowest(rivals))
        return "zeros" if min(zeros) < max(beaten, default=0.0) else ""

    def best(self, rivals: Sequence[str]) -> tuple[str, ...]:
        """Return the lowest of the rivals and those that the text does not separate from it.

        None of them for a reason of :meth:`why`, or if all belong to it.
        """
        lowest = () if self.why(rivals) else self._lowest(rivals)
        return lowest if len(lowest) < len(rivals) else ()

    def _lowest(self, rivals: Sequence[str]) -> tuple[str, ...]:
        others = ((name, self.get(name, rivals[0])) for name in rivals[1:])
        return (rivals[0], *(name for name, other in others if other and not other.is_apart))


def paired(
    scores: Mapping[str, _Row],
    rivals: Iterable[Sequence[str]],
    alike: Mapping[str, str],
    base: str,
    shares: Mapping[str, float],
) -> Paired:
    """Compare every score with that of dense, and rivals with each other.

    Parameters
    ----------
    scores : mapping
        Rows of ``study.quality`` of one text and protocol, by variant.
    rivals : iterable of sequence of str
        Prunings of one model at one sparsity.
    alike : mapping of str to str
        The first scored variant with the same zeros, by variant.
    base : str
        The variant to compare with where a score names none.
    shares : mapping of str to float
        Shares of zeros of the rivals.
    """
    scores = {name: row for name, row in scores.items() if alike.get(name, name) == name}
    known = [sorted((n for n in names if n in scores), key=lambda n: float(scores[n]["nll"]))
             for names in rivals]  # fmt: skip
    known = [names for names in known if len(names) > 1]
    dense: dict[str, str] = {
        name: base if pd.isna(row["against"]) else str(row["against"])
        for name, row in scores.items()
    }
    pairs = [(name, other) for name, other in dense.items() if name != other and other in scores]
    pairs += [pair[::-1] for names in known for pair in combinations(names, 2)]
    means, reasons = {}, {}
    for pair in pairs:
        mean, reason = difference(*(scores[name] for name in pair))
        if mean:
            means[pair] = mean
        else:
            reasons[pair] = reason
    # Holm's correction depends on all comparisons.
    levels = holm_levels([mean.p_value for mean in means.values()])
    contrasts = {
        pair: Contrast(*pair, mean, float(scores[pair[1]]["perplexity"]), level)
        for (pair, mean), level in zip(means.items(), levels, strict=True)
    }
    return Paired(contrasts, reasons, known, alike, dense, shares)


def difference(one: _Row, other: _Row) -> tuple[Mean | None, str]:
    """Return the difference in nats per token of two scores, or why it has no interval."""
    if reason := why_unpaired(one, other):
        return None, reason
    mean = paired_mean(one, other)
    if mean is None or any(pd.isna(row["perplexity"]) for row in (one, other)):
        return None, "few"
    # Kept sums are rounded.
    return mean._replace(estimate=float(one["nll"] - other["nll"])), ""


def paired_by_protocol(facts: Any) -> dict[tuple[Any, ...], Paired]:
    """Return comparisons by text and protocol, see :func:`paired`."""
    known = {}
    rows = facts.methods[facts.methods["variant"].isin(facts.prunings)]
    levels = rows["variant"].map(facts.level)
    variants = facts.study.variants
    prints = dict(zip(variants["variant"], variants["fingerprint"], strict=True))
    groups = rows["variant"].groupby([rows["fingerprint"], levels], sort=False)
    for scores in by_protocol(facts.study.quality):
        by_variant = {row["variant"]: row for row in records(scores.drop_duplicates("variant"))}
        alike: dict[str, str] = {}
        for name in facts.prunings:
            with_scores = [each for each in facts.layouts_of(name) if each in by_variant]
            alike |= dict.fromkeys(with_scores, next(iter(with_scores), name))
        for name, row in by_variant.items():
            # A pruning that set nothing to zero.
            if prints.get(name) == prints.get(row["against"], 0) and facts.total(name, _NEW) == 0:
                alike[name] = alike.get(row["against"], row["against"])
        known_prints: dict[str, str] = {}
        for name in filter(by_variant.__contains__, facts.lacking):
            alike[name] = known_prints.setdefault(prints[name], name)
        rivals = [[*dict.fromkeys(alike.get(name, name) for name in each)] for _, each in groups]
        rivals += facts.expert_lists
        size = facts.vocabulary
        guessing = {n for n, row in by_variant.items() if is_guessing(row["perplexity"], size(n))}
        # Nothing is best of predictions worse than uniform guessing.
        rivals = [names for names in rivals if not guessing.issuperset(by_variant.keys() & names)]
        base, shares = facts.original or facts.baseline, facts.shares(by_variant)
        pairs = paired(by_variant, rivals, alike, base, shares)
        known[key_of(records(scores)[0])] = replace(pairs, guessing=guessing)
    return known


def distance(row: dict[str, Any], figure: str, pairs: Paired) -> Ends | None:
    """Return a distance of a score from dense and the ends of its interval; None if it is unknown.

    The distance of equal weights is no measurement: it is rounding. The ends are NaN without
    losses.

    Parameters
    ----------
    row : dict
        A row of ``study.quality``.
    figure : {"kl", "agreement"}
    pairs : Paired
        The comparisons of the scores of its text and protocol.
    """
    losses, most = DISTANCES[figure]
    # A score may have no losses by span.
    mean = None if why_unpaired(row, row) else paired_mean(row, figure=losses)
    value = row.get(figure, mean and mean.estimate)
    if pairs.are_alike(row["variant"], row["against"]) or value is None or pd.isna(value):
        return None
    if mean is None:
        return value, math.nan, math.nan
    low, high = mean.interval()
    return value, max(low, 0.0), min(high, most)


def score_pairs(facts: Any) -> pd.DataFrame | None:
    """Return paired comparisons of perplexities, and distances from dense; None without losses.

    Returns
    -------
    pandas.DataFrame or None
        As :attr:`sparsity_report.Study.score_pairs`.
    """
    rows: list[list[Any]] = []
    for scores in by_protocol(facts.study.quality):
        listed = records(scores)
        pairs, keys = facts.paired(listed[0]), [listed[0]["text"], listed[0]["protocol"]]
        for pair, contrast in pairs.contrasts.items():
            shared = [*keys, *pair, contrast.nll.p_value, contrast.is_apart]
            rows.append([*shared, "perplexity_ratio", *contrast.ratio])
            rows.append([*shared, "perplexity_difference", *contrast.gap])
        for row, figure in product(listed, DISTANCES):
            name, known = row["variant"], distance(row, figure, pairs)
            if known and pairs.first(name) == name:
                rows.append([*keys, name, row["against"], None, None, figure, *known])
    frame = pd.DataFrame(rows, columns=_COLUMNS).dropna(subset="low", ignore_index=True)
    return None if frame.empty else frame


def ranked_parts(sensitivity: pd.DataFrame) -> pd.DataFrame | None:
    """Return intervals and ranks of the cost of pruning parts; None where they are unknown.

    Returns
    -------
    pandas.DataFrame or None
        ``increase_low`` and ``increase_high`` at 95 %, corrected for the number of parts, and
        ``rank``: one more than the parts that cost more for certain.
    """
    kept = [sums for sums in sensitivity["span_increase"] if sums is not None]
    first = sensitivity.iloc[0]
    if len(kept) < len(sensitivity) or first["scored"] < first["window"]:
        return None
    counts = token_counts(int(first["scored"]), int(first["span"]))
    means = [mean for sums in kept if (mean := mean_over(sums, counts))]
    if len(means) < len(kept):
        return None
    levels = holm_levels([mean.p_value for mean in means])
    ends = [mean.interval(level) for mean, level in zip(means, levels, strict=True)]
    pairs = list(combinations(range(len(means)), 2))
    gaps = [mean_over(np.subtract(kept[a], kept[b]), counts) for a, b in pairs]
    ranks = np.ones(len(means), dtype=int)
    known = [(pair, gap) for pair, gap in zip(pairs, gaps, strict=True) if gap]
    levels = holm_levels([gap.p_value for _, gap in known])
    for ((a, b), gap), level in zip(known, levels, strict=True):
        if gap.p_value < 1 - level:
            ranks[b if gap.estimate > 0 else a] += 1
    low, high = zip(*ends, strict=True)
    return pd.DataFrame({"increase_low": low, "increase_high": high, "rank": ranks})
