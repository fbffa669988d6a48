"""Zeros of a model over training: tracked step by step, logged, and read back."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparsity_report.api.study import Study, as_study
from sparsity_report.errors import SparsityReportError, explained, first_line
from sparsity_report.files.filesystem import one_line_errors
from sparsity_report.findings.training_findings import training_sentences
from sparsity_report.study.derived.tracker_metrics import history_metrics
from sparsity_report.study.files.track_files import (
    MODES,
    log_header,
    log_line,
    read_log,
    whole_lines,
)
from sparsity_report.study.provenance import provenance
from sparsity_report.study.schema import typed
from sparsity_report.study.variants import Variant, variant_row
from sparsity_report.study.zero_history import ZeroHistory, add_record

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

    from sparsity_report.counting.pruning import Pruning
    from sparsity_report.measure.tracked_model import TrackedModel


class Track(ZeroHistory):
    """Zeros of a model over training, from :func:`read_track`.

    Parameters
    ----------
    first : StudyFigures
        The model as one variant, when tracking began.
    settings : mapping
        Fingerprint of model and mask, and options of :func:`track`.
    records : dict of int to pandas.DataFrame
        Rows of :attr:`history` by step.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import sparsity_report as sr
    >>> model = sr.masked(sr.global_magnitude(sr.load(), sparsity=0.5)).module()
    >>> with TemporaryDirectory() as folder:
    ...     tracker = sr.track(model, every=1, log=f"{folder}/zeros.jsonl")
    ...     tracker.step()
    ...     track = sr.read_track(f"{folder}/zeros.jsonl")
    >>> print(track)  # doctest: +NORMALIZE_WHITESPACE
    The zeros survived 1 step: all 393...216 pruned weights are still zero.
    """

    def __repr__(self) -> str:
        return "\n".join(training_sentences(self.history))

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
        return as_study(super().study())


class Tracker(Track):
    """Zeros of a live model while it is trained, from :func:`track`.

    Parameters
    ----------
    model : TrackedModel
        The model with its mask.
    options : mapping
        ``every`` and ``mode`` of :func:`track`.
    log : pathlib.Path or None
        File of the records.

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
        if options["mode"] == "hold":
            model.check_mask()
            model.hold_()
        layers, fingerprint = model.count(), model.fingerprint
        variant = Variant("Step 0", model.weights, None, "dense")
        first = Study(
            variants=typed("variants", pd.DataFrame([variant_row(variant, {}, fingerprint, None)])),
            layers=typed("layers", layers.assign(variant=variant.name)),
            provenance=provenance(),
            notes=model.weights.notes,
        )
        super().__init__(first, {**options, "fingerprint": fingerprint})
        self._model, self._log = model, log if model.is_first else None
        self._step: int | None = 0
        self.records = model.gathered(self._resumed())[0]
        if self.records:
            self._step = None  # of the model, which may be that of any record
            return
        if layers["revived"].any():
            raise model.weights.wrong(
                "has nonzero weights where the mask prunes; give the pruned model, or track with "
                "mode='hold', which sets them to zero"
            )
        self._write(log_header(self))
        self._add(layers)

    def step(self, number: int | None = None) -> None:
        """Count a step of the optimizer: hold the zeros, and record every so many steps.

        Parameters
        ----------
        number : int, optional
            Number of the step; by default one more than before. The first one of a continued log
            needs it. A smaller one than before supersedes the records from it on.

        Raises
        ------
        SparsityReportError
            The modules changed, a weight is NaN, a zero is lost with ``mode="raise"``, or the
            number is none.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> tracker = sr.track(sr.load().module(), every=1)
        >>> tracker.step()
        >>> tracker.history["step"].unique().tolist()
        [0, 1]
        """
        if number is None and self._step is None:
            raise SparsityReportError(
                f"{self._log}: has records up to step {self.steps[-1]:,}; give the number of this "
                "step, as in step(1), or start another log"
            )
        number = (self._step or 0) + 1 if number is None else number
        if type(number) is not int or number < 0:
            raise SparsityReportError(f"step: {number!r} is no number of a step; give 0 or more")
        self._step = number
        if self.settings["mode"] == "hold":
            self._model.hold_()
        if self._step % self.settings["every"] == 0:
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
        layers = self._model.count()
        if self._log and not self._log.exists():
            self._write(log_header(self) + "".join(map(log_line, self.records.values())))
        self._add(layers)
        if self.settings["mode"] == "raise" and layers["revived"].any():
            loss = next(training_sentences(self.history)).removesuffix(".")
            raise SparsityReportError(
                f"{self._model.weights.name}: {loss}; go on with mode='report' or mode='hold'"
            )

    def callback(self, framework: str = "transformers") -> TrainerCallback:
        """Return a callback that calls :meth:`step` and logs :meth:`metrics`.

        Parameters
        ----------
        framework : {"transformers", "lightning"}
            The trainer: that of transformers and TRL, or that of Lightning. With Accelerate, call
            :meth:`step` after ``optimizer.step()``.

        Returns
        -------
        transformers.TrainerCallback
            Or lightning's ``Callback``, to pass as ``Trainer(callbacks=[…])``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> type(sr.track(sr.load().module()).callback()).__name__
        'ZerosCallback'
        """
        makers = {"transformers": _transformers_callback, "lightning": _lightning_callback}
        if framework not in makers:
            raise SparsityReportError(
                f"callback: framework must be one of {', '.join(makers)}, not {framework!r}; with "
                "others, call step() after optimizer.step()"
            )
        with explained(
            lambda e: f"callback: {first_line(e)}; pip install {framework}", ImportError
        ):
            return makers[framework](self)

    def _add(self, layers: pd.DataFrame) -> None:
        """Add a record, to the log first."""
        record = typed("history", layers.assign(step=self._step or 0))
        self._write(log_line(record))
        add_record(self, record)

    def _resumed(self) -> dict[int, pd.DataFrame]:
        """Return the records of the log, whose last line is completed; none of a new one."""
        if self._log is None or not self._log.exists() or not self._log.stat().st_size:
            return {}
        past = read_log(self._log)
        if past.settings != self.settings:
            raise SparsityReportError(
                f"{self._log}: is the log of another run, whose model, mask or options differ; "
                "give another file, or its mask, as in mask=sr.existing_zeros(sr.load(PRUNED))"
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
        File of JSON lines, one per record. If it exists and is of the same model, mask and options,
        it is continued from the number of the next :meth:`Tracker.step`. Where zeros were lost
        meanwhile, give the mask of the start.
    mode : {"report", "raise", "hold"}
        ``"report"`` records the zeros. ``"raise"`` also ends training by an error at the first
        record with a pruned weight that is not zero. ``"hold"`` sets the pruned weights and their
        gradients to zero after each step. The optimizer keeps its state for them, such as momentum,
        which has no effect where states are of single weights, as in Adam. Clipping by norm
        includes their gradients.
    mask : Pruning, optional
        Weights that are to be zero, such as ``sr.existing_zeros(sr.load("pruned"))``; by default
        the zeros of the prunable weights now. It takes one bit per weight.

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
    Step 1: 7.8 % of the 393...216 pruned weights are nonzero again, first in
    model.decoder.layers.0.fc1 at step 1.
    """
    from torch import nn

    from sparsity_report.counting.pruning import Pruning
    from sparsity_report.measure.tracked_model import TrackedModel

    if not isinstance(model, nn.Module) or not isinstance(mask, Pruning | None):
        raise SparsityReportError(
            "track: needs an nn.Module, such as sr.load().module(), and a pruning or no mask"
        )
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
    return Track(**vars(read_log(log)))


def _transformers_callback(tracker: Tracker) -> Any:
    from transformers import Trainer, TrainerCallback

    class ZerosCallback(TrainerCallback):  # type: ignore[misc]
        """Steps of a Trainer, whose method ``log`` receives the metrics."""

        trainer: Any = None

        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            # No callback receives the trainer, and reporters of log() are found through it.
            objects = (o for o in gc.get_objects() if issubclass(type(o), Trainer))
            self.trainer = next((o for o in objects if o.state is state), None)

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            tracker.step(state.global_step)
            # At the end of training, reporters close before this callback is called.
            if control.should_training_stop and tracker.steps[-1] != state.global_step:
                tracker.record()
            if self.trainer and tracker.steps[-1] == state.global_step:
                self.trainer.log(tracker.metrics())

    return ZerosCallback()


def _lightning_callback(tracker: Tracker) -> Any:
    Callback: Any = import_module("lightning.pytorch").Callback  # noqa: N806

    class ZerosCallback(Callback):  # type: ignore[misc]
        """Steps of a Lightning trainer, whose loggers receive the metrics."""

        step = 0

        def on_train_start(self, trainer: Any, _module: Any) -> None:
            self.step = trainer.global_step

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            # Batches whose gradients are accumulated are no steps.
            if trainer.global_step != self.step:
                self.step = trainer.global_step
                tracker.step(self.step)
                self._log(trainer)

        def on_train_end(self, trainer: Any, _module: Any) -> None:
            if tracker.steps[-1] != self.step:
                tracker.record()
                self._log(trainer)

        def _log(self, trainer: Any) -> None:
            for logger in trainer.loggers if tracker.steps[-1] == self.step else ():
                logger.log_metrics(tracker.metrics(), self.step)

    return ZerosCallback()
