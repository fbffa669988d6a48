"""Edge cases of the explorer: layout thresholds, empty selections, unknown values."""

import dataclasses
import math
import re
import struct
from pathlib import Path

import packing
import pytest
import torch
import traitlets
from drawings import boxes, unread_fields
from explored import html_tables, html_texts, widgets
from helpers import Tiny, study_of
from measurements import latency, put_in
from torch import nn
from wording import reader

import sparsity_report as sr
from sparsity_report.counting.histogram import count
from sparsity_report.draw import export
from sparsity_report.draw import theme as look
from sparsity_report.draw.histogram_rows import histogram_rows
from sparsity_report.explorer import box_explorer as alive
from sparsity_report.explorer import picture, still_picture
from sparsity_report.explorer.box_explorer import Picture, Shell
from sparsity_report.explorer.picture import Look
from sparsity_report.explorer.picture_layout import Room, plan

pytestmark = pytest.mark.slow(seconds=45)

THIN = "\u202f"


def blocks_of(blocks, *names, size=4):
    torch.manual_seed(0)
    layers = nn.ModuleList(
        nn.ModuleDict({name: nn.Linear(size, size, bias=False) for name in names})
        for _ in range(blocks)
    )
    return sr.load(nn.ModuleDict({"layers": layers}), name="m")


def live(study, width=900, **options):
    built = sr.explore(study, **options)
    built._shell.width = width
    return built


def data(explorer, name="cells"):
    return explorer.chart["datasets"][name]


def part(explorer, name):
    return named(explorer.chart.to_dict(validate=False), name)


def named(spec, name):
    def parts_of(spec):
        for key in ("hconcat", "vconcat"):
            for one in spec.get(key, ()):
                yield from parts_of(one)
        yield spec

    (matches,) = (one for one in parts_of(spec) if one.get("name") == name)
    return matches


def drawn(look):
    return picture.pictures().compiled(look)


def heard(explorer, **content):
    (shown,) = [one for one in widgets(explorer) if isinstance(one, Picture)]
    shown._handle_custom_msg(content, [])
    return shown


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return study_of(sr.load(Tiny(), name="tiny"), 0.5)


@pytest.fixture
def explorer(tiny):
    return live(tiny)


def room_of(blocks=4, projections=6, bars=3, variants=3, **more):
    room = Room(
        blocks=blocks,
        rows=projections,
        most_rows=projections,
        letters=2,
        groups=bars,
        group_letters=2,
        legends=(tuple(f"v{n}" for n in range(variants)),),
        curve=True,
        histogram=True,
    )
    return room._replace(**more)


def look_of(blocks=4, projections=6, bars=3, variants=3, width=900, **more):
    names = [f"v{n}" for n in range(variants)]
    return Look(
        width=width,
        name="Zeros",
        kind="share",
        log=False,
        blocks=tuple(map(str, range(blocks))),
        projections=tuple(f"p{n}" for n in range(projections)),
        domain=(0.0, 1.0),
        bars=tuple(f"b{n}" for n in range(bars)),
        variants=tuple((name, "#000000", "#000000") for name in names),
        reach=(0.0, 1.0),
        curve=2.0,
        plan=plan(room_of(blocks, projections, bars, variants), width),
        alt="",
    )._replace(**more)


# The picture.


@pytest.mark.parametrize(
    ("projections", "row"), [(1, 132), (3, 44), (9, 44), (24, 420 / 24), (200, 2.1)]
)
def test_the_map_is_420_high_at_most_with_rows_that_can_be_read(projections, row):
    cells = named(drawn(look_of(projections=projections)), "cells")
    assert cells["height"] == pytest.approx(row * projections)


@pytest.mark.parametrize(
    ("bars", "variants", "labels"), [(1, 3, True), (3, 3, True), (9, 3, False), (32, 17, False)]
)
def test_bars_fill_their_frame_up_to_a_thickness(bars, variants, labels):
    look = look_of(bars=bars, variants=variants)
    part = named(drawn(look), "bars")
    high = part["layer"][0]["encoding"]["y"]["scale"]["paddingInner"]
    group = look.plan.bars.height / bars
    thick = (1 - high) * group / variants
    # With room between groups that is no more than it must be, or bars are as thick as may be.
    assert (0 < high * group <= 12 and thick <= 18) or thick == pytest.approx(18)
    kinds = [layer["mark"]["type"] for layer in part["layer"]]
    # One text is the note.
    assert kinds.count("text") == 1 + labels
    assert part["height"] == look.plan.bars.height


STATES = (
    {"modules": "all", "grouping": "projection"},
    {"sparsity": 0.99, "metric": "flops_per_token"},
    {"modules": "norm", "grouping": "block", "log_scale": True},
    {"variant": "CSR30", "metric": "bytes_ratio", "grouping": "group", "modules": "prunable"},
)


@pytest.mark.parametrize("width", [360, 700, 1168])
def test_nothing_moves(demo_study, width):
    """Titles, legends and axes stand where they stood, whatever level, metric or modules."""
    explorer = live(demo_study, width)
    fixed = {
        "CSR relative to dense", "Magnitudes of one layer", "Transformer block",
        "magnitude of a weight", "zeros of the prunable weights", "FLOPs in CSR", "Dense",
    }  # fmt: skip

    def places():
        texts, _, wide, high = boxes(export.svg(explorer.chart.to_dict(validate=False)))
        at = [(one.text, one.left, one.top) for one in texts if one.text in fixed]
        assert {text for text, _, _ in at} == fixed
        return [("size", wide, high), *at]

    before = places()
    for state in STATES:
        for name, value in state.items():
            setattr(explorer, name, value)
        for (text, left, top), (_, x, y) in zip(before, places(), strict=True):
            assert (left, top) == pytest.approx((x, y), abs=0.5), (state, text)


def test_cells_and_bars_can_be_pointed_at_and_have_their_scales_below(explorer):
    for name in ("cells", "bars"):
        mark = part(explorer, name)["layer"][0]
        assert mark["mark"]["cursor"] == "pointer"
    assert part(explorer, "cells")["layer"][0]["encoding"]["color"]["legend"]["orient"] == "bottom"
    for name, channel in (("bars", "fill"), ("curve", "color")):
        (legend,) = [
            layer["encoding"][channel]["legend"]["orient"]
            for layer in part(explorer, name)["layer"]
            if "legend" in layer.get("encoding", {}).get(channel, {})
        ]
        assert legend == "bottom"
    spec = explorer.chart.to_dict(validate=False)
    # The page puts the cell there that keys are at, as Python does the one looked at.
    spec["datasets"]["pointed"] = spec["datasets"]["looked"]
    assert spec["datasets"]["looked"]
    assert unread_fields(spec) == []


@pytest.mark.parametrize(("width", "columns"), [(619, 1), (620, 2)])
def test_a_narrow_page_has_one_column(width, columns):
    assert len(drawn(look_of(width=width)).get("hconcat", [None])) == columns


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("q_proj", "fc1", "fc2")])
@pytest.mark.parametrize(("blocks", "width"), [(3, 360), (3, 940), (25, 360), (25, 940)])
def test_the_picture_ends_within_the_page_and_its_columns_level(names, blocks, width):
    spec = live(study_of(blocks_of(blocks, *names)), width).chart.to_dict(validate=False)
    texts, _, wide, high = boxes(export.svg(spec))
    assert 0.8 * width < wide <= width + 1
    for text in texts:
        assert -1 <= text.left < text.right <= wide + 1, text
        assert text.bottom <= high + 1, text
    ends = {text.text: text.bottom for text in texts}
    if width > 620:
        assert ends["magnitude of a weight"] == pytest.approx(ends["bytes in CSR"], abs=12)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_map_of_few_blocks_is_as_wide_as_two_cells_at_most(blocks):
    spec = drawn(look_of(blocks=blocks, width=1400))
    cells = spec["hconcat"][0]["vconcat"][0]
    assert cells["width"] == 110 * max(2, blocks)


def test_long_names_leave_room_for_the_picture():
    for letters in (5, 200):
        names = tuple("x" * letters + str(n) for n in range(3))
        room = room_of(projections=3, letters=letters, group_letters=letters)
        asked = look_of(width=700)._replace(plan=plan(room, 700), projections=names, bars=names)
        columns = drawn(asked)["hconcat"]
        widths = [column["vconcat"][0]["width"] for column in columns]
        assert min(widths) > 60
        assert sum(widths) < 700


def test_numbers_stand_in_the_cells_where_they_fit(explorer):
    texts, _, _, _ = boxes(export.svg(explorer.chart.to_dict(validate=False)))
    shown = {text.text for text in texts}
    for cell in data(explorer):
        assert f"{100 * cell['value']:.0f}" in shown


def test_the_curve_ends_above_its_label(explorer):
    (level,), lines = data(explorer, "level"), data(explorer, "curve")
    top = part(explorer, "curve")["layer"][1]["encoding"]["y"]["scale"]["domain"][1]
    highest = max(row["value"] for row in lines)
    assert highest < level["top"] < top < 1.3 * highest
    assert [(r["sparsity"], r["value"]) for r in lines if r["line"] == "dense"] == [(0, 1), (1, 1)]
    explorer.sparsity = 0.9
    texts, _, _, _ = boxes(export.svg(explorer.chart.to_dict(validate=False)))
    (label,) = [text for text in texts if text.fill == look.VERMILLION and "×" in text.text]
    assert label.anchor == "end"


def test_ends_of_the_colors(explorer):
    explorer.modules, explorer.metric = "prunable", "bytes_ratio"

    def domain():
        legend = part(explorer, "cells")["layer"][0]["encoding"]["color"]["scale"]
        return legend["domain"][0], legend["domain"][-1]

    values = []
    for explorer.variant in ("Dense", "CSR50", "CSR at level"):
        explorer.sparsity = 0.0
        values = [cell["value"] for cell in data(explorer)]
        assert domain() == (0, max(2.0, *values))
    assert max(values) > 2
    # The colors of a ratio end at its greatest value at this level.
    explorer.sparsity = 0.9
    assert domain() == (0, max(2.0, *(cell["value"] for cell in data(explorer))))
    explorer.variant, explorer.metric, explorer.log_scale = "Dense", "flops_per_token", True
    values = [cell["value"] for cell in data(explorer)]
    assert domain() == (min(values), max(values))
    explorer.modules = "all"
    values = [cell["value"] for cell in data(explorer) if cell["value"] is not None]
    assert domain() == (min(values), max(values))
    # A norm does nothing that is counted: no place on such a scale, but it is known.
    nothing = {(cell["value"], cell["label"]) for cell in data(explorer) if "norm" in cell["tip"]}
    assert nothing == {(None, "0")}
    explorer.log_scale, explorer.modules = False, "norm"
    assert domain() == (0, 1)
    bars = part(explorer, "bars")["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert bars == [0, pytest.approx(1.16)]


def test_a_level_keeps_the_scales_of_what_is_not_pruned(explorer):
    explorer.variant, explorer.metric = "CSR at level", "flops_per_token"
    explorer.sparsity = 0.0
    bars = max(bar["value"] for bar in data(explorer, "bars"))
    cells = max(cell["value"] for cell in data(explorer))
    explorer.sparsity = 0.9
    scale = part(explorer, "bars")["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert scale == [0, pytest.approx(1.16 * bars)]
    color = part(explorer, "cells")["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert color == [0, cells]
    explorer.metric = "sparsity"
    scale = part(explorer, "bars")["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert scale == [0, pytest.approx(1.16)]


def test_the_alternative_text_says_what_is_in_view(explorer):
    explorer.variant, explorer.modules = "Masked50", "prunable"
    values = [cell["value"] for cell in data(explorer)]
    wording = explorer.chart.to_dict(validate=False)["description"]
    assert "of Masked50 (variant): heat map of 2 blocks by 3 projections" in wording
    assert f"from {100 * min(values):.1f} % to {100 * max(values):.1f} %" in wording
    explorer.modules = "all"
    assert (
        "heat map of 2 blocks by 6 projections"
        in explorer.chart.to_dict(validate=False)["description"]
    )
    explorer.variant = "CSR at level"
    wording = explorer.chart.to_dict(validate=False)["description"]
    assert "of a sparsity level: " in wording
    assert "values that depend on the level" in wording


def notes(explorer):
    return {row["panel"]: row["text"] for row in data(explorer, "notes")}


def test_notes_say_the_level_the_layer_and_what_a_cell_holds(explorer):
    explorer.variant, explorer.sparsity = "Masked at level", 0.3
    wording = notes(explorer)
    assert wording["cells"] == "Masked at 30 % (level) · zeros ÷ weights of the matrix"
    assert wording["bars"].startswith("at 30 % · zeros ÷ parameters")
    explorer.variant = "CSR50"
    assert notes(explorer)["bars"].startswith("zeros ÷ parameters")
    explorer.detail = None
    assert notes(explorer)["histogram"] == "none, before pruning"
    merged = live(study_of(blocks_of(130, "fc")))
    assert notes(merged)["cells"].endswith(" · up to 2 layers per cell")
    assert data(merged)[0]["tip"] == "layers.0.fc and 1 more"


@pytest.mark.parametrize(("blocks", "bars"), [(32, 32), (33, 17)])
def test_up_to_32_blocks_have_a_bar_each(blocks, bars):
    explorer = live(study_of(blocks_of(blocks, "fc")))
    explorer.grouping = "block"
    assert len({bar["group"] for bar in data(explorer, "bars")}) == bars


# Texts and tables.


@pytest.mark.parametrize(("blocks", "more"), [(100, []), (101, ["2"])])
def test_two_hundred_layers_are_listed(blocks, more):
    explorer = live(study_of(blocks_of(blocks, "fc1", "fc2")))
    assert explorer._table.value.count("<tr data-row") == 200
    notes = map(reader("explorer.layers_left_out").fullmatch, html_texts(explorer._table.value))
    assert [(note["count"], note["code"]) for note in notes if note] == [
        (count, "explorer.layers()") for count in more
    ]


def test_layers_have_the_columns_of_the_study(explorer, tiny):
    for explorer.sort in ("model order", "smallest first"):
        frame = explorer.layers()
        assert {*frame.columns} - {*tiny.layers.columns} <= {"dense_bytes", "share"}
        assert [*frame.index] == [*range(len(frame))]


def test_the_layer_looked_at_first_is_one_that_is_known(tiny):
    layers = tiny.layers.copy()
    prunable = layers["prunable"]
    first = layers["module_name"] == layers.loc[prunable, "module_name"].iloc[0]
    # Nothing is zero, and of the first it is not known.
    layers["weight_nonzero"] = layers["weight_total"].astype("Int64").mask(first)
    unknown = dataclasses.replace(tiny, layers=layers)
    explorer = live(unknown)
    assert explorer.detail == layers.loc[prunable & ~first, "module_name"].iloc[0]
    about = html_texts(explorer._table.value)[1]
    assert about.endswith(" · – zeros")
    explorer.selection = [layers.loc[first, "module_name"].iloc[0]]
    figures = {row[0]: row[1] for row in html_tables(explorer._detail.value)[0]}
    assert figures["Zeros"] == "–"
    assert f"–{THIN}of" not in explorer._detail.value


def test_selected_layers_are_counted_and_marked(explorer):
    names = [*explorer.layers()["module_name"]][:2]
    explorer.selection = names
    assert explorer.detail == names[0]
    assert html_texts(explorer._table.value)[1].startswith("2 selected · ")
    (marked,) = re.findall(r'<tr ([^>]*aria-current="true"[^>]*)>', explorer._table.value)
    assert f'data-row="{explorer._view.names.index(names[0])}"' in marked
    assert 'class="is-detail"' in marked
    (row,) = re.findall(r'<tr class="is-detail">(.*)', explorer._detail.value)
    assert explorer.variant in row


def test_a_threshold_is_shown_of_what_is_pruned_only(explorer):
    explorer.variant = "Masked50"
    for explorer.detail, shown in (("layers.0.fc1", True), ("layers.0.norm", False)):
        assert ("Threshold" in explorer._detail.value) is shown
    assert "Magnitude histograms cover prunable weights only." in explorer._detail.value


def test_a_threshold_of_a_level_is_known_to_a_bucket_and_says_so(explorer):
    explorer.detail, explorer.variant, explorer.sparsity = "layers.0.fc1", "CSR at level", 0.4
    exact = sr.global_magnitude(explorer.study.weights, 0.4).threshold
    (mark,) = data(explorer, "threshold")
    # Two digits where those of both ends of the bucket are the same, else those of each.
    (bits,) = struct.unpack("<I", struct.pack("<f", mark["at"]))
    (end,) = struct.unpack("<f", struct.pack("<I", bits + 2**16))
    low, high = f"{mark['at']:.2g}", f"{end:.2g}"
    wording = f"≈ {low}" if low == high else f"{low}–{high}"
    assert mark["label"] == f"threshold {wording}"
    assert wording in explorer._detail.value
    assert mark["at"] <= exact < end
    assert mark["at"] <= exact <= mark["at"] * (1 + 2**-7)


def test_expected_is_what_a_gaussian_of_the_spread_would_have(explorer, tiny):
    """Histograms of a variant and of a level come from the weights before pruning."""
    explorer.detail = "layers.1.fc2"
    weight = tiny.weights.tensor("layers.1.fc2.weight").double()
    prunable = torch.cat(
        [tiny.weights.tensor(p.name).abs().flatten() for p in tiny.weights.prunable]
    )
    for variant, share in (("Masked50", 0.5), ("CSR at level", 0.25)):
        explorer.sparsity = share
        explorer.variant = variant
        figures = {row[0]: row[1] for row in html_tables(explorer._detail.value)[0]}
        cut = float(prunable.sort().values[round(share * len(prunable)) - 1])
        spread = float(weight.pow(2).mean().sqrt())
        expected = 100 * math.erf(cut / spread / math.sqrt(2))
        assert float(figures["Expected"].split(THIN)[0]) == pytest.approx(expected, abs=0.3)
    explorer.variant = "Dense"
    assert "Expected" not in explorer._detail.value


def test_times_are_those_of_the_shape():
    """Out × in of a matrix that is stored turned, and of each expert's."""
    from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    turned = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1, n_positions=8))
    config = MixtralConfig(
        vocab_size=8, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_local_experts=2,
        num_attention_heads=1, num_key_value_heads=1, num_experts_per_tok=1,
    )  # fmt: skip
    for model, end, shape in (
        (turned, "attn.c_attn", "24 × 8"),
        (turned, "mlp.c_proj", "8 × 32"),
        (MixtralForCausalLM(config), "self_attn.q_proj", "8 × 8"),
    ):
        study = study_of(sr.load(model, name="t"))
        frame = latency()
        frame["name"] = frame["name"].replace("8 × 4", shape)
        explorer = live(put_in(study, latency=frame))
        explorer.detail = next(name for name in explorer._view.names if name.endswith(end))
        assert f"<td>128</td><td>from memory</td><td>5.00{THIN}s</td>" in explorer._detail.value, (
            end
        )


def test_a_model_without_levels_has_no_slider():
    explorer = live(sr.compare(sr.dense(nn.ModuleDict({"norm": nn.LayerNorm(4)}))))
    slider = explorer._controls.level
    buttons = {b.description: b for b in widgets(explorer) if type(b).__name__ == "Button"}
    assert slider.disabled
    assert buttons["Add as variants"].disabled
    # There are no levels, but what is shown has numbers: of four ones and four zeros as they come.
    cards = html_texts(explorer._controls.cards.value)
    assert cards[cards.index("Sparsity of the whole model") + 1] == f"50.0{THIN}%"
    assert cards[cards.index("Sparsity of the whole model") + 2] == "4 of 8"
    assert cards[cards.index("Sparsity of the prunable weights") + 1] == "–"


def test_the_slider_goes_over_the_levels(explorer):
    slider = explorer._controls.level
    assert (slider.levels, slider.disabled) == ([n / 100 for n in range(100)], False)
    assert slider.texts[45] == f"45{THIN}%"
    assert [text for _, text, _ in slider.ticks][:5] == [f"{n}{THIN}%" for n in (0, 25, 50, 75, 99)]
    buttons = {b.description: b for b in widgets(explorer) if type(b).__name__ == "Button"}
    explorer.selection = ["layers.0.fc1"]
    buttons["Clear selection"].click()
    assert explorer.selection == ()
    assert not buttons["Add as variants"].disabled
    explorer.sparsity, observed = 0.4, []
    explorer.observe(lambda _: observed.append(buttons["Add as variants"].disabled), "study")
    buttons["Add as variants"].click()
    assert observed == [True]
    assert not buttons["Add as variants"].disabled


def test_menus_offer_what_can_be_set(explorer, tiny):
    menus = {m.description: m for m in widgets(explorer) if type(m).__name__ == "Dropdown"}
    assert [value for _, value in menus["Show"].options] == [
        *tiny.variants["variant"], "Masked at level", "CSR at level",
    ]  # fmt: skip
    scopes = dict(menus["Modules"].options)
    assert scopes["prunable"] == "prunable"
    assert scopes["all"] == "all"
    assert scopes["attention"] == "attention_linear"
    assert [*scopes.values()][2:] == [*dict.fromkeys(tiny.layers["group"])]
    assert [value for _, value in menus["Sort"].options][1:] == ["largest first", "smallest first"]
    assert [value for _, value in menus["Bars by"].options] == ["group", "projection", "block"]
    assert dict(menus["Metric"].options)["Stored bytes"] == "stored_bytes"
    menus["Show"].value = "Dense"
    assert explorer.variant == "Dense"


def test_bytes_of_packed_weights_are_said_to_be_unpacked(tmp_path):
    folder, _ = packing.packed_llama(tmp_path, "gptq-4-v1")
    explorer = live(study_of(sr.load(folder, name="llama"), 0.5))
    for variant, how in (("Masked50", "÷ dense"), ("CSR at level", "as CSR")):
        explorer.variant = variant
        texts = html_texts(explorer._controls.cards.value)
        for name, raised in (("Stored bytes", True), ("FLOPs", False)):
            assert (" unpacked; " in texts[texts.index(f"{name} {how}") + 2]) is raised
    assert notes(explorer)["curve"].startswith("unpacked stored bytes")


# Traits and messages.


@pytest.mark.parametrize(
    ("before", "after"),
    [("Dense", "CSR at level"), ("CSR50", "CSR at level"), ("Masked50", "Masked at level")],
)
def test_the_slider_shows_the_level_in_the_layout_shown(explorer, before, after):
    explorer.variant = before
    explorer.sparsity = 0.7
    assert explorer.variant == after


def test_levels_from_nothing_to_all_but_a_hundredth(explorer):
    for explorer.sparsity in (0, 0.99):
        pass
    explorer.sparsity = 0.123
    assert explorer.sparsity == 0.12
    for wrong in (-0.01, 1.0):
        with pytest.raises(sr.SparsityReportError, match=r"use 0 to 0\.99"):
            explorer.sparsity = wrong
    with pytest.raises(traitlets.TraitError):
        explorer.chart = None


def test_a_wrong_name_is_answered_by_the_closest(explorer):
    with pytest.raises(sr.SparsityReportError) as raised:
        explorer.detail = "layers.0.fc9"
    assert re.fullmatch(
        r"detail: 'layers\.0\.fc9' is not a valid choice; use one of layers\.0\.fc[12], …",
        str(raised.value),
    )
    with pytest.raises(sr.SparsityReportError) as raised:
        explorer.detail = "?"
    assert (
        str(raised.value)
        == f"detail: '?' is not a valid choice; use one of {explorer._view.names[0]}, …"
    )


def test_a_row_is_looked_at_and_with_a_key_held_selected(explorer):
    names = explorer._view.names
    before = explorer._table.value.count("<tr data-row")
    heard(explorer, row=2)
    # Looking at one layer keeps the rest.
    assert (explorer.selection, explorer.detail) == ((), names[2])
    assert explorer._table.value.count("<tr data-row") == before
    heard(explorer, row=3, more=True)
    heard(explorer, row=2, more=True)
    assert explorer.selection == (names[3], names[2])
    heard(explorer, row=2)
    assert explorer.selection == (names[3], names[2])
    assert explorer.detail == names[2]
    heard(explorer, row=3, more=True)
    assert explorer.selection == (names[2],)


def test_a_brush_stays_until_something_else_is_drawn(explorer):
    brush = {"block": ["1"], "projection": ["fc1"]}
    keep = {"sparsity": 0.6, "sort": "largest first", "log_scale": True, "detail": "layers.0.fc2"}
    for name, value in {**keep, "metric": "total", "modules": "all", "grouping": "block"}.items():
        explorer.metric, explorer.modules, explorer.grouping = "sparsity", "prunable", "group"
        explorer.selection = ()
        shown = heard(explorer, brush=brush)
        assert shown.brushed
        assert explorer.selection == ("layers.1.fc1",)
        setattr(explorer, name, value)
        assert shown.brushed is (name in keep), name
    heard(explorer, brush=brush)
    explorer.selection = ("layers.0.fc1",)
    assert not shown.brushed
    heard(explorer, brush={})
    assert explorer.selection == ()


def test_what_finds_nothing_is_told(explorer):
    explorer.search = "zzz"
    assert "no module name contains “zzz”" in explorer._controls._message.value
    assert explorer.selection == ()
    explorer.search = "FC1"
    assert "no module name" not in explorer._controls._message.value
    assert explorer.selection == ("layers.0.fc1", "layers.1.fc1")
    explorer.search = ""
    assert explorer.selection == ()


def test_it_is_drawn_when_its_width_is_known(tiny):
    explorer = sr.explore(tiny)
    assert not explorer._shell.live
    assert not [one for one in widgets(explorer) if isinstance(one, Picture)]
    assert explorer._head.value == ""
    explorer._shell.width = 100
    assert explorer._shell.live
    assert explorer.chart.to_dict(validate=False)["usermeta"] == {"width": 320}
    assert explorer._head.value
    first = [one for one in widgets(explorer) if isinstance(one, Picture)]
    explorer._shell.width = 1000
    assert explorer.chart.to_dict(validate=False)["usermeta"] == {"width": 1000}
    assert [one for one in widgets(explorer) if isinstance(one, Picture)] == first
    assert {"key", "width", "live"} <= {*Shell().traits(sync=True)}
    assert {"data", "brushed", "spec"} <= {*first[0].traits(sync=True)}


def test_the_bundle_names_the_view_as_ipywidgets_does(explorer, monkeypatch):
    import ipywidgets

    mime = "application/vnd.jupyter.widget-view+json"
    plain = ipywidgets.HTML()
    known = plain._repr_mimebundle_()[mime] | {"model_id": explorer.model_id}
    assert explorer._repr_mimebundle_()[mime] == known
    shown = []
    for room in (alive, still_picture):
        monkeypatch.setattr(
            room, "display", lambda part, raw=False, **_: shown.append((raw, {*part}))
        )
    explorer._ipython_display_()
    assert shown == [(True, {mime}), (True, {"text/html", "text/plain"})]


@pytest.mark.parametrize(("blocks", "numbers"), [(100, True), (101, False)])
def test_the_still_picture_has_numbers_up_to_a_hundred_cells(blocks, numbers, monkeypatch):
    import base64

    explorer = sr.explore(study_of(blocks_of(blocks, "a")))
    looks, compiled = [], explorer._pictures.compiled
    monkeypatch.setattr(
        explorer._pictures, "compiled", lambda one: looks.append(one) or compiled(one)
    )
    html = explorer._still()["text/html"]
    assert [one.numbers for one in looks] == [numbers]
    assert f'<div class="sx-still sx-still-{explorer._shell.key} ' in html
    # The style is included unchanged, or the picture would show next to the live one.
    assert (Path(alive.__file__).parent / "explorer.css").read_text(encoding="utf-8") in html
    drawn = base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])
    assert drawn[:8] == b"\x89PNG\r\n\x1a\n"
    assert 0.8 * 940 < int.from_bytes(drawn[16:20], "big") <= 941


# Magnitudes.


def test_bars_of_a_histogram_have_areas_of_their_weights():
    torch.manual_seed(0)
    bars, (mark,) = histogram_rows(count(torch.randn(300, 200)), 0.5)
    assert mark["label"] == "threshold 0.5"
    assert max(bar["height"] for bar in bars) == 1
    assert bars[0]["from"] == 0
    areas = []
    for bar, after in zip(bars, [*bars[1:], None], strict=True):
        assert after is None or bar["to"] == after["from"]
        held = int(bar["label"].split(" ")[0].replace(THIN, ""))
        if held:
            areas.append(bar["height"] * (bar["to"] - bar["from"]) / held)
        low, high = map(float, bar["between"].split(" to "))
        assert (low, high) == pytest.approx((bar["from"], bar["to"]), rel=6e-3)
    assert areas == pytest.approx([areas[0]] * len(areas))
    assert 50 <= len(bars) <= 58
    # All but the outermost thousandth, which of a Gaussian begins at 3.29.
    assert bars[-1]["to"] == pytest.approx(3.29, abs=0.15)
    beyond, _ = histogram_rows(count(torch.randn(300, 200).clamp(-1, 1)), None)
    assert not any(bar["pruned"] for bar in beyond)


def test_the_spread_is_exact_where_values_are_and_close_where_they_are_buckets():
    torch.manual_seed(0)
    weight = torch.randn(300, 200)
    full = float(weight.double().pow(2).mean().sqrt())
    assert count(weight).root_mean_square == pytest.approx(full, rel=2e-3)
    # A bucket is 1/128 wide here, and its middle is what its weights are taken for.
    even = 1 + torch.rand(300, 200) / 20
    full = float(even.double().pow(2).mean().sqrt())
    assert count(even).root_mean_square == pytest.approx(full, rel=5e-4)
    half = weight.bfloat16()
    full = float(half.double().pow(2).mean().sqrt())
    assert count(half).root_mean_square == pytest.approx(full, rel=1e-9)


def test_of_another_model_no_magnitudes_are_shown():
    torch.manual_seed(0)
    one, other = sr.load(Tiny(), name="one"), sr.load(Tiny(), name="other")
    study = sr.compare(sr.dense(one), sr.masked(sr.global_magnitude(other, 0.5), name="M"))
    explorer = live(study)
    explorer.detail = "layers.0.fc1"
    for explorer.variant, shown in (("Dense", True), ("M", False)):
        assert bool(data(explorer, "magnitudes")) is shown
        assert ("No histogram" in explorer._detail.value) is not shown


def test_all_of_a_modules_matrices_are_in_its_histogram():
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=8, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_local_experts=2,
        num_attention_heads=1, num_key_value_heads=1, num_experts_per_tok=1,
    )  # fmt: skip
    study = study_of(sr.load(MixtralForCausalLM(config), name="m"))
    counts = live(study)._view.magnitudes.counts
    layers = study.layers[(study.layers["variant"] == "Dense") & study.layers["prunable"]]
    assert {name: int(held.counts.sum()) for name, held in counts.items()} == dict(
        zip(layers["module_name"], layers["weight_total"], strict=True)
    )


def test_how_sure_a_level_is(demo_study):
    """Levels of float32 weights are interpolated within a bucket, and a note says so."""
    explorer = live(demo_study)
    row = demo_study.facts.levels.iloc[37]
    explorer.sparsity = 0.37
    wording = " ".join(html_texts(explorer._controls.cards.value))
    assert row["uncertainty"] > 0
    assert f"within {row['uncertainty']:.0f} weights" in wording.replace(THIN, "")
    assert f"{100 * row['uncertainty_share']:.2f}" in wording
