"""The tables of a pair of checkpoints, from the tallies of both."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from sparsity_report.pairing.matches import ALIGNMENTS, ParameterMatch, Plan
from sparsity_report.pairing.removed import find_removed
from sparsity_report.pairing.roles import cached_values
from sparsity_report.pairing.tally import Tally
from sparsity_report.sparse.shares import ratio, zero_share
from sparsity_report.study.layers import records, total_frame
from sparsity_report.study.schema import DENOMINATORS, FIGURES, SIDES, TABLES, typed
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.weights.weights import Module, Parameter

# Architectures with a key-value cache; encoders keep none.
_DECODER = re.compile("CausalLM|LMHead|ConditionalGeneration")
# Columns of layers that are summed for a figure, unless they have its name.
_SUMMED = {
    "prunable_weights": "weight_total", "parameters": "total", "active_parameters": "active_total"
}  # fmt: skip
# Figures of a tally that a layer has in any case, and those that only compared weights have.
_COUNTS = ["zeros_before", "zeros_after", "compared", "kept", "revived", "new", "changed"]
_MEASURES = ("relative_change", "norm", "correlation", "iou")


def pair_layers(plan: Plan, tallies: Mapping[str, Tally]) -> pd.DataFrame:
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
        row = _row(module, counterparts, own_matches, tallies)
        rows.append(row | _cache_bytes(plan, own_matches))
    holders = {m.name.rpartition(".")[0] for m in plan.after.modules}
    for module in plan.after.modules:
        own_matches = added.pop(module.name, [])
        if own_matches or module.name not in matched:
            row = _row(None, [module], own_matches, tallies) | _cache_bytes(plan, own_matches)
            row["alignment"] = "added"
            if module.name in holders and len(own_matches) == 1:  # a parameter of the block itself
                row["module_name"] = _parameter(own_matches[0]).name
            rows.append(row)
    return typed("pair_layers", pd.DataFrame(rows))


def _cache_bytes(plan: Plan, matches: list[ParameterMatch]) -> dict[str, int | None]:
    """Return the bytes that a module adds to the key-value cache per token, before and after."""
    architecture = plan.before.architecture or plan.after.architecture
    has_cache = not architecture or bool(_DECODER.search(architecture))
    sums: dict[str, int | None] = {"kv_cache_before": 0, "kv_cache_after": 0}
    for match in matches:
        for side, (column, known) in enumerate(sums.items()):
            if (part := (match.before, match.after)[side]) is None:
                continue
            piece = match.pieces[side] if match.pieces else None
            values = cached_values(part, piece.first, piece.last) if piece else cached_values(part)
            if known is None or values is None or (values and not has_cache):
                sums[column] = None
            else:
                sums[column] = known + values * part.parameter.itemsize
    return sums


def _row(
    before: Module | None,
    after: list[Module],
    matches: list[ParameterMatch],
    tallies: Mapping[str, Tally],
) -> dict[str, Any]:
    """Return the row of a module, except the bytes of its cache."""
    module = before or after[0]
    weights_before = before.weights if before else []
    weights_after = after[0].weights if after else []
    # The base decides which parameters are the weight of a module.
    names = {p.name for p in (weights_before or weights_after)}
    sums = Tally()
    for match in matches:
        if _parameter(match).name in names:
            sums += tallies[match.name]
    alignments = {match.alignment for match in matches}
    n_m_before, n_m_after = sums.n_m
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
        "weight_before": sums.total_before,
        "weight_after": sums.total_after,
        **{name: getattr(sums, name) for name in _COUNTS},
        **{name: getattr(sums, name) if is_compared else None for name in _MEASURES},
        "untouched": is_compared and all(_is_untouched(tallies[match.name]) for match in matches),
        "n_m_before": n_m_before,
        "n_m_after": n_m_after,
    }


def _parameter(match: ParameterMatch) -> Parameter:
    part = match.before or match.after
    assert part is not None
    return part.parameter


def _is_untouched(tally: Tally) -> bool:
    return tally.untouched and tally.compared == tally.total_before == tally.total_after


def removed_frame(plan: Plan) -> pd.DataFrame:
    """Return the removed parts of the base, one row each."""
    rows = []
    for part, loss in find_removed(plan).items():
        rows.append({**vars(part), **vars(loss), "flops_per_token": round(loss.flops)})
    return typed("pair_removed", pd.DataFrame(rows, columns=list(TABLES["pair_removed"])))


def total_sums(before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return each figure over the whole of both models."""
    return typed("pair_totals", pd.DataFrame(_figures(before, after, layers)))


def group_sums(before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return each figure per group of modules."""
    rows: list[dict[str, Any]] = []
    for group in GROUPS:
        frames = [frame[frame["group"] == group] for frame in (before, after, layers)]
        if any(len(frame) for frame in frames):
            rows += [{"group": group, **row} for row in _figures(*frames)]
    return typed("pair_groups", pd.DataFrame(rows))


def _figures(
    before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    """Yield each figure of both models and their difference."""
    models = dict(zip(SIDES, (before, after), strict=True))
    heads = [head_is_embedding(frame) for frame in models.values()]
    for figure in FIGURES:
        sums = [_sum(figure, side, frame, layers) for side, frame in models.items()]
        if figure == "flops_per_token" and True in heads and None in heads:
            # A file without a head may have lost it or tied it to the embedding.
            sums[heads.index(None)] = None
        old, new = sums
        removed = None if old is None or new is None else old - new
        row = {"figure": figure, **dict(zip(SIDES, sums, strict=True))}
        yield row | {"removed": removed, "share": ratio(removed, old)}


def _sum(figure: str, side: str, frame: pd.DataFrame, layers: pd.DataFrame) -> int | None:
    """Return a figure of one model; None where it is unknown."""
    rows = frame[frame["prunable"]] if figure == "prunable_weights" else frame
    is_cache = figure == "kv_cache_bytes_per_token"
    numbers = layers[f"kv_cache_{side}"] if is_cache else rows[_SUMMED.get(figure, figure)]
    return None if numbers.isna().any() else int(numbers.sum())


def head_is_embedding(layers: pd.DataFrame) -> bool | None:
    """Return whether the output head is tied to the embedding; None if no head is known."""
    tied = layers.loc[layers["group"] == "lm_head", "tied_to"].notna()
    return bool(tied.any()) if len(tied) else None


def sparsity_frame(before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return shares of zeros in the base, in the model after, and of the base.

    Weights that only the model after has are not part of the base. For prunable weights, those
    that both models have are known. For totals that include biases, the share of the base is
    unknown once something was added.
    """
    rows = layers[layers["prunable"]]
    common = int((rows["weight_before"] - gone_weights(rows) - zeros_left(rows)).sum())
    has_added = _has_added(before, after, layers)
    sums = [records(total_frame(frame))[0] for frame in (before, after)]
    frames = []
    for denominator in DENOMINATORS:
        prefix = "" if denominator == "model" else f"{denominator}_"
        (total, nonzero), (total_after, nonzero_after) = (
            (int(each[f"{prefix}total"]), int(each[f"{prefix}nonzero"])) for each in sums
        )
        is_prunable = denominator == "prunable"
        is_unknown = total_after > total or (has_added and not is_prunable)
        left = common if is_prunable else nonzero_after
        frames.append(
            {
                "of": denominator,
                "total_before": total,
                "total_after": total_after,
                "zeros_before": total - nonzero,
                "zeros_after": total_after - nonzero_after,
                "sparsity_before": zero_share(total, nonzero),
                "sparsity_itself": zero_share(total_after, nonzero_after),
                "gone_of_base": None if is_unknown else zero_share(total, left),
            }
        )
    return typed("pair_sparsities", pd.DataFrame(frames))


def _has_added(before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame) -> bool:
    """Return whether the model after has weights or biases that the base lacks."""
    added = layers["weight_after"] > layers["compared"]
    biases = [int((frame["total"] - frame["weight_total"]).sum()) for frame in (before, after)]
    return bool(added.any()) or biases[1] > biases[0]


def gone_weights(layers: pd.DataFrame) -> pd.Series[int]:
    """Return the number of removed weights of each layer."""
    return layers["weight_before"] - layers["compared"]


def zeros_left(layers: pd.DataFrame) -> pd.Series[int]:
    """Return the number of zeros of each layer among the weights that both models have."""
    return layers["kept"] + layers["new"]


def survival_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the fate of the zeros of compared prunable weights, in all and per group."""
    rows = layers[layers["prunable"] & (layers["compared"] > 0)]
    parts = [(None, rows), *((g, rows[rows["group"] == g]) for g in GROUPS)]
    sums = [survival_of(group, part) for group, part in parts if group is None or len(part)]
    return typed("pair_survival", pd.DataFrame(sums))


def survival_of(group: str | None, rows: pd.DataFrame) -> dict[str, Any]:
    """Return the fate of the zeros of compared layers, as the row of a group."""
    counts = ("compared", "kept", "revived", "new", "changed")
    sums = {name: int(rows[name].sum()) for name in counts}
    zeros = sums["kept"] + sums["revived"]
    squares = rows["norm"] ** 2
    change = float((rows["relative_change"] ** 2 * squares).sum())
    known = rows["relative_change"].notna() | (rows["norm"] == 0)
    moved = ratio(change, float(squares.sum())) if known.all() else None
    return {
        "group": group,
        "modules": len(rows),
        "untouched": int(rows["untouched"].sum()),
        **sums,
        "zeros_before": zeros,
        "zeros_after": sums["kept"] + sums["new"],
        "kept_share": ratio(sums["kept"], zeros),
        "iou": ratio(sums["kept"], zeros + sums["new"]),
        "surviving": sums["compared"] - zeros - sums["new"],
        "relative_change": None if moved is None else math.sqrt(moved),
    }
