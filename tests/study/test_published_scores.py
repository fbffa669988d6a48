"""Published perplexities beside measured ones: arithmetic on made-up tables, and the demo."""

import re

import pandas as pd
import pytest

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.study import published_scores
from sparsity_report.study.published_scores import (
    PAPERS,
    PublishedScore,
    PublishedTable,
    compare_published,
)
from sparsity_report.study.schema import PROTOCOLS

TEXT = (DEMO / "eval.txt").read_text(encoding="utf-8")[:1200]
DENSE = ("Dense", "dense", 0, "10.00")
WANDA = ("Wanda", "wanda_one_pass", 0.5, "20.0")


def table(*rows, models=("owner/Demo",), protocol="wikitext2-max"):
    scores = tuple(PublishedScore(*row) for row in rows)
    return PublishedTable(
        "Paper", "0000.00000", models, protocol, "https://example.org", "Table 1", "2026-01-01",
        scores,
    )  # fmt: skip


@pytest.fixture
def measured(demo):
    """A function that returns rows of ``study.quality`` with given figures."""
    columns = sr.perplexity(sr.dense(demo), TEXT[:60])

    def rows(*figures, protocol="wikitext2-max"):
        each = [
            columns.assign(
                variant=f"V{n}", method=method, sparsity=sparsity, perplexity=perplexity,
                protocol=protocol,
            )
            for n, (method, sparsity, perplexity) in enumerate(figures)
        ]  # fmt: skip
        return pd.concat(each, ignore_index=True)

    return rows


def compared(published, quality, texts=None):
    return compare_published("demo", published, quality, texts or {})


@pytest.mark.parametrize(
    ("printed", "perplexity", "verdict"),
    [("10.00", 10.0, "yes"),
     # Half a unit of the last digit and 0.5 %: 0.005 + 0.05.
     ("10.00", 10.054, "yes"),
     ("10.00", 9.946, "yes"), ("10.00", 10.056, "no"), ("10.00", 9.944, "no"),
     # Fewer digits are wider: 0.05 + 0.05.
     ("10.0", 10.099, "yes"),
     ("10.0", 10.101, "no"), ("10", 10.549, "yes"), ("10", 10.551, "no")],
)  # fmt: skip
def test_dense_reproduces_within_rounding_and_half_a_percent(
    measured, printed, perplexity, verdict
):
    found = compared(table(("Dense", "dense", 0, printed)), measured((None, 0.0, perplexity)))
    (row,) = found.rows.to_dict("records")
    assert row["verdict"] == verdict
    assert row["difference"] == pytest.approx(perplexity / 10 - 1)


@pytest.mark.parametrize(
    ("perplexity", "verdict"),
    # 0.05 + 2.5 % of 20.
    [(20.0, "yes"), (20.549, "yes"), (19.451, "yes"), (20.551, "no"), (19.449, "no")],
)
def test_a_pruned_row_has_a_wider_tolerance(measured, perplexity, verdict):
    quality = measured((None, 0.0, 10.0), ("wanda_one_pass", 0.5, perplexity))
    found = compared(table(DENSE, WANDA), quality, {"V1": "c4.txt"})
    assert found.rows["verdict"].tolist() == ["yes", verdict]
    assert found.rows["calibration"].dropna().tolist() == ["c4.txt"]
    assert found.rows["tolerance"].tolist() == pytest.approx([0.0055, 0.0275])


def test_rows_abstain_unless_dense_reproduces(measured):
    pruned = ("wanda_one_pass", 0.5, 20.0)
    off = compared(table(DENSE, WANDA), measured((None, 0.0, 10.31), pruned))
    assert off.rows["verdict"].tolist() == ["no", "not comparable"]
    first, *others = off.sentences()
    assert first == (
        "The dense perplexity of demo does not reproduce: 10.31 measured by wikitext2-max, 10.00 "
        "published (+3.1 %). The pruned perplexities of Paper cannot be compared."
    )
    assert not re.search("reproduce", " ".join(others))
    missing = compared(table(DENSE, WANDA), measured(pruned))
    assert missing.rows["verdict"].tolist() == ["not measured", "not comparable"]
    # A checkpoint with zeros of its own is not the dense model.
    zeros = compared(table(DENSE, WANDA), measured((None, 0.5, 10.0), pruned))
    assert zeros.rows["verdict"].tolist() == ["not measured", "not comparable"]


def test_only_the_same_method_and_sparsity_is_compared(measured):
    quality = measured(
        (None, 0.0, 10.0), ("wanda_one_pass", 0.6, 20.0), ("wanda_one_pass, owl", 0.5, 20.0)
    )
    published = table(DENSE, WANDA, ("SparseGPT", None, 0.5, "20.0"), ("L2", None, None, "20.0"))
    found = compared(published, quality)
    assert found.rows["verdict"].tolist() == ["yes", *["not measured"] * 3]
    assert "Not measured: Wanda, SparseGPT and L2." in found.sentences()


def test_scores_on_two_number_types_do_not_mix(measured):
    """A dense score in float16 says nothing of a pruned one in float32."""
    quality = measured((None, 0.0, 10.0), ("wanda_one_pass", 0.5, 20.0))
    quality.loc[1, "dtype"] = "float16"
    assert compared(table(DENSE, WANDA), quality).rows["verdict"].tolist() == [
        "yes", "not measured",
    ]  # fmt: skip


def test_another_protocol_is_refused(measured):
    quality = measured((None, 0.0, 10.0), protocol="c4-256x2048")
    with pytest.raises(
        sr.SparsityReportError, match="scored by c4-256x2048, but Paper by wikitext2-max"
    ):
        compared(table(DENSE), quality)


def test_every_published_figure_has_a_source_and_a_known_protocol():
    for paper, tables in PAPERS.items():
        assert paper == paper.casefold()
        for each in tables:
            assert re.fullmatch(r"\d{4}\.\d{5}", each.arxiv)
            assert re.match(r"https://(github\.com|arxiv\.org)/", each.source)
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", each.looked_at)
            assert each.protocol in PROTOCOLS
            assert each.table
            assert each.models
            labels = [score.label for score in each.rows]
            assert len(set(labels)) == len(labels)
            dense, *pruned = each.rows
            assert (dense.policy, dense.sparsity) == ("dense", 0)
            for score in pruned:
                assert re.fullmatch(r"\d+\.\d\d", score.printed)
                assert float(score.printed) > float(dense.printed)
                assert score.policy is None or 0 < score.sparsity < 1
    names = [m.rpartition("/")[2] for t in PAPERS["wanda"] for m in t.models]
    assert len(set(names)) == len(names)


@pytest.fixture(scope="module")
def scored(demo):
    """A study of prunings of the demo, and their perplexities as published."""
    calibration = sr.calibrate(demo, windows=2)
    prunings = {
        "layerwise_magnitude": sr.layerwise_magnitude(demo, 0.5), "2:4": sr.n_m(demo, 2, 4),
        "wanda_one_pass": sr.wanda(demo, 0.5, calibration),
        "wanda_one_pass, 2:4": sr.wanda(demo, None, calibration, n_m=(2, 4)),
        "wanda_one_pass, owl": sr.wanda(demo, 0.5, calibration, allocation="owl"),
    }  # fmt: skip
    assert [p.method for p in prunings.values()] == [*prunings]
    variants = [sr.dense(demo), *(sr.masked(p, name=name) for name, p in prunings.items())]
    quality = sr.perplexity(variants, TEXT, protocol="wikitext2-max")
    rows = [
        (name, "dense" if n == 0 else name, 0.5 if n else 0, f"{perplexity:.2f}")
        for n, (name, perplexity) in enumerate(
            quality[["variant", "perplexity"]].itertuples(index=False)
        )
    ]
    return sr.compare(*variants).with_measured(quality=quality), rows


@pytest.fixture
def paper(monkeypatch, scored):
    """A study of the demo, and a paper about it."""
    study, rows = scored
    monkeypatch.setitem(PAPERS, "made-up", [table(*rows, ("SparseGPT", None, 0.5, "9.00"))])
    return study


def test_a_study_of_the_demo_reproduces_its_figures(paper):
    nameless = paper.with_measured(quality=paper.quality.assign(model=None))
    for each in (sr.reproduce(paper, "Made-up"), sr.reproduce(nameless, "made-up")):
        assert each.rows["verdict"].tolist() == [*["yes"] * 6, "not measured"]
        assert (each.rows["difference"].abs().dropna() < 0.0006).all()
        assert each.rows["calibration"].nunique() == 1
        assert str(each).startswith("The dense perplexity of demo reproduces: ")


def test_papers_and_models_that_are_not_in_the_table_are_named(paper, demo, monkeypatch):
    with pytest.raises(sr.SparsityReportError, match=r"use one of sparsegpt, wanda"):
        sr.reproduce(paper, "none")
    with pytest.raises(sr.SparsityReportError, match=r"^demo: .* of wanda, .*Llama-2-7b-hf"):
        sr.reproduce(paper, "wanda")
    monkeypatch.setitem(PAPERS, "made-up", [published_scores.PAPERS["made-up"][0]._replace(
        models=("owner/other",))])  # fmt: skip
    known = sr.reproduce(paper, "made-up", published_model="owner/other")
    assert known.rows["verdict"][0] == "yes"
    assert known.model == "demo"
    with pytest.raises(sr.SparsityReportError, match="the study has no perplexities"):
        sr.reproduce(sr.compare(sr.dense(demo)), "made-up")
