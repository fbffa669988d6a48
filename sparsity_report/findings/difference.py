"""Difference between two studies as data: changed facts, zeros of layers, and measurements."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sparsity_report.findings.layer_changes import Match, matches, measured_alike, moved_layers
from sparsity_report.hooks import Presentable, hooks
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.files.json_files import read_study
from sparsity_report.study.layers import records
from sparsity_report.study.schema import TABLES

# Columns of totals that are compared.
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
# Columns that follow from others, or that no count depends on.
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
    """Difference between two studies; true if any fact changed.

    Attributes
    ----------
    changes : pandas.DataFrame
        ``variant, module_name, what, before, after``: one row per changed fact of the study
        (no variant), a variant (no module) or a module. ``what`` is the column, or ``variant`` or
        ``module`` for those that only one study has. Measurements, which differ from run to run,
        are not among them.
    before, after : Comparison
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
        after_low, after_high, apart``: ``perplexity`` on one text by one protocol, and ``speed``
        (speed-up over the reference of the same study, with 99 % intervals) on one machine, if
        both exceed timing noise; ``apart`` is true if the intervals do not overlap.
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
        """Return the changes as sentences: study, variants, layers, then modules."""
        return hooks.sentences(self)

    @property
    def speed_base(self) -> str:
        """The reference of speed-ups in the study after; empty if no speed was measured."""
        return "" if self.after.latency is None else self.after.facts.speed_base


def diff(
    before: Comparison | str | os.PathLike[str], after: Comparison | str | os.PathLike[str]
) -> Difference:
    """Compare two studies.

    Variants are matched by name; those left over by layout and policy, so that Masked30 is compared
    with Masked90, if only one of each is left.

    Parameters
    ----------
    before, after : Comparison or path-like
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
    M, target sparsity: 0 % → 100 %
    """
    old, new = (s if isinstance(s, Comparison) else read_study(s) for s in (before, after))
    columns = ["variant", "module_name", "what", "before", "after"]
    changes = pd.DataFrame(_changes(old, new), columns=columns, dtype=object)
    matched = matches(old, new)
    moved, measured = (frame(old, new, matched) for frame in (moved_layers, measured_alike))
    return Difference(changes, old, new, matched, moved, measured)


def _changes(one: Comparison, other: Comparison) -> Iterator[tuple[Any, ...]]:
    for fact in ("convention", "context"):
        old, new = getattr(one, fact), getattr(other, fact)
        if old != new:
            yield (None, None, fact, old, new)
    variants = [
        study.variants.merge(study.totals[["variant", *TOTALS]], on="variant")
        for study in (one, other)
    ]
    yield from _changed_rows(variants, "variant", "layout", (*_FACTS, *TOTALS))
    both = set(one.variants["variant"]) & set(other.variants["variant"])
    layers = [study.layers[study.layers["variant"].isin(both)] for study in (one, other)]
    yield from _changed_rows(layers, "module", "shape", _LAYER_FACTS)


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
