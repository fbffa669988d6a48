"""What changed between two studies: for a reader, and for a script that must notice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from sparsity_report.findings.layer_changes import (
    Match,
    matches,
    measured_alike,
    moved_layers,
    told,
)
from sparsity_report.hooks import Presentable, hooks
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.files.json_files import read_study
from sparsity_report.study.layers import records
from sparsity_report.study.notes import is_edited
from sparsity_report.study.schema import TABLES
from sparsity_report.words.column_titles import title
from sparsity_report.words.display_names import group_name, layout_name, method_name
from sparsity_report.words.number_format import UNKNOWN, figures, known, shape
from sparsity_report.words.sentences import say

# What a reader wants to know of a variant as a whole.
TOTALS = (
    "sparsity_prunable",
    "sparsity_non_embedding",
    "sparsity_model",
    "total",
    "nonzero",
    "prunable_total",
    "flops_per_token",
    "useful_flops_per_token",
    "stored_bytes",
)
_NAMES = {
    "module": "column.module",
    "convention": "difference.convention",
    "context": "difference.context_length",
}
_WRITTEN: Mapping[str, Callable[[Any], str]] = {
    "group": group_name,
    "layout": layout_name,
    "variant": layout_name,
    "method": method_name,
    **dict.fromkeys(("shape", "module"), partial(shape, space=" ")),
}
# What follows from other columns, and what no count depends on.
_DERIVED = {
    "sparsity", "param_frac", "weight_total", "weight_nonzero", "attention_width", "packing",
    "file_bytes", "expected_rounding_sparsity", "near_zero_share",
}  # fmt: skip
_FACTS, _LAYER_FACTS = (
    [name for name in TABLES[table].names if name not in {"variant", "module_name", *_DERIVED}]
    for table in ("variants", "layers")
)


@dataclass(frozen=True, eq=False, repr=False)
class Difference(Presentable):
    """What changed from one study to another; true where anything did.

    Attributes
    ----------
    changes : pandas.DataFrame
        ``variant, module_name, what, before, after``: one row per fact that changed, of the study
        (no variant), a variant (no module) or a module. ``what`` is the column, or ``variant`` or
        ``module`` for those that only one study has. What was measured is not among them: it
        differs from run to run.
    before, after : Comparison
    matches : tuple of Match
        Which variant became which: by name, else by layout and policy, as Masked30 and Masked90,
        where no other is left that it could be.
    moved : pandas.DataFrame
        ``variant_before, variant_after, module_name, group, weight_total, zeros_before,
        zeros_after, sparsity_before, sparsity_after, moved``: a row per match and prunable layer
        that both have in one shape; ``moved`` is the difference of the shares of zeros.
    measured : pandas.DataFrame
        ``variant_before, variant_after, what, of, before, before_low, before_high, after,
        after_low, after_high, apart``: ``perplexity`` of one text scored in one way, and ``speed``
        (times as fast as the reference of the same study, with 99 % intervals) on one machine,
        where it may be told of both; ``apart`` where the intervals say that it differs.
    """

    changes: pd.DataFrame
    before: Comparison
    after: Comparison
    matches: tuple[Match, ...]
    moved: pd.DataFrame
    measured: pd.DataFrame

    def __bool__(self) -> bool:
        return not self.changes.empty

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """Return what changed, one line each: the study, its variants, layers, then modules."""
        return hooks.sentences(self)

    @property
    def speed_base(self) -> str:
        """What speeds of the study after are against; empty where none was measured."""
        return "" if self.after.latency is None else self.after.facts.speed_base


def difference_sentences(difference: Difference) -> list[str]:
    """Say what changed, one line each: the study, its variants, what moved, then modules."""
    said = []
    if is_edited(difference.before.notes):
        said.append(say("difference.before_edited"))
    if is_edited(difference.after.notes):
        said.append(say("difference.after_edited"))
    moved = told(difference.matches, difference.moved, difference.measured, difference.speed_base)
    if not difference:
        count = len(difference.after.variants)
        none = say("difference.none", count=count)
        return [*said, none, *moved]
    whole = difference.changes["module_name"].isna()
    came = difference.changes["what"] == "variant"
    said += _sentences_of_variants(difference.changes[whole & came], difference.matches)
    said += [_sentence(row) for row in records(difference.changes[whole & ~came])]
    for match in difference.matches:
        if match.renamed:
            said += _sentences_of_match(match, difference.before, difference.after)
    said += moved
    for variant, rows in difference.changes[~whole].groupby("variant", sort=False):
        said += _sentences_of_modules(str(variant), rows)
    return said


def diff(
    before: Comparison | str | os.PathLike[str], after: Comparison | str | os.PathLike[str]
) -> Difference:
    """Compare two studies, whatever the number of their variants.

    Variants are matched by name; those left over by layout and policy, so that Masked30 is compared
    with Masked90, where only one of each is left.

    Parameters
    ----------
    before, after : Comparison, or the path of a saved one

    Returns
    -------
    Difference
        False where both agree in every count; ``print`` it, or see ``changes``, ``moved`` and
        ``measured``.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> studies = [sr.compare(sr.masked(sr.global_magnitude(weights, s), name="M")) for s in (0, 1)]
    >>> changed = sr.diff(*studies)
    >>> bool(changed), bool(sr.diff(studies[0], studies[0]))
    (True, False)
    >>> print(changed.sentences()[0])
    M, asked sparsity: 0 % → 100 %
    """
    one, other = (s if isinstance(s, Comparison) else read_study(s) for s in (before, after))
    columns = ["variant", "module_name", "what", "before", "after"]
    changes = pd.DataFrame(_changes(one, other), columns=columns, dtype=object)
    matched = matches(one, other)
    moved, measured = (of(one, other, matched) for of in (moved_layers, measured_alike))
    return Difference(changes, one, other, matched, moved, measured)


def name_of(what: str) -> str:
    """Return the name of a fact for people."""
    return say(_NAMES[what]) if what in _NAMES else title(what)


def written(what: str, value: Any) -> str:
    """Write a fact for people; what is unknown, or not there, is a dash."""
    if not isinstance(value, tuple) and not known(value):
        return UNKNOWN
    if what in _WRITTEN:
        return _WRITTEN[what](value)
    if what == "asked_sparsity":
        return say("format.level_value", value=value)
    if what.startswith("sparsity"):
        return say("format.percent2_value", value=value)
    if isinstance(value, bool):
        return say("format.yes") if value else say("format.no")
    if isinstance(value, str):
        return value
    return figures(value, ".6g" if isinstance(value, float) else ",")


def _changes(one: Comparison, other: Comparison) -> Iterator[tuple[Any, ...]]:
    for what in ("convention", "context"):
        old, new = getattr(one, what), getattr(other, what)
        if old != new:
            yield (None, None, what, old, new)
    whole = [
        study.variants.merge(study.totals[["variant", *TOTALS]], on="variant")
        for study in (one, other)
    ]
    yield from _of_rows(whole, "variant", "layout", (*_FACTS, *TOTALS))
    both = set(one.variants["variant"]) & set(other.variants["variant"])
    layers = [study.layers[study.layers["variant"].isin(both)] for study in (one, other)]
    yield from _of_rows(layers, "module", "shape", _LAYER_FACTS)


def _of_rows(
    frames: Iterable[pd.DataFrame], kind: str, shown: str, facts: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Compare variants or modules by name; of one that only one side has, `shown` stands for it."""
    old, new = (
        {(row["variant"], row.get("module_name")): row for row in records(frame)}
        for frame in frames
    )
    for key in dict.fromkeys([*old, *new]):
        if key not in new or key not in old:
            yield (*key, kind, *(side[key][shown] if key in side else None for side in (old, new)))
            continue
        for what in facts:
            was, now = (_plain(side[key][what]) for side in (old, new))
            if was != now:
                yield (*key, what, was, now)


def _plain(value: Any) -> Any:
    return None if not isinstance(value, tuple) and pd.isna(value) else value


def _sentences_of_variants(changes: pd.DataFrame, found: Iterable[Match]) -> Iterator[str]:
    """Say which variants only one of the studies has, those of a kind at once."""
    became = {name for match in found if match.renamed for name in match}
    rows = [row for row in records(changes) if row["variant"] not in became]
    for side, one, many in (
        ("before", "difference.variant_removed_one", "difference.variant_removed_many"),
        ("after", "difference.variant_added_one", "difference.variant_added_many"),
    ):
        layouts = {row["variant"]: written("variant", row[side]) for row in rows if row[side]}
        if len(layouts) > 1:
            each = "difference.variant_layout"
            names = [say(each, variant=name, layout=layout) for name, layout in layouts.items()]
            yield say(many, names=names)
        for variant, layout in layouts.items() if len(layouts) == 1 else ():
            yield say(one, variant=variant, layout=layout)


def _sentence(row: dict[str, Any]) -> str:
    before, after = (written(row["what"], row[side]) for side in ("before", "after"))
    return say(
        "difference.changed_value",
        of=say("difference.study") if row["variant"] is None else row["variant"],
        what=name_of(row["what"]),
        before=before,
        after=after,
    )


def _sentences_of_match(match: Match, one: Comparison, other: Comparison) -> Iterator[str]:
    """Say what differs of two variants of two names, each as a whole."""
    rows = [
        {**records(_row(study.variants, name))[0], **records(_row(study.totals, name))[0]}
        for study, name in zip((one, other), match, strict=True)
    ]
    facts = ("model", "method", "asked_sparsity", "sparsity_prunable", "stored_bytes")
    values = {what: tuple(_plain(row[what]) for row in rows) for what in facts}
    changed = {what: pair for what, pair in values.items() if pair[0] != pair[1]}
    for what, (was, now) in changed.items():
        yield _sentence({"variant": match.name, "what": what, "before": was, "after": now})
    if not changed:
        yield say("difference.matched_variants", before=match.before, after=match.after)


def _row(frame: pd.DataFrame, variant: str) -> pd.DataFrame:
    return frame[frame["variant"] == variant]


def _sentences_of_modules(variant: str, changes: pd.DataFrame) -> Iterator[str]:
    whole = changes["what"] == "module"
    for template, side in (
        ("difference.modules_removed", "after"),
        ("difference.modules_added", "before"),
    ):
        if names := changes.loc[whole & changes[side].isna(), "module_name"].tolist():
            yield say(template, variant=variant, names=names)
    for what, rows in changes[~whole].groupby("what", sort=False):
        first = records(rows)[0]
        yield say(
            "difference.module_values_changed",
            variant=variant,
            what=name_of(str(what)),
            count=len(rows),
            module=first["module_name"],
            before=written(str(what), first["before"]),
            after=written(str(what), first["after"]),
        )
