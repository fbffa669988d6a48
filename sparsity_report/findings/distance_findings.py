"""Findings about the distance between two models: divergence, agreement, perplexity."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sparsity_report.study.layers import records
from sparsity_report.study.model_distance import Distance
from sparsity_report.words.sentences import say

# Tokens that are quoted.
_QUOTED = 3


def distance_findings(distance: Distance) -> list[str]:
    r"""Return the findings about two models, most important first.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> print(distance_findings(sr.distance(weights, weights, "import os, sys"))[0])
    Over 4 tokens of text, KL(demo ‖ demo (2)) is 0.00 nats per token, and the reverse is 0.00.
    """
    names: dict[str, Any] = {"a": distance.a, "b": distance.b}
    about, rows = distance.protocol, {row["figure"]: row for row in records(distance.figures)}
    text = {"scored": len(distance.tokens), "text": (about["text"], about["text_fingerprint"])}
    kl = {name: _mean(rows[name], "#.3g") for name in ("kl", "reverse_kl")}
    spread = {name: rows[name]["value"] for name in ("kl_median", "kl_p99", "kl_max")}
    shares = {name: _mean(rows[name], "percent") for name in ("agreement", "top5_agreement")}
    scores = {name: rows[name]["value"] for name in ("perplexity_a", "perplexity_b")}
    ratio = rows["perplexity_ratio"]
    # An unknown interval separates nothing.
    is_apart = ratio["low"] > 1 or ratio["high"] < 1
    key = "distance.perplexity_ratio" if is_apart else "distance.perplexity_undecided"
    quoted = distance.largest.dropna().head(_QUOTED)
    return [
        say("distance.divergence", **kl, **names, **text),
        say("distance.spread", **spread),
        say("distance.agreement", **shares),
        say(key, ratio=_mean(ratio, "#.4g"), **scores, **names),
        *(say("distance.token", **row, **names) for row in records(quoted)),
    ]


def _mean(row: Mapping[str, Any], written: str) -> str:
    """Return a mean with its interval, if that is known."""
    key = "distance.mean" if pd.isna(row["low"]) else "distance.mean_with_interval"
    return say(key, format=written, **{name: row[name] for name in ("value", "low", "high")})
