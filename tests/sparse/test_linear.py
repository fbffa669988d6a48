import copy
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparsity_report as sr
from sparsity_report.sparse.linear_csr import ExpertsCSR


def sparse_weight(rows, columns, density=0.4, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return (weight * (torch.rand(rows, columns, generator=generator) < density)).to(dtype)


@settings(max_examples=40)
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


@pytest.mark.parametrize(
    ("inputs", "density"), [(8, 0.9), (5000, 0.9), (5000, 0.02)],
    ids=["filled up to fours", "in blocks", "in blocks as they are"],
)  # fmt: skip
@pytest.mark.parametrize("tokens", [2, 3, 4, 7, 31, 64, 66, 127])
def test_any_number_of_tokens(tokens, inputs, density):
    weight, bias = sparse_weight(90, inputs, density), torch.randn(90)
    x = torch.randn(tokens, inputs, requires_grad=True)
    result = sr.LinearCSR(weight, bias)(x)
    expected = x.detach().double().numpy() @ weight.double().numpy().T + bias.double().numpy()
    np.testing.assert_allclose(result.detach().numpy(), expected, atol=1e-3)
    assert result.is_contiguous()
    result.sum().backward()
    assert torch.allclose(x.grad, weight.sum(0).expand(tokens, inputs), atol=1e-4)


def test_any_stride():
    layer = sr.LinearCSR(sparse_weight(4, 6))
    x = torch.randn(6, 3, 2).transpose(0, 2)
    assert torch.allclose(layer(x), x @ layer.weight.T, atol=1e-6)


SHAPES = [(6,), (1, 6), (5, 6), (2, 3, 6), (1, 1, 6), (1, 4, 6), (4, 1, 6), (0, 6), (2, 0, 6)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_result_lies_in_memory_as_that_of_nn_linear(shape, dtype, bias):
    dense = nn.Linear(6, 4, bias=bias, dtype=dtype)
    layer = sr.LinearCSR(dense.weight, dense.bias)
    inputs = [torch.randn(shape).to(dtype)]
    if len(shape) == 3:
        inputs += [torch.randn(shape[::-1]).to(dtype).transpose(0, 2)]
        inputs += [torch.randn(shape[1], shape[0], 6).to(dtype).transpose(0, 1)]
    for x in inputs:
        with torch.no_grad():
            expected, result = dense(x), layer(x)
        assert (result.shape, result.stride()) == (expected.shape, expected.stride())
        assert layer(x).view(-1, 2, 2).shape == (result.numel() // 4, 2, 2)  # with gradients, too


@pytest.mark.parametrize("held", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("to", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 5])
def test_under_autocast_it_does_as_nn_linear_does(tokens, to, given, held):
    torch.manual_seed(0)
    dense = nn.Linear(64, 16, dtype=held)
    layer, x = sr.LinearCSR(dense.weight, dense.bias), torch.randn(tokens, 64).to(given)
    for _ in range(2):  # what is kept for speed is of one dtype
        with torch.no_grad(), torch.autocast("cpu", to):
            expected, result = dense(x), layer(x)
        assert result.dtype == expected.dtype == to
        # All is rounded to the dtype, multiplied, and rounded again.
        parts = [t.detach() for t in (x, dense.weight, dense.bias)]
        exact = nn.functional.linear(*(part.to(to).double() for part in parts))
        assert torch.allclose(result.double(), exact, rtol=torch.finfo(to).eps, atol=1e-4)
        outside = layer(x.to(held))
        assert outside.dtype == held
        exact = nn.functional.linear(
            x.to(held).double(), dense.weight.double(), dense.bias.double()
        )
        assert torch.allclose(outside.double(), exact, rtol=torch.finfo(held).eps, atol=1e-4)


def test_autocast_leaves_float64_alone_and_passes_gradients():
    dense = nn.Linear(8, 4, dtype=torch.float64)
    x = torch.randn(3, 8, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        result, expected = sr.LinearCSR(dense.weight, dense.bias)(x), dense(x)
    assert result.dtype == expected.dtype == torch.float64
    assert torch.allclose(result, expected)
    dense, x = dense.float(), x.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        results = [layer(x).sum() for layer in (sr.LinearCSR(dense.weight, dense.bias), dense)]
    (mine,), (torchs,) = (torch.autograd.grad(result, x) for result in results)
    assert mine.dtype == torchs.dtype == torch.float32
    torch.testing.assert_close(mine, torchs, rtol=2e-2, atol=2e-2)


def test_a_turned_layer_reads_as_what_it_stands_for():
    layer = transformers.pytorch_utils.Conv1D(4, 6)
    (csr,) = sr.convert_linears_to_csr_(nn.Sequential(layer), [layer])
    assert (csr.dense_shape, csr.weight_shape) == ((4, 6), (6, 4))
    assert torch.equal(csr.weight, layer.weight)
    x = torch.randn(3, 6)
    assert torch.allclose(csr(x), layer(x), atol=1e-6)
    other = torch.randn(6, 4)
    csr.assign_(other)
    assert torch.equal(csr.weight, other)
    assert torch.allclose(csr(x), x @ other + layer.bias, atol=1e-6)
    assert torch.equal(copy.deepcopy(csr).weight, other)
    # Counted and pruned again as the tensor it stands for, ties by its own order of positions.
    for model in (nn.ModuleDict({"fc1": layer}), nn.ModuleDict({"fc1": csr})):
        csr.assign_(torch.ones(6, 4))
        layer.weight.data.fill_(1)
        pruning = sr.global_magnitude(sr.load(model), 0.3)
        assert sr.load(model)["fc1.weight"].shape == (6, 4)
        pruned = sr.load(sr.csr(pruning).module())
        assert (pruned.tensor("fc1.weight") == 0).flatten().tolist() == 7 * [True] + 17 * [False]


def test_explicit_zeros_are_not_nonzeros():
    layer = sr.LinearCSR(torch.ones(2, 2))
    layer.values[0] = 0
    assert layer.nnz == 3
    assert sr.analyze_layers(nn.ModuleDict({"fc1": layer}), "x")[0]["nonzero"].tolist() == [3]


def test_convert_replaces_every_use():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    model.append(model[0])
    expected = model(torch.ones(1, 3))
    converted = sr.convert_linears_to_csr_(model, [model[0]])
    assert converted is model
    assert model[0] is model[2]
    assert isinstance(model[0], sr.LinearCSR)
    assert torch.allclose(model(torch.ones(1, 3)), expected, atol=1e-6)


def test_refusals():
    with pytest.raises(sr.SparsityReportError, match=r"shape \(3,\); give a matrix \(out, in\)"):
        sr.LinearCSR(torch.ones(3))
    with pytest.raises(sr.SparsityReportError, match="1 of them are not part of the model"):
        sr.convert_linears_to_csr_(nn.Sequential(), [nn.Linear(2, 2)])
    masked = nn.Sequential(nn.Linear(2, 2))
    sr.prune_global_magnitude_([masked[0]], 0.5)
    with pytest.raises(sr.SparsityReportError, match="freeze_pruning_ first"):
        sr.convert_linears_to_csr_(masked, [masked[0]])


def test_takes_sparse_tensors_and_drops_their_explicit_zeros():
    crow, col = torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1])
    weight = torch.sparse_csr_tensor(
        crow, col, torch.tensor([1.0, -0.0, 5.0]), (2, 3), check_invariants=True
    )
    layer = sr.LinearCSR(weight)
    assert layer.values.tolist() == [1.0, 5.0]
    assert layer.crow_indices.dtype == layer.col_indices.dtype == torch.int32
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
def test_cached_tensors_never_go_stale(dtype, tokens):
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_layers_of_inference_mode_see_changed_values(dtype):
    """Against the dense product; neither the layer nor a converted one keeps old values."""
    dense = sparse_weight(4, 6)
    x = torch.randn(3, 6)
    with torch.inference_mode():
        layer = sr.LinearCSR(dense.to(dtype))
        for target in (dtype, torch.float16):
            layer.to(target)  # its tensors do not count their changes
            for factor in (2.0, 0.5):
                layer(x.to(target))
                layer.values.mul_(factor)
                expected = x.to(target).float() @ layer.weight.float().T
                torch.testing.assert_close(layer(x.to(target)), expected.to(target))


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
