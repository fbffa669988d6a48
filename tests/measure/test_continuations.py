"""Continuations by variant, against transformers' own greedy search."""

import math

import pytest
import torch
from helpers import command
from measurements import frame
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.report.markdown_report import to_markdown
from sparsity_report.report.tables import study_tables

PROMPT = "def add(a, b):\n    return"


def greedy(model, tokenizer, prompt, tokens):
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        written = model.eval().generate(
            ids, max_new_tokens=tokens, do_sample=False, use_cache=False
        )
    return tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_token_that_ends_a_text_is_the_last(demo):
    model = demo.module()
    ids = demo.tokenizer()(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        (_, second) = model.eval().generate(ids, max_new_tokens=2, do_sample=False)[0, -2:].tolist()
    for end in (second, [5, second]):
        model.generation_config.eos_token_id = end
        frame = sr.continuations(
            sr.dense(model), PROMPT, tokens=9, tokenizer=demo.tokenizer()
        )  # fmt: skip
        whole = sr.continuations(sr.dense(demo), PROMPT, tokens=1)
        assert frame["continuation"].tolist() == whole["continuation"].tolist()


def test_refusals(demo):
    dense = sr.dense(demo)
    for prompt in ("", 3, "half \ud800", [], ["a", ""], ["a", 3]):
        with pytest.raises(sr.SparsityReportError, match="is empty or not text"):
            sr.continuations(dense, prompt)
    out_of_range = r"tokens=\d+ is out of range; use 1 to 4,096"
    too_long = "the model accepts 256; shorten"
    for tokens, said in ((0, out_of_range), (4097, out_of_range), (250, too_long)):
        with pytest.raises(sr.SparsityReportError, match=said):
            sr.continuations(dense, PROMPT, tokens=tokens)
    bert = built(next(case for case in CASES if case.name.startswith("BERT")))
    with pytest.raises(sr.SparsityReportError, match="no causal language model head"):
        sr.continuations(sr.dense(bert), PROMPT)
    model = demo.module()
    with torch.no_grad():
        model.model.decoder.layers[1].fc1.bias[0] = math.nan
    with pytest.raises(sr.SparsityReportError, match="the logits of Broken are"):
        sr.continuations(
            sr.dense(model, name="Broken"), PROMPT, tokenizer=demo.tokenizer()
        )  # fmt: skip


def test_they_stand_side_by_side_and_are_kept(tmp_path, demo):
    words = ["--prompt", "import", "--prompt", "def f(", "--write", "md,csv,study"]
    run = command("run", *words, "--out", tmp_path / "o")
    assert run.returncode == 0, run.stderr
    study = sr.read_study(tmp_path / "o" / "study.json", strict=True)
    assert study.continuations["prompt"].unique().tolist() == ["import", "def f("]
    expected = sr.continuations(sr.dense(demo), "import")["continuation"][0]
    assert study.continuations["continuation"][0] == expected
    first = study.continuations[study.continuations["prompt"] == "import"]
    assert first["variant"].tolist() == ["Dense", "Masked30", "CSR30"]
    told = [line for line in run.stdout.splitlines() if line.startswith("After “import”, ")]
    assert len(told) == first["continuation"].nunique()
    assert f"Dense generates “{' '.join(expected.split())}”." in told[0]
    table = study_tables.continuations(study)
    assert [body.title for body in table.bodies] == ["import", "def f("]
    assert [row.cells[0].text for row in table.rows] == ["Dense", "Masked30", "CSR30"] * 2
    assert to_markdown(table) in (tmp_path / "o" / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "o" / "structural_layers" / "continuations.csv").is_file()


PROMPTS = ["import ", "def f"]


def test_each_prompt_is_continued_by_each_variant(demo):
    pruning = sr.global_magnitude(demo, 0.7)
    variants = [sr.masked(pruning), sr.csr(pruning), sr.dense(demo)]
    frame = sr.continuations(variants, PROMPTS, tokens=12)
    assert frame.columns.tolist() == ["variant", "prompt", "continuation"]
    assert frame["variant"].tolist() == [v.name for v in variants for _ in PROMPTS]
    assert frame["prompt"].tolist() == PROMPTS * 3
    expected = [greedy(v.module(), demo.tokenizer(), p, 12) for v in variants for p in PROMPTS]
    assert frame["continuation"].tolist() == expected
    assert expected[:2] == expected[2:4] != expected[4:]


def test_a_table_of_many_texts_has_the_first_prompts(demo):
    study = sr.compare(sr.dense(demo), sr.masked(sr.global_magnitude(demo, 0.3)))
    rows = [
        {"variant": name, "prompt": f"p{place}", "continuation": "x"}
        for place in range(25)
        for name in study.variants["variant"]
    ]
    study = study.with_measured(continuations=frame("continuations", rows))
    table = study_tables.continuations(study)
    assert [body.title for body in table.bodies] == [f"p{place}" for place in range(20)]
    assert table.caption.startswith("The first 40 of 50 continuations")


def test_a_model_may_write_nothing(demo):
    model = demo.module()
    model.generation_config.eos_token_id = list(range(model.config.vocab_size))
    frame = sr.continuations(sr.dense(model), "import", tokens=3, tokenizer=demo.tokenizer())
    assert frame["continuation"].tolist() == [""]
