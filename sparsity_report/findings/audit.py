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
from sparsity_report.words.display_names import clip, group_name
from sparsity_report.words.sentences import message, say, say_noted

VERY_SPARSE = 0.95
# Blocks this much apart were not pruned alike.
TOUCHED, UNTOUCHED = 0.05, 0.005
_REASONS = {
    "embedding": message("embeddings"),
    "lm_head": message("the output head"),
    "norm": message("norms"),
    "router": message("routers"),
    "other": message("unclassified"),
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
    said = [say_noted(note) for note in study.notes if note.startswith(NOT_FINITE)]
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
            message(
                "The zeros of {variant} stand in {touched:,} of {blocks:,} blocks only: those are "
                "{share:percent} sparse, blocks {untouched:some} are not pruned."
            ),
            message(
                "The zeros of {variants:names} stand in {touched:,} of {blocks:,} blocks only: "
                "those are {share:percent} sparse, blocks {untouched:some} are not pruned."
            ),
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
            message(
                "{variant} was asked for {asked_sparsity:level} but holds "
                "{sparsity_prunable:percent} zeros: {already:,} more weights were zero already."
            ),
            message(
                "{variants:names} were asked for {asked_sparsity:level} but hold "
                "{sparsity_prunable:percent} zeros: {already:,} more weights were zero already."
            ),
            {
                "asked_sparsity": row["asked_sparsity"],
                "sparsity_prunable": row["sparsity_prunable"],
                "already": already,
            },
        )


def _very_sparse(layers: pd.DataFrame) -> Iterator[_Flag]:
    if names := layers.loc[layers["share"] > VERY_SPARSE, "module_name"].tolist():
        yield _Flag(
            message(
                "{variant} leaves {count:,} of {layers:,} prunable layers more than "
                "{limit:percent0} sparse: {names:some}."
            ),
            message(
                "{variants:names} leave {count:,} of {layers:,} prunable layers more than "
                "{limit:percent0} sparse: {names:some}."
            ),
            {"count": len(names), "layers": len(layers), "limit": VERY_SPARSE, "names": names},
        )


def _tied_head(layers: pd.DataFrame) -> Iterator[_Flag]:
    heads = layers[(layers["group"] == "lm_head") & layers["tied_to"].notna()]
    embeddings = layers[layers["group"] == "embedding"].set_index("module_name")["sparsity"]
    for head, owner in zip(heads["module_name"], heads["tied_to"], strict=True):
        share = float(embeddings.get(owner.rpartition(".")[0], 0.0))
        if share > TOUCHED:
            yield _Flag(
                message(
                    "{variant} prunes the output head {head} through the embedding it is tied to: "
                    "{share:percent} of {owner} is zero."
                ),
                message(
                    "{variants:names} prune the output head {head} through the embedding it is "
                    "tied to: {share:percent} of {owner} is zero."
                ),
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
            "Calibrated on {text}, the very text that scores: {variants:some}. That flatters "
            "beside policies that have not seen it.",
            variants=rows["variant"].tolist(),
            text=clip(text),
        )


def _foreign_scores(study: Comparison) -> Iterator[str]:
    """Say where scores may be of another model, and where they are of a part of their task."""
    if study.tasks is None:
        return
    other = message(
        "The scores of {variant} come from a file that names {named}; the variant was made of "
        "{model}, and whether they are one model is not known."
    )
    before = message(
        "The scores of {variant} come from a file that names {named}, which is {model} before it "
        "was pruned: they may be those of the model before."
    )
    for doubt in doubts(study.variants, study.tasks):
        yield say(
            before if doubt.before else other,
            variant=doubt.variant,
            named=doubt.named,
            model=doubt.model,
        )
    parts = study.tasks[study.tasks["limited"].fillna(False).astype(bool)]
    for variant, rows in parts.groupby("variant", sort=False):
        yield say(
            "Of {tasks:some} only a part was run with {variant}.",
            tasks=list(dict.fromkeys(rows["task"])),
            variant=variant,
        )


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
            say("{reason} {share:percent}", reason=_reason(str(group)), share=ratio(count, total))
            for group, count in by_group.items()
            if count
        ]
        if parts:
            yield say(
                "{share:percent} of the parameters of {model} were not open to pruning: "
                "{parts:names}.",
                share=ratio(kept.sum(), total),
                model=row["model"],
                parts=parts,
            )


def _reason(group: str) -> str:
    """Say why a group has parameters that are not pruned."""
    if group in _REASONS:
        return say(_REASONS[group])
    return say("biases, blacklisted or tied weights of {group}", group=group_name(group))
