import copy

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparsity_report as sr


def sparse_weight(rows, columns, density=0.4, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return (weight * (torch.rand(rows, columns, generator=generator) < density)).to(dtype)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.booleans(),
    st.sampled_from([(), (1,), (5,), (2, 3), (1, 1), (0,)]), st.integers(0, 99),
)  # fmt: skip
def test_equals_the_dense_layer(rows, columns, density, bias, batch, seed):
    weight = sparse_weight(rows, columns, density, seed=seed)
    offset = torch.randn(rows) if bias else None
    x = torch.randn(*batch, columns)
    expected = nn.functional.linear(x, weight, offset)
    result = sr.LinearCSR(weight, offset)(x)
    assert result.shape == expected.shape
    assert torch.allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 4])
def test_dtypes(dtype, tokens):
    weight, bias = sparse_weight(8, 16, dtype=dtype), torch.randn(8).to(dtype)
    x = torch.randn(tokens, 16).to(dtype)
    result = sr.LinearCSR(weight, bias)(x)
    exact = nn.functional.linear(x.double(), weight.double(), bias.double())
    assert result.dtype == dtype
    assert torch.allclose(result.double(), exact, rtol=torch.finfo(dtype).eps * 4, atol=1e-3)


def test_any_stride():
    layer = sr.LinearCSR(sparse_weight(4, 6))
    x = torch.randn(6, 3, 2).transpose(0, 2)
    assert torch.allclose(layer(x), x @ layer.weight.T, atol=1e-6)


def test_facts():
    weight = torch.tensor([[0.0, -0.0, 3.0], [1.0, 0.0, 2.0]])
    layer = sr.LinearCSR(weight)
    assert (layer.nnz, layer.total, layer.dense_shape) == (3, 6, (2, 3))
    assert layer.sparsity == 0.5
    assert layer.crow_indices.tolist() == [0, 1, 3]
    assert layer.col_indices.tolist() == [2, 0, 2]
    assert layer.crow_indices.dtype == layer.col_indices.dtype == torch.int32
    assert torch.equal(layer.weight, weight)
    assert "nnz=3" in repr(layer)


def test_explicit_zeros_are_not_nonzeros():
    layer = sr.LinearCSR(torch.ones(2, 2))
    layer.values[0] = 0
    assert layer.nnz == 3
    assert sr.analyze_layers(nn.ModuleDict({"fc1": layer}), "x")[0]["nonzero"].tolist() == [3]


def test_copy_and_state_dict():
    layer = sr.LinearCSR(sparse_weight(4, 6), torch.randn(4))
    x = torch.randn(2, 6)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    other = sr.LinearCSR((sparse_weight(4, 6) != 0).float(), torch.zeros(4))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))


def test_convert_replaces_every_use():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    model.append(model[0])
    expected = model(torch.ones(1, 3))
    converted = sr.convert_linears_to_csr_(model, [model[0]])
    assert converted is model
    assert model[0] is model[2]
    assert isinstance(model[0], sr.LinearCSR)
    assert torch.allclose(model(torch.ones(1, 3)), expected, atol=1e-6)


def test_convert_gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20, n_positions=8)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.arange(6)[None]
    with torch.no_grad():
        expected = model(ids).logits
        sr.convert_linears_to_csr_(model, sr.select_prunable_linears(model))
        assert isinstance(model.transformer.h[0].mlp.c_fc, sr.LinearCSR)
        assert torch.allclose(model(ids).logits, expected, atol=1e-5)


def test_refusals():
    with pytest.raises(sr.SparsityReportError, match=r"shape \(out, in\)"):
        sr.LinearCSR(torch.ones(3))
    with pytest.raises(sr.SparsityReportError, match="1 of the layers"):
        sr.convert_linears_to_csr_(nn.Sequential(), [nn.Linear(2, 2)])
    masked = nn.Sequential(nn.Linear(2, 2))
    sr.prune_global_magnitude_([masked[0]], 0.5)
    with pytest.raises(sr.SparsityReportError, match="freeze_pruning_ first"):
        sr.convert_linears_to_csr_(masked, [masked[0]])
