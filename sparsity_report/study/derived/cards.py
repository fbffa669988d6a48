"""The four large numbers at the head of a report, all of one variant."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sparsity_report.study.derived.facts import Facts
from sparsity_report.study.layers import records


class Card(NamedTuple):
    """One large number.

    Attributes
    ----------
    key : str
        A column of ``study.totals`` (``total``, ``prunable_total``, ``sparsity_prunable``,
        ``stored_bytes``, ``flops_per_token``); ``perplexity``; ``smallest``, the bytes of the
        prunable weights in the smallest lossless layout; or ``speed`` of a whole forward pass.
    value : float or None
        A ratio to the baseline if ``against`` is set; None for a speed within the noise.
    variant : str
        The variant that the number describes, the same for all cards of a study.
    against : str or None
        The baseline of a ratio.
    more : mapping
        Values for the card's note: ``text`` and ``before`` of a perplexity, ``layout``, ``tokens``
        with ``low`` and ``high`` of a speed.
    """

    key: str
    value: float | None
    variant: str
    against: str | None = None
    more: Mapping[str, Any] = {}


def cards(facts: Facts) -> Iterator[Card]:
    """Yield zeros, bytes, quality and time of the headline variant.

    Without a measured quality, the smallest lossless layout replaces it; without a valid time, the
    FLOPs do. Where only the baseline is in the study, the cards are its sizes.
    """
    name, base = facts.headline, facts.baseline
    score = _quality(facts, name)
    if name == base or not facts.total(name, "prunable_total"):
        for key in ("total", "prunable_total", "sparsity_prunable"):
            yield Card(key, facts.total(name, key), name)
        yield score or Card("stored_bytes", facts.total(name, "stored_bytes"), name)
        return
    yield Card("sparsity_prunable", facts.total(name, "sparsity_prunable"), name)
    yield Card("stored_bytes", facts.ratio(name, "stored_bytes"), name, base)
    if first := score or _smallest(facts, name):
        yield first
    flops = Card("flops_per_token", facts.ratio(name, "flops_per_token"), name, base)
    yield _speed(facts, name) or flops


def _quality(facts: Facts, variant: str) -> Card | None:
    if (score := facts.scored(variant)) is None:
        return None
    more = {"text": score.text, "before": score.before}
    return Card("perplexity", score.perplexity, variant, more=more)


def _smallest(facts: Facts, variant: str) -> Card | None:
    if (layout := facts.smallest_layout(variant)) is None:
        return None
    ratio = float(facts.lossless(variant)["ratio"][layout])
    return Card("smallest", ratio, variant, more={"layout": layout})


def _speed(facts: Facts, variant: str) -> Card | None:
    """Return the speed at the smallest number of tokens with a valid time."""
    rows = facts.whole_speeds(variant)
    valid = rows[rows["verdict"].isin(("stated", "noise"))].sort_values("tokens", kind="stable")
    for row in records(valid.head(1)):
        value = row["realised_speedup"] if row["verdict"] == "stated" else None
        ends = {key: row[f"realised_{key}"] for key in ("low", "high")}
        return Card("speed", value, variant, facts.speed_base, {"tokens": row["tokens"], **ends})
    return None
