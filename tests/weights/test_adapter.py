"""Adapters are not models: one line names the base and says what to do."""

import json

import numpy as np
import pytest
import torch
from helpers import refused, small_llama, write_gguf
from safetensors.torch import load_file, save_file

import sparsity_report as sr


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers the old way
@pytest.mark.parametrize("options", [{}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}])
def test_adapters_of_peft_need_a_base(tmp_path, options):
    peft = pytest.importorskip("peft")
    small_llama().save_pretrained(tmp_path / "base")
    base = type(small_llama()).from_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], **options)
    adapted = peft.get_peft_model(base, lora)
    adapted.save_pretrained(tmp_path / "adapter")
    folder = tmp_path / "adapter"
    said = f"is an adapter of {tmp_path / 'base'}, not a model; open the two merged with base="
    refused(said, folder)
    refused(said, folder / "adapter_model.safetensors")
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((folder / "adapter_model.safetensors").read_bytes())
    refused("is an adapter of a model that no adapter_config.json names", alone)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert sr.load(tmp_path / "merged").architecture == "LlamaForCausalLM"


def test_an_adapter_whose_config_says_nothing(tmp_path):
    save_file({"base_model.model.q.lora_A.weight": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    for text in ("{", "[]", "{}", json.dumps({"base_model_name_or_path": None}), "[" * 100_000):
        (tmp_path / "adapter_config.json").write_text(text)
        refused("an adapter of a model that no adapter_config.json names", tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "a\\n\\u001b[31mb"}')
    refused(r"an adapter of a \\x1b\[31mb, not a model", tmp_path)


def test_pickled_and_gguf_adapters(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    torch.save(
        {"base_model.model.q.lora_A.weight": torch.ones(2, 2)}, tmp_path / "adapter_model.bin"
    )
    refused("is an adapter of org/base", tmp_path)
    refused("is an adapter of org/base", tmp_path / "adapter_model.bin", allow_pickle=True)
    tensors = {f"blk.0.attn_q.weight.lora_{leaf}": (np.ones((2, 32), "f4"), None) for leaf in "ab"}
    (tmp_path / "other").mkdir()
    write_gguf(tmp_path / "other" / "x.gguf", tensors, "llama")
    refused("is an adapter of a model that no", tmp_path / "other")


def test_a_model_beside_an_adapter_or_with_words_of_one_opens(tmp_path):
    model = small_llama()
    model.save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    save_file(
        {"base_model.model.q.lora_A.weight": torch.ones(2, 2)},
        tmp_path / "adapter_model.safetensors",
    )
    assert sr.load(tmp_path).architecture == "LlamaForCausalLM"
    # transformers would add the adapter, so that another model ran than is counted.
    live = sr.load(tmp_path).module()
    assert [*live.state_dict()] == [*model.state_dict()]
    good = load_file(tmp_path / "model.safetensors")
    save_file({**good, "x.lora_A.weight": torch.ones(2, 2)}, tmp_path / "both.safetensors")
    (tmp_path / "config.json").unlink()
    assert sr.load(tmp_path / "both.safetensors")["x.lora_A.weight"].total == 4
    layer = {"base_model.model.q.base_layer.weight": torch.ones(2, 2)}
    save_file(
        {**layer, "base_model.model.q.lora_A.weight": torch.ones(2, 2)},
        tmp_path / "whole.safetensors",
    )
    assert len(sr.load(tmp_path / "whole.safetensors").modules) == 2
