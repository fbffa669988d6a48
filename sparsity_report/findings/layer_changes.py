"""What moved between two studies: zeros layer by layer, and what was measured alike in both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.n_m_patterns import without_numbers
from sparsity_report.findings.speed_findings import with_intervals
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.perplexity import ALIKE
from sparsity_report.study.derived.speedups import TOLERANCE
from sparsity_report.study.layers import records
from sparsity_report.words.number_format import figures, points
from sparsity_report.words.sentences import say

# In what two measurements of a speed agree that may be compared.
_TIMED = ["tokens", "cache", "dtype", "threads", "machine"]
_SIDES = ("before", "after")
LAYERS = (
    "variant_before", "variant_after", "module_name", "group", "weight_total", "zeros_before",
    "zeros_after", "sparsity_before", "sparsity_after", "moved",
)  # fmt: skip
MEASURED = (
    "variant_before", "variant_after", "what", "of", "before", "before_low", "before_high",
    "after", "after_low", "after_high", "apart",
)  # fmt: skip


class Match(NamedTuple):
    """A variant of the study before, and the one of the study after that it became."""

    before: str
    after: str

    @property
    def renamed(self) -> bool:
        """Whether they have two names, as those of two levels do."""
        return self.before != self.after

    @property
    def name(self) -> str:
        """Both names, or the one that both have."""
        return f"{self.before} → {self.after}" if self.renamed else self.after


def matches(one: Comparison, other: Comparison) -> tuple[Match, ...]:
    """Match variants by name; those left by layout and policy, where only one of each is left.

    Where several are left that could be matched, none is: which of them became which is not known.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> studies = [sr.compare(sr.masked(sr.global_magnitude(weights, s))) for s in (0.3, 0.9)]
    >>> matches(*studies)[0].name
    'Masked30 → Masked90'
    """
    left = [records(study.variants) for study in (one, other)]
    names = [{row["variant"] for row in rows} for rows in left]
    found = [Match(name, name) for name in one.variants["variant"] if name in names[1]]
    left = [
        [row for row in rows if row["variant"] not in there]
        for rows, there in zip(left, reversed(names), strict=True)
    ]
    keys: tuple[Callable[[dict[str, Any]], Any], ...] = (_made, lambda row: row["layout"])
    for key in keys:
        sides = [[(key(row), row["variant"]) for row in rows] for rows in left]
        for kind in dict.fromkeys(kind for kind, _ in sides[0]):
            same = [[name for of, name in side if of == kind] for side in sides]
            if [len(side) for side in same] == [1, 1]:
                found.append(Match(same[0][0], same[1][0]))
        taken = {name for match in found for name in match}
        left = [[row for row in rows if row["variant"] not in taken] for rows in left]
    return tuple(found)


def _made(row: dict[str, Any]) -> tuple[str, str]:
    """Return a variant's layout and its policy, whatever the level."""
    rule = (row["method"] or "").partition(" in ")[0]
    return row["layout"], without_numbers(rule)


def moved_layers(one: Comparison, other: Comparison, matched: Sequence[Match]) -> pd.DataFrame:
    """Return zeros of each prunable layer that both variants of a match have in one shape."""
    parts = []
    for match in matched:
        sides = [
            study.facts.prunable(name)[["module_name", "group", "shape", "weight_total",
                                        "weight_nonzero", "share"]]
            for study, name in zip((one, other), match, strict=True)
        ]  # fmt: skip
        both = sides[0].merge(sides[1], on=["module_name", "shape", "weight_total"],
                              suffixes=("_before", "_after"))  # fmt: skip
        parts.append(
            pd.DataFrame(
                {
                    "variant_before": match.before,
                    "variant_after": match.after,
                    "module_name": both["module_name"],
                    "group": both["group_after"],
                    "weight_total": both["weight_total"],
                    **{
                        f"zeros_{side}": both["weight_total"] - both[f"weight_nonzero_{side}"]
                        for side in _SIDES
                    },
                    **{f"sparsity_{side}": both[f"share_{side}"] for side in _SIDES},
                    "moved": both["share_after"] - both["share_before"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*LAYERS])


def measured_alike(one: Comparison, other: Comparison, matched: Sequence[Match]) -> pd.DataFrame:
    """Return what was measured of both variants of a match in one way.

    ``apart`` says of speeds whether they may be told apart: their 99 % intervals do not meet, not
    even where both are widened by as much as the same kernel, timed twice, differed.
    """
    rows = [
        {"variant_before": match.before, "variant_after": match.after, **row}
        for match in matched
        for row in (*_perplexities(one, other, match), *_speeds(one, other, match))
    ]
    return pd.DataFrame(rows, columns=[*MEASURED])


def _perplexities(one: Comparison, other: Comparison, match: Match) -> Iterator[dict[str, Any]]:
    if one.quality is None or other.quality is None:
        return
    sides = [
        frame[(frame["variant"] == name) & frame["perplexity"].notna()]
        .astype(dict.fromkeys(ALIKE, object))
        .drop_duplicates(ALIKE)[[*ALIKE, "perplexity"]]
        for frame, name in zip((one.quality, other.quality), match, strict=True)
    ]
    for row in records(sides[0].merge(sides[1], on=ALIKE, suffixes=("_before", "_after"))):
        before, after = row["perplexity_before"], row["perplexity_after"]
        yield {"what": "perplexity", "of": row["text"], "before": before, "after": after}


def _speeds(one: Comparison, other: Comparison, match: Match) -> Iterator[dict[str, Any]]:
    studies = (one, other)
    if any(study.facts.speeds is None for study in studies):
        return
    if one.facts.speed_base != other.facts.speed_base:
        return
    rows = [
        study.facts.whole_speeds(name).query("verdict == 'stated'")
        for study, name in zip(studies, match, strict=True)
    ]
    sides = [side.astype(dict.fromkeys(_TIMED, object)) for side in rows]
    for row in records(sides[0].merge(sides[1], on=_TIMED, suffixes=("_before", "_after"))):
        ends = {
            f"{side}{end}": row[f"realised_{column}_{side}"]
            for side in _SIDES
            for end, column in (("", "speedup"), ("_low", "low"), ("_high", "high"))
        }
        band = 1 + max(row["noise_before"], row["noise_after"], TOLERANCE)
        slower = ends["before_high"] * band < ends["after_low"]
        faster = ends["after_high"] * band < ends["before_low"]
        yield {"what": "speed", "of": str(row["tokens"]), **ends, "apart": slower or faster}


def told(
    matched: Sequence[Match], layers: pd.DataFrame, measured: pd.DataFrame, base: str
) -> Iterator[str]:
    """Say what moved, match by match; zeros that two matches share once.

    Parameters
    ----------
    matched : sequence of Match
    layers, measured : pandas.DataFrame
        Of :func:`moved_layers` and :func:`measured_alike`.
    base : str
        What speeds are against.
    """
    first = distinct(matched, layers)
    for match in matched:
        if match in first:
            yield from _layers_told(match, _of(layers, match))
        for row in records(_of(measured, match)):
            yield from _measured_told(match, row, base)


def distinct(matched: Sequence[Match], layers: pd.DataFrame) -> list[Match]:
    """Return the first match of each distinct set of layers' zeros, before and after.

    Parameters
    ----------
    matched : sequence of Match
    layers : pandas.DataFrame
        Of :func:`moved_layers`.
    """
    first: dict[tuple[Any, ...], Match] = {}
    for match in matched:
        rows = _of(layers, match)[["module_name", "zeros_before", "zeros_after"]]
        first.setdefault(tuple(rows.itertuples(index=False, name=None)), match)
    return list(first.values())


def _of(frame: pd.DataFrame, match: Match) -> pd.DataFrame:
    return frame[
        (frame["variant_before"] == match.before) & (frame["variant_after"] == match.after)
    ]


def _layers_told(match: Match, rows: pd.DataFrame) -> Iterator[str]:
    changed = rows[rows["zeros_before"] != rows["zeros_after"]]
    if changed.empty:
        if match.renamed and len(rows):
            yield say("difference.layer_zeros_unchanged", name=match.name)
        return
    ranked = records(changed.sort_values("moved", key=abs, ascending=False, kind="stable"))
    yield say(
        "difference.layer_sparsity_largest",
        name=match.name,
        more=int((changed["moved"] > 0).sum()),
        fewer=int((changed["moved"] < 0).sum()),
        all=len(rows),
        **_layer(ranked[0]),
    )
    if points(ranked[0]["moved"]) != points(ranked[-1]["moved"]):
        yield say("difference.layer_sparsity_smallest", name=match.name, **_layer(ranked[-1]))


def _layer(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": row["module_name"],
        "before": row["sparsity_before"],
        "after": row["sparsity_after"],
        "points": points(row["moved"]),
    }


def written(row: dict[str, Any]) -> tuple[str, str]:
    """Write what was measured before and after, speeds with their intervals."""
    if row["what"] == "perplexity":
        return figures(row["before"], ",.2f"), figures(row["after"], ",.2f")
    columns = {"realised_speedup": "", "realised_low": "_low", "realised_high": "_high"}
    speeds = [{column: row[side + end] for column, end in columns.items()} for side in _SIDES]
    before, after = with_intervals(pd.DataFrame(speeds))
    return before, after


def _measured_told(match: Match, row: dict[str, Any], base: str) -> Iterator[str]:
    """Say what a variant of two names measured, and of one name what differs."""
    before, after = written(row)
    said: dict[str, Any] = {"name": match.name, "before": before, "after": after}
    if row["what"] == "perplexity":
        if match.renamed or before != after:
            yield say("difference.perplexity", text=row["of"], **said)
        return
    said |= {"base": base, "tokens": int(row["of"])}
    if row["apart"]:
        yield say("difference.speed_up", **said)
    elif match.renamed:
        yield say("difference.speed_up_within_noise", **said)
