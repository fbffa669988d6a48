"""A GGUF file is checked before anything is built from it, or shown to a library."""

import struct

import pytest
from fuzz.gguf import GGUF, joined, parted
from helpers import refused
from transformers import AutoConfig

import sparsity_report as sr
from sparsity_report.untrusted import limits
from sparsity_report.weights.sources import gguf_decided

LIST, TEXT, INT32, UINT32, FLOAT32, BOOL, UINT64 = 9, 8, 5, 4, 6, 7, 10


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {base.name: base.files for base in GGUF.bases(tmp_path_factory.mktemp("bases"))}


@pytest.fixture
def load(bases, tmp_path):
    """Open an intact file in which one thing was changed."""

    def opened(change, base="llama"):
        layout = parted(bases[base]["model.gguf"])
        change(layout)
        (tmp_path / "model.gguf").write_bytes(joined(layout))
        return sr.load(tmp_path / "model.gguf")

    return opened


def fact(key, kind, value):
    """Say something else, or more."""

    def change(layout):
        layout.pairs = [pair for pair in layout.pairs if pair[0] != key.encode()]
        layout.pairs.append([key.encode(), kind, value])

    return change


def tensor(place, part, value):
    def change(layout):
        layout.tensors[place][part] = value

    return change


def lie(**lies):
    return lambda layout: layout.lies.update(lies)


NAME, SHAPE, OFFSET = 0, 1, 3
# Which fact is the list of words.
WORDS = "9"
WRONG = {
    "a fact twice": (lambda f: f.pairs.append(f.pairs[0]), "'general.architecture' is there twice"),
    "a tensor twice": (tensor(1, NAME, b"token_embd.weight"), "two tensors have the name"),
    "blocks without end": (
        fact("llama.block_count", UINT32, 10**9), "block_count is 1000000000, not a whole number",
    ),
    "fewer than no blocks": (fact("llama.block_count", INT32, -1), "block_count is -1, not a"),
    "blocks and a half": (fact("llama.block_count", FLOAT32, 2.5), r"block_count is 2\.5, not a"),
    "true blocks": (fact("llama.block_count", BOOL, 1), "block_count is true, not a whole"),
    "blocks in words": (fact("llama.block_count", TEXT, b"2"), 'block_count is "2", not a whole'),
    "heads by block, one negative": (
        fact("llama.attention.head_count_kv", LIST, (INT32, [2, -2])), "head_count_kv is -2, not",
    ),
    "experts by block": (
        lambda f: [fact(f"llama.expert_{word}count", LIST, (UINT32, [2, 2]))(f)
                   for word in ("", "used_")], r"expert_used_count is \[2, 2\], not a whole",
    ),
    "width beyond any": (
        fact("llama.embedding_length", UINT32, 2**25), "embedding_length is 33554432, not",
    ),
    "words beyond any": (fact("llama.vocab_size", UINT64, 2**40), "vocab_size is 1099511627776"),
    "an architecture that is a number": (
        fact("general.architecture", UINT32, 5), "general.architecture is not text",
    ),
    "an architecture that is no Unicode": (
        fact("general.architecture", TEXT, b"ll\xff"), "can't decode byte 0xff",
    ),
    "an alignment that is none": (fact("general.alignment", UINT32, 24), "is not a power of two"),
    "a true alignment": (fact("general.alignment", BOOL, 1), "is of value type 7, not 4"),
    "an alignment of 64 bits": (fact("general.alignment", UINT64, 32), "of value type 10, not 4"),
    "a number of shards in 32 bits": (fact("split.count", UINT32, 1), "of value type 4, not 2"),
    "the vocabulary as its size": (
        fact("tokenizer.ggml.tokens", UINT32, 16), "tokens' is of value type 4, not 9",
    ),
    "the vocabulary as numbers": (
        fact("tokenizer.ggml.tokens", LIST, (UINT32, [1, 2])), "is an array of value type 4",
    ),
    "causal in words": (fact("llama.attention.causal", TEXT, b"no"), "of value type 8, not 7"),
    "a truth that is 2": (fact("llama.x", BOOL, 2), "neither 0 nor 1"),
    "lists in lists": (fact("llama.x", LIST, (LIST, [(UINT32, [1])])), "array of value type 9"),
    "a name of 70,000": (tensor(0, NAME, b"x" * 70_000), "a name of 70,000 bytes"),
    "a name that is no Unicode": (tensor(0, NAME, b"\xc3("), "can't decode"),
    "five dimensions": (tensor(0, SHAPE, [32, 16, 1, 1, 1]), "has 5 dimensions"),
    "no values": (tensor(0, SHAPE, [32, 0]), r"the shape \(0, 32\)"),
    "values beyond 64 bits": (tensor(0, SHAPE, [2**40, 2**40]), "the shape "),
    "values beyond 64 bits of none": (tensor(0, SHAPE, [2**63, 0]), "the shape "),
    "half a block": (tensor(2, SHAPE, [33, 32]), "are not whole blocks"),
    "values upon values": (tensor(2, OFFSET, 0), "begin at 0, not at 1,152"),
    "values after a gap": (tensor(2, OFFSET, 2304), "begin at 2,304, not at 1,152"),
    "values that are not aligned": (tensor(2, OFFSET, 1153), "begin at 1,153, not at"),
    "values beyond the file": (
        lambda f: setattr(f, "values", f.values[:-1]), "'output.weight' does not fit the file",
    ),
    "tensors without end": (lie(tensors=2**60), "announces 1,152,921,504,606,846,976 tensors"),
    "facts without end": (lie(pairs=2**60), "1,152,921,504,606,846,976 metadata pairs"),
    "a key without end": (lie(**{"name 0": 2**62}), "a name of 4,611,686,018,427,387,904 bytes"),
    "a list without end": (lie(**{WORDS: 2**40}), "announces 8,796,093,022,208 bytes"),
    "version 1": (lambda f: setattr(f, "version", 1), "of version 2 or 3 .*version 1"),
    "the other byte first": (lambda f: setattr(f, "version", 3 << 24), "not a little-endian"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_impossible_headers_are_refused_in_one_line(case, load, tmp_path):
    change, match = WRONG[case]
    with pytest.raises(sr.SparsityReportError, match=match) as caught:
        load(change)
    assert str(caught.value).startswith(str(tmp_path / "model.gguf"))
    assert "\n" not in str(caught.value)


def test_more_blocks_than_there_are_tensors_for(load):
    with pytest.raises(sr.SparsityReportError, match=r"9 tensor.* first 'model\.layers\.2\."):
        load(fact("llama.block_count", UINT32, 3))
    weights = load(fact("llama.block_count", UINT32, 4096))
    assert weights.architecture == ""
    assert "far more than the files have tensors" in weights.notes[0]


@pytest.mark.parametrize(("used", "held"), [(5, 4), (0, 4), (2**31, 4), (1, 0)])
def test_no_more_experts_are_used_than_there_are(used, held, load):
    def change(layout):
        fact("mystery.expert_count", UINT32, held)(layout)
        fact("mystery.expert_used_count", UINT32, used)(layout)

    with pytest.raises(sr.SparsityReportError, match=r"experts are used|not a whole number"):
        load(change, "kinds")


def test_bytes_that_announce_more_than_they_are(tmp_path):
    path = tmp_path / "model.gguf"
    for raw in (
        b"", b"GGUF", struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**60),
        struct.pack("<4sIQQQ1sIIQ", b"GGUF", 3, 0, 1, 1, b"x", LIST, TEXT, 2**60),
        struct.pack("<4sIQQQ1sIIQ", b"GGUF", 3, 0, 1, 1, b"x", LIST, UINT32, 2**60),
    ):  # fmt: skip
        path.write_bytes(raw)
        for opened in (path, tmp_path) if raw else (tmp_path,):
            refused(r"as GGUF: .*announces", opened)


def test_a_file_that_may_not_be_read(monkeypatch, load, tmp_path):
    load(lambda _: None)

    def closed(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sparsity_report.weights.tensor_slices.open_file", closed)
    refused("cannot be read: Permission denied", tmp_path / "model.gguf")


def test_heads_that_do_not_divide_a_matrix_are_refused(load):
    """The values of an attention are put in order by heads, which may be any number of them."""

    def change(layout):
        for key, value in {"head_count": 32, "head_count_kv": 16}.items():
            fact(f"llama.attention.{key}", UINT32, value)(layout)
        fact("llama.rope.dimension_count", UINT32, 1)(layout)

    weights = load(change)
    with pytest.raises(sr.SparsityReportError, match="does not fit the number of heads"):
        sr.compare(sr.dense(weights))


def test_no_library_sees_the_file(monkeypatch, load, tmp_path):
    """Transformers reads a header that is written anew, of what was checked."""
    seen = []

    def watched(folder, gguf_file, **options):
        seen.append((tmp_path.joinpath(folder), (tmp_path / folder / gguf_file).read_bytes()))
        return original(folder, gguf_file=gguf_file, **options)

    original = AutoConfig.from_pretrained
    monkeypatch.setattr(AutoConfig, "from_pretrained", watched)
    monkeypatch.setattr(gguf_decided, "configuration_of", lambda _: None)  # as of other classes

    def change(layout):
        # Each of these ended or busied a reader.
        layout.pairs.append([b"general.description", TEXT, b"\xff\xfe"])
        layout.pairs.append([b"tokenizer.chat_template", TEXT, b"{{ x }}" * 10_000])
        layout.pairs.append([b"tokenizer.ggml.scores", LIST, (FLOAT32, [0.5] * 10_000)])

    weights = load(change)
    assert weights.architecture == "LlamaForCausalLM"
    ((folder, raw),) = seen
    assert folder != tmp_path
    assert len(raw) < 3000
    assert b"{{ x }}" not in raw
    assert raw.count(b"blk.") == 9  # one of each kind
    assert not folder.exists()


def test_too_many_kinds_of_tensors_are_described_by_names(monkeypatch, load):
    monkeypatch.setattr(limits, "BLOCKS", 8)
    monkeypatch.setattr(gguf_decided, "configuration_of", lambda _: None)
    weights = load(lambda _: None)
    assert "names alone: it holds 12 kinds of tensors" in str(weights.notes[0])
    assert len(weights.modules) == 21


def test_a_vocabulary_of_more_words_than_any(monkeypatch, load):
    monkeypatch.setattr(limits, "GGUF_TEXTS", 15)
    with pytest.raises(sr.SparsityReportError, match="lists of more than 15 texts"):
        load(lambda _: None)


def test_infinite_block_scales_print_no_warning(load):
    def change(layout):
        # The first attention's blocks, from where they are to where they end.
        layout.values = layout.values[:1152] + b"\xff\x7f" * 544 + layout.values[2240:]

    layers = sr.compare(sr.dense(load(change))).layers.set_index("module_name")
    assert layers.loc["model.layers.0.self_attn.q_proj", "total"] == 1024
