"""Perplexity as papers compute it, written out here in the shape of their code."""

import gzip
import json
import math
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from helpers import command, small_llama
from torch import nn

import sparsity_report as sr
from sparsity_report.measure import perplexity, protocols, texts
from sparsity_report.measure.protocols import CORPORA, Passages
from sparsity_report.study.schema import PROTOCOLS, SLIDING

ROWS = [" = A title = \n", "", " Some words , and more .\n", "", " The end \n"]
LINES = " = A title = \n \n Some words , and more .\n \n The end \n"


def as_in_papers(model, ids, seqlen):
    """``eval_ppl_wikitext`` of Wanda, ``llama_eval`` of SparseGPT, batches of one."""
    testenc = ids[None]
    nsamples = testenc.numel() // seqlen
    nlls = []
    for i in range(nsamples):
        inputs = testenc[:, (i * seqlen) : ((i + 1) * seqlen)]
        with torch.no_grad():
            lm_logits = model(inputs).logits
        shift_logits = lm_logits[:, :-1, :].contiguous()
        shift_labels = inputs[:, 1:]
        loss = nn.CrossEntropyLoss()(
            shift_logits.reshape(-1, shift_logits.size(-1)), shift_labels.reshape(-1)
        )
        nlls.append(loss.float() * seqlen)
    return float(torch.exp(torch.stack(nlls).sum() / (nsamples * seqlen))), nsamples


def long_llama(positions=2048):
    return small_llama(max_position_embeddings=positions)


def tokens(number):
    return torch.randint(0, 61, (number,), generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize(
    ("protocol", "positions", "window"),
    [("wikitext2-2048", 4096, 2048), ("wikitext2-max", 128, 128), ("c4-256x2048", 2048, 2048)],
)
def test_equals_the_code_of_the_papers(protocol, positions, window):
    model = long_llama(positions)
    ids = tokens(2 * window + 77)
    pruning = sr.global_magnitude(sr.load(model, name="small"), 0.5)
    frame = sr.perplexity([sr.dense(pruning.weights), sr.masked(pruning)], ids, protocol=protocol)
    for row, module in zip(frame.itertuples(), (model, sr.masked(pruning).module()), strict=True):
        expected, windows = as_in_papers(module.eval(), ids, window)
        assert row.perplexity == pytest.approx(expected, rel=1e-5)
        assert (row.protocol, row.window, row.stride) == (protocol, window, window)
        assert (row.tokens, row.scored) == (2 * window + 77, windows * (window - 1))
    if protocol != "wikitext2-max":  # the others are longer
        return
    parts = sr.sensitivity(pruning.weights, 0.5, by="group", text=ids, protocol=protocol)
    assert parts["dense_perplexity"].tolist() == pytest.approx([frame["perplexity"][0]] * 2)
    assert parts["protocol"].tolist() == [protocol] * 2


def test_c4_scores_at_most_256_windows():
    weights = sr.load(long_llama(), name="small")
    ids = tokens(256 * 2048 + 5000)
    passage = Passages({"text": ids, "protocol": "c4-256x2048"}).passage(weights, weights.module())
    assert passage.ids.equal(ids[: 256 * 2048])
    assert perplexity.tokens_scored(passage) == 256 * 2047
    assert (
        passage.fingerprint
        == Passages({"text": ids}).passage(weights, weights.module()).fingerprint
    )


def test_every_protocol_but_ours_has_a_data_set():
    assert tuple(PROTOCOLS) == (SLIDING, *CORPORA)
    assert {name: corpus.rows for name, corpus in CORPORA.items()} == {
        "wikitext2-2048": 4358, "wikitext2-max": 4358, "c4-256x2048": 1100,
    }  # fmt: skip


@pytest.fixture
def few(monkeypatch):
    """Data sets of five rows, of C4 of four or more."""
    for name, corpus in CORPORA.items():
        rows = 4 if corpus.first else 5
        monkeypatch.setitem(protocols.CORPORA, name, replace(corpus, rows=rows))


def parquet_of(rows, monkeypatch, size=10):
    """Let any Parquet file have these rows, which need not fit into memory, in one group."""

    def iter_batches(number, columns):
        assert (number, columns) == (1, ["text"])
        return ({"text": [SimpleNamespace(as_py=lambda row=row: row)]} for row in rows)

    group = SimpleNamespace(total_byte_size=size)
    metadata = SimpleNamespace(num_row_groups=1, row_group=lambda _: group)
    file = SimpleNamespace(metadata=metadata, iter_batches=iter_batches)
    library = SimpleNamespace(ParquetFile=lambda _: nullcontext(file))
    monkeypatch.setitem(sys.modules, "pyarrow", ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", library)


def text_of(protocol, text):
    return texts.read_text(text, protocols.CORPORA[protocol])


@pytest.mark.usefixtures("few")
def test_rows_become_the_text_of_the_papers(tmp_path, monkeypatch):
    """As ``datasets`` makes rows of the original files, and as the papers' code joins them."""
    joined = "\n\n".join(ROWS)
    raw = tmp_path / "wiki.test.raw"
    raw.write_text(LINES, encoding="utf-8")
    assert text_of("wikitext2-2048", raw) == ("wiki.test.raw", joined)
    assert text_of("wikitext2-max", str(raw)) == ("wiki.test.raw", joined)
    assert text_of("wikitext2-2048", ROWS) == ("dataset", joined)
    assert text_of("wikitext2-2048", [{"text": row} for row in ROWS]) == ("dataset", joined)
    assert text_of("wikitext2-2048", joined) == ("text", joined)

    part = tmp_path / "c4-validation.00000-of-00008.json.gz"
    with gzip.open(part, "wt", encoding="utf-8") as file:
        for number in range(9):
            file.write(json.dumps({"text": f"Text {number}.\nMore", "url": "x"}) + "\n")
    assert text_of("c4-256x2048", part)[1] == " ".join(f"Text {n}.\nMore" for n in range(4))

    parquet_of(ROWS, monkeypatch)
    (tmp_path / "test-00000-of-00001.parquet").touch()
    found = text_of("wikitext2-2048", tmp_path / "test-00000-of-00001.parquet")
    assert found == ("test-00000-of-00001.parquet", joined)


@pytest.mark.usefixtures("few")
def test_the_library_datasets_is_asked_for_the_rows(monkeypatch):
    asked = []

    def load(*names, **options):
        asked.append((*names, options))
        return [{"text": row} for row in ROWS]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    assert text_of("wikitext2-2048", None) == ("wikitext-2-raw-v1 test", "\n\n".join(ROWS))
    assert text_of("c4-256x2048", None) == ("C4 validation", " ".join(ROWS[:4]))
    assert asked == [
        ("Salesforce/wikitext", "wikitext-2-raw-v1", {"split": "test"}),
        ("allenai/c4", {"split": "validation",
                        "data_files": {"validation": "en/c4-validation.00000-of-00008.json.gz"}}),
    ]  # fmt: skip


@pytest.mark.parametrize("protocol", CORPORA)
def test_error_without_network_names_the_file_to_bring(demo, monkeypatch, tmp_path, protocol):
    files = {"wiki": "wiki.test.raw", "c4-2": "c4-validation.00000-of-00008.json.gz"}
    bring = files[protocol[:4]]

    def load(*_, **__):
        raise ConnectionError("no\nnetwork")

    for library, why in ((None, "not installed"), (SimpleNamespace(load_dataset=load), "network")):
        monkeypatch.setitem(sys.modules, "datasets", library)
        with pytest.raises(sr.SparsityReportError) as raised:
            sr.perplexity(sr.dense(demo), protocol=protocol)
        said = str(raised.value)
        assert why in said and bring in said and "--text" in said and "\n" not in said  # noqa: PT018
    run = command("run", "--perplexity", "--protocol", protocol, "--out", tmp_path / "out")
    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1)
    assert bring in run.stderr


@pytest.mark.usefixtures("few")
def test_other_rows_than_those_of_the_data_set_are_refused(tmp_path):
    for rows in (ROWS[:4], [*ROWS, ""]):
        path = tmp_path / "wiki.txt"
        path.write_text("".join(row or "\n" for row in rows), encoding="utf-8")
        for text in (rows, path):
            with pytest.raises(
                sr.SparsityReportError, match="is not wikitext-2-raw-v1 test: it has"
            ):
                text_of("wikitext2-2048", text)
    with pytest.raises(sr.SparsityReportError, match="is not C4 validation: it has 3 rows, not 4"):
        text_of("c4-256x2048", ROWS[:3])
    for content in (b"\x1f\x8bno gzip", b"", b"\xff"):
        (tmp_path / "c4.json.gz").write_bytes(content)
        with pytest.raises(
            sr.SparsityReportError, match=r"cannot read the text .*c4.json.gz|it has 0 rows"
        ):
            text_of("c4-256x2048", tmp_path / "c4.json.gz")
    (tmp_path / "c4.json").write_text('{"words": "x"}\n' * 5)
    with pytest.raises(sr.SparsityReportError, match="have a key 'text'"):
        text_of("c4-256x2048", tmp_path / "c4.json")
    (tmp_path / "c4.json").write_text('{"text": 3}\n' * 5)
    with pytest.raises(sr.SparsityReportError, match="int is not text"):
        text_of("c4-256x2048", tmp_path / "c4.json")


def test_a_line_without_end_is_not_read_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "LONGEST", 10)
    (tmp_path / "wiki.test.raw").write_text("x" * 10)
    with pytest.raises(sr.SparsityReportError, match="it has 1 rows, not 4,358"):
        text_of("wikitext2-2048", tmp_path / "wiki.test.raw")
    (tmp_path / "wiki.test.raw").write_text("x\n" * 5 + "x" * 100)
    with pytest.raises(sr.SparsityReportError, match="longer than 10 characters"):
        text_of("wikitext2-2048", tmp_path / "wiki.test.raw")


def test_a_short_parquet_file_of_long_texts_is_refused(tmp_path, monkeypatch):
    """18 kB of Parquet unpacked to 2.7 GB: one text, repeated by reference."""
    (file := tmp_path / "test.parquet").touch()
    read = []
    parquet_of((read.append(1) or "x" * 4 for _ in range(10**9)), monkeypatch)
    monkeypatch.setattr(texts, "LONGEST", 10)
    with pytest.raises(sr.SparsityReportError, match="longer than 10 characters"):
        text_of("wikitext2-2048", file)
    assert len(read) == 3
    parquet_of([], monkeypatch, size=11)
    with pytest.raises(sr.SparsityReportError, match="rows unpacks to over 10 bytes"):
        text_of("wikitext2-2048", file)


def test_a_damaged_gzip_file_is_one_line(tmp_path):
    data = bytearray(gzip.compress(b"some text, and more of it"))
    data[12:20] = bytes(8)
    (tmp_path / "wiki.txt.gz").write_bytes(data)
    with pytest.raises(sr.SparsityReportError, match="cannot read the text"):
        text_of("wikitext2-2048", tmp_path / "wiki.txt.gz")


def test_a_lack_of_memory_is_not_a_fault_of_the_file(tmp_path, monkeypatch):
    def lines(_):
        raise MemoryError

    (tmp_path / "wiki.txt").touch()
    monkeypatch.setattr(texts, "_lines", lines)
    with pytest.raises(sr.SparsityReportError, match=r"wiki\.txt: memory ran out; read it on"):
        texts.read_text(tmp_path / "wiki.txt")


def test_options_outside_a_protocol_are_refused(demo, tmp_path):
    dense, small = sr.dense(demo), sr.dense(sr.load(long_llama(), name="small"))
    for variant, number, options, said in (
        (dense, 99, {"protocol": "c4"}, "no protocol 'c4'; use one of sliding, wiki"),
        (dense, 99, {"protocol": "wikitext2-2048", "window": 64, "stride": 64},
         "fixed windows; leave window and stride"),
        (dense, 5000, {"protocol": "wikitext2-2048"},
         "windows of 2,048 tokens, but the model accepts 256; use wikitext2-max"),
        (small, 2047, {"protocol": "c4-256x2048"},
         "2,047 tokens, too few for protocol c4-256x2048; give at least"),
    ):  # fmt: skip
        with pytest.raises(sr.SparsityReportError, match=said):
            sr.perplexity(variant, tokens(number), **options)
    assert sr.perplexity(small, tokens(2048), protocol="c4-256x2048").loc[0, "scored"] == 2047
    model = long_llama()
    vars(model.config)["max_position_embeddings"] = None
    with pytest.raises(sr.SparsityReportError, match="window, which its config does not state"):
        sr.perplexity(sr.dense(model), tokens(5000), protocol="wikitext2-max")
    run = command("run", "--perplexity", "--protocol", "c4", "--out", tmp_path / "out")
    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1)


def test_a_text_is_read_and_made_tokens_once(demo, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("def f():\n    return 1\n" * 9)
    made, read, tokenizer = [], [], demo.tokenizer()
    monkeypatch.setattr(texts.Path, "open", lambda *a, _o=texts.Path.open, **kw: (
        read.append(a[0].name), _o(*a, **kw))[1])  # fmt: skip

    def counted(text, **options):
        made.append(text)
        return tokenizer(text, **options)

    two = [sr.dense(sr.load(demo.module(), name=name), name=name) for name in "ab"]
    frame = sr.perplexity([*two, *two], tmp_path / "a.txt", tokenizer=counted)
    assert (len(made), read.count("a.txt")) == (1, 1)
    assert frame["variant"].tolist() == ["a", "b", "a", "b"]
    assert frame["nll"].nunique() == 1
    assert math.isfinite(frame["nll"][0])
