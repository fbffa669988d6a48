"""Colors of the map, fitted or full, and the scale of the bars."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from pairs import two_policies
from torch import nn
from viewer_pages import Page

import sparsity_report as sr
from sparsity_report.viewer.study_payload import study_payload
from sparsity_report.viewer.view_state import RefusedValueError


def scale(low, high):
    """Ends of the fitted scale of shares, in whole percents."""
    return [f"{np.floor(100 * low):.0f} %", f"{np.ceil(100 * high):.0f} %"]


class Shown(Page):
    """A page with a viewer alone, and the colors in view."""

    def __init__(self, browser, folder, study, width=1200):
        super().__init__(browser, folder, study_payload(study), width)

    def set(self, rest=True, **traits):
        """Change the state; then let the slider rest, or not."""
        super().set(**traits)
        if rest:
            self.run("viewer.store.rest()")

    @property
    def ends(self):
        return self.page.locator(".sv-legend text").all_text_contents()[:2]

    @property
    def note(self):
        return self.page.locator(".sv-legend text").last.text_content() or ""

    @property
    def fills(self):
        code = """cells => cells.map(({ style }) => "#" + style.fill.match(/[0-9]+/g)
            .map((part) => Number(part).toString(16).padStart(2, "0")).join(""))"""
        return self.page.locator(".sv-cell").evaluate_all(code)


@pytest.fixture(scope="module")
def study():
    weights = sr.load()
    half = sr.global_magnitude(weights, 0.5)
    even = sr.layerwise_magnitude(weights, 0.6)
    return sr.compare(sr.dense(weights), sr.csr(half), sr.masked(even, name="Even"))


def test_colors_fit_a_narrow_range(chromium, tmp_path, study):
    rows = study.at_level(0.6).query("prunable")
    now = study.layers.query("prunable and variant == 'CSR50'")
    shares = [1 - r["weight_nonzero"] / r["weight_total"] for r in (now, rows)]
    with Shown(chromium, tmp_path, study) as shown:
        shown.set(variant="CSR50", metric="sparsity")
        fitted = scale(shares[0].min(), shares[0].max())
        assert shown.ends == fitted
        assert shown.note == f"colors fitted to {fitted[0][:-2]}–{fitted[1]}"
        cells = shown.fills
        shown.set(colors="full")
        assert (shown.ends, shown.note) == (["0 %", "100 %"], "")
        assert len(set(cells)) > len(set(shown.fills)) / 2
        assert cells != shown.fills
        # All layers have 60 %, or all 0 %: nothing is stretched.
        for variant in ("Even", "Dense"):
            shown.set(variant=variant, colors="fitted")
            assert shown.ends == ["0 %", "100 %"]
            assert len(set(shown.fills)) == 1
        # A fitted scale of more than half: by choice only.
        wide = study.at_level(0.2).query("prunable")
        wide = 1 - wide["weight_nonzero"] / wide["weight_total"]
        shown.set(sparsity=0.2, colors="auto")
        assert (shown.ends == ["0 %", "100 %"]) == (wide.max() - wide.min() >= 0.5)


def test_the_scale_grows_until_the_slider_rests(chromium, tmp_path, study):
    levels = {
        share: 1 - rows["weight_nonzero"] / rows["weight_total"]
        for share in (0.5, 0.55)
        for rows in [study.at_level(share).query("prunable")]
    }
    with Shown(chromium, tmp_path, study) as shown:
        shown.set(sparsity=0.5, metric="sparsity")
        assert shown.ends == scale(levels[0.5].min(), levels[0.5].max())
        before = shown.fills
        shown.set(sparsity=0.55, rest=False)
        assert shown.ends == scale(levels[0.5].min(), levels[0.55].max())
        assert shown.fills != before
        shown.run("viewer.store.rest()")
        assert shown.ends == scale(levels[0.55].min(), levels[0.55].max())


def test_differences_are_symmetric(chromium, tmp_path, study):
    with Shown(chromium, tmp_path, study) as shown:
        shown.set(variant="CSR50", metric="difference", against="Even")
        low, high = shown.ends
        assert high.startswith("+")
        assert low == high.replace("+", "−")
        assert shown.note == f"colors fitted to ±{high[1:]}"
        shown.set(against="CSR50")  # no difference at all
        assert len(set(shown.fills)) == 1
        assert shown.ends == ["−100.0", "+100.0"]


def test_python_and_the_page_have_the_same_choices(chromium, tmp_path, study):
    explorer = sr.explore(study)
    pair = sr.explore(two_policies(sr.load(), []))
    with Shown(chromium, tmp_path, study) as shown:
        choices = shown.run("[...viewer.map.colors.options].map(({ value }) => value)")
        assert shown.run("viewer.state.colors") == explorer.state["colors"]
        shown.page.locator(".sv-colors").select_option("full")
        assert shown.run("viewer.state.colors") == "full"
    for one in (explorer, pair):
        for choice in choices:
            one.select(colors=choice)
        with pytest.raises(RefusedValueError, match="one of " + ", ".join(choices)):
            one.select(colors="warm")


def test_saved_pictures_have_the_colors_in_view(chromium, tmp_path, study):
    with Shown(chromium, tmp_path, study) as shown:
        picture = shown.run("viewer.map.picture(viewer.store.state, 500, 'Title')")
        shapes = [shape for plan, *_ in picture["parts"] for shape in plan["shapes"]]
        texts = [shape["text"] for shape in shapes if shape["t"] == "text"]
        assert {*shown.ends, shown.note} <= {*texts}
        fills = {shape["fill"] for shape in shapes if shape["t"] == "rect"}
        assert {*shown.fills} <= fills


def test_bars_share_one_scale(chromium, tmp_path, study):
    code = "viewer.panel.picture(viewer.store.state).shapes.filter(({ t }) => t === 'rect')"
    with Shown(chromium, tmp_path, study) as shown:
        for traits in ({"metric": "sparsity"}, {"metric": "stored_bytes", "layout": "csr"}):
            shown.run("viewer.store.set({ panel: 'groups' })")
            widths = []
            for share in (0.3, 0.8):
                shown.set(sparsity=share, **traits)
                bars = shown.run(code)
                values = shown.run(
                    "viewer.figures.bars(viewer.store.state).map(({ value }) => value)"
                )
                widths += [bar["w"] / value for bar, value in zip(bars, values, strict=True)]
            assert np.ptp(widths) < 1e-6 * widths[0], traits


@pytest.mark.parametrize("width", [390, 1440])
def test_labels_of_many_blocks(chromium, tmp_path, width):
    torch.manual_seed(0)
    model = nn.Module()
    model.layers = nn.ModuleList(nn.ModuleDict({"fc": nn.Linear(4, 4)}) for _ in range(1010))
    weights = sr.load(model, name="deep")
    with Shown(chromium, tmp_path, sr.compare(sr.dense(weights)), width) as shown:
        shapes = shown.run("viewer.map.plan.shapes")
        numbers = [int(s["text"]) for s in shapes if re.fullmatch(r"\d+", s.get("text", ""))]
        every = numbers[1]
        assert str(every).rstrip("0") in {"1", "2", "5"}
        assert numbers[:-1] == list(range(0, 1010, every))[: len(numbers) - 1]
        boxes = shown.page.locator(".sv-map text").evaluate_all(
            "texts => texts.filter(({ textContent }) => /^[0-9]+$/.test(textContent))"
            ".map((text) => text.getBoundingClientRect()).map(({ left, right }) => [left, right])"
        )
        boxes.sort()
        assert all(a[1] + 3 < b[0] for a, b in pairwise(boxes))


def test_a_small_map_fills_its_space(chromium, tmp_path, study):
    with Shown(chromium, tmp_path, study) as shown:
        box = shown.page.locator(".sv-map").bounding_box()
        cells = [cell.bounding_box() for cell in shown.page.locator(".sv-cell").all()]
        right = max(cell["x"] + cell["width"] for cell in cells)
        assert right == pytest.approx(box["x"] + box["width"], abs=4)
        bottom = max(cell["y"] + cell["height"] for cell in cells)
        assert bottom == pytest.approx(box["y"] + box["height"] - 36, abs=4)
