"""The functions that prune by each policy, and that follow the weights it leaves in each module."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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


class Rule(NamedTuple):
    """Functions of a policy: one prunes; one returns a ladder by counts, or why there is none."""

    prune: Callable[[Policy, Weights, float, Inputs], Pruning]
    left: Callable[[Policy, ModuleCounts], Ladder | str] | None = None


def prune(policy: Policy, weights: Weights, sparsity: float, inputs: Inputs) -> Pruning:
    """Prune a model by a policy; a pattern determines the sparsity itself."""
    return RULES[type(policy)].prune(policy, weights, sparsity, inputs)


def ladder(policy: Policy, counts: ModuleCounts | None) -> Ladder | str:
    """Return the remaining weights by counts alone, or the reason why they do not follow.

    Parameters
    ----------
    policy : Policy
    counts : ModuleCounts or None
        None for a study without levels.
    """
    left = RULES[type(policy)].left
    if left is None:
        code = f"sr.{policy.function}"
        return say("explorer.policy_needs_input", input=policy.needs, code=code)
    return say("explorer.policy_needs_levels") if counts is None else left(policy, counts)


def _by_groups(policy: Policy, weights: Weights, sparsity: float, inputs: Inputs) -> Pruning:
    n, m = policy.pattern or policy.at(sparsity).pattern or (0, 0)
    return n_m(weights, n, m, **inputs.counting)


def _by_scores(policy: Policy, weights: Weights, sparsity: float, inputs: Inputs) -> Pruning:
    level, allocation = None if policy.pattern else sparsity, policy.allocation or None
    calibration, progress = inputs.calibration, inputs.progress
    return prune_by_scores(
        weights, level, lambda: calibration, policy.pattern, allocation, progress
    )


# A new policy is added here, and its name to POLICIES.
RULES: dict[type[Policy], Rule] = {
    GlobalMagnitude: Rule(
        lambda _, weights, level, inputs: global_magnitude(weights, level, **inputs.counting),
        lambda _, counts: counts.ladder,
    ),
    LayerwiseMagnitude: Rule(
        lambda _, weights, level, inputs: layerwise_magnitude(weights, level, **inputs.counting),
        lambda _, counts: layerwise_left(counts),
    ),
    NMPattern: Rule(_by_groups, lambda policy, counts: pattern_left(counts, policy.group)),
    Wanda: Rule(_by_scores),
    RandomWeights: Rule(
        lambda policy, weights, level, inputs: random_unstructured(
            weights, level, seed=policy.seed or 0, progress=inputs.progress
        )
    ),
}
