"""How fast variants ran and where CSR overtakes, in sentences, as far as it may be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.speedups import ENOUGH
from sparsity_report.words.number_format import figures
from sparsity_report.words.sentences import say


def speed(study: Comparison) -> Iterator[str]:
    """Say how fast variants ran against what their FLOPs promise, and where CSR overtakes.

    What the clock could not tell from noise is said to be no difference, and what it does not
    vouch for is not said.
    """
    frame = study.facts.speeds
    if frame is None:
        return
    whole = frame[frame["scope"] == "model"]
    for variant, rows in whole[whole["verdict"] != "same"].groupby("variant", sort=False):
        stated = rows[rows["verdict"] == "stated"]
        if len(stated):
            yield _stated(str(variant), stated, study.facts.speed_base)
        for why, others in rows[rows["verdict"] != "stated"].groupby("verdict", sort=False):
            yield _withheld(str(variant), str(why), others, study.facts.speed_base)
    yield from _control(whole[whole["noise"].notna()], study.facts.speed_base)
    yield from _overtaking(study)


def with_intervals(rows: pd.DataFrame) -> list[str]:
    """Return the ratio of each row, and its 99 % interval in brackets."""
    ratios = zip(rows["realised_speedup"], rows["realised_low"], rows["realised_high"], strict=True)
    return [
        say("format.ratio_interval", ratio=ratio, low=low, high=high) for ratio, low, high in ratios
    ]


def _stated(variant: str, rows: pd.DataFrame, base: str) -> str:
    return say(
        "speed.speed_up",
        tokens=_tokens(rows),
        variant=variant,
        speeds=with_intervals(rows),
        base=base,
        threads=int(rows["threads"].iloc[0]),
        promised=figures(rows["promised_speedup"].iloc[0], ".2f"),
    )


def _withheld(variant: str, why: str, rows: pd.DataFrame, base: str) -> str:
    """Say why a speed is not said."""
    plain = "speed.no_control"
    reasons = {
        "noise": "speed.within_noise",
        "unsettled": "speed.control_unsettled",
        "crowded": "speed.other_programs",
        "few": "speed.too_few_runs",
    }
    return say(
        reasons.get(why, plain),
        tokens=_tokens(rows),
        variant=variant,
        base=base,
        low=rows["realised_low"].min(),
        high=rows["realised_high"].max(),
        noise=rows["noise"].max(),
        others=rows["others"].max(),
        cores=rows["cores"].iloc[0],
        threads=rows["threads"].iloc[0],
        runs=rows["runs"].min(),
        enough=ENOUGH,
    )


def _control(rows: pd.DataFrame, base: str) -> Iterator[str]:
    """Say how far apart the same kernels were."""
    if rows.empty:
        return
    control = rows["control"].iloc[0]
    twice = "speed.control_same_variant"
    other = "speed.control_other_variant"
    own = pd.isna(control) or control == base
    yield say(twice if own else other, base=base, control=control, noise=rows["noise"].max())


def _overtaking(study: Comparison) -> Iterator[str]:
    crossovers = study.facts.crossovers
    assert crossovers is not None
    sentences = {
        "in cache": "speed.crossover_in_cache",
        "out of cache": "speed.crossover_from_memory",
    }
    for cache, rows in crossovers.groupby("cache", sort=False):
        if (rows["verdict"] == "stated").any():
            edges = [_overtakes(tokens, some) for tokens, some in rows.groupby("tokens")]
            yield say(sentences[str(cache)], edges=say("format.clause_separator").join(edges))


def _overtakes(tokens: Any, rows: pd.DataFrame) -> str:
    stated = rows[rows["verdict"] == "stated"]
    if stated.empty:
        never = (rows["verdict"] == "never").all()
        least, unsure = "speed.crossover_never", "speed.crossover_uncertain"
        return say(least if never else unsure, tokens=tokens)
    span = say(
        "speed.crossover_range",
        low=stated["crossover_low"].min(),
        high=stated["crossover_high"].max(),
        tokens=tokens,
    )
    if len(stated) == len(rows):
        return span
    return say("speed.crossover_some_shapes", span=span, of=len(stated), shapes=len(rows))


def _tokens(rows: pd.DataFrame) -> list[int]:
    return [int(n) for n in rows["tokens"]]
