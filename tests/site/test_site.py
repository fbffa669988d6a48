"""The documentation site: built without a warning, linked, offline, accessible, searchable."""

import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlencode, urlsplit

import page_code
import pytest
from browser import Visit, violations
from helpers import need

pytestmark = pytest.mark.tools
ADDRESSES = {"a": "href", "link": "href", "img": "src", "script": "src", "iframe": "src"}
# Pages of each kind that axe reads; of the others only width and requests are looked at.
KINDS = (
    "index.html", "tutorials/explorer.html", "how-to/latex.html", "reference/command-line.html",
    "explanation/exactness.html", "gallery/index.html",
)  # fmt: skip


class Document(HTMLParser):
    """Addresses that a page names, and places in it that can be named."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.places = [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places |= {given.get("id"), given.get("name")}
        if (name := ADDRESSES.get(tag)) and given.get(name):
            self.addresses.append((tag, given.get("rel"), given[name]))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site, a warning being an error; or take the one that a variable names."""
    if ready := os.environ.get("SPARSITY_REPORT_SITE"):
        return Path(ready)
    need(all(map(find_spec, ("sphinx", "pydata_sphinx_theme", "myst_nb"))), "pip install '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    built = subprocess.run(
        [*command, str(page_code.ROOT / "docs"), str(out)],
        env={**os.environ, "PYTHONPATH": str(page_code.ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr + built.stdout
    return out


@cache
def document(path):
    return Document(path.read_text(encoding="utf-8"))


def html_pages(site):
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


def test_each_link_leads_to_a_page_and_a_place(site):
    broken = []
    for page in html_pages(site):
        for _, _, address in document(page).addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                target.suffix == ".html" and unquote(parts.fragment) not in document(target).places
            ):
                broken.append((page.name, address))
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site):
    for page in html_pages(site):
        for tag, rel, address in document(page).addresses:
            loads = tag != "a" and rel not in {
                "canonical", "alternate", "describedby", "next", "prev",
            }  # fmt: skip
            assert not (loads and urlsplit(address).netloc), (page.name, address)


def test_assistants_get_each_page_as_markdown(site):
    listed = (site / "llms.txt").read_text(encoding="utf-8")
    for name in ("tutorials", "how-to", "explanation", "reference"):
        assert f"{name}/" in listed
    assert "round(sparsity" in (site / "llms-full.txt").read_text(encoding="utf-8")
    for page in ("index", "how-to/latex", "explanation/exactness"):
        assert (site / f"{page}.html.md").stat().st_size > 500


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_pages_are_accessible_and_fit_the_width(chromium, site, width, scheme):
    """One window visits them all; axe-core reads a page of each kind."""
    written = [page for page in html_pages(site) if "generated" not in page.parts]
    generated = [page for page in html_pages(site) if page not in written][::10]
    size, wrong = {"width": width, "height": 900}, {}
    with Visit(chromium, site / "index.html", viewport=size, color_scheme=scheme) as visit:
        for page in [*written, *generated] if width == 390 else map(site.joinpath, KINDS):
            visit.requests.clear()
            visit.complaints.clear()
            visit.page.goto(page.as_uri())
            local = ("file:", "data:", "blob:")
            asked = [url for url in visit.requests if not url.startswith(local)]
            wide = visit.page.evaluate("document.documentElement.scrollWidth") - width
            # Without a stored choice, the theme warns and follows the system.
            said = [line for line in visit.complaints if "Got invalid theme mode" not in line]
            wrong[page.relative_to(site)] = [*said, *asked, *([wide] if wide > 0 else [])]
        for name in KINDS:  # axe-core asks for style sheets, which the console tells of
            visit.page.goto((site / name).as_uri())
            wrong[Path(name)] += violations(visit.page)
    assert {page: seen for page, seen in wrong.items() if seen} == {}


def test_search_leads_to_the_page_of_a_term(chromium, site):
    """A query without a term, such as two single letters, has no result."""
    listed = "links => links.map(link => link.getAttribute('href'))"
    with Visit(chromium, site / "index.html", viewport={"width": 1440, "height": 900}) as visit:
        page = visit.page
        for query, expected in (
            ("n m", None), ("2:4", "glossary"), ("N:M", "glossary"),
            ("semi-structured", "glossary"), ("bitmask", "glossary"),
            ("break-even", "why-csr-is-larger"),
        ):  # fmt: skip
            page.goto((site / "search.html").as_uri() + "?" + urlencode({"q": query}))
            page.locator(".search-summary").filter(has_text=re.compile(r"\S")).wait_for()
            results = page.locator("#search-results li > a")
            addresses = results.evaluate_all(listed)[:10]
            seen = any(f"/{expected}" in each for each in addresses) if expected else not addresses
            assert seen, (query, addresses)
        results.first.click()
        assert "break-even" in page.locator("article").inner_text().lower()


def test_search_splits_queries_as_pages_are_split(chromium, site):
    from pattern_search import PatternSearch  # needs Sphinx

    text = "2:4 and V:N:M, x[1:2] 12:30 1:x9 a.py:7 n_m élagué l'a semi-structured (4:8) 2:4x"
    with Visit(chromium, site / "search.html") as visit:
        assert visit.page.evaluate("text => splitQuery(text)", text) == PatternSearch({}).split(
            text
        )


def test_each_public_name_has_a_page(site):
    text = (page_code.ROOT / "sparsity_report" / "__init__.pyi").read_text(encoding="utf-8")
    names = set(re.findall(r"import \w+ as (\w+)", text)) - {"__version__"}
    assert len(names) > 50
    documented = {place for page in html_pages(site) for place in document(page).places}
    assert {name for name in names if f"sparsity_report.{name}" not in documented} == set()
