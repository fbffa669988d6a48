"""Groups of modules by their names and classes."""

import pytest
import torch
from torch import nn

import sparsity_report as sr
from sparsity_report.weights.anatomy.groups import GROUPS, classify


@pytest.mark.parametrize(
    ("name", "class_name", "enclosing", "group"),
    [("model.decoder.layers.0.self_attn.q_proj", "Linear", ["OPTAttention"], "attention_linear"),
     ("model.decoder.layers.0.fc1", "Linear", ["OPTDecoderLayer"], "mlp_linear"),
     ("model.decoder.layers.0.self_attn_layer_norm", "LayerNorm", ["OPTDecoderLayer"], "norm"),
     ("model.decoder.embed_positions", "OPTLearnedPositionalEmbedding", [], "embedding"),
     ("transformer.h.0.attn.c_attn", "Conv1D", ["GPT2Attention"], "attention_linear"),
     ("transformer.h.0.mlp.c_fc", "Conv1D", ["GPT2MLP"], "mlp_linear"),
     ("gpt_neox.layers.0.attention.dense", "Linear", ["GPTNeoXAttention"], "attention_linear"),
     ("encoder.layer.0.intermediate.dense", "Linear", ["BertIntermediate"], "mlp_linear"),
     ("encoder.layer.0.output.dense", "Linear", ["BertOutput", "BertLayer"], "mlp_linear"),
     ("encoder.layer.0.attention.output.dense", "Linear",
      ["BertSelfOutput", "BertAttention", "BertLayer"], "attention_linear"),
     ("pooler.dense", "Linear", ["BertPooler", "BertModel"], "other_linear"),
     ("model.layers.0.mlp.gate", "MixtralTopKRouter", ["MixtralSparseMoeBlock"], "router"),
     ("model.layers.0.mlp.experts", "MixtralExperts", ["MixtralSparseMoeBlock"], "mlp_linear"),
     ("backbone.layers.0.mixer.in_proj", "Linear", ["MambaMixer", "MambaBlock"], "ssm"),
     ("some.buffer.offset", "Linear", [], "other_linear"),
     ("coffee", "Linear", [], "other_linear"), ("x", "Mystery", [], "other"),
     # Names alone, as in a file without a config.
     ("model.layers.3.mlp.down_proj", "", [], "mlp_linear"),
     ("blk.0.attn_q", "", [], "attention_linear"), ("blk.0.ffn_gate", "", [], "mlp_linear"),
     ("token_embd", "", [], "embedding"), ("output", "", [], "lm_head"),
     ("lm_head", "", [], "lm_head")],
)  # fmt: skip
def test_classify(name, class_name, enclosing, group):
    linear = None if class_name else True
    assert classify(name, class_name, enclosing=enclosing, linear=linear) == group


@pytest.mark.parametrize(
    "name",
    ["model.norm", "blk.0.attn_norm", "ln_f", "h.0.ln_1", "input_layernorm", "encoder.LayerNorm"],
)
def test_norms_by_name(name):
    assert classify(name, linear=False) == "norm"


def test_the_users_rules_come_first_and_in_order():
    rules = {"*.special.*": "mlp_linear", "model.*": "other"}
    assert classify("model.special.norm", "LayerNorm", rules=rules) == "mlp_linear"
    assert classify("model.norm", "LayerNorm", rules=rules) == "other"
    assert classify("head.norm", "LayerNorm", rules=rules) == "norm"


def test_rules_with_an_unknown_group_are_refused():
    with pytest.raises(sr.SparsityReportError, match=r"'mlp'.*use one of embedding"):
        sr.load(groups={"*": "mlp"})


def test_groups_are_the_documented_ones():
    assert GROUPS[:2] == ("embedding", "attention_linear")
    assert len(GROUPS) == len(set(GROUPS)) == 9


def test_classify_module_sees_the_class():
    assert sr.classify_module("model.embed_tokens", nn.Embedding(2, 2)) == "embedding"
    assert sr.classify_module("layers.0.fc1", sr.LinearCSR(torch.eye(3))) == "mlp_linear"
