"""Headers alone against opened models: parameters, groups, packing and bytes must be equal."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import packing
import pytest
import torch
import transformers
from helpers import small_llama, write_gguf
from hub_layouts import LAYOUTS
from hubs import Hub
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.weights.outline import read_outline
from sparsity_report.weights.sources import http_ranges

# Groups that follow from the class of a module, and not from its name.
BY_CLASS = {
    "openai/clip-vit-large-patch14": {
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.pre_layrnorm.weight",
        "vision_model.pre_layrnorm.bias",
    },
}
WITHOUT = ("torch", "transformers", "gguf", "pandas", "altair", "numba")


def by_group(weights, without=()):
    sums = Counter()
    for module in weights.modules:
        for p in module.parameters:
            if p.tied_to is None and p.name not in without:
                sums[module.group] += p.total
    return +sums


def outline_groups(outline, without=()):
    sums = Counter()
    for each in outline.stored:
        if each.parameter.name not in without:
            sums[each.module.group] += each.parameter.total
    return +sums


def check_like(outline, weights, without=()):
    assert outline_groups(outline, without) == by_group(weights, without)
    held = {each.packing for each in weights.stored} - {""}
    assert {each.parameter.packing for each in outline.stored} - {""} == held
    assert sum(each.stored_bytes for each in outline.stored) == sum(
        each.file_bytes for each in weights.stored
    )


def test_the_demo():
    outline, weights = read_outline(DEMO), sr.load()
    check_like(outline, weights)
    assert outline.file_bytes == sum(f.stat().st_size for f in Path(DEMO).glob("*.safetensors"))


def test_minilm(minilm, minilm_path):
    outline = read_outline(minilm_path)
    check_like(outline, minilm)
    assert (outline.total, outline.active_total) == (22_713_216, None)


def test_smollm2(smollm2, smollm2_path):
    outline = read_outline(smollm2_path)
    check_like(outline, smollm2)
    tied = [each for each in outline.tensors if each.parameter.tied_to]
    assert [(each.parameter.name, each.stored_bytes, outline.tie) for each in tied] == [
        ("output.weight", 0, "absent")
    ]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_the_hub(tmp_path, name):
    layout = LAYOUTS[name]
    (tmp_path / "config.json").write_text(json.dumps(layout.config))
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for key, shape in layout.shapes().items():
        is_index = key.endswith("position_ids")
        values = torch.zeros(shape) if is_index else torch.randn(shape, generator=generator)
        tensors[key] = values.long() if is_index else values
    tied = [key for key, each in tensors.items() if each.dim() == 2 and each.shape[0] == 64]
    embedding = (
        next(key for key in tied if "emb" in key or key in {"wte.weight", "shared.weight"})
        if tied
        else ""
    )
    if layout.config.get("tie_word_embeddings") is not False:
        tensors |= {key: tensors[embedding].clone() for key in tied}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    outline, weights = read_outline(tmp_path), sr.load(tmp_path)
    without = BY_CLASS.get(name, set()) | {
        key for key in tensors for module in layout.left_out if key.startswith(f"{module}.")
    }
    assert outline_groups(outline, without) == by_group(weights, without)
    if outline.stacks:
        active = sum(p.total * p.uses for p in weights.stored)
        assert outline.active_total == active


@pytest.mark.parametrize("way", [*packing.WAYS, "marlin"])
def test_packed_weights(tmp_path, way):
    packing.packed_llama(tmp_path, way)
    check_like(read_outline(tmp_path / "packed"), sr.load(tmp_path / "packed"))


def test_a_stored_head_is_tied_by_its_values(tmp_path):
    for tie, same, total in ((True, True, 2048), (True, False, 4096), (False, True, 4096)):
        folder = tmp_path / f"{tie}{same}"
        small_llama(tie_word_embeddings=tie).save_pretrained(folder)
        tensors = load_file(folder / "model.safetensors")
        embedding = tensors["model.embed_tokens.weight"]
        tensors["lm_head.weight"] = embedding.clone() if same else embedding + 1
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        outline, weights = read_outline(folder), sr.load(folder)
        assert outline.total == sum(p.total for p in weights.stored)
        groups = outline_groups(outline)
        assert groups["embedding"] + groups["lm_head"] == total


def test_an_untied_head_is_known_by_its_shape(tmp_path):
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    outline, weights = read_outline(tmp_path), sr.load(tmp_path)
    check_like(outline, weights)
    assert outline_groups(outline)["lm_head"] == 96 * 32 + 2 * 96  # two biases
    prunable = {each.parameter.name for each in outline.stored if each.matrix}
    assert "cls.predictions.decoder.weight" not in prunable
    assert prunable == {p.name for p in weights.prunable}
    named = sr.load(tmp_path, config=False)
    assert prunable == {p.name for p in named.prunable}
    ruled = sr.load(tmp_path, config=False, groups={"cls.predictions.decoder": "other_linear"})
    assert len(ruled.prunable) == len(prunable) + 1


def test_stacks_of_unknown_direction_are_checked_and_not_pruned(tmp_path):
    apart = {"experts.up": torch.ones(4, 20, 60), "experts.down": torch.ones(4, 60, 20)}
    fused = {
        "experts.gate_up_proj": torch.ones(4, 32, 128),
        "experts.down_proj": torch.ones(4, 64, 32),
    }
    for tensors, is_settled in ((apart, False), (fused, True)):
        save_file(tensors, tmp_path / "model.safetensors")
        held = {each.parameter.name: each for each in read_outline(tmp_path).stored if each.matrix}
        assert held.keys() == tensors.keys()
        assert {each.is_settled for each in held.values()} == {is_settled}
        named = {p.name for p in sr.load(tmp_path).prunable}
        assert named == (tensors.keys() if is_settled else set())
    assert held["experts.down_proj"].matrix == (32, 64, 4, True)


def test_shards_experts_and_the_hub(tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    folder = tmp_path / "mixtral"
    transformers.MixtralForCausalLM(config).save_pretrained(folder, max_shard_size="20KB")
    assert len([*folder.glob("*.safetensors")]) > 3
    outline, weights = read_outline(folder), sr.load(folder)
    check_like(outline, weights)
    assert {*outline.stacks.values()} == {4}
    assert outline.active_total == sum(p.total * p.uses for p in weights.stored)
    http_ranges._block.cache_clear()
    with Hub(monkeypatch, tmp_path / "cache") as hub:
        hub.repositories["someone/mixtral"] = folder
        remote = read_outline("someone/mixtral")
        assert not any(name.endswith(".safetensors") for name in hub.served)
    rows = [
        [(each.module, each.parameter, each.stored_bytes) for each in o.tensors]
        for o in (outline, remote)
    ]
    assert rows[0] == rows[1]
    assert (remote.total, remote.file_bytes) == (outline.total, outline.file_bytes)


def test_split_gguf_and_its_experts(tmp_path):
    whole = tmp_path / "x.gguf"
    shapes = {"token_embd.weight": (64, 32), "blk.0.ffn_up_exps.weight": (4, 16, 32)}
    shapes |= {"blk.0.attn_q.weight": (32, 32), "blk.0.attn_norm.weight": (32,), "rope_freqs": (9,)}
    facts = {"expert_count": 4, "expert_used_count": 1, "size_label": "7B"}
    for split in ({}, {"split_max_tensors": 2}):
        writer = gguf.GGUFWriter(whole, "mystery", **split)
        for key, value in facts.items():
            getattr(writer, f"add_{key}")(value)
        for name, shape in shapes.items():
            data = np.ones(shape, np.float32)
            kind = gguf.GGMLQuantizationType.Q4_0 if data.ndim > 1 else None
            writer.add_tensor(name, gguf.quantize(data, kind) if kind else data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    shards = sorted(tmp_path.glob("x-*.gguf"))
    assert len(shards) == 3
    one, many = read_outline(whole), read_outline(shards[1])
    rows = [
        {each.parameter: (each.module.group, each.stored_bytes) for each in o.tensors}
        for o in (one, many)
    ]
    assert rows[0] == rows[1]
    total = 64 * 32 + 4 * 16 * 32 + 32 * 32 + 32
    assert one.total == many.total == total
    assert one.active_total == many.active_total == total - 3 * 16 * 32
    assert many.file_bytes == sum(path.stat().st_size for path in shards)
    # A block of 32 values takes 18 bytes, a float four; the tied head takes none.
    assert sum(each.stored_bytes for each in many.tensors) == (total - 32) * 18 // 32 + 32 * 4
    shards[2].unlink()
    with pytest.raises(sr.SparsityReportError, match="1 of them are missing"):
        read_outline(shards[0])


def test_unknown_experts_per_token_leave_the_active_parameters_unknown(tmp_path):
    tensors = {f"layers.0.experts.{n}.w1.weight": torch.ones(4, 4) for n in range(3)}
    save_file(tensors, tmp_path / "model.safetensors")
    outline = read_outline(tmp_path)
    assert (outline.total, outline.active_total) == (48, None)
    assert outline.stacks == {"layers.0.experts": 3}


def test_headers_are_read_without_heavy_libraries(tmp_path):
    small_llama().save_pretrained(tmp_path / "llama")
    packing.packed_llama(tmp_path, "nvfp4-modelopt")
    write_gguf(tmp_path / "x.gguf", {"blk.0.ffn_up.weight": (np.ones((8, 32), np.float32), None)})
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WITHOUT}: raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from sparsity_report.weights.outline import read_outline
print(*(read_outline(path).total for path in sys.argv[1:]))
"""
    paths = [tmp_path / "llama", tmp_path / "packed", tmp_path / "x.gguf"]
    line = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == [str(read_outline(path).total) for path in paths]


def test_pickles_have_no_header(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(sr.SparsityReportError, match="pickles have no header"):
        read_outline(tmp_path)
