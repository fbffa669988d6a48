"""Other processes return equal counts, and a process that dies is an error."""

import multiprocessing
import random
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from dying import die, die_once
from helpers import known_counts, need, same_counts

import sparsity_report as sr
from sparsity_report.counting import counts
from sparsity_report.weights import tensor_slices


@pytest.fixture
def cut(folder, monkeypatch):
    """Return a function that opens a checkpoint in many slices."""
    monkeypatch.setattr(tensor_slices, "_SLICE", 256)
    return lambda: sr.load(folder)


def everything(weights, executor):
    """Return all results of counting with an executor."""
    pruning = sr.global_magnitude(weights, 0.3, executor=executor)
    return (
        pruning.cuts, sr.layerwise_magnitude(weights, 0.5, executor=executor).cuts,
        sr.n_m(weights, 2, 4, executor=executor).cuts, sr.sweep(weights, executor=executor),
    )  # fmt: skip


def same(cut, executor):
    here, away = cut(), cut()
    expected, actual = everything(here, None), everything(away, executor)
    same_counts(away, here)
    assert actual[:3] == expected[:3]
    assert actual[3].equals(expected[3])


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def test_processes_count_the_same(cut, processes):
    same(cut, processes)


def test_processes_do_the_counting(cut, processes, monkeypatch):
    weights = cut()
    monkeypatch.setattr(tensor_slices.FileSlice, "pieces", None)  # in this process only
    sr.global_magnitude(weights, 0.3, executor=processes)
    totals = {p.name: p.total for p in weights.stored}
    assert {name: tally.total for name, tally in known_counts(weights).items()} == totals


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_any_number_of_threads_counts_the_same(cut, workers):
    with ThreadPoolExecutor(workers) as pool:
        same(cut, pool)


class Shuffled(Executor):
    """An executor that runs all tasks in random order when a result is requested."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.tasks = []

    def submit(self, fn, /, *args, **kwargs):
        future = Asked(self)
        self.tasks.append((future, fn, args, kwargs))
        return future

    def run(self):
        self.random.shuffle(self.tasks)
        while self.tasks:
            future, fn, args, kwargs = self.tasks.pop()
            future.set_result(fn(*args, **kwargs))


class Asked(Future):
    def __init__(self, executor):
        super().__init__()
        self.executor = executor

    def result(self, timeout=None):
        self.executor.run()
        return super().result(timeout)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_arrival_does_not_matter(cut, seed):
    same(cut, Shuffled(seed))


@contextmanager
def dask():
    """An executor of two worker processes on loopback."""
    try:
        import distributed
    except ModuleNotFoundError:
        need(False, "dask.distributed: pip install distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
        dashboard_address="127.0.0.1:0", silence_logs=50,
    )  # fmt: skip
    with cluster, distributed.Client(cluster) as client:
        assert len(client.scheduler_info()["workers"]) == 2
        yield client.get_executor()


@pytest.mark.tools
def test_dask_counts_the_same(cut):
    with dask() as executor:
        same(cut, executor)


def test_a_worker_that_dies_is_an_error_that_names_the_tensor(cut, monkeypatch):
    weights = cut()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        monkeypatch.setattr(counts, "count_slice", die)
        with pytest.raises(
            sr.SparsityReportError, match=r"a worker failed at \S+\.weight"
        ) as caught:
            sr.global_magnitude(weights, 0.3, executor=pool)
        assert "BrokenProcessPool" in str(caught.value)
        assert known_counts(weights) == {}
        monkeypatch.undo()
        # The pool stays broken: still an error, not a number.
        with pytest.raises(sr.SparsityReportError, match=r"a worker failed at \S+\.weight"):
            sr.global_magnitude(weights, 0.3, executor=pool)
    sr.global_magnitude(weights, 0.3)
    same_counts(weights, cut())


@pytest.mark.tools
def test_tasks_of_a_dead_dask_worker_are_run_again(cut, tmp_path, monkeypatch):
    mark = tmp_path / "died"
    monkeypatch.setenv("SPARSITY_REPORT_TEST_MARK", str(mark))
    weights = cut()
    with dask() as executor, monkeypatch.context() as patch:
        patch.setattr(counts, "count_slice", die_once)
        counting = threading.Thread(
            target=sr.global_magnitude, args=(weights, 0.0), kwargs={"executor": executor},
            daemon=True,
        )  # fmt: skip
        counting.start()
        counting.join(120)
    assert not counting.is_alive(), "dask waits for workers that are gone"
    assert mark.exists()
    same_counts(weights, cut())


def test_an_executor_that_is_shut_down(cut):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(sr.SparsityReportError, match=r"a worker failed at .*shutdown"):
        sr.global_magnitude(cut(), 0.3, executor=pool)


def test_a_file_no_worker_can_see(cut, processes):
    weights = cut()
    for file in {part.file.path for p in weights.prunable for part in weights.slices(p.name)}:
        file.rename(file.with_suffix(".gone"))
    with pytest.raises(sr.SparsityReportError, match=r"\.weight: .* cannot be read: No such file"):
        sr.global_magnitude(weights, 0.3, executor=processes)


def test_a_relative_path_holds_in_any_working_directory(cut, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    weights = sr.load(folder.name)
    monkeypatch.chdir("/")
    same_counts(weights, cut())


def test_models_in_memory_are_counted_here(tiny):
    class Refuses(Executor):
        def submit(self, *_, **__):
            raise AssertionError("a model was sent away")

    expected = sr.global_magnitude(sr.load(tiny), 0.3).cuts
    assert sr.global_magnitude(sr.load(tiny), 0.3, executor=Refuses()).cuts == expected


@pytest.mark.parametrize("size", [64, 2**14])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_denormal_numbers_are_not_zero(size, dtype):
    """Denormal numbers are zeros in arithmetic while torch flushes them, but not in the file."""
    unit = 2.0**-20 if dtype == torch.float16 else 2.0**-130
    values = torch.from_numpy(np.arange(size) % 3 * unit)
    small = torch.nn.ModuleDict({"fc1": torch.nn.Linear(size, 1, bias=False, dtype=dtype)})
    with torch.no_grad():
        small["fc1"].weight[:] = values
    zeros = -(-size // 3)
    bits = small["fc1"].weight.view(torch.int32 if dtype == torch.float32 else torch.int16)
    assert int((bits == 0).sum()) == zeros
    assert torch.set_flush_denormal(True)
    try:
        pruning = sr.global_magnitude(sr.load(small), 0.5)
        study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), patterns=True)
        for policy in (sr.layerwise_magnitude, sr.random_unstructured):
            each = policy(pruning.weights, 0.5)
            assert int((~each.mask("fc1.weight")).sum()) == each.pruned == size // 2
        masked = sr.masked(pruning).module()["fc1"].weight.detach().view(bits.dtype)
        (row,) = sr.compare_checkpoints(small, small).matches.to_dict("records")
        assert not sys.float_info.min / 2
    finally:
        torch.set_flush_denormal(False)
    assert int((masked == 0).sum()) == size // 2
    left = [size - zeros, size - size // 2]
    assert study.layers["weight_nonzero"].tolist() == left
    assert study.patterns["sparsity"].tolist() == [1 - each / size for each in left]
    assert (row["zeros_before"], row["kept"], row["changed"]) == (zeros, zeros, 0)


def test_threads_end_with_the_counting(tiny):
    before = threading.active_count()
    sr.global_magnitude(sr.load(tiny), 0.3)
    assert threading.active_count() == before
