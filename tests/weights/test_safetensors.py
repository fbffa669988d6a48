"""Headers of safetensors files: what the library refuses is refused, what it reads is read."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import sparsity_report as sr
from sparsity_report.weights.sources.safetensors import read_header

ODD = st.sampled_from(
    [-1, 0, 1, 2, 7, 8, 2**31, 2**63, 2**64, 0.0, 1.5, True, None, "x", "8", [], {}, "F4", "BF16"]
)


def by_library(file):
    """Return dtype and shape of each tensor, None where the library refuses the file."""
    try:
        with safe_open(file, "pt") as opened:
            parts = {key: opened.get_slice(key) for key in opened.offset_keys()}
            return {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
    except (SafetensorError, OSError):
        return None


def by_us(file):
    try:
        return {entry.key: entry.shape for entry in read_header(file)}
    except sr.SparsityReportError as error:
        return str(error)


def write(file, header, values=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + values)


@st.composite
def damaged(draw):
    """A header of a few tensors with something in it changed, and the values after it."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for key in "abc"[: draw(st.integers(0, 3))]:
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        size = 4 * int(torch.Size(shape).numel())
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    places = [(header, key) for key in header]
    for facts in header.values():
        places += [(facts, key) for key in facts]
        places += [(v, i) for v in facts.values() if isinstance(v, list) for i in range(len(v))]
    for holder, key in draw(st.lists(st.sampled_from(places), max_size=2)) if places else ():
        if draw(st.booleans()) or isinstance(holder, list):
            holder[key] = draw(ODD)
        else:
            holder.pop(key, None)
    text = bytearray(json.dumps(header).encode())
    if draw(st.integers(0, 3)) == 0:
        text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
    return bytes(text), bytes(max(0, at + draw(st.sampled_from([0, 0, 0, 0, 1, -4, 64]))))


@settings(max_examples=200)
@given(damaged())
def test_a_damaged_header_is_refused_as_the_library_does(tmp_path_factory, given):
    file = tmp_path_factory.mktemp("x") / "x.safetensors"
    write(file, *given)
    expected, answer = by_library(file), by_us(file)
    if isinstance(answer, dict):
        assert expected is not None
        assert answer == {key: shape for key, (_, shape) in expected.items()}
    elif expected is not None:
        # Beyond what torch counts to, or of a dtype that is of another test.
        known = all(
            dtype in {"F32", "BF16"} and max(shape, default=0) < 2**63
            for dtype, shape in expected.values()
        )
        assert not known or "has a name twice" in answer


LENIENT = (
    b'{"__metadata__": {}, "__metadata__": {}}', b' {"__metadata__": {}}',
    b'{"a": {"dtype": "F32", "shape": [' + b"1, " * 64 + b'1], "data_offsets": [0, 4]}}',
)  # fmt: skip


@pytest.mark.parametrize(
    ("header", "values", "said"),
    [({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 8, "has 8"),
     ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, 8, "begin at 4, not at 0"),
     ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, 4, "takes 4 bytes for F32"),
     ({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, 1, "takes 1 bytes for F4"),
     ({"a": {"dtype": "F32", "shape": [2**40] * 3 + [0], "data_offsets": [0, 0]}}, 0,
      "too many values"),
     ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4.0]}}, 4, "not a whole number"),
     ({"a": {"dtype": "F32", "shape": [1]}}, 4, "lacks dtype"),
     ({"__metadata__": {"a": 1}}, 0, "not a mapping of texts"),
     ({"__metadata__": [1]}, 0, "not a mapping of texts"), (LENIENT[0], 0, "has a name twice"),
     (b"[]", 0, "not a JSON object"), (LENIENT[1], 0, "not a JSON object"),
     (LENIENT[2], 4, "has 65 dimensions"), (b'{"a": ' + b"[" * 10**6, 0, "too deep"),
     (b"{\xff}", 0, "UTF-8"),
     (b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b"]}}", 0, "5,000 digits"),
     ({"a": {"dtype": "F" + "9" * 5000, "shape": [1], "data_offsets": [0, 4]}}, 4, "4 bytes for"),
     (b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', 4, "not Unicode"),
     (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "x": NaN}}', 4,
      "not a number")],
)  # fmt: skip
def test_invalid_headers_are_refused(tmp_path, header, values, said):
    file = tmp_path / "x.safetensors"
    write(file, header, bytes(values))
    # What is there twice, blanks before it, which the format forbids, and what torch cannot count
    # along, the library reads.
    assert by_library(file) is None or header in LENIENT
    assert said in by_us(file)
    assert "cannot be read as safetensors" in by_us(file)


def test_a_length_beyond_the_file_or_the_limit(tmp_path):
    file = tmp_path / "x.safetensors"
    write(file, {}, length=2**63)
    assert "announces 9,223,372,036,854,775,808 bytes" in by_us(file)
    file.write_bytes(b"1234567")
    assert "it has 7 bytes" in by_us(file)
    with file.open("wb") as sparse:
        sparse.write(struct.pack("<Q", 100_000_001))
        sparse.truncate(200_000_000)
    assert by_library(file) is None
    assert "announces 100,000,001 bytes" in by_us(file)


def test_a_long_header(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({f"layers.{i}.weight": torch.full((2,), float(i)) for i in range(2000)}, file)
    weights = sr.load(file)
    assert weights.tensor("layers.1999.weight").tolist() == [1999, 1999]
    assert by_us(file) == {key: shape for key, (_, shape) in by_library(file).items()}


def test_buffers_of_older_checkpoints_are_no_parameters(tmp_path):
    """Masks and rotary tables beside the weights of a file without a config."""
    mask = torch.ones(32, 32).tril()
    weights = {"h.0.attn.c_attn.weight": torch.ones(8, 24), "h.0.attn.c_attn.bias": torch.ones(24)}
    biases = {"h.1.attn.bias": torch.ones(8), "h.2.attn.bias": torch.ones(4, 16, 16)}
    biases["h.3.attn.bias"] = torch.ones(8).to(torch.float8_e4m3fn)
    buffers = {
        "h.0.attn.bias": mask[None, None], "h.0.attn.masked_bias": torch.tensor(-1e4),
        "h.0.attention.bias": mask + 0, "h.0.attn.rotary_emb.inv_freq": torch.rand(4),
    }  # fmt: skip
    file = tmp_path / "model.safetensors"
    save_file(weights | biases | buffers, file)
    total = sr.compare(sr.dense(sr.load(file))).totals["total"][0]
    assert total == sum(t.numel() for t in (weights | biases).values())
