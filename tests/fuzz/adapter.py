"""An adapter of LoRA that goes with a small base; its product, computed here, says what is zero."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import load_file, save

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import NUMBERS, damage_bytes, damage_json, dumped, marked, parsed
from fuzz.safetensors import change_validly, damage_file, damage_header, some_zero
from fuzz.truth import count, differs

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_RANKS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out")


def _bases(folder: Path) -> list[Base]:
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        vocab_size=32, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=16, max_position_embeddings=16, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.OPTForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[parameter.abs() < 0.01] = 0
    model.save_pretrained(folder / "model")
    tensors = {}
    for name, module in model.named_modules():
        if name.endswith(("q_proj", "fc1")):
            outputs, inputs = module.weight.shape
            b = torch.randn(outputs, 2)
            b[::3] = 0
            tensors[f"{_PREFIX}{name}.lora_A.weight"] = torch.randn(2, inputs)
            tensors[f"{_PREFIX}{name}.lora_B.weight"] = b
    told = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "fc1"],
        "bias": "none", "fan_in_fan_out": False, "use_rslora": False, "rank_pattern": {},
        "alpha_pattern": {"fc1": 3}, "base_model_name_or_path": "x/y", "init_lora_weights": True,
        "task_type": "CAUSAL_LM", "lora_dropout": 0.05,
    }  # fmt: skip
    files: Files = {CONFIG: json.dumps(told).encode(), TENSORS: save(tensors)}
    return [Base("opt", files, folder / "model")]


def damage_config(random: Random, files: Files) -> None:
    """Change anything that the configuration says."""
    if (told := parsed(files[CONFIG])) is not None:
        files[CONFIG] = dumped(damage_json(random, told))


def damage_rank(random: Random, files: Files) -> None:
    """Change what ranks and scalings are."""
    told = parsed(files[CONFIG])
    if not isinstance(told, dict):
        return
    key = random.choice(_RANKS)
    number = random.choice((marked(random.choice(NUMBERS)), 0, 1, 2, 3, 2.5, -2, True, None))
    words = ("q_proj", "fc1", r".*\.fc1", "layers.1.fc1", "(", "(a+)+b", "x" * 300, r"\d+", "q|f")
    told[key] = {random.choice(words): number} if "pattern" in key else number
    files[CONFIG] = dumped(told)


def damage_targets(random: Random, files: Files) -> None:
    """Change the modules that the configuration names."""
    told = parsed(files[CONFIG])
    if not isinstance(told, dict):
        return
    names = ("q_proj", "fc1", "model.decoder.layers.1.fc1", "layers.0.fc1", "fc2", "layers")
    patterns = (r".*\.fc1", r".*layers\.1.*", "(", "(a+)+b", "x|q_proj", r".*\.(q_proj|fc1)")
    some = random.sample(names, random.randint(0, 3))
    field = random.choice(("target_modules", "exclude_modules", "modules_to_save"))
    told[field] = random.choice((some, random.choice(patterns), None))
    files[CONFIG] = dumped(told)


def damage_tensors(random: Random, files: Files) -> None:
    """Change the file of the tensors, so that it stays whole or not."""
    change = random.choice((change_validly, damage_header, damage_file))
    change(random, files, TENSORS)


def damage_either(random: Random, files: Files) -> None:
    """Change some bytes of a file, or take it away."""
    name = random.choice((CONFIG, TENSORS))
    files[name] = random.choice((damage_bytes(random, files[name]), b""))


def change_values(random: Random, files: Files) -> None:
    """Make some values of the tensors zero."""
    files[TENSORS] = some_zero(random, files[TENSORS])


def _judge(folder: Path, base: Base) -> str:
    study = sr.compare(sr.dense(sr.load(folder, base=base.truth)))
    rows = study.layers[["module_name", "total", "nonzero"]].itertuples(index=False)
    modules = {row.module_name: (row.total, row.nonzero) for row in rows}
    merged = _merged(folder, load_file(base.truth / "model.safetensors"))
    return differs(modules, {name: count(tensor) for name, tensor in merged.items()})


def _merged(folder: Path, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    told = json.loads((folder / CONFIG).read_bytes())
    held = load_file(folder / TENSORS)
    settings = SimpleNamespace(**_UNSET | told)
    for key, tensor in held.items():
        name = key.removeprefix(_PREFIX)
        module = re.sub(r"(\.lora_[AB]|\.base_layer|)\.[^.]*$", "", name)
        is_inside = "lora_" in name or ".base_layer." in name
        if bool(check_target_module_exists(settings, module)) is not is_inside:
            continue
        if name.endswith(".lora_A.weight"):
            b = held[key.replace("lora_A", "lora_B")]
            rank, alpha = (_number(told, *pair, module) for pair in _PAIRS)
            scaling = alpha / (math.sqrt(rank) if told.get("use_rslora") else rank)
            product = (b.double() @ tensor.double()).float() * scaling
            weight = weights[f"{module}.weight"]
            weights[f"{module}.weight"] = product + weight
        elif "lora_" not in name:
            weights[name.replace(".base_layer.", ".")] = tensor
    return weights


_UNSET = {"target_modules": None, "target_parameters": None}
_PAIRS = (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern"))


def _number(told: Any, field: str, patterns: str, module: str) -> float:
    for pattern, number in (told.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(number)
    return float(told[field])


ADAPTER = Family(
    "adapter", _bases,
    (damage_config, damage_rank, damage_targets, damage_tensors, damage_either, change_values,
     change_values),
    _judge, quick=30,
)  # fmt: skip
