"""How tests start Chromium."""

import os
import shutil
from pathlib import Path

from helpers import need

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


def chromium_path():
    """Where Chromium is, or None."""
    return shutil.which("chromium", path="/usr/bin") or shutil.which("chromium")


DEJAVU = Path("/usr/share/fonts/truetype/dejavu")
CUT = """() => [...document.querySelectorAll("figure svg, .plate svg")].flatMap((svg) => {
    const edge = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter((text) => {
        const box = text.getBoundingClientRect();
        return box.width && (box.left < edge.left - 1 || box.right > edge.right + 1);
    }).map((text) => text.textContent);
})"""

WITHOUT = """() => document.querySelectorAll("style").forEach((style) => {
    style.textContent = style.textContent.replace(/@font-face[^}]*}/g, "");
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
    page.evaluate(WITHOUT)
    assert page.evaluate(CUT) != [], "without the page's own font nothing is cut either"
    browser.close()
