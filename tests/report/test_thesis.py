"""The thesis kit: exact sizes, embedded fonts, the study's numbers, and LaTeX that runs."""

import dataclasses
import html
import itertools
import re
import shutil
import subprocess
import sys

import hostile
import pytest
import torch
from helpers import need, study_of
from hypothesis import example, given
from hypothesis import strategies as st
from measurements import latency, put_in, quality, sensitivity
from papers import bare, eight_variants, facts, fonts, images, largest_gaps, nine_prunings, text_of

import sparsity_report as sr
from sparsity_report.errors import legible
from sparsity_report.report.tables.latex import tex

POINTS = 72 / 2.54


@pytest.fixture(scope="module")
def study(demo):
    return study_of(demo, patterns=True)


@pytest.fixture(scope="module")
def kit(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    sr.write_thesis(study, folder)
    return folder


@pytest.fixture(scope="module")
def pdf(study, tmp_path_factory):
    return sr.write_report(study, tmp_path_factory.mktemp("pdf") / "report.pdf")


@pytest.fixture(scope="module")
def many(demo, tmp_path_factory):
    """Eight variants, one of a name like a color, of a model with one zero embedding."""
    module = sr.dense(demo).module()
    with torch.no_grad():
        module.get_input_embeddings().weight[5, 0] = 0
    study = eight_variants(sr.load(module, name="demo"))
    renamed = {
        table: getattr(study, table).replace({"variant": {"TwoFour": "#ff0000"}})
        for table in ("variants", "layers")
    }
    study, folder = dataclasses.replace(study, **renamed), tmp_path_factory.mktemp("many")
    sr.write_thesis(study, folder)
    return study, folder


def compiled(folder, clean=True):
    """Run LaTeX once, as the example says, and once more; return its log and the paper's text."""
    need(shutil.which("pdflatex") is not None, "pdflatex: see .ci/run for the packages")
    safe = ["-no-shell-escape", "-recorder", "-interaction=nonstopmode", "-halt-on-error"]
    latex = ["pdflatex", *safe, "example"]
    papers = []
    for _ in range(2):
        run = subprocess.run(latex, cwd=folder, capture_output=True, text=True, errors="replace")
        assert run.returncode == 0, run.stdout[-2000:]
        papers.append(text_of(folder / "example.pdf"))
    assert papers[0] == papers[1]
    log = (folder / "example.log").read_text(errors="replace")
    complaints = re.findall(r"^.*(?:Warning|Overfull|Underfull|undefined|multiply).*$", log, re.M)
    if clean:
        assert complaints == []
    return log, papers[0]


def commands(folder):
    """Names and values of the commands in numbers.tex."""
    lines = (folder / "numbers.tex").read_text().splitlines()
    pairs = [re.fullmatch(r"\\newcommand\{\\([A-Za-z]+)\}\{(.*)\}", line) for line in lines[1:]]
    assert all(pairs)
    names = [pair[1] for pair in pairs]
    assert len(set(names)) == len(names)
    return {pair[1]: pair[2] for pair in pairs}


def rows_of(path):
    """Cells of a table, as text."""
    body = path.read_text().partition("\\midrule")[2].partition("\\bottomrule")[0]
    lines = [line for line in body.strip().splitlines() if line.endswith("\\\\")]
    return [[cell.strip() for cell in line.removesuffix("\\\\").split(" & ")] for line in lines]


def number(cell):
    return None if "textendash" in cell else float(cell)


def test_kit_has_these_files(kit):
    names = {path.relative_to(kit).as_posix() for path in kit.rglob("*") if path.is_file()}
    storage = (kit / "tables/storage.tex").read_text()
    assert "\nBSR" not in storage  # blocks of zeros without structure are not empty
    figures = ("map_masked30", "csr_bytes")
    expected = {
        f"figures/{name}_{place}.{kind}"
        for name in figures
        for place in ("column", "text")
        for kind in ("pdf", "svg")
    }
    tables = ("results", "totals", "storage")
    expected |= {f"tables/{name}.{kind}" for name in tables for kind in ("tex", "md")}
    expected.add("sparsity-report.bib")
    expected |= {f"{name}.tex" for name in ("numbers", "captions", "findings", "example")}
    assert names == expected


@pytest.mark.tools
def test_sizes_are_exact(kit, study, tmp_path):
    sr.write_thesis(study, tmp_path, column_cm=6, text_cm=17.05)
    tenth = 0.01 * POINTS
    for folder, place, width in (
        (kit, "column", 8.5), (kit, "text", 16), (tmp_path, "column", 6), (tmp_path, "text", 17.05),
    ):  # fmt: skip
        for path in (folder / "figures").glob(f"*_{place}.pdf"):
            drawn_width = float(facts(path)["Page size"].split()[0])
            assert abs(drawn_width - width * POINTS) < tenth, path.name
            svg = path.with_suffix(".svg").read_text()
            drawn = float(re.search(r'width="([\d.]+)pt"', svg)[1])
            assert abs(drawn - width * POINTS) < tenth


@pytest.mark.tools
def test_figures_are_vector_and_carry_their_text(kit, study):
    for path in (kit / "figures").glob("*.pdf"):
        assert fonts(path), path.name
        assert all(fonts(path).values()), path.name
        assert images(path) == []
    words = text_of(kit / "figures" / "map_masked30_column.pdf")
    for projection in study.facts.cells("Masked30")["projection"]:
        assert projection in words
    # Captions are not drawn.
    assert "zeros per layer" not in words
    layers = study.layers[(study.layers["variant"] == "Masked30") & study.layers["prunable"]]
    zeros = 100 * (1 - layers["weight_nonzero"] / layers["weight_total"])
    caption = rf"{zeros.min():.1f}~\% to {zeros.max():.1f}~\% zeros per layer."
    assert caption in (kit / "captions.tex").read_text(encoding="utf-8")


@pytest.mark.tools
def test_a_font_by_name(study, tmp_path):
    listed = shutil.which("fc-list") and subprocess.run(["fc-list"], capture_output=True, text=True)
    need(bool(listed) and "Liberation Serif" in listed.stdout, "the package fonts-liberation")
    sr.write_thesis(study, tmp_path, font="Liberation Serif")
    for path in (tmp_path / "figures").glob("*.pdf"):
        assert all("LiberationSerif" in name for name in fonts(path))
        drawing = html.unescape(path.with_suffix(".svg").read_text(encoding="utf-8"))
        assert "'Liberation Serif', sans-serif" in drawing


@pytest.mark.tools
def test_a_missing_font_is_an_error_unless_a_generic_one_follows(demo, tmp_path):
    study = sr.compare(sr.dense(demo))
    (tmp_path / "numbers.tex").write_text("kept")
    with pytest.raises(sr.SparsityReportError, match=r"font: 'No Such Font' is not installed"):
        sr.write_thesis(study, tmp_path, font="No Such Font")
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.tex"]
    sr.write_thesis(study, tmp_path, font="No Such Font, serif")
    for path in (tmp_path / "figures").glob("*.pdf"):
        assert fonts(path)


@pytest.mark.latex
def test_the_example_compiles_without_a_warning(kit, study):
    _, text = compiled(kit)
    assert int(facts(kit / "example.pdf")["Pages"]) <= 8
    for sentence in sr.summarize(study):
        assert bare(sentence) in text
    for variant in study.totals.itertuples():
        assert f"{variant.variant}" in text
        assert str(variant.stored_bytes) in text
    assert sr.__version__ in text


@pytest.mark.latex
def test_small_shares_and_many_variants_compile(many):
    study, folder = many
    _, text = compiled(folder)
    assert str(study.totals["stored_bytes"].iloc[0]) in text


@pytest.mark.latex
@pytest.mark.parametrize("kind", ["nine prunings", "packed", "pair"])
def test_one_run_sets_every_kit_on_full_pages(demo, smollm2_path, tmp_path, kind):
    if kind == "nine prunings":
        study = nine_prunings(demo)
    elif kind == "packed":
        study = study_of(sr.load(smollm2_path), 0.5)
    else:
        study = sr.compare_checkpoints(demo, sr.global_magnitude(demo, 0.5))
    sr.write_thesis(study, tmp_path)
    _, text = compiled(tmp_path)
    assert "[1]," in text
    captions = re.findall(r"(?:Table|Figure)\d+:(.{40})", text)
    assert len(captions) == len(set(captions)) > 1
    *full, _ = largest_gaps(tmp_path / "example.pdf")
    assert max(full, default=0) < 1 / 3
    if kind == "nine prunings":
        ratio = study.quality["perplexity"][3] / study.quality["perplexity"][0]
        cells = {tuple(row[:2]) for row in rows_of(tmp_path / "tables" / "score_pairs.tex")}
        assert ("Masked70 against Dense", f"{ratio:.3f}") in cells
        assert ("Masked70Random against Dense", "{worse than uniform guessing}") in cells
        assert not re.search(r"\d{6}\.\d", "".join(p.read_text() for p in tmp_path.rglob("*.tex")))


@pytest.mark.latex
def test_hostile_names_compile_as_text(tmp_path):
    """Not one is read as a command, by LaTeX or by BibTeX, which counts braces."""
    study = hostile.study(tmp_path / "study")
    read = sr.read_study(hostile.edited(study, tmp_path / "study" / "study.json"))
    kit = tmp_path / "kit"
    sr.write_thesis(read, kit)
    for path in [*kit.rglob("*.tex"), kit / "sparsity-report.bib"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"[^\n\x20-\u017f\u2264]", text), path.name
        depths = list(itertools.accumulate((c == "{") - (c == "}") for c in text))
        assert min(depths) == depths[-1] == 0, path.name
    names = [path.name for path in kit.rglob("*")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names)
    _, text = compiled(kit, clean=False)
    assert "root:" not in text
    for key in ("latex input", "terminal clear", "script", "typst include", "bibtex", "override"):
        shown = bare(legible(hostile.TEXTS[key])).replace("'", "’")
        assert shown[:40] in text.replace("'", "’"), key
    # Clipped, and to be seen as clipped.
    assert "x" * 201 not in text
    # Nothing is opened but the kit and what LaTeX is made of, and nothing is written beside it.
    opened = (kit / "example.fls").read_text(encoding="utf-8").splitlines()
    assert not [line for line in opened if re.search(r"\s/etc/passwd", line)]
    assert not [path for path in kit.rglob("*") if path.stem == "hacked"]


def test_the_same_study_gives_the_same_files(kit, pdf, study, tmp_path):
    """The kit and the PDF of another process, in which sets have another order."""
    study.save(tmp_path / "study.json")
    code = (
        "import sys, sparsity_report as sr\n"
        "study = sr.read_study(sys.argv[1])\n"
        "sr.write_thesis(study, sys.argv[2])\n"
        "sr.write_report(study, sys.argv[3])"
    )
    folder, again = tmp_path / "again", tmp_path / "again.pdf"
    arguments = [tmp_path / "study.json", folder, again]
    # Another folder: a source tree in the current one would hide the installed version.
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=tmp_path)
    assert again.read_bytes() == pdf.read_bytes()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        assert path.read_bytes() == (kit / path.relative_to(folder)).read_bytes(), path.name


@pytest.mark.tools
def test_kit_page_and_pdf_cite_by_the_same_entry(kit, pdf, study, tmp_path):
    entry = (kit / "sparsity-report.bib").read_text()
    assert bare(f"Study {study.fingerprint}; weights") in text_of(pdf)
    page = sr.write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.unescape(re.search(r'<pre class="cite"[^>]*>(.*?)</pre>', page, re.S)[1]) == entry
    weights = study.variants.loc[0, "fingerprint"]
    assert study.fingerprint != weights
    values = commands(kit)
    assert values["StudyFingerprint"] == study.fingerprint
    assert values["WeightsFingerprint"] == weights
    for text in (sr.__version__, study.fingerprint, weights):
        assert text in entry


def test_impossible_widths_and_places(study, tmp_path):
    for bad in (0, -1, float("nan"), 3.99, 100.5, 1000):
        with pytest.raises(sr.SparsityReportError, match="column_cm must be from 4 to 100"):
            sr.write_thesis(study, tmp_path / "x", column_cm=bad)
    with pytest.raises(sr.SparsityReportError, match=r"accepts column_cm, .*, not 'colum_cm'"):
        sr.write_thesis(study, tmp_path / "x", colum_cm=8)
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(sr.SparsityReportError, match="cannot write to the folder"):
        sr.write_thesis(study, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_templates_of_ones_own(demo, tmp_path):
    study = sr.compare(sr.dense(demo))
    templates = tmp_path / "mine" / "thesis"
    templates.mkdir(parents=True)
    (templates / "findings.tex.j2").write_text("<<models>>: <<findings | length>>_\n")
    sr.write_thesis(study, tmp_path / "kit", template_dir=tmp_path / "mine")
    findings = (tmp_path / "kit" / "findings.tex").read_text()
    assert findings == f"demo: {len(sr.summarize(study))}_\n"
    (templates / "findings.tex.j2").write_text("<<no_such>>")
    with pytest.raises(sr.SparsityReportError, match=r"no_such.*check template_dir"):
        sr.write_thesis(study, tmp_path / "kit", template_dir=tmp_path / "mine")
    assert (tmp_path / "kit" / "findings.tex").read_text() == findings


@given(st.text())
@example("[")
@example("±")
def test_no_text_is_a_command(text):
    """What is left after taking out our own commands has no special character."""
    known = (
        r"\\text[a-z]+\{\}|\\allowbreak\{\}|\\[$&#%_,]|\$(?:\\(?:le|rho|to|pm)|-)\$|(?<=[-,'!?])\{\}"
        r"|^\{\}(?=\s*[\[*])"
    )
    left = re.sub(known, "", tex(text))
    assert not set(left) & set("\\{}$&#%_^"), left
    assert all(" " <= c <= "\u017f" for c in left)


# As LaTeX's own utf8enc.dfu, t1enc.dfu and ts1enc.dfu declare them.
COMMANDS = {
    "–": "textendash", "…": "textellipsis", "‘": "textquoteleft", "’": "textquoteright",
    "“": "textquotedblleft", "”": "textquotedblright", "÷": "textdiv", "×": "texttimes",
    "·": "textperiodcentered", "²": "texttwosuperior", "³": "textthreesuperior", "<": "textless",
    ">": "textgreater", "|": "textbar", "^": "textasciicircum", "~": "textasciitilde",
    "\\": "textbackslash", "{": "textbraceleft", "}": "textbraceright",
    '"': "textquotedbl", "`": "textasciigrave",
}  # fmt: skip


def test_signs_are_written_as_latex_calls_them():
    for sign, command in COMMANDS.items():
        assert tex(f"a{sign}b") == f"a\\{command}{{}}b"
    for sign in "$&#%_":
        assert tex(f"a{sign}b") == f"a\\{sign}b"
    assert tex("|w| ≤ 1") == "\\textbar{}w\\textbar{} $\\le$ 1"


@pytest.mark.latex
def test_the_citation_resolves_in_a_document(kit, tmp_path):
    need(shutil.which("bibtex") is not None, "bibtex: see .ci/run for the packages")
    shutil.copy(kit / "sparsity-report.bib", tmp_path)
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\begin{document}Counted~\\cite{sparsity-report}."
        "\\bibliographystyle{plain}\\bibliography{sparsity-report}\\end{document}\n"
    )
    for command in ("pdflatex t", "bibtex t", "pdflatex t", "pdflatex t"):
        subprocess.run(command.split(), cwd=tmp_path, stdout=subprocess.DEVNULL, check=True)
    text = text_of(tmp_path / "t.pdf")
    assert text.startswith("Counted[1].")
    assert "Thesparsity-reportdevelopers" in text


@pytest.mark.latex
def test_every_letter_kept_is_known_to_latex(tmp_path):
    need(shutil.which("pdflatex") is not None, "pdflatex: see .ci/run for the packages")
    letters = "".join(map(chr, range(0x21, 0x2400)))
    lines = "\n\n".join(tex(c) for c in letters)
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{textcomp}"
        f"\\usepackage{{lmodern}}\\begin{{document}}\n{lines}\n\\end{{document}}\n",
        encoding="utf-8",
    )
    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-1000:]
    assert "Missing character" not in (tmp_path / "t.log").read_text(errors="replace")
    shown = text_of(tmp_path / "t.pdf")
    for c in '\\{}$&#%_^~<>|"`éßłŒ¿÷×·':
        assert c in shown, c


@pytest.mark.latex
def test_measurements_are_set_and_quoted(study, tmp_path):
    measured = put_in(study, latency=latency(), quality=quality(), sensitivity=sensitivity(12))
    sr.write_thesis(measured, tmp_path)
    for name in ("speed", "quality", "sensitivity"):
        assert (tmp_path / "figures" / f"{name}_column.pdf").is_file()
    rows = rows_of(tmp_path / "tables" / "results.tex")
    assert [number(cells[2]) for cells in rows] == [10.0, 12.5, None]
    crossings = rows_of(tmp_path / "tables" / "crossover.tex")
    assert [(row[1], "62" in row[-1], "never" in row[-1]) for row in crossings] == [
        ("1", True, False), ("128", False, True),
    ]  # fmt: skip
    assert r"0.40\,\texttimes{} (" in rows_of(tmp_path / "tables" / "results.tex")[2][-1]
    compiled(tmp_path)
    assert int(facts(tmp_path / "example.pdf")["Pages"]) <= 8
