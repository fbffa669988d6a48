"""The last hop of what was measured, expected, opened and changed: tables read back from the page.

The numbers measured are made up in ``measurements.py``, so what a cell has to show is written out.
"""

import html
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers import study_of
from measurements import latency, put_in, quality, sensitivity, seven, tasks
from papers import bare, head, tables_of
from wording import rule_of
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.report.tables.task_tables import zero_shot
from sparsity_report.study.derived.paired_tasks import interval
from sparsity_report.study.derived.zero_shot import seven_tasks
from sparsity_report.study.harness_results import pack
from sparsity_report.words.sentences import say

THIN = "\u202f"


def table(path, head):
    """The table of a page with a head like this; cells as a person reads them."""
    grid, *others = [grid for _, grid in tables_of(path) if grid[0][: len(head)] == head]
    assert not others
    return [[cell.replace(THIN, " ") for cell in row] for row in grid]


@pytest.fixture(scope="module")
def study(demo):
    # Each column has numbers of its own, so that none can stand for another.
    parts = sensitivity(3).assign(top1_drop=[0.0, 0.01, 0.02], global_sparsity=0.4)
    return put_in(
        study_of(demo, patterns=True, context=64), latency=latency(), quality=quality(),
        sensitivity=parts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    return sr.write_report(study, tmp_path_factory.mktemp("page") / "page.html")


def test_speed(page):
    grid = table(page, ["Variant", head("column.item")])
    assert grid[0] == [
        "Variant", head("column.item"), "Weights", "Tokens", "Median", "Quartiles", "Promised",
        head("column.realised"),
        "Control", "Kernel",
    ]  # fmt: skip
    for tokens, rows in (("1", grid[1:7]), ("128", grid[7:])):
        for place, (variant, median, span, promised, realised) in enumerate(
            (
                ("Dense", "2.00 s", "1.90–2.20 s", "1.00 ×", "–"),
                ("Masked30", "2.04 s", "1.94–2.24 s", "1.00 ×", "(0.93–1.03 ×)"),
                ("CSR30", "5.00 s", "4.75–5.50 s", "1.25 ×", "0.40 × (0.38–0.42)"),
            )
        ):
            for row, what, weights in zip(
                rows[2 * place :], ("8 × 4", "whole forward"), ("from memory", "–"), strict=False
            ):
                assert row == [
                    variant, what, weights, tokens, median, span, promised, realised,
                    "0.93–1.04 ×", "–",
                ]  # fmt: skip


def test_a_reason_replaces_a_time_that_is_not_reported(study, tmp_path):
    busy = put_in(study, latency=latency().assign(others=2.21))
    grid = table(sr.write_report(busy, tmp_path / "page.html"), ["Variant", head("column.item")])
    for row in grid[1:]:
        assert row[4:6] == [say("speed_reason.crowded"), "–"]
        assert row[7] == row[9] == "–"


def test_every_sentence_is_on_the_page(study, page):
    text = re.sub("<wbr>|</?bdi>|</?span[^>]*>", "", page.read_text(encoding="utf-8"))
    sentences = sr.summarize(study)
    assert len(sentences) > 8
    for sentence in sentences:
        assert bare(sentence) in bare(html.unescape(text)), sentence


def test_crossover(page):
    assert table(page, ["Shape"]) == [
        ["Shape", "Tokens", "Weights", "Sparsity"],
        ["8 × 4", "1", "from memory", "62 % (58–67 %)"],
        ["8 × 4", "128", "from memory", "never"],
    ]


def test_quality(page):
    assert table(page, ["Variant", head("column.sparsity"), "Perplexity"]) == [
        ["Variant", head("column.sparsity"), "Perplexity", head("column.top1"), head("column.kl"),
         head("column.agreement"), "Flips"],
        ["Dense", "0.0 %", "10.00", "25.0 %", "–", "–", "0.00 %"],
        ["Masked30", "30.0 %", "12.50", "25.0 %", "0.125", "66.67 %", "11.11 %"],
        # Of 1,024 tokens.
        ["M90", "90.0 %", "worse than uniform guessing", "25.0 %", "0.250", "33.33 %", "22.22 %"],
    ]  # fmt: skip
    assert (
        "Perplexity and next-token accuracy: protocol sliding on some.txt, "
        "99 of 100 tokens scored in windows of 64 tokens with stride 32, in float32."
    ) in page.read_text(encoding="utf-8")


def test_sensitivity(page):
    assert table(page, ["Part"]) == [
        ["Part", "Weights", head("column.sparsity"), "Perplexity", head("column.nll_increase"),
         head("column.top1_drop"), head("column.global_sparsity")],
        ["block 0", "10", "50.0 %", "9.00", "+0.0900", "0.0", "40.0 %"],
        ["block 1", "10", "50.0 %", "9.00", "+0.0400", "+1.0", "40.0 %"],
        ["block 2", "10", "50.0 %", "9.00", "+0.0233", "+2.0", "40.0 %"],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scored(study):
    """The seven tasks of one variant, six of another, and what is no part of that table."""
    dense, masked = seven("Dense", "org/demo", 0.0), seven("Masked30", None, 0.03125)
    others = pd.concat(
        [dense.head(1).assign(metric="acc_norm", value=0.5, stderr=0.0078125),
         dense.head(1).assign(n_shot=5, stderr=float("nan")),
         masked.head(1).assign(n_shot=5, value=0.25),
         dense.head(1).assign(task="mmlu", limited=True, value=float("nan"))]
    )  # fmt: skip
    rows = pd.concat([dense, masked.head(6), others])
    return replace(study, quality=None, latency=None, sensitivity=None).with_measured(tasks=rows)


SHOWN = [
    ["Variant", "BoolQ", "RTE", "HellaSwag", "WinoGrande", "ARC-e", "ARC-c", "OBQA", "Mean"],
    ["Dense", "75.00 ± 1.56", "62.50 ± 1.56", "50.00 ± 1.56", "68.75 ± 1.56", "71.88 ± 1.56",
     # (75 + 62.5 + 50 + 68.75 + 71.875 + 37.5 + 31.25) ÷ 7; 1.5625 · √7 ÷ 7
     "37.50 ± 1.56", "31.25 ± 1.56", "56.70 ± 0.59"],
    ["Masked30", "71.88 ± 1.95", "59.38 ± 1.95", "46.88 ± 1.95", "65.62 ± 1.95",
     "68.75 ± 1.95", "34.38 ± 1.95", "–", "–"],
]  # fmt: skip


def test_seven_tasks_and_other_scores(scored, tmp_path):
    path = sr.write_report(scored, tmp_path / "page.html")
    assert table(path, ["Variant", "BoolQ"]) == SHOWN
    assert table(path, ["Task"]) == [
        ["Task", "Dense", "Masked30"], ["boolq, acc_norm, 0-shot", "0.5000 ± 0.0078", "–"],
        ["boolq, acc, 5-shot", "0.7500", "0.2500 ± 0.0195"], ["mmlu, acc, 0-shot", "–", "–"],
    ]  # fmt: skip
    assert path.read_text(encoding="utf-8").count(f"<small>{say('column.partial_run')}<") == 1
    assert table(path, ["Variant", "Model in the file"])[1:] == [
        ["Dense", "org/demo", "lm-evaluation-harness", "0.4.9", "Dense.json", "0123456789abcdef",
         "10"],
        ["Masked30", "–", "lm-evaluation-harness", "0.4.9", "Masked30.json", "0123456789abcdef",
         "7"],
    ]  # fmt: skip


def test_different_versions_of_a_task_are_named(scored):
    alike = scored.tasks.assign(task_version="1.0")
    newer = (alike["task"] == "rte") & (alike["variant"] == "Dense")
    other = alike.assign(task_version=alike["task_version"].mask(newer, "2.0"))
    note = say("table_note.task_versions_differ", tasks=["RTE"])
    for frame, is_named in ((alike, False), (other, True)):
        assert (note in zero_shot(scored.with_measured(tasks=frame)).note) is is_named


def test_paired_differences(study, tmp_path):
    right = {"Dense": range(60), "Masked30": range(30, 62)}
    rows = tasks(variants=[*right]).query("task == 'boolq'").assign(
        value=[len(places) / 100 for places in right.values()],
        outcomes=[pack([n in places for n in range(100)]) for places in right.values()],
        **{f"{part}_fingerprint": part for part in ("documents", "targets", "prompts")},
    )  # fmt: skip
    path = sr.write_report(study.with_measured(tasks=rows), tmp_path / "page.html")
    (grid,) = (grid for _, grid in tables_of(path) if head("column.lost") in grid[0])
    # Thirty right answers are lost, two gained; the interval is one of a single comparison.
    low, high = interval(30, 2, 100)
    ends = [f"{100 * end:+.1f}".replace("-", "−") for end in (low, high)]
    row = [cell.replace(THIN, " ") for cell in grid[2]]
    assert row == ["boolq, acc, 0-shot", "100", "30", "2", "−28.0", " to ".join(ends), "< 0.0001",
                   "worse"]  # fmt: skip


@pytest.mark.parametrize("change", [{"metric": "acc_norm"}, {"limited": True}, {"n_shot": 5}])
def test_a_mean_is_of_all_seven_alike(scored, change):
    rows = seven("Dense", None, 0.0)
    rows.loc[3, [*change]] = [*change.values()]
    assert seven_tasks(scored.tasks) is not None
    study = replace(scored, tasks=None).with_measured(tasks=rows)
    assert seven_tasks(study.tasks) is None


def test_models_and_variants(study, page, demo):
    (fingerprint,) = set(study.variants["fingerprint"])
    assert table(page, ["Model"]) == [
        ["Model", "Architecture", "Source", "Fingerprint of the weights"],
        ["demo", "OPTForCausalLM", "safetensors", fingerprint],
    ]
    values = torch.cat([demo.tensor(p.name).flatten().abs() for p in demo.prunable])
    shown = rule_of(values.sort().values[round(0.3 * len(values)) - 1])
    assert table(page, ["Variant", "Layout", "Method"]) == [
        ["Variant", "Layout", "Method", head("column.asked_sparsity"), "Threshold |w| ≤",
         "Weights"],
        ["Dense", "dense", "–", "–", "–", fingerprint],
        ["Masked30", "masked", "global magnitude", "30.0 %", shown, fingerprint],
        ["CSR30", "CSR", "global magnitude", "30.0 %", shown, fingerprint],
    ]  # fmt: skip


def test_totals_of_attention(page):
    rows = {row[0]: row[1:] for row in table(page, ["", "Dense"])}
    # Four layers with queries and values of 128 each, over 64 positions.
    flops = 4 * 2 * (128 + 128) * 64
    (shown,) = [
        cells
        for label, cells in rows.items()
        if label.startswith(head("column.attention_flops_per_token"))
    ]
    assert shown == [f"{flops:,}".replace(",", " ")] * 3


def test_totals_of_experts_and_poolers(tmp_path):
    by_name = {case.name.split(" ")[0]: case for case in CASES}
    for name, label, column in (
        ("Mixtral", "Active parameters per token", "active_total"),
        ("BERT", "Performed FLOPs once per sequence", "flops_per_sequence"),
    ):
        case = by_name[name]
        counted = study_of(sr.load(built(case)))
        rows = table(sr.write_report(counted, tmp_path / f"{name}.html"), ["", "Dense"])
        (shown,) = [row[1:] for row in rows if row[0].startswith(label)]
        expected = [f"{number:,}".replace(",", " ") for number in counted.totals[column]]
        assert shown == expected
        if name == "BERT":
            assert counted.totals[column].iloc[0] == 2 * case.per_sequence
