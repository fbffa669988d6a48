"""The font of charts and tables, with the same widths on every machine.

Helvetica, Arial and Liberation Sans are equally wide. vl-convert measures with its own copy of
Liberation Sans. A browser without any of the three uses Sparsity Sans, a subset in the page.
"""

import base64
from functools import lru_cache
from pathlib import Path

FAMILY = "Helvetica, Arial, 'Liberation Sans', 'Sparsity Sans', sans-serif"
_FILES = Path(__file__).parent / "typeface"
_WEIGHTS = {400: "sparsity-sans-regular.woff2", 700: "sparsity-sans-bold.woff2"}


@lru_cache(maxsize=1)
def font_face_css() -> str:
    """Return style rules that embed Sparsity Sans in a page or an SVG (52 kB).

    The fonts are ``data:`` URLs, which a content security policy allows with ``font-src data:``.
    """
    return "\n".join(
        "@font-face { font-family: 'Sparsity Sans'; "
        f"font-weight: {weight}; src: url(data:font/woff2;base64,{_encoded(name)}) "
        "format('woff2'); }"
        for weight, name in _WEIGHTS.items()
    )


def _encoded(name: str) -> str:
    return base64.b64encode((_FILES / name).read_bytes()).decode("ascii")
