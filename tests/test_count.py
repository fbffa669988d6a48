"""``count``: figures against opened models, announced sparsity, and bad input."""

import json
import re
import shutil
import struct

import packing
import pytest
from helpers import command, small_llama
from hubs import Hub
from safetensors.torch import load_file, save_file
from wording import key_of, wording

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.weights.sources import http_ranges
from sparsity_report.words.catalogue import catalogue

NAME = "someone/small"
ANNOUNCED = [key for key in catalogue() if key.startswith("check.announced_")]


def counted(*arguments):
    done = command("count", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_figures_are_those_of_the_opened_model():
    (counts,) = counted(DEMO)
    weights = sr.load()
    study = sr.compare(sr.dense(weights))
    groups = study.groups.set_index("group")["total"]
    assert {key: row["parameters"] for key, row in counts["groups"].items()} == {
        key: total for key, total in groups.items() if total
    }
    total = sum(p.total for p in weights.stored)
    stored = sum(p.file_bytes for p in weights.stored)
    assert (counts["parameters"], counts["tensor_bytes"]) == (total, stored)
    assert counts["bits_per_weight"] == 8 * stored / total
    assert counts["file_bytes"] == sum(f.stat().st_size for f in DEMO.glob("*.safetensors"))
    assert (counts["differences"], counts["experts"]) == ([], None)
    assert counts["tied"] == {"names": ["lm_head.weight"], "reason": "absent"}


def test_text_holds_the_numbers_of_the_json_and_fits_a_terminal():
    (counts,) = counted(DEMO)
    text = command("count", DEMO).stdout
    digits = "".join(sign for sign in text if sign.isdigit() or sign == "\n").splitlines()
    for row in (*counts["groups"].values(), counts):
        assert any(str(row["parameters"]) in line for line in digits)
    assert max(map(len, text.splitlines())) <= 80
    assert wording("count.tied.absent", names="lm_head.weight") in text


def two_four(folder):
    model = small_llama()
    for layer in model.model.layers:
        for matrix in (layer.self_attn.q_proj, layer.mlp.down_proj, layer.mlp.up_proj):
            groups = matrix.weight.data.view(-1, 4)
            groups.scatter_(1, groups.abs().argsort(1)[:, :2], 0)
    layer.mlp.up_proj.weight.data[0, :4] = 1  # one group of 384 breaks the pattern
    model.save_pretrained(folder)
    return folder


def gptq(folder):
    return packing.packed_llama(folder, "gptq-3-v1")[0]


def test_announced_sparsity_is_held_to_the_values(tmp_path):
    pruned = sr.masked(sr.n_m(sr.load(), 2, 4)).module()
    pruned.save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    for structure, share, due in (
        ("2:4", 0.5, []), ("1:4", 0.75, ["check.announced_share", "check.announced_pattern"]),
        ("5:16", 0.5, ["check.announced_pattern"]),
    ):  # fmt: skip
        announced = {"sparsity_structure": structure, "global_sparsity": share}
        file.write_text(json.dumps(config | {"sparsity_config": announced}))
        (counts,) = counted(tmp_path / "m", "--zeros")
        assert [key_of(text, ANNOUNCED) for text in counts["differences"]] == due
        (unread,) = counted(tmp_path / "m")
        assert unread["differences"] == []


@pytest.mark.parametrize(("write", "patterns"), [(two_four, {"2:4": 6}), (gptq, {})])
def test_zeros_are_those_of_the_opened_model(tmp_path, write, patterns):
    folder = write(tmp_path)
    (counts,) = counted(folder, "--zeros")
    groups = sr.compare(sr.dense(sr.load(folder))).groups.set_index("group")
    zeros = (groups["total"] - groups["nonzero"])[groups["total"] > 0]
    assert {key: row["zeros"] for key, row in counts["groups"].items()} == zeros.to_dict()
    assert counts["zeros"] == zeros.sum() > 0
    assert counts["patterns"] == {"matrices": 14, "patterns": patterns}
    (unread,) = counted(folder)
    assert (unread["zeros"], unread["patterns"]) == (None, None)
    text = command("count", folder, "--zeros").stdout
    is_packed = write is gptq
    assert (wording("count.packed_zeros") in text) == is_packed
    assert ("6 of 14 prunable matrices are 2:4 along their inputs." in text) == bool(patterns)


def test_bad_models_do_not_hide_the_others(tmp_path):
    done = command("count", tmp_path / "missing", DEMO, tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert done.stdout == command("count", DEMO).stdout


@pytest.fixture
def hub(monkeypatch, tmp_path):
    http_ranges._block.cache_clear()
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(http_ranges, "_TIMEOUT", 0.2)
    with Hub(monkeypatch, tmp_path / "cache") as served:
        small_llama().save_pretrained(tmp_path / "small-7B")
        served.repositories[NAME] = tmp_path / "small-7B"
        yield served


def test_models_of_the_hub(hub, tmp_path):
    (counts,), (here,) = counted(NAME), counted(tmp_path / "small-7B")
    assert counts == here | {"model": NAME}
    assert hub.sent < 200_000
    assert not any(name.endswith(".safetensors") for name in hub.served)


@pytest.mark.parametrize("fault", ["missing", "gated", "busy", "silent", "without weights"])
def test_a_hub_that_fails(hub, fault, tmp_path):
    def wait(*_):
        pass

    name = "someone/other" if fault == "missing" else NAME
    hub.gated |= {NAME} if fault == "gated" else set()
    if fault == "busy":
        hub.faults += [lambda request, *_: request.send_error(429)] * 50
    if fault == "silent":
        hub.faults += [wait] * 50
    if fault == "without weights":
        (tmp_path / "small-7B" / "model.safetensors").unlink()
    done = command("count", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def lying_header(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 2**40) + data[8:])


def half_a_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def only_some_shards(folder):
    small_llama().save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    next(folder.glob("*-of-*")).unlink()


def damaged_config(folder):
    (folder / "config.json").write_text("[")


@pytest.mark.parametrize("harm", [lying_header, half_a_file, only_some_shards, damaged_config])
def test_damaged_files(tmp_path, harm):
    small_llama().save_pretrained(tmp_path)
    harm(tmp_path)
    done = command("count", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_bits_per_weight_leave_out_the_copy_of_a_tied_head(tmp_path):
    """The file stores the table of the embedding twice; the model counts it once."""
    tensors = load_file(DEMO / "model.safetensors")
    table = tensors["model.decoder.embed_tokens.weight"]
    save_file({**tensors, "lm_head.weight": table.clone()}, tmp_path / "model.safetensors")
    shutil.copy(DEMO / "config.json", tmp_path)
    total = sum(tensor.numel() for tensor in tensors.values())
    (counts,) = counted(tmp_path)
    assert counts["tied"]["reason"] == "equal"
    assert counts["tensor_bytes"] == 4 * (total + table.numel())
    assert counts["bits_per_weight"] == 32
    size = f"{4 * total / 1e6:.2f}"
    assert re.search(rf"^all .* {size}\s+MB +32\.00\b", command("count", tmp_path).stdout, re.M)
