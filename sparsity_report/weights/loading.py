"""Open a model: find out which source it is, and hand it to the room that reads it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from sparsity_report.errors import SparsityReportError, check_options, printable, within_memory
from sparsity_report.files.package_data import DEMO
from sparsity_report.weights.anatomy.describe import ReaderOptions
from sparsity_report.weights.sources.hub import Remote, fetch, find, is_hub_id
from sparsity_report.weights.weights import Weights

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Unpack

# Headers that are read side by side over the network.
_AT_ONCE = 8
_PICKLES = {".bin", ".pt", ".pth", ".ckpt"}


class FileOptions(TypedDict, total=False):
    """Which files to open, see :func:`load`."""

    revision: str | None
    subfolder: str | None
    file: str | None
    allow_pickle: bool
    stream: bool


class LoadOptions(FileOptions, total=False):
    """Further options of :func:`load`: its files, and the base of an adapter."""

    base: str | os.PathLike[str] | nn.Module | None
    merge: bool
    config: bool


def load(
    model: str | os.PathLike[str] | nn.Module | None = None,
    *,
    name: str | None = None,
    blacklist: Collection[str] = ("lm_head",),
    groups: Mapping[str, str] | None = None,
    values: bool = True,
    **files: Unpack[LoadOptions],
) -> Weights:
    """Open a model for counting and pruning. Values are read later, when they are needed.

    Parameters
    ----------
    model : str, path, nn.Module or None
        A Hub id, a transformers directory, a ``.safetensors`` or ``.gguf`` file, or a module in
        memory. Nothing: the built-in demo model. Any piece of a split GGUF model, such as
        ``name-00001-of-00003.gguf``, stands for all of them.
    name : str, optional
        What to call it in tables and reports; by default the id, folder or file name.
    blacklist : collection of str
        Modules with one of these words in their dotted name are not pruned.
    groups : mapping of pattern to group, optional
        Your own grouping, e.g. ``{"*.adapter.*": "mlp_linear"}``; the first match wins.
    values : bool
        False: structure only, from the headers of the files; of a Hub id they are read over the
        network, some kilobytes of each file, of GGUF some megabytes. Where that has neither
        safetensors nor GGUF, or cannot be reached, it is what ``config.json`` promises. What
        depends on zeros is then unknown.
    revision : str, optional
        Branch, tag or commit on the Hub.
    subfolder : str, optional
        The folder inside the repository or directory that holds the model.
    file : str, optional
        The file to open where a repository or directory holds several models, e.g.
        ``sr.load("org/model-GGUF", file="model-Q4_K_M.gguf")``.
    allow_pickle : bool
        Open PyTorch pickles, with ``weights_only=True``. Off by default.
    stream : bool
        Count safetensors or GGUF of a Hub id over the network, slice by slice, without a copy on
        this disk; such a model cannot be run. What is read again, patterns and the exact
        thresholds of float32 and packed weights, crosses the network again. Of GPTQ and AWQ a
        packed matrix is in memory as a whole. With ``cache=``, counting goes on where it stopped.
        Local files are always read slice by slice.
    base : str, path or nn.Module, optional
        The model that `model`, an adapter of PEFT's LoRA, goes with. What is counted is the two
        merged, as they run: ``W + scaling · B · A``, in the base's dtype. The base alone is
        ``load(base)``. `revision`, `subfolder` and `file` are the adapter's, `stream` the base's.
    merge : bool
        False: the base as it is and the adapter's matrices beside it, as modules of their own; to
        be counted, not run.
    config : bool
        False: ``config.json`` is not asked which model it is; names and shapes of tensors alone
        decide, as they do where transformers does not know it. For models whose layers differ in
        shape, as after structural pruning, so that no class can be built of the config.

    Returns
    -------
    Weights

    Raises
    ------
    SparsityReportError
        One line: what is wrong, where, and what to do.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.load().architecture
    'OPTForCausalLM'
    """
    check_options("load", files, LoadOptions.__annotations__)
    try:
        return _load(model, ReaderOptions(name or "", blacklist, groups), values, files)
    except OSError as error:
        raise SparsityReportError(
            f"{printable(str(error.filename or model), 200)} cannot be read: "
            f"{error.strerror or error}"
        ) from error


def _load(
    model: str | os.PathLike[str] | nn.Module | None,
    options: ReaderOptions,
    values: bool,
    files: LoadOptions,
) -> Weights:
    base, merge = files.pop("base", None), files.pop("merge", True)
    options = replace(options, config=files.pop("config", True))
    if base is not None:
        return _open_adapted(model, base, options, values, merge, files)
    if model is None:
        model, options = DEMO, replace(options, name=options.name or "demo")
    if isinstance(model, str | os.PathLike):
        with within_memory(f"{os.fspath(model)} cannot be opened", "open it on a larger machine"):
            weights = _open_path(os.fspath(model), options, values, files)
    else:
        weights = _open_module(model, options)
    if values or weights.source == "config":
        return weights
    from sparsity_report.weights.sources.structure import without_values

    return without_values(weights)


def _open_module(model: object, options: ReaderOptions) -> Weights:
    from torch import nn

    from sparsity_report.weights.sources.memory import ModuleWeights

    if not isinstance(model, nn.Module):
        raise SparsityReportError(
            f"cannot open a {type(model).__name__}: give a Hub id, a path, an nn.Module or nothing"
        )
    return ModuleWeights(model, options)


def _open_adapted(
    adapter: object,
    base: str | os.PathLike[str] | nn.Module,
    options: ReaderOptions,
    values: bool,
    merge: bool,
    files: FileOptions,
) -> Weights:
    from sparsity_report.weights.adapters.lora import TENSORS, read_adapter
    from sparsity_report.weights.adapters.merged_adapter import AdaptedWeights
    from sparsity_report.weights.sources.structure import without_values

    if not isinstance(adapter, str | os.PathLike):
        raise SparsityReportError(
            f"base= goes with the path or Hub id of an adapter, not with {type(adapter).__name__}"
        )
    model, allow_pickle = os.fspath(adapter), files.get("allow_pickle", False)
    subfolder, file = files.get("subfolder") or "", files.get("file") or ""
    beneath = load(
        base,
        blacklist=options.blacklist,
        groups=options.groups,
        values=values,
        allow_pickle=allow_pickle,
        stream=files.get("stream", False),
    )
    path = Path(model, subfolder, file)
    if not Path(model).exists() and is_hub_id(model):
        where = {"revision": files.get("revision"), "subfolder": subfolder, "file": file or TENSORS}
        path, notes = fetch(model, allow_pickle=allow_pickle, **where)
        options = replace(options, name=options.name or model, notes=notes)
    elif not path.exists():
        raise SparsityReportError(f"{path}: no such file or directory")
    options = replace(options, name=options.name or _called(path))
    weights = AdaptedWeights(beneath, read_adapter(path, allow_pickle), options, merge)
    return weights if values else without_values(weights)


def _open_path(model: str, options: ReaderOptions, values: bool, files: FileOptions) -> Weights:
    path, name, file = Path(model), options.name, files.get("file")
    allow_pickle = files.get("allow_pickle", False)
    where = {"revision": files.get("revision"), "subfolder": files.get("subfolder"), "file": file}
    if path.exists():
        path = path / (files.get("subfolder") or "") / (file or "")
        if not path.exists():
            raise SparsityReportError(f"{path}: no such file or directory")
    elif not is_hub_id(model):
        raise SparsityReportError(f"{model}: no such file or directory")
    elif values and not files.get("stream"):
        path, notes = fetch(model, **where, allow_pickle=allow_pickle)
        name = name or (_called(path) if file else model)
        options = replace(options, notes=notes)
    else:
        remote = find(model, **where, values=values)
        path, name = remote.folder, name or (_called(Path(file)) if file else model)
        options = replace(options, name=name, notes=remote.notes)
        if remote.files:
            return _open_remote(remote, options)
    options = replace(options, name=name or _called(path))
    if not values and (path / "config.json").is_file() and not _has_headers(path):
        from sparsity_report.weights.sources.structure import from_config

        return from_config(path, options)
    return _open_files(path, options, allow_pickle)


def _open_remote(remote: Remote, options: ReaderOptions) -> Weights:
    from sparsity_report.weights.gguf.gguf_remote import open_remote
    from sparsity_report.weights.sources.checkpoint import open_checkpoint
    from sparsity_report.weights.sources.safetensors import Shards

    if remote.files[0].name.endswith(".gguf"):
        return open_remote(remote.files, remote.folder, options)
    shards = Shards(remote.files, remote.weight_map)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        headers = dict(zip(shards.files, pool.map(shards.read, shards.files), strict=True))
    return open_checkpoint(remote.folder, options, "safetensors", headers, headers.__getitem__)


def _called(path: Path) -> str:
    """Return the name of a folder, or of a file as it would be called if it were not split."""
    from sparsity_report.weights.gguf.gguf_shards import unsharded_name

    # In the Hub's cache a file is a link to a blob that is called by its hash.
    return path.resolve().name if path.is_dir() else unsharded_name(path.name)


def _has_headers(directory: Path) -> bool:
    return any(file.suffix in {".safetensors", ".gguf"} for file in directory.iterdir())


def _open_files(path: Path, options: ReaderOptions, allow_pickle: bool) -> Weights:
    from sparsity_report.weights.adapters.adapter_files import check_folder
    from sparsity_report.weights.gguf.gguf_model import GGUFWeights
    from sparsity_report.weights.gguf.gguf_shards import model_names
    from sparsity_report.weights.sources.checkpoint import open_checkpoint
    from sparsity_report.weights.sources.pickles import check_allowed, pickle_files, read_pickle
    from sparsity_report.weights.sources.safetensors import find_shards, read_header

    if path.is_dir():
        names = [file.name for file in path.iterdir()]
        check_folder(path, names)
        if (shards := find_shards(path)).files:
            return open_checkpoint(path, options, "safetensors", shards.files, shards.read)
        models = model_names(names)
        if len(models) == 1:
            return GGUFWeights(path / models[0], options)
        if models:
            raise SparsityReportError(
                f"{path} holds {len(models)} GGUF models; name the one to open, e.g. {models[0]}"
            )
        if not (pickles := pickle_files(path)):
            raise SparsityReportError(
                f"{path} holds no weights: no .safetensors, .gguf or pytorch_model.bin file"
            )
    elif not path.is_file():
        raise SparsityReportError(f"{path} is neither a regular file nor a directory")
    elif not path.stat().st_size:
        raise SparsityReportError(f"{path} has 0 bytes; it may be truncated, fetch it again")
    elif path.suffix == ".safetensors":
        return open_checkpoint(path, options, "safetensors", [path], read_header)
    elif path.suffix == ".gguf":
        return GGUFWeights(path, options)
    elif path.suffix not in _PICKLES:
        raise SparsityReportError(
            f"{path}: unknown kind of file; give .safetensors, .gguf or a transformers directory"
        )
    else:
        pickles = [path]
    check_allowed(path, allow_pickle)
    return open_checkpoint(path, options, "pickle", pickles, read_pickle)
