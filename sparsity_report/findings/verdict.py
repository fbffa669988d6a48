"""Verdict on a study: at most two sentences that answer what pruning did to the model.

The key fact about an unusual model comes first, then quality, size and speed. A sentence about
several prunings gives the range at the highest sparsity that they share.
"""

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from sparsity_report.findings.already_pruned import place_of_zeros
from sparsity_report.findings.checkpoint_findings import checkpoint_verdict
from sparsity_report.findings.speed_findings import ratios_with_intervals, timed_tokens
from sparsity_report.study.derived.heads_experts import fewer_experts
from sparsity_report.study.derived.protocol_scores import Scored
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.words.number_format import perplexity, quantities
from sparsity_report.words.sentences import say

#: Relative change of a size up to which it counts as the same.
SAME = 0.005
# Growth of perplexity from which a model counts as wrecked.
_WRECKED = 10
_SENTENCES = 2
# Sentences that claim a change.
_CHANGES = ("verdict.perplexity_rises", "verdict.perplexity_falls")
# Shares with a word.
_FRACTIONS = ("verdict.csr_larger_33", "verdict.csr_larger_25")


def verdict(study: StudyFigures) -> str:
    """Return the verdict on a study.

    Parameters
    ----------
    study : Study

    Returns
    -------
    str
        At most two sentences on what is known of quality, size and speed.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> print(verdict(sr.compare(sr.dense(sr.load()), sr.csr(pruning))))
    At 30 % sparsity, CSR makes the model a third larger, while bitmask storage saves 22 %.
    """
    if study.matches is not None:
        return " ".join(checkpoint_verdict(study))
    statements = [*_statements(study)][:_SENTENCES] or [_zeros(study, study.facts.headline)]
    return say("verdict.sentences", statements=statements)


def _statements(study: StudyFigures) -> Iterator[str]:
    facts = study.facts
    if not facts.contenders:
        zeros = [*_key_fact(study, facts.headline), _zeros(study, facts.headline)]
        yield from _fewer_experts(study) or zeros
        return
    share, names = study.facts.main_level
    # Nothing was pruned where the highest sparsity is 0 %.
    opening = [*_quality(study, share, names)] if share else [_zeros(study, names[0])]
    yield from _key_fact(study, names[0], has_opening=bool(opening))
    yield from opening
    yield from _size(study, names, None if opening or names[0] in facts.already_pruned else share)
    yield from _speed(study)


def _key_fact(study: StudyFigures, variant: str, has_opening: bool = False) -> Iterator[str]:
    """Yield what sets the model of a variant apart: zeros as opened, experts, packing, no head."""
    facts = study.facts
    is_pruned = variant in facts.already_pruned
    opened = variant if is_pruned else facts.original or variant
    is_alone = study.variants["fingerprint"].nunique() == 1
    name = say("verdict.the_model") if is_alone else opened
    (figures,) = records(study.totals[study.totals["variant"] == opened])
    figures |= {"model": name, "packings": facts.packings(opened)}
    place = place_of_zeros(study, opened)
    if is_pruned and (place or not has_opening):
        key = "verdict.came_pruned_in" if place else "verdict.came_pruned"
        yield say(key, place=place, **figures)
    elif facts.is_mixture(opened) and pd.notna(figures["active_total"]):
        yield say("verdict.mixture", **figures)
    elif figures["packings"] and pd.notna(figures["file_bytes"]):
        yield say("verdict.packed", **figures)
    elif not has_opening and facts.lacks_head(opened):
        yield say("verdict.no_head", **figures)


def _zeros(study: StudyFigures, variant: str) -> str:
    """Return the share of zeros of a variant, or why it is unknown."""
    facts = study.facts
    number, share = (facts.total(variant, f) for f in ("prunable_total", "sparsity_prunable"))
    if not number:
        return say("verdict.nothing_prunable", variant=variant)
    if share is not None:
        key = "verdict.sparsity" if share else "verdict.no_zeros"
        return say(key, share=share, number=number, variant=variant)
    return say("verdict.zeros_without_values", variant=variant)


def _quality(study: StudyFigures, share: float, names: Sequence[str]) -> Iterator[str]:
    """Yield the perplexity before and after the prunings at a sparsity."""
    known = {name: score for name in names if (score := study.facts.scored(name)) and score.before}
    if not _is_comparable(known.values()):
        return
    ranked = sorted(known, key=lambda name: known[name].perplexity)
    best, worst = known[ranked[0]], known[ranked[-1]]
    tokens = study.facts.vocabulary(ranked[0])
    scores = {"before": best.before, "low": best.perplexity, "high": worst.perplexity}
    values = {key: (score, tokens) for key, score in scores.items()}
    if len(ranked) == 1 or _is_guessing(best.perplexity, tokens):
        yield _change(study, best, _cause(study, ranked[0], share))
        return
    labels = labels_of(study, ranked)
    key = "verdict.perplexity_of_two" if len(ranked) == 2 else "verdict.perplexity_range"
    contrast = study.facts.paired(worst).get(worst.variant, best.variant)
    if contrast and not contrast.is_apart:
        key = "verdict.perplexity_not_separated"
    yield say(key, best=labels[0], worst=labels[-1], share=share, **values)


def _is_comparable(scores: Iterable[Scored]) -> bool:
    """Return whether all scores are of one text by one protocol."""
    return len({score.key for score in scores}) == 1


def _change(study: StudyFigures, score: Scored, cause: str) -> str:
    """Return the perplexity before and after one pruning."""
    facts = study.facts
    tokens = facts.vocabulary(score.variant)
    if _is_guessing(score.before, tokens) and _is_guessing(score.perplexity, tokens):
        return say("verdict.guessing_before")
    key = _effect(score, tokens)
    contrast = facts.paired(score).get(score.variant, facts.original)
    if contrast and not contrast.is_apart and key in _CHANGES:
        key = "verdict.perplexity_unclear"
    ends = {"before": score.before, "low": score.perplexity, "high": score.perplexity}
    return say(key, cause=cause, **{name: (value, tokens) for name, value in ends.items()})


def _fewer_experts(study: StudyFigures) -> list[str]:
    """Return the quality and the size of the first variant that lacks experts."""
    facts = study.facts
    for variant, rows in fewer_experts(study).items():
        counts = {"removed": int((~rows["is_kept"]).sum()), "experts": len(rows)}
        cause = say("verdict.removing_experts", variant=variant, **counts)
        before, after = facts.total(facts.baseline, "total"), facts.total(variant, "total")
        if not before or after is None:
            continue
        size = say(
            "verdict.fewer_parameters",
            variant=variant,
            fewer=1 - after / before,
            total=after,
            active_total=facts.total(variant, "active_total"),
        )
        score = facts.scored(variant)
        return [*([_change(study, score, cause)] if score and score.before else []), size]
    return []


def labels_of(study: StudyFigures, names: Sequence[str]) -> list[str]:
    """Return the methods of variants, or their names if methods are not unique."""
    methods = study.variants.set_index("variant")["method"].reindex(list(names))
    return list(methods) if methods.is_unique and methods.notna().all() else list(names)


def _is_guessing(score: float | None, tokens: int | None) -> bool:
    """Return whether uniform guessing among all tokens has no higher perplexity."""
    return score is not None and tokens is not None and score >= tokens


def _effect(score: Scored, tokens: int | None) -> str:
    """Return the key of the sentence on one pruning."""
    assert score.before is not None
    if _is_guessing(score.perplexity, tokens):
        return "verdict.guessing"
    if score.perplexity >= _WRECKED * score.before:
        return "verdict.wrecked"
    if perplexity(score.before) == perplexity(score.perplexity):
        return "verdict.perplexity_same"
    is_higher = score.perplexity > score.before
    return "verdict.perplexity_rises" if is_higher else "verdict.perplexity_falls"


def _cause(study: StudyFigures, variant: str, share: float) -> str:
    """Return the change of sparsity by a pruning, from the zeros before it.

    It names the method where the study has several.
    """
    before, number = (study.facts.total(variant, f) for f in ("zeros_before", "prunable_total"))
    cause = say("verdict.removing_50" if share == 0.5 else "verdict.removing", share=share)
    if before and number and before > number / 1000:
        cause = say("verdict.raising", before=before / number, share=share)
    if study.facts.first_prunings["policy"].nunique() < 2:
        return cause
    return say("verdict.with_method", cause=cause, method=labels_of(study, [variant])[0])


def _size(study: StudyFigures, names: Sequence[str], share: float | None) -> Iterator[str]:
    """Yield the size of the whole model in the layout of the variants, and in the smallest one."""
    facts = study.facts
    layout, before = facts.common_layout(names), facts.size_before(names[0])
    if not before or layout is None:
        return
    csr, smallest = (
        [size / before for name in names if (size := facts.size(name, each)) is not None]
        for each in ("csr", layout)
    )
    claims, joined = [size_change(max(csr))] if csr else [], "verdict.and"
    if not csr and any(facts.layouts[name] == "masked" for name in names):
        claims.append(say("verdict.masked"))
    if max(smallest) < min([1, *csr]) - SAME:
        saved = [1 - ratio for ratio in smallest]
        claims.append(say("verdict.other_layout", layout=layout, saved=saved))
        joined = "verdict.while"
    elif min([1, *csr]) >= 1 - SAME:
        # This implies that neither masking nor CSR saves space.
        changes = csr and max(csr) > 1 + SAME
        claims = [*(claims if changes else ()), say("verdict.no_layout_saves")]
    claim = claims[0]
    if claims[1:]:
        claim = say(joined, claim=claim, other=claims[1])
    if facts.packings(names[0]):
        claim = say("verdict.of_packed", claim=claim, before=before)
    yield claim if share is None else say("verdict.at_sparsity", share=share, claim=claim)


def size_change(ratio: float) -> str:
    """Return the change in size by CSR.

    Examples
    --------
    >>> [str(size_change(ratio)) for ratio in (1.002, 1.333, 0.784, 2.0)]
    ...     # doctest: +NORMALIZE_WHITESPACE
    ['CSR saves nothing', 'CSR makes the model a third larger',
     'CSR makes the model 22 % smaller', 'CSR makes the model 2.0 times as large']
    """
    change = abs(ratio - 1)
    if change <= SAME:
        return say("verdict.csr_same")
    if ratio >= 1.9:
        return say("verdict.csr_times", ratio=ratio)
    key = "verdict.csr_larger" if ratio > 1 else "verdict.csr_smaller"
    fraction = f"{key}_{round(100 * change)}"
    return say(fraction if fraction in _FRACTIONS else key, share=change)


def _speed(study: StudyFigures) -> Iterator[str]:
    """Yield the speed of the headline's forward pass, if it was measured well enough."""
    variant = study.facts.headline
    rows = study.facts.whole_speeds(variant)
    for outcome, key in (("stated", "verdict.speed_up"), ("noise", "verdict.speed_within_noise")):
        timed = rows[rows["verdict"] == outcome]
        if len(timed):
            speeds, tokens = ratios_with_intervals(timed), timed_tokens(timed)
            values = {"speeds": speeds, "base": study.facts.speed_base, "tokens": tokens}
            yield say(key, variant=variant, **values)


def comparison_title(study: StudyFigures) -> str:
    """Return the title of the picture of several prunings."""
    facts, rows = study.facts, study.facts.first_prunings
    share, rivals = study.facts.main_level
    scores = {name: score for name in facts.contenders if (score := facts.scored(name))}
    ranked = sorted((scores[n] for n in rivals if n in scores), key=lambda s: s.perplexity)
    if len(ranked) > 1 and _is_comparable(ranked):
        pairs, names = facts.paired(ranked[0]), [score.variant for score in ranked]
        if names in pairs.rivals:
            if best := pairs.best(names):
                return say("page.hero_best", best=labels_of(study, best), share=share)
            if not pairs.why(names):
                return say("page.hero_not_separated", share=share)
        gap = ranked[-1].perplexity - ranked[0].perplexity
        return say("page.hero_gap", share=share, gap=gap)
    is_one_policy = rows["policy"].nunique(dropna=False) == 1
    if len(scores) > 1 and is_one_policy and _is_comparable(scores.values()):
        levels = rows.set_index("variant")["sparsity"]
        tokens = facts.vocabulary(facts.contenders[0])
        ends = {"low": next(iter(scores)), "high": [*scores][-1]}
        known = {"before": scores[ends["low"]].before}
        known |= {key: scores[name].perplexity for key, name in ends.items()}
        values = {key: (score, tokens) for key, score in known.items()}
        places = {"first": levels[ends["low"]], "last": levels[ends["high"]]}
        return say("page.hero_levels", **values, **places)
    layouts = ((name, facts.smallest_layout(name, "model")) for name in facts.contenders)
    smallest = [size for name, layout in layouts if layout and (size := facts.size(name, layout))]
    limits = [*dict.fromkeys((min(smallest), max(smallest)))] if smallest else [None]
    first = facts.contenders[0]
    low, *high, before = quantities([*limits, facts.size_before(first)], "B", " ")
    sizes = say("format.range", low=low, high=high[0]) if high else low
    key = "page.hero_size_packed" if facts.packings(first) else "page.hero_size"
    return say(key, sizes=sizes, before=before)
