"""Charts as PNG and SVG, drawn by vl-convert without network access."""

import re
from collections.abc import Mapping
from typing import Any

import altair as alt
import vl_convert

from sparsity_report.draw.vega import VEGALITE, check_room

_DRAWING: Mapping[str, Any] = {"vl_version": VEGALITE, "allowed_base_urls": []}


def png(chart: alt.TopLevelMixin) -> bytes:
    """Return a chart as PNG, two pixels per point."""
    check_room()
    spec = chart.to_dict(validate=False)
    drawn: bytes = vl_convert.vegalite_to_png(spec, scale=2, ppi=72, **_DRAWING)
    return drawn


def svg(spec: Mapping[str, Any], key: str = "part") -> str:
    """Draw a chart as SVG, the same text at every call.

    Clips and gradients are named after `key`, because several drawings may share a page.
    """
    check_room()
    drawn = vl_convert.vegalite_to_svg(dict(spec), **_DRAWING)
    names: dict[str, str] = {}
    return re.sub(
        r'(id="|url\(#)((?:clip|gradient)_?\d+)',
        lambda match: match[1] + names.setdefault(match[2], f"{key}-{len(names)}"),
        drawn,
    )
