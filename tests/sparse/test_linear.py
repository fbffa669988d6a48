import copy
import pickle

import pytest
import safetensors.torch
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparsity_report as sr
from sparsity_report.sparse.experts import ExpertsCSR


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


def test_takes_sparse_tensors_and_drops_their_explicit_zeros():
    crow, col = torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1])
    weight = torch.sparse_csr_tensor(
        crow, col, torch.tensor([1.0, 0.0, 5.0]), (2, 3), check_invariants=True
    )
    layer = sr.LinearCSR(weight)
    assert layer.values.tolist() == [1.0, 5.0]
    assert torch.equal(layer(torch.eye(3)), weight.to_dense().T)


@pytest.mark.parametrize("column", [3, -1, 2**20])
def test_refuses_columns_out_of_range(column):
    crow, col = torch.tensor([0, 1, 1]), torch.tensor([column])
    weight = torch.sparse_csr_tensor(crow, col, torch.ones(1), (2, 3), check_invariants=False)
    with pytest.raises(sr.SparsityReportError, match=r"not a CSR matrix of shape \(2, 3\)"):
        sr.LinearCSR(weight)
    layer = nn.Sequential(sr.LinearCSR(torch.ones(2, 3)))
    state = {"0.crow_indices": crow, "0.col_indices": col, "0.values": torch.ones(1)}
    with pytest.raises(sr.SparsityReportError, match=r"^0 is not a CSR matrix"):
        layer.load_state_dict(state)
    assert torch.equal(layer(torch.ones(1, 3)), torch.tensor([[3.0, 3.0]]))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.complex64])
def test_refuses_dtypes_before_the_first_forward(dtype):
    name = str(dtype).removeprefix("torch.")
    model = nn.ModuleDict({"fc1": nn.Linear(2, 2)})
    model["fc1"].weight = nn.Parameter(torch.ones(2, 2).to(dtype), requires_grad=False)
    with pytest.raises(sr.SparsityReportError, match=f"layer 'fc1': .*{name}.*model.float"):
        sr.convert_linears_to_csr_(model, [model["fc1"]])
    assert isinstance(model["fc1"], nn.Linear)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 3])
def test_what_was_kept_for_speed_never_goes_stale(dtype, tokens):
    x = torch.randn(tokens, 6).to(dtype)
    layer = sr.LinearCSR(sparse_weight(4, 6, dtype=dtype), torch.randn(4).to(dtype))
    with torch.inference_mode():
        layer(x)  # keeps the operands
    layer.values.mul_(2)
    fresh = sr.LinearCSR(layer.weight, layer.bias)
    assert torch.equal(layer(x), fresh(x))
    other = sr.LinearCSR(sparse_weight(4, 6, 0.9, dtype, seed=5), torch.randn(4).to(dtype))
    layer.load_state_dict(other.state_dict())  # another number of nonzeros
    assert torch.equal(layer(x), other(x))
    assert torch.equal(layer.double()(x.double()), other.double()(x.double()))
    layer.assign_(torch.eye(4, 6).double())
    assert torch.allclose(layer(x.double()), x.double()[:, :4] + layer.bias)


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients(tokens, bias):
    weight = sparse_weight(4, 6)
    layer = sr.LinearCSR(weight, nn.Parameter(torch.randn(4)) if bias else None)
    with torch.inference_mode():
        layer(torch.randn(tokens, 6))
    x = torch.randn(tokens, 6, requires_grad=True)
    factor = torch.randn(tokens, 4)
    (layer(x) * factor).sum().backward()
    torch.testing.assert_close(x.grad, factor @ weight)
    if bias:
        torch.testing.assert_close(layer.bias.grad, factor.sum(0))


def test_pickle_and_files(tmp_path):
    layer = sr.LinearCSR(sparse_weight(4, 6), torch.randn(4))
    x = torch.randn(2, 6)
    expected = layer(x)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), expected)
    safetensors.torch.save_model(layer, tmp_path / "layer.safetensors")
    other = sr.LinearCSR(torch.zeros(4, 6), torch.zeros(4))
    safetensors.torch.load_model(other, tmp_path / "layer.safetensors")
    assert torch.equal(other(x), expected)


def test_experts_do_nothing_but_multiply():
    experts = ExpertsCSR(torch.eye(2).expand(3, 2, 2))
    with pytest.raises(sr.SparsityReportError, match="eager experts"):
        torch.bmm(torch.ones(3, 1, 2), experts[torch.tensor(0)])
    with pytest.raises(sr.SparsityReportError, match="matmul"):
        torch.ones(1, 2) @ experts[0]
    x, weight = torch.randn(5, 4), torch.stack([sparse_weight(4, 3, seed=s) for s in range(2)])
    turned = ExpertsCSR(weight, transposed=True)
    assert turned.weight_shape == (2, 4, 3)
    assert torch.equal(turned.weight, weight)
    assert torch.allclose(x @ turned[1], x @ weight[1], atol=1e-6)
