"""Models to compare: the first, its prunings, and already-pruned models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsity_report.cli.options import Analysis, Choice
from sparsity_report.cli.terminal import workers
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.sources.model_paths import find_model, hub_place

if TYPE_CHECKING:
    from sparsity_report.counting.pruning import Pruning
    from sparsity_report.study.variants import Variant

# Random choices of experts at each level.
_SEEDS = 3


@dataclass(frozen=True)
class Compared:
    """Variants of the first model, and the other models.

    Attributes
    ----------
    variants : tuple of Variant
    prunings : tuple of Pruning
    at_level : callable or None
        Prunes the first model to a sparsity; None unless there is one policy, with levels.
    """

    variants: tuple[Variant, ...]
    prunings: tuple[Pruning, ...]
    at_level: Callable[[float], Pruning] | None


def check_paths(*models: str | None) -> None:
    """Refuse paths at which nothing is, before libraries load."""
    for model in filter(None, models):
        find_model(model)


def compared(models: Sequence[str], choice: Choice, analysis: Analysis) -> Compared:
    """Open models, or the demo model; prune the first, and keep the others as they are.

    The first is pruned by each policy at each level, or its zeros are counted as they are.
    """
    import sparsity_report as sr
    from sparsity_report.cli.policy_grid import calibrates, chosen_experts, read_policies
    from sparsity_report.counting.counts import count_weights
    from sparsity_report.counting.policies import policy_registry
    from sparsity_report.counting.pruning import Inputs

    first, others = (models[0], models[1:]) if models else (None, ())
    reading: dict[str, Any] = {"blacklist": analysis.blacklist or None, "stream": analysis.stream}
    reading["config"] = not analysis.by_names
    weights = sr.load(first, name=analysis.name, **reading, **analysis.opening)
    names = [_model_name(model) for model in others]
    opened = [
        sr.dense(
            sr.load(model, allow_pickle=analysis.allow_pickle, **reading),
            name=name if names.count(name) == 1 else model,
        )
        for model, name in zip(others, names, strict=True)
    ]
    choices = read_policies(choice.policy, choice.sparsity)
    fewer = [*map(sr.without_experts, chosen_experts(weights, choice, _SEEDS))]
    if (fewer or others) and not (choice.sparsity or choice.policy):
        choices = []
    with workers(analysis.workers) as executor:
        counting: dict[str, Any] = {"executor": executor, "cache": analysis.cache}
        for each in (weights, *(variant.weights for variant in opened)):
            count_weights(each, **counting)
        base, calibration = sr.dense(weights), None
        is_pruned = base.is_pruned
        counts_as_is = choice.as_is or (not (choice.sparsity or fewer) and is_pruned)
        if counts_as_is and not choice.sparsity:
            needing = [policy.option for policy, _ in choices if not policy.pattern]
            if choice.policy and needing:
                raise SparsityReportError(
                    f"{weights.name}: its zeros are counted as they are; add --sparsity for "
                    f"--policy {needing[0]}, or leave --policy out"
                )
            choices = [each for each in choices if each[0].pattern]
        if calibrates(choices):
            calibration = sr.calibrate(weights, next(iter(choice.calibration), None))
        inputs = Inputs(calibration, **counting)
        asked = [policy_registry.prune(policy, weights, level, inputs) for policy, level in choices]
    prunings = _changing(asked) if is_pruned else tuple(asked)
    counts_as_is |= len(prunings) < len(asked)
    existing: list[Pruning] = []
    variants = [base]
    if counts_as_is:
        existing = [sr.existing_zeros(weights)]
        # Zeros that rounding explains are no pruning.
        name = None if is_pruned else f"AsIs{existing[0].label}"
        variants.append(sr.masked(existing[0], name=name))
    variants += map(sr.masked, prunings)
    variants += map(sr.csr, [*existing, *prunings] if len(prunings) < 2 else existing)

    policies = [*dict.fromkeys(policy for policy, _ in choices)]
    at_level = None
    if len(policies) == 1 and not policies[0].pattern:
        at_level = partial(policy_registry.prune, policies[0], weights, inputs=Inputs(calibration))
    return Compared((*variants, *fewer, *opened), (*prunings, *existing), at_level)


def _changing(prunings: Sequence[Pruning]) -> tuple[Pruning, ...]:
    """Return the prunings that set weights to zero; add a note on the others to the model."""
    from sparsity_report.study.variants import masked
    from sparsity_report.words.sentences import say

    changes = [*map(sets_zeros, prunings)]
    if idle := [pruning for pruning, sets in zip(prunings, changes, strict=True) if not sets]:
        weights, names = idle[0].weights, [masked(pruning).name for pruning in idle]
        weights.notes += (say("note.nothing_pruned", model=weights.name, names=names),)
    return tuple(compress(prunings, changes))


def sets_zeros(pruning: Pruning) -> bool:
    """Return whether a pruning sets weights to zero that were not zero before."""
    from sparsity_report.counting.counts import count_weights

    counts = count_weights(pruning.weights)
    return any(
        cut.nonzero_after(counts[name]) < counts[name].nonzero for name, cut in pruning.cuts.items()
    )


def _model_name(model: str) -> str:
    """Return the name of a model: its folder, its file, or its Hub name without the owner."""
    path = Path(model)
    if not path.exists():
        place = hub_place(model)
        owner = place.model.rpartition("/")[0] if place else ""
        return model.removeprefix("hf://").removeprefix(f"{owner}/")
    path = path.resolve()
    if path.name.startswith("model."):
        return path.parent.name
    return path.stem if path.is_file() else path.name
