"""Quantization settings of a checkpoint, from ``config.json`` or the files beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from sparsity_report.errors import SparsityReportError, explained, printable
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, check_nesting, read_json

# Files beside config.json, the key of their settings, and the method that writes them.
_BESIDE = (
    ("quantize_config.json", "", "gptq"), ("quant_config.json", "", "awq"),
    ("hf_quant_config.json", "quantization", "modelopt"),
)  # fmt: skip
#: Names of these files, and keys of the settings in ``config.json``.
SETTINGS_BESIDE = {name for name, *_ in _BESIDE}
SETTINGS_KEYS = ("quantization_config", "compression_config", "quantization")
_TEXTS = ("quant_method", "format", "checkpoint_format", "packing_format")
# Ranges of the bits of a code, and of the number of weights that share a scale, -1 for a row.
_NUMBERS = {
    **dict.fromkeys(("bits", "w_bit", "num_bits"), (1, 64)),
    **dict.fromkeys(("group_size", "q_group_size"), (-1, limits.WIDTH)),
}


@dataclass(frozen=True)
class Scheme:
    """Quantization settings; empty for a checkpoint that declares none.

    Attributes
    ----------
    method : str
        Such as ``"gptq"``; empty without settings.
    settings : mapping
        All settings of the file.
    file : pathlib.Path or None
        File that holds the settings.
    """

    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    def number(self, *keys: str) -> int | None:
        """Return the first integer set under one of the keys."""
        values = (self.settings.get(key) for key in keys)
        return next((int(value) for value in values if value is not None), None)

    def weights(self) -> list[Mapping[str, Any]]:
        """Return the weight settings of each group of compressed-tensors."""
        groups = (self.settings.get("config_groups") or {}).values()
        # A group may also be a list of modules for a preset.
        return [g["weights"] for g in groups if isinstance(g, dict) and g.get("weights")]

    def bits(self) -> list[int]:
        """Return the code widths in bits that compressed-tensors declares."""
        widths = (weights.get("num_bits") for weights in self.weights())
        return sorted({bits for bits in widths if isinstance(bits, int)})

    def blocks(self) -> list[tuple[int, int]]:
        """Return height and width of each declared block that shares a scale."""
        blocks = [self.settings.get("weight_block_size")]
        for weights in self.weights():
            blocks += [weights.get("block_structure"), [1, weights.get("group_size")]]
        return [(height, width) for height, width in filter(_is_pair, blocks)]


def read_scheme(directory: Path, content: Mapping[str, Any] | None = None) -> Scheme:
    """Return the quantization settings of a checkpoint.

    ``config.json``, or the given content for it, or its ``text_config`` holds
    ``quantization_config``, in older files ``compression_config``, in files of MLX
    ``quantization``.

    Raises
    ------
    SparsityReportError
        The settings contradict themselves or have the wrong types.
    """
    config = directory / "config.json"
    content = read_settings(config) if content is None else content
    inner = content.get("text_config")
    for holder in (content, inner if isinstance(inner, dict) else {}):
        for key in SETTINGS_KEYS:
            if settings := _object(holder, key, config):
                return Scheme(_method(settings, key), _checked(settings, config), config)
    for name, key, method in _BESIDE:
        content = read_settings(file := directory / name)
        if settings := _object(content, key, file) if key else content:
            return Scheme(method, _checked(settings, file), file)
    return Scheme()


def _object(holder: Mapping[str, Any], key: str, file: Path) -> dict[str, Any]:
    """Return the object under a key, empty if there is none."""
    settings = holder.get(key) or {}
    if isinstance(settings, dict):
        return settings
    # Other programs than MLX use this key for other purposes.
    if key == "quantization":
        return {}
    raise SparsityReportError(f"{file}: {key} is not a JSON object; fetch the file again")


def _checked(settings: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return settings whose types and ranges were checked."""
    with explained(lambda e: f"{file}: {e} in the quantization settings; fetch the file again"):
        for key in _TEXTS:
            if not isinstance(settings.get(key), str | None):
                raise ValueError(f"{key} is not text")
        _check_numbers(settings)
        groups = _object(settings, "config_groups", file).values()
        if not all(isinstance(group, dict | list) for group in groups):
            raise ValueError("a group of config_groups is not a JSON object")
        for group in groups:
            _check_numbers(_object(group, "weights", file) if isinstance(group, dict) else {})
    return settings


def _check_numbers(settings: Mapping[str, Any]) -> None:
    for key, (low, high) in _NUMBERS.items():
        # float8 may list the bits of exponent and fraction separately.
        is_pair = key == "num_bits" and _is_pair(settings.get(key))
        value = None if is_pair else settings.get(key)
        if value is not None and check_integer(value, key, low, high) == 0:
            raise ValueError("a group size of 0 weights is impossible")
    if settings.get("weight_block_size") and not _is_pair(settings["weight_block_size"]):
        raise ValueError("weight_block_size is not two numbers")


def _is_pair(value: object) -> TypeGuard[list[int]]:
    """Return whether a value is a list of two positive integers."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(each) is int and 0 < each <= limits.WIDTH for each in value)
    )


def _method(settings: Mapping[str, Any], key: str) -> str:
    method = settings.get("quant_method")
    if isinstance(method, str):
        return printable(method.lower().replace("_", "-"), 40)
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    if key == "compression_config" or "sparsity_config" in settings or "config_groups" in settings:
        return "compressed-tensors"
    return "mlx" if key == "quantization" or "group_size" in settings else "unknown"


def read_settings(file: Path) -> dict[str, Any]:
    """Return the JSON object of a file, empty without the file."""
    if not file.is_file():
        return {}
    with explained(lambda e: f"{file}: cannot be read as JSON ({e}); fetch the file again"):
        settings = read_json(file)
        check_nesting(settings)
    return settings
