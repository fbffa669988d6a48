"""The section on runtimes: every cell of the table, its source as text, and its date."""

import re

from papers import tables_of

import sparsity_report as sr
from sparsity_report.sparse.runtime_support import LOOKED_AT, RUNTIMES
from sparsity_report.words.sentences import say


def grid_of(page):
    caption = say("caption.runtimes", date=LOOKED_AT)
    (grid,) = [grid for title, grid in tables_of(page) if title.startswith(caption)]
    return grid


def test_each_cell_is_on_the_page_with_its_source(demo_study, tmp_path):
    page = sr.write_report(demo_study, tmp_path / "page.html")
    rows = [row for row in grid_of(page)[1:] if len(row) == 4]
    assert len(rows) == 2 * len(RUNTIMES)
    layouts = [layout for layout in ("zeros", "csr") for _ in RUNTIMES]
    for layout, key, row in zip(layouts, [*RUNTIMES] * 2, rows, strict=True):
        cell, runtime = RUNTIMES[key].cells[layout], RUNTIMES[key]
        notes = [say(f"runtime_note.{cell.note}")] if cell.note else []
        notes += [say("page.runtime_ended", date=runtime.ended)] if runtime.ended else []
        assert row[0] == runtime.name
        assert row[1] == (cell.version or "–")
        assert row[2] == say(f"runtime_verdict.{cell.verdict}")
        assert not notes or f"<small>{', '.join(notes)}</small>" in page.read_text("utf-8")
        assert row[3] == (cell.source or "–").removeprefix("https://")


def test_sources_are_no_links(demo_study, tmp_path):
    text = sr.write_report(demo_study, tmp_path / "page.html").read_text(encoding="utf-8")
    links = re.findall(r'href="([^"]*)"', text)
    assert not [link for link in links if re.match(r"(?i)https?:", link)]
    assert f"table of {LOOKED_AT}" in text


def test_a_study_without_zeros_has_no_such_section(tmp_path):
    page = sr.write_report(sr.compare(sr.dense(sr.load())), tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert 'id="runtimes"' not in text
    assert LOOKED_AT not in text
