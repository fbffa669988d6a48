"""Figures of a study or a pair as flat metrics for experiment trackers.

Names have ASCII letters, digits, ``_``, ``.``, ``-`` and ``/``, at most 250 in all. MLflow,
TensorBoard, W&B and trackio keep such names as they are.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from sparsity_report.study.layers import records

if TYPE_CHECKING:
    import pandas as pd

    from sparsity_report.study.derived.facts import Facts

# Most letters of a part of a name; a name has at most five parts.
_LETTERS = 45
_OTHERS = re.compile(r"[^A-Za-z0-9_.-]+")
_TOTALS = {
    "sparsity/prunable": "sparsity_prunable",
    "sparsity/non_embedding": "sparsity_non_embedding",
    "sparsity/model": "sparsity_model",
    "parameters/total": "total",
    "parameters/nonzero": "nonzero",
    "parameters/active": "active_total",
    "bytes/stored": "stored_bytes",
    "bytes/file": "file_bytes",
    "flops/per_token": "flops_per_token",
    "flops/useful_per_token": "useful_flops_per_token",
}
_QUALITY = ("perplexity", "nll", "top1", "kl", "agreement", "flips")
_SURVIVAL = ("zeros_before", "zeros_after", "kept", "revived", "new", "kept_share", "iou")
# Parts of a name, and a value.
_Metric: TypeAlias = tuple[tuple[object, ...], Any]


def study_metrics(facts: Facts) -> dict[str, float]:
    """Return sums, scores and sound measurements of each variant."""
    return _flat(_study_figures(facts))


def pair_metrics(
    sparsities: pd.DataFrame, totals: pd.DataFrame, survival: pd.DataFrame
) -> dict[str, float]:
    """Return sparsities, sums and the fate of zeros, from the tables of a pair."""
    figures: list[_Metric] = []
    for row in records(sparsities):
        for column in ("sparsity_before", "sparsity_itself", "gone_of_base"):
            name = column.removeprefix("sparsity_")
            figures.append((("sparsity", row["of"], name), row[column]))
    for row in records(totals):
        for column in ("before", "after", "removed", "share"):
            figures.append(((row["figure"], column), row[column]))
    everywhere = records(survival)[0]
    for column in _SURVIVAL:
        figures.append((("zeros", column.removeprefix("zeros_")), everywhere[column]))
    return _flat(figures)


def _study_figures(facts: Facts) -> Iterator[_Metric]:
    study = facts.study
    for row in records(study.totals):
        variant = row["variant"]
        for name, column in _TOTALS.items():
            yield (variant, *name.split("/")), row[column]
        yield (variant, "bytes", "stored_ratio"), facts.ratio(variant, "stored_bytes")
        # Speeds within timing noise are not stated.
        speeds = facts.whole_speeds(variant)
        for timed in records(speeds[speeds["verdict"] == "stated"]):
            name = f"{timed['tokens']}_tokens"
            yield (
                (variant, "speedup", name, timed.get("cache") or "model"),
                timed["realised_speedup"],
            )
    for row in records(study.groups):
        yield (row["variant"], "sparsity", "group", row["group"]), row["sparsity"]
    for row in _rows(study.quality):
        for column in _QUALITY:
            name = f"{row['protocol']}_{row['window']}_{row['stride']}"
            yield (row["variant"], column, row["text"], name), row[column]
    for row in _rows(study.tasks):
        score = (row["metric"], row["filter"]) if row["filter"] else (row["metric"],)
        yield (row["variant"], "tasks", row["task"], *score), row["value"]


def _rows(frame: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if frame is None else records(frame)


def _flat(figures: Iterable[_Metric]) -> dict[str, float]:
    """Return figures by name, without those that are unknown, not finite or ambiguous."""
    values: dict[tuple[object, ...], set[float]] = {}
    for parts, value in figures:
        if _is_known(value):
            values.setdefault(parts, set()).add(float(value))
    known = {parts: value for parts, (value, *others) in values.items() if not others}
    names = _distinct({str(part) for parts in known for part in parts})
    return {"/".join(names[str(part)] for part in parts): value for parts, value in known.items()}


def _is_known(value: Any) -> bool:
    try:
        return value is not None and math.isfinite(value)
    except TypeError:  # pandas' missing value
        return False


def _distinct(names: Iterable[str]) -> Mapping[str, str]:
    """Return a safe text for each name; names that would share one end in a digest.

    Examples
    --------
    >>> [*_distinct(["2:4", "Dense", "../etc"]).values()]
    ['Dense', '_etc', '2_4']
    """
    texts: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (_clean(name) != name, name)):
        text = clean = _clean(name)
        while text in texts.values():
            digest = hashlib.sha256(f"{name}\n{text}".encode(errors="replace")).hexdigest()
            text = f"{clean[: _LETTERS - 9]}-{digest[:8]}"
        texts[name] = text
    return texts


def _clean(name: str) -> str:
    return _OTHERS.sub("_", name).strip(".")[:_LETTERS] or "_"
