"""Findings about the zeros of packed models: made by rounding, or by pruning before."""

from collections.abc import Iterator

from sparsity_report.study.comparison import Study
from sparsity_report.study.rounded_zeros import origin, rounded
from sparsity_report.words.sentences import say

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


def zeros_explained(study: Study) -> Iterator[str]:
    """Yield how many of the zeros of packed variants rounding explains."""
    for variant in study.variants["variant"]:
        for part in rounded(study.facts.layers(variant)):
            if part.has_zero and part.sparsity > _REPORTED_FROM:
                yield say(_ZEROS[origin(part)], variant=variant, **part._asdict())


def zeros_hidden(study: Study, variant: str) -> Iterator[str]:
    """Yield weights near zero in formats that may not represent zero exactly."""
    for part in rounded(study.facts.layers(variant)):
        if not part.has_zero:
            yield say(_NEAR_ZEROS[origin(part)], variant=variant, **part._asdict())
