"""The font of charts and tables: widths are the same on every machine, so that no label is cut.

Helvetica, Arial and Liberation Sans are equally wide. vl-convert carries Liberation Sans and
measures with it; a browser on a machine that has none of the three gets Sparsity Sans, a subset of
it, out of the page.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path

FAMILY = "Helvetica, Arial, 'Liberation Sans', 'Sparsity Sans', sans-serif"
_FILES = Path(__file__).parent / "typeface"
_WEIGHTS = {400: "sparsity-sans-regular.woff2", 700: "sparsity-sans-bold.woff2"}


@lru_cache(maxsize=1)
def font_face_css() -> str:
    """Return style rules that bring Sparsity Sans into a page or an SVG: 52 kB, fetching nothing.

    Their source is a ``data:`` address, which a content security policy allows by
    ``font-src data:``.
    """
    return "\n".join(
        "@font-face { font-family: 'Sparsity Sans'; "
        f"font-weight: {weight}; src: url(data:font/woff2;base64,{_encoded(name)}) "
        "format('woff2'); }"
        for weight, name in _WEIGHTS.items()
    )


def _encoded(name: str) -> str:
    return base64.b64encode((_FILES / name).read_bytes()).decode("ascii")
