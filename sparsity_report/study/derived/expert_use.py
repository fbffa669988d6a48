"""Use of experts by the router, and the experts that fit into one budget of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd

from sparsity_report.study.schema import TABLES, typed
from sparsity_report.weights.packed.group_rounding import ROUNDING, WIDTHS, rounded_bytes

if TYPE_CHECKING:
    from sparsity_report.counting.kept_experts import KeptExperts
    from sparsity_report.study.derived.facts import Facts
    from sparsity_report.study.frames import StudyFrames
    from sparsity_report.study.variants import Variant

#: Figures of an expert beside the others of its module, and families of their texts.
FIGURES = ("expert_use", "expert_saliency")


def experts_frame(variants: Sequence[Variant]) -> pd.DataFrame | None:
    """Return the router use of variants that lack some experts, null where it was not measured.

    Models that they were made from are included where their use is known. None without any.
    """
    uses = {v.kept.weights: v.kept.use for v in variants if v.kept and v.kept.use is not None}
    frames = []
    for variant in variants:
        kept = variant.kept
        use = uses.get(kept.weights if kept else variant.weights)
        if kept and (use is None or kept.use is not None):
            use = _unmeasured(kept) if kept.use is None else kept.use
        if use is not None:
            places = zip(use["module_name"], use["expert"], strict=True)
            stays = [not kept or expert in kept.kept[name] for name, expert in places]
            frames.append(use.assign(variant=variant.name, is_kept=stays))
    if not frames:
        return None
    rows = pd.concat(frames, ignore_index=True)
    return typed("experts", rows.reindex(columns=[*TABLES["experts"]]))


def _unmeasured(kept: KeptExperts) -> pd.DataFrame:
    """Return a row per expert with no more than its place."""
    blocks = {module.name: module.block for module in kept.weights.modules}
    places = [(name, blocks[name], n) for name, count in kept.counts.items() for n in range(count)]
    return pd.DataFrame(places, columns=["module_name", "block", "expert"])


def router_use(study: StudyFrames) -> dict[str, pd.DataFrame]:
    """Return the rows of ``study.experts`` by variant, with figures beside the module's others.

    Returns
    -------
    dict of str to pandas.DataFrame
        Further columns: ``experts`` of the module, ``gate_share`` (gate mass ÷ that of the module),
        ``expert_use`` (``gate_share`` ÷ an even share), and ``expert_saliency`` (saliency ÷ its
        mean over the module's experts with tokens).
    """
    if study.experts is None:
        return {}
    by_module = study.experts.groupby(["variant", "module_name"], sort=False)
    count = by_module["gate_mass"].transform("size")
    share = study.experts["gate_mass"] / by_module["gate_mass"].transform("sum", min_count=1)
    saliency = study.experts["saliency"] / by_module["saliency"].transform("mean")
    figures = {"expert_use": share * count, "expert_saliency": saliency}
    rows = study.experts.assign(experts=count, gate_share=share, **figures)
    return {str(variant): use for variant, use in rows.groupby("variant", sort=False)}


def fewer_experts(study: StudyFrames) -> dict[str, pd.DataFrame]:
    """Return the :func:`router_use` of the variants that lack some experts."""
    return {name: rows for name, rows in router_use(study).items() if not rows["is_kept"].all()}


def drawn_use(study: StudyFrames) -> dict[str, pd.DataFrame]:
    """Return the :func:`router_use` of the variants that lack some experts, else of the first."""
    return fewer_experts(study) or dict([*router_use(study).items()][:1])


def expert_budgets(facts: Facts) -> pd.DataFrame | None:
    """Return how many experts of each module fit in more bits into the bytes of all in fewer.

    Parameters
    ----------
    facts : Facts
        The figures are those of its baseline.

    Returns
    -------
    pandas.DataFrame or None
        As :attr:`sparsity_report.Study.expert_budgets`.
    """
    variant = facts.baseline
    matrices = facts.patterns(variant).dropna(subset="expert")
    counts = matrices.groupby("module_name")["expert"].nunique()
    squares = (matrices[[*ROUNDING]] ** 2).sum(skipna=False)
    if counts.nunique() != 1 or squares.isna().any() or not squares["weight_norm"]:
        return None
    number, shapes = int(counts.iloc[0]), [*zip(matrices["rows"], matrices["columns"], strict=True)]
    total = {bits: sum(rounded_bytes(*shape, bits) for shape in shapes) for bits in WIDTHS}
    errors = (squares / squares["weight_norm"]).pow(0.5)
    per_token = (facts.layers(variant).set_index("module_name")["uses"] * counts).max()
    rows = pd.DataFrame(product(WIDTHS[1:], sorted(WIDTHS)), columns=["budget_bits", "bits"])
    rows = rows.assign(variant=variant, experts=number, per_token=round(per_token))
    rows["budget_bytes"] = rows["budget_bits"].map(total)
    rows["fitting"] = number * rows["budget_bytes"] // rows["bits"].map(total)
    rows["bytes"] = rows["fitting"] * rows["bits"].map(total) // number
    rows["rounding_error"] = rows["bits"].map("rounding_{}".format).map(errors)
    rows = rows[rows["fitting"].between(1, number)].reset_index(drop=True)
    use = router_use(facts.study).get(variant)
    if use is not None and use["saliency"].notna().any() and len(use) == number * len(counts):
        # An expert without tokens ranks last; ties go to the first.
        by_module = use["saliency"].fillna(0.0).groupby(use["module_name"])
        places = by_module.rank(method="first", ascending=False)
        masses = use[["gate_mass", "tokens"]].astype(float).groupby(places)
        best = masses.sum(min_count=len(counts))
        shares = (best / best.sum(skipna=False)).cumsum()
        chosen = rows["fitting"].where(rows["fitting"] >= rows["per_token"])
        rows[["gate_share", "token_share"]] = shares.reindex(chosen).to_numpy()
    return typed("expert_budgets", rows.reindex(columns=[*TABLES["expert_budgets"]]))
