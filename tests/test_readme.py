"""What the README shows is what happens."""

import re
import runpy
import shlex
from pathlib import Path

import gguf
import harnesses
import numpy as np
import pytest
import torch
from helpers import command, write_gguf
from safetensors.torch import save_file

import sparsity_report as sr

pytestmark = pytest.mark.slow(seconds=50)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.S)
# MPI needs a cluster; tests/counting/test_executors.py gives the same call another pool.
PYTHON = [snippet for snippet in SNIPPETS if "mpi4py" not in snippet]
CONSOLE = [
    line
    for block in re.findall(r"```console\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


@pytest.mark.parametrize("snippet", PYTHON, ids=range(len(PYTHON)))
@pytest.mark.usefixtures("small_cache")
def test_python(snippet, tmp_path, monkeypatch, capsys):
    (tmp_path / "snippet.py").write_text(snippet, encoding="utf-8")
    for name in re.findall(r'read_lm_eval\("(.*?)"', snippet):
        harnesses.write(tmp_path / name, harnesses.lm_eval())
    monkeypatch.chdir(tmp_path)
    # What is timed is timed as long as it takes to know it; here nobody reads it.
    monkeypatch.setattr("sparsity_report.measure.clock.DEFAULT", sr.Clock(budget=1))
    runpy.run_path(str(tmp_path / "snippet.py"), run_name="__main__")
    if '"report.html"' in snippet:
        assert (tmp_path / "report.html").stat().st_size > 100_000
        assert "CSR30 stores" in capsys.readouterr().out


def test_the_cluster_script_is_python():
    (script,) = set(SNIPPETS) - set(PYTHON)
    compile(script, "count.py", "exec")


def test_commands(tmp_path):
    """Run the README's lines as they stand, with models at hand in place of others."""
    assert [line for line in CONSOLE if line.startswith("pip")] == [
        "pip install . && sparsity-report run",
        "pip install '.[test]' && pytest",
    ]
    (tmp_path / "path" / "to").mkdir(parents=True)
    layer = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    tensors = {
        f"blk.{block}.ffn_up.weight": (layer, gguf.GGMLQuantizationType.Q8_0) for block in (0, 1)
    }
    write_gguf(tmp_path / "path" / "to" / "model.gguf", tensors, architecture="mystery")
    stand_ins = {"facebook/opt-125m": str(ROOT / "sparsity_report" / "demo")}
    (tmp_path / "path" / "to" / "pruned").mkdir()
    pruned = torch.from_numpy(layer * np.tile(np.float32([1, 1, 0, 0]), 16))
    save_file({"layers.0.fc1.weight": pruned}, tmp_path / "path/to/pruned/model.safetensors")
    ours = [line.split("&& ")[-1] for line in CONSOLE if "sparsity-report" in line]
    assert len(ours) > 4
    for line in ours:
        words = [stand_ins.get(word, word) for word in shlex.split(line)]
        assert words[0] == "sparsity-report"
        run = command(*words[1:], cwd=tmp_path)
        assert run.returncode == 0, f"{line}: {run.stderr}"
    assert (tmp_path / "again" / "report.html").is_file()


def test_continuous_integration_runs_the_same_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "pip install -q '.[test]'" in script
    assert "pytest" in script


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_promises_are_proved_by_tests_that_exist():
    """SECURITY.md names a file, or a test in it; ``::`` alone goes on in the file before."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table, file, named = text.partition("## Promised")[2].partition("\n## ")[0], "", 0
    for before, test in re.findall(r"`([\w/]+\.py)?(?:::(\w+))?`", table):
        file = before or file
        held = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in held, (file, test)
        named += 1
    assert named > 20
