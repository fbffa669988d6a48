"""The explorer's values and state: what it says is what the study says; odd models are welcome."""

import re
import time
from io import BytesIO
from itertools import cycle, product

import altair as alt
import numpy as np
import pandas as pd
import pytest
import torch
import vl_convert
from explored import html_texts, widgets
from helpers import Tiny, study_of
from measurements import latency, put_in
from torch import nn

import sparsity_report as sr
from sparsity_report.counting.histogram import count
from sparsity_report.draw import export
from sparsity_report.draw.histogram_rows import histogram_rows
from sparsity_report.explorer.box_explorer import Picture
from sparsity_report.explorer.control_state import GROUPINGS
from sparsity_report.explorer.controls import choices
from sparsity_report.explorer.map_metrics import COUNTED as SHOWN
from sparsity_report.words.number_format import percent, times

pytestmark = pytest.mark.slow(seconds=70)


def shown(explorer, panel="cells"):
    """Rows of the current chart's data."""
    return explorer.chart["datasets"][panel]


def live(study, **options):
    """An explorer as a front end of 900 pixels has it."""
    built = sr.explore(study, **options)
    built._shell.width = 900
    return built


@pytest.fixture
def explorer(demo_study):
    return live(demo_study)


def test_it_opens_on_what_was_pruned(explorer, demo_study):
    assert explorer.variant == "Masked30"
    assert explorer.sparsity == 0.3
    assert explorer.selection == ()
    layers = explorer.layers()
    assert len(layers) == 4 * 6
    rows = demo_study.layers[demo_study.layers["variant"] == "Masked30"]
    assert set(layers["module_name"]) == set(rows.loc[rows["prunable"], "module_name"])
    share = 1 - layers["weight_nonzero"] / layers["weight_total"]
    assert explorer.detail == layers["module_name"][share.argmax()]


def test_of_the_dense_model_alone_a_level_is_shown_and_said_to_be_one(demo):
    explorer = live(sr.compare(sr.dense(demo)))
    assert (explorer.variant, explorer.sparsity) == ("Masked at level", 0.3)
    assert "is-level" in explorer._shown.value
    # As a variant, the model has no zeros, and the slider stands there.
    explorer.variant = "Dense"
    assert explorer.sparsity == 0
    assert "is-variant" in explorer._shown.value
    assert card(explorer, "Sparsity of the prunable weights") == "0.0\u202f%"


def card(explorer, name):
    """The large number of a card."""
    texts = html_texts(explorer._controls.cards.value)
    return texts[texts.index(name) + 1]


POLICIES = {
    "global_magnitude": sr.global_magnitude,
    "layerwise_magnitude": sr.layerwise_magnitude,
    "N:4": lambda weights, level: sr.n_m(weights, round(4 * (1 - level)), 4),
    "N:8": lambda weights, level: sr.n_m(weights, round(8 * (1 - level)), 8),
}


@pytest.mark.parametrize("policy", [*POLICIES])
def test_levels_of_every_policy_are_its_prunings(demo, demo_study, policy):
    """The same zeros in every layer, bytes and FLOPs, of all layers and of a selection."""
    explorer = live(demo_study)
    explorer.policy = policy
    explorer.sparsity = 0.5
    pruning = POLICIES[policy](demo, 0.5)
    study = sr.compare(sr.dense(demo), sr.csr(pruning, name="P"))
    explorer.variant = "CSR at level"
    exact = policy != "global_magnitude"
    rows = study.layers[study.layers["variant"] == "P"].set_index("module_name")
    for row in explorer.layers().to_dict("records"):
        off = abs(row["weight_nonzero"] - rows.loc[row["module_name"], "weight_nonzero"])
        assert off <= (0 if exact else row["uncertainty"])
    for names in ((), tuple(name for name in rows.index if ".layers.2." in name)):
        explorer.selection = names
        inside = rows.loc[list(names)] if names else rows
        dense = 4 * inside["total"].sum()
        shown = explorer._view.sums(explorer._state())
        left = inside["nonzero"].sum()
        slack = 0 if exact else shown["uncertainty"] * len(inside)
        assert shown["model_zeros"] == pytest.approx(inside["total"].sum() - left, abs=slack)
        assert shown["bytes_ratio"] == pytest.approx(
            inside["stored_bytes"].sum() / dense, abs=0 if exact and names else 1e-3
        )
    explorer.add()
    have = explorer.study.layers.groupby("variant")["nonzero"].sum()
    assert have[explorer.variant] == rows["nonzero"].sum()


def test_a_pattern_is_offered_only_where_counts_say_what_it_takes():
    """Not where weights were zero before, nor where rows are no whole groups."""
    assert [*live(study_of(zeroed()))._view.policies] == ["global_magnitude", "layerwise_magnitude"]
    odd = study_of(of_shapes(fc1=(6, 8), fc2=(8, 6)))
    assert [*live(odd)._view.policies] == ["global_magnitude", "layerwise_magnitude"]
    even = study_of(of_shapes(fc1=(4, 8), fc2=(8, 4)))
    assert "N:4" in live(even)._view.policies
    assert "N:8" not in live(even)._view.policies


def test_a_selection_is_what_cards_bars_curve_and_captions_speak_of(explorer, demo_study):
    names = ["model.decoder.layers.1.fc1", "model.decoder.layers.3.self_attn.q_proj"]
    rows = demo_study.layers[demo_study.layers["module_name"].isin(names)]
    explorer.selection = names
    for variant in ("Masked30", "CSR30"):
        explorer.variant = variant
        inside = rows[rows["variant"] == variant]
        share = 1 - inside["weight_nonzero"].sum() / inside["weight_total"].sum()
        assert card(explorer, "Sparsity of the selected prunable weights") == percent(share)
        ratio = inside["stored_bytes"].sum() / (4 * inside["total"].sum())
        assert card(explorer, "Stored bytes of the selection ÷ dense") == times(ratio)
    bars = {
        (bar["group"], bar["variant"]): bar["value"] for bar in shown(explorer, "bars") if bar["on"]
    }
    for group, name in (("MLP", names[0]), ("attention", names[1])):
        for row in rows[rows["module_name"] == name].to_dict("records"):
            zeros = 1 - row["nonzero"] / row["total"]
            assert bars[group, row["variant"]] == pytest.approx(zeros)
    explorer.sparsity = 0.6
    at = demo_study.at_level(0.6).set_index("module_name").loc[names]
    (level,) = shown(explorer, "level")
    zeros = 1 - at["weight_nonzero"].sum() / at["weight_total"].sum()
    bytes_ = at["csr_bytes"].sum() / at["dense_bytes"].sum()
    assert (level["sparsity"], level["value"]) == pytest.approx((zeros, bytes_))
    assert any(
        (row["sparsity"], row["value"]) == pytest.approx((zeros, bytes_))
        for row in shown(explorer, "curve")
    )
    notes = {row["panel"]: row["text"] for row in shown(explorer, "notes")}
    assert notes["curve"] == "stored bytes and FLOPs of the selected layers (2)"
    assert notes["bars"].startswith("2 selected · ")
    # Break-even of CSR: n weights of 4 bytes against 8 bytes a nonzero and 4 a row pointer.
    n, pointers = at["weight_total"].sum(), at["row_pointers"].sum()
    (even,) = shown(explorer, "even")
    assert even["sparsity"] == pytest.approx(1 - (4 * n - 4 * pointers) / (8 * n))
    explorer.selection = ["model.decoder.layers.1.final_layer_norm"]
    assert card(explorer, "Sparsity of the selected prunable weights") == "–"
    assert shown(explorer, "curve") == []


def test_the_cards_of_a_variant_are_its_totals(explorer, demo_study):
    totals = demo_study.totals.set_index("variant")
    for variant in demo_study.variants["variant"]:
        explorer.variant = variant
        matches = explorer._view.sums(explorer._state())
        for column in ("sparsity_prunable", "sparsity_model", "stored_bytes", "flops_per_token"):
            assert matches[column] == pytest.approx(totals[column][variant]), (variant, column)
        assert card(explorer, "Sparsity of the whole model") == percent(
            totals["sparsity_model"][variant]
        )


def test_undo_redo_and_reset(explorer):
    first = explorer._state()
    explorer.metric = "total"
    explorer.policy = "N:4"
    explorer.sparsity = 0.75
    last = explorer._state()
    explorer.selection = ["model.decoder.layers.1.fc1"]
    observed = [explorer._state()]
    for _ in range(4):
        explorer.undo()
        observed.append(explorer._state())
    assert observed[1] == last
    assert observed[-1] == first
    assert (explorer._controls.level.levels[1], explorer.sparsity) == (0.01, 0.3)
    for state in reversed(observed[:-1]):
        explorer.redo()
        assert explorer._state() == state
    explorer.reset()
    assert explorer._state() == first
    explorer.undo()
    assert explorer._state() == observed[0]


def test_names_beside_the_picture_select(explorer):
    layers = explorer.layers()["module_name"].tolist()
    for message, part in (
        ({"block": "2"}, ".layers.2."), ({"projection": "fc2"}, "fc2"), ({"bar": "MLP"}, ".fc"),
    ):  # fmt: skip
        explorer.selection = ()
        heard(explorer, **message)
        assert explorer.selection == tuple(name for name in layers if part in name)
    heard(explorer, variant="CSR30")
    assert explorer.variant == "CSR30"
    heard(explorer, block="99")
    heard(explorer, variant="constructor")
    assert (explorer.selection, explorer.variant) == ((), "CSR30")


def test_every_view_is_drawn_for_its_own_width(explorer):
    (picture,) = [one for one in widgets(explorer) if isinstance(one, Picture)]
    explorer._shell.widths = [640, 900, 1200]
    assert picture.spec["usermeta"]["width"] == 900
    assert [spec["usermeta"]["width"] for spec in picture.further] == [640, 1200]
    assert picture.axes == [
        ["0", "1", "2", "3"],
        ["k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"],
    ]


def test_cells_are_the_layers(explorer):
    layers = explorer.layers()
    cells = {cell["tip"]: cell["value"] for cell in shown(explorer)}
    for row in layers.to_dict("records"):
        expected = 1 - row["weight_nonzero"] / row["weight_total"]
        assert cells[row["module_name"]] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", SHOWN)
def test_bars_are_the_groups_of_the_study(explorer, demo_study, metric):
    explorer.modules = "all"
    explorer.metric = metric
    matches = {(bar["group"], bar["variant"]): bar["value"] for bar in shown(explorer, "bars")}
    for row in demo_study.groups.to_dict("records"):
        group = {"attention_linear": "attention", "mlp_linear": "MLP", "lm_head": "output head"}
        custom = matches[group.get(row["group"], row["group"]), row["variant"]]
        expected = row["stored_bytes"] / (4 * row["total"]) if row["total"] else None
        if metric != "bytes_ratio":
            expected = None if pd.isna(row[metric]) else row[metric]
        assert custom == (None if expected is None else pytest.approx(expected))


def test_the_level_is_the_studys(explorer, demo_study):
    explorer.sparsity = 0.62
    assert explorer.variant == "Masked at level"
    explorer.variant = "CSR at level"
    explorer.metric = "stored_bytes"
    at = demo_study.at_level(0.62).set_index("module_name")
    for cell in shown(explorer):
        assert cell["value"] == at.loc[cell["tip"], "csr_bytes"]
    explorer.metric = "flops_per_token"
    for cell in shown(explorer):
        assert cell["value"] == at.loc[cell["tip"], "useful_flops_per_token"]
    (level,) = shown(explorer, "level")
    ratio = at["csr_bytes"].sum() / at["dense_bytes"].sum()
    assert level["value"] == pytest.approx(ratio)
    assert f"{ratio:.2f}\u202f×" in explorer._controls.cards.value
    (even,) = shown(explorer, "even")
    assert even["sparsity"] == pytest.approx(0.503, abs=0.001)


def test_moving_the_slider_swaps_data_and_keeps_the_picture(explorer):
    explorer.sparsity = 0.4
    before = {k: v for k, v in explorer.chart.to_dict(validate=False).items() if k != "datasets"}
    earlier = explorer.chart
    explorer.sparsity = 0.9
    after = {k: v for k, v in explorer.chart.to_dict(validate=False).items() if k != "datasets"}
    assert before == after
    assert earlier is not explorer.chart
    assert earlier["datasets"]["level"][0]["sparsity"] == pytest.approx(0.4, abs=1e-6)


def test_the_chart_stands_alone(explorer, tmp_path):
    assert isinstance(explorer.chart, alt.TopLevelMixin)
    explorer.chart.save(tmp_path / "explorer.svg")
    assert "Zeros per layer" in (tmp_path / "explorer.svg").read_text()
    deep = sr.explore(sr.compare(sr.dense(Tiny(blocks=32)))).chart
    deep.save(tmp_path / "explorer.pdf")
    held = BytesIO()
    deep.save(held, format="pdf")
    assert held.getvalue()[:5] == (tmp_path / "explorer.pdf").read_bytes()[:5] == b"%PDF-"


def test_fewer_groups_look_the_same():
    """Vega nests more of them than a PDF may have where charts stand in charts."""
    nested = export.svg(sr.explore(sr.compare(sr.dense(Tiny(blocks=32)))).chart.to_dict())
    with pytest.raises(RuntimeError, match="nesting depth"):
        vl_convert.svg_to_pdf(nested)
    before, after = map(vl_convert.svg_to_png, (nested, export.unnested(nested)))
    assert before == after


def test_everything_can_be_observed(explorer):
    observed = []
    explorer.observe(lambda change: observed.append(change["name"]))
    explorer.sparsity = 0.5
    explorer.metric = "nonzero"
    explorer.search = "FC1"
    assert explorer.selection == tuple(f"model.decoder.layers.{block}.fc1" for block in range(4))
    assert {"sparsity", "metric", "search", "selection", "chart", "variant"} <= set(observed)
    explorer.selection = ["model.decoder.layers.2.fc2"]
    assert explorer.search == ""
    assert explorer.detail == "model.decoder.layers.2.fc2"
    assert list(explorer.layers()["module_name"]) == ["model.decoder.layers.2.fc2"]
    lit = {cell["tip"] for cell in shown(explorer) if cell["on"]}
    assert lit == {"model.decoder.layers.2.fc2"}
    assert [bar["group"] for bar in shown(explorer, "bars") if bar["on"]] == ["MLP"] * 3


def heard(explorer, **content):
    """Send the explorer the message of a click or a brush on its picture."""
    (picture,) = [widget for widget in widgets(explorer) if isinstance(widget, Picture)]
    picture._handle_custom_msg(content, [])


def test_what_is_clicked_is_selected(explorer):
    layers = explorer.layers().set_index("module_name")
    groups = {"attention": "attention_linear", "MLP": "mlp_linear"}
    for cell in shown(explorer)[::5]:
        heard(explorer, cell=cell["id"])
        assert explorer.selection == (cell["tip"],)
        heard(explorer, cell=cell["id"])
        assert explorer.selection == ()
    for bar in shown(explorer, "bars"):
        if bar["group"] in groups:
            heard(explorer, bar=bar["id"])
            inside = layers.index[layers["group"] == groups[bar["group"]]]
            assert set(explorer.selection) == set(inside)
    first, second = (cell["tip"] for cell in shown(explorer)[:2])
    explorer.selection = ()
    heard(explorer, cell=0)
    heard(explorer, cell=1, more=True)
    assert explorer.selection == (first, second)
    heard(explorer, cell=0, more=True)
    assert explorer.selection == (second,)
    heard(explorer, brush={"block": ["1"], "projection": ["fc1", "fc2"]})
    assert set(explorer.selection) == {
        name for name in layers.index if ".layers.1." in name and name.endswith(("fc1", "fc2"))
    }


def test_sorting_and_scopes(explorer):
    explorer.sort = "largest first"
    layers = explorer.layers()
    share = (1 - layers["weight_nonzero"] / layers["weight_total"]).tolist()
    assert share == sorted(share, reverse=True)
    explorer.modules = "norm"
    assert set(explorer.layers()["group"]) == {"norm"}
    explorer.grouping = "block"
    assert {bar["group"] for bar in shown(explorer, "bars")} == {"0", "1", "2", "3", "outside"}


@pytest.mark.parametrize(
    ("name", "value", "wording"),
    [
        (
            "selection",
            ["model.decoder.layers.0.fc9"],
            r"selection: '.*fc9' is not a valid choice; use one of .*fc\d, …",
        ),
        ("selection", [["fc1"]], r"selection: \['fc1'\] is not a valid choice; use one of .*, …"),
        ("sparsity", 1.5, "sparsity: 1.5 is out of range"),
        ("metric", "beauty", "metric: .*; use one of sparsity, total"),
        (
            "variant",
            "Sparse",
            "variant: 'Sparse' is not .*; use one of Dense, Masked30, CSR30, Masked at level",
        ),
        ("detail", "fc9", "detail: 'fc9' is not a valid choice; use one of .*, …"),
        ("study", None, "study: the new study must extend"),
    ],
)
def test_what_cannot_be_set(explorer, name, value, wording):
    before = getattr(explorer, name)
    if name == "study":
        value = sr.compare(sr.dense(Tiny()))
    with pytest.raises(sr.SparsityReportError, match=wording):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_a_level_becomes_exact_variants(demo, demo_study):
    explorer = sr.explore(demo_study)
    explorer.sparsity = 0.45
    explorer.add()
    pruning = sr.global_magnitude(demo, 0.45)
    want = sr.compare(sr.masked(pruning), sr.csr(pruning)).layers
    have = explorer.study.layers
    have = have[have["variant"].isin(["Masked45", "CSR45"])].reset_index(drop=True)
    assert have.equals(want)
    assert explorer.variant == "CSR45"
    explorer.add()
    assert len(explorer.study.variants) == 5
    assert len(demo_study.variants) == 3


def test_a_study_from_a_file(demo, demo_study, minilm, tmp_path):
    read = sr.read_study(demo_study.save(tmp_path / "study.json"))
    explorer = live(read)
    explorer.sparsity = 0.5
    assert "magnitudes" not in explorer.chart["datasets"]
    assert "weights=sr.load(" in explorer._detail.value
    with pytest.raises(sr.SparsityReportError, match=r"explore\(study, weights=sr.load"):
        explorer.add()
    full = sr.explore(read, weights=demo)
    full.add()
    assert "CSR30" in list(full.study.variants["variant"])
    assert full.chart["datasets"]["magnitudes"]
    with pytest.raises(sr.SparsityReportError, match="MiniLM has the fingerprint"):
        sr.explore(read, weights=minilm)


def test_the_histogram_counts_every_weight():
    torch.manual_seed(0)
    weight = torch.randn(300, 200)
    bars, (mark,) = histogram_rows(count(weight), 0.5)
    assert mark["at"] == 0.5
    magnitudes = weight.abs().numpy()
    for bar in bars:
        held = int(((magnitudes >= bar["from"]) & (magnitudes < bar["to"])).sum())
        assert bar["label"] == f"{held:,} weights".replace(",", "\u202f")
        assert bar["pruned"] == (bar["from"] <= 0.5)
    assert count(weight).root_mean_square == pytest.approx(float(weight.std()), rel=0.01)
    assert histogram_rows(count(torch.zeros(9)), None) == ([], [])


def zeroed():
    model = Tiny()
    nn.init.zeros_(model.layers[0]["fc1"].weight)
    nn.init.zeros_(model.layers[0]["fc1"].bias)
    return sr.load(model)


def of_shapes(**shapes):
    blocks = [nn.ModuleDict({n: nn.Linear(*s) for n, s in shapes.items()}) for _ in range(3)]
    return sr.load(nn.ModuleDict({"layers": nn.ModuleList(blocks)}))


def on_meta():
    with torch.device("meta"):
        return sr.load(Tiny())


ODD = {
    "single variant": lambda: sr.compare(sr.dense(sr.load(Tiny()))),
    "one variant pruned": lambda: sr.compare(sr.csr(sr.global_magnitude(sr.load(Tiny()), 0.5))),
    "no attention": lambda: study_of(of_shapes(fc1=(6, 8), fc2=(8, 6))),
    "all-zero layer": lambda: study_of(zeroed()),
    "all zero": lambda: study_of(sr.load(nn.Sequential(nn.Linear(3, 2)).requires_grad_(False))),
    "unknown values": lambda: sr.compare(sr.dense(on_meta())),
    "nothing prunable": lambda: sr.compare(sr.dense(nn.ModuleDict({"n": nn.LayerNorm(4)}))),
    "no blocks": lambda: study_of(sr.load(nn.ModuleDict({"fc1": nn.Linear(4, 4)}))),
    "only numbers": lambda: study_of(sr.load(nn.Sequential(*(nn.Linear(2, 2) for _ in range(50))))),
    "two models": lambda: sr.compare(sr.dense(Tiny(), name="A"), sr.dense(of_shapes(x=(2, 3)))),
    "float16": lambda: study_of(sr.load(Tiny(dtype=torch.float16)), 0.9),
    "eight variants": lambda: sr.compare(
        *(sr.masked(sr.global_magnitude(sr.load(Tiny()), s / 10)) for s in range(1, 9))
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ODD)
def test_odd_studies_can_be_explored(kind):
    study = ODD[kind]()
    explorer = sr.explore(study)
    scene, view, state = explorer._scene, explorer._view, explorer._state()
    views = [*product([value for _, value in choices(view, "variant")], view.scopes())]
    # Every variant with all modules it can be narrowed to, and every metric; not all with all.
    for number, (variant, modules) in zip(range(max(len(views), len(SHOWN))), cycle(views)):
        # One of two models may have no module of a group.
        held = set(study.layers["group"][study.layers["variant"] == view.model(variant)])
        asked = state._replace(variant=variant, modules=modules, log_scale=True)
        look, data = scene.look_and_data(
            asked._replace(
                metric=SHOWN[number % len(SHOWN)], grouping=[*GROUPINGS][number % len(GROUPINGS)]
            )
        )
        assert data["cells"] or modules not in held
        assert look.domain[0] < look.domain[1]
    explorer.metric = "stored_bytes"
    explorer.log_scale = True
    explorer.modules = "all"
    for name in view.names[:3]:
        explorer.selection = [name]
        assert explorer.detail == name
    bundle = explorer._repr_mimebundle_()
    assert "data:image/png" in bundle["text/html"]


def test_unknown_values_are_shown_as_unknown():
    explorer = live(sr.compare(sr.dense(on_meta())))
    assert {cell["label"] for cell in shown(explorer)} == {"unknown"}
    explorer.metric = "total"
    assert all(cell["value"] > 0 for cell in shown(explorer))
    assert "–" in explorer._table.value


def test_an_empty_study_is_refused(demo_study):
    from dataclasses import replace

    empty = replace(demo_study, layers=demo_study.layers.iloc[:0])
    with pytest.raises(sr.SparsityReportError, match="explore: the study has no layers"):
        sr.explore(empty)


def test_measured_times_are_shown_where_there_are_some(demo_study):
    frame = latency()
    frame["name"] = frame["name"].replace("8 × 4", "512 × 128")
    explorer = live(put_in(demo_study, latency=frame))
    explorer.detail = "model.decoder.layers.1.fc1"
    assert "<td>128</td><td>from memory</td><td>5.00\u202fs</td>" in explorer._detail.value
    explorer.detail = "model.decoder.layers.1.fc2"
    assert "5.00\u202fs" not in explorer._detail.value


def test_where_no_kernel_answers_a_picture_stands_in(explorer, demo_study):
    bundle = explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    for sentence in sr.summarize(demo_study):
        assert sentence in bundle["text/plain"]
    assert bundle["text/html"].count("<tr style") == 3
    assert len(bundle["text/html"]) < 180_000
    assert "heat map" in bundle["text/html"]


@pytest.mark.parametrize("blocks", [2, 40])
@pytest.mark.parametrize("width", [360, 700, 1000, 1400])
def test_the_picture_is_as_wide_as_the_page(blocks, width):
    """It fills the page that it is drawn for and ends within it, one column, two or three."""
    layers = nn.ModuleList(
        nn.ModuleDict({name: nn.Linear(8, 8, bias=False) for name in ("q_proj", "fc1", "fc2")})
        for _ in range(blocks)
    )
    explorer = sr.explore(study_of(sr.load(nn.ModuleDict({"layers": layers}), name="m"), 0.5))
    explorer._shell.width = width
    spec = explorer.chart.to_dict(validate=False)
    (cells,) = (part for part in parts_of(spec) if part.get("name") == "cells")
    if blocks == 2 and width > 400:
        # Cells are no wider than necessary, so that there is room for the bars.
        assert cells["width"] == 2 * 110
    svg = export.svg(spec)
    wide = float(re.search(r'<svg[^>]* width="([\d.]+)"', svg)[1])
    assert 0.8 * width < wide <= width + 1


def test_bars_are_sorted_by_the_shown_variant_and_unknown_ones_come_last(explorer):
    """The output head is tied and holds nothing, so that its share of zeros is not known."""
    explorer.modules, explorer.grouping, explorer.metric = "all", "group", "sparsity"
    orders = {}
    for explorer.sort in ("model order", "largest first", "smallest first"):
        (bars,) = (
            p for p in parts_of(explorer.chart.to_dict(validate=False)) if p.get("name") == "bars"
        )
        named = {
            row["group"]: row["value"]
            for row in shown(explorer, "bars")
            if row["variant"] == explorer.variant
        }
        orders[explorer.sort] = bars["layer"][0]["encoding"]["y"]["scale"]["domain"]
        assert {*orders[explorer.sort]} == {*named}
    known = [name for name, value in named.items() if value is not None]
    rising = sorted(known, key=named.__getitem__)
    unknown = [name for name in named if name not in known]
    assert unknown == ["output head"]
    assert orders["largest first"] == [*sorted(known, key=lambda name: -named[name]), *unknown]
    assert orders["smallest first"] == [*rising, *unknown]
    assert orders["model order"] == [*named]


@pytest.mark.parametrize(("level", "least"), [(0.3, 0.0), (0.02, 0.1)])
def test_bars_reach_as_far_as_the_longest(level, least, demo):
    """The axis has a seventh more for labels and at least 10 % of sparsity.

    It holds the sparsity of any layer, so that no selection is cut.
    """
    explorer = live(study_of(demo, level))
    explorer.variant = f"Masked{round(100 * level)}"
    for explorer.metric in ("stored_bytes", "sparsity"):
        (bars,) = (
            p for p in parts_of(explorer.chart.to_dict(validate=False)) if p.get("name") == "bars"
        )
        longest = max(row["value"] for row in shown(explorer, "bars") if row["value"] is not None)
        if explorer.metric == "sparsity":
            rows = explorer.layers()
            longest = (1 - rows["nonzero"] / rows["total"]).max()
        domain = bars["layer"][0]["encoding"]["x"]["scale"]["domain"]
        assert domain == [0, pytest.approx(1.16 * max(longest, least))]


def parts_of(spec):
    """All parts of a picture."""
    for key in ("hconcat", "vconcat"):
        for part in spec.get(key, ()):
            yield from parts_of(part)
    yield spec


def test_ten_thousand_layers_are_aggregated_and_quick():
    rows = 1250
    blocks = nn.ModuleList(
        nn.ModuleDict({f"p{k}": nn.Linear(4, 4, bias=False) for k in range(8)}) for _ in range(rows)
    )
    study = study_of(sr.load(nn.ModuleDict({"layers": blocks})))
    explorer = sr.explore(study)
    explorer._shell.width = 1000
    assert len(explorer.layers()) == 8 * rows
    assert len(shown(explorer)) <= 120 * 8
    explorer.sparsity = 0.4
    spent = []
    for level in np.arange(41, 52) / 100:
        start = time.perf_counter()
        explorer.sparsity = float(level)
        spent.append(time.perf_counter() - start)
    assert np.median(spent) < 0.5
    assert explorer._table.value.count("<tr data-row") == 200
