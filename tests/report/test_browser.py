"""The report in a real browser: drawn, silent, offline, and whole without scripts."""

import re
import shutil
import subprocess

import hostile as names
import pytest
import torch
from browser import Visit, violations
from helpers import need
from torch import nn

import sparsity_report as sr
from sparsity_report.words.sentences import say

pytestmark = pytest.mark.slow(seconds=130)


def weights_of(names, model_name):
    torch.manual_seed(0)
    blocks = [nn.ModuleDict({name: nn.Linear(6, 8) for name in names}) for _ in range(3)]
    return sr.load(nn.ModuleDict({"layers": nn.ModuleList(blocks)}), name=model_name)


def study_of(names, model_name, variants=("Dense", "Masked", "CSR")):
    weights = weights_of(names, model_name)
    pruning = sr.global_magnitude(weights, 0.3)
    dense, masked, csr = variants
    return sr.compare(
        sr.dense(weights, name=dense), sr.masked(pruning, name=masked), sr.csr(pruning, name=csr)
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return sr.write_report(study_of(["fc1", "fc2"], "three-blocks"), folder / "report.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    study = sr.read_study(names.edited(names.study(folder), folder / "study.json"))
    return sr.write_report(study, folder / "report.html")


# Of one pruning, Masked and CSR; the slider is the one without a picture for paper.
CHARTS = ("map1", "spread", "slider", "sparsity", "curve", "flops", "param_frac")
PICTURES = [f"{key}-figure" for key in CHARTS if key != "slider"]
# Of two that were told apart, with all that can be measured and one color bar for two small maps.
SEVERAL = ("map-colors", "small-map0", "small-map1", "blocks", "excess")
MEASURED = ("quality", "distance", "sensitivity", "speed", "crossover")


def keys_of(figures):
    return [figure.get_attribute("id") for figure in figures.all()]


@pytest.mark.parametrize(
    ("name", "charts"),
    [("report", CHARTS), ("hostile", (*CHARTS, *SEVERAL, *MEASURED))],
    ids=["report", "hostile"],
)
def test_draws_every_chart_and_asks_for_nothing(chromium, request, name, charts):
    with Visit(chromium, request.getfixturevalue(name)) as visit:
        figures = visit.page.locator("figure")
        assert sorted(keys_of(figures)) == sorted(f"{key}-figure" for key in charts)
        for figure in figures.all():
            (live,) = figure.locator(".live svg.marks").all()
            bar = figure.get_attribute("id") == "map-colors-figure"
            assert live.bounding_box()["height"] > (25 if bar else 50)
        assert not visit.page.locator("figure .still").first.is_visible()
        assert visit.requests == [visit.url]
        assert visit.complaints == []
        assert visit.page.evaluate("window.hacked") is None


def test_live_charts_answer_the_mouse(chromium, report):
    with Visit(chromium, report) as visit:
        visit.page.locator("#summary .plate .live .mark-rect path").first.hover(
            position={"x": 20, "y": 14}
        )
        tooltip = visit.page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert "fc1" in tooltip.inner_text()


def test_a_hostile_name_in_a_tooltip_is_text(chromium, hostile):
    with Visit(chromium, hostile) as visit:
        visit.page.locator("#summary .plate .live .mark-rect path").nth(1).hover(
            position={"x": 20, "y": 14}
        )
        tooltip = visit.page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert visit.page.locator("#vg-tooltip-element img").count() == 0
        assert visit.page.evaluate("window.hacked") is None


def test_without_scripts_everything_is_there(chromium, report):
    with Visit(chromium, report, wait=False, java_script_enabled=False) as visit:
        assert keys_of(visit.page.locator("figure:has(> .still > svg)")) == PICTURES
        for picture in visit.page.locator("figure .still svg.marks").all():
            assert picture.is_visible()
            assert picture.bounding_box()["height"] > 50
        assert visit.page.locator("table.totals").is_visible()
        visit.page.locator("#flops summary").first.click()
        assert visit.page.locator("#flops details table").first.is_visible()
        # The slider gives way to a table of its levels.
        assert not visit.page.locator("#level").is_visible()
        assert visit.page.locator("details.levels tbody tr").count() == 10
        assert visit.page.locator("details.levels table").is_visible()
        visit.page.locator("details.all summary").first.click()
        assert visit.page.locator("table.layers").first.locator("tbody tr").count() == 6
        assert visit.requests == [visit.url]


def test_print_shows_the_pictures(chromium, report):
    with Visit(chromium, report) as visit:
        visit.page.emulate_media(media="print")
        assert keys_of(visit.page.locator("figure:has(> .still)")) == PICTURES
        stills = visit.page.locator("figure .still").all()
        assert all(still.is_visible() for still in stills)
        assert not any(live.is_visible() for live in visit.page.locator("figure .live").all())
        assert not visit.page.locator("nav").is_visible()
        assert not visit.page.locator(".slider").is_visible()
        assert visit.page.locator("details.levels table").is_visible()
        assert all(table.is_visible() for table in visit.page.locator("table.layers").all())


def test_printed_to_pdf_nothing_is_missing(chromium, report, tmp_path):
    need(bool(shutil.which("pdftotext")), "pdftotext")
    with Visit(chromium, report) as visit:
        visit.page.pdf(path=tmp_path / "printed.pdf", prefer_css_page_size=True)
    text = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "printed.pdf", "-"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    text = " ".join(text.split())
    for wording in (
        say("page.sparsities_heading"),
        "layers.2.fc2",
        "How to cite",
        "90 % 259 89.9 %",
    ):
        assert wording in text
    assert "Show more" not in text


def shown(page, part):
    return page.locator(f'[data-show="{part}"]').inner_text()


@pytest.mark.parametrize("percent", [0, 17, 60, 99])
def test_the_slider_shows_what_a_pruning_would_do(chromium, report, percent):
    weights = weights_of(["fc1", "fc2"], "three-blocks")
    pruning = sr.global_magnitude(weights, percent / 100)
    dense, csr = sr.compare(sr.dense(weights), sr.csr(pruning)).totals.to_dict("records")
    with Visit(chromium, report, wait=False) as visit:
        visit.page.locator("#level").fill(str(percent))
        grouped = f"{pruning.pruned:,} of {csr['prunable_total']:,}".replace(",", "\u202f")
        assert shown(visit.page, "zeros") == f"{grouped} prunable weights"
        ratio = csr["stored_bytes"] / dense["stored_bytes"]
        assert shown(visit.page, "bytes_ratio") == f"{ratio:.2f}\u202f×"
        # Exactly: nonzeros·(4 + 4) + six matrices' row pointers + biases, in bytes.
        assert csr["stored_bytes"] == (
            (csr["prunable_total"] - pruning.pruned) * 8 + 6 * (8 + 1) * 4 + 6 * 8 * 4
        )
        assert shown(visit.page, "flops_ratio") == (
            f"{csr['flops_per_token'] / dense['flops_per_token']:.2f}\u202f×"
        )
        assert shown(visit.page, "sparsity_model") == f"{100 * csr['sparsity_model']:.1f}\u202f%"
        assert visit.complaints == []


def colors(page):
    """Colors of the cells of the slider's map, as they are drawn."""
    cells = page.locator("#slider-figure .live .mark-rect path").all()
    fills = [cell.get_attribute("fill") for cell in cells]
    return [fill for fill in fills if fill.startswith("rgb")][:6]


def test_the_slider_answers_mouse_and_keys(chromium, report):
    with Visit(chromium, report) as visit:
        level, text = visit.page.locator("#level"), visit.page.locator('[data-show="asked"]')
        assert text.inner_text() == "30\u202f%"
        level.scroll_into_view_if_needed()
        box = level.bounding_box()
        before = colors(visit.page)
        y = box["y"] + box["height"] / 2
        visit.page.mouse.move(box["x"] + 8 + 0.3 * (box["width"] - 16), y)
        visit.page.mouse.down()
        visit.page.mouse.move(box["x"] + 0.8 * box["width"], y, steps=5)
        visit.page.mouse.up()
        dragged = int(text.inner_text().split("\u202f")[0])
        assert 75 < dragged < 85
        visit.page.wait_for_function(
            "color => !document.querySelector('#slider-figure .live').innerHTML.includes(color)",
            arg=before[0],
        )
        after = colors(visit.page)
        assert len(after) == 6
        assert all(old != new for old, new in zip(before, after, strict=True))
        level.press("ArrowRight")
        assert text.inner_text() == f"{dragged + 1}\u202f%"
        level.press("Home")
        assert text.inner_text() == "0\u202f%"
        assert shown(visit.page, "bytes_ratio") in level.get_attribute("aria-valuetext")
        visit.page.locator(".ticks button").first.click()
        assert text.inner_text() == "30\u202f%"
        assert visit.complaints == []


def test_a_cell_of_the_map_leads_to_its_layer(chromium, report):
    with Visit(chromium, report) as visit:
        named = "[aria-label*='Transformer block: 1; projection: fc2']"
        cell = visit.page.locator(f"#slider-figure .live .mark-rect path{named}").first
        beside = {"x": 20, "y": 4}
        cell.hover(position=beside)
        pointed = visit.page.locator(".pointed")
        visit.page.wait_for_function("document.querySelector('.pointed').textContent")
        assert pointed.inner_text().startswith("block 1, fc2: ")
        assert " of 48" in pointed.inner_text()
        before = pointed.inner_text()
        visit.page.locator("#level").fill("90")
        visit.page.wait_for_function(
            "text => document.querySelector('.pointed').textContent !== text", arg=before
        )
        cell.click(position=beside)
        rows = visit.page.locator("table.layers").last.locator("tbody tr")
        assert [row.inner_text().split("\t")[0] for row in rows.all()] == ["layers.1.fc2"]
        shown = visit.page.locator(".histogram")
        assert shown.locator("option:checked").inner_text() == "layers.1.fc2"
        shown.locator(".live svg").wait_for()
        before = shown.locator(".note").inner_text()
        assert re.fullmatch(r"Threshold (≈ 0\.\d+|0\.\d+–0\.\d+)", before)
        # Where the bars turn from pale to full stands a line, which moves with the slider.
        rule = shown.locator(".live .mark-rule.role-mark line")
        far = rule.bounding_box()["x"]
        visit.page.locator("#level").fill("10")
        levels = [
            re.search(r"0\.\d+", note)[0] for note in (shown.locator(".note").inner_text(), before)
        ]
        assert float(levels[0]) < float(levels[1])
        visit.page.wait_for_function(
            "far => document.querySelector('.histogram .mark-rule.role-mark line')"
            ".getBoundingClientRect().x < far - 1", arg=far,
        )  # fmt: skip
        full = shown.locator('.live .mark-rect path[fill="#0072B2"]').all()
        turn = min(bar.bounding_box()["x"] for bar in full)
        assert rule.bounding_box()["x"] == pytest.approx(turn, abs=1.5)
        assert visit.page.locator("input[type=search]").last.is_visible()
        assert visit.complaints == []


def test_the_sliders_bars_are_those_of_the_groups(chromium, report):
    with Visit(chromium, report) as visit:
        groups = visit.page.locator("#sparsity-figure .live .mark-text text")
        written = {text.strip() for text in groups.all_text_contents()}
        bars = "#slider-figure .live .mark-text text[aria-label*='group']"
        slid = visit.page.locator(bars).all_text_contents()
        shares = [text.strip() for text in slid]
        assert shares
        assert set(shares) <= written


def column(page, number):
    cells = page.locator("table.layers").last.locator(f"tbody tr > :nth-child({number})")
    return [cell.inner_text() for cell in cells.all()]


def test_layers_sort_and_search(chromium, report):
    with Visit(chromium, report, wait=False) as visit:
        page = visit.page
        page.locator("details.all summary").last.click()
        table = page.locator("table.layers").last
        head = table.locator("thead th").nth(6)
        in_order = column(page, 1)
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        rising = [float(text.split("\u202f")[0]) for text in column(page, 7)]
        assert rising == sorted(rising)
        assert len(set(rising)) > 2
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert column(page, 7) == [f"{share:.1f}\u202f%" for share in rising[::-1]]
        table.locator("thead th").nth(0).get_by_role("button").click()
        assert head.get_attribute("aria-sort") is None
        assert column(page, 1) == sorted(in_order)
        search = page.get_by_role("searchbox").last
        search.fill("FC2 layers.1")
        assert column(page, 1) == ["layers.1.fc2"]
        assert "1 of 6" in page.locator("[role=status]").last.inner_text()
        search.fill("nothing like it")
        assert column(page, 1) == []
        search.fill("")
        assert len(column(page, 1)) == 6
        assert not page.get_by_role("button", name="Show more").last.is_visible()
        assert visit.complaints == []


def test_what_changed_sorts_too(chromium, tmp_path):
    studies = [
        sr.compare(sr.masked(sr.global_magnitude(weights_of(["fc1", "fc2"], "m"), s), name="M"))
        for s in (0.1, 0.5)
    ]
    with Visit(chromium, sr.write_diff(sr.diff(*studies), tmp_path / "d.html")) as visit:
        heads = visit.page.locator("#modules thead button")
        heads.nth(4).click()
        cells = visit.page.locator("#modules tbody td:last-child").all()
        after = [int(cell.inner_text()) for cell in cells]
        assert after == sorted(after)
        assert len(after) == 2 * 6
        assert visit.complaints == []


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """Ten thousand modules, of names that would be markup."""
    names = ["a</script>b", "{{7*7}}", "c", "d", "e", "f", "g", "h"]
    torch.manual_seed(0)
    blocks = [nn.ModuleDict({n: nn.Linear(4, 4) for n in names}) for _ in range(1250)]
    weights = sr.load(nn.ModuleDict({"layers": nn.ModuleList(blocks)}), name="ten-thousand")
    pruning = sr.global_magnitude(weights, 0.5)
    study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
    return sr.write_report(study, tmp_path_factory.mktemp("huge") / "report.html"), study


def test_ten_thousand_layers_are_usable(chromium, huge):
    path, study = huge
    assert path.stat().st_size < 10_000_000
    with Visit(chromium, path, wait=False) as visit:
        page = visit.page
        page.locator("details.all summary").last.click()
        assert len(column(page, 1)) == 200
        page.get_by_role("button", name="Show more").last.click()
        assert len(column(page, 1)) == 400
        page.get_by_role("searchbox").last.fill("layers.1249.a</script>b")
        modules = study.layers[study.layers["variant"] == "CSR50"].set_index("module_name")
        row = modules.loc["layers.1249.a</script>b"]
        (shown_row,) = page.locator("table.layers").last.locator("tbody tr").all()
        cells = [cell.inner_text() for cell in shown_row.locator("> *").all()]
        assert cells == [
            "layers.1249.a</script>b", "other linear", "4\u202f×\u202f4", "csr float32", "20",
            str(row["nonzero"]), f"{100 * row['sparsity']:.1f}\u202f%",
            *(str(row[c]) for c in ("flops_per_token", "useful_flops_per_token", "stored_bytes")),
        ]  # fmt: skip
        page.get_by_role("searchbox").last.fill("")
        page.locator("table.layers").last.locator("thead button").nth(5).click()
        nonzero = [int(text) for text in column(page, 6)]
        assert nonzero == sorted(modules["nonzero"])[: len(nonzero)]
        started = page.evaluate("performance.now()")
        for level in (10, 90, 50):
            page.locator("#level").fill(str(level))
        assert page.evaluate("performance.now()") - started < 2000
        assert page.locator("#slider-figure .live .mark-rect path").count() < 2_000
        assert visit.complaints == []
        assert page.evaluate("window.hacked") is None


def test_without_scripts_ten_thousand_layers_have_their_extremes(chromium, huge):
    with Visit(chromium, huge[0], wait=False, java_script_enabled=False) as visit:
        assert visit.page.locator("noscript p").is_visible()
        assert visit.page.locator("#audit .pair tbody tr").count() == 20


def test_ready_within_a_second(chromium, smollm2, tmp_path):
    pruning = sr.global_magnitude(smollm2, 0.3)
    study = sr.compare(sr.dense(smollm2), sr.masked(pruning), sr.csr(pruning))
    path = sr.write_report(study, tmp_path / "smollm2.html")
    assert path.stat().st_size < 2_500_000
    with Visit(chromium, path, wait=False) as visit:
        timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        visit.page.wait_for_function(f"{timing} > 0")
        ready = visit.page.evaluate(timing)
        print(f"SmolLM2 report: {path.stat().st_size:,} bytes, ready in {ready:.0f} ms")
        # Measured alone 0.4 s; tests share their two cores.
        assert ready < 3_000
        assert shown(visit.page, "zeros").startswith("31\u202f850\u202f496 of ")


def test_a_french_report_writes_french_numbers(chromium, tmp_path):
    study = study_of(["fc1", "fc2"], "trois-blocs")
    with Visit(chromium, sr.write_report(study, tmp_path / "r.html", language="fr")) as visit:
        page = visit.page
        assert page.locator("html").get_attribute("lang") == "fr"
        page.locator("#level").fill("50")
        assert shown(page, "zeros") == "144 sur 288 poids élagables"
        assert shown(page, "bytes_ratio").replace("×", "").strip().count(",") == 1
        page.locator("details.all summary").last.click()
        page.locator("table.layers").last.locator("thead button").nth(6).click()
        shares = [float(t.replace(",", ".").rstrip("\u00a0\u202f%")) for t in column(page, 7)]
        assert shares == sorted(shares)
        axis = page.locator("#flops-figure .live .role-axis-label text").all_text_contents()
        assert any("," in label for label in page.locator("#sparsity-figure .mark-text text")
                   .all_text_contents())  # fmt: skip
        assert not any("." in label for label in axis)
        assert visit.complaints == []


@pytest.fixture(scope="module")
def demo_page(demo_study, tmp_path_factory):
    return sr.write_report(demo_study, tmp_path_factory.mktemp("demo") / "report.html")


def boxes_of_the_first_screen(visit):
    """Lower edges of verdict, cards and map, in pixels from the top of the page."""
    parts = [visit.page.locator(f"#summary {part}") for part in (".verdict", ".cards", "figure")]
    boxes = [part.first.bounding_box() for part in parts]
    assert all(box["height"] > 40 for box in boxes)
    return [box["y"] + box["height"] for box in boxes]


@pytest.mark.parametrize(
    ("width", "height", "screens"), [(1440, 900, 1), (390, 844, 2)], ids=["desk", "phone"]
)
def test_verdict_cards_and_map_stand_on_the_first_screen(
    chromium, demo_page, width, height, screens
):
    with Visit(
        chromium, demo_page, wait=False, viewport={"width": width, "height": height}
    ) as visit:
        visit.page.wait_for_selector("#summary figure.is-live .live svg.marks")
        edges = boxes_of_the_first_screen(visit)
        assert edges == sorted(edges)
        assert edges[-1] <= screens * height
        assert visit.page.locator("#summary .cards > div").count() == 4
        assert visit.page.locator("#summary .findings > p").count() <= 3


def test_on_a_phone_charts_fit_and_their_letters_keep_their_size(chromium, report):
    with Visit(chromium, report, viewport={"width": 390, "height": 844}) as visit:
        assert visit.page.locator("details.roomy[open]").count() == 0
        for plate in visit.page.locator(".plate").all():
            box = plate.locator(".live svg.marks").bounding_box()
            assert 300 < box["width"] <= 358
            assert plate.evaluate("plate => plate.scrollWidth <= plate.clientWidth")
            size = plate.locator(".live .role-axis-label text").first.evaluate(
                "text => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a"
            )
            assert size > 9.5
        assert visit.complaints == []


def test_the_reader_chooses_day_or_night(chromium, report):
    paper = "getComputedStyle(document.body).backgroundColor"
    with Visit(chromium, report, wait=False, color_scheme="light") as visit:
        by_day = visit.page.evaluate(paper)
        switch = visit.page.get_by_role("button", name="Dark")
        switch.click()
        by_night = visit.page.evaluate(paper)
        assert sum(map(int, re.findall(r"\d+", by_night))) < 150
        visit.page.get_by_role("button", name="Light").click()
        assert visit.page.evaluate(paper) == by_day != by_night
        assert visit.complaints == []


WIDTH = "document.documentElement.scrollWidth"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (800, "dark"), (1600, "light")])
def test_axe_finds_nothing_and_the_page_never_scrolls_sideways(chromium, report, width, scheme):
    size = {"width": width, "height": 900}
    with Visit(chromium, report, viewport=size, color_scheme=scheme) as visit:
        assert visit.page.evaluate(WIDTH) <= width
        assert violations(visit.page) == []


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_a_page_of_hostile_names_never_scrolls_sideways(chromium, hostile, width):
    size = {"width": width, "height": 900}
    with Visit(chromium, hostile, viewport=size) as visit:
        assert visit.page.evaluate(WIDTH) <= width


def contrast(page, selector, paper):
    """WCAG contrast of the first such element's filling, or its color, against the paper."""
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
        visit.page.locator("#sparsity-figure").scroll_into_view_if_needed()
        visit.page.wait_for_selector(texts[0], state="attached")
        for selector in texts:
            assert contrast(visit.page, selector, "body") > 7
        bar = '#sparsity-figure .live .mark-rect path[fill="#0072B2"]'
        assert contrast(visit.page, bar, "body") > 3
