"""Verdict on a study: at most two sentences that answer what pruning did to the model.

Zeros that a model came with are first, then quality, and size. A sentence about several prunings is
about the best at the highest sparsity that they share.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from sparsity_report.findings.already_pruned import place_of_zeros
from sparsity_report.findings.checkpoint_findings import checkpoint_verdict
from sparsity_report.findings.training_findings import training_sentences
from sparsity_report.study.derived.protocol_scores import Scored
from sparsity_report.study.figures import StudyFigures
from sparsity_report.words.number_format import figures, is_guessing, perplexity
from sparsity_report.words.sentences import say

#: Relative change of a size up to which it counts as the same.
SAME = 0.005
#: Growth of perplexity from which a model counts as wrecked.
WRECKED = 10
#: Most sentences.
SENTENCES = 2
# Sentences that claim a change.
_CHANGES = ("verdict.perplexity_rises", "verdict.perplexity_falls")


def verdict(study: StudyFigures) -> str:
    """Return the verdict on a study.

    Parameters
    ----------
    study : Study

    Returns
    -------
    str
        At most two sentences on what is known of quality and size.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> print(verdict(sr.compare(sr.dense(sr.load()), sr.csr(pruning))))
    ...     # doctest: +NORMALIZE_WHITESPACE
    With 30 % of 786 k prunable weights zero, CSR makes the model 33 % larger, while bitmask
    storage saves 22 %.
    """
    if study.history is not None:
        return " ".join([*training_sentences(study.history)][:SENTENCES])
    if study.matches is not None:
        return " ".join(checkpoint_verdict(study))
    statements = [*_statements(study)][:SENTENCES] or [_zeros(study, study.facts.headline)]
    return say("format.paragraph", statements=statements)


def _statements(study: StudyFigures) -> Iterator[str]:
    facts = study.facts
    if not facts.contenders:
        zeros = [*_came_pruned(study, facts.headline), _zeros(study, facts.headline)]
        yield from [*_fewer_experts(study)] or zeros
        return
    share, names = study.facts.main_level
    level, cause = say("level.share", share=share), partial(_cause, study, share)
    # Nothing was pruned where the highest sparsity is 0 %.
    opening = [*_ranked(study, names, level, cause)] if share else [_zeros(study, names[0])]
    yield from _came_pruned(study, names[0], has_opening=bool(opening))
    yield from opening
    yield from _size(study, names, None if opening or names[0] in facts.already_pruned else share)


def _came_pruned(study: StudyFigures, variant: str, has_opening: bool = False) -> Iterator[str]:
    """Yield the zeros that the model of a variant had when it was opened, and their place."""
    place = place_of_zeros(study, variant)
    if variant in study.facts.already_pruned and (place or not has_opening):
        is_alone = study.variants["fingerprint"].nunique() == 1
        model = say("verdict.the_model") if is_alone else variant
        share, number = _zero_share(study, variant)
        key = "verdict.came_pruned_in" if place else "verdict.came_pruned"
        yield say(key, place=place, model=model, share=share, number=number)


def _zero_share(study: StudyFigures, variant: str) -> tuple[float | None, float | None]:
    """Return the share of zeros of a variant's prunable weights, and their number."""
    total = study.facts.total
    return total(variant, "sparsity_prunable"), total(variant, "prunable_total")


def _zeros(study: StudyFigures, variant: str) -> str:
    """Return the share of zeros of a variant, or why it is unknown."""
    share, number = _zero_share(study, variant)
    if not number:
        return say("verdict.nothing_prunable", variant=variant)
    if share is None:
        return say("verdict.zeros_without_values", variant=variant)
    packings = study.facts.packings(variant)
    key = "verdict.sparsity_packed" if packings else "verdict.sparsity"
    values = {"share": share, "number": number, "variant": variant, "packings": packings}
    return say(key if share else "verdict.no_zeros", **values)


def _ranked(
    study: StudyFigures, names: Sequence[str], level: str, cause: Callable[[str], str]
) -> Iterator[str]:
    """Yield the perplexity before and after the best of some variants, and its rank."""
    known = {name: score for name in names if (score := study.facts.scored(name)) and score.before}
    # Only scores of one text by one protocol compare.
    if len({score.key for score in known.values()}) != 1:
        return
    ranked = sorted(known, key=lambda name: known[name].perplexity)
    best = known[ranked[0]]
    yield _change(study, best, cause(ranked[0]))
    tokens = study.facts.vocabulary(ranked[0])
    if len(ranked) == 1 or is_guessing(best.perplexity, tokens):
        return
    pairs, variants = study.facts.paired(best), [known[name].variant for name in ranked]
    lowest, key = list[str](), "verdict.highest"
    if is_compared := variants in pairs.rivals and not pairs.why(variants):
        lowest = labels_of(study, pairs.best(variants))
        key = "verdict.lowest" if lowest else "verdict.not_separated"
    counts = {"level": level, "best": lowest, "number": len(ranked)}
    worst = {"worst": labels_of(study, ranked)[-1], "high": (known[ranked[-1]].perplexity, tokens)}
    if study.facts.contenders:
        yield say(key, **counts, **worst)
    elif is_compared:  # no choice of experts is called worst, because none is separated from all
        yield say("verdict.lowest_choice" if lowest else "verdict.choices_not_separated", **counts)


def _change(study: StudyFigures, score: Scored, cause: str) -> str:
    """Return the perplexity before and after one pruning."""
    facts = study.facts
    tokens = facts.vocabulary(score.variant)
    if is_guessing(score.before, tokens) and is_guessing(score.perplexity, tokens):
        return say("verdict.guessing_before")
    key = _effect(score, tokens)
    contrast = facts.paired(score).get(score.variant, facts.original)
    if contrast and not contrast.is_apart and key in _CHANGES:
        key = "verdict.perplexity_unclear"
    ends = {"before": (score.before, tokens), "high": (score.perplexity, tokens)}
    claim = say(key, cause=cause, **ends)
    if contrast is None or key == "verdict.guessing":
        return claim
    return say("verdict.with_interval", claim=claim, **ratio_ends(*contrast.ratio[1:]))


def ratio_ends(low: float, high: float) -> dict[str, str]:
    """Return the ends of an interval of ratios, without decimals from 10 on."""
    digits = ".2f" if high < 10 else ".0f"
    return {"low": figures(low, digits), "high": figures(high, digits)}


def _fewer_experts(study: StudyFigures) -> Iterator[str]:
    """Yield the quality, rank and size of the best of most variants that keep equally few."""
    facts = study.facts
    if not facts.lacking:
        return
    sizes = {name: facts.total(name, "total") or 0.0 for name in facts.lacking}
    lists = facts.expert_lists or [[*facts.lacking][:1]]
    names = max(lists, key=lambda each: (len(each), -sizes[each[0]]))

    def cause(variant: str) -> str:
        is_kept = facts.lacking[variant]["is_kept"]
        counts = {"removed": int((~is_kept).sum()), "experts": len(is_kept)}
        return say("verdict.removing_experts", variant=variant, **counts)

    yield from _ranked(study, names, facts.level_of(names), cause)
    before, variant = facts.total(facts.baseline, "total"), names[0]
    if before and sizes[variant]:
        figures = {"fewer": 1 - sizes[variant] / before, "total": sizes[variant]}
        active = facts.total(variant, "active_total")
        yield say("verdict.fewer_parameters", variant=variant, **figures, active_total=active)


def labels_of(study: StudyFigures, names: Sequence[str]) -> list[str]:
    """Return the methods of variants, or their names if methods are not unique."""
    variants = study.variants.set_index("variant")
    methods = variants["method"].fillna(variants["expert_score"]).reindex(list(names))
    return list(methods) if methods.is_unique and methods.notna().all() else list(names)


def _effect(score: Scored, tokens: int | None) -> str:
    """Return the key of the sentence on one pruning."""
    assert score.before is not None
    if is_guessing(score.perplexity, tokens):
        return "verdict.guessing"
    if score.perplexity >= WRECKED * score.before:
        return "verdict.wrecked"
    if perplexity(score.before) == perplexity(score.perplexity):
        return "verdict.perplexity_same"
    is_higher = score.perplexity > score.before
    return "verdict.perplexity_rises" if is_higher else "verdict.perplexity_falls"


def _cause(study: StudyFigures, share: float, variant: str) -> str:
    """Return the change of sparsity by a pruning, from the zeros before it.

    It names the method where the study has several.
    """
    before, number = (study.facts.total(variant, f) for f in ("zeros_before", "prunable_total"))
    key = "verdict.removing_50" if share == 0.5 else "verdict.removing"
    cause = say(key, share=share, number=number)
    if before and number and before > number / 1000:
        cause = say("verdict.raising", before=before / number, share=share, number=number)
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
    is_packed = bool(facts.packings(names[0]))
    if max(smallest) < min([1, *csr]) - SAME:
        saved = [1 - ratio for ratio in smallest]
        key = "verdict.other_layout_than_file" if is_packed else "verdict.other_layout"
        other = say(key, layout=layout, saved=saved, before=before)
        claims, joined = [*([] if is_packed else claims), other], "verdict.while"
    elif min([1, *csr]) >= 1 - SAME:
        # This implies that neither masking nor CSR saves space.
        changes = csr and max(csr) > 1 + SAME and not is_packed
        key = "verdict.no_layout_saves_file" if is_packed else "verdict.no_layout_saves"
        claims = [*(claims if changes else ()), say(key, before=before)]
    claim = say(joined, claim=claims[0], other=claims[1]) if claims[1:] else claims[0]
    number = facts.total(names[0], "prunable_total")
    key = "verdict.at_sparsity"
    yield claim if share is None else say(key, share=share, number=number, claim=claim)


def size_change(ratio: float) -> str:
    """Return the change in size by CSR.

    Examples
    --------
    >>> [str(size_change(ratio)) for ratio in (1.002, 1.333, 0.784, 2.0)]
    ...     # doctest: +NORMALIZE_WHITESPACE
    ['CSR saves nothing', 'CSR makes the model 33 % larger',
     'CSR makes the model 22 % smaller', 'CSR makes the model 2.0 times as large']
    """
    change = abs(ratio - 1)
    if change <= SAME:
        return say("verdict.csr_same")
    if ratio >= 1.9:
        return say("verdict.csr_times", ratio=ratio)
    key = "verdict.csr_larger" if ratio > 1 else "verdict.csr_smaller"
    return say(key, share=change)
