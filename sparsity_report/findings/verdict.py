"""Verdict on a study: at most two sentences that answer what pruning did to the model.

Quality comes first, then size, then speed. A sentence about several prunings gives the range at the
highest sparsity that they share.
"""

from collections.abc import Iterator, Sequence

from sparsity_report.findings.speed_findings import ratios_with_intervals, timed_tokens
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.protocol_scores import Scored

#: Relative change of a size up to which it counts as the same.
SAME = 0.005
# Growth of perplexity from which a model counts as wrecked.
_WRECKED = 10
_SENTENCES = 2
# Shares with a word.
_FRACTIONS = ("verdict.csr_larger_33", "verdict.csr_larger_25")


def verdict(study: Comparison) -> Phrase:
    """Return at most two sentences that answer a study.

    Parameters
    ----------
    study : Comparison

    Returns
    -------
    Phrase
        At most two sentences on quality, size and speed, as far as they are known.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> print(str(verdict(sr.compare(sr.dense(sr.load()), sr.csr(pruning)))))
    At 30 % sparsity, CSR makes the model a third larger, while bitmask storage saves 22 %.
    """
    statements = [*_statements(study)][:_SENTENCES]
    return phrase("verdict.sentences", statements=statements)


def _statements(study: Comparison) -> Iterator[Phrase]:
    facts = study.facts
    if not facts.contenders:
        yield _unpruned(study)
        return
    share, names = _rivals(study)
    quality = [*_quality(study, share, names)]
    opened = [] if quality else [*_already_pruned(study)]
    yield from quality or opened
    yield from _size(study, names, None if quality or opened else share)
    yield from _speed(study)


def _unpruned(study: Comparison) -> Phrase:
    name = study.facts.headline
    number, share = (study.facts.total(name, f) for f in ("prunable_total", "sparsity_prunable"))
    if not number:
        return phrase("verdict.nothing_prunable", variant=name)
    if share is None:
        return phrase("verdict.zeros_unknown", variant=name)
    key = "verdict.sparsity" if share else "verdict.no_zeros"
    return phrase(key, share=share, number=number, variant=name)


def _rivals(study: Comparison) -> tuple[float, list[str]]:
    """Return the highest sparsity that most prunings share, and the prunings."""
    rows = study.facts.first_prunings
    levels = rows["sparsity"].astype(float).round(3)
    counts = levels.value_counts()
    share = max(counts[counts == counts.max()].index)
    return float(share), [*rows.loc[levels == share, "variant"]]


def _quality(study: Comparison, share: float, names: Sequence[str]) -> Iterator[Phrase]:
    """Yield the perplexity before and after the prunings at a sparsity."""
    known = {name: score for name in names if (score := study.facts.scored(name)) and score.before}
    if len({score.text for score in known.values()}) != 1:
        return
    ranked = sorted(known, key=lambda name: known[name].perplexity)
    best, worst = known[ranked[0]], known[ranked[-1]]
    tokens = study.facts.vocabulary(ranked[0])
    scores = {"before": best.before, "low": best.perplexity, "high": worst.perplexity}
    values = {key: (score, tokens) for key, score in scores.items()}
    if len(ranked) == 1:
        yield phrase(_effect(best), cause=_cause(study, ranked[0], share), **values)
        return
    methods = study.variants.set_index("variant")["method"]
    ends = {"best": methods[ranked[0]], "worst": methods[ranked[-1]], "share": share}
    key = "verdict.perplexity_of_two" if len(ranked) == 2 else "verdict.perplexity_range"
    yield phrase(key, **values, **ends)


def _effect(score: Scored) -> str:
    """Return the key of the sentence on one pruning."""
    assert score.before is not None
    if score.perplexity >= _WRECKED * score.before:
        return "verdict.wrecked"
    before, after = (round(value, 1) for value in (score.before, score.perplexity))
    if before == after:
        return "verdict.perplexity_same"
    return "verdict.perplexity_rises" if after > before else "verdict.perplexity_falls"


def _cause(study: Comparison, variant: str, share: float) -> Phrase:
    """Return what a pruning did, from the zeros that were there before."""
    before, number = (study.facts.total(variant, f) for f in ("zeros_before", "prunable_total"))
    if before and number and before > number / 1000:
        return phrase("verdict.raising", before=before / number, share=share)
    key = "verdict.removing_50" if round(share, 3) == 0.5 else "verdict.removing"
    return phrase(key, share=share)


def _already_pruned(study: Comparison) -> Iterator[Phrase]:
    variant = study.facts.contenders[0]
    if any(variant in names for names in study.facts.already_pruned.values()):
        share = study.facts.total(variant, "sparsity_prunable")
        yield phrase("verdict.already_pruned", share=share)


def _size(study: Comparison, names: Sequence[str], share: float | None) -> Iterator[Phrase]:
    """Yield the size of the whole model in the layout of the variants, and in the smallest one."""
    facts = study.facts
    dense = facts.total(facts.baseline, "stored_bytes")
    layout = facts.smallest_layout(names[0], "model")
    if not dense:
        return
    sizes = [facts.size(name, "csr") for name in names] if facts.csr_variants else [dense]
    ratios = [size / dense for size in sizes if size is not None]
    smallest = [facts.size(name, layout) for name in names] if layout else []
    saved = [1 - size / dense for size in smallest if size is not None]
    if not ratios:
        return
    claims = [size_change(max(ratios)) if facts.csr_variants else phrase("verdict.masked")]
    if saved and 1 - max(saved) < min(ratios) - SAME:
        claims.append(phrase("verdict.other_layout", layout=layout, saved=saved))
    elif min(ratios) >= 1 - SAME:
        claims.append(phrase("verdict.no_other_layout"))
    claim = claims[0]
    if claims[1:]:
        claim = phrase("verdict.while", claim=claim, other=claims[1])
    yield claim if share is None else phrase("verdict.at_sparsity", share=share, claim=claim)


def size_change(ratio: float) -> Phrase:
    """Return what CSR does to the size of the model.

    Examples
    --------
    >>> [str(size_change(ratio)) for ratio in (1.002, 1.333, 0.784, 2.0)]
    ...     # doctest: +NORMALIZE_WHITESPACE
    ['CSR saves nothing', 'CSR makes the model a third larger',
     'CSR makes the model 22 % smaller', 'CSR makes the model 2.0 times as large']
    """
    change = abs(ratio - 1)
    if change <= SAME:
        return phrase("verdict.csr_same")
    if ratio >= 1.9:
        return phrase("verdict.csr_times", ratio=ratio)
    key = "verdict.csr_larger" if ratio > 1 else "verdict.csr_smaller"
    fraction = f"{key}_{round(100 * change)}"
    return phrase(fraction if fraction in _FRACTIONS else key, share=change)


def _speed(study: Comparison) -> Iterator[Phrase]:
    """Yield the speed of the headline's forward pass, if it was measured well enough."""
    variant = study.facts.headline
    rows = study.facts.whole_speeds(variant)
    for outcome, key in (("stated", "verdict.speed_up"), ("noise", "verdict.speed_within_noise")):
        timed = rows[rows["verdict"] == outcome]
        if len(timed):
            speeds, tokens = ratios_with_intervals(timed), timed_tokens(timed)
            values = {"speeds": speeds, "base": study.facts.speed_base, "tokens": tokens}
            yield phrase(key, variant=variant, **values)


def comparison_title(study: Comparison) -> Phrase:
    """Return what the picture of several prunings shows, as a title."""
    facts, rows = study.facts, study.facts.first_prunings
    share, rivals = _rivals(study)
    scores = {name: score for name in facts.contenders if (score := facts.scored(name))}
    known = [scores[name].perplexity for name in rivals if name in scores]
    if len(known) > 1:
        return phrase("page.hero_gap", share=share, gap=max(known) - min(known))
    if len(scores) > 1 and rows["policy"].nunique(dropna=False) == 1:
        levels = rows.set_index("variant")["sparsity"]
        tokens = facts.vocabulary(facts.baseline)
        ends = {"low": next(iter(scores)), "high": [*scores][-1]}
        shown = {"before": scores[ends["low"]].before}
        shown |= {key: scores[name].perplexity for key, name in ends.items()}
        values = {key: (score, tokens) for key, score in shown.items()}
        places = {"first": levels[ends["low"]], "last": levels[ends["high"]]}
        return phrase("page.hero_levels", **values, **places)
    layouts = ((name, facts.smallest_layout(name, "model")) for name in facts.contenders)
    sizes = [facts.size(name, layout) for name, layout in layouts if layout]
    dense = facts.total(facts.baseline, "stored_bytes")
    return phrase("page.hero_size", sizes=sizes, before=dense)
