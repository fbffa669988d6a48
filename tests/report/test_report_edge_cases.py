"""Edge cases of reports: limits of tables and texts, empty values, and labels."""

import nbformat
import pytest
import torch
from helpers import Tiny, study_of
from measurements import put_in, quality
from torch import nn
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.report import notebook, thesis
from sparsity_report.report.pdf import to_typst
from sparsity_report.report.tables import latex
from sparsity_report.report.tables import study_tables as tables
from sparsity_report.report.tables.html import to_html
from sparsity_report.report.tables.table_model import table_of
from sparsity_report.report.templates import environment
from sparsity_report.study.schema import COLUMNS, Column, columns_of
from sparsity_report.words import value_formats as formats

THIN = "\u202f"
PAPER = "paper"


@pytest.fixture(scope="module")
def study():
    torch.manual_seed(0)
    return study_of(sr.load(Tiny(), name="tiny"), 0.5)


def table(heads, rows=1, bodies=1):
    columns = [Column(h, text=h) for h in heads]
    values = [{**dict.fromkeys(heads, 1), "body": n} for n in range(bodies) for _ in range(rows)]
    return table_of("t", "c", columns, values, title="body")


# Cells and tables.


@pytest.mark.parametrize(
    ("key", "limit"),
    [("variant", 40), ("text", 40), ("model", 80), ("module_name", 80), ("parameter", 80),
     ("source", 200)],
)  # fmt: skip
def test_names_are_cut_where_they_are_too_long(key, limit):
    form = COLUMNS[key].format
    assert form.write("x" * limit) == "x" * limit
    assert form.write("x" * (limit + 1)) == "x" * (limit - 1) + "…"
    assert (form.write(None), form.tag) == ("–", "bdi")


@pytest.mark.parametrize(
    ("rows", "bodies", "long"), [(8, 1, False), (9, 1, True), (8, 2, False), (5, 5, True)]
)
def test_only_long_tables_break_over_pages(rows, bodies, long):
    """More than 8 rows a body, or more than 24."""
    assert to_typst(table("ab", rows, bodies))["long"] is long


def test_words_stand_left_and_the_names_of_rows_do_anyhow():
    rows = [{"layout": "x", "total": 1, "method": "y"}]
    html = to_html(table_of("t", "", "layout total method", rows, style="s"))
    assert '<table class="s left3">' in html


def test_rows_of_shares_name_their_unit_among_counts(study):
    table = tables.totals(study)
    assert {column.format.unit for column in table.columns[1:]} == {""}
    shares = [row for row in table.rows if row.cells[1].format.unit == "%"]
    assert to_html(table, plain=True).count('<th scope="row" data-u="%"') == len(shares) > 0


def test_captions_say_how_many_matrices_a_cell_holds():
    for blocks, said in ((3, "per weight matrix"), (130, "of all weight matrices in a cell")):
        layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(blocks))
        one = study_of(sr.load(nn.ModuleDict({"layers": layers})), 0.5)
        assert said in tables.zeros_map(one, "Masked50").caption


def test_notes_are_those_of_their_numbers(study):
    notes = {row.cells[0].text: row.cells[0].note for row in tables.totals(study).rows}
    for label, note in (
        ("prunable weights", "weights that pruning can choose from"),
        ("non-embedding parameters", "all parameters except embeddings and output head"),
        ("whole model", "all parameters, each stored tensor counted once"),
    ):
        assert notes[f"Sparsity of the {label}"] == f"zeros ÷ {note}"
    assert notes["Performed FLOPs per token"] == "as the layout computes them"
    assert notes["Useful FLOPs per token"] == "two per nonzero weight"


def test_work_of_one_of_two_models_has_a_row():
    model = built(next(case for case in CASES if case.per_sequence))
    pooled = sr.load(model, name="b")
    torch.manual_seed(0)
    both = sr.compare(sr.dense(sr.load(Tiny(), name="tiny")), sr.dense(pooled, name="B"))
    (row,) = [r for r in tables.totals(both).rows if "sequence" in r.cells[0].text]
    # The pooler is 32 × 32.
    assert [cell.value for cell in row.cells[1:]] == [0, 2 * 32 * 32]


def test_shared_text_is_stated_once(study):
    frame = quality(names=("Dense", "Masked50", "CSR50"))
    said = tables.quality(put_in(study, quality=frame)).caption
    assert said.startswith("Perplexity and next-token accuracy: protocol sliding on some.txt, ")
    for column, other in (
        ("text", "b"), ("window", 128), ("stride", 8), ("scored", 98),
        ("protocol", "wikitext2-max"), ("text_fingerprint", "b"), ("dtype", "float16"),
        ("tokens", 101),
    ):  # fmt: skip
        frame = quality(names=("Dense", "Masked50", "CSR50"))
        frame.loc[0, column] = other
        mixed = put_in(study, quality=frame)
        keys = [each.name for each in tables.quality(mixed).columns]
        everything = {"protocol", "text", "text_fingerprint", "scored", "windows", "dtype"}
        assert everything <= {*keys}, column


# Templates and values.


def test_texts_in_templates_are_cut_at_80_letters_by_default():
    show = environment().from_string("{{ text | clip }} {{ text | clip(5) }}").render
    assert show(text="x" * 80) == "x" * 80 + " xxxx…"
    assert show(text="x" * 81) == "x" * 79 + "… xxxx…"


# LaTeX.


def test_words_and_names_of_any_length_in_latex():
    assert latex.tex("x" * 80).replace("\\allowbreak{}", "") == "x" * 80
    assert latex.tex("x" * 81).replace("\\allowbreak{}", "") == "x" * 79 + "\\textellipsis{}"
    assert latex.command_names(["x" * 39 + "yz", "x" * 39 + "y"]) == [
        "X" + "x" * 38 + "y", "X" + "x" * 38 + "yB",
    ]  # fmt: skip
    clashes = latex.command_names(["q"] * 28)
    assert clashes[:3] == ["Q", "QB", "QC"]
    assert clashes[25:] == ["QZ", "QTwentySeven", "QTwentyEight"]
    assert latex.command_names(["a45", "b20", "c19", "d10", "x007"]) == [
        "AFortyFive", "BTwenty", "CNineteen", "DTen", "XZeroZeroSeven",
    ]  # fmt: skip


def test_heads_break_after_eleven_letters():
    """And nowhere else: a word is whole however long, and one with a hyphen, too."""
    whole = latex.to_latex(table(["n", "abcdefghijklm", "abcdef-ghijk"]), "l")
    heads = whole.partition("\\toprule\n")[2].partition("\\midrule")[0].splitlines()
    assert heads == ["{n} & {abcdefghijklm} & {abcdef-ghijk} \\\\"]
    shown = latex.to_latex(table(["n", "abcde fghij", "abcdef ghijk"]), "l")
    heads = shown.partition("\\toprule\n")[2].partition("\\midrule")[0].splitlines()
    assert [line.removesuffix(" \\\\").split(" & ")[1:] for line in heads] == [
        ["{}", "{abcdef}"], ["{abcde fghij}", "{ghijk}"],
    ]  # fmt: skip


def test_columns_of_numbers_have_room_for_the_widest():
    rows = [{"layout": "a", "sparsity": v} for v in (0.00001, 0.1, 1.0, None)]
    shown = latex.to_latex(table_of("t", "", "layout sparsity", rows), "l")
    assert "\\begin{tabular}{l S[table-format=<3.1]}" in shown
    assert [line.split(" & ")[1] for line in shown.splitlines() if " & " in line][-4:] == [
        "<0.1 \\\\", "10.0 \\\\", "100.0 \\\\", "{\\textendash{}} \\\\",
    ]  # fmt: skip


@pytest.mark.parametrize(("letters", "breaks"), [(40, False), (41, True)])
def test_long_names_of_modules_break_in_latex(letters, breaks):
    columns = columns_of("module total sparsity", {"module": formats.name_format(letters)})
    table = table_of("t", "", columns, [{"module": "x" * letters, "total": 6, "sparsity": 0.5}])
    assert ("p{9cm}" in latex.to_latex(table, "l")) is breaks


def test_a_perplexity_no_better_than_guessing_is_in_words(study):
    """A guess among the 11 tokens of the model has a perplexity of 11."""
    scores = quality(((0.0, 2.0), (0.5, 10.9), (0.5, 11.0)), ("Dense", "Masked50", "CSR50"))
    found = dict(thesis.commands_of(put_in(study, quality=scores)))
    assert found["MaskedFiftyPerplexity"] == "\\num{10.90}"
    assert found["CSRFiftyPerplexity"] == "worse than uniform guessing"


# Notebooks, without running one.


@pytest.fixture
def ran(monkeypatch):
    """What would have been run: the notebook, its folder, and the time a cell may take."""
    runs = []
    monkeypatch.setattr(notebook, "_execute", lambda *given: runs.append(given))
    return runs


def test_parameters_stand_after_their_defaults(ran, tmp_path):
    sr.write_notebook(None, tmp_path / "out.ipynb")
    sr.write_notebook("org/model", tmp_path / "other.ipynb", sparsity=0.25)
    written = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    tags = [cell.metadata.get("tags", []) for cell in written.cells]
    at = tags.index(["parameters"])
    assert tags[at + 1] == ["injected-parameters"]
    assert written.cells[at + 1].source == "MODEL = None\nSPARSITY = 0.3\nOUT = 'out'"
    assert written.cells[at + 1]["id"] == "injected-parameters"
    assert (tmp_path / "out.ipynb").read_text().endswith("}\n")
    (node, folder), second = ran
    assert folder == tmp_path
    assert len(node.cells) == len(written.cells)
    assert "MODEL = 'org/model'\nSPARSITY = 0.25" in second[0].cells[at + 1].source


def test_a_local_model_is_named_whole(ran, tmp_path, monkeypatch):
    (tmp_path / "m.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    sr.write_notebook("m.safetensors", tmp_path / "out.ipynb")
    code = [cell.source for cell in ran[0][0].cells if "SPARSITY =" in cell.source][-1]
    assert f"MODEL = {str(tmp_path / 'm.safetensors')!r}" in code


@pytest.mark.usefixtures("ran")
def test_a_page_of_a_notebook_has_a_title_and_hides_code_where_asked(tmp_path):
    node = nbformat.v4.new_notebook()
    node.cells = [
        nbformat.v4.new_code_cell("SECRET = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_markdown_cell("# " + "t" * 130 + "\nmore"),
    ]
    source = tmp_path / "mine.ipynb"
    nbformat.write(node, source)
    for options, code in (({}, True), ({"hide_inputs": True}, False)):
        page = sr.write_notebook(None, tmp_path / "page.html", notebook=source, **options)
        text = page.read_text(encoding="utf-8")
        assert ("SECRET" in text) is code
        assert f"<title>{'t' * 119}…</title>" in text
        assert "Sparsity Sans" in text
    node.cells = node.cells[1:]
    nbformat.write(node, source)
    with pytest.raises(sr.SparsityReportError, match="no cell tagged 'parameters'"):
        sr.write_notebook(None, tmp_path / "x.html", notebook=source)


def test_pictures_of_a_notebook_do_not_share_names():
    rename = notebook._apart()
    svg = '<svg><g id="a"/><use href="#a"/><rect fill="url(#a)"/></svg>'
    first, second = rename(svg), rename(svg)
    assert first == svg.replace('"a"', '"plate1-a"').replace("#a", "#plate1-a")
    assert second == first.replace("plate1", "plate2")
