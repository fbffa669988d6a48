"""An architecture whose names no rule knows is counted and pruned rightly all the same."""

import pytest
import torch
from helpers import counted
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

import sparsity_report as sr

D, F, V, E, K = 32, 48, 64, 4, 2


class OddConfig(PreTrainedConfig):
    model_type = "odd_one"
    vocab_size: int = V


class Chooser(nn.Module):
    """Two layers that nothing but the choice they lead to tells apart from others."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(D, D, bias=False), nn.Linear(D, E, bias=False)

    def forward(self, x):
        return self.two(torch.relu(self.one(x))).softmax(dim=-1).topk(K, dim=-1)


class Unit(nn.Module):
    def __init__(self):
        super().__init__()
        self.zig = nn.Parameter(torch.randn(D, 3 * D) / D)  # inputs first, no layer
        self.zag = nn.Linear(D, D, bias=False)
        self.chooser = Chooser()
        self.crew = nn.ModuleList(nn.Linear(D, D, bias=False) for _ in range(E))
        self.again = nn.Linear(D, D, bias=False)

    def forward(self, x):
        query, key, value = (x @ self.zig).split(D, dim=-1)
        scores = (query @ key.mT / D**0.5).softmax(dim=-1)
        x = x + self.zag(scores @ value)
        flat = x.reshape(-1, D)
        shares, chosen = self.chooser(flat)
        out = torch.zeros_like(flat)
        for number, member in enumerate(self.crew):
            rows, places = torch.where(chosen == number)
            out.index_add_(0, rows, member(flat[rows]) * shares[rows, places, None])
        for _ in range(3):
            out = self.again(out)
        return x + out.reshape(x.shape)


class OddModel(PreTrainedModel):
    config_class = OddConfig
    _tied_weights_keys = None

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(V, D)
        self.units = nn.ModuleList(Unit() for _ in range(2))
        self.say = nn.Linear(D, V, bias=False)
        self.unsaid = nn.Linear(D, F, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def _init_weights(self, module):
        pass

    def forward(self, input_ids):
        x = self.words(input_ids)
        for unit in self.units:
            x = unit(x)
        return CausalLMOutput(logits=self.say(x))


@pytest.fixture(scope="module")
def model():
    AutoConfig.register("odd_one", OddConfig, exist_ok=True)
    AutoModelForCausalLM.register(OddConfig, OddModel, exist_ok=True)
    torch.manual_seed(0)
    return OddModel(OddConfig(architectures=["OddModel"]))


def test_it_adds_up_and_nothing_is_pruned_that_is_not_to_be(model):
    weights = sr.load(model)
    study = sr.compare(sr.dense(weights))
    assert study.totals.loc[0, "total"] == sum(p.numel() for p in model.parameters())
    spared = {
        "words.weight", "unsaid.weight", "say.weight",
        *(f"units.{n}.chooser.two.weight" for n in range(2)),
    }  # fmt: skip
    assert {p.name for p in weights.prunable} == {n for n, _ in model.named_parameters()} - spared
    layers = study.layers.set_index("module_name")
    assert layers.loc["say", "group"] == "lm_head"
    assert layers.loc["units.1.chooser.two", "group"] == "router"
    assert set(layers.loc[layers["prunable"], "group"]) == {"other_linear"}
    assert any("first unsaid" in str(note) for note in weights.notes)


def test_flops_follow_the_modules_that_a_token_uses(model):
    row = sr.compare(sr.dense(model), context=10).totals.loc[0]
    unit = 3 * D * D + D * D + (D * D + D * E) + K * D * D + 3 * D * D
    assert row["flops_per_token"] == 2 * (2 * unit + V * D)
    assert row["attention_flops_per_token"] == 2 * 2 * 10 * (D + D)


def test_its_folder_says_the_same(model, tmp_path):
    model.save_pretrained(tmp_path)
    one, other = (sr.compare(sr.dense(sr.load(m, name="odd"))) for m in (model, tmp_path))
    assert counted(one.layers).equals(counted(other.layers))
    assert one.variants["fingerprint"].equals(other.variants["fingerprint"])


def test_it_runs_as_csr_where_it_can(model):
    pruning = sr.global_magnitude(sr.load(model), 0.5)
    ids = torch.arange(9)[None]
    with torch.no_grad():
        masked, csr = (v(pruning).module()(ids).logits for v in (sr.masked, sr.csr))
    torch.testing.assert_close(csr, masked, rtol=1e-4, atol=1e-5)
    assert {p.name for p in pruning.weights.prunable if not p.runs_as_csr} == {
        f"units.{n}.zig" for n in range(2)
    }
