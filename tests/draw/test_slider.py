"""The slider's sums are those of real prunings at the same levels."""

import dataclasses

import pytest
import torch
from helpers import Tiny, study_of
from torch import nn

import sparsity_report as sr
from sparsity_report.draw.slider import slider


def bfloat():
    torch.manual_seed(1)
    return sr.load(Tiny(dtype=torch.bfloat16, width=16, hidden=40), name="tiny")


@pytest.mark.parametrize("percent", [0, 1, 30, 50, 77, 99])
def test_sums_are_those_of_a_pruning_at_that_level(percent):
    weights = bfloat()
    made = slider(study_of(weights))
    pruning = sr.global_magnitude(weights, percent / 100)
    totals = sr.compare(sr.dense(weights), sr.csr(pruning)).totals
    dense, csr = totals.to_dict("records")
    assert made.prunable == csr["prunable_total"]
    assert made.zeros[percent] == csr["prunable_total"] - csr["prunable_nonzero"]
    assert made.model[percent] == csr["total"] - csr["nonzero"]
    assert made.flops[percent] == csr["flops_per_token"]
    assert made.bytes[percent] == csr["stored_bytes"]
    assert made.dense_flops == dense["flops_per_token"]
    assert made.dense_bytes == dense["stored_bytes"]
    row = made.row(percent)
    assert row["bytes_ratio"] == csr["stored_bytes"] / dense["stored_bytes"]
    assert row["model_share"] == pytest.approx(csr["sparsity_model"])


def test_cells_and_groups_add_up_to_the_whole():
    made = slider(study_of(bfloat(), 0.4))
    at = 40
    pruned = round(0.4 * 2 * (16 * 16 + 2 * 16 * 40))
    assert made.zeros[at] == pruned
    assert sum(group["zeros"][at] for group in made.groups) == pruned
    cells = made.cells
    assert sum(sum(steps[: at + 1]) for steps in cells["zeros"]) == pruned
    assert sum(cells["total"]) == made.prunable
    assert (cells["blocks"], cells["projections"]) == ([0, 1], ["q_proj", "fc1", "fc2"])
    assert cells["module"][4] == "layers.1.fc1"
    assert made.marks == [("Masked40", pytest.approx(pruned / made.prunable))]
    assert made.levels[made.start] == 0.4


def test_break_even_lies_where_csr_crosses_dense():
    made = slider(study_of(bfloat()))
    low = int(100 * made.break_even)
    assert made.bytes[low] >= made.dense_bytes > made.bytes[low + 1]
    # bfloat16 and int32: two thirds, later here because small matrices have many row pointers.
    assert 2 / 3 < made.break_even < 0.8


def test_a_masked_first_variant_counts_alike():
    weights = bfloat()
    pruning = sr.global_magnitude(weights, 0.3)
    one = slider(sr.compare(sr.dense(weights), sr.masked(pruning)))
    for variants in ([sr.masked(pruning)], [sr.csr(pruning)]):
        other = slider(sr.compare(*variants))
        assert (other.model, other.flops, other.bytes) == (one.model, one.flops, one.bytes)
        assert other.dense_bytes == one.dense_bytes


def test_unknown_neighbours_leave_gaps_not_guesses():
    study = study_of(bfloat())
    layers = study.layers.copy()
    head = layers["module_name"] == "embed_tokens"
    for column in ("nonzero", "flops_per_token", "stored_bytes"):
        layers[column] = layers[column].astype("Int64").mask(head)
    made = slider(dataclasses.replace(study, layers=layers))
    assert set(made.model) == set(made.flops) == set(made.bytes) == {None}
    assert made.break_even is None
    assert made.zeros[50] == round(0.5 * made.prunable)
    assert made.row(50)["bytes_ratio"] is None


def test_nothing_prunable_has_no_slider():
    assert slider(sr.compare(sr.dense(nn.ModuleDict({"norm": nn.LayerNorm(4)})))) is None
    nothing = nn.Linear(1, 2, bias=False)
    nothing.weight = nn.Parameter(torch.empty(2, 0))
    assert slider(sr.compare(sr.dense(nn.ModuleDict({"fc1": nothing})))) is None
    some = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 4)]), "fc1": nothing})
    assert slider(sr.compare(sr.dense(some))).cells["total"] == [4 * 4]


def test_modules_without_blocks_count_but_have_no_cell():
    model = nn.ModuleDict({"fc1": nn.Linear(4, 4), "layers": nn.ModuleList([nn.Linear(4, 4)])})
    made = slider(study_of(sr.load(model)))
    assert made.prunable == 2 * 4 * 4
    assert sum(made.cells["total"]) == 4 * 4
