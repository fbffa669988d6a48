"""The study in plain sentences with their numbers: said once, shown everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from sparsity_report.findings import quality_findings, rounding_findings, task_findings
from sparsity_report.findings.packed_names import dtype_names, unpacked_name
from sparsity_report.findings.policy_findings import winners
from sparsity_report.findings.speed_findings import speed
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.layer_spread import Spread
from sparsity_report.study.layers import records
from sparsity_report.study.notes import EDITED_STUDY
from sparsity_report.words.number_format import percent
from sparsity_report.words.sentences import say, say_noted

_COUNTING = (
    "convention.flops",
    "convention.useful_flops",
    "convention.csr_bytes",
    "convention.sparsity_denominators",
)
_EXPERTS = "convention.mixture_of_experts"
_SEQUENCE = "convention.flops_per_sequence"
_TWO_STACKS = "convention.encoder_decoder"
_TIES = {"standard": "convention.tied_head_standard", "notebook": "convention.tied_head_notebook"}

# What is said of zeros: variants that agree in it are spoken of together.
_ZEROS = (
    "asked_sparsity",
    "pruned",
    "prunable_total",
    "sparsity_prunable",
    "sparsity_non_embedding",
    "sparsity_model",
)


# Distinct numbers of zeros up to which each has a sentence of its own.
_SEVERAL = 2


def study_findings(study: Comparison) -> list[str]:
    """Return what is worth knowing of a study, most important first.

    Of a study that was edited after it was written the first sentence says so. Where several
    policies prune to the same share of zeros the next say which is best at what. The first three
    others, where there is a pruned variant, say how much is zero of what,
    what that does to storage (of a packed model after what its file takes, and whether rounding
    explains its zeros), and what it does to the arithmetic.
    """
    said = [say_noted(note) for note in study.notes if note.key == EDITED_STUDY]
    said += [
        *winners(study),
        *_zeros(study),
        *_packed(study),
        *rounding_findings.zeros_explained(study),
    ]
    said += [*_storage(study), *_arithmetic(study), *_kept_masked(study)]
    said += [*task_findings.smallest_layout(study), *task_findings.smaller_file(study)]
    said += speed(study)
    said += [
        *quality_findings.perplexities(study),
        *quality_findings.distances(study),
        *quality_findings.continued(study),
    ]
    said += [*task_findings.zero_shot(study), *task_findings.costliest_part(study)]
    said += [*_spread(study), *_unusual(study), *_active(study), *_attention(study)]
    return [*said, *_already_zero(study), *_unclassified(study)]


def headlines(study: Comparison) -> list[str]:
    """Return the first three sentences of a study, and all there is to say of what was measured."""
    first = study_findings(study)[:3]
    parts = (
        task_findings.smaller_file,
        speed,
        quality_findings.perplexities,
        quality_findings.distances,
        quality_findings.continued,
        task_findings.zero_shot,
        task_findings.costliest_part,
    )
    told = [sentence for part in parts for sentence in part(study)]
    return [*first, *(sentence for sentence in told if sentence not in first)]


def conventions(study: Comparison) -> list[str]:
    """Return the conventions behind the numbers, to be printed with every table."""
    said = [*_COUNTING, _TIES[study.convention]]
    uses = study.layers["uses"].fillna(1)
    if ((uses > 0) & (uses < 1) & (study.layers["group"] == "mlp_linear")).any():
        said.append(_EXPERTS)
    if (study.layers["flops_per_sequence"] > 0).any():
        said.append(_SEQUENCE)
    words = {word for name in study.layers["module_name"] for word in name.split(".")}
    if {"encoder", "decoder"} <= words:
        said.append(_TWO_STACKS)
    return [say(sentence) for sentence in said]


def _alike(
    rows: pd.DataFrame, columns: Sequence[str]
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield the variants whose rows agree in the columns, together, with the first of the rows."""
    for _, alike in rows.groupby(list(columns), sort=False, dropna=False):
        yield list(alike["variant"]), records(alike)[0]


def _zeros(study: Comparison) -> Iterator[str]:
    one = "finding.pruned_weights_one"
    many = "finding.pruned_weights_many"
    known = study.totals["pruned"].notna() & study.totals["nonzero"].notna()
    found = list(_alike(study.totals[known], _ZEROS))
    if len(found) > _SEVERAL and study.totals.loc[known, "prunable_total"].nunique() == 1:
        yield _zeros_of_several(found)
        return
    for names, first in found:
        yield say(one if len(names) == 1 else many, variants=names, **first)


def _zeros_of_several(found: Sequence[tuple[list[str], dict[str, Any]]]) -> str:
    """Say at once how many weights of one model each of many prunings set to zero."""
    shares = ("sparsity_prunable", "sparsity_model")
    alike: dict[tuple[str, ...], tuple[list[str], dict[str, Any]]] = {}
    for names, row in sorted(found, key=lambda each: round(each[1]["sparsity_prunable"], 3)):
        # Whose counts differ by less than is shown are named together.
        named, _ = alike.setdefault(tuple(percent(row[share]) for share in shares), ([], row))
        named += names
    told = [
        say("finding.sparsity_of_variants", variants=names, **row) for names, row in alike.values()
    ]
    _, first = found[0]
    return say("finding.zeros_by_variant", number=first["prunable_total"], told=told)


def _packed(study: Comparison) -> Iterator[str]:
    facts = study.facts
    for row in records(study.totals):
        packings, bits = (f(row["variant"]) for f in (facts.packings, facts.bits_per_weight))
        if packings and bits is not None:
            yield say(
                "finding.packed_bytes",
                **row,
                bits=bits,
                packings=packings,
                dtypes=facts.unpacked_dtypes(row["variant"]),
            )


def _storage(study: Comparison) -> Iterator[str]:
    facts = study.facts
    pays = "finding.csr_break_even"
    never = "finding.csr_no_break_even"
    for variant in _sparse(study):
        if (times := facts.ratio(variant, "stored_bytes")) is None:
            continue
        layers, unpacked = facts.layers(variant), facts.unpacked_dtypes(variant)
        if not (dtypes := list(layers.loc[layers["layout"] == "csr", "dtype"].unique())):
            continue
        level = facts.break_even(variant)
        yield say(
            never if level is None else pays,
            variant=variant,
            ratio=times,
            base=unpacked_name(facts.baseline, facts.unpacked_dtypes(facts.baseline)),
            bytes=facts.total(variant, "stored_bytes"),
            reference=facts.total(facts.baseline, "stored_bytes"),
            dtypes=dtype_names(dtypes, unpacked),
            level=level,
        )


def _sparse(study: Comparison) -> list[str]:
    """Name the CSR variants that stand beside the baseline."""
    variants = study.variants
    names = variants.loc[variants["layout"] == "csr", "variant"]
    return [str(name) for name in names if name != study.facts.baseline]


def _arithmetic(study: Comparison) -> Iterator[str]:
    facts = study.facts
    if flops := facts.total(facts.baseline, "flops_per_token"):
        yield f"{say('format.clause_separator').join(_per_token(study, flops))}."


def _per_token(study: Comparison, flops: float) -> Iterator[str]:
    facts, variants = study.facts, study.variants
    yield say("finding.flops_of_base", base=facts.baseline, flops=flops)
    masked = variants.loc[variants["layout"] == "masked", "variant"]
    if same := [name for name in masked if facts.total(name, "flops_per_token") == flops]:
        yield say("finding.flops_of_masked", variants=same)
    for variant in _sparse(study):
        if (times := facts.ratio(variant, "flops_per_token")) is not None:
            yield say(
                "finding.flops_of_csr",
                variant=variant,
                flops=facts.total(variant, "flops_per_token"),
                ratio=times,
            )


def _kept_masked(study: Comparison) -> Iterator[str]:
    """Name the layers that a CSR variant cannot store as CSR."""
    one = "finding.layers_kept_masked_one"
    many = "finding.layers_kept_masked_many"
    sparse = study.variants[study.variants["layout"] == "csr"]
    for variants, _ in _alike(sparse, ["fingerprint"]):
        prunable, kept = study.facts.prunable(variants[0]), study.facts.kept_masked(variants[0])
        if not kept.empty:
            yield say(
                one if len(kept) == 1 else many,
                count=len(kept),
                layers=len(prunable),
                variants=variants,
                share=ratio(kept["weight_total"].sum(), prunable["weight_total"].sum()),
                first=kept["module_name"].iloc[0],
                layer_names=list(kept["module_name"]),
            )


def _spread(study: Comparison) -> Iterator[str]:
    pruned = study.variants[study.variants["threshold"].notna()]
    found: list[tuple[list[str], float, Spread]] = []
    for names, first in _alike(pruned, ["fingerprint", "threshold"]):
        spread = study.facts.spread(names[0])
        prunable = study.facts.layers(names[0])["prunable"].sum()
        uneven = spread is not None and study.facts.uneven(names[0])
        if spread is not None and uneven and spread.layers >= prunable:
            found.append((names, first["threshold"], spread))
    of_each = "finding.uneven_sparsity"
    of_all = "finding.uneven_sparsity_of_several"
    everyone = [name for names, *_ in found for name in names]
    if several := len(found) > _SEVERAL:
        found = [max(found, key=lambda each: each[2].high - each[2].low)]
    for names, threshold, spread in found:
        yield say(
            of_all if several else of_each,
            variants=everyone if several else names,
            first=names[0],
            threshold=threshold,
            **spread._asdict(),
        )


def _unusual(study: Comparison) -> Iterator[str]:
    """Name the matrix that differs most from a Gaussian of its own spread."""
    for variant in study.variants["variant"]:
        if (rows := study.facts.unusual(variant, 1)) is not None:
            yield say("finding.unusual_matrix", **records(rows)[0])
            return


def _active(study: Comparison) -> Iterator[str]:
    row = records(study.totals)[0]
    if row["active_total"] != row["total"]:
        yield say(
            "finding.active_parameters", **row, share=ratio(row["active_total"], row["total"])
        )


def _attention(study: Comparison) -> Iterator[str]:
    if study.context is None:
        return
    unknown = "finding.attention_flops_unknown"
    known = "finding.attention_flops"
    costs = study.totals["attention_flops_per_token"]
    if costs.nunique(dropna=False) > 1:
        unknown = "finding.attention_flops_unknown_of"
        known = "finding.attention_flops_of"
    for names, first in _alike(study.totals, [str(costs.name)]):
        cost = first["attention_flops_per_token"]
        template = unknown if pd.isna(cost) else known
        yield say(template, positions=study.context, cost=cost, variants=names)


def _already_zero(study: Comparison) -> Iterator[str]:
    as_they_come = study.totals["pruned"].isna() & study.totals["nonzero"].notna()
    for row in records(study.totals[as_they_come]):
        if zeros := row["total"] - row["nonzero"]:
            yield say(
                "finding.zeros_as_loaded",
                variant=row["variant"],
                zeros=zeros,
                share=row["sparsity_model"],
            )


def _unclassified(study: Comparison) -> Iterator[str]:
    if not (names := study.unclassified):
        return
    one = "finding.unclassified_modules_one"
    many = "finding.unclassified_modules_many"
    # Of all models; variants of one have the same parameters.
    models = study.variants.drop_duplicates("fingerprint")["variant"]
    layers = study.layers[study.layers["variant"].isin(models)]
    share = ratio(layers.loc[layers["group"] == "other", "total"].sum(), layers["total"].sum())
    yield say(one if len(names) == 1 else many, count=len(names), share=share, first=names[0])
