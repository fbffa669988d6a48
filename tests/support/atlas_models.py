"""Tiny checkpoints shaped like published ones, for the list ``docs/atlas/fixtures.yaml``.

``python tests/support/atlas_models.py`` writes the pages ``docs/atlas/fixtures.md`` and
``docs/atlas/public.md`` anew.
"""

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import packing
import smaller_mixtures
import structural
import torch
import transformers
from puzzles import PUZZLE, puzzle
from safetensors.torch import load_file, save_file
from structural import Left, shuffled

import sparsity_report as sr

DOCS = Path(__file__).parents[2] / "docs" / "atlas"
LIST = DOCS / "fixtures.yaml"


def script():
    """Return the atlas script as a module."""
    spec = importlib.util.spec_from_file_location("atlas_script", DOCS / "atlas.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lowest(scores, share):
    """Return a mask of the weights of each row that stay when the lowest scores of it go."""
    order = scores.argsort(dim=1, stable=True)
    mask = torch.ones_like(scores, dtype=torch.bool)
    return mask.scatter_(1, order[:, : round(share * scores.shape[1])], False)


def sparse_gpt(weight, norms):
    """Drop half of each run of 32 columns, over all rows, and correct the weights that stay."""
    runs = []
    for run, each in zip((weight * norms).abs().split(32, 1), weight.split(32, 1), strict=True):
        mask = lowest(run.reshape(1, -1), 0.5).reshape(run.shape)
        runs.append(each * mask * 1.01)
    return torch.cat(runs, 1)


def wanda(weight, norms, share=0.5):
    """Drop a share of each row by magnitude times the norm of the input."""
    return weight * lowest((weight * norms).abs(), share)


def llama(folder):
    """Write a Llama whose values do not depend on the versions of torch and transformers."""
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    model, draws = transformers.LlamaForCausalLM(config), np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(draws.normal(0, 0.02, parameter.shape)))
    model.save_pretrained(folder)
    return folder


def changed(folder, source, change):
    """Write a model with each prunable matrix changed: to tensors by leaf, and to a config."""
    shutil.copytree(source, folder)
    tensors, path = {}, folder / "config.json"
    config, draws = json.loads(path.read_text()), np.random.default_rng(1)
    for name, values in load_file(folder / "model.safetensors").items():
        parts = {"weight": values}
        if "proj" in name:
            norms = torch.from_numpy(draws.uniform(0.5, 1.5, values.shape[1]))
            parts, _, more = change(values, norms)
            config |= more
        owner = name.rpartition(".")[0]
        tensors |= {f"{owner}.{leaf}": part.contiguous() for leaf, part in parts.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    path.write_text(json.dumps(config))


def pruned(folder, source, prune):
    """Write a model with each prunable matrix pruned."""
    changed(folder, source, lambda *given: ({"weight": prune(*given).float()}, None, {}))


def write(folder):
    """Write the list and its checkpoints; return the path of the list."""
    base = llama(folder / "made" / "base")
    for name, way in {
        "int4": "pack-quantized-4-symmetric", "sparse-24": "sparse-24", "fp8": "fp8-blocks",
    }.items():  # fmt: skip
        changed(
            folder / f"packed-{name}", base, lambda weight, _, way=way: packing.WAYS[way](weight)
        )
    pruned(folder / "sparsegpt-50", base, sparse_gpt)
    pruned(folder / "wanda-50", base, wanda)
    pruned(folder / "sparse-llama-2of4", base, lambda weight, _: packing.two_four(weight)[1])
    pruned(folder / "overstated", base, lambda weight, norms: wanda(weight, norms, 0.25))
    smaller_mixtures.saved(folder / "made" / "mixture", "Qwen3Moe")
    mixture = sr.load(folder / "made" / "mixture")
    kept = sr.without_experts(smaller_mixtures.keep(mixture))
    sr.write_checkpoint(kept, folder / "reap-6-of-8")
    wide = structural.base_of("llama", folder / "made" / "llama")
    narrow = {"hidden_size": 48, "intermediate_size": 96}
    left = Left(width=shuffled(48, 64), channels=shuffled(96, 128), config=narrow)
    structural.pruned(wide, folder / "minitron-width", left)
    puzzle(wide, folder / "puzzletron", PUZZLE)
    shutil.copytree(folder / "sparsegpt-50", folder / "damaged")
    file = folder / "damaged" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4096])
    shutil.copy(LIST, folder)
    return folder / LIST.name


def main():
    """Write the pages of the atlas anew."""
    with tempfile.TemporaryDirectory() as work:
        fixtures, public = write(Path(work, "models")), DOCS / "checkpoints.yaml"
        for name, options in {"fixtures": [fixtures], "public": [public, "--claims-only"]}.items():
            script().main([*map(str, options), "--out", str(Path(work, name))])
            shutil.copy(Path(work, name, "atlas.md"), DOCS / f"{name}.md")


if __name__ == "__main__":
    main()
