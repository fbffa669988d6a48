"""How fast variants ran and where CSR overtakes, in sentences, as far as it may be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.speedups import ENOUGH
from sparsity_report.words.number_format import figures
from sparsity_report.words.sentences import message, say


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
        say("{ratio:.2f} ({low:.2f} to {high:.2f})", ratio=ratio, low=low, high=high)
        for ratio, low, high in ratios
    ]


def _stated(variant: str, rows: pd.DataFrame, base: str) -> str:
    return say(
        "With {tokens:plural token|tokens} at a time {variant} runs {speeds:names} times as fast "
        "as {base} on this machine ({threads:plural thread|threads}, 99 % intervals in brackets); "
        "its FLOPs promise {promised}.",
        tokens=_tokens(rows),
        variant=variant,
        speeds=with_intervals(rows),
        base=base,
        threads=int(rows["threads"].iloc[0]),
        promised=figures(rows["promised_speedup"].iloc[0], ".2f"),
    )


def _withheld(variant: str, why: str, rows: pd.DataFrame, base: str) -> str:
    """Say why a speed is not said."""
    plain = message(
        "With {tokens:plural token|tokens} at a time the speed of {variant} against {base} is not "
        "told: it was timed without a control."
    )
    reasons = {
        "noise": message(
            "With {tokens:plural token|tokens} at a time no difference between {variant} and "
            "{base} could be measured: their ratio lies between {low:.2f} and {high:.2f}, and the "
            "same kernel twice differed by up to {noise:percent0}."
        ),
        "unsettled": message(
            "With {tokens:plural token|tokens} at a time the speed of {variant} against {base} is "
            "not told: the same kernel twice differed by up to {noise:percent0} and did not settle."
        ),
        "crowded": message(
            "With {tokens:plural token|tokens} at a time the speed of {variant} against {base} is "
            "not told: other programs took up to {others:.1f} of {cores:,} cores meanwhile "
            "(threads timed: {threads:,})."
        ),
        "few": message(
            "With {tokens:plural token|tokens} at a time the speed of {variant} against {base} is "
            "not told: it was timed {runs:,} times, and an interval takes {enough:,}."
        ),
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
    twice = message(
        "{base}, timed twice, differed from itself by up to {noise:percent0}; what lies within "
        "that is no speed."
    )
    other = message(
        "{control} runs the same kernels as {base} and differed from it by up to "
        "{noise:percent0}; what lies within that is no speed."
    )
    own = pd.isna(control) or control == base
    yield say(twice if own else other, base=base, control=control, noise=rows["noise"].max())


def _overtaking(study: Comparison) -> Iterator[str]:
    crossovers = study.facts.crossovers
    assert crossovers is not None
    sentences = {
        "in cache": message(
            "Sparsity from which CSR layers overtake dense ones here, by tokens at a time, while "
            "the matrix stays in the cache: {edges}."
        ),
        "out of cache": message(
            "Sparsity from which CSR layers overtake dense ones here, by tokens at a time, with "
            "weights from memory: {edges}."
        ),
    }
    for cache, rows in crossovers.groupby("cache", sort=False):
        if (rows["verdict"] == "stated").any():
            edges = [_overtakes(tokens, some) for tokens, some in rows.groupby("tokens")]
            yield say(sentences[str(cache)], edges=say("; ").join(edges))


def _overtakes(tokens: Any, rows: pd.DataFrame) -> str:
    stated = rows[rows["verdict"] == "stated"]
    if stated.empty:
        never = (rows["verdict"] == "never").all()
        least, unsure = message("never with {tokens:,}"), message("not certain with {tokens:,}")
        return say(least if never else unsure, tokens=tokens)
    span = say(
        "between {low:percent0} and {high:percent0} with {tokens:,}",
        low=stated["crossover_low"].min(),
        high=stated["crossover_high"].max(),
        tokens=tokens,
    )
    if len(stated) == len(rows):
        return span
    return say("{span} ({of} of {shapes} shapes)", span=span, of=len(stated), shapes=len(rows))


def _tokens(rows: pd.DataFrame) -> list[int]:
    return [int(n) for n in rows["tokens"]]
