"""The functions that prune by each policy, and that follow the weights it leaves in each module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsity_report.counting.policies.magnitude_policies import (
    global_magnitude,
    layerwise_left,
    layerwise_magnitude,
    n_m,
    pattern_left,
)
from sparsity_report.counting.policies.random_policy import random_unstructured
from sparsity_report.counting.policies.wanda_policy import prune_by_scores
from sparsity_report.counting.pruning import Inputs, Ladder, ModuleCounts, Pruning
from sparsity_report.counting.pruning_policies import (
    GlobalMagnitude,
    LayerwiseMagnitude,
    NMPattern,
    Policy,
    RandomWeights,
    Wanda,
)
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

# A new policy is added here, to LEFT if counts tell what it leaves, and to POLICIES.
PRUNE: dict[type[Policy], Callable[[Any, Weights, float, Inputs], Pruning]] = {
    GlobalMagnitude: lambda _, w, level, given: global_magnitude(w, level, **given.counting),
    LayerwiseMagnitude: lambda _, w, level, given: layerwise_magnitude(w, level, **given.counting),
    NMPattern: lambda p, w, level, given: n_m(w, *p.at(level).pattern, **given.counting),
    Wanda: lambda p, w, level, given: prune_by_scores(
        w, None if p.pattern else level, lambda: given.calibration, p.pattern,
        p.allocation or None, given.progress,
    ),
    RandomWeights: lambda p, w, level, given: random_unstructured(
        w, level, seed=p.seed or 0, progress=given.progress
    ),
}  # fmt: skip
LEFT: dict[type[Policy], Callable[[Any, ModuleCounts], Ladder | str]] = {
    GlobalMagnitude: lambda _, counts: counts.ladder,
    LayerwiseMagnitude: lambda _, counts: layerwise_left(counts),
    NMPattern: lambda p, counts: pattern_left(counts, p.group),
}


def prune(policy: Policy, weights: Weights, sparsity: float, inputs: Inputs) -> Pruning:
    """Prune a model by a policy; a pattern determines the sparsity itself."""
    return PRUNE[type(policy)](policy, weights, sparsity, inputs)


def ladder(policy: Policy, counts: ModuleCounts | None) -> Ladder | str:
    """Return the remaining weights by counts alone, or the reason why they do not follow.

    Parameters
    ----------
    policy : Policy
    counts : ModuleCounts or None
        None for a study without levels.
    """
    if policy.needs:
        code = f"sr.{policy.function}"
        return say("explorer.policy_needs_input", input=policy.needs, code=code)
    if counts is None:
        return say("explorer.policy_needs_levels")
    return LEFT[type(policy)](policy, counts)
