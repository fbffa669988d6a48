"""Files that names, shapes and ``config.json`` decide, against the class that wrote them."""

import json
import random
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from helpers import described, is_decided, load_by_class, swept
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from zoo.tiny import walked

DECIDED = (
    "OPTForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
    "Qwen3ForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Phi3ForCausalLM",
    "GPT2LMHeadModel", "GPTNeoXForCausalLM", "MixtralForCausalLM", "Qwen2MoeForCausalLM",
    "Qwen3MoeForCausalLM", "Olmo2ForCausalLM", "OlmoeForCausalLM", "Cohere2ForCausalLM",
    "BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM",
    "BertForSequenceClassification", "RobertaForTokenClassification",
    "DistilBertForSequenceClassification", "LlamaForSequenceClassification",
    "T5ForConditionalGeneration", "BartForConditionalGeneration",
    "WhisperForConditionalGeneration", "ViTForImageClassification",
)  # fmt: skip
BODIES = ("BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM", "GPT2LMHeadModel")
# Transformers writes these for all classes that have a window.
WINDOWS = {"layer_types", "sliding_window"}
CLASSES = {case.name: case for case in walked()}
pytestmark = pytest.mark.filterwarnings("ignore")


def saved(name, folder, as_body=False, **changed):
    case = replace(CLASSES[name])
    for key in changed.keys() & case.config.to_dict().keys():
        setattr(case.config, key, changed[key])
    if name.startswith("DistilBert"):  # square matrices alone do not tell their direction
        case.config.hidden_dim = 48
    model = case.build()
    model = model.base_model if as_body else model
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", swept(DECIDED, 8))
def test_decided_files_equal_their_class(name, tmp_path):
    model = saved(name, tmp_path)
    weights = sr.load(tmp_path)
    assert is_decided(weights)
    assert weights.architecture == name
    assert weights.notes == sr.load(model).notes
    assert described(weights, False) == described(sr.load(model), False)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    optional, chance = sorted(config.keys() - {"model_type", *WINDOWS}), random.Random(name)
    by_hand = (*WINDOWS, "transformers_version")
    samples = (chance.sample(optional, 6) for _ in range(3))
    for keys in (("tie_word_embeddings",), by_hand, *samples):
        file.write_text(json.dumps({key: config[key] for key in config.keys() - {*keys}}))
        with suppress(sr.SparsityReportError):  # what the class requires may be dropped
            weights = sr.load(tmp_path)
            of_class = load_by_class(tmp_path)
            assert not is_decided(weights) or described(weights) == described(of_class), keys


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("name", swept(DECIDED, 9))
def test_other_sizes_and_heads_equal_their_class(name, is_tied, tmp_path):
    """More positions than tokens, odd sizes of experts and layers, a head apart from the table."""
    sizes = {"vocab_size": 17, "max_position_embeddings": 128, "n_positions": 128, "num_labels": 5}
    sizes |= {"num_experts": 3, "num_local_experts": 5, "moe_intermediate_size": 20, "ffn_dim": 20}
    sizes |= {"type_vocab_size": 1, "num_key_value_heads": 1, "image_size": 16}
    model = saved(name, tmp_path, tie_word_embeddings=is_tied, **sizes)
    weights = sr.load(tmp_path)
    assert is_decided(weights) or is_tied == name.startswith("GPTNeoX")
    assert described(weights, False) == described(sr.load(model), False)
    assert type(weights.module()) is type(model)


@pytest.mark.parametrize("name", BODIES)
def test_bodies_equal_their_class_and_undecided_ones_ask_it(name, tmp_path):
    model = saved(name, tmp_path, as_body=True)
    weights = sr.load(tmp_path)
    assert is_decided(weights)
    assert described(weights, False) == described(sr.load(model), False)
    tensors = load_file(tmp_path / "model.safetensors")
    block = max(tensors, key=len)
    for key in ("mtp.weight", f"{block}_scale", block.replace(".0.", ".7.").replace(".1.", ".7.")):
        save_file({**tensors, key: torch.ones(32, 32)}, tmp_path / "model.safetensors")
        with suppress(sr.SparsityReportError):
            assert not is_decided(sr.load(tmp_path)), key
    save_file({f"body.{key}": t for key, t in tensors.items()}, tmp_path / "model.safetensors")
    with suppress(sr.SparsityReportError):
        assert not is_decided(sr.load(tmp_path))
