"""Bars, curve and named lines, read back from what they draw."""

import html
import re

import pytest

from sparsity_report.draw import export, marks, theme


def drawn(chart):
    return export.svg({**chart, "config": theme.config()})


def texts(svg):
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]+)</text>", svg)]


def rects(svg, role="rect mark"):
    """Fill, x, y, width and height of each drawn rectangle."""
    pattern = rf'aria-roledescription="{role}"[^>]* d="M([-\d.e]+),([-\d.e]+)h([-\d.e]+)v([-\d.e]+)'
    return re.findall(pattern + r'[^"]*" fill="([^"]+)"', svg)


def bar(group, value, label):
    return {"group": group, "value": value, "label": label}


def lengths(rows, **options):
    """Start and length of each bar in a plot of 100 points, and the drawing."""
    svg = drawn(marks.bars(rows, marks.Bars(width=100, axis="", least=0.1, **options)))
    return [(float(rect[0]), float(rect[2])) for rect in rects(svg, "bar")], svg


def test_bars_are_as_long_as_their_values():
    rows = [bar("a", 0.5, "50"), bar("b", 0.25, "25"), bar("c", None, "–")]
    ((start, long), (also, short)), svg = lengths(rows)
    assert start == also == 0
    assert long == pytest.approx(2 * short)
    assert 75 < long < 95
    assert [text for text in texts(svg) if text in {"50", "25", "–"}] == ["50", "25", "–"]


def test_bars_start_and_end_with_their_axis():
    ((start, long), _), svg = lengths([bar("a", 0.7, "70"), bar("b", 0.1, "10")], start=0.2)
    assert start == 0
    assert 75 < long < 95
    assert 'clip-path="url' in svg


def test_bars_go_left_of_zero_and_labels_with_them():
    rows = [bar("a", -1.0, "minus"), bar("b", 1.0, "plus")]
    ((left, one), (middle, other)), svg = lengths(rows, kind="plain")
    assert one == pytest.approx(other)
    assert left + one == pytest.approx(middle) == 50
    anchors = dict(re.findall(r'text-anchor="(\w+)"[^>]*>(minus|plus)<', svg))
    assert anchors == {"end": "minus", "start": "plus"}


def test_break_even_and_level_stand_on_the_curve():
    lines = [{"sparsity": s, "value": 2 * (1 - s), "line": "CSR"} for s in (0.0, 1.0)]
    even = [{"sparsity": 0.5, "value": 1.0, "label": "50.0 %"}]
    level = [{"sparsity": 0.75, "value": 0.5, "label": "75 %"}]
    looks = [marks.Line("CSR", "#000000", [1, 0])]
    x, y = marks.share_axis("sparsity", "x", (0.0, 1.0)), marks.height_axis("y", 2.0, {})
    svg = drawn(marks.curve(lines, looks, 100, (x, y), rings=even, dots=level))
    places = re.findall(r'aria-roledescription="point"[^>]*transform="translate\(([\d.,]+)\)', svg)
    (x, half), (right, low) = (map(float, place.split(",")) for place in places)
    assert (x, right, low / half) == (50, 75, pytest.approx(1.5))
    assert {"50.0 %", "75 %"} <= set(texts(svg))
    assert re.search(r'text-anchor="end"[^>]*>75 %<', svg)


def test_lines_beside_each_other_have_a_legend():
    names = ["CSR", "Masked"]
    rows = [{"sparsity": s, "value": s, "line": name} for name in names for s in (0.0, 1.0)]
    looks = [marks.Line(name, "#000000", [1, 0]) for name in names]
    x, y = marks.share_axis("sparsity", "x", (0.0, 1.0)), marks.height_axis("y", 1.0, {})
    svg = drawn(marks.curve(rows, looks, 100, (x, y), rings=[], dots=[]))
    assert [text for text in texts(svg) if text in names] == names


def test_hostile_words_stay_words():
    assert theme.quoted("l'œuvre\\n\n'+alert(1)+'") == "'l\\'œuvre n \\'+alert(1)+\\''"
