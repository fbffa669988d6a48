"""Zeros of sharded models: two processes count as one does."""

import subprocess
import sys

import pandas as pd
import pytest
import two_processes

import sparsity_report as sr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder in which two processes have trained all cases."""
    folder = tmp_path_factory.mktemp("two")
    line = [sys.executable, two_processes.__file__, str(folder)]
    both = [subprocess.Popen([*line, str(rank)]) for rank in range(2)]
    try:
        assert [process.wait(300) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
    return folder


@pytest.mark.parametrize("case", two_processes.CASES)
def test_two_processes_record_what_one_does(folder, case):
    tracker = two_processes.train(case)
    fate = tracker.totals[["kept", "revived"]].sum()
    held = tracker.history["revived"].sum() == 0
    assert held if "mode" in two_processes.CASES[case][2] else (fate > 0).all()
    if case == "pattern":
        assert tracker.history["n_m_kept"].notna().any()
    of_two = sr.read_track(folder / f"{case}.jsonl").history
    pd.testing.assert_frame_equal(of_two, tracker.history)


def test_each_process_refuses_a_lost_zero_and_late_sharding(folder):
    lost, late = {(folder / f"errors-{rank}").read_text() for rank in range(2)}.pop().splitlines()
    assert " at step 1; go on with mode=" in lost
    assert "was sharded after track()" in late
