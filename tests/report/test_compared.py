"""The page of several prunings: one table, small maps, the rest folded away."""

import re
from dataclasses import replace

import measurements
import pandas as pd
import pytest
import smaller_mixtures
import torch
from drawings import map_cells
from helpers import small_llama

import sparsity_report as sr
from sparsity_report.draw.heat_maps import part_map
from sparsity_report.files.package_data import DEMO
from sparsity_report.measure.texts import fingerprint
from sparsity_report.report import study_maps
from sparsity_report.report.study_sections import study_document, study_sections
from sparsity_report.report.tables.latex import to_latex
from sparsity_report.report.tables.method_tables import results
from sparsity_report.report.tables.study_tables import quality
from sparsity_report.words.display_names import text_name
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


def texts(table):
    return [[cell.text_with_note for cell in row.cells] for row in table.rows]


def test_results_have_dense_first_and_a_body_per_sparsity(study):
    table = results(study)
    assert [body.title for body in table.bodies] == ["", "30\u202f%", "50\u202f%", "2:4"]
    assert [column.name for column in table.columns] == [
        "method", "zeros", "perplexity", "smallest", "useful_flops_per_token",
    ]  # fmt: skip
    # Of 957,440 values of four bytes 786,432 are prunable, with one bit each in a bitmask.
    sizes = [(957_440 - zeros) * 4 + 786_432 // 8 for zeros in (235_930, 393_216)]
    assert sizes == [2_984_344, 2_355_200]
    assert texts(table) == [
        ["Dense", "0.0\u202f%", "9.00", "3.83 (dense)", "1.84"],
        # Two FLOPs less for each of 235,930 or 393,216 zeros.
        ["Global magnitude", "30.0\u202f%", "9.50", "2.98", "1.36"],
        ["Global magnitude", "50.0\u202f%", "14.00", "2.36", "1.05"],
        ["Layerwise magnitude", "50.0\u202f%", "12.50", "2.36", "1.05"],
        ["Magnitude", "50.0\u202f%", "worse than uniform guessing", "2.36", "1.05"],
    ]
    assert table.columns[3].label == "Size as bitmask, MB"
    assert [row.cells[3].plain for row in table.rows[:2]] == ["3.829760", "2.984344"]
    assert table.caption.endswith("scored on some.txt by protocol sliding.")
    assert table.note == say("table_note.results")


def test_results_in_latex_keep_names_of_layouts_and_words(study):
    lines = [line for line in to_latex(results(study), "results").splitlines() if "&" in line]
    assert lines[-5].startswith("Dense & 0.0 & 9.00 & {3.83 (dense)} & ")
    assert " & 2.98 & " in lines[-4]
    assert " & {worse than uniform guessing} & 2.36 & " in lines[-1]


def test_the_page_opens_on_scores_or_else_on_the_viewer(study):
    """Perplexities of two prunings are compared in a chart; the page has the viewer once."""
    one = study.quality[study.quality["variant"].isin(NAMES[:2])]
    alike = study.quality.assign(perplexity=9.0)
    for known, kind in (
        (study.quality, "chart"), (alike, "viewer"), (None, "viewer"), (one, "viewer"),
    ):  # fmt: skip
        shown = study_document(replace(study, quality=known), "page")
        (first,) = (block for block in shown["hero"].blocks if block.kind != "text")
        assert first.kind == kind
        blocks = [first, *(block for section in shown["sections"] for block in section.blocks)]
        assert [block.kind for block in blocks].count("viewer") == 1


def test_layouts_of_a_pruning_share_a_row_unless_a_figure_differs(demo):
    pruning = sr.global_magnitude(demo, 0.3)
    again = [sr.dense(demo), sr.masked(pruning), sr.masked(pruning, name="Again")]
    assert [row[0] for row in texts(results(sr.compare(*again)))] == ["Dense", "Global magnitude"]
    table = results(sr.compare(*again, sr.csr(pruning)))
    assert [column.label for column in table.columns] == [
        "Method", "Zeros", "Size, MB", "Useful MFLOPs per token",
    ]  # fmt: skip
    assert [row[:3] for row in texts(table)] == [
        ["Dense", "0.0\u202f%", "3.83"],
        ["Global magnitude, masked", "30.0\u202f%", "3.83"],
        # 4 + 4 bytes for each of 786,432 − 235,930 values, 9,240 row pointers of 4 in 24 matrices.
        ["Global magnitude, CSR", "30.0\u202f%", "5.11"],
    ]


def test_results_of_a_dense_model_are_its_size_and_work(demo):
    table = results(sr.compare(sr.dense(demo)))
    assert texts(table) == [["Dense", "3.83", "1.84"]]


def test_a_dense_model_keeps_its_name(demo):
    pruning = sr.masked(sr.global_magnitude(demo, 0.3))
    table = results(sr.compare(sr.dense(demo, name="Base"), pruning))
    assert [row[0] for row in texts(table)] == ["Base", "Global magnitude"]


def test_heads_do_not_round_the_share_of_a_model_that_came_pruned(demo):
    came = sr.load(sr.masked(sr.global_magnitude(demo, 0.196)).module(), name="came")
    variants = (
        sr.dense(demo), sr.dense(came, name="Came"), sr.masked(sr.global_magnitude(demo, 0.2)),
    )  # fmt: skip
    titles = [body.title for body in results(sr.compare(*variants)).bodies]
    assert titles == ["demo", "came, 19.6\u202f%", "demo, 20\u202f%"]


@pytest.mark.parametrize(("policies", "is_marked"), [("global", False), ("global layerwise", True)])
def test_captions_explain_marks_that_the_table_has(demo, policies, is_marked):
    prunings = [getattr(sr, f"{name}_magnitude")(demo, 0.5) for name in policies.split()]
    variants = [sr.dense(demo), *map(sr.masked, prunings)]
    scored = sr.compare(*variants).with_measured(quality=sr.perplexity(variants))
    table = results(scored)
    assert any("lowest" in text for row in texts(table) for text in row) is is_marked
    assert (say("table_note.lowest") in table.note) is is_marked
    # The table of scores marks none.
    assert say("table_note.lowest") not in quality(scored).note


def test_a_model_without_experts_is_not_called_dense(tmp_path):
    smaller_mixtures.saved(tmp_path, "Mixtral")
    weights = sr.load(tmp_path)
    fewer = sr.without_experts(smaller_mixtures.keep(weights))
    table = results(sr.compare(sr.dense(weights), fewer))
    assert [row[0] for row in texts(table)] == ["Dense", "Experts6of8"]


def test_several_models_are_titles(demo):
    other = sr.load(small_llama().eval(), name="other")
    variants = [
        sr.dense(demo), sr.masked(sr.global_magnitude(demo, 0.3)),
        sr.dense(other, name="Other"), sr.masked(sr.global_magnitude(other, 0.5)),
    ]  # fmt: skip
    study = sr.compare(*variants)
    table = results(study)
    assert {body.title for body in table.bodies} == {
        "demo", "demo, 30\u202f%", "other", "other, 50\u202f%",
    }  # fmt: skip
    scores = ((0.0, 9.0), (0.3, 9.5), (0.0, 5.0), (0.5, 7.0))
    frame = measurements.quality(scores, [variant.name for variant in variants])
    table = results(measurements.put_in(study, quality=frame))
    assert {body.title: body.rows[0].cells[2].text for body in table.bodies} == {
        "demo": "9.00", "demo, 30\u202f%": "9.50", "other": "5.00", "other, 50\u202f%": "7.00",
    }  # fmt: skip


def test_scores_on_two_texts_are_in_one_table_with_their_texts(study):
    other = study.quality.assign(text="other.txt", perplexity=20.0 + study.quality["perplexity"])
    both = replace(study, quality=pd.concat([study.quality, other], ignore_index=True))
    for medium in ("page", "paper", "kit"):
        shown = study_document(both, medium)["tables"]["quality"]
        names = [column.name for column in shown.columns]
        rows = [dict(zip(names, row.cells, strict=True)) for row in shown.rows]
        assert [(row["text"].value, row["perplexity"].value) for row in rows] == [
            (text, more + perplexity)
            for text, more in (("some.txt", 0.0), ("other.txt", 20.0))
            for perplexity in PERPLEXITIES
        ]
    assert "quality" not in study_document(study, "page")["tables"]


def test_vocabulary_is_the_rows_of_the_output_head(demo_study, smollm2):
    assert demo_study.facts.vocabulary("CSR30") == 1024
    assert sr.compare(sr.dense(smollm2)).facts.vocabulary("Dense") == 49_152
    layers = torch.nn.ModuleDict({"fc1": torch.nn.Linear(8, 8)})
    assert sr.compare(sr.dense(sr.load(layers))).facts.vocabulary("Dense") is None


def test_the_packaged_text_is_named_by_its_content():
    data = (DEMO / "eval.txt").read_bytes()
    packaged = fingerprint(data.decode())
    assert (
        text_name("eval.txt", packaged)
        == f"{round(len(data) / 1000)} kB of Python source (eval.txt)"
    )
    assert text_name("eval.txt", fingerprint(data.decode()[1:])) == "eval.txt"


def test_one_small_map_a_pruning_in_one_scale(study):
    """On paper, which has no viewer."""
    (blocks,) = (s.blocks for s in study_sections(study, "paper") if s.key == "where")
    (maps,) = (block for block in blocks if block.kind == "multiples")
    colors = {}
    for chart, name in zip(maps.charts, NAMES[1:3], strict=True):
        figure = chart.picture
        assert f">{name}</text>" in figure
        grid, drawn = study.facts.grid(name), map_cells(figure)
        for row in study.facts.cells(name).itertuples():
            place = grid.blocks.index(row.block), grid.projections.index(row.projection)
            color = drawn.pop(place).color
            assert colors.setdefault(row.sparsity, color) == color
        assert not drawn
    # Green gets brighter along viridis, whichever map a cell is in.
    greens = [int(fill[3:5], 16) for _, fill in sorted(colors.items())]
    assert greens == sorted(greens)
    assert len({*greens}) > 15
    *_, uniform = (block.text for block in blocks if block.kind == "text")
    assert re.match(r"Every cell of Masked50Layerwise and Masked2:4 has 50\W% zeros", uniform)


def test_small_maps_and_the_spread_go_from_the_fewest_zeros(demo):
    names = [f"Masked{level}" for level in (70, 30, 50)]
    prunings = (sr.global_magnitude(demo, level) for level in (0.7, 0.3, 0.5))
    mixed = sr.compare(sr.dense(demo), *map(sr.masked, prunings))
    (small,) = study_maps.small_maps(mixed)
    assert [chart.drawn.title for chart in small.charts] == sorted(names)
    (_, *shares) = [row[1] for row in texts(results(mixed))]
    assert shares == ["30.0\u202f%", "50.0\u202f%", "70.0\u202f%"]


def test_heads_are_cells_and_omitted_heads_are_counted(study, monkeypatch):
    parts = list(study.facts.parts("Masked50"))
    assert {part.projection for part in parts} == {"q_proj", "k_proj", "v_proj", "out_proj"}
    assert all(len(part.rows) == 4 * 4 for part in parts)
    assert all(part_map(part, "Masked50") for part in parts)
    for shares, is_drawn in (((0.25, 0.25), False), ((0.25, 0.5), True)):
        pair = parts[0].rows[:2].assign(sparsity=shares)
        assert (part_map(parts[0]._replace(rows=pair), "Masked50") is not None) == is_drawn
    monkeypatch.setattr("sparsity_report.draw.heat_maps._MOST", 15)
    assert all(part_map(part, "Masked50") is None for part in parts)
