"""Methods by sparsity and model: every cell is a score of the study, the best of each is bold."""

import re

import numpy as np
import pytest
import torch
from helpers import small_llama

import sparsity_report as sr
from sparsity_report.draw.policies import blocks_chart
from sparsity_report.report.cells import NAME, SHARE, Column, table_of, to_html
from sparsity_report.report.grids import blocks, method_grids
from sparsity_report.report.latex import to_latex
from sparsity_report.report.markdown import to_markdown

TEXT = torch.arange(60) * 7 % 31
EVIL = "<script>alert(1)</script> | `x` \\input{/etc/passwd}\n**a**"


def scored(model, name, *ids):
    weights = sr.load(model, name=name)
    variants = [
        sr.dense(weights),
        *(sr.masked(policy(weights, share)) for share in (0.3, 0.6)
          for policy in (sr.global_magnitude, sr.layerwise_magnitude)),
        sr.csr(sr.global_magnitude(weights, 0.3)),
        sr.masked(sr.n_m(weights, 2, 4)),
    ]  # fmt: skip
    study = sr.compare(*variants)
    frames = [sr.perplexity(variants, text) for text in ids or (TEXT,)]
    frame = frames[0] if len(frames) == 1 else sr.combine(
        *(study.with_measured(quality=frame) for frame in frames)
    ).quality  # fmt: skip
    return study.with_measured(quality=frame)


@pytest.fixture(scope="module")
def study():
    models = [small_llama().eval() for _ in range(2)]
    torch.manual_seed(1)
    for parameter in models[1].parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    return sr.combine(*map(scored, models, ("one", "two")))


def read(text):
    """Rows of a table in Markdown by section and name; bold cells end in "!"."""
    found, section = {}, ""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        first, *cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if first.startswith("**"):
            section = first.strip("*")
        else:
            found[section, first] = [re.sub(r"\*\*(.*)\*\*", r"\1!", cell) for cell in cells]
    return found


def test_every_cell_is_a_score_and_the_best_is_bold(study):
    (table,) = method_grids(study)
    perplexity = study.quality.set_index("variant")["perplexity"]
    labels = {
        ("", "Dense"): "Dense",
        ("30 %", "Global magnitude"): "Masked30",
        ("30 %", "Layerwise magnitude"): "Masked30Layerwise",
        ("60 %", "Global magnitude"): "Masked60",
        ("60 %", "Layerwise magnitude"): "Masked60Layerwise",
        ("2:4", "Magnitude"): "Masked2:4",
    }
    rows = read(to_markdown(table))
    assert list(rows) == list(labels)
    for at, model in enumerate(("one", "two")):
        values = {key: perplexity[f"{v} ({model})"] for key, v in labels.items()}
        for section in ("30 %", "60 %"):
            inside = {key: value for key, value in values.items() if key[0] == section}
            best = min(inside.values())
            for key, value in inside.items():
                assert rows[key][at] == f"{value:,.2f}" + ("!" if value == best else "")
        for key in (("", "Dense"), ("2:4", "Magnitude")):
            assert rows[key][at] == f"{values[key]:,.2f}"  # alone: nothing is best


def test_all_formats_say_the_same(study):
    (table,) = method_grids(study)
    rows = read(to_markdown(table)).values()
    due = [cell.rstrip("!") for row in rows for cell in row]
    html = re.findall(r"<td>(?:<strong>)?([\d.,]+)", to_html(table))
    latex = re.findall(r"& (?:\\bfseries )?([\d.]+)", to_latex(table, "t"))
    assert html == due
    assert latex == [cell.replace(",", "") for cell in due]
    bold = sum(cell.endswith("!") for row in rows for cell in row)
    assert to_html(table).count("<strong>") == bold == to_latex(table, "t").count("bfseries ") > 0


def test_protocols_are_not_mixed():
    study = scored(small_llama().eval(), "one", TEXT, TEXT[:30])
    tables = method_grids(study)
    assert [table.key for table in tables] == ["perplexity_grid", "perplexity_grid_2"]
    for table, text in zip(tables, (TEXT, TEXT[:30]), strict=True):
        frame = study.quality[study.quality["tokens"] == len(text)].set_index("variant")
        due = f"{frame['perplexity']['Masked30']:,.2f}"
        assert read(to_markdown(table))["30 %", "Global magnitude"][0].rstrip("!") == due


def test_no_grid_of_one_pruning():
    weights = sr.load(small_llama().eval(), name="one")
    variants = [sr.dense(weights), sr.masked(sr.global_magnitude(weights, 0.5))]
    study = sr.compare(*variants).with_measured(quality=sr.perplexity(variants, TEXT))
    assert method_grids(study) == []
    assert blocks(study) is None
    assert blocks_chart(study) is None


def test_zeros_per_block_are_those_of_the_layers(study):
    table, chart = blocks(study), blocks_chart(study).to_dict()
    layers = study.layers[study.layers["prunable"] & study.layers["block"].notna()]
    rows = {(r["block"], r["line"]): r["value"] for r in chart["datasets"][chart["data"]["name"]]}
    assert [column.key for column in table.columns[1:]] == list(study.facts.rivals)
    for row in table.rows:
        block = row.cells[0].value
        for column, cell in zip(table.columns[1:], row.cells[1:], strict=True):
            of = layers[(layers["variant"] == column.key) & (layers["block"] == block)]
            total, left = of["weight_total"].sum(), of["weight_nonzero"].sum()
            assert cell.value == pytest.approx((total - left) / total, abs=1e-12)
            assert rows[block, column.head] == cell.value
    assert len(rows) == len(table.rows) * len(study.facts.rivals)
    assert np.ptp([rows[key] for key in rows if key[1].startswith("Masked60Lay")]) == 0


def test_names_are_never_markdown():
    columns = [Column("n", EVIL, NAME), Column("s", "Zeros", SHARE)]
    text = to_markdown(table_of("t", EVIL, columns, [{"n": EVIL, "s": 0.5}]))
    *_, head, rule, row = text.splitlines()
    assert rule == "|:---|---:|"
    for line in (head, row):
        assert len(re.findall(r"(?<!\\)\|", line)) == 3
    assert not re.search(r"(?<!\\)[<>`*]", text)
