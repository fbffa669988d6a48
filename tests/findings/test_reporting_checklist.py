"""Pruning Report 1.0: every answer against the frames; nothing is answered without a fact."""

import json
import math
import re
import xml.etree.ElementTree as ET

import json_schema
import jsonschema
import measurements
import numpy as np
import pandas as pd
import pytest
import saved
import torch
from helpers import Tiny, study_of

import sparsity_report as sr

pytestmark = pytest.mark.slow(seconds=12)
OF_PRUNINGS = {
    "scope", "method", "training", "calibration", "seed", "baseline", "interval"
}  # fmt: skip


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return sr.load(Tiny(), name="tiny")


def states(study):
    return {item.key: item.state for item in sr.checklist(study).items}


def texts(study, key):
    item = next(item for item in sr.checklist(study).items if item.key == key)
    return [str(answer).replace("\u202f", " ") for answer in item.answers]


def test_a_model_as_it_is_answers_nothing_about_pruning(weights):
    found = states(sr.compare(sr.dense(weights)))
    assert {key for key, state in found.items() if state == "not applicable"} == OF_PRUNINGS
    assert {key for key, state in found.items() if state == "not stated"} == {"protocol", "clock"}


def test_counts_are_those_of_the_tensors(weights):
    study = study_of(weights, 0.5)
    row = study.totals.set_index("variant").loc["Masked50"]
    prunable = [p.total for p in weights.prunable]
    (text,) = texts(study, "denominator")
    outside, zeros = row["non_embedding_total"], row["total"] - row["nonzero"]
    assert row["prunable_total"] - row["prunable_nonzero"] == round(0.5 * sum(prunable))
    assert text == (
        f"Masked50: 50.0 % of {sum(prunable)} prunable weights, "
        f"{100 * (1 - row['non_embedding_nonzero'] / outside):.1f} % of {outside} non-embedding "
        f"parameters, {100 * zeros / row['total']:.1f} % of {row['total']} parameters"
    )  # CSR50 has the same zeros
    (text,) = texts(study, "scope")
    assert text == f"Masked50: {sum(prunable)} of {row['total']} parameters"
    assert texts(study, "method") == ["Masked50: global magnitude, target 50 %"]
    sizes = dict(zip(study.totals["variant"], study.totals["stored_bytes"], strict=True))
    for name, size in sizes.items():
        assert any(
            name in text and f"{size:,} bytes".replace(",", " ") in text
            for text in texts(study, "layout")
        )


def test_policies_state_seed_and_calibration_or_need_none(weights):
    calibrated = sr.load()
    prunings = [
        sr.masked(sr.random_unstructured(calibrated, 0.5, seed=7)),
        sr.masked(sr.wanda(calibrated, 0.5, sr.calibrate(calibrated, windows=2))),
        sr.masked(sr.n_m(calibrated, 2, 4)),
    ]
    study = sr.compare(*prunings)
    row = study.variants.dropna(subset="basis_windows").iloc[0]
    (text,) = texts(study, "calibration")
    assert text == (
        f"{row['variant']}: 2 windows of {row['basis_window']} tokens of {row['basis']} "
        f"(fingerprint {row['basis_fingerprint']})"
    )
    (text,) = texts(study, "seed")
    assert text.endswith(": 7")
    magnitude = states(study_of(weights, 0.5))
    assert magnitude["calibration"] == magnitude["seed"] == "not applicable"


def test_zeros_of_unknown_origin_state_nothing(weights):
    model = Tiny()
    sr.global_magnitude(sr.load(model), 0.5).apply_(model)
    opened = sr.load(model, name="pruned")
    for study in (
        sr.compare(sr.dense(opened)),
        sr.compare(sr.dense(opened), sr.masked(sr.existing_zeros(opened))),
        study_of(weights, 0.5).with_variants(sr.masked(sr.existing_zeros(opened), name="Old")),
    ):
        found = states(study)
        assert {found[key] for key in ("method", "training", "calibration", "seed")} == {
            "not stated"
        }
        assert found["denominator"] == "answered"
    masks = {p.name: np.ones(p.shape, bool) for p in weights.prunable}
    first = next(iter(masks))
    masks[first][0] = False
    study = sr.compare(sr.masked(sr.import_mask(masks=masks, weights=weights)))
    found = states(study)
    assert {found[key] for key in ("method", "calibration", "seed")} == {"not stated"}
    assert found["training"] == "answered"


def scores(**perplexities):
    frame = pd.concat([measurements.quality().head(1)] * len(perplexities), ignore_index=True)
    values = [*perplexities.values()]
    return frame.assign(
        variant=[*perplexities], perplexity=values, nll=[math.log(v) for v in values],
        layout=["dense" if name == "Dense" else "masked" for name in perplexities],
        method=None, sparsity=0.5, model="tiny", top1=0.3333333333333333,
    )  # fmt: skip


def test_scores_need_every_pruning_and_the_unpruned_model(weights):
    prunings = sr.global_magnitude(weights, 0.5), sr.n_m(weights, 1, 2)
    study = sr.compare(sr.dense(weights), *map(sr.masked, prunings))
    assert states(study)["protocol"] == "not stated"
    some = study.with_measured(quality=scores(Dense=8.0, Masked50=9.0))
    assert states(some)["protocol"] == states(some)["baseline"] == "not stated"
    alone = study.with_measured(quality=scores(**{"Masked50": 9.0, "Masked1:2": 10.0}))
    assert states(alone)["protocol"] == "answered"
    assert states(alone)["baseline"] == "not stated"
    full = study.with_measured(quality=scores(**{"Dense": 8.0, "Masked50": 9.0, "Masked1:2": 10.0}))
    assert texts(full, "baseline") == [
        "Masked50: perplexity 9.00 against 8.00 of Dense",
        "Masked1:2: perplexity 10.00 against 8.00 of Dense",
    ]
    assert "protocol sliding" in texts(full, "protocol")[0]
    assert states(full)["interval"] == "not stated"  # no losses by span


def test_tasks_need_harness_version_and_examples(weights):
    study = study_of(weights, 0.5)
    row = {"task": "boolq", "metric": "acc", "value": 0.5}
    frame = pd.DataFrame([row | {"variant": name} for name in ("Dense", "Masked50")])
    bare = study.with_measured(tasks=frame)
    assert states(bare)["protocol"] == states(bare)["interval"] == "not stated"
    about = {"harness": "lm-evaluation-harness", "harness_version": "0.4.9", "n_shot": 5}
    full = study.with_measured(tasks=frame.assign(**about, stderr=0.01))
    assert texts(full, "protocol") == [
        "lm-evaluation-harness 0.4.9, examples per prompt: 5, tasks: boolq"
    ]
    assert texts(full, "baseline") == ["Masked50: Dense has 1 score on the same tasks"]
    assert texts(full, "interval") == ["Masked50: standard errors of 1 task score"]
    other = frame.assign(**about, task=["rte", "boolq"])
    assert states(study.with_measured(tasks=other))["baseline"] == "not stated"


def test_intervals_and_a_clock_with_a_control():
    study = saved.study()
    rows = study.latency
    (text,) = texts(study, "clock")
    assert rows["machine"].iloc[0] in text
    low, high = rows["control_low"].min(), rows["control_high"].max()
    assert text.endswith(f"ratios from {low:.2f} × to {high:.2f} ×")
    assert f"at least {rows['runs'].min()} runs" in text
    untimed = study.with_measured(
        latency=rows.assign(control=None, control_low=np.nan, control_high=np.nan)
    )
    assert states(untimed)["clock"] == "not stated"


@pytest.mark.parametrize("language", ["en", "fr"])
def test_files(tmp_path, language):
    study = saved.study()
    report = sr.checklist(study)
    data = json.loads(sr.write_checklist(report, tmp_path / "c.json", link="s.json").read_text())
    schema = json.loads((json_schema.FOLDER / "checklist-1.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(data)
    assert [item["state"] for item in data["items"]] == [item.state for item in report.items]
    assert data["answered"] == sum(item["state"] == "answered" for item in data["items"])
    for change in (
        lambda d: d["items"].pop(),
        lambda d: d["items"].append(d["items"][0]),
        lambda d: d["items"][0].update(state="guessed"),
        lambda d: d["items"][0].update(answers=[]),
        lambda d: d["study"].update(digest="x"),
    ):
        damaged = json.loads(json.dumps(data))
        change(damaged)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema).validate(damaged)
    digest = json.loads(study.save(tmp_path / "s.json").read_text())["digest"]
    assert data["study"]["digest"] == digest
    text = sr.write_checklist(study, tmp_path / "c.md", link="s.json", language=language)
    assert f"{digest}](<s.json>)" in text.read_text(encoding="utf-8")
    badge = ET.fromstring(sr.write_checklist(study, tmp_path / "b.svg", link='"><a').read_text())
    assert digest in badge[0].text
    assert badge[1].get("href") == '"><a'
    assert badge.get("aria-label") == (
        f"pruning report 1.0: {report.answered} of {report.applicable} answered"
    )
    with pytest.raises(sr.SparsityReportError, match=r"is a file of \.md, \.json, \.svg; change"):
        sr.write_checklist(study, tmp_path / "c.txt")


def test_names_are_text_in_markdown_and_in_a_cell(tmp_path):
    study = sr.compare(sr.dense(sr.load(Tiny(), name="<b>|x](y)"), name="a|<i>"))
    text = sr.write_checklist(study, tmp_path / "c.md", link="a b>(c)\n").read_text()
    assert r"\<b\>\|x\](y)" in text
    assert r"a\|\<i\>" in text
    assert "](<a b%3E(c)%0A>)" in text
    cell = sr.checklist(study)._repr_mimebundle_()
    assert "<b>" not in cell["text/html"]
    assert "&lt;b&gt;" in cell["text/html"]
    assert cell["text/plain"] == repr(sr.checklist(study))
    assert "Timing conditions with a control: not stated" in cell["text/plain"]
    assert "Calibration text: not applicable" in cell["text/html"]
    assert re.match(r"Pruning Report 1.0: 3 of 5 questions answered\n", cell["text/plain"])


def test_every_question_is_explained_in_the_documentation():
    page = (json_schema.PAGE.parent / "checklist.md").read_text(encoding="utf-8")
    for item in sr.checklist(sr.compare(sr.dense(sr.load()))).items:
        assert f"| `{item.key}` | {item.question} |" in page
