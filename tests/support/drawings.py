"""Reading drawings: where texts and marks of an SVG stand, and what a chart's tooltips say."""

import html
import re
import xml.etree.ElementTree as ET
from typing import NamedTuple

# Widths in thousandths of the size, from a space to "~", as Adobe's AFM file of Helvetica has them.
HELVETICA = (
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 "
    "556 556 556 278 278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 "
    "722 778 667 778 722 667 611 722 667 944 667 667 611 278 278 278 469 556 333 556 556 500 556 "
    "556 278 556 556 222 222 500 222 833 556 556 556 556 333 500 278 556 500 722 500 500 500 334 "
    "260 334 584"
)
WIDTHS = {chr(32 + place): int(width) for place, width in enumerate(HELVETICA.split())}


class Box(NamedTuple):
    """Something drawn: its words or its kind, its edges, and the color it is filled with."""

    text: str
    left: float
    right: float
    top: float
    bottom: float
    fill: str
    anchor: str = ""

    def meets(self, other):
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def width_of(text, size):
    return sum(WIDTHS.get(letter, 584) for letter in text) * size / 1000


def moved(element):
    found = re.match(r"translate\(([-\d.e]+),([-\d.e]+)\)", element.get("transform", ""))
    return (float(found[1]), float(found[2])) if found else (0.0, 0.0)


def boxes(svg):
    """Texts, none of them turned, and rectangles of an SVG; its width and height."""
    root = ET.fromstring(re.sub(r'\sxmlns(:\w+)?="[^"]+"', "", svg).replace("xlink:", ""))
    texts, marks = [], []

    def walk(element, x, y, look):
        dx, dy = moved(element)
        x, y = x + dx, y + dy
        look = look | {key: element.get(key) for key in look if key in element.attrib}
        role = element.get("aria-roledescription", "")
        turned = "rotate" in element.get("transform", "")
        if element.tag == "text" and element.text and not turned and element.get("opacity") != "0":
            size = float(re.match(r"[\d.]+", look["font-size"])[0])
            wide, anchor = width_of(element.text, size), look["text-anchor"]
            at, y = x + float(element.get("x", 0)), y + float(element.get("y", 0))
            left = at - wide * {"start": 0, "middle": 0.5, "end": 1}[anchor]
            fill = element.get("fill")
            texts.append(Box(element.text, left, left + wide, y - 0.72 * size, y, fill, anchor))
        shape = re.match(r"M([-\d.e]+),([-\d.e]+)h([-\d.e]+)v([-\d.e]+)", element.get("d") or "")
        if shape and role:
            left, top, wide, high = (float(number) for number in shape.groups())
            edges = (x + left, x + left + wide, y + top, y + top + high)
            marks.append(Box(role, *edges, element.get("fill")))
        for child in element:
            walk(child, x, y, look)

    left, top, *_ = map(float, root.get("viewBox", "0 0 0 0").split())
    walk(root, -left, -top, {"font-size": "", "text-anchor": "start"})
    return texts, marks, float(root.get("width")), float(root.get("height"))


class Cell(NamedTuple):
    """A cell of a heat map: its color, its tooltip, and its edges without the margin."""

    color: str
    tip: str
    left: float
    right: float
    top: float
    bottom: float


def map_cells(svg):
    """Cells of a heat map by column and row, from the strokes of its first scaled group."""
    group = re.search(r'transform="translate\((\S+) (\S+)\) scale\((\S+) (\S+)\)"(.*?)</g>', svg)
    x, y, wide, high = map(float, group.groups()[:4])
    stroke = float(re.search(r'stroke-width="([\d.]+)"', group[5])[1]) * high
    cells = {}
    for color, path, tip in re.findall(
        r'<path stroke="(#\w+)" d="([^"]+)"(?:/>|><title>([^<]*)</title>)', group[5]
    ):
        for column, row, length in re.findall(r"M(\d+) (\d+)h([\d.]+)", path):
            left, middle = x + wide * int(column), y + high * int(row)
            edges = (left, left + wide * float(length), middle - stroke / 2, middle + stroke / 2)
            cells[int(column), int(row)] = Cell(color, html.unescape(tip), *edges)
    return cells


def units(spec, data=None, transform=()):
    """Single views of a chart with the rows they draw and the fields that are computed."""
    data = spec.get("data", data)
    transform = [*transform, *spec.get("transform", [])]
    for key in ("layer", "hconcat", "vconcat"):
        for part in spec.get(key, ()):
            yield from units(part, data, transform)
    if "mark" in spec:
        yield spec, data, {name for step in transform for name in made(step)}


def made(step):
    if isinstance(named := step.get("as", []), str):
        yield named
    for window in step.get("window", ()):
        yield window["as"]


def rows_of(spec, data):
    return data["values"] if "values" in data else spec["datasets"][data["name"]]


def unread_fields(spec):
    """Channels of a chart whose field no row of its data has."""
    wrong = []
    for unit, data, computed in units(spec):
        rows = rows_of(spec, data)
        known = {key for row in rows for key in row} | computed
        for channel, encoding in unit.get("encoding", {}).items():
            for one in encoding if isinstance(encoding, list) else [encoding]:
                if rows and "field" in one and one["field"] not in known:
                    wrong.append((channel, one["field"]))
    return wrong


def tooltips(spec):
    """What is read where the pointer is: per row that has a tooltip, its titles and values."""
    return [
        {tip["title"]: row.get(tip["field"]) for tip in unit["encoding"]["tooltip"]}
        for unit, data, _ in units(spec)
        if isinstance(unit.get("encoding", {}).get("tooltip"), list)
        for row in rows_of(spec, data)
    ]


def contrast(ink, paper):
    """The contrast of two colors, by WCAG."""

    def luminance(color):
        channels = (
            [int(color[at : at + 2], 16) for at in (1, 3, 5)]
            if color[0] == "#"
            else map(int, re.findall(r"\d+", color))
        )
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (channel / 255 for channel in channels)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted(map(luminance, (ink, paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
