"""Weight files of a model: the files of a folder that make it up, and their headers."""

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sparsity_report.errors import SparsityReportError
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import read_json
from sparsity_report.weights.sources.gguf_files import model_names, unsharded_name
from sparsity_report.weights.sources.model_paths import PICKLES, distinctive_name
from sparsity_report.weights.sources.safetensors import (
    SINGLE,
    Shards,
    index_name,
    is_within,
    read_index,
)
from sparsity_report.weights.tensor_slices import Entry, Origin

# Requests to the Hub at a time.
_PARALLEL = 8
# Most names that an error lists.
_LISTED = 12
#: Configuration of an adapter.
CONFIG = "adapter_config.json"
#: Names of LoRA and related methods, prefix and prompt tuning; kohya writes `lora_unet_…`.
ADAPTER_LEAF = re.compile(
    r"(^|\.)(lora(_\w+)?|(ia3|oft|boft|hada|lokr|vera|randlora|fourierft)_\w+|prompt_embeddings|"
    r"prompt_encoder|modules_to_save)(\.|$)"
)
_WEIGHTS = re.compile(r"(?!adapter_model)(.+\.(safetensors|gguf)|pytorch_model.*\.bin)")
F = TypeVar("F", bound=Path | Origin)
K = TypeVar("K")
T = TypeVar("T")


def choose_files(path: Path) -> tuple[str, Shards[Path]]:
    """Return the format and the files of a local model, of a GGUF model any shard.

    Returns
    -------
    tuple of str and Shards
        ``safetensors``, ``gguf`` or ``pickle``, and the files.

    Raises
    ------
    SparsityReportError
        There are no weights, several models, or files of an unknown kind.
    """
    if path.is_dir():
        return _choose_in_folder(path)
    if not path.is_file():
        raise SparsityReportError(f"{path} is neither a regular file nor a directory; give one")
    kinds = {".safetensors": "safetensors", ".gguf": "gguf", **dict.fromkeys(PICKLES, "pickle")}
    if path.suffix not in kinds:
        raise SparsityReportError(
            f"{path}: {path.suffix or 'such'} files are not read; give the model as .safetensors, "
            ".gguf or PyTorch pickle, or its transformers directory"
        )
    if not path.stat().st_size:
        raise SparsityReportError(f"{path} has 0 bytes; download it again")
    return kinds[path.suffix], Shards([path])


def _choose_in_folder(path: Path) -> tuple[str, Shards[Path]]:
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    if CONFIG in names and not any(map(_WEIGHTS.fullmatch, names)):
        raise _refusal(path, path)
    kind, chosen, weight_map = choose_model(str(path), names, path)
    if not chosen:
        advice = "; give a folder with .safetensors, .gguf or pytorch_model.bin files"
        weights = (file for file in path.glob("*/*") if _WEIGHTS.fullmatch(file.name))
        if parts := sorted({str(file.parent) for file in weights}):
            advice = f" itself; open one of its parts: {listed(parts)}"
        raise SparsityReportError(f"{path} holds no weights{advice}")
    for name in chosen if weight_map else ():
        if not is_within(path / name):
            raise SparsityReportError(
                f"{path / name} is a link that leads out of its folder; put the file there"
            )
        if not (path / name).exists():
            raise SparsityReportError(
                f"{path / name} is missing, but the index names it; download the whole checkpoint"
            )
    return kind, Shards([path / name for name in chosen], weight_map)


def choose_model(
    place: str, names: Collection[str], folder: Path
) -> tuple[str, list[str], Mapping[str, str] | None]:
    """Return the format and the files of the one model among files: safetensors, GGUF or pickles.

    Parameters
    ----------
    place : str
        Name of the place for errors.
    names : collection of str
        Names of the files there.
    folder : pathlib.Path
        Folder of the index.

    Returns
    -------
    tuple
        Format; names of the files, of a GGUF model the first shard, empty where there are none; and
        the file of each tensor if there is an index.
    """
    if index := index_name(names):
        weight_map = read_index(folder / index)
        shards = sorted(set(weight_map.values()))
        if SINGLE in names and SINGLE not in shards:
            raise SparsityReportError(
                f"{place} has {SINGLE}, and its {index} names other files; to open the first, name "
                f"{place}/{SINGLE}"
            )
        return "safetensors", shards, weight_map
    single = [SINGLE] if SINGLE in names else fnmatch.filter(names, "*.safetensors")
    for kind, models in (("safetensors", single), ("gguf", model_names(names))):
        if len(models) > 1:
            raise SparsityReportError(
                f"{place} has {len(models)} models; name the file of one, as in "
                f"{place}/{models[0]}: {listed(models)}"
            )
        if models:
            return kind, models, None
    return "pickle", fnmatch.filter(names, "pytorch_model*.bin"), None


def listed(names: Collection[str]) -> str:
    """Return the first names as text."""
    first = ", ".join(list(names)[:_LISTED])
    return first + f" and {len(names) - _LISTED} more" * (len(names) > _LISTED) or "none"


def model_name(path: Path) -> str:
    """Return the name of a folder, or of a file without its shard number."""
    # A file in the cache of the Hub is a link to a blob whose name is a hash.
    place = path.resolve() if path.is_dir() else path.parent.resolve() / unsharded_name(path.name)
    return distinctive_name(place)


def read_in_parallel(files: Sequence[K], read: Callable[[K], T]) -> dict[K, T]:
    """Return what a function reads of each file on the Hub."""
    with ThreadPoolExecutor(_PARALLEL) as pool:
        return dict(zip(files, pool.map(read, files), strict=True))


def gather_entries(
    path: Path, files: Iterable[F], read: Callable[[F], Iterable[Entry]]
) -> dict[str, Entry]:
    """Return the tensors of all files of a checkpoint by name.

    Raises
    ------
    SparsityReportError
        A tensor is in two files, there are too many, none, or only those of an adapter.
    """
    entries: dict[str, Entry] = {}
    holders: dict[str, F] = {}
    for file in files:
        for entry in read(file):
            if entry.key in entries:
                raise SparsityReportError(
                    f"{file}: tensor {entry.key!r} is in {holders[entry.key].name} too; "
                    "remove one of the files"
                )
            entries[entry.key], holders[entry.key] = entry, file
        if len(entries) > limits.TENSORS:
            raise SparsityReportError(
                f"{file} and the files before it hold more than {limits.TENSORS:,} tensors; "
                "open the files one by one"
            )
    check_tensors(path, entries)
    return entries


def check_tensors(path: Path, keys: Collection[str]) -> None:
    """Refuse a file without tensors, and one whose tensors all belong to an adapter."""
    if not keys:
        raise SparsityReportError(
            f"{path} holds no tensors, so there is nothing to count; open another file"
        )
    # Trained biases and heads have the prefix `base_model.` too; a model that was saved with its
    # adapter has layers named `base_layer`.
    adapters = [key for key in keys if ADAPTER_LEAF.search(key)]
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


def check_allowed(path: Path, allow_pickle: bool) -> None:
    """Refuse a pickle unless pickles are allowed."""
    if not allow_pickle:
        raise SparsityReportError(
            f"{path}: PyTorch pickles are opened only on request; convert to safetensors, or "
            "trust it with allow_pickle=True (--allow-pickle)"
        )


def base_name(config: Path) -> str:
    """Return the base model that the configuration of an adapter names; empty if unknown."""
    return read_text(config, "base_model_name_or_path")


def read_text(config: Path, key: str) -> str:
    """Return a text of a configuration; empty if it is missing or unreadable."""
    try:
        value = read_json(config, most=limits.CONFIG_BYTES)[key]
    except (OSError, ValueError, KeyError):
        return ""
    return value if isinstance(value, str) else ""
