"""What of measured times may be told: the rule, at its edges."""

import measurements
import pandas as pd
import pytest

from sparsity_report.study.derived import speedups

LAYOUTS = {"Dense": "dense", "Masked30": "masked", "CSR30": "csr"}


def verdict(variant="CSR30", **cells):
    frame = measurements.latency().query("scope == 'model' and tokens == 1")
    frame = frame.assign(**cells) if variant != "CSR30" else frame
    at = frame["variant"] == "CSR30"
    for column, value in cells.items():
        frame.loc[at, column] = value
    told = speedups.speeds(frame, LAYOUTS)
    return told.set_index("variant")["verdict"][variant]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        # The control of the frame is 0.93 to 1.04: the band ends at 1 ÷ 0.93 = 1.0753 and 0.93.
        ({}, "stated"),
        ({"realised_low": 1.076, "realised_high": 2.0}, "stated"),
        ({"realised_low": 1.075, "realised_high": 2.0}, "noise"),
        ({"realised_low": 0.5, "realised_high": 0.929}, "stated"),
        ({"realised_low": 0.5, "realised_high": 0.931}, "noise"),
        ({"realised_low": 0.5, "realised_high": 2.0}, "noise"),
        # A control that is too good to be true has 2 % of its own.
        ({"control_low": 1.0, "control_high": 1.0, "realised_low": 1.021}, "stated"),
        ({"control_low": 1.0, "control_high": 1.0, "realised_low": 1.019}, "noise"),
        # One that leaves out 1 vouches for nothing.
        ({"control_low": 1.01, "control_high": 1.1}, "stated"),
        ({"control_low": 1.03, "control_high": 1.1}, "unsettled"),
        ({"control_low": 0.9, "control_high": 0.97}, "unsettled"),
        ({"runs": 15}, "stated"),
        ({"runs": 14}, "few"),
        # Two threads on four cores leave room for two others and a tenth of a thread each.
        ({"others": 2.2}, "stated"),
        ({"others": 2.21}, "crowded"),
        ({"others": None}, "stated"),
        ({"cores": None}, "stated"),
        # Where it is not known what they took, the load beyond the two threads stands for it.
        ({"others": None, "load": 4.2}, "stated"),
        ({"others": None, "load": 4.3}, "crowded"),
        ({"others": None, "load": None}, "stated"),
        ({"control_low": None, "control_high": None}, "unknown"),
        ({"realised_low": None}, "unknown"),
        # A CSR variant's layer that runs as dense.
        ({"kernel": "dense"}, "same"),
    ],
    ids=str,
)
def test_a_speed_is_told_only_beyond_the_noise(cells, expected):
    if "realised_low" in cells and cells["realised_low"] and "realised_high" not in cells:
        cells = cells | {"realised_high": 3.0}
    assert verdict(**cells) == expected


@pytest.mark.parametrize("low", [0.1, 5.0])
def test_masked_is_never_faster_nor_slower_than_dense(low):
    cells = {"realised_speedup": low, "realised_low": low, "realised_high": low}
    frame = measurements.latency().query("tokens == 1")
    at = frame["variant"] == "Masked30"
    for column, value in cells.items():
        frame.loc[at, column] = value
    told = speedups.speeds(frame, LAYOUTS)
    assert set(told.loc[at, "verdict"]) == {"same"}
    assert set(told.loc[frame["variant"] == "Dense", "verdict"]) == {"same"}
    # Against a base that runs other kernels it is a speed.
    other = speedups.speeds(frame, {**LAYOUTS, "Dense": "csr"})
    assert set(other.loc[at, "verdict"]) == {"stated"}


def test_how_far_the_same_kernel_was_from_itself():
    assert speedups.noise(0.5, 1.25) == 1.0
    assert speedups.noise(0.9, 1.4) == pytest.approx(0.4)
    assert speedups.noise(1.0, 1.0) == 0.0
    assert pd.isna(speedups.noise(pd.Series([float("nan")]), pd.Series([1.2]))).all()


def test_crossovers_are_told_apart():
    frame = measurements.latency()
    told = speedups.crossovers(frame)
    assert told[["tokens", "cache", "verdict"]].to_numpy().tolist() == [
        [1, "out of cache", "stated"], [128, "out of cache", "never"],
    ]  # fmt: skip
    for low, expected in ((0.98, "above"), (None, "unknown")):
        one = frame.assign(crossover_low=low, crossover_sparsity=None, crossover_high=None)
        one = one.astype({"crossover_low": "Float64", "crossover_high": "Float64"})
        assert set(speedups.crossovers(one)["verdict"]) == {expected}
