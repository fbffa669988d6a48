import copy

import numpy as np
import pytest
import torch
import transformers
from helpers import DTYPES, Tiny, count, counts_as_derived, models
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import sparsity_report as sr
from sparsity_report.counting.cuts import masked_copy
from sparsity_report.weights.torch_tensors import to_array


def linears(model):
    return [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]


def oracle(tensors, sparsity):
    """Return masks by sorting all weights in memory."""
    flat = np.concatenate([t.detach().to(torch.float64).abs().numpy().ravel() for t in tensors])
    gone = np.argsort(flat, kind="stable")[: round(sparsity * flat.size)]
    keep = np.ones(flat.size, dtype=bool)
    keep[gone] = False
    parts = np.split(keep, np.cumsum([t.numel() for t in tensors])[:-1])
    return [torch.from_numpy(k).reshape(t.shape) for k, t in zip(parts, tensors, strict=True)]


@settings(max_examples=40)
@given(models(), st.floats(0, 1))
def test_masks_are_those_of_a_full_sort(model, sparsity):
    layers = linears(model)
    expected = oracle([layer.weight for layer in layers], sparsity)
    pruning = sr.global_magnitude(sr.load(model), sparsity)
    assert pruning.pruned == sum(int((~keep).sum()) for keep in expected)
    for name, keep in zip((p.name for p in pruning.weights.prunable), expected, strict=True):
        np.testing.assert_array_equal(pruning.mask(name), keep)


@settings(max_examples=30)
@given(models(), st.floats(0, 1), st.sampled_from(["masked", "csr"]))
def test_counting_a_materialized_model_gives_the_derived_numbers(model, sparsity, layout):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    variant = getattr(sr, layout)(sr.global_magnitude(sr.load(model), sparsity))
    derived = variant.layers()
    real, _ = sr.analyze_layers(variant.module(), variant.name)
    same = [c for c in derived.columns if c != "layout"]
    assert derived[same].equals(real[same])
    assert set(derived["layout"]) == ({"csr"} if layout == "csr" else {"dense"})
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.5, 0.777, 1.0])
def test_the_same_mask_as_torch_where_nothing_ties(tiny, sparsity):
    theirs = copy.deepcopy(tiny)
    prune.global_unstructured(
        [(m, "weight") for m in linears(theirs)], prune.L1Unstructured, amount=sparsity
    )
    ours = sr.prune_global_magnitude_(sr.select_prunable_linears(tiny), sparsity)
    for mine, other in zip(ours, linears(theirs), strict=True):
        assert torch.equal(mine.weight_mask, other.weight_mask)
        assert torch.equal(mine.weight, other.weight)


@pytest.mark.parametrize("is_coarse", [False, True])
def test_weights_at_the_threshold_are_counted_in_all_tensors(is_coarse):
    torch.manual_seed(3)
    model = Tiny()
    if is_coarse:
        with torch.no_grad():
            for layer in linears(model):
                layer.weight.copy_((20 * layer.weight).round())
    pruning = sr.global_magnitude(sr.load(model), 0.3)
    sizes = torch.cat([layer.weight.abs().flatten() for layer in linears(model)])
    kept = np.concatenate([pruning.mask(p.name).ravel() for p in pruning.weights.prunable])
    tied = sizes == pruning.threshold
    assert pruning.ties == (int(tied.sum()), int((tied.numpy() & kept).sum()))
    assert int((sizes <= pruning.threshold).sum()) == pruning.pruned + pruning.ties[1]
    assert (pruning.ties[1] > 0) == is_coarse
    row = sr.compare(sr.masked(pruning)).variants.iloc[0]
    assert (row["at_threshold"], row["spared"]) == pruning.ties
    assert sr.n_m(pruning.weights, 1, 2).ties is None


def test_unprunable_parameters_stay(tiny):
    names = [p.name for p in sr.load(tiny).prunable]
    assert names == [
        f"layers.{b}.{leaf}.weight" for b in (0, 1) for leaf in ("self_attn.q_proj", "fc1", "fc2")
    ]
    untied = Tiny(tied=False)
    assert "lm_head.weight" not in [p.name for p in sr.load(untied).prunable]
    fewer = sr.load(untied, blacklist=("fc1",)).prunable
    assert [p.name for p in fewer if "fc1" in p.name] == []


def test_a_blacklist_without_the_output_head_frees_it():
    for tied, heads in ((True, []), (False, ["lm_head.weight"])):
        model = Tiny(tied=tied)
        names = [p.name for p in sr.load(model, blacklist=()).prunable]
        assert [name for name in names if "head" in name] == heads
        kept = [p.name for p in sr.load(model).prunable]
        assert kept == [name for name in names if name not in heads]
        layers = sr.select_prunable_linears(model, blacklist=())
        assert (model.lm_head in layers) == bool(heads)
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=32, tie_word_embeddings=False,
    )  # fmt: skip
    bert = transformers.BertForMaskedLM(config)
    for blacklist, free in ((("lm_head",), False), ((), True), (("decoder",), False)):
        named = {p.name for p in sr.load(bert, blacklist=blacklist).prunable}
        assert ("cls.predictions.decoder.weight" in named) == free
    pruning = sr.global_magnitude(sr.load(bert, blacklist=()), 0.5)
    counts_as_derived(sr.masked(pruning))


def test_policies_prune_equally_many_weights():
    """A winner at one sparsity must not be the policy that rounds down."""
    model = nn.ModuleDict({f"fc{n}": nn.Linear(7, 3 + n) for n in range(4)})
    weights = sr.load(model)
    sizes = [p.total for p in weights.prunable]
    shares = {f"fc{n}": 0.1 + 0.2 * n for n in range(4)}
    for sparsity in (0.1, 0.3, 0.5, 0.77):
        for policy in (sr.global_magnitude, sr.layerwise_magnitude, sr.random_unstructured):
            assert policy(weights, sparsity).pruned == round(sparsity * sum(sizes))
    exact = sum(shares[p.name[:3]] * p.total for p in weights.prunable)
    for policy in (sr.layerwise_magnitude, sr.random_unstructured):
        assert policy(weights, None, allocation=shares).pruned == round(exact)


def test_the_tail_of_the_name_is_not_a_substring_match():
    model = nn.ModuleDict({"not_lm_head_really": nn.Linear(2, 2), "lm_head": nn.Linear(2, 2)})
    assert [p.name for p in sr.load(model).prunable] == ["not_lm_head_really.weight"]


def test_masks_stay_until_frozen(tiny):
    layers = sr.select_prunable_linears(tiny)
    original = [layer.weight.detach().clone() for layer in layers]
    sr.prune_global_magnitude_(layers, 0.5)
    assert all(prune.is_pruned(layer) for layer in layers)
    assert all(torch.equal(x.weight_orig, o) for x, o in zip(layers, original, strict=True))
    _, groups = sr.analyze_layers(tiny, "masked")
    with_mask = groups.set_index("group")["nonzero"]
    sr.freeze_pruning_(layers)
    assert not any(hasattr(layer, "weight_mask") for layer in layers)
    _, groups = sr.analyze_layers(tiny, "frozen")
    assert groups.set_index("group")["nonzero"].equals(with_mask)
    assert sum(int((layer.weight == 0).sum()) for layer in layers) == 156
    assert sr.freeze_pruning_(layers) is layers


def test_pruning_again_goes_on_from_the_mask(tiny):
    layers = sr.select_prunable_linears(tiny)
    sr.prune_global_magnitude_(layers, 0.3)
    sr.prune_global_magnitude_(layers, 0.6)
    sr.freeze_pruning_(layers)
    assert sum(int((layer.weight == 0).sum()) for layer in layers) == round(0.6 * 312)


def test_a_pruned_masked_model_can_be_pruned_as_a_value(tiny):
    sr.prune_global_magnitude_(sr.select_prunable_linears(tiny), 0.3)
    pruning = sr.global_magnitude(sr.load(tiny), 0.6)
    assert pruning.pruned == round(0.6 * 312)
    for variant in (sr.masked(pruning), sr.csr(pruning)):
        model = variant.module()
        counted = sr.params_size_and_sparsity(model)["nonzero"]
        assert counted == int(variant.layers()["nonzero"].sum())
        model(torch.tensor([[1, 2]]))


def test_a_csr_model_can_be_pruned_further(tiny):
    first = sr.csr(sr.global_magnitude(sr.load(tiny), 0.3)).module()
    second = sr.csr(sr.global_magnitude(sr.load(first), 0.6))
    assert second.pruning.pruned == round(0.6 * 312)
    counts_as_derived(second)


def test_weights_changed_in_between_are_noticed(tiny):
    variant = sr.masked(sr.global_magnitude(sr.load(tiny), 0.3))
    with torch.no_grad():
        tiny.layers[0]["fc1"].weight.zero_()
    with pytest.raises(sr.SparsityReportError, match="changed since they were counted"):
        variant.module()


def test_infinity_is_a_magnitude(tiny):
    with torch.no_grad():
        tiny.layers[0]["fc1"].weight[0, :3] = torch.tensor([torch.inf, -torch.inf, 1e38])
    pruning = sr.global_magnitude(sr.load(tiny), 1.0)
    assert (pruning.pruned, pruning.threshold) == (312, torch.inf)
    assert sr.global_magnitude(sr.load(tiny), 310 / 312).threshold == float(np.float32(1e38))


def test_nan_is_named_and_counted(tiny):
    with torch.no_grad():
        tiny.layers[1]["fc2"].weight[0, :4] = torch.nan
    with pytest.raises(sr.SparsityReportError, match=r"layers\.1\.fc2\.weight holds 4 NaN"):
        sr.global_magnitude(sr.load(tiny), 0.3)
    with pytest.raises(sr.SparsityReportError, match="holds 4 NaN"):
        sr.prune_global_magnitude_(sr.select_prunable_linears(tiny), 0.3)
    assert sr.dense(tiny).layers()["total"].sum() > 0


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan"), float("inf"), "0.3", None, True])
def test_impossible_sparsities(tiny, sparsity):
    with pytest.raises(sr.SparsityReportError, match="a number from 0 to 1"):
        sr.global_magnitude(sr.load(tiny), sparsity)


def test_nothing_to_prune():
    with pytest.raises(sr.SparsityReportError, match="no prunable linear layer"):
        sr.global_magnitude(sr.load(nn.Embedding(3, 3)), 0.3)
    with pytest.raises(sr.SparsityReportError, match="no layer to prune"):
        sr.prune_global_magnitude_([], 0.3)


def test_integer_and_float8_weights_can_be_ranked():
    class Quantized(nn.Module):
        def __init__(self, dtype):
            super().__init__()
            values = torch.arange(-8, 8).reshape(4, 4).to(dtype)
            self.weight = nn.Parameter(values, requires_grad=False)

    for dtype in (torch.int8, torch.float8_e4m3fn):
        model = nn.Module()
        model.add_module("fc1", type("Linear", (Quantized,), {})(dtype))
        pruning = sr.global_magnitude(sr.load(model), 0.5)
        assert pruning.pruned == 8
        assert count(model.fc1.weight).nonzero == 15
        keep = oracle([model.fc1.weight], 0.5)[0]
        np.testing.assert_array_equal(pruning.mask("fc1.weight"), keep)


@settings(max_examples=30)
@given(models(), st.floats(0, 1))
def test_layerwise_masks_are_those_of_a_sort_of_each_layer(model, sparsity):
    pruning = sr.layerwise_magnitude(sr.load(model), sparsity)
    thresholds = {cut.threshold for cut in pruning.cuts.values()}
    assert (pruning.threshold is None) == (len(thresholds) != 1)
    for name, layer in zip((p.name for p in pruning.weights.prunable), linears(model), strict=True):
        pruned = pruning.cuts[name].pruned if name in pruning.cuts else 0
        assert abs(pruned - sparsity * layer.weight.numel()) < 1
        expected = oracle([layer.weight], pruned / layer.weight.numel())[0]
        np.testing.assert_array_equal(pruning.mask(name), expected)


def n_m_oracle(weight, n, m):
    """Return masks group by group, with Python's sort."""
    keep = np.zeros(weight.numel(), dtype=bool)
    flat = weight.detach().to(torch.float64).abs().numpy().ravel()
    for start in range(0, flat.size, m):
        order = sorted(range(m), key=lambda i: flat[start + i])
        keep[[start + i for i in order[m - n :]]] = True
    return torch.from_numpy(keep).reshape(weight.shape)


@settings(max_examples=30)
@given(st.data())
def test_n_m_masks_are_those_of_sorting_each_group(data):
    m = data.draw(st.integers(1, 8))
    n = data.draw(st.integers(0, m))
    dtype = data.draw(st.sampled_from(DTYPES))
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    layer = nn.Linear(m * data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)), dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-3, 4, layer.weight.shape) / 7)
    pruning = sr.n_m(sr.load(nn.Sequential(layer)), n, m)
    keep = n_m_oracle(layer.weight, n, m)
    np.testing.assert_array_equal(pruning.mask("0.weight"), keep)
    assert pruning.pruned == int((~keep).sum())
    nonzero = int(((layer.weight != 0) & keep).sum())
    variant = data.draw(st.sampled_from([sr.masked, sr.csr]))(pruning)
    assert variant.layers()["weight_nonzero"].tolist() == [nonzero]
    real, _ = sr.analyze_layers(variant.module(), "x")
    assert real["weight_nonzero"].tolist() == [nonzero]


def test_two_of_four_runs_along_the_input(tiny):
    pruning = sr.n_m(sr.load(nn.Linear(4, 3)), 2, 4)
    assert pruning.mask("weight").sum(axis=1).tolist() == [2, 2, 2]
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    )
    pruning = sr.n_m(sr.load(gpt2), 2, 4)
    for p in pruning.weights.prunable:  # Conv1D: (in, out), also where it is square
        groups = pruning.mask(p.name).T.reshape(p.shape[1], -1, 4).sum(axis=2)
        assert (groups == 2).all(), p.name
        expected = n_m_oracle(gpt2.get_parameter(p.name).T.contiguous(), 2, 4).T
        np.testing.assert_array_equal(pruning.mask(p.name), expected)
    with pytest.raises(sr.SparsityReportError, match=r"q_proj\.weight has 6 inputs"):
        sr.n_m(sr.load(tiny), 2, 4)


def test_groups_of_fused_experts_run_along_the_input():
    torch.manual_seed(0)
    options = {
        "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "num_local_experts": 3,
        "num_experts_per_tok": 2,
    }  # fmt: skip
    for kind in ("GptOss", "Mixtral"):  # (E, in, out), with a square down_proj, and (E, out, in)
        config = getattr(transformers, f"{kind}Config")(**options)
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
        pruning = sr.n_m(sr.load(model), 2, 4)
        experts = [p for p in pruning.weights.prunable if p.experts == 3]
        assert len(experts) == 2
        for p in experts:
            weight = model.get_parameter(p.name)
            mask = torch.from_numpy(pruning.mask(p.name))
            weight, mask = (t.mT if kind == "GptOss" else t for t in (weight, mask))
            assert torch.equal(mask, n_m_oracle(weight.contiguous(), 2, 4)), p.name
        counts_as_derived(sr.masked(pruning))


def test_names_of_variants(tiny):
    weights = sr.load(tiny)
    names = [
        sr.masked(sr.global_magnitude(weights, 0.3)).name,
        sr.csr(sr.layerwise_magnitude(weights, 0.125)).name,
        sr.masked(sr.n_m(weights, 1, 2)).name,
    ]
    assert names == ["Masked30", "CSR12.5Layerwise", "Masked1:2"]
    assert sr.n_m(weights, 1, 2).sparsity == 0.5


@pytest.mark.parametrize("pattern", [(3, 2), (-1, 4), (0, 0), (2.0, 4), ("2", 4), (1, 2**15)])
def test_impossible_patterns(tiny, pattern):
    with pytest.raises(sr.SparsityReportError, match="n_m keeps n of every m"):
        sr.n_m(sr.load(tiny), *pattern)


def test_nan_has_no_rank_in_a_group_either(tiny):
    with torch.no_grad():
        tiny.layers[1]["fc2"].weight[0, 0] = torch.nan
    for prune_it in (lambda w: sr.n_m(w, 1, 2), lambda w: sr.layerwise_magnitude(w, 0.3)):
        with pytest.raises(sr.SparsityReportError, match=r"layers\.1\.fc2\.weight holds 1 NaN"):
            prune_it(sr.load(tiny))


@pytest.mark.parametrize("block", [1, 7, 40])
def test_pruning_in_place_goes_block_by_block(tiny, monkeypatch, block):
    complete = sr.masked(sr.global_magnitude(sr.load(tiny), 0.5)).module()
    groups = sr.masked(sr.n_m(sr.load(tiny), 1, 2)).module()
    monkeypatch.setattr("sparsity_report.counting.cuts._BLOCK", block)
    for expected, pruning in (
        (complete, sr.global_magnitude(sr.load(tiny), 0.5)),
        (groups, sr.n_m(sr.load(tiny), 1, 2)),
    ):
        result = sr.masked(pruning).module()
        for one, other in zip(result.parameters(), expected.parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("block", [1, 7, 40])
def test_ties_are_counted_on_from_block_to_block(monkeypatch, block):
    monkeypatch.setattr("sparsity_report.counting.cuts._BLOCK", block)
    layer = nn.Linear(5, 8, bias=False)
    nn.init.ones_(layer.weight)
    keep = sr.global_magnitude(sr.load(layer), 0.7).mask("weight")
    assert keep.reshape(-1).tolist() == [False] * 28 + [True] * 12


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn, torch.complex64], ids=str)
def test_pruned_are_zero_and_the_others_bit_by_bit_as_they_were(dtype, turned):
    raw = np.random.default_rng(0).integers(0, 256, (6, 5, dtype.itemsize), dtype=np.uint8)
    stays = torch.arange(30).reshape(6, 5) % 3 != 0
    tensor = torch.from_numpy(raw.copy()).view(dtype).squeeze(-1)
    if dtype == torch.float32:
        tensor[0] = torch.tensor([float("nan"), float("-inf"), -0.0, float("nan"), 1.0])
        raw = tensor.unsqueeze(-1).view(torch.uint8).numpy().copy()
    array, kept = to_array(tensor), stays.numpy()
    copy = masked_copy(array.T, kept.T).T if turned else masked_copy(array, kept)
    expected = np.where(kept[..., None], raw, 0)
    assert copy.tobytes() == expected.tobytes()
    assert (tensor.unsqueeze(-1).view(torch.uint8).numpy() == raw).all()


def test_existing_zeros_change_no_tensor():
    layer = nn.Linear(6, 10, bias=False)
    with torch.no_grad():
        layer.weight[:, :3] = 0
    weights = sr.load(layer)
    zeros, fewer = sr.existing_zeros(weights), sr.global_magnitude(weights, 0.3)
    assert (zeros.changed, zeros.threshold) == (frozenset(), None)
    assert (fewer.changed, fewer.threshold) == ({"weight"}, 0.0)
    np.testing.assert_array_equal(zeros.mask("weight"), layer.weight != 0)
    assert (int((~fewer.mask("weight")).sum()), fewer.pruned) == (18, 18)
