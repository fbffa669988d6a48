"""The report as Markdown: the page's figures and sentences, and no markup from names."""

import re

import mistune
from markdown_it import MarkdownIt
from papers import tables_of

import sparsity_report as sr
from sparsity_report.findings.study_findings import topics
from sparsity_report.findings.verdict import verdict

GFM = mistune.create_markdown(
    escape=False, plugins=["table", "url", "strikethrough", "footnotes", "task_lists", "math"]
)
COMMONMARK = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TAGS = {"h1", "h2", "h3", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "pre"}


def plain(text):
    return re.sub(r"\s+", " ", re.sub(r"[\u2009\u202f\u00a0]", " ", text)).strip()


def grids_of(html, folder):
    path = folder / "rendered.html"
    path.write_text(html, encoding="utf-8")
    return [grid for _, grid in tables_of(path)]


def check_markup(text, folder):
    """Only our own elements, and tables whose rows are as long as their heads."""
    html = GFM(text)
    body = re.sub(r"(?s)<pre>.*?</pre>", "", html)
    assert {*re.findall(r"<(\w+)", body)} - TAGS <= {"strong", "code"}
    assert "<a" not in html
    assert {*re.findall(r"<strong>", body)} <= {"<strong>"}
    tokens = [t for token in COMMONMARK.parse(text) for t in (token, *(token.children or ()))]
    kinds = {token.type for token in tokens}
    assert not kinds & {
        "html_block", "html_inline", "image", "link_open", "code_block", "hr",
        "ordered_list_open", "em_open", "s_open", "blockquote_open",
    }  # fmt: skip
    grids = grids_of(html, folder)
    assert grids
    assert all(len({*map(len, grid)}) == 1 for grid in grids)
    return grids


def test_it_has_the_cells_of_the_page(demo_study, tmp_path):
    text = sr.write_report(demo_study, tmp_path / "report.md").read_text(encoding="utf-8")
    page = tables_of(sr.write_report(demo_study, tmp_path / "page.html"))
    rows = {tuple(map(plain, row)) for grid in check_markup(text, tmp_path) for row in grid}
    assert len(page) == 7
    for caption, grid in page:
        for row in grid[1:]:
            cells = [*map(plain, row)]
            same = [other for other in rows if len(other) == len(cells)]
            shown = len(cells) == 1 or any(
                all(theirs.startswith(ours) for ours, theirs in zip(cells, other, strict=True))
                for other in same
            )
            assert shown, (caption, cells)


def test_it_has_the_verdict_and_the_sentences(demo_study, tmp_path):
    path = sr.write_report(demo_study, tmp_path / "report.md")
    text = plain(re.sub(r"<[^>]+>", "", GFM(path.read_text(encoding="utf-8"))))
    for sentence in (
        verdict(demo_study),
        *(f for each in topics(demo_study).values() for f in each),
    ):
        shown = plain(sentence).replace("&", "&amp;").replace("<", "&lt;")
        assert shown.replace(">", "&gt;").replace('"', "&quot;") in text


def test_pairs(tmp_path):
    weights = sr.load()
    pruned = sr.load(sr.masked(sr.global_magnitude(weights, 0.5)).module(), name="a|b")
    pair = sr.compare_checkpoints(weights, pruned)
    grids = check_markup(sr.write_report(pair, tmp_path / "pair.md").read_text("utf-8"), tmp_path)
    page = tables_of(sr.write_report(pair, tmp_path / "pair.html"))
    assert len(grids) >= len(page)
