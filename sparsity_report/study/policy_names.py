"""Pruning policies, read from the ``method`` of a variant, and the distinct prunings of a study."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sparsity_report.counting.n_m_patterns import is_pattern, parse_pattern
from sparsity_report.counting.pruning_policies import ExistingZeros, GlobalMagnitude, read_method
from sparsity_report.study.layers import records
from sparsity_report.words.sentences import say

GLOBAL, EXISTING = GlobalMagnitude.name, ExistingZeros.name


def any_level(method: str | None) -> str:
    """Return the name that a policy has at every level.

    Examples
    --------
    >>> any_level("wanda_one_pass, 2:4")
    'wanda_one_pass, N:M'
    """
    parts = (method or "").split(", ")
    return ", ".join("N:M" if is_pattern(part) else part for part in parts)


def selection_rule(method: str | None) -> str:
    """Return the rule by which weights of a layer were ranked, however many it lost.

    Two magnitude policies that leave equally many weights of each layer leave the same weights.

    Examples
    --------
    >>> selection_rule("layerwise_magnitude, owl"), selection_rule("random, seed 3")
    ('magnitude', 'random, seed 3')
    """
    policy = read_method(method)
    return policy.ranking if policy else method or ""


def threshold_rule(variant: Mapping[str, Any]) -> str:
    """Return the threshold of a row of variants, with the weights on it if some are kept."""
    spared = variant["spared"]
    is_whole = pd.isna(spared) or not spared
    key = "name.single_threshold" if is_whole else "name.single_threshold_spared"
    return say(key, **{name: variant[name] for name in ("threshold", "at_threshold", "spared")})


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
    known = read_method(method)
    return method in {None, policy} or (known is not None and known.key == policy)


def methods(variants: pd.DataFrame, prunings: Mapping[str, float | None]) -> pd.DataFrame:
    """Return the unpruned models and each distinct pruning of them, one row each.

    Parameters
    ----------
    variants : pandas.DataFrame
        As of a study.
    prunings : mapping of str to float
        Sparsity of the prunable weights of each distinct pruning, see ``facts.prunings``, and of
        models that were pruned when they were opened.

    Returns
    -------
    pandas.DataFrame
        ``variant``; ``model`` and its ``fingerprint``; ``policy``, the method without its pattern,
        empty for a pattern by magnitude, null for a model pruned before it was opened; ``kind``, a
        pattern such as ``"2:4"``, else null; ``sparsity``, the target, or the share of zeros of a
        model pruned before, 0 of an unpruned one. Sorted by sparsity, patterns last.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> policies = sr.n_m(weights, 2, 4), sr.global_magnitude(weights, 0.3)
    >>> facts = sr.compare(sr.dense(weights), *map(sr.masked, policies)).facts
    >>> facts.methods[["variant", "sparsity"]].values.tolist()
    [['Dense', 0.0], ['Masked30', 0.3], ['Masked2:4', 0.5]]
    >>> facts.methods["kind"].fillna("").tolist()
    ['', '', '2:4']
    """
    rows = []
    for row in records(variants):
        variant, asked = row["variant"], row["asked_sparsity"]
        pruned = variant in prunings
        if not pruned and (row["layout"] != "dense" or pd.notna(row["pruned"])):
            continue
        method = row["method"]
        pattern = parse_pattern(method or "")
        rule = (part for part in (method or "").split(", ") if not is_pattern(part))
        share = prunings.get(variant) if pd.isna(asked) else float(asked)
        rows.append(
            {
                **{key: row[key] for key in ("variant", "model", "fingerprint")},
                "policy": None if method is None else ", ".join(rule),
                "kind": None if pattern is None else str(pattern),
                "sparsity": share if pruned else 0.0,
            }
        )
    order = sorted(rows, key=lambda row: (row["kind"] is not None, row["sparsity"] or 0.0))
    return pd.DataFrame(order)
