"""Names of pruning policies, read from the ``method`` of a variant."""

from __future__ import annotations

import re

GLOBAL, LAYERWISE = "global_magnitude", "layerwise_magnitude"
PATTERN = re.compile(r"\d+:\d+")
# Words of a method that tell how shares were allotted to layers, not how weights were chosen.
_ALLOCATIONS = frozenset({"given", "owl", "bounded"})


def pattern_of(method: str | None) -> str | None:
    """Return the N:M pattern of a method; None where it has none.

    Examples
    --------
    >>> pattern_of("wanda_one_pass, 2:4"), pattern_of("global_magnitude")
    ('2:4', None)
    """
    return next(filter(PATTERN.fullmatch, (method or "").split(", ")), None)


def policy_of(method: str) -> str:
    """Return a method without its pattern; empty for a pattern by magnitude.

    Examples
    --------
    >>> policy_of("wanda_one_pass, 2:4"), policy_of("2:4")
    ('wanda_one_pass', '')
    """
    return ", ".join(part for part in method.split(", ") if not PATTERN.fullmatch(part))


def any_level(method: str | None) -> str:
    """Return the name that a policy has at every level and for any choice of modules.

    Examples
    --------
    >>> any_level("wanda_one_pass, 2:4"), any_level("global_magnitude in 2 of 8 modules")
    ('wanda_one_pass, N:M', 'global_magnitude')
    """
    return PATTERN.sub("N:M", (method or "").partition(" in ")[0])


def selection_rule(method: str | None) -> str:
    """Return the rule by which weights of a layer were ranked, however many it lost.

    Two magnitude policies that leave equally many weights of each layer leave the same weights.

    Examples
    --------
    >>> selection_rule("layerwise_magnitude, owl"), selection_rule("random, seed 3")
    ('magnitude', 'random, seed 3')
    """
    rule, *parts = (method or "").partition(" in ")[0].split(", ")
    if rule.endswith("_magnitude"):
        return "magnitude"
    return ", ".join([rule, *(part for part in parts if part not in _ALLOCATIONS)])


def is_level_of(method: str | None, policy: str) -> bool:
    """Return true if a variant pruned by a method is at a level of a policy.

    An unpruned model is at the level of the zeros it has.

    Parameters
    ----------
    method : str or None
        The method of the variant; None if it is not pruned.
    policy : str
        A key of ``study.by_policy``.

    Examples
    --------
    >>> is_level_of("2:4", "N:4"), is_level_of("2:8", "N:4"), is_level_of(None, "N:4")
    (True, False, True)
    """
    pattern = policy.replace("N:", r"\d+:") if policy.startswith("N:") else re.escape(policy)
    return method is None or re.fullmatch(pattern, method) is not None
