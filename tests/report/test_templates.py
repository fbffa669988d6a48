"""Examples and lists of docs/how-to/templates.md."""

import json
import re
from pathlib import Path

import pytest
from helpers import study_of
from jinja2 import Environment
from wording import wording

import sparsity_report as sr
from sparsity_report.report.sections import Medium
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
        elif kind == "json":
            path = Path("mine/languages/de.json")
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


def test_a_language_of_ones_own(mine, demo_study):
    report = sr.write_report(demo_study, "r.html", template_dir=mine, language="de")
    text = report.read_text(encoding="utf-8")
    assert '<html lang="de">' in text
    assert "Bericht zur Dünnbesetztheit" in text
    assert wording("page.model_heading") in text
    assert "30,0\u00a0%" in text


def listed(head):
    """Return the names in the first column of a table of the page."""
    (rows,) = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    cells = (row.split("|")[1] for row in rows.splitlines())
    return {name for cell in cells for name in re.findall(r"`(\w+)[(`]", cell)}


def test_the_context_is_listed_whole(demo_study):
    assert listed("value") == {*study_document(demo_study, Medium("page"))}


def test_names_for_people():
    templates = environment(None)
    shared = templates.filters.items() & STANDARD.items()
    assert listed("filter") == set(templates.filters) - {name for name, _ in shared}
    text = templates.from_string(
        "{{ 'global_magnitude' | method }}, {{ 'attention_linear' | group }}"
    )
    assert text.render() == "global magnitude, attention"


def test_every_template_is_listed():
    for path in (ROOT / "templates").iterdir():
        assert f"`{path.name}" in PAGE, path.name


def numbers(text, thousands):
    """Every number on a page, however it is written."""
    body = re.sub(r"<(script|style|svg|pre).*?</\1>", "", text, flags=re.S)
    words = re.sub(r"<[^>]*>", " ", body)
    words = re.sub(rf"(?<=\d)[{thousands}](?=\d{{3}}(?!\d))", "", words)
    return re.findall(r"\d+(?:\.\d+)?", words.replace(",", "."))


def test_the_french_report_has_the_numbers_of_the_english_one(demo, tmp_path):
    study = study_of(demo, patterns=True, context=64)
    pages = [
        sr.write_report(study, tmp_path / f"{language}.html", language=language)
        for language in ("en", "fr")
    ]
    english, french = (page.read_text(encoding="utf-8") for page in pages)
    found = sorted(numbers(english, "\u202f"))
    assert len(found) > 500
    assert found == sorted(numbers(french, "\u202f"))
    own, other = (
        json.loads((ROOT / "templates" / "languages" / f"{code}.json").read_text(encoding="utf-8"))
        for code in ("en", "fr")
    )
    untranslated = [
        text
        for key, text in own["sentences"].items()
        if text != other["sentences"].get(key)
        and len(text) > 25
        and "{" not in text
        and text in french
    ]
    assert not untranslated
