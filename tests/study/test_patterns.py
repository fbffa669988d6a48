import math

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import sparsity_report as sr
from sparsity_report.counting.matrix_counts import MatrixCount
from sparsity_report.counting.n_m_patterns import KNOWN
from sparsity_report.study.patterns import expected_sparsity, zero_figures
from sparsity_report.study.schema import BLOCKS
from sparsity_report.weights.matrix_direction import Matrix
from sparsity_report.weights.weights import Parameter


def figures(mask, head_dim=None, axis=0):
    """Count the zeros of a mask."""
    count = MatrixCount(Matrix(*mask.shape), KNOWN, blocks=BLOCKS)
    count.add(0, 0, mask)
    facts = {"matrix": mask.shape, "head_dim": head_dim, "head_axis": axis}
    parameter = Parameter("w", mask.shape, "float32", **facts)
    return zero_figures(count, 0, parameter)


def best_n_m(mask):
    found = figures(mask)
    return found["n_m"], found["n_m_share"]


def block_fill(mask):
    return {size: figures(mask)[f"fill_{size}"] for size in BLOCKS}


def head_sparsity(mask, head_dim, axis):
    return figures(mask, head_dim, axis)["head_sparsity"]


def test_n_m_by_hand():
    mask = np.array([[1, 1, 0, 0, 1, 0, 1, 0], [1, 1, 0, 0, 0, 0, 1, 1]], dtype=bool)
    assert best_n_m(mask) == ("2:4", 1.0)
    mask[0, 2] = True  # one group of four of 4, one of eight of 2 too many
    assert best_n_m(mask) == ("2:4", 0.75)
    sparse = np.zeros((3, 8), dtype=bool)
    sparse[:, [0, 4]] = True
    assert best_n_m(sparse) == ("1:4", 1.0)
    assert best_n_m(np.ones((2, 7), dtype=bool)) == (None, None)
    assert best_n_m(np.ones((2, 4), dtype=bool))[1] == 0.0


def test_block_fill_by_hand():
    mask = np.zeros((8, 10), dtype=bool)
    mask[0, 0] = mask[7, 9] = True
    fill = block_fill(mask)
    assert fill[4] == 2 / (2 * 3)
    assert fill[8] == 2 / (1 * 2)
    assert fill[16] == fill[32] == 1.0
    assert set(block_fill(np.zeros((3, 3), dtype=bool)).values()) == {0.0}


def test_heads_by_hand():
    mask = np.ones((4, 3), dtype=bool)
    mask[:2] = False
    mask[2, 0] = False
    assert head_sparsity(mask, 2, 0) == pytest.approx((1.0, 1 / 6))
    assert head_sparsity(mask.T, 2, 1) == pytest.approx((1.0, 1 / 6))
    assert head_sparsity(mask, None, 0) is None
    assert head_sparsity(mask, 3, 0) is None


def test_a_gaussian_is_as_sparse_as_expected():
    torch.manual_seed(0)
    model = nn.ModuleDict({"fc1": nn.Linear(500, 400), "fc2": nn.Linear(400, 500)})
    with torch.no_grad():
        for layer, std in zip(model.values(), (0.5, 2.0), strict=True):
            layer.weight.normal_(0, std)
    pruning = sr.global_magnitude(sr.load(model), 0.4)
    frame = sr.weight_patterns(sr.masked(pruning)).set_index("module_name")
    for name, std in (("fc1", 0.5), ("fc2", 2.0)):
        row = frame.loc[name]
        assert row["std"] == pytest.approx(std, rel=0.01)
        assert row["mean_abs"] == pytest.approx(std * math.sqrt(2 / math.pi), rel=0.01)
        assert row["sparsity"] == pytest.approx(row["expected_sparsity"], abs=0.005)
    assert expected_sparsity(1.959964, 1) == pytest.approx(0.95)


def test_rows_and_columns_and_the_variant():
    model = nn.ModuleDict({"fc1": nn.Linear(4, 4, bias=False)})
    with torch.no_grad():
        model["fc1"].weight.copy_(torch.arange(16.0).reshape(4, 4))
    pruning = sr.global_magnitude(sr.load(model), 0.5)
    row = sr.weight_patterns(sr.csr(pruning)).loc[0]
    assert (row["sparsity"], row["zero_rows"], row["zero_columns"]) == (0.5, 0.5, 0.0)
    dense = sr.weight_patterns(sr.dense(model)).loc[0]
    assert dense["sparsity"] == 1 / 16
    assert math.isnan(dense["expected_sparsity"])


def test_conv1d_is_looked_at_the_right_way_round():
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=12, n_positions=5)
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[:, 3] = 0  # (in, out): one output is dead
        model.transformer.h[0].attn.c_attn.weight[:, :4] = 0  # the query of head 0
    frame = sr.weight_patterns(sr.dense(model)).set_index("module_name")
    assert frame.loc["transformer.h.0.mlp.c_fc", "zero_rows"] == pytest.approx(1 / 32)
    assert frame.loc["transformer.h.0.attn.c_attn", "head_sparsity"] == (1, 0, 0, 0, 0, 0)


def test_every_expert_has_its_row():
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].mlp.experts.down_proj[1] = 0
    frame = sr.weight_patterns(sr.dense(model))
    down = frame[frame["parameter"] == "model.layers.0.mlp.experts.down_proj"]
    assert down["expert"].tolist() == [0, 1, 2]
    assert down["sparsity"].tolist() == [0, 1, 0]
    assert frame["expert"].isna().sum() == 4


def test_patterns_agree_with_the_counts(demo):
    pruning = sr.global_magnitude(demo, 0.3)
    study = sr.compare(sr.dense(demo), sr.masked(pruning), sr.csr(pruning), patterns=True)
    layers = study.layers[study.layers["prunable"]].set_index(["variant", "module_name"])
    share = 1 - layers["weight_nonzero"] / layers["weight_total"]
    own = study.patterns.set_index(["variant", "module_name"])["sparsity"]
    assert own.sub(share).abs().max() < 1e-12
    assert len(study.patterns) == 3 * 24


def test_an_unpruned_model_needs_no_audit(tiny):
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.fill_(1.0)
    assert sr.compare(sr.dense(tiny)).audit == []
