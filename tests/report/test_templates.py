"""Examples and lists of docs/how-to/templates.md."""

import re
from pathlib import Path

import pytest
from jinja2 import Environment

from sparsity_report.report.study_sections import study_document
from sparsity_report.report.templates import environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "templates.md").read_text(encoding="utf-8")
STANDARD = Environment().filters
FENCE = r"```(?:\{code-block\} )?(\w+)\n(?::class: .*?\n)?(.*?)```"
BLOCKS = re.findall(FENCE, PAGE, re.S)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return a folder with the files of the page."""
    monkeypatch.chdir(tmp_path)
    for kind, text in BLOCKS:
        if kind == "jinja":
            path = Path(re.search(r"mine/\S+", text)[0])
        elif kind == "css":
            path = Path("mine/report.css")
            own = (ROOT / "templates" / "report.css").read_text(encoding="utf-8")
            text = own.replace(":root {", ":root {" + text.split("\n", 1)[1], 1)
        else:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "mine"


@pytest.mark.parametrize("number", range(sum(kind == "python" for kind, _ in BLOCKS)))
def test_python(mine, number):
    snippets = [text for kind, text in BLOCKS if kind == "python"]
    exec(compile(snippets[number], "docs/how-to/templates.md", "exec"), {})
    if "template_dir" in snippets[number]:
        report = (mine.parent / "report.html").read_text(encoding="utf-8")
        assert "CSR30</bdi> stores 5.11\u202fMB" in report
        assert "--accent: #7a0019" in report


def listed(head):
    """Return the names in the first column of a table of the page."""
    (rows,) = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    cells = (row.split("|")[1] for row in rows.splitlines())
    return {name for cell in cells for name in re.findall(r"`(\w+)[(`]", cell)}


def test_the_context_is_listed_whole(demo_study):
    assert listed("value") == {*study_document(demo_study, "page")}


def test_the_filters_are_listed_whole():
    filters = environment().filters
    shared = filters.items() & STANDARD.items()
    assert listed("filter") == set(filters) - {name for name, _ in shared}


def test_every_template_is_listed():
    for path in (ROOT / "templates").iterdir():
        assert f"`{path.name}" in PAGE, path.name
