"""The viewer in a page without a kernel, used as a person does: mouse, keys, files, damage."""

import base64
import csv
import gzip
import io
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations, pairwise

import experts as mixtures
import hostile as names
import numpy as np
import pytest
import smaller_mixtures
import torch
from browser import drawn, violations
from measurements import put_in, quality
from pairs import gone, two_policies
from torch import nn
from viewer_pages import PAGE, Page

import sparsity_report as sr
from sparsity_report.study.sweep import with_level
from sparsity_report.viewer.embed import asset, embed, widget_module
from sparsity_report.viewer.study_payload import study_payload
from sparsity_report.words.number_format import percent


def experts(blocks, count):
    """A model of blocks with four matrices and three of each expert."""
    torch.manual_seed(0)
    top = nn.Module()
    top.layers = nn.ModuleList()
    for _ in range(blocks):
        block = nn.Module()
        block.attn = nn.ModuleDict({key: nn.Linear(8, 8, bias=False) for key in "qkvo"})
        parts = [
            nn.ModuleDict(
                {key: nn.Linear(8, 6, bias=False) for key in ("gate_proj", "up_proj", "down_proj")}
            )
            for _ in range(count)
        ]
        block.experts = nn.ModuleList(parts)
        top.layers.append(block)
    return sr.load(top, name="experts")


@pytest.fixture(scope="module")
def study():
    weights = sr.load()
    pruning = sr.global_magnitude(weights, 0.3)
    other = sr.layerwise_magnitude(weights, 0.5)
    variants = (sr.dense(weights), sr.masked(pruning), sr.csr(pruning), sr.csr(other))
    return sr.compare(*variants, patterns=True)


@pytest.fixture
def opened(chromium, tmp_path, study):
    with Page(chromium, tmp_path, study_payload(study)) as page:
        yield page
        assert page.complaints == []
        assert [
            url for url in page.requests if not url.startswith(("file:", "blob:", "data:"))
        ] == []


def test_one_screen(chromium, tmp_path, study):
    for width in (1440, 1000):
        with Page(chromium, tmp_path, study_payload(study), width) as page:
            box = page.page.locator(".sparsity-viewer").bounding_box()
            assert box["height"] <= 640
            assert page.page.locator(".sv-map").bounding_box()["y"] < box["y"] + 120
            bar = page.page.locator(".sv-bar").bounding_box()
            assert bar["height"] < 50
    with Page(chromium, tmp_path, study_payload(study), 390) as page:
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_selection_is_one(opened):
    cells = opened.page.locator(".sv-cell")
    assert cells.count() == 24
    cells.nth(5).click()
    (first,) = opened.state["selection"]
    assert opened.state["detail"] == first
    assert opened.page.locator(".sv-row.sv-detail").count() <= 1
    opened.page.locator(".sv-row").nth(3).click(modifiers=["Control"])
    assert len(opened.state["selection"]) == 2
    assert "2" in opened.page.locator(".sv-sum").inner_text()
    # Shift selects from the last row that was clicked, in either direction.
    names = opened.run("viewer.table.rows.map((i) => viewer.figures.modules.names[i])")
    for row, key, wanted in (
        (3, None, [3]),
        (1, "Shift", [3, 2, 1]),
        (4, "Shift", [3, 4]),
        (1, "Control", [3, 4, 1]),
        (2, "Shift", [1, 2]),
    ):
        opened.page.locator(".sv-row").nth(row).click(modifiers=[key] if key else [])
        assert opened.state["selection"] == [names[k] for k in wanted]
    opened.page.locator(".sv-clear").click()
    assert opened.state["selection"] == []
    # A drag selects all cells that it touches.
    (a, b) = (cells.nth(k).bounding_box() for k in (0, 9))  # rows of four blocks
    opened.page.mouse.move(a["x"] + 4, a["y"] + 4)
    opened.page.mouse.down()
    opened.page.mouse.move(b["x"] + 4, b["y"] + 4, steps=4)
    opened.page.mouse.up()
    assert len(opened.state["selection"]) == 6


def test_search_sorts_and_undoes(opened):
    opened.page.locator(".sv-search").fill("fc1")
    assert [row[0] for row in opened.rows()] == [f"{k}.fc1" for k in range(4)]
    opened.page.locator(".sv-search").press("Enter")
    assert len(opened.state["selection"]) == 4
    opened.page.locator(".sv-search").fill("")
    opened.page.locator("[data-sort=sparsity]").click()
    shares = [float(row[1].split()[0]) for row in opened.rows()]
    assert shares == sorted(shares, reverse=True)
    opened.page.wait_for_timeout(400)
    opened.page.locator(".sv-undo").click()
    opened.page.locator(".sv-undo").click()
    assert opened.state["sort"] == ""
    opened.page.locator(".sv-redo").click()
    opened.page.locator(".sv-redo").click()
    assert opened.state["sort"] == "-sparsity"


def openings(demo, folder):
    """Yield studies, the variant that each verdict is about, and its layout and share of zeros."""
    levels = [sr.global_magnitude(demo, share) for share in (0.3, 0.5)]
    half = sr.write_checkpoint(sr.masked(levels[1]), folder / "half")
    variants = [make(pruning) for make in (sr.masked, sr.csr) for pruning in levels]
    yield sr.compare(sr.dense(demo), *variants), "CSR50", "csr", 0.5
    # The level of the verdict is the highest one, though another one has a CSR variant.
    yield sr.compare(sr.dense(demo), *variants[1:3]), "Masked50", "dense", 0.5
    yield sr.compare(sr.dense(demo), sr.dense(sr.load(half), name="Also")), "Also", "dense", 0.5
    between = sr.csr(sr.layerwise_magnitude(demo, 0.4137), name="Between")
    share = sr.compare(between).totals["sparsity_prunable"].iloc[0]
    yield sr.compare(sr.dense(demo), between), "Between", "csr", share
    smaller_mixtures.saved(folder / "mixture", "Mixtral")
    mixture = sr.load(folder / "mixture", name="mixture")
    yield sr.compare(sr.dense(mixture)), "Dense", "dense", 0.0
    six = sr.without_experts(smaller_mixtures.keep(mixture), name="Six")
    yield sr.compare(sr.dense(mixture), six), "Six", "dense", 0.0


def test_the_viewer_opens_on_the_variant_of_the_verdict(chromium, tmp_path, demo):
    for study, name, layout, share in openings(demo, tmp_path):
        with Page(chromium, tmp_path, study_payload(study)) as page:
            state = page.state
            assert (state["variant"], state["layout"]) == (name, layout)
            assert state["sparsity"] == pytest.approx(share, abs=0.005)
            assert page.page.locator(".sv-level").input_value() == percent(share, space=" ")
            slider = page.page.locator(".sv-slider")
            last = study.by_policy[state["policy"]].sparsities[-1]
            at = float(slider.input_value()) / float(slider.get_attribute("max")) * last
            assert at == pytest.approx(share, abs=1e-9)
            # The first key press moves to a level, the next one to its neighbor.
            slider.press("ArrowRight")
            slider.press("ArrowRight")
            assert page.state["variant"] == "at level"
            assert share < page.state["sparsity"] < share + 0.021


def typed(opened, field, content):
    """Type into a field of the viewer and return the notice."""
    opened.page.locator(field).fill(content)
    opened.page.locator(field).press("Enter")
    return opened.page.locator(".sv-notice").inner_text()


def test_a_budget_moves_the_slider(opened, study):
    opened.set(variant="at level", layout="csr", sparsity=0.3)
    places = {
        key: sr.level_within(study, "2 MB", layout=key).sparsity for key in ("csr", "bitmask")
    }
    notice = typed(opened, ".sv-budget", "2 MB")
    assert "At most 2.00 MB:" in notice
    for key, name in (("csr", "as CSR"), ("bitmask", "as bitmask")):
        assert f"{percent(places[key], 0, ' ')} {name}" in notice
    assert (opened.state["sparsity"], opened.state["layout"]) == (places["csr"], "csr")
    # A layout that cannot keep the budget stays in view, and the slider where it is.
    opened.set(layout="dense", sparsity=0.3)
    assert "Stored dense, no level is within 2.00 MB. These are: " in typed(
        opened, ".sv-budget", "2 MB"
    )
    assert (opened.state["sparsity"], opened.state["layout"]) == (0.3, "dense")
    opened.page.locator(".sv-notice button", has_text="bitmask").click()
    assert (opened.state["sparsity"], opened.state["layout"]) == (places["bitmask"], "bitmask")
    assert "out of reach" in typed(opened, ".sv-budget", "1 kB")
    unread = typed(opened, ".sv-budget", "60")
    assert "is not a budget" in unread
    assert "perplexity" not in unread  # none was measured
    assert (opened.state["sparsity"], opened.state["layout"]) == (places["bitmask"], "bitmask")


def test_a_budget_goes_with_its_answer(opened):
    field = opened.page.locator(".sv-budget")
    typed(opened, ".sv-budget", "2 MB")
    opened.set(search="fc1")
    opened.page.locator(".sv-search").focus()
    opened.set(sort="module")
    assert field.input_value() == "2 MB"
    opened.page.locator(".sv-undo").focus()
    opened.set(sparsity=0.3)
    drawn(opened.page)
    assert field.input_value() == ""
    typed(opened, ".sv-budget", "1 kB")
    assert typed(opened, ".sv-budget", "") == ""
    opened.page.locator(".sv-search").focus()
    opened.set(sparsity=0.4)
    assert field.input_value() == ""


def test_patterns_have_no_other_levels(opened):
    opened.set(policy="N:4", sparsity=0.5)
    opened.set(variant="at level")
    notice = typed(opened, ".sv-level", "60")
    assert notice == "N:4 patterns have no level of 60 %; the nearest is 2:4."


def test_a_level_becomes_no_variant_without_a_kernel(opened):
    opened.set(variant="at level", sparsity=0.3)
    button = opened.page.locator(".sv-add")
    assert button.is_disabled()
    assert button.inner_text() == "Save as variants (needs a kernel)"


def test_the_example_of_a_budget_is_one_of_this_model(opened):
    example = opened.page.locator(".sv-budget").get_attribute("placeholder")
    assert example == "Budget: 2.30 MB"  # of 3.83 MB
    assert "At most 2.30 MB:" in typed(opened, ".sv-budget", example.removeprefix("Budget: "))


def test_typed_levels_are_shown_or_refused(opened):
    """Without a kernel, the nearest kept level is named."""
    opened.set(variant="at level", sparsity=0.3)
    for content, level in {"64": 0.64, "63,0 %": 0.63, " 7%": 0.07, "0": 0.0}.items():
        assert typed(opened, ".sv-level", content) == ""
        assert opened.state["sparsity"] == level
    notice = typed(opened, ".sv-level", "63.7")
    assert notice == "63.7 % is not kept on this page; the nearest level is 64 %."
    assert (opened.state["sparsity"], opened.page.locator(".sv-level").input_value()) == (
        0.64, "64 %"
    )  # fmt: skip
    for content in ("150", "100", "abc", "-3", "1e1", "99.99999"):
        assert f"“{content}” is not a level" in typed(opened, ".sv-level", content)
        assert opened.state["sparsity"] == 0.64
    assert "in steps of" not in opened.sentence
    opened.set(policy="N:4")
    assert opened.sentence.endswith("Levels are in steps of 25 %.")


def test_arrow_keys_move_to_the_next_level(chromium, tmp_path, study):
    """Levels that were added are between the steps."""
    longer = replace(study, levels=with_level(study.levels, study.weights, 0.637))
    with Page(chromium, tmp_path, study_payload(longer)) as page:
        page.set(variant="at level", sparsity=0.63)
        slider = page.page.locator(".sv-slider")
        for key, level in (("ArrowRight", 0.637), ("ArrowUp", 0.64), ("ArrowLeft", 0.637)):
            slider.press(key)
            assert page.state["sparsity"] == level
        assert page.page.locator(".sv-level").input_value() == "63.7 %"


def test_errors_of_a_level_stand_beside_its_figures(opened, demo):
    """The exact pruning is within the error of each cell, of the details and of the selection."""
    opened.set(variant="at level", sparsity=0.6, layout="csr")
    exact = sr.masked(sr.global_magnitude(demo, 0.6)).layers()
    exact = exact[exact["prunable"]].head(4)
    shares = 100 * (1 - exact["weight_nonzero"] / exact["weight_total"])
    for row, share in zip(opened.rows(), shares, strict=False):
        value, error = map(float, re.findall(r"[\d.]+", row[1]))
        assert "±" in row[1]
        assert abs(value - share) <= error + 0.05
        assert error < 1
        for cell in row:  # as many digits in the error as in the value
            for one, other in re.findall(r"([\d.]+) ±\s([\d.]+)", cell):
                assert len(one.partition(".")[2]) == len(other.partition(".")[2]), cell
    assert "±" not in opened.sentence  # the zeros of the whole model are known
    names = list(exact["module_name"].head(2))
    opened.set(selection=names)
    chosen = exact.head(2)
    share = 100 * (1 - chosen["weight_nonzero"].sum() / chosen["weight_total"].sum())
    text = opened.page.locator(".sv-sum").inner_text()
    value, error = map(float, re.search(r"([\d.]+) ±\s([\d.]+) % of", text).groups())
    assert abs(value - share) <= error + 0.05


def smallest(sizes, share):
    """Where the smallest magnitudes are, a share of all."""
    k = round(share * sizes.size)
    return sizes <= np.partition(sizes.ravel(), k - 1)[k - 1]


def test_a_score_stands_beside_that_of_dense(chromium, tmp_path, demo):
    pruning, more = sr.global_magnitude(demo, 0.3), sr.global_magnitude(demo, 0.9)
    names = ("Dense", "Masked30", "M90")
    plain = sr.compare(sr.dense(demo), sr.masked(pruning), sr.masked(more, name="M90"))
    scores = quality(((0.0, 10.0), (0.3, 12.5), (0.9, 99.0)), names)
    scored = put_in(plain, quality=scores.assign(perplexity=[10.0, 12.5, math.inf]))
    with Page(chromium, tmp_path, study_payload(scored)) as page:
        page.set(variant="Masked30")
        assert "12.5 (dense 10.0)" in page.sentence
        page.set(sparsity=0.3)
        assert page.state["variant"] == "at level"
        assert "12.5 (dense 10.0)" in page.sentence
        page.set(sparsity=0.31)
        assert "was not scored" in page.sentence
        page.set(policy="layerwise_magnitude", sparsity=0.3)
        assert "was not scored" in page.sentence


def test_levels_that_fit_two_of_four(opened, demo):
    """As the largest magnitudes of every group have it."""
    sizes = np.abs(np.asarray(demo.tensor(demo.prunable[0].name)))
    for n, m in [(kept, group) for group in (4, 8) for kept in range(1, group)]:
        ranks = sizes.reshape(-1, m).argsort(axis=1).argsort(axis=1)
        kept = (ranks >= m - n).reshape(-1, 4)
        opened.set(policy=f"N:{m}", sparsity=1 - n / m)
        fits = opened.run(
            "viewer.figures.layouts(viewer.store.state, viewer.store.state.detail).at(-1).fits"
        )
        assert fits == (kept.sum(axis=1).max() <= 2), (n, m)


def test_levels_keep_the_two_of_four_that_a_model_has(chromium, tmp_path, demo):
    """A level adds zeros; other levels fit only if their positions do, which counts do not tell."""
    came = sr.load(sr.masked(sr.n_m(demo, 2, 4)).module())
    known = {}
    for study in (sr.compare(sr.dense(w), patterns=p) for w in (came, demo) for p in (True, False)):
        with Page(chromium, tmp_path, study_payload(study)) as page:
            for level in (0.3, 0.8):
                page.set(policy="global_magnitude", sparsity=level)
                layouts = "viewer.figures.layouts(viewer.store.state, viewer.store.state.detail)"
                known.setdefault(level, []).append(page.run(f"{layouts}.at(-1).fits"))
    assert known == {0.3: [True, None, False, False], 0.8: [True, None, None, None]}


def test_flops_of_the_cost_curve_are_as_csr_beside_bytes_of_any_layout(opened, study):
    rows = study.at_level(0.99)
    least = rows["csr_flops_per_token"].sum() / rows["flops_per_token"].sum()
    for layout in ("csr", "bitmask", "dense"):
        opened.set(policy="global_magnitude", layout=layout, panel="costs")
        path = opened.page.locator(".sv-details path[stroke-dasharray]").get_attribute("d")
        heights = [216 - float(y) for y in re.findall(r"[ML]\S+ ([\d.]+)", path)]
        assert len(heights) == 100
        assert heights[-1] / heights[0] == pytest.approx(least, abs=0.005)


@pytest.mark.parametrize("layout", ["csr", "bitmask"])
def test_texts_of_the_cost_curve_do_not_overlap(opened, layout):
    for sparsity in (0.05, 0.3, 0.5, 0.67, 0.95):
        opened.set(panel="costs", variant="at level", sparsity=sparsity, layout=layout)
        boxes = opened.page.locator(".sv-details svg text").evaluate_all(
            "all => all.map((one) => one.getBBox()).map(({ x, y, width, height }) => "
            "({ x, y, width, height }))"
        )
        assert len(boxes) > 10
        for one, other in combinations(boxes, 2):
            across, down = (
                min(one[at] + one[size], other[at] + other[size]) - max(one[at], other[at])
                for at, size in (("x", "width"), ("y", "height"))
            )
            assert min(across, down) <= 2, (one, other)


def test_names_sort_by_their_numbers_in_page_and_kernel(chromium, tmp_path):
    study = sr.compare(sr.dense(experts(12, 1)))
    state = {"sort": "-module", "search": "attn.k"}
    with Page(chromium, tmp_path, study_payload(study)) as page:
        page.set(**state)
        shown = [row[0].split(".")[0] for row in page.rows()]
    explorer = sr.explore(study)
    explorer.select(**state)
    blocks = [name.split(".")[1] for name in explorer.layers()["module_name"]]
    assert blocks == [str(block) for block in range(11, -1, -1)]
    assert shown == blocks[: len(shown)]
    assert len(shown) > 2


STATES = (
    {"variant": "Masked30"},
    {"variant": "CSR50Layerwise", "metric": "difference", "against": "CSR30"},
    {"policy": "N:4", "sparsity": 0.75, "layout": "dense", "sort": "-sparsity"},
    {"variant": "at level", "sparsity": 0.3, "search": "fc1 null", "modules": "all"},
    {"variant": "Masked30", "layout": "csr", "selection": ["model.decoder.layers.2.fc1"]},
)


@pytest.mark.parametrize("state", STATES, ids=str)
def test_copied_code_shows_the_same(opened, state):
    for name, value in state.items():
        opened.set(**{name: value})
    shown = opened.state
    names = {}
    exec(opened.run("(viewer.tools.clip = String, viewer.tools.copy('python'))"), names)
    explorer = names["explorer"]
    if not state.get("selection"):
        del shown["detail"]  # without a selection, the page chooses it
    assert explorer.state | shown == explorer.state
    if shown["variant"] == "at level":
        method = names["pruning"].method
        assert shown["policy"] == method or shown["sparsity"] == 1 - int(method[0]) / 4
        assert names["pruning"].pruned == round(shown["sparsity"] * 786_432)


def test_commands_are_copied_where_the_command_line_prunes_so(opened):
    opened.page.evaluate(
        """() => {
            const { tools } = document.querySelector(".sparsity-viewer").viewer;
            tools.clip = (text) => { window.copied = text; };
        }"""
    )
    opened.page.locator(".sv-form").select_option("command")
    states = {
        "--sparsity 0.3 --policy magnitude": {"variant": "CSR30"},
        "--sparsity 0.5 --policy layerwise": {"variant": "CSR50Layerwise"},
        "--sparsity 0.45 --policy magnitude": {"policy": "global_magnitude", "sparsity": 0.45},
        "--policy 2:4": {"policy": "N:4", "sparsity": 0.5},
    }
    for pruning, state in states.items():
        opened.set(**state)
        opened.page.locator(".sv-copy").click()
        words = f"sparsity-report run {pruning} --out results\n"
        assert opened.page.evaluate("window.copied") == words
    opened.set(variant="Dense")
    opened.page.locator(".sv-copy").click()
    assert "No command repeats this" in opened.page.locator(".sv-notice").inner_text()


FOCUSED = """() => {
    const one = document.activeElement, box = one.getBoundingClientRect();
    const part = ["bar", "said", "left", "right", "selection", "table", "tools"].findIndex(
        (name) => one.closest(`.sv-${name}`));
    const { outlineStyle, outlineWidth } = getComputedStyle(one);
    return { part, top: box.top + box.height / 2, name: one.className,
        line: outlineStyle === "none" ? 0 : parseFloat(outlineWidth) };
}"""


@pytest.mark.parametrize("width", [390, 800, 1440])
def test_focus_is_seen_and_moves_as_one_reads(chromium, tmp_path, study, width):
    with Page(chromium, tmp_path, study_payload(study), width) as page:
        page.set(selection=["model.decoder.layers.1.fc1"])
        stops = []
        for _ in range(60):
            page.page.keyboard.press("Tab")
            stops.append(page.page.evaluate(FOCUSED))
            if stops[-1]["part"] < 0:
                break
        *inside, last = stops
        assert last["part"] == -1  # nothing holds the focus
        parts = [stop["part"] for stop in inside]
        assert parts == sorted(parts)
        assert set(parts) == set(range(7))
        assert min(stop["line"] for stop in inside) >= 1
        bar = [stop["top"] for stop in inside if stop["part"] == 0]
        assert all(after > before - 20 for before, after in pairwise(bar))
        for _ in inside:
            page.page.keyboard.press("Shift+Tab")
        assert page.page.evaluate(FOCUSED)["name"] == inside[0]["name"]


class Keys:
    """The keyboard of a page: it reaches controls by Tab only."""

    def __init__(self, page):
        self.page, self.keyboard = page, page.page.keyboard

    def go(self, control):
        for _ in range(60):
            if self.page.page.evaluate(f"document.activeElement.matches('{control}')"):
                return
            self.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {control}")

    def press(self, *keys):
        for key in keys:
            self.keyboard.press(key)

    def enter(self, control, text):
        self.go(control)
        self.press("Control+a")
        self.keyboard.type(text)
        self.press("Enter")

    def copied(self):
        """Return the texts that Ctrl+C copies from now on, one a time."""
        self.page.page.evaluate(
            """() => document.addEventListener("copy", (event) => {
                window.copied = event.defaultPrevented
                    ? event.clipboardData.getData("text/plain") : String(getSelection());
            })"""
        )
        while True:
            self.press("Control+c")
            yield self.page.page.evaluate("window.copied")

    def row(self):
        """Return the texts of the row or the head that a screen reader announces."""
        return self.page.page.evaluate(
            """() => {
                const one = document.activeElement;
                const row = document.getElementById(one.getAttribute("aria-activedescendant"));
                return row ? [...row.children].map((cell) => cell.textContent) : [one.textContent];
            }"""
        )


def test_layers_are_found_sorted_and_copied_by_keyboard_alone(opened, study):
    """Tasks of a new user: find, read, select, copy, sort."""
    opened.set(variant="CSR30")
    keys = Keys(opened)
    copied = keys.copied()
    keys.go(".sv-search")
    keys.keyboard.type("attention block 3")
    keys.press("ArrowDown")
    assert keys.row()[0] == "3.self_attn.q_proj"
    details = opened.page.locator(".sv-details").inner_text()
    assert "Block 3 · q_proj" in details
    assert "|w| ≈" in opened.page.locator(".sv-details svg").first.text_content()
    keys.press("Enter")
    assert len(opened.state["selection"]) == 1
    # Two layers, their sum and their rows.
    keys.press("Shift+ArrowDown")
    assert keys.row()[0] == "3.self_attn.k_proj"
    assert "Selected layers (2)" in opened.page.locator(".sv-sum").inner_text()
    _, *lines = next(copied).split("\r\n")
    wanted = [f"model.decoder.layers.3.self_attn.{k}_proj" for k in "qk"]
    assert [line.split("\t")[0] for line in lines] == wanted
    assert "Rows copied: 2." in opened.page.locator(".sv-notice").inner_text()
    # A row more, which is not a neighbor, and one less.
    keys.press("Control+ArrowDown", "Control+ArrowDown", "Shift+Enter")
    assert opened.state["selection"] == [*wanted, "model.decoder.layers.3.self_attn.out_proj"]
    keys.press("Shift+Enter")
    assert opened.state["selection"] == wanted
    # Escape: the selection, then the search.
    keys.press("Escape")
    assert (opened.state["selection"], opened.state["search"]) == ([], "attention block 3")
    assert len(next(copied).split("\r\n")) == 5
    keys.press("Escape")
    assert opened.state["search"] == ""
    assert len(next(copied).split("\r\n")) == 25
    # Sort by bytes from the header, and by sparsity.
    layers = study.facts.prunable("CSR30")
    for column, title in (("stored_bytes", "Stored bytes"), ("share", "Weight sparsity")):
        keys.press("Home", "ArrowUp", "Home")
        for _ in range(8):
            if keys.row() != [title]:
                keys.press("ArrowRight")
        keys.press("Enter")
        sort = opened.page.evaluate("document.activeElement.parentElement.ariaSort")
        assert (keys.row(), sort) == ([title], "descending")
        keys.press("ArrowDown")
        (top,) = opened.state["selection"]
        assert layers.set_index("module_name").loc[top, column] == layers[column].max()
        assert top.endswith(keys.row()[0])
    share = percent(layers["share"].max(), space=" ")
    assert f"{share} of its weights are zero" in opened.page.locator(".sv-details").inner_text()


def test_levels_budgets_and_layouts_by_keyboard_alone(opened, study):
    opened.set(variant="CSR30")
    keys = Keys(opened)
    spoken = opened.page.locator(".sv-sentence")
    assert spoken.get_attribute("role") == "status"
    assert "30.0 % of 786 k prunable weights are zero" in opened.sentence
    keys.enter(".sv-level", "63.7")
    assert opened.state["sparsity"] == pytest.approx(0.637, abs=0.0051)
    keys.go(".sv-level")  # the focus stays
    keys.press("4", "Escape")
    assert opened.page.locator(".sv-level").input_value() == "64 %"
    keys.enter(".sv-budget", "60 % of dense")
    rows = study.by_policy["global_magnitude"]
    ratios = [
        rows.at(level)["csr_bytes"].sum() / rows.at(level)["dense_bytes"].sum()
        for level in rows.sparsities
    ]
    least = min(level for level, ratio in zip(rows.sparsities, ratios, strict=True) if ratio <= 0.6)
    assert opened.state["sparsity"] == pytest.approx(least)
    opened.page.evaluate("document.activeElement.blur()")
    keys.go(".sv-layout")
    opened.page.wait_for_timeout(400)
    keys.press("ArrowDown")
    assert opened.state["layout"] == "bitmask"
    assert "bitmask" in opened.sentence
    keys.press("Control+z")
    assert opened.state["layout"] == "csr"
    # The map: its cell is announced, Enter selects it, Shift adds another.
    keys.go(".sv-map")
    keys.press("ArrowRight", "ArrowDown")
    said = opened.page.locator(".sv-tip[role=status]").inner_text()
    keys.press("Enter")
    (name,) = opened.state["selection"]
    assert name in said
    keys.press("ArrowLeft", "Shift+Enter")
    assert len(opened.state["selection"]) == 2
    keys.go("[data-panel=layer]")
    keys.press("ArrowRight", "ArrowRight")
    assert opened.page.locator(".sv-details svg").get_attribute("aria-label").startswith("Bytes")


def test_search_without_a_match_says_so(opened):
    opened.page.locator(".sv-search").fill("no such <layer>")
    assert "matches “no such <layer>”" in opened.page.locator(".sv-table").inner_text()
    opacities = "cells => cells.map((cell) => Number(cell.style.opacity))"
    assert max(opened.page.locator(".sv-cell").evaluate_all(opacities)) < 0.5
    assert opened.page.locator(".sv-row").count() == 0
    assert violations(opened.page) == []
    opened.page.locator(".sv-search").press("Escape")
    assert opened.state["search"] == ""
    assert len(opened.rows()) > 6
    opened.page.locator(".sv-scope").select_option("block 3")
    assert {row[0].split(".")[0] for row in opened.rows()} == {"3"}
    assert opened.page.locator(".sv-cell").count() == len(opened.rows())


def drag(page, text):
    """Select a text with the mouse."""
    box = page.get_by_text(text, exact=True).first.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()


def test_a_selected_text_survives_and_is_copied(opened):
    copied = Keys(opened).copied()
    drag(opened.page, "0.self_attn.k_proj")
    before = opened.state["selection"]
    text = next(copied)
    assert len(text) > 2
    assert text in "0.self_attn.k_proj"
    opened.page.mouse.wheel(0, 40)
    opened.page.wait_for_timeout(200)
    opened.set(sparsity=0.5, selection=["model.decoder.layers.1.fc1"], metric="total")
    assert next(copied) == text
    assert before == []
    for place, changes in (
        (".sv-sentence", {"sort": "-total"}), (".sv-details p", {"metric": "sparsity"}),
    ):  # fmt: skip
        opened.page.locator(place).first.select_text()
        text = next(copied)
        assert text in opened.page.locator(place).first.inner_text()
        opened.set(**changes)
        assert next(copied) == text != ""


def test_copies_are_the_selected_rows_or_those_in_view(opened):
    opened.page.evaluate(
        "() => Object.defineProperty(navigator, 'clipboard', { value: undefined })"
    )
    taken = """() => { document.execCommand = () => {
        window.taken = document.querySelector(".sv-notice textarea").value;
        return true;
    }; }"""
    opened.page.evaluate(taken)
    some = [f"model.decoder.layers.{k}.fc2" for k in (3, 1)]
    for changes, wanted in (
        (
            {"search": "fc1", "sort": "-module"},
            [f"model.decoder.layers.{k}.fc1" for k in (3, 2, 1, 0)],
        ),
        ({"selection": some, "sort": "module"}, some[::-1]),
    ):
        opened.set(**changes)
        opened.page.locator(".sv-copy").click()
        names = [line.split("\t")[0] for line in opened.run("window.taken").splitlines()[1:]]
        assert names == wanted
        assert f"Rows copied: {len(wanted)}." in opened.page.locator(".sv-notice").inner_text()
        assert opened.page.locator(".sv-notice textarea").count() == 0
    # At a level, counts come with their uncertainty, and spreads with the digits that they have.
    opened.set(selection=[], search="", variant="at level", sparsity=0.6)
    opened.page.locator(".sv-copy").click()
    exact = sr.masked(sr.global_magnitude(sr.load(), 0.6)).layers().set_index("module_name")
    for row in csv.DictReader(io.StringIO(opened.run("window.taken")), delimiter="\t"):
        away = int(row["nonzero"]) - exact.loc[row["module_name"], "nonzero"]
        assert abs(away) <= int(row["uncertainty"])
        assert len(row["deviation"].lstrip("0.")) <= 2
    # The difference of two sides has no column of spreads, by which its rows are sorted.
    opened.set(selection=[], search="", metric="difference", sort="-deviation")
    opened.page.locator(".sv-copy").click()
    names = [line.split("\t")[0] for line in opened.run("window.taken").splitlines()[1:]]
    assert names == opened.run("viewer.table.rows.map((i) => viewer.figures.modules.names[i])")
    assert names != sorted(names)


def of_all_panels(study, demo):
    """Return studies that together have all panels."""
    mixture = sr.compare(sr.dense(mixtures.mixture(2, 4)))
    rows = [gone("expert", "model.experts", index, 4, 0, weights=9) for index in (1, 2)]
    return [study, mixture, two_policies(demo, rows)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(chromium, tmp_path, study, demo, scheme):
    seen = set()
    for each in of_all_panels(study, demo):
        with Page(chromium, tmp_path, study_payload(each), color_scheme=scheme) as page:
            assert violations(page.page) == []
            page.page.locator(".sv-cell").nth(3).click()
            for tab in page.page.locator("[data-panel]").all():
                tab.click()
                seen.add(page.page.locator("[aria-selected=true][data-panel]").inner_text())
                assert violations(page.page) == []
            page.page.emulate_media(forced_colors="active")
            cell = page.page.locator(".sv-cell").first
            fill = cell.evaluate("cell => getComputedStyle(cell).fill")
            assert re.fullmatch(r"rgb\(\d+, \d+, \d+\)", fill)
    assert seen == {"Layer", "Groups", "Costs"}


def test_the_table_as_csv(opened, study):
    opened.set(variant="CSR30", layout="csr")
    path = opened.download("csv").path()
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    layers = study.facts.prunable("CSR30").set_index("module_name")
    assert [row["module_name"] for row in rows] == list(layers.index)
    for row in rows:
        layer = layers.loc[row["module_name"]]
        assert float(row["weight_sparsity"]) == pytest.approx(layer["share"], rel=1e-12)
        assert int(row["stored_bytes"]) == layer["stored_bytes"]
        assert int(row["flops_per_token"]) == layer["flops_per_token"]


@pytest.mark.parametrize(
    ("form", "panel"), [("svg_column", "layer"), ("png_page", "groups"), ("svg_page", "costs")]
)
def test_pictures_of_what_is_seen(opened, form, panel):
    opened.set(panel=panel)
    opened.page.emulate_media(color_scheme="dark")
    path = opened.download(form).path()
    opened.page.emulate_media(color_scheme=None)
    data = path.read_bytes()
    if form.startswith("svg"):
        assert data.startswith(b"<svg")
        assert data.count(b"<rect") > 24
        assert b"rgb(29, 31, 34)" in data  # the dark paper
        assert b">Transformer block</text>" in data
    else:
        width, height = np.frombuffer(data[16:24], ">u4")
        assert width == 3 * 505
        assert height > 500


def test_ten_thousand_layers(chromium, tmp_path):
    weights = experts(33, 100)
    study = sr.compare(sr.dense(weights))
    with Page(chromium, tmp_path, study_payload(study)) as page:
        assert page.page.locator(".sv-map canvas").is_visible()
        assert page.page.locator(".sv-rowcount").inner_text().startswith("10")
        assert page.page.locator(".sv-row").count() < 40
        # An expert in two clicks: one of its block, then its square.
        box = page.page.locator(".sv-map").bounding_box()
        page.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
        squares = page.page.locator(".sv-parts input")
        assert squares.count() == 100
        squares.nth(7).click()
        parts = [name.rpartition(".experts.7.")[2] for name in page.state["selection"]]
        assert parts == ["gate_proj", "up_proj", "down_proj"]
        begin = page.run("performance.now()")
        page.page.locator(".sv-search").fill("experts.99.down_proj")
        assert page.page.locator(".sv-rowcount").inner_text().startswith("33 ")
        assert page.run("performance.now()") - begin < 5_000
        page.page.locator(".sv-table").focus()
        page.page.keyboard.press("End")
        assert page.state["detail"] == "layers.32.experts.99.down_proj"
        assert page.complaints == []


TEN_INPUTS = """async () => {
    const { viewer } = document.querySelector(".sparsity-viewer");
    const seen = { sentences: 0, maps: 0 };
    const count = (name) => new MutationObserver(() => { seen[name] += 1; });
    const frame = () => new Promise((done) => requestAnimationFrame(() => done()));
    viewer.set({ sparsity: 0.2 });
    await frame();
    count("sentences").observe(document.querySelector(".sv-sentence"),
        { childList: true, characterData: true, subtree: true });
    count("maps").observe(document.querySelector(".sv-map svg"),
        { attributes: true, subtree: true });
    const slider = document.querySelector(".sv-slider");
    viewer.tools.clip = (text) => { seen.copied = text; };
    for (let place = 21; place <= 30; place += 1) {
        slider.value = place;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
    }
    seen.state = viewer.state.sparsity;
    viewer.set({ search: "fc1" });
    document.querySelector(".sv-copy").click();
    const before = document.querySelector(".sv-sentence").textContent;
    await frame();
    seen.isLate = document.querySelector(".sv-sentence").textContent !== before;
    document.querySelector(".sv-table").focus();
    for (const key of ["End", "ArrowUp"]) {
        const event = new KeyboardEvent("keydown", { key, bubbles: true });
        document.querySelector(".sv-table").dispatchEvent(event);
    }
    seen.detail = viewer.state.detail;
    await frame();
    viewer.set({ sort: "-module" });
    await frame();
    viewer.set({ sparsity: 0.5 });
    viewer.close();
    await frame();
    return seen;
}"""


def test_inputs_of_one_frame_are_drawn_once(opened):
    """The state, copies and keys do not wait for the frame; a sort leaves the map alone."""
    seen = opened.page.evaluate(TEN_INPUTS)
    copied = seen.pop("copied").split("\r\n")
    assert [line.split("\t")[0].split(".")[-1] for line in copied[1:]] == ["fc1"] * 4
    detail = "model.decoder.layers.2.fc1"
    # The sentence is that of the ten inputs; maps are of the inputs and the keys.
    due = {"state": 0.3, "isLate": True, "detail": detail, "sentences": 1, "maps": 2}
    assert seen == due


def test_names_are_text(chromium, tmp_path):
    path = names.edited(names.study(tmp_path), tmp_path / "study.json")
    study = sr.read_study(path)
    with Page(chromium, tmp_path, study_payload(study)) as page:
        assert page.page.locator(".sv-map").is_visible()
        for panel in ("layer", "groups", "costs"):
            page.set(panel=panel)
        for row in page.page.locator(".sv-row").all()[:3]:
            row.click()
        assert page.page.locator(".sparsity-viewer script, .sparsity-viewer img").count() == 0
        assert page.download("png_page").path().stat().st_size > 1000
        ET.parse(page.download("svg_page").path())
        saved = page.download("page")
        assert re.fullmatch(r"[a-z0-9_-]{1,130}\.html", saved.suggested_filename)
        saved.save_as(tmp_path / "saved.html")
        sentence = page.sentence
        page.page.goto((tmp_path / "saved.html").as_uri())
        page.page.locator(".sv-ready").wait_for()
        assert page.sentence == sentence
        assert page.page.locator("script").count() == 2
        assert page.page.evaluate("'hacked' in window") is False
        assert page.complaints == []


def test_the_view_as_a_page(chromium, opened, tmp_path):
    """The saved page is the view, offline, and shows its map without scripts."""
    opened.set(sparsity=0.6, policy="global_magnitude", selection=["model.decoder.layers.1.fc1"])
    page = opened.page
    for number in range(2):  # a saved page saves itself, too
        page.locator(".sv-files > button").press("Enter")
        with page.expect_download() as waiting:
            page.locator(".sv-files [value=page]").press("Enter")
        saved = tmp_path / f"saved{number}.html"
        waiting.value.save_as(saved)
        assert waiting.value.suggested_filename == "demo-global-magnitude-at-60-sparsity.html"
        page = opened.context.new_page()
        page.on("console", lambda line: opened.complaints.append(line.text))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.goto(saved.as_uri())
        page.locator(".sv-ready").wait_for()
        assert page.locator(".sv-sentence").inner_text() == opened.sentence
        state = "document.querySelector('.sv-ready').viewer.state"
        assert page.evaluate(state) == opened.page.evaluate(state)
    reports = page.locator(".sv-files button:disabled").all_text_contents()
    assert [text.endswith("(needs a kernel)") for text in reports] == [True] * 3
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(saved.as_uri())
    assert opened.sentence in page.locator("body").inner_text()
    assert page.locator("svg rect").count() > 24
    context.close()


def damaged(payload):
    """Payloads that are cut, altered, or of another version."""
    raw = gzip.decompress(payload)
    yield payload[: len(payload) // 2]
    yield gzip.compress(raw[: len(raw) // 2])
    yield gzip.compress(raw.replace(b'"format":1', b'"format":7', 1))
    yield gzip.compress(raw.replace(b'"kind":"f8"', b'"kind":"f7"', 1))
    yield b"nothing"


def test_damage_leaves_a_sentence(chromium, tmp_path, study):
    for payload in damaged(study_payload(study)):
        with Page(chromium, tmp_path, payload) as page:
            text = page.page.locator(".sparsity-viewer").inner_text()
            assert "damaged" in text
            assert "still" in text
            assert page.complaints == []


OPENED = """async (text) => {
    const root = document.createElement("div");
    root.className = "sparsity-viewer";
    root.append("below");
    document.body.replaceChildren(root);
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    await sparsityViewer.mount(root, bytes);
    return root.innerText;
}"""


@pytest.mark.parametrize("kind", ["study", "pair"])
def test_every_damage_leaves_a_sentence_or_the_right_viewer(chromium, study, demo, kind):
    if kind == "pair":
        study = sr.compare_checkpoints(demo, sr.global_magnitude(demo, 0.3))
    payload, rng = study_payload(study), np.random.default_rng(3)
    page = chromium.new_page()
    page.evaluate(asset("bundle/viewer.js"))

    def text_of(bytes_):
        return page.evaluate(OPENED, base64.b64encode(bytes_).decode())

    right = text_of(payload)
    cuts = [payload[:size] for size in (0, 1, *rng.integers(2, len(payload), 100))]
    flipped = np.tile(np.frombuffer(payload, np.uint8), (100, 1))
    bits = 1 << rng.integers(0, 8, 100, np.uint8)
    flipped[np.arange(100), rng.integers(0, len(payload), 100)] ^= bits
    sentence = re.compile(r"The data of this viewer are damaged\..*\s+below")
    assert [k for k, bytes_ in enumerate(cuts) if not sentence.fullmatch(text_of(bytes_))] == []
    for each in flipped:
        text = text_of(each.tobytes())
        assert text == right or sentence.fullmatch(text)
    page.context.close()


def test_an_error_of_a_later_drawing_leaves_a_sentence(chromium, tmp_path, study):
    with Page(chromium, tmp_path, study_payload(study)) as page:
        page.run("viewer.figures.variants[0].base = null")
        page.page.locator(".sv-slider").fill("42")
        page.page.locator("text=damaged").wait_for()
        assert page.page.locator("text=still").is_visible()
        assert page.complaints == []


def test_a_browser_without_decompression_keeps_the_still(chromium, tmp_path, study):
    path = tmp_path / "viewer.html"
    path.write_text(
        PAGE.format(digests="'unsafe-inline'", fragment=embed(study_payload(study), "still"))
    )
    page = chromium.new_page()
    page.add_init_script("delete globalThis.DecompressionStream")
    page.goto(path.as_uri())
    page.locator("text=DecompressionStream").wait_for()
    assert page.locator("text=still").is_visible()
    page.context.close()


def test_studies_without_levels(chromium, tmp_path):
    torch.manual_seed(0)
    weights = sr.load(nn.ModuleDict({"only": nn.Linear(6, 8)}), name="one")
    with Page(chromium, tmp_path, study_payload(sr.compare(sr.dense(weights)))) as page:
        assert page.page.locator(".sv-cell").count() == 1
        assert page.complaints == []
    with torch.device("meta"):
        empty = sr.load(nn.ModuleDict({"only": nn.Linear(6, 8)}), name="meta")
    with Page(chromium, tmp_path, study_payload(sr.compare(sr.dense(empty)))) as page:
        assert page.page.locator(".sv-slider").is_disabled()
        assert "–" in page.sentence
        assert page.complaints == []


def test_without_scripts_the_still_stays(chromium, tmp_path, study):
    path = tmp_path / "still.html"
    path.write_text(PAGE.format(digests="'none'", fragment=embed(study_payload(study), "a still")))
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("text=a still").is_visible()
    context.close()


def test_script_is_small_and_runs_no_text():
    assert len(gzip.compress(asset("bundle/viewer.js").encode())) < 34_000
    for word in ("import ", "eval(", "Function(", "innerHTML", "http:"):
        assert word not in asset("bundle/viewer.js").replace("http://www.w3.org/2000/svg", "")
    assert widget_module().startswith(asset("bundle/viewer.js"))
