"""How a checkpoint says its weights are packed: in ``config.json`` or in files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, read_json

# Beside config.json: of GPTQ, of AWQ and of ModelOpt.
_BESIDE = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
_MODELOPT = "hf_quant_config.json"
_TEXTS = ("quant_method", "format", "checkpoint_format")
# Bits of a code, and weights that share a scale: fewer than none are told from what is no number.
_NUMBERS = {
    **dict.fromkeys(("bits", "w_bit", "num_bits"), (1, 64)),
    **dict.fromkeys(("group_size", "q_group_size"), (-limits.WIDTH, limits.WIDTH)),
}


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
            if (value := self.told.get(key)) is not None:
                return int(value)
        return None

    def weights(self) -> list[Mapping[str, Any]]:
        """Return what compressed-tensors says of weights, group by group."""
        groups = (self.told.get("config_groups") or {}).values()
        # A group may be a list of the modules that one of its presets is for.
        return [g["weights"] for g in groups if isinstance(g, dict) and g.get("weights")]

    def bits(self) -> list[int]:
        """Return the bits that compressed-tensors says codes have, of any group."""
        told = (weights.get("num_bits") for weights in self.weights())
        return sorted({bits for bits in told if isinstance(bits, int)})

    def group_sizes(self) -> list[int]:
        """Return how many weights are said to share a scale; -1: all of a row."""
        tables = (self.told, *self.weights())
        told = [table.get(key) for table in tables for key in ("group_size", "q_group_size")]
        return [size for size in told if size is not None]

    def block(self) -> tuple[int, int] | None:
        """Return height and width of what shares a scale, where they are told."""
        told = [self.told.get("weight_block_size")]
        for weights in self.weights():
            told += [weights.get("block_structure"), [1, weights.get("group_size")]]
        return next(((height, width) for height, width in filter(_is_pair, told)), None)


def read_scheme(directory: Path) -> Scheme:
    """Read what a checkpoint says of how its weights are packed.

    ``quantization_config`` stands at the top of ``config.json`` or in its ``text_config``; older
    files say ``compression_config``, MLX says ``quantization``.

    Raises
    ------
    SparsityReportError
        It says so in a way that cannot be.
    """
    config = directory / "config.json"
    told = _json(config)
    inner = told.get("text_config")
    for holder in (told, inner if isinstance(inner, dict) else {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            if said := _told(holder, key, config):
                return Scheme(_method(said, key), _checked(said, config), config)
    for name, method in _BESIDE.items():
        if beside := _json(directory / name):
            return Scheme(method, _checked(beside, directory / name), directory / name)
    file = directory / _MODELOPT
    if modelopt := _told(_json(file), "quantization", file):
        return Scheme("modelopt", _checked(modelopt, file), file)
    return Scheme()


def _told(holder: Mapping[str, Any], key: str, file: Path) -> dict[str, Any]:
    """Return what is said under a key; nothing where nothing is."""
    told = holder.get(key) or {}
    if isinstance(told, dict):
        return told
    # Others than MLX may mean something else by it.
    if key == "quantization":
        return {}
    raise SparsityReportError(f"{file}: {key} is no JSON object; fetch it again")


def _checked(told: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return what is said, if all of it that is read here is of a kind that can be."""
    try:
        for key in _TEXTS:
            if not isinstance(told.get(key) or "", str):
                raise ValueError(f"{key} is no text")
        _check_numbers(told)
        groups = _told(told, "config_groups", file).values()
        if not all(isinstance(group, dict | list) for group in groups):
            raise ValueError("a group of config_groups is no JSON object")
        for group in groups:
            _check_numbers(_told(group, "weights", file) if isinstance(group, dict) else {})
    except SparsityReportError:
        raise
    except ValueError as error:
        raise SparsityReportError(
            f"{file} says how weights are packed, and {error}; fetch it again"
        ) from error
    return told


def _check_numbers(told: Mapping[str, Any]) -> None:
    for key, (low, high) in _NUMBERS.items():
        # Of float8 the bits of exponent and fraction may be told apart.
        if told.get(key) is not None and not (key == "num_bits" and _is_pair(told[key])):
            check_integer(told[key], key, low, high)
    if told.get("weight_block_size") and not _is_pair(told["weight_block_size"]):
        raise ValueError("weight_block_size is not two numbers")


def _is_pair(value: object) -> TypeGuard[list[int]]:
    """Whether something is two positive whole numbers."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(each) is int and 0 < each <= limits.WIDTH for each in value)
    )


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
        told = read_json(file)
    except (OSError, ValueError) as error:
        raise SparsityReportError(f"{file} cannot be read as JSON: {error}") from error
    return told if isinstance(told, dict) else {}
