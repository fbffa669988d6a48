"""Zeros of a model over training: counts by module and step, sums, and a study of both ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.n_m_patterns import COMPLIANCE
from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.tally import SideCount
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import group_frame, total_frame, with_shares
from sparsity_report.study.schema import TABLES, typed

#: Counts of a record, one number per module: null where the module has no mask, pattern, adapter.
COUNTS = ("nonzero", "weight_nonzero", "useful_flops_per_token", "kept", "complying", "filled")
_FATES = ["zeros", "kept", "revived", "new", "filled"]
# Records of the table in a study; a log has all.
_MOST = 100


class Fate(NamedTuple):
    """Weights of a parameter, and the fate of those that the mask prunes.

    Attributes
    ----------
    side : SideCount
        All its weights, their zeros and their N:M patterns.
    pruned, kept : int
        Weights that the mask prunes, and those of them that are zero.
    filled : int or None
        Zeros that merging its adapters would fill; None without adapters.
    """

    side: SideCount
    pruned: int
    kept: int
    filled: int | None

    @classmethod
    def sum(cls, fates: Sequence[Fate]) -> Fate:
        """Return the sums over several parameters."""
        sides, pruned, kept, filled = zip(*fates, strict=True)
        known = [number for number in filled if number is not None]
        return cls(sum(sides, SideCount()), sum(pruned), sum(kept), sum(known) if known else None)


class Revival(NamedTuple):
    """The first record with pruned weights that are not zero.

    Attributes
    ----------
    after, step : int
        Steps of the record before, and of the record.
    module_name : str
        The first module by position.
    modules : int
        Modules with such weights in that record.
    """

    after: int
    step: int
    module_name: str
    modules: int


@dataclass(frozen=True)
class ZeroHistory:
    """Zeros of a model over training.

    Attributes
    ----------
    first : StudyFigures
        The model as one variant, when tracking began.
    modules : pandas.DataFrame
        One row per module: ``pruned``, the weights of the mask, and ``n_m``, their pattern; null
        without a mask.
    settings : mapping
        Fingerprint of model and mask, and the options of :func:`track`.
    records : list of dict
        Counts by step; steps rise.
    """

    first: StudyFigures
    modules: pd.DataFrame
    settings: Mapping[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Add a record; later ones, of a run that was started again, are dropped."""
        while self.records and self.records[-1]["step"] >= record["step"]:
            self.records.pop()
        self.records.append(record)

    def frame(self, most: int | None = None) -> pd.DataFrame:
        """Return one row per step and module, at most of some steps."""
        layers, parts = self.first.layers, []
        shared = layers[["module_name", "group"]]
        groups = layers["weight_total"] // self.modules["n_m"].map(_group_size)
        for record in self._chosen(most):
            counts = {name: pd.array(record[name], "Int64") for name in COUNTS}
            kept = counts["kept"]
            zeros = (layers["weight_total"] - counts["weight_nonzero"]).astype("Int64")
            row = {
                "step": record["step"],
                "nonzero": counts["nonzero"],
                "zeros": zeros,
                "kept": kept,
                "revived": self.modules["pruned"] - kept,
                "new": zeros - kept,
                "n_m_kept": counts["complying"] / groups,
                "filled": counts["filled"],
            }
            parts.append(shared.assign(**row))
        frame = pd.concat(parts, ignore_index=True) if parts else shared.head(0)
        return typed("history", frame.reindex(columns=[*TABLES["history"]]))

    def layers(self, record: Mapping[str, Any], name: str) -> pd.DataFrame:
        """Return the layers of the model at a record as those of a variant."""
        columns = {key: pd.array(record[key], "Int64") for key in COUNTS[:3]}
        return with_shares(self.first.layers.assign(variant=name, **columns))

    @property
    def totals(self) -> pd.DataFrame:
        """One row per step: the three sparsities, and the fate of the pruned weights."""
        return self._sums(total_frame, [])

    @property
    def groups(self) -> pd.DataFrame:
        """One row per step and group: zeros, and the fate of the pruned weights."""
        return self._sums(group_frame, ["group"])

    def study(self) -> StudyFigures:
        """Return the first and the last recorded state as variants, with their matches."""
        if len(self.records) < 2:
            raise SparsityReportError(
                "study: one step is recorded, and a history needs two; train, or call record()"
            )
        first, ends = self.first, (self.records[0], self.records[-1])
        names = [step_name(record["step"]) for record in ends]
        rows = pd.concat([first.variants] * 2, ignore_index=True)
        digest = hashlib.sha256(repr((self.settings["fingerprint"], ends[1])).encode())
        prints = [first.variants["fingerprint"].iloc[0], digest.hexdigest()[:16]]
        layers = [self.layers(record, name) for record, name in zip(ends, names, strict=True)]
        return replace(
            first,
            variants=typed("variants", rows.assign(variant=names, fingerprint=prints)),
            layers=pd.concat(layers, ignore_index=True),
            matches=self._matches(layers[0]),
            removed=typed("removed", pd.DataFrame(columns=[*TABLES["removed"]])),
            history=self.frame(_MOST),
        )

    def _chosen(self, most: int | None) -> list[dict[str, Any]]:
        """Return records at even distances, with the first, the last and that of the revival."""
        count = len(self.records)
        if most is None or count <= most:
            return self.records
        places = {round(i * (count - 1) / (most - 2)) for i in range(most - 1)}
        steps = [record["step"] for record in self.records]
        if revival := first_revival(self.frame()):
            places.add(steps.index(revival.step))
        return [self.records[place] for place in sorted(places)]

    def _sums(self, summed: Any, keys: list[str]) -> pd.DataFrame:
        frame = self.frame()
        steps = [(r["step"], self.layers(r, str(r["step"]))) for r in self.records]
        sums = summed(pd.concat([layers for _, layers in steps], ignore_index=True))
        sums = sums.assign(step=sums["variant"].astype("int64"))
        fates = frame[frame["kept"].notna()].groupby(["step", *keys])[_FATES].sum(min_count=1)
        shares = [name for name in sums if name.startswith("sparsity_")]
        chosen = sums[["step", *keys, "total", "nonzero", *shares]]
        merged = chosen.join(fates, on=["step", *keys])
        pruned = merged["kept"] + merged["revived"]
        return merged.assign(kept_share=(merged["kept"] / pruned).where(pruned > 0))

    def _matches(self, before: pd.DataFrame) -> pd.DataFrame:
        """Return the matches of the modules with masks; other changes than of zeros are unknown."""
        last = self.frame().tail(len(before)).reset_index(drop=True)
        known = last["kept"].notna()
        rows = before.reset_index(drop=True).assign(
            after_name=before["module_name"].array,
            shape_before=before["shape"].array,
            shape_after=before["shape"].array,
            alignment="name",
            certainty=1.0,
            weight_before=before["weight_total"].array,
            weight_after=before["weight_total"].array,
            zeros_before=self.frame()["zeros"].head(len(before)).array,
            zeros_after=last["zeros"],
            compared=before["weight_total"].array,
            kept=last["kept"],
            revived=last["revived"],
            new=last["new"],
            iou=last["kept"] / (self.modules["pruned"] + last["new"]),
            n_m_before=self.modules["n_m"],
            n_m_after=self.modules["n_m"].where(last["n_m_kept"] >= COMPLIANCE),
            **dict.fromkeys(("changed", "relative_change", "norm", "correlation", "untouched")),
        )
        return typed("matches", rows[known.array].reset_index(drop=True))


def first_revival(history: pd.DataFrame) -> Revival | None:
    """Return the first record of a history with revived weights; None if all were kept."""
    rows = history[history["revived"].gt(0).fillna(False)]
    if rows.empty:
        return None
    step, steps = rows["step"].min(), history["step"]
    names = rows.loc[rows["step"] == step, "module_name"]
    before = steps[steps < step]
    return Revival(
        int(before.max()) if len(before) else int(step), int(step), names.iloc[0], len(names)
    )


def step_name(step: int) -> str:
    """Return the name of the variant at a step.

    Examples
    --------
    >>> step_name(1200)
    'Step 1200'
    """
    return f"Step {step}"


def _group_size(pattern: str | None) -> int | None:
    return int(pattern.partition(":")[2]) if isinstance(pattern, str) else None
