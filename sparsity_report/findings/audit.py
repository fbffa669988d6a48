"""Audit of a study: the weaknesses that a careful reviewer would flag."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from sparsity_report.counting.counts import INFINITE, NOT_A_NUMBER
from sparsity_report.findings.rounding_findings import zeros_hidden
from sparsity_report.findings.variant_names import group_names
from sparsity_report.findings.zero_findings import zero_findings
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.sparse.shares import ratio, zero_share, zero_shares
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.zero_shot import doubts
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import clip

VERY_SPARSE = 0.95
# Sparsities of blocks that were pruned and of blocks that were not.
TOUCHED, UNTOUCHED = 0.05, 0.005
_EXCLUDED = {
    "embedding": "audit.excluded_embeddings",
    "lm_head": "audit.excluded_output_head",
    "norm": "audit.excluded_norms",
    "router": "audit.excluded_routers",
    "other": "audit.excluded_unclassified",
}


def audit(study: Comparison) -> list[Phrase]:
    """Return the findings of an audit, the gravest first; empty if there is nothing to flag.

    A finding about several variants names all of them.
    """
    findings = [
        phrase("format.note_sentence", note=note)
        for note in study.notes
        if note.key in {NOT_A_NUMBER, INFINITE}
    ]
    for variant in study.variants["variant"]:
        findings += zeros_hidden(study, variant)
    flags = group_names(
        (flag, row["variant"]) for row in records(study.totals) for flag in _flags(study, row)
    )
    findings += [phrase(flag.key, variants=names, **flag.values) for flag, names in flags.items()]
    return [
        *findings,
        *zero_findings(study),
        *_calibrated_on_evaluation_text(study),
        *_doubtful_scores(study),
        *_excluded(study),
    ]


def _flags(study: Comparison, row: dict[str, Any]) -> Iterator[Phrase]:
    """Yield the flags of one variant, without its name."""
    layers = study.facts.prunable(row["variant"])
    yield from _some_blocks_only(layers)
    yield from _already_zero(row)
    if names := layers.loc[layers["share"] > VERY_SPARSE, "module_name"].tolist():
        yield phrase(
            "audit.very_sparse_layers",
            count=len(names),
            layers=len(layers),
            limit=VERY_SPARSE,
            names=names,
        )
    yield from _tied_head(study.facts.layers(row["variant"]))


def _some_blocks_only(layers: pd.DataFrame) -> Iterator[Phrase]:
    sums = layers[layers["block"].notna()].groupby("block")[["weight_total", "weight_nonzero"]]
    weights = sums.sum()
    share = zero_shares(weights["weight_total"], weights["weight_nonzero"])
    touched, untouched = share > TOUCHED, share[share < UNTOUCHED]
    if touched.any() and not untouched.empty:
        yield phrase(
            "audit.some_blocks_only",
            touched=int(touched.sum()),
            blocks=len(share),
            share=zero_share(*weights[touched].sum()),
            untouched=[str(block) for block in untouched.index],
        )


def _already_zero(row: dict[str, Any]) -> Iterator[Phrase]:
    if pd.isna(row["pruned"]) or pd.isna(row["prunable_nonzero"]):
        return
    if already := row["prunable_total"] - row["prunable_nonzero"] - row["pruned"]:
        yield phrase(
            "audit.already_zero",
            asked_sparsity=row["asked_sparsity"],
            sparsity_prunable=row["sparsity_prunable"],
            already=already,
        )


def _tied_head(layers: pd.DataFrame) -> Iterator[Phrase]:
    heads = layers[(layers["group"] == "lm_head") & layers["tied_to"].notna()]
    embeddings = layers[layers["group"] == "embedding"].set_index("module_name")["sparsity"]
    for head, owner in zip(heads["module_name"], heads["tied_to"], strict=True):
        share = float(embeddings.get(owner.rpartition(".")[0], 0.0))
        if share > TOUCHED:
            yield phrase("audit.tied_head_pruned", head=head, share=share, owner=owner)


def _calibrated_on_evaluation_text(study: Comparison) -> Iterator[Phrase]:
    if study.quality is None:
        return
    basis = study.variants[study.variants["basis_windows"].notna()]
    fingerprints = dict(zip(basis["variant"], basis["basis_fingerprint"], strict=True))
    scored = study.quality.drop_duplicates(["variant", "text_fingerprint"])
    same = scored[scored["text_fingerprint"] == scored["variant"].map(fingerprints)]
    for text, rows in same.groupby("text", sort=False):
        variants = rows["variant"].tolist()
        yield phrase("audit.calibrated_on_evaluation_text", variants=variants, text=clip(text))


def _doubtful_scores(study: Comparison) -> Iterator[Phrase]:
    """Yield scores that may be those of another model, and tasks that were run in part."""
    if study.tasks is None:
        return
    for doubt in doubts(study.variants, study.tasks):
        yield phrase(
            "audit.scores_before_pruning" if doubt.before else "audit.scores_of_other_model",
            variant=doubt.variant,
            named=doubt.named,
            model=doubt.model,
        )
    parts = study.tasks[study.tasks["limited"].fillna(False).astype(bool)]
    for variant, rows in parts.groupby("variant", sort=False):
        tasks = list(dict.fromkeys(rows["task"]))
        yield phrase("audit.partial_tasks", tasks=tasks, variant=variant)


def _excluded(study: Comparison) -> Iterator[Phrase]:
    """Yield the parameters of each model that pruning excluded, by reason."""
    if study.variants["asked_sparsity"].isna().all():
        return
    for row in records(study.variants.drop_duplicates("fingerprint")):
        layers = study.facts.layers(row["variant"])
        total = layers["total"].sum()
        kept = layers["total"] - layers["weight_total"].where(layers["prunable"], 0)
        by_group = kept.groupby(layers["group"], sort=False).sum()
        parts = [
            phrase("audit.excluded_share", reason=_reason(str(group)), share=ratio(count, total))
            for group, count in by_group.items()
            if count
        ]
        if parts:
            yield phrase(
                "audit.excluded_from_pruning",
                share=ratio(kept.sum(), total),
                model=row["model"],
                parts=parts,
            )


def _reason(group: str) -> Phrase:
    if group in _EXCLUDED:
        return phrase(_EXCLUDED[group])
    return phrase("audit.excluded_biases_or_tied", group=group)
