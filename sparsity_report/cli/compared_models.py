"""Models that a run compares: one model, its prunings, and already-pruned models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparsity_report.cli.libraries import without_collecting
from sparsity_report.cli.options import Analysis, Choice
from sparsity_report.cli.worker_processes import workers
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.sources.model_paths import local_path

if TYPE_CHECKING:
    from sparsity_report.cli.policy_grid import Grid
    from sparsity_report.counting.disk_cache import Cache
    from sparsity_report.counting.pruning import Pruning
    from sparsity_report.study.variants import Variant
    from sparsity_report.weights.weights import Weights


@dataclass(frozen=True)
class Compared:
    """Variants of one model.

    Attributes
    ----------
    variants : tuple of Variant
    prunings : tuple of Pruning
    steps : callable
        Returns prunings at each tenth of sparsity if there is one policy with levels.
    """

    variants: tuple[Variant, ...]
    prunings: tuple[Pruning, ...]
    steps: Callable[[], Iterable[Pruning]]


def check_paths(*models: str | None) -> None:
    """Refuse paths at which nothing is, before libraries load."""
    for model in filter(None, models):
        local_path(model)


def opened(models: Sequence[str], analysis: Analysis) -> list[Weights]:
    """Open all models, or the demo model, before any of them is counted."""
    import sparsity_report as sr

    names = [_model_name(model) for model in models]
    # Models with the same name keep the argument as their name.
    repeated = {model for model in models if names.count(_model_name(model)) > 1}
    given: list[str | None] = [*models] or [None]
    with without_collecting():
        return [
            sr.load(
                model,
                name=analysis.name or (model if model in repeated else None),
                blacklist=analysis.blacklist,
                stream=analysis.stream,
                **analysis.opening,
            )
            for model in given
        ]


def pruned(weights: Weights, choice: Choice, grid: Grid, analysis: Analysis) -> Compared:
    """Prune a model by each policy at each level, or count the zeros that it has."""
    import sparsity_report as sr
    from sparsity_report.cli.policy_grid import chosen_experts
    from sparsity_report.counting.counts import count_weights

    cache = cache_of(analysis)
    fewer: list[Variant] = []
    if choice.keep_experts is not None:
        fewer = [sr.without_experts(chosen_experts(weights, choice))]
    if (fewer or choice.also) and not (choice.sparsity or choice.policy):
        grid = grid.patterns  # none
    with workers(analysis.workers) as executor:
        count_weights(weights, executor=executor, cache=cache)
        base, calibration = sr.dense(weights), None
        is_pruned = base.is_pruned
        counts_as_is = choice.as_is or (not choice.sparsity and is_pruned)
        if counts_as_is and not choice.sparsity:
            grid = _without_levels(grid, weights, choice)
        if grid.calibrates:
            calibration = sr.calibrate(weights, choice.calibration)
        prunings = tuple(grid.prunings(weights, calibration, executor=executor, cache=cache))
    existing: list[Pruning] = []
    variants = [base]
    if counts_as_is:
        existing = [sr.existing_zeros(weights)]
        # Zeros that rounding explains are no pruning.
        name = None if is_pruned else f"AsIs{existing[0].label}"
        variants.append(sr.masked(existing[0], name=name))
    variants += map(sr.masked, prunings)
    variants += map(sr.csr, [*existing, *prunings] if len(prunings) < 2 else existing)
    variants += fewer

    def steps() -> Iterable[Pruning]:
        tenths = replace(grid, levels=tuple(step / 10 for step in range(1, 10)))
        return tenths.prunings(weights, calibration) if len(tenths) == 9 else ()

    return Compared(tuple(variants), (*prunings, *existing), steps)


def _without_levels(grid: Grid, weights: Weights, choice: Choice) -> Grid:
    """Return the patterns of a grid; refuse other policies, which need a level."""
    patterns = grid.patterns
    if choice.policy and (needing := [n for n in grid.policies if n not in patterns.policies]):
        raise SparsityReportError(
            f"{weights.name}: its zeros are counted as they are; add --sparsity for --policy "
            f"{needing[0]}, or leave --policy out"
        )
    return patterns


def others(also: Sequence[str], analysis: Analysis) -> list[Variant]:
    """Open already-pruned models, each under a unique name."""
    import sparsity_report as sr

    names = [_model_name(each) for each in also]
    return [
        sr.dense(
            sr.load(each, blacklist=analysis.blacklist, allow_pickle=analysis.allow_pickle),
            name=name if names.count(name) == 1 else each,
        )
        for each, name in zip(also, names, strict=True)
    ]


def _model_name(model: str) -> str:
    """Return the name of a model: its folder, its file, or the last part of its Hub id."""
    path = Path(model)
    if not path.exists():
        return path.name
    path = path.resolve()
    if path.name.startswith("model."):
        return path.parent.name
    return path.stem if path.is_file() else path.name


def cache_of(analysis: Analysis) -> Cache | None:
    """Return the cache of counts, None without --cache."""
    import sparsity_report as sr

    folder = analysis.cache
    return None if folder is None else sr.Cache(folder, verify=analysis.cache_verify)
