"""Every architecture counted by hand, by its file, by its module and by torch's FLOP counter."""

import pytest
import torch
from helpers import counted
from torch.utils.flop_counter import FlopCounterMode
from zoo.cases import CASES, built, table
from zoo.page import PAGE

import sparsity_report as sr


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


def test_groups_are_the_products(case):
    model = built(case)
    weights = sr.load(model)
    study = sr.compare(sr.dense(weights))
    assert study.groups.set_index("group")["total"].to_dict() == case.groups
    assert sum(case.groups.values()) == model.num_parameters()
    assert sum(p.total for p in weights.prunable) == case.prunable
    assert len(study.unclassified) == case.unclassified == 0


def test_flops_are_the_products(case):
    totals = sr.compare(sr.dense(built(case))).totals.loc[0]
    assert totals["flops_per_token"] == 2 * case.flops
    assert totals["flops_per_sequence"] == 2 * case.per_sequence


@pytest.mark.filterwarnings("ignore")  # advice of transformers on kernels that are not installed
def test_flops_against_the_counter(case):
    model, inputs = built(case), case.reads()
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    tokens = inputs["input_ids"].shape[1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    totals = sr.compare(sr.dense(model), context=tokens).totals.loc[0]
    attention = totals["attention_flops_per_token"] if case.name != "Mamba" else 0
    ours = tokens * (totals["flops_per_token"] + attention) + totals["flops_per_sequence"]
    if not case.beyond:
        assert counter.get_total_flops() == ours
        return
    seen = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in seen.items() if str(op) in {"aten.mm", "aten.addmm"})
    assert products == tokens * totals["flops_per_token"]
    assert counter.get_total_flops() > ours


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_file_and_module_agree(case, tmp_path):
    model = built(case)
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    pruned = []
    for source in (model, tmp_path):
        pruning = sr.global_magnitude(sr.load(source, name=case.name), 0.4)
        pruned.append(sr.compare(sr.masked(pruning), sr.csr(pruning), context=9))
    memory, files = pruned
    assert counted(memory.layers).equals(counted(files.layers))
    assert counted(memory.totals).equals(counted(files.totals))
    assert memory.variants["fingerprint"].equals(files.variants["fingerprint"])


def test_masked_models_run_and_count_the_same(case):
    variant = sr.masked(sr.global_magnitude(sr.load(built(case)), 0.4))
    model = variant.module()
    real, _ = sr.analyze_layers(model, variant.name)
    assert real.equals(variant.layers())
    with torch.no_grad():
        output = model(**case.reads())
    assert torch.isfinite(output[0]).all()


def test_the_table_of_the_page_is_this_data():
    assert table() in PAGE.read_text(encoding="utf-8")
