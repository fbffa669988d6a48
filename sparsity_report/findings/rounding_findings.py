"""Findings about the zeros of packed models: made by rounding, or by pruning before."""

from collections.abc import Iterator

from sparsity_report.phrases import Phrase, phrase
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.rounded_zeros import Rounded

# Trained weights have heavier tails than a Gaussian, so that more of them are small: in MiniLM and
# SmolLM2, rounding makes 1.06 to 1.13 times the expected zeros, in formats of 2 to 8 bits.
_ALIKE, _CLEARLY = 1.15, 1.5
# Differences of shares that are too small to conclude anything.
_SLACK, _FAR = 0.005, 0.02
# Share of zeros from which their origin is reported.
_REPORTED_FROM = 0.0005

_ZEROS = {
    "alike": "rounding.zeros_explained",
    "more": "rounding.zeros_before_packing",
    "undecided": "rounding.zeros_undecided",
}
_NEAR_ZEROS = {
    "alike": "rounding.near_zeros_explained",
    "more": "rounding.near_zeros_before_packing",
    "undecided": "rounding.near_zeros_undecided",
}


def zeros_explained(study: Comparison) -> Iterator[Phrase]:
    """Yield how many of the zeros of packed variants rounding explains."""
    for variant in study.variants["variant"]:
        for part in study.facts.rounded(variant):
            if part.has_zero and part.sparsity > _REPORTED_FROM:
                yield phrase(_ZEROS[_origin(part)], variant=variant, **part._asdict())


def zeros_hidden(study: Comparison, variant: str) -> Iterator[Phrase]:
    """Yield weights near zero in formats that may not represent zero exactly."""
    for part in study.facts.rounded(variant):
        if not part.has_zero:
            yield phrase(_NEAR_ZEROS[_origin(part)], variant=variant, **part._asdict())


def _origin(part: Rounded) -> str:
    """Compare the weights at zero with those that rounding of Gaussian weights would bring there.

    Examples
    --------
    >>> _origin(Rounded(True, ["nf4"], 100, 0.10, 0.10, 0.09))
    'alike'
    >>> _origin(Rounded(True, ["nf4"], 100, 0.50, 0.50, 0.09))
    'more'
    """
    if part.near_zero <= _ALIKE * part.expected + _SLACK:
        return "alike"
    return "more" if part.near_zero > _CLEARLY * part.expected + _FAR else "undecided"
