"""Exports of the page: its address, its charts, its tables."""

import csv
import io
import json
import math
import re
import struct
import subprocess
import unicodedata
import xml.etree.ElementTree as ET
from itertools import chain, product
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from browser import copied, node

import sparsity_report as sr
from sparsity_report.study.files.csv_files import FORMULA, csv_text

# Signs at which spreadsheets begin a formula, and what some skip before them.
SIGNS = ("=", "+", "-", "@")
IGNORED = ' \t\r\n\v\f"\0\x1c\x7f\x85\u180e\u200b\u200e\u2028\u202e\u2060\ufeff'
FORMULAS = [
    '=1+1;"@x"', "＝x", " =1+1", "\u00a0=1", "\u3000=1", "\ufeff=1", "\u200b=1", "\0=1", "\x85=1",
    "a;=2", "a; \"＋1", "a,=1", 'a,"=1', "a\t=1", "a\r\n=1", "a\n+1", "-3", '"=1', "\t@x", "﹣1",
    "-1e5;=cmd|' /C calc'!A0", "＠x;－y", "@SUM(1+1)*cmd|' /C calc'!A0", "x,y;;\u2060 +1", "+1.5",
]  # fmt: skip
NO_FORMULAS = [
    "a|b", "🦙 模型 é ß ≤", "<b>&amp;</b>", "−1", "a=1", ";;", "1e-05", "x - y", "", "0.5",
]  # fmt: skip
ELEMENTS = Path(sr.__file__).parent / "viewer" / "elements.js"


@pytest.fixture(scope="module")
def report(demo_study, tmp_path_factory):
    return sr.write_report(demo_study, tmp_path_factory.mktemp("kept") / "report.html")


@pytest.fixture(scope="module")
def page(chromium, report):
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
    page.goto(report.as_uri())
    yield page
    assert page.complaints == []
    context.close()


def opened_at(page, report, fragment):
    """The page as one finds it who was sent its address."""
    page.goto("about:blank")
    page.goto(f"{report.as_uri()}#{fragment}")
    page.wait_for_selector(".sv-ready")
    return page


def state(page):
    return page.evaluate(
        """() => ({
            viewer: document.querySelector(".sparsity-viewer").viewer.state,
            scheme: document.documentElement.dataset.scheme ?? null,
        })"""
    )


def wait_for_address(page, *parts):
    for part in parts:
        page.wait_for_function("part => location.hash.includes(part)", arg=part)


def test_the_address_brings_back_what_was_set(page, report):
    opened_at(page, report, "totals")
    fresh = state(page)
    page.locator(".sv-slider").fill("45")
    page.locator("#scheme").click()
    wait_for_address(page, "#totals&", "sparsity=0.45", "scheme=")
    left, address = state(page), page.evaluate("location.hash.slice(1)")
    assert left != fresh
    assert (left["viewer"]["sparsity"], left["viewer"]["variant"]) == (0.45, "at level")
    assert state(opened_at(page, report, address)) == left
    place = page.evaluate("scrollY")
    page.wait_for_timeout(500)
    assert place == page.evaluate("scrollY") > 0  # links do not move under the pointer
    page.locator("nav a").nth(2).click()  # a section, and all else stays
    section = page.locator("nav a").nth(2).get_attribute("href")
    wait_for_address(page, f"{section}&", "sparsity=")
    assert state(page) == left


LAYERS = [f"model.decoder.layers.{block}.fc{n}" for block in range(4) for n in (1, 2)]
KEPT = [
    {"variant": "Masked30"},
    {"policy": "N:4", "sparsity": 0.5, "layout": "bitmask"},
    {"metric": "difference", "against": "CSR30", "sort": "-difference"},
    {"modules": "all", "search": "ü%&=#" * 400, "sort": "module"},
    {"grouping": "block", "panel": "groups"},
    {"selection": LAYERS, "detail": LAYERS[0], "panel": "costs"},
]


@pytest.mark.parametrize("traits", KEPT, ids=str)
def test_a_reload_keeps_each_setting(page, report, traits):
    opened_at(page, report, "")
    viewer = "document.querySelector('.sparsity-viewer').viewer"
    page.evaluate(
        f"traits => Object.entries(traits).forEach(([k, v]) => {viewer}.set({{ [k]: v }}))", traits
    )
    left = page.evaluate(f"{viewer}.kept")
    for name, value in traits.items():
        assert left[name] == value
    page.wait_for_timeout(900)
    page.reload()
    page.wait_for_selector(".sv-ready")
    page.wait_for_timeout(300)
    assert page.evaluate(f"{viewer}.kept") == left
    # Another page of the same address has what is short.
    assert len(page.evaluate("location.hash")) < 4000


def test_a_change_right_before_a_reload_is_kept(page, report):
    opened_at(page, report, "")
    page.wait_for_timeout(900)
    page.locator(".sv-slider").fill("45")
    page.reload()
    page.wait_for_selector(".sv-ready")
    page.wait_for_timeout(300)
    assert state(page)["viewer"]["sparsity"] == 0.45


def test_an_address_without_an_event_yet_is_kept(page, report):
    """The event of a link may come after the page writes a change of the viewer."""
    opened_at(page, report, "totals")
    section = page.locator("nav a").nth(2).get_attribute("href")
    page.wait_for_timeout(600)
    page.evaluate("section => history.replaceState(null, '', section)", section)
    page.locator(".sv-slider").fill("45")
    wait_for_address(page, "sparsity=0.45")
    assert page.evaluate("location.hash").startswith(f"{section}&")


def test_an_address_that_makes_no_sense_changes_nothing(page, report):
    fresh = state(opened_at(page, report, ""))
    attack = quote("<img src=x onerror=alert(1)>")
    for fragment in (
        f"metric={attack}&variant={attack}&sparsity={attack}&layout=x",
        f"sort=__proto__&sort={attack}",
        f"scheme={attack}&__proto__=1&constructor=1&toString=1&%E0%A4%A&%00&{attack}={attack}",
        f"scheme=dark&x={'y' * 5000}",
    ):
        assert state(opened_at(page, report, fragment)) == fresh
    assert state(opened_at(page, report, "sparsity=0.123"))["viewer"]["sparsity"] == 0.12
    assert page.locator("img").count() == 0


def saved(page, place, kind):
    """A chart as the page saves it: the file's name and what is in it."""
    tools = page.locator(place).locator(".tools").first
    button = tools.get_by_role("button", name=kind, exact=True)
    if not button.is_visible():
        tools.locator("> button").press("Enter")
    with page.expect_download() as download:
        button.press("Enter")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_every_chart_saves_as_svg_and_png(page, report):
    opened_at(page, report, "scheme=dark")
    page.set_viewport_size({"width": 390, "height": 844})  # what is saved is as wide as ever
    figures = page.locator("figure").count()
    assert page.locator("figure + .tools").count() == figures == 1
    name, drawn = saved(page, "#storage .plate", "SVG")
    root = ET.fromstring(drawn)
    assert name == "demo-curve.svg"
    assert b"#222222" in drawn  # as by day
    texts = {"".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Bytes against sparsity", "bitmask"} <= texts
    assert float(root.get("width")) > 320
    assert root[0].tag.endswith("title")
    name, image = saved(page, "#storage .plate", "PNG")
    assert name == "demo-curve.png"
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", image[16:24]) == tuple(
        2 * round(float(root.get(side))) for side in ("width", "height")
    )
    page.set_viewport_size({"width": 1440, "height": 900})


def test_a_table_copies_with_plain_digits(page, report, demo_study):
    opened_at(page, report, "")
    totals = page.locator("#totals .tools").first
    rows = list(csv.reader(io.StringIO(copied(page, totals))))
    by_variant = demo_study.totals.set_index("variant")
    assert rows[0] == ["", "Dense", "Masked30", "CSR30"]
    (stored,) = (row for row in rows if row[0] == "Stored bytes")
    assert [int(digits) for digits in stored[1:]] == list(by_variant["stored_bytes"])
    assert rows[1][0].startswith("Sparsity of the prunable weights (")
    assert rows[1][0].endswith(" / %")
    assert float(rows[1][2]) == pytest.approx(100 * by_variant["sparsity_prunable"]["Masked30"])
    assert "\u202f" not in copied(page, totals)
    assert page.locator("#said").inner_text() == "Copied"


def read_cells(text):
    """Yield the cells that spreadsheets read, at each separator and quote, without blanks."""
    lines = [text, *re.split("[\r\n]", text)]
    for line, separator in product(lines, ",;\t"):
        rows = csv.reader(io.StringIO(line, newline=""), delimiter=separator)
        parts = [*chain(*rows), *line.split(separator)]
        yield from (unicodedata.normalize("NFKC", part).strip(IGNORED) for part in parts)


@pytest.mark.tools
def test_scripts_keep_formulas_out_of_spreadsheets_as_the_package_does():
    """By OWASP's rule: no cell begins with a sign of a formula, whatever separates cells."""
    cells = [*FORMULAS, *NO_FORMULAS]
    code = (
        f"const {{ inert }} = await import({ELEMENTS.as_uri()!r});"
        f"console.log(JSON.stringify({json.dumps(cells)}.map(inert)));"
    )
    command = [node(), "--input-type=module", "--eval", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    written = json.loads(run.stdout)
    assert written == [FORMULA.sub("'", cell) for cell in cells]
    assert written[len(FORMULAS) :] == NO_FORMULAS
    for cell, safe in zip(FORMULAS, written, strict=False):
        assert safe.replace("'", "") == cell.replace("'", "")
        assert any(part.startswith(SIGNS) for part in read_cells(cell)), ascii(cell)
        assert not any(part.startswith(SIGNS) for part in read_cells(safe)), ascii(safe)


def test_figures_of_csv_stay_numbers():
    figures = [-1e5, -0.25, 1e-7, math.inf, np.float32(-2.5), np.int64(-3), -(2**70)]
    text = csv_text(pd.DataFrame({"x": figures, "y": [*map(str, figures)]}))
    rows = [*csv.DictReader(io.StringIO(text))]
    assert [float(row["x"]) for row in rows] == figures
    assert [row["y"].startswith("'") for row in rows] == [figure < 0 for figure in figures]


def test_text_is_selected_without_clipboard_access(page, report):
    opened_at(page, report, "")
    page.locator("#totals summary").click()
    tools = page.locator("#totals .tools").last
    copied(page, tools)
    page.evaluate("document.execCommand = () => false")
    tools.locator("> button").click()
    area = tools.locator("textarea")
    assert area.input_value() == page.evaluate("window.taken")
    assert area.evaluate("area => area.selectionEnd - area.selectionStart") > 100
    assert "manually" in page.locator("#said").inner_text()


def test_screen_controls_are_not_printed(page, report):
    opened_at(page, report, "")
    page.emulate_media(media="print")
    shown = page.evaluate(
        """() => [...document.querySelectorAll(".tools, #said")].filter(
            (part) => part.id !== "said" && part.checkVisibility()).length"""
    )
    page.emulate_media(media="screen")
    assert shown == 0
