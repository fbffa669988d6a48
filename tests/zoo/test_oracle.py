"""What the checks stand on: products are seen as written out, tiny configs fit, a lie is found."""

import dataclasses

import pytest
import torch
from helpers import small_llama
from torch import nn

import sparsity_report as sr
from zoo import checks
from zoo.checks import CHECKS, Subject
from zoo.products import Products
from zoo.tiny import walked

pytestmark = pytest.mark.filterwarnings("ignore")  # advice on kernels that are not installed


class Small(nn.Module):
    """A tied embedding, learned queries that meet a token, a router, two experts, a convolution."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.queries = nn.Parameter(torch.randn(3, 4))
        self.key = nn.Linear(4, 4, bias=False)
        self.router = nn.Linear(4, 2, bias=False)
        self.experts = nn.Parameter(torch.randn(2, 5, 4))
        self.conv = nn.Conv1d(4, 6, 3)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)[0]
        x = x + (self.key(self.queries) @ x.T).sum()
        chosen = self.router(x).softmax(-1).topk(1).indices[:, 0]
        for expert in range(2):
            x[chosen == expert] @ self.experts[expert].T
        self.conv(x.T)
        return self.head(x)


class Twice(nn.Linear):
    def forward(self, x):
        return super().forward(x) + super().forward(x)


class Never(nn.Linear):
    def forward(self, x):
        return x[..., : self.out_features]


def test_products_are_seen_by_their_parameters():
    model = Small().requires_grad_(False)
    with Products(model) as products:
        logits = model(torch.arange(6)[None])
    assert products.of_parameters == {
        frozenset({"key.weight"}): 2 * 3 * 4 * 4, frozenset({"router.weight"}): 2 * 6 * 4 * 2,
        frozenset({"experts"}): 2 * 6 * 4 * 5,
        frozenset({"embed.weight", "head.weight"}): 2 * 6 * 4 * 7,
    }  # fmt: skip
    assert products.convolutions == {frozenset({"conv.weight"}): 2 * 4 * 6 * 3 * 4}
    assert products.of_activations == 2 * 3 * 4 * 6
    assert products.chosen == {"router.weight"}
    assert products.makers[logits] == {"embed.weight", "head.weight"}


def test_tiny_configs_keep_every_kind_of_layer():
    for case in walked():
        if case.name in {"Llama4ForCausalLM", "Qwen3NextForCausalLM", "Gemma3nForCausalLM"}:
            kinds = [set(c.layer_types) for c in (case.config, type(case.config)())]
            assert kinds[0] == kinds[1]
            assert case.config.num_hidden_layers == len(case.config.layer_types) < 8


@pytest.fixture
def llama():
    return Subject(small_llama())


def test_a_llama_passes(llama):
    assert {letter: check(llama) for letter, check in CHECKS.items()} == dict.fromkeys(CHECKS)


def test_another_weight_is_found(llama):
    assert llama.study is not None  # counted before
    with torch.no_grad():
        llama.model.lm_head.weight[0, 0] = 0
    assert "not zero, where there are" in CHECKS["a"](llama)
    assert CHECKS["b"](llama).startswith("layers of the saved folder differ: nonzero")


def test_an_unknown_module_is_found(llama):
    llama.model.extra = nn.PReLU(4)
    assert CHECKS["c"](llama).endswith("% unclassified: extra")


def test_a_module_that_runs_twice_or_not_is_found(llama):
    assert llama.study is not None  # counted before
    up, down = llama.model.model.layers[0].mlp.up_proj, llama.model.model.layers[1].mlp.down_proj
    up.__class__, down.__class__ = Twice, Never
    said = CHECKS["d"](llama)
    assert "model.layers.0.mlp.up_proj: 3,072 per token, a run 6,144" in said
    assert "charged and never run: model.layers.1.mlp.down_proj" in said


def test_another_width_of_attention_is_found(llama):
    llama.weights.attention_widths = {None: 64}
    assert CHECKS["s"](llama) == "attention: 128 FLOPs per pair of positions, a run 256"


def test_wrongly_prunable_weights_are_found(llama):
    options = {"blacklist": ("q_proj",), "groups": {"lm_head": "mlp_linear"}}
    llama.weights = sr.load(llama.model, **options)
    said = CHECKS["e"](llama)
    assert "lm_head.weight (outside of blocks) is prunable" in said
    assert "model.layers.0.self_attn.q_proj.weight is not prunable" in said


def test_a_variant_that_differs_is_found(llama, monkeypatch):
    runs = []

    def drifting(model, length, run=checks.forward):
        runs.append(run(model, length))
        return dataclasses.replace(runs[-1], logits=runs[-1].logits + 0.1 * len(runs))

    monkeypatch.setattr(checks, "forward", drifting)
    assert CHECKS["f"](llama) == "CSR differs from Masked by up to 0.1"
