"""Packed weights: every format's rule says what damaged parts stand for, where it says anything."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import packing
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from unpacking import unpacked

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import damage_json, dumped, parsed
from fuzz.safetensors import NAME, damage_file, damage_header, header_of, with_header
from fuzz.truth import count, differs

OWNER, CONFIG = "layers.0.mlp.up_proj", "config.json"
LIBRARY = Path(__file__).parents[1] / "weights" / "packed" / "library.safetensors"
# Of activations: no weights, and not counted beside packed ones.
_BESIDE = "input_scale"
_PLAIN = (torch.float32, torch.float16, torch.bfloat16)
_DTYPES = [
    torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.int8,
    torch.int32, torch.int64, torch.bool, torch.uint32, torch.uint16, torch.uint64, torch.float64,
    torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e8m0fnu,
]  # fmt: skip


def library() -> dict[str, tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, Any]]]:
    """Return what libraries have packed: tensors, what they make of them again, config."""
    with safe_open(LIBRARY, "pt") as file:
        configs = json.loads(file.metadata()["configs"])
        return {
            case: (
                {
                    key.split("/")[1]: file.get_tensor(key)
                    for key in file.keys()  # noqa: SIM118
                    if key.startswith(f"{case}/") and not key.endswith("/again")
                },
                file.get_tensor(f"{case}/again"),
                config,
            )
            for case, config in configs.items()
        }


def _matrix(rows: int, columns: int) -> torch.Tensor:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)) * 0.1
    return torch.where(values.abs() < 0.05, 0.0, values)


def _base(name: str, weights: dict[str, Any], config: dict[str, Any]) -> Base:
    """Put packed weights and a norm into files."""
    tensors = {"layers.0.norm.weight": torch.ones(8)}
    truth = {}
    for owner, (leaves, means) in weights.items():
        truth[owner] = {*leaves}, (means.numel(), int((means != 0).sum()))
        tensors |= {f"{owner}{leaf}": part.contiguous() for leaf, part in leaves.items()}
    files: Files = {NAME: save(tensors, {"format": "pt"})}
    if config:
        files[CONFIG] = json.dumps({"model_type": "custom", **config}).encode()
    return Base(name, files, truth)


def _bases(_: Path) -> list[Base]:
    sizes = [(rows, columns) for rows in (32, 64, 96) for columns in (64, 128)]
    made = {
        name: way(_matrix(*sizes[place % len(sizes)]))
        for place, (name, way) in enumerate(packing.WAYS.items())
    }
    made |= {f"library {name}": case for name, case in library().items()}
    bases = [
        _base(name, {f"{OWNER}.": (leaves, means)}, config)
        for name, (leaves, means, config) in made.items()
    ]
    leaves, means, config = packing.gpt_oss(_matrix(2 * 32, 64).reshape(2, 32, 64))
    bases.append(_base("gpt-oss", {"layers.0.mlp.experts.down_proj_": (leaves, means)}, config))
    for names in (("gptq-4-v1", "awq", "nf4"), ("mxfp4", "fp8-blocks"), ("int8", "sparse-24")):
        several = {f"layers.{n}.proj.": made[name][:2] for n, name in enumerate(names)}
        bases.append(_base(" ".join(names), several, {}))
    return bases


def _values(random: Random, files: Files) -> None:
    """Change the values of one tensor: other bytes, or one number."""
    header, values = header_of(files[NAME])
    told = parsed(header)
    if not isinstance(told, dict):
        return
    places = [
        facts["data_offsets"]
        for facts in told.values()
        if isinstance(facts, dict) and isinstance(facts.get("data_offsets"), list)
    ]
    places = [p for p in places if len(p) == 2 and all(isinstance(n, int) for n in p)]
    places = [(begin, end) for begin, end in places if 0 <= begin < end <= len(values)]
    if not places:
        return
    begin, end = random.choice(places)
    old = values[begin:end]
    start = random.randrange(len(old))
    run = min(random.choice((1, 2, 4, 8, len(old))), len(old) - start)
    patch = random.choice(
        (bytes(run), b"\xff" * run, b"\x80" * run, b"\x7f" * run, random.randbytes(run))
    )
    new = old[:start] + patch + old[start + run :]
    files[NAME] = with_header(header, values[:begin] + new + values[end:])


def _loaded(files: Files) -> dict[str, torch.Tensor]:
    try:
        return load(files[NAME])
    except Exception:  # the library fails in its own ways, too
        return {}


def _tensor(random: Random, files: Files) -> None:
    """Take one tensor away, call it otherwise, cut, cast or turn it, or put one beside it."""
    if not (tensors := _loaded(files)):
        return
    key = random.choice(sorted(tensors))
    tensor, what = tensors[key], random.randrange(7)
    if what == 0:
        del tensors[key]
    elif what == 1:
        tensors[key + random.choice(("s", "_packed", ".values", "_blocks"))] = tensors.pop(key)
    elif what == 2 and tensor.dim() and tensor.shape[0]:
        tensors[key] = tensor[: random.randrange(tensor.shape[0])].clone()
    elif what == 3:
        tensors[key] = tensor.to(random.choice(_DTYPES))
    elif what == 4 and tensor.dim() == 2:
        tensors[key] = tensor.T.contiguous()
    elif what == 5:
        shape = random.choice(((), (3,), (4, 4), (2, 3, 4), (0,)))
        tensors[f"{key.rpartition('.')[0]}.more"] = torch.ones(shape).to(random.choice(_DTYPES))
    else:
        other = random.choice(sorted(tensors))
        tensors[key], tensors[other] = tensors[other], tensors[key]
    files[NAME] = save(tensors, {"format": "pt"})


def _config(random: Random, files: Files) -> None:
    """Change what the configuration says, or take it away."""
    told = parsed(files.get(CONFIG, b""))
    if told is None or random.random() < 0.05:
        files.pop(CONFIG, None)
    else:
        files[CONFIG] = dumped(damage_json(random, told))


def _state(random: Random, files: Files) -> None:
    """Change what bitsandbytes says in a tensor; of other formats some values."""
    tensors = _loaded(files)
    for key in sorted(tensors):
        state = "quant_state" in key and tensors[key].dtype == torch.uint8
        told = parsed(bytes(tensors[key].flatten().tolist())) if state else None
        if told is not None:
            text = dumped(damage_json(random, told))
            tensors[key] = torch.tensor(list(text), dtype=torch.uint8)
            files[NAME] = save(tensors, {"format": "pt"})
            return
    _values(random, files)


def expected(folder: Path, base: Base) -> dict[str, tuple[int, int]]:
    """Return values and nonzeros of what the files hold, by the rules of the formats.

    What the rules do not say is as it was before the damage.
    """
    with safe_open(folder / NAME, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.offset_keys()}
    file = folder / CONFIG
    config = json.loads(file.read_bytes()) if file.is_file() else {}
    due = {}
    for owner, (known, before) in base.truth.items():
        leaves = {
            key.removeprefix(owner): tensors.pop(key)
            for key in list(tensors)
            if key.startswith(owner)
            # What bitsandbytes tells of a weight may have any end.
            and (key.removeprefix(owner) in known or "bitsandbytes__" in key)
        }
        leaves.pop(_BESIDE, None)
        if leaves and all(part.dtype in _PLAIN for part in leaves.values()):
            # Without the codes what is left beside them are numbers like any others.
            tensors |= {owner + leaf: part for leaf, part in leaves.items()}
            continue
        try:
            values = unpacked(leaves, config)
        except Exception:  # what does not fit fails somewhere
            values = None
        due[f"{owner}weight"] = (
            before if values is None else (values.size, int(np.count_nonzero(values)))
        )
    plain = {
        key: count(part)
        for key, part in tensors.items()
        if part.is_floating_point() and not key.endswith(f".{_BESIDE}")
    }
    return due | plain


def _judge(folder: Path, base: Base) -> str:
    layers = sr.compare(sr.dense(sr.load(folder, config=False))).layers
    answer = {row.module_name: (row.total, row.nonzero) for row in layers.itertuples()}
    return differs(answer, expected(folder, base))


PACKED = Family(
    "packed", _bases,
    (_values, _values, _tensor, _tensor, _config, _config, _state, damage_header, damage_file),
    _judge, quick=40,
)  # fmt: skip
