"""Configurations of every model type with absurd numbers: built and run in time, or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from zoo.exceptions import EXCEPTIONS
from zoo.shrink import tiny

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import dumped, parsed
from sparsity_report.weights.anatomy.meta_model import read_config

# Some in the normal run, every model type on request.
_STEP = 1 if os.environ.get("EVERY_CONFIG") else 60
_VALUES = (
    0,
    -1,
    1,
    4096,
    2**24,
    2**27,
    2**31,
    [],
    [0],
    [2**24],
    [1] * 4096,
    [4096] * 4096,
    [2] * 20_000,
)
# Bytes of the largest file without content.
_MOST = 2**40


def _bases(folder: Path) -> list[Base]:
    folder.mkdir(parents=True)
    bases = []
    for kind in [*CONFIG_MAPPING][::_STEP]:
        with suppress(Exception):  # some cannot be made of nothing, or not this small
            config = tiny(CONFIG_MAPPING[kind](), EXCEPTIONS)
            text = config.to_json_string(use_diff=False).encode()
            (folder / "config.json").write_bytes(text)
            read_config(folder)
            bases.append(Base(kind, {"config.json": text}))
    return bases


def damage_number(random: Random, files: Files) -> None:
    """Change a number, or a list of numbers, of the configuration."""
    config = parsed(files["config.json"])
    settings, name = random.choice([*numbers(config)])
    settings[name] = random.choice(_VALUES)
    files["config.json"] = dumped(config)


def numbers(settings: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the settings that are whole numbers or lists of them, with the object they are in."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from numbers(value)
        elif type(value) is int or (isinstance(value, list) and all(type(n) is int for n in value)):
            yield settings, name


def _judge(folder: Path, _: Base) -> str:
    outline = sr.load(folder, values=False)
    # The tensors of this very model, without content.
    header, end = {}, 0
    for parameter in outline.parameters:
        if parameter.tied_to is None:
            begin, end = end, end + 4 * parameter.total
            shape = list(parameter.shape)
            header[parameter.name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    if end > _MOST:
        return ""
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    weights = sr.load(folder)
    return "" if weights.architecture == outline.architecture else weights.architecture


CONFIG = Family("config", _bases, (damage_number,), _judge, steps=2, quick=20)
