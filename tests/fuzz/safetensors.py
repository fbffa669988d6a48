"""One safetensors file; the format's own library says which are whole and what they hold."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fuzz.family import Base, Family, Files
from fuzz.mutators import damage_bytes, damage_json, dumped, parsed
from fuzz.truth import count, counted, differs, parameters

NAME = "model.safetensors"
# Dtypes of the same width, which the same bytes may be of.
_TWINS = {"F16": "BF16", "BF16": "F16", "F8_E4M3": "F8_E5M2", "F8_E5M2": "F8_E4M3"}


def header_of(data: bytes) -> tuple[bytes, bytes]:
    """Part a file into its header and what follows."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    return data[8 : 8 + length], data[8 + length :]


def with_header(header: bytes, values: bytes) -> bytes:
    """Put a file together, the length of its header as it is."""
    return struct.pack("<Q", len(header)) + header + values


def some_zero(random: Random, data: bytes) -> bytes:
    """Make up to sixteen float32 values of a file zero."""
    start = 8 + int.from_bytes(data[:8], "little")
    if start >= len(data):
        return data
    place = start + random.randrange((len(data) - start) // 4 + 1) * 4
    return data[:place] + bytes(min(64, len(data) - place)) + data[place + 64 :]


def damage_header(random: Random, files: Files, name: str = NAME) -> None:
    """Change one thing that the header of a safetensors file says."""
    header, values = header_of(files[name])
    if (told := parsed(header)) is not None:
        files[name] = with_header(dumped(damage_json(random, told)), values)


def damage_file(random: Random, files: Files, name: str = NAME) -> None:
    """Change some bytes, mostly of the header."""
    data = files[name]
    if random.random() < 0.6:
        header, values = header_of(data)
        files[name] = with_header(damage_bytes(random, header), values)
    else:
        files[name] = damage_bytes(random, data)


def change_validly(random: Random, files: Files, name: str = NAME) -> None:
    """Change a safetensors file into another that is whole: other names, order, shapes, values."""
    header, values = header_of(files[name])
    told = parsed(header)
    try:
        tensors = {
            key: (facts, values[slice(*facts["data_offsets"])])
            for key, facts in told.items()
            if key != "__metadata__"
        }
        key = random.choice(list(tensors))
        kind = random.randrange(9)
        _changed(random, tensors, key, kind)
        order = list(tensors)
        if kind == 5:
            random.shuffle(order)
        written, at = {}, 0
        for each in order:
            facts, raw = tensors[each]
            written[each] = {**facts, "data_offsets": [at, at + len(raw)]}
            at += len(raw)
        if kind == 6:
            written["__metadata__"] = {"format": "pt", "by": "x" * random.randrange(20)}
        text = dumped(dict(random.sample(list(written.items()), len(written))))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        return  # it was damaged before
    padded = text + b" " * (-len(text) % random.choice((1, 8, 64)))
    files[name] = with_header(padded, b"".join(tensors[each][1] for each in order))


def _changed(random: Random, tensors: dict[str, Any], key: str, kind: int) -> None:
    facts, raw = tensors[key]
    shape = facts["shape"]
    if kind == 0:
        word = random.choice(("0", "weight", "é", "layers.7", "mlp.down_proj", " ", "x" * 60))
        tensors[f"{word}.{key}"] = tensors.pop(key)
    elif kind == 1:
        tensors[key] = ({**facts, "shape": random.choice(_shapes(shape))}, raw)
    elif kind == 2:
        start = random.randrange(len(raw) + 1)
        end = min(len(raw), start + random.choice((1, 4, 64)))
        tensors[key] = (facts, raw[:start] + random.randbytes(end - start) + raw[end:])
    elif kind == 3:
        start = random.randrange(len(raw) + 1)
        tensors[key] = (facts, raw[:start] + bytes(len(raw) - start))
    elif kind == 4 and facts["dtype"] in _TWINS:
        tensors[key] = ({**facts, "dtype": _TWINS[facts["dtype"]]}, raw)
    elif kind == 7:
        tensors[key + random.choice(("_orig", ""))] = tensors.pop(key)
        bools = {**facts, "dtype": "BOOL"}, bytes(math.prod(shape))
        tensors[f"{key}_mask"] = random.choice(((facts, raw), bools))
    elif kind == 8:
        tensors[f"h.0.attn.{random.choice(('bias', 'masked_bias'))}"] = tensors.pop(key)


def _shapes(shape: list[int]) -> list[list[int]]:
    """Return other shapes of as many values."""
    return [shape[::-1], [math.prod(shape)], [1, *shape], [*shape, 1], [1, math.prod(shape), 1]]


def by_library(file: Path) -> dict[str, tuple[int, int]] | None:
    """Return values and nonzeros of each parameter as the library has it; None if it refuses."""
    try:
        with safe_open(file, "pt") as opened:
            held = {key: opened.get_tensor(key) for key in opened.offset_keys()}
            return {key: count(part) for key, part in parameters(held).items()}
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError):
        return None


def _masked(values: Callable[..., torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what is left of a mask, and buffers as older classes saved them."""
    return {
        "h.0.mlp.c_fc.weight": values(8, 4) * values(8, 4).sign(),
        "h.0.attn.bias": torch.ones(1, 1, 16, 16).tril(),
        "h.0.attn.masked_bias": torch.tensor(-1e4), "h.0.attn.rotary_emb.inv_freq": torch.rand(4),
    }  # fmt: skip


def _bases(_: Path) -> list[Base]:
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        drawn = torch.randn(shape, generator=generator)
        return torch.where(drawn.abs() < 0.4, 0.0, drawn).to(dtype)

    plain = {
        "layers.0.mlp.up_proj.weight": values(8, 4), "layers.0.mlp.up_proj.bias": values(8),
        "layers.1.mlp.up_proj.weight": values(8, 4, dtype=torch.bfloat16),
        "norm.weight": torch.ones(4),
    }  # fmt: skip
    dtypes = (torch.float64, torch.float16, torch.float8_e4m3fn)
    many = {f"model.layers.{n}.x.weight": values(2, 6, dtype=d) for n, d in enumerate(dtypes)}
    return [
        Base("plain", {NAME: save(plain, {"format": "pt"})}),
        Base("masks", {NAME: save(_masked(values), {"format": "pt"})}),
        Base("dtypes", {NAME: save({**many, "empty.weight": values(0, 3), "one.gain": values()})}),
    ]


def _judge(folder: Path, _: Base) -> str:
    answer = counted(folder / NAME)
    expected = by_library(folder / NAME)
    if expected is None:
        return f"the library refuses what is counted as {answer}"
    return differs(answer, expected)


SAFETENSORS = Family(
    "safetensors", _bases,
    (change_validly, change_validly, change_validly, damage_header, damage_header, damage_file),
    _judge,
)  # fmt: skip
