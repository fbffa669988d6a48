"""Structurally pruned models with known answers: what is left of each is chosen here."""

import json
from dataclasses import dataclass, field

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

WIDTH, HEAD, VOCABULARY = 64, 8, 96
COMMON = {"vocab_size": VOCABULARY, "tie_word_embeddings": False}
# Blocks 4, channels 128, heads 8 of 8 rows, key-value heads 4, experts 8 of 32 channels.
MODELS = {
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=4, num_attention_heads=8,
            num_key_value_heads=4, head_dim=HEAD, max_position_embeddings=32, **COMMON,
        )
    ),
    "opt": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(
            hidden_size=WIDTH, ffn_dim=128, num_hidden_layers=4, num_attention_heads=8,
            max_position_embeddings=32, word_embed_proj_dim=WIDTH, **COMMON,
        )
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=WIDTH, n_inner=128, n_layer=4, n_head=8, n_positions=32, **COMMON
        )
    ),
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=4, num_attention_heads=8,
            num_key_value_heads=4, head_dim=HEAD, num_local_experts=8, num_experts_per_tok=2,
            max_position_embeddings=32, **COMMON,
        )
    ),
    "bert": lambda: transformers.BertForMaskedLM(
        transformers.BertConfig(
            hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=4, num_attention_heads=8,
            max_position_embeddings=32, **COMMON,
        )
    ),
}  # fmt: skip
# By the last words of a tensor's name: what its rows and columns are, as it lies in the file.
LINES = {
    "q_proj.weight": ("q", ""), "k_proj.weight": ("kv", ""), "v_proj.weight": ("kv", ""),
    "o_proj.weight": ("", "q"), "out_proj.weight": ("", "q"), "q_proj.bias": ("q",),
    "k_proj.bias": ("kv",), "v_proj.bias": ("kv",), "gate_proj.weight": ("f", ""),
    "up_proj.weight": ("f", ""), "down_proj.weight": ("", "f"), "fc1.weight": ("f", ""),
    "fc1.bias": ("f",), "fc2.weight": ("", "f"), "query.weight": ("q", ""), "query.bias": ("q",),
    "key.weight": ("kv", ""), "key.bias": ("kv",), "value.weight": ("kv", ""),
    "value.bias": ("kv",), "attention.output.dense.weight": ("", "q"),
    "intermediate.dense.weight": ("f", ""), "intermediate.dense.bias": ("f",),
    "output.dense.weight": ("", "f"), "c_attn.weight": ("", "qkv"), "c_attn.bias": ("qkv",),
    "attn.c_proj.weight": ("q", ""), "c_fc.weight": ("", "f"), "c_fc.bias": ("f",),
    "mlp.c_proj.weight": ("f", ""), "w1.weight": ("f", ""), "w3.weight": ("f", ""),
    "w2.weight": ("", "f"), "block_sparse_moe.gate.weight": ("e", ""),
    "embed_tokens.weight": ("v", ""), "lm_head.weight": ("v", ""), "wte.weight": ("v", ""),
}  # fmt: skip


@dataclass
class Left:
    """What is left: numbers of the base, in the order that they have after."""

    blocks: list[int] | None = None
    heads: list[int] | None = None
    kv_heads: list[int] | None = None
    channels: list[int] | None = None
    experts: list[int] | None = None
    vocabulary: list[int] | None = None
    width: list[int] | None = None
    noise: float = 0.0
    config: dict = field(default_factory=dict)


def rows_of_heads(heads):
    return None if heads is None else [HEAD * h + i for h in heads for i in range(HEAD)]


def base_of(kind, folder):
    torch.manual_seed(7)
    model = MODELS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms are all alike in a new model
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def bases_of(factory):
    """Return a function that gives a base of a kind, made once."""
    made = {}

    def base(kind):
        if kind not in made:
            made[kind] = base_of(kind, factory.mktemp(kind))
        return made[kind]

    return base


def pruned(base, folder, left):
    """Write what is left of a model in a folder."""
    tensors = load_file(base / "model.safetensors")
    heads = rows_of_heads(left.heads)
    others = rows_of_heads(left.kv_heads)
    if left.kv_heads is None and not any(
        "k_proj" in n and len(t) != WIDTH for n, t in tensors.items()
    ):
        others = heads  # as many keys as queries
    fused = None if heads is None else [WIDTH * n + row for n in range(3) for row in heads]
    index = {
        "q": heads, "kv": others, "qkv": fused, "f": left.channels, "e": left.experts,
        "v": left.vocabulary,
    }  # fmt: skip
    made = {}
    torch.manual_seed(11)
    for name, values in tensors.items():
        words = name.split(".")
        places = [i for i, word in enumerate(words) if word.isdecimal()]
        if places and left.blocks is not None:
            if int(words[places[0]]) not in left.blocks:
                continue
            words[places[0]] = str(left.blocks.index(int(words[places[0]])))
        if len(places) > 1 and left.experts is not None:
            if int(words[places[1]]) not in left.experts:
                continue
            words[places[1]] = str(left.experts.index(int(words[places[1]])))
        kinds = next(
            (k for end, k in sorted(LINES.items(), key=lambda e: -len(e[0])) if name.endswith(end)),
            ("",) * values.ndim,
        )
        for axis, kind in enumerate(kinds):
            if index.get(kind) is not None:
                values = values.index_select(axis, torch.tensor(index[kind]))
            elif kind == "" and left.width is not None and values.shape[axis] == WIDTH:
                values = values.index_select(axis, torch.tensor(left.width))
        noise = left.noise * values.std() * torch.randn_like(values) if left.noise else 0
        made[".".join(words)] = (values + noise).contiguous()
    folder.mkdir(exist_ok=True)
    save_file(made, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | left.config))
    return folder


def shuffled(number, of, seed=3):
    return np.random.default_rng(seed).permutation(of)[:number].tolist()


def read(folder):
    """Return the tensors and the config of a checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    return load_file(folder / "model.safetensors"), config


def written(folder, tensors, config=None):
    """Write tensors as a checkpoint, with a config or without."""
    folder.mkdir()
    whole = {name: values.contiguous() for name, values in tensors.items()}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


LLAMA_OF_OTHERS = {
    "model.layers": "transformer.blocks", "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2",
}  # fmt: skip


def renamed(tensors):
    def name(key):
        for ours, theirs in LLAMA_OF_OTHERS.items():
            key = key.replace(ours, theirs)
        return key

    return {name(key): values for key, values in tensors.items()}


def fused(tensors):
    """Query, key and value in one, and gate and up."""
    made = {}
    for name, values in tensors.items():
        for whole, first, others in (
            ("qkv_proj", "q_proj", ("k_proj", "v_proj")),
            ("gate_up_proj", "gate_proj", ("up_proj",)),
        ):
            if first in name:
                parts = [values, *(tensors[name.replace(first, other)] for other in others)]
                made[name.replace(first, whole)] = torch.cat(parts)
                break
            if any(other in name for other in others):
                break
        else:
            made[name] = values
    return made


def turned(tensors):
    words = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {k: v.T if k.endswith(words) else v for k, v in tensors.items()}
