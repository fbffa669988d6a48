"""The four large numbers that people look for first, all of one variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import pandas as pd

from sparsity_report.study.derived.perplexity import Scored
from sparsity_report.study.layers import records


class Card(NamedTuple):
    """One large number.

    Attributes
    ----------
    key : str
        ``total``, ``prunable_total``, ``sparsity_prunable``, ``stored_bytes``,
        ``flops_per_token``: a column of ``study.totals``; ``perplexity``; ``smallest``: bytes of
        the prunable weights in the smallest lossless layout; ``speed``: of a whole forward pass.
    value : float or None
        Divided by the baseline's where ``against`` says so; of speed None within the noise.
    variant : str
        Whose it is; all cards of a study are of the same one.
    against : str or None
        The baseline, where the value is a ratio.
    more : mapping
        What else its note tells: ``text`` and ``before`` of a perplexity, ``layout``, ``tokens``
        with ``low`` and ``high`` of a speed.
    """

    key: str
    value: float | None
    variant: str
    against: str | None = None
    more: Mapping[str, Any] = {}


class Figures(Protocol):
    """What cards are made of; ``study.facts`` are such."""

    @property
    def baseline(self) -> str:
        """The variant others are compared with."""
        ...

    @property
    def headline(self) -> str:
        """The variant that cards are of."""
        ...

    @property
    def speed_base(self) -> str:
        """The variant that speeds are against."""
        ...

    def total(self, variant: str, column: str) -> float | None:
        """Return a figure of ``study.totals``."""
        ...

    def ratio(self, variant: str, column: str) -> float | None:
        """Return a figure ÷ the baseline's."""
        ...

    def scored(self, variant: str) -> Scored | None:
        """Return a perplexity beside the baseline's."""
        ...

    def smallest_layout(self, variant: str) -> str | None:
        """Return the lossless layout of the fewest bytes."""
        ...

    def lossless(self, variant: str) -> pd.DataFrame:
        """Return the bytes of lossless layouts."""
        ...

    def whole_speeds(self, variant: str) -> pd.DataFrame:
        """Return the speeds of whole forward passes."""
        ...


def cards(facts: Figures) -> Iterator[Card]:
    """Yield zeros, bytes, quality and time of the headline variant, as far as they are known.

    Where quality was not measured the smallest lossless layout stands in its place, where no time
    may be told the FLOPs. Of a study of nothing but the baseline they are its sizes.
    """
    name, base = facts.headline, facts.baseline
    score, smallest = _quality(facts, name), _smallest(facts, name)
    if name == base or not facts.total(name, "prunable_total"):
        for key in ("total", "prunable_total", "sparsity_prunable"):
            yield Card(key, facts.total(name, key), name)
        yield score or Card("stored_bytes", facts.total(name, "stored_bytes"), name)
        return
    yield Card("sparsity_prunable", facts.total(name, "sparsity_prunable"), name)
    yield Card("stored_bytes", facts.ratio(name, "stored_bytes"), name, base)
    if first := score or smallest:
        yield first
    yield _speed(facts, name) or Card(
        "flops_per_token", facts.ratio(name, "flops_per_token"), name, base
    )


def _quality(facts: Figures, variant: str) -> Card | None:
    if (score := facts.scored(variant)) is None:
        return None
    more = {"text": score.text, "before": score.before}
    return Card("perplexity", score.perplexity, variant, more=more)


def _smallest(facts: Figures, variant: str) -> Card | None:
    if (layout := facts.smallest_layout(variant)) is None:
        return None
    ratio = float(facts.lossless(variant)["ratio"][layout])
    return Card("smallest", ratio, variant, more={"layout": layout})


def _speed(facts: Figures, variant: str) -> Card | None:
    """Of several numbers of tokens at a time the fewest of which the clock may tell."""
    rows = facts.whole_speeds(variant)
    told = rows[rows["verdict"].isin(("stated", "noise"))].sort_values("tokens", kind="stable")
    for row in records(told.head(1)):
        value = row["realised_speedup"] if row["verdict"] == "stated" else None
        more = {key: row[f"realised_{key}"] for key in ("low", "high")}
        return Card("speed", value, variant, facts.speed_base, {"tokens": row["tokens"], **more})
    return None
