"""Use of experts by the router, and the experts that variants have kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sparsity_report.study.schema import TABLES, typed

if TYPE_CHECKING:
    from sparsity_report.counting.kept_experts import KeptExperts
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
