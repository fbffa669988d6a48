"""The report in a real browser: drawn, silent, offline, and whole without scripts."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

import sparsity_report as sr

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = [
    "</script><script>hacked=1</script>",
    "<img src=x onerror=hacked=1>",
    "{{7*7}}",
    "quote\"'`",
    "\u202egnirts\u202c",
    "x" * 5000,
]


def study_of(names, model_name, variants=("Dense", "Masked", "CSR")):
    torch.manual_seed(0)
    blocks = [nn.ModuleDict({name: nn.Linear(6, 8) for name in names}) for _ in range(3)]
    weights = sr.load(nn.ModuleDict({"layers": nn.ModuleList(blocks)}), name=model_name)
    pruning = sr.global_magnitude(weights, 0.3)
    dense, masked, csr = variants
    return sr.compare(
        sr.dense(weights, name=dense), sr.masked(pruning, name=masked), sr.csr(pruning, name=csr)
    )


@pytest.fixture(scope="module")
def chromium():
    found = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium")
    missing = [
        what
        for what, there in [("chromium", found), ("playwright", find_spec("playwright"))]
        if not there
    ]
    if missing:
        reason = f"missing: {' and '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI nothing may be skipped")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Launched by Playwright, Chromium gets a profile of its own, thrown away at the end.
        opened = driver.chromium.launch(executable_path=found, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return sr.write_report(study_of(["fc1", "fc2"], "three-blocks"), folder / "report.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    study = study_of(HOSTILE, "".join(HOSTILE[:3]), (HOSTILE[0], HOSTILE[1], HOSTILE[5]))
    return sr.write_report(study, tmp_path_factory.mktemp("hostile") / "report.html")


class Visit:
    """A page, what it asked the network for, and what it complained about."""

    def __init__(self, browser, path, wait=True, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda line: line.type in {"error", "warning"} and self.complaints.append(line.text),
        )
        self.url = path.as_uri()
        self.page.goto(self.url)
        if wait:
            self.page.wait_for_function(
                "document.querySelectorAll('figure').length"
                " === document.querySelectorAll('figure.is-live').length"
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.mark.parametrize("name", ["report", "hostile"])
def test_draws_every_chart_and_asks_for_nothing(chromium, request, name):
    with Visit(chromium, request.getfixturevalue(name)) as visit:
        assert visit.page.locator("figure").count() == 5
        assert visit.page.locator("figure .live svg.marks").count() == 5
        for live in visit.page.locator("figure .live svg.marks").all():
            assert live.bounding_box()["height"] > 50
        assert not visit.page.locator("figure .still").first.is_visible()
        assert visit.requests == [visit.url]
        assert visit.complaints == []
        assert visit.page.evaluate("window.hacked") is None


def test_live_charts_answer_the_mouse(chromium, report):
    with Visit(chromium, report) as visit:
        visit.page.locator("#map figure .live .mark-rect path").first.hover(
            position={"x": 20, "y": 14}
        )
        tooltip = visit.page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert "fc1" in tooltip.inner_text()


def test_a_hostile_name_in_a_tooltip_is_text(chromium, hostile):
    with Visit(chromium, hostile) as visit:
        visit.page.locator("#map figure .live .mark-rect path").nth(1).hover(
            position={"x": 20, "y": 14}
        )
        tooltip = visit.page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert visit.page.locator("#vg-tooltip-element img").count() == 0
        assert visit.page.evaluate("window.hacked") is None


def test_without_scripts_everything_is_there(chromium, report):
    with Visit(chromium, report, wait=False, java_script_enabled=False) as visit:
        assert visit.page.locator("figure .still svg").count() == 5
        for picture in visit.page.locator("figure .still svg.marks").all():
            assert picture.is_visible()
            assert picture.bounding_box()["height"] > 50
        assert visit.page.locator("table.totals").is_visible()
        visit.page.locator("summary").first.click()
        assert visit.page.locator("#comparison details table").first.is_visible()
        assert visit.requests == [visit.url]


def test_print_shows_the_pictures(chromium, report):
    with Visit(chromium, report) as visit:
        visit.page.emulate_media(media="print")
        assert all(still.is_visible() for still in visit.page.locator("figure .still").all())
        assert not any(live.is_visible() for live in visit.page.locator("figure .live").all())
        assert not visit.page.locator("nav").is_visible()


@pytest.mark.parametrize("name", ["report", "hostile"])
@pytest.mark.parametrize("width", [400, 800, 1600])
def test_the_page_never_scrolls_sideways(chromium, request, name, width):
    size = {"width": width, "height": 900}
    with Visit(chromium, request.getfixturevalue(name), viewport=size) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def contrast(page, selector, paper):
    """WCAG contrast of the first such element's filling, or its colour, against the paper."""
    rgb = page.evaluate(
        """([selector, paper]) => [
            [document.querySelector(selector), 'fill'], [document.querySelector(paper),
            'backgroundColor']].map(([e, p]) => getComputedStyle(e)[p].match(/[\\d.]+/g)
            .slice(0, 3).map(Number))""",
        [selector, paper],
    )

    def luminance(channels):
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (channel / 255 for channel in channels)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted(map(luminance, rgb), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_readable_by_day_and_night(chromium, report, scheme):
    with Visit(chromium, report, color_scheme=scheme) as visit:
        texts = (
            "#sparsity-figure .live .role-axis-label text",
            "#sparsity-figure .live .mark-text text",
        )
        for selector in texts:
            assert contrast(visit.page, selector, "body") > 7
        bar = '#sparsity-figure .live .mark-rect path[fill="#000000"]'
        assert contrast(visit.page, bar, "body") > 7
