"""The tables of a pair of checkpoints, from what was read of both."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sparsity_report.pairing.matches import ALIGNMENTS, ParameterMatch, Plan
from sparsity_report.pairing.removed import find_removed
from sparsity_report.pairing.roles import cached_values
from sparsity_report.pairing.tally import Tally
from sparsity_report.sparse.shares import ratio, zero_share
from sparsity_report.study.layers import records, total_frame
from sparsity_report.study.schema import DENOMINATORS, FIGURES, TABLES, typed
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.weights.anatomy.parameters import Module, Parameter

# Columns of layers that are summed for a figure.
_SUMMED = {
    "prunable_weights": "weight_total",
    "parameters": "total",
    "active_parameters": "active_total",
    "flops_per_token": "flops_per_token",
    "stored_bytes": "stored_bytes",
}


def pair_layers(plan: Plan, tallies: Mapping[str, Tally]) -> pd.DataFrame:
    """Return one row per module of the base, then those that only the model after has."""
    owners = {p.name: m for m in plan.after.modules for p in m.parameters}
    after = {m.name: m for m in plan.after.modules}
    links: dict[str, list[ParameterMatch]] = defaultdict(list)
    added: dict[str, list[ParameterMatch]] = defaultdict(list)
    for link in plan.matches:
        if link.before:
            links[link.before.parameter.name].append(link)
        elif link.after:
            added[link.after.module.name].append(link)
    rows, named = [], {m.name for m in plan.before.modules}
    for module in plan.before.modules:
        of_module = [link for p in module.parameters for link in links[p.name]]
        names = [owners[k.after.parameter.name].name for k in of_module if k.after]
        if not of_module and module.name in after:  # tied to another one
            names = [module.name]
        twins = [after[name] for name in dict.fromkeys(names)]
        # What came to it: a bias, or the values of a head that was the embedding.
        of_module += [link for twin in twins for link in added.pop(twin.name, [])]
        named.update(names)
        rows.append(_row(module, twins, of_module, tallies) | _caches(plan, of_module))
    holders = {m.name.rpartition(".")[0] for m in plan.after.modules}
    for module in plan.after.modules:
        of_module = added.pop(module.name, [])
        if of_module or module.name not in named:
            row = _row(None, [module], of_module, tallies) | _caches(plan, of_module)
            row["alignment"] = "added"
            if module.name in holders and len(of_module) == 1:
                row["module_name"] = _told(of_module[0]).name  # what a block itself has
            rows.append(row)
    return typed("pair_layers", pd.DataFrame(rows))


def _caches(plan: Plan, links: list[ParameterMatch]) -> dict[str, int | None]:
    """Return the bytes of keys and values that a module gives a token, before and after."""
    called = plan.before.architecture or plan.after.architecture
    # What reads a text as a whole keeps none.
    kept = not called or bool(re.search("CausalLM|LMHead|ConditionalGeneration", called))
    sums: dict[str, int | None] = {"kv_cache_before": 0, "kv_cache_after": 0}
    for link in links:
        for side, (column, known) in enumerate(sums.items()):
            if (part := (link.before, link.after)[side]) is None:
                continue
            piece = link.pieces[side] if link.pieces else None
            many = cached_values(part, piece.first, piece.last) if piece else cached_values(part)
            many = many if kept or many == 0 else None
            one = part.parameter.itemsize
            sums[column] = None if many is None or known is None else known + many * one
    return sums


def _row(
    before: Module | None,
    after: list[Module],
    links: list[ParameterMatch],
    tallies: Mapping[str, Tally],
) -> dict[str, Any]:
    told = before or after[0]
    # A module's weight is told by the base, where it has some.
    sides = [_weights(before), _weights(after[0] if after else None)]
    names = {p.name for p in (sides[0] or sides[1])}
    whole = Tally()
    for link in links:
        if _told(link).name in names:
            whole += tallies[link.name]
    ways = {link.alignment for link in links}
    n_m_before, n_m_after = whole.n_m
    stands = whole.compared > 0
    return {
        "module_name": told.name,
        "after_name": ", ".join(module.name for module in after) or None,
        "block": told.block,
        "group": told.group,
        "prunable": any(p.prunable for p in told.parameters),
        "shape_before": sides[0][0].shape if sides[0] else None,
        "shape_after": sides[1][0].shape if sides[1] and len(after) == 1 else None,
        "alignment": next((way for way in ALIGNMENTS if way in ways), "name"),
        "certainty": min((link.certainty for link in links), default=1.0),
        "weight_before": whole.total_before,
        "weight_after": whole.total_after,
        "zeros_before": whole.zeros_before,
        "zeros_after": whole.zeros_after,
        "compared": whole.compared,
        "kept": whole.kept,
        "revived": whole.revived,
        "new": whole.new,
        "changed": whole.changed,
        "relative_change": whole.relative_change if stands else None,
        "norm": whole.norm if stands else None,
        "correlation": whole.correlation if stands else None,
        "iou": whole.iou if stands else None,
        "untouched": stands and all(_untouched(tallies[link.name]) for link in links),
        "n_m_before": n_m_before,
        "n_m_after": n_m_after,
    }


def _told(link: ParameterMatch) -> Parameter:
    part = link.before or link.after
    assert part is not None
    return part.parameter


def _untouched(tally: Tally) -> bool:
    return tally.untouched and tally.compared == tally.total_before == tally.total_after


def _weights(module: Module | None) -> list[Parameter]:
    """Return what a study calls the weights of a module: its matrices, else its first parameter."""
    if module is None:
        return []
    stored = [p for p in module.parameters if p.tied_to is None]
    return [p for p in stored if p.matrix] or stored[:1]


def removed_frame(plan: Plan) -> pd.DataFrame:
    """Return what of the base is gone."""
    rows = [
        {
            **vars(thing),
            # Of what is gone and nothing tells which, only how many there are is known.
            "index": thing.index if loss.certainty else None,
            "certainty": loss.certainty,
            "weights": loss.weights,
            "parameters": loss.parameters,
            "bytes": loss.bytes,
            "flops_per_token": round(loss.flops),
        }
        for thing, loss in find_removed(plan).items()
    ]
    return typed("pair_removed", pd.DataFrame(rows, columns=list(TABLES["pair_removed"].names)))


def total_sums(before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return each figure over the whole of both models."""
    rows = [_figure(figure, *_sums(figure, before, after, layers)) for figure in FIGURES]
    return typed("pair_totals", pd.DataFrame(rows))


def group_sums(before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return each figure per group of modules."""
    rows = []
    for group in GROUPS:
        frames = [frame[frame["group"] == group] for frame in (before, after, layers)]
        if all(frame.empty for frame in frames):
            continue
        for figure in FIGURES:
            rows.append({"group": group, **_figure(figure, *_sums(figure, *frames))})
    return typed("pair_groups", pd.DataFrame(rows))


def _sums(
    figure: str, before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame
) -> tuple[int | None, int | None]:
    if figure == "kv_cache_bytes_per_token":
        sides = (layers["kv_cache_before"], layers["kv_cache_after"])
        one, other = (None if s.isna().any() else int(s.sum()) for s in sides)
        return one, other
    sums = []
    for frame in (before, after):
        column = _SUMMED[figure]
        rows = frame[frame["prunable"]] if figure == "prunable_weights" else frame
        sums.append(None if rows[column].isna().any() else int(rows[column].sum()))
    heads = [head_is_embedding(frame) for frame in (before, after)]
    if figure == "flops_per_token" and True in heads and None in heads:
        # A file without a head is also what a head that is the embedding leaves: who knows.
        sums = [None if tied is None else known for tied, known in zip(heads, sums, strict=True)]
    return sums[0], sums[1]


def head_is_embedding(layers: pd.DataFrame) -> bool | None:
    """Return whether the output head has no values of its own; None where no head is known."""
    tied = layers.loc[layers["group"] == "lm_head", "tied_to"].notna()
    return bool(tied.any()) if len(tied) else None


def _figure(figure: str, before: int | None, after: int | None) -> dict[str, Any]:
    removed = None if before is None or after is None else before - after
    return {
        "figure": figure,
        "before": before,
        "after": after,
        "removed": removed,
        "share": ratio(removed, before),
    }


def sparsity_frame(before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return shares of zeros of the base, of the model after, and against the base.

    What only the model after has is nothing of the base: of the prunable weights those that stand
    in both are known, of what has biases too it is not known where something came.
    """
    rows = layers[layers["prunable"]]
    there = int((rows["weight_before"] - gone_weights(rows) - zeros_left(rows)).sum())
    came = _came(before, after, layers)
    sums = [records(total_frame(frame))[0] for frame in (before, after)]
    frames = []
    for of in DENOMINATORS:
        prefix = "" if of == "model" else f"{of}_"
        (total, nonzero), (left, nonzero_left) = (
            (int(each[f"{prefix}total"]), int(each[f"{prefix}nonzero"])) for each in sums
        )
        prunable = of == "prunable"
        unknown, stands = came and not prunable, there if prunable else nonzero_left
        frames.append(
            {
                "of": of,
                "total_before": total,
                "total_after": left,
                "zeros_before": total - nonzero,
                "zeros_after": left - nonzero_left,
                "sparsity_before": zero_share(total, nonzero),
                "sparsity_itself": zero_share(left, nonzero_left),
                "gone_of_base": None if left > total or unknown else zero_share(total, stands),
            }
        )
    return typed("pair_sparsities", pd.DataFrame(frames))


def _came(before: pd.DataFrame, after: pd.DataFrame, layers: pd.DataFrame) -> bool:
    """Whether the model after has weights, or biases, that are none of the base's."""
    new = (layers["weight_after"] > layers["compared"]) & (layers["alignment"] != "rotated")
    beside = [int((frame["total"] - frame["weight_total"]).sum()) for frame in (before, after)]
    return bool(new.any()) or beside[1] > beside[0]


def gone_weights(layers: pd.DataFrame) -> pd.Series[int]:
    """Return of each layer how many weights of the base are not there any more.

    Where nothing tells which weight is which, they are as many as there are fewer.
    """
    left = layers["compared"].where(layers["alignment"] != "rotated", layers["weight_after"])
    return layers["weight_before"] - left


def zeros_left(layers: pd.DataFrame) -> pd.Series[int]:
    """Return of each layer how many of its weights that are there still are zero."""
    known = layers["kept"] + layers["new"]
    return known.where(layers["alignment"] != "rotated", layers["zeros_after"])


def survival_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Return what became of the zeros of prunable weights that stand in both, and per group."""
    rows = layers[layers["prunable"] & (layers["compared"] > 0)]
    parts = [(None, rows), *((g, rows[rows["group"] == g]) for g in GROUPS)]
    found = [survival_of(group, part) for group, part in parts if group is None or len(part)]
    return typed("pair_survival", pd.DataFrame(found))


def survival_of(group: str | None, rows: pd.DataFrame) -> dict[str, Any]:
    """Return what became of the zeros of layers that stand in both, as a row called `group`."""
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
