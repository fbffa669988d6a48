"""Published figures: each number is in the words of its source, and each source can be found."""

import re

import pytest
from papers import tables_of

import sparsity_report as sr
from sparsity_report.findings.published_kernels import PUBLISHED
from sparsity_report.study.schema import LAYOUTS
from sparsity_report.words.sentences import say


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: f"{entry.kernel} {entry.speedup}")
def test_each_number_is_the_sources(entry):
    words = entry.words.replace("–", "-")
    numbers = re.findall(r"\d+\.\d+(?:-\d+\.\d+)?", entry.speedup.replace("–", "-"))
    assert all(number in words for number in numbers)
    assert bool(numbers) == bool(entry.speedup)
    if entry.crossover is not None:
        assert f"as low as {100 * entry.crossover:.0f}%" in words
    assert entry.layout in {*LAYOUTS, "csr"}
    assert re.search(r"arXiv:\d{4}\.\d{5}|doi:10\.|github\.com/\w", entry.source)


def test_the_report_says_that_none_of_it_was_measured(demo_study, tmp_path):
    path = sr.write_report(demo_study, tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    captions = [caption for caption, _ in tables_of(path)]
    assert sum(c.startswith(say("caption.published_kernels")) for c in captions) == 1
    (grid,) = [grid for _, grid in tables_of(path) if grid[0][0] == "Kernel"]
    assert len(grid) == 1 + len(PUBLISHED)
    for entry in PUBLISHED:
        assert entry.words in text
