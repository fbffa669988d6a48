import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Tiny
from torch import nn
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.measure import clock, latency
from sparsity_report.measure.clock import Timing
from sparsity_report.study.schema import TABLES

NAMED = {case.name: case for case in CASES}


MACHINE = {"machine": "some machine", "cores": 4, "threads": 2, "cache_bytes": 2**14}
QUIET = {"others": 0.0, "load": None}


@pytest.fixture(autouse=True)
def a_machine(monkeypatch):
    """A machine with a small cache, that nobody has to measure."""
    monkeypatch.setattr(latency, "this_machine", lambda: MACHINE)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(clock, "SAMPLE", 1e-5)
    monkeypatch.setattr(clock, "ENOUGH", 3)
    return sr.Clock(precision=9, budget=1e-3)


@pytest.fixture
def played(monkeypatch):
    """Let every call take as many seconds as its place among those timed, counted from 2.

    Nothing else has a core meanwhile.
    """
    seen = []

    def timed(calls, counts, base, control, limits):
        assert limits[0] > 0
        assert len(calls) == len(counts)
        for call in calls:
            call()
        seen.append(len(calls))
        own = [2.0 + n for n in range(len(calls))]
        again = own[base] * np.repeat([0.8, 1.0, 1.25, 1.0, 1.0], 4)
        control = len(own) if control is None else control
        return Timing(np.column_stack([np.tile(own, (20, 1)), again]), base, control)

    monkeypatch.setattr(latency, "timed", timed)
    monkeypatch.setattr(latency.Watch, "conditions", lambda _: QUIET)
    return seen


def three(weights, sparsity=0.75):
    pruning = sr.global_magnitude(weights, sparsity)
    return [sr.dense(weights), sr.masked(pruning), sr.csr(pruning)]


def test_speedups_are_ratios(played):
    variants = three(sr.load())
    steps = []
    frame = sr.latency(variants, tokens=[1, 4], progress=lambda *step: steps.append(step))
    assert list(frame.columns) == [*TABLES["latency"]]
    # three shapes in two states of the cache and the whole forward pass, two numbers of tokens,
    # three variants
    assert len(frame) == (3 * 2 + 1) * 2 * 3
    assert played == [3] * 14 + [9] * 12
    assert [step[:2] for step in steps] == [(n, 26) for n in range(26)]
    csr = frame[frame["variant"] == "CSR75"]
    assert (csr["realised_speedup"] == 2 / 4).all()
    assert (csr[["realised_low", "realised_high"]] == 2 / 4).all(axis=None)
    layers = csr[csr["scope"] == "layer"]
    assert layers["modules"].tolist() == [4] * 8 + [16] * 4
    assert layers["cache"].tolist() == ["in cache", "out of cache"] * 6
    for row in layers.itertuples():
        rows, columns = map(int, row.name.split(" × "))
        left = round((1 - row.sparsity) * rows * columns)
        assert row.promised_speedup == pytest.approx(rows * columns / left)
        assert row.realised_share == pytest.approx(0.5 / row.promised_speedup)
        assert row.kernel == ("CSR × vector" if row.tokens == 1 else "CSR × matrix")
        # Values and columns of 4 bytes each, and row pointers.
        assert row.weight_bytes == 8 * left + 4 * (rows + 1)
    totals = sr.compare(*variants).totals.set_index("variant")["flops_per_token"]
    whole = csr[csr["scope"] == "model"]
    assert whole["promised_speedup"].tolist() == [totals["Dense"] / totals["CSR75"]] * 2
    assert whole[["cache", "weight_bytes"]].isna().all(axis=None)
    masked = frame[frame["variant"] == "Masked75"]
    assert (masked["promised_speedup"] == 1).all()
    assert (masked["sparsity"][masked["scope"] == "model"] == 0.75).all()
    dense = frame[frame["variant"] == "Dense"]
    assert (dense["realised_speedup"] == 1).all()
    assert (frame["machine"] == "some machine").all()
    assert (frame["cores"] == 4).all()
    # CSR grows slower at every place of the pretended clock: there is no crossover.
    assert frame["crossover_sparsity"].isna().all()
    assert set(frame["crossover_low"].dropna()) == {0.99}


def test_the_control_is_the_masked_variant_or_dense_once_more(played):
    variants = three(sr.load())
    frame = sr.latency(variants, tokens=[1], crossovers=False)
    assert set(frame["control"]) == {"Masked75"}
    assert (frame[["control_low", "control_high"]] == 2 / 3).all(axis=None)
    frame = sr.latency(variants[::2], tokens=[1], crossovers=False)
    assert set(frame["control"]) == {"Dense"}
    assert set(frame["control_low"]) == {0.8}
    assert set(frame["control_high"]) == {1.25}
    assert set(played) == {3, 2}


def test_a_crossover_needs_a_control_that_holds_one_and_room(monkeypatch, played):  # noqa: ARG001
    variants = three(sr.load(nn.ModuleDict({"fc1": nn.Linear(32, 16)})))
    frame = sr.latency(variants, tokens=[1], clock=sr.Clock(cold=False))
    assert set(frame["crossover_low"]) == {0.99}
    others = {"others": 2.3, "load": None}
    monkeypatch.setattr(latency.Watch, "conditions", lambda _: others)
    frame = sr.latency(variants, tokens=[1], clock=sr.Clock(cold=False))
    assert frame["crossover_low"].isna().all()
    assert set(frame["others"]) == {2.3}


@pytest.mark.parametrize("ends", [(0.5, 2.0), (0.25, 4.0)])
def test_a_crossover_is_where_csr_becomes_faster(monkeypatch, ends):
    """The speed-up of CSR grows evenly in its logarithm from the first level to the last."""
    monkeypatch.setattr(latency.Watch, "conditions", lambda _: QUIET)
    levels = np.array([0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99])
    speeds = ends[0] * (ends[1] / ends[0]) ** (levels / 0.99)

    def timed(calls, counts, base, control, limits):  # noqa: ARG001
        seconds = 1 / speeds if len(calls) == 9 else np.ones(len(calls) - 1)
        return Timing(np.tile([1.0, *seconds, 1.0], (20, 1)), base, len(calls))

    monkeypatch.setattr(latency, "timed", timed)
    variants = three(sr.load(nn.ModuleDict({"fc1": nn.Linear(32, 16)})))
    frame = sr.latency(variants, tokens=[1], clock=sr.Clock(cold=False))
    assert frame["crossover_sparsity"].tolist() == pytest.approx([0.495] * 3)
    assert (frame["crossover_low"] < 0.495).all()
    assert (frame["crossover_high"] > 0.495).all()


def test_weights_are_timed_where_they_were_asked_to_be(played):
    variants = three(sr.load())
    for cold, state in ((True, "out of cache"), (False, "in cache")):
        options = sr.Clock(cold=cold)
        frame = sr.latency(variants, tokens=[1], clock=options)
        assert set(frame["cache"].dropna()) == {state}
    assert len(played) == 2 * (3 + 1 + 3)


def test_small_layers_are_timed_in_cache(monkeypatch, played):
    huge = MACHINE | {"cache_bytes": 2**32}
    monkeypatch.setattr(latency, "this_machine", lambda: huge)
    frame = sr.latency(three(sr.load()), tokens=[1])
    assert set(frame["cache"].dropna()) == {"in cache"}
    assert played == [3] * 4 + [9] * 3


@pytest.mark.filterwarnings("ignore")  # advice on kernels that are not installed
@pytest.mark.parametrize(
    "name", ["GPT-2", "T5", "BERT", "Mixtral (fused experts)", "GPT-OSS (transposed experts)"]
)
def test_architectures(name, quick):
    case = next(c for n, c in NAMED.items() if n.startswith(name.split(" (")[0]))
    weights = sr.load(built(case))
    frame = sr.latency(three(weights), tokens=[1, 5], crossovers=False, clock=quick)
    shapes = {p.matrix for p in weights.prunable}
    assert set(frame["name"]) == {f"{r} × {c}" for r, c in shapes} | {"whole forward"}
    assert frame[["seconds", "realised_speedup"]].gt(0).all(axis=None)
    assert (frame["threads"] == MACHINE["threads"]).all()
    assert frame["runs"].between(3, 5).all()


def test_matrix_that_does_not_run_as_csr_is_timed_alone(quick):
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(16, 2), "fc1": nn.Linear(16, 16)})
    frame = sr.latency(three(sr.load(model)), tokens=[3], crossovers=False, clock=quick)
    frame = frame[frame["cache"] == "in cache"]
    kernels = frame.set_index(["variant", "name"])["kernel"]
    assert kernels["CSR75", "48 × 16"] == kernels["Dense", "48 × 16"] == "dense"
    # Of the two of this shape the one that runs as CSR is the one to measure.
    assert kernels["CSR75", "16 × 16"] == "CSR × matrix"
    assert frame.set_index("name")["modules"].to_dict() == {"48 × 16": 1, "16 × 16": 2}


def test_half_precision_says_where_it_computes(quick):
    model = Tiny().to(torch.bfloat16)
    frame = sr.latency(three(sr.load(model)), tokens=[1], crossovers=False, clock=quick)
    csr = frame[frame["variant"] == "CSR75"]
    assert set(csr["kernel"]) == {"CSR × vector in float32"}
    assert set(csr["dtype"]) == {"bfloat16"}
    assert set(frame["scope"]) == {"layer"}  # Tiny does not read token ids


@pytest.mark.usefixtures("played")
def test_a_study_keeps_it(tmp_path):
    variants = three(sr.load())
    frame = sr.latency(variants, tokens=[1])
    study = sr.compare(*variants).with_measured(latency=frame)
    again = sr.read_study(study.save(tmp_path / "study.json")).latency
    pd.testing.assert_frame_equal(again, frame)
    assert frame["modules"].isna().any()


def test_refusals():
    with pytest.raises(sr.SparsityReportError, match="at least one variant"):
        sr.latency([])
    with pytest.raises(sr.SparsityReportError, match="Other has other layers than Dense"):
        sr.latency([sr.dense(sr.load()), sr.dense(Tiny(), name="Other")])
    with pytest.raises(sr.SparsityReportError, match="positive whole numbers"):
        sr.latency(three(sr.load()), tokens=[0])
