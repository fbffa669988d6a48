"""Tensors that are one, views, wrappers, layouts: each weight counted once, where it belongs."""

import copy

import pytest
import torch
import transformers
from helpers import Tiny
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

import sparsity_report as sr
from sparsity_report.weights.torch_tensors import to_tensor
from sparsity_report.words.sentences import say


def totals(model):
    return sr.dense(model).layers().set_index("module_name")


def unique(model):
    return sum(p.numel() for p in model.parameters())


def test_three_ways_tied():
    model = Tiny()
    model.more = nn.Linear(6, 11, bias=False)
    model.more.weight = model.embed_tokens.weight
    layers = totals(model)
    assert layers["total"].sum() == unique(model)
    assert layers.loc[["lm_head", "more"], "total"].tolist() == [0, 0]
    assert layers.loc["more", "tied_to"] == "embed_tokens.weight"
    assert "more.weight" not in [p.name for p in sr.load(model).prunable]


def test_tied_linears_are_not_pruned():
    model = nn.ModuleDict({"fc1": nn.Linear(4, 4), "fc2": nn.Linear(4, 4), "fc3": nn.Linear(4, 4)})
    model["fc2"].weight = model["fc1"].weight
    assert [p.name for p in sr.load(model).prunable] == ["fc3.weight"]


def test_the_embedding_owns_whatever_comes_first():
    class HeadFirst(Tiny):
        def __init__(self):
            super().__init__()
            head = self.lm_head
            del self.lm_head
            self._modules = {"lm_head": head, **self._modules}

    layers = totals(HeadFirst())
    assert layers.loc["lm_head", "tied_to"] == "embed_tokens.weight"
    assert layers.loc["embed_tokens", "total"] == 66


def test_a_layer_used_twice_works_twice():
    shared = nn.Linear(3, 5, bias=False)
    model = nn.ModuleDict({"fc1": shared, "act": nn.ReLU(), "fc2": shared})
    layers = totals(model)
    assert layers["total"].tolist() == [15]
    assert layers["flops_per_token"].tolist() == [2 * 2 * 15]


def test_views_are_counted_with_their_base_tensor():
    base = torch.randn(6, 4)
    model = nn.Module()
    model.fc1, model.fc2, model.fc3 = nn.Linear(4, 6), nn.Linear(4, 3), nn.Linear(4, 6)
    model.fc1.weight = nn.Parameter(base)
    model.fc2.weight = nn.Parameter(base[:3])
    layers = totals(model)
    assert layers.loc["fc2", "tied_to"] == "fc1.weight"
    assert layers["total"].tolist() == [24 + 6, 3, 24 + 6]
    whole = nn.Module()
    whole.fc1, whole.fc2 = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)
    whole.fc1.weight, whole.fc2.weight = nn.Parameter(base), nn.Parameter(base.view(6, 4))
    assert totals(whole)["total"].sum() == 24


def test_neighbors_in_one_storage_are_not_views():
    block = torch.randn(8, 4)
    model = nn.Module()
    model.fc1, model.fc2 = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    model.fc1.weight, model.fc2.weight = nn.Parameter(block[:4]), nn.Parameter(block[4:])
    assert totals(model)["total"].tolist() == [16, 16]
    assert len(sr.load(model).prunable) == 2


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, torch.nn.utils.weight_norm])
def test_weight_norm_counts_its_own_parameters(norm):
    model = nn.ModuleDict({"fc1": norm(nn.Linear(4, 6))})
    layers = totals(model)
    assert layers["total"].tolist() == [unique(model)] == [6 * 4 + 6 + 6]
    assert layers["flops_per_token"].tolist() == [2 * 4 * 6]
    assert layers["group"].tolist() == ["mlp_linear"]
    with pytest.raises(sr.SparsityReportError, match="no prunable"):
        sr.global_magnitude(sr.load(model), 0.3)


def test_saved_buffers_are_those_that_are_no_pruning_masks():
    model = nn.ModuleDict({"fc1": nn.Linear(4, 6)})
    prune.l1_unstructured(model["fc1"], "weight", 0.5)
    model["fc1"].register_buffer("attn_mask", torch.ones(3))
    assert [*sr.load(model).buffers()] == ["fc1.attn_mask"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers the old way
def test_lora_counts_the_layer_beneath():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    plain = sr.load(copy.deepcopy(model), name="x")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    adapted = sr.load(peft.get_peft_model(model, lora), name="x")
    assert [p.name for p in adapted.prunable] == [p.name for p in plain.prunable]
    one, two = (sr.global_magnitude(w, 0.3) for w in (plain, adapted))
    assert one.cuts == two.cuts
    extra = sum(p.total for p in adapted.stored) - sum(p.total for p in plain.stored)
    assert extra == 2 * 2 * (2 * 32 + 2 * 32)
    real, _ = sr.analyze_layers(sr.masked(two).module(), "x")
    assert real["nonzero"].sum() == sr.masked(two).layers()["nonzero"].sum()


LAYOUTS = {
    "csr": lambda w: w.to_sparse_csr(), "csc": lambda w: w.to_sparse_csc(),
    "coo": lambda w: w.to_sparse_coo().coalesce(), "bsr": lambda w: w.to_sparse_bsr((2, 2)),
    "bsc": lambda w: w.to_sparse_bsc((2, 2)),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sparse_parameters(layout):
    torch.manual_seed(0)
    weight = torch.randn(6, 8) * (torch.rand(6, 8) < 0.4)
    model = nn.ModuleDict({"fc1": nn.Linear(8, 6)})
    model["fc1"].weight = nn.Parameter(LAYOUTS[layout](weight), requires_grad=False)
    layers = totals(model)
    assert layers["layout"].tolist() == [layout]
    assert layers["total"].tolist() == [48 + 6]
    assert layers["weight_nonzero"].tolist() == [int(torch.count_nonzero(weight))]
    assert layers["shape"].tolist() == [(6, 8)]


@pytest.mark.filterwarnings("ignore:Sparse (CSR|invariant)")
@pytest.mark.parametrize("asked", [0, 0.8])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pruned_sparse_parameters_are_what_the_rows_say(layout, asked):
    torch.manual_seed(0)
    weight = torch.randn(6, 8) * (torch.rand(6, 8) < 0.4)
    model = nn.ModuleDict({"fc1": nn.Linear(8, 6), "fc2": nn.Linear(6, 8)})
    model["fc1"].weight = nn.Parameter(LAYOUTS[layout](weight), requires_grad=False)
    pruning = sr.global_magnitude(sr.load(model), asked)
    for variant in (sr.masked(pruning), sr.csr(pruning)):
        real, _ = sr.analyze_layers(variant.module(), variant.name)
        assert real.equals(variant.layers())
    kept = pruning.mask("fc1.weight") & (weight != 0).numpy()
    assert sr.csr(pruning).layers()["weight_nonzero"][0] == int(kept.sum())


def semi_structured(weight):
    """What ``to_sparse_semi_structured`` makes, which itself asks for CUDA."""
    packed, meta = sparse_semi_structured_from_dense_cutlass(weight)
    return torch.sparse.SparseSemiStructuredTensorCUTLASS(
        weight.shape, packed, meta, None, None, None
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_two_of_four(dtype):
    torch.manual_seed(0)
    weight = torch.randn(64, 128).to(dtype)
    fours = weight.view(-1, 4)
    fours.scatter_(1, torch.rand(len(fours), 4).argsort(dim=1)[:, :2], 0)
    weight[0, :8] = 0
    model = nn.ModuleDict({"fc1": nn.Linear(128, 64, bias=False)}).to(dtype)
    model["fc1"].weight = nn.Parameter(semi_structured(weight), requires_grad=False)
    weights = sr.load(model, name="x")
    assert torch.equal(weights.tensor("fc1.weight"), weight)
    study = sr.compare(sr.dense(weights), patterns=True)
    row = study.layers.loc[0]
    assert row["layout"] == "2:4"
    assert row["nonzero"] == 64 * 128 // 2 - 4
    # Two of four values of two bytes, and four bits that say which.
    assert row["stored_bytes"] == 64 * 128 * 9 // 16 * 2
    assert study.patterns.loc[0, ["n_m", "n_m_share"]].tolist() == ["2:4", 1.0]
    for variant in (sr.masked, sr.csr):
        pruned = variant(sr.global_magnitude(weights, 0.6))
        real, _ = sr.analyze_layers(pruned.module(), pruned.name)
        assert real.equals(pruned.layers())
        assert real["total"][0] - real["nonzero"][0] == round(0.6 * 64 * 128)


def test_a_model_that_is_one_linear_layer():
    layer = nn.Linear(8, 6)
    sparse = sr.csr(sr.global_magnitude(sr.load(layer), 0.5)).module()
    assert isinstance(sparse, sr.LinearCSR)
    assert sparse.nnz == 24
    assert isinstance(layer, nn.Linear)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_explicit_zeros_are_stored_but_are_zeros():
    indices = torch.tensor([[0, 1, 1], [0, 0, 1]])
    sparse = torch.sparse_coo_tensor(indices, torch.tensor([0.0, 2.0, 3.0]), (2, 2)).coalesce()
    model = nn.ModuleDict({"fc1": nn.Linear(2, 2, bias=False)})
    model["fc1"].weight = nn.Parameter(sparse, requires_grad=False)
    layers = totals(model)
    assert layers["nonzero"].tolist() == [2]
    assert layers["stored_bytes"].tolist() == [3 * 4 + 3 * 2 * 8]


def test_meta_tensors_are_known_by_size_only():
    with torch.device("meta"):
        model = Tiny()
    weights = sr.load(model)
    study = sr.compare(sr.dense(weights))
    row = study.layers.set_index("module_name").loc["layers.0.fc1"]
    assert row["total"] == 70
    assert row["flops_per_token"] == 2 * 60
    assert row[["nonzero", "sparsity", "weight_nonzero"]].isna().all()
    assert study.totals.loc[0, "stored_bytes"] == 4 * unique(model)
    assert study.totals["sparsity_model"].isna().all()
    with pytest.raises(sr.SparsityReportError, match=r"layers\.0\.self_attn\.q_proj\.weight"):
        sr.global_magnitude(weights, 0.3)


def test_masks_in_a_checkpoint_are_named(tmp_path):
    torch.manual_seed(0)
    model = transformers.OPTForCausalLM(
        transformers.OPTConfig(hidden_size=8, ffn_dim=8, num_attention_heads=2,
                               num_hidden_layers=1, vocab_size=16, word_embed_proj_dim=8)
    )  # fmt: skip
    sr.prune_global_magnitude_(sr.select_prunable_linears(model), 0.3)
    model.save_pretrained(tmp_path)
    state = model.state_dict()
    torch.save(state, tmp_path / "alone.pt")
    masks = {key: mask.bool() for key, mask in state.items() if key.endswith("_mask")}
    torch.save(state | masks, tmp_path / "bool.pt")
    for source in ("", "model.safetensors", "alone.pt", "bool.pt"):
        for config in (True, False):
            with pytest.raises(sr.SparsityReportError, match="6 pruning masks that were never app"):
                sr.load(tmp_path / source, config=config, allow_pickle=True)


class Sharing(nn.Module):
    """Tied by ``.data =``, a view of rows, and a buffer that is a view."""

    def __init__(self):
        super().__init__()
        self.embed, self.fc1, self.fc2 = nn.Embedding(32, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.part = nn.Linear(16, 8, bias=False)
        self.lm_head = nn.Linear(16, 32, bias=False)
        self.lm_head.weight.data = self.embed.weight.data
        self.part.weight = nn.Parameter(self.fc1.weight.detach()[4:12], requires_grad=False)
        self.register_buffer("offset", self.fc2.bias.detach()[2:5])

    def forward(self, x):
        x = self.fc2(self.fc1(self.embed(x))).relu()
        return self.lm_head(x).sum() + self.part(x).sum() + self.offset.sum()


@pytest.mark.parametrize("form", [sr.masked, sr.csr])
def test_a_copy_shares_memory_where_the_model_does(form):
    model = Sharing()
    weights = sr.load(model)
    owned = 32 * 16 + 2 * (16 * 16 + 16)
    pruning = sr.global_magnitude(weights, 0.5)
    for variant in (sr.dense(weights), form(pruning)):
        twin = variant.module()
        derived, found = variant.layers(), sr.analyze_layers(twin, variant.name)[0]
        assert derived["total"].sum() == found["total"].sum() == owned
        for column in ("tied_to", "nonzero", "stored_bytes", "flops_per_token"):
            assert found[column].equals(derived[column]), column
        with torch.no_grad():
            twin.embed.weight.fill_(3)
            twin.fc1.weight[4:12] = 5
            twin.fc2.bias.fill_(7)
        assert set(twin.lm_head.weight.flatten().tolist()) == {3}
        assert set(twin.part.weight.flatten().tolist()) == {5}
        assert twin.offset.tolist() == [7, 7, 7]
        assert not twin.part.weight.requires_grad
        assert isinstance(twin.part.weight, nn.Parameter)
    assert not {3, 5, 7}.intersection(torch.cat([p.flatten() for p in model.parameters()]).tolist())


def test_variants_made_of_one_opened_model_share_as_it_does():
    from sparsity_report.study.variants import materialized

    weights = sr.load(Sharing())
    pruning = sr.global_magnitude(weights, 0.5)
    for _, module in materialized([sr.dense(weights), sr.masked(pruning), sr.csr(pruning)]):
        start = module.embed.weight.untyped_storage().data_ptr()
        assert module.lm_head.weight.untyped_storage().data_ptr() == start


def test_a_mask_of_one_of_two_tied_tensors_is_its_own():
    model, x = Sharing(), torch.arange(5)
    model.lm_head.weight = model.embed.weight
    prune.l1_unstructured(model.lm_head, "weight", 100)
    prune.l1_unstructured(model.fc2, "weight", 50)
    expected = model(x)
    twin = sr.load(model).module()
    assert not prune.is_pruned(twin)
    assert torch.equal(twin(x), expected)
    assert torch.equal(twin.embed.weight, model.embed.weight)
    assert int((twin.lm_head.weight == 0).sum()) == 100
    assert prune.is_pruned(model)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_in_memory_is_counted_as_it_is_and_run_as_float32(dtype):
    model = nn.ModuleDict({"fc1": nn.Linear(32, 16), "fc2": nn.Linear(16, 8).to(torch.bfloat16)})
    model["fc1"].weight = nn.Parameter(model["fc1"].weight.detach().to(dtype), requires_grad=False)
    weights = sr.load(model)
    name = str(dtype).removeprefix("torch.")
    assert weights.notes == (say("note.float8_weights", dtypes=[name]),)
    assert sr.dense(weights).layers()["stored_bytes"].tolist() == [
        32 * 16 + 4 * 16, 2 * (16 * 8 + 8),
    ]  # fmt: skip
    assert sr.dense(weights).module()["fc2"].weight.dtype == torch.float32
    pruning, x = sr.global_magnitude(weights, 0.5), torch.randn(3, 32)
    values = model["fc1"].weight.float()
    expected = nn.functional.linear(
        x, values * to_tensor(pruning.mask("fc1.weight")), model["fc1"].bias
    )
    for variant in (sr.masked(pruning), sr.csr(pruning)):
        assert torch.allclose(variant.module()["fc1"](x), expected, atol=1e-6)
        counted = sr.analyze_layers(variant.module(), "x")[0]
        assert counted["nonzero"].equals(variant.layers()["nonzero"])
    assert model["fc1"].weight.dtype == dtype
