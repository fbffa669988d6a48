"""Models without some experts, against models that transformers builds with the others."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scoring import log_probabilities
from smaller_mixtures import IDS, PACKED, REMOVED, ROUTED, by_hand, keep, logits, packed, saved
from wording import of_key

import sparsity_report as sr
from sparsity_report.counting.kept_experts import KeptExperts, routed_stacks
from sparsity_report.counting.pruning import Basis
from sparsity_report.weights.tensor_slices import JoinedRuns, LocalFile
from sparsity_report.words.sentences import say

pytestmark = pytest.mark.filterwarnings("ignore")


def sizes(config):
    """Parameters of one expert with its row of the router, and of the expert alone."""
    d = config.hidden_size
    f = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    if config.model_type == "gpt_oss":
        return 3 * d * f + 2 * f + d + d + 1, 3 * d * f + 2 * f + d
    if config.model_type == "ernie4_5_moe":  # whose router has a bias
        return 3 * d * f + d + 1, 3 * d * f
    return 3 * d * f + d, 3 * d * f


# The plain shapes of all six are written and opened in tests/report/test_written_experts.py.
SHAPES = [
    ("Mixtral", {"shard": 9_000}), ("GptOss", {"shard": 9_000}), ("Qwen3Moe", {}),
    ("DeepseekV3", {"first_k_dense_replace": 1, "num_hidden_layers": 3, "n_shared_experts": 2}),
    ("Qwen2Moe", {"mlp_only_layers": [1], "num_hidden_layers": 3}),
    ("Ernie4_5_Moe",
     {"moe_num_experts": 8, "moe_k": 2, "moe_layer_start_index": 0, "moe_num_shared_experts": 1,
      "moe_intermediate_size": 12, "use_bias": False}),
    ("Olmoe", {"tie_word_embeddings": True, "dtype": torch.bfloat16}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changed"), SHAPES)
def test_a_model_is_the_one_built_with_the_other_experts(kind, changed, tmp_path):
    model = saved(tmp_path, kind, **changed)
    assert ("shard" in changed) == (len([*tmp_path.glob("*.safetensors")]) > 1)
    weights = sr.load(tmp_path)
    kept = keep(weights)
    variant = sr.without_experts(kept)
    expected, smaller = by_hand(model, kept.kept, kind), variant.module()
    assert smaller.dtype == model.dtype
    assert torch.equal(logits(smaller), logits(expected))
    assert not torch.equal(logits(smaller), logits(model))
    values = expected.state_dict()
    for parameter in variant.weights.stored:
        assert torch.equal(variant.weights.tensor(parameter.name), values[parameter.name])

    stacks, (row, expert) = len(kept.kept), sizes(model.config)
    study = sr.compare(sr.dense(weights), variant, context=16)
    before, after = (study.totals.loc[number] for number in (0, 1))
    removed = stacks * 2 * row
    assert after["total"] == before["total"] - removed
    assert before["active_total"] == before["total"] - stacks * 6 * expert
    assert after["active_total"] == after["total"] - stacks * 4 * expert
    # Two experts work on a token before and after; a router has two rows less.
    assert (
        after["flops_per_token"]
        == before["flops_per_token"] - stacks * 2 * 2 * model.config.hidden_size
    )
    for column in ("stored_bytes", "file_bytes"):
        assert after[column] == before[column] - model.dtype.itemsize * removed
    assert after["attention_flops_per_token"] == before["attention_flops_per_token"]


def test_counts_of_mixtral_are_products(tmp_path):
    """Embedding and head, attention of two key-value heads, six experts, norms."""
    v, d, f, b = 64, 16, 24, 2
    saved(tmp_path, "Mixtral")
    variant = sr.without_experts(keep(sr.load(tmp_path)))
    row = sr.compare(variant).totals.loc[0]
    attention, expert = 4 * d * d, 3 * d * f
    assert row["total"] == 2 * v * d + b * (attention + 6 * expert + 6 * d + 2 * d) + d
    assert row["flops_per_token"] == 2 * (v * d + b * (attention + 2 * expert + 6 * d))
    assert row["stored_bytes"] == 4 * row["total"]


def test_tensors_may_be_fused_on_disk(tmp_path):
    """Names in memory, as some programs write them, and tensors of all experts."""
    model = saved(tmp_path, "Qwen3Moe")
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    kept = keep(sr.load(tmp_path))
    smaller = sr.without_experts(kept)
    assert torch.equal(logits(smaller.module()), logits(by_hand(model, kept.kept, "Qwen3Moe")))
    assert smaller.weights.raw["model.layers.0.mlp.experts.down_proj"].shape[0] == 6


@pytest.mark.parametrize("way", PACKED)
def test_packed_experts_stay_packed(way, tmp_path):
    kind, pack = PACKED[way]
    means = packed(tmp_path, kind, pack)
    weights = sr.load(tmp_path)
    kept = keep(weights)
    variant = sr.without_experts(kept)
    assert torch.equal(logits(variant.module()), logits(by_hand(means, kept.kept, kind)))
    held = {key: entry.read() for key, entry in variant.weights.raw.items()}
    whole = {key: entry.read() for key, entry in weights.raw.items()}
    # The first block lost 0 and 4, so its third expert was the fourth.
    third = {key for key in held if ".layers.0." in key and ".experts.2." in key}
    for key in third:
        assert np.array_equal(held[key], whole[key.replace(".experts.2.", ".experts.3.")])
    assert len(third) == {"fp8": 9, "int4": 12, "mxfp4": 0}[way]
    sizes = [sum(values.nbytes for values in each.values()) for each in (held, whole)]
    routers = [key for key in whole if key.endswith(ROUTED)]
    stacked = [key for key in whole if ".experts." in key] + routers
    assert sizes[1] - sizes[0] == sum(whole[key].nbytes for key in stacked) // 4
    assert (
        variant.weights.settings["quantization_config"]
        == json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    )


def test_a_smaller_model_is_pruned_and_scored_like_a_saved_one(tmp_path):
    model = saved(tmp_path / "whole", "Olmoe")
    weights = sr.load(tmp_path / "whole")
    kept = keep(weights)
    expected = by_hand(model, kept.kept, "Olmoe")
    expected.save_pretrained(tmp_path / "smaller")
    alone, variant = sr.load(tmp_path / "smaller"), sr.without_experts(kept)
    prunings = [sr.global_magnitude(each, 0.5) for each in (alone, variant.weights)]
    assert prunings[0].pruned == prunings[1].pruned
    assert torch.equal(*(logits(sr.masked(each).module()) for each in prunings))
    text = IDS[0].repeat(4)
    scores = sr.perplexity([sr.dense(weights), variant], text, window=16, stride=16)
    rows, targets = log_probabilities(expected, text, 16, 16)
    losses = -rows[range(len(targets)), targets]
    assert scores["perplexity"][1] == pytest.approx(np.exp(losses.mean()), rel=1e-6)
    assert scores["variant"].tolist() == ["Dense", "Experts6of8"]


def test_notes_and_rows_name_the_choice(tmp_path):
    saved(tmp_path, "Mixtral")
    basis = Basis("a text", "0123456789abcdef", 3, 16)
    kept = keep(sr.load(tmp_path), method="reap", basis=basis)
    variant = sr.without_experts(kept)
    assert (variant.name, variant.kept) == ("REAP6of8", kept)
    assert sr.without_experts(kept, name="mine").name == "mine"
    study = sr.compare(sr.dense(kept.weights), variant)
    (note,) = of_key(study.notes, "note.experts_removed")
    assert note == say(
        "note.experts_removed", variants=["REAP6of8"], removed=4, count=16, modules=2,
        model=kept.weights.name, methods=["reap"],
    )  # fmt: skip
    assert len(of_key(study.notes, "note.calibrated")) == 1
    assert study.variants["basis"].tolist()[1] == "a text"
    # It is a model opened as it is, not a pruning of the first.
    assert study.variants["method"].isna().all()
    assert study.variants["fingerprint"].nunique() == 2
    assert study.variants["model"].nunique() == 2


def test_all_names_of_a_setting_change(tmp_path):
    """num_experts is Mixtral's other name of the setting; another one has the same number."""
    saved(tmp_path, "Mixtral")
    path = tmp_path / "config.json"
    settings = {**json.loads(path.read_text()), "num_experts": 8, "my_experts": 8}
    path.write_text(json.dumps(settings))
    changed = sr.without_experts(keep(sr.load(tmp_path))).weights.settings
    assert changed == {**settings, "num_experts": 6, "num_local_experts": 6}


def test_another_setting_of_the_same_number_stays(tmp_path):
    """Eight shared experts are one, of eight times the width."""
    saved(tmp_path, "DeepseekV3", n_shared_experts=8)
    path = tmp_path / "config.json"
    settings = {"n_shared_experts": 8, **json.loads(path.read_text())}
    path.write_text(json.dumps(settings))
    changed = sr.without_experts(keep(sr.load(tmp_path))).weights.settings
    assert changed == {**settings, "n_routed_experts": 6}


@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.experts.4.gate_proj", r"re:.*experts\.3\.gate_proj"]
)
def test_settings_that_name_single_experts_are_refused(name, tmp_path):
    packed(tmp_path, *PACKED["int4"])
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    settings["quantization_config"]["ignore"] = ["lm_head", r"re:.*experts\.\d+\.no"]
    path.write_text(json.dumps(settings))
    assert sr.without_experts(keep(sr.load(tmp_path))).weights.settings["num_local_experts"] == 6
    settings["quantization_config"]["ignore"].append(name)
    path.write_text(json.dumps(settings))
    with pytest.raises(sr.SparsityReportError, match=r"names the expert .* in its settings"):
        sr.without_experts(keep(sr.load(tmp_path)))


def test_experts_that_transformers_does_not_load_are_left_out(tmp_path):
    """DeepSeek's layer 61 predicts a second token and has experts of its own."""
    saved(tmp_path, "DeepseekV3")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    extra = {
        key.replace("layers.1.", "layers.61."): t
        for key, t in tensors.items()
        if "layers.1." in key
    }
    extra["model.layers.61.eh_proj.weight"] = torch.ones(16, 32)
    save_file(tensors | {key: t.clone() for key, t in extra.items()}, file)
    weights = sr.load(tmp_path)
    assert extra.keys() <= weights.raw.keys()
    smaller = sr.without_experts(keep(weights)).weights
    assert smaller.raw.keys() & extra.keys() == set()
    (note,) = of_key(smaller.notes, "note.experts_unread")
    assert note == say("note.experts_unread", count=len(extra), first=min(extra))


def test_unequal_numbers_of_experts_are_refused(tmp_path):
    saved(tmp_path, "Mixtral")
    with pytest.raises(sr.SparsityReportError, match="unequal numbers of experts"):
        sr.without_experts(keep(sr.load(tmp_path), [(0,), (1, 2)]))


def test_a_number_that_does_not_run_is_refused(tmp_path):
    """Seven experts are not two groups of a router, although it takes both."""
    saved(tmp_path, "DeepseekV3", topk_group=2)
    with pytest.raises(sr.SparsityReportError, match=r"cannot run with 7 of 8 experts .*; keep"):
        sr.without_experts(keep(sr.load(tmp_path), [(0,), (1,)]))
    assert sr.without_experts(keep(sr.load(tmp_path), [(0, 1), (0, 5)])).name == "Experts6of8"


def test_a_router_of_several_modules_keeps_the_same_experts(tmp_path):
    saved(tmp_path, "GptOss")
    weights = sr.load(tmp_path)
    first, second = (layer.mlp.router for layer in weights.require_runnable().model.layers)
    second.weight = first.weight
    with pytest.raises(sr.SparsityReportError, match=r"has one .* which would keep different"):
        sr.without_experts(keep(weights))
    assert sr.without_experts(keep(weights, [REMOVED[0]] * 2)).name == "Experts6of8"


def test_other_sources_are_refused(tmp_path):
    model = saved(tmp_path, "Mixtral")
    smaller = sr.without_experts(keep(sr.load(tmp_path))).weights
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    pickled = sr.load(tmp_path / "pytorch_model.bin", allow_pickle=True)
    for weights in (sr.load(model), pickled):
        with pytest.raises(sr.SparsityReportError, match=r"no safetensors checkpoint.* expand"):
            sr.without_experts(keep(weights))
    with pytest.raises(sr.SparsityReportError, match="or lacks some already"):
        sr.without_experts(KeptExperts(smaller, dict.fromkeys(routed_stacks(smaller), (0, 1, 2))))
    with pytest.raises(sr.SparsityReportError, match=r"needs kept experts such as .*, not dict"):
        sr.without_experts({})


def test_a_number_that_is_in_no_setting_is_refused(tmp_path):
    """The class's default is 8, too."""
    saved(tmp_path, "Mixtral")
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    del settings["num_local_experts"]
    path.write_text(json.dumps(settings))
    with pytest.raises(sr.SparsityReportError, match="no setting of its config"):
        sr.without_experts(keep(sr.load(tmp_path)))


def test_a_file_that_changed_is_refused(tmp_path):
    saved(tmp_path, "GptOss")
    weights = sr.without_experts(keep(sr.load(tmp_path))).weights
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(sr.SparsityReportError, match="changed after it was opened"):
        weights.tensor("model.layers.0.mlp.experts.down_proj")


def test_joined_runs_read_like_a_file_of_these_bytes(tmp_path):
    content = bytes(range(200))
    (tmp_path / "x").write_bytes(content)
    whole = LocalFile.look_up(tmp_path / "x")
    runs = ((150, 20), (3, 1), (40, 60))
    file = JoinedRuns(whole.path, whole.size, whole.modified_ns, runs)
    joined = b"".join(content[start : start + size] for start, size in runs)
    assert pickle.loads(pickle.dumps(file)) == file
    for start in range(len(joined)):
        for stop in range(start, len(joined) + 1):
            assert (
                b"".join(content[a : a + n] for a, n in file.spans(start, stop))
                == joined[start:stop]
            )
    for start in range(0, len(joined), 7):
        for size in (0, 1, 19, 22, len(joined) - start):
            size = min(size, len(joined) - start)
            assert file.read(start, size).tobytes() == joined[start : start + size]
    assert repr(file) != repr(JoinedRuns(whole.path, whole.size, whole.modified_ns, runs[:2]))
