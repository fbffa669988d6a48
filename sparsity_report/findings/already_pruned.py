"""Findings about zeros of models as they were opened: by pruning before, or by rounding."""

from collections.abc import Iterator
from typing import Any

from sparsity_report.study.derived.heads_experts import fewer_experts
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.rounded_zeros import origin, rounded
from sparsity_report.words.sentences import say

_FIGURES = [
    "prunable_total", "prunable_nonzero",
    "sparsity_prunable", "sparsity_non_embedding", "sparsity_model",
]  # fmt: skip
_POSITIONS = {
    "n_m": "existing.n_m_groups",
    "heads": "existing.whole_heads",
    "rows": "existing.whole_rows",
    "even": "existing.even_layers",
    "uneven": "existing.uneven_layers",
    "even_unsearched": "existing.even_unsearched",
    "uneven_unsearched": "existing.uneven_unsearched",
}
_SMALLEST_KEPT = {
    "global": "existing.one_threshold",
    "layerwise": "existing.layer_thresholds",
    "other": "existing.not_by_magnitude",
}


def already_pruned(study: StudyFigures) -> Iterator[str]:
    """Yield number, pattern and magnitudes of the zeros of the first model, if pruned before.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruned = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
    >>> study = sr.compare(sr.masked(sr.existing_zeros(sr.load(pruned))))
    >>> print(str(next(already_pruned(study))).partition(". ")[0][-54:])
    zero when the model was opened, and Pruned50 adds none
    """
    yield from _opened_zeros(study, is_first=True)


def other_models(study: StudyFigures) -> Iterator[str]:
    """Yield the zeros of further models as they were opened."""
    yield from _opened_zeros(study, is_first=False)
    for row in _as_loaded(study):
        is_known = row["variant"] in fewer_experts(study) and not row["zeros"]
        if not study.facts.is_of_first(row["variant"]) and not is_known:
            yield say("finding.zeros_as_loaded", **row)


def zeros_as_loaded(study: StudyFigures) -> Iterator[str]:
    """Yield the zeros of the first model, if it was neither pruned before nor in the study."""
    for row in () if study.facts.contenders else _as_loaded(study):
        if row["zeros"] and study.facts.is_of_first(row["variant"]):
            yield say("finding.zeros_as_loaded", **row)


def _opened_zeros(study: StudyFigures, is_first: bool) -> Iterator[str]:
    opened = set(study.variants.loc[study.variants["method"].isna(), "variant"])
    for variant, names in study.facts.already_pruned.items():
        if study.facts.is_of_first(variant) != is_first:
            continue
        (row,) = records(study.totals.loc[study.totals["variant"] == variant, _FIGURES])
        zeros = row["prunable_total"] - row.pop("prunable_nonzero")
        key = "existing.zeros_of_model" if variant in opened else "existing.zeros"
        yield say(key, variants=names, zeros=zeros, **row)
        if zeros and (pattern := study.facts.positions(variant)):
            statements = [say(_POSITIONS[pattern.key], variant=variant, **pattern.figures)]
            # Whole rows, heads and groups are chosen by other scores.
            unstructured = pattern.key in ("even", "uneven")
            if unstructured and (kept := study.facts.smallest_kept(variant)):
                statements.append(say(_SMALLEST_KEPT[kept.key], **kept._asdict()))
            yield say("existing.pattern", statements=statements)


def _as_loaded(study: StudyFigures) -> Iterator[dict[str, Any]]:
    """Yield the zeros of unpruned variants whose model was not pruned before."""
    prints = study.variants.set_index("variant")["fingerprint"]
    known = {prints[variant] for variant in study.facts.already_pruned}
    as_loaded = study.totals["pruned"].isna() & study.totals["nonzero"].notna()
    for row in records(study.totals[as_loaded]):
        if prints[row["variant"]] not in known:
            zeros = row["total"] - row["nonzero"]
            yield {"variant": row["variant"], "zeros": zeros, "share": row["sparsity_model"]}


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


def zeros_explained(study: StudyFigures) -> Iterator[str]:
    """Yield the zeros of packed variants that rounding explains."""
    for variant in study.variants["variant"]:
        for part in rounded(study.facts.layers(variant)):
            if part.has_zero and part.sparsity > _REPORTED_FROM:
                yield say(_ZEROS[origin(part)], variant=variant, **part._asdict())


def zeros_hidden(study: StudyFigures, variant: str) -> Iterator[str]:
    """Yield weights near zero in formats that may not represent zero exactly."""
    for part in rounded(study.facts.layers(variant)):
        if not part.has_zero:
            yield say(_NEAR_ZEROS[origin(part)], variant=variant, **part._asdict())
