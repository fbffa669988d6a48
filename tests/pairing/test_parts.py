"""Removed and added parts have names: attention, MLP, a bias, a shared expert."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import structural
import torch
import transformers
from puzzles import PUZZLE, puzzle
from safetensors.torch import load_file, save_file
from structural import Left, rows_of_heads, shuffled, written

import sparsity_report as sr
from sparsity_report.pairing.removed import KINDS
from sparsity_report.report.tables.checkpoint_tables import removed
from sparsity_report.report.thesis import commands_of
from sparsity_report.study.schema import typed
from sparsity_report.words.display_names import display_name


def gone(pair):
    """Return the removed parts by kind and module: indices, or the number of parameters."""
    rows = pair.removed.groupby(["kind", "module"])
    return {
        key: sorted(some["index"]) if some["index"].notna().all() else some["parameters"].sum()
        for key, some in rows
    }


def test_a_puzzle(bases, tmp_path):
    after = puzzle(bases("llama"), tmp_path / "puzzle", PUZZLE)
    pair = sr.compare_checkpoints(bases("llama"), after)
    assert any("does not know model type" in str(note) for note in pair.notes)
    attention, ffn = 2 * 64 * 64 + 2 * 32 * 64, 3 * 64 * 128
    assert gone(pair) == {
        ("attention", "model.layers.1.self_attn"): attention,
        ("attention", "model.layers.2.self_attn"): attention + 64,  # and its norm
        ("mlp", "model.layers.0.mlp"): ffn + 64,
        ("mlp", "model.layers.3.mlp"): ffn,
        ("channel", "model.layers.1.mlp"): sorted(set(range(128)) - set(PUZZLE[1]["ffn"])),
        ("kv_head", "model.layers.3.self_attn"): [0, 2],
    }
    assert (pair.removed["certainty"] == 1).all()
    layers = pair.matches.set_index("module_name")
    assert layers["changed"].sum() == 0
    added = layers[layers["alignment"] == "added"]
    linear = ["model.layers.1.self_attn.linear_attn", "model.layers.3.mlp.linear_mlp"]
    assert sorted(added.index) == linear
    assert (added["weight_after"] == 64 * 64).all()
    # Replacements of removed parts do not count as weights of the base.
    linears = pair.matches[pair.matches["prunable"]]
    lost = linears["weight_before"].sum() - linears["compared"].sum()
    share = lost / linears["weight_before"].sum()
    assert pair.facts.base_shares == {"prunable": share, "non_embedding": None, "model": None}
    again = sr.read_study(pair.save(tmp_path / "pair.json"))
    assert again.sentences() == pair.sentences()
    assert gone(again) == gone(pair)
    message = pair.sentences()
    assert "the attention of 2 blocks, the MLP of 2 blocks, " in message[0]
    lacks = f"puzzle has modules that {bases('llama').name} lacks"
    assert f"{lacks}: {linear[0]} and {linear[1]}." in message


def test_every_kind_of_removed_part_has_a_name_everywhere(bases):
    pair = sr.compare_checkpoints(bases("llama"), bases("llama"))
    row = {"module": "m", "index": None, "among": 2, "block": None, "certainty": 1.0}
    row |= dict.fromkeys(("weights", "parameters", "bytes", "flops_per_token"), 1)
    rows = [row | {"kind": kind} for kind in KINDS]
    all_gone = replace(pair, removed=typed("removed", pd.DataFrame(rows)))
    table = removed(all_gone, 20)
    assert [line.cells[0].value for line in table.bodies[0].rows] == [
        display_name("kind", k) for k in KINDS
    ]
    assert commands_of(all_gone)


def test_blocks_of_a_puzzle_are_matched_by_their_matrices(bases, tmp_path):
    """Remove a block so that no matrix is in all remaining ones."""
    base, blocks = bases("llama"), [PUZZLE[0], PUZZLE[2], PUZZLE[3]]
    cut = structural.pruned(base, tmp_path / "cut", Left(blocks=[0, 1, 3]))
    pair = sr.compare_checkpoints(base, puzzle(cut, tmp_path / "puzzle", blocks))
    matches = gone(pair)
    assert matches.pop(("block", "model.layers.2")) == [2]
    assert set(matches) == {
        ("mlp", "model.layers.0.mlp"), ("attention", "model.layers.1.self_attn"),
        ("mlp", "model.layers.3.mlp"), ("kv_head", "model.layers.3.self_attn"),
    }  # fmt: skip
    assert (pair.removed["certainty"] == 1).all()


def test_shared_expert_channels_are_a_separate_axis(tmp_path):
    config = transformers.Qwen2MoeConfig(
        hidden_size=64, moe_intermediate_size=32, shared_expert_intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4, num_experts=4,
        vocab_size=96,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Qwen2MoeForCausalLM(config).save_pretrained(tmp_path / "base")
    (tensors, config), left = structural.read(tmp_path / "base"), shuffled(40, 48)
    for name, values in tensors.items():
        if ".shared_expert." in name:
            tensors[name] = values[:, left] if "down_proj" in name else values[left]
    config |= {"shared_expert_intermediate_size": 40}
    pair = sr.compare_checkpoints(tmp_path / "base", written(tmp_path / "after", tensors, config))
    channels = sorted(set(range(48)) - set(left))
    assert gone(pair) == {
        ("channel", f"model.layers.{block}.mlp.shared_expert"): channels for block in (0, 1)
    }
    assert pair.removed["weights"].tolist() == [3 * 64] * 16
    assert pair.matches["changed"].sum() == 0


def test_cross_attention_heads_are_a_separate_axis(tmp_path):
    config = transformers.BartConfig(
        d_model=64, encoder_layers=1, decoder_layers=2, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=96,
        max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BartForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "base")
    (tensors, config), rows = structural.read(tmp_path / "base"), rows_of_heads([0, 2, 3, 6, 7])
    for name, values in tensors.items():
        if "encoder_attn." in name:
            if "out_proj" not in name:
                tensors[name] = values[rows]
            elif name.endswith("weight"):
                tensors[name] = values[:, rows]
    pair = sr.compare_checkpoints(tmp_path / "base", written(tmp_path / "after", tensors, config))
    assert gone(pair) == {
        ("head", f"model.decoder.layers.{block}.encoder_attn"): [1, 4, 5] for block in (0, 1)
    }
    assert pair.matches["changed"].sum() == 0


def test_added_and_removed_parameters_are_listed(bases, tmp_path):
    tensors = load_file(bases("llama") / "model.safetensors") | {"score.weight": torch.randn(3, 64)}
    before = written(tmp_path / "before", tensors)
    q = "model.layers.1.self_attn.q_proj"
    more = {f"{q}.bias": torch.randn(64), "value_head.weight": torch.randn(1, 64)}
    after = written(tmp_path / "after", tensors | more | {"score.weight": torch.randn(2, 64)})
    for pair, came, went in (
        (sr.compare_checkpoints(before, after), ["score", "value_head"], ["score"]),
        (sr.compare_checkpoints(after, before), ["score"], [f"{q}.bias", "score", "value_head"]),
    ):
        layers = pair.matches
        added = layers[layers["alignment"] == "added"]
        assert added["module_name"].tolist() == came
        assert (added["weight_after"] > 0).all()
        assert pair.removed["module"].tolist() == went
        (row,) = layers[layers["module_name"] == q].to_dict("records")
        assert (row["alignment"], row["compared"], row["untouched"]) == ("name", 64 * 64, False)
        sizes = pair.totals["total"].tolist()
        new = {"score": 128, "value_head": 64} if len(came) == 2 else {"score": 192}
        bias = 64 if len(came) == 2 else 0
        assert sizes[1] - sizes[0] == sum(new.values()) + bias - pair.removed["parameters"].sum()


def test_a_head_that_only_the_model_after_has_is_listed_though_it_is_tied(bases, tmp_path):
    tensors, config = structural.read(bases("llama"))
    del tensors["lm_head.weight"]
    body = {key.removeprefix("model."): values for key, values in tensors.items()}
    headless = written(tmp_path / "body", body, config | {"architectures": ["LlamaModel"]})
    tied = written(tmp_path / "tied", tensors, config | {"tie_word_embeddings": True})
    pair = sr.compare_checkpoints(headless, tied)
    rows = pair.matches.set_index("module_name")
    assert rows.loc["lm_head", "alignment"] == "added"
    assert rows.loc["lm_head", "weight_after"] == 0
    assert rows["untouched"].sum() == len(rows) - 1


def lora(folder, base, inputs=64):
    """Write an adapter of rank 2 for one matrix that names its base."""
    folder.mkdir()
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    matrices = {f"{key}A.weight": torch.randn(2, inputs), f"{key}B.weight": torch.randn(64, 2)}
    save_file(matrices, folder / "adapter_model.safetensors")
    options = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    options["target_modules"] = ["layers.0.self_attn.q_proj"]
    options["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(options))
    return folder


@pytest.mark.parametrize(
    ("named", "agrees"),
    [
        ("org/Tiny-Llama", True), ("/elsewhere/tiny-llama/", True), ("org/first", True),
        ("C:\\models\\tiny-llama", True), ("", True), (None, True),
        ("org/other", False), ("tiny", False), ("</script>\n\x1b[31m", False),
    ],
)  # fmt: skip
def test_an_adapter_that_names_another_base(bases, tmp_path, named, agrees):
    """Two models of one size have equal shapes, so that another base is only noted."""
    tensors, config = structural.read(bases("llama"))
    base = written(tmp_path / "tiny-llama", tensors, config | {"_name_or_path": "org/first"})
    merged = sr.load(lora(tmp_path / "adapter", named), base=base)
    pair = sr.compare_checkpoints(base, merged)
    notes = [note for note in map(str, pair.notes) if note.startswith("the adapter names ")]
    assert len(notes) == (not agrees)
    sentences = [text for text in pair.sentences() if text.startswith("The adapter names ")]
    assert len(sentences) == len(notes)
    assert all("applied to tiny-llama: the shapes agree" in note for note in notes)
    assert not any("\n" in note or "\x1b" in note for note in notes)


def test_an_adapter_of_another_base(bases, tmp_path):
    adapter = lora(tmp_path / "adapter", None, inputs=48)
    said = r"q_proj.weight. of shape \(64, 48\), but in .* its shape is .*, so it belongs to an"
    with pytest.raises(sr.SparsityReportError, match=said):
        sr.compare_checkpoints(bases("llama"), sr.load(adapter, base=bases("llama")))


def test_a_partly_removed_fused_matrix_is_not_matched(bases, tmp_path):
    """Every weight of both models is in one row or removed, for any comparison."""
    tensors = load_file(bases("llama") / "model.safetensors")
    fused = dict(tensors)
    qkv = [f"model.layers.1.self_attn.{name}_proj.weight" for name in "qkv"]
    fused["model.layers.1.self_attn.qkv_proj.weight"] = torch.cat([fused.pop(n) for n in qkv])
    del tensors[qkv[2]]
    base, after = written(tmp_path / "base", fused), written(tmp_path / "after", tensors)
    pair = sr.compare_checkpoints(base, after)
    sums = pair.totals["total"].tolist()
    for side, values in (("before", fused), ("after", tensors)):
        total = sum(each.numel() for each in values.values())
        assert pair.matches[f"weight_{side}"].sum() == total
        assert sums.pop(0) == total
    assert (
        pair.removed["weights"].sum()
        == (pair.matches["weight_before"] - pair.matches["compared"]).sum()
    )
    assert gone(pair) == {("layer", "model.layers.1.self_attn.qkv_proj"): (64 + 32 + 32) * 64}


@pytest.mark.parametrize("back", [False, True])
def test_experts_stored_the_other_way_are_all_compared(bases, tmp_path, back):
    tensors = sr.load(bases("mixtral")).module().state_dict()
    other = {n: v.mT.contiguous() if ".experts." in n else v for n, v in tensors.items()}
    models = [bases("mixtral"), written(tmp_path / "other", other)]
    pair = sr.compare_checkpoints(*models[:: -1 if back else 1])
    assert pair.matches["untouched"].all()
    assert "turned" in set(pair.matches["alignment"])
    rows = pair.matches[pair.matches["module_name"].str.contains("experts")]
    experts = sum(v.numel() for n, v in tensors.items() if ".experts." in n)
    assert rows["weight_before"].sum() == rows["compared"].sum() == experts


def test_experts_removed_from_a_tensor_of_all_are_counted(bases, tmp_path):
    """The base holds all experts in one tensor, and the model after each in one of its own."""
    left = Left(experts=[7, 0, 1, 3, 4, 6], config={"num_local_experts": 6})
    after = structural.pruned(bases("mixtral"), tmp_path / "after", left)
    bare = written(tmp_path / "bare", load_file(after / "model.safetensors"))
    layers = (pair := sr.compare_checkpoints(bases("mixtral"), bare)).matches
    assert set(pair.removed["kind"]) == {"expert"}
    assert (layers["weight_before"] - layers["compared"]).sum() == pair.removed["weights"].sum()


def test_filters_of_a_narrower_convolution_are_compared_one_by_one(tmp_path):
    """A filter over removed inputs has no match, but all of its weights count."""
    shapes = {
        "embed_tokens": (96, 64), "conv1": (64, 16, 3), "conv2": (64, 64, 3), "conv3": (64, 8, 8),
        "layers.0.mlp.up_proj": (32, 64), "layers.0.mlp.down_proj": (64, 32),
    }  # fmt: skip
    tensors = {f"model.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    left = torch.arange(64)[torch.arange(64) % 3 > 0]

    def cut(values):
        for axis, size in enumerate(values.shape):
            values = values.index_select(axis, left) if size == 64 else values
        return values

    narrow = {name: cut(values) for name, values in tensors.items()}
    sides = written(tmp_path / "before", tensors), written(tmp_path / "after", narrow)
    rows = sr.compare_checkpoints(*sides).matches.query("weight_before > 0")
    rows, columns = rows.set_index("module_name"), ["weight_before", "compared", "changed"]
    assert rows.loc["model.conv1", columns].tolist() == [64 * 16 * 3, len(left) * 16 * 3, 0]
    assert rows.loc["model.conv2", columns].tolist() == [64 * 64 * 3, 0, 0]
    assert rows.loc["model.conv3", columns].tolist() == [64 * 64, len(left) * 64, 0]
