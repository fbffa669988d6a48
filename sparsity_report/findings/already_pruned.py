"""Findings about zeros of models as they were opened: by pruning before, or by rounding."""

from collections.abc import Iterator

from sparsity_report.study.derived.existing_zeros import smallest_kept, uneven_lines
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.rounded_zeros import origin, rounded
from sparsity_report.words.sentences import say

_FIGURES = [
    "prunable_total", "prunable_nonzero",
    "sparsity_prunable", "sparsity_non_embedding", "sparsity_model",
]  # fmt: skip
# Patterns of zeros in places of a matrix, and in layers.
_PLACES, _SPREADS = ("n_m", "heads", "rows", "blocks"), ("even", "uneven")


def already_pruned(study: StudyFigures) -> Iterator[str]:
    """Yield number, pattern and magnitudes of the zeros of each model that was pruned before.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruned = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
    >>> study = sr.compare(sr.masked(sr.existing_zeros(sr.load(pruned))))
    >>> print(str(next(already_pruned(study))).partition(". ")[0][-54:])
    zero when the model was opened, and Pruned50 adds none
    """
    opened = set(study.variants.loc[study.variants["method"].isna(), "variant"])
    for variant, names in study.facts.already_pruned.items():
        (row,) = records(study.totals.loc[study.totals["variant"] == variant, _FIGURES])
        zeros = row["prunable_total"] - row.pop("prunable_nonzero")
        key = "existing.zeros_of_model" if variant in opened else "existing.zeros"
        yield say(key, variants=names, zeros=zeros, **row)
        if zeros and (pattern := study.facts.positions(variant)):
            if pattern.key in _SPREADS:
                spread = say(f"existing.layers.{pattern.key}", variant=variant, **pattern.figures)
                statements = [spread, *_inside(study, variant)]
            else:
                # Whole rows, heads and groups are chosen by other scores than magnitude.
                place = place_of_zeros(study, variant)
                statements = [say("existing.place", variant=variant, place=place)]
            yield say("format.sentences", statements=statements)


def place_of_zeros(study: StudyFigures, variant: str) -> str:
    """Return where the zeros of a variant are, to end a sentence; empty if in no pattern."""
    pattern, lines = study.facts.positions(variant), _zero_lines(study, variant)
    if pattern and (pattern.key in _PLACES or lines):
        is_place = pattern.key in _PLACES
        key = f"existing.in.{pattern.key}" if is_place else "existing.including_lines"
        return say(key, **{**pattern.figures, "lines": lines})
    return ""


def _zero_lines(study: StudyFigures, variant: str) -> list[str]:
    """Return the numbers of whole rows and of whole columns of zeros, if there are any."""
    dead = study.facts.dead(variant)
    counts = {"rows": dead.rows, "columns": dead.columns} if dead else {}
    numbers = {kind: int(each.sum()) for kind, each in counts.items()}
    return [say(f"existing.whole.{kind}", number=n) for kind, n in numbers.items() if n]


def _inside(study: StudyFigures, variant: str) -> Iterator[str]:
    """Yield the zeros within matrices: their rows and columns, and the magnitudes beside them."""
    patterns = study.facts.patterns(variant)
    if patterns.empty:
        yield say("existing.unsearched")
        return
    if lines := _zero_lines(study, variant):
        yield say("existing.zero_lines", lines=lines)
    if uneven := uneven_lines(patterns):
        yield say("existing.uneven_lines", lines=say(f"column.{uneven.key}"), **uneven.figures)
    else:
        yield say("existing.lines_as_random")
    # Magnitudes of packed weights are rounded.
    kept = None if study.facts.packings(variant) else smallest_kept(patterns)
    if kept:
        yield say(f"existing.kept.{kept.key}", **kept.figures)


# Share of zeros from which their origin is reported.
_REPORTED_FROM = 0.0005


def zeros_explained(study: StudyFigures) -> Iterator[str]:
    """Yield the zeros of packed variants that rounding explains."""
    for variant in study.variants["variant"]:
        for part in rounded(study.facts.layers(variant)):
            if part.has_zero and part.sparsity > _REPORTED_FROM:
                yield say(f"rounding.zeros.{origin(part)}", variant=variant, **part._asdict())
