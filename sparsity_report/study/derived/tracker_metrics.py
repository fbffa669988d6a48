"""Figures of a study as flat metrics for experiment trackers.

Names have ASCII letters, digits, ``_``, ``.``, ``-`` and ``/``, at most 250 in all. MLflow,
TensorBoard, W&B and trackio keep such names as they are.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from sparsity_report.study.layers import records
from sparsity_report.study.schema import DENOMINATORS

if TYPE_CHECKING:
    from sparsity_report.study.derived.facts import Facts

# Most letters of a part of a name; a name has at most five parts.
_LETTERS = 45
_OTHERS = re.compile(r"[^A-Za-z0-9_.-]+")
# Columns by name of a metric; braces hold cells of the same row.
_TOTALS = {
    **{f"{{variant}}/sparsity/{part}": f"sparsity_{part}" for part in DENOMINATORS},
    "{variant}/parameters/total": "total",
    "{variant}/parameters/nonzero": "nonzero",
    "{variant}/parameters/active": "active_total",
    "{variant}/bytes/stored": "stored_bytes",
    "{variant}/bytes/stored_ratio": "stored_ratio",
    "{variant}/bytes/file": "file_bytes",
    "{variant}/flops/performed_per_token": "flops_per_token",
    "{variant}/flops/useful_per_token": "useful_flops_per_token",
}
_SPEEDS = {"{variant}/speedup/{tokens}_tokens/{cache}": "realised_speedup"}
_GROUPS = {"{variant}/sparsity/group/{group}": "sparsity"}
_QUALITY = {
    f"{{variant}}/{column}/{{text}}/{{protocol}}_{{window}}_{{stride}}": column
    for column in ("perplexity", "nll", "top1", "kl", "agreement", "flips")
}
_TASKS = {"{variant}/tasks/{task}/{metric}/{filter}": "value"}
_CHANGES = {f"{{figure}}/{column}": column for column in ("before", "after", "removed", "share")}
_SURVIVAL = {
    f"zeros/{column.removeprefix('zeros_')}": column
    for column in ("zeros_before", "zeros_after", "kept", "revived", "new", "kept_share", "iou")
}
_HISTORY = {
    **{f"zeros/{name}": name for name in ("kept", "revived", "new", "filled", "kept_share")},
    **{f"sparsity/{part}": f"sparsity_{part}" for part in DENOMINATORS},
}
_HISTORY_GROUPS = {"zeros/group/{group}/kept_share": "kept_share"}
# Parts of a name, and a value.
_Metric: TypeAlias = tuple[tuple[str, ...], Any]


def study_metrics(facts: Facts) -> dict[str, float]:
    """Return sums, scores and sound measurements of each variant, and what two models differ in."""
    study, speeds = facts.study, facts.speeds
    ratios: Any = [facts.ratio(variant, "stored_bytes") for variant in study.totals["variant"]]
    figures = [
        *_figures(study.totals.assign(stored_ratio=ratios), _TOTALS),
        *_figures(study.groups, _GROUPS),
        *_figures(study.quality, _QUALITY),
        *_figures(study.tasks, _TASKS),
        *((("sparsity", part, "gone_of_base"), share) for part, share in facts.base_shares.items()),
    ]
    if study.survival is not None and study.changes is not None:
        figures += _figures(study.changes[study.changes["group"].isna()], _CHANGES)
        figures += _figures(study.survival.head(1), _SURVIVAL)
    if speeds is not None:
        # Speeds within timing noise are not stated.
        stated = speeds[(speeds["scope"] == "model") & (speeds["verdict"] == "stated")]
        figures += _figures(stated.assign(cache=stated["cache"].fillna("model")), _SPEEDS)
    return _flat(figures)


def history_metrics(totals: pd.DataFrame, groups: pd.DataFrame) -> dict[str, float]:
    """Return the last row of the totals of a history, and those of its groups."""
    last = totals.tail(1), groups[groups["step"] == groups["step"].max()]
    return _flat([*_figures(last[0], _HISTORY), *_figures(last[1], _HISTORY_GROUPS)])


def _figures(frame: pd.DataFrame | None, columns: Mapping[str, str]) -> Iterator[_Metric]:
    """Yield the figures of each row; an unknown cell leaves its part of a name out."""
    for row in [] if frame is None else records(frame):
        texts = {key: "" if value is None else value for key, value in row.items()}
        for name, column in columns.items():
            parts = (part.format_map(texts) for part in name.split("/"))
            yield tuple(filter(None, parts)), row[column]


def _flat(figures: Iterable[_Metric]) -> dict[str, float]:
    """Return figures by name, without those that are unknown, not finite or ambiguous."""
    values: dict[tuple[str, ...], set[float]] = {}
    for parts, value in figures:
        if bool(pd.notna(value)) and math.isfinite(value):
            values.setdefault(parts, set()).add(float(value))
    known = {parts: value for parts, (value, *others) in values.items() if not others}
    names = _distinct({part for parts in known for part in parts})
    return {"/".join(names[part] for part in parts): value for parts, value in known.items()}


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
