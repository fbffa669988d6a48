"""Opening models: every source gives the same numbers, hostile ones give one clear line."""

import json
import pickle
import struct
from pathlib import Path

import experts
import gguf
import numpy as np
import pytest
import torch
import transformers
from helpers import Tiny, command, refused, same_layers, small_llama, study_of, write_gguf
from safetensors.torch import load_file, save_file
from torch import nn

import sparsity_report as sr
from sparsity_report.words.sentences import say


@pytest.fixture
def saved(tmp_path):
    """A transformers directory with one file, and the model it was saved from."""
    model = small_llama(tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


def test_directory_file_shards_and_module_agree(saved):
    folder, model = saved
    module = sr.load(model)
    same_layers(sr.load(folder), module)
    same_layers(sr.load(folder / "model.safetensors"), module)
    model.save_pretrained(folder.parent / "shards", max_shard_size="20KB")
    assert len(list((folder.parent / "shards").glob("*.safetensors"))) > 2
    same_layers(sr.load(folder.parent / "shards"), module)


def test_bfloat16_on_disk_stays_bfloat16(saved):
    folder, model = saved
    model.to(torch.bfloat16).save_pretrained(folder)
    weights = sr.load(folder)
    assert {p.dtype for p in weights.parameters} == {"bfloat16"}
    assert sr.dense(weights).module().dtype == torch.bfloat16
    same_layers(weights, sr.load(model))


def test_a_file_alone_is_counted_by_names_and_shapes(saved, tmp_path):
    folder, model = saved
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((folder / "model.safetensors").read_bytes())
    weights = sr.load(alone)
    assert weights.architecture == ""
    assert "names and shapes alone" in str(weights.notes[0])
    by_name, by_model = study_of(weights), study_of(sr.load(model))
    for metric in ("total", "nonzero", "weight_nonzero"):
        left, right = by_name.pivot(metric), by_model.pivot(metric).drop("lm_head")
        assert left.sort_index().equals(right.sort_index())
    with pytest.raises(sr.SparsityReportError, match="can be counted but not run"):
        sr.dense(weights).module()


def test_bias_length_identifies_the_input_dimension(tmp_path):
    config = transformers.GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    by_name, by_model = sr.load(tmp_path), sr.load(model)
    assert [p.matrix for p in by_name.prunable] == [p.matrix for p in by_model.prunable]
    stored = [
        sr.csr(sr.global_magnitude(weights, 0.5)).layers()["stored_bytes"].sum()
        for weights in (by_name, by_model)
    ]
    assert stored[0] == stored[1]


def test_pickles_only_when_asked_for(saved, tmp_path):
    folder, model = saved
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused("allow_pickle=True", folder)
    refused("allow_pickle=True", folder / "pytorch_model.bin")
    same_layers(sr.load(folder, allow_pickle=True), sr.load(model))
    assert sr.dense(sr.load(folder, allow_pickle=True)).module().num_parameters()

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    refused("cannot be read as a PyTorch state dict", folder, allow_pickle=True)
    assert not (tmp_path / "executed").exists()


def test_missing_models_are_refused(tmp_path):
    refused("no such file or directory", tmp_path / "nowhere")
    refused("no such file or directory", "./nowhere")
    (tmp_path / "empty").mkdir()
    refused("holds no weights", tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    refused("notes.txt: .txt files are not read; give the model as .safe", tmp_path / "notes.txt")
    (tmp_path / "model.onnx").touch()
    refused("model.onnx: .onnx files are not read", tmp_path / "model.onnx")
    refused("nowhere.gguf: no such file", "nowhere.gguf")  # not asked of the Hub


def test_parts_of_a_pipeline_open_and_keep_their_files(tmp_path):
    names = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    part, index = (
        tmp_path / "flux" / "transformer",
        "diffusion_pytorch_model.safetensors.index.json",
    )
    part.mkdir(parents=True)
    values = torch.arange(1.0, 33).reshape(2, 4, 4)
    keys = [f"blocks.{n}.attn.to_q.weight" for n in (0, 1)]
    for name, key, value in zip(names, keys, values, strict=True):
        save_file({key: value}, part / name)
    (part / index).write_text(json.dumps({"weight_map": dict(zip(keys, names, strict=True))}))
    (tmp_path / "flux" / "model_index.json").write_text("{}")
    refused(rf"flux holds no weights itself; open one of its parts: {part}$", tmp_path / "flux")
    pruning = sr.global_magnitude(sr.load(part, config=False), sparsity=0.5)
    written = sr.write_checkpoint(sr.masked(pruning), tmp_path / "pruned")
    assert {*names, index} <= {file.name for file in written.iterdir()}
    assert not load_file(written / names[0])[keys[0]].any()
    assert torch.equal(load_file(written / names[1])[keys[1]], values[1])
    refused("cannot open a int", 3)


def test_missing_extra_and_misshaped_tensors(saved):
    folder, _ = saved
    file = folder / "model.safetensors"
    good = load_file(file)
    key = "model.layers.1.mlp.up_proj.weight"

    save_file({k: v for k, v in good.items() if k != key}, file)
    refused(f"1 tensor.s. are missing from the checkpoint, first '{key}'", folder)
    save_file({**good, "model.layers.1.surprise": torch.ones(3)}, file)
    refused("have no place in LlamaForCausalLM, first 'model.layers.1.surprise'", folder)
    save_file({**good, key: torch.ones(3, 4)}, file)
    refused(rf"{key} has shape \(3, 4\) on disk but \(48, 32\)", folder)
    save_file({**good, key: good[key].T.contiguous()}, file)
    refused("on disk but", folder)


def test_an_index_cannot_lead_outside(saved, tmp_path):
    folder, _ = saved
    secret = tmp_path / "secret.safetensors"
    save_file({"x": torch.ones(1)}, secret)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    for name in ("../secret.safetensors", str(secret), "a/../../secret.safetensors", "..", 3, ""):
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        refused("names a shard outside its folder", folder)
    (folder / "link.safetensors").symlink_to(secret)
    index.write_text(json.dumps({"weight_map": {"x": "link.safetensors"}}))
    refused("link.safetensors is a link that leads out of its folder", folder)
    index.write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    refused("gone.safetensors is missing", folder)
    index.write_text("{not json")
    refused("is not a safetensors index", folder)


def test_a_tied_head_on_disk_too_is_counted_once(saved):
    folder, model = saved
    good = load_file(folder / "model.safetensors")
    head = good["model.embed_tokens.weight"].clone()
    save_file({**good, "lm_head.weight": head}, folder / "model.safetensors")
    same_layers(sr.load(folder), sr.load(model))
    save_file({**good, "lm_head.weight": head[:5]}, folder / "model.safetensors")
    refused(r"lm_head\.weight has shape \(5, 32\) on disk but \(64, 32\)", folder)


def test_a_tensor_in_two_pickles(saved):
    folder, model = saved
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "pytorch_model_old.bin"):
        torch.save(model.state_dict(), folder / name)
    refused("remove one of the files", folder, allow_pickle=True)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_sparse_tensors_with_an_index_beyond_their_shape_are_refused(tmp_path, layout):
    rows, columns = ([0, 3], [0, 4]) if layout == "coo" else ([0, 1, 1, 1, 2], [0, 4])
    make = getattr(torch, f"sparse_{layout}_tensor")
    places = (torch.tensor([rows, columns]),) if layout == "coo" else (rows, columns)
    tensor = make(*places, torch.ones(2), (4, 4), check_invariants=False)
    torch.save({"fc.weight": tensor}, tmp_path / "model.bin")
    refused("cannot be read as a PyTorch state dict", tmp_path / "model.bin", allow_pickle=True)


def test_a_config_of_a_dtype_that_no_model_has(saved):
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "int8"}))
    refused("no model can be built from this config.*floating point", folder)


def test_an_index_and_its_shards_hold_the_same(saved):
    folder, model = saved
    good = load_file(folder / "model.safetensors")
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    key = "model.layers.1.mlp.up_proj.weight"
    shard = told["weight_map"][key]
    same_layers(sr.load(folder), sr.load(model))

    def says(weight_map):
        index.write_text(json.dumps({"weight_map": weight_map}))

    says({**told["weight_map"], "more.weight": shard})
    refused(rf"{shard} lacks 1 tensor.* places in it, first 'more.weight'", folder)
    says({name: file for name, file in told["weight_map"].items() if name != key})
    refused(rf"{shard} holds tensor '{key}', but the index does not name it", folder)
    says({**told["weight_map"], key: "model.safetensors"})
    save_file({key: good[key]}, folder / "model.safetensors")
    refused(rf"{shard} holds tensor '{key}', but .* model.safetensors; download both", folder)
    (folder / "model.safetensors").unlink()
    for broken in ("[]", '{"weight_map": 3}', "[" * 100_000):
        index.write_text(broken)
        refused("is not a safetensors index", folder)
    says({})
    refused("names no tensor", folder)


def test_configs_that_cannot_be_built(saved):
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text("{")
    refused("cannot be read as JSON", folder)
    (folder / "config.json").write_text(json.dumps({"hello": 1}))
    refused("does not know model type None; take groups from tensor names", folder)
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": -5}))
    refused(r"hidden_size is -5 in config\.json but 32 in the tensors", folder)
    unknown = {"model_type": "never-heard-of", "architectures": None}
    (folder / "config.json").write_text(json.dumps(config | unknown))
    refused("does not know model type 'never-heard-of'; .* config=False", folder)
    run = command("run", folder, "--by-names", "--write", "study", "--out", folder / "out")
    assert run.returncode == 0, run.stderr
    page = command("explore", folder, "--by-names", "--out", folder / "page.html")
    assert page.returncode == 0, page.stderr
    expected = sr.compare(sr.dense(sr.load(folder, config=False))).layers
    read = sr.read_study(folder / "out" / "study.json").layers
    columns = ["module_name", "group", "total", "nonzero", "prunable"]
    assert read.loc[read["variant"] == "Dense", columns].equals(expected[columns])


def test_mixture_opened_by_names_says_that_all_experts_count(tmp_path):
    experts.mixture().module().save_pretrained(tmp_path)
    by_names, by_class = sr.load(tmp_path, config=False), sr.load(tmp_path)
    assert say("note.experts_per_token") in by_names.notes
    assert say("note.experts_per_token") not in by_class.notes
    flops = [sr.compare(sr.dense(w)).totals["flops_per_token"][0] for w in (by_names, by_class)]
    assert flops[0] > flops[1]


def test_strange_names_are_only_names(tmp_path):
    names = [
        "a b.weight", "ünï.weight", "🙂.weight", "x" * 4000 + ".weight", "</script>.weight", "=",
    ]  # fmt: skip
    file = tmp_path / "x.safetensors"
    save_file({name: torch.ones(2, 2) for name in names}, file)
    assert {p.name for p in sr.load(file).parameters} == set(names)


def test_gguf_by_names_alone(tmp_path):
    rng = np.random.default_rng(0)
    q = rng.normal(size=(32, 64)).astype(np.float32)
    tensors = {
        "token_embd.weight": (rng.normal(size=(10, 64)).astype(np.float32), None),
        "blk.0.attn_q.weight": (q, gguf.GGMLQuantizationType.Q8_0),
        "blk.0.ffn_up.weight": (rng.normal(size=(96, 64)).astype(np.float16), None),
        "blk.0.attn_norm.weight": (np.ones(64, dtype=np.float32), None),
    }
    write_gguf(tmp_path / "x.gguf", tensors, architecture="mystery")
    weights = sr.load(tmp_path / "x.gguf")
    assert weights["blk.0.attn_q.weight"].shape == (32, 64)
    assert weights["blk.0.ffn_up.weight"].dtype == "float16"
    assert [m.group for m in weights.modules] == [
        "embedding", "attention_linear", "mlp_linear", "norm", "lm_head",
    ]  # fmt: skip
    # llama.cpp multiplies by the embedding where there is no output.weight, and so says a note.
    assert weights["output.weight"].tied_to == "token_embd.weight"
    assert weights.notes[-1] == say("note.tied_output_head")
    # Q8_0: a block of 32 shares one float16 scale, its largest magnitude over 127.
    scale = np.abs(q).reshape(-1, 32).max(axis=1, keepdims=True) / 127
    expected = np.round(q.reshape(-1, 32) / scale) * scale.astype(np.float16)
    found = weights.tensor("blk.0.attn_q.weight").numpy()
    assert np.allclose(found, expected.reshape(32, 64), rtol=1e-2, atol=1e-3)
    assert study_of(weights).totals.loc[1, "pruned"] == round(0.3 * (32 * 64 + 96 * 64))


def test_gguf_of_an_encoder_has_no_output_head(tmp_path):
    tensors = {"token_embd.weight": (np.ones((10, 64), dtype=np.float32), None)}
    write_gguf(tmp_path / "x.gguf", tensors, architecture="mystery", causal_attention=False)
    assert [m.group for m in sr.load(tmp_path / "x.gguf").modules] == ["embedding"]


def test_gguf_rows_are_whole_blocks(tmp_path):
    path = tmp_path / "x.gguf"
    blocks = np.zeros((3, 18), np.uint8), gguf.GGMLQuantizationType.Q4_0
    write_gguf(path, {"output.weight": blocks}, "mystery")
    assert sr.load(path)["output.weight"].shape == (3, 32)
    # The same 96 values as two rows of one block and a half.
    shape = struct.pack("<2Q", 32, 3)
    path.write_bytes(path.read_bytes().replace(shape, struct.pack("<2Q", 48, 2)))
    refused("rows of tensor 'output.weight' are not whole blocks", path)


def test_hub_ids_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refused("is not in the local Hub cache.*hf download", "facebook/opt-125m")


def test_a_model_called_model_has_the_name_of_its_folder(saved, tmp_path, monkeypatch):
    folder, _ = saved
    above = tmp_path.name
    assert sr.load(folder).name == f"{above}/model"
    assert sr.load(folder / "model.safetensors").name == "model/model.safetensors"
    assert sr.load(folder, name="mine").name == "mine"
    monkeypatch.chdir(folder)
    assert sr.load(".").name == f"{above}/model"
    monkeypatch.chdir(tmp_path)
    folder.rename("tiny-llama")
    assert sr.load("./tiny-llama").name == "tiny-llama"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on importing inductor
def test_wrappers_are_no_part_of_names():
    tiny = Tiny()
    same_layers(sr.load(nn.DataParallel(tiny), name="x"), sr.load(tiny, name="x"))
    left, right = sr.load(torch.compile(tiny)), sr.load(tiny)
    assert [p.name for p in left.parameters] == [p.name for p in right.parameters]


def test_lazy_parameters_are_refused():
    refused("is lazy and has no shape yet", nn.LazyLinear(3))
