"""A hundred levels say what pruning at each of them would."""

import numpy as np
import pytest
from helpers import models
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsity_report as sr
from sparsity_report.study.schema import TABLES

SAME = ("module_name", "block", "group", "total", "nonzero", "weight_total", "weight_nonzero")


@settings(max_examples=20)
@given(models(), st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True))
def test_every_level_is_what_pruning_there_gives(model, sparsities):
    weights = sr.load(model)
    frame = sr.sweep(weights, sparsities)
    for sparsity in sparsities:
        pruning = sr.global_magnitude(weights, sparsity)
        masked, csr = sr.masked(pruning).layers(), sr.csr(pruning).layers()
        here = frame[frame["sparsity"] == sparsity].reset_index(drop=True)
        assert here["nonzero"].sum() == masked["nonzero"].sum()
        assert ((here["nonzero"] - masked["nonzero"]).abs() <= here["uncertainty"]).all()
        exact = here["uncertainty"] == 0
        for column in (*SAME, "useful_flops_per_token"):
            assert here[column][exact].equals(masked[column][exact]), column
        assert here["dense_bytes"].equals(masked["stored_bytes"])
        assert here["csr_bytes"][exact].equals(csr["stored_bytes"][exact])


def test_the_default_levels(demo):
    frame = sr.sweep(demo)
    assert list(frame.columns) == [*TABLES["sweep"]]
    levels = np.arange(100) / 100
    assert np.array_equal(frame["sparsity"].unique(), levels)
    assert len(frame) == 100 * len(demo.modules)
    total = sum(p.total for p in demo.prunable)
    before = frame.loc[frame["sparsity"] == 0, "nonzero"].sum()
    after = frame.groupby("sparsity")["nonzero"].sum()
    # The demo has no zeros among its prunable weights, so each level takes its number of them.
    assert (before - after).tolist() == [round(level * total) for level in levels]


def test_order_and_repetition_of_levels(tiny):
    frame = sr.sweep(sr.load(tiny), [0.5, 0.1, 0.5])
    modules = len(sr.load(tiny).modules)
    assert frame["sparsity"].tolist() == [0.5] * modules + [0.1] * modules + [0.5] * modules
    assert frame[:modules].equals(frame[2 * modules :].reset_index(drop=True))


def test_refusals(tiny):
    for bad in ([1.5], ["0.3"], []):
        with pytest.raises(sr.SparsityReportError, match="sparsity"):
            sr.sweep(sr.load(tiny), bad)
