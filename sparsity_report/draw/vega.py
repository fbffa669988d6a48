"""Vega, Vega-Lite and their embedding: one script, shipped, for page and explorer."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

VEGALITE = "6.1"
BUNDLE = Path(__file__).parent / "vega.js"


@lru_cache(maxsize=1)
def bundle() -> str:
    """Return a script that defines ``vegaEmbed``, and nothing else; it fetches nothing.

    It stands as it is in a ``<script>`` of a page or before the code of an ES module. Made by
    ``docs/tools/bundle_vega.py``, because bundling takes seconds.
    """
    return BUNDLE.read_text(encoding="utf-8")
