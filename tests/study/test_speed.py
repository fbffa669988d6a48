"""Verdicts on measured times, at the limits of each rule."""

import measurements
import pandas as pd
import pytest

from sparsity_report.study.derived import speedups

LAYOUTS = {"Dense": "dense", "Masked30": "masked", "CSR30": "csr"}


def changed(frame, variant, cells):
    """Return times with other cells in the rows of a variant."""
    frame = frame.copy()
    for column, value in cells.items():
        frame.loc[frame["variant"] == variant, column] = value
    return frame


def verdict(**cells):
    frame = measurements.latency().query("scope == 'model' and tokens == 1")
    told = speedups.speeds(changed(frame, "CSR30", cells), LAYOUTS)
    return told.set_index("variant")["verdict"]["CSR30"]


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
     ({"control_low": 0.9, "control_high": 0.97}, "unsettled"), ({"runs": 15}, "stated"),
     ({"runs": 14}, "few"),
     # Two threads on four cores leave room for two others and a tenth of a thread each.
     ({"others": 2.2}, "stated"),
     ({"others": 2.21}, "crowded"), ({"others": None}, "stated"), ({"cores": None}, "stated"),
     # Where it is not known what they took, the load beyond the two threads stands for it.
     ({"others": None, "load": 4.2}, "stated"),
     ({"others": None, "load": 4.3}, "crowded"), ({"others": None, "load": None}, "stated"),
     ({"control_low": None, "control_high": None}, "unknown"), ({"realised_low": None}, "unknown"),
     # A CSR variant's layer that runs as dense.
     ({"kernel": "dense"}, "same")
    ],
    ids=str,
)  # fmt: skip
def test_a_speed_is_stated_only_beyond_the_noise(cells, expected):
    if "realised_low" in cells and cells["realised_low"] and "realised_high" not in cells:
        cells = cells | {"realised_high": 3.0}
    assert verdict(**cells) == expected


@pytest.mark.parametrize("low", [0.1, 5.0])
def test_masked_is_never_faster_nor_slower_than_dense(low):
    cells = {"realised_speedup": low, "realised_low": low, "realised_high": low}
    frame = changed(measurements.latency().query("tokens == 1"), "Masked30", cells)
    at = frame["variant"] == "Masked30"
    told = speedups.speeds(frame, LAYOUTS)
    assert set(told.loc[at, "verdict"]) == {"same"}
    assert set(told.loc[frame["variant"] == "Dense", "verdict"]) == {"same"}
    # Against a base that runs other kernels it is a speed.
    other = speedups.speeds(frame, {**LAYOUTS, "Dense": "csr"})
    assert set(other.loc[at, "verdict"]) == {"stated"}


def test_crossovers_have_distinct_verdicts():
    frame = measurements.latency()
    told = speedups.crossovers(frame)
    assert told[["tokens", "cache", "verdict"]].to_numpy().tolist() == [
        [1, "out of cache", "stated"], [128, "out of cache", "never"],
    ]  # fmt: skip
    for low, expected in ((0.98, "above"), (None, "unknown")):
        one = frame.assign(crossover_low=low, crossover_sparsity=None, crossover_high=None)
        one = one.astype({"crossover_low": "Float64", "crossover_high": "Float64"})
        assert set(speedups.crossovers(one)["verdict"]) == {expected}


def clocked(seconds, bytes_of=(16, 32, 64)):
    """Layers of three sizes and their times, of one variant that is its own control."""
    frame = measurements.latency(variants=("Dense", "Masked30", "CSR30"))
    frame = frame[(frame["scope"] == "layer") & (frame["tokens"] == 1)]
    parts = [
        frame.assign(name=f"{size} × 1", weight_bytes=size, seconds=time)
        for size, time in zip(bytes_of, seconds, strict=True)
    ]
    return speedups.speeds(pd.concat(parts, ignore_index=True), LAYOUTS)


@pytest.mark.parametrize(
    ("seconds", "bytes_of", "is_tick"),
    [((0.016, 0.01601, 0.01599), (16, 32, 64), True),
     # 1 % is as close as ticks come, and times below a tick of 1 ms are no ticks.
     ((0.016, 0.0162, 0.0164), (16, 32, 64), False),
     ((0.016, 0.016, 0.016), (16, 17, 18), False), ((0.016, 0.016, 0.032), (16, 32, 64), False),
     ((0.0005, 0.0005, 0.0005), (16, 32, 64), False)],
    ids=["same", "apart", "same size", "two", "short"],
)  # fmt: skip
def test_ticks_of_a_timer_are_no_times(seconds, bytes_of, is_tick):
    told = clocked(seconds, bytes_of)
    csr = told[told["variant"] == "CSR30"]
    assert set(csr["verdict"]) == ({"ticks"} if is_tick else {"stated"})
    assert set(told["withheld"].dropna()) == ({"ticks"} if is_tick else set())


def test_no_time_without_a_sound_control():
    frame = measurements.latency().query("scope == 'model' and tokens == 1")

    def withheld(**cells):
        told = speedups.speeds(frame.assign(**cells), LAYOUTS)
        return dict(zip(told["variant"], told["withheld"].fillna(""), strict=True))

    names = ("Dense", "Masked30", "CSR30")
    assert withheld() == dict.fromkeys(names, "")
    assert withheld(others=2.21) == dict.fromkeys(names, "crowded")
    assert withheld(control_low=1.03, control_high=1.1) == dict.fromkeys(names, "unsettled")
    # CSR30 takes 0.38 to 0.42 of the speed: a control of 0.5 to 2 leaves it its time and that of
    # the kernels that it was compared with; one from 0.3 leaves none.
    assert withheld(control_low=0.5, control_high=2.0) == dict.fromkeys(names, "")
    assert withheld(control_low=0.3, control_high=1.0) == dict.fromkeys(names, "noise")
