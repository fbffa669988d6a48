"""Audit of a study: the weaknesses that a careful reviewer would flag."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from sparsity_report.counting.counts import INFINITE, NOT_A_NUMBER
from sparsity_report.findings.already_pruned import zeros_hidden
from sparsity_report.findings.deployment_notes import group_names, zero_parts
from sparsity_report.sparse.shares import ratio, zero_share, zero_shares
from sparsity_report.study.derived.zero_shot import doubts
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.frames import note_findings
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.sentences import say

# Key and values of a text, but for the names of variants.
_Flag = tuple[str, tuple[tuple[str, Any], ...]]
VERY_SPARSE = 0.95
# Sparsities of blocks that were pruned and of blocks that were not.
TOUCHED, UNTOUCHED = 0.05, 0.005
_EXCLUDED = ("embedding", "lm_head", "norm", "router", "other")


def audit(study: StudyFigures) -> list[str]:
    """Return the findings of an audit, the gravest first; empty if there is nothing to flag.

    A finding about several variants names all of them.
    """
    findings = note_findings(study.notes, {NOT_A_NUMBER, INFINITE})
    names = study.variants["variant"]
    for variant in names:
        findings += zeros_hidden(study, variant)
    flags = group_names((flag, name) for name in names for flag in _flags(study, name))
    findings += [say(key, variants=v, **dict(values)) for (key, values), v in flags.items()]
    for part in (_all_zero, _calibrated_on_evaluation_text, _doubtful_scores, _excluded):
        findings += part(study)
    return findings


def _flag(key: str, **values: Any) -> _Flag:
    """Return the key and the values of a text that may be about several variants."""
    return key, tuple((n, tuple(v) if isinstance(v, list) else v) for n, v in values.items())


def _flags(study: StudyFigures, variant: str) -> Iterator[_Flag]:
    """Yield the flags of one variant, without its name."""
    layers = study.facts.prunable(variant)
    yield from _some_blocks_only(layers)
    if names := layers.loc[layers["share"] > VERY_SPARSE, "module_name"].tolist():
        sizes = {"count": len(names), "layers": len(layers), "limit": VERY_SPARSE}
        yield _flag("audit.very_sparse_layers", names=names, **sizes)
    yield from _tied_head(study.facts.layers(variant))


def _some_blocks_only(layers: pd.DataFrame) -> Iterator[_Flag]:
    sums = layers[layers["block"].notna()].groupby("block")[["weight_total", "weight_nonzero"]]
    weights = sums.sum()
    share = zero_shares(weights["weight_total"], weights["weight_nonzero"])
    touched, untouched = share > TOUCHED, share[share < UNTOUCHED]
    if touched.any() and not untouched.empty:
        yield _flag(
            "audit.some_blocks_only",
            touched=int(touched.sum()),
            blocks=len(share),
            share=zero_share(*weights[touched].sum()),
            untouched=[str(block) for block in untouched.index],
        )


def _tied_head(layers: pd.DataFrame) -> Iterator[_Flag]:
    heads = layers[(layers["group"] == "lm_head") & layers["tied_to"].notna()]
    embeddings = layers[layers["group"] == "embedding"].set_index("module_name")["sparsity"]
    for head, owner in zip(heads["module_name"], heads["tied_to"], strict=True):
        share = float(embeddings.get(owner.rpartition(".")[0], 0.0))
        if share > TOUCHED:
            yield _flag("audit.tied_head_pruned", head=head, share=share, owner=owner)


def _all_zero(study: StudyFigures) -> Iterator[str]:
    """Yield one finding about all variants for each kind of all-zero part."""
    zeros = [(name, study.facts.dead(name)) for name in study.variants["variant"]]
    known = {name: parts for name, parts in zeros if parts is not None}
    yield from zero_parts("layers", {name: dict.fromkeys(d.layers, 1) for name, d in known.items()})
    for kind in ("heads", "rows", "columns"):
        yield from zero_parts(kind, {name: getattr(d, kind).to_dict() for name, d in known.items()})


def _calibrated_on_evaluation_text(study: StudyFigures) -> Iterator[str]:
    if study.quality is None:
        return
    basis = study.variants[study.variants["basis_windows"].notna()]
    fingerprints = dict(zip(basis["variant"], basis["basis_fingerprint"], strict=True))
    scored = study.quality.drop_duplicates(["variant", "text_fingerprint"])
    same = scored[scored["text_fingerprint"] == scored["variant"].map(fingerprints)]
    for text, rows in same.groupby("text", sort=False):
        variants = rows["variant"].tolist()
        yield say("audit.calibrated_on_evaluation_text", variants=variants, text=clip(text))


def _doubtful_scores(study: StudyFigures) -> Iterator[str]:
    """Yield scores that may be those of another model, and tasks that were run in part."""
    if study.tasks is None:
        return
    for doubt in doubts(study.variants, study.tasks):
        key = "audit.scores_before_pruning" if doubt.before else "audit.scores_of_other_model"
        yield say(key, **doubt._asdict())
    parts = study.tasks[study.tasks["limited"].fillna(False).astype(bool)]
    for variant, rows in parts.groupby("variant", sort=False):
        tasks = list(dict.fromkeys(rows["task"]))
        yield say("audit.partial_tasks", tasks=tasks, variant=variant)
    if study.task_pairs is not None:
        columns = ["obstacle", "against"]
        for (obstacle, against), rows in study.task_pairs.groupby(columns, sort=False):
            names = {key: rows[key].unique().tolist() for key in ("variant", "task")}
            reason = say(f"unpaired.{obstacle}")
            yield say("audit.unpaired_tasks", against=against, reason=reason, **names)


def _excluded(study: StudyFigures) -> Iterator[str]:
    """Yield the parameters of each model that pruning excluded, by reason."""
    if study.variants["asked_sparsity"].isna().all():
        return
    models = study.variants.drop_duplicates("fingerprint")
    for variant, model in zip(models["variant"], models["model"], strict=True):
        layers = study.facts.layers(variant)
        total = layers["total"].sum()
        kept = layers["total"] - layers["weight_total"].where(layers["prunable"], 0)
        by_group = kept.groupby(layers["group"], sort=False).sum()
        parts = []
        for group, count in by_group[by_group > 0].items():
            has_text = group in _EXCLUDED
            key = f"audit.excluded.{group}" if has_text else "audit.excluded_biases_or_tied"
            reason = say(key, group=group)
            parts.append(say("audit.excluded_share", reason=reason, count=int(count)))
        if parts:
            number = int(kept.sum())
            counts = {"count": number, "total": int(total), "share": ratio(number, total)}
            yield say("audit.excluded_from_pruning", model=model, parts=parts, **counts)
