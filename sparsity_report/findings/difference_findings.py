"""Findings about the difference of two studies: facts, zeros of layers, and measurements."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from sparsity_report.findings.difference import Difference, Match, distinct, variant_facts
from sparsity_report.study.layers import records
from sparsity_report.study.notes import is_edited
from sparsity_report.study.schema import SIDES
from sparsity_report.words.sentences import say

_NAMES = {
    "module": "column.module",
    "convention": "difference.convention",
    "context": "difference.context_length",
}
# Formats of values by fact; numbers and text need none.
_FORMATS = {
    "group": "group", "layout": "layout", "variant": "layout", "method": "method",
    "shape": "shape", "module": "shape", "asked_sparsity": "level",
}  # fmt: skip
# Facts by which two matched variants of different names are compared.
_MATCHED = ("model", "method", "asked_sparsity", "sparsity_prunable", "stored_bytes")


def difference_verdict(difference: Difference) -> list[str]:
    """Return the largest changes of perplexity, size and sparsity: at most two sentences."""
    sentences = [*_quality(difference), *_largest(difference)]
    if difference and not sentences:
        names = [name_of(fact) for fact in dict.fromkeys(difference.changes["what"])]
        key = "difference.other_facts" if difference.matches else "difference.no_common_variant"
        sentences.append(say(key, names=names))
    elif not difference:
        sentences.insert(0, say("difference.none", count=len(difference.after.variants)))
    return sentences[:2]


def _quality(difference: Difference) -> Iterator[str]:
    """Yield the largest relative change of a perplexity."""
    rows = difference.measured[difference.measured["what"] == "perplexity"]
    rows = rows[rows["before"].round(2) != rows["after"].round(2)]
    ratios = (rows["after"] / rows["before"]).astype(float)
    factors = ratios.where(ratios >= 1, 1 / ratios)
    for row in records(rows.loc[factors.nlargest(1).index]):
        yield _perplexity(difference, row)


def _perplexity(difference: Difference, row: Mapping[str, Any]) -> str:
    """Return the change of a perplexity with its interval, or why it has none."""
    old, new = (round(row[side], 2) for side in SIDES)
    rises = new > old
    before, after = measured_sides(difference, row)
    guesses = [
        size and score >= size for score, size in (s.values["value"] for s in (before, after))
    ]
    name = Match(row["variant_before"], row["variant_after"]).name
    sides = {"name": name, "text": row["of"], "before": before, "after": after}
    if new == old or all(guesses):
        return say("difference.perplexity_same", **sides)
    ends = {"low": row["change_low"], "high": row["change_high"]}
    if pd.isna(row["change_low"]):
        key = "difference.perplexity_rises" if rises else "difference.perplexity_falls"
        reason = say(f"unpaired.{row['unpaired']}")
        return say("difference.perplexity_unpaired", claim=say(key, **sides), reason=reason)
    if not row["apart"]:
        return say("difference.perplexity_unclear", **sides, **ends)
    key = "difference.perplexity_rises_apart" if rises else "difference.perplexity_falls_apart"
    return say(key, **sides, **ends)


def _largest(difference: Difference) -> Iterator[str]:
    """Yield the largest relative change in bytes, and the largest change in sparsity."""
    old, new = (s.totals.set_index("variant") for s in (difference.before, difference.after))
    for figure, keys, least in (
        ("stored_bytes", ("difference.size_rises", "difference.size_falls"), 0.005),
        ("sparsity_prunable", ("difference.sparsity_rises", "difference.sparsity_falls"), 0.0005),
    ):
        sides = [
            (match.name, old[figure][match.before], new[figure][match.after])
            for match in difference.matches
        ]
        is_size = figure == "stored_bytes"
        moves = [
            ((after - before) / (before if is_size else 1), name, before, after)
            for name, before, after in sides
            if not (pd.isna(before) or pd.isna(after) or (is_size and not before))
        ]
        move, name, before, after = max(moves, key=lambda each: abs(each[0]), default=(0, "", 0, 0))
        if abs(move) >= least:
            key = keys[0] if move > 0 else keys[1]
            yield say(key, name=name, before=before, after=after, share=abs(move))


def difference_findings(difference: Difference) -> list[str]:
    """Return the verdict, and changes of the study, its variants, their layers and modules."""
    topics = difference_topics(difference).values()
    return [*dict.fromkeys(itertools.chain(difference_verdict(difference), *topics))]


def difference_topics(difference: Difference) -> dict[str, list[str]]:
    """Return the changes by topic: the section of a report that states them."""
    changes, layers = difference.changes, distinct(difference.matches, difference.moved)
    in_module = changes["module_name"].notna()
    return {
        "totals": [*_edited(difference), *_facts(changes[~in_module], difference)],
        "moved": [
            finding for match in layers for finding in _layers(match, match.rows(difference.moved))
        ],
        "measured": [
            finding
            for match in difference.matches
            for row in records(match.rows(difference.measured))
            for finding in _measurement(match, row, difference)
        ],
        "modules": [
            finding
            for variant, rows in changes[in_module].groupby("variant", sort=False)
            for finding in _modules(str(variant), rows)
        ],
    }


def _edited(difference: Difference) -> Iterator[str]:
    if is_edited(difference.before.notes):
        yield say("difference.before_edited")
    if is_edited(difference.after.notes):
        yield say("difference.after_edited")


def _facts(changes: pd.DataFrame, difference: Difference) -> Iterator[str]:
    """Yield changes of the study and of its variants."""
    is_variant = changes["what"] == "variant"
    yield from _variants(records(changes[is_variant]), difference)
    for row in records(changes[~is_variant]):
        owner = row["variant"] or say("difference.study")
        yield _change(owner, row["what"], row["before"], row["after"])
    for match in difference.matches:
        if difference and match.renamed:
            yield from _matched(match, difference)


def name_of(fact: str) -> str:
    """Return the name of a fact: a column, or a property of the study."""
    return say(_NAMES[fact]) if fact in _NAMES else say("format.column_title", name=fact)


def format_of(fact: str, *values: Any) -> str:
    """Return the format of a fact's values in the catalogue."""
    if fact in _FORMATS or fact.startswith("sparsity"):
        return _FORMATS.get(fact, "percent2")
    if any(isinstance(value, bool) for value in values):
        return "yes_no"
    return ".6g" if any(isinstance(value, float) for value in values) else ","


def measured_sides(difference: Difference, row: Mapping[str, Any]) -> list[str]:
    """Return a measurement before and after: perplexities, or speed-ups with their intervals."""
    if row["what"] == "perplexity":
        studies = {"before": difference.before, "after": difference.after}
        return [
            say(
                "format.value",
                value=(row[side], study.facts.vocabulary(row[f"variant_{side}"])),
                format="perplexity2",
            )
            for side, study in studies.items()
        ]
    spans = ((row[side], row[f"{side}_low"], row[f"{side}_high"]) for side in SIDES)
    return [say("format.ratio_interval", ratio=r, low=low, high=high) for r, low, high in spans]


def _change(owner: str, fact: str, before: Any, after: Any) -> str:
    return say("difference.changed_value", of=owner, **_values(fact, before, after))


def _values(fact: str, before: Any, after: Any) -> dict[str, Any]:
    values = {"before": before, "after": after, "format": format_of(fact, before, after)}
    return {"what": name_of(fact), **values}


def _variants(rows: list[dict[str, Any]], difference: Difference) -> Iterator[str]:
    """Yield the variants that only one of the studies has."""
    matched = {name for match in difference.matches for name in match}
    sides = {"before": "difference.variants_removed", "after": "difference.variants_added"}
    for side, key in sides.items():
        variants = [
            say("difference.variant_layout", variant=row["variant"], layout=row[side])
            for row in rows
            if row[side] and row["variant"] not in matched
        ]
        if variants:
            yield say(key, variants=variants)


def _matched(match: Match, difference: Difference) -> Iterator[str]:
    """Yield the differences between two matched variants of different names."""
    sides = zip(map(variant_facts, (difference.before, difference.after)), match, strict=True)
    before, after = (records(facts[facts["variant"] == name])[0] for facts, name in sides)
    changes = [
        _change(match.name, fact, before[fact], after[fact])
        for fact in _MATCHED
        if before[fact] != after[fact] and not (pd.isna(before[fact]) and pd.isna(after[fact]))
    ]
    yield from changes or [say("difference.matched_variants", **match._asdict())]


def _layers(match: Match, rows: pd.DataFrame) -> Iterator[str]:
    changed = rows[rows["zeros_before"] != rows["zeros_after"]]
    if changed.empty:
        if match.renamed and len(rows):
            yield say("difference.layer_zeros_unchanged", name=match.name)
        return
    ranked = records(changed.sort_values("moved", key=abs, ascending=False, kind="stable"))
    most, least = ranked[0], ranked[-1]
    moved = {"more": int((changed["moved"] > 0).sum()), "fewer": int((changed["moved"] < 0).sum())}
    largest = {"name": match.name, "all": len(rows), **moved, **_layer(most)}
    yield say("difference.layer_sparsity_largest", **largest)
    if round(100 * most["moved"], 1) != round(100 * least["moved"], 1):
        yield say("difference.layer_sparsity_smallest", name=match.name, **_layer(least))


def _layer(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "module": row["module_name"],
        "before": row["sparsity_before"],
        "after": row["sparsity_after"],
        "points": row["moved"],
    }


def _measurement(match: Match, row: Mapping[str, Any], difference: Difference) -> Iterator[str]:
    """Yield a measurement of matched variants if it differs, or if their names differ."""
    before, after = measured_sides(difference, row)
    sides = {"name": match.name, "before": before, "after": after}
    if row["what"] == "perplexity":
        if match.renamed or round(row["before"], 2) != round(row["after"], 2):
            yield _perplexity(difference, row)
    elif row["apart"] or match.renamed:
        key = "difference.speed_up" if row["apart"] else "difference.speed_up_within_noise"
        yield say(key, base=difference.speed_base, tokens=int(row["of"]), **sides)


def _modules(variant: str, changes: pd.DataFrame) -> Iterator[str]:
    is_module = changes["what"] == "module"
    sides = {"difference.modules_removed": "after", "difference.modules_added": "before"}
    for key, missing in sides.items():
        if names := changes.loc[is_module & changes[missing].isna(), "module_name"].tolist():
            yield say(key, variant=variant, names=names)
    for fact, rows in changes[~is_module].groupby("what", sort=False):
        first = records(rows)[0]
        values = _values(str(fact), first["before"], first["after"])
        values |= {"variant": variant, "count": len(rows), "module": first["module_name"]}
        yield say("difference.module_values_changed", **values)
