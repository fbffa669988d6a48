"""Options with one meaning in every command."""

import json
import re

import pytest
import torch
import typer
from helpers import command, small_llama
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.cli.application import app
from sparsity_report.cli.options import Outputs, RenderOptions
from sparsity_report.files.package_data import DEMO

COMMANDS = typer.main.get_command(app).commands
OPENING = {"--base", "--allow-pickle"}
OPENS = {"run", "count", "pair", "check", "prune", "expand", "explore", "notebook"}
FOLDERS = {"run", "render", "prune", "expand"}
FILES = {"pair", "notebook", "explore"}
JSON = {"count", "check", "pair"}


def options(name):
    """Parameters of a command by the names of their options."""
    return {each: option for option in COMMANDS[name].params for each in option.opts}


def commands_with(*names):
    return {name for name in COMMANDS if set(names) & options(name).keys()}


def test_every_command_that_opens_a_model_has_the_options_to_open_it():
    assert commands_with(*OPENING) == OPENS
    assert all(options(name).keys() >= OPENING for name in OPENS)
    assert OPENS | {"render"} == set(COMMANDS)
    helps = {name: {options(n)[name].help for n in OPENS} for name in OPENING}
    assert {name: len(texts) for name, texts in helps.items()} == dict.fromkeys(OPENING, 1)


def test_the_destination_is_a_folder_or_files_with_one_name():
    assert commands_with("--out") == commands_with("-o") == FOLDERS | FILES
    assert {n for n in FOLDERS if options(n)["-o"].metavar == "FOLDER"} == FOLDERS
    assert {n for n in FILES if options(n)["-o"].metavar == "FILE"} == FILES
    assert {n for n in FILES if options(n)["-o"].multiple} == FILES - {"explore"}


def test_run_has_these_options_and_no_more():
    wanted = (
        "--base --name --as-is --sparsity --policy --calibration --blacklist --keep-experts "
        "--score --perplexity --protocol --curve --text --prompt --latency --seconds --sensitivity "
        "--out -o --write --template-dir --workers --cache --by-names --stream --allow-pickle"
    )
    assert options("run").keys() == {"models", *wanted.split()}
    assert all(not option.secondary_opts for option in options("run").values())


def test_json_is_a_flag_that_prints():
    assert commands_with("--json") == JSON
    assert all(options(name)["--json"].is_flag for name in JSON)


def test_files_to_write_are_chosen_by_name():
    assert commands_with("--write") == {"run", "render"}
    assert Outputs().kinds == ("html", "csv", "study")
    assert RenderOptions().kinds == ("html", "csv")
    assert Outputs(write=["pdf, MD", "html,pdf"]).kinds == ("html", "pdf", "md")
    for text in ("json", "html,", ""):
        with pytest.raises(sr.SparsityReportError, match=r"^--write '\w*' is unknown; use html"):
            _ = Outputs(write=[text]).kinds


def test_settings_of_measurements_that_are_not_made_are_refused():
    for words, message in (
        (["--protocol", "wikitext2-2048"], "--protocol scores nothing; add --perplexity"),
        (["--perplexity", "--protocol", "gpt2"], "--protocol 'gpt2' is unknown; use sliding, "),
        (["--seconds", "9"], "--seconds times nothing; add --latency"),
    ):
        done = command("run", *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr


def test_the_result_as_json_is_that_of_the_file(tmp_path):
    path = tmp_path / "pair.json"
    done = command("pair", DEMO, DEMO, "--json", "-o", path)
    assert done.stderr == ""
    assert json.loads(done.stdout) == json.loads(path.read_text(encoding="utf-8"))
    assert sr.read_study(path).to_json() == json.loads(done.stdout)
    refused = command("pair", DEMO, DEMO, "-o", tmp_path / "x.txt")
    assert refused.returncode == 2
    assert re.search(r"x\.txt has an unknown suffix; use .*\.json$", refused.stderr.strip())


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A base, an adapter whose merge is exact, what they are merged, and the base as a pickle."""
    folder = tmp_path_factory.mktemp("adapted")
    small_llama().save_pretrained(folder / "base")
    tensors = load_file(folder / "base" / "model.safetensors")
    tensors = {key: (t * 64).round() / 64 * (t > 0) for key, t in tensors.items()}
    save_file(tensors, folder / "base" / "model.safetensors", {"format": "pt"})
    torch.manual_seed(0)
    pairs, merged = {}, dict(tensors)
    for key in (key for key in tensors if "q_proj" in key):
        outputs, inputs = tensors[key].shape
        a, b = torch.randint(-1, 2, (2, inputs)) / 8, torch.randint(-1, 2, (outputs, 2)) / 8
        name = f"base_model.model.{key.removesuffix('.weight')}"
        pairs |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        merged[key] = tensors[key] + b @ a
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    config = (folder / "base" / "config.json").read_text()
    for name, values in (("adapter", pairs), ("merged", merged), ("pickle", None)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(config)
        if values is not None:
            file = "adapter_model" if name == "adapter" else "model"
            save_file(values, folder / name / f"{file}.safetensors", {"format": "pt"})
    (folder / "adapter" / "config.json").unlink()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    torch.save(tensors, folder / "pickle" / "pytorch_model.bin")
    return folder


def printed(*line, code=0):
    done = command(*line, "--json")
    assert (done.returncode, done.stderr) == (code, ""), done.stderr
    return json.loads(done.stdout)


def test_check_merges_adapters_and_opens_pickles_on_request(adapted):
    rules = ("--zeros", ">=90%", "--mask-of", adapted / "base")
    merged = printed("check", adapted / "merged", *rules, code=1)
    line = ("check", adapted / "adapter", "--base", adapted / "base", *rules)
    ours = printed(*line, code=1)
    assert (ours["zeros"], ours["prunable"]) == (merged["zeros"], merged["prunable"])
    assert ours["violations"][0]["actual"] == merged["violations"][0]["actual"]
    lost = [
        [each for each in found["violations"] if each["rule"] == "mask-of"]
        for found in (ours, merged)
    ]
    assert lost[0] == lost[1] != []
    base = printed("check", adapted / "base", "--zeros", ">=1%")
    pickled = printed("check", adapted / "pickle", "--allow-pickle", "--zeros", ">=1%")
    assert pickled | {"model": "base"} == base
    assert 0 < base["zeros"] != merged["zeros"]
    refused = command("check", adapted / "pickle", "--zeros", ">=1%")
    assert (refused.returncode, "--allow-pickle" in refused.stderr) == (2, True)


def test_count_merges_adapters_and_opens_pickles_on_request(adapted):
    figures = ("parameters", "zeros", "tensor_bytes", "bits_per_weight")
    merged = printed("count", adapted / "merged", "--zeros")
    ours = printed("count", adapted / "adapter", "--base", adapted / "base", "--zeros")
    assert {key: ours[key] for key in figures} == {key: merged[key] for key in figures}
    assert ours["groups"] == merged["groups"]
    names = ("base/model.safetensors", "adapter/adapter_model.safetensors")
    assert (ours["files"], ours["file_bytes"]) == (
        2,
        sum((adapted / n).stat().st_size for n in names),
    )
    base = printed("count", adapted / "base", "--zeros")
    pickled = printed("count", adapted / "pickle", "--allow-pickle", "--zeros")
    assert {key: pickled[key] for key in figures} == {key: base[key] for key in figures}


def test_check_and_load_accept_open_models(adapted):
    for path in (adapted / "base", None):
        opened = sr.load(path)
        assert sr.load(opened) is opened
        expected = sr.check(path, zeros=">=1%", no_nan=True)
        for value in (opened, opened.module()):
            checked = sr.check(value, zeros=">=1%", no_nan=True)
            assert (checked.zeros, checked.prunable) == (expected.zeros, expected.prunable)
            assert [each.rule for each in checked.violations] == [
                each.rule for each in expected.violations
            ]
    with pytest.raises(sr.SparsityReportError, match=r"is open already; give its path"):
        sr.load(opened, stream=True)
    with pytest.raises(sr.SparsityReportError, match=r"is open already; give its path"):
        sr.check(opened, base=adapted / "base")
    pruned = sr.load(sr.masked(sr.global_magnitude(opened, 0.5)).module())
    assert not sr.check(pruned, mask_of=DEMO).violations
    (lost,) = {each.rule for each in sr.check(opened, zeros=">=50%").violations}
    assert lost == "zeros"


def test_pair_and_explore_and_prune_pass_the_options_on(adapted):
    done = command("pair", adapted / "base", adapted / "adapter", "--base", adapted / "base")
    merged = command("pair", adapted / "base", adapted / "merged")
    assert done.stdout.splitlines()[1:5] == merged.stdout.splitlines()[1:5]
    refused = command("explore", adapted / "adapter", "--base", adapted / "nowhere")
    assert (refused.returncode, "no such file" in refused.stderr) == (2, True)
