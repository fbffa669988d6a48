"""The one heat map, bar chart, curve and histogram, read back from what they draw."""

import dataclasses
import html
import itertools
import re

import altair as alt
import pytest
from drawings import contrast

from sparsity_report.draw import export, marks, theme

CELLS = [
    {"block": "0", "projection": "q", "value": 0.31},
    {"block": "1", "projection": "q", "value": 0.69},
    {"block": "0", "projection": "k", "value": None},
    {"block": "1", "projection": "k", "value": 0.5},
]
SHAPE = marks.HeatMap(
    blocks=("0", "1"), projections=("q", "k"), width=200, row=20, domain=(0.3, 0.7), title="zeros"
)


def drawn(chart):
    chart.config = alt.Config(**theme.config())
    return export.svg(chart.to_dict())


def texts(svg):
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]+)</text>", svg)]


def rects(svg, role="rect mark"):
    """Fill, x, y, width and height of each drawn rectangle."""
    pattern = rf'aria-roledescription="{role}"[^>]* d="M([-\d.e]+),([-\d.e]+)h([-\d.e]+)v([-\d.e]+)'
    return re.findall(pattern + r'[^"]*" fill="([^"]+)"', svg)


def test_cells_stand_block_by_projection():
    svg = drawn(marks.heat_map(marks.inline(CELLS), SHAPE))
    known = [[float(n) for n in rect[:4]] for rect in rects(svg)]
    assert known == [[0, 0, 100, 20], [100, 0, 100, 20], [100, 20, 100, 20], [0, 20, 100, 20]]
    axes = [text for text in texts(svg) if text in {"0", "1", "Transformer block", "q", "k"}]
    assert axes == ["0", "1", "Transformer block", "q", "k"]


def test_a_cell_says_its_value_or_that_it_is_unknown():
    svg = drawn(marks.heat_map(marks.inline(CELLS), SHAPE))
    assert [text for text in texts(svg) if text in {"31", "69", "50", "–"}] == [
        "31",
        "69",
        "50",
        "–",
    ]
    assert rects(svg)[-1][4] == "#8c8c8c"


def test_ink_is_dark_on_light_colors_only():
    svg = drawn(marks.heat_map(marks.inline(CELLS), SHAPE))
    inks = {text: ink for ink, text in re.findall(r'fill="(#\w+)">(\d\d)</text>', svg)}
    assert inks == {"31": "#fefefe", "50": "#010101", "69": "#010101"}


@pytest.mark.parametrize("kind", ["share", "ratio"])
def test_digits_have_a_contrast_of_4_5(kind):
    """WCAG's formula on the colors that are drawn, over the whole scale."""
    high = {"share": 1.0, "ratio": 2.0}[kind]
    cells = [
        {"block": str(n), "projection": "p", "value": high * n / 200, "label": ""}
        for n in range(201)
    ]
    shape = dataclasses.replace(
        SHAPE, kind=kind, domain=(0.0, high), blocks=tuple(cell["block"] for cell in cells),
        projections=("p",), width=9000, tips=(),
    )  # fmt: skip
    svg = drawn(marks.heat_map(marks.inline(cells), shape))
    inks = re.findall(r'fill="(#(?:fefefe|010101))">', svg)
    papers = [rect[4] for rect in rects(svg) if rect[4].startswith(("rgb", "#"))][-201:]
    assert len(inks) == len(papers) == 201
    worst = min(map(contrast, inks, papers))
    assert worst >= 4.5


def test_one_scale_of_colors_whatever_is_in_it():
    """The same share has the same color in two maps of one domain."""

    def colors(cells):
        svg = drawn(marks.heat_map(marks.inline(cells), SHAPE))
        return [rect[4] for rect in rects(svg)]

    assert colors(CELLS)[2] == colors([CELLS[3]])[0]
    low, high = (colors([{**CELLS[0], "value": share}])[0] for share in SHAPE.domain)
    assert (low, high) == ("rgb(68, 1, 84)", "rgb(253, 231, 37)")


def test_digits_only_where_they_fit():
    few = dataclasses.replace(SHAPE, blocks=tuple(map(str, range(20))))
    assert "31" not in texts(drawn(marks.heat_map(marks.inline(CELLS), few)))
    low = dataclasses.replace(SHAPE, row=8)
    assert "31" not in texts(drawn(marks.heat_map(marks.inline(CELLS), low)))


def test_numbers_of_blocks_are_thinned_out():
    many = dataclasses.replace(SHAPE, blocks=tuple(map(str, range(100))))
    shown = [int(t) for t in texts(drawn(marks.heat_map(marks.inline(CELLS), many))) if t.isdigit()]
    steps = {right - left for left, right in itertools.pairwise(shown)}
    assert len(steps) == 1
    assert 5 <= len(shown) <= 12
    merged = dataclasses.replace(SHAPE, blocks=tuple(f"{n}–{n + 1}" for n in range(0, 200, 2)))
    wide = [t for t in texts(drawn(marks.heat_map(marks.inline(CELLS), merged))) if "–" in t]
    assert len(wide) < len(shown)


def test_a_ratio_is_blue_below_one_and_vermillion_above():
    cells = [{**CELLS[0], "value": value} for value in (0.0, 1.0, 2.0)]
    shape = dataclasses.replace(SHAPE, kind="ratio", domain=(0.0, 2.0))
    svg = drawn(marks.heat_map(marks.inline(cells), shape))
    assert [rect[4] for rect in rects(svg)] == [
        "rgb(0, 114, 178)",
        "rgb(243, 241, 236)",
        "rgb(213, 94, 0)",
    ]
    assert {"0.00", "1.00", "2.00"} <= set(texts(svg))


def bar(group, value, label):
    return {"group": group, "value": value, "label": label}


def test_bars_are_as_long_as_their_values():
    rows = [bar("a", 0.5, "50"), bar("b", 0.25, "25"), bar("c", None, "–")]
    shape = marks.Bars(groups=("a", "b", "c"), width=100)
    svg = drawn(marks.bars(marks.inline(rows), shape))
    assert [(float(rect[0]), float(rect[2])) for rect in rects(svg, "bar")] == [(0, 50), (0, 25)]
    assert [text for text in texts(svg) if text in {"50", "25", "–"}] == ["50", "25", "–"]


def test_bars_go_left_of_their_base_and_labels_with_them():
    rows = [bar("a", -1.0, "minus"), bar("b", 1.0, "plus")]
    shape = marks.Bars(groups=("a", "b"), width=100, domain=(-2, 2), kind="plain")
    svg = drawn(marks.bars(marks.inline(rows), shape))
    assert [(float(r[0]), float(r[2])) for r in rects(svg, "bar")] == [(25, 25), (50, 25)]
    anchors = dict(re.findall(r'text-anchor="(\w+)"[^>]*>(minus|plus)<', svg))
    assert anchors == {"end": "minus", "start": "plus"}


def test_break_even_and_level_stand_on_the_curve():
    lines = [{"sparsity": s, "value": 2 * (1 - s), "line": "CSR"} for s in (0.0, 1.0)]
    even = [{"sparsity": 0.5, "value": 1.0, "label": "50.0 %"}]
    level = [{"sparsity": 0.75, "value": 0.5, "label": "75 %"}]
    looks = [marks.Line("CSR", "#000000", [1, 0])]
    rows, evens, levels = map(marks.inline, (lines, even, level))
    svg = drawn(marks.curve(rows, looks, (100, 2.0), evens=evens, levels=levels))
    places = re.findall(r'aria-roledescription="point"[^>]*transform="translate\(([\d.,]+)\)', svg)
    assert places == ["50,110", "75,165"]
    assert {"50.0 %", "75 %"} <= set(texts(svg))
    assert re.search(r'text-anchor="end"[^>]*>75 %<', svg)


def test_lines_beside_each_other_have_a_legend():
    names = ["CSR", "Masked"]
    rows = [{"sparsity": s, "value": s, "line": name} for name in names for s in (0.0, 1.0)]
    looks = [marks.Line(name, "#000000", [1, 0]) for name in names]
    none = marks.inline([])
    svg = drawn(marks.curve(marks.inline(rows), looks, (100, 1.0), evens=none, levels=none))
    assert [text for text in texts(svg) if text in names] == names


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.3004, "share", "30.0 %"),
        (1e-6, "share", "< 0.1 %"),
        (1.329, "ratio", "1.33 ×"),
        (1234, "number", "1.23k"),
        (None, "share", "–"),
        (float("nan"), "number", "–"),
    ],
)
def test_values_are_written_by_their_kind(value, kind, text):
    assert theme.write(value, kind) == text


def test_hostile_words_stay_words():
    assert theme.quoted("l'œuvre\\n\n'+alert(1)+'") == "'l\\'œuvre n \\'+alert(1)+\\''"
