"""Models without a score, which keep all other results."""

import math

import pytest
import torch
from helpers import command
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.findings.strip_text import strip_texts

WRITTEN = {"report.html", "study.json", "structural_layers"}


@pytest.fixture
def headless(tmp_path):
    built(next(case for case in CASES if case.name.startswith("BERT"))).save_pretrained(
        tmp_path / "m"
    )
    return tmp_path / "m"


@pytest.fixture
def broken(demo, tmp_path):
    """Its activations are NaN, its prunable weights are not."""
    model = demo.module()
    with torch.no_grad():
        model.model.decoder.layers[1].fc1.bias[0] = math.nan
    model.save_pretrained(tmp_path / "m")
    demo.tokenizer().save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize("model", ["headless", "broken"])
def test_everything_else_is_written(model, tmp_path, request):
    folder, why = request.getfixturevalue(model), {
        "headless": "no causal language model head",
        "broken": "the loss of Dense is not a number in tokens 0 to",
    }[model]  # fmt: skip
    run = command(
        "run", folder, "--perplexity", *(["--sensitivity", "group"] * (model == "headless")),
        "--text", "import os\n" * 9, "--write", "html,csv,study", "--out", tmp_path / "out",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("sparsity-report:")]
    assert why in line
    assert {path.name for path in (tmp_path / "out").iterdir()} >= WRITTEN
    study = sr.read_study(tmp_path / "out" / "study.json", strict=True)
    assert study.quality is None
    assert study.sensitivity is None
    (note,) = [note for note in study.notes if why in str(note)]
    assert f"sparsity-report: {note}" == line
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert why in page
    # The tile does not advise the option that was given.
    tile = next(each for each in strip_texts(study.facts) if each["title"] == "Quality")
    assert tile["number"] == "no perplexity"
    assert tile["note"] in page
    assert "run with --perplexity" not in page


def test_failed_scores_leave_the_rest_of_the_study(tmp_path):
    """Only the model's tokenizer and positions tell, when all is counted."""
    words = ("--perplexity", "--sensitivity", "group", "--protocol", "wikitext2-2048")
    files = ("--write", "html,csv,study", "--out", tmp_path / "out")
    run = command("run", *words, "--text", "import os\n" * 9, *files)
    assert run.returncode == 2
    why = "has windows of 2,048"
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("sparsity-report:")]
    assert why in line
    assert {path.name for path in (tmp_path / "out").iterdir()} >= WRITTEN
    assert any(why in str(note) for note in sr.read_study(tmp_path / "out" / "study.json").notes)


def test_invalid_requests_are_refused_before_counting(tmp_path, monkeypatch):
    monkeypatch.setattr(sr, "load", lambda *_, **__: pytest.fail("opened"))
    for words in (
        ("--perplexity", "--text", " "),
        ("--perplexity", "--text", "a\udc80"),
        ("--sensitivity", "block", "--protocol", "c4"),
        ("--perplexity", "--text", tmp_path / "none.txt"),
    ):
        run = command("run", *words, "--out", tmp_path / "out")
        assert (run.returncode, len(run.stderr.splitlines())) == (2, 1), words
    assert not (tmp_path / "out").exists()
