"""The report as PDF: the same sentences and numbers, vector drawings, and names that stay names."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace

import hostile
import pytest
import torch
import typst
from helpers import study_of
from papers import (
    bare,
    eight_variants,
    facts,
    fonts,
    images,
    largest_gaps,
    nine_prunings,
    poppler,
    text_of,
)
from torch import nn

import sparsity_report as sr
from sparsity_report.errors import legible, spelled
from sparsity_report.findings.study_findings import conventions
from sparsity_report.report.pdf import _in_font, typeset
from sparsity_report.report.sections import Section, Text
from sparsity_report.report.study_sections import study_document
from sparsity_report.report.tables.table_model import Body, table_of
from sparsity_report.report.templates import environment
from sparsity_report.study.schema import Column
from sparsity_report.words.value_formats import NAME

MM = 72 / 25.4


@pytest.fixture(scope="module")
def study(demo):
    return study_of(demo, patterns=True, context=64)


@pytest.fixture(scope="module")
def pdf(study, tmp_path_factory):
    return sr.write_report(study, tmp_path_factory.mktemp("pdf") / "report.pdf")


def within_margins(path, side=25):
    """Return words outside the page's margins of `side` mm; points and hyphens may hang."""
    tree = ET.fromstring(re.sub(r"[\x00-\x08\x0e-\x1f]", "", poppler("pdftotext", path, "-bbox")))
    outside = []
    for page in tree.iter("{http://www.w3.org/1999/xhtml}page"):
        width = float(page.get("width"))
        for word in page:
            left, right = float(word.get("xMin")), float(word.get("xMax"))
            if left < side * MM - 4 or right > width - side * MM + 4:
                outside.append((word.text, left, right))
    return outside


@pytest.mark.tools
def test_the_sentences_are_those_of_the_study(pdf, study):
    text = text_of(pdf)
    for sentence in [*sr.summarize(study), *map(str, conventions(study)), *study.audit]:
        assert bare(sentence) in text


@pytest.mark.tools
def test_fonts_are_embedded_and_nothing_is_a_raster(pdf):
    assert fonts(pdf)
    assert all(fonts(pdf).values())
    assert all("Libertinus" in name or "DejaVu" in name for name in fonts(pdf))
    assert images(pdf) == []
    # Words of the charts are text, not outlines.
    assert "Transformerblock" in text_of(pdf)


@pytest.mark.tools
def test_it_is_tagged_titled_and_undated(pdf):
    properties = facts(pdf)
    assert properties["Title"] == "Sparsity report: demo"
    assert properties["Tagged"] == "yes"
    assert "CreationDate" not in properties
    assert "A4" in properties["Page size"]
    assert b"pdfuaid:part" in pdf.read_bytes()
    texts = re.findall(rb"/Alt\s*(?:<FEFF([0-9A-F]+)>|\((.*?)\))", pdf.read_bytes())
    alts = [bytes.fromhex(h.decode()).decode("utf-16-be") if h else s.decode() for h, s in texts]
    assert len(alts) == 2  # the map and the curve
    maps = [alt for alt in map(bare, alts) if alt.startswith("Heatmapofprojectionsbyblock:")]
    assert maps[0].partition(":")[2].startswith("zerosrangefrom22.8%inq_projofblock0")
    assert re.search(r"^ +TH", poppler("pdfinfo", pdf, "-struct"), re.M)


def bookmarks(path):
    """Return the titles of the outline."""
    outline = poppler("pdftohtml", path, "-xml", "-i", "-stdout").partition("<outline>")[2]
    return re.findall(r"<item[^>]*>([^<]+)</item>", outline)


def chapters(study):
    """Return the numbered titles of a PDF: those of a page without its appendix, and runtimes."""
    main, appendix = (
        [one for one in study_document(study, "page")["sections"] if is_in(one)]
        for is_in in (lambda one: not one.is_appendix, lambda one: one.is_appendix)
    )
    assert appendix
    main.insert(-1, next(one for one in appendix if one.key == "runtimes"))
    return [f"{number} {one.title}" for number, one in enumerate(main, 1)]


@pytest.mark.tools
def test_bookmarks_lead_to_every_section(pdf, study):
    assert bookmarks(pdf) == chapters(study)


@pytest.mark.tools
@pytest.mark.parametrize(("sizes", "step"), [([7] * 8, 6), ([60], 1)])
def test_tables_break_between_bodies_and_never_at_one_row(study, tmp_path, sizes, step):
    """Wherever a long table starts on its page, rows and titles stay with their neighbors."""
    columns, breaks = [Column("n", format=NAME)], set()
    bodies = [
        Body(tuple(table_of("", "", columns, [{"n": f"body{b}row{r}"} for r in range(size)]).rows),
             f"title{b}" if len(sizes) > 1 else "")
        for b, size in enumerate(sizes)
    ]  # fmt: skip
    table = replace(table_of("t", "", columns, []), bodies=tuple(bodies))
    shown = study_document(study, "paper")
    path = tmp_path / "long.pdf"
    for lines in range(20, 44, step):
        shown["sections"] = [Section("long", "Long", (*map(Text, ["filled"] * lines), table))]
        path.write_bytes(typeset(environment(), shown))
        for page in poppler("pdftotext", path, "-layout").split("\f"):
            rows = [tuple(map(int, one)) for one in re.findall(r"body(\d+)row(\d+)", page)]
            assert not rows or re.search(r"^ *N$", page, re.M), "heads are repeated"
            titles = [int(one) for one in re.findall(r"title(\d+)", page)]
            assert not titles or titles[-1] == rows[-1][0], "a title alone at the foot"
            for body, count in Counter(body for body, _ in rows).items():
                assert count == sizes[body] if len(sizes) > 1 else count > 1
            breaks |= {rows[-1]} if rows else set()
    assert len(breaks) > 2


@pytest.mark.tools
def test_nine_prunings_fill_four_pages(demo, tmp_path):
    study = replace(nine_prunings(demo), tasks=None)
    gaps = [*largest_gaps(sr.write_report(study, tmp_path / "nine.pdf"))]
    assert len(gaps) <= 4
    assert max(gaps) < 1 / 3


@pytest.mark.tools
def test_eight_variants_stay_within_the_margins(demo, tmp_path):
    path = sr.write_report(eight_variants(demo), tmp_path / "eight.pdf")
    assert within_margins(path) == []
    # CSR variants have other sparsities than most prunings.
    assert "With50%of786kprunableweightszero,maskingsavesnospace" in text_of(path)
    assert fonts(path)


@pytest.mark.tools
def test_hostile_names_are_text(tmp_path):
    study = hostile.study(tmp_path)
    read = sr.read_study(hostile.edited(study, tmp_path / "study.json"))
    path = sr.write_report(read, tmp_path / "hostile.pdf")
    text = text_of(path)
    assert "root:" not in text
    # A text may go on on the next page, below the foot of one and the head of the other.
    between = rf"sparsity-report{re.escape(sr.__version__)}\d+/\d+.*?Sparsityreport"
    text = re.sub(between, "", text)
    keys = [key for key in hostile.TEXTS if key not in {"spaces", "long", "longest"}]
    for key in keys:
        shown = legible(hostile.TEXTS[key])
        # What the fonts lack is spelled out, too.
        assert bare("".join(c if _in_font(c) else spelled(c) for c in shown)) in text, key
    assert within_margins(path) == []
    assert images(path) == []


@pytest.mark.tools
def test_words_of_many_places_to_break_are_set(demo, tmp_path):
    """Typst fails on words that nest too many breaks; a word is cut after 200 letters."""
    words = "." * 3000, "x" * 100_000, "a_b." * 5000
    noted = replace(sr.compare(sr.dense(demo)), notes=words)
    text = text_of(sr.write_report(noted, tmp_path / "noted.pdf"))
    for word in words:
        assert word[1:200] in text


def test_every_character_kept_has_a_glyph():
    """PDF/UA refuses text that a font lacks; the look's own fonts are asked."""
    characters = "".join(
        c for c in map(chr, range(0x21, 0x3000)) if _in_font(c) and not c.isspace()
    )
    source = (
        '#set document(title: "x")\n'
        '#set text(font: ("Libertinus Serif", "DejaVu Sans Mono"))\n'
        "#for c in sys.inputs.kept [#c \\ ]"
    )
    compiler = typst.Compiler(ignore_system_fonts=True, sys_inputs={"kept": characters})
    assert compiler.compile(source.encode(), format="pdf", pdf_standards=["ua-1"])


@pytest.mark.tools
def test_templates_of_ones_own(demo, tmp_path):
    study = sr.compare(sr.dense(demo))
    (tmp_path / "typst").mkdir()
    part = tmp_path / "typst" / "method.typ.j2"
    part.write_text("My own words on #{{ models }}.")
    path = sr.write_report(study, tmp_path / "own.pdf", template_dir=tmp_path)
    assert "Myownwordsondemo." in text_of(path)
    before = path.read_bytes()
    for broken, message in (
        ("#let x = (", "unclosed delimiter"),
        ('#read("/etc/passwd")', "not found"),
        ("{{ no_such_value }}", "no_such_value"),
    ):
        part.write_text(broken)
        with pytest.raises(sr.SparsityReportError, match="check template_dir") as caught:
            sr.write_report(study, path, template_dir=tmp_path)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.tools
def test_a_study_of_little(tmp_path):
    """One variant, nothing prunable, nothing known."""
    bare_model = sr.load(nn.ModuleDict({"norm": nn.LayerNorm(4)}))
    with torch.device("meta"):
        unknown = sr.load(nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 3)])}))
    for number, weights in enumerate((bare_model, unknown)):
        study = sr.compare(sr.dense(weights))
        text = text_of(sr.write_report(study, tmp_path / f"{number}.pdf"))
        for sentence in sr.summarize(study):
            assert bare(sentence) in text


@pytest.mark.parametrize(
    ("names", "blocks"), [("fc1", 1), ("fc1 fc2", 3), ("q_proj k_proj v_proj o_proj", 40)]
)
def test_a_pair_of_one_group_is_set(tmp_path, names, blocks):
    torch.manual_seed(0)
    parts = [{n: nn.Linear(8, 8, bias=False) for n in names.split()} for _ in range(blocks)]
    model = nn.ModuleDict({"layers": nn.ModuleList(map(nn.ModuleDict, parts))})
    fewer = nn.ModuleDict({"layers": model["layers"][: max(1, blocks - 1)]})
    weights = sr.load(model, name="one")
    for after in (sr.global_magnitude(weights, 0.5), sr.load(fewer, name="fewer")):
        pair = sr.compare_checkpoints(weights, after)
        assert len(set(pair.changes["group"].dropna())) == 1
        assert sr.write_report(pair, tmp_path / "pair.pdf").read_bytes()[:5] == b"%PDF-"
