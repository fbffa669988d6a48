"""A folder of a model: configuration, index and shards, each damaged by what it means.

The format's own library says what the shards hold, and the model that transformers builds from the
same configuration how many multiply-adds a token costs.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from wording import of_key

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import NUMBERS, TEXTS, damage_bytes, damage_json, dumped, marked, parsed
from fuzz.safetensors import by_library, change_validly, damage_file, damage_header, some_zero

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
_SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 4, "vocab_size": 32, "max_position_embeddings": 16}
_GQA = {"num_key_value_heads": 2, "tie_word_embeddings": False}
_MODELS = {
    "llama": lambda: transformers.LlamaConfig(**_SIZES, **_HEADS, **_GQA),
    "mixtral": lambda: transformers.MixtralConfig(
        **_SIZES, **_HEADS, **_GQA, num_local_experts=4, num_experts_per_tok=2
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=32, n_embd=16, n_layer=2, n_head=4, n_positions=16, bos_token_id=0,
        eos_token_id=0,
    ),
    "bert": lambda: transformers.BertConfig(**_SIZES, **_HEADS),
}  # fmt: skip
# Of numbers that a class may know and that a file need not say.
_MORE = (
    "sliding_window", "head_dim", "num_experts_per_tok", "num_labels", "top_k", "pad_token_id",
    "eos_token_id", "layer_types", "chunk_size_feed_forward", "n_inner", "type_vocab_size",
    "rope_theta", "pretraining_tp", "is_encoder_decoder", "is_decoder", "tie_word_embeddings",
    "add_cross_attention", "architectures", "dtype", "torch_dtype", "model_type", "text_config",
    "quantization_config", "hidden_act", "activation_function", "rope_scaling", "rope_parameters",
    "router_jitter_noise", "num_hidden_groups", "attention_dropout", "initializer_range",
)  # fmt: skip
_TYPES = (
    "llama", "mixtral", "gpt2", "bert", "opt", "gpt_neox", "t5", "bart", "albert", "mamba",
    "mamba2", "jamba", "bloom", "falcon", "qwen2_moe", "deepseek_v3", "gpt_oss", "xlnet", "clip",
    "whisper", "distilbert", "xlm", "ctrl", "reformer", "funnel", "switch_transformers", "llava",
    "vit", "roberta", "gemma3", "phi3", "longformer", "big_bird", "fsmt", "prophetnet", "rwkv",
)  # fmt: skip


def _bases(folder: Path) -> list[Base]:
    bases = []
    for name, config in _MODELS.items():
        torch.manual_seed(0)
        kind = "ForMaskedLM" if name == "bert" else "ForCausalLM"
        model = getattr(transformers, f"AutoModel{kind}").from_config(config())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter[parameter.abs() < 0.01] = 0
        model.save_pretrained(folder / name, max_shard_size="6KB")
        files = {file.name: file.read_bytes() for file in sorted((folder / name).iterdir())}
        bases.append(Base(name, files))
    return bases


def _json(files: Files, name: str) -> Any:
    content = files.get(name)
    return parsed(content) if isinstance(content, bytes) else None


def _shards(files: Files) -> list[str]:
    return [name for name in files if name.endswith(".safetensors")]


def damage_config(random: Random, files: Files) -> None:
    """Change anything that the configuration says."""
    if (told := _json(files, CONFIG)) is not None:
        files[CONFIG] = dumped(damage_json(random, told))


def damage_number(random: Random, files: Files) -> None:
    """Set a number of the configuration, one that it need not say, or the kind of model."""
    told = _json(files, CONFIG)
    if not isinstance(told, dict):
        return
    numbers = [key for key, value in told.items() if isinstance(value, int | float)]
    kind = random.randrange(8)
    if kind == 0:
        told["model_type"] = random.choice(_TYPES)
        told.pop("architectures", None)
    elif kind == 1:
        told["model_type"] = random.choice(_TYPES)
    elif kind == 2 or not numbers:
        told[random.choice(_MORE)] = random.choice((marked(random.choice(NUMBERS)), None, "x", []))
    else:
        key = random.choice(numbers)
        near = (told[key] + 1, told[key] - 1, -told[key], 2 * told[key], told[key] // 2)
        told[key] = random.choice((marked(random.choice(NUMBERS)), random.choice(near)))
    files[CONFIG] = dumped(told)


def damage_index(random: Random, files: Files) -> None:
    """Change anything that the index says, or a file that it names."""
    told = _json(files, INDEX)
    if told is None:
        return
    names = (*TEXTS, *_shards(files), f"../{SINGLE}", SINGLE, "x.safetensors", CONFIG)
    if (
        random.random() < 0.5
        and isinstance(told, dict)
        and isinstance(told.get("weight_map"), dict)
    ):
        if places := list(told["weight_map"]):
            told["weight_map"][random.choice(places)] = random.choice(names)
    else:
        told = damage_json(random, told, names)
    files[INDEX] = dumped(told)


def damage_files(random: Random, files: Files) -> None:
    """Rename, remove, copy or swap a file, or put a folder or a link in its place."""
    name, other = random.choice(list(files)), random.choice(list(files))
    kind = random.randrange(7)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[random.choice((SINGLE, INDEX, f"{name}.safetensors", "x" * 300))] = files.pop(name)
    elif kind == 2:
        files[random.choice((SINGLE, "copy.safetensors", other))] = files[name]
    elif kind == 3:
        files[name], files[other] = files[other], files[name]
    elif kind == 4:
        files[name] = None
    elif kind == 5:
        files[name] = random.choice((name, other, "..", "/dev/zero", "/etc/passwd", "gone"))
    elif isinstance(files[name], bytes):
        files[name] = damage_bytes(random, files[name])


def damage_shard(random: Random, files: Files) -> None:
    """Change a shard, so that it stays whole or not."""
    if shards := [name for name in _shards(files) if isinstance(files[name], bytes)]:
        change = random.choice((change_validly, damage_header, damage_file))
        change(random, files, random.choice(shards))


def change_values(random: Random, files: Files) -> None:
    """Put other values into a shard."""
    if shards := [name for name in _shards(files) if isinstance(files[name], bytes)]:
        name = random.choice(shards)
        files[name] = some_zero(random, files[name])


def _judge(folder: Path, base: Base) -> str:
    weights = sr.load(folder)
    study = sr.compare(sr.dense(weights), context=7)
    return (
        _wrong_counts(folder, study)
        or _impossible(study)
        or (_wrong_flops(folder, base, weights, study) if weights.architecture else "")
    )


def _wrong_counts(folder: Path, study: Any) -> str:
    """Compare the sums of each block with those of all tensors on disk."""
    told = parsed((folder / INDEX).read_bytes()) if (folder / INDEX).is_file() else None
    names = set(told["weight_map"].values()) if told else [SINGLE]
    if not told and not (folder / SINGLE).is_file():
        names = [file.name for file in folder.glob("*.safetensors")]
    due: dict[str, list[int]] = {}
    for name in names:
        held = by_library(folder / name)
        if held is None:
            return f"the library refuses {name}"
        _add(due, held)
    found: dict[str, list[int]] = {}
    rows = study.layers[study.layers["tied_to"].isna()]
    for row in rows[["module_name", "total", "nonzero"]].itertuples(index=False):
        _add(found, {f"{row.module_name}.": (row.total, row.nonzero)})
    return "" if found == due else f"counted as {found}, is {due}"


def _add(sums: dict[str, list[int]], counts: dict[str, tuple[int, int]]) -> None:
    for name, (total, nonzero) in counts.items():
        block = next((word for word in name.split(".") if word.isdecimal()), "")
        one = sums.setdefault(block, [0, 0])
        one[0] += total
        one[1] += nonzero


def _impossible(study: Any) -> str:
    """Say what cannot be, whatever the model is."""
    for frame in (study.layers, study.totals):
        flops, useful = frame["flops_per_token"], frame["useful_flops_per_token"]
        if not ((flops >= 0) & (useful >= 0) & (useful <= flops)).all():
            return f"FLOPs of {flops.tolist()}, useful {useful.tolist()}"
    attention = study.totals["attention_flops_per_token"].dropna()
    return "" if (attention >= 0).all() else f"attention FLOPs of {attention.tolist()}"


def _wrong_flops(folder: Path, base: Base, weights: Any, study: Any) -> str:
    """Compare with what torch counts in a run of the model of the same configuration."""
    if of_key(weights.notes, "note.uses_by_rule"):
        return ""
    with contextlib.suppress(Exception):  # of transformers: it runs less than is counted
        config = transformers.AutoConfig.from_pretrained(folder)
        if config.model_type != base.name:
            return ""
        model = getattr(transformers, weights.architecture)._from_config(
            config, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32
        )
        one, two = (_multiplied(model.eval(), length) for length in (3, 6))
        ours = int(study.totals.loc[0, "flops_per_token"])
        return "" if two - one == 3 * ours else f"{ours} FLOPs, {(two - one) / 3:g} by torch"
    return ""


def _multiplied(model: Any, length: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.arange(length)[None] % model.config.vocab_size)
    seen = counter.get_flop_counts()["Global"]
    return sum(n for op, n in seen.items() if str(op) in {"aten.mm", "aten.addmm"})


CHECKPOINT = Family(
    "checkpoint",
    _bases,
    (
        damage_number, damage_number, damage_number, damage_config, damage_config, damage_index,
        damage_files, damage_shard, change_values, change_values,
    ),
    _judge,
    quick=12,
)  # fmt: skip
