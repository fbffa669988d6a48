"""The explorer in a real JupyterLab, used as a person does: mouse, keys, both themes, offline."""

import json
import re
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from explored import check_slider_moves
from helpers import need
from hostile import TEXTS, UNSEEN
from jupyter import Server, run_all

import sparsity_report as sr
from sparsity_report.errors import printable
from sparsity_report.words.number_format import percent, times

pytestmark = pytest.mark.slow(seconds=90)

STUDY = """
import sparsity_report as sr
weights = sr.load()
pruning = sr.global_magnitude(weights, 0.3)
study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
"""
SHOW = """
import json, pathlib
explorer = sr.explore(study)
def tell(_=None):
    state = {name: getattr(explorer, name) for name in
             ("selection", "sparsity", "variant", "metric", "search", "detail")}
    state |= {"layers": explorer.layers()["module_name"].tolist(),
              "variants": explorer.study.variants["variant"].tolist()}
    pathlib.Path("state.part").write_text(json.dumps(state))
    pathlib.Path("state.part").replace("state.json")
explorer.observe(tell, ["selection", "sparsity", "variant", "metric", "detail", "study", "chart"])
tell()
explorer
"""
NAMES = [
    f"model.decoder.layers.{block}.{name}"
    for block in range(4)
    for name in (*(f"self_attn.{x}_proj" for x in ("k", "v", "q", "out")), "fc1", "fc2")
]


@pytest.fixture(scope="module")
def browser(chromium):
    for name in ("jupyterlab", "notebook"):
        need(find_spec(name) is not None, name)
    return chromium


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):  # noqa: ARG001 - where there is no browser, no server starts
    with Server(tmp_path_factory.mktemp("lab")) as server:
        yield server


class Session:
    """A notebook with an explorer, open in a browser; it may share the kernel of another."""

    def __init__(self, browser, server, name, *cells, kernel_of=None, app="lab"):
        self.server, self.path = server, server.write(name, *cells)
        if kernel_of:
            server.share_kernel(kernel_of.path.name, name)
        self.context = browser.new_context(viewport={"width": 1600, "height": 1500})
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(server.url(name, app))
        run_all(self.page)
        self.page.locator(".sparsity-explorer svg.marks").wait_for(timeout=90_000)
        self.settle()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def settle(self):
        """Wait until the picture has stood still for a moment."""
        self.page.evaluate(
            """() => new Promise((done) => {
                const root = document.querySelector(".sparsity-explorer");
                let timer = setTimeout(finish, 700);
                const watch = new MutationObserver(() => {
                    clearTimeout(timer); timer = setTimeout(finish, 700);
                });
                function finish() { watch.disconnect(); done(); }
                watch.observe(root, {subtree: true, childList: true, attributes: true,
                                     characterData: true});
            })"""
        )

    def state(self):
        return json.loads((self.server.work / "state.json").read_text())

    def until(self, wanted):
        """Wait until the kernel's state is as wanted."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            state = self.state()
            if wanted(state):
                self.settle()
                return state
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the kernel never got there: {self.state()}")

    def python(self, code):
        """Run code in the kernel of the notebook."""
        self.page.evaluate(
            """code => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
                .requestExecute({code}).done.then(() => null)""",
            code,
        )

    def card(self, title):
        card = self.page.locator(".sx-cards > div", has_text=title)
        return card.locator(".sx-number").inner_text()

    def drawn(self):
        """Texts of the picture."""
        return self.page.locator(".sparsity-explorer .vega-embed").inner_text()

    def cell(self, block, column):
        """Middle of a cell of the heat map, of 4 × 6."""
        marks = self.page.locator(".sparsity-explorer .mark-rect.role-mark")
        path = marks.locator("path[aria-roledescription]").nth(6 * block + column)
        path.scroll_into_view_if_needed()
        box = path.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def active_cell(self):
        return self.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex")

    def choose(self, label):
        return self.page.locator(".sx-controls .widget-dropdown", has_text=label).locator("select")

    def theme(self, name):
        self.page.evaluate(
            "t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})",
            f"JupyterLab {name}",
        )
        self.page.wait_for_timeout(400)


@pytest.fixture(scope="module")
def opened(browser, lab):
    with Session(browser, lab, "explorer.ipynb", STUDY, SHOW, "untouched = True") as session:
        yield session


@pytest.fixture
def fresh(opened):
    """The explorer as it was first shown."""
    opened.python("explorer.reset()")
    opened.settle()
    return opened


def test_shows_everything_and_asks_nobody(opened, demo_study):
    text = opened.page.locator(".sparsity-explorer").inner_text().replace("\u202f", " ")
    for sentence in sr.summarize(demo_study)[:3]:
        assert sentence.replace("\u202f", " ") in text
    for row in demo_study.totals.to_dict("records"):
        assert percent(row["sparsity_model"]).replace("\u202f", " ") in text
    for title in (
        "Zeros per layer",
        "CSR relative to dense",
        "Magnitudes of one layer",
        "break-even at",
    ):
        assert title in text
    away = [u for u in opened.requests if not u.startswith((opened.server.home, "data:", "blob:"))]
    assert away == []
    assert opened.complaints == []
    wording = opened.page.locator(".sparsity-explorer [role=graphics-document]")
    assert "heat map of 4 blocks by 6 projections" in wording.get_attribute("aria-label")
    assert not opened.page.locator(".sx-still").is_visible()


def test_the_slider_by_keyboard(fresh, demo_study):
    slider = fresh.page.get_by_role("slider", name="Sparsity level")
    slider.focus()
    active = fresh.active_cell()
    for _ in range(12):
        fresh.page.keyboard.press("ArrowRight")
    fresh.until(lambda s: s["sparsity"] == 0.42)
    at = demo_study.at_level(0.42)
    assert fresh.card("Stored bytes as CSR") == times(
        at["csr_bytes"].sum() / at["dense_bytes"].sum()
    )
    zeros = 1 - at["nonzero"].sum() / at["total"].sum()
    assert fresh.card("whole model") == percent(zeros)
    ratio = at["csr_bytes"].sum() / at["dense_bytes"].sum()
    assert f"42.0 %: {ratio:.2f} ×" in fresh.drawn()
    assert fresh.state()["variant"] == "Masked at level"
    assert slider.get_attribute("aria-valuetext") == "42\u202f%"
    wording = fresh.page.get_by_role("status").filter(has_text="42\u202f% by global magnitude")
    assert "level" in wording.inner_text()
    assert fresh.active_cell() == active, "the arrow keys moved through the notebook"


def test_the_slider_by_mouse(fresh, demo_study):
    track = fresh.page.locator(".sparsity-explorer .sx-range").bounding_box()
    middle = track["y"] + track["height"] / 2

    def to(level):
        return track["x"] + 8 + (track["width"] - 16) * level / 0.99, middle

    fresh.page.mouse.move(*to(0.3))
    fresh.page.mouse.down()
    fresh.page.mouse.move(*to(0.75), steps=12)
    fresh.page.mouse.up()
    level = fresh.until(lambda s: s["sparsity"] >= 0.74)["sparsity"]
    fresh.page.wait_for_timeout(300)
    at = demo_study.at_level(level)
    assert fresh.card("Stored bytes as CSR") == times(
        at["csr_bytes"].sum() / at["dense_bytes"].sum()
    )
    assert at["csr_bytes"].sum() < at["dense_bytes"].sum()


PLACES = """() => {
    const root = document.querySelector(".sparsity-explorer");
    const top = root.getBoundingClientRect();
    const found = {};
    const see = (name, one) => {
        const box = one.getBoundingClientRect();
        found[name] = [box.left - top.left, box.top - top.top];
    };
    const parts = [".sx-level", ".sx-cards", ".sx-chart", ".sx-table", ".sx-detail"];
    for (const part of parts) see(part, root.querySelector(part));
    for (const role of ["legend", "title-text"])
        root.querySelectorAll(`.role-${role}`).forEach((one, at) => see(`${role} ${at}`, one));
    return found;
}"""
STATES = (
    "explorer.sparsity = 0.99",
    "explorer.variant = 'CSR at level'; explorer.metric = 'flops_per_token'",
    "explorer.modules = 'all'; explorer.grouping = 'projection'; explorer.metric = 'bytes_ratio'",
    "explorer.policy = 'N:4'; explorer.modules = 'norm'; explorer.grouping = 'block'",
    f"explorer.modules = 'prunable'; explorer.selection = {NAMES[3:7]!r}",
    "explorer.metric = 'difference'; explorer.sparsity = 0.7",
)


def test_nothing_moves(fresh):
    """Whatever level, metric, modules, policy or selection: all stands where it stood."""
    before = fresh.page.evaluate(PLACES)
    for code in STATES:
        fresh.python(code)
        fresh.settle()
        after = fresh.page.evaluate(PLACES)
        # A figure of one variant has no legend of variants.
        alone = "difference" in code
        assert len(after) == len(before) - alone
        for part, place in before.items():
            if alone and part.startswith("legend"):
                continue
            assert after[part] == pytest.approx(place, abs=1), (code, part)
    fresh.python("explorer.reset()")


def test_the_readout_takes_what_people_write(fresh):
    field = fresh.page.locator(".sx-readout")
    for text in ("45", "45%", "45 %", "0.45", "0,45"):
        fresh.python("explorer.sparsity = 0.3")
        fresh.until(lambda s: s["sparsity"] == 0.3)
        field.fill(text)
        field.press("Enter")
        fresh.until(lambda s: s["sparsity"] == 0.45)
        assert field.input_value() == "45\u202f%"
    field.fill("much")
    field.press("Enter")
    assert field.get_attribute("aria-invalid") == "true"
    assert fresh.state()["sparsity"] == 0.45


def test_ticks_stand_under_the_thumb_to_the_pixel(fresh):
    """The thumb's middle goes from 8 to the width less 8, and so do the ticks."""
    where = """() => {
        const range = document.querySelector(".sx-range").getBoundingClientRect();
        const middle = (one) => {
            const box = one.getBoundingClientRect();
            return [one.textContent, box.left + box.width / 2 - range.left];
        };
        return [range.width, [...document.querySelectorAll(".sx-scale > *")].map(middle)];
    }"""
    width, ticks = fresh.page.evaluate(where)
    texts = dict(ticks)
    for percents in (0, 25, 50, 75, 99):
        thumb = 8 + (width - 16) * percents / 99
        assert texts[f"{percents}\u202f%"] == pytest.approx(thumb, abs=0.5)
    assert any("breaks even at" in text for text in texts)


def test_a_level_is_marked_and_a_variant_is(fresh):
    shown = fresh.page.locator(".sparsity-explorer .sx-shown")
    for code, kind, hollow in (
        ("explorer.variant = 'CSR30'", "variant", True),
        ("explorer.sparsity = 0.6", "level", False),
    ):
        fresh.python(code)
        fresh.settle()
        assert shown.locator("b").inner_text() == kind
        slide = fresh.page.locator(".sx-slide").get_attribute("class")
        assert ("is-level" not in slide) is hollow
    # A variant's level asked for in the field shows the level.
    fresh.python("explorer.variant = 'CSR30'")
    fresh.until(lambda s: s["variant"] == "CSR30" and s["sparsity"] == 0.3)
    fresh.page.locator(".sx-readout").fill("30")
    fresh.page.locator(".sx-readout").press("Enter")
    fresh.until(lambda s: s["variant"] == "CSR at level")


def test_looking_at_one_layer_keeps_the_rest_and_the_table_its_scroll(fresh):
    table = fresh.page.locator(".sx-tall")
    table.evaluate("one => one.scrollTo(0, 90)")
    fresh.page.locator(".sx-table tbody tr").nth(8).click()
    fresh.until(lambda s: s["detail"] == fresh.state()["layers"][8])
    assert fresh.state()["selection"] == []
    assert fresh.page.locator(".sx-table tbody tr").count() == 24
    fresh.python("explorer.sparsity = 0.5")
    fresh.until(lambda s: s["sparsity"] == 0.5)
    assert table.evaluate("one => one.scrollTop") == pytest.approx(90, abs=1)


def test_the_curve_is_pulled_to_a_level_and_keys_say_what_is_shown(fresh):
    page = fresh.page
    fresh.python("explorer.metric, explorer.against = 'difference', 'Masked30'")
    fresh.until(lambda s: s["metric"] == "difference")
    left, right, middle = page.evaluate(
        """() => {
            const paths = [...document.querySelectorAll(".sparsity-explorer svg path")]
                .filter((path) => path.__data__?.datum?.kind === "pull");
            paths[0].scrollIntoView({block: "center"});
            const pulls = paths.map((path) => path.getBoundingClientRect());
            return [Math.min(...pulls.map((box) => box.left)),
                    Math.max(...pulls.map((box) => box.right)),
                    pulls[0].top + pulls[0].height / 2];
        }"""
    )
    page.mouse.move(left + 0.3 * (right - left), middle)
    page.mouse.down()
    page.mouse.move(left + 0.6 * (right - left), middle, steps=6)
    page.mouse.up()
    fresh.until(lambda s: (s["sparsity"], s["variant"]) == (0.6, "Masked at level"))
    keys = page.locator(".sx-keys")
    assert keys.get_attribute("aria-label").startswith("Map of Difference per layer")
    keys.focus()
    assert re.fullmatch(r".*k_proj: \+\d\d\.\d percentage points", keys.inner_text())


def test_names_beside_the_picture_and_legends_can_be_clicked(fresh):
    picture = fresh.page.locator(".sparsity-explorer .vega-embed")
    picture.locator(".role-axis-label text", has_text="fc2").first.click()
    fc2 = [name for name in NAMES if name.endswith("fc2")]
    fresh.until(lambda s: s["selection"] == fc2)
    assert "FLOPs of the selected layers (4)" in fresh.drawn()
    assert fresh.card("Sparsity of the selected prunable weights")
    picture.locator(".role-legend-label text", has_text="CSR30").click()
    fresh.until(lambda s: s["variant"] == "CSR30")


def test_cells_by_arrow_keys_and_steps_back(fresh):
    page = fresh.page
    page.locator(".sx-keys").focus()
    for key in ("ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    target = "model.decoder.layers.1.self_attn.v_proj"
    page.wait_for_function(
        "name => document.querySelector('.sx-keys').textContent.startsWith(name)", arg=target
    )
    page.keyboard.press("Enter")
    fresh.until(lambda s: s["selection"] == [target])
    assert page.evaluate("document.activeElement.className") == "sx-keys"
    page.keyboard.press("Control+z")
    fresh.until(lambda s: s["selection"] == [])
    page.keyboard.press("Control+Shift+z")
    fresh.until(lambda s: s["selection"] == [target])
    page.get_by_role("button", name="Undo", exact=True).click()
    fresh.until(lambda s: s["selection"] == [])


def test_one_stop_of_the_tab_key_per_control(fresh):
    """All rows of the table are one, walked by arrows, as the cells of the map are."""
    page = fresh.page
    assert page.locator(".sx-table tr[tabindex='0']").count() == 1
    row = page.locator(".sx-table tr[tabindex='0']")
    row.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    fresh.until(lambda s: s["detail"] == s["layers"][1])
    held = page.evaluate("document.activeElement.dataset.row !== undefined")
    assert held, "the keys were lost when the table was written anew"
    assert page.locator(".sx-table tr[tabindex='0']").count() == 1
    stops = page.evaluate(
        """() => [...document.querySelectorAll(".sx-chart [tabindex='0']")].length"""
    )
    assert stops == 1


def test_forced_colors_leave_the_slider_and_the_map(fresh):
    fresh.page.emulate_media(forced_colors="active")
    adjusted = "one => getComputedStyle(one).forcedColorAdjust"
    assert fresh.page.locator(".sparsity-explorer svg.marks").evaluate(adjusted) == "none"
    fresh.page.emulate_media(forced_colors="none")


def test_a_new_view_is_drawn_for_its_own_width(fresh):
    page = fresh.page
    page.evaluate("window.jupyterapp.commands.execute('notebook:create-output-view')")
    page.locator(".sparsity-explorer").nth(1).locator("svg.marks").wait_for(timeout=30_000)
    both = """() => {
        const roots = [...document.querySelectorAll(".sparsity-explorer")];
        return roots.map((root) => [root.dataset.width,
            root.querySelector(".sx-chart [data-width]")?.dataset.width,
            String(Math.floor(root.getBoundingClientRect().width))]);
    }"""
    page.wait_for_function(f"({both})().every(([a, b]) => a === b)", timeout=30_000)
    first, second = page.evaluate(both)
    assert first[1] != second[1]
    assert abs(int(second[1]) - int(second[2])) < 20
    page.evaluate("window.jupyterapp.shell.currentWidget.close()")
    page.wait_for_function("document.querySelectorAll('.sparsity-explorer').length === 1")
    page.evaluate(
        "window.jupyterapp.shell.activateById(document.querySelector('.jp-NotebookPanel').id)"
    )
    fresh.settle()


def test_brushing_the_map_selects_in_python(fresh):
    fresh.page.mouse.move(*fresh.cell(1, 0))
    fresh.page.mouse.down()
    fresh.page.mouse.move(*fresh.cell(2, 2), steps=8)
    fresh.page.mouse.up()
    kqv = [NAMES[6 * block + column] for block in (1, 2) for column in (0, 1, 2)]
    state = fresh.until(lambda s: set(s["selection"]) == set(kqv))
    assert set(state["layers"]) == set(kqv)
    fresh.page.locator(".sx-table", has_text="6 selected").wait_for()
    assert fresh.page.locator(".sx-table tbody tr").count() == 6
    # The brush goes when something else selects.
    width = "document.querySelector('.sparsity-explorer .brush_brush path').getBBox().width"
    assert fresh.page.evaluate(width) > 50
    fresh.python("explorer.selection = [explorer.layers()['module_name'][0]]")
    fresh.until(lambda s: len(s["selection"]) == 1)
    assert fresh.page.evaluate(width) == 0


def test_clicking_cells_bars_and_rows(fresh):
    fresh.page.mouse.click(*fresh.cell(3, 4))
    fresh.until(lambda s: s["selection"] == [NAMES[6 * 3 + 4]])
    fresh.page.locator(".sx-detail h3", has_text=NAMES[22]).wait_for()
    fresh.page.keyboard.down("Shift")
    fresh.page.mouse.click(*fresh.cell(0, 5))
    fresh.page.keyboard.up("Shift")
    fresh.until(lambda s: set(s["selection"]) == {NAMES[22], NAMES[5]})
    bars = fresh.page.locator(".sparsity-explorer .mark-rect.role-mark path[aria-label*='MLP']")
    bars.last.click()
    mlp = {name for name in NAMES if "fc" in name}
    state = fresh.until(lambda s: set(s["selection"]) == mlp)
    assert set(state["layers"]) == mlp
    fresh.page.locator(".sx-table tbody tr", has_text="layers.2.fc2").click()
    state = fresh.until(lambda s: s["detail"] == "model.decoder.layers.2.fc2")
    assert set(state["selection"]) == mlp
    fresh.page.locator(".sx-detail h3", has_text="layers.2.fc2").wait_for()


def test_search_and_metric_by_keyboard(fresh):
    field = fresh.page.locator(".sx-controls:not(.sx-tools) input[type=text]")
    field.click()
    active = fresh.active_cell()
    # In command mode these letters would delete and insert cells.
    fresh.page.keyboard.type("ddb")
    fresh.until(lambda s: s["search"] == "ddb")
    assert "no module name contains “ddb”" in fresh.page.locator(".sx-add").inner_text()
    field.fill("V_PROJ")
    fresh.until(lambda s: len(s["selection"]) == 4)
    assert all("v_proj" in name for name in fresh.state()["selection"])
    fresh.choose("Metric").focus()
    fresh.page.keyboard.press("ArrowDown")
    fresh.until(lambda s: s["metric"] == "total")
    fresh.page.locator(".vega-embed text", has_text="Parameters per layer").wait_for()
    fresh.choose("Metric").select_option("Bytes ÷ dense bytes")
    fresh.until(lambda s: s["metric"] == "bytes_ratio")
    assert fresh.active_cell() == active
    assert fresh.page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length") == 3


def test_python_moves_the_view(fresh):
    fresh.python(
        "explorer.sparsity = 0.65; explorer.metric = 'flops_per_token'\n"
        f"explorer.selection = [{NAMES[8]!r}]"
    )
    fresh.until(lambda s: s["selection"] == [NAMES[8]])
    page = fresh.page
    assert page.locator(".sx-readout").input_value() == "65\u202f%"
    assert "FLOPs per token per layer" in fresh.drawn()
    assert page.locator(".sx-table tbody tr").count() == 1
    assert NAMES[8] in page.locator(".sx-detail h3").inner_text()


def test_budget_bounds_and_copies_by_keyboard(fresh):
    page = fresh.page
    fresh.context.grant_permissions(["clipboard-read", "clipboard-write"])
    budget = page.locator(".sx-tools input[type=text]")
    budget.fill("0.5 × FLOPs")
    budget.press("Enter")
    fresh.until(lambda state: state["sparsity"] == 0.59)
    wording = page.locator(".sx-add [role=status]")
    assert "within 0.50" in wording.inner_text()
    hold, copy = (page.locator(".sx-tools button", has_text=text) for text in ("Apply", "Copy"))
    hold.press("Enter")
    page.locator(
        ".sx-add [role=status]", has_text="1 layer or group has a sparsity bound"
    ).wait_for()
    fresh.settle()
    assert fresh.state()["sparsity"] == 0.59
    shown = page.locator(".sx-state").inner_text()
    assert "with bounds" in shown
    copy.press("Enter")
    page.locator(".sx-add [role=status]", has_text="copied: Python").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("import sparsity_report as sr")
    assert "explorer.bounds = {" in text
    budget.fill("")
    budget.press("Enter")


SCORED = """
import sys
sys.path.append({tests!r})
from measurements import put_in, quality
more = sr.masked(sr.global_magnitude(weights, 0.7))
scores = quality(((0.0, 10.0), (0.3, 12.5), (0.7, 40.0)), ("Dense", "Masked30", "Masked70"))
explorer.reset()
scored = sr.explore(put_in(study.with_variants(more), quality=scores))
def told(_=None):
    shown = json.dumps([scored.variant, scored.sparsity])
    pathlib.Path("scored.json").write_text(shown)
scored.observe(told, ["sparsity", "variant"])
told()
display(scored)
"""


class Curve:
    """The quality curve of a second explorer in the same notebook."""

    def __init__(self, session):
        self.session, self.page = session, session.page
        self.root = self.page.locator(".sparsity-explorer").last
        self.marks = self.root.locator("path[aria-roledescription=point]:not([fill=none])")
        self.slider = self.root.get_by_role("slider", name="Quality against bytes")

    def mark(self, name):
        for path in self.marks.all():
            if f"variant: {name}" in (path.get_attribute("aria-label") or ""):
                box = path.bounding_box()
                return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        raise AssertionError(f"no mark of {name}")

    def until(self, wanted):
        end, shown = time.monotonic() + 20, None
        while time.monotonic() < end:
            path = self.session.server.work / "scored.json"
            with suppress(OSError, ValueError):
                shown = json.loads(path.read_text())
                if wanted(*shown):
                    self.session.settle()
                    return shown
            self.page.wait_for_timeout(50)
        raise AssertionError(f"the kernel never got there: {shown}")


def run_last(session, code):
    """Run code in the last cell of the notebook."""
    session.page.evaluate(
        """code => {
            const { content } = window.jupyterapp.shell.currentWidget;
            content.model.sharedModel.getCell(2).setSource(code);
            content.activeCellIndex = 2;
            return window.jupyterapp.commands.execute('notebook:run-cell');
        }""",
        code,
    )


@pytest.fixture(scope="class")
def curve(opened):
    run_last(opened, SCORED.format(tests=str(Path(__file__).parents[1] / "support")))
    built = Curve(opened)
    opened.page.locator(".sparsity-explorer svg.marks").nth(1).wait_for(timeout=60_000)
    built.marks.first.scroll_into_view_if_needed()
    yield built
    run_last(opened, "scored.close()")
    opened.page.locator(".sparsity-explorer").nth(1).wait_for(state="detached")


class TestQualityCurve:
    def test_it_is_pulled_by_mouse(self, curve):
        """It lands on levels by their bytes, and on a measured variant when near to it."""
        mouse = curve.page.mouse
        (left, high), (right, low) = curve.mark("Masked70"), curve.mark("Dense")
        assert left < right
        assert high < low  # a larger perplexity stands higher
        mouse.move(right, low)
        mouse.down()
        assert curve.until(lambda variant, _: variant == "Dense")
        mouse.move(left + 0.4 * (right - left), low, steps=6)
        # On its way it passes levels that are none to stay at.
        at = pytest.approx(0.7 - 0.4 * 0.7, abs=0.03)
        curve.until(lambda variant, level: variant.endswith("at level") and level == at)
        curve.root.locator(".vega-embed", has_text="not measured").wait_for()
        mouse.move(left + 2, low - 20, steps=3)
        curve.until(lambda variant, level: (variant, level) == ("Masked70", 0.7))
        mouse.up()
        curve.root.locator(".vega-embed", has_text="perplexity: 40.0").wait_for()
        # Without a button nothing is pulled.
        mouse.move(right, low, steps=3)
        curve.page.wait_for_timeout(300)
        curve.until(lambda variant, _: variant == "Masked70")

    def test_it_is_walked_by_keys_and_switched(self, curve):
        page = curve.page
        mouse_at = curve.mark("Masked30")
        page.mouse.click(*mouse_at)
        curve.until(lambda variant, _: variant == "Masked30")
        curve.slider.focus()
        assert "perplexity: 12.5" in curve.slider.get_attribute("aria-valuetext")
        page.keyboard.press("PageDown")
        curve.until(lambda variant, _: variant == "Masked70")
        # The picture was drawn anew in between, and kept the keys.
        page.keyboard.press("ArrowRight")
        curve.until(lambda variant, level: variant.endswith("at level") and 0.68 <= level <= 0.7)
        page.keyboard.press("End")
        curve.until(lambda variant, level: variant.endswith("at level") and level == 0)
        boxes = curve.root.locator(".role-title-text, .sx-cards, .sx-below")
        before = [box.bounding_box() for box in boxes.all()]
        menu = curve.root.locator(".sx-controls .widget-dropdown", has_text="Curve").locator(
            "select"
        )
        menu.select_option("bytes")
        curve.root.locator(".vega-embed", has_text="CSR relative to dense").wait_for()
        curve.session.settle()
        assert [(b["x"], b["y"]) for b in before] == [
            (box["x"], box["y"]) for box in (one.bounding_box() for one in boxes.all())
        ]
        assert not curve.slider.is_visible()
        assert curve.session.complaints == []


def test_a_level_becomes_an_exact_variant(fresh, demo):
    fresh.python("explorer.sparsity = 0.57")
    fresh.until(lambda s: s["sparsity"] == 0.57)
    fresh.page.get_by_role("button", name="Add as variants").click()
    state = fresh.until(lambda s: s["variant"] == "CSR57")
    assert state["variants"] == ["Dense", "Masked30", "CSR30", "Masked57", "CSR57"]
    totals = sr.compare(sr.csr(sr.global_magnitude(demo, 0.57))).totals
    row = fresh.page.locator(".sx-totals tbody tr", has_text="CSR57").first.inner_text()
    assert percent(totals["sparsity_model"][0]) in row
    assert "CSR57" in fresh.choose("Show").inner_text()


def luminance(channels):
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in channels)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(page, selector, target_="fill"):
    """WCAG contrast of an element's color against the notebook's paper."""
    ink, paper = page.evaluate(
        """([selector, what]) => {
            const box = document.createElement("canvas").getContext("2d");
            const rgb = (color) => {
                box.clearRect(0, 0, 1, 1); box.fillStyle = color; box.fillRect(0, 0, 1, 1);
                return [...box.getImageData(0, 0, 1, 1).data].slice(0, 3);
            };
            const style = getComputedStyle(document.querySelector(selector));
            const paper = getComputedStyle(document.querySelector(".jp-NotebookPanel-notebook"));
            return [rgb(style[what]), rgb(paper.backgroundColor)];
        }""",
        [selector, target_],
    )  # fmt: skip
    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
@pytest.mark.parametrize("width", [800, 1600])
def test_readable_at_both_widths_and_in_both_themes(fresh, theme, width, tmp_path):
    page = fresh.page
    page.set_viewport_size({"width": width, "height": 1500})
    fresh.theme(theme)
    fresh.settle()
    page.screenshot(path=tmp_path / f"{width}-{theme}.png")
    for selector in (
        ".sparsity-explorer .role-axis-label text",
        ".sparsity-explorer .role-title-text text",
        '.sparsity-explorer .mark-rect path[fill="#000000"]',
    ):
        assert contrast(page, selector) > 7, selector
    assert contrast(page, ".sx-words p", "color") > 7
    # The picture has been drawn anew for this width.
    page.wait_for_function(
        """() => {
            const root = document.querySelector(".sparsity-explorer");
            const drawn = root.querySelector(".sx-chart [data-width]");
            const wide = Math.floor(root.getBoundingClientRect().width);
            return drawn?.dataset.width === root.dataset.width
                && Math.abs(Math.max(320, wide) - root.dataset.width) < 18;
        }""",
        timeout=60_000,
    )
    sizes = page.evaluate(
        """() => {
            const root = document.querySelector(".sparsity-explorer");
            const chart = root.querySelector(".sx-chart");
            // Its own width: the page would shrink one that is too wide.
            const own = Number(root.querySelector("svg.marks").getAttribute("width"));
            return [own - chart.clientWidth, root.scrollWidth - root.clientWidth];
        }"""
    )
    assert max(sizes) <= 2, "something stands beyond the right edge"
    overlaps = page.evaluate(
        """() => {
            const found = [];
            for (const role of ["role-axis-label", "role-title-text", "role-axis-title"])
                found.push(...document.querySelectorAll(`.sparsity-explorer .${role} text`));
            const seen = found.filter((t) => t.textContent && t.getAttribute("opacity") !== "0"
                && !/rotate/.test(t.getAttribute("transform")));
            const boxes = seen.map((t) => [t.textContent, t.getBoundingClientRect()]);
            const hit = [];
            boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
                if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3
                    && q.top < p.bottom - 3) hit.push(`${a} / ${b}`);
            }));
            return hit;
        }"""
    )
    assert overlaps == []


def test_saved_it_is_small_and_opens_as_a_picture(browser, lab, opened):
    cells = STUDY, "e = sr.explore(study); e"
    with Session(browser, lab, "saved.ipynb", *cells, kernel_of=opened) as session:
        # The last state is what is kept.
        session.python("e.sparsity = 0.77")
        session.page.locator(".sx-still .sx-shown", has_text="77").wait_for(
            state="attached", timeout=30_000
        )
        session.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        session.page.wait_for_timeout(1500)
    saved = session.path.read_text(encoding="utf-8")
    assert "data:image/png;base64," in saved
    assert session.path.stat().st_size < 200_000
    # Another name has another kernel, which knows no widget.
    session.path.with_name("copy.ipynb").write_text(saved, encoding="utf-8")
    again = browser.new_context(viewport={"width": 1200, "height": 1000})
    page = again.new_page()
    page.goto(lab.url("copy.ipynb"))
    page.locator(".sx-still img").wait_for(timeout=60_000)
    page.wait_for_timeout(3000)
    assert page.locator(".sx-still img").bounding_box()["height"] > 300
    shown = page.locator(".sx-still .sx-shown").inner_text().replace("\u202f", " ")
    assert "77 % by global magnitude" in shown
    page.evaluate(
        "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    page.wait_for_function(
        "getComputedStyle(document.querySelector('.sx-still img')).filter.startsWith('brightness')"
    )
    assert page.locator(".sx-still").inner_text().count("CSR30 stores") == 1
    shown = page.locator(".jp-OutputArea").all_inner_texts()
    assert not any(re.search(r"error|not found|loading widget", text, re.I) for text in shown)
    again.close()


KEYS = "script image jinja attribute override longest math proto constructor hebrew"
KEYS = (*KEYS.split(), "vega datum", "windows path", "terminal clear", "no width")
HOSTILE = [TEXTS[key].replace(".", "·") for key in KEYS]
HOSTILE_STUDY = f"""
import torch, sparsity_report as sr
from torch import nn
names = {HOSTILE!r}
blocks = [nn.ModuleDict({{name: nn.Linear(6, 8) for name in names}}) for _ in range(3)]
weights = sr.load(nn.ModuleDict({{"layers": nn.ModuleList(blocks)}}), name="".join(names[:3]))
pruning = sr.global_magnitude(weights, 0.3)
study = sr.compare(sr.dense(weights, name=names[0]), sr.masked(pruning, name=names[1]),
                   sr.csr(pruning, name=names[5]))
"""


def test_hostile_names_are_text(browser, lab, opened):
    cells = HOSTILE_STUDY, SHOW
    with Session(browser, lab, "hostile.ipynb", *cells, kernel_of=opened) as session:
        session.until(lambda s: len(s["layers"]) == 3 * len(HOSTILE))
        page = session.page
        wording = page.locator(".sparsity-explorer").inner_text()
        for text in HOSTILE:
            assert printable(text, 30)[:29] in wording, ascii(text)
        assert UNSEEN.findall(wording.replace("\t", "")) == []
        assert page.locator(".sparsity-explorer img").count() == 0
        page.mouse.move(*session.cell(0, 1))
        page.locator("#vg-tooltip-element.visible").wait_for()
        assert page.locator("#vg-tooltip-element img").count() == 0
        for label in ("Show", "Modules", "Bars by"):
            options = session.choose(label).locator("option").all_inner_texts()
            for option in options:
                session.choose(label).select_option(option)
        session.settle()
        assert page.evaluate("window.hacked") is None
        assert session.complaints == []
        wide = "document.querySelector('.sparsity-explorer')"
        assert page.evaluate(f"{wide}.scrollWidth - {wide}.clientWidth") <= 2


def test_runs_in_notebook_7(browser, lab, opened):
    """In Voilà, tests/test_explore.py runs it."""
    cells = STUDY, "sr.explore(study)"
    with Session(browser, lab, "seven.ipynb", *cells, kernel_of=opened, app="notebook") as session:
        page = session.page
        assert page.evaluate("window.jupyterapp.name") == "Jupyter Notebook"
        check_slider_moves(page)
        away = [u for u in session.requests if not u.startswith((lab.home, "data:", "blob:"))]
        assert away == []
        # Notebook 7 complains of commands that JupyterLab alone has.
        assert not [c for c in session.complaints if not re.search("schema|not registered", c)]
