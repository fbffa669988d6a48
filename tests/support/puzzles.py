"""A model as Puzzletron writes it (DeciLM, nemotron-nas): each block has a shape of its own."""

import json

import torch
from safetensors.torch import load_file
from structural import rows_of_heads, shuffled, written

ATTENTION, FFN = ("self_attn", "input_layernorm"), ("mlp", "post_attention_layernorm")
# Attention and FFN of each block: all of it, none, one matrix instead, or some of its units.
PUZZLE = [
    {"attention": [0, 1, 2, 3], "ffn": None}, {"attention": "linear", "ffn": shuffled(64, 128)},
    {"attention": None, "ffn": [*range(128)]}, {"attention": [3, 1], "ffn": "linear"},
]  # fmt: skip


def puzzle(base, folder, blocks):
    """Write a model as Puzzletron does (nemotron-nas)."""
    tensors = {}
    for name, values in load_file(base / "model.safetensors").items():
        words = name.split(".")
        if "layers" not in words:
            tensors[name] = values
            continue
        block = blocks[int(words[2])]
        attention, ffn = block["attention"], block["ffn"]
        if any(word in words for word in ATTENTION):
            if attention is None or (attention == "linear" and "self_attn" in words):
                continue
            if words[4] in {"k_proj", "v_proj"}:
                values = values[rows_of_heads(attention)]
        elif any(word in words for word in FFN):
            if ffn is None or (ffn == "linear" and "mlp" in words):
                continue
            if "mlp" in words:
                values = values[:, ffn] if "down_proj" in words else values[ffn]
        tensors[name] = values
    for number, block in enumerate(blocks):
        for key, name in (("attention", "self_attn.linear_attn"), ("ffn", "mlp.linear_mlp")):
            if block[key] == "linear":
                tensors[f"model.layers.{number}.{name}.weight"] = torch.randn(64, 64)
    config = json.loads((base / "config.json").read_text())
    del config["num_key_value_heads"], config["intermediate_size"]
    return written(folder, tensors, config | {"model_type": "nemotron-nas"})
