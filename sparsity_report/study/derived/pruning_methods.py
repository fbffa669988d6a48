"""Pruning methods of a study: unpruned models and each distinct pruning."""

from collections.abc import Mapping

import pandas as pd

from sparsity_report.counting.n_m_patterns import parse_pattern
from sparsity_report.study.derived.policy_names import policy_of
from sparsity_report.study.layers import records


def methods(variants: pd.DataFrame, prunings: Mapping[str, float | None]) -> pd.DataFrame:
    """Return the unpruned models and each distinct pruning of them, one row each.

    Parameters
    ----------
    variants : pandas.DataFrame
        As of a study.
    prunings : mapping of str to float
        Sparsity of the prunable weights of each distinct pruning, see ``facts.prunings``.

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
