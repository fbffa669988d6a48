"""Use of experts by the router, and the experts that fit into one budget of bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from sparsity_report.study.layers import records
from sparsity_report.study.schema import TABLES, typed
from sparsity_report.weights.packed.group_rounding import ROUNDING, WIDTHS, rounded_bytes

if TYPE_CHECKING:
    from sparsity_report.study.derived.facts import Facts
    from sparsity_report.study.frames import StudyFrames
    from sparsity_report.study.variants import Variant

_MODULE = ["variant", "module_name"]


class Busiest(NamedTuple):
    """The expert with the largest share of the gate mass of its module."""

    module_name: str
    expert: int
    experts: int
    gate_share: float
    use: float


def experts_frame(variants: Sequence[Variant]) -> pd.DataFrame | None:
    """Return the router use of the models from which variants keep some experts.

    These models themselves are included where they are compared. None without any.
    """
    uses = {v.kept.weights: v.kept.use for v in variants if v.kept and v.kept.use is not None}
    frames = []
    for variant in variants:
        kept = variant.kept
        use = kept.use if kept else uses.get(variant.weights)
        if use is not None:
            places = zip(use["module_name"], use["expert"], strict=True)
            stays = [not kept or expert in kept.kept[name] for name, expert in places]
            frames.append(use.assign(variant=variant.name, is_kept=stays))
    if not frames:
        return None
    rows = pd.concat(frames, ignore_index=True)
    return typed("experts", rows[[*TABLES["experts"].names]])


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
    by_module = experts.groupby(_MODULE, sort=False)
    count = by_module["gate_mass"].transform("size")
    share = experts["gate_mass"] / by_module["gate_mass"].transform("sum", min_count=1)
    saliency = experts["saliency"] / by_module["saliency"].transform("mean")
    shares = {"experts": count, "gate_share": share, "use": share * count}
    return experts.assign(**shares, relative_saliency=saliency)


def busiest(experts: pd.DataFrame) -> Busiest | None:
    """Return the most unevenly used expert; None where no gate mass is known."""
    rows = relative_use(experts)
    if rows["use"].isna().all():
        return None
    row = records(rows.loc[[rows["use"].idxmax()], [*Busiest._fields]])[0]
    return Busiest(**row)


def share_of(experts: pd.DataFrame, chosen: pd.DataFrame, column: str) -> float | None:
    """Return the share of a column's sum that some rows have; None where a cell is unknown."""
    total = experts[column].sum(skipna=False)
    return None if pd.isna(total) or not total else float(chosen[column].sum() / total)


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
    experts = experts_of(facts.study, variant)
    numbers = set(counts)
    squares = (matrices[[*ROUNDING]] ** 2).sum(skipna=False)
    if len(numbers) != 1 or squares.isna().any() or not squares["weight_norm"]:
        return None
    among = numbers.pop()
    shapes = [*zip(matrices["rows"], matrices["columns"], strict=True)]
    total = {bits: sum(rounded_bytes(*shape, bits) for shape in shapes) for bits in WIDTHS}
    rows: list[dict[str, Any]] = []
    for budget in WIDTHS[1:]:
        for bits in sorted(WIDTHS):
            fitting = min(among, among * total[budget] // total[bits])
            if bits < budget or not fitting:
                continue
            chosen = _best(experts, among, fitting) if fitting >= per_token else None
            rows.append({
                "variant": variant,
                "budget_bits": budget,
                "budget_bytes": total[budget],
                "bits": bits,
                "fitting": fitting,
                "experts": among,
                "per_token": per_token,
                "bytes": fitting * total[bits] // among,
                **{
                    f"{name}_share": None if chosen is None else share_of(experts, chosen, column)
                    for name, column in (("gate", "gate_mass"), ("token", "tokens"))
                },
                "rounding_error": math.sqrt(squares[f"rounding_{bits}"] / squares["weight_norm"]),
            })  # fmt: skip
    return typed("expert_budgets", pd.DataFrame(rows))


def _best(experts: pd.DataFrame, among: int, number: int) -> pd.DataFrame | None:
    """Return the experts with the highest saliency of each module; None where it is unknown.

    An expert without tokens has none. Ties go to the first.
    """
    by_module = experts.groupby("module_name", sort=False)
    if experts["saliency"].isna().all() or not by_module.size().eq(among).all():
        return None
    scores = experts.assign(saliency=experts["saliency"].fillna(0.0))
    ranked = scores.sort_values("saliency", ascending=False, kind="stable")
    return ranked.groupby("module_name", sort=False).head(number)
