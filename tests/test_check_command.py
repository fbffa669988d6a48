"""`sparsity-report check` as CI runs it: exit codes, bad input, without torch, and the action."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import gguf
import numpy as np
import pytest
import yaml
from helpers import command, write_gguf
from hubs import Hub
from safetensors.torch import load_file

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.weights.sources import http_ranges

ROOT = Path(__file__).parent.parent
ACTION = ROOT / ".github" / "actions" / "check" / "action.yml"
WORKFLOW = ROOT / ".github" / "workflows" / "lora-keeps-zeros.yml"
DOCUMENT = (ROOT / "docs" / "how-to" / "check-in-ci.md").read_text(encoding="utf-8")
# All but what the action installs, and the dependencies of those.
HEAVY = (
    "torch", "transformers", "gguf", "pandas", "numba", "typst", "vl_convert", "jinja2",
    "anywidget", "ipywidgets", "scipy", "regex",
)  # fmt: skip


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "pruned"
    pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    sr.masked(pruning).module().save_pretrained(folder)
    return folder


def test_exit_codes_and_lines(pruned):
    fine = command("check", pruned, "--zeros", "==50%", "--no-nan", "--params", "0.9M..1M")
    assert (fine.returncode, fine.stderr) == (0, "")
    zeros = r"393\s216 of 786\s432 prunable weights are zero \(50\.0\s%\)"
    assert re.search(zeros, fine.stdout.splitlines()[0])
    broken = command("check", pruned, "--zeros", ">=60%", "--pattern", "2:4")
    assert (broken.returncode, broken.stderr) == (1, "")
    wanted = [line for line in broken.stdout.splitlines() if ": wanted " in line]
    assert len(wanted) == 1 + 24
    assert wanted[0].startswith("pruned: wanted >=60% zeros, found 50.0")
    named = [line.partition(":")[0] for line in wanted[1:]]
    assert {f"{name}.weight" for name in named} == {p.name for p in sr.load().prunable}


def test_json(pruned):
    run = command("check", pruned, "--zeros", ">=60%", "--json")
    result = json.loads(run.stdout)
    assert run.returncode == 1
    assert (result["ok"], result["zeros"], result["share"]) == (False, 393_216, 0.5)
    (violation,) = result["violations"]
    assert (violation["rule"], violation["wanted"]) == ("zeros", ">=60% zeros")
    assert violation["text"] in command("check", pruned, "--zeros", ">=60%").stdout


def refused(*arguments):
    run = command("check", *arguments)
    assert (run.returncode, run.stdout) == (2, ""), run
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


def test_bad_input_is_one_line():
    assert "contradicts itself" in refused(DEMO, "--zeros", ">=60%,<=40%")
    assert "use vllm" in refused(DEMO, "--runtime", "vlm")
    assert command("check").returncode == 2
    assert "no/such is not a local path" in refused("no/such/model", "--zeros", ">=0%")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    http_ranges._block.cache_clear()
    monkeypatch.setattr("time.sleep", lambda _: None)
    with Hub(monkeypatch, tmp_path / "cache") as served:
        served.repositories["someone/small"] = Path(DEMO)
        yield served


def test_the_hub(hub):
    assert command("check", "someone/small", "--zeros", "<=1%", "--no-nan").returncode == 0
    assert not any(name.endswith(".safetensors") for name in hub.kept())
    refused("someone/none", "--zeros", "<=1%")  # 404
    hub.gated.add("someone/small")
    assert "gated" in refused("someone/small", "--zeros", "<=1%")


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {heavy}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
from sparsity_report.cli import main
sys.argv = ["sparsity-report", *sys.argv[1:]]
main()
"""


def test_unpacked_safetensors_and_gguf_need_no_torch(pruned, tmp_path):
    rules = ["check", pruned, "--mask-of", pruned, "--pattern", "2:4"]
    packed = np.ones((4, 32), np.float32), gguf.GGMLQuantizationType.Q4_0
    write_gguf(tmp_path / "q4.gguf", {"blk.0.ffn_up.weight": packed})
    for arguments, code in (
        (rules, 1), (["check", pruned], 0), (["check", DEMO, "--runtime=vllm"], 0),
        (["count", DEMO, "--json"], 0), (["count", "--zeros", tmp_path / "q4.gguf"], 0),
    ):  # fmt: skip
        heavy = [name for name in HEAVY if name != "gguf" or "--zeros" not in arguments]
        line = [sys.executable, "-c", BLOCKED.format(heavy=heavy), *arguments]
        run = subprocess.run(line, capture_output=True, text=True, check=False)
        assert run.returncode == code, run.stderr
        assert run.stderr == ""


def shell(step, folder, inputs, **environment):
    """Run a step of the action as GitHub does, with programs of `folder` first."""
    values = {
        name: inputs.get(re.fullmatch(r"\$\{\{ inputs\.(.+) \}\}", text)[1], "")
        for name, text in step.get("env", {}).items()
    }
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, **values, **environment, "PATH": path}
    line = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(line, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def programs(tmp_path):
    """A folder with `sparsity-report` of this checkout, and a `python` that writes its line."""
    folder = tmp_path / "programs"
    folder.mkdir()
    ours = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m sparsity_report "$@"'
    stubs = {"sparsity-report": ours, "python": f'printf "%s\\n" "$*" >>"{folder}/lines"'}
    for name, text in stubs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def action():
    described = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    defaults = {name: each["default"] for name, each in described["inputs"].items()}
    return described["runs"]["steps"], defaults


def test_the_action_installs_into_a_separate_environment(programs):
    (install, _), defaults = action()
    path, place = str(ACTION.parent), {"GITHUB_ACTION_PATH": str(ACTION.parent), "RUNNER_TEMP": "t"}
    more = {**defaults, "requirements": "torch peft>=0.14"}
    for inputs, others in ((defaults, ""), (more, " torch peft>=0.14")):
        assert shell(install, programs, inputs, **place).returncode == 0
        environment, package = (programs / "lines").read_text().splitlines()
        assert environment == "-m venv t/sparsity-report"
        assert package == f"-m pip install --quiet -- {path}/../../..{others}"
        (programs / "lines").unlink()
    assert (ACTION.parent / "../../.." / "pyproject.toml").is_file()


def test_the_action_checks(pruned, programs, tmp_path):
    (_, check), defaults = action()
    for step in action()[0]:
        assert "${{" not in step["run"], "an input in a script would be run as code"
    wanted = {"model": str(pruned), "zeros": "==50%", "no-nan": "true", "mask-of": str(pruned)}
    run = shell(check, programs, defaults | wanted)
    assert (run.returncode, run.stderr) == (0, "")
    run = shell(check, programs, defaults | wanted | {"pattern": "2:4"})
    assert (run.returncode, run.stdout.count("wanted 2:4")) == (1, 24)
    evil = f"$(touch {tmp_path}/evil); `touch {tmp_path}/evil`"
    run = shell(check, programs, defaults | {"model": evil, "zeros": evil})
    assert run.returncode == 2
    assert not (tmp_path / "evil").exists()
    assert shell(check, programs, defaults | {"model": "--help"}).returncode == 2


def test_a_workflow_that_fails_because_a_lora_revives_zeros(programs, tmp_path, monkeypatch):
    """Run the commands of the documented workflow one after the other, until one fails."""
    monkeypatch.chdir(tmp_path)
    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["check"]["steps"]
    (_, check), defaults = action()
    codes = {}
    for step in steps:
        if step.get("shell") == "python":
            with warnings.catch_warnings(action="ignore"):  # of peft and transformers
                exec(compile(step["run"], step["name"], "exec"), {})
            continue
        if step.get("uses") == "./.github/actions/check":
            assert not {*step["with"]} - {*defaults}
            run = shell(check, programs, defaults | step["with"])
        else:
            continue
        codes[step["name"]] = run.returncode
    assert [*codes.values()] == [0, 1], run.stderr
    before, after = (load_file(f"{name}/model.safetensors") for name in ("pruned", "merged"))
    for name, values in before.items():
        revived = int(((values == 0) & (after[name] != 0)).sum())
        line = f"{name.removesuffix('.weight')}: wanted the "
        assert (line in run.stdout) == (revived > 0 and "proj" in name), name
    assert run.stdout.count("revived") == 8
    assert "zeros, found" in run.stdout


def test_the_recipes_of_the_documentation_run(pruned, programs, tmp_path, monkeypatch):
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.S)]
    uses, hooks = blocks
    shutil.copytree(pruned, tmp_path / "models" / "pruned")
    assert {*uses[0]["with"]} <= {*action()[1]}
    (hook,) = hooks["repos"][0]["hooks"]
    assert re.search(hook["files"], "models/pruned/model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    run = subprocess.run(hook["entry"].split(), capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    named = set(re.findall(r"^\| `([\w-]+): ", DOCUMENT, re.M))
    assert named == {*action()[1]} - {"model", "requirements"}
