"""Charts show the numbers of the study, in colors that differ, and hold names as data only."""

import dataclasses
import itertools
import json
import re
import struct
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
import torch
from drawings import contrast
from helpers import named, study_of
from hostile import TEXTS
from measurements import latency, put_in, quality
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

import sparsity_report as sr
from sparsity_report.draw import charts, export, heat_maps, measured_charts, theme
from sparsity_report.errors import printable
from sparsity_report.study.storage_layouts import layout_curve
from sparsity_report.words.display_names import group_name

KEYS = "script jinja image constructor override longest"
HOSTILE = [TEXTS[key] for key in (*KEYS.split(), "vega signal", "windows path")]


def opt(layers=2):
    torch.manual_seed(0)
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=64, hidden_size=16, word_embed_proj_dim=16, ffn_dim=32,
            num_hidden_layers=layers, num_attention_heads=2, max_position_embeddings=16,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights():
    return sr.load(opt(), name="tiny-opt")


@pytest.fixture(scope="module")
def study(weights):
    return study_of(weights)


@pytest.fixture(scope="module")
def hostile():
    weights = sr.load(named([f"{n.replace('.', '_')}.0.fc" for n in HOSTILE]), name=HOSTILE[0])
    pruning = sr.global_magnitude(weights, 0.4)
    variants = [sr.dense(weights, name=HOSTILE[0])]
    return sr.compare(*variants, *[sr.masked(pruning, name=name) for name in HOSTILE[1:]])


def rows(spec):
    """All inline rows of a chart."""
    matches = list(itertools.chain.from_iterable(spec.get("datasets", {}).values()))
    for part in walk(spec):
        if isinstance(part, dict) and isinstance(part.get("values"), list):
            matches += [row for row in part["values"] if isinstance(row, dict)]
    return matches


def walk(part):
    yield part
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for child in children:
        yield from walk(child)


def every_chart(study):
    explorer = sr.explore(study)
    drawn = [bars(study), charts.csr_bytes_curve(study), explorer.chart]
    return [chart for chart in drawn if chart is not None]


def bars(study):
    """Bars of the layers of the first variant, which is the title."""
    name = study.variants["variant"].iloc[0]
    frame = study.layers[study.layers["variant"] == name]
    return sr.bar_plot(frame, "module_name", "sparsity", name)


def size(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def looks_of(chart):
    """Color and dash of each line, bar or point of a chart, by the name in its scale."""
    looks = {}
    for part in walk(chart.to_dict()):
        for channel in ("color", "stroke", "strokeDash"):
            scale = part.get(channel) if isinstance(part, dict) else None
            if isinstance(scale, dict) and "range" in scale.get("scale", {}):
                for name, look in zip(*map(scale["scale"].get, ("domain", "range")), strict=True):
                    looks.setdefault(name, {})[channel.replace("stroke", "color")] = look
    return looks


@pytest.fixture(scope="module")
def policies(weights):
    makers = {
        "G30": sr.global_magnitude(weights, 0.3), "G50": sr.global_magnitude(weights, 0.5),
        "L30": sr.layerwise_magnitude(weights, 0.3), "L50": sr.layerwise_magnitude(weights, 0.5),
        "N24": sr.n_m(weights, 2, 4), "R": sr.random_unstructured(weights, 0.5),
    }  # fmt: skip
    masked = [sr.masked(pruning, name=name) for name, pruning in makers.items()]
    study = sr.compare(sr.dense(weights), *masked, sr.csr(makers["G50"], name="C50"))
    scores = [(0.0, 10.0), (0.3, 11.0), (0.5, 14.0), (0.3, 10.5), (0.5, 12.0), (0.5, 15.0)]
    names = ["Dense", *makers, "C50"]
    times = latency(("Dense", "G50", "C50"))
    scores += [(0.5, 30.0), (0.5, 14.0)]
    return put_in(study, quality=quality(scores, names), latency=times)


STYLES = {
    "Dense": theme.STYLES[""], "G30": theme.STYLES["global_magnitude"],
    "L30": theme.STYLES["layerwise_magnitude"], "N24": theme.STYLES["N:M"],
}  # fmt: skip
STYLES |= {"G50": STYLES["G30"], "C50": STYLES["G30"], "L50": STYLES["L30"]}


def test_a_policy_has_one_color_and_one_dash_in_every_chart(policies):
    lines = {"global magnitude": "G50", "layerwise magnitude": "L50", "2:4": "N24"}
    drawn = {
        "speed": measured_charts.speed_chart(policies),
        "quality": measured_charts.quality_chart(policies),
    }
    for name, chart in drawn.items():
        seen = 0
        for shown, parts in looks_of(chart).items():
            variant = lines.get(shown, "Dense" if shown == "dense" else shown.partition(",")[0])
            if variant in STYLES and "color" in parts:
                seen += 1
                assert parts["color"] == STYLES[variant].color, (name, shown)
                assert parts.get("colorDash", STYLES[variant].dash) == STYLES[variant].dash
        assert seen >= 2, name


def test_a_policy_has_its_color_in_every_study(weights):
    prunings = sr.n_m(weights, 2, 4), sr.layerwise_magnitude(weights, 0.5)
    for order in (prunings, prunings[::-1]):
        study = sr.compare(sr.dense(weights), *map(sr.masked, order))
        shown, names = theme.styles(study), theme.policies(study).values()
        assert {name: shown[name] for name in names} == {name: theme.STYLES[name] for name in names}


def test_policies_have_distinct_styles_visible_on_both_papers(policies):
    shown = theme.styles(policies, ("x", "y"))
    assert len({(color, *dash) for color, dash in shown.values()}) == len(shown)
    for color, _ in shown.values():
        assert contrast(color, "#ffffff") >= 3
        assert contrast(color, "#17181b") >= 3


def test_a_model_pruned_before_has_a_color_of_its_own(weights):
    other = sr.dense(sr.load(sr.masked(sr.global_magnitude(weights, 0.5)).module()), name="Wanda50")
    study = sr.compare(sr.dense(weights), other)
    shown, names = theme.styles(study), theme.policies(study)
    assert shown[names["Dense"]] == theme.STYLES[""]
    assert shown[names["Wanda50"]].color not in {color for color, _ in theme.STYLES.values()}


def test_constant_figures_are_not_drawn(weights):
    masked = sr.compare(sr.dense(weights), sr.masked(sr.layerwise_magnitude(weights, 0.5)))
    assert heat_maps.sparsity_map(masked, "Masked50Layerwise") is None
    same = quality([(0.0, 10.0), (0.5, 10.0)], ["Dense", "Masked50Layerwise"])
    assert measured_charts.quality_chart(put_in(masked, quality=same)) is None


def test_all_maps_of_a_study_have_one_scale(weights):
    prunings = [sr.global_magnitude(weights, s) for s in (0.1, 0.6)]
    study = sr.compare(sr.dense(weights), *map(sr.masked, prunings))
    maps = [
        draw(study, variant)
        for draw in (heat_maps.sparsity_map, heat_maps.small_map)
        for variant in study.facts.prunings
    ]
    assert len(maps) == 4
    assert {(chart.kind, chart.domain) for chart in (*maps, heat_maps.colors())} == {
        ("share", (0.0, 1.0))
    }


def test_merged_cells_have_the_range_of_their_layers(study):
    one = study.layers[study.layers["module_name"].str.endswith("fc1")].iloc[[0]]
    layers = pd.concat([one] * 260, ignore_index=True)
    layers["block"] = pd.array(range(260), dtype="Int64")
    layers["module_name"] = [f"h.{block}.w" for block in range(260)]
    left = [512 - block for block in range(260)]
    layers["weight_nonzero"] = pd.array(left, dtype="Int64")
    variants = study.variants.iloc[[0]].reset_index(drop=True)
    large = dataclasses.replace(study, layers=layers, variants=variants)
    drawn = heat_maps.sparsity_map(large, "Dense")
    first = drawn.cells[0]
    assert (first.block, first.value) == ("0–2", (0 + 1 + 2) / (3 * 512))
    assert first.tip.endswith("; layers: 3; per layer: 0.0 % to 0.4 %")
    assert "0.0 % to 50.6 % zeros per layer · up to 3 layers per cell" in drawn.note


@pytest.mark.parametrize(
    ("inner", "names"),
    [
        (["self_attn.q_proj", "mlp.up_proj"], ["q_proj", "up_proj"]),
        (
            ["attention.self.query", "attention.output.dense", "output.dense"],
            ["query", "attention.output", "output"],
        ),
        (["attn.c_proj", "mlp.c_fc", "mlp.c_proj"], ["attn.c_proj", "c_fc", "mlp.c_proj"]),
    ],
)
def test_projections_have_the_shortest_names_that_differ(inner, names):
    study = study_of(sr.load(named([f"h.{block}.{path}" for block in (0, 1) for path in inner])))
    assert list(dict.fromkeys(study.facts.cells("Masked30")["projection"])) == names


def test_encoder_and_decoder_stay_apart():
    study = study_of(sr.load(named(["encoder.block.0.q", "decoder.block.0.q"])))
    names = study.facts.cells("Masked30")["projection"]
    assert sorted(names) == ["decoder.q", "encoder.q"]


def test_no_map_without_blocks():
    study = study_of(sr.load(named(["fc_in", "fc_out"])))
    assert heat_maps.sparsity_map(study, "Masked30") is None


@pytest.mark.parametrize(("blocks", "inner"), [(700, 1), (3, 70), (300, 60)])
def test_a_large_map_stays_small_and_loses_nothing(study, blocks, inner):
    one = study.layers[study.layers["module_name"].str.endswith("fc1")].iloc[[0]]
    custom = pd.concat([one] * (blocks * inner), ignore_index=True)
    custom["block"] = pd.array([i % blocks for i in range(len(custom))], dtype="Int64")
    custom["module_name"] = [f"h.{i % blocks}.experts.{i // blocks}.w" for i in range(len(custom))]
    large = dataclasses.replace(
        study, layers=custom, variants=study.variants.iloc[[0]].reset_index(drop=True)
    )
    frame = large.facts.cells("Dense")
    assert len(frame) <= 5000
    assert frame["projection"].nunique() <= 40
    assert frame["total"].sum() == blocks * inner * 32 * 16
    assert frame["nonzero"].sum() == custom["weight_nonzero"].sum()


def test_curve_is_the_storage_arithmetic(study):
    n, rows_and_one = 2 * (4 * 16 * 16 + 2 * 16 * 32), 2 * (4 * 17 + 33 + 17)
    frame = layout_curve(study.facts.layers(study.facts.baseline)).pivot_table(
        index="layout", columns="sparsity", values="bytes"
    )
    for sparsity, nonzero in [(0.0, n), (0.5, n // 2), (1.0, 0)]:
        assert frame[sparsity].to_dict() == {
            "dense": 4 * n, "csr_int32": nonzero * (4 + 4) + rows_and_one * 4,
            "csr_int64": nonzero * (4 + 8) + rows_and_one * 8, "bitmask": nonzero * 4 + n // 8,
        }  # fmt: skip


@pytest.mark.parametrize(("dtype", "label"), [(torch.float32, "50.0 %"), (torch.float16, "66.7 %")])
def test_break_even_is_marked(dtype, label):
    model = nn.ModuleDict({"fc": nn.Linear(4096, 4, dtype=dtype)})
    shown = rows(charts.csr_bytes_curve(study_of(sr.load(model))).to_dict())
    assert [row["label"] for row in shown if row.get("value") == 1 and "label" in row] == [label]


def test_no_curve_without_prunable_weights():
    study = sr.compare(sr.dense(sr.load(nn.ModuleDict({"norm": nn.LayerNorm(4)}))))
    assert charts.csr_bytes_curve(study) is None


def test_every_chart_has_alternative_text_and_white_paper(study, hostile):
    for chart in [*every_chart(study), *every_chart(hostile)]:
        spec = chart.to_dict()
        assert len(spec["description"]) > 40
        assert spec["background"] == "white"
        assert spec["config"]["font"].endswith("sans-serif")
        assert len(rows(spec)) <= 5000


def test_names_are_never_fields_or_expressions(study, hostile):
    def code(chart):
        keys = ("field", "expr", "labelExpr", "test", "filter", "calculate", "sort", "as")
        parts = [p for p in walk(chart.to_dict()) if isinstance(p, dict)]
        matches = {json.dumps(p[key]) for p in parts for key in keys if key in p}
        # Titles of fields and values of axes become expressions, too.
        matches |= {p["title"] for p in parts if isinstance(p.get("title"), str)}
        matches |= {v for p in parts for v in p.get("values", ()) if isinstance(v, str)}
        # Ends of scales are numbers of the study.
        return {re.sub(r"\d+(\.\d+)?", "0", text) for text in matches}

    plain = set().union(*map(code, every_chart(study)))
    assert set().union(*map(code, every_chart(hostile))) <= plain


def test_hostile_names_draw_and_stay_distinct(hostile):
    assert len({row["group"] for row in rows(bars(hostile).to_dict())}) == len(HOSTILE)
    for chart in (heat_maps.sparsity_map(hostile, HOSTILE[1]), bars(hostile)):
        drawn = "".join(ET.fromstring(export.svg(chart)).itertext())
        for text in HOSTILE:
            assert printable(text, 20)[:19] in drawn, ascii(text)
    assert hostile.facts.cells(HOSTILE[1])["projection"].nunique() == len(HOSTILE)


def test_write_figures(study, tmp_path):
    written = sr.write_figures(study, tmp_path / "figures")
    expected = {"sparsity_map_masked30.png", "csr_bytes.png"}
    assert {path.name for path in written} == expected
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected
    for path in written:
        width, height = size(path.read_bytes())
        # 16 cm at one point per pixel, twice as large.
        assert width == pytest.approx(2 * 16 * 72 / 2.54, abs=2)
        assert 100 < height < 2000


def test_unknown_counts_are_drawn_as_unknown(study):
    layers = study.layers.copy()
    for column in ("nonzero", "weight_nonzero", "flops_per_token", "useful_flops_per_token"):
        layers[column] = (
            layers[column].astype("Int64").mask(layers["module_name"].str[-3:] == "fc1")
        )
    unknown = dataclasses.replace(study, layers=layers)
    assert "fc1" not in set(unknown.facts.cells("Masked30")["projection"])
    for chart in every_chart(unknown):
        json.dumps(chart.to_dict(), allow_nan=False)


def test_wrong_names_are_refused(study):
    with pytest.raises(sr.SparsityReportError, match="no variant 'Sparse'; the study has Dense"):
        heat_maps.sparsity_map(study, "Sparse")


class TestBarPlot:
    """The notebook's building block: bar_plot(frame, 'group', 'sparsity', title, file, folder)."""

    @pytest.fixture
    def frame(self, study):
        return study.groups[study.groups["variant"] == "Masked30"]

    def test_draws_the_frame_and_writes_it(self, frame, tmp_path):
        chart = sr.bar_plot(frame, "group", "sparsity", "Zeros", "z.png", tmp_path, y_min=0.0)
        shown = {row["group"]: row["value"] for row in rows(chart.to_dict())}
        assert set(shown) == {"embedding", "attention", "MLP", "output head", "norm"}
        for group, value in zip(frame["group"], frame["sparsity"], strict=True):
            assert shown[group_name(group)] == (None if pd.isna(value) else value)
        # The head is tied and has no parameters.
        (head,) = (row for row in rows(chart.to_dict()) if row["group"] == "output head")
        assert (head["value"], head["label"]) == (None, "–")
        assert size((tmp_path / "z.png").read_bytes())
        assert chart.to_dict()["title"]["text"] == "Zeros"

    @pytest.mark.parametrize(
        ("metric", "title"),
        [("sparsity", "Sparsity"), ("param_frac", "Share of parameters"),
         ("flops_per_token", "Performed FLOPs per token"), ("total", "Parameters")],
    )  # fmt: skip
    def test_axes_have_the_title_of_their_column(self, frame, metric, title):
        spec = sr.bar_plot(frame, "group", metric, "t").to_dict()
        assert title in {
            p["x"].get("title") for p in walk(spec) if isinstance(p, dict) and "x" in p
        }

    def test_writes_where_asked_into_the_current_folder(self, frame, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for file_name in (None, "p.png"):
            sr.bar_plot(frame, "group", "total", "Parameters", file_name)
            assert [path.name for path in tmp_path.iterdir()] == ["p.png"] * bool(file_name)

    def test_infinite_values_have_a_label_and_no_bar(self):
        frame = pd.DataFrame({"part": ["a", "b"], "cost": [float("inf"), 1.0]})
        shown = rows(sr.bar_plot(frame, "part", "cost", "Cost").to_dict())
        assert [(row["value"], row["label"]) for row in shown] == [(None, "∞"), (1.0, "1")]

    @pytest.mark.parametrize(
        ("x", "y", "message"),
        [("group", "speed", "no column 'speed'; name one of variant, group"),
         ("name", "total", "no column 'name'"),
         ("sparsity", "group", "column 'group' does not hold numbers")],
    )  # fmt: skip
    def test_wrong_columns_are_refused(self, frame, x, y, message):
        with pytest.raises(sr.SparsityReportError, match=re.escape(message)):
            sr.bar_plot(frame, x, y, "t")

    def test_several_variants_are_refused(self, study):
        with pytest.raises(sr.SparsityReportError, match="a name occurs twice"):
            sr.bar_plot(study.groups, "group", "total", "t")


def test_charts_write_themselves_and_show_in_notebooks(study, tmp_path):
    chart = charts.csr_bytes_curve(study)
    heads = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF", "json": b"{"}
    for ending, head in heads.items():
        assert chart.save(tmp_path / f"chart.{ending}").read_bytes().startswith(head)
    assert json.loads((tmp_path / "chart.json").read_text(encoding="utf-8")) == chart.to_dict()
    shown = chart._repr_mimebundle_()
    assert shown["image/svg+xml"] == (tmp_path / "chart.svg").read_text(encoding="utf-8")
    assert shown["application/vnd.vegalite.v6+json"] == chart.to_dict()
    with pytest.raises(sr.SparsityReportError, match=r"chart\.bmp: .* \.png, \.svg, \.pdf, \.json"):
        chart.save(tmp_path / "chart.bmp")
    assert not (tmp_path / "chart.bmp").exists()
