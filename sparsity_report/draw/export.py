"""Charts as PNG, SVG and PDF, drawn by vl-convert without network access."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

import altair as alt
import vl_convert

from sparsity_report.draw.vega import VEGALITE, check_room

# Attributes of groups that PDF does not need.
_BARE = {"class", "role", "pointer-events"}
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


def pdf(drawn: str) -> bytes:
    """Return an SVG of :func:`svg` as PDF, for which vl-convert nests at most 24 groups."""
    paper: bytes = vl_convert.svg_to_pdf(unnested(drawn))
    return paper


def unnested(drawn: str) -> str:
    """Return an SVG in which groups without an effect are replaced by their content."""
    root = ET.fromstring(drawn)
    _unnest(root)
    return ET.tostring(root, encoding="unicode")


def _unnest(element: ET.Element) -> None:
    content: list[ET.Element] = []
    for child in element:
        _unnest(child)
        is_group = child.tag.endswith("}g")
        is_bare = all(name in _BARE or name.startswith("aria-") for name in child.attrib)
        content += child if is_group and is_bare else [child]
    element[:] = content
