"""Callbacks of trainers: the same history as a plain loop, and metrics where a trainer logs."""

import sys
from unittest import mock

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from two_processes import gpt2

import sparsity_report as sr

ROWS = [{key: torch.arange(n, n + 8) for key in ("input_ids", "labels")} for n in range(20)]


def tracked(every=2):
    """Return a pruned model and its tracker."""
    torch.manual_seed(0)
    model = sr.masked(sr.global_magnitude(sr.load(gpt2()), 0.5)).module()
    return model, sr.track(model, every=every)


def sgd(model):
    """Return an optimizer that leaves some zeros: those of layers that do not train."""
    for parameter in model.transformer.h[1].mlp.parameters():
        parameter.requires_grad = False
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)


def plain_loop(last=5):
    """Return the tracker and the metrics of a loop that accumulates gradients of two batches."""
    model, tracker = tracked()
    optimizer, logged = sgd(model), {}
    for step in range(1, last + 1):
        for row in ROWS[2 * step - 2 : 2 * step]:
            batch = {key: ids[None] for key, ids in row.items()}
            (model(**batch).loss / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        tracker.step()
        if step == last:
            tracker.record()
        if tracker.steps[-1] == step:
            logged[step] = tracker.metrics()
    return tracker, logged


class Reporter(TrainerCallback):
    """What a reporter such as that of W&B receives, until training ends."""

    def __init__(self):
        self.logged, self.is_open = {}, True

    def on_log(self, _args, state, _control, logs=None, **_):
        assert self.is_open
        zeros = {key: value for key, value in logs.items() if "/" in key}
        if zeros:
            self.logged[state.global_step] = zeros

    def on_train_end(self, *_, **__):
        self.is_open = False


def trained(tracker, model, folder, **options):
    """Train with the Trainer and return what its reporter received."""
    arguments = TrainingArguments(
        folder, max_steps=5, per_device_train_batch_size=1, gradient_accumulation_steps=2,
        report_to=[], logging_strategy="no", use_cpu=True, disable_tqdm=True, max_grad_norm=0,
        lr_scheduler_type="constant", save_only_model=True, save_steps=2,
    )  # fmt: skip
    reporter = Reporter()
    in_turn = mock.patch.object(Trainer, "_get_train_sampler", return_value=None)
    with in_turn:
        trainer = Trainer(
            model, arguments, train_dataset=ROWS, callbacks=[reporter, tracker.callback()],
            optimizers=(sgd(model), None),
        )  # fmt: skip
        trainer.train(**options)
    return reporter.logged


def test_trainer_logs_what_a_plain_loop_records(tmp_path):
    expected, metrics = plain_loop()
    model, tracker = tracked()
    logged = trained(tracker, model, tmp_path)
    assert 0 < tracker.totals["kept_share"].iloc[-1] < 1
    assert tracker.history.equals(expected.history)
    assert [*logged] == [2, 4, 5]
    assert {
        step: {k: v for k, v in row.items() if k != "epoch"} for step, row in logged.items()
    } == metrics


def test_records_after_a_checkpoint_are_replaced(tmp_path):
    model, tracker = tracked()
    trained(tracker, model, tmp_path)
    before = tracker.history
    trained(tracker, model, tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert tracker.history.equals(before)


@pytest.mark.tools
@pytest.mark.filterwarnings("ignore")
def test_lightning_logs_what_a_plain_loop_records(tmp_path):
    from lightning import pytorch
    from lightning.pytorch.loggers import CSVLogger

    class Module(pytorch.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, batch, _index):
            return self.model(**batch).loss

        def configure_optimizers(self):
            return sgd(self.model)

    expected, metrics = plain_loop()
    model, tracker = tracked()
    logger, logged = CSVLogger(tmp_path), {}
    logger.log_metrics = lambda values, step=None: logged.update({step: values})
    trainer = pytorch.Trainer(
        max_steps=5, accumulate_grad_batches=2, accelerator="cpu", logger=logger,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[tracker.callback("lightning")], log_every_n_steps=1000,
    )  # fmt: skip
    trainer.fit(Module(model), torch.utils.data.DataLoader(ROWS, batch_size=1))
    assert tracker.history.equals(expected.history)
    assert logged == metrics


def test_accelerate_calls_step():
    from accelerate import Accelerator

    expected, _ = plain_loop(4)
    model, tracker = tracked()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    rows = torch.utils.data.DataLoader(ROWS[:8], batch_size=1)
    model, optimizer, rows = accelerator.prepare(model, sgd(model), rows)
    for batch in rows:
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            tracker.step()
    assert tracker.history.equals(expected.history)


def test_unknown_and_missing_frameworks_are_refused():
    _, tracker = tracked()
    with pytest.raises(sr.SparsityReportError, match="transformers, lightning, not 'keras'"):
        tracker.callback("keras")
    gone = mock.patch.dict(sys.modules, {"lightning.pytorch": None})
    with gone, pytest.raises(sr.SparsityReportError, match="pip install lightning"):
        tracker.callback("lightning")
