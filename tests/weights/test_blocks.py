"""Prunable weights: linear layers inside blocks, by the lists of torch as the oracle."""

from itertools import pairwise

import pytest
import torch
import transformers as tf
from helpers import command, load_by_class
from torch import nn

import sparsity_report as sr

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 16,
}  # fmt: skip
IMAGE = {"image_size": 16, "patch_size": 8}
OPT = {"vocab_size": 64, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2}
OPT |= {"num_attention_heads": 4, "word_embed_proj_dim": 16}
# Models, and their linear layers outside of blocks that are no output head.
MODELS = {
    "masked LM": (
        tf.BertForMaskedLM(tf.BertConfig(**SIZES)), {"cls.predictions.transform.dense"},
    ),
    "classes of a text": (
        tf.BertForSequenceClassification(tf.BertConfig(**SIZES, num_labels=3)),
        {"bert.pooler.dense", "classifier"},
    ),
    "Llama": (
        tf.LlamaForSequenceClassification(tf.LlamaConfig(**SIZES, pad_token_id=0)), {"score"},
    ),
    "ViT": (
        tf.ViTForImageClassification(tf.ViTConfig(**SIZES, **IMAGE, num_labels=10)),
        {"classifier"},
    ),
    "OPT-350m": (
        tf.OPTForCausalLM(tf.OPTConfig(**OPT, do_layer_norm_before=False)),
        {"model.decoder.project_in", "model.decoder.project_out"},
    ),
}  # fmt: skip
for model, _ in MODELS.values():
    model.eval()


def in_lists(model):
    """Linear layers inside the lists of torch, by name."""
    lists = [f"{name}." for name, each in model.named_modules() if type(each) is nn.ModuleList]
    names = (name for name, each in model.named_modules() if type(each) is nn.Linear)
    return {name for name in names if name.startswith((*lists,))}


def prunable(weights):
    return {p.name.removesuffix(".weight") for p in weights.prunable}


@pytest.mark.parametrize("name", MODELS)
def test_linear_layers_inside_blocks_are_prunable(name, tmp_path):
    model, outside = MODELS[name]
    inside = in_lists(model)
    model.save_pretrained(tmp_path)
    assert prunable(sr.load(model)) == inside
    assert prunable(sr.load(tmp_path)) == inside
    assert prunable(load_by_class(tmp_path)) == inside
    assert len(sr.load(tmp_path, config=False).prunable) == len(inside)
    written = tmp_path.with_name(f"{tmp_path.name}-half")
    done = command("prune", tmp_path, "--sparsity", "0.5", "--out", written)
    assert done.returncode == 0, done.stderr
    tensors = sr.load(written)
    zeros = {layer: int((tensors.tensor(f"{layer}.weight") == 0).sum()) for layer in outside}
    assert zeros == dict.fromkeys(outside, 0)


@pytest.mark.parametrize("name", MODELS)
def test_a_blacklist_keeps_the_rule_of_the_source_notebook(name, tmp_path):
    model, outside = MODELS[name]
    everything = in_lists(model) | outside
    model.save_pretrained(tmp_path)
    assert prunable(sr.load(tmp_path, blacklist=("lm_head",))) == everything
    layers = sr.select_prunable_linears(model)
    assert {id(layer) for layer in layers} == {id(model.get_submodule(n)) for n in everything}
    notebook, _ = sr.analyze_layers(model, "x", convention="notebook")
    standard, _ = sr.analyze_layers(model, "x")
    assert {*notebook.loc[notebook["prunable"], "module_name"]} == everything
    assert {*standard.loc[standard["prunable"], "module_name"]} == in_lists(model)
    out = tmp_path / "out"
    options = ("--blacklist", "lm_head", "--as-is", "--write", "study", "--out", out)
    assert command("run", tmp_path, *options).returncode == 0
    rows = sr.read_study(out / "study.json").layers
    assert {*rows.loc[rows["prunable"], "module_name"]} == everything


def linear(*sizes):
    return [nn.Linear(*pair) for pair in pairwise(sizes)]


class Classifier(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body, self.classifier = body, nn.Sequential(*linear(4, 4, 3))


def test_all_linear_layers_of_a_model_without_blocks_are_prunable():
    assert prunable(sr.load(nn.Sequential(*linear(3, 4, 2)))) == {"0", "1"}
    assert prunable(
        sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 4), "lm_head": nn.Linear(4, 2)}))
    ) == {"fc1"}
    flat = Classifier(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    assert prunable(sr.load(flat)) == {"body.0", "classifier.0", "classifier.1"}
    # Blocks without linear layers are blocks, as in SqueezeBERT.
    convolved = nn.ModuleList([nn.ModuleDict({"conv": nn.Conv1d(2, 2, 3)})])
    assert prunable(sr.load(Classifier(convolved))) == set()


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_classifier_behind_blocks_is_not_prunable(blocks):
    body = nn.ModuleList(nn.ModuleDict({"mix": nn.Linear(4, 4)}) for _ in range(blocks))
    model = Classifier(body)
    assert prunable(sr.load(model)) == {f"body.{n}.mix" for n in range(blocks)}
    torch.nn.utils.prune.l1_unstructured(model.classifier[0], "weight", 2)
    assert prunable(sr.load(model)) == {f"body.{n}.mix" for n in range(blocks)}


def test_adapters_make_no_block_of_a_layer():
    peft = pytest.importorskip("peft")
    model = nn.Sequential(*linear(3, 4, 2))
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["0"], r=2))
    assert prunable(sr.load(adapted)) == {"0", "1"}
