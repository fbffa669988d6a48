"""Findings about the zeros of models as they were opened, pruned before or not."""

from collections.abc import Iterator

from sparsity_report.phrases import Phrase, phrase
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.layers import records

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
}
_SMALLEST_KEPT = {
    "global": "existing.one_threshold",
    "layerwise": "existing.layer_thresholds",
    "other": "existing.not_by_magnitude",
}


def already_pruned(study: Comparison) -> Iterator[Phrase]:
    """Yield number, pattern and magnitudes of the zeros of each model pruned before.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruned = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
    >>> study = sr.compare(sr.masked(sr.existing_zeros(sr.load(pruned))))
    >>> print(str(next(already_pruned(study))).partition(". ")[0][-60:])
    zero when the model was opened, and Pruned50 adds none
    """
    opened = set(study.variants.loc[study.variants["method"].isna(), "variant"])
    for variant, names in study.facts.already_pruned.items():
        (row,) = records(study.totals.loc[study.totals["variant"] == variant, _FIGURES])
        zeros = row["prunable_total"] - row.pop("prunable_nonzero")
        key = "existing.zeros_of_model" if variant in opened else "existing.zeros"
        yield phrase(key, variants=names, zeros=zeros, **row)
        if pattern := study.facts.positions(variant):
            statements = [phrase(_POSITIONS[pattern.key], variant=variant, **pattern.figures)]
            # Whole rows, heads and groups are chosen by other scores.
            unstructured = pattern.key in ("even", "uneven")
            if unstructured and (kept := study.facts.smallest_kept(variant)):
                statements.append(phrase(_SMALLEST_KEPT[kept.key], **kept._asdict()))
            yield phrase("existing.pattern", statements=statements)


def zeros_as_loaded(study: Comparison, of_others: bool = False) -> Iterator[Phrase]:
    """Yield the zeros of unpruned variants whose model was not pruned before.

    A model other than the first is mentioned without zeros, too.

    Parameters
    ----------
    study : Comparison
    of_others : bool
        Whether to leave out the first model.
    """
    prints = study.variants.set_index("variant")["fingerprint"]
    known = {prints[variant] for variant in study.facts.already_pruned}
    if of_others:
        known.add(prints.iloc[0])
    as_loaded = study.totals["pruned"].isna() & study.totals["nonzero"].notna()
    for row in records(study.totals[as_loaded]):
        variant, zeros = row["variant"], row["total"] - row["nonzero"]
        is_other = prints[variant] != prints.iloc[0]
        if prints[variant] not in known and (zeros or is_other):
            share = row["sparsity_model"]
            yield phrase("finding.zeros_as_loaded", variant=variant, zeros=zeros, share=share)
