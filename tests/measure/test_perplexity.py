import hashlib
import math

import pytest
import torch
from helpers import command, small_llama
from torch import nn
from transformers import AutoTokenizer
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.measure import texts
from sparsity_report.study.schema import TABLES

NAMED = {case.name: case for case in CASES}
TEXT = (DEMO / "eval.txt").read_text(encoding="utf-8")


def token_by_token(model, ids, window, stride):
    """Score every token in double precision, looking up alone what each may see."""
    nll, hits, scored = 0.0, 0, 0
    model = model.double()
    for place in range(1, len(ids)):
        # The first window whose end lies beyond the token, windows moving on by the stride.
        begin = 0
        while min(begin + window, len(ids)) <= place:
            begin += stride
        if begin == place:
            continue  # nothing before it
        scored += 1
        with torch.no_grad():
            logits = model(ids[None, begin:place]).logits[0, -1]
        nll -= float(torch.log_softmax(logits, dim=-1)[ids[place]])
        hits += int(logits.argmax() == ids[place])
    return math.exp(nll / scored), hits / scored, scored


@pytest.mark.parametrize(("window", "stride"), [(64, 64), (64, 32), (64, 23), (128, 50)])
def test_equals_token_by_token(demo, window, stride):
    text = TEXT[:420]
    frame = sr.perplexity(sr.dense(demo), text, window=window, stride=stride)
    ids = AutoTokenizer.from_pretrained(DEMO)(text, return_tensors="pt")["input_ids"][0]
    perplexity, top1, scored = token_by_token(demo.module(), ids, window, stride)
    assert frame.loc[0, "perplexity"] == pytest.approx(perplexity, rel=1e-4)
    assert frame.loc[0, "top1"] == pytest.approx(top1)
    assert frame.loc[0, "scored"] == scored >= len(ids) - 1 - (len(ids) // window)
    assert frame.loc[0, "tokens"] == len(ids)


def test_a_last_window_of_one_token_scores_nothing():
    weights = sr.load(small_llama(), name="small")
    for tokens in (33, 32, 31):
        ids = torch.arange(tokens) * 7 % 61
        frame = sr.perplexity(sr.dense(weights), ids, window=16, stride=16)
        assert frame.loc[0, "scored"] == {33: 30, 32: 30, 31: 29}[tokens]


def test_protocol_is_recorded(demo):
    row = sr.perplexity(sr.dense(demo), TEXT[:900], window=100).loc[0]
    assert row["text_fingerprint"] == hashlib.sha256(TEXT[:900].encode()).hexdigest()[:16]
    assert (row["window"], row["stride"], row["dtype"], row["text"]) == (100, 50, "float32", "text")
    whole = sr.perplexity(sr.dense(demo)).loc[0]
    assert (whole["text"], whole["window"], whole["stride"]) == ("eval.txt", 256, 128)
    assert whole["perplexity"] == sr.perplexity(sr.dense(demo), TEXT).loc[0, "perplexity"]


def test_texts_of_every_kind(demo, tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("def f():\n\n    return 1", encoding="utf-8")
    ids = demo.tokenizer()(path.read_text(encoding="utf-8"))["input_ids"]
    kinds = [
        path, ["def f():", "    return 1"], [{"text": "def f():"}, {"text": "    return 1"}],
        torch.tensor(ids),
    ]  # fmt: skip
    found = {sr.perplexity(sr.dense(demo), text).loc[0, "nll"] for text in kinds}
    assert len(found) == 1


def test_a_string_that_names_a_file_is_the_file(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "def f():\n\n    return 1"
    for name in ("wiki.txt", "wiki", "two words.md", "deep/wiki.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(words, encoding="utf-8")
        row = sr.perplexity(sr.dense(demo), name).loc[0]
        expected = sr.perplexity(sr.dense(demo), words).loc[0]
        assert row["nll"] == expected["nll"] != sr.perplexity(sr.dense(demo), [name]).loc[0, "nll"]
        assert (row["text"], row["text_fingerprint"]) == (
            name.rpartition("/")[2], expected["text_fingerprint"],
        )  # fmt: skip
    frame = sr.sensitivity(demo, 0.5, by="group", text="wiki.txt")
    assert frame["dense_perplexity"][0] == pytest.approx(expected["perplexity"])


@pytest.mark.parametrize(
    "name",
    ["nowhere.txt", "wiki.test.raw", "A.JSONL", "data/wiki", "C:\\wiki", "~/a.parquet", "./deep",
     "/"],
)  # fmt: skip
def test_a_string_that_only_looks_like_a_path_is_refused(demo, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    for score in (
        lambda: sr.perplexity(sr.dense(demo), name),
        lambda: sr.sensitivity(demo, 0.5, text=name, by="group"),
    ):
        with pytest.raises(sr.SparsityReportError, match=r"there is no file .* to score; if this"):
            score()
    run = command("run", "--perplexity", "--text", name, "--out", tmp_path / "out")
    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1)
    assert "there is no file" in run.stderr


@pytest.mark.parametrize(
    "text",
    ["and/or", "see it in notes.txt", "x.y", "import os.path", "wiki\n.txt", "a/" * 3000, "deep"],
)
def test_other_strings_are_texts(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    if text == "and/or":  # one word with a separator: only in a list
        text = [text]
    assert texts.read_text(text)[1] == (text if isinstance(text, str) else text[0])


def test_files_that_are_no_texts(demo, tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(sr.SparsityReportError, match=r"cannot read the text .*utf-8"):
        sr.perplexity(sr.dense(demo), str(tmp_path / "a.parquet"))
    monkeypatch.setattr(texts, "LONGEST", 10)
    (tmp_path / "a.txt").write_text("def f(): 1")
    assert texts.read_text(tmp_path / "a.txt") == ("a.txt", "def f(): 1")
    (tmp_path / "a.txt").write_text("def f(): 12")
    with pytest.raises(
        sr.SparsityReportError, match=r"a.txt: the text is longer than 10 characters; score"
    ):
        sr.perplexity(sr.dense(demo), tmp_path / "a.txt")


def test_a_window_longer_than_the_text_is_the_text(demo):
    row = sr.perplexity(sr.dense(demo), "import os", window=200).loc[0]
    assert row["window"] == row["tokens"] < 200


def test_refusals(demo):
    dense = sr.dense(demo)
    items = "items that are texts or have a key"
    for said, text, options in (
        (items, [{"content": "x"}], {}), (items, [1, 2], {}), (items, 5, {}),
        ("is empty", " \n", {}), ("unpaired surrogates", "half\ud800 a word", {}),
        ("at least two", torch.tensor([3]), {}),
        ("window=300 is out of range; use 2 to the model's 256", TEXT, {"window": 300}),
        ("stride=30 is out of range", TEXT, {"window": 20, "stride": 30}),
        ("token 5000, beyond", torch.tensor([1, 5000]), {}),
        ("cannot read the text nowhere", DEMO.__class__("nowhere"), {}),
    ):  # fmt: skip
        with pytest.raises(sr.SparsityReportError, match=said):
            sr.perplexity(dense, text, **options)
    with pytest.raises(sr.SparsityReportError, match=r"by=.* is unknown; use one of"):
        sr.sensitivity(demo, 0.3, by="head")
    for name in ("BERT", "T5", "RoBERTa"):
        case = next(c for n, c in NAMED.items() if n.startswith(name))
        with pytest.raises(sr.SparsityReportError, match="model head; measure its latency"):
            sr.perplexity(sr.dense(built(case)), TEXT)
    with pytest.raises(sr.SparsityReportError, match="came without a tokenizer; pass tokenizer="):
        sr.perplexity(sr.dense(demo.module()), TEXT)
    with pytest.raises(sr.SparsityReportError, match="no causal language model head"):
        sr.perplexity(sr.dense(nn.Linear(2, 2)), TEXT)


def test_loss_that_is_not_a_number_is_an_error(demo):
    model = demo.module()
    with torch.no_grad():
        model.model.decoder.layers[1].fc1.bias[0] = math.nan
    variant = sr.dense(model, name="Broken")
    with pytest.raises(
        sr.SparsityReportError, match="the loss of Broken is not a number in tokens"
    ):
        sr.perplexity(variant, TEXT, tokenizer=demo.tokenizer())


@pytest.mark.parametrize("by", ["block", "group", "layer"])
def test_sensitivity_is_perplexity_of_one_part_pruned(demo, by):
    text = TEXT[:600]
    frame = sr.sensitivity(demo, 0.6, by=by, text=text)
    assert list(frame.columns) == [*TABLES["sensitivity"]]
    assert len(frame) == {"block": 4, "group": 2, "layer": 24}[by]
    assert frame["weight_total"].sum() == 786_432
    dense = sr.perplexity(sr.dense(demo), text).loc[0]
    assert frame["dense_perplexity"].tolist() == pytest.approx([dense["perplexity"]] * len(frame))
    for number in (0, len(frame) - 1):
        row = frame.loc[number]
        model = demo.module()
        chosen = [
            layer
            for name, layer in model.named_modules()
            if type(layer) is nn.Linear and name != "lm_head"
            and row["part"] in {f"block {name.split('.')[3]}", name,
                                "attention_linear" if "self_attn" in name else "mlp_linear"}
        ]  # fmt: skip
        pairs = [(layer, "weight") for layer in chosen]
        nn.utils.prune.global_unstructured(pairs, nn.utils.prune.L1Unstructured, amount=0.6)
        expected = sr.perplexity(sr.dense(model), text, tokenizer=demo.tokenizer()).loc[0]
        assert row["modules"] == len(chosen)
        assert row["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-5)
        assert row["nll_increase"] == pytest.approx(expected["nll"] - dense["nll"], abs=1e-6)
        assert row["top1_drop"] == pytest.approx(dense["top1"] - expected["top1"], abs=1e-9)
        weights = torch.cat([layer.weight_orig.detach().flatten() for layer in chosen])
        assert row["std"] == pytest.approx(float(weights.double().std(correction=0)))
        assert row["pruned"] == round(0.6 * len(weights))


def test_parts_of_a_csr_model_are_put_back(demo):
    pruning = sr.global_magnitude(demo, 0.5)
    frames = [
        sr.sensitivity(sr.load(variant.module()), 0.7, text=TEXT[:300], tokenizer=demo.tokenizer())
        for variant in (sr.masked(pruning), sr.csr(pruning))
    ]
    dense, csr = (frame["nll_increase"].tolist() for frame in frames)
    assert csr == pytest.approx(dense, abs=1e-5)


def test_unknown_keywords_are_named(demo):
    for function, *given in ((sr.load,), (sr.sensitivity, demo, 0.5)):
        with pytest.raises(sr.SparsityReportError, match=r"\(\) accepts .*, not 'txt'$"):
            function(*given, txt="x")
