"""Files of evaluation harnesses: read as they were written, or refused in one line."""

import hashlib
import json
import math

import harnesses
import pandas as pd
import pytest
import saved

import sparsity_report as sr


@pytest.fixture
def read(tmp_path):
    def of(told, variant="Dense"):
        return sr.read_lm_eval(harnesses.write(tmp_path / "results.json", told), variant)

    return of


def row(frame, task, metric, filter_name=None):
    found = frame[(frame["task"] == task) & (frame["metric"] == metric)]
    if filter_name is not None:
        found = found[found["filter"] == filter_name]
    (only,) = found.to_dict("records")
    return only


def test_scores_of_today(read):
    frame = read(harnesses.lm_eval())
    # Seven accuracies, one of them normalized too; two of lambada, two of gsm8k, two of mmlu.
    assert len(frame) == 7 + 1 + 2 + 2 + 2
    assert set(frame["variant"]) == {"Dense"}
    assert row(frame, "boolq", "acc") == {
        "variant": "Dense", "task": "boolq", "metric": "acc", "filter": "none", "value": 0.75,
        "stderr": 0.015625, "higher_is_better": True, "n_shot": 0, "samples": 1000,
        "limited": False, "task_version": "1.0", "evaluated_model": "some/model",
        "harness": "lm-evaluation-harness", "harness_version": "0.4.9",
        "results_file": "results.json",
        "results_fingerprint": hashlib.sha256(
            json.dumps(harnesses.lm_eval()).encode()).hexdigest()[:16],
        "documents_fingerprint": None, "targets_fingerprint": None, "prompts_fingerprint": None,
        "outcomes": None,
    }  # fmt: skip
    assert math.isnan(row(frame, "lambada_openai", "acc")["stderr"])
    assert row(frame, "lambada_openai", "perplexity")["higher_is_better"] is False
    assert row(frame, "gsm8k", "exact_match", "flexible-extract")["value"] == 0.1875
    assert row(frame, "gsm8k", "exact_match", "strict-match")["n_shot"] == 5
    mmlu = row(frame, "mmlu", "acc")
    assert (mmlu["task_version"], pd.isna(mmlu["samples"]), mmlu["limited"]) == ("2", True, False)


def test_scores_of_the_versions_before(read):
    frame = read(harnesses.old_lm_eval())
    assert len(frame) == 7 + 2
    boolq = row(frame, "boolq", "acc")
    assert (boolq["value"], boolq["stderr"], boolq["filter"]) == (0.75, 0.015625, None)
    assert (boolq["n_shot"], boolq["task_version"], boolq["limited"]) == (0, "0", False)
    assert (boolq["evaluated_model"], boolq["harness_version"]) == ("some/model", None)
    assert row(frame, "mc_taco", "f1")["value"] == 0.3125


def change(path, value):
    def changed(told):
        at = told
        for key in path[:-1]:
            at = at[key]
        if value is ...:
            del at[path[-1]]
        else:
            at[path[-1]] = value

    return changed


BOOLQ = ("results", "boolq")


@pytest.mark.parametrize(
    ("path", "value", "column", "due"),
    [((*BOOLQ, "acc,none"), float("nan"), "value", None),
     ((*BOOLQ, "acc,none"), "N/A", "value", None),
     ((*BOOLQ, "acc_stderr,none"), float("inf"), "stderr", None),
     ((*BOOLQ, "acc_stderr,none"), ..., "stderr", None), ((*BOOLQ, "acc,none"), 1, "value", 1.0),
     (("n-shot", "boolq"), 10, "n_shot", 10), (("n-shot",), ..., "n_shot", 0),
     (("n-samples", "boolq"), {"original": 3270, "effective": 100}, "limited", True),
     (("config", "limit"), 200.0, "limited", False),
     (("model_name",), ..., "evaluated_model", "some/model"),
     (("lm_eval_version",), ..., "harness_version", "38bd7350"),
     (("versions", "boolq"), "Yaml", "task_version", "Yaml"),
     (("higher_is_better",), ..., "higher_is_better", None)],
)  # fmt: skip
def test_fields_of_results_are_read(read, path, value, column, due):
    told = harnesses.lm_eval()
    change(path, value)(told)
    cell = row(read(told), "boolq", "acc")[column]
    assert cell == due or (due is None and pd.isna(cell))


@pytest.mark.parametrize(
    ("arguments", "due"),
    [("dtype=float16,pretrained=a/b", "a/b"), ("pretrained=a/b,peft=c/d", "c/d"),
     ({"pretrained": "a/b"}, "a/b"), ("", None), (None, None), (3, None)],
)  # fmt: skip
def test_the_model_that_arguments_name(read, arguments, due):
    told = harnesses.old_lm_eval()
    told["config"]["model_args"] = arguments
    assert set(read(told)["evaluated_model"]) == {due}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [((*BOOLQ, "acc,none"), 1.5, "row 0, value: is an accuracy that is not between 0 and 1"),
     ((*BOOLQ, "acc,none"), "0.75", "boolq, acc,none: '0.75' is not a number"),
     ((*BOOLQ, "acc,none"), True, "boolq, acc,none: True is not a number"),
     ((*BOOLQ, "acc,none"), [0.75], "is not a number"),
     ((*BOOLQ, "acc_stderr,none"), -0.5, "stderr: is less than 0"),
     ((*BOOLQ, "acc_stderr,none"), "small", "acc,none, stderr: 'small' is not a number"),
     ((*BOOLQ, "acc,none"), ..., "boolq has acc_stderr,none without its score"),
     (BOOLQ, 0.75, "boolq is 0.75, not an object"),
     (("results",), [], r"results is \[\], not an object"),
     (("results", ""), {"acc,none": 0.5}, "task: has no name"),
     (("results", "x" * 5000), {"acc,none": 0.5}, "name of 5,000 characters"),
     (("groups", "mmlu", "acc,none"), 0.75, "mmlu has other scores as a group"),
     (("n-shot", "boolq"), -1, "n-shot is -1, not a whole number"),
     (("n-shot", "boolq"), 2**80, "n-shot is 1208"),
     (("n-samples", "boolq", "effective"), 0, "n-samples is 0"),
     (("versions", "boolq"), [], r"versions: \[\] is not a version"),
     (("config",), 3, "config is 3, not an object")],
)  # fmt: skip
def test_impossible_results_are_refused(read, path, value, message):
    told = harnesses.lm_eval()
    change(path, value)(told)
    with pytest.raises(sr.SparsityReportError, match=message) as caught:
        read(told)
    assert "results.json: is not a results file of lm-evaluation-harness" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "Expecting value"), ('{"config": {}, "results": {}}', "it holds no scores"),
     ("[]", r"it is \[\], not an object"),
     ('{"results": {"a": {"acc": 0.5}}}', "neither config nor versions"),
     ('{"config": {}, "results": {"a": {"acc": 1, "acc": 0}}}', "has a name twice"),
     ('{"config": {}, "results": {"a": {"acc": ' + "9" * 5000 + "}}}", "of 5,000 digits"),
     ('{"config": ' + '{"a":' * 80 + "1" + "}" * 80 + ', "results": {}}', "nested more than 64"),
     ('{"config": {}, "results": {"a\\ud800": {"acc": 0.5}}}', "not Unicode")],
)  # fmt: skip
def test_no_results_at_all(tmp_path, text, message):
    file = tmp_path / "r.json"
    file.write_text(text)
    with pytest.raises(sr.SparsityReportError, match=message):
        sr.read_lm_eval(file)
    with pytest.raises(sr.SparsityReportError, match="cannot read"):
        sr.read_lm_eval(tmp_path / "none.json")


@pytest.fixture(scope="module")
def study():
    return saved.study()


def test_scores_are_part_of_the_study(read, study, tmp_path):
    frames = [read(harnesses.lm_eval()), read(harnesses.old_lm_eval(), "Masked30")]
    kept = study.with_measured(tasks=pd.concat(frames))
    again = sr.read_study(kept.save(tmp_path / "s.json"), strict=True)
    pd.testing.assert_frame_equal(again.tasks, kept.tasks)
    assert len(kept.tasks) == 14 + 9
    (csv,) = (path for path in sr.write_csv(kept, tmp_path / "csv") if path.name == "tasks.csv")
    assert pd.read_csv(csv)["value"].tolist() == kept.tasks["value"].tolist()


def test_any_tidy_frame_will_do(study):
    plain = pd.DataFrame(
        {"task": "my task", "variant": ["Dense", "CSR30"], "metric": "points", "value": [3, 2]}
    )
    tasks = study.with_measured(tasks=plain).tasks
    assert tasks[["variant", "task", "metric", "value"]].to_numpy().tolist() == [
        ["Dense", "my task", "points", 3.0], ["CSR30", "my task", "points", 2.0],
    ]  # fmt: skip
    assert tasks.drop(columns=["variant", "task", "metric", "value"]).isna().all(axis=None)


@pytest.mark.parametrize(
    ("cells", "message"),
    [({"variant": "Wanda50"}, "with_measured: tasks, row 0, variant: is not among the variants"),
     ({"variant": None}, "variant: is missing"),
     ({"value": 1.5, "metric": "acc"}, "an accuracy that is not between 0 and 1"),
     ({"stderr": -1.0}, "stderr: is less than 0"), ({"n_shot": 0.5}, "n_shot"),
     ({"value": "high"}, "value")],
)  # fmt: skip
def test_frames_of_tasks_that_cannot_be(study, cells, message):
    plain = {"variant": "Dense", "task": "x", "metric": "points", "value": 3.0} | cells
    with pytest.raises(sr.SparsityReportError, match=message):
        study.with_measured(tasks=pd.DataFrame([plain]))
    with pytest.raises(sr.SparsityReportError, match="columns variant, task, metric"):
        study.with_measured(tasks=pd.DataFrame([plain]).drop(columns="metric"))


def test_one_score_has_one_value(study, read):
    frame = read(harnesses.lm_eval())
    with pytest.raises(sr.SparsityReportError, match="row 14, task: occurs twice"):
        study.with_measured(tasks=pd.concat([frame, frame.assign(value=0.5)]))


@pytest.mark.parametrize(
    ("part", "cells", "message"),
    [("latency", {"seconds": 9.0}, "seconds: is more than seconds_high"),
     ("quality", {"scored": 10**6}, "scored: is more than tokens"),
     ("sensitivity", {"pruned": 10**6}, "pruned: is more than weight_total")],
)  # fmt: skip
def test_impossible_numbers_are_refused_when_they_are_put_in(study, part, cells, message):
    frame = getattr(study, part).head(1).assign(**cells)
    with pytest.raises(sr.SparsityReportError, match=message) as caught:
        study.with_measured(**{part: frame})
    assert str(caught.value).startswith(f"with_measured: {part}, row 0, ")


@pytest.mark.parametrize("part", ["latency", "quality", "sensitivity"])
def test_frames_that_were_cut_by_hand_go_in(study, part):
    frame = getattr(study, part)
    cut = frame[frame.index != 1]
    assert len(getattr(study.with_measured(**{part: cut}), part)) == len(frame) - 1
    assert getattr(study.with_measured(**{part: frame.head(0)}), part).empty
