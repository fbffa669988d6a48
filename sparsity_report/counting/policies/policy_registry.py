"""All pruning policies, and those of a name in a study or on the command line."""

from __future__ import annotations

import re

from sparsity_report.counting.n_m_patterns import is_pattern, parse_pattern
from sparsity_report.counting.policies.magnitude_policies import (
    ExistingZeros,
    GlobalMagnitude,
    LayerwiseMagnitude,
    NMPattern,
)
from sparsity_report.counting.policies.random_policy import RandomWeights
from sparsity_report.counting.policies.wanda_policy import Wanda
from sparsity_report.counting.pruning import Policy
from sparsity_report.errors import SparsityReportError

# In the order of menus and messages. A new policy is added here.
POLICIES: tuple[type[Policy], ...] = (
    GlobalMagnitude,
    LayerwiseMagnitude,
    NMPattern,
    Wanda,
    RandomWeights,
)


def families() -> dict[str, Policy]:
    """Return the policies that an explorer offers at several sparsities, by their keys.

    Examples
    --------
    >>> list(families())[:4]
    ['global_magnitude', 'layerwise_magnitude', 'N:4', 'N:8']
    """
    return {family.key: family for policy in POLICIES for family in policy.families()}


def read_method(method: str | None) -> Policy | None:
    """Return the policy that a study names; None for no policy, and for an unknown one.

    Examples
    --------
    >>> read_method("random, seed 3"), read_method("imported_masks")
    (RandomWeights(pattern=None, seed=3, allocation=''), None)
    """
    if not method:
        return None
    rule, *settings = method.split(", ")
    name = "" if is_pattern(rule) else rule
    seeds = [int(s[5:]) for s in settings if re.fullmatch(r"seed [0-9]{1,4000}", s)]
    words = [s for s in settings if not (is_pattern(s) or s.startswith("seed "))]
    pattern = parse_pattern(method)
    policies: tuple[type[Policy], ...] = (*POLICIES, ExistingZeros)
    for policy in policies:
        if policy.name == name:
            known = policy(pattern, seeds[0] if seeds else None, words[0] if words else "")
            return known if known.method == method else None
    return None


def read_option(text: str) -> Policy:
    """Return the policy of a name on the command line, or raise an error."""
    for policy in POLICIES:
        if (named := policy.from_option(text)) is not None:
            return named
    raise SparsityReportError(f"--policy {text!r} is unknown; use {', '.join(option_names())}")


def option_names() -> list[str]:
    """Return examples of names on the command line."""
    return [name for policy in POLICIES for name in policy.options]


def calibrated_names() -> list[str]:
    """Return the names on the command line of policies that read a calibration."""
    options = [policy.options for policy in POLICIES if policy.calibrates]
    return [name for names in options for name in names if ":" not in name]
