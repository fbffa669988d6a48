"""Outcomes per document: read as harnesses log them, and compared as paired answers."""

import itertools
import json
import shutil
from pathlib import Path

import harnesses
import numpy as np
import pandas as pd
import pytest
import saved
from scipy import stats

import sparsity_report as sr
from sparsity_report.study import harness_results
from sparsity_report.study.derived.paired_tasks import interval, mcnemar, paired_tasks, winners

LOGGED = Path(harnesses.__file__).parent / "lm_eval_samples"
DATE = "2026-11-28T19-30-50.578090"
NEXT_LINE = f"samples_demo_next_line_{DATE}.jsonl"


def read(folder, variant="Dense"):
    return sr.read_lm_eval(folder, variant).set_index(["task", "metric", "filter"]).sort_index()


def lines(folder, name=NEXT_LINE):
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(LOGGED / "dense", tmp_path / "run")
    return tmp_path / "run"


def rewrite(folder, change, name=NEXT_LINE):
    text = "".join(json.dumps(change(row)) + "\n" for row in lines(folder, name))
    (folder / name).write_text(text, "utf-8")


def test_outcomes_of_a_real_run():
    frame = read(LOGGED / "dense")
    assert set(frame["harness_version"]) == {"0.4.13"}
    rows = sorted(lines(LOGGED / "dense"), key=lambda row: row["doc_hash"])
    assert len({row["doc_hash"] for row in rows}) == len(rows) == 18
    for metric in ("acc", "acc_norm"):
        packed = frame.loc[("demo_next_line", metric, "none")]
        expected = [row[metric] == 1 for row in rows]
        assert harness_results.unpack(packed["outcomes"]).tolist() == expected
        assert packed["value"] == pytest.approx(np.mean(expected))
    words = frame.loc[("demo_last_word", "exact_match", "first-word")]
    assert harness_results.unpack(words["outcomes"]).sum() == 4 * words["value"]


def test_a_results_file_finds_its_samples_and_a_folder_its_results(copy):
    (file,) = copy.glob("results_*.json")
    pd.testing.assert_frame_equal(read(file), read(copy))
    pd.testing.assert_frame_equal(read(file), read(copy.parent))
    shutil.copy(file, copy / "results_2026-11-29T00-00-00.0.json")
    with pytest.raises(sr.SparsityReportError, match=r"run: holds 2 results files, such as result"):
        read(copy)
    (copy / NEXT_LINE).unlink()
    assert read(file).loc["demo_next_line", "outcomes"].isna().all()
    (copy / "empty").mkdir()
    with pytest.raises(sr.SparsityReportError, match=r"holds no results_….json; give a folder"):
        read(copy / "empty")


def test_the_order_of_documents_does_not_matter(copy):
    rows = lines(copy)
    (copy / NEXT_LINE).write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]), "utf-8")
    pd.testing.assert_frame_equal(read(copy), read(LOGGED / "dense"))


def test_pairs_against_a_join_by_document():
    names = {"Dense": "dense", "Masked60": "pruned60"}
    tasks = pd.concat([sr.read_lm_eval(LOGGED / f, variant) for variant, f in names.items()])
    frame = paired_tasks(tasks, [("Masked60", "Dense")])
    (pruned,) = (LOGGED / "pruned60").glob("samples_demo_next_line_*")
    before = {row["doc_hash"]: row for row in lines(LOGGED / "dense")}
    after = {row["doc_hash"]: row for row in lines(LOGGED / "pruned60", pruned.name)}
    assert before.keys() == after.keys()
    for metric in ("acc", "acc_norm"):
        pairs = [(before[key][metric], after[key][metric]) for key in before]
        (row,) = frame[(frame["task"] == "demo_next_line") & (frame["metric"] == metric)].to_dict(
            "records"
        )
        assert (row["lost"], row["gained"]) == (pairs.count((1, 0)), pairs.count((0, 1)))
        assert row["documents"] == 18
        assert row["difference"] == pytest.approx(np.mean([b - a for a, b in pairs]))
    assert frame["obstacle"].isna().all()
    assert frame["lost"].sum() > 0


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 0), (1, 5), (40, 61), (700, 800)])
def test_mcnemar_is_scipys_binomial_test(lost, gained):
    expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_the_interval_is_that_of_a_paired_bootstrap():
    lost, gained, documents = 90, 60, 1000
    differences = np.repeat([-1, 1, 0], [lost, gained, documents - lost - gained])
    drawn = stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert interval(lost, gained, documents) == pytest.approx([*drawn], abs=0.0015)
    low, high = interval(0, 0, 100)
    assert low < 0 < high


@pytest.mark.parametrize(
    ("documents", "lost", "gained"),
    [(60, 0.2, 0.05), (300, 0.05, 0.02), (300, 0.3, 0.2), (1000, 0.05, 0.06), (1000, 0.1, 0)],
)
def test_coverage(documents, lost, gained):
    shares = [lost, gained, 1 - lost - gained]
    draws = np.random.default_rng(1).multinomial(documents, shares, size=3000)
    ends = [interval(int(one), int(other), documents) for one, other, _ in draws]
    assert 0.93 <= np.mean([low <= gained - lost <= high for low, high in ends]) <= 0.975


def made_up(answers, **cells):
    """Rows of tasks by variant and task, with fingerprints of the same documents."""
    rows = [
        {"variant": variant, "task": task, "metric": "acc", "filter": "none", "n_shot": 0,
         "value": np.mean(right), "outcomes": harness_results.pack(right), "harness": "h",
         "harness_version": "1", "task_version": "1",
         **{f"{part}_fingerprint": f"{part} of {task}"
            for part in ("documents", "targets", "prompts")}}
        for (variant, task), right in answers.items()
    ]  # fmt: skip
    for column, value in cells.items():
        rows[0][column] = value
    return pd.DataFrame(rows)


def test_tasks_are_pooled_by_document():
    one, other = [1] * 30 + [0] * 10, [1] * 10 + [0] * 50
    tasks = made_up({("A", "x"): one, ("A", "y"): other,
                     ("B", "x"): [0] * 12 + [1] * 28, ("B", "y"): [0] * 60})  # fmt: skip
    frame = paired_tasks(tasks, [("B", "A")])
    pooled = frame[frame["task"].isna()].to_dict("records")[0]
    assert frame["task"].tolist()[:2] == ["x", "y"]
    # Twelve and ten right answers are lost, ten of x are gained.
    assert (pooled["tasks"], pooled["documents"]) == (2, 100)
    assert (pooled["lost"], pooled["gained"]) == (22, 10)
    assert pooled["difference"] == pytest.approx(-0.12)
    ordered = sorted(frame["p"])
    assert sorted(frame["level"])[::-1][0] == pytest.approx(1 - 0.05 / 3)
    assert frame["separated"].tolist() == [p == ordered[0] and p < 0.05 / 3 for p in frame["p"]]


@pytest.mark.parametrize(
    "column",
    ["harness", "harness_version", "task_version", "documents_fingerprint", "targets_fingerprint",
     "prompts_fingerprint", "outcomes"],
)  # fmt: skip
def test_runs_that_differ_are_not_paired(column):
    value = None if column == "outcomes" else "other"
    tasks = made_up({("A", "x"): [1, 0], ("B", "x"): [1, 1]}, **{column: value})
    (row,) = paired_tasks(tasks, [("B", "A")]).to_dict("records")
    assert row["obstacle"] == column
    assert pd.isna(row["p"])
    assert pd.isna(row["separated"])


def test_a_winner_beats_every_other_one():
    right = {"A": [1] * 90 + [0] * 10, "B": [1] * 40 + [0] * 60, "C": [0] * 60 + [1] * 40}
    pairs = [*itertools.combinations(right, 2)]
    frame = paired_tasks(made_up({(v, "x"): r for v, r in right.items()}), pairs)
    shares = dict.fromkeys(right, 0.5)
    assert winners(frame, shares) == {("x", "acc", "none", 0): "A"}
    assert winners(frame, shares | {"B": 0.4}) == {("x", "acc", "none", 0): "A"}
    assert winners(frame, shares | {"B": 0.501}) == {}  # A has fewer zeros than B
    near = right | {"B": [1] * 89 + [0] * 11}
    frame = paired_tasks(made_up({(v, "x"): r for v, r in near.items()}), pairs)
    assert winners(frame, shares) == {}
    assert winners(frame, {"A": 0.5, "C": 0.5}) == {("x", "acc", "none", 0): "A"}


@pytest.mark.parametrize(
    "change", [{"acc": 0.5, "acc_norm": "1"}, {"acc": [1], "acc_norm": None}, {"prompt_hash": None}]
)
def test_samples_without_outcomes_or_hashes_are_unpaired(copy, change):
    rewrite(copy, lambda row: row | change)
    frame = read(copy)
    assert frame.loc["demo_next_line"][[*harness_results.PAIRING]].isna().all(axis=None)
    assert frame.loc["demo_last_word", "outcomes"].notna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda row: row | {"acc": 1.0}, "have another mean, so the samples are of another run"),
     (lambda row: [row], r"is not a file of samples: .* is not an object")],
)  # fmt: skip
def test_samples_that_are_damaged(copy, change, message):
    rewrite(copy, change)
    with pytest.raises(sr.SparsityReportError, match=message):
        read(copy)


def test_lines_of_samples_are_bounded(copy, monkeypatch):
    monkeypatch.setattr("sparsity_report.untrusted.limits.SAMPLE_BYTES", 100)
    with pytest.raises(sr.SparsityReportError, match="a line has more than 100 bytes"):
        read(copy)
    (copy / NEXT_LINE).write_text("{")
    with pytest.raises(sr.SparsityReportError, match=f"{NEXT_LINE}: is not a file of samples"):
        read(copy)


def test_outcomes_of_a_saved_study_that_cannot_be():
    study = saved.study()
    tasks = harnesses.padded(made_up({("Dense", "x"): [1, 0]}))
    assert study.with_measured(tasks=tasks).tasks["outcomes"].tolist() == ["2:gA=="]
    assert study.with_measured(tasks=tasks[:0]).tasks.empty
    for text in ("", "0:", "3:", "8:AAA=", "x:AA==", "9:AA==", "8:A", "-1:AA=="):
        with pytest.raises(sr.SparsityReportError, match="with_measured: "):
            study.with_measured(tasks=tasks.assign(outcomes=text))
    with pytest.raises(sr.SparsityReportError, match="outcomes: lack a fingerprint"):
        study.with_measured(tasks=tasks.assign(prompts_fingerprint=None))
    more = harnesses.padded(made_up({("Dense", "y"): [1, 0, 1]}, documents_fingerprint="of both"))
    both = pd.concat([tasks.assign(documents_fingerprint="of both"), more], ignore_index=True)
    with pytest.raises(sr.SparsityReportError, match="outcomes: are not as many as others"):
        study.with_measured(tasks=both)


def test_a_study_keeps_outcomes_in_little_room(tmp_path):
    study, n = saved.study(), 10_000
    right = np.random.default_rng(0).random(n) < 0.7
    tasks = harnesses.padded(made_up({("Dense", "x"): right.tolist()}))
    kept = study.with_measured(tasks=tasks)
    again = sr.read_study(kept.save(tmp_path / "s.json"), strict=True)
    assert harness_results.unpack(again.tasks["outcomes"][0]).tolist() == right.tolist()
    assert len(again.tasks["outcomes"][0]) < 1700
