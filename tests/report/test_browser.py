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


# Of one pruning, Masked and CSR.
CHARTS = ("map1", "spread", "sparsity", "curve", "flops", "param_frac")
PICTURES = [f"{key}-figure" for key in CHARTS]
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
        # The viewer takes the place of the first map.
        assert sorted(keys_of(figures)) == sorted(f"{key}-figure" for key in charts[1:])
        assert visit.page.locator(".sv-map").bounding_box()["height"] > 100
        for figure in figures.all():
            (drawn,) = figure.locator("svg").all()
            bar = figure.get_attribute("id") == "map-colors-figure"
            assert drawn.bounding_box()["height"] > (25 if bar else 50)
        assert visit.requests == [visit.url]
        assert visit.complaints == []
        assert visit.page.evaluate("window.hacked") is None


def test_marks_have_titles_and_a_hostile_name_in_one_is_text(chromium, report, hostile):
    with Visit(chromium, report) as visit:
        titles = visit.page.locator("#sparsity-figure title").all_text_contents()
        assert len(titles) == 2
        assert re.fullmatch(r"group: .*; variant: .*; .*: 0\.0\W%", titles[0])
    with Visit(chromium, hostile) as visit:
        assert visit.page.locator("figure title > *, figure img").count() == 0
        assert visit.page.evaluate("window.hacked") is None


@pytest.mark.parametrize("width", [390, 800, 1440])
def test_the_viewer_opens_without_moving_the_page(chromium, demo_page, width):
    shifts = """new Promise((done) => {
        const found = (list) => done(list.getEntries().map(({ value }) => value));
        new PerformanceObserver(found).observe({ type: "layout-shift", buffered: true });
        setTimeout(() => done([]), 1000);
    })"""
    with Visit(chromium, demo_page, viewport={"width": width, "height": 900}) as visit:
        assert sum(visit.page.evaluate(shifts)) == 0
        assert "30.0" in visit.page.locator(".sv-sentence").inner_text()
        assert visit.requests == [visit.url]
        assert visit.complaints == []
        assert "unsafe-eval" not in demo_page.read_text(encoding="utf-8")


def test_without_scripts_everything_is_there(chromium, report):
    with Visit(chromium, report, java_script_enabled=False) as visit:
        assert keys_of(visit.page.locator("figure:has(> svg)")) == PICTURES
        for picture in visit.page.locator("figure svg").all():
            assert picture.is_visible()
            assert picture.bounding_box()["height"] > 50
        assert visit.page.locator("table.totals").is_visible()
        visit.page.locator("#flops summary").first.click()
        assert visit.page.locator("#flops details table").first.is_visible()
        assert visit.page.locator("#map details.folded tbody tr").count() == 10
        visit.page.locator("details.all summary").first.click()
        assert visit.page.locator("table.layers").first.locator("tbody tr").count() == 6
        assert visit.requests == [visit.url]


def test_print_shows_the_pictures(chromium, report):
    with Visit(chromium, report) as visit:
        visit.page.emulate_media(media="print")
        assert keys_of(visit.page.locator("figure:visible:has(> svg)")) == PICTURES[1:]
        assert visit.page.locator(".sv-map").is_visible()
        assert not visit.page.locator("nav").is_visible()
        assert visit.page.locator("#map details.folded table").is_visible()
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


def column(page, number):
    cells = page.locator("table.layers").last.locator(f"tbody tr > :nth-child({number})")
    return [cell.inner_text() for cell in cells.all()]


def test_layers_sort_and_search(chromium, report):
    with Visit(chromium, report) as visit:
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
    with Visit(chromium, path) as visit:
        page = visit.page
        page.locator("details.all summary").last.click()
        # The page unpacks the data first.
        page.locator("table.layers").last.locator("tbody tr").first.wait_for()
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
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("table.layers").last.locator("tbody tr").count() == 10_000
        assert visit.complaints == []
        assert page.evaluate("window.hacked") is None


def test_without_scripts_ten_thousand_layers_have_their_extremes(chromium, huge):
    with Visit(chromium, huge[0], java_script_enabled=False) as visit:
        assert visit.page.locator("noscript p").is_visible()
        assert visit.page.locator("#audit .pair tbody tr").count() == 20


def test_ready_within_a_second(chromium, smollm2, tmp_path):
    pruning = sr.global_magnitude(smollm2, 0.3)
    study = sr.compare(sr.dense(smollm2), sr.masked(pruning), sr.csr(pruning))
    path = sr.write_report(study, tmp_path / "smollm2.html")
    assert path.stat().st_size < 600_000
    with Visit(chromium, path) as visit:
        timing = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        visit.page.wait_for_function(f"{timing} > 0")
        ready = visit.page.evaluate(timing)
        print(f"SmolLM2 report: {path.stat().st_size:,} bytes, ready in {ready:.0f} ms")
        # Measured alone 0.4 s; tests share their two cores.
        assert ready < 3_000


def test_a_french_report_writes_french_numbers(chromium, tmp_path):
    study = study_of(["fc1", "fc2"], "trois-blocs")
    with Visit(chromium, sr.write_report(study, tmp_path / "r.html", language="fr")) as visit:
        page = visit.page
        assert page.locator("html").get_attribute("lang") == "fr"
        page.locator("details.all summary").last.click()
        page.locator("table.layers").last.locator("thead button").nth(6).click()
        shares = [float(t.replace(",", ".").rstrip("\u00a0\u202f%")) for t in column(page, 7)]
        assert shares == sorted(shares)
        shown = page.locator("#sparsity-figure text").all_text_contents()
        assert any(re.fullmatch(r"\d+,\d\s%", label) for label in shown)
        assert not any(re.search(r"\d\.\d", label) for label in shown)
        assert visit.complaints == []


@pytest.fixture(scope="module")
def demo_page(demo_study, tmp_path_factory):
    return sr.write_report(demo_study, tmp_path_factory.mktemp("demo") / "report.html")


def boxes_of_the_first_screen(visit):
    """Lower edges of verdict, cards and map, in pixels from the top of the page."""
    parts = [visit.page.locator(f"#summary {part}") for part in (".verdict", ".cards", ".sv-map")]
    boxes = [part.first.bounding_box() for part in parts]
    assert all(box["height"] > 40 for box in boxes)
    return [box["y"] + box["height"] for box in boxes]


@pytest.mark.parametrize(
    ("width", "height", "screens"), [(1440, 900, 1), (390, 844, 2)], ids=["desk", "phone"]
)
def test_verdict_cards_and_map_stand_on_the_first_screen(
    chromium, demo_page, width, height, screens
):
    with Visit(chromium, demo_page, viewport={"width": width, "height": height}) as visit:
        edges = boxes_of_the_first_screen(visit)
        assert edges == sorted(edges)
        assert edges[-1] <= screens * height
        assert visit.page.locator("#summary .cards > div").count() == 4
        assert visit.page.locator("#summary .findings > p").count() <= 3


@pytest.mark.parametrize("width", [390, 800, 1440])
def test_letters_of_charts_are_large_at_any_width(chromium, report, width):
    with Visit(chromium, report, viewport={"width": width, "height": 844}) as visit:
        assert (visit.page.locator("details.roomy[open]").count() > 0) is (width >= 640)
        for figure in visit.page.locator(".plate figure").all():
            size = figure.locator("text").last.evaluate(
                "text => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a"
            )
            assert size > 8.9
        assert visit.complaints == []


def test_the_reader_chooses_day_or_night(chromium, report):
    paper = "getComputedStyle(document.body).backgroundColor"
    with Visit(chromium, report, color_scheme="light") as visit:
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
        for figure in PICTURES[1:]:
            assert contrast(visit.page, f'#{figure} [fill="#222222"]', "body") > 7
        bar = '#sparsity-figure [fill="#0072B2"]'
        assert contrast(visit.page, bar, "body") > 3
