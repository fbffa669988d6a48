"""Pruning methods of a study: unpruned models and each distinct pruning."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from sparsity_report.counting.n_m_patterns import parse_pattern
from sparsity_report.study.derived.policy_names import policy_of
from sparsity_report.study.layers import records


def methods(variants: pd.DataFrame, prunings: Mapping[str, float | None]) -> pd.DataFrame:
    """Return the models as they come and each distinct pruning of them, one row each.

    Parameters
    ----------
    variants : pandas.DataFrame
        As of a study.
    prunings : mapping of str to float
        Its distinct prunings, see ``facts.prunings``, and the share of zeros of their prunable
        weights.

    Returns
    -------
    pandas.DataFrame
        ``variant``; ``model`` and its ``fingerprint``; ``policy``, the method without its
        pattern, empty of a pattern by magnitude, null of what somebody else pruned; ``kind`` of
        sparsity: a pattern such as ``"2:4"``, else null; ``sparsity`` that was asked for, of what
        somebody else pruned the share of zeros, 0 of a model as it comes. In order of sparsity,
        patterns last, then as in the study.

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
        method = None if pd.isna(row["method"]) else str(row["method"])
        pattern = parse_pattern(method or "")
        share = prunings.get(variant) if pd.isna(asked) else float(asked)
        rows.append(
            {
                **{key: row[key] for key in ("variant", "model", "fingerprint")},
                "policy": None if method is None else policy_of(method),
                "kind": None if pattern is None else str(pattern),
                "sparsity": share if pruned else 0.0,
            }
        )
    order = sorted(rows, key=lambda row: (row["kind"] is not None, row["sparsity"] or 0.0))
    return pd.DataFrame(order)
