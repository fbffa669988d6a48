"""The Hub, served from folders on the loopback: what is fetched, opened and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import command, refused, same_layers, small_llama, study_of, write_gguf
from hubs import Hub
from huggingface_hub.utils import parse_hf_uri
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.weights.loading import open_to_count
from sparsity_report.weights.sources.model_paths import hub_place
from sparsity_report.words.sentences import say

INDEX = "model.safetensors.index.json"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with Hub(monkeypatch, tmp_path / "cache") as served:
        yield served


@pytest.fixture
def model():
    torch.manual_seed(0)
    return small_llama(tie_word_embeddings=True)


@pytest.fixture
def repository(hub, tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    hub.repositories["someone/small"] = folder
    return folder


def gguf_file(path, value=1):
    tensors = {"token_embd.weight": (np.full((10, 64), value, dtype=np.float32), None)}
    write_gguf(path, tensors, architecture="mystery", causal_attention=False)


def write_shards(folder, stem="x", count=2):
    """A model with one tensor in each shard, of ones, twos, …"""
    for number in range(count):
        tensors = {f"blk.{number}.ffn_up.weight": (np.full((4, 32), number + 1.0, "f4"), None)}
        path = folder / f"{stem}-{number + 1:05}-of-{count:05}.gguf"
        counts = [("split.no", number), ("split.count", count)]
        total = ("split.tensors.count", count)
        write_gguf(path, tensors, "mystery", uint16=counts, int32=total)


def test_one_file_is_fetched_and_opened(hub, repository, model):
    model.save_pretrained(repository)
    (repository / "other.bin").write_bytes(b"not wanted")
    weights = sr.load("someone/small")
    assert (weights.name, weights.notes) == ("someone/small", ())
    same_layers(weights, sr.load(model))
    assert "model.safetensors" in hub.served
    assert "other.bin" not in hub.served


def test_the_index_says_what_its_shards_are_called(hub, repository, model):
    model.save_pretrained(repository, max_shard_size="20KB")
    index = json.loads((repository / INDEX).read_text())
    names = {
        old: f"part [{i}].safetensors" for i, old in enumerate(set(index["weight_map"].values()))
    }
    for old, new in names.items():
        (repository / old).rename(repository / new)
    index["weight_map"] = {key: names[old] for key, old in index["weight_map"].items()}
    (repository / INDEX).write_text(json.dumps(index))
    save_file({"x": torch.ones(1)}, repository / "model-00009-of-00009.safetensors")
    weights = sr.load("someone/small")
    same_layers(weights, sr.load(model))
    same_layers(sr.load(sr.dense(weights).module()), weights)
    assert "model-00009-of-00009.safetensors" not in hub.served

    (repository / "part [0].safetensors").unlink()
    hub.repositories["someone/torn"] = repository
    refused(r"part \[0\].safetensors is missing, but the index names it", "someone/torn")
    (repository / INDEX).write_text("{")
    hub.repositories["someone/broken"] = repository
    refused("is not a safetensors index", "someone/broken")


def test_a_whole_file_beside_an_index_of_others(repository, model):
    model.save_pretrained(repository, max_shard_size="20KB")
    save_file({key: value + 1 for key, value in model.state_dict().items()}, repository / "x")
    (repository / "x").rename(repository / "model.safetensors")
    refused("names other files.*name someone/small/model.safetensors", "someone/small")
    refused("names other files", repository)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    same_layers(sr.load("someone/small/model.safetensors", name="x"), sr.load(model, name="x"))


def test_a_single_file_of_another_name_runs_too(repository, model):
    model.save_pretrained(repository)
    (repository / "model.safetensors").rename(repository / "weights.safetensors")
    weights = sr.load("someone/small")
    same_layers(weights, sr.load(model))
    same_layers(sr.load(sr.dense(weights).module()), weights)


def test_files_are_named_where_there_are_several(hub, repository, model):
    model.save_pretrained(repository)
    good = load_file(repository / "model.safetensors")
    (repository / "model.safetensors").unlink()
    save_file(good, repository / "dense.safetensors")
    save_file({key: value * 0 for key, value in good.items()}, repository / "zero.safetensors")
    refused(
        r"2 models.*as in someone/small/dense.safetensors: dense.safetensors, zero", "someone/small"
    )
    weights = sr.load("someone/small/zero.safetensors")
    assert weights.name == "zero.safetensors"
    file = say("note.weights_file", file="zero.safetensors", folder="someone/small")
    assert weights.notes == (file,)
    assert study_of(weights).totals.loc[0, "nonzero"] == 0
    assert "dense.safetensors" not in hub.served
    refused("has no file 'one.safetensors'.*it has dense", "someone/small/one.safetensors")


def test_a_file_beside_the_default_one_runs_with_its_own_values(repository, model):
    model.save_pretrained(repository)
    good = load_file(repository / "model.safetensors")
    halved = {key: value * 0.5 for key, value in good.items()}
    save_file(halved, repository / "half.safetensors")
    for place in (repository / "half.safetensors", "someone/small/half.safetensors"):
        state = sr.dense(sr.load(place)).module().state_dict()
        assert all(torch.equal(state[key], halved[key]) for key in halved)


def test_a_repository_with_gguf_only(hub, repository):
    gguf_file(repository / "x-Q4.gguf")
    weights = sr.load("someone/small")
    assert (weights.source, weights.name) == ("gguf", "someone/small")
    file = say("note.weights_file", file="x-Q4.gguf", folder="someone/small")
    assert weights.notes[0] == file

    gguf_file(repository / "x-Q8.gguf", 0)
    hub.repositories["someone/two"] = repository
    refused(r"2 models.*, as in someone/two/x-Q4.gguf: x-Q4.gguf, x-Q8.gguf", "someone/two")
    chosen = sr.load("someone/two/x-Q8.gguf")
    assert chosen.name == "x-Q8.gguf"
    assert not chosen.tensor("token_embd.weight").any()


def test_shards_of_a_gguf_are_fetched_together(hub, repository):
    folder = repository / "Q8"
    folder.mkdir()
    write_shards(folder)
    refused(
        "no safetensors, GGUF or pytorch_model.bin.*folder of it: someone/small/Q8", "someone/small"
    )
    for place in ("Q8", "Q8/x-00002-of-00002.gguf", "Q8/x-00001-of-00002.gguf"):
        weights = sr.load(f"someone/small/{place}")
        assert [weights.tensor(f"blk.{n}.ffn_up.weight").sum() for n in (0, 1)] == [128, 256]
    assert weights.name == "x.gguf"
    (folder / "x-00001-of-00002.gguf").unlink()
    hub.repositories["someone/torn"] = repository
    refused("has no x-00001-of-00002.gguf, one of 2 shards", "someone/torn/Q8")


def test_a_model_in_a_folder_of_its_repository(hub, repository, model):
    model.save_pretrained(repository / "inner" / "small")
    small_llama(tie_word_embeddings=False).save_pretrained(repository)
    weights = sr.load("someone/small/inner/small")
    same_layers(weights, sr.load(model))
    same_layers(sr.load(repository / "inner" / "small"), weights)
    assert "model.safetensors" not in hub.served
    refused("is not a folder inside", "someone/small/../x")
    refused("no such file", repository / "gone")
    refused("has no safetensors", "someone/small/gone")


@pytest.mark.parametrize(
    "name",
    [
        "a/b", "a/b@main", "a/b@refs/pr/1", "a/b@refs/pr/12/x/y.gguf", "a/b@x%2Fy/z",
        "a/b@refs/convert/parquet-v2/c", "a/b/c@1.gguf", "models/a/b@v1/c.safetensors",
        "a/b@0123abc/c d.bin", "a/b@x@y",
    ],
)  # fmt: skip
def test_names_are_those_of_the_library(name):
    place, known = hub_place(f"hf://{name}"), parse_hf_uri(f"hf://{name}")
    path = "/".join(filter(None, [place.folder, place.file]))
    assert (place.model, place.revision, path) == (known.id, known.revision, known.path_in_repo)
    assert bool(place.file) == Path(path).suffix.startswith((".gguf", ".safe", ".bin"))
    if not name.startswith("models/"):
        assert hub_place(name) == place


def test_texts_that_are_no_names_are_paths():
    for text in ("", "./a/b", "/a/b", "a/b@", "a/b/", "a//b", "hf://", "a/b@x\n", "a b/c", "../a"):
        assert hub_place(text) is None
        refused("no such file or directory; give a path or a Hub id", text or "./nowhere")


def test_a_name_says_revision_folder_and_file(hub, repository, model, tmp_path):
    model.save_pretrained(tmp_path / "changed" / "inner")
    small_llama(tie_word_embeddings=False).save_pretrained(repository)
    hub.conversions["someone/small"] = tmp_path / "changed"
    name = "someone/small@refs/pr/9/inner"
    expected = sr.load(tmp_path / "changed" / "inner")
    for weights in (sr.load(name), sr.load(f"hf://{name}"), sr.load(name, stream=True)):
        assert weights.name == name
        same_layers(weights, expected)
    file = sr.load(f"{name}/model.safetensors")
    assert file.name == sr.load("someone/small/model.safetensors").name
    same_layers(file, sr.load(tmp_path / "changed" / "inner" / "model.safetensors"))
    done = command("count", name, f"{name}/model.safetensors", "--json")
    counts = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["parameters"] for each in counts} == {sum(p.total for p in expected.stored)}
    assert sr.check(name, mask_of="someone/small@refs/pr/9/inner", no_nan=True)
    refused("at revision v9 is neither a local path nor a model", "someone/small@v9")
    refused("has no file 'x.gguf'", "someone/small/x.gguf")
    refused("is not a folder inside", "someone/small/../x")


def test_a_path_that_exists_is_no_name(hub, model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "someone" / "small@v1")
    monkeypatch.chdir(tmp_path)
    same_layers(sr.load("someone/small@v1"), sr.load(model))
    assert hub.served == []


def test_pickles_are_fetched_on_request(hub, repository, model):
    model.config.save_pretrained(repository)
    torch.save(model.state_dict(), repository / "pytorch_model.bin")
    refused("someone/small/pytorch_model.bin: PyTorch pickles are opened only on", "someone/small")
    refused("pickles are opened only on request", "someone/small/pytorch_model.bin")
    assert "pytorch_model.bin" not in hub.served
    refused("neither safetensors nor GGUF on the Hub", "someone/small", stream=True)
    for opened in (sr.load("someone/small", allow_pickle=True),
                   open_to_count("someone/small", allow_pickle=True)):  # fmt: skip
        assert opened.source == "pickle"
        same_layers(opened, sr.load(model))


def test_a_fetched_model_opens_without_the_hub(repository, model, monkeypatch):
    model.save_pretrained(repository, max_shard_size="20KB")
    weights = sr.load("someone/small")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    same_layers(sr.load("someone/small"), weights)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers the old way
def test_an_adapter_and_its_base(hub, repository, model, tmp_path):
    peft = pytest.importorskip("peft")
    hub.repositories["someone/adapter"] = tmp_path / "adapter"
    model.save_pretrained(repository)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, lora)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    other = {key: value + 1 for key, value in tensors.items()}
    save_file(other, tmp_path / "adapter" / "other.safetensors")
    weights = sr.load("someone/adapter", base="someone/small")
    assert weights.name == "someone/adapter"
    same_layers(weights, sr.load(adapted.merge_and_unload(), name="someone/adapter"))
    refused("has no file 'adapter_model.safetensors'", "someone/small", base="someone/small")
    named = sr.load("someone/adapter/other.safetensors", base="someone/small")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(named.tensor(name), weights.tensor(name))
