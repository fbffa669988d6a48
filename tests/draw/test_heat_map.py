"""The heat map of all media, read back from its SVG."""

import dataclasses
import html
import itertools
import json
import math
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from browser import node
from drawings import boxes, contrast, map_cells, width_of

import sparsity_report as sr
from sparsity_report.draw import heat_map_svg, heat_maps, marks
from sparsity_report.draw.heat_map_svg import PALETTES, HeatMap, MapCell
from sparsity_report.draw.theme import LABEL
from sparsity_report.study.heatmap_grid import Grid

CELLS = [
    MapCell("0", "q", 0.31, "zeros: 31 %"), MapCell("1", "q", 0.69), MapCell("0", "k", None),
    MapCell("1", "k", 0.5),
]  # fmt: skip
SHAPE = HeatMap(blocks=("0", "1"), names=("q", "k"), cells=CELLS, width=200, axis="block")
VIOLET, YELLOW = "#440154", "#fde725"


def texts(shape):
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]+)</text>", shape.svg())]


def wide(blocks, width=200, row=20, **options):
    """A map with a number of blocks and one row of cells that are half zero."""
    names = tuple(map(str, range(blocks)))
    cells = [MapCell(name, "q", 0.5) for name in names]
    return HeatMap(blocks=names, names=("q",), cells=cells, width=width, row=row, **options)


def test_cells_stand_block_by_projection():
    drawn = map_cells(SHAPE.svg())
    assert drawn.keys() == {(0, 0), (1, 0), (1, 1), (0, 1)}
    assert drawn[0, 0].tip == "zeros: 31 %"
    left, right, low = (drawn[place] for place in ((0, 0), (1, 0), (0, 1)))
    assert right.left == pytest.approx(left.right, abs=0.6)
    assert right.right == pytest.approx(200, abs=0.6)
    assert low.top == pytest.approx(left.bottom, abs=0.6)
    assert low.top - left.top == pytest.approx(20)
    assert texts(SHAPE) == ["q", "k", "0", "1", "block", "31", "69", "–", "50"]


def test_names_stand_beside_their_cells():
    shown = {text.text: text for text in boxes(SHAPE.svg())[0]}
    drawn = map_cells(SHAPE.svg())
    for name, place in (("q", (0, 0)), ("k", (0, 1))):
        assert shown[name].right < drawn[place].left
        assert drawn[place].top < shown[name].top < shown[name].bottom < drawn[place].bottom
    for name, place in (("0", (0, 1)), ("1", (1, 1))):
        assert shown[name].top > drawn[place].bottom
        assert drawn[place].left < shown[name].left < shown[name].right < drawn[place].right


def test_an_unknown_value_is_grey():
    drawn = map_cells(SHAPE.svg())
    assert drawn[0, 1].color == "#8c8c8c29"
    assert "#8c8c8c29" not in {drawn[place].color for place in drawn if place != (0, 1)}


def test_cells_of_one_color_are_one_path_and_those_with_tips_are_not():
    cells = [MapCell(str(n), "q", 0.5, f"cell {n}") for n in range(100)]
    told = dataclasses.replace(wide(100), cells=cells).svg()
    assert told.count("<title>") == 100
    plain = wide(100).svg()
    assert plain.count("<path") == 1
    assert len(map_cells(plain)) == len(map_cells(told)) == 100
    assert len(plain) < 0.5 * len(told)


def test_colors_are_those_of_viridis():
    """The ends, and colors of Matplotlib's table between the steps."""
    shape = HeatMap(width=9)
    assert [shape.paint(share)[0] for share in (0.0, 1.0, 2.0)] == [VIOLET, YELLOW, YELLOW]
    ends = [dataclasses.replace(SHAPE, cells=[MapCell("0", "q", n)]) for n in (0.0, 1.0)]
    assert [map_cells(end.svg())[0, 0].color for end in ends] == [VIOLET, YELLOW]
    for share, color in {0.25: "#3b528b", 0.5: "#21918c", 0.75: "#5ec962"}.items():
        sides = (bytes.fromhex(one[1:]) for one in (shape.paint(share)[0], color))
        assert max(abs(a - b) for a, b in zip(*sides, strict=True)) < 9


@pytest.mark.parametrize("kind", ["share", "ratio"])
def test_digits_have_a_contrast_of_4_5(kind):
    """WCAG's formula on the colors that are drawn, over the whole scale."""
    shape = HeatMap(width=9, kind=kind, domain={"share": (0, 1), "ratio": (0, 1, 2)}[kind])
    paints = [shape.paint(shape.domain[-1] * n / 200) for n in range(201)]
    assert min(contrast(ink, color) for color, ink in paints) >= 4.5
    assert len({ink for _, ink in paints}) == 2


def test_a_ratio_is_blue_below_one_and_vermillion_above():
    shape = HeatMap(width=9, kind="ratio", domain=(0.0, 1.0, 3.0))
    shown = [shape.paint(value)[0] for value in (0.0, 1.0, 3.0)]
    assert shown == [f"#{PALETTES['diverging'][place]}" for place in (0, 2, 4)]
    assert shape.values_at([0, 0.25, 0.5, 0.75, 1]) == [0, 0.5, 1, 2, 3]


@pytest.mark.tools
def test_the_viewer_has_the_same_colors():
    script = Path(sr.__file__).parent / "viewer" / "pictures.js"
    code = (
        f"const {{ colorOf }} = await import({script.as_uri()!r});"
        "const shares = [...Array(65).keys()].map((k) => k / 64);"
        "const both = [false, true].map((even) => shares.map((share) => colorOf(share, even)));"
        "console.log(JSON.stringify(both));"
    )
    command = [node(), "--input-type=module", "--eval", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    for colors, domain in zip(json.loads(run.stdout), ((0, 64), (0, 32, 64)), strict=True):
        shape = HeatMap(width=9, domain=domain)
        for k, color in enumerate(colors):
            sides = (bytes.fromhex(one[1:]) for one in (color, shape.paint(k)[0]))
            # The script stops short of the last color.
            assert max(abs(a - b) for a, b in zip(*sides, strict=True)) <= 1


def test_the_scale_has_its_values_and_its_title():
    shape = dataclasses.replace(SHAPE, legend="zeros")
    assert texts(shape)[-4:] == ["0 %", "50 %", "100 %", "zeros"]
    ratios = dataclasses.replace(shape, kind="ratio", domain=(0.0, 1.0, 3.0))
    assert texts(ratios)[-4:] == ["0.00 ×", "1.00 ×", "3.00 ×", "zeros"]
    strokes = re.findall(r'<path stroke="(#\w+)" d="M\d+ 0h1"/>', shape.svg())
    assert (strokes[0], strokes[-1]) == (VIOLET, YELLOW)
    alone = HeatMap(width=280, legend="zeros")
    assert texts(alone) == ["0 %", "50 %", "100 %", "zeros"]
    assert re.findall(r'<path stroke="(#\w+)" d="M\d+ 0h1"/>', alone.svg()) == strokes
    assert "0 %" not in texts(SHAPE)


def test_crosses_mark_the_crossed_cells_only():
    crossed = [cell._replace(is_crossed=cell.block == "1") for cell in CELLS]
    for row, shown in ((20, ["69", "50"]), (9, ["×", "×"])):  # with and without digits
        shape = dataclasses.replace(SHAPE, cells=crossed, row=row)
        struck = re.findall(r'line-through"[^>]*>([^<]*)<', shape.svg())
        crosses = [text for text in boxes(shape.svg())[0] if text.text in struck]
        assert [text.text for text in crosses] == shown
        drawn = map_cells(shape.svg())
        for text, place in zip(crosses, ((1, 0), (1, 1)), strict=True):
            assert drawn[place].left < text.left < text.right < drawn[place].right
            assert drawn[place].top < text.top < text.bottom < drawn[place].bottom
    assert not re.search("×|line-through", SHAPE.svg())


@pytest.mark.parametrize(
    ("kind", "value", "longest"),
    [("share", 1.0, "100"), ("ratio", 9.99, "9.99"), ("number", 9990, "9.99k")],
)
def test_digits_stand_in_cells_that_have_room_for_them(kind, value, longest):
    """From a third more than the longest number takes; at twice and a half of it they do."""
    shape = HeatMap(width=9, kind=kind, cells=[MapCell("0", "q", value)])
    assert heat_map_svg.digits(value, kind) == longest
    takes = width_of(longest, LABEL)
    first = next(width for width in range(5, 60) if shape.has_digits(width))
    assert 1.2 * takes < first < 2.5 * takes
    assert not dataclasses.replace(shape, row=1.1 * LABEL).has_digits(60)
    assert "50" not in texts(wide(20))[21:]


@pytest.mark.parametrize("blocks", [1, 10, 60, 120])
def test_labels_of_blocks_stand_apart_and_as_close_as_they_can(blocks):
    shape = wide(blocks, row=5)
    shown = [int(text) for text in texts(shape) if text.isdigit()]
    step, cell = math.ceil(blocks / len(shown)), 180 / blocks
    assert shown == [*range(0, blocks, step)]
    assert step * cell > 1.1 * width_of(str(shown[-1]), LABEL)
    assert step == 1 or (step - 1) * cell < 26
    labels = [text for text in boxes(shape.svg())[0] if text.text.isdigit()]
    assert labels[-1].right <= 200
    assert not any(one.meets(other) for one, other in itertools.pairwise(labels))


@pytest.mark.parametrize("row", [4, 10, 12, 20])
def test_names_of_rows_stand_apart_and_as_close_as_they_can(row):
    names = tuple(f"p{n}" for n in range(9))
    shape = dataclasses.replace(wide(1, row=row), names=("q", *names[1:]), axis="")
    shown = [text for text in boxes(shape.svg())[0] if text.text[0] in "pq"]
    step = math.ceil(9 / len(shown))
    assert [text.text for text in shown] == ["q", *names[1:]][::step]
    assert step * row >= 1.2 * LABEL
    assert step == 1 or (step - 1) * row < 1.3 * LABEL


def test_hostile_names_stay_text_within_the_drawing():
    name = '<script>"&amp;' + "x" * 200
    shape = HeatMap(blocks=(name,), names=(name,), cells=[MapCell(name, name, 0.5, name)],
                    width=300, title=name, note=name, alt=name)  # fmt: skip
    drawn, _, width, _ = boxes(shape.svg())
    assert "<script" not in shape.svg()
    assert all(text.right <= width and text.left >= 0 for text in drawn if text.text != name)
    assert [text.text[:9] for text in drawn[:2]] == ['<script>"', '<script>"']


def test_a_long_note_has_lines_between_title_and_cells():
    note = "demo · single threshold |w| ≤ 0.026241649 · 22.8 % to 42.1 % zeros per layer"
    shape = dataclasses.replace(SHAPE, title="Zeros", note=note)
    drawn, _, width, height = boxes(shape.svg())
    lines = drawn[1 : -len(texts(SHAPE))]
    assert " ".join(line.text for line in lines) == note
    assert len(lines) > 1
    assert max(line.right for line in lines) <= width
    for above, below in itertools.pairwise([drawn[0], *lines]):
        assert above.bottom < below.top
    cell, *_ = map_cells(shape.svg()).values()
    assert lines[-1].bottom < cell.top
    plain = boxes(SHAPE.svg())[3]
    assert height - plain > cell.top - 1


def test_a_text_that_fits_is_whole():
    assert heat_map_svg.fitting("self_attn.out_proj", 140, LABEL) == "self_attn.out_proj"
    short = heat_map_svg.fitting("W" * 40, 140, LABEL)
    assert short.endswith("…")
    assert 100 < width_of(short, LABEL) <= 140
    for text in ("model.decoder.layers", "FLOPs per token, 50 %", "mmm WWW iii lll"):
        assert heat_map_svg.text_width(text, 10) >= 0.98 * width_of(text, 10)


def test_the_chart_has_the_cells_of_the_drawing():
    shape = dataclasses.replace(SHAPE, title="Zeros", note="demo", alt="A map", legend="zeros")
    spec = marks.heat_map(shape).to_dict()
    (rows,) = spec["datasets"].values()
    assert [(row["block"], row["projection"], row["value"]) for row in rows] == [
        cell[:3] for cell in CELLS
    ]
    color = spec["layer"][0]["encoding"]["color"]["scale"]
    assert color["domain"][0] == 0
    assert color["domain"][-1] == 1
    assert color["range"] == [f"#{stop}" for stop in PALETTES["viridis"]]
    assert (spec["title"]["text"], spec["title"]["subtitle"]) == ("Zeros", ["demo"])
    assert spec["description"] == "A map"


def test_a_part_outside_blocks_has_its_whole_name():
    """BERT's pooler is a module called dense, which is the name of a layout and a variant, too."""
    names = ["encoder.layer.0.output.dense", "encoder.layer.1.output.dense", "bert.pooler.dense"]
    rows = pd.DataFrame({"module_name": names, "block": [0, 1, None], "group": "mlp_linear"})
    grid = Grid(rows)
    assert [cell.projection for cell in grid.cells] == ["output", "output", "bert.pooler.dense"]
    cells = pd.DataFrame(grid.cells)
    assert [*map(heat_maps.part_of, map(cells.loc.__getitem__, cells.index))] == [
        "output of block 0", "output of block 1", "bert.pooler.dense",
    ]  # fmt: skip
