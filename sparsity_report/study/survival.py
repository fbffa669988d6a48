"""Tables of two checkpoints: matched modules, removed parts, fate of zeros, changes in size."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from sparsity_report.pairing.alignment import ALIGNMENTS, ParameterMatch, Plan
from sparsity_report.pairing.removed import find_removed
from sparsity_report.pairing.tally import Tally
from sparsity_report.sparse.shares import ratio, zero_share
from sparsity_report.study.layers import records
from sparsity_report.study.schema import DENOMINATORS, FIGURES, SIDES, TABLES, typed
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.weights.weights import Module

# Columns of layers that are summed for a figure, unless they have its name.
_SUMMED = {
    "prunable_weights": "weight_total", "parameters": "total", "active_parameters": "active_total"
}  # fmt: skip
# Figures of a tally that a layer has in any case, and those that only compared weights have.
_COUNTS = ["compared", "kept", "revived", "new", "changed"]
_MEASURES = ("relative_change", "norm", "correlation", "iou")


def match_frame(plan: Plan, tallies: Mapping[str, Tally]) -> pd.DataFrame:
    """Return one row per module of the base, then those that only the model after has."""
    owners = {p.name: m for m in plan.after.modules for p in m.parameters}
    after = {m.name: m for m in plan.after.modules}
    matches: dict[str, list[ParameterMatch]] = defaultdict(list)
    added: dict[str, list[ParameterMatch]] = defaultdict(list)
    for match in plan.matches:
        if match.before:
            matches[match.before.parameter.name].append(match)
        elif match.after:
            added[match.after.module.name].append(match)
    rows, matched = [], {m.name for m in plan.before.modules}
    for module in plan.before.modules:
        own_matches = [match for p in module.parameters for match in matches[p.name]]
        names = [owners[match.after.parameter.name].name for match in own_matches if match.after]
        if not own_matches and module.name in after:  # tied to another module
            names = [module.name]
        counterparts = [after[name] for name in dict.fromkeys(names)]
        # Parameters that the base lacks: a bias, or the values of a head that was tied before.
        own_matches += [match for each in counterparts for match in added.pop(each.name, [])]
        matched.update(names)
        rows.append(_row(module, counterparts, own_matches, tallies))
    holders = {m.name.rpartition(".")[0] for m in plan.after.modules}
    for module in plan.after.modules:
        own_matches = added.pop(module.name, [])
        if own_matches or module.name not in matched:
            row = _row(None, [module], own_matches, tallies) | {"alignment": "added"}
            if module.name in holders and len(own_matches) == 1:  # a parameter of the block itself
                row["module_name"] = next(own_matches[0].parameters).name
            rows.append(row)
    return typed("matches", pd.DataFrame(rows))


def _row(
    before: Module | None,
    after: list[Module],
    matches: list[ParameterMatch],
    tallies: Mapping[str, Tally],
) -> dict[str, Any]:
    """Return the row of a module."""
    module = before or after[0]
    weights_before = before.weights if before else []
    weights_after = after[0].weights if after else []
    # The base decides which parameters are the weight of a module.
    names = {p.name for p in (weights_before or weights_after)}
    sums = Tally()
    for match in matches:
        if next(match.parameters).name in names:
            sums += tallies[match.name]
    alignments = {match.alignment for match in matches}
    is_compared = sums.compared > 0
    return {
        "module_name": module.name,
        "after_name": ", ".join(module.name for module in after) or None,
        "block": module.block,
        "group": module.group,
        "prunable": any(p.prunable for p in module.parameters),
        "shape_before": weights_before[0].shape if weights_before else None,
        "shape_after": weights_after[0].shape if weights_after and len(after) == 1 else None,
        "alignment": next((each for each in ALIGNMENTS if each in alignments), "name"),
        "certainty": min((match.certainty for match in matches), default=1.0),
        "weight_before": sums.before.total,
        "weight_after": sums.after.total,
        "zeros_before": sums.before.zeros,
        "zeros_after": sums.after.zeros,
        **{name: getattr(sums, name) for name in _COUNTS},
        **{name: getattr(sums, name) if is_compared else None for name in _MEASURES},
        "untouched": is_compared and all(_is_untouched(tallies[match.name]) for match in matches),
        "n_m_before": sums.before.n_m,
        "n_m_after": sums.after.n_m,
    }


def _is_untouched(tally: Tally) -> bool:
    return tally.untouched and tally.compared == tally.before.total == tally.after.total


def removed_frame(plan: Plan) -> pd.DataFrame:
    """Return the removed parts of the base, one row each."""
    rows = []
    for part, loss in find_removed(plan).items():
        rows.append({**vars(part), **vars(loss), "flops_per_token": round(loss.flops)})
    return typed("removed", pd.DataFrame(rows, columns=[*TABLES["removed"]]))


def survival_frame(matches: pd.DataFrame) -> pd.DataFrame:
    """Return the fate of the zeros of compared prunable weights, in all and per group."""
    rows = matches[matches["prunable"] & (matches["compared"] > 0)]
    parts = [(None, rows), *((g, rows[rows["group"] == g]) for g in GROUPS)]
    sums = [_survival(group, part) for group, part in parts if group is None or len(part)]
    return typed("survival", pd.DataFrame(sums))


def _survival(group: str | None, rows: pd.DataFrame) -> dict[str, Any]:
    sums: dict[str, Any] = {name: _known_sum(rows[name]) for name in (*_COUNTS, "untouched")}
    zeros = sums["kept"] + sums["revived"]
    squares = rows["norm"] ** 2
    change = float((rows["relative_change"] ** 2 * squares).sum())
    known = rows["relative_change"].notna() | (rows["norm"] == 0)
    moved = ratio(change, float(squares.sum())) if known.all() else None
    return {
        "group": group,
        "modules": len(rows),
        **sums,
        "zeros_before": zeros,
        "zeros_after": sums["kept"] + sums["new"],
        "kept_share": ratio(sums["kept"], zeros),
        "iou": ratio(sums["kept"], zeros + sums["new"]),
        "surviving": sums["compared"] - zeros - sums["new"],
        "relative_change": None if moved is None else math.sqrt(moved),
    }


def _known_sum(numbers: Any) -> int | None:
    """Return a sum; None if a number is unknown."""
    return None if numbers.isna().any() else int(numbers.sum())


def change_frame(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Return each figure of two models, and what was removed, in all and per group."""
    rows = [{"group": None, **row} for row in _figures(before, after)]
    for group in GROUPS:
        frames = [frame[frame["group"] == group] for frame in (before, after)]
        if any(len(frame) for frame in frames):
            rows += [{"group": group, **row} for row in _figures(*frames)]
    return typed("changes", pd.DataFrame(rows))


def _figures(before: pd.DataFrame, after: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield each figure of both models and their difference."""
    models = (before, after)
    heads = [head_is_embedding(frame) for frame in models]
    for figure in FIGURES:
        sums = [_sum(figure, frame) for frame in models]
        if figure == "flops_per_token" and True in heads and None in heads:
            # A file without a head may have lost it or tied it to the embedding.
            sums[heads.index(None)] = None
        old, new = sums
        removed = None if old is None or new is None else old - new
        row = {"figure": figure, **dict(zip(SIDES, sums, strict=True))}
        yield row | {"removed": removed, "share": ratio(removed, old)}


def _sum(figure: str, layers: pd.DataFrame) -> int | None:
    """Return a figure of one model; None where it is unknown."""
    rows = layers[layers["prunable"]] if figure == "prunable_weights" else layers
    return _known_sum(rows[_SUMMED.get(figure, figure)])


def head_is_embedding(layers: pd.DataFrame) -> bool | None:
    """Return whether the output head is tied to the embedding; None if no head is known."""
    tied = layers.loc[layers["group"] == "lm_head", "tied_to"].notna()
    return bool(tied.any()) if len(tied) else None


def base_shares(totals: pd.DataFrame, matches: pd.DataFrame) -> dict[str, float | None]:
    """Return the share of the base that is zero or removed, by denominator; None if unknown.

    Weights that only the model after has are not part of the base. For prunable weights, those
    that both models have are known. For totals that include biases, the share is unknown once
    something was added.

    Parameters
    ----------
    totals : pandas.DataFrame
        The rows of both models in ``study.totals``, the base first.
    matches : pandas.DataFrame
    """
    rows = matches[matches["prunable"]]
    left = int((rows["weight_before"] - gone_weights(rows) - zeros_left(rows)).sum())
    before, after = records(totals)
    biases = [sums["total"] - sums["weight_total"] for sums in (before, after)]
    has_added = bool((matches["weight_after"] > matches["compared"]).any()) or biases[1] > biases[0]
    shares: dict[str, float | None] = {}
    for part in DENOMINATORS:
        prefix = "" if part == "model" else f"{part}_"
        total, total_after = (int(sums[f"{prefix}total"]) for sums in (before, after))
        is_prunable = part == "prunable"
        nonzero = left if is_prunable else after[f"{prefix}nonzero"]
        is_unknown = total_after > total or (has_added and not is_prunable) or pd.isna(nonzero)
        shares[part] = None if is_unknown else zero_share(total, int(nonzero))
    return shares


def gone_weights(matches: pd.DataFrame) -> pd.Series[int]:
    """Return the number of removed weights of each module."""
    return matches["weight_before"] - matches["compared"]


def zeros_left(matches: pd.DataFrame) -> pd.Series[int]:
    """Return the number of zeros of each module among the weights that both models have."""
    return matches["kept"] + matches["new"]
