"""The viewer in the editor of a real marimo."""

import os
import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from browser import drawn
from helpers import need
from serving import Serving, free_port

from sparsity_report.words.number_format import percent

ROOT = Path(__file__).parents[2]
NOTEBOOK = """
import marimo
app = marimo.App(width="full")

@app.cell
def _():
    import marimo as mo
    import sparsity_report as sr
    weights = sr.load()
    pruning = sr.global_magnitude(weights, 0.3)
    study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
    return mo, pruning, sr, study, weights

@app.cell
def _(mo, sr, study):
    view = mo.ui.anywidget(sr.explore(study))
    view
    return view,

@app.cell
def _(mo, view):
    mo.md(f"read {view.value['state']['sparsity']:.2f} {len(view.layers())}")

@app.cell
def _(pruning, sr, weights):
    sr.explore(sr.compare_checkpoints(weights, pruning))

if __name__ == "__main__":
    app.run()
"""


class Marimo(Serving):
    """A marimo server on a free loopback port that shares nothing with the user."""

    def __init__(self, folder):
        port = free_port()
        self.kind, self.work = "marimo", folder
        self.home = f"http://127.0.0.1:{port}"
        self.alive = f"{self.home}/health"
        own = {
            f"XDG_{part}_HOME": str(folder / part) for part in ("CONFIG", "CACHE", "DATA", "STATE")
        }
        self.environment = {**os.environ, **own, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        (folder / "CONFIG" / "marimo").mkdir(parents=True)
        (folder / "CONFIG" / "marimo" / "marimo.toml").write_text(
            '[runtime]\nauto_instantiate = true\n[display]\ntheme = "system"\n'
        )
        notebook = folder / "notebook.py"
        notebook.write_text(NOTEBOOK)
        self.command = [sys.executable, "-m", "marimo", "-y", "edit", "--headless", "--no-token"]
        self.command += [
            "--skip-update-check", "--no-sandbox", "--host=127.0.0.1", f"--port={port}",
            str(notebook),
        ]  # fmt: skip
        self.log = folder / "log.txt"


def test_style_is_right_and_state_reaches_the_kernel(chromium, tmp_path, demo_study):
    need(find_spec("marimo") is not None, "marimo")
    with Marimo(tmp_path) as server:
        context = chromium.new_context(viewport={"width": 1440, "height": 1200})
        page = context.new_page()
        complaints, requests = [], []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(server.home)
        page.locator(".sparsity-viewer .sv-map").nth(1).wait_for(timeout=90_000)
        study, pair = (page.locator(".sparsity-viewer").nth(k) for k in (0, 1))
        study.locator(".sv-slider").focus()
        for _ in range(8):
            page.keyboard.press("ArrowRight")
        drawn(page)
        rows = demo_study.at_level(0.38)
        rows = rows[rows["prunable"]]
        share = 1 - rows["weight_nonzero"].sum() / rows["weight_total"].sum()
        assert percent(share, space=" ") in study.locator(".sv-sentence").inner_text()
        # Cells that read the value run again.
        read = page.locator(".markdown", has_text=re.compile("^read ")).last
        end = time.monotonic() + 30
        while read.inner_text() != "read 0.38 24":
            assert time.monotonic() < end, read.inner_text()
            page.wait_for_timeout(100)
        assert study.bounding_box()["height"] <= 660
        pair.locator(".sv-search").fill("fc1")
        drawn(page)
        assert pair.locator(".sv-row").count() == 4
        # The whole picture is in sight: nothing is clipped by the cell.
        map_, box = pair.locator(".sv-map").bounding_box(), pair.bounding_box()
        assert map_["y"] + map_["height"] < box["y"] + box["height"]
        assert map_["height"] > 150
        for scheme, is_dark in (("light", False), ("dark", True)):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(500)
            paper = study.evaluate("one => getComputedStyle(one).backgroundColor")
            assert (int(re.search(r"\d+", paper)[0]) < 128) == is_dark
        away = [u for u in requests if not u.startswith((server.home, "data:", "blob:"))]
        assert away == []
        assert complaints == []
        context.close()
