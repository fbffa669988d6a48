"""Models opened to be counted: by headers alone where these decide, by their class elsewhere."""

import json
import re
import subprocess
import sys
from collections import Counter

import gguf
import numpy as np
import packing
import pytest
import torch
import transformers
from helpers import command, described, finish, is_decided, load_by_class, small_llama, write_gguf
from hubs import Hub
from mixtures import mixture
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.findings.model_counts import (
    active_total,
    count_tensors,
    expert_counts,
    model_counts,
)
from sparsity_report.weights.loading import open_to_count
from sparsity_report.weights.sources import http_ranges
from sparsity_report.words.sentences import say

WITHOUT = ("torch", "transformers", "gguf", "pandas", "numba")


def sums(weights):
    """Return parameters and prunable ones by group, tied and active ones, bytes and packings."""
    totals, prunable = Counter(), Counter()
    for module in weights.modules:
        for p in module.parameters:
            totals["tied" if p.tied_to else module.group] += p.total
            prunable[module.group] += p.total * p.prunable
    active = sum(module.active_total for module in weights.modules)
    packings = {p.packing for p in weights.stored}
    return +totals, +prunable, active, packings, sum(p.file_bytes for p in weights.stored)


def check_decided(path):
    weights = open_to_count(path)
    assert is_decided(weights)
    assert weights.notes == ()
    assert described(weights) == described(load_by_class(path))
    return weights


def test_minilm_is_decided(minilm_path):
    weights = check_decided(minilm_path)
    assert weights.files == sr.load(minilm_path).files
    assert (weights.total, active_total(weights)) == (22_713_216, None)


def test_smollm2_is_counted_by_names(smollm2_path, smollm2):
    weights = open_to_count(smollm2_path)
    assert sums(weights) == sums(smollm2)
    assert model_counts(weights, ())["tied"] == {"names": ["output.weight"], "reason": "absent"}


@pytest.mark.parametrize("way", packing.WAYS)
def test_packed_weights(tmp_path, way):
    packing.packed_llama(tmp_path, way, architectures=["LlamaForCausalLM"])
    check_decided(tmp_path / "packed")


@pytest.mark.parametrize("is_tied", [True, False, None])
@pytest.mark.parametrize("is_same", [True, False, None])
def test_head_is_tied_by_its_values_and_the_setting(tmp_path, is_tied, is_same):
    small_llama(tie_word_embeddings=bool(is_tied)).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["tie_word_embeddings"]
    file.write_text(
        json.dumps(config | ({} if is_tied is None else {"tie_word_embeddings": is_tied}))
    )
    tensors = load_file(tmp_path / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    tensors.pop("lm_head.weight", None)
    if is_same is not None:
        tensors["lm_head.weight"] = embedding.clone() if is_same else embedding + 1
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    if is_same is None and not is_tied:
        with pytest.raises(sr.SparsityReportError, match="missing from the checkpoint"):
            sr.load(tmp_path)
        return
    weights = open_to_count(tmp_path)
    assert described(weights) == described(load_by_class(tmp_path))
    # A head that the setting ties and that is stored apart leaves a note of the class.
    assert is_decided(weights) != (is_same if is_tied is None else is_tied and is_same is False)


def added(tensors, config):
    """Yield what a file may hold beside its model, or lack in its configuration."""
    block = {k: v for k, v in tensors.items() if k.startswith("model.layers.1.")}
    yield {"model.layers.0.self_attn.k_scale_buffer": torch.ones(3)}, {}
    yield {"model.norm.running_mean": torch.ones(3)}, {}
    yield {key.replace("layers.1", "layers.2"): value + 1 for key, value in block.items()}, {}
    yield {key.replace("model.layers.1", "mtp.layers.0"): v + 1 for key, v in block.items()}, {}
    yield {key.replace("model.", "vision."): v + 1 for key, v in tensors.items()}, {}
    yield {"v_head.summary.weight": torch.ones(1, 32)}, {}
    for key in ("architectures", "num_hidden_layers", "vocab_size", "hidden_size"):
        yield {}, {key: None}
    yield {}, {"vocab_size": config["vocab_size"] + 1}
    yield {}, {"num_hidden_layers": 10**15}
    yield {}, {"text_config": {"model_type": "llama"}}
    yield {}, {"num_experts_per_tok": 2}
    for classes in (True, 1, [True], [None], "LlamaForCausalLM"):
        yield {}, {"architectures": classes}
    for key in ("intermediate_size", "num_key_value_heads"):
        yield {}, {key: config[key] // 2}
    yield {"model.norm.weight": torch.ones(())}, {}
    # Sizes of which the class has others, alike in both blocks.
    for kind in {re.sub(r"\.\d\.", r"\\.\\d\\.", name) for name in tensors}:
        names = [name for name in tensors if re.fullmatch(kind, name)]
        for axis in range(tensors[names[0]].dim()):
            yield {name: torch.cat([tensors[name]] * 2, axis) for name in names}, {}


def test_stray_tensors_and_absent_keys_leave_a_file_undecided(tmp_path):
    small_llama().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    check_decided(tmp_path)
    for more, changed in added(tensors, config):
        save_file(tensors | more, tmp_path / "model.safetensors", {"format": "pt"})
        settings = {key: value for key, value in (config | changed).items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(settings))
        weights = open_to_count(tmp_path)
        assert not is_decided(weights), (list(more)[:1], changed)


@pytest.mark.parametrize("extra", [0, 1])
def test_fused_matrix_with_an_odd_row_leaves_a_file_undecided(tmp_path, extra):
    small_llama().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in [name for name in tensors if "gate_proj" in name]:
        gate, up = tensors.pop(name), tensors.pop(name.replace("gate", "up"))
        tensors[name.replace("gate", "gate_up")] = torch.cat([gate, up, up[:extra]])
    save_file(tensors, tmp_path / "model.safetensors")
    assert is_decided(open_to_count(tmp_path)) == (not extra)


@pytest.mark.parametrize("fault", ["unknown type", "class refuses"])
def test_no_class_leaves_counts_and_a_reason(tmp_path, fault):
    small_llama().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][0], file = 0, tmp_path / "config.json"
    if fault == "unknown type":
        settings = {"model_type": "mine", "architectures": ["MineForCausalLM"], "vocab_size": 9}
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    else:
        tensors[name] = tensors[name][:-8].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(sr.SparsityReportError) as caught:
        sr.load(tmp_path)
    weights = open_to_count(tmp_path)
    counts = model_counts(weights, (), count_tensors(weights, lambda _: True, ()))
    (note,) = counts["notes"]
    assert note == say("note.undecided", reason=str(caught.value))
    assert note in repr(weights)
    total = sum(each.numel() for each in tensors.values())
    assert (counts["parameters"], counts["zeros"], counts["tensor_bytes"]) == (total, 32, 4 * total)
    assert counts["formats"]["float32"]["parameters"] == total
    unknown = ("groups", "patterns", "experts", "tied")
    assert [counts[key] for key in unknown] == [None] * 4
    checked = sr.check(tmp_path, no_nan=True, params=f"{total}..{total}")
    assert (bool(checked), checked.prunable, checked.zeros) == (True, None, None)
    assert note in checked.notes
    for rule in ({"zeros": ">=0%"}, {"layers": ">=0%"}, {"pattern": "2:4"}, {"runtime": "vllm"}):
        with pytest.raises(sr.SparsityReportError, match="has no known prunable weights: "):
            sr.check(tmp_path, **rule)
    named = sr.load(tmp_path, config=False)
    assert sum(p.total for p in named.prunable) == sum(
        each.numel() for key, each in tensors.items() if "proj" in key
    )


def test_an_untied_head_is_known_by_its_shape(tmp_path):
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    weights = sr.load(tmp_path)
    assert sums(weights)[0]["lm_head"] == 96 * 32 + 2 * 96  # two biases
    prunable = {p.name for p in weights.prunable}
    assert "cls.predictions.decoder.weight" not in prunable
    named = sr.load(tmp_path, config=False)
    assert prunable == {p.name for p in named.prunable}
    rules = {"cls.predictions.decoder": "other_linear"}
    ruled = sr.load(tmp_path, config=False, groups=rules, blacklist=("transform",))
    assert len(ruled.prunable) == len(prunable) + 1


def test_stored_biases_of_a_tied_head_are_one(tmp_path):
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.BertForMaskedLM(config)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    config.architectures = ["BertForMaskedLM"]
    config.save_pretrained(tmp_path)
    counts = model_counts(open_to_count(tmp_path), ())
    assert counts["parameters"] == sum(p.numel() for p in model.parameters())
    names = ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"]
    assert counts["tied"] == {"names": names, "reason": "equal"}


def test_active_parameters_are_those_of_the_class(tmp_path):
    config = transformers.Ernie4_5_MoeConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, moe_num_experts=4, moe_k=1, moe_intermediate_size=24,
        moe_layer_start_index=0,
    )  # fmt: skip
    transformers.Ernie4_5_MoeForCausalLM(config).save_pretrained(tmp_path)
    weights = open_to_count(tmp_path)
    assert active_total(weights) == weights.total - 2 * 3 * 3 * 32 * 24
    active, total = active_total(weights), weights.total
    share = {"active_share": active / total}
    line = say("count.active", active_parameters=active, parameters=total, **share)
    assert line in command("count", tmp_path).stdout


def test_stacks_of_unknown_direction_are_not_pruned(tmp_path):
    apart = {"experts.up": torch.ones(4, 20, 60), "experts.down": torch.ones(4, 60, 20)}
    fused = {
        "experts.gate_up_proj": torch.ones(4, 32, 128), "experts.down_proj": torch.ones(4, 64, 32),
    }  # fmt: skip
    for tensors, is_settled in ((apart, False), (fused, True)):
        save_file(tensors, tmp_path / "model.safetensors")
        for weights in (open_to_count(tmp_path), sr.load(tmp_path)):
            held = {p.name: p.stack for p in weights.prunable}
            assert held.keys() == (tensors.keys() if is_settled else set())
    assert held["experts.down_proj"] == (32, 64, 4, True)


def test_shards_experts_and_the_hub(tmp_path, monkeypatch):
    folder = tmp_path / "mixtral"
    mixture("Mixtral").save_pretrained(folder, max_shard_size="20KB")
    assert len([*folder.glob("*.safetensors")]) > 3
    here = check_decided(folder)
    assert expert_counts(here) == [8]
    assert active_total(here) == here.total - 2 * 6 * 3 * 16 * 24
    http_ranges._block.cache_clear()
    with Hub(monkeypatch, tmp_path / "cache") as hub:
        hub.repositories["someone/mixtral"] = folder
        remote = open_to_count("someone/mixtral")
        assert not any(name.endswith(".safetensors") for name in hub.served)
    assert remote.modules == here.modules
    assert [f.size for f in remote.files] == [f.size for f in here.files]


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
        finish(writer)
    shards = sorted(tmp_path.glob("x-*.gguf"))
    assert len(shards) == 3
    one, many = open_to_count(whole), open_to_count(shards[1])
    assert {*one.modules} == {*many.modules}
    total = 64 * 32 + 4 * 16 * 32 + 32 * 32 + 32
    assert one.total == many.total == total
    assert active_total(one) == active_total(many) == total - 3 * 16 * 32
    sizes = [path.stat().st_size for path in shards]
    assert [file.size for file in many.files] == sizes
    # A block of 32 values takes 18 bytes, a float four; the tied head takes none.
    assert model_counts(many, ())["tensor_bytes"] == (total - 32) * 18 // 32 + 32 * 4
    stack = {"blk.0.ffn_up_exps.weight": (np.ones((4, 16, 32), np.float32), None)}
    write_gguf(whole, stack, "mystery", expert_used_count=5)
    with pytest.raises(sr.SparsityReportError, match="5 of 4 experts"):
        open_to_count(whole)
    shards[2].unlink()
    with pytest.raises(sr.SparsityReportError, match="1 of them are missing"):
        open_to_count(shards[0])


def test_unknown_experts_per_token_leave_the_active_parameters_unknown(tmp_path):
    tensors = {f"layers.0.experts.{n}.w1.weight": torch.ones(4, 4) for n in range(3)}
    save_file(tensors, tmp_path / "model.safetensors")
    weights = open_to_count(tmp_path)
    assert (weights.total, active_total(weights)) == (48, None)
    assert expert_counts(weights) == [3]


def test_headers_are_read_without_heavy_libraries(tmp_path):
    small_llama().save_pretrained(tmp_path / "llama")
    packing.packed_llama(tmp_path, "nvfp4-modelopt", architectures=["LlamaForCausalLM"])
    write_gguf(tmp_path / "x.gguf", {"blk.0.ffn_up.weight": (np.ones((8, 32), np.float32), None)})
    head = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {without}: raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from sparsity_report.weights.loading import load, open_to_count
import sparsity_report as sr
"""
    read = "print(*(each.total for p in sys.argv[1:] for each in (open_to_count(p), load(p))))"
    compared = "print(*(sr.compare(sr.dense(p)).totals.loc[0, 'total'] for p in sys.argv[1:]))"
    files = [tmp_path / "llama", tmp_path / "packed"]
    for without, code, paths, times in (
        (WITHOUT, read, files, 2),
        (WITHOUT, read.replace(", load(p)", ","), [tmp_path / "x.gguf"], 1),
        ({"transformers"}, compared, files, 1),
    ):
        line = [sys.executable, "-c", head.replace("{without}", repr(without)) + code]
        done = subprocess.run(
            [*line, *map(str, paths)], capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        totals = [str(open_to_count(path).total) for path in paths]
        assert done.stdout.split() == [total for total in totals for _ in range(times)]
