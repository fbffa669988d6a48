"""Names of pruning policies, read from the ``method`` of a variant."""

from sparsity_report.counting.n_m_patterns import is_pattern, parse_pattern, without_numbers

GLOBAL, LAYERWISE = "global_magnitude", "layerwise_magnitude"
# Words of a method that tell how shares were allotted to layers, not how weights were chosen.
_ALLOCATIONS = frozenset({"given", "owl", "bounded"})


def policy_of(method: str) -> str:
    """Return a method without its pattern; empty for a pattern by magnitude.

    Examples
    --------
    >>> policy_of("wanda_one_pass, 2:4"), policy_of("2:4")
    ('wanda_one_pass', '')
    """
    return ", ".join(part for part in method.split(", ") if not is_pattern(part))


def any_level(method: str | None) -> str:
    """Return the name that a policy has at every level and for any choice of modules.

    Examples
    --------
    >>> any_level("wanda_one_pass, 2:4"), any_level("global_magnitude in 2 of 8 modules")
    ('wanda_one_pass, N:M', 'global_magnitude')
    """
    return without_numbers((method or "").partition(" in ")[0])


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
    if method is None or method == policy:
        return True
    pattern = parse_pattern(method) if is_pattern(method) else None
    return pattern is not None and policy == f"N:{pattern.m}"
