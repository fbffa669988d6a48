"""Take the pictures that README and the site show, of a saved study, and of the site.

Needs Chromium, Playwright, Pillow and poppler:

    sparsity-report run MODEL --sparsity 50% --perplexity --out half
    python docs/tools/screenshots.py half/study.json        # into docs/_static
    python docs/tools/screenshots.py --site build/docs OUT  # first screens at three widths
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import sparsity_report as sr

PICTURES = Path(__file__).resolve().parents[1] / "_static"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"390": (390, 844), "800": (800, 1000), "1440": (1440, 900)}


def smaller(path: Path) -> None:
    """Write a picture again with 256 colors."""
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


def shoot(browser: Browser, page: Path, out: Path, size: tuple[int, int], **options: str) -> None:
    """Take the first screen of a page, or the element that a selector names."""
    selector = options.pop("selector", None)
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    sheet = context.new_page()
    sheet.goto(page.resolve().as_uri())
    sheet.wait_for_timeout(1500)
    (sheet.locator(selector).first if selector else sheet).screenshot(path=out)
    context.close()
    smaller(out)


def report_pictures(saved: str) -> None:
    """Write the report of a study and take its first screens, its viewer and its PDF."""
    study = sr.read_study(saved)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page = sr.write_report(study, Path(folder) / "report.html")
        paper = sr.write_report(study, Path(folder) / "report.pdf")
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        for scheme in ("light", "dark"):
            out = PICTURES / f"report-{scheme}.png"
            shoot(browser, page, out, SIZES["1440"], color_scheme=scheme)
        shoot(browser, page, PICTURES / "report-390.png", SIZES["390"], color_scheme="light")
        viewer = PICTURES / "explorer.png"
        shoot(browser, page, viewer, SIZES["1440"], selector=".sparsity-viewer")
        sheet = PICTURES / "pdf"
        subprocess.run(
            ["pdftoppm", "-r", "80", "-png", "-singlefile", str(paper), str(sheet)], check=True
        )
        smaller(sheet.with_suffix(".png"))


def site_pictures(site: Path, out: Path) -> None:
    """Take the first screens of the site's pages at three widths, light and dark."""
    out.mkdir(parents=True, exist_ok=True)
    pages = [p for p in sorted(site.rglob("*.html")) if "_static" not in p.parts]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        for page in pages:
            name = "-".join(page.relative_to(site).with_suffix("").parts)
            for width, size in SIZES.items():
                for scheme in ("light", "dark"):
                    picture = out / f"{name}-{width}-{scheme}.png"
                    shoot(browser, page, picture, size, color_scheme=scheme)


if __name__ == "__main__":
    if sys.argv[1] == "--site":
        site_pictures(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        report_pictures(sys.argv[1])
