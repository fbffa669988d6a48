"""Zeros of a model over training: tracked step by step, logged, and read back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparsity_report.api.study import Study, as_study
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.filesystem import one_line_errors
from sparsity_report.findings.training_findings import training_sentences
from sparsity_report.pairing.tally import Tally
from sparsity_report.study.derived.tracker_metrics import history_metrics
from sparsity_report.study.files.track_files import (
    MODES,
    log_header,
    log_line,
    read_log,
    whole_lines,
)
from sparsity_report.study.layers import LayerTable
from sparsity_report.study.provenance import provenance
from sparsity_report.study.schema import typed
from sparsity_report.study.variants import Variant, fingerprint, variant_row
from sparsity_report.study.zero_history import ZeroHistory

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from torch import nn
    from transformers import TrainerCallback

    from sparsity_report.counting.pruning import Pruning
    from sparsity_report.measure.tracked_model import TrackedModel
    from sparsity_report.weights.weights import Module


class Track:
    """Zeros of a model over training, from :func:`read_track`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import sparsity_report as sr
    >>> model = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
    >>> with TemporaryDirectory() as folder:
    ...     tracker = sr.track(model, every=1, log=f"{folder}/zeros.jsonl")
    ...     tracker.step()
    ...     track = sr.read_track(f"{folder}/zeros.jsonl")
    >>> print(track)
    Step 1: all 393,216 pruned weights are still zero.
    """

    def __init__(self, history: ZeroHistory) -> None:
        self._history = history

    def __repr__(self) -> str:
        return "\n".join(training_sentences(self.history))

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
        return self._history.frame

    @property
    def totals(self) -> pd.DataFrame:
        """One row per recorded step: three sparsities, and the fate of the pruned weights.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> model = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
        >>> sr.track(model).totals[["step", "kept", "kept_share"]].values.tolist()
        [[0.0, 393216.0, 1.0]]
        """
        return self._history.totals

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
        return self._history.groups

    @property
    def recorded_step(self) -> int:
        """Step of the last record, which :meth:`metrics` describes.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> tracker = sr.track(sr.load().module(), every=2)
        >>> tracker.step(1)
        >>> tracker.step(2)
        >>> tracker.step(3)
        >>> tracker.recorded_step
        2
        """
        step: int = self._history.steps[-1]
        return step

    def metrics(self) -> dict[str, float]:
        """Return the last record as flat metrics for experiment trackers.

        Returns
        -------
        dict of str to float
            Names such as ``zeros/kept_share`` and ``sparsity/model``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> model = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
        >>> sr.track(model).metrics()["zeros/kept_share"]
        1.0
        """
        return history_metrics(self.totals, self.groups)

    def study(self) -> Study:
        """Return a study of the first and the last recorded state.

        Returns
        -------
        Study
            Two variants, the fate of the zeros between them in ``matches``, and ``history``, which
            has at most 100 steps.

        Raises
        ------
        SparsityReportError
            Fewer than two steps are recorded.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> model = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
        >>> tracker = sr.track(model, every=1)
        >>> tracker.step()
        >>> tracker.study().variants["variant"].tolist()
        ['Step 0', 'Step 1']
        """
        return as_study(self._history.study())


class Tracker(Track):
    """Zeros of a live model while it is trained, from :func:`track`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> tracker = sr.track(sr.load().module(), every=2)
    >>> tracker.step()
    >>> tracker.history["step"].unique().tolist()
    [0]
    >>> tracker.step()
    >>> tracker.history["step"].unique().tolist()
    [0, 2]
    """

    def __init__(self, model: TrackedModel, options: Mapping[str, Any], log: Path | None) -> None:
        self._model, self._options = model, options
        if options["mode"] == "hold":
            model.hold_()
        fates = model.count()
        super().__init__(self._begin(fates[0]))
        self._patterns = {
            module.name: sums.after.n_m if sums else None
            for module, sums in self._by_module(fates[0])
        }
        self._step, self._log = 0, log if model.is_first else None
        if past := model.gathered(self._resumed())[0]:
            self._history.records.extend(past)
            self._step = self._history.steps[-1]
            return
        if any(tally.revived for tally in fates[0].values()):
            raise model.weights.wrong(
                "has nonzero weights where the mask prunes; prune it with pruning.apply_(model), "
                "or track it with mode='hold'"
            )
        self._write(log_header(self._history))
        self._add(*fates)

    def step(self, number: int | None = None) -> None:
        """Count a step of the optimizer: hold the zeros, and record every so many steps.

        Parameters
        ----------
        number : int, optional
            Number of the step; by default one more than before. A smaller one than before, of
            training that was started again, supersedes the records from it on.

        Raises
        ------
        SparsityReportError
            The modules changed, a weight is NaN, or a zero is lost with ``mode="raise"``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> tracker = sr.track(sr.load().module(), every=1)
        >>> tracker.step()
        >>> tracker.history["step"].unique().tolist()
        [0, 1]
        """
        self._step = self._step + 1 if number is None else number
        if self._options["mode"] == "hold":
            self._model.hold_()
        if self._step % self._options["every"] == 0:
            self.record()

    def record(self) -> None:
        """Record the model at the present step.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> tracker = sr.track(sr.load().module(), every=100)
        >>> tracker.step()
        >>> tracker.record()
        >>> tracker.history["step"].unique().tolist()
        [0, 1]
        """
        modules = [m for m in self._model.weights.modules if self._patterns[m.name]]
        tallies, filled = self._model.count({p.name for m in modules for p in m.weights})
        self._add(tallies, filled)
        if self._options["mode"] == "raise" and any(t.revived for t in tallies.values()):
            raise self._model.weights.wrong(f"{self}; go on with mode='report' or mode='hold'")

    def callback(self, framework: str = "transformers") -> TrainerCallback | Callback:
        """Return a callback that calls :meth:`step` and logs :meth:`metrics`.

        Parameters
        ----------
        framework : {"transformers", "lightning"}
            The trainer: that of transformers and TRL, or that of Lightning. With Accelerate, call
            :meth:`step` after ``optimizer.step()``.

        Returns
        -------
        transformers.TrainerCallback or lightning.pytorch.Callback
            To pass as ``Trainer(callbacks=[…])``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> type(sr.track(sr.load().module()).callback()).__name__
        'ZerosCallback'
        """
        from sparsity_report.measure.training_callbacks import make_callback

        return make_callback(self, framework)

    def _begin(self, tallies: Mapping[str, Tally]) -> ZeroHistory:
        """Return the history of the model as it is, without a record."""
        weights, counts = self._model.weights, _magnitudes(tallies)
        variant, digest = Variant("Step 0", weights, None, "dense"), fingerprint(weights, counts)
        first = Study(
            variants=typed("variants", pd.DataFrame([variant_row(variant, counts, digest, None)])),
            layers=LayerTable(weights, counts).frame(variant.name),
            provenance=provenance(),
            notes=weights.notes,
        )
        return ZeroHistory(first, {**self._options, "fingerprint": self._model.fingerprint})

    def _by_module(self, tallies: Mapping[str, Tally]) -> Iterator[tuple[Module, Tally | None]]:
        """Yield the sums over the masked weights of each module; None without a mask."""
        for module in self._model.weights.modules:
            names = [p.name for p in module.weights if p.name in self._model.masked]
            sums = sum((tallies[name] for name in names), Tally())
            yield module, sums if names else None

    def _add(self, tallies: Mapping[str, Tally], filled: Mapping[str, int]) -> None:
        """Add a record, to the log first."""
        rows = []
        for module, sums in self._by_module(tallies):
            lost = [filled[p.name] for p in module.weights if p.name in filled]
            pattern = self._patterns[module.name]
            row: dict[str, Any] = {"n_m": pattern, "filled": sum(lost) if lost else None}
            for name in ("kept", "revived", "new"):
                row[name] = getattr(sums, name, None)
            row["n_m_kept"] = sums.after.shares.get(pattern) if sums and pattern else None
            rows.append(row)
        layers = LayerTable(self._model.weights, _magnitudes(tallies)).frame("")
        zeros = layers["weight_total"] - layers["weight_nonzero"]
        frame = pd.concat([layers.assign(step=self._step, zeros=zeros), pd.DataFrame(rows)], axis=1)
        record = typed("history", frame)
        self._write(log_line(record))
        self._history.add(record)

    def _resumed(self) -> list[pd.DataFrame] | None:
        """Return the records of the log, whose last line is completed; None for a new one."""
        if self._log is None or not self._log.exists() or not self._log.stat().st_size:
            return None
        past = read_log(self._log)
        if past.settings["fingerprint"] != self._history.settings["fingerprint"]:
            raise SparsityReportError(
                f"{self._log}: is the log of another run, whose model or mask differs; give "
                "another file, or the pruning of that run as mask="
            )
        with one_line_errors(self._log):
            os.truncate(self._log, sum(map(len, whole_lines(self._log))))
        return past.records

    def _write(self, line: str) -> None:
        if self._log is not None:
            with one_line_errors(self._log):
                self._log.parent.mkdir(parents=True, exist_ok=True)
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(line)


def track(
    model: nn.Module,
    *,
    every: int = 100,
    log: str | os.PathLike[str] | None = None,
    mode: str = "report",
    mask: Pruning | None = None,
) -> Tracker:
    """Track the zeros of a model while it is trained.

    Parameters
    ----------
    model : nn.Module
        The pruned model, wrapped or not. Call :meth:`Tracker.step` after each step of the
        optimizer. Parameters sharded by ``fully_shard`` are counted where they are, and every
        process calls ``track`` and ``step``. With DDP each process counts, and the first one
        writes the log.
    every : int
        Steps between two records, which count the zeros. With 1, the step at which a pruned weight
        becomes nonzero is exact; otherwise it lies between two records.
    log : path-like, optional
        File of JSON lines, one per record. If it exists and is of the same model and mask, its
        records are continued.
    mode : {"report", "raise", "hold"}
        ``"report"`` records the zeros. ``"raise"`` also ends training by an error at the first
        record with a pruned weight that is not zero. ``"hold"`` sets the pruned weights and their
        gradients to zero after each step. The optimizer keeps its state for them, such as momentum,
        which has no effect, and clipping by norm includes their gradients.
    mask : Pruning, optional
        Weights that are to be zero; by default the zeros of the prunable weights now. It takes one
        bit per weight.

    Returns
    -------
    Tracker
        The history so far; its state now is the first record.

    Raises
    ------
    SparsityReportError
        An option is not valid, the model has no dense values, the mask is of another model, or the
        log is of another run.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> model = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
    >>> tracker = sr.track(model, every=1)
    >>> _ = model.model.decoder.layers[0].fc1.weight.data.add_(1)  # as an optimizer would
    >>> tracker.step()
    >>> print(tracker)  # doctest: +NORMALIZE_WHITESPACE
    Step 1: 9.6 % of the 393,216 pruned weights are nonzero again, first in
    model.decoder.layers.0.fc1 at step 1.
    """
    from sparsity_report.measure.tracked_model import TrackedModel

    if type(every) is not int or every < 1:
        raise SparsityReportError(f"track: every={every!r} is no number of steps; give 1 or more")
    if mode not in MODES:
        raise SparsityReportError(f"track: mode must be one of {', '.join(MODES)}, not {mode!r}")
    options = {"every": every, "mode": mode}
    return Tracker(TrackedModel(model, mask), options, None if log is None else Path(log))


def read_track(log: str | os.PathLike[str]) -> Track:
    """Read the log of a tracker, without its model.

    Parameters
    ----------
    log : path-like
        A file that ``track(…, log=…)`` wrote. A last line that is not complete is left out.

    Returns
    -------
    Track
        The history.

    Raises
    ------
    SparsityReportError
        The file cannot be read, is no log, or a line is damaged.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import sparsity_report as sr
    >>> with TemporaryDirectory() as folder:
    ...     _ = sr.track(sr.load().module(), log=f"{folder}/zeros.jsonl")
    ...     sr.read_track(f"{folder}/zeros.jsonl").totals["step"].tolist()
    [0]
    """
    return Track(read_log(log))


def _magnitudes(tallies: Mapping[str, Tally]) -> dict[str, Magnitudes]:
    sides = {name: tally.after for name, tally in tallies.items()}
    return {name: Magnitudes(side.total, side.total - side.zeros) for name, side in sides.items()}
