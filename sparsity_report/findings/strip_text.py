"""Texts of the figures at the head of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from sparsity_report.study.derived.facts import Facts
from sparsity_report.study.derived.strip import Tile, strip
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.number_format import (
    percent,
    perplexity,
    quantities,
    times,
    unit_once,
)
from sparsity_report.words.sentences import say

# Numbers of speeds that are not stated, by reason.
_SPEEDS = {
    "noise": "strip.no_difference",
    "same": "strip.same_kernels",
    "unmeasured": "strip.not_measured",
}


def strip_texts(facts: Facts) -> list[dict[str, str]]:
    """Return ``title``, ``number`` and ``note`` of each figure, see :mod:`.strip`."""
    return [
        {"title": _title(tile), "number": _number(tile), "note": _note(tile, facts)}
        for tile in strip(facts)
    ]


def _title(tile: Tile) -> str:
    layout = tile.more.get("layout") or "dense"
    if tile.key == "size" and layout != "dense":
        return say("strip.size_as", layout=layout_name(layout))
    return say(f"strip.{tile.key}")


def _number(tile: Tile) -> str:
    """Return ``before → after``, a range for several prunings, or why there is none."""
    if tile.key == "speed":
        reason = tile.more["reason"]
        return times(tile.after[0]) if tile.after else say(_SPEEDS.get(reason, "strip.unsound"))
    if not tile.after:
        if tile.key != "quality":
            return say("strip.unknown")
        is_open = tile.more["reason"] == "strip.run_perplexity"
        return say("strip.not_measured" if is_open else "strip.none")
    known = [] if tile.before is None else [tile.before]
    texts = _write(tile, [*known, *dict.fromkeys(tile.after)])
    before, after = texts[: len(known)], [*dict.fromkeys(texts[len(known) :])]
    if "note" in tile.more and before == after:
        before = []
    (low, *_), high = unit_once(after), after[-1]
    number = f"{low}–{high}" if high[0].isdigit() else say("format.range", low=low, high=high)
    return " → ".join([*before, high if len(after) == 1 else number])


def _write(tile: Tile, values: Sequence[float]) -> list[str]:
    if tile.key == "perplexity":
        return [perplexity((value, tile.more["vocabulary"])) for value in values]
    if tile.key in {"accuracy", "zeros", "revived", "merge_fills"}:
        return [*map(percent, values)]
    return quantities(values, "B" if tile.key == "size" else "")


def _note(tile: Tile, facts: Facts) -> str:
    """Return the denominator, the conditions, or the option that measures the figure."""
    more: Mapping[str, Any] = tile.more
    if "note" in more:
        return say(more["note"], **more)
    if tile.key == "quality":
        return say(more["reason"])
    if tile.key == "perplexity":
        text = more["text"], more["text_fingerprint"]
        key = "strip.perplexity_note" if more["model"] is None else "strip.perplexity_of_model_note"
        return say(key, model=more["model"], text=text, window=more["window"])
    if tile.key == "speed":
        return say(f"speed_reason.{more['reason']}", **more)
    if tile.key == "size":
        variant = next(iter(facts.contenders), facts.headline)
        unpacked = facts.unpacked_dtypes(variant)
        if more.get("layout") == "file":
            return say("strip.of_model")
        key = "strip.size_unpacked_note" if unpacked else "strip.size_from_dense_note"
        key = "strip.size_note" if tile.before is None else key
        dtypes = unpacked or facts.dtypes(variant)[:1]
        return say(key, dtypes=dtypes) if dtypes else ""
    if tile.key == "useful_flops" and more["performed"]:
        return say("strip.useful_flops_note", **more)
    return ""
