"""What a careful reviewer would flag in a study, in sentences with their numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sparsity_report.structure import records
from sparsity_report.wording import percent, some

VERY_SPARSE = 0.95
# Blocks this much apart were not pruned alike.
TOUCHED, UNTOUCHED = 0.05, 0.005


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
        f"The zeros of {name} stand in {len(touched)} of {len(share)} blocks only: those are "
        f"{percent(float(touched.mean()))} sparse, blocks "
        f"{some([str(b) for b in untouched.index])} are not pruned."
    ]


def _asked_and_achieved(row: dict[str, Any]) -> list[str]:
    if pd.isna(row["asked_sparsity"]) or pd.isna(row["prunable_nonzero"]):
        return []
    zeros = row["prunable_total"] - row["prunable_nonzero"]
    achieved = zeros / row["prunable_total"]
    if zeros == row["pruned"]:
        return []
    return [
        f"{row['variant']} was asked for {100 * row['asked_sparsity']:g} % but holds "
        f"{percent(achieved)} zeros: {zeros - row['pruned']:,} more weights were zero already."
    ]


def _very_sparse(name: str, layers: pd.DataFrame) -> list[str]:
    own = layers[layers["prunable"] & (layers["weight_total"] > 0)]
    share = 1 - own["weight_nonzero"] / own["weight_total"]
    found = own.loc[share > VERY_SPARSE, "module_name"].tolist()
    if not found:
        return []
    return [
        f"{name} leaves {len(found)} of {len(own)} prunable layers more than "
        f"{percent(VERY_SPARSE, 0)} sparse: {some(found)}."
    ]


def _tied_head(name: str, layers: pd.DataFrame) -> list[str]:
    heads = layers[(layers["group"] == "lm_head") & layers["tied_to"].notna()]
    embeddings = layers[layers["group"] == "embedding"].set_index("module_name")["sparsity"]
    said = []
    for head, owner in zip(heads["module_name"], heads["tied_to"], strict=True):
        share = float(embeddings.get(owner.rpartition(".")[0], 0.0))
        if share > TOUCHED:
            said.append(
                f"{name} prunes the output head {head} through the embedding it is tied to: "
                f"{percent(share)} of {owner} is zero."
            )
    return said


def _dead_heads(patterns: pd.DataFrame) -> list[str]:
    dead: dict[str, list[str]] = {}
    for row in records(patterns[patterns["head_sparsity"].notna()]):
        if count := sum(share == 1 for share in row["head_sparsity"]):
            dead.setdefault(row["variant"], []).append(f"{row['module_name']} ({count})")
    return [
        f"{name} has attention heads without a nonzero weight: {some(found)}."
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
            f"{_reason(str(group))} {percent(float(count) / total)}"
            for group, count in by_group.items()
            if count
        ]
        if parts:
            said.append(
                f"{percent(float(kept.sum()) / total)} of the parameters of {row['model']} were "
                f"not open to pruning: {some(parts, 6)}."
            )
    return said


def _reason(group: str) -> str:
    """Say why a group has parameters that are not pruned."""
    whole = {
        "embedding": "embeddings",
        "lm_head": "the output head",
        "norm": "norms",
        "router": "routers",
        "other": "unclassified",
    }
    return whole.get(group, f"biases, blacklisted or tied weights of {group}")
