"""Several studies as one: models side by side, policies measured on different days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.phrases import phrase
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.layers import records
from sparsity_report.study.schema import OPTIONAL, TABLES, typed

_PASSAGE = ("protocol", "window", "stride", "dtype", "text_fingerprint")
# What tells the rows of a table apart, and which figure of theirs has one value.
_KEYS = {
    "quality": ["variant", *_PASSAGE],
    "patterns": ["variant", "module_name", "parameter", "expert"],
    "continuations": ["variant", "prompt"],
    "tasks": ["variant", "task", "metric", "filter", "n_shot", "samples", "task_version"],
}
_SCORES = {"quality": "nll", "tasks": "value"}
# Processors add up in other orders: scores this close, relative, are one.
_SAME = 1e-3


def combine(*studies: Comparison) -> Comparison:
    """Put the variants of several studies, and what was measured of them, into one study.

    For tables and figures over several models or policies. A variant that occurs in two studies
    with the same weights, policy and counts is kept once, and so is what was measured of it under
    the same protocol; where two scores disagree, the studies are refused. Different variants of one
    name are told apart by their models: ``Dense (opt-125m)``.

    Times of two runs are not comparable, and a part's sensitivity says nothing of another model:
    ``latency`` and ``sensitivity`` are those of the first study that measured them, ``levels``
    those of the first study; ``notes`` say what was left out. ``speedups`` has those of all runs,
    where there are several, each with the reference, control and machine of its own.

    Parameters
    ----------
    *studies : Comparison
        At least one, all counted by one convention and context.

    Returns
    -------
    Comparison

    Raises
    ------
    SparsityReportError
        The studies were counted differently, two different variants of one model have one name, or
        one variant has two scores under one protocol.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> levels = [sr.masked(sr.global_magnitude(weights, share)) for share in (0.3, 0.5)]
    >>> study = sr.combine(*(sr.compare(sr.dense(weights), level) for level in levels))
    >>> study.variants["variant"].tolist()
    ['Dense', 'Masked30', 'Masked50']
    """
    if not studies:
        raise SparsityReportError("nothing to combine: give at least one study")
    first = studies[0]
    for study in studies[1:]:
        for what in ("convention", "context"):
            if (one := getattr(first, what)) != (other := getattr(study, what)):
                raise SparsityReportError(
                    f"the studies were counted with {what}={one!r} and {what}={other!r}: their "
                    "FLOPs and shares differ; count them alike"
                )
    notes = [note for study in studies for note in study.notes]
    renamed = _distinct(studies)
    variants, layers = (
        pd.concat([getattr(study, part) for study in renamed], ignore_index=True)
        for part in ("variants", "layers")
    )
    frames = {part: _present(renamed, part) for part in OPTIONAL}
    if any(len(frames[part]) > 1 for part in ("latency", "sensitivity")):
        notes.append(phrase("note.first_times_kept"))
    return replace(
        first,
        variants=_once(variants, ["variant"]),
        layers=_once(layers, ["variant", "module_name"]),
        patterns=_joined("patterns", frames["patterns"]),
        quality=_joined("quality", frames["quality"]),
        continuations=_joined("continuations", frames["continuations"]),
        tasks=_joined("tasks", frames["tasks"]),
        latency=next(iter(frames["latency"]), None),
        speedups=_speedups(renamed),
        sensitivity=next(iter(frames["sensitivity"]), None),
        notes=tuple(notes),
    )


def _speedups(studies: Sequence[Comparison]) -> pd.DataFrame | None:
    """Return what several measurements gave, numbered in order; None of one."""
    runs: list[pd.DataFrame] = []
    for study in studies:
        if (frame := study.facts.speedups) is None:
            continue
        for _, rows in frame[[*TABLES["speedups"].names]].groupby("measurement"):
            run = typed("speedups", rows.assign(measurement=1).reset_index(drop=True))
            if not any(run.equals(known) for known in runs):  # a study that is there twice
                runs.append(run)
    if len(runs) < 2:
        return None
    numbered = [run.assign(measurement=number) for number, run in enumerate(runs, 1)]
    return typed("speedups", pd.concat(numbered, ignore_index=True))


def _present(studies: Sequence[Comparison], part: str) -> list[pd.DataFrame]:
    return [frame for study in studies if (frame := getattr(study, part)) is not None]


def _once(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the first row of each key."""
    return frame[~frame.duplicated(keys)].reset_index(drop=True)


def _joined(part: str, frames: Sequence[pd.DataFrame]) -> pd.DataFrame | None:
    """Return the rows of frames; what is in several of them has to say the same."""
    if not frames:
        return None
    frame = pd.concat(frames, ignore_index=True)
    keys = _KEYS[part]
    if score := _SCORES.get(part):
        ends = frame.groupby(keys, dropna=False)[score].agg(["min", "max"])
        apart = ends[(ends["max"] - ends["min"]).abs() > _SAME * ends["max"].abs()]
        if len(apart):
            low, high = apart.iloc[0]
            raise SparsityReportError(
                f"{printable(str(apart.index[0][0]))} has two values of {score} under one "
                f"protocol, {low:.6g} and {high:.6g}: leave one of the studies out, or measure anew"
            )
    return typed(part, _once(frame, keys))


def _distinct(studies: Sequence[Comparison]) -> list[Comparison]:
    """Return the studies with names of variants that stand for one thing each."""
    known = [_identities(study) for study in studies]
    meant: dict[str, set[tuple[object, ...]]] = {}
    for identities in known:
        for name, identity in identities.items():
            meant.setdefault(name, set()).add(identity)
    renamed = []
    told = {name: identity for name, (identity, *more) in meant.items() if not more}
    for study, identities in zip(studies, known, strict=True):
        names = {}
        for name, identity in identities.items():
            names[name] = name if len(meant[name]) == 1 else f"{name} ({identity[0]})"
            if told.setdefault(names[name], identity) != identity:
                raise SparsityReportError(
                    f"two different variants are called {printable(names[name])}: give one of them "
                    "another name="
                )
        renamed.append(_renamed(study, names))
    return renamed


def _identities(study: Comparison) -> dict[str, tuple[object, ...]]:
    """Return what each name of a study stands for, its model first."""
    identities: dict[str, tuple[object, ...]] = {}
    for row in records(study.variants.astype(object).where(study.variants.notna(), None)):
        left = study.facts.layers(row["variant"])["nonzero"].astype("Int64").fillna(-1)
        how = (row[key] for key in ("fingerprint", "layout", "method", "pruned", "threshold"))
        identities[row["variant"]] = (row["model"], *how, tuple(left))
    # Levels that were scored and are not compared.
    for row in [] if study.quality is None else records(study.quality):
        scored = (row["model"], row["layout"], row["method"], row["sparsity"])
        identities.setdefault(row["variant"], scored)
    return identities


def _renamed(study: Comparison, names: dict[str, str]) -> Comparison:
    keys = ("variant", "against", "control")  # columns that name variants
    if all(name == new for name, new in names.items()):
        return study
    frames = {
        part: frame.assign(**{key: frame[key].map(names) for key in keys if key in frame})
        for part in ("variants", "layers", *OPTIONAL)
        if (frame := getattr(study, part)) is not None
    }
    return replace(study, **frames)
