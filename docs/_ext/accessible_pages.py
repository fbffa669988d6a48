"""Names and keyboard access that the theme's pages lack: buttons of the sidebar, tables."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_MENDED = (
    (r'<summary>(?=<span class="toctree-toggle")', '<summary aria-label="Pages below">'),
    (r"<table(?![^>]*tabindex)", '<table tabindex="0"'),
    ("<th></th>", "<td></td>"),  # the empty corner of a pandas table
)


def mend(app: Sphinx, error: Exception | None) -> None:
    """Name buttons, let the keyboard scroll tables, and turn empty header cells into plain ones."""
    if error is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = mended = path.read_text(encoding="utf-8")
        for pattern, replacement in _MENDED:
            mended = re.sub(pattern, replacement, mended)
        if mended != text:
            path.write_text(mended, encoding="utf-8")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Mend the pages when all are written."""
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
