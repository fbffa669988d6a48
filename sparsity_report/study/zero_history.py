"""Zeros of a model over training: their table, its sums, and a study of both ends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.n_m_patterns import COMPLIANCE
from sparsity_report.errors import SparsityReportError
from sparsity_report.study.derived.zero_losses import FATES, fate_sums
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import group_frame, total_frame, with_shares
from sparsity_report.study.schema import TABLES, typed
from sparsity_report.words.sentences import say

# Steps of the table in a study; a log has all.
_MOST = 100


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


@dataclass(eq=False, repr=False)
class ZeroHistory:
    """Zeros of a model over training.

    Attributes
    ----------
    first : StudyFigures
        The model as one variant, when tracking began.
    settings : mapping
        Fingerprint of model and mask, and options of :func:`track`.
    records : dict of int to pandas.DataFrame
        Rows of the table ``history`` by step; steps rise.
    """

    first: StudyFigures
    settings: Mapping[str, Any]
    records: dict[int, pd.DataFrame] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """The recorded steps.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> tracker = sr.track(sr.load().module(), every=2)
        >>> tracker.step(1)
        >>> tracker.step(2)
        >>> tracker.step(3)
        >>> tracker.steps
        [0, 2]
        """
        return [*self.records]

    @property
    def history(self) -> pd.DataFrame:
        """One row per recorded step and module.

        ``nonzero`` counts all its parameters, and ``zeros`` those of its weights. Of the weights
        that the mask prunes, ``kept`` are zero and ``revived`` are not; ``new`` zeros are outside
        of the mask. ``n_m_kept`` is the share of groups that comply with the N:M pattern of the
        mask. ``filled`` zeros would be lost by merging the adapter. Cells are null where there is
        no mask, pattern or adapter.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> model = sr.masked(sr.n_m(sr.load(), 2, 4)).module()
        >>> sr.track(model).history.dropna(subset="kept")["n_m_kept"].unique().tolist()
        [1.0]
        """
        return pd.concat(self.records.values(), ignore_index=True)

    @property
    def totals(self) -> pd.DataFrame:
        """One row per recorded step: three sparsities, and the fate of the pruned weights.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> model = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
        >>> sr.track(model).totals[["step", "kept", "kept_share"]].values.tolist()
        [[0, 393216, 1.0]]
        """
        return self._sums(total_frame, [])

    @property
    def groups(self) -> pd.DataFrame:
        """One row per recorded step and group, see :attr:`totals`.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> model = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
        >>> int(sr.track(model).groups["kept"].sum())
        393216
        """
        return self._sums(group_frame, ["group"])

    def study(self) -> StudyFigures:
        """Return the first and the last recorded state as variants, with their matches."""
        if len(self.records) < 2:
            raise SparsityReportError(
                "study: one step is recorded, and a history needs two; train, or call record()"
            )
        first, places = self.first, [self.steps[0], self.steps[-1]]
        names, ends = [f"Step {step}" for step in places], [self.records[step] for step in places]
        states = (repr((self.settings["fingerprint"], end.to_csv())).encode() for end in ends)
        prints = [hashlib.sha256(state).hexdigest()[:16] for state in states]
        rows = pd.concat([first.variants] * 2, ignore_index=True)
        layers = [self._layers(rows, name) for rows, name in zip(ends, names, strict=True)]
        every, mode, chosen = self.settings["every"], self.settings["mode"], self._chosen()
        when = say("track.each_step") if every == 1 else say("track.every", every=every)
        notes = [say(f"note.tracked.{mode}", when=when)]
        if len(chosen) < len(self.records):
            notes.append(say("note.tracked_steps", shown=len(chosen), records=len(self.records)))
        return replace(
            first,
            notes=(*first.notes, *notes),
            variants=typed("variants", rows.assign(variant=names, fingerprint=prints)),
            layers=pd.concat(layers, ignore_index=True),
            matches=_matches(first.layers, *ends),
            removed=typed("removed", pd.DataFrame(columns=[*TABLES["removed"]])),
            history=pd.concat(chosen, ignore_index=True),
        )

    def _chosen(self) -> list[pd.DataFrame]:
        """Return records at even distances, with both ends and the first losses of modules."""
        count, steps, history = len(self.records), self.steps, self.history
        if count <= _MOST:
            return [*self.records.values()]
        lost = history[history["revived"].gt(0).fillna(False)].groupby("module_name")["step"].min()
        places = {steps.index(step) for step in sorted({*lost})[: _MOST // 2]}
        places |= {place - 1 for place in sorted(places)[:1] if place}
        rest = _MOST - len(places)
        places |= {round(i * (count - 1) / (rest - 1)) for i in range(rest)}
        return [self.records[steps[place]] for place in sorted(places)]

    def _layers(self, record: pd.DataFrame, name: str) -> pd.DataFrame:
        """Return the layers at a record as those of a variant."""
        layers = self.first.layers
        counts = {key: record[key].array for key in ("nonzero", "useful_flops_per_token")}
        left = layers["weight_total"] - record["zeros"].array
        return with_shares(layers.assign(variant=name, weight_nonzero=left, **counts))

    def _sums(
        self, summed: Callable[[pd.DataFrame], pd.DataFrame], keys: list[str]
    ) -> pd.DataFrame:
        layers = [self._layers(record, str(step)) for step, record in self.records.items()]
        sums = summed(pd.concat(layers, ignore_index=True))
        sums = sums.assign(step=sums["variant"].astype("int64"))
        shares = [name for name in map(str, sums) if name.startswith("sparsity_")]
        fates = fate_sums(self.history, ["step", *keys])[[*FATES, "kept_share"]]
        return sums[["step", *keys, "total", "nonzero", *shares]].join(fates, on=["step", *keys])


def add_record(history: ZeroHistory, record: pd.DataFrame) -> None:
    """Add a record; it supersedes those from its step on, of training that was restarted."""
    step = int(record["step"].iloc[0])
    while history.records and next(reversed(history.records)) >= step:
        history.records.popitem()
    history.records[step] = record


def first_revival(history: pd.DataFrame) -> Revival | None:
    """Return the first record of a history with revived weights; None if all were kept."""
    rows = history[history["revived"].gt(0).fillna(False)]
    if rows.empty:
        return None
    step, steps = int(rows["step"].min()), history["step"]
    names = rows.loc[rows["step"] == step, "module_name"]
    before = int(steps[steps < step].max()) if (steps < step).any() else step
    return Revival(before, step, names.iloc[0], len(names))


def _matches(layers: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Return the matches of modules with masks; changes of nonzero weights are unknown."""
    weights, shapes = layers["weight_total"], layers["shape"]
    rows = layers.assign(
        after_name=layers["module_name"], alignment="name", certainty=1.0, compared=weights,
        weight_before=weights, weight_after=weights, shape_before=shapes, shape_after=shapes,
        zeros_before=before["zeros"], zeros_after=after["zeros"],
        kept=after["kept"], revived=after["revived"], new=after["new"],
        iou=after["kept"] / (after["kept"] + after["revived"] + after["new"]),
        n_m_before=before["n_m"], n_m_after=after["n_m"].where(after["n_m_kept"] >= COMPLIANCE),
    )  # fmt: skip
    rows = rows[after["kept"].notna()].reindex(columns=[*TABLES["matches"]])
    return typed("matches", rows.reset_index(drop=True))
