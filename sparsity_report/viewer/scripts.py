"""The viewer's scripts and style.

The scripts are bundles of the JavaScript files beside this one: ``npm run build`` writes them into
``bundle/``.
"""

from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def viewer_script() -> str:
    """Return the viewer as a script that defines ``sparsityViewer`` in the page."""
    return _read("bundle/viewer.js")


@cache
def widget_module() -> str:
    """Return the viewer as the ES module of a widget."""
    return viewer_script() + _read("widget.js")


@cache
def fragment_script() -> str:
    """Return the script that opens the viewers of a page."""
    return _read("bundle/fragment.js")


@cache
def page_script() -> str:
    """Return the script of the pages of reports."""
    return _read("bundle/page.js")


@cache
def style() -> str:
    """Return the viewer's style sheet."""
    return _read("viewer.css")


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
