"""The large numbers at the top of a report on a study."""

from sparsity_report.report.sections import card
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.cards import Card
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.number_format import figures, percent, scaled, times
from sparsity_report.words.sentences import say

_PERPLEXITY = ",.2f"
# Title and note of each card.
_TEXTS = {
    "total": ("metric.parameters", "card.of_variant"),
    "prunable_total": ("card.prunable_weights", "card.of_variant"),
    "sparsity_prunable": ("metric.zeros", "card.of_prunable_variant"),
    "stored_bytes": ("metric.stored_bytes", "card.of_model_variant"),
    "perplexity": ("card.perplexity", "card.perplexity_variant_text"),
    "smallest": ("card.smallest_lossless_layout", "card.layout_prunable_to_dense"),
    "speed": ("label.times_as_fast", "card.speedup_interval"),
    "flops_per_token": ("metric.flops_per_token", "card.flops_ratio_counted"),
}
# Notes where the baseline is packed.
_PACKED = {
    "total": "card.parameters_bits_per_weight",
    "stored_bytes": "card.model_bytes_ratio_unpacked",
    "smallest": "card.layout_prunable_to_unpacked",
}


def study_cards(study: Comparison) -> list[dict[str, str]]:
    """Return each large number with its title and its note: denominator and variant."""
    return [card(say(_TEXTS[c.key][0]), _number(c), _note(study, c)) for c in study.cards]


def _number(shown: Card) -> str:
    if shown.key == "speed" and shown.value is None:
        return say("card.speed_no_difference")
    if shown.key == "perplexity":
        return figures(shown.value, _PERPLEXITY)
    if shown.against or shown.key == "smallest":
        return times(shown.value)
    if shown.key.startswith("sparsity"):
        return percent(shown.value)
    return scaled(shown.value, "B" if shown.key == "stored_bytes" else "")


def _note(study: Comparison, shown: Card) -> str:
    facts, values = study.facts, dict(shown.more)
    note = _TEXTS[shown.key][1]
    dtypes = facts.unpacked_dtypes(facts.baseline) if shown.key in _PACKED else None
    if shown.key == "stored_bytes" and shown.against:
        note = _PACKED[shown.key] if dtypes else "card.model_bytes_ratio"
    elif dtypes and shown.key != "stored_bytes":
        note = _PACKED[shown.key]
    elif values.get("before") is not None:
        note = "card.perplexity_before"
    if shown.key == "smallest":
        values["layout"] = layout_name(values["layout"])
    elif shown.key == "speed":
        values["tokens"] = say("format.token_count", tokens=int(values["tokens"]))
    elif shown.key == "perplexity":
        values["text"] = short_name(values["text"])
        values["before"] = figures(values.get("before"), _PERPLEXITY)
    return say(
        note,
        variant=short_name(shown.variant),
        against=short_name(shown.against or facts.baseline),
        dtypes=dtypes,
        bits=facts.bits_per_weight(shown.variant) if dtypes else None,
        **values,
    )
