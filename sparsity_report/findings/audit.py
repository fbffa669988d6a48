"""What a careful reviewer would flag in a study, in sentences with their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.counts import NOT_FINITE
from sparsity_report.findings.rounding_findings import zeros_hidden
from sparsity_report.findings.zero_findings import without_weights
from sparsity_report.sparse.shares import ratio, zero_share, zero_shares
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.zero_shot import doubts
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.display_names import group_name
from sparsity_report.words.sentences import say, say_noted

VERY_SPARSE = 0.95
# Blocks this much apart were not pruned alike.
TOUCHED, UNTOUCHED = 0.05, 0.005
_REASONS = {
    "embedding": "audit.excluded_embeddings",
    "lm_head": "audit.excluded_output_head",
    "norm": "audit.excluded_norms",
    "router": "audit.excluded_routers",
    "other": "audit.excluded_unclassified",
}


class _Flag(NamedTuple):
    """What is to be said of variants: of one, of several, and the values that are put in."""

    one: str
    many: str
    values: dict[str, Any]


def audit(study: Comparison) -> list[str]:
    """Return the findings of an audit, the gravest first; empty where there is nothing to flag.

    What is true of several variants is said once.
    """
    said = [say_noted(note) for note in study.notes if str(note).startswith(NOT_FINITE)]
    flags: dict[str, tuple[_Flag, list[str]]] = {}
    for row in records(study.totals):
        name = row["variant"]
        layers = study.facts.prunable(name)
        said += zeros_hidden(study, name)
        found = (
            *_some_blocks_only(layers),
            *_asked_and_achieved(row),
            *_very_sparse(layers),
            *_tied_head(study.facts.layers(name)),
        )
        for flag in found:
            flags.setdefault(repr(flag), (flag, []))[1].append(name)
    for flag, names in flags.values():
        template = flag.one if len(names) == 1 else flag.many
        said.append(say(template, variant=names[0], variants=names, **flag.values))
    said += without_weights(study)
    return [*said, *_own_text(study), *_foreign_scores(study), *_skipped(study)]


def _some_blocks_only(layers: pd.DataFrame) -> Iterator[_Flag]:
    """Say so when a sparsity covers only some of the blocks."""
    sums = layers[layers["block"].notna()].groupby("block")[["weight_total", "weight_nonzero"]]
    weights = sums.sum()
    share = zero_shares(weights["weight_total"], weights["weight_nonzero"])
    touched, untouched = share > TOUCHED, share[share < UNTOUCHED]
    if touched.any() and not untouched.empty:
        yield _Flag(
            "audit.some_blocks_only_one",
            "audit.some_blocks_only_many",
            {
                "touched": int(touched.sum()),
                "blocks": len(share),
                "share": zero_share(*weights[touched].sum()),
                "untouched": [str(block) for block in untouched.index],
            },
        )


def _asked_and_achieved(row: dict[str, Any]) -> Iterator[_Flag]:
    if pd.isna(row["pruned"]) or pd.isna(row["prunable_nonzero"]):
        return
    if already := row["prunable_total"] - row["prunable_nonzero"] - row["pruned"]:
        yield _Flag(
            "audit.already_zero_one",
            "audit.already_zero_many",
            {
                "asked_sparsity": row["asked_sparsity"],
                "sparsity_prunable": row["sparsity_prunable"],
                "already": already,
            },
        )


def _very_sparse(layers: pd.DataFrame) -> Iterator[_Flag]:
    if names := layers.loc[layers["share"] > VERY_SPARSE, "module_name"].tolist():
        yield _Flag(
            "audit.very_sparse_layers_one",
            "audit.very_sparse_layers_many",
            {"count": len(names), "layers": len(layers), "limit": VERY_SPARSE, "names": names},
        )


def _tied_head(layers: pd.DataFrame) -> Iterator[_Flag]:
    heads = layers[(layers["group"] == "lm_head") & layers["tied_to"].notna()]
    embeddings = layers[layers["group"] == "embedding"].set_index("module_name")["sparsity"]
    for head, owner in zip(heads["module_name"], heads["tied_to"], strict=True):
        share = float(embeddings.get(owner.rpartition(".")[0], 0.0))
        if share > TOUCHED:
            yield _Flag(
                "audit.tied_head_pruned_one",
                "audit.tied_head_pruned_many",
                {"head": head, "share": share, "owner": owner},
            )


def _own_text(study: Comparison) -> Iterator[str]:
    """Say which prunings were scored on the very text that they were calibrated on."""
    if study.quality is None:
        return
    basis = study.variants[study.variants["basis_windows"].notna()]
    prints = dict(zip(basis["variant"], basis["basis_fingerprint"], strict=True))
    scored = study.quality.drop_duplicates(["variant", "text_fingerprint"])
    same = scored[scored["text_fingerprint"] == scored["variant"].map(prints)]
    for text, rows in same.groupby("text", sort=False):
        yield say(
            "audit.calibrated_on_evaluation_text",
            variants=rows["variant"].tolist(),
            text=clip(text),
        )


def _foreign_scores(study: Comparison) -> Iterator[str]:
    """Say where scores may be of another model, and where they are of a part of their task."""
    if study.tasks is None:
        return
    other = "audit.scores_of_other_model"
    before = "audit.scores_before_pruning"
    for doubt in doubts(study.variants, study.tasks):
        yield say(
            before if doubt.before else other,
            variant=doubt.variant,
            named=doubt.named,
            model=doubt.model,
        )
    parts = study.tasks[study.tasks["limited"].fillna(False).astype(bool)]
    for variant, rows in parts.groupby("variant", sort=False):
        yield say("audit.partial_tasks", tasks=list(dict.fromkeys(rows["task"])), variant=variant)


def _skipped(study: Comparison) -> Iterator[str]:
    """Say what pruning left out, once per model."""
    if study.variants["asked_sparsity"].isna().all():
        return
    for row in records(study.variants.drop_duplicates("fingerprint")):
        layers = study.facts.layers(row["variant"])
        total = layers["total"].sum()
        kept = layers["total"] - layers["weight_total"].where(layers["prunable"], 0)
        by_group = kept.groupby(layers["group"], sort=False).sum()
        parts = [
            say("audit.excluded_share", reason=_reason(str(group)), share=ratio(count, total))
            for group, count in by_group.items()
            if count
        ]
        if parts:
            yield say(
                "audit.excluded_from_pruning",
                share=ratio(kept.sum(), total),
                model=row["model"],
                parts=parts,
            )


def _reason(group: str) -> str:
    """Say why a group has parameters that are not pruned."""
    if group in _REASONS:
        return say(_REASONS[group])
    return say("audit.excluded_biases_or_tied", group=group_name(group))
