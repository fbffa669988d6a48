"""A budget comes to a level, or is refused with what can be reached."""

import pytest
from measurements import put_in, quality

import sparsity_report as sr
from sparsity_report.study.levels.budget import budget_finding, read_budget


@pytest.fixture(scope="module")
def study(demo):
    masked = [sr.masked(sr.global_magnitude(demo, level)) for level in (0.3, 0.9)]
    return sr.compare(sr.dense(demo), *masked)


SIZES = (
    ("100 MB", ("bytes", 1e8, False)),
    ("≤ 1.5 GiB", ("bytes", 1.5 * 2**30, False)),
    ("12 Mo", ("bytes", 12e6, False)),
    ("0,5 × octets", ("bytes", 0.5, True)),
    ("0.5x FLOPs", ("flops", 0.5, True)),
    ("40 % FLOPs", ("flops", 0.4, True)),
    ("2 GFLOPs", ("flops", 2e9, False)),
    ("perplexity <= 15", ("perplexity", 15.0, False)),
    ("Perplexité ≤ 14,5", ("perplexity", 14.5, False)),
)


@pytest.mark.parametrize(("text", "budget"), SIZES, ids=[text for text, _ in SIZES])
def test_what_people_write_is_read(text, budget):
    assert read_budget(text) == budget


@pytest.mark.parametrize(
    "text", ["", "100", "MB", "-3 MB", "nan MB", "perplexity", "1e9 B", "9" * 99]
)
def test_what_is_no_budget_is_refused_in_one_line(text):
    with pytest.raises(sr.SparsityReportError, match="is not a budget; write one such as") as error:
        read_budget(text)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("budget", ["2 MB", "3000 kB", "0.8 × bytes", "0.5 × FLOPs"])
def test_the_level_is_the_first_whose_variant_fits(demo, study, budget):
    """Against CSR variants that are really pruned at the level, and at the one before."""
    solved = sr.level_within(study, budget)

    def cost(level):
        totals = sr.compare(sr.dense(demo), sr.csr(sr.global_magnitude(demo, level))).totals
        column = "stored_bytes" if solved.budget.kind == "bytes" else "flops_per_token"
        dense, sparse = totals[column]
        return sparse / dense if solved.budget.relative else sparse

    assert cost(solved.sparsity) == solved.value <= solved.budget.most
    assert cost(round(solved.sparsity - 0.01, 2)) > solved.budget.most
    assert f"{100 * solved.sparsity:g} %" in str(budget_finding(solved))


def test_a_model_that_fits_need_not_be_pruned(study):
    solved = sr.level_within(study, "1 GB")
    assert (solved.sparsity, solved.dense) == (0.0, True)
    assert budget_finding(solved).key == "budget.dense_within"


@pytest.mark.parametrize("budget", ["1 kB", "0.001 × FLOPs"])
def test_out_of_reach_says_what_is_in_reach(study, budget):
    with pytest.raises(sr.SparsityReportError, match=r"out of reach; .* at 99 %, and dense"):
        sr.level_within(study, budget)


# Measured at 0, 30 and 90 %: 10, 12.5 and 1,234.
MEASURED = (
    (10, 0.0, (0.3, 12.5)),
    (12, 0.0, (0.3, 12.5)),
    (12.5, 0.3, (0.9, 1234.0)),
    (15, 0.3, (0.9, 1234.0)),
    (5000, 0.9, None),
)


@pytest.mark.parametrize(("most", "level", "beyond"), MEASURED)
def test_perplexity_is_not_guessed_between_measured_levels(study, most, level, beyond):
    names = tuple(study.variants["variant"])
    scored = put_in(study, quality=quality(names=names))
    solved = sr.level_within(scored, f"perplexity ≤ {most}")
    assert solved.sparsity == level
    if beyond is None:
        assert solved.beyond is None
        assert budget_finding(solved).key == "budget.perplexity_highest_measured"
    else:
        assert solved.beyond == pytest.approx(beyond, abs=1e-5)
        assert budget_finding(solved).key == "budget.perplexity_next_measured"


def test_perplexity_that_was_not_measured_or_not_reached(study):
    names = tuple(study.variants["variant"])
    scored = put_in(study, quality=quality(names=names))
    with pytest.raises(sr.SparsityReportError, match=r"out of reach.* 10\.00 to 1,234\.00"):
        sr.level_within(scored, "perplexity 9")
    with pytest.raises(sr.SparsityReportError, match="measured at 0 levels"):
        sr.level_within(study, "perplexity 15")
    # Levels of another policy say nothing of this one.
    with pytest.raises(sr.SparsityReportError, match="measured at 1 level of this policy"):
        sr.level_within(scored, "perplexity 15", policy="layerwise_magnitude")


def test_a_worse_score_below_ends_what_is_safe(study):
    names = tuple(study.variants["variant"])
    scored = put_in(study, quality=quality(((0.0, 10.0), (0.3, 99.0), (0.9, 11.0)), names=names))
    assert sr.level_within(scored, "perplexity 12").sparsity == 0.0
