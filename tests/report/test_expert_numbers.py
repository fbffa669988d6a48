"""Every number about experts on the page, in the kit and in the explorer, read back."""

import html
import math
import re

import experts
import pandas as pd
import pytest
from papers import bare, poppler, tables_of
from wording import of_key

import sparsity_report as sr
from sparsity_report.draw import heat_maps
from sparsity_report.findings.study_findings import study_findings, topics
from sparsity_report.report import study_maps
from sparsity_report.report.sections import Text
from sparsity_report.words.sentences import say

BLOCKS, COUNT = 3, 4


def share(value, digits=1):
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}\u202f%"


def times(value):
    return "–" if math.isnan(value) else f"{value:.2f}\u202f×"


@pytest.fixture(scope="module")
def study():
    weights = experts.mixture(BLOCKS, COUNT)
    study = sr.compare(sr.dense(weights), sr.dense(weights, name="Kept"), patterns=True)
    tables = [experts.table(name, BLOCKS, COUNT) for name in ("Dense", "Kept")]
    return study.with_measured(experts=pd.concat(tables, ignore_index=True))


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    sr.write_report(study, folder / "page.html")
    sr.write_report(study, folder / "report.pdf")
    sr.write_thesis(study, folder / "thesis")
    return folder


def relative(column):
    """Figures by expert and block: gate mass × experts ÷ the sum, saliency ÷ the known mean."""
    rows = experts.use(BLOCKS, COUNT)
    figures = {}
    for block, part in rows.groupby("block"):
        values = part[column].astype(float)
        mean = values.sum() / COUNT if column == "gate_mass" else values.mean()
        figures |= {
            (e, block): value / mean for e, value in zip(part["expert"], values, strict=True)
        }
    return figures


def grid(column):
    figures = relative(column)
    heads = [say("column.expert").capitalize(), *map(str, range(BLOCKS))]
    return [heads] + [
        [str(e), *(times(figures[e, block]) for block in range(BLOCKS))] for e in range(COUNT)
    ]


def test_tables_of_the_page(written):
    shown = dict(tables_of(written / "page.html"))
    for column, key in (("gate_mass", "expert_use"), ("saliency", "expert_saliency")):
        caption = say(f"caption.{key}", variant="Kept", removed=BLOCKS, experts=BLOCKS * COUNT)
        assert shown[caption] == grid(column)


@pytest.mark.tools
def test_maps_show_each_expert_and_cross_out_removed_ones(written):
    text = (written / "page.html").read_text(encoding="utf-8")
    titles = {
        bare(html.unescape(title)) for title in re.findall(r"<title>(.*?)</title>", text, re.S)
    }
    for column, key in (("gate_mass", "label.expert_use"), ("saliency", "label.expert_saliency")):
        for (expert, block), value in relative(column).items():
            parts = {
                "kind.block": block, "kind.expert": expert, key: times(value),
                "column.is_kept": say("format.no" if expert == 0 else "format.yes"),
            }  # fmt: skip
            title = "; ".join(f"{say(name)}: {part}" for name, part in parts.items())
            assert bare(title) in titles, title
    paper = bare(poppler("pdftotext", written / "report.pdf", "-raw"))
    assert bare(say("chart.expert_use_title")) in paper
    files = {path.stem for path in (written / "thesis" / "figures").glob("*.svg")}
    assert {"expert_use_kept_text", "expert_saliency_kept_column"} <= files


def drawn(study):
    """The charts and texts on the use of experts that a page shows."""
    blocks = study_maps.use_of_experts(study, "page")
    return [block for block in blocks if block is not None]


def test_a_model_without_experts_shows_nothing():
    study = sr.compare(sr.dense(sr.load()))
    assert (drawn(study), topics(study)["experts"]) == ([], [])


def test_too_many_experts_are_counted_instead(monkeypatch, study):
    maps = drawn(study)
    assert [block.kind for block in maps] == ["chart"] * 2
    for block, title in zip(maps, ("Gate mass by expert", "Saliency by expert"), strict=True):
        assert re.match(rf"{title} of \w+: {BLOCKS} blocks by {COUNT} experts, from ", block.alt)
    monkeypatch.setattr(heat_maps, "MOST_EXPERTS", BLOCKS * COUNT - 1)
    assert drawn(study) == [Text(say("map.too_many.experts", number=BLOCKS * COUNT))]


def test_unknown_use_has_no_map():
    """No gate mass is known, two modules share a block, or a model has no experts."""
    weights = experts.mixture(BLOCKS, COUNT)
    plain, use = sr.compare(sr.dense(weights)), experts.use(BLOCKS, COUNT)
    unknown = {"gate_mass": None, "saliency": None, "tokens": None, "output_norm": None}
    for frame in (use.assign(**unknown), use.assign(block=0), use.assign(block=None), use[:0]):
        study = plain.with_measured(experts=frame)
        assert all(chart.table.key != "expert_use" for chart in drawn(study))
        busiest = of_key(study_findings(study), "finding.busiest_expert")
        assert bool(busiest) == bool(frame["gate_mass"].notna().any())


def test_the_use_of_all_experts_names_no_variant_that_lacks_some():
    """The router was observed in the model that the variant was made from."""
    study = sr.compare(sr.dense(experts.mixture(BLOCKS, COUNT), name="Kept"))
    study = study.with_measured(experts=experts.table("Kept", BLOCKS, COUNT))
    (busiest,) = of_key(study_findings(study), "finding.busiest_expert")
    assert busiest.startswith(f"With all {COUNT} experts, expert ")
    assert "Kept" not in busiest
