"""Comparisons of all scores of a study, from its facts."""

from typing import Any

from sparsity_report.study.derived.paired_scores import Paired, paired
from sparsity_report.study.derived.protocol_scores import by_protocol, key_of
from sparsity_report.study.layers import records

# Largest distance of zeros from a target that is reached.
_NEAR = 0.005


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
        by_variant = {row["variant"]: row for row in reversed(records(scores))}
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
    pairs = [known for row in records(rows) if (known := facts.paired(row))]
    contrast = pairs[0].from_dense(variant) if pairs else None
    if contrast is None:
        return None
    _, low, high = contrast.ratio
    return low * contrast.base, high * contrast.base
