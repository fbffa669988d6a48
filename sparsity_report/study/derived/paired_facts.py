"""Comparisons of all scores of a study, from its facts."""

import math
from itertools import product
from typing import Any

import pandas as pd

from sparsity_report.study.block_bootstrap import LEVEL, WIDE
from sparsity_report.study.derived.paired_scores import Ends, Paired, paired
from sparsity_report.study.derived.protocol_scores import by_protocol, key_of
from sparsity_report.study.layers import records
from sparsity_report.study.losses import paired_mean, why_unpaired

# Largest distance of zeros from a target that is reached.
_NEAR = 0.005
#: Distances of predictions from those of dense: their losses by span, and their largest value.
DISTANCES = {
    "kl": ("kl", math.inf),
    "reverse_kl": ("reverse_kl", math.inf),
    "agreement": ("agreed", 1.0),
}
_COLUMNS = [
    *("text", "protocol", "variant", "against", "p", "separated"),
    *("figure", "value", "low", "high", "low_99", "high_99"),
]


def level(facts: Any, name: str) -> float:
    """Return the target of a pruning, or its share of zeros if that differs."""
    target = float(facts.methods.set_index("variant")["sparsity"][name])
    share = facts.total(name, "sparsity_prunable") or target
    return round(target if abs(share - target) <= _NEAR else share, 3)


def level_of(facts: Any, names: list[str]) -> float:
    """Return the sparsity of rivals, see :attr:`.paired_scores.Paired.rivals`."""
    alike = facts.layouts_of(names[0])
    return level(facts, next(name for name in facts.prunings if name in alike))


def paired_by_protocol(facts: Any) -> dict[tuple[Any, ...], Paired]:
    """Return comparisons by text and protocol, see :func:`.paired_scores.paired`."""
    known = {}
    rows = facts.methods[facts.methods["variant"].isin(facts.prunings)]
    levels = rows["variant"].map(lambda name: level(facts, name))
    groups = rows["variant"].groupby([rows["fingerprint"], levels], sort=False)
    for scores in by_protocol(facts.study.quality):
        by_variant = {row["variant"]: row for row in records(scores.drop_duplicates("variant"))}
        alike: dict[str, str] = {}
        for name in facts.prunings:
            with_scores = [each for each in facts.layouts_of(name) if each in by_variant]
            alike |= dict.fromkeys(with_scores, next(iter(with_scores), name))
        rivals = [[alike.get(name, name) for name in names] for _, names in groups]
        # Nothing is best of predictions worse than uniform guessing.
        rivals = [names for names in rivals if not _are_guessing(facts, by_variant, names)]
        base = facts.original or facts.baseline
        known[key_of(records(scores)[0])] = paired(by_variant, rivals, alike, base)
    return known


def _are_guessing(facts: Any, scores: dict[str, dict[str, Any]], names: list[str]) -> bool:
    """Return true if uniform guessing among all tokens has no higher perplexity than any."""
    tokens = facts.vocabulary(names[0])
    known = [scores[name]["perplexity"] for name in names if name in scores]
    return tokens is not None and not any(score < tokens for score in known)


def score_ends(facts: Any, variant: str, perplexity: float) -> tuple[float, float] | None:
    """Return the interval of a measured perplexity against dense as measured; None if unknown.

    It is the perplexity of dense times the ends of the ratio.
    """
    if (frame := facts.study.quality) is None:
        return None
    rows = frame[frame["variant"].eq(variant) & frame["perplexity"].eq(perplexity)]
    for row in records(rows):
        if contrast := facts.paired(row).from_dense(variant):
            _, low, high = contrast.ratio
            return low * contrast.base, high * contrast.base
    return None


def distance(row: dict[str, Any], figure: str, level: float = LEVEL) -> Ends | None:
    """Return a distance of a score from dense and the ends of its interval; None if it is unknown.

    The distance of dense from itself is no measurement.

    Parameters
    ----------
    row : dict
        A row of ``study.quality``.
    figure : {"kl", "reverse_kl", "agreement"}
    level : float
        Confidence of the interval, whose ends are NaN without losses.
    """
    losses, most = DISTANCES[figure]
    mean = None if why_unpaired(row, row) else paired_mean(row, figure=losses)
    value = row.get(figure, mean and mean.estimate)
    if row["variant"] == row["against"] or value is None or pd.isna(value):
        return None
    if mean is None:
        return value, math.nan, math.nan
    low, high = mean.interval(level)
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
        pairs, about = facts.paired(listed[0]), [listed[0]["text"], listed[0]["protocol"]]
        for pair, contrast in pairs.contrasts.items():
            shared = [*about, *pair, contrast.nll.p_value, contrast.is_apart]
            wide = contrast.widened
            rows.append([*shared, "perplexity_ratio", *contrast.ratio, *wide.ratio[1:]])
            rows.append([*shared, "perplexity_difference", *contrast.gap, *wide.gap[1:]])
        for row, figure in product(listed, DISTANCES):
            name, known = row["variant"], distance(row, figure)
            wide = distance(row, figure, WIDE)
            if known and wide and pairs.first_alike.get(name, name) == name:
                rows.append([*about, name, row["against"], None, None, figure, *known, *wide[1:]])
    frame = pd.DataFrame(rows, columns=_COLUMNS).dropna(subset="low", ignore_index=True)
    return None if frame.empty else frame
