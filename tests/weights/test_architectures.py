"""Every architecture counted by hand; the zoo holds files and torch's FLOP counter to it."""

import pytest
import torch
from zoo.cases import CASES, built, table
from zoo.page import PAGE

import sparsity_report as sr


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def weights(case):
    return sr.load(built(case))


def test_groups_and_flops_are_the_products(case, weights):
    study = sr.compare(sr.dense(weights))
    assert study.groups.set_index("group")["total"].to_dict() == case.groups
    assert sum(case.groups.values()) == built(case).num_parameters()
    assert sum(p.total for p in weights.prunable) == case.prunable
    assert len(study.unclassified) == case.unclassified == 0
    totals = study.totals.loc[0]
    assert totals["flops_per_token"] == 2 * case.flops
    assert totals["flops_per_sequence"] == 2 * case.per_sequence


def test_masked_models_run_and_count_the_same(case, weights):
    variant = sr.masked(sr.global_magnitude(weights, 0.4))
    model = variant.module()
    real, _ = sr.analyze_layers(model, variant.name)
    assert real.equals(variant.layers())
    with torch.no_grad():
        output = model(**case.reads())
    assert torch.isfinite(output[0]).all()


def test_the_table_of_the_page_is_this_data():
    assert table() in PAGE.read_text(encoding="utf-8")
