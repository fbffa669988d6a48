"""GGUF files, of one model or in pieces; the format's own library says what they hold."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from helpers import finish, write_gguf

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import TEXTS, damage_bytes
from fuzz.truth import differs

NAME = "model.gguf"
# Value types 0 … 12 as struct writes them; 8 is a text, 9 a list.
_LAYOUTS = dict(zip((*range(8), 10, 11, 12), "BbHhIifBQqd", strict=True))
_TEXT, _LIST = 8, 9
_NUMBERS = (
    0, 1, 2, 3, 4, 5, 7, 8, 31, 33, 64, 255, 256, 4095, 65536, 10**6, 2**28, 10**9, 2**31 - 1,
    2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -32,
)  # fmt: skip
_FLOATS = (0.0, -0.0, 0.5, -1.0, 2.5, 1e30, float("nan"), float("inf"), float("-inf"))
_ARCHITECTURES = (
    "llama", "qwen2moe", "gpt2", "mamba", "gemma2", "t5", "lfm2", "qwen35", "falcon", "deci",
    "gpt-oss", "bloom", "mystery",
)  # fmt: skip
_KEYS = (
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "expert_count",
    "expert_used_count", "expert_feed_forward_length", "expert_shared_feed_forward_length",
    "rope.dimension_count", "rope.freq_base", "attention.layer_norm_rms_epsilon",
    "attention.sliding_window", "attention.causal", "full_attention_interval", "ssm.conv_kernel",
)  # fmt: skip
_GENERAL = (
    "general.alignment", "general.architecture", "general.name", "split.no", "split.count",
    "split.tensors.count", "tokenizer.ggml.tokens", "tokenizer.ggml.padding_token_id",
    "tokenizer.chat_template",
)  # fmt: skip


@dataclass
class Layout:
    """What a file says, one thing after the other.

    Attributes
    ----------
    pairs : list of [name, type, value]
        A list is ``(type, values)``; what is announced of it or of a text is what there is, unless
        it stands in `lies`.
    tensors : list of [name, dimensions, type, offset]
    values : bytes
        What follows, aligned.
    lies : dict
        Lengths and counts that are not so, by the place where they are announced.
    """

    version: int
    pairs: list[list[Any]]
    tensors: list[list[Any]]
    values: bytes
    lies: dict[str, int] = field(default_factory=dict)


def parted(data: bytes) -> Layout:
    """Take a whole file apart.

    Raises
    ------
    ValueError, struct.error
        It is not whole.
    """
    place = 0

    def numbers(layout: str) -> tuple[Any, ...]:
        nonlocal place
        told = struct.unpack_from(f"<{layout}", data, place)
        place += struct.calcsize(f"<{layout}")
        return told

    def text() -> bytes:
        nonlocal place
        (length,) = numbers("Q")
        place += length
        if place > len(data):
            raise ValueError("a text beyond the end")
        return data[place - length : place]

    def value(kind: int) -> Any:
        if kind == _TEXT:
            return text()
        if kind == _LIST:
            inner, count = numbers("IQ")
            if count > len(data):
                raise ValueError("a list beyond the end")
            return inner, [value(inner) for _ in range(count)]
        if kind not in _LAYOUTS:
            raise ValueError("no such type")
        return numbers(_LAYOUTS[kind])[0]

    magic, version, count, pairs = numbers("4sIQQ")
    if magic != b"GGUF" or count > len(data) or pairs > len(data):
        raise ValueError("no such file")
    told, tensors = [], []
    for _ in range(pairs):
        name, (kind,) = text(), numbers("I")
        told.append([name, kind, value(kind)])
    for _ in range(count):
        name, (dimensions,) = text(), numbers("I")
        tensors.append([name, list(numbers(f"{dimensions % 64}Q")), *numbers("IQ")])
    return Layout(version, told, tensors, data[-(-place // 32) * 32 :])


def joined(layout: Layout) -> bytes:
    """Put a file together; a number that is too large for its place loses its high bits."""
    lies = layout.lies

    def number(kind: int, value: Any) -> bytes:
        letter = _LAYOUTS[kind]
        if letter in "fd":
            try:
                return struct.pack(f"<{letter}", value)
            except OverflowError:
                return struct.pack(f"<{letter}", float("inf"))
        size = struct.calcsize(f"<{letter}")
        whole = int(value) if value == value and abs(value) != float("inf") else 0
        return (whole % 2 ** (8 * size)).to_bytes(size, "little")

    def text(value: bytes, place: str = "") -> bytes:
        return number(10, lies.get(place, len(value))) + value

    def written(kind: int, value: Any, place: str = "") -> bytes:
        if kind == _TEXT:
            return text(value, place)
        if kind == _LIST:
            inner, items = value
            count = lies.get(place, len(items))
            return number(4, inner) + number(10, count) + b"".join(written(inner, i) for i in items)
        return number(kind, value) if kind in _LAYOUTS else b""

    head = b"GGUF" + number(4, layout.version)
    head += number(10, lies.get("tensors", len(layout.tensors)))
    head += number(10, lies.get("pairs", len(layout.pairs)))
    for index, (name, kind, value) in enumerate(layout.pairs):
        head += text(name, f"name {index}") + number(4, kind) + written(kind, value, f"{index}")
    for index, (name, shape, kind, offset) in enumerate(layout.tensors):
        head += text(name, f"tensor {index}")
        head += number(4, lies.get(f"dimensions {index}", len(shape)))
        head += b"".join(number(10, n) for n in shape) + number(4, kind) + number(10, offset)
    return head + bytes(-len(head) % 32) + layout.values


def _other_value(random: Random, kind: int, value: Any) -> tuple[int, Any]:
    """Return a value that hurts, mostly of the same type."""
    if random.random() < 0.3:
        kind = random.choice((*_LAYOUTS, _TEXT, _LIST, 13))
    if kind == _TEXT:
        texts = (*TEXTS, *_ARCHITECTURES)
        raw = random.choice(texts).encode("utf-8", "surrogatepass")
        return kind, random.choice((raw, raw[:-1] + b"\xff", b"\xc3"))
    if kind == _LIST:
        inner = random.choice((0, 4, 5, 6, 7, 8, 9))
        if inner == _TEXT:
            return kind, (inner, [b"", b"a", b"\xff"][: random.randrange(4)])
        if inner == _LIST:
            nested: Any = (4, [1, 2])
            for _ in range(random.choice((1, 3, 5, 300))):
                nested = (_LIST, [nested])
            return kind, nested
        return kind, (inner, [random.choice((0, 1, 2, 8, 255)) for _ in range(random.randrange(5))])
    if kind in {6, 12}:
        return kind, random.choice(_FLOATS)
    if isinstance(value, int) and random.random() < 0.3:
        return kind, random.choice((value + 1, value - 1, value * 2, value // 2, -value))
    return kind, random.choice(_NUMBERS)


def _change_pair(random: Random, layout: Layout) -> None:
    pairs = layout.pairs
    if not pairs:
        return
    place = random.randrange(len(pairs))
    what = random.randrange(8)
    architecture = next((v for k, _, v in pairs if k == b"general.architecture"), b"llama")
    if what < 4:
        pairs[place] = [pairs[place][0], *_other_value(random, *pairs[place][1:])]
    elif what == 4:
        pairs.insert(random.randrange(len(pairs) + 1), list(pairs[place]))
    elif what == 5:
        del pairs[place]
    elif what == 6:
        prefix = architecture if isinstance(architecture, bytes) else b"llama"
        names = [*_GENERAL, *(f"{prefix.decode('latin1')}.{key}" for key in _KEYS)]
        pairs.append([random.choice(names).encode(), *_other_value(random, 4, 8)])
    else:
        pairs[place][0] = random.choice(TEXTS).encode("utf-8", "surrogatepass")


def _change_tensor(random: Random, layout: Layout) -> None:
    tensors = layout.tensors
    if not tensors:
        return
    place, other = (random.randrange(len(tensors)) for _ in range(2))
    name, shape, kind, offset = tensors[place]
    what = random.randrange(9)
    if what == 0:
        old = random.choice((name, tensors[other][0]))
        names = (
            tensors[other][0], old.replace(b"blk.0", b"blk.1"), old.replace(b"blk.0", b"blk.77"),
            old.replace(b"weight", b"bias"), old.replace(b"weight", b"scale"), b"output.weight",
            b"blk." + b"9" * random.choice((3, 30, 5000)) + b".ffn_up.weight", b"rope_freqs.weight",
            random.choice(TEXTS).encode("utf-8", "surrogatepass"), name + b"\xff", name[:-1],
        )  # fmt: skip
        tensors[place][0] = random.choice(names)
    elif what == 1 and shape:
        axis = random.randrange(len(shape))
        n = shape[axis]
        shape[axis] = random.choice((*_NUMBERS, n + 1, n - 1, n * 2, n // 2))
    elif what == 2:
        tensors[place][1] = random.choice((shape[::-1], [*shape, 1], shape[:-1], [1] * 70, []))
    elif what == 3:
        tensors[place][2] = random.choice((*range(45), 2**31, 2**32 - 1))
    elif what == 4:
        n = tensors[other][3]
        tensors[place][3] = random.choice((*_NUMBERS, n, offset + 1, offset + 32, offset - 32))
    elif what == 5:
        del tensors[place]
    elif what == 6:
        tensors.insert(other, [name, list(shape), kind, offset])
    elif what == 7:
        tensors[place], tensors[other] = tensors[other], tensors[place]
    else:
        # Where a tensor becomes another one, what follows does not fit any more, or still does.
        tensors[place][1], tensors[place][2] = list(tensors[other][1]), tensors[other][2]


def _lie(random: Random, layout: Layout) -> None:
    places = ["tensors", "pairs"]
    places += [f"{word}{n}" for n in range(len(layout.pairs)) for word in ("name ", "")]
    places += [f"{w} {n}" for n in range(len(layout.tensors)) for w in ("tensor", "dimensions")]
    layout.lies[random.choice(places)] = random.choice(_NUMBERS)


def _change_rest(random: Random, layout: Layout) -> None:
    what = random.randrange(4)
    if what == 0:
        layout.version = random.choice((0, 1, 2, 3, 4, 2**24 * 3, 2**16, 2**32 - 1))
    elif what == 1:
        layout.values = layout.values[: random.randrange(len(layout.values) + 1)]
    elif what == 2:
        layout.values += random.randbytes(random.choice((1, 31, 32, 4096)))
    else:
        layout.values = damage_bytes(random, layout.values)[: len(layout.values)]


def _any(random: Random, files: Files) -> str:
    return random.choice([name for name, data in files.items() if isinstance(data, bytes)])


def _layout(random: Random, files: Files) -> None:
    """Change one thing that a file says, everything else as it was."""
    name = _any(random, files)
    try:
        layout = parted(files[name])
    except (ValueError, struct.error, RecursionError, MemoryError):
        return
    change: Callable[[Random, Layout], None] = random.choice(
        (_change_pair, _change_pair, _change_tensor, _change_tensor, _lie, _change_rest)
    )
    change(random, layout)
    files[name] = joined(layout)


def _bytes(random: Random, files: Files) -> None:
    """Change some bytes, mostly of the header."""
    name = _any(random, files)
    data = files[name]
    size = len(data) // 3 if random.random() < 0.7 else len(data)
    files[name] = damage_bytes(random, data[:size]) + data[size:]


def _files(random: Random, files: Files) -> None:
    """Change which files there are."""
    name = _any(random, files)
    what = random.randrange(5)
    if what == 0:
        files[name] = random.choice((b"", b"GGUF", files[name][:24], bytes(100)))
    elif what == 1 and len(files) > 1:
        del files[name]
    elif what == 2:
        files["x-00002-of-00003.gguf"] = files[name]
    elif what == 3:
        files[random.choice(("other.gguf", "x-00001-of-99999.gguf"))] = files[name]
    else:
        files["config.json"] = b'{"model_type": "llama"}'


def _values(*shape: int) -> np.ndarray:
    drawn = np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)
    return np.where(abs(drawn) < 0.4, np.float32(0), drawn)


def _random(kind: Kind, rows: int = 4) -> tuple[np.ndarray, Kind]:
    """Blocks of a kind that the library decodes and does not encode."""
    size = 256 // gguf.GGML_QUANT_SIZES[kind][0] * gguf.GGML_QUANT_SIZES[kind][1]
    raw = np.random.default_rng(kind).integers(0, 64, (rows, size), np.uint8)
    return raw, kind


def _block(number: int, d: int, q: int, kv: int) -> dict[str, tuple[np.ndarray, Kind | None]]:
    stem = f"blk.{number}"
    return {
        f"{stem}.attn_norm.weight": (_values(d), None),
        f"{stem}.attn_q.weight": (_values(q, d), Kind.Q8_0),
        f"{stem}.attn_k.weight": (_values(kv, d), Kind.Q4_0),
        f"{stem}.attn_v.weight": (_values(kv, d), Kind.F16),
        f"{stem}.attn_output.weight": (_values(d, q), Kind.MXFP4),
        f"{stem}.ffn_norm.weight": (_values(d), None),
    }


_SIZES = {
    "context_length": 64, "embedding_length": 32, "head_count": 4, "head_count_kv": 2,
    "vocab_size": 16, "layer_norm_rms_eps": 1e-5, "token_list": [[f"t{n}" for n in range(16)]],
    "pad_token_id": 0,
}  # fmt: skip


def _llama(path: Path) -> None:
    tensors = {"token_embd.weight": (_values(16, 32), Kind.F16)}
    for block in range(2):
        tensors |= _block(block, 32, 32, 16)
        tensors |= {
            f"blk.{block}.ffn_gate.weight": (_values(64, 32), Kind.Q4_0),
            f"blk.{block}.ffn_up.weight": (_values(64, 32), Kind.Q5_1),
            f"blk.{block}.ffn_down.weight": (_values(32, 64), Kind.BF16),
        }
    tensors |= {
        "output_norm.weight": (_values(32), None), "output.weight": (_values(16, 32), Kind.Q8_0),
    }  # fmt: skip
    write_gguf(path, tensors, "llama", block_count=2, feed_forward_length=64, **_SIZES)


def _experts(path: Path) -> None:
    tensors = {"token_embd.weight": (_values(16, 32), None), **_block(0, 32, 32, 16)}
    tensors |= {
        f"blk.0.attn_{word}.bias": (_values(size), None)
        for word, size in (("q", 32), ("k", 16), ("v", 16))
    }
    tensors |= {
        "blk.0.ffn_gate_inp.weight": (_values(4, 32), None),
        "blk.0.ffn_gate_exps.weight": (_values(4, 32, 32), Kind.Q4_0),
        "blk.0.ffn_up_exps.weight": (_values(4, 32, 32), Kind.Q8_0),
        "blk.0.ffn_down_exps.weight": (_values(4, 32, 32), Kind.Q8_0),
        "blk.0.ffn_gate_inp_shexp.weight": (_values(32), None),
        "blk.0.ffn_gate_shexp.weight": (_values(64, 32), None),
        "blk.0.ffn_up_shexp.weight": (_values(64, 32), Kind.F16),
        "blk.0.ffn_down_shexp.weight": (_values(32, 64), None),
        "output_norm.weight": (_values(32), None), "output.weight": (_values(16, 32), None),
    }  # fmt: skip
    write_gguf(
        path, tensors, "qwen2moe", block_count=1, feed_forward_length=64, expert_count=4,
        expert_used_count=2, expert_feed_forward_length=32, expert_shared_feed_forward_length=64,
        **_SIZES,
    )  # fmt: skip


def _kinds(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "mystery")
    writer.add_expert_count(4)
    writer.add_expert_used_count(3)
    writer.add_block_count(3)
    for number, kind in enumerate((Kind.Q2_K, Kind.Q4_K, Kind.Q6_K, Kind.IQ4_XS, Kind.TQ2_0)):
        raw, _ = _random(kind)
        writer.add_tensor(f"blk.{number % 3}.ffn_{number}.weight", raw, raw_dtype=kind)
    writer.add_tensor("blk.1.ffn_up_exps.weight", _values(4, 8, 8))
    writer.add_tensor("blk.2.sinks", _values(7).astype(np.float64))
    finish(writer)


def _pieces(folder: Path) -> Files:
    for number, words in enumerate((("up", "gate"), ("down",))):
        write_gguf(
            folder / f"x-{number + 1:05}-of-00002.gguf",
            {f"blk.{number}.ffn_{word}.weight": (_values(6, 64), Kind.Q5_1) for word in words},
            "mystery", uint16=[("split.no", number), ("split.count", 2)],
            int32=("split.tensors.count", 3),
        )  # fmt: skip
    return {file.name: file.read_bytes() for file in sorted(folder.glob("x-*"))}


def _bases(folder: Path) -> list[Base]:
    folder.mkdir(parents=True, exist_ok=True)
    bases = []
    for write in (_llama, _experts, _kinds):
        write(folder / NAME)
        bases.append(Base(write.__name__.strip("_"), {NAME: (folder / NAME).read_bytes()}))
    return [*bases, Base("pieces", _pieces(folder))]


def by_library(file: Path) -> dict[str, tuple[int, int]]:
    """Return values and nonzeros of each tensor as the library has them."""
    counts = {}
    for tensor in gguf.GGUFReader(file).tensors:
        plain = tensor.tensor_type.name.startswith(("I8", "I16", "I32", "I64", "F64"))
        with np.errstate(all="ignore"):
            values = tensor.data if plain else gguf.dequantize(tensor.data, tensor.tensor_type)
        name = tensor.name if tensor.name.endswith((".weight", ".bias")) else f"{tensor.name}.x"
        counts[name] = int(tensor.n_elements), int(np.count_nonzero(values))
    return counts


def _judge(folder: Path, _: Base) -> str:
    study = sr.compare(sr.dense(sr.load(folder)))
    layers = study.layers[study.layers["tied_to"].isna()]
    if (layers[["flops_per_token", "total", "nonzero", "stored_bytes"]] < 0).any(axis=None):
        return f"a negative number: {layers.to_dict('records')}"
    if (study.totals["active_total"] > study.totals["total"]).any():
        return "more is used than there is"
    answer = {row.module_name: (row.total, row.nonzero) for row in layers.itertuples()}
    tensors: dict[str, tuple[int, int]] = {}
    for file in folder.glob("*.gguf"):
        try:
            tensors |= by_library(file)
        except Exception as error:  # it fails in as many ways as there is damage
            return f"the library refuses what is counted: {error!r}"
    # In a model of transformers the experts of a block are one module, and rotary tables none.
    known = {
        re.sub(r"(blk\.\d+)\.(ffn_\w+_exps)\.", r"\1.\2_", name): counts
        for name, counts in tensors.items()
        if not name.startswith("rope_")
    }
    return (said := differs(answer, tensors)) and differs(answer, known) and said


GGUF = Family("gguf", _bases, (_layout, _layout, _layout, _bytes, _files), _judge, quick=40)
