"""Reports of zeros over training: numbers that follow from the weights that are set by hand."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch

import sparsity_report as sr
from sparsity_report.draw.charts import timeline_chart
from sparsity_report.draw.heat_maps import history_map
from sparsity_report.findings.first_screen import first_screen
from sparsity_report.report.study_sections import study_sections
from sparsity_report.study.derived.zero_losses import fate_shares, kept_by_place, module_losses
from sparsity_report.viewer.study_payload import study_contents

FC1, FC2 = "model.decoder.layers.1.fc1", "model.decoder.layers.3.fc2"
#: Half of 4 blocks of 4 matrices 128 × 128 and two 128 × 512.
PRUNED = 393_216


@pytest.fixture
def model():
    """Return the demo pruned to 2:4, so that each module has half of its weights pruned."""
    return sr.masked(sr.n_m(sr.load(), 2, 4)).module()


def revive(model, name, count):
    """Make the first zeros of a module nonzero."""
    weight = model.get_submodule(name).weight.data.view(-1)
    weight[(weight == 0).nonzero()[:count, 0]] = 0.5


def trained(model, log=None, every=1, steps=4, **events):
    """Track steps; an event ``s2=[(name, count)]`` revives zeros before that step is counted."""
    tracker = sr.track(model, every=every, log=log)
    for step in range(1, steps + 1):
        for name, count in events.get(f"s{step}", ()):
            revive(model, name, count)
        tracker.step()
    return tracker


def text(value):
    return str(value).replace("\u202f", " ")


def alone(study):
    return text(first_screen(study)["verdict"])


def test_verdict_of_zeros_that_survive(model):
    study = trained(model, steps=4).study()
    assert alone(study) == (
        "The zeros survived 4 steps: all 393 216 pruned weights are still zero. "
        "All groups of all modules still follow the 2:4 pattern."
    )
    assert timeline_chart(study)
    assert history_map(study) is None
    assert module_losses(study.history).empty
    assert [line.code for line in first_screen(study)["lines"]] == [
        "sparsity-report run BASE PRUNED --perplexity --latency"
    ]


def test_verdict_names_the_first_loss_and_the_pattern(model):
    # 1,966 of 393,216 are 0.5 %. In FC2 each pair of zeros is one group of 16,384, 983 are lost.
    tracker = trained(model, s3=[(FC2, 1966)])
    study = tracker.study()
    first = (
        f"Step 4: 0.5 % of the 393 216 pruned weights are nonzero again, first in {FC2} at step 3."
    )
    pattern = "Per module, 94.0 % to 100.0 % of the groups still follow the 2:4 pattern."
    assert alone(study) == f"{first} {pattern}"
    assert text(tracker).splitlines() == [first, pattern]
    (line,) = first_screen(study)["lines"]
    assert line.code == 'sr.track(pruned, mode="hold")'
    tiles = {
        text(t["title"]): (text(t["number"]), text(t["note"])) for t in first_screen(study)["strip"]
    }
    assert tiles == {
        "Zeros": ("50.0 % → 49.8 %", "of the prunable weights"),
        "Zeros revived": ("0.5 %", "1 966 of the 393 216 pruned weights"),
        "New zeros": ("0", "outside of the mask"),
        "Training steps": ("0 → 4", "5 records in this report"),
    }


def test_verdict_says_an_interval_and_the_number_of_modules(model):
    tracker = trained(model, every=2, s3=[(FC1, 5), (FC2, PRUNED)])
    assert alone(tracker.study()).startswith(
        "Step 4: 8.3 % of the 393 216 pruned weights are nonzero again, "
        f"first in {FC1} and 1 other module between steps 2 and 4."
    )


def test_verdict_rounds_neither_to_none_nor_to_all(model):
    tracker = trained(model, steps=1, s1=[(FC1, 3)])
    assert alone(tracker.study()).startswith("Step 1: 3 of the 393 216 pruned weights are nonzero")
    for name in tracker.study().matches["module_name"]:
        revive(model, name, PRUNED)
    weight = model.get_submodule(FC1).weight.data.view(-1)
    weight[(weight == 0.5).nonzero()[:2, 0]] = 0
    tracker.step()
    assert alone(tracker.study()).startswith("Step 2: all but 2 of the 393 216 pruned weights")


def test_verdict_and_advice_of_an_adapter(model):
    study = trained(model, steps=1).study()
    is_tuned = study.history["module_name"] == FC1
    filled = (study.history["zeros"] // 4).where(is_tuned)
    study = replace(study, history=study.history.assign(filled=filled))
    assert alone(study).endswith(
        " Merging the adapter would fill 25.0 % of the 32 768 zeros of its layers."
    )
    assert text(first_screen(study)["strip"][3]["number"]) == "25.0 %"
    assert first_screen(study)["lines"][0].code.startswith("sr.track(merged")


def test_verdict_of_zeros_that_came_back(model):
    tracker = trained(model, steps=1, s1=[(FC1, 9)])
    weight = model.get_submodule(FC1).weight.data
    weight[weight == 0.5] = 0
    tracker.step()
    again = "Step 2: all 393 216 pruned weights are zero again, after some were nonzero in"
    assert alone(tracker.study()).startswith(f"{again} {FC1} at step 1.")


def test_verdict_without_zeros():
    study = trained(sr.load().module(), steps=1).study()
    assert alone(study) == "Step 1: the mask prunes no weight, so there are no zeros to follow."
    assert timeline_chart(study) is None


def test_new_zeros_are_stated(model):
    tracker = sr.track(model, every=1)
    weight = model.get_submodule(FC1).weight.data.view(-1)
    weight[weight.nonzero()[:100, 0]] = 0
    tracker.step()
    study = tracker.study()
    assert "100 weights that the mask does not prune are zero." in study.sentences()
    groups = fate_shares(study.history, "step", "group").set_index(["step", "group"])
    assert groups.loc[(1, "mlp_linear"), "new"] == 100


def test_tables_by_group_block_and_module(model):
    study = trained(model, every=2, s1=[(FC1, 4096)], s4=[(FC2, 8192), (FC1, 4096)]).study()
    fates = fate_shares(study.history, "step", "group").set_index(["step", "group"])["kept_share"]
    # MLP: 8 modules of 32,768 pruned weights.
    assert fates.unstack()["mlp_linear"].tolist() == [1, 1 - 4096 / 262_144, 1 - 16_384 / 262_144]
    assert fates.unstack()["attention_linear"].tolist() == [1, 1, 1]
    losses = module_losses(study.history).set_index("module_name")
    assert losses["seen"].to_dict() == {FC1: 2, FC2: 4}
    assert losses["kept_share"].tolist() == [0.75, 0.75]
    places = kept_by_place(study.history, study.layers).pivot(
        index="step", columns="place", values="kept_share"
    )
    assert places["1.fc1"].tolist() == [1, 1 - 4096 / 32_768, 1 - 8192 / 32_768]
    assert places["0.fc1"].tolist() == [1, 1, 1]
    long = pd.concat([study.history.assign(step=step) for step in range(101)])
    blocks = kept_by_place(long, study.layers)
    # A block: 4 · 8,192 + 2 · 32,768 pruned weights, at the three steps.
    assert blocks.query("step == 7 and place == '1'")["pruned"].tolist() == [3 * 98_304]


def test_each_medium_shows_the_history(model, tmp_path):
    study = trained(model, tmp_path / "zeros.jsonl", s2=[(FC1, 4096)]).study()
    kinds = {
        medium: [getattr(block, "key", getattr(block, "file", block.kind)) for block in blocks]
        for medium in ("page", "paper", "kit", "markdown")
        for blocks in [study_sections(study, medium)[0].blocks]
    }
    assert kinds == {
        "page": ["history_map", "losses", "survival"],
        "paper": ["history_map", "losses", "survival"],
        "kit": ["timeline", "history_map", "losses", "survival"],
        "markdown": ["losses", "survival"],
    }
    page = sr.write_report(study, tmp_path / "r.html").read_text()
    markdown = sr.write_report(study, tmp_path / "r.md").read_text()
    for words in ("nonzero again", "after each step"):
        assert words in page
        assert words in markdown
    cell = study._repr_mimebundle_()["text/html"]
    assert FC1 in cell
    assert "<svg" in cell
    for gone in ("After", "both checkpoints", "Compared checkpoints", "share of the base", "/dev/"):
        assert gone not in markdown, gone
    history = pd.read_csv(next(p for p in sr.write_csv(study, tmp_path) if p.name == "history.csv"))
    assert history["revived"].sum() == 3 * 4096
    names = [path.name for path in sr.write_figures(study, tmp_path)]
    assert {"timeline.png", "history_map.png"} <= {*names}


def test_viewer_leaves_unknown_figures_out(model):
    contents = study_contents(trained(model, s1=[(FC1, 64)]).study())
    keys = [metric["key"] for metric in contents.header["metrics"]]
    assert keys == ["moved", "kept_share", "revived_share", "new_share", "iou"]
    labels = [label for label, *_ in contents.header["rows"]]
    assert "Zeros revived" in labels
    assert not [label for label in labels if "hange" in label]


def test_logs_are_studies_by_their_content(model, tmp_path):
    log = tmp_path / "any.json"
    tracker = trained(model, log, s2=[(FC1, 64)])
    assert sr.read_study(log).sentences() == tracker.study().sentences()
    assert sr.summarize(log) == tracker.study().sentences()
    with pytest.raises(sr.SparsityReportError, match="a log has no digest; read it without strict"):
        sr.read_study(log, strict=True)
    log.write_text(re.match(r".*\n.*\n", log.read_text())[0])
    with pytest.raises(sr.SparsityReportError, match="one step is recorded, and a history"):
        sr.read_study(log)


def test_long_histories_keep_both_ends_and_the_first_loss(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))
    model[0].weight.data.fill_(1)[0, 0] = 0
    log = tmp_path / "zeros.jsonl"
    sr.track(model, every=1, log=log)
    head, first = log.read_text().splitlines()
    record = json.loads(first)
    at = {name: record["columns"].index(name) for name in ("step", "kept", "revived")}
    lines = [head]
    for step in range(1001):
        row = list(record["rows"][0])
        row[at["step"]], lost = step, step >= 777
        row[at["kept"]], row[at["revived"]] = 1 - lost, int(lost)
        lines.append(json.dumps({**record, "rows": [row]}))
    log.write_text("\n".join(lines) + "\n")
    study = sr.read_study(log)
    steps = study.history["step"].unique().tolist()
    assert len(steps) <= 100
    assert {0, 776, 777, 1000} <= {*steps}
    assert alone(study).endswith("first in 0 at step 777.")
    assert f"the history has {len(steps)} of 1 001 records" in map(text, study.notes)


def test_a_history_without_steps_is_refused(model, tmp_path):
    data = trained(model, steps=1).study().to_json()
    data["history"]["rows"] = []
    (tmp_path / "study.json").write_text(json.dumps(data))
    with pytest.raises(sr.SparsityReportError, match="history: has no steps"):
        sr.read_study(tmp_path / "study.json")
