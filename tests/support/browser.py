"""How tests start Chromium, visit a page, and look at it."""

import os
import shutil
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from helpers import need

QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def node():
    """Return the path of the Node program that Playwright brings."""
    found = find_spec("playwright")
    need(found is not None, "playwright")
    return Path(found.origin).parent / "driver" / "node"


def chromium_path():
    """Where Chromium is, or None."""
    return shutil.which("chromium", path="/usr/bin") or shutil.which("chromium")


def drawn(page):
    """Wait until the page has drawn what has changed, and return it."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => done()))")
    return page


DEJAVU = Path("/usr/share/fonts/truetype/dejavu")
CUT = """() => [...document.querySelectorAll("figure svg, .plate svg")].flatMap((svg) => {
    const edge = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter((text) => {
        const box = text.getBoundingClientRect();
        return box.width && (box.left < edge.left - 1 || box.right > edge.right + 1);
    }).map((text) => text.textContent);
})"""

LONGER = """() => document.querySelectorAll("figure svg text, .plate svg text").forEach((text) => {
    text.textContent = text.textContent.repeat(4);
})"""


def few_fonts(folder, *kept):
    """Surroundings in which fontconfig knows the fonts of some folders only."""
    folder.mkdir(parents=True)
    listed = "".join(f"<dir>{path}</dir>" for path in kept)
    (folder / "fonts.conf").write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        f"{listed}<cachedir>{folder}/cache</cachedir></fontconfig>"
    )
    return {**os.environ, "FONTCONFIG_FILE": str(folder / "fonts.conf")}


def check_no_label_is_cut(driver, path, folder):
    """No label of a page's drawings is cut where the one font is DejaVu, wider than Helvetica."""
    need(DEJAVU.is_dir(), "fonts-dejavu-core")
    browser = driver.chromium.launch(
        executable_path=chromium_path(), args=QUIET, env=few_fonts(folder, DEJAVU)
    )
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(path.as_uri())
    page.evaluate("document.fonts.ready.then(() => null)")
    assert page.locator("svg text", has_text="CSR").count() > 0
    assert page.evaluate(CUT) == []
    page.evaluate(LONGER)
    assert page.evaluate(CUT) != [], "labels four times as long are not cut either"
    browser.close()


class Visit:
    """A page, what it asked the network for, and what it complained about."""

    def __init__(self, browser, path, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on(
            "console",
            lambda line: line.type in {"error", "warning"} and self.complaints.append(line.text),
        )
        self.url = path.as_uri()
        self.page.goto(self.url)
        if options.get("java_script_enabled", True):
            pending = "() => !document.querySelector('.sparsity-viewer:not(.sv-ready)')"
            self.page.wait_for_function(pending)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


# Landmarks are those of a whole page.
VIOLATIONS = """(within) => axe.run(within ? { fromShadowDom: within } : document, {
    rules: { region: { enabled: !within } },
}).then(({ violations }) => violations.map(({ id, nodes }) =>
    [id, nodes.map(({ html }) => html.slice(0, 200))]))"""


def violations(page, within=None):
    """What axe-core finds in a page, or `within` hosts of shadows and an element of the last one.

    All that is folded away is unfolded.
    """
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    if not page.evaluate("'axe' in window"):
        axe = files("axe_playwright_python") / "axe.min.js"
        page.evaluate(axe.read_text(encoding="utf-8"))
    return page.evaluate(VIOLATIONS, within)


def copied(page, tools):
    """What the page copies of a table, and how: by the old door, as a file has no other."""
    page.evaluate(
        """() => {
            Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true });
            document.execCommand = () => {
                window.taken = document.querySelector(".tools textarea").value;
                return true;
            };
        }"""
    )
    tools.locator("> button").evaluate("button => button.click()")
    return page.evaluate("window.taken")
