"""Verdict on a study: what one variant saves and costs against the baseline.

The variant is ``study.facts.headline``: the first CSR one, else the first pruned one, else the
baseline. A speed is part of the verdict only if it exceeds timing noise.
"""

from collections.abc import Iterator

from sparsity_report.findings.speed_findings import ratios_with_intervals, timed_tokens
from sparsity_report.findings.variant_names import counted_bytes, unpacked_name
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.rounded_zeros import is_pruned


def verdict(study: Comparison) -> Phrase:
    """Return the verdict on a study.

    Parameters
    ----------
    study : Comparison

    Returns
    -------
    Phrase
        Zeros, bytes, speed and perplexity of ``study.facts.headline`` against the baseline, and
        its smallest lossless layout, each if known.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> print(str(verdict(sr.compare(sr.dense(sr.load()), sr.csr(pruning)))).partition(". ")[0])
    At 30.0 % sparsity of its prunable weights, CSR30 takes 1.33 times the bytes of Dense
    """
    variant = study.facts.headline
    statements = [_bytes(study, variant)]
    if any(variant in names for names in study.facts.already_pruned.values()):
        known = is_pruned(study.facts.layers(study.facts.baseline))
        key = "verdict.already_pruned" if known else "verdict.as_it_is"
        statements.insert(0, phrase(key, variant=variant))
    for part in (_speed, _perplexity, _smallest_layout):
        statements += part(study, variant)
    return phrase("verdict.sentences", statements=statements)


def _bytes(study: Comparison, variant: str) -> Phrase:
    facts = study.facts
    share = facts.total(variant, "sparsity_prunable")
    number = facts.total(variant, "prunable_total")
    if not number:
        return phrase("verdict.nothing_prunable", variant=variant)
    if share is None:
        return phrase("verdict.zeros_unknown", variant=variant)
    ratio = facts.ratio(variant, "stored_bytes")
    if variant == facts.baseline or ratio is None:
        key = "verdict.sparsity" if share else "verdict.no_zeros"
        return phrase(key, share=share, number=number, variant=variant)
    key = "verdict.bytes_equal" if ratio == 1 else "verdict.bytes_ratio"
    base = unpacked_name(facts.baseline, facts.unpacked_dtypes(facts.baseline))
    return phrase(key, share=share, variant=variant, ratio=ratio, base=base)


def _speed(study: Comparison, variant: str) -> Iterator[Phrase]:
    rows = study.facts.whole_speeds(variant)
    for outcome, key in (("stated", "verdict.speed_up"), ("noise", "verdict.speed_within_noise")):
        timed = rows[rows["verdict"] == outcome]
        if len(timed):
            speeds, tokens = ratios_with_intervals(timed), timed_tokens(timed)
            yield phrase(key, speeds=speeds, base=study.facts.speed_base, tokens=tokens)


def _perplexity(study: Comparison, variant: str) -> Iterator[Phrase]:
    if scored := study.facts.scored(variant):
        key = "verdict.perplexity" if scored.before is None else "verdict.perplexity_change"
        yield phrase(key, before=scored.before, after=scored.perplexity)


def _smallest_layout(study: Comparison, variant: str) -> Iterator[Phrase]:
    facts = study.facts
    layout = facts.smallest_layout(variant)
    if not facts.total(variant, "sparsity_prunable") or layout is None:
        return
    if layout == "dense":
        yield phrase("verdict.smallest_layout_dense")
        return
    ratio = facts.lossless(variant)["ratio"][layout]
    size = counted_bytes(facts.unpacked_dtypes(variant))
    yield phrase("verdict.smallest_layout", layout=layout, ratio=ratio, bytes=size)
