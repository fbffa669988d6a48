"""The report is one file with every number in it, escaped, and nothing to fetch."""

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import study_of
from page_elements import Page
from torch import nn

import sparsity_report as sr
from sparsity_report.findings.study_findings import conventions
from sparsity_report.findings.verdict import verdict
from sparsity_report.report import page as report
from sparsity_report.report import study_sections

TEMPLATES = Path(__file__).parents[2] / "templates"


def model(names=("fc1", "fc2"), blocks=2):
    torch.manual_seed(0)
    block = lambda: nn.ModuleDict({name: nn.Linear(6, 8) for name in names})  # noqa: E731
    return nn.ModuleDict({"layers": nn.ModuleList(block() for _ in range(blocks))})


@pytest.fixture(scope="module")
def study():
    return study_of(sr.load(model(), name="two-blocks"))


@pytest.fixture(scope="module")
def text(study, tmp_path_factory):
    return written(study, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def written(study, folder, **options):
    return sr.write_report(study, folder / "report.html", **options).read_text(encoding="utf-8")


def test_the_heading_is_the_verdict_under_model_and_method(parsed, study):
    ((_, heading),) = parsed.all("h1", **{"class": "verdict"})
    assert heading.replace("\u202f", " ") == str(verdict(study))
    ((_, kicker),) = parsed.all("p", **{"class": "kicker"})
    total, weights = study.totals[["total", "prunable_total"]].iloc[0]
    level = f"global magnitude, 30 % of {weights} prunable weights"
    assert " ".join(kicker.split()) == f"two-blocks {total} parameters {level}"
    (_, title), *_ = parsed.all("title")
    assert title == "two-blocks: Dense, Masked30, CSR30"


def test_sections_stand_in_order_and_the_contents_lead_to_them(parsed):
    sections = [attrs.get("id") for attrs, _ in parsed.all("section")]
    assert sections == ["summary", "results", "storage", "method", "appendix"]
    folded = [attrs["id"] for attrs, _ in parsed.all("details", **{"class": "all"})]
    assert folded == ["runtimes", "totals", "model"]
    links = [a["href"] for a, _ in parsed.all("a") if a.get("class") != "anchor"]
    assert links == [f"#{key}" for key in sections[1:]]
    anchors = [a["href"] for a, _ in parsed.all("a", **{"class": "anchor"})]
    assert anchors == links[:-1]


def test_every_sentence_of_summarize_is_on_the_page_once(parsed, study):
    text = parsed.text.replace("\u202f", " ")
    for sentence in sr.summarize(study):
        assert text.count(sentence.replace("\u202f", " ")) == 1, sentence


def test_numbers_stay_with_their_units(text):
    """A line ends neither before a sign or unit nor inside a threshold."""
    kept = re.findall(r'<span class="unbroken">(.*?)</span>', text)
    threshold = report.environment().from_string("{{ 'takes |w| ≤ 0.02, so' | unbroken }}").render()
    assert threshold == 'takes <span class="unbroken">|w| ≤ 0.02</span>, so'
    prefix = report.environment().from_string("{{ 'uses 330 k of 2 kinds' | unbroken }}").render()
    assert prefix == 'uses <span class="unbroken">330\u202fk</span> of 2 kinds'
    for sign in "<>":
        share = report.environment().from_string("{{ said | unbroken }}").render(said=f"{sign} 9 %")
        assert re.fullmatch(r'<span class="unbroken">&[lg]t; 9\s%</span>', share)
    for unit in ("%", "[kM]?B", "[kM]?FLOPs"):
        assert any(re.fullmatch(rf"[\d.]+\s{unit}", quantity) for quantity in kept)


def test_conventions_are_those_of_the_study(parsed, study):
    ((_, section),) = parsed.all("section", id="method")
    for sentence in conventions(study):
        assert section.count(str(sentence)) == 1
    assert study.variants["fingerprint"].iloc[0] in section
    assert f"sparsity-report {sr.__version__}" in section


def test_tables_have_captions_and_scoped_heads(parsed):
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all(attrs.get("scope") in {"col", "row", "rowgroup"} for attrs, _ in parsed.all("th"))


def test_charts_have_a_picture_a_text_and_their_data(parsed):
    figures = parsed.all("figure")
    assert [attrs["id"] for attrs, _ in figures] == ["map1-figure", "curve-figure"]
    for attrs, _ in figures:
        assert attrs["role"] == "img"
        assert len(attrs["aria-label"]) > 40
    titles = [title for _, title in parsed.all("title")]
    assert "block: 1; projection: fc1; zeros: " in " ".join(titles)
    assert len(parsed.all("svg")) == 2


def test_pictures_do_not_share_names(parsed):
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)


def test_policy_allows_nothing_from_outside(parsed):
    (attrs, _), *_ = [p for p in parsed.all("meta") if "http-equiv" in p[0]]
    assert attrs["http-equiv"] == "Content-Security-Policy"
    assert attrs["content"] == (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:"
    )


def test_nothing_is_fetched(parsed, text):
    assert not parsed.all("link")
    assert not parsed.all("img")
    for _, attrs in parsed.elements:
        for name in ("src", "href", "data", "action", "srcset", "xlink:href", "poster"):
            assert attrs.get(name, "#").startswith("#")
    styles = "".join(text for _, text in parsed.all("style"))
    assert not re.findall(r"url\((?!data:font/woff2;base64,)", styles)
    assert "@import" not in styles
    assert not re.search(
        r"url\((?!#|data:font/)", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    )


def test_one_unpruned_variant(tmp_path):
    page = Page(written(sr.compare(sr.dense(sr.load(model()))), tmp_path))
    assert [attrs["id"] for attrs, _ in page.all("figure")] == ["curve-figure"]


def test_a_model_without_blocks_or_prunable_weights(tmp_path):
    weights = sr.load(nn.ModuleDict({"norm": nn.LayerNorm(4)}))
    page = Page(written(sr.compare(sr.dense(weights)), tmp_path))
    assert not page.all("figure")
    assert "no layout to choose" in page.text


def test_the_unknown_is_a_dash(study, tmp_path):
    layers = study.layers.copy()
    for column in ("nonzero", "weight_nonzero", "flops_per_token", "stored_bytes"):
        layers[column] = (
            layers[column].astype("Int64").mask(layers["module_name"].str[-3:] == "fc1")
        )
    layers["sparsity"] = layers["sparsity"].where(layers["nonzero"].notna())
    page = Page(written(dataclasses.replace(study, layers=layers), tmp_path))
    unknown = [text for _, text in page.all("tr") if text.startswith("nonzero")]
    # Of the prunable weights, the parameters besides embeddings, and the model, by variant.
    assert [text.count("–") for text in unknown] == [3, 3, 3]
    assert not {"nan", "<NA>", "None"} & set(page.text.split())


def test_notes_and_unclassified_modules_are_listed(study, tmp_path):
    layers = study.layers.copy()
    layers.loc[layers["module_name"] == "layers.0.fc1", "group"] = "other"
    told = dataclasses.replace(study, layers=layers, notes=("blocks are counted as floats",))
    page = Page(written(told, tmp_path))
    ((_, method),) = page.all("section", id="method")
    assert "Blocks are counted as floats." in method
    assert "layers.0.fc1" in method[method.index("no grouping rule") :]


@pytest.mark.parametrize("name", ["report.docx", "report", "report.html.gz"])
def test_other_formats_are_refused(study, tmp_path, name):
    with pytest.raises(sr.SparsityReportError, match=r"reports are \.html, \.pdf or \.md files"):
        sr.write_report(study, tmp_path / name)
    assert not list(tmp_path.iterdir())


class TestTemplates:
    def test_values_are_escaped_in_users_templates_too(self, tmp_path):
        (tmp_path / "report.html.j2").write_text("<html>{{ '<b>' }}{{ models }}</html>")
        weights = sr.load(model(), name="<i>a</i>")
        text = written(study_of(weights), tmp_path, template_dir=tmp_path)
        assert text == "<html>&lt;b&gt;&lt;i&gt;a&lt;/i&gt;</html>"

    @pytest.mark.parametrize(
        "template",
        ["{{ nothing }}", "{% if %}", "{{ totals | nope }}", "{{ 1 / 0 }}", "{{ totals + 1 }}",
         "{% include 'no_such.html.j2' %}", "{{ totals[0]['x']['y'] }}"],
    )  # fmt: skip
    def test_a_broken_template_is_one_line(self, study, tmp_path, template):
        path = tmp_path / "sections" / "storage.html.j2"
        path.parent.mkdir()
        path.write_text(f"<p>\n\n{template}\n</p>")
        with pytest.raises(sr.SparsityReportError, match="cannot render the report") as error:
            sr.write_report(study, tmp_path / "r.html", template_dir=tmp_path)
        assert "\n" not in str(error.value)
        assert f"cannot render the report: {path}, line 3: " in str(error.value)
        assert not (tmp_path / "r.html").exists()

    def test_a_missing_template_dir_is_refused(self, study, tmp_path):
        with pytest.raises(sr.SparsityReportError, match=r"mime is not a folder$"):
            sr.write_report(study, tmp_path / "r.html", template_dir=tmp_path / "mime")

    def test_a_folder_without_a_template_is_refused(self, study, tmp_path):
        (tmp_path / "section").mkdir()
        (tmp_path / "section" / "storage.html.j2").write_text("")
        with pytest.raises(sr.SparsityReportError, match=r"no template; .* report\.html\.j2$"):
            sr.write_report(study, tmp_path / "r.html", template_dir=tmp_path)
        assert not (tmp_path / "r.html").exists()

    def test_every_partial_is_used(self):
        templates = "".join(p.read_text(encoding="utf-8") for p in TEMPLATES.rglob("*.html.j2"))
        sections = Path(study_sections.__file__).parent
        named = "".join(path.read_text(encoding="utf-8") for path in sections.glob("*.py"))
        for partial in (TEMPLATES / "sections").iterdir():
            key = partial.name.split(".")[0]
            assert f'Partial("{key}"' in named.replace("(\n        ", "(") or (
                f'"sections/{partial.name}"' in templates
            )


@pytest.mark.parametrize(
    ("template", "shown"),
    [("{{ 1234567 | count }}", "1\u202f234\u202f567"), ("{{ 0.123456 | percent }}", "12.3\u202f%"),
     ("{{ 0.00001 | percent(2) }}", "<\u202f0.01\u202f%"),
     ("{{ 108160356 | scaled('B') }}", "108\u202fMB"), ("{{ 1.319 | times }}", "1.32\u202f×"),
     ("{{ unknown | count }} {{ unknown | percent }} {{ unknown | times }}", "– – –")],
)  # fmt: skip
def test_filters(template, shown):
    made = report.environment().from_string(template)
    for unknown in (None, pd.NA, float("nan")):
        assert made.render(unknown=unknown).replace("&lt;", "<") == shown
