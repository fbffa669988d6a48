"""Whether rounding explains the zeros of a packed model, or somebody pruned it before."""

from __future__ import annotations

from collections.abc import Iterator

from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.rounded_zeros import Rounded
from sparsity_report.words.sentences import message, say

# Trained weights have heavier tails than a Gaussian, so that more of them are small: of MiniLM and
# SmolLM2 rounding makes 1.06 to 1.13 times the zeros that are expected, in formats of 2 to 8 bits.
_ALIKE, _CLEARLY = 1.15, 1.5
# What is too few to say anything.
_SLACK, _FAR = 0.005, 0.02
# Share of zeros from which it is worth asking where they come from.
_TOLD_FROM = 0.0005

_EXPLAINED = {
    "alike": message(
        "{sparsity:percent} of the {weights:,} prunable weights of {variant} in {packings:names} "
        "are zero, of which rounding explains {expected:percent}: nothing shows that it was pruned."
    ),
    "more": message(
        "{sparsity:percent} of the {weights:,} prunable weights of {variant} in {packings:names} "
        "are zero, where rounding explains {expected:percent}: it was sparse before it was packed."
    ),
    "undecided": message(
        "{sparsity:percent} of the {weights:,} prunable weights of {variant} in {packings:names} "
        "are zero, where rounding of Gaussian weights explains {expected:percent}: whether some "
        "were zero before cannot be told."
    ),
}
_HIDDEN = {
    "alike": message(
        "{packings:names} need not hold zero exactly: {sparsity:percent} of the {weights:,} "
        "prunable weights of {variant} are zero, {near_zero:percent} within half a step of zero, "
        "where rounding of Gaussian weights brings {expected:percent}: nothing hints "
        "that it was pruned."
    ),
    "more": message(
        "{packings:names} need not hold zero exactly: {sparsity:percent} of the {weights:,} "
        "prunable weights of {variant} are zero, {near_zero:percent} within half a step of zero, "
        "where rounding of Gaussian weights brings {expected:percent}: a hint that it "
        "was pruned before it was packed."
    ),
    "undecided": message(
        "{packings:names} need not hold zero exactly: {sparsity:percent} of the {weights:,} "
        "prunable weights of {variant} are zero, {near_zero:percent} within half a step of zero, "
        "where rounding of Gaussian weights brings {expected:percent}: whether it was "
        "pruned before cannot be told."
    ),
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
