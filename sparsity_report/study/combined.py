"""One study made of several, for tables over models or over policies measured separately."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.protocol_scores import ANY_TOKENIZER
from sparsity_report.study.files.json_files import value_or_saved
from sparsity_report.study.layers import records
from sparsity_report.study.schema import OPTIONAL, TABLES, typed
from sparsity_report.words.sentences import say

# Columns that identify a row of each table; rows that occur in several studies must agree.
_KEYS = {
    "variants": ["variant"],
    "layers": ["variant", "module_name"],
    "quality": ["variant", *ANY_TOKENIZER],
    "patterns": ["variant", "module_name", "parameter", "expert"],
    "entropy": ["variant", "module_name"],
    "cache": ["variant", "cached", "cached_values", "cached_positions"],
    "continuations": ["variant", "prompt", "seed", "temperature", "token_limit"],
    "tasks": ["variant", "task", "metric", "filter", "n_shot", "samples", "task_version"],
}
# Tables of which the first one is kept.
_FIRST = ("latency", "sensitivity")
# Columns with one value per row so identified.
_SCORES = {"quality": "nll", "tasks": "value"}
# Processors add in different orders, so scores that differ by less, relative, are equal.
_SAME = 1e-3


def combine(*studies: Study | str | os.PathLike[str]) -> Study:
    """Combine the variants and measurements of several studies into one study.

    The result serves tables and figures over several models or policies. A variant that occurs in
    two studies with the same weights, policy and counts is kept once, with its scores. Different
    variants of one name get the name of their model: ``Dense (opt-125m)``.

    Times of two runs are not comparable, and a sensitivity is specific to its model. ``latency``
    and ``sensitivity`` are therefore those of the first study that has them, ``levels`` those of
    the first study, and ``notes`` name the omission. ``speedups`` holds the speed-ups of all runs
    if there are several, each with its own reference, control and machine.

    Parameters
    ----------
    *studies : Study or path-like
        At least one study or path of a saved one; all have one convention and context.

    Returns
    -------
    Study
        A new study.

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
        raise SparsityReportError("combine: there are no studies; give at least one")
    read: list[Study] = [value_or_saved("combine", each, Study) for each in studies]
    first = read[0]
    for study in read[1:]:
        for option in ("convention", "context"):
            if (one := getattr(first, option)) != (other := getattr(study, option)):
                raise SparsityReportError(
                    f"combine: the studies have {option}={one!r} and {option}={other!r}, so their "
                    "FLOPs and shares differ; compare with the same options"
                )
    notes = [note for study in read for note in study.notes]
    renamed = _distinct(read)
    runs = {part: _present(renamed, part) for part in _FIRST}
    if any(len(frames) > 1 for frames in runs.values()):
        notes.append(say("note.first_times_kept"))
    tables: dict[str, Any] = {part: _joined(part, _present(renamed, part)) for part in _KEYS}
    tables |= {part: next(iter(frames), None) for part, frames in runs.items()}
    return replace(first, **tables, speedups=_speedups(renamed), notes=tuple(notes))


def _speedups(studies: Sequence[Study]) -> pd.DataFrame | None:
    """Return the speed-ups of several measurements, numbered in order; None for fewer than two."""
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


def _present(studies: Sequence[Study], part: str) -> list[pd.DataFrame]:
    return [frame for study in studies if (frame := getattr(study, part)) is not None]


def _joined(part: str, frames: Sequence[pd.DataFrame]) -> pd.DataFrame | None:
    """Return the first row of each key of a table."""
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
                f"combine: {printable(str(apart.index[0][0]))} has two values of {score} under one "
                f"protocol, {low:.6g} and {high:.6g}; leave one study out or measure again"
            )
    return typed(part, frame.drop_duplicates(keys, ignore_index=True))


def _distinct(studies: Sequence[Study]) -> list[Study]:
    """Return the studies with names of variants that are unique over all of them."""
    known = [_identities(study) for study in studies]
    identities_of: dict[str, set[tuple[object, ...]]] = {}
    for identities in known:
        for name, identity in identities.items():
            identities_of.setdefault(name, set()).add(identity)
    renamed = []
    unique = {name: identity for name, (identity, *more) in identities_of.items() if not more}
    for study, identities in zip(studies, known, strict=True):
        names = {}
        for name, identity in identities.items():
            names[name] = name if len(identities_of[name]) == 1 else f"{name} ({identity[0]})"
            if unique.setdefault(names[name], identity) != identity:
                raise SparsityReportError(
                    f"combine: two different variants are called {printable(names[name])}; give "
                    "one of them another name="
                )
        renamed.append(_renamed(study, names))
    return renamed


def _identities(study: Study) -> dict[str, tuple[object, ...]]:
    """Return the identity of each named variant of a study, beginning with its model."""
    identities: dict[str, tuple[object, ...]] = {}
    for row in records(study.variants.astype(object).where(study.variants.notna(), None)):
        left = study.facts.layers(row["variant"])["nonzero"].astype("Int64").fillna(-1)
        how = (row[key] for key in ("fingerprint", "layout", "method", "pruned", "threshold"))
        identities[row["variant"]] = (row["model"], *how, tuple(left))
    # Levels that were scored but are not variants of the study.
    for row in [] if study.quality is None else records(study.quality):
        scored = (row["model"], row["layout"], row["method"], row["sparsity"])
        identities.setdefault(row["variant"], scored)
    return identities


def _renamed(study: Study, names: dict[str, str]) -> Study:
    keys = ("variant", "against", "control")  # columns that name variants
    if all(name == new for name, new in names.items()):
        return study
    frames = {
        part: frame.assign(**{key: frame[key].map(names) for key in keys if key in frame})
        for part in ("variants", "layers", *OPTIONAL)
        if (frame := getattr(study, part)) is not None
    }
    return replace(study, **frames)
