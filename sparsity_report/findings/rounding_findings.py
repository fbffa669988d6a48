"""Whether rounding explains the zeros of a packed model, or somebody pruned it before."""

from __future__ import annotations

from collections.abc import Iterator

from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.rounded_zeros import Rounded
from sparsity_report.words.sentences import say

# Trained weights have heavier tails than a Gaussian, so that more of them are small: of MiniLM and
# SmolLM2 rounding makes 1.06 to 1.13 times the zeros that are expected, in formats of 2 to 8 bits.
_ALIKE, _CLEARLY = 1.15, 1.5
# What is too few to say anything.
_SLACK, _FAR = 0.005, 0.02
# Share of zeros from which it is worth asking where they come from.
_TOLD_FROM = 0.0005

_EXPLAINED = {
    "alike": "rounding.zeros_explained",
    "more": "rounding.zeros_before_packing",
    "undecided": "rounding.zeros_undecided",
}
_HIDDEN = {
    "alike": "rounding.near_zeros_explained",
    "more": "rounding.near_zeros_before_packing",
    "undecided": "rounding.near_zeros_undecided",
}


def zeros_explained(study: Comparison) -> Iterator[str]:
    """Tell zeros that rounding made from those that were there before."""
    for variant in study.variants["variant"]:
        for part in study.facts.rounded(variant):
            if part.has_zero and part.sparsity > _TOLD_FROM:
                yield say(_EXPLAINED[_verdict(part)], variant=variant, **part._asdict())


def zeros_hidden(study: Comparison, variant: str) -> Iterator[str]:
    """Say so where a format need not hold the zeros of pruning, and whether there were some."""
    for part in study.facts.rounded(variant):
        if not part.has_zero:
            yield say(_HIDDEN[_verdict(part)], variant=variant, **part._asdict())


def _verdict(part: Rounded) -> str:
    """Compare the weights at zero with those that rounding of Gaussian weights would bring there.

    Examples
    --------
    >>> _verdict(Rounded(True, ["nf4"], 100, 0.10, 0.10, 0.09))
    'alike'
    >>> _verdict(Rounded(True, ["nf4"], 100, 0.50, 0.50, 0.09))
    'more'
    """
    if part.near_zero <= _ALIKE * part.expected + _SLACK:
        return "alike"
    return "more" if part.near_zero > _CLEARLY * part.expected + _FAR else "undecided"
