"""Callbacks of trainers: count each step of the optimizer, and log the metrics of each record."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Protocol

from sparsity_report.errors import SparsityReportError, explained, first_line

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from transformers import TrainerCallback


class Recorder(Protocol):
    """A tracker of the zeros of a model."""

    @property
    def recorded_step(self) -> int: ...  # noqa: D102

    def step(self, number: int | None = None) -> None: ...  # noqa: D102

    def record(self) -> None: ...  # noqa: D102

    def metrics(self) -> dict[str, float]: ...  # noqa: D102


def make_callback(tracker: Recorder, framework: str) -> TrainerCallback | Callback:
    """Return the callback of a tracker for a framework, which is imported.

    Raises
    ------
    SparsityReportError
        The framework is not known, or not installed.
    """
    makers = {"transformers": _transformers_callback, "lightning": _lightning_callback}
    if framework not in makers:
        raise SparsityReportError(
            f"callback: framework must be one of {', '.join(makers)}, not {framework!r}; with "
            "others, call step() after optimizer.step()"
        )
    with explained(lambda e: f"callback: {first_line(e)}; pip install {framework}", ImportError):
        return makers[framework](tracker)


def _transformers_callback(tracker: Recorder) -> Any:
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
            if control.should_training_stop and tracker.recorded_step != state.global_step:
                tracker.record()
            if self.trainer and tracker.recorded_step == state.global_step:
                self.trainer.log(tracker.metrics())

    return ZerosCallback()


def _lightning_callback(tracker: Recorder) -> Any:
    from lightning.pytorch import Callback

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
            if tracker.recorded_step != self.step:
                tracker.record()
                self._log(trainer)

        def _log(self, trainer: Any) -> None:
            for logger in trainer.loggers if tracker.recorded_step == self.step else ():
                logger.log_metrics(tracker.metrics(), self.step)

    return ZerosCallback()
