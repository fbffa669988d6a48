import pandas as pd
import pytest
import torch
from helpers import Tiny
from torch import nn
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.measure import latency
from sparsity_report.measure.latency import Time
from sparsity_report.study.schema import TABLES

NAMED = {case.name: case for case in CASES}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(latency, "_RUNS", 3)
    monkeypatch.setattr(latency, "_FEWEST", 1)
    monkeypatch.setattr(latency, "_SAMPLE", 1e-5)


@pytest.fixture
def clock(monkeypatch):
    """Let every call take as many seconds as its place among those timed, counted from 2."""
    seen = []

    def timed(calls):
        for call in calls:
            call()
        seen.append(len(calls))
        return [Time(2.0 + n, 1.0 + n, 3.0 + n, 7) for n in range(len(calls))]

    monkeypatch.setattr(latency, "interleaved", timed)
    return seen


def three(weights, sparsity=0.75):
    pruning = sr.global_magnitude(weights, sparsity)
    return [sr.dense(weights), sr.masked(pruning), sr.csr(pruning)]


def test_speedups_are_ratios(clock):
    variants = three(sr.load())
    frame = sr.measure_latency(variants, tokens=[1, 4])
    assert tuple(frame.columns) == TABLES["latency"].names
    # three shapes and the whole forward pass, two numbers of tokens, three variants
    assert len(frame) == (3 + 1) * 2 * 3
    assert clock == [3] * 8 + [9] * 6
    csr = frame[frame["variant"] == "CSR75"]
    assert (csr["realised_speedup"] == 2 / 4).all()
    layers = csr[csr["scope"] == "layer"]
    assert layers["modules"].tolist() == [4, 4, 4, 4, 16, 16]
    for row in layers.itertuples():
        rows, columns = map(int, row.name.split(" × "))
        left = round((1 - row.sparsity) * rows * columns)
        assert row.promised_speedup == pytest.approx(rows * columns / left)
        assert row.realised_share == pytest.approx(0.5 / row.promised_speedup)
        assert row.kernel == ("CSR × vector" if row.tokens == 1 else "CSR × matrix")
    totals = sr.compare(*variants).totals.set_index("variant")["flops_per_token"]
    whole = csr[csr["scope"] == "model"]
    assert whole["promised_speedup"].tolist() == [totals["Dense"] / totals["CSR75"]] * 2
    masked = frame[frame["variant"] == "Masked75"]
    assert (masked["promised_speedup"] == 1).all()
    assert (masked["sparsity"][masked["scope"] == "model"] == 0.75).all()
    dense = frame[frame["variant"] == "Dense"]
    assert (dense["realised_speedup"] == 1).all()
    # CSR grows slower at every place of the pretended clock: there is no crossover
    assert frame["crossover_sparsity"].isna().all()


@pytest.mark.parametrize(
    ("speedups", "edge"),
    [([2.0, 3.0, 4.0], 0.0), ([0.5, 0.5, 0.9], None), ([0.5, 1.0, 2.0], 0.5),
     ([0.25, 4.0, 4.0], 0.25), ([2.0, 0.5, 2.0], 0.7)],
)  # fmt: skip
def test_crossover_is_where_csr_stays_faster(speedups, edge):
    assert latency.crossing([0.0, 0.5, 0.9], speedups) == (
        None if edge is None else pytest.approx(edge)
    )


@pytest.mark.usefixtures("quick")
def test_variants_take_turns(monkeypatch):
    order = []
    calls = [lambda n=n: order.append(n) for n in range(3)]
    monkeypatch.setattr(latency, "_SAMPLE", 0.0)
    times = latency.interleaved(calls)
    turns = [key for n, key in enumerate(order) if n == 0 or order[n - 1] != key]
    assert turns == [0, 1, 2, 0, 1, 2, 1, 0, 1, 2]  # warming up, forth, back, forth
    assert [time.runs for time in times] == [3, 3, 3]
    assert all(0 < t.seconds_low <= t.seconds <= t.seconds_high for t in times)


@pytest.mark.filterwarnings("ignore")  # advice on kernels that are not installed
@pytest.mark.parametrize(
    "name", ["GPT-2", "T5", "BERT", "Mixtral (fused experts)", "GPT-OSS (transposed experts)"]
)
@pytest.mark.usefixtures("quick")
def test_architectures(name):
    case = next(c for n, c in NAMED.items() if n.startswith(name.split(" (")[0]))
    weights = sr.load(built(case))
    frame = sr.measure_latency(three(weights), tokens=[1, 5], crossovers=False)
    shapes = {p.matrix for p in weights.prunable}
    assert set(frame["name"]) == {f"{r} × {c}" for r, c in shapes} | {"whole forward"}
    assert frame[["seconds", "realised_speedup"]].gt(0).all(axis=None)
    assert (frame["threads"] == torch.get_num_threads()).all()


@pytest.mark.usefixtures("quick")
def test_a_matrix_that_does_not_run_as_csr_is_timed_by_itself():
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(16, 2), "fc1": nn.Linear(16, 16)})
    frame = sr.measure_latency(three(sr.load(model)), tokens=[3], crossovers=False)
    kernels = frame.set_index(["variant", "name"])["kernel"]
    assert kernels["CSR75", "48 × 16"] == kernels["Dense", "48 × 16"] == "dense"
    # Of the two of this shape the one that runs as CSR is the one to measure.
    assert kernels["CSR75", "16 × 16"] == "CSR × matrix"
    assert frame.set_index("name")["modules"].to_dict() == {"48 × 16": 1, "16 × 16": 2}


@pytest.mark.usefixtures("quick")
def test_half_precision_says_where_it_computes():
    model = Tiny().to(torch.bfloat16)
    frame = sr.measure_latency(three(sr.load(model)), tokens=[1], crossovers=False)
    csr = frame[frame["variant"] == "CSR75"]
    assert set(csr["kernel"]) == {"CSR × vector in float32"}
    assert set(csr["dtype"]) == {"bfloat16"}
    assert set(frame["scope"]) == {"layer"}  # Tiny does not read token ids


@pytest.mark.usefixtures("quick")
def test_crossover_curves():
    frame = sr.crossover(sr.load(nn.ModuleDict({"fc1": nn.Linear(32, 16)})), tokens=[1, 2])
    assert tuple(frame.columns) == TABLES["crossover"].names
    assert frame["tokens"].tolist() == [1] * 8 + [2] * 8
    ratio = frame["dense_seconds"] / frame["csr_seconds"]
    assert frame["speedup"].tolist() == pytest.approx(ratio.tolist())


@pytest.mark.usefixtures("clock")
def test_a_study_keeps_it(tmp_path):
    variants = three(sr.load())
    frame = sr.measure_latency(variants, tokens=[1])
    study = sr.compare(*variants).with_measured(latency=frame)
    again = sr.read_study(study.save(tmp_path / "study.json")).latency
    pd.testing.assert_frame_equal(again, frame)
    assert frame["modules"].isna().any()


def test_refusals():
    with pytest.raises(sr.SparsityReportError, match="at least one variant"):
        sr.measure_latency([])
    with pytest.raises(sr.SparsityReportError, match="Other has other layers than Dense"):
        sr.measure_latency([sr.dense(sr.load()), sr.dense(Tiny(), name="Other")])
    with pytest.raises(sr.SparsityReportError, match="positive whole numbers"):
        sr.measure_latency(three(sr.load()), tokens=[0])
    with pytest.raises(sr.SparsityReportError, match="no prunable"):
        sr.crossover(sr.load(nn.LayerNorm(3)))
    for dtype in ("float31", "int8", "load"):
        with pytest.raises(sr.SparsityReportError, match="dtype must name a torch dtype of floats"):
            sr.crossover(sr.load(), dtype=dtype)
