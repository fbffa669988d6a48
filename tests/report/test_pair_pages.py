"""Pages of two checkpoints in a browser, on every screen."""

import csv
import io

import pytest
from browser import Visit, copied, violations
from pairs import gone, two_policies

import sparsity_report as sr

# Each width, by day or by night; charts and texts of both are looked at somewhere.
SCREENS = ((390, "light"), (800, "dark"), (1440, "light"), (390, "dark"))
SIDEWAYS = """() => [...document.querySelectorAll("body *")].filter((part) => {
    const hidden = ["auto", "scroll"].includes(getComputedStyle(part).overflowX);
    return hidden && part.checkVisibility() && part.scrollWidth > part.clientWidth + 1;
}).filter((part) =>
    !part.matches(".scroll, .multiples, .plate, .sparsity-viewer *, pre")
).map((part) => part.outerHTML)"""

SHIFT = """() => new Promise((done) => {
    let sum = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) sum += entry.value;
    }).observe({ type: "layout-shift", buffered: true });
    setTimeout(() => done(sum), 500);
})"""


@pytest.fixture(scope="module")
def pair(demo):
    experts = {2: (1, 4, 6), 0: (2, 5), 1: (3,)}
    rows = [
        gone("expert", f"model.layers.{block}.experts", number, 8, block)
        for block, numbers in experts.items()
        for number in numbers
    ]
    return two_policies(demo, rows)


@pytest.fixture(scope="module")
def visit(chromium, pair, tmp_path_factory):
    """One page in one window, whose size and colors change."""
    path = sr.write_report(pair, tmp_path_factory.mktemp("other") / "page.html")
    with Visit(chromium, path, viewport={"width": 390, "height": 844}) as visit:
        yield visit
        assert visit.complaints == []
        assert visit.requests[0] == visit.url
        assert set(visit.requests) == {visit.url}


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_on_every_screen_all_is_in_sight(visit, width, scheme):
    visit.page.set_viewport_size({"width": width, "height": 900})
    visit.page.emulate_media(color_scheme=scheme)
    assert violations(visit.page) == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.page.evaluate(SIDEWAYS) == []


def test_first_column_stays_in_sight(visit):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    scroll = visit.page.locator(".scroll:has(table.sortable)").last
    name, figure = (scroll.locator(f"tbody tr > :nth-child({n})").first for n in (1, 3))
    before = figure.bounding_box()["x"]
    scroll.evaluate("scroll => { scroll.scrollLeft = 100 }")
    assert figure.bounding_box()["x"] == pytest.approx(before - 100, abs=1)
    assert name.bounding_box()["x"] == pytest.approx(scroll.bounding_box()["x"], abs=1)
    scroll.evaluate("scroll => { scroll.scrollLeft = 0 }")


def test_removed_parts_sort_and_search(visit):
    def column(number):
        cells = visit.page.locator(f"#removed tbody tr > :nth-child({number})")
        return [cell.inner_text() for cell in cells.all()]

    heads = visit.page.locator("#removed thead th")
    number, in_order = heads.nth(2), column(2)
    assert column(3) == ["3", "2", "1"]
    number.get_by_role("button").click()
    assert number.get_attribute("aria-sort") == "ascending"
    assert column(3) == ["1", "2", "3"]
    number.get_by_role("button").press("Enter")
    assert number.get_attribute("aria-sort") == "descending"
    assert column(2) == in_order
    heads.nth(1).get_by_role("button").click()
    assert number.get_attribute("aria-sort") is None
    assert column(2) == sorted(in_order)
    search = visit.page.locator("#removed input")
    search.fill("EXPERTS layers.1")
    assert column(2) == ["model.layers.1.experts"]
    assert "1 of 3" in visit.page.locator("#removed [role=status]").inner_text()
    matching = copied(visit.page, visit.page.locator("#removed .tools")).splitlines()
    assert [line.split(",")[1] for line in matching[1:]] == ["model.layers.1.experts"]
    search.fill("nothing like it")
    assert column(2) == []
    search.fill("")
    assert len(column(2)) == 3


def test_every_table_is_copied(visit):
    page = visit.page
    tables = page.locator("table").all()
    menus = page.locator(".tools:not(figure + .tools, .multiples + .tools)").all()
    assert len(menus) == len(tables) >= 2
    for table, menu in zip(tables, menus, strict=True):
        rows = table.locator("tbody tr").count()
        heads = table.locator("thead tr:last-child > *").count()
        text = copied(page, menu)
        lines = [*csv.reader(io.StringIO(text))]
        assert len({len(line) for line in lines}) == 1
        assert len(lines) <= 1 + rows
        assert len(lines[0]) in (heads, heads + 1)
        assert "\u202f" not in text


def test_copies_have_the_pairs_integers(chromium, pair, tmp_path):
    with Visit(chromium, sr.write_report(pair, tmp_path / "p.html")) as visit:
        tools = visit.page.locator("#survival > .scroll + .tools").first
        rows = [*csv.reader(io.StringIO(copied(visit.page, tools)))]
    heads = ("Weights in both", "Zeros kept", "Zeros revived", "New zeros")
    columns = [rows[0].index(head) for head in heads]
    sums = pair.survival[["compared", "kept", "revived", "new"]].to_numpy().tolist()
    assert [[int(row[at]) for at in columns] for row in rows[1:]] == sums


def test_nothing_shifts_and_the_page_is_short(chromium, pair, tmp_path):
    """Verdict and strip are on the first screen of a phone; no element moves while loading."""
    path = sr.write_report(pair, tmp_path / "pair.html")
    for width, height, most in ((1440, 900, 4000), (390, 844, 5500)):
        viewport = {"width": width, "height": height}
        with Visit(chromium, path, viewport=viewport) as visit:
            assert visit.page.evaluate("document.documentElement.scrollHeight") <= most
            assert visit.page.evaluate(SHIFT) < 0.01
            for part in ("h1", ".strip"):
                box = visit.page.locator(part).bounding_box()
                assert box["y"] + box["height"] <= height
