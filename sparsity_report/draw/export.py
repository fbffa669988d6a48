"""Charts as PNG, SVG and PDF, drawn by vl-convert without network access, and limits of drawing."""

from __future__ import annotations

import mmap
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from sparsity_report.errors import SparsityReportError

if TYPE_CHECKING:
    from sparsity_report.draw.heat_map_svg import HeatMap

#: A specification for Vega-Lite, or a heat map.
Picture: TypeAlias = "Mapping[str, Any] | HeatMap"

VEGALITE = "6.1"
# Bytes of address space that V8 reserves for its heap and other uses.
_RESERVED = 2**36 + 2**29
# Attributes of groups that PDF does not need.
_BARE = {"class", "role", "pointer-events"}
# Coordinates with more digits than a screen shows.
_LONG = re.compile(r"\d+\.\d{3,}(?=[^<>]*>)")
_RGB = re.compile(r"rgb\((\d+), (\d+), (\d+)\)(?=[^<>]*>)")
# Margin of a heat map on paper, as in the theme of charts.
_MARGIN = 4
_DRAWING: Mapping[str, Any] = {"vl_version": VEGALITE, "allowed_base_urls": []}


@lru_cache(maxsize=1)
def check_room() -> None:
    """Refuse to draw if V8 would end the process because it cannot reserve its heap.

    Raises
    ------
    SparsityReportError
        If the process may not reserve enough address space.
    """
    if sys.platform == "win32":
        return
    try:
        # This reserves addresses only, no memory.
        mmap.mmap(-1, _RESERVED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError as error:
        raise SparsityReportError(
            f"charts cannot be drawn: this process may not reserve {_RESERVED / 2**30:g} GiB of "
            "address space; lift its limit (ulimit -v unlimited), or leave out figures, page, PDF "
            "and thesis (--write csv,study)"
        ) from error


def png(chart: Picture) -> bytes:
    """Return a chart as PNG, two pixels per point."""
    import vl_convert

    check_room()
    drawn: bytes = vl_convert.svg_to_png(svg(chart), scale=2, ppi=72)
    return drawn


def svg(chart: Picture, key: str = "part") -> str:
    """Draw a chart on white paper as SVG, the same text at every call.

    Clips and gradients are named after `key`, because several drawings may share a page.
    """
    if not isinstance(chart, Mapping):
        paper = f'<rect x="{-_MARGIN}" y="{-_MARGIN}" width="100%" height="100%" fill="white"/>'
        return chart.svg(_MARGIN).replace(">", f">{paper}", 1)
    import vl_convert

    check_room()
    layers = [*map(_named_or_silent, chart.get("layer", ()))]
    drawn = vl_convert.vegalite_to_svg({**chart, "layer": layers}, **_DRAWING)
    names: dict[str, str] = {}
    return re.sub(
        r'(id="|url\(#)((?:clip|gradient)_?\d+)',
        lambda match: match[1] + names.setdefault(match[2], f"{key}-{len(names)}"),
        drawn,
    )


def _named_or_silent(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep Vega-Lite from naming marks without a description by their data in all digits."""
    if "description" in layer.get("encoding", ()):
        return layer
    return {**layer, "mark": {**layer["mark"], "aria": False}}


def pdf(drawn: str) -> bytes:
    """Return an SVG of :func:`svg` as PDF, for which vl-convert nests at most 24 groups."""
    import vl_convert

    root = ET.fromstring(drawn)
    _unnest(root)
    paper: bytes = vl_convert.svg_to_pdf(ET.tostring(root, encoding="unicode"))
    return paper


def slim(drawn: str) -> str:
    """Return an SVG of :func:`svg` for a page, half as long; names of marks are its tooltips."""
    plain = re.sub(r' xmlns(:xlink)?="[^"]*"| transform="translate\(0,0\)"', "", drawn)
    root = ET.fromstring(plain)
    _name(root)
    _unnest(root)
    # All texts of a chart have one font.
    for text in root.iter("text"):
        root.set("font-family", text.attrib.pop("font-family"))
    root.set("xmlns", "http://www.w3.org/2000/svg")
    drawn = _RGB.sub(
        lambda color: "#" + bytes(map(int, color.groups())).hex(),
        ET.tostring(root, encoding="unicode"),
    )
    return _LONG.sub(lambda digits: f"{float(digits[0]):.2f}", drawn)


def _name(element: ET.Element) -> None:
    """Turn names of marks into tooltips, and drop invisible parts and superfluous attributes."""
    for child in [*element]:
        attrs = child.attrib
        name = attrs.get("aria-label")
        for key in [key for key in attrs if key in _BARE or key.startswith("aria-")]:
            del attrs[key]
        if attrs.get("opacity") == "1":
            del attrs["opacity"]
        _name(child)
        if child.tag == "path" and (not attrs.get("d") or attrs.keys() <= {"d", "transform"}):
            element.remove(child)
        elif child.tag == "path" and name:
            ET.SubElement(child, "title").text = name


def _unnest(element: ET.Element) -> None:
    """Replace groups without an effect by their content."""
    content: list[ET.Element] = []
    for child in element:
        _unnest(child)
        is_group = child.tag.rpartition("}")[2] == "g"
        is_bare = all(name in _BARE or name.startswith("aria-") for name in child.attrib)
        content += child if is_group and is_bare else [child]
    element[:] = content
