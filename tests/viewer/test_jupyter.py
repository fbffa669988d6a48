"""The viewer in a real JupyterLab and Notebook 7, as a person uses it, with and without kernel."""

import io
import json
import re
import time
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest
from browser import Visit, drawn, violations
from helpers import need
from jupyter import Server, run_all

import sparsity_report as sr
from sparsity_report.words.number_format import percent, times

STUDY = """
import json, pathlib
import sparsity_report as sr
weights = sr.load()
pruning = sr.global_magnitude(weights, 0.3)
study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
"""
SHOW = """
explorer = sr.explore(study)
def tell(_=None, explorer=explorer):
    state = {**explorer.state, "layers": explorer.layers()["module_name"].tolist()}
    pathlib.Path("state.part").write_text(json.dumps(state))
    pathlib.Path("state.part").replace("state.json")
explorer.observe(tell)
tell()
explorer
"""


@pytest.fixture(scope="module")
def browser(chromium):
    for name in ("jupyterlab", "notebook"):
        need(find_spec(name) is not None, name)
    return chromium


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):  # noqa: ARG001 - without a browser, no server starts
    with Server(tmp_path_factory.mktemp("lab")) as server:
        yield server


class Session:
    """A notebook with an explorer, open in a browser; it may share the kernel of another."""

    def __init__(self, browser, server, name, *cells, kernel_of=None, app="lab", views=1):
        self.server, self.path = server, server.write(name, *cells)
        if kernel_of:
            server.share_kernel(kernel_of.path.name, name)
        self.context = browser.new_context(viewport={"width": 1440, "height": 1000})
        self.page = self.context.new_page()
        self.requests, self.complaints, self.sent = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("websocket", self._listen)
        self.page.goto(server.url(name, app))
        run_all(self.page)
        self.page.locator(".sv-ready .sv-map").nth(views - 1).wait_for(timeout=90_000)
        self.page.wait_for_timeout(500)

    def _listen(self, socket):
        if "/channels" in socket.url:
            socket.on("framesent", lambda frame: self.sent.append(frame))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def state(self):
        return json.loads((self.server.work / "state.json").read_text())

    def until(self, wanted):
        """Wait until the kernel's state is as wanted."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if wanted(state := self.state()):
                return state
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the kernel never got there: {state}")

    def python(self, code, wait=True):
        """Run code in the kernel of the notebook."""
        self.page.evaluate(
            """([code, wait]) => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const { done } = kernel.requestExecute({ code });
                return wait ? done.then(() => null) : null;
            }""",
            [code, wait],
        )

    def shown(self, trait):
        """A trait of the state in the page."""
        return self.page.evaluate(
            "trait => document.querySelector('.sv-ready').viewer.state[trait]", trait
        )

    def sentence(self):
        return drawn(self.page).locator(".sv-sentence").first.inner_text()

    def run_cell(self, place):
        self.page.evaluate(
            """place => {
                window.jupyterapp.shell.currentWidget.content.activeCellIndex = place;
                return window.jupyterapp.commands.execute('notebook:run-cell').then(() => null);
            }""",
            place,
        )


@pytest.fixture(scope="module")
def opened(browser, lab):
    with Session(browser, lab, "explorer.ipynb", STUDY, SHOW, "untouched = True") as session:
        yield session


@pytest.fixture
def fresh(opened):
    """The explorer as it was first shown."""
    opened.page.evaluate(
        "() => { const { store } = document.querySelector('.sparsity-viewer').viewer;"
        " store.show(store.history.first); }"
    )
    opened.page.wait_for_timeout(700)
    return opened


def test_it_fetches_nothing_and_fits(opened):
    away = [u for u in opened.requests if not u.startswith((opened.server.home, "data:", "blob:"))]
    assert away == []
    assert opened.complaints == []
    box = opened.page.locator(".sv-ready").bounding_box()
    assert box["height"] <= 640
    assert violations(opened.page, [".sv-ready"]) == []


def test_a_moving_slider_sends_nothing_and_a_resting_one_a_state(fresh, demo_study):
    slider = fresh.page.locator(".sv-slider")
    slider.focus()
    fresh.page.wait_for_timeout(500)
    fresh.sent.clear()
    for _ in range(12):
        fresh.page.keyboard.press("ArrowRight")
    assert fresh.sent == []
    state = fresh.until(lambda s: s["sparsity"] == 0.42)
    assert state["variant"] == "at level"
    rows = demo_study.at_level(0.42)
    ratio = rows["csr_bytes"].sum() / rows["dense_bytes"].sum()
    fresh.page.locator(".sv-layout").select_option("csr")
    assert times(ratio, " ") in fresh.sentence()
    prunable = rows[rows["prunable"]]
    share = 1 - prunable["weight_nonzero"].sum() / prunable["weight_total"].sum()
    assert percent(share, space=" ") in fresh.sentence()


def test_keys_do_not_reach_the_notebook(fresh):
    cells = "window.jupyterapp.shell.currentWidget.content.widgets.length"
    search = fresh.page.locator(".sv-search")
    search.click()
    # In command mode these letters would delete and insert cells.
    fresh.page.keyboard.type("ddb")
    fresh.until(lambda s: s["search"] == "ddb")
    search.fill("V_PROJ")
    state = fresh.until(lambda s: s["search"] == "V_PROJ")
    assert len(state["layers"]) == 4
    fresh.page.locator(".sv-map").focus()
    for key in "aabdd":
        fresh.page.keyboard.press(key)
    assert fresh.page.evaluate(cells) == 3
    fresh.page.keyboard.press("ArrowRight")
    fresh.page.keyboard.press("Enter")
    fresh.until(lambda s: len(s["selection"]) == 1)
    fresh.page.keyboard.press("Control+z")
    fresh.until(lambda s: s["selection"] == [])


def test_python_moves_the_view(fresh):
    name = fresh.state()["layers"][8]
    fresh.python(f"explorer.select(sparsity=0.65, metric='flops_per_token', selection=[{name!r}])")
    fresh.page.wait_for_function(
        "() => document.querySelector('.sv-ready').viewer.state.selection.length === 1"
    )
    assert fresh.shown("selection") == [name]
    fresh.page.wait_for_function("() => document.querySelector('.sv-level').value === '65 %'")
    assert fresh.page.locator(".sv-metric").input_value() == "flops_per_token"
    fresh.page.locator(".sv-undo").click()
    fresh.until(lambda s: s["selection"] == [] and s["metric"] == "sparsity")
    assert fresh.page.locator(".sv-metric").input_value() == "sparsity"


def test_the_kernel_counts_heads_when_asked(fresh):
    fresh.python("explorer.select(detail='model.decoder.layers.1.self_attn.q_proj')")
    fresh.page.locator(".sv-heading", has_text="Block 1 · q_proj").wait_for()
    fresh.page.locator(".sv-parts input").nth(3).wait_for()
    assert fresh.page.locator(".sv-parts input").count() == 4
    assert fresh.page.locator(".sv-notice").inner_text() == ""


def test_level_becomes_a_variant(fresh):
    fresh.python("explorer.select(sparsity=0.57)")
    fresh.page.locator(".sv-add").click()
    fresh.page.locator(".sv-notice", has_text="CSR57").wait_for()
    fresh.until(lambda s: s["variant"] == "CSR57")
    assert "CSR57" in fresh.sentence()


def test_a_typed_level_is_counted_by_the_kernel(fresh, demo):
    fresh.page.locator(".sv-level").fill("63.7")
    fresh.page.locator(".sv-level").press("Enter")
    fresh.page.locator(".sv-notice", has_text="63.7 % is counted exactly.").wait_for()
    assert fresh.until(lambda s: s["sparsity"] == 0.637)["variant"] == "at level"
    assert fresh.page.locator(".sv-level").input_value() == "63.7 %"
    left = fresh.page.evaluate(
        """() => {
            const { figures, store } = document.querySelector('.sv-ready').viewer;
            const { left } = figures.counts(store.state);
            return Object.fromEntries(figures.modules.names.map((name, i) => [name, left[i]]));
        }"""
    )
    rows = sr.masked(sr.global_magnitude(demo, 0.637)).layers()
    assert left == dict(zip(rows["module_name"], rows["weight_nonzero"], strict=True))


def test_copies_of_the_page_and_of_the_kernel(fresh):
    page = fresh.page
    fresh.context.grant_permissions(["clipboard-read", "clipboard-write"])
    starts = {
        "python": "import sparsity_report", "command": "sparsity-report", "table": "module_name\t",
    }  # fmt: skip
    for form, start in starts.items():
        page.locator(".sv-form").select_option(form)
        page.locator(".sv-copy").click()
        page.locator(".sv-notice", has_text="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()").startswith(start)
        page.locator(".sv-search").fill(form[:1])
        page.wait_for_timeout(400)
    # Ctrl+C copies the rows, and is no command of the notebook.
    page.locator(".sv-search").fill("block 3 fc")
    page.locator(".sv-search").press("ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Control+c")
    page.locator(".sv-notice", has_text="Rows copied: 2.").wait_for()
    rows = page.evaluate("navigator.clipboard.readText()").splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == fresh.until(lambda s: len(s["layers"]) == 2)[
        "layers"
    ]
    # A text that is selected comes before them.
    page.locator(".sv-sentence").select_text()
    page.keyboard.press("Control+c")
    assert page.evaluate("navigator.clipboard.readText()") == fresh.sentence()
    page.evaluate("getSelection().empty()")


AGAIN = """
explorer = sr.explore(study)
explorer
"""


def test_running_a_cell_again_leaves_nothing_on_the_page(browser, lab, opened):
    with Session(browser, lab, "again.ipynb", STUDY, AGAIN, kernel_of=opened) as session:
        page = session.page

        def nodes():
            page.wait_for_timeout(1000)
            page.evaluate("window.gc?.()")
            return page.evaluate("document.querySelectorAll('*').length")

        session.run_cell(1)
        before = nodes()
        for _ in range(4):
            session.run_cell(1)
            page.locator(".sv-ready .sv-map").wait_for()
        assert nodes() <= 1.02 * before
        assert page.locator(".sv-ready").count() == 1
        assert session.complaints == []


def test_after_a_restart_looking_goes_on(browser, lab):
    with Session(browser, lab, "restart.ipynb", STUDY, AGAIN) as session:
        page = session.page
        page.locator(".sv-slider").press("ArrowRight")
        page.wait_for_timeout(500)
        level = session.shown("sparsity")
        page.evaluate(
            "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
        )
        page.locator(".sv-notice", has_text="restarted").wait_for(timeout=20_000)
        assert session.shown("sparsity") == level
        page.locator(".sv-slider").press("ArrowRight")
        assert session.shown("sparsity") == pytest.approx(level + 0.01)
        page.locator(".sv-cell").nth(3).click()
        assert len(session.shown("selection")) == 1
        assert page.locator(".sv-add").is_disabled()
        assert page.locator(".sv-ready img").count() == 0


def test_the_state_last_seen_is_there_without_a_kernel(browser, lab):
    with Session(browser, lab, "saved.ipynb", STUDY, AGAIN) as session:
        page = session.page
        first = session.shown("sparsity")

        def run(command, **given):
            page.evaluate("([c, g]) => window.jupyterapp.commands.execute(c, g)", [command, given])
            page.wait_for_timeout(1500)

        def press(times):
            for _ in range(times):
                page.locator(".sv-ready:visible .sv-slider").press("ArrowRight")
            page.wait_for_timeout(1000)

        def shown():
            sentence = page.locator(".sv-ready:visible .sv-sentence").inner_text()
            return round(float(re.search(r"[\d.]+", sentence)[0]) / 100, 3)

        press(5)
        session.python("explorer.add()")
        page.wait_for_function(
            "viewer => document.querySelector('.sv-ready').viewer.state.variant !== 'at level'"
        )
        page.locator(".sv-undo").click()
        page.wait_for_timeout(1000)
        before = shown()
        assert before > first
        run("docmanager:save")
        # As the panel of running kernels does it.
        page.evaluate(
            """() => {
                const { session } = window.jupyterapp.shell.currentWidget.sessionContext;
                return window.jupyterapp.serviceManager.sessions.shutdown(session.id);
            }"""
        )
        page.locator(".sv-notice", has_text="stopped").wait_for(timeout=20_000)
        press(3)
        assert shown() == pytest.approx(before + 0.03)
        run("application:close")
        run("docmanager:open", path="saved.ipynb")
        page.locator(".sv-ready:visible").wait_for(timeout=60_000)
        assert shown() == pytest.approx(before + 0.03)
        saved = session.path.read_text(encoding="utf-8")
    assert len(saved) < 120_000
    # Another browser knows the notebook only, whose name has another kernel.
    session.path.with_name("copy.ipynb").write_text(saved, encoding="utf-8")
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    page.goto(lab.url("copy.ipynb"))
    page.locator(".sv-ready").wait_for(timeout=60_000)
    page.wait_for_timeout(3000)
    texts = page.locator(".jp-OutputArea").last.inner_text()
    assert not re.search(r"error|not found|loading widget", texts, re.IGNORECASE)
    assert shown() == before
    press(1)
    page.reload()
    page.locator(".sv-ready").wait_for(timeout=60_000)
    assert shown() == pytest.approx(before + 0.01)
    context.close()


BOXES = (
    STUDY,
    "import ipywidgets\nboxed = sr.explore(study)\nboxed.close()\n"
    "button = ipywidgets.Button(description='beside')\nipywidgets.HBox([boxed, button])",
    "tab = ipywidgets.Tab([boxed, ipywidgets.Accordion([button])])\n"
    "text = ipywidgets.Text()\nipywidgets.jslink((boxed, 'key'), (text, 'value'))\n"
    "ipywidgets.VBox([tab, text])",
    "@ipywidgets.interact(level=(0.3, 0.6, 0.1))\n"
    "def show(level=0.5): boxed.select(sparsity=level)",
)


def test_beside_other_widgets(browser, lab, opened):
    with Session(browser, lab, "boxes.ipynb", *BOXES, kernel_of=opened, views=2) as session:
        page = session.page
        page.wait_for_function(
            "() => [...document.querySelectorAll('.sv-ready')].every("
            "({ viewer }) => viewer.state.sparsity === 0.5)"
        )
        views = page.locator(".sv-ready")
        wide, beside = views.first.bounding_box(), page.locator("button", has_text="beside")
        assert wide["width"] > 800
        assert wide["height"] <= 760
        assert beside.first.bounding_box()["x"] >= wide["x"] + wide["width"]
        assert len(page.locator(".widget-text input").input_value()) == 32
        views.nth(1).locator(".sv-search").fill("fc1")
        page.wait_for_function(
            "() => document.querySelector('.sv-ready').viewer.state.search === 'fc1'"
        )
        views.first.locator(".sv-undo").click()
        page.wait_for_function(
            "() => document.querySelectorAll('.sv-ready')[1].viewer.state.search === ''"
        )
        # A message of anywidget about a widget that closes while it opens.
        assert set(session.complaints) <= {"[anywidget] Failed to initialize model."}


def test_notebook_7_and_a_pair(browser, lab, opened):
    pair = "sr.explore(sr.compare_checkpoints(weights, pruning))"
    cells = STUDY, "sr.explore(study)", pair
    with Session(
        browser, lab, "seven.ipynb", *cells, kernel_of=opened, app="notebook", views=2
    ) as session:
        page = session.page
        assert page.evaluate("window.jupyterapp.name") == "Jupyter Notebook"
        before = session.sentence()
        page.locator(".sv-slider").first.focus()
        page.keyboard.press("ArrowRight")
        assert session.sentence() != before
        second = page.locator(".sv-ready").nth(1)
        second.locator(".sv-search").fill("fc1")
        drawn(page)
        assert second.locator(".sv-row").count() == 4
        second.locator(".sv-cell").nth(2).click()
        drawn(page)
        assert "1" in second.locator(".sv-sum").inner_text()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_it_follows_the_theme(fresh, theme):
    fresh.page.evaluate(
        "t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})",
        f"JupyterLab {theme}",
    )
    fresh.page.wait_for_timeout(600)
    channels = fresh.page.locator(".sv-ready").evaluate(
        """one => ["color", "backgroundColor"].map((key) => {
            const pen = new OffscreenCanvas(1, 1).getContext("2d");
            pen.fillStyle = getComputedStyle(one)[key];
            pen.fillRect(0, 0, 1, 1);
            return pen.getImageData(0, 0, 1, 1).data[1];
        })"""
    )
    for panel in fresh.page.locator(".sv-tabs [role=tab]").all():
        panel.click()
        assert violations(fresh.page, [".sv-ready"]) == []
    ink, paper = channels
    assert (ink < paper) == (theme == "Light")
    assert abs(ink - paper) > 150


def test_reports_come_from_the_kernel(fresh):
    page = fresh.page
    page.evaluate("document.querySelector('.sv-ready').viewer.set({ sparsity: 0.6 })")
    page.locator(".sv-add").click()
    fresh.until(lambda state: state["variant"] == "CSR60")

    def saved(kind):
        page.locator(".sv-files > button").click()
        with page.expect_download() as download:
            page.locator(f'.sv-files [value="{kind}"]').click()
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    name, html = saved("html")
    assert name == "demo-report-on-the-study.html"
    assert html.startswith(b"<!DOCTYPE html>")
    assert b"CSR60" in html
    assert saved("pdf")[1].startswith(b"%PDF-")
    name, kit = saved("zip")
    with ZipFile(io.BytesIO(kit)) as archive:
        assert b"CSRSixty" in archive.read("numbers.tex")
    # The view needs no kernel.
    name, view = saved("page")
    assert name == "demo-csr60-sparsity.html"
    path = fresh.server.work / name
    path.write_bytes(view)
    with Visit(page.context.browser, path) as visit:
        assert visit.page.locator(".sv-sentence").inner_text() == fresh.sentence()
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
