"""A study in one sentence: what one variant costs and saves, from what was counted and measured.

The variant is ``study.facts.headline``: the first CSR one, else the first pruned one, else the
baseline. What was not measured is not in the sentence, and a speed only as far as
``study.facts.speeds`` lets it be told.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from sparsity_report.findings.packed_names import unpacked_name
from sparsity_report.findings.speed_findings import with_intervals
from sparsity_report.study.comparison import Comparison
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.number_format import figures
from sparsity_report.words.sentences import say


def verdict(study: Comparison) -> str:
    """Return the one sentence about the variant that the first cards are of.

    Parameters
    ----------
    study : Comparison

    Returns
    -------
    str
        Zeros, bytes, speed and perplexity of ``study.facts.headline`` beside the baseline, and the
        smallest layout that would lose nothing, as far as each is known.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> verdict(sr.compare(sr.dense(sr.load()), sr.csr(pruning))).partition(";")[0]
    'With 30.0 % of its prunable weights zero, CSR30 takes 1.33 times the bytes of Dense'
    """
    return say("verdict.sentence", clauses=say("format.clause_separator").join(_clauses(study)))


def _clauses(study: Comparison) -> Iterator[str]:
    facts = study.facts
    variant, share = facts.headline, facts.total(facts.headline, "sparsity_prunable")
    if not facts.total(variant, "prunable_total"):
        yield say("verdict.nothing_prunable", variant=short_name(variant))
    elif share is None:
        yield say("verdict.zeros_unknown", variant=short_name(variant))
    else:
        yield _opening(study, variant, share)
    yield from _speed(study, variant)
    yield from _quality(study, variant)
    if share:
        yield from _smallest(study, variant)


def _opening(study: Comparison, variant: str, share: float) -> str:
    """Say how many weights are zero, and what that does to the bytes of the whole model."""
    facts, ratio = study.facts, study.facts.ratio(variant, "stored_bytes")
    if variant == facts.baseline or ratio is None:
        some = "verdict.sparsity"
        none = "verdict.no_zeros"
        number = facts.total(variant, "prunable_total")
        said = some if share else none
        return say(said, share=share, number=number, variant=short_name(variant))
    takes = "verdict.bytes_ratio"
    same = "verdict.bytes_equal"
    base = unpacked_name(short_name(facts.baseline), facts.unpacked_dtypes(facts.baseline))
    said = same if ratio == 1 else takes
    return say(said, share=share, variant=short_name(variant), ratio=ratio, base=base)


def _speed(study: Comparison, variant: str) -> Iterator[str]:
    """Say how fast whole forward passes were, where the clock vouches for it."""
    rows = study.facts.whole_speeds(variant)
    stated, noise = (rows[rows["verdict"] == verdict] for verdict in ("stated", "noise"))
    if len(stated):
        yield say(
            "verdict.speed_up",
            speeds=with_intervals(stated),
            base=short_name(study.facts.speed_base),
            tokens=_tokens(stated),
        )
    if len(noise):
        yield say(
            "verdict.speed_within_noise",
            base=short_name(study.facts.speed_base),
            tokens=_tokens(noise),
        )


def _tokens(rows: pd.DataFrame) -> str:
    return say("format.token_count", tokens=[int(number) for number in rows["tokens"]])


def _quality(study: Comparison, variant: str) -> Iterator[str]:
    if (scored := study.facts.scored(variant)) is None:
        return
    both = "verdict.perplexity_change"
    alone = "verdict.perplexity"
    yield say(
        alone if scored.before is None else both,
        before=figures(scored.before, ",.2f"),
        after=figures(scored.perplexity, ",.2f"),
    )


def _smallest(study: Comparison, variant: str) -> Iterator[str]:
    """Say which layout that loses nothing would take the fewest bytes."""
    facts = study.facts
    if (layout := facts.smallest_layout(variant)) is None:
        return
    if layout == "dense":
        yield say("verdict.smallest_layout_dense")
        return
    plain = "verdict.smallest_layout"
    packed = "verdict.smallest_layout_unpacked"
    unpacked = facts.unpacked_dtypes(variant)
    yield say(
        packed if unpacked else plain,
        layout=layout_name(layout),
        ratio=facts.lossless(variant)["ratio"][layout],
        dtypes=unpacked,
    )
