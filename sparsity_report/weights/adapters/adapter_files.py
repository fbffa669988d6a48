"""Recognition of PEFT adapters, which are not models."""

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

# Names of LoRA and related methods, prefix and prompt tuning; kohya writes `lora_unet_…`.
LEAF = re.compile(
    r"(^|\.)(lora(_\w+)?|(ia3|oft|boft|hada|lokr|vera|randlora|fourierft)_\w+|prompt_embeddings|"
    r"prompt_encoder|modules_to_save)(\.|$)"
)
_WEIGHTS = re.compile(r"(?!adapter_model)(.+\.(safetensors|gguf)|pytorch_model.*\.bin)")


def check_folder(folder: Path, names: Collection[str]) -> None:
    """Refuse a folder that holds an adapter but no weights of a model."""
    if CONFIG in names and not any(map(_WEIGHTS.fullmatch, names)):
        raise _refusal(folder, folder)


def check_tensors(path: Path, keys: Collection[str]) -> None:
    """Refuse a file without tensors, and one whose tensors all belong to an adapter."""
    if not keys:
        raise SparsityReportError(
            f"{path} holds no tensors, so there is nothing to count; open another file"
        )
    # Trained biases and heads have the prefix `base_model.` too; a model that was saved with its
    # adapter has layers named `base_layer`.
    adapters = [key for key in keys if LEAF.search(key)]
    others = set(keys).difference(adapters)
    has_base = any(".base_layer." in key for key in others)
    if adapters and not has_base and all(key.startswith("base_model.") for key in others):
        raise _refusal(path, path if path.is_dir() else path.parent)


def _refusal(path: Path, folder: Path) -> SparsityReportError:
    base = base_name(folder / CONFIG)
    return SparsityReportError(
        f"{path} is an adapter of {base or f'a model that no {CONFIG} names'}, not a model; open "
        f"the two merged with base= (--base), or {base or 'that model'} alone"
    )


def base_name(config: Path) -> str:
    """Return the base model that the configuration of an adapter names; empty if unknown."""
    return _read_text(config, "base_model_name_or_path")


def base_note(adapter: Path, base: str, folder: Path | None) -> Iterator[Phrase]:
    """Yield a note if an adapter names a base that no name of the given base matches.

    Parameters
    ----------
    adapter : pathlib.Path
        Configuration of the adapter.
    base : str
        Name of the base.
    folder : pathlib.Path or None
        Folder of the base.
    """
    named, names = base_name(adapter), [base]
    if folder is not None:
        names += [str(folder.resolve()), _read_text(folder / "config.json", "_name_or_path")]
        names += [
            part.removeprefix("models--").replace("--", "/")
            for part in folder.absolute().parts
            if part.startswith("models--")
        ]
    # Copies of a model in several places share only the last part of the name.
    if named and _last_part(named) not in map(_last_part, names):
        yield phrase(OTHER_BASE, named=named, base=base)


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()


def _read_text(config: Path, key: str) -> str:
    """Return a text of a configuration; empty if it is missing or unreadable."""
    try:
        value = read_json(config, most=limits.CONFIG_BYTES)[key]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""
