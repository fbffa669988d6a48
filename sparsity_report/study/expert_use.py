"""Use of experts by the router, and the experts that fit into one budget of bytes."""

from __future__ import annotations

import math
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

#: Keys of the title, the label and the caption of each figure of :func:`relative_use`.
FIGURES = {
    "use": ("chart.expert_use_title", "label.expert_use", "caption.expert_use"),
    "relative_saliency": (
        *("chart.expert_saliency_title", "label.expert_saliency"),
        "caption.expert_saliency",
    ),
}


def experts_frame(variants: Sequence[Variant]) -> pd.DataFrame | None:
    """Return the router use of variants that lack some experts, null where it was not measured.

    Models that they were made from are included where their use is known. None without any.
    """
    uses = {v.kept.weights: v.kept.use for v in variants if v.kept and v.kept.use is not None}
    frames = []
    for variant in variants:
        kept = variant.kept
        use = uses.get(kept.weights if kept else variant.weights)
        if kept:
            use = _unmeasured(kept) if use is None else use if kept.use is None else kept.use
        if use is not None:
            places = zip(use["module_name"], use["expert"], strict=True)
            stays = [not kept or expert in kept.kept.get(name, [expert]) for name, expert in places]
            frames.append(use.assign(variant=variant.name, is_kept=stays))
    if not frames:
        return None
    rows = pd.concat(frames, ignore_index=True)
    return typed("experts", rows[[*TABLES["experts"].names]])


def _unmeasured(kept: KeptExperts) -> pd.DataFrame:
    """Return a row per expert with no more than its place."""
    blocks = {module.name: module.block for module in kept.weights.modules}
    places = [(name, blocks[name], n) for name, count in kept.counts.items() for n in range(count)]
    frame = pd.DataFrame(places, columns=["module_name", "block", "expert"])
    return frame.reindex(columns=[*TABLES["experts"].names])


def fewer_experts(study: StudyFrames) -> dict[str, tuple[int, int]]:
    """Return the experts before, and the kept ones, of each variant that lacks some."""
    if study.experts is None:
        return {}
    kept = study.experts.groupby("variant", sort=False)["is_kept"].agg(["size", "sum"])
    return {str(name): (size, left) for name, size, left in kept.itertuples() if left < size}


def relative_use(experts: pd.DataFrame) -> pd.DataFrame:
    """Return rows of ``study.experts`` with shares of their module's gate mass.

    Returns
    -------
    pandas.DataFrame
        Further columns: ``experts`` of the module, ``gate_share`` (gate mass ÷ that of the module),
        ``use`` (``gate_share`` ÷ an even share), and ``relative_saliency`` (saliency ÷ its mean
        over the module's experts with tokens).

    Examples
    --------
    >>> rows = {"variant": ["A"] * 2, "module_name": ["m"] * 2, "gate_mass": [3.0, 1.0]}
    >>> relative_use(pd.DataFrame(rows | {"saliency": [2.0, 1.0]}))["use"].tolist()
    [1.5, 0.5]
    """
    by_module = experts.groupby(["variant", "module_name"], sort=False)
    count = by_module["gate_mass"].transform("size")
    share = experts["gate_mass"] / by_module["gate_mass"].transform("sum", min_count=1)
    saliency = experts["saliency"] / by_module["saliency"].transform("mean")
    shares = {"experts": count, "gate_share": share, "use": share * count}
    return experts.assign(**shares, relative_saliency=saliency)


def share_of(experts: pd.DataFrame, chosen: pd.DataFrame | None, column: str) -> float | None:
    """Return the share of a column's sum that some rows have; None where it is unknown."""
    total = experts[column].sum(skipna=False)
    if chosen is None or pd.isna(total) or not total:
        return None
    return float(chosen[column].sum() / total)


def experts_of(study: StudyFrames, variant: str) -> pd.DataFrame:
    """Return a variant's rows of ``study.experts``; none if the study has no use of experts."""
    frame = study.experts
    if frame is None:
        return pd.DataFrame(columns=[*TABLES["experts"].names])
    return frame[frame["variant"] == variant]


def routed(study: StudyFrames) -> list[str]:
    """Return the variants with known use that lack some experts, or else the first of all."""
    frame = study.experts
    if frame is None or frame.empty:
        return []
    return [*frame.loc[~frame["is_kept"], "variant"].unique()] or [frame["variant"].iloc[0]]


def expert_budgets(facts: Facts) -> pd.DataFrame | None:
    """Return how many experts of each module fit in more bits into the bytes of all in fewer.

    Parameters
    ----------
    facts : Facts
        The figures are those of its baseline.

    Returns
    -------
    pandas.DataFrame or None
        One row per budget, which is the bytes of all experts in ``budget_bits``, and per width:
        ``fitting`` of the ``experts`` of a module and their ``bytes``, scales included;
        ``gate_share`` and ``token_share`` of so many experts with the highest saliency in each
        module, null if a token uses more; ``rounding_error`` = ‖W − Q(W)‖₂ ÷ ‖W‖₂ of all experts.
        None for packed weights, unknown errors, and modules with unequal numbers of experts.
    """
    variant, matrices = facts.baseline, facts.patterns(facts.baseline)
    matrices = matrices[matrices["expert"].notna()]
    counts = matrices.groupby("module_name")["expert"].nunique()
    uses = facts.layers(variant).set_index("module_name")["uses"].reindex(counts.index)
    per_token = max((round(number) for number in uses * counts), default=0)
    numbers, squares = set(counts), (matrices[[*ROUNDING]] ** 2).sum(skipna=False)
    if len(numbers) != 1 or squares.isna().any() or not squares["weight_norm"]:
        return None
    experts, number = experts_of(facts.study, variant), numbers.pop()
    # An expert without tokens ranks last; ties go to the first.
    by_module = experts["saliency"].fillna(0.0).groupby(experts["module_name"])
    places = by_module.rank(method="first", ascending=False)
    is_ranked = experts["saliency"].notna().any() and by_module.size().eq(number).all()
    shapes = [*zip(matrices["rows"], matrices["columns"], strict=True)]
    total = {bits: sum(rounded_bytes(*shape, bits) for shape in shapes) for bits in WIDTHS}
    rows = []
    for budget, bits in product(WIDTHS[1:], sorted(WIDTHS)):
        fitting = number * total[budget] // total[bits]
        chosen = experts[places <= fitting] if is_ranked and fitting >= per_token else None
        shares = [share_of(experts, chosen, column) for column in ("gate_mass", "tokens")]
        error = math.sqrt(squares[f"rounding_{bits}"] / squares["weight_norm"])
        counted = (fitting, number, per_token, fitting * total[bits] // number)
        if 0 < fitting <= number:
            rows.append((variant, budget, total[budget], bits, *counted, *shares, error))
    return typed("expert_budgets", pd.DataFrame(rows, columns=[*TABLES["expert_budgets"].names]))
