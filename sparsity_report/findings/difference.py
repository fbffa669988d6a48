"""Difference between two studies as data: changed facts, zeros of layers, and measurements."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.findings.variant_names import group_names
from sparsity_report.hooks import Described, Presentable
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.paired_scores import corrected, difference
from sparsity_report.study.derived.policy_names import any_level
from sparsity_report.study.derived.protocol_scores import scores_by_protocol
from sparsity_report.study.derived.speedups import TOLERANCE
from sparsity_report.study.files.json_files import value_or_saved
from sparsity_report.study.layers import records
from sparsity_report.study.schema import SIDES, TABLES, plain_records

# Columns of totals that are compared.
TOTALS = (
    "sparsity_prunable", "sparsity_non_embedding", "sparsity_model", "total", "nonzero",
    "prunable_total", "flops_per_token", "useful_flops_per_token", "stored_bytes",
)  # fmt: skip
# Columns that follow from others, or that no count depends on.
_DERIVED = {
    "sparsity", "param_frac", "weight_total", "weight_nonzero", "attention_width", "packing",
    "file_bytes", "expected_rounding_sparsity", "near_zero_share",
}  # fmt: skip
_FACTS, _LAYER_FACTS = (
    [name for name in TABLES[table].names if name not in {"variant", "module_name", *_DERIVED}]
    for table in ("variants", "layers")
)

# Columns in which two comparable measurements of speed agree.
_TIMED = ["tokens", "cache", "dtype", "threads", "machine"]
# Columns in which two layers agree that are compared.
_SAME = ["module_name", "shape", "weight_total"]
LAYERS = (
    "variant_before", "variant_after", "module_name", "group", "weight_total", "zeros_before",
    "zeros_after", "sparsity_before", "sparsity_after", "moved",
)  # fmt: skip
MEASURED = (
    "variant_before", "variant_after", "what", "of", "before", "before_low", "before_high",
    "after", "after_low", "after_high", "apart", "change_low", "change_high", "unpaired",
)  # fmt: skip


class Match(NamedTuple):
    """Names of a variant of the study before and of its counterpart in the study after."""

    before: str
    after: str

    @property
    def renamed(self) -> bool:
        """True if the names differ, as for two sparsity levels."""
        return self.before != self.after

    @property
    def name(self) -> str:
        """Both names, or the common one."""
        return f"{self.before} → {self.after}" if self.renamed else self.after

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of ``moved`` or ``measured`` that belong to the match."""
        before, after = frame["variant_before"], frame["variant_after"]
        return frame[(before == self.before) & (after == self.after)]


@dataclass(frozen=True, eq=False, repr=False)
class Difference(Presentable, Described):
    """Difference between two studies; true if any fact changed.

    Attributes
    ----------
    changes : pandas.DataFrame
        ``variant, module_name, what, before, after``: one row per changed fact of the study
        (no variant), a variant (no module) or a module. ``what`` is the column, or ``variant`` or
        ``module`` for those that only one study has. Measurements, which differ from run to run,
        are not among them.
    before, after : Study
        The two studies.
    matches : tuple of Match
        Variants of the one study with those of the other that they are compared to: by name, else
        by layout and policy, as Masked30 and Masked90, if only one of each is left.
    moved : pandas.DataFrame
        ``variant_before, variant_after, module_name, group, weight_total, zeros_before,
        zeros_after, sparsity_before, sparsity_after, moved``: a row per match and prunable layer
        that both have in one shape; ``moved`` is the difference of the sparsities.
    measured : pandas.DataFrame
        ``variant_before, variant_after, what, of, before, before_low, before_high, after,
        after_low, after_high, apart, change_low, change_high, unpaired``: ``perplexity`` on one
        text by one protocol, and ``speed`` (speed-up over the reference of the same study, with
        99 % intervals) on one machine, if both exceed timing noise. Speeds are ``apart`` if their
        intervals do not overlap, perplexities if the 95 % interval of their difference,
        ``change_low`` to ``change_high``, excludes zero. It is corrected for the number of
        perplexities (Holm) and null where the losses do not pair, for the reason ``unpaired``.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> studies = [sr.compare(sr.masked(sr.global_magnitude(weights, s))) for s in (0.3, 0.9)]
    >>> changed = sr.diff(*studies)
    >>> bool(changed), changed.matches[0].name
    (True, 'Masked30 → Masked90')
    >>> set(changed.moved["moved"] > 0)
    {True}
    """

    changes: pd.DataFrame
    before: Study
    after: Study
    matches: tuple[Match, ...]
    moved: pd.DataFrame
    measured: pd.DataFrame

    def __bool__(self) -> bool:
        return not self.changes.empty

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def to_json(self) -> dict[str, Any]:
        """Return the changes, the matches and what was compared as plain values.

        Returns
        -------
        dict
            ``changed``, ``matches``, ``sentences``, and the rows of ``changes``, ``moved`` and
            ``measured`` by column. Null is unknown.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.dense(sr.load()))
        >>> sr.diff(study, study).to_json()["changed"]
        False
        """
        frames = {name: getattr(self, name) for name in ("changes", "moved", "measured")}
        return {
            "changed": bool(self),
            "matches": [match._asdict() for match in self.matches],
            **{name: plain_records(frame) for name, frame in frames.items()},
            "sentences": self.sentences(),
        }

    @property
    def speed_base(self) -> str:
        """The reference of speed-ups in the study after; empty if no speed was measured.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> studies = [sr.compare(sr.masked(sr.global_magnitude(weights, s))) for s in (0.3, 0.9)]
        >>> changed = sr.diff(*studies)
        >>> changed.speed_base
        ''
        """
        return "" if self.after.latency is None else self.after.facts.speed_base


def diff(
    before: Study | str | os.PathLike[str], after: Study | str | os.PathLike[str]
) -> Difference:
    """Compare two studies.

    Variants are matched by name; those left over by layout and policy, so that Masked30 is compared
    with Masked90, if only one of each is left.

    Parameters
    ----------
    before, after : Study or path-like
        Studies, or paths of saved studies.

    Returns
    -------
    Difference
        False if both agree in every count. ``print`` it, or see ``changes``, ``moved`` and
        ``measured``.

    Raises
    ------
    SparsityReportError
        A file cannot be read as a study.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> studies = [sr.compare(sr.masked(sr.global_magnitude(weights, s), name="M")) for s in (0, 1)]
    >>> changed = sr.diff(*studies)
    >>> bool(changed), bool(sr.diff(studies[0], studies[0]))
    (True, False)
    >>> print(changed.sentences()[0])
    M: sparsity of the prunable weights rises from 0.0 % to 100.0 %.
    """
    old, new = (value_or_saved("diff", each, Study) for each in (before, after))
    columns = ["variant", "module_name", "what", "before", "after"]
    changes = pd.DataFrame(_changes(old, new), columns=columns, dtype=object)
    matched = matches(old, new)
    moved, measured = (frame(old, new, matched) for frame in (moved_layers, measured_alike))
    return Difference(changes, old, new, matched, moved, measured)


def _changes(one: Study, other: Study) -> Iterator[tuple[Any, ...]]:
    for fact in ("convention", "context"):
        old, new = getattr(one, fact), getattr(other, fact)
        if old != new:
            yield (None, None, fact, old, new)
    variants = map(variant_facts, (one, other))
    yield from _changed_rows(variants, "variant", "layout", (*_FACTS, *TOTALS))
    both = set(one.variants["variant"]) & set(other.variants["variant"])
    layers = [study.layers[study.layers["variant"].isin(both)] for study in (one, other)]
    yield from _changed_rows(layers, "module", "shape", _LAYER_FACTS)


def variant_facts(study: Study) -> pd.DataFrame:
    """Return the variants of a study with those of their totals that are compared."""
    return study.variants.merge(study.totals[["variant", *TOTALS]], on="variant")


def _changed_rows(
    frames: Iterable[pd.DataFrame], kind: str, label: str, facts: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Compare variants or modules by name; the column `label` describes one that only one has."""
    old, new = (
        {(row["variant"], row.get("module_name")): row for row in records(frame)}
        for frame in frames
    )
    for key in dict.fromkeys([*old, *new]):
        if key not in new or key not in old:
            yield (*key, kind, *(side[key][label] if key in side else None for side in (old, new)))
            continue
        for fact in facts:
            before, after = (_known(side[key][fact]) for side in (old, new))
            if before != after:
                yield (*key, fact, before, after)


def _known(value: Any) -> Any:
    return None if not isinstance(value, tuple) and pd.isna(value) else value


def matches(one: Study, other: Study) -> tuple[Match, ...]:
    """Match variants by name, and the rest by layout and policy if only one of each is left.

    Variants with several possible counterparts are not matched.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> studies = [sr.compare(sr.masked(sr.global_magnitude(weights, s))) for s in (0.3, 0.9)]
    >>> matches(*studies)[0].name
    'Masked30 → Masked90'
    """
    columns = ["variant", "layout", "method"]
    left = [
        [(name, (layout, any_level(method)), layout) for name, layout, method in rows]
        for rows in (study.variants[columns].to_numpy() for study in (one, other))
    ]
    matched: list[Match] = []
    for key in range(3):
        sides = [group_names((row[key], row[0]) for row in rows) for rows in left]
        for kind, before in sides[0].items():
            after = sides[1].get(kind, [])
            if len(before) == len(after) == 1:
                matched.append(Match(before[0], after[0]))
        taken = {name for match in matched for name in match}
        left = [[row for row in rows if row[0] not in taken] for rows in left]
    return tuple(matched)


def moved_layers(one: Study, other: Study, matched: Sequence[Match]) -> pd.DataFrame:
    """Return the zeros of each prunable layer that both variants of a match have in one shape."""
    frames = [_moved_layers(one, other, match) for match in matched]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*LAYERS])


def _moved_layers(one: Study, other: Study, match: Match) -> pd.DataFrame:
    before = one.facts.prunable(match.before)[[*_SAME, "weight_nonzero", "share"]]
    after = other.facts.prunable(match.after)[[*_SAME, "group", "weight_nonzero", "share"]]
    both = before.merge(after, on=_SAME, suffixes=("_before", "_after"))
    for side, name in zip(SIDES, match, strict=True):
        both[f"variant_{side}"], both[f"sparsity_{side}"] = name, both[f"share_{side}"]
        both[f"zeros_{side}"] = both["weight_total"] - both[f"weight_nonzero_{side}"]
    return both.assign(moved=both["share_after"] - both["share_before"])[[*LAYERS]]


def measured_alike(one: Study, other: Study, matched: Sequence[Match]) -> pd.DataFrame:
    """Return comparable measurements of both variants of each match.

    Speeds are ``apart`` if their 99 % intervals do not overlap, even when both are widened by the
    difference of the duplicate kernel.
    """
    rows = [
        {"variant_before": match.before, "variant_after": match.after, **row}
        for match in matched
        for row in (*_perplexities(one, other, match), *_speeds(one, other, match))
    ]
    means = {(str(n), ""): mean for n, row in enumerate(rows) if (mean := row.pop("nll", None))}
    bases = {(str(n), ""): row["before"] for n, row in enumerate(rows)}
    for (place, _), contrast in corrected(means, bases).items():
        _, low, high = contrast.gap
        changes = {"change_low": low, "change_high": high, "apart": contrast.is_apart}
        rows[int(place)] |= changes
    return pd.DataFrame(rows, columns=[*MEASURED])


def _perplexities(one: Study, other: Study, match: Match) -> Iterator[dict[str, Any]]:
    before, after = (
        scores_by_protocol(study.quality, name)
        for study, name in zip((one, other), match, strict=True)
    )
    for key in (key for key in before if key in after):
        rows = {"before": before[key], "after": after[key]}
        scores = {side: row["perplexity"] for side, row in rows.items()}
        mean, reason = difference(rows["after"], rows["before"])
        text = rows["before"]["text"]
        yield {"what": "perplexity", "of": text, **scores, "nll": mean, "unpaired": reason}


def _speeds(one: Study, other: Study, match: Match) -> Iterator[dict[str, Any]]:
    studies = (one, other)
    if any(study.facts.speeds is None for study in studies):
        return
    if one.facts.speed_base != other.facts.speed_base:
        return
    named = zip(studies, match, strict=True)
    rows = [study.facts.whole_speeds(name).query("verdict == 'stated'") for study, name in named]
    sides = [side.astype(dict.fromkeys(_TIMED, object)) for side in rows]
    for row in records(sides[0].merge(sides[1], on=_TIMED, suffixes=("_before", "_after"))):
        ends = {
            f"{side}{end}": row[f"realised_{column}_{side}"]
            for side in SIDES
            for end, column in (("", "speedup"), ("_low", "low"), ("_high", "high"))
        }
        band = 1 + max(row["noise_before"], row["noise_after"], TOLERANCE)
        slower = ends["before_high"] * band < ends["after_low"]
        faster = ends["after_high"] * band < ends["before_low"]
        yield {"what": "speed", "of": str(row["tokens"]), **ends, "apart": slower or faster}


def distinct(matched: Sequence[Match], layers: pd.DataFrame) -> list[Match]:
    """Return the first match of each distinct set of zeros, as :func:`moved_layers` lists them."""
    first: dict[tuple[Any, ...], Match] = {}
    for match in matched:
        rows = match.rows(layers)[["module_name", "zeros_before", "zeros_after"]]
        first.setdefault(tuple(rows.itertuples(index=False, name=None)), match)
    return list(first.values())
