"""Means and differences of continuations, against pandas and scipy."""

import itertools

import numpy as np
import pandas as pd
import pytest
from measurements import frame
from scipy import stats

import sparsity_report as sr


def texts(prompts, seeds=(None,), names=("Dense", "Masked30"), **cells):
    random = np.random.default_rng(0)
    rows = [
        {"variant": name, "prompt": f"p{place}", "continuation": "x", "seed": seed,
         "temperature": None if seed is None else 1.0, "token_limit": 9, "written": 9,
         "repeated": random.uniform(), "distinct": 0.5, "against": "Dense",
         "dense_nll": random.uniform(), **cells}
        for name, place, seed in itertools.product(names, range(prompts), seeds)
    ]  # fmt: skip
    return frame("continuations", rows)


@pytest.fixture(scope="module")
def study(demo):
    return sr.compare(sr.dense(demo), sr.masked(sr.global_magnitude(demo, 0.3)))


def figures(study, rows):
    writing = study.with_measured(continuations=rows).writing
    return writing.set_index(["figure", "variant"])


def test_means_are_over_prompts_and_differences_over_prompts_and_seeds(study):
    rows = texts(7, seeds=(0, 1, 2))
    row = figures(study, rows).loc[("repeated", "Masked30")]
    means = rows.groupby(["variant", "prompt"])["repeated"].mean()
    pruned, dense = means["Masked30"].to_numpy(), means["Dense"].to_numpy()
    one = stats.ttest_1samp(pruned, 0)
    assert row["mean"] == pytest.approx(pruned.mean())
    ends = one.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((max(ends.low, 0), min(ends.high, 1)))
    assert row["gap"] == pytest.approx((pruned - dense).mean())
    assert row["against_mean"] == pytest.approx(dense.mean())
    # Two figures differ, and Holm tests the one with the smaller p-value at half the level.
    tests = [
        stats.ttest_rel(*(rows[rows["variant"] == name].groupby("prompt")[figure].mean()
                          for name in ("Masked30", "Dense")))
        for figure in ("repeated", "dense_nll")
    ]  # fmt: skip
    is_smaller = tests[0].pvalue < tests[1].pvalue
    level = 0.975 if is_smaller or tests[1].pvalue >= 0.025 else 0.95
    ends = tests[0].confidence_interval(level)
    assert (row["gap_low"], row["gap_high"]) == pytest.approx((ends.low, ends.high))


def test_few_prompts_and_equal_prompts_have_no_interval(study):
    few = figures(study, texts(4)).loc[("repeated", "Masked30")]
    assert few[["prompts", "paired"]].tolist() == [4, 4]
    assert few[["low", "high", "gap_low", "gap_high"]].isna().all()
    alike = figures(study, texts(8)).loc[("written", "Masked30")]
    assert alike[["mean", "gap"]].tolist() == [9, 0]
    assert alike[["low", "high", "gap_low", "gap_high"]].isna().all()


def test_unknown_figures_are_left_out_of_both_sides(study):
    rows = texts(6)
    rows.loc[0, "repeated"] = None  # of Dense
    row = figures(study, rows).loc[("repeated", "Masked30")]
    assert row[["prompts", "paired"]].tolist() == [6, 5]
    assert row["against_mean"] == pytest.approx(rows["repeated"][1:6].mean())


def test_decodings_are_apart_and_other_limits_are_not_compared(study):
    greedy, longer = texts(6), texts(6, names=("Masked30",)).assign(token_limit=80)
    rows = pd.concat([greedy[greedy["variant"] == "Dense"], longer, texts(6, seeds=(0,))])
    frame = figures(study, rows).reset_index()
    assert len(frame.groupby(["temperature", "token_limit"], dropna=False)) == 3
    assert set(frame.loc[frame["token_limit"] == 80, "gap"].isna()) == {True}
    assert frame.loc[frame["temperature"].eq(1.0), "gap"].notna().any()


def test_likelihoods_by_another_judge_are_unknown(study):
    frame = figures(study, texts(6, against="Masked30"))
    assert np.isnan(frame.loc[("dense_nll", "Masked30"), "mean"])


def test_files_without_figures_read_as_unknown(study, tmp_path):
    import json

    path = study.with_measured(continuations=texts(1)).save(tmp_path / "s.json")
    saved = json.loads(path.read_text(encoding="utf-8"))
    table = saved["continuations"]
    table["columns"] = table["columns"][:3]
    table["rows"] = [row[:3] for row in table["rows"]]
    path.write_text(json.dumps(saved), encoding="utf-8")
    old = sr.read_study(path)
    assert old.continuations["written"].isna().all()
    assert old.writing["mean"].isna().all()
