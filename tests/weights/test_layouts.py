"""Checkpoints with tensors that their class lacks: transformers' own report says which."""

import json

import pytest
import torch
import transformers
from helpers import refused, swept
from hub_layouts import LAYOUTS
from mixtures import mixture
from safetensors.torch import load_file, save_file
from wording import count_of, of_key, values_of

import sparsity_report as sr
from sparsity_report.words.sentences import some

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip


def saved(folder, model, change=dict):
    """Write a model whose tensors are changed."""
    model.save_pretrained(folder)
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def predicting_deepseek(folder):
    """DeepSeek-V3: a layer beyond the last that predicts the token after the next."""
    model = mixture("DeepseekV3", first_k_dense_replace=1, num_nextn_predict_layers=1)

    def change(tensors):
        last = {key: value for key, value in tensors.items() if ".layers.1." in key}
        layer = {key.replace(".1.", ".2."): value.clone() for key, value in last.items()}
        for leaf in ("embed_tokens", "shared_head.head"):
            layer[f"model.layers.2.{leaf}.weight"] = torch.ones(64, 16)
        for leaf in ("enorm", "hnorm", "shared_head.norm"):
            layer[f"model.layers.2.{leaf}.weight"] = torch.ones(16)
        return tensors | layer | {"model.layers.2.eh_proj.weight": torch.ones(16, 32)}

    saved(folder, model, change)
    return ["model.layers.2"]


def test_tensors_of_a_module_that_the_class_lacks_are_left_out_and_named(tmp_path):
    lacking = predicting_deepseek(tmp_path)
    weights = sr.load(tmp_path)
    (note,) = of_key(weights.notes, "note.left_out")
    assert values_of(note, "note.left_out")["names"] == some(lacking)
    loaded, report = getattr(transformers, weights.architecture).from_pretrained(
        tmp_path, output_loading_info=True
    )
    left_out = {key for key in report["unexpected_keys"] if key.startswith(tuple(lacking))}
    assert left_out == set(report["unexpected_keys"])
    values = dict(loaded.named_parameters())
    assert {p.name for p in weights.stored} == values.keys()
    assert all(torch.equal(weights.tensor(name), value) for name, value in values.items())
    file = load_file(tmp_path / "model.safetensors")
    outside = {k: v for k, v in file.items() if k.startswith(tuple(lacking))}
    assert count_of(note, "note.left_out", "tensors") == len(outside)
    parameters = sum(value.numel() for value in outside.values())
    assert count_of(note, "note.left_out", "parameters") == parameters
    study = sr.compare(sr.dense(weights))
    assert study.totals["total"].tolist() == [sum(p.numel() for p in loaded.parameters())]
    assert any(lacking[0] in str(each) for each in study.notes)


@pytest.mark.parametrize("key", [
    "model.layers.0.self_attn.q_proj.pre_quant_scale", "model.layers.0.self_attn.q_proj.x.weight",
    "model.layers.0.self_attn.k_scale", "model.layers.0.mlp.act_fn.weight", "model.weight", "scale",
])  # fmt: skip
def test_a_tensor_that_may_change_a_weight_is_refused(tmp_path, key):
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))
    saved(tmp_path, model, lambda tensors: tensors | {key: torch.ones(2)})
    refused(f"have no place in .* first '{key}'", tmp_path)


def test_a_misspelled_tensor_is_refused_since_its_parameter_is_missing(tmp_path):
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))
    right, wrong = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.upproj.weight"
    saved(tmp_path, model, lambda tensors: tensors | {wrong: tensors.pop(right)})
    refused(f"'{wrong}', and 1 of its .*'{right}'", tmp_path)


def test_a_head_that_is_stored_apart_although_it_is_tied_is_named(tmp_path):
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SMALL, tie_word_embeddings=True)
    )
    for value, notes in (
        (model.lm_head.weight.detach().clone(), []), (torch.ones(64, 32), ["lm_head.weight"]),
    ):  # fmt: skip
        saved(tmp_path, model, lambda tensors, v=value: tensors | {"lm_head.weight": v})
        weights = sr.load(tmp_path)
        untied = of_key(weights.notes, "note.untied")
        assert [values_of(note, "note.untied")["names"] for note in untied] == notes
        loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(weights.tensor("lm_head.weight"), loaded.lm_head.weight)
        assert sum(p.total for p in weights.stored) == sum(p.numel() for p in loaded.parameters())


def downloaded(folder, name):
    """Write a small model in the layout of one of the Hub, a third of its values zero."""
    layout = LAYOUTS[name]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(layout.config))
    tensors, random = {}, torch.Generator().manual_seed(0)
    for key, shape in layout.shapes().items():
        if key.endswith("position_ids"):
            tensors[key] = torch.arange(shape[1])[None]
        else:
            tensors[key] = torch.randn(shape, generator=random) / 8
            tensors[key][torch.rand(shape, generator=random) < 1 / 3] = 0
    if layout.config.get("tie_word_embeddings") and "lm_head.weight" in tensors:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return layout


@pytest.mark.parametrize("name", swept(LAYOUTS, 3))
def test_the_most_downloaded_models_are_counted_as_transformers_loads_them(tmp_path, name):
    layout = downloaded(tmp_path / "model", name)
    weights = sr.load(tmp_path / "model")
    counted = layout.counted or layout.config["architectures"][0]
    assert weights.architecture == counted
    left_out = of_key(weights.notes, "note.left_out")
    names = [values_of(note, "note.left_out")["names"] for note in left_out]
    assert names == ([some(layout.left_out)] if layout.left_out else [])
    model, report = getattr(transformers, counted).from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert all(key.startswith(layout.left_out) for key in report["unexpected_keys"])
    values = dict(model.named_parameters(remove_duplicate=False))
    assert {p.name for p in weights.parameters} == values.keys()
    for key, value in values.items():
        assert torch.equal(weights.tensor(key), value), key
    unique = list(model.parameters())
    totals = sr.compare(sr.dense(weights)).totals.iloc[0]
    assert totals["total"] == sum(value.numel() for value in unique)
    assert totals["nonzero"] == sum(int(value.count_nonzero()) for value in unique)
