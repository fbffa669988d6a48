"""What changed between two studies: for a reader, and for a script that must notice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sparsity_report.study.layers import LAYER_COLUMNS, records
from sparsity_report.study.study import VARIANT_COLUMNS, Comparison, read_study
from sparsity_report.words.sentences import message, number, percent, say

CHANGE_COLUMNS = ("variant", "module_name", "what", "before", "after")
# What a reader wants to know of a variant as a whole, and how it is written.
TOTALS = {
    "sparsity_prunable": "percent2",
    "sparsity_non_embedding": "percent2",
    "sparsity_model": "percent2",
    "total": ",",
    "nonzero": ",",
    "prunable_total": ",",
    "flops_per_token": ",",
    "useful_flops_per_token": ",",
    "stored_bytes": ",",
}
_NAMES = {
    "sparsity_prunable": message("zeros of the prunable weights"),
    "sparsity_non_embedding": message("zeros of the non-embedding parameters"),
    "sparsity_model": message("zeros of the whole model"),
    "total": message("parameters"),
    "nonzero": message("nonzero"),
    "prunable_total": message("prunable weights"),
    "flops_per_token": message("FLOPs per token"),
    "useful_flops_per_token": message("useful FLOPs per token"),
    "stored_bytes": message("stored bytes"),
    "layout": message("layout"),
    "model": message("model"),
    "source": message("source"),
    "fingerprint": message("fingerprint"),
    "method": message("method"),
    "asked_sparsity": message("asked sparsity"),
    "pruned": message("weights set to zero"),
    "threshold": message("threshold"),
    "shape": message("shape"),
    "group": message("group"),
    "variant": message("variant"),
    "module": message("module"),
}
# What follows from other columns, and what no count depends on.
_DERIVED = {"variant", "module_name", "sparsity", "param_frac", "weight_total", "weight_nonzero"}
_FACTS = [column for column in VARIANT_COLUMNS if column not in {"variant", "attention_width"}]
_LAYER_FACTS = [column for column in LAYER_COLUMNS if column not in _DERIVED]


@dataclass(frozen=True, eq=False)
class Difference:
    """What changed from one study to another; true where anything did.

    Attributes
    ----------
    changes : pandas.DataFrame
        ``variant, module_name, what, before, after``: one row per fact that changed, of the study
        (no variant), a variant (no module) or a module. ``what`` is the column, or ``variant`` or
        ``module`` for those that only one study has. What was measured is not compared: it
        differs from run to run.
    before, after : Comparison
    """

    changes: pd.DataFrame
    before: Comparison
    after: Comparison

    def __bool__(self) -> bool:
        return not self.changes.empty

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """Say what changed, one line each, the study first, then variant by variant."""
        if not self:
            count = len(self.after.variants)
            return [say("No difference: {count:,} variants agree in every count.", count=count)]
        said = []
        whole = self.changes["module_name"].isna()
        for row in records(self.changes[whole]):
            said.append(_said(row))
        inner = self.changes[~whole]
        for variant, own in inner.groupby("variant", sort=False):
            said += _said_of_modules(str(variant), own)
        return said


def diff(
    before: Comparison | str | os.PathLike[str], after: Comparison | str | os.PathLike[str]
) -> Difference:
    """Compare two studies, whatever the number of their variants; variants are matched by name.

    Parameters
    ----------
    before, after : Comparison, or the path of a saved one

    Returns
    -------
    Difference
        False where both agree in every count; ``print`` it, or see ``changes``.

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
    rows = [*_of_study(one, other), *_of_variants(one, other), *_of_modules(one, other)]
    frame = pd.DataFrame(rows, columns=list(CHANGE_COLUMNS), dtype=object)
    return Difference(frame, one, other)


def name_of(what: str) -> str:
    """Return the name of a fact for people."""
    return say(_NAMES[what]) if what in _NAMES else what.replace("_", " ")


def written(what: str, value: Any) -> str:
    """Write a fact for people; what is unknown, or not there, is a dash."""
    if isinstance(value, tuple):
        return " × ".join(str(size) for size in value)
    if value is None or pd.isna(value):
        return "–"
    if what == "asked_sparsity":
        return say("{value:level}", value=value)
    kind = TOTALS.get(what, ".6g" if isinstance(value, float) else ",")
    if kind.startswith("percent"):
        return percent(float(value), int(kind[-1]))
    whole = isinstance(value, bool | str)
    return str(value) if whole else number(value, kind)


def _of_study(one: Comparison, other: Comparison) -> Iterator[tuple[Any, ...]]:
    for what in ("convention", "context"):
        old, new = getattr(one, what), getattr(other, what)
        if old != new:
            yield (None, None, what, old, new)


def _of_variants(one: Comparison, other: Comparison) -> Iterator[tuple[Any, ...]]:
    facts = []
    for study in (one, other):
        merged = study.variants.merge(study.totals[["variant", *TOTALS]], on="variant")
        facts.append({row["variant"]: row for row in records(merged)})
    old, new = facts
    for name in dict.fromkeys([*old, *new]):
        if name not in new or name not in old:
            here = old.get(name, new.get(name, {}))["layout"]
            yield (name, None, "variant", *((here, None) if name in old else (None, here)))
            continue
        for what in (*_FACTS, *TOTALS):
            before, after = (_plain(side[name][what]) for side in (old, new))
            if before != after:
                yield (name, None, what, before, after)


def _of_modules(one: Comparison, other: Comparison) -> Iterator[tuple[Any, ...]]:
    both = set(one.variants["variant"]) & set(other.variants["variant"])
    old, new = (
        {
            (row["variant"], row["module_name"]): row
            for row in records(study.layers[study.layers["variant"].isin(both)])
        }
        for study in (one, other)
    )
    for key in dict.fromkeys([*old, *new]):
        if key not in new or key not in old:
            shape = old.get(key, new.get(key, {}))["shape"]
            yield (*key, "module", *((shape, None) if key in old else (None, shape)))
            continue
        for what in _LAYER_FACTS:
            before, after = (_plain(side[key][what]) for side in (old, new))
            if before != after:
                yield (*key, what, before, after)


def _plain(value: Any) -> Any:
    return None if not isinstance(value, tuple) and pd.isna(value) else value


def _said(row: dict[str, Any]) -> str:
    if row["what"] == "variant":
        gone = message("{variant} ({layout}) is gone")
        come = message("{variant} ({layout}) is new")
        layout = row["before"] or row["after"]
        return say(gone if row["after"] is None else come, variant=row["variant"], layout=layout)
    before, after = written(row["what"], row["before"]), written(row["what"], row["after"])
    of = say("study") if row["variant"] is None else row["variant"]
    return say(
        "{of}, {what}: {before} → {after}",
        of=of,
        what=name_of(row["what"]),
        before=before,
        after=after,
    )


def _said_of_modules(variant: str, own: pd.DataFrame) -> list[str]:
    said = []
    whole = own["what"] == "module"
    for template, part in (
        (message("{variant}, modules gone: {names:some}"), own[whole & own["after"].isna()]),
        (message("{variant}, modules new: {names:some}"), own[whole & own["before"].isna()]),
    ):
        if not part.empty:
            said.append(say(template, variant=variant, names=part["module_name"].tolist()))
    changed = own[~whole]
    for what, part in changed.groupby("what", sort=False):
        row = records(part)[0]
        said.append(
            say(
                "{variant}, {what} of {count:,} modules, first {module}: {before} → {after}",
                variant=variant,
                what=name_of(str(what)),
                count=len(part),
                module=row["module_name"],
                before=written(str(what), row["before"]),
                after=written(str(what), row["after"]),
            )
        )
    return said
