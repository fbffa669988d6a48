"""Quantization settings of a checkpoint, from ``config.json`` or the files beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError, explained, printable
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, check_nesting, read_json
from sparsity_report.weights.packed.format_detection import FORMATS
from sparsity_report.weights.packed.packed_format import Scheme, is_pair

#: Files beside ``config.json`` that may hold settings, and keys of the settings in it.
SETTINGS_BESIDE = {name: where for form in FORMATS for name, where in form.files.items()}
SETTINGS_KEYS = ("quantization_config", "compression_config", "quantization")
# Keys that imply a method.
_SIGNS = {key: form.method for form in FORMATS for key in form.signs}
_TEXTS = ("quant_method", "format", "checkpoint_format", "packing_format")
# Ranges of the bits of a code, and of the number of weights that share a scale, -1 for a row.
_NUMBERS = {
    **dict.fromkeys(("bits", "w_bit", "num_bits"), (1, 64)),
    **dict.fromkeys(("group_size", "q_group_size"), (-1, limits.WIDTH)),
}


def read_scheme(directory: Path, content: Mapping[str, Any] | None) -> Scheme:
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
    for name, (key, method) in SETTINGS_BESIDE.items():
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
        value = settings.get(key)
        # float8 may list the bits of exponent and fraction separately.
        if value is None or (key == "num_bits" and is_pair(value)):
            continue
        if check_integer(value, key, low, high) == 0:
            raise ValueError("a group size of 0 weights is impossible")
    if settings.get("weight_block_size") and not is_pair(settings["weight_block_size"]):
        raise ValueError("weight_block_size is not two numbers")


def _method(settings: Mapping[str, Any], key: str) -> str:
    method = settings.get("quant_method")
    if isinstance(method, str):
        return printable(method.lower().replace("_", "-"), 40)
    signs = (key, *(name for name, value in settings.items() if value is not False))
    return next((method for sign, method in _SIGNS.items() if sign in signs), "unknown")


def read_settings(file: Path) -> dict[str, Any]:
    """Return the JSON object of a file, empty without the file."""
    if not file.is_file():
        return {}
    with explained(lambda e: f"{file}: cannot be read as JSON ({e}); fetch the file again"):
        settings = read_json(file)
        check_nesting(settings)
    return settings
