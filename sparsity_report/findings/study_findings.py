"""Findings about a study, most important first, and the conventions behind its numbers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import pandas as pd

from sparsity_report.findings import quality_findings as quality
from sparsity_report.findings import storage_findings as storage
from sparsity_report.findings.already_pruned import already_pruned, zeros_explained
from sparsity_report.findings.checkpoint_findings import checkpoint_topics
from sparsity_report.findings.speed_findings import speed_findings
from sparsity_report.findings.training_findings import training_sentences
from sparsity_report.findings.verdict import SENTENCES, verdict
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.derived.heads_experts import OVERLAPS, drawn_use, router_use
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.frames import EDITED_STUDY, note_findings
from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import EXISTING, threshold_rule
from sparsity_report.words.number_format import scaled
from sparsity_report.words.sentences import say

_COUNTING = (
    *("convention.flops", "convention.useful_flops"),
    *("convention.csr_bytes", "convention.sparsity_denominators", "convention.prunable"),
)
# Columns about zeros: variants that agree in all of them share one finding.
_ZEROS = (
    "asked_sparsity", "zeros_before", "newly_zeroed", "prunable_total", "prunable_nonzero",
    "total", "nonzero", "sparsity_prunable", "sparsity_model",
)  # fmt: skip
# File, page and terminal each show the findings of a study.
_TOPICS: WeakKeyDictionary[StudyFigures, dict[str, list[str]]] = WeakKeyDictionary()
# Topics of measurements, which two checkpoints may have besides their own topics.
_MEASURED = {"experts", "speed", "rivals", "quality"}
# Distinct numbers of zeros up to which each has a separate finding.
_SEVERAL = 2


def study_findings(study: StudyFigures) -> list[str]:
    """Return the verdict and all findings about a study, most important first.

    A study that was edited by hand says so first.
    """
    edited = note_findings(study.notes, {EDITED_STUDY})
    rest = (finding for findings in topics(study).values() for finding in findings)
    return [*edited, verdict(study), *rest]


def topics(study: StudyFigures) -> dict[str, list[str]]:
    """Return the findings by the section of a report that holds them."""
    if study not in _TOPICS:
        by_topic: dict[str, list[str]] = {}
        if study.history is not None:
            by_topic = {"survival": [*training_sentences(study.history)][SENTENCES:], "removed": []}
        elif study.matches is not None:
            by_topic = checkpoint_topics(study)
        for topic, parts in _BY_TOPIC.items():
            chosen = parts if study.matches is None or topic in _MEASURED else ()
            by_topic.setdefault(topic, [finding for part in chosen for finding in part(study)])
        _TOPICS[study] = by_topic
    return _TOPICS[study]


def conventions(study: StudyFigures) -> list[str]:
    """Return the conventions behind the numbers, to be printed with every table."""
    keys = [*_COUNTING, f"convention.tied_head.{study.convention}"]
    if study.matches is not None:
        keys.remove("convention.csr_bytes")  # two checkpoints are compared as they are stored
    if study.history is not None:
        keys.append("convention.history_fingerprints")
    if any(map(study.facts.is_mixture, study.facts.layouts)):
        keys.append("convention.mixture_of_experts")
    if (study.layers["flops_per_sequence"] > 0).any():
        keys.append("convention.flops_per_sequence")
    words = {word for name in study.layers["module_name"] for word in name.split(".")}
    if {"encoder", "decoder"} <= words:
        keys.append("convention.encoder_decoder")
    return [say(key) for key in keys]


def _alike(
    rows: pd.DataFrame, columns: Sequence[str]
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield variants whose rows agree in the columns, with these columns of the first."""
    for _, group in rows.groupby(list(columns), sort=False, dropna=False):
        yield list(group["variant"]), records(group[list(columns)])[0]


def _zeros(study: StudyFigures) -> Iterator[str]:
    """Yield the weights that up to two prunings zeroed; a table has those of more."""
    known = study.totals[["pruned", "nonzero", "prunable_nonzero"]].notna().all(axis=1)
    known &= study.variants["method"] != EXISTING
    groups = list(_alike(study.totals[known], _ZEROS))
    for names, row in groups if len(groups) <= _SEVERAL else ():
        zeros = row["prunable_total"] - row["prunable_nonzero"]
        elsewhere = row["total"] - row["nonzero"] - zeros
        of_model = {"share": ratio(row["newly_zeroed"], row["prunable_total"]),
                    "of_model": ratio(row["newly_zeroed"], row["total"])}  # fmt: skip
        statements = [say("finding.pruned_weights", variants=names, **row, **of_model)]
        if row["zeros_before"]:
            statements.append(say("finding.zeros_before", zeros=zeros, **row))
        if elsewhere:
            statements.append(say("finding.zeros_elsewhere", elsewhere=elsewhere, **row))
        yield say("format.sentences", statements=statements)


def _arithmetic(study: StudyFigures) -> Iterator[str]:
    """Yield the FLOPs that each variant performs, those of CSR beside its own model's."""
    totals = study.totals.dropna(subset="flops_per_token")
    dense = totals[totals["layout"] != "csr"]
    performing = dense[dense["flops_per_token"] > 0]
    # As written: numbers that differ by less would read as equal ones.
    alike = performing.groupby(performing["flops_per_token"].map(scaled), sort=False)
    known = [([*rows["variant"]], rows["flops_per_token"].iloc[0]) for _, rows in alike]
    is_common = len(known) == 1 and len(known[0][0]) == len(study.totals) > 1
    key = "finding.flops_in_common" if is_common else "finding.flops_performed"
    statements = [say(key, variants=names, flops=flops) for names, flops in known]
    if ((dense["sparsity_prunable"] > 0) & (dense["layout"] == "masked")).any():
        statements.append(say("finding.flops_of_masked"))
    models = study.variants.set_index("variant")["fingerprint"]
    bases = {models[row["variant"]]: row for row in records(dense)[::-1]}
    for row in records(totals[totals["layout"] == "csr"]):
        variant, flops = row["variant"], row["flops_per_token"]
        base = bases.get(models[variant])
        if base and flops < base["flops_per_token"]:
            fewer = 1 - flops / base["flops_per_token"]
            figures = {"flops": flops, "base": base["variant"], "fewer": fewer}
            statements.append(say("finding.flops_of_csr", variant=variant, **figures))
        elif flops:
            statements.append(say("finding.flops_performed", variants=[variant], flops=flops))
    if statements:
        yield say("format.sentences", statements=statements)


def _spread(study: StudyFigures) -> Iterator[str]:
    """Yield the layers that a single threshold of the headline's pruning prunes least and most."""
    if (variant := study.facts.pruning) is None:
        return
    (row,) = records(study.variants[study.variants["variant"] == variant])
    spread, layers = study.facts.spread(variant), study.facts.layers(variant)
    # A threshold of zero pruned nothing.
    is_single = pd.notna(row["threshold"]) and row["threshold"] > 0
    if is_single and spread and spread.is_uneven and spread.layers >= layers["prunable"].sum():
        yield say("finding.uneven_sparsity", **row, **spread._asdict(), rule=threshold_rule(row))


def _active_parameters(study: StudyFigures) -> Iterator[str]:
    row = records(study.totals[["active_total", "total"]])[0]
    if row["active_total"] != row["total"]:
        share = ratio(row["active_total"], row["total"])
        yield say("finding.active_parameters", **row, share=share)


def _use_of_experts(study: StudyFigures) -> Iterator[str]:
    """Yield the busiest expert and those without tokens, then what each variant kept."""
    # The first that has all experts, else the first.
    for rows in sorted(router_use(study).values(), key=lambda use: not use["is_kept"].all())[:1]:
        if rows["expert_use"].notna().any():
            busiest = rows.loc[[rows["expert_use"].idxmax()]]
            yield say("finding.busiest_expert", **records(busiest)[0])
        if unreached := int((rows["tokens"] == 0).sum()):
            yield say("finding.unreached_experts", unreached=unreached, experts=len(rows))
    for variant, rows in drawn_use(study).items():
        mass, is_kept = rows["gate_mass"], rows["is_kept"]
        share = ratio(mass[is_kept].sum(), mass.sum(skipna=False))
        if share is not None and not is_kept.all():
            counts = {"kept": int(is_kept.sum()), "experts": len(rows)}
            yield say("finding.kept_gate_mass", variant=variant, share=share, **counts)
    yield from note_findings(study.notes, OVERLAPS)


def _attention(study: StudyFigures) -> Iterator[str]:
    if study.context is None:
        return
    for names, row in _alike(study.totals, ["attention_flops_per_token"]):
        cost = row["attention_flops_per_token"]
        key = "finding.attention_flops_unknown" if pd.isna(cost) else "finding.attention_flops"
        yield say(key, positions=study.context, cost=cost, variants=names)


def _unclassified(study: StudyFigures) -> Iterator[str]:
    if not (names := study.unclassified):
        return
    # Variants of one model have the same parameters.
    models = study.variants.drop_duplicates("fingerprint")["variant"]
    layers = study.layers[study.layers["variant"].isin(models)]
    share = ratio(layers.loc[layers["group"] == "other", "total"].sum(), layers["total"].sum())
    yield say("finding.unclassified_modules", names=names, count=len(names), share=share)


_BY_TOPIC: dict[str, tuple[Callable[[StudyFigures], Iterator[str]], ...]] = {
    "results": (already_pruned, _zeros, _active_parameters),
    "where": (_spread,),
    "experts": (_use_of_experts,),
    "storage": (
        storage.packed_bytes, zeros_explained, storage.csr_bytes, storage.layers_kept_masked,
    ),
    "flops": (_arithmetic, _attention),
    "speed": (speed_findings,),
    "rivals": (quality.paired_findings,),
    "quality": (quality.continuations, quality.task_pairs, quality.sensitivities),
    "runtimes": (storage.runtime_findings,),
    "method": (_unclassified,),
}  # fmt: skip
