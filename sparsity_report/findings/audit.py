"""What a careful reviewer would flag in a study, in sentences with their numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sparsity_report.study.layers import records
from sparsity_report.words.sentences import message, say

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


def audit(
    variants: pd.DataFrame,
    layers: pd.DataFrame,
    totals: pd.DataFrame,
    patterns: pd.DataFrame | None,
) -> list[str]:
    """Return the findings of an audit, the gravest first; empty where there is nothing to flag.

    Parameters
    ----------
    variants, layers, totals, patterns : pandas.DataFrame
        Of a :class:`sparsity_report.Comparison`.
    """
    said = []
    for row in records(totals):
        name = row["variant"]
        own = layers[(layers["variant"] == name) & layers["weight_nonzero"].notna()]
        said += _some_blocks_only(name, own)
        said += _asked_and_achieved(row)
        said += _very_sparse(name, own)
        said += _tied_head(name, own)
    if patterns is not None:
        said += _dead_heads(patterns)
    said += _skipped(variants, layers)
    return said


def _some_blocks_only(name: str, layers: pd.DataFrame) -> list[str]:
    """Say so when a sparsity covers only some of the blocks."""
    inner = layers[layers["prunable"] & layers["block"].notna()]
    sums = inner.groupby("block")[["weight_total", "weight_nonzero"]].sum()
    share = 1 - sums["weight_nonzero"] / sums["weight_total"]
    touched, untouched = share[share > TOUCHED], share[share < UNTOUCHED]
    if touched.empty or untouched.empty:
        return []
    return [
        say(
            "The zeros of {variant} stand in {touched:,} of {blocks:,} blocks only: those are "
            "{share:percent} sparse, blocks {untouched:some} are not pruned.",
            variant=name,
            touched=len(touched),
            blocks=len(share),
            share=float(touched.mean()),
            untouched=[str(block) for block in untouched.index],
        )
    ]


def _asked_and_achieved(row: dict[str, Any]) -> list[str]:
    if pd.isna(row["asked_sparsity"]) or pd.isna(row["prunable_nonzero"]):
        return []
    zeros = row["prunable_total"] - row["prunable_nonzero"]
    achieved = zeros / row["prunable_total"]
    if zeros == row["pruned"]:
        return []
    return [
        say(
            "{variant} was asked for {asked_sparsity:level} but holds {achieved:percent} zeros: "
            "{already:,} more weights were zero already.",
            **row,
            achieved=achieved,
            already=zeros - row["pruned"],
        )
    ]


def _very_sparse(name: str, layers: pd.DataFrame) -> list[str]:
    own = layers[layers["prunable"] & (layers["weight_total"] > 0)]
    share = 1 - own["weight_nonzero"] / own["weight_total"]
    found = own.loc[share > VERY_SPARSE, "module_name"].tolist()
    if not found:
        return []
    return [
        say(
            "{variant} leaves {count:,} of {layers:,} prunable layers more than "
            "{limit:percent0} sparse: {found:some}.",
            variant=name,
            count=len(found),
            layers=len(own),
            limit=VERY_SPARSE,
            found=found,
        )
    ]


def _tied_head(name: str, layers: pd.DataFrame) -> list[str]:
    heads = layers[(layers["group"] == "lm_head") & layers["tied_to"].notna()]
    embeddings = layers[layers["group"] == "embedding"].set_index("module_name")["sparsity"]
    said = []
    for head, owner in zip(heads["module_name"], heads["tied_to"], strict=True):
        share = float(embeddings.get(owner.rpartition(".")[0], 0.0))
        if share > TOUCHED:
            said.append(
                say(
                    "{variant} prunes the output head {head} through the embedding it is tied to: "
                    "{share:percent} of {owner} is zero.",
                    variant=name,
                    head=head,
                    share=share,
                    owner=owner,
                )
            )
    return said


def _dead_heads(patterns: pd.DataFrame) -> list[str]:
    dead: dict[str, list[str]] = {}
    for row in records(patterns[patterns["head_sparsity"].notna()]):
        if count := sum(share == 1 for share in row["head_sparsity"]):
            said = say("{module} ({count:,})", module=row["module_name"], count=count)
            dead.setdefault(row["variant"], []).append(said)
    return [
        say(
            "{variant} has attention heads without a nonzero weight: {found:some}.",
            variant=name,
            found=found,
        )
        for name, found in dead.items()
    ]


def _skipped(variants: pd.DataFrame, layers: pd.DataFrame) -> list[str]:
    """Say what pruning left out, once per model."""
    said = []
    for row in records(variants.drop_duplicates("fingerprint")):
        if pd.isna(row["asked_sparsity"]) and not variants["asked_sparsity"].notna().any():
            continue
        own = layers[layers["variant"] == row["variant"]]
        total = own["total"].sum()
        kept = own["total"] - own["weight_total"].where(own["prunable"], 0)
        by_group = kept.groupby(own["group"], sort=False).sum()
        parts = [
            say(
                "{reason} {share:percent}",
                reason=_reason(str(group)),
                share=float(count) / total,
            )
            for group, count in by_group.items()
            if count
        ]
        if parts:
            said.append(
                say(
                    "{share:percent} of the parameters of {model} were not open to pruning: "
                    "{parts:names}.",
                    share=float(kept.sum()) / total,
                    model=row["model"],
                    parts=parts,
                )
            )
    return said


def _reason(group: str) -> str:
    """Say why a group has parameters that are not pruned."""
    if group in _REASONS:
        return say(_REASONS[group])
    return say("biases, blacklisted or tied weights of {group}", group=group)
