"""What variants write, against transformers' own greedy search."""

import gzip
import math

import pandas as pd
import pytest
import torch
from helpers import command
from measurements import frame
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.measure.continuations import _draw as draw
from sparsity_report.measure.continuations import _figures as continuation_figures_of
from sparsity_report.measure.texts import read_prompts
from sparsity_report.report.tables import study_tables
from sparsity_report.report.tables.markdown import to_markdown

PROMPT = "def add(a, b):\n    return"


def greedy(model, tokenizer, prompt, tokens):
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        written = model.eval().generate(
            ids, max_new_tokens=tokens, do_sample=False, use_cache=False
        )
    return tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def test_equals_greedy_search(demo):
    pruning = sr.global_magnitude(demo, 0.6)
    variants = [sr.masked(pruning), sr.csr(pruning), sr.dense(demo)]
    frame = sr.continuations(variants, PROMPT, tokens=12)
    assert frame["variant"].tolist() == ["Masked60", "CSR60", "Dense"]
    assert frame["prompt"].unique().tolist() == [PROMPT]
    expected = [greedy(v.module(), demo.tokenizer(), PROMPT, 12) for v in variants]
    assert frame["continuation"].tolist() == expected
    assert expected[0] == expected[1] != expected[2]


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
    for prompt in ("", 3, "half \ud800"):
        with pytest.raises(sr.SparsityReportError, match="is empty or not text"):
            sr.continuations(dense, prompt)
    for tokens in (0, 4097):
        with pytest.raises(
            sr.SparsityReportError, match=r"tokens=\d+ is out of range; use 1 to 4,096"
        ):
            sr.continuations(dense, PROMPT, tokens=tokens)
    with pytest.raises(sr.SparsityReportError, match="the model accepts 256; shorten"):
        sr.continuations(dense, PROMPT, tokens=250)
    bert = built(next(case for case in CASES if case.name.startswith("BERT")))
    with pytest.raises(sr.SparsityReportError, match="without a causal"):
        sr.continuations(sr.dense(bert), PROMPT)
    model = demo.module()
    with torch.no_grad():
        model.model.decoder.layers[1].fc1.bias[0] = math.nan
    with pytest.raises(sr.SparsityReportError, match="Broken: the logits of the next token are"):
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


@pytest.fixture(scope="module")
def sampled(demo):
    dense, pruned = sr.dense(demo), sr.masked(sr.global_magnitude(demo, 0.7))
    return sr.continuations([pruned, dense], PROMPTS, tokens=6, seeds=2, temperature=0.8)


def test_each_prompt_is_continued_greedily_and_by_each_seed(demo, sampled):
    assert sampled["variant"].tolist() == ["Masked70"] * 6 + ["Dense"] * 6
    assert sampled["prompt"].tolist() == [text for text in PROMPTS for _ in range(3)] * 2
    assert sampled["seed"].astype(object).where(sampled["seed"].notna(), None).tolist() == [
        None, 0, 1,
    ] * 4  # fmt: skip
    assert sampled["temperature"].notna().equals(sampled["seed"].notna())
    assert set(sampled["against"]) == {"Dense"}
    greedy_rows = sampled[sampled["seed"].isna() & (sampled["variant"] == "Dense")]
    model = demo.module()
    expected = [greedy(model, demo.tokenizer(), prompt, 6) for prompt in PROMPTS]
    assert greedy_rows["continuation"].tolist() == expected


def test_seeds_give_the_same_texts_again_whatever_the_other_prompts(demo, sampled):
    again = sr.continuations(
        sr.dense(demo), PROMPTS[1], tokens=6, seeds=2, temperature=0.8
    )  # fmt: skip
    before = sampled[(sampled["variant"] == "Dense") & (sampled["prompt"] == PROMPTS[1])]
    pd.testing.assert_frame_equal(again, before.reset_index(drop=True))
    assert again["continuation"].nunique() > 1


def test_likelihoods_are_cross_entropies_of_dense(demo, sampled):
    dense, tokenizer = demo.module().eval(), demo.tokenizer()
    for name, row in sampled[sampled["seed"].isna()].groupby(["variant", "prompt"]):
        pruned = sr.masked(sr.global_magnitude(demo, 0.7)).module().eval()
        writer = dense if name[0] == "Dense" else pruned
        ids = tokenizer(name[1], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            text = writer.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False)
            logits = dense(input_ids=text).logits[0, :-1]
        written = text[0, ids.shape[1] :]
        loss = torch.nn.functional.cross_entropy(logits[-len(written) :], written)
        assert row["written"].tolist() == [len(written)]
        assert row["dense_nll"].tolist() == [pytest.approx(float(loss), rel=1e-4)]


def test_a_table_of_many_texts_has_the_first_prompts(demo):
    study = sr.compare(sr.dense(demo))
    rows = [
        {"variant": "Dense", "prompt": f"p{place}", "continuation": "x", "seed": seed}
        for place in range(9)
        for seed in range(10)
    ]
    study = study.with_measured(continuations=frame("continuations", rows))
    table = study_tables.continuations(study)
    assert [body.title for body in table.bodies] == ["p0", "p1", "p2", "p3"]
    assert table.caption.startswith("The first 40 of 90 continuations")
    assert study_tables.writing(study) is None


def test_prompts_of_a_file(tmp_path):
    lines, rows = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    lines.write_bytes("import \r\n\n  def f(é):\nlast".encode())
    assert read_prompts(lines) == ["import ", "  def f(é):", "last"]
    rows.write_text('{"prompt": "def f():\\n    return"}\n\n"import"\n')
    assert read_prompts(rows) == ["def f():\n    return", "import"]
    (tmp_path / "prompts.jsonl.gz").write_bytes(gzip.compress(rows.read_bytes()))
    assert read_prompts(tmp_path / "prompts.jsonl.gz") == read_prompts(rows)


def test_repetition_and_variety_by_hand():
    # 4-grams of abcabcab: abca, bcab, cabc, abca, bcab. Pairs: ab bc ca ab bc ca ab.
    assert texts_of([0, 1, 2, 0, 1, 2, 0, 1]) == (8, pytest.approx(2 / 5), pytest.approx(3 / 7))
    assert texts_of([7] * 6) == (6, pytest.approx(2 / 3), pytest.approx(1 / 5))
    assert texts_of([1, 2, 3, 4]) == (4, None, 1.0)
    assert texts_of([1, 2]) == (2, None, None)
    assert texts_of([]) == (0, None, None)


def texts_of(tokens):
    figures = continuation_figures_of(tokens, torch.tensor([1]), None)
    assert figures["dense_nll"] is None
    return figures["written"], figures["repeated"], figures["distinct"]


def test_sampling_draws_from_the_softmax_and_low_temperatures_are_greedy():
    logits = torch.tensor([0.0, 1.0, 2.0])
    noise = torch.Generator().manual_seed(0)
    draws = [draw(logits, noise, 2.0) for _ in range(4000)]
    shares = torch.bincount(torch.tensor(draws), minlength=3) / 4000
    assert shares.tolist() == pytest.approx((logits / 2).softmax(0).tolist(), abs=0.03)
    assert {draw(logits, noise, 0.01) for _ in range(50)} == {2} == {draw(logits, None, 1.0)}


def test_an_empty_continuation_has_no_figures(demo):
    model = demo.module()
    model.generation_config.eos_token_id = list(range(model.config.vocab_size))
    frame = sr.continuations(
        sr.dense(model), "import", tokens=3, seeds=1, tokenizer=demo.tokenizer()
    )  # fmt: skip
    assert frame["continuation"].tolist() == ["", ""]
    assert frame["written"].tolist() == [0, 0]
    assert frame[["repeated", "distinct", "dense_nll"]].isna().all(axis=None)


def test_options_out_of_range_are_refused(demo):
    for options in ({"temperature": 0}, {"temperature": math.nan}, {"temperature": 101}):
        with pytest.raises(sr.SparsityReportError, match=r"temperature=\w+ is out of range"):
            sr.continuations(sr.dense(demo), PROMPT, **options)
    with pytest.raises(sr.SparsityReportError, match="seeds=-1 is out of range; use 0 to 1,000"):
        sr.continuations(sr.dense(demo), PROMPT, seeds=-1)
    for prompts in ([], ["a", ""], ["a", 3]):
        with pytest.raises(sr.SparsityReportError, match="is empty or not text"):
            sr.continuations(sr.dense(demo), prompts)


def test_without_a_dense_variant_likelihoods_are_unknown(demo):
    pruned = sr.masked(sr.global_magnitude(demo, 0.7))
    frame = sr.continuations(pruned, "import", tokens=3)
    assert frame[["against", "dense_nll"]].isna().all(axis=None)
    assert frame["written"].tolist() == [3]
