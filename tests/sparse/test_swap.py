"""CSR takes the place of what multiplies as nn.Linear does; all else stays masked and is named."""

import pandas as pd
import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn.utils import parametrizations, prune

import sparsity_report as sr
from sparsity_report.sparse.csr_swap import keeps_forward, runs_as_csr
from sparsity_report.study.storage_layouts import layout_curve

SIZE = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "n_routed_experts": 4, "moe_intermediate_size": 16}


class OwnLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class PlainLinear(nn.Linear):
    """Inherits its forward."""


class Conv1D(nn.Module):
    """Of a name that transformers has, too."""

    def __init__(self, size):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size, size)), None

    def forward(self, x):
        return x @ self.weight - x


class Around(nn.Module):
    """Multiplies by weights of its layers itself, or only asks for their type."""

    def __init__(self):
        super().__init__()
        for name in ("at", "function", "keyword", "asked", "called"):
            setattr(self, name, nn.Linear(8, 8, bias=False))

    def forward(self, x):
        x = (self.at.weight @ x.mT).mT
        x = nn.functional.linear(x, self.function.weight.t().t())
        x = torch.einsum("bi,oi->bo", x, self.keyword.weight)
        if self.asked.weight.dtype == x.dtype and isinstance(self.asked.weight, torch.Tensor):
            x = self.asked(x)
        return self.called(x)


class WholeExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.one_by_one = nn.Parameter(torch.randn(2, 8, 8))
        self.at_once = nn.Parameter(torch.randn(2, 8, 8))
        self.both = nn.Parameter(torch.randn(2, 8, 8))
        self.sliced = nn.Parameter(torch.randn(2, 8, 8))

    def forward(self, x):
        assert self.one_by_one.shape == self.sliced.shape
        for expert in range(2):
            x = nn.functional.linear(x, self.one_by_one[expert])
            x = nn.functional.linear(x, self.both[expert])
        return x + torch.bmm(x, self.at_once) + torch.bmm(x, self.both) + x @ self.sliced[0:1]


def with_hook(kind):
    layer = nn.Linear(8, 8)
    getattr(layer, f"register_{kind}")(lambda *_: None)
    return layer


def with_own_forward():
    layer = nn.Linear(8, 8)
    layer.forward = lambda x: x
    return layer


def with_child():
    layer = PlainLinear(8, 8)
    layer.lora = nn.Linear(8, 1)
    return layer


def masked():
    layer = nn.Linear(8, 8)
    for name in ("weight", "bias"):
        prune.l1_unstructured(layer, name, 3)
    return layer


def computed_bias():
    layer = nn.Linear(8, 8)
    layer.register_buffer("offset", layer._parameters.pop("bias").detach())
    return layer


PLAIN = {
    "Linear": lambda: nn.Linear(8, 8), "without bias": lambda: nn.Linear(8, 8, bias=False),
    "inherited": lambda: PlainLinear(8, 8),
    "transformers' Conv1D": lambda: tf.pytorch_utils.Conv1D(8, 8), "masked": masked,
}  # fmt: skip
OWN = {
    "own forward": lambda: OwnLinear(8, 8),
    "Conv1D by name": lambda: Conv1D(8),
    "a forward of the instance": with_own_forward,
    "parametrised": lambda: parametrizations.weight_norm(nn.Linear(8, 8)),
    "a part inside": with_child,
    "bias elsewhere": computed_bias,
    **{
        kind: lambda kind=kind: with_hook(kind)
        for kind in (
            "forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_linear_like_modules_become_csr(make):
    assert keeps_forward(make())


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_other_modules_do_not_become_csr(make):
    layer = make()
    assert not keeps_forward(layer)
    model = nn.Sequential(layer)
    with pytest.warns(UserWarning, match=rf"cannot replace 0 \({type(layer).__name__}\)"):
        sr.convert_linears_to_csr_(model, [layer])
    assert model[0] is layer


def test_a_matrix_that_the_module_around_multiplies_by_stays():
    model, x = nn.ModuleDict({"around": Around()}), torch.randn(3, 8)
    expected = model["around"](x)
    runs = {
        name: runs_as_csr(layer, "weight", model["around"], name)
        for name, layer in model["around"].named_children()
    }
    assert runs == {
        "at": False, "function": False, "keyword": False, "asked": True, "called": True,
    }  # fmt: skip
    with pytest.warns(UserWarning, match=r"around.at .*around.function .*around.keyword \(Linear"):
        sr.convert_linears_to_csr_(model, list(model["around"].children()))
    classes = [type(layer) for layer in model["around"].children()]
    assert classes == 3 * [nn.Linear] + 2 * [sr.LinearCSR]
    assert torch.allclose(model["around"](x), expected, atol=1e-6)


def test_experts_that_are_not_read_one_at_a_time_stay():
    experts = WholeExperts()
    runs = [leaf for leaf in experts._parameters if runs_as_csr(experts, leaf, None, "")]
    assert runs == ["one_by_one"]
    # Of one module all matrices are CSR or none: its row in the tables has one layout.
    weights = sr.load(nn.ModuleDict({"mlp": experts, "fc1": nn.Linear(8, 8)}))
    pruning = sr.global_magnitude(weights, 0.5)
    assert {p.name for p in weights.prunable} == {
        "mlp.one_by_one", "mlp.at_once", "mlp.both", "mlp.sliced", "fc1.weight",
    }  # fmt: skip
    rows = sr.csr(pruning).layers().set_index("module_name")
    assert rows["layout"].to_dict() == {"mlp": "dense", "fc1": "csr"}
    model, x = sr.csr(pruning).module(), torch.randn(2, 3, 8)
    assert torch.equal(model["mlp"](x), sr.masked(pruning).module()["mlp"](x))


def test_code_that_cannot_be_read_is_not_trusted_with_experts():
    space = {"nn": nn, "torch": torch}
    exec(  # no file has this source
        "class Experts(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.w = nn.Parameter(torch.ones(2, 3, 3))\n"
        "    def forward(self, x):\n"
        "        return x @ self.w[0]\n",
        space,
    )
    assert not runs_as_csr(space["Experts"](), "w", None, "")


def test_numbers_that_are_no_floats_stay():
    layer = nn.Linear(4, 4, bias=False, dtype=torch.complex64)
    assert not runs_as_csr(layer, "weight", None, "")
    pruning = sr.global_magnitude(sr.load(nn.ModuleDict({"fc1": layer})), 0.5)
    x = torch.randn(2, 4, dtype=torch.complex64)
    masked, csr = sr.masked(pruning).module(), sr.csr(pruning).module()
    assert torch.equal(csr["fc1"](x), masked["fc1"](x))


def causal(config, **options):
    return tf.AutoModelForCausalLM.from_config(config(**SIZE, **options))


def deepseek_v2():
    return causal(
        tf.DeepseekV2Config, num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, first_k_dense_replace=1,
        n_shared_experts=1, n_group=1, topk_group=1, **EXPERTS,
    )  # fmt: skip


def deepseek_v4():
    size = SIZE | {"num_hidden_layers": 3}
    size.pop("intermediate_size")
    config = tf.DeepseekV4Config(
        **size, head_dim=16, q_lora_rank=16, o_groups=2, o_lora_rank=8, qk_rope_head_dim=8,
        index_n_heads=2, index_head_dim=8, index_topk=4, **EXPERTS,
    )  # fmt: skip
    return tf.AutoModelForCausalLM.from_config(config)


def llama4():
    config = tf.Llama4TextConfig(
        **SIZE, num_key_value_heads=2, head_dim=8, intermediate_size_mlp=48,
        num_local_experts=4, num_experts_per_tok=1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return tf.Llama4ForCausalLM(config)


def gpt2():
    config = tf.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=16, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    return tf.GPT2LMHeadModel(config)


def mamba():
    config = tf.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8)
    return tf.MambaForCausalLM(config)


class TorchEncoder(nn.Module):
    """Torch's own layers, whose fast path reads the weights of everything inside."""

    def __init__(self):
        super().__init__()
        self.embed, self.first = nn.Embedding(64, 32), nn.Linear(32, 32)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 48, batch_first=True) for _ in range(2)
        )

    def forward(self, input_ids):
        x = self.first(self.embed(input_ids))
        for layer in self.layers:
            x = layer(x)
        return {"last_hidden_state": x}


def siglip():
    """Its pooling head is an ``nn.MultiheadAttention``."""
    config = tf.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        image_size=16, patch_size=8,
    )  # fmt: skip
    return tf.SiglipVisionModel(config)


IBERT = [
    f"encoder.layer.0.{leaf}"
    for leaf in (
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "intermediate.dense", "output.dense",
    )
]  # fmt: skip
MODELS = {
    "DeepSeek-V2": (deepseek_v2, []), "GPT-2": (gpt2, []),
    "Llama 4": (llama4, [f"model.layers.{n}.feed_forward.experts" for n in range(2)]),
    "DeepSeek-V4": (
        deepseek_v4,
        ["model.hc_head",
         *(
             f"model.layers.{n}.{leaf}"
             for n in range(3)
             for leaf in ("self_attn.o_a_proj", "attn_hc", "ffn_hc")
         )],
    ),
    "I-BERT": (lambda: tf.IBertModel(tf.IBertConfig(**SIZE | {"num_hidden_layers": 1})), IBERT),
    "Mamba": (mamba, [f"backbone.layers.{n}.mixer.dt_proj" for n in range(2)]),
    "SigLIP": (siglip, ["head.attention", "head.attention.out_proj"]),
    "torch": (
        TorchEncoder,
        [
            f"layers.{n}.{leaf}"
            for n in range(2)
            for leaf in ("self_attn", "self_attn.out_proj", "linear1", "linear2")
        ],
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def pruned(request):
    make, kept = MODELS[request.param]
    torch.manual_seed(0)
    # Heads outside blocks are pruned, too.
    weights = sr.load(make().eval(), name=request.param, blacklist=("lm_head",))
    return sr.global_magnitude(weights, 0.6), kept


def outputs(model):
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    reads = {"input_ids": torch.arange(7)[None]}
    if getattr(model, "main_input_name", "") == "pixel_values":
        reads = {"pixel_values": torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)}
    with torch.inference_mode():
        found = model.eval()(**reads)
    return next(found[k] for k in ("logits", "pooler_output", "last_hidden_state") if k in found)


@pytest.mark.filterwarnings("ignore")  # advice on kernels that are not installed
def test_csr_runs_and_equals_masked(pruned):
    pruning, kept = pruned
    masked, csr = sr.masked(pruning).module(), sr.csr(pruning).module()
    torch.testing.assert_close(outputs(csr), outputs(masked), rtol=1e-4, atol=1e-5)
    classes = {name: type(module) for name, module in csr.named_modules()}
    assert sr.LinearCSR in classes.values()
    for name, module in masked.named_modules():
        if name in kept:
            assert classes[name] is type(module)


def test_a_materialized_model_counts_as_derived_module_by_module(pruned):
    pruning, _ = pruned
    derived = sr.csr(pruning).layers()
    materialized = sr.load(sr.csr(pruning).module(), blacklist=("lm_head",))
    counted = sr.dense(materialized, name="CSR60").layers()
    for column in derived.columns.difference(["file_bytes"]):
        pd.testing.assert_series_equal(counted[column], derived[column])


def test_layers_kept_masked_are_counted_and_named(pruned):
    pruning, kept = pruned
    study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
    masked, rows = (study.facts.layers(v).set_index("module_name") for v in ("Masked60", "CSR60"))
    stay = rows[rows["prunable"] & (rows["layout"] == "dense")]
    assert sorted(stay.index) == sorted(kept)
    for column in ("nonzero", "flops_per_token", "stored_bytes"):
        assert stay[column].equals(masked.loc[stay.index, column])
    assert list(study.facts.kept_masked("CSR60")["module_name"]) == list(stay.index)
    assert rows["runs_as_csr"].notna().equals(rows["prunable"])
    assert list(rows.index[~rows["runs_as_csr"].fillna(True)]) == list(stay.index)
    said = [s for s in sr.summarize(study) if "masked in CSR60" in s]
    told = [note for note in map(str, study.notes) if "masked" in note]
    assert len(said) == len(told) == bool(kept)
    for sentence in said:
        assert f"{len(kept)} of {rows['prunable'].sum()} prunable layers" in sentence
        assert all(name in sentence for name in stay.index[:3])
    for note in told:
        names = {p.name for p in pruning.weights.prunable}
        first = [name for name in names if name.startswith(tuple(kept)) and name in note]
        assert f"of {len(names)} prunable matrices masked" in note
        assert len(first) >= min(3, len(kept))


def test_tables_of_a_model_that_partly_runs_as_csr_agree(pruned, tmp_path):
    pruning, _ = pruned
    study = sr.compare(sr.dense(pruning.weights), sr.csr(pruning))
    study = sr.read_study(study.save(tmp_path / "s.json"))
    total = study.totals.set_index("variant").loc["CSR60"]
    known = "variant == 'CSR60' and scope == 'model' and layout == 'csr_int32'"
    assert study.storage.query(known)["bytes"].item() == total["stored_bytes"]
    levels = study.by_level
    size, flops = (
        levels.total(quantity)[levels.sparsities.index(0.6)]
        for quantity in ("stored_bytes", "flops_per_token")
    )
    # Float32: the share of each layer is interpolated, the sum of zeros exact.
    slack = study.at_level(0.6)["uncertainty"].sum()
    assert abs(size - total["stored_bytes"]) <= 8 * slack
    assert abs(flops - total["flops_per_token"]) <= 2 * slack + len(study.layers)
    # Where nothing is pruned CSR is as large as it gets: a line, and it meets that of its end.
    curve = (
        layout_curve(study.facts.layers(study.facts.baseline))
        .query("sparsity == 0")
        .set_index("layout")["bytes"]
    )
    assert curve["csr_int32"] == study.facts.storage("Dense")["bytes"]["csr_int32"]
