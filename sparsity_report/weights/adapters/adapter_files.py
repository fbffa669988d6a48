"""Adapters of PEFT: tensors that go beside the weights of a model, and are no model themselves."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from sparsity_report.errors import SparsityReportError
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import read_json

CONFIG = "adapter_config.json"
#: Key of the note that an adapter names another base.
OTHER_BASE = "note.other_base"

# Leaves of LoRA and its kin, prefix and prompt tuning; `lora_unet_…` is how kohya writes names.
LEAF = re.compile(
    r"(^|\.)(lora(_\w+)?|(ia3|oft|boft|hada|lokr|vera|randlora|fourierft)_\w+|prompt_embeddings|"
    r"prompt_encoder|modules_to_save)(\.|$)"
)
_WEIGHTS = re.compile(r"(?!adapter_model)(.+\.(safetensors|gguf)|pytorch_model.*\.bin)")


def check_folder(folder: Path, names: Collection[str]) -> None:
    """Refuse a folder that holds an adapter and, among its files, no weights of a model."""
    if CONFIG in names and not any(map(_WEIGHTS.fullmatch, names)):
        raise _refusal(folder, folder)


def check_tensors(path: Path, keys: Collection[str]) -> None:
    """Refuse tensors that are all an adapter's, and none at all."""
    if not keys:
        raise SparsityReportError(f"{path} holds no tensors: there is nothing to count")
    # PEFT puts `base_model.` before biases and heads that were trained, too; where a model is
    # saved with its adapter, its own layers are called `base_layer`.
    adapters = [key for key in keys if LEAF.search(key)]
    rest = set(keys).difference(adapters)
    whole = any(".base_layer." in key for key in rest)
    if adapters and not whole and all(key.startswith("base_model.") for key in rest):
        raise _refusal(path, path if path.is_dir() else path.parent)


def _refusal(path: Path, folder: Path) -> SparsityReportError:
    base = base_name(folder / CONFIG)
    return SparsityReportError(
        f"{path} is an adapter of {base or f'a model that no {CONFIG} names'}, not a model: open "
        f"the two merged with base= (--base), or {base or 'that model'} alone"
    )


def base_name(config: Path) -> str:
    """Return the base model that an adapter's configuration names, if it can be read."""
    return _said(config, "base_model_name_or_path")


def base_note(adapter: Path, base: str, folder: Path | None) -> Iterator[Phrase]:
    """Yield a note where the base that an adapter names is called otherwise everywhere.

    Parameters
    ----------
    adapter : pathlib.Path
        Its configuration.
    base : str
        What the base is called here.
    folder : pathlib.Path or None
        Where it lies.
    """
    named, called = base_name(adapter), [base]
    if folder is not None:
        called += [str(folder.resolve()), _said(folder / "config.json", "_name_or_path")]
        called += [
            part.removeprefix("models--").replace("--", "/")
            for part in folder.absolute().parts
            if part.startswith("models--")
        ]
    # Of one model in several places only the last word of its name is the same.
    if named and _last(named) not in map(_last, called):
        yield phrase(OTHER_BASE, named=named, base=base)


def _last(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()


def _said(config: Path, key: str) -> str:
    """Return a text of a configuration; empty if there is none, or it cannot be read."""
    try:
        value = read_json(config, most=limits.CONFIG_BYTES)[key]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""
