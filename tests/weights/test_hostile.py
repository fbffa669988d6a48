"""What files may announce: beyond a stated limit is one line, at once, and within it is no harm."""

import json
import os
import pickle
import socket
import sys
from pathlib import Path

import pytest
import torch
import transformers
from helpers import refused, set_config, small_llama
from safetensors.torch import save_file
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from wording import of_key

import sparsity_report as sr
from sparsity_report.untrusted import limits
from sparsity_report.weights.anatomy import parameter_uses
from sparsity_report.weights.anatomy.meta_model import building, check_config

# Some in the normal run, each of them on request.
STEP = 1 if os.environ.get("EVERY_CONFIG") else 20


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    small_llama().save_pretrained(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def folder(saved, tmp_path):
    for name, content in saved.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def save_model(folder, config, kind="CausalLM"):
    getattr(transformers, f"AutoModelFor{kind}").from_config(config).save_pretrained(folder)
    return folder


def test_numbers_in_names(tmp_path):
    file = tmp_path / "x.safetensors"
    numbers = {"layers.7.mlp": 7, f"layers.{'9' * 20}.mlp": None, "layers.4294967296.mlp": None}
    save_file({f"{name}.weight": torch.ones(2, 2) for name in numbers}, file)
    weights = sr.load(file)
    assert {module.name: module.block for module in weights.modules} == numbers
    study = sr.compare(sr.dense(weights))
    assert study.layers["block"].dropna().tolist() == [7]
    assert study.facts.grid("Dense").blocks == ["outside", "7"]
    save_file({f"layers.{'9' * 5000}.weight": torch.ones(2)}, file)
    refused("a name of 5,014 characters is longer than the limit of 4,096; rename it", file)
    save_file({f"layers.{'9' * 50}.weight": torch.ones(2)}, file)
    refused("a name with a number of more than 40 digits", file)


@pytest.mark.parametrize(
    ("told", "said"),
    [({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
     ({"num_hidden_layers": -2}, "num_hidden_layers is -2"),
     ({"num_hidden_layers": limits.BLOCKS, "intermediate_size": 7}, "far more than the files"),
     ({"num_attention_heads": 10**9}, "num_attention_heads is"),
     ({"num_attention_heads": 0}, "config.json: .*zero"),
     ({"num_attention_heads": -4}, "num_attention_heads is -4"),
     ({"hidden_size": 2**40}, "hidden_size is"), ({"hidden_size": -32}, "hidden_size is -32"),
     ({"vocab_size": -1}, "vocab_size is -1"),
     ({"max_position_embeddings": 2**40}, "max_position_embeddings is"),
     ({"rope_parameters": {"original_max_position_embeddings": 2**80}}, "original_max"),
     ({"eos_token_id": 2**63}, "eos_token_id is"),
     ({"id2label": [[[]]], "num_labels": 10**9}, "num_labels is")],
)  # fmt: skip
def test_sizes_are_checked_before_anything_is_built(folder, told, said):
    refused(said, set_config(folder, **told))


def test_numbers_of_models_inside_of_models_are_checked(tmp_path):
    inner = {"model_type": "llama", "num_hidden_layers": 10**9}
    save_file({"x.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    for told in (
        {"model_type": "llava", "text_config": inner},
        {"model_type": "llava", "vision_config": {"num_hidden_layers": 10**9}},
        {"model_type": "encoder-decoder", "encoder": inner, "decoder": inner},
        {"model_type": "swin", "depths": [2, 2, 10**9, 2]},
        {"model_type": "swin", "depths": [2] * 20_000},
        {"model_type": "swin", "depths": [4096] * 1000},
        {"model_type": "mixtral", "num_local_experts": 10**9},
        {"model_type": "gpt2", "n_layer": 10**9},
    ):
        (tmp_path / "config.json").write_text(json.dumps(told))
        refused("which no known model has", tmp_path)


@pytest.mark.parametrize("text", ['{"a":' * 2000 + "1" + "}" * 2000, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_is_too_deep_or_too_long(folder, text):
    for name in ("config.json", "model.safetensors.index.json"):
        before = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_text(text)
        refused(f"{name}(: cannot be read as JSON| is not a safetensors index)", folder)
        (folder / name).write_bytes(before) if before else (folder / name).unlink()


def test_configs_of_known_models_are_within_limits():
    for kind in [*CONFIG_MAPPING][::STEP]:
        try:
            told = json.loads(CONFIG_MAPPING[kind]().to_json_string(use_diff=False))
        except Exception:  # some cannot be made of nothing
            continue
        check_config(told, Path(kind))


def test_special_values_of_configurations_are_no_sizes(folder, tmp_path):
    weights = sr.load(
        set_config(
            folder, pad_token_id=-1, sep_token_id=-100, cls_token_id=None, eos_token_id=[-1, 5],
            seed=2**40, num_parameters=7**20, sliding_window=-1, rope_theta=10**10,
        )
    )  # fmt: skip
    assert weights.attention_widths == {None: 2 * 2 * 32}
    config = transformers.Mamba2Config(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_heads=4, head_dim=8, state_size=8,
        n_groups=1,
    )  # fmt: skip
    assert config.time_step_limit[1] == float("inf")
    transformers.Mamba2ForCausalLM(config).save_pretrained(tmp_path / "mamba")
    assert "Infinity" in (tmp_path / "mamba" / "config.json").read_text()
    assert sr.load(tmp_path / "mamba").architecture == "Mamba2ForCausalLM"


def test_building_stops_where_a_model_gets_more_than_it_may():
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match="more than 10 parameters"),
        building(10),
    ):
        nn.Sequential(*[nn.Linear(1, 1) for _ in range(10**6)])
    with pytest.raises(ValueError, match="more than 10 modules"), building(10):
        nn.ModuleList([nn.Identity() for _ in range(11)])
    with building(2):
        nn.Linear(1, 1)


def test_load_compare_and_explore_finish_under_a_debugger(folder):
    def trace(*_):
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        weights = sr.load(folder)
        explorer = sr.explore(sr.compare(sr.dense(weights)))
    finally:
        sys.settrace(before)
    assert explorer is not None
    assert not of_key(weights.notes, "note.uses_by_rule")


def test_a_layer_that_is_gone_through_too_often_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(parameter_uses, "_PER_PARAMETER", 50)  # less than a second
    config = transformers.AlbertConfig(
        vocab_size=32, embedding_size=8, hidden_size=16, intermediate_size=16,
        num_attention_heads=2, max_position_embeddings=16, num_hidden_layers=2,
    )  # fmt: skip
    save_model(tmp_path, config, "MaskedLM")
    before = sr.load(tmp_path)
    assert not of_key(before.notes, "note.uses_by_rule")
    weights = sr.load(set_config(tmp_path, num_hidden_layers=4000))
    (note,) = of_key(weights.notes, "note.uses_by_rule")
    assert "far more operations than models" in note
    monkeypatch.setattr(parameter_uses, "_MOST", 3)
    (note,) = of_key(sr.load(set_config(tmp_path, num_hidden_layers=2)).notes, "note.uses_by_rule")
    assert "far more operations than models" in note


def test_a_token_goes_to_no_more_experts_than_there_are(tmp_path):
    config = transformers.MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    save_model(tmp_path, config)
    refused("sends a token to 9 of 4 experts", set_config(tmp_path, num_experts_per_tok=9))
    refused("num_experts_per_tok is -1", set_config(tmp_path, num_experts_per_tok=-1))


def test_a_window_that_is_none_is_the_whole_text(folder):
    set_config(
        folder, model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=-7
    )
    refused("sliding_window is -7", folder)
    study = sr.compare(sr.dense(sr.load(set_config(folder, sliding_window=-1))), context=5)
    assert study.totals.loc[0, "attention_flops_per_token"] == 2 * 5 * (2 * 2 * 32)


def put(path, kind):
    """Put something in the place of a file that is none, or that nobody can read."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(path))
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path.name, "gone": "gone"}[kind])


KINDS = ("pipe", "folder", "socket", "device", "loop", "gone")


@pytest.mark.parametrize("kind", KINDS)
def test_special_files_are_refused_at_once(folder, kind, monkeypatch):
    monkeypatch.chdir(folder)  # names of sockets are short
    put(Path("config.json"), kind)
    refused(r"config\.json is not a transformers config", folder)
    (folder / "x").mkdir()
    monkeypatch.chdir("x")
    put(Path("model.safetensors"), kind)
    refused("model.safetensors|holds no weights|neither", ".")
    refused("neither a regular file|no such file|holds no weights", "model.safetensors")
    Path("model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x.weight": "model.safetensors"}})
    )
    refused("not a regular file|is missing|leads out of its folder", ".")


def test_names_that_no_file_has(folder):
    refused("x… cannot be read: File name too long", "x" * 5000)
    refused("no such file", "a\0b")
    refused("no such file", "\ud800")
    index = folder / "model.safetensors.index.json"
    for name in ("x" * 300 + ".safetensors", "nul\0.safetensors"):
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        refused("names a shard outside its folder", folder)
    index.write_text('{"weight_map": {"x": "\\ud800.safetensors"}}')
    refused("text that is not Unicode", folder)
    index.write_text('{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}')
    refused("has a name twice", folder)


def test_pickles_that_are_not_torchs(tmp_path):
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(pickle.dumps({"x": 1}))
    refused("older than PyTorch 1.6", file, allow_pickle=True)
    torch.save({"x": Path()}, file)
    refused(
        r"more than tensors, such as a whole model.*save model.state_dict\(\)", file,
        allow_pickle=True,
    )  # fmt: skip
    torch.save({7: torch.ones(2, 2)}, file)
    refused("does not hold a plain state dict", file, allow_pickle=True)
    torch.save({"9" * 50: torch.ones(2, 2)}, file)
    refused("more than 40 digits", file, allow_pickle=True)
    torch.save({"x.weight": torch.ones(2, 2)}, file)
    file.write_bytes(file.read_bytes()[:-40])
    refused("older than PyTorch|cannot be read", file, allow_pickle=True)
    put(file, "pipe")
    refused("neither a regular file", file, allow_pickle=True)
    refused("holds no weights", tmp_path, allow_pickle=True)
