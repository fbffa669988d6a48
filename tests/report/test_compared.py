"""The page of several prunings: one table, small maps, the rest folded away."""

import re
import xml.etree.ElementTree as ET

import measurements
import pytest
from helpers import study_of

import sparsity_report as sr
from sparsity_report.draw.heat_maps import excess_map, part_map
from sparsity_report.draw.spread_charts import blocks_chart, spread_chart
from sparsity_report.draw.theme import palette
from sparsity_report.report.sections import Medium
from sparsity_report.report.study_sections import study_document
from sparsity_report.report.tables.latex import to_latex
from sparsity_report.report.tables.method_tables import compared, side_by_side
from sparsity_report.words.sentences import say

NAMES = ("Dense", "Masked30", "Masked50", "Masked50Layerwise", "Masked2:4")
PERPLEXITIES = (9.0, 9.5, 14.0, 12.5, 1204.125)


@pytest.fixture(scope="module")
def study(demo):
    policies = (
        sr.global_magnitude(demo, 0.3), sr.global_magnitude(demo, 0.5),
        sr.layerwise_magnitude(demo, 0.5), sr.n_m(demo, 2, 4),
    )  # fmt: skip
    study = sr.compare(sr.dense(demo), *map(sr.masked, policies), patterns=True)
    levels = tuple(zip((0, 0.3, 0.5, 0.5, 0.5), PERPLEXITIES, strict=True))
    quality = measurements.quality(levels, NAMES).assign(
        kl=[0.0, 0.125, 0.375, 0.25, 0.5],
        flips=0.0,
        agreement=[each / 99 for each in (99, 90, 40, 80, 11)],
    )
    return measurements.put_in(study, quality=quality)


@pytest.fixture(scope="module")
def text(study, tmp_path_factory):
    path = sr.write_report(study, tmp_path_factory.mktemp("page") / "r.html")
    return path.read_text(encoding="utf-8")


def cells(table, title):
    (row,) = [row for row in table.rows if row.cells[0].text == title]
    return dict(zip(NAMES, row.cells[1:], strict=True))


def test_variants_are_columns_under_their_sparsity(study):
    table = compared(study)
    assert [column.key for column in table.columns[1:]] == list(NAMES)
    assert [column.over for column in table.columns[2:]] == ["30\u202f%"] + ["50\u202f%"] * 3
    perplexity = cells(table, "Perplexity")
    assert perplexity["Masked2:4"].text == "1\u202f204.12"
    kl = cells(table, "KL from Dense")
    assert kl["Dense"].text == "–"


def test_layers_are_told_from_least_to_most_sparse(study):
    told = cells(compared(study), "Zeros per layer")
    rows = study.layers[(study.layers["variant"] == "Masked50") & study.layers["prunable"]]
    shares = 100 * (1 - rows["weight_nonzero"] / rows["weight_total"])
    assert told["Masked50"].text == f"{shares.min():.1f}–{shares.max():.1f}\u202f%"
    assert told["Masked2:4"].text == "50.0\u202f%"


def test_a_thesis_has_them_side_by_side_with_units_and_without_numbers_that_are_none(study):
    # The longest of five names leaves room for two.
    parts = side_by_side(study)
    assert [column.key for part in parts for column in part.columns[1:]] == list(NAMES)
    assert [len(part.columns) for part in parts] == [3, 3, 2]
    lines = [line for part in parts for line in to_latex(part, "compared").splitlines()]
    zeros = [line for line in lines if line.startswith("Zeros (")]
    said = "Zeros (\\textdiv{} prunable weights, \\%)"
    assert zeros == [f"{said} & {of} \\\\" for of in ("0.00 & 30.00", "50.00 & 50.00", "50.00")]
    perplexity = [line for line in lines if line.startswith("Perplexity (")]
    assert perplexity[1].endswith("14.00 & 12.50 \\\\")
    spread = next(line for line in lines if line.startswith("Zeros per layer"))
    assert spread.endswith("0.0 & {22.8\\textendash{}42.1} \\\\")


def test_one_small_map_a_pruning_in_one_scale(text, study):
    figures = re.findall(r'id="small-map\d-figure">\s*(<svg.*?</svg>)', text, re.S)
    assert len(figures) == 2
    colors = {}
    for figure, name in zip(figures, NAMES[1:3], strict=True):
        assert f">{name}</text>" in figure
        groups = ET.fromstring(figure.replace(' xmlns="http://www.w3.org/2000/svg"', "")).iter("g")
        cells = study.facts.cells(name)["sparsity"]
        (drawn,) = [g for g in groups if len(g.findall("path")) == len(cells)]
        for share, cell in zip(cells, drawn, strict=True):
            fill = cell.get("fill", drawn.get("fill"))
            assert colors.setdefault(share, fill) == fill
    # Green gets brighter along viridis, whichever map a cell is in.
    greens = [int(fill[3:5], 16) for _, fill in sorted(colors.items())]
    assert greens == sorted(greens)
    assert len({*greens}) > 15
    assert re.search(r"<p>Masked50Layerwise and Masked2:4: .*50\.0\W%.* zeros in every cell", text)


def test_lines_on_each_other_are_one(study):
    spec = blocks_chart(study).to_dict()
    axes = spec["layer"][0]["encoding"]
    assert "%" in axes["y"]["axis"]["labelExpr"]  # shares of zeros
    assert axes["x"]["axis"]["labelExpr"] == "datum.label"  # numbers of blocks
    lines = spec["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert lines == ["Masked30", "Masked50", "Masked50Layerwise, Masked2:4"]


def test_all_that_names_variants_has_them_from_the_fewest_zeros(demo):
    names = [f"Masked{level}" for level in (70, 30, 50)]
    prunings = (sr.global_magnitude(demo, level) for level in (0.7, 0.3, 0.5))
    mixed = sr.compare(sr.dense(demo), *map(sr.masked, prunings))
    page = study_document(mixed, Medium("page"))
    (section,) = [one for one in page["sections"] if one.key == "map"]
    (multiples,) = [block for block in section.blocks if block.kind == "multiples"]
    (spread,) = [chart for chart in section.charts if chart.key == "spread"]
    assert [name for name, *_ in page["chips"]] == ["Dense", *sorted(names)]
    inks = palette(mixed)
    assert all((outline, filling) == inks[name] for name, outline, filling in page["chips"])
    assert [figure.table.caption.split(":")[0] for figure in multiples.charts] == sorted(names)
    assert [row.cells[0].text for row in spread.table.rows] == sorted(names)


def test_what_few_need_is_folded_away(text):
    """In sight stand one table of storage, one of unusual matrices, and no table of kernels."""
    open_parts = re.sub(r'<details class="folded">.*?</details>', "", text, flags=re.S)
    assert text.count("in every layout</span></caption>") == 4
    assert "in every layout</span></caption>" not in open_parts
    end = say("caption.unusual_matrices", variant="@").partition("@")[2]
    assert open_parts.count(f"{end}</span></caption>") == 1
    assert "in the words of each source" not in open_parts


def drawn(chart):
    """The rows of each layer of a chart."""
    spec = chart.to_dict()
    return [spec["datasets"][layer["data"]["name"]] for layer in spec["layer"]]


def test_dots_are_layers_and_bars_their_sum(study):
    dots, bars = drawn(spread_chart(study))
    assert len(dots) == 4 * 24
    means = {row["line"]: row["share"] for row in bars}
    totals = study.totals.set_index("variant")["sparsity_prunable"]
    assert means == pytest.approx({name: totals[name] for name in NAMES[1:]})


def test_no_strip_where_nothing_is_uneven(demo):
    even = sr.compare(sr.dense(demo), sr.masked(sr.layerwise_magnitude(demo, 0.5)))
    assert spread_chart(even) is None


def test_one_pruning_is_spread_over_its_projections(demo_study):
    dots, _ = drawn(spread_chart(demo_study))
    assert len({row["line"] for row in dots}) == 6


def test_the_map_of_surprises_is_even_at_zero(study):
    spec = excess_map(study, "Masked50").to_dict()
    scale = spec["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"][1] == 0
    assert scale["domain"][0] == -scale["domain"][2]
    assert excess_map(study, "Masked2:4") is None


def test_heads_are_cells_and_too_many_are_said(study, monkeypatch):
    parts = list(study.facts.parts("Masked50"))
    assert {part.projection for part in parts} == {"q_proj", "k_proj", "v_proj", "out_proj"}
    assert all(len(part.rows) == 4 * 4 for part in parts)
    assert all(part_map(part, "Masked50") for part in parts)
    monkeypatch.setattr("sparsity_report.draw.heat_maps._MOST", 15)
    assert all(part_map(part, "Masked50") is None for part in parts)


def test_one_pruning_has_no_comparison(demo):
    assert compared(study_of(demo)) is None
