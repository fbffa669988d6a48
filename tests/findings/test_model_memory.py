"""Memory in ``count``: sums of headers and caches, sizes that fit, and bad input."""

import json
import shutil

import pytest
from helpers import command
from wording import reader, wording

from sparsity_report.files.package_data import DEMO


def asked(*arguments):
    done = command("count", *arguments)
    return done.returncode, done.stdout, done.stderr


def memory_of(*arguments):
    code, out, err = asked(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)["memory"]


def test_a_gguf_file(smollm2_path):
    memory = memory_of(smollm2_path, "--context", "8192", "--batch", "4", "--fits", "24GB")
    # 30 layers, 3 key-value heads of 64, keys and values, in float16.
    assert memory["keys_values"] == 30 * 2 * 3 * 64 * 8192 * 4 * 2
    assert memory["total"] == memory["weights"] + memory["keys_values"]
    assert (memory["states"], memory["fits"], memory["available"]) == (0, True, 24 * 10**9)
    code, out, _ = asked(smollm2_path, "--context", "8192", "--batch", "4", "--fits", "0.5GiB")
    over = (memory["total"] - 2**29) / 10**6
    assert f"no, at least {over:.0f} MB too much" in out
    assert code == 0


def test_a_directory(tmp_path):
    memory = memory_of(DEMO, "--kv-dtype", "int8")
    assert memory["context"] == 256, "the limit of the model"
    assert memory["keys_values"] == 4 * 2 * 128 * 256
    assert memory_of(DEMO) is None
    beyond = memory_of(DEMO, "--context", "300")
    assert reader("count.beyond_limit").fullmatch(beyond["sentences"][1])
    folder = shutil.copytree(DEMO, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for changed, reason in (
        ({"model_type": "telepathy"}, "cache.unknown_type"),
        ({"num_hidden_layers": 10**15}, "cache.sizes"),
        ({"num_attention_heads": 2**40, "hidden_size": 2**50}, "cache.sizes"),
        ({"hidden_size": 256}, "cache.shapes"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changed), "utf-8")
        memory = memory_of(folder, "--fits", "1GB")
        known = memory["keys_values"], memory["states"], memory["total"], memory["fits"]
        assert known == (None, None, None, None)
        said = reader("count.unknown_cache").fullmatch(memory["sentences"][1])
        assert said["reason"] == wording(reason)
        # The weights alone do not fit, whatever the cache is.
        assert memory_of(folder, "--fits", "1MB")["fits"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        ("--context", "0"),
        ("--context", "-5"),
        ("--context", str(10**15)),
        ("--batch", "0"),
        ("--kv-dtype", "int3"),
        ("--fits", "much"),
    ],
)
def test_bad_arguments(arguments):
    code, out, err = asked(DEMO, *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
