"""The explorers in a real marimo, which knows anywidgets and no ipywidgets."""

import os
import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
from browser import violations
from explored import widgets
from helpers import need, study_of
from hostile import TEXTS, UNSEEN
from serving import Serving, free_port

import sparsity_report as sr
from sparsity_report.errors import printable

ROOT = Path(__file__).parent.parent.parent
THIN = "\u202f"
SCRIPT = (Path(sr.__file__).parent / "explorer" / "live.js").read_text(encoding="utf-8")
HOSTILE = [
    TEXTS[key].replace(".", "·") for key in ("script", "image", "attribute", "jinja", "math")
]
NOTEBOOK = f"""
import marimo
app = marimo.App(width="full")

@app.cell
def _():
    import ipywidgets
    import marimo as mo
    import sparsity_report as sr
    weights = sr.load()
    pruning = sr.global_magnitude(weights, 0.3)
    study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
    return ipywidgets, mo, pruning, sr, study, weights

@app.cell
def _(mo, sr, study):
    view = mo.ui.anywidget(sr.explore(study))
    view
    return view,

@app.cell
def _(mo, view):
    mo.md(f"read {{view.value['sparsity']:.2f}} {{view.metric}} {{len(view.layers())}}")

@app.cell
def _(mo, pruning, sr, weights):
    pair = sr.explore(sr.compare_checkpoints(weights, pruning))
    mo.Html(f'<div style="width: 620px">{{mo.as_html(pair)}}</div>')

@app.cell
def _(sr):
    import torch
    names = {HOSTILE!r}
    blocks = [torch.nn.ModuleDict({{n: torch.nn.Linear(6, 8) for n in names}}) for _ in range(3)]
    own = torch.nn.ModuleDict({{"layers": torch.nn.ModuleList(blocks)}})
    model = sr.load(own, name="".join(names))
    hostile = sr.explore(sr.compare(sr.dense(model, name=names[0])))
    hostile

@app.cell
def _(ipywidgets, sr, study):
    odd = sr.explore(study)
    odd.children = [ipywidgets.IntSlider(), *odd.children[1:3]]
    odd
"""


class Marimo(Serving):
    """A marimo server on a free loopback port that shares nothing with the user."""

    def __init__(self, folder):
        port = free_port()
        self.kind, self.work = "marimo", folder
        self.home = f"http://127.0.0.1:{port}"
        self.alive = f"{self.home}/health"
        custom = {
            f"XDG_{part}_HOME": str(folder / part) for part in ("CONFIG", "CACHE", "DATA", "STATE")
        }
        # Traits of one message come in the order of a set: the frame before its data, here.
        custom |= {"HOME": str(folder), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "2"}
        self.environment = {**os.environ, **custom}
        (folder / "CONFIG" / "marimo").mkdir(parents=True)
        (folder / "CONFIG" / "marimo" / "marimo.toml").write_text(
            '[runtime]\nauto_instantiate = true\n[display]\ntheme = "system"\n'
        )
        notebook = folder / "notebook.py"
        notebook.write_text(NOTEBOOK)
        self.command = [sys.executable, "-m", "marimo", "-y", "edit", "--headless", "--no-token"]
        self.command += ["--skip-update-check", "--no-sandbox", "--host=127.0.0.1"]
        self.command += [f"--port={port}", str(notebook)]
        self.log = folder / "log.txt"


class Opened:
    """The notebook in a browser, with what it asked for and complained of."""

    def __init__(self, browser, home):
        self.context = browser.new_context(viewport={"width": 1440, "height": 1200})
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(home)
        explorers = self.page.locator(".sparsity-explorer")
        self.study, self.pair, self.hostile, self.odd = (explorers.nth(n) for n in range(4))
        for drawn in (self.study, self.pair, self.hostile):
            drawn.locator("svg.marks").wait_for(timeout=90_000)

    def until(self, wording):
        """Wait until the notebook says so."""
        end = time.monotonic() + 20
        while not wording():
            assert time.monotonic() < end, self.study.inner_text()
            self.page.wait_for_timeout(50)

    def read(self):
        """Return the text that a cell read from the explorer's value."""
        return self.page.locator(".markdown", has_text=re.compile("^read ")).last.inner_text()

    def cards(self):
        return self.study.locator(".sx-number").all_inner_texts()

    def brightness(self, scheme):
        """Return the brightness, of 255, of letters, background and highlights in a theme."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_timeout(300)
        return self.study.locator(".sx-readout").evaluate(
            """one => ["color", "background-color", "--sx-accent"].map((trait) => {
                const pen = new OffscreenCanvas(1, 1).getContext("2d");
                pen.fillStyle = getComputedStyle(one).getPropertyValue(trait);
                pen.fillRect(0, 0, 1, 1);
                const [red, green, blue] = pen.getImageData(0, 0, 1, 1).data;
                return (red + green + blue) / 3;
            })"""
        )

    def focused(self):
        return self.page.evaluate(
            """() => {
                let at = document.activeElement;
                while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
                return at.textContent || at.className;
            }"""
        )


@pytest.fixture(scope="module")
def opened(chromium, tmp_path_factory):
    need(find_spec("marimo") is not None, "marimo")
    with Marimo(tmp_path_factory.mktemp("marimo")) as server:
        built = Opened(chromium, server.home)
        yield built
        built.context.close()


def counted(weights, level):
    """Zeros of each matrix in percent, the smallest magnitudes of all being pruned."""
    sizes = {p.name: np.abs(np.asarray(weights.tensor(p.name))) for p in weights.prunable}
    everything = np.concatenate([size.ravel() for size in sizes.values()])
    k = round(level * everything.size)
    bound = np.partition(everything, k - 1)[k - 1]
    gone = {name: int((size <= bound).sum()) for name, size in sizes.items()}
    assert sum(gone.values()) == k
    return [100 * gone[name] / size.size for name, size in sizes.items()]


def numbers(explorer):
    """Numbers on the cells of a map, in the order of the model."""
    texts = explorer.locator(".mark-text.role-mark text").all_text_contents()
    return [int(text) for text in texts if re.fullmatch(r"[+−]?\d+", text)][:24]


def test_the_slider_moves_picture_cards_and_table(opened, demo):
    opened.study.locator(".sx-range").focus()
    for _ in range(8):
        opened.page.keyboard.press("ArrowRight")
    opened.until(lambda: opened.cards()[0] == f"38.0{THIN}%")
    # Cells that read the value run again.
    opened.until(lambda: opened.read() == "read 0.38 sparsity 24")
    assert opened.focused() == "sx-range"
    assert opened.study.locator(".sx-readout").input_value() == f"38{THIN}%"
    assert opened.study.locator(".sx-shown b").inner_text() == "level"
    shares = counted(demo, 0.38)
    assert numbers(opened.study) == pytest.approx(shares, abs=0.6)
    zeros = opened.study.locator(".sx-table tbody td:nth-child(4)").all_inner_texts()
    assert [float(text.split(THIN)[0]) for text in zeros] == pytest.approx(shares, abs=0.1)


def test_menus_cells_and_search_say_what_they_say_elsewhere(opened):
    study, keyboard = opened.study, opened.page.keyboard
    assert study.get_by_label("Metric", exact=True).evaluate("menu => menu.tagName") == "SELECT"
    study.get_by_label("Metric", exact=True).focus()
    keyboard.press("ArrowDown")
    opened.until(lambda: opened.read() == "read 0.38 total 24")
    study.locator("svg.marks", has_text="Parameters per layer").wait_for()
    study.get_by_label("Metric", exact=True).select_option("Zeros")
    opened.until(lambda: opened.read() == "read 0.38 sparsity 24")
    study.locator("svg.marks", has_text="Zeros per layer").wait_for()
    # Nothing of it was drawn from the counts that were shown before.
    assert int(study.locator("svg.marks").get_attribute("width")) < 1200
    cell = study.locator(".mark-rect.role-mark path[aria-roledescription]").nth(9)
    cell.scroll_into_view_if_needed()
    box = cell.bounding_box()
    opened.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.until(lambda: opened.read() == "read 0.38 sparsity 1")
    assert (
        study.locator(".sx-detail h3").inner_text() == "model.decoder.layers.1.self_attn.out_proj"
    )
    study.get_by_label("Search", exact=True).click()
    keyboard.type("fc1", delay=30)
    opened.until(lambda: opened.read() == "read 0.38 sparsity 4")
    # A plain key of the notebook's is a letter here, and the caret stays where it was.
    keyboard.press("ArrowLeft")
    keyboard.type("x")
    opened.until(lambda: "fcx1" in study.locator(".sx-add").inner_text())
    assert study.get_by_label("Search", exact=True).input_value() == "fcx1"
    study.get_by_role("button", name="Reset").press("Enter")
    opened.until(lambda: opened.read() == "read 0.30 sparsity 24")
    opened.until(lambda: opened.focused() == "Reset")
    assert study.get_by_label("Search", exact=True).input_value() == ""


def test_the_pair_is_alive(opened, demo):
    assert numbers(opened.pair) == pytest.approx(counted(demo, 0.3), abs=0.6)
    module = opened.pair.locator(".sx-below h3").inner_text()
    opened.pair.get_by_label("Layer", exact=True).focus()
    opened.page.keyboard.press("ArrowDown")
    opened.until(lambda: opened.pair.locator(".sx-below h3").inner_text() != module)
    opened.pair.get_by_label("Metric", exact=True).select_option("Overlap of zeros (IoU)")
    opened.until(lambda: set(numbers(opened.pair)) == {0})


def test_names_of_a_checkpoint_are_text_and_nobody_is_asked(opened):
    wording = opened.hostile.inner_text()
    for text in HOSTILE:
        assert printable(text, 30)[:29] in wording, ascii(text)
    assert UNSEEN.findall(wording.replace("\t", "")) == []
    assert opened.hostile.locator("img, script").count() == 0
    for label in ("Show", "Modules", "Bars by"):
        menu = opened.hostile.get_by_label(label, exact=True)
        for option in menu.locator("option").all_inner_texts():
            menu.select_option(option)
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate("window.hacked") is None
    custom = (opened.page.url.rpartition("/")[0], "data:", "blob:")
    assert [url for url in opened.requests if not url.startswith(custom)] == []
    assert opened.complaints == ["The explorer has no element for IntSliderModel."]
    assert opened.odd.locator("> div").first.inner_text() == opened.complaints[0]


@pytest.mark.parametrize("width", [390, 800, 1440])
def test_axe_finds_nothing(opened, width):
    opened.page.set_viewport_size({"width": width, "height": 1200})
    opened.until(lambda: int(opened.study.get_attribute("data-width")) <= width)
    assert violations(opened.page, ["marimo-anywidget", ".sparsity-explorer"]) == []


def test_where_no_kernel_answers_it_says_so(opened):
    # No kernel hears of the last one: it has lost what tells of its width.
    wording = opened.page.locator(".sx-lost")
    wording.last.wait_for()
    assert wording.last.inner_text().startswith("No kernel is running")
    assert [one.is_visible() for one in wording.all()] == [False, False, False, True]
    assert (
        opened.odd.locator(".widget-box").first.evaluate("one => getComputedStyle(one).visibility")
        == "hidden"
    )


def test_each_explorer_has_its_own_width_and_the_theme_of_the_page(opened):
    for explorer, wide in ((opened.study, 1000), (opened.pair, 600)):
        width = int(explorer.get_attribute("data-width"))
        assert wide < width < wide + 300
        assert int(explorer.locator("[data-width]").get_attribute("data-width")) == width
        assert explorer.evaluate("one => one.scrollWidth - one.clientWidth") <= 2
    light, dark = (opened.brightness(scheme) for scheme in ("light", "dark"))
    assert light[0] < 60 < 200 < light[1]
    assert dark[1] < 60 < 200 < dark[0]
    assert light[2] < 100 < dark[2]


def unknown(explorer):
    """Kinds of an explorer's widgets that have no element in marimo, and layouts it ignores."""
    table = re.search(r"const ELEMENTS = {(.*?)};", SCRIPT, re.DOTALL)[1]
    elements = set(re.findall(r"(\w+): \w+,", table))
    parts = list(widgets(explorer))
    laid = [p.layout.get_state() for p in parts]
    wording = {
        key for one in laid for key, value in one.items() if key[0] != "_" and value is not None
    }
    return {part._model_name for part in parts} - elements | wording


def test_every_kind_of_control_has_an_element(demo):
    pruning = sr.global_magnitude(demo, 0.3)
    alive = [sr.explore(study_of(demo)), sr.explore(sr.compare_checkpoints(demo, pruning))]
    for explorer in alive:
        explorer._shell.width = 900
        assert unknown(explorer) == set()
    alive[0].children = [*alive[0].children, ipywidgets.IntSlider(layout={"width": "9em"})]
    assert unknown(alive[0]) == {"IntSliderModel", "width"}
