"""How a checkpoint says its weights are packed: in ``config.json`` or in files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError, printable

# Beside config.json: of GPTQ, of AWQ and of ModelOpt.
_BESIDE = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
_MODELOPT = "hf_quant_config.json"


@dataclass(frozen=True)
class Scheme:
    """What is said of how weights are packed; nothing where nothing is.

    Attributes
    ----------
    method : str
        Such as ``"gptq"``; empty where the checkpoint says nothing.
    told : mapping
        All that is said, as it stands in the file.
    file : pathlib.Path or None
        Where it stands.
    """

    method: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    def number(self, *keys: str) -> int | None:
        """Return the first of some whole numbers that is told."""
        for key in keys:
            value = self.told.get(key)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    def weights(self) -> list[Mapping[str, Any]]:
        """Return what compressed-tensors says of weights, group by group."""
        groups = self.told.get("config_groups")
        told = [g.get("weights") for g in _mappings(groups)] if isinstance(groups, dict) else []
        return [weights for weights in told if isinstance(weights, dict)]

    def bits(self) -> list[int]:
        """Return the bits that compressed-tensors says codes have, of any group."""
        return sorted({w["num_bits"] for w in self.weights() if isinstance(w.get("num_bits"), int)})

    def group_sizes(self) -> list[int]:
        """Return how many weights are said to share a scale; -1: all of a row."""
        tables = (self.told, *self.weights())
        told = [table.get(key) for table in tables for key in ("group_size", "q_group_size")]
        return [size for size in told if isinstance(size, int)]

    def block(self) -> tuple[int, int] | None:
        """Return height and width of what shares a scale, where they are told."""
        told = [self.told.get("weight_block_size")]
        for weights in self.weights():
            group = weights.get("group_size")
            told += [weights.get("block_structure"), [1, group] if group else None]
        for block in told:
            match block:
                case [int(height), int(width)] if height > 0 < width:
                    return height, width
        return None


def _mappings(groups: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [group for group in groups.values() if isinstance(group, dict)]


def read_scheme(directory: Path) -> Scheme:
    """Read what a checkpoint says of how its weights are packed.

    ``quantization_config`` stands at the top of ``config.json`` or in its ``text_config``; older
    files say ``compression_config``, MLX says ``quantization``.
    """
    config = directory / "config.json"
    told = _json(config)
    inner = told.get("text_config")
    for holder in (told, inner if isinstance(inner, dict) else {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            if isinstance(holder.get(key), dict) and holder[key]:
                return Scheme(_method(holder[key], key), holder[key], config)
    for name, method in _BESIDE.items():
        if beside := _json(directory / name):
            return Scheme(method, beside, directory / name)
    if isinstance(modelopt := _json(directory / _MODELOPT).get("quantization"), dict):
        return Scheme("modelopt", modelopt, directory / _MODELOPT)
    return Scheme()


def _method(told: Mapping[str, Any], key: str) -> str:
    method = told.get("quant_method")
    if isinstance(method, str):
        return printable(method.lower().replace("_", "-"), 40)
    if told.get("load_in_4bit") or told.get("load_in_8bit"):
        return "bitsandbytes"
    if key == "compression_config" or "sparsity_config" in told or "config_groups" in told:
        return "compressed-tensors"
    return "mlx" if key == "quantization" or "group_size" in told else "unknown"


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SparsityReportError(f"{file} cannot be read as JSON: {error}") from error
    return told if isinstance(told, dict) else {}
