"""The viewer in a page without a kernel, used as a person does: mouse, keys, files, damage."""

import csv
import gzip
import io
import math
import re

import hostile as names
import numpy as np
import pytest
import scipy.stats
import smaller_mixtures
import torch
from browser import violations
from measurements import mean_ends, put_in, quality, with_losses
from torch import nn

import sparsity_report as sr
from sparsity_report.viewer.embed import asset, digests, embed, widget_module
from sparsity_report.viewer.study_payload import study_payload
from sparsity_report.words.number_format import percent

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Viewer</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
style-src 'unsafe-inline'; script-src {digests}">
<style>:root {{ color-scheme: light dark }}</style></head><body><main><h1>A viewer</h1>{fragment}
</main></body></html>"""


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


class Page:
    """A page with one viewer, what it fetches and what it complains about."""

    def __init__(self, browser, folder, payload, width=1440, **options):
        path = folder / "viewer.html"
        path.write_text(PAGE.format(digests=" ".join(digests()), fragment=embed(payload, "still")))
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, accept_downloads=True, **options
        )
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("console", lambda line: self.complaints.append(line.text))
        self.page.goto(path.as_uri())
        self.page.locator(".sparsity-viewer :is(.sv-map, .sv-sentence)").first.wait_for()
        self.page.wait_for_timeout(100)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def run(self, code):
        """Evaluate code in which `viewer` is the viewer."""
        return self.page.evaluate(
            f"(() => {{ const {{ viewer }} = document.querySelector('.sparsity-viewer');"
            f" return {code}; }})()"
        )

    def set(self, **traits):
        self.page.evaluate(
            "traits => document.querySelector('.sparsity-viewer').viewer.set(traits)", traits
        )

    @property
    def state(self):
        return self.run("viewer.state")

    @property
    def sentence(self):
        return self.page.locator(".sv-sentence").inner_text()

    def rows(self):
        """Texts of the rows that are drawn."""
        found = self.page.locator(".sv-row").all()
        return [row.locator("> div").all_inner_texts() for row in found]

    def download(self, button):
        with self.page.expect_download() as waiting:
            self.page.locator(button).click()
        return waiting.value


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
    opened.page.locator(".sv-row").nth(3).click(modifiers=["Shift"])
    assert len(opened.state["selection"]) == 2
    assert "2" in opened.page.locator(".sv-sum").inner_text()
    opened.page.locator(".sv-clear").click()
    assert opened.state["selection"] == []
    # A drag selects all cells that it touches.
    (a, b) = (cells.nth(k).bounding_box() for k in (0, 8))
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
    opened.page.wait_for_timeout(400)
    opened.page.locator(".sv-reset").click()
    assert opened.state["search"] == ""
    assert opened.state["selection"] == []


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


def test_a_budget_moves_the_slider(opened, study):
    opened.set(variant="at level", layout="csr", sparsity=0.3)
    opened.page.locator(".sv-budget").fill("2 MB")
    opened.page.locator(".sv-budget").press("Enter")
    assert opened.state["sparsity"] == sr.level_within(study, "2 MB").sparsity
    assert "2.00 MB" in opened.page.locator(".sv-notice").inner_text()
    opened.page.locator(".sv-budget").fill("1 kB")
    opened.page.locator(".sv-budget").press("Enter")
    assert "out of reach" in opened.page.locator(".sv-notice").inner_text()


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
        page.set(variant="Masked30", panel="costs", curve="quality")
        assert "12.5 (dense 10.0)" in page.sentence
        note = page.page.locator(".sv-details .sv-note").inner_text()
        assert "left out, without a finite score or known bytes: M90" in note
        page.set(sparsity=0.3)
        assert page.state["variant"] == "at level"
        assert "12.5 (dense 10.0)" in page.sentence
        page.set(sparsity=0.31)
        assert "was not scored" in page.sentence
        page.set(policy="layerwise_magnitude", sparsity=0.3)
        assert "was not scored" in page.sentence


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_intervals_of_the_quality_curve(chromium, tmp_path, demo, width, scheme):
    """Lines from the low to the high end on their dots, of other widths where they overlap."""
    names = ("Dense", "Masked50", "Layerwise", "M90")
    half = [prune(demo, 0.5) for prune in (sr.global_magnitude, sr.layerwise_magnitude)]
    prunings = dict(zip(names[1:], (*half, sr.global_magnitude(demo, 0.9)), strict=True))
    plain = sr.compare(sr.dense(demo), *(sr.masked(p, name=n) for n, p in prunings.items()))
    noise = np.random.default_rng(2).normal(size=(4, 100))
    sums = [16 * mean + n for mean, n in zip((2, 2.1, 2.1, 2.4), noise, strict=True)]
    scores = quality([(share, 1.0) for share in (0.0, 0.5, 0.5, 0.9)], names)
    scored = put_in(plain, quality=with_losses(scores, sums))
    with Page(chromium, tmp_path, study_payload(scored), width, color_scheme=scheme) as page:
        page.set(panel="costs", curve="quality")
        drawn = page.page.locator(".sv-details svg").last
        keys = ["x1", "x2", "y1", "y2", "cx", "cy", "stroke-width"]
        read = f"all => all.map(e => {keys}.map(key => +e.getAttribute(key)))"
        dots = drawn.locator("circle").evaluate_all(read)
        lines = drawn.locator("line").evaluate_all(read)
        upright = sorted((line for line in lines if line[0] == line[1]), key=lambda line: line[2])
        texts = page.page.locator(".sv-details .sv-note").inner_text()
    assert "95 % interval" in texts
    # Dots are at known perplexities, which gives the logarithmic scale.
    known = np.array([np.sum(each) / 1600 for each in sums])
    (slope, start), (rest, *_), *_ = np.polyfit(known, [dot[5] for dot in dots], 1, full=True)
    assert rest < 0.01
    # Four comparisons; each is with dense or of the two at 50 %.
    gaps = {name: np.subtract(each, sums[0]) for name, each in zip(names, sums, strict=True)}
    gaps["rivals"] = np.subtract(sums[1], sums[2])
    del gaps["Dense"]
    p_values = {name: p_of(gap) for name, gap in gaps.items()}
    order = sorted(p_values, key=p_values.get)
    assert order[-1] == "rivals"
    assert p_values[order[2]] < 0.05 / 2
    ends = []
    for rank, name in enumerate(order[:3]):
        _, low, high = known[0] + mean_ends(gaps[name], 1 - 0.05 / (4 - rank))
        ends.append((start + slope * high, start + slope * low))
    drawn_ends = sorted(tuple(sorted(line[2:4])) for line in upright)
    assert np.array(drawn_ends) == pytest.approx(np.array(sorted(ends)), abs=0.1)
    # Those at 50 % overlap.
    places = sorted((line[0], line[6]) for line in upright)
    dot_50, dot_90 = dots[1][4], dots[3][4]
    assert dots[2][4] == pytest.approx(dot_50, abs=0.1)
    expected = [(dot_90, 1), (dot_50, 1), (dot_50, 4)]
    assert np.array(places) == pytest.approx(np.array(expected), abs=0.1)


def p_of(sums):
    """The p-value of a mean of zero, from the width of its interval."""
    mean, low, _ = mean_ends(sums)
    error = (mean - low) / scipy.stats.t.ppf(0.975, 9)
    return 2 * scipy.stats.t.sf(abs(mean) / error, 9)


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


def test_masks_of_two_variants_overlap(opened, demo):
    """Exactly for magnitude pruning, as positions have it; else within bounds."""
    sizes = [np.abs(np.asarray(demo.tensor(p.name))).ravel() for p in demo.prunable]
    everything = smallest(np.concatenate(sizes), 0.3)
    alone = np.concatenate([smallest(size, 0.5) for size in sizes])
    both = (everything & alone).mean()
    opened.set(variant="CSR30", metric="difference", against="CSR50Layerwise")
    assert (
        f"{percent(both, space=' ')} of the weights" in opened.page.locator(".sv-sum").inner_text()
    )
    opened.set(policy="N:4", sparsity=0.5)
    low = max(0, 0.5 + 0.5 - 1)
    shown = opened.page.locator(".sv-sum").inner_text()
    assert f"Between {percent(low, space=' ')} and {percent(0.5, space=' ')}" in shown


STATES = (
    {"variant": "Masked30"},
    {"variant": "CSR50Layerwise", "metric": "difference", "against": "CSR30"},
    {"policy": "N:4", "sparsity": 0.75, "layout": "dense", "sort": "-sparsity"},
    {"variant": "at level", "sparsity": 0.3, "search": "fc1 null", "modules": "all"},
    {"variant": "Masked30", "layout": "csr", "selection": ["model.decoder.layers.2.fc1"]},
)


@pytest.mark.parametrize("state", STATES, ids=str)
def test_copied_code_shows_the_same(opened, state):
    opened.run("viewer.store.reset()")
    for name, value in state.items():
        opened.set(**{name: value})
    shown = opened.state
    names = {}
    exec(opened.run("viewer.code(viewer.store.state)"), names)
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
        "--sparsity 0.5 --policy 2:4": {"policy": "N:4", "sparsity": 0.5},
    }
    for pruning, state in states.items():
        opened.set(**state)
        opened.page.locator(".sv-copy").click()
        words = f"sparsity-report run {pruning} --out results\n"
        assert opened.page.evaluate("window.copied") == words
    opened.set(variant="Dense")
    opened.page.locator(".sv-copy").click()
    assert "cannot repeat this" in opened.page.locator(".sv-notice").inner_text()


def test_the_map_by_keyboard(opened):
    opened.page.locator("body").click(position={"x": 2, "y": 2})
    stops, at_map = 0, "document.activeElement.classList.contains('sv-map')"
    while not opened.page.evaluate(at_map):
        opened.page.keyboard.press("Tab")
        stops += 1
        assert stops <= 8
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("ArrowDown")
    spoken = opened.page.locator(".sv-caption [role=status]").inner_text()
    opened.page.keyboard.press("Enter")
    (name,) = opened.state["selection"]
    assert name in spoken


def test_nobody_is_shut_out(opened):
    assert violations(opened.page) == []
    opened.page.locator(".sv-cell").nth(3).click()
    for panel in ("groups", "costs"):
        opened.page.locator(f"[data-panel={panel}]").click()
        assert violations(opened.page) == []
    opened.page.emulate_media(forced_colors="active")
    fill = opened.page.locator(".sv-cell").first.evaluate("cell => getComputedStyle(cell).fill")
    assert re.fullmatch(r"rgb\(\d+, \d+, \d+\)", fill)


def test_the_table_as_csv(opened, study):
    opened.set(variant="CSR30", layout="csr")
    path = opened.download(".sv-csv").path()
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    layers = study.facts.prunable("CSR30").set_index("module_name")
    assert [row["module"] for row in rows] == list(layers.index)
    for row in rows:
        layer = layers.loc[row["module"]]
        assert float(row["sparsity"]) == pytest.approx(layer["share"], rel=1e-12)
        assert int(row["stored_bytes"]) == layer["stored_bytes"]
        assert int(row["flops_per_token"]) == layer["flops_per_token"]


@pytest.mark.parametrize(
    ("form", "panel"), [("svg column", "layer"), ("png page", "groups"), ("svg page", "costs")]
)
def test_pictures_of_what_is_seen(opened, form, panel):
    opened.set(panel=panel)
    opened.page.locator(".sv-kind").select_option(form)
    opened.page.emulate_media(color_scheme="dark")
    path = opened.download(".sv-save").path()
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
        # An expert in two clicks: its cell, then the expert.
        box = page.page.locator(".sv-map").bounding_box()
        page.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
        cells = page.page.locator(".sv-cell")
        assert cells.count() == 100
        cells.nth(7).click()
        (name,) = page.state["selection"]
        assert re.fullmatch(r"layers\.\d+\.experts\.7\.(gate|up|down)_proj", name)
        page.page.locator(".sv-back").click()
        begin = page.run("performance.now()")
        page.page.locator(".sv-search").fill("experts.99.down_proj")
        assert page.page.locator(".sv-rowcount").inner_text().startswith("33 ")
        assert page.run("performance.now()") - begin < 5_000
        page.page.locator(".sv-table").focus()
        page.page.keyboard.press("End")
        assert page.state["detail"] == "layers.32.experts.99.down_proj"
        assert page.complaints == []


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
        assert page.download(".sv-save").path().stat().st_size > 1000
        assert page.complaints == []


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
            assert "damaged" in page.page.locator(".sparsity-viewer").inner_text()
            assert page.complaints == []


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
    assert len(gzip.compress(asset("bundle/viewer.js").encode())) < 25_000
    for word in ("import ", "eval(", "Function(", "innerHTML", "http:"):
        assert word not in asset("bundle/viewer.js").replace("http://www.w3.org/2000/svg", "")
    assert widget_module().startswith(asset("bundle/viewer.js"))
