"""The recipe for the Hub: an extension run by the installed ``hf``."""

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import command

import sparsity_report as sr

RECIPE = Path(__file__).parents[2] / "docs" / "hub" / "hf-sparsity"
DEMO = Path(sr.__file__).parent / "demo"
BIN = Path(sys.executable).parent


def test_hf_runs_the_extension(tmp_path):
    extensions = pytest.importorskip("huggingface_hub.cli.extensions")
    folder = tmp_path / ".local" / "share" / "hf" / "extensions" / "hf-sparsity"
    # As `hf extensions install` does with the files of the repository.
    script = extensions._install_binary_extension(
        extension_dir=folder, short_name="sparsity", binary=(RECIPE / "hf-sparsity").read_bytes()
    )
    description = json.loads((RECIPE / "manifest.json").read_text())["description"]
    extensions.ExtensionManifest(
        owner="org", repo="hf-sparsity", repo_id="org/hf-sparsity", short_name="sparsity",
        executable_path=str(script), type="binary", description=description,
        installed_at=datetime.datetime.now(datetime.UTC),
    ).save(folder)  # fmt: skip
    environment = {
        **os.environ, "HOME": str(tmp_path), "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip

    def hf(*arguments, path=environment["PATH"]):
        return subprocess.run(
            [BIN / "hf", *arguments], capture_output=True, text=True, check=False,
            env=environment | {"PATH": path},
        )  # fmt: skip

    run = hf("sparsity", "count", str(DEMO), "--json")
    direct = command("count", str(DEMO), "--json")
    assert run.returncode == direct.returncode == 0, run.stderr
    assert json.loads(run.stdout) == json.loads(direct.stdout)
    assert hf("sparsity", "count", "missing-folder").returncode == 2
    assert (
        description in hf("--help").stdout.replace("\n", " ") or "sparsity" in hf("--help").stdout
    )
    run = hf("sparsity", "--help", path="/bin:/usr/bin")
    if not shutil.which("sparsity-report", path="/bin:/usr/bin"):
        assert run.returncode == 2
        assert run.stderr.strip().endswith("is not on the path; install sparsity-report")
