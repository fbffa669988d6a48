"""The recipe for the Hub: an extension run by the installed ``hf``."""

import datetime
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import command

import sparsity_report as sr

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "docs" / "hub" / "hf-sparsity"
DEMO = Path(sr.__file__).parent / "demo"
BIN = Path(sys.executable).parent
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def test_hf_runs_the_extension(tmp_path):
    extensions = pytest.importorskip("huggingface_hub.cli.extensions")
    folder = tmp_path / ".local" / "share" / "hf" / "extensions" / "hf-sparsity"
    folder.mkdir(parents=True)
    # As pip writes a console script, and `hf extensions install` the manifest.
    script, (module, function) = folder / "hf-sparsity", SCRIPTS["hf-sparsity"].split(":")
    script.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
    script.chmod(0o755)
    project = tomllib.loads((RECIPE / "pyproject.toml").read_text())["project"]
    extensions.ExtensionManifest(
        owner="org", repo="hf-sparsity", repo_id="org/hf-sparsity", short_name="sparsity",
        executable_path=str(script), type="python",
        description=project["description"], installed_at=datetime.datetime.now(datetime.UTC),
    ).save(folder)  # fmt: skip
    environment = {
        **os.environ, "HOME": str(tmp_path), "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(sr.__file__).parents[1]),
    }  # fmt: skip

    def hf(*arguments):
        return subprocess.run(
            [BIN / "hf", *arguments], capture_output=True, text=True, check=False, env=environment
        )

    run = hf("sparsity", "count", str(DEMO), "--json")
    direct = command("count", str(DEMO), "--json")
    assert run.returncode == direct.returncode == 0, run.stderr
    assert json.loads(run.stdout) == json.loads(direct.stdout)
    assert hf("sparsity", "count", "missing-folder").returncode == 2
    assert project["description"].split()[0] in hf("--help").stdout


@pytest.mark.tools  # builds with hatchling
def test_the_extension_installs_and_requires_the_package(tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", tmp_path, RECIPE], check=True)
    (metadata,) = tmp_path.glob("hf_sparsity-*.dist-info/METADATA")
    assert "Requires-Dist: sparsity-report\n" in metadata.read_text()
    assert (
        "hf-sparsity" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    )
