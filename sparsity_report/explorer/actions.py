"""Actions on the level that an explorer shows: new variants, budgets, bounds and copies."""

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from sparsity_report.counting.bounds import Bounds, bounded_magnitude
from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer.control_state import State
from sparsity_report.explorer.view import View
from sparsity_report.sparse.shares import zero_share
from sparsity_report.study.levels.levels import Levels
from sparsity_report.study.levels.sweep import pruned_at
from sparsity_report.study.variants import Variant, csr, masked
from sparsity_report.viewer.copied_code import Shown, copied
from sparsity_report.words.sentences import say

# Bounds of a layer besides a largest sparsity: none, dense, and its sparsity now.
FREE, DENSE, NOW = "free", "dense", "now"


def level_variants(view: View, state: State) -> list[Variant]:
    """Return the masked and the CSR variant pruned exactly to the level of a state.

    Raises
    ------
    SparsityReportError
        The study has no weights.
    """
    weights = view.study.weights
    if weights is None:
        raise SparsityReportError(
            say("explorer.add_needs_weights", code="explore(study, weights=sr.load(…))")
        )
    if state.bounds:
        pruning = bounded_magnitude(weights, state.sparsity, state.bounds)
    else:
        pruning = pruned_at(weights, state.policy, state.sparsity)
    return [_numbered(variant, view, state) for variant in (masked(pruning), csr(pruning))]


def _numbered(variant: Variant, view: View, state: State) -> Variant:
    """Return the variant with a number after its name if other bounds took the name."""
    if not state.bounds:
        return variant
    nonzeros, number, name = variant.layers()["nonzero"].tolist(), 2, variant.name
    while name in view.variants:
        if view.study.facts.layers(name)["nonzero"].tolist() == nonzeros:
            break
        name, number = f"{variant.name}-{number}", number + 1
    return replace(variant, name=name)


def copied_view(form: str, view: View, state: State, first: State) -> str:
    """Return the differences of the state from the first one, as code or a command."""
    live = ("bounds", "policy", "sparsity", "variant")
    order = [*(live if state.live else ()), *State._fields[:-1]]
    skipped = () if state.live else live[:3]
    changed = {
        name: getattr(state, name)
        for name in order
        if name not in skipped and getattr(state, name) != getattr(first, name)
    }
    variant, bounds = (None, state.bounds) if state.live else (state.variant, {})
    rows, policy = view.frame(state), state.policy
    shown = Shown(view.study, variant, state.sparsity, bounds, rows, changed, policy)
    return copied(form, shown)


def bounds_with(bounds: Bounds, rows: pd.DataFrame, names: Iterable[str], how: str) -> Bounds:
    """Return bounds with those of some layers changed.

    Parameters
    ----------
    bounds : mapping
        Bounds by module or group.
    rows : pandas.DataFrame
        Layers as they are now.
    names : iterable of str
        Modules; those without prunable weights are skipped. None with ``"free"`` removes all
        bounds.
    how : str
        ``"free"``, ``"dense"``, ``"now"`` or the largest sparsity.

    Raises
    ------
    SparsityReportError
        None of the modules has prunable weights.
    """
    modules = list(names)
    if how == FREE and not modules:
        return {}
    changed = dict(bounds)
    prunable = rows[rows["prunable"] & rows["module_name"].isin(modules)]
    if prunable.empty:
        raise SparsityReportError(say("explorer.bound_needs_selection"))
    columns = (prunable[key] for key in ("module_name", "weight_total", "weight_nonzero"))
    for name, total, nonzero in zip(*columns, strict=True):
        if how == FREE:
            changed.pop(name, None)
        elif how == NOW:
            share = zero_share(total, nonzero) or 0.0
            changed[name] = (share, share)
        else:
            changed[name] = 0.0 if how == DENSE else float(how)
    return changed


def bounds_text(bounds: Bounds, levels: Levels | None) -> str:
    """Return a sentence with the number of bounded layers or groups and the range of levels."""
    if not bounds or levels is None:
        return say("explorer.bounds_empty")
    low, high = levels.sparsities[0], levels.sparsities[-1]
    return say("explorer.bounds_summary", n=len(bounds), low=low, high=high)
