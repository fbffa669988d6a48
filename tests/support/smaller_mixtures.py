"""Mixtures without some experts, built with transformers from what is left of each tensor."""

import json

import packing
import torch
import transformers
from mixtures import MIXTURES, mixture
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.counting.kept_experts import KeptExperts, routed_stacks

IDS = torch.arange(24)[None] * 5 % 61
# Removed experts, another pair in each block, one of each half, which are DeepSeek's groups.
REMOVED = [(0, 4), (2, 7), (3, 5)]
# Name of the setting, of routers in memory, and of their tensors.
NUMBER = {
    "DeepseekV3": "n_routed_experts", "Qwen2Moe": "num_experts", "Olmoe": "num_experts",
    "Ernie4_5_Moe": "moe_num_experts",
}  # fmt: skip
ROUTED = ("gate.weight", "gate.e_score_correction_bias", "router.weight", "router.bias")
# A row of one number for each expert.
COLUMNS = "gate.moe_statics.e_score_correction_bias"


def saved(folder, kind, **changed):
    """Save a tiny mixture, in files of at most `shard` bytes; load it again."""
    shard, dtype = changed.pop("shard", 10**9), changed.pop("dtype", torch.float32)
    mixture(kind, **changed).to(dtype).save_pretrained(folder, max_shard_size=shard)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def keep(weights, removed=REMOVED, **options):
    kept = {
        name: [number for number in range(p.experts) if number not in gone]
        for (name, p), gone in zip(routed_stacks(weights).items(), removed, strict=False)
    }
    return KeptExperts(weights, kept, **options)


def by_hand(model, kept, kind):
    """Build a model of six experts and copy what is left of each tensor, by its name."""
    settings = {**model.config.to_dict(), NUMBER.get(kind, "num_local_experts"): 6}
    smaller = type(model)._from_config(type(model.config)(**settings)).eval()
    values = model.state_dict()
    for name, numbers in kept.items():
        around, rows = name.rpartition(".")[0], list(numbers)
        stacked = [f"{around}.{leaf}" for leaf in ROUTED if f"{around}.{leaf}" in values]
        for each in (*stacked, *(key for key in values if key.startswith(f"{name}."))):
            values[each] = torch.stack([values[each][row] for row in rows])
        if (each := f"{around}.{COLUMNS}") in values:
            values[each] = torch.cat([values[each][:, row : row + 1] for row in rows], dim=1)
    smaller.load_state_dict(values, strict=True)
    return smaller


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def packed(folder, kind, way):
    """Pack each expert of a mixture; return the model of the values that the codes stand for."""
    saved(
        folder, kind, hidden_size=32,
        **{"intermediate_size" if kind in ("Mixtral", "GptOss") else "moe_intermediate_size": 32},
    )  # fmt: skip
    tensors, plain, told = {}, {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        stem = name.removesuffix(".weight")
        if ".experts." in name and tensor.dim() > 1 and "bias" not in name:
            parts, means, told = way(tensor)
            joint = "_" if kind == "GptOss" else "."
            tensors |= {f"{stem}{joint}{leaf}": part.contiguous() for leaf, part in parts.items()}
            if joint == ".":
                tensors[f"{stem}.input_scale"] = torch.tensor(float(sum(name.encode())))
            plain[name] = means.contiguous()
        else:
            tensors[name] = plain[name] = tensor
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    means = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    save_file(tensors, folder / "model.safetensors")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    return means


PACKED = {
    "fp8": ("Mixtral", lambda weight: packing.fp8_blocks(weight, 16)),
    "int4": ("Qwen3Moe", packing.pack_quantized), "mxfp4": ("GptOss", packing.gpt_oss),
}  # fmt: skip

# Settings with which transformers and llama.cpp compute the same.
CONVERTED = {
    **{kind: {} for kind in (*MIXTURES, "Mixtral Q4_0", "GptOss MXFP4")},
    "Qwen3Moe": {"norm_topk_prob": True}, "GptOss": {"rope_parameters": {"rope_theta": 10_000}},
    "DeepseekV3":
        {"scoring_func": "sigmoid", "first_k_dense_replace": 1, "num_hidden_layers": 3},
}  # fmt: skip


def to_convert(folder, case):
    """Save a mixture that llama.cpp converts, and the same without some experts beside it."""
    kind, _, way = case.partition(" ")
    if way == "MXFP4":
        packed(folder / "whole", *PACKED["mxfp4"])
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 32, **CONVERTED[case]}
        saved(folder / "whole", kind, step=1 / 8, **sizes)
    variant = sr.without_experts(keep(sr.load(folder / "whole")))
    return sr.write_checkpoint(variant, folder / "smaller")
