"""Matched modules and removed parts of two checkpoints as tables, from their tallies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sparsity_report.pairing.matches import ALIGNMENTS, ParameterMatch, Plan
from sparsity_report.pairing.removed import find_removed
from sparsity_report.pairing.tally import Tally
from sparsity_report.study.schema import TABLES, typed
from sparsity_report.weights.weights import Module, Parameter

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
                row["module_name"] = _parameter(own_matches[0]).name
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
        if _parameter(match).name in names:
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


def _parameter(match: ParameterMatch) -> Parameter:
    part = match.before or match.after
    assert part is not None
    return part.parameter


def _is_untouched(tally: Tally) -> bool:
    return tally.untouched and tally.compared == tally.before.total == tally.after.total


def removed_frame(plan: Plan) -> pd.DataFrame:
    """Return the removed parts of the base, one row each."""
    rows = []
    for part, loss in find_removed(plan).items():
        rows.append({**vars(part), **vars(loss), "flops_per_token": round(loss.flops)})
    return typed("removed", pd.DataFrame(rows, columns=[*TABLES["removed"]]))
