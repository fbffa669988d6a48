"""Open a model: which of the formats it is."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparsity_report.errors import SparsityReportError
from sparsity_report.files import DEMO
from sparsity_report.weights.groups import check_rules
from sparsity_report.weights.hub import fetch, fetch_config, is_hub_id
from sparsity_report.weights.weights import Weights

if TYPE_CHECKING:
    from torch import nn


_PICKLES = {".bin", ".pt", ".pth", ".ckpt"}


def load(
    model: str | os.PathLike[str] | nn.Module | None = None,
    *,
    name: str | None = None,
    blacklist: Collection[str] = ("lm_head",),
    groups: Mapping[str, str] | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
    values: bool = True,
) -> Weights:
    """Open a model for counting and pruning. Values are read later, when they are needed.

    Parameters
    ----------
    model : str, path, nn.Module or None
        A Hub id, a transformers directory, a ``.safetensors`` or ``.gguf`` file, or a module in
        memory. Nothing: the built-in demo model.
    name : str, optional
        What to call it in tables and reports; by default the id, folder or file name.
    blacklist : collection of str
        Modules with one of these words in their dotted name are not pruned.
    groups : mapping of pattern to group, optional
        Your own grouping, e.g. ``{"*.adapter.*": "mlp_linear"}``; the first match wins.
    revision : str, optional
        Branch, tag or commit on the Hub.
    allow_pickle : bool
        Open PyTorch pickles, with ``weights_only=True``. Off by default.
    values : bool
        False: structure only, from the headers of local files or, for a Hub id, from
        ``config.json``, a few kilobytes. What depends on zeros is then unknown.

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
    check_rules(groups)
    if isinstance(blacklist, str):
        blacklist = (blacklist,)
    if model is None:
        model, name = DEMO, name or "demo"
    if not isinstance(model, str | os.PathLike):
        weights = _open_module(model, name, blacklist, groups)
        return weights if values else _outline(weights)
    path = Path(model)
    notes: tuple[str, ...] = ()
    if not path.exists():
        if not is_hub_id(os.fspath(model)):
            raise SparsityReportError(f"{model}: no such file or directory")
        name = name or os.fspath(model)
        if values:
            path, notes = fetch(os.fspath(model), revision=revision, allow_pickle=allow_pickle)
        else:
            path = fetch_config(os.fspath(model), revision=revision)
    if not values and (path / "config.json").is_file() and not _has_headers(path):
        return _open_config(path, name or path.resolve().name, blacklist, groups)
    weights = _open_path(path, name or path.resolve().name, blacklist, groups, allow_pickle)
    weights.notes = notes + weights.notes
    return weights if values else _outline(weights)


def _open_module(
    model: nn.Module,
    name: str | None,
    blacklist: Collection[str],
    groups: Mapping[str, str] | None,
) -> Weights:
    from torch import nn

    from sparsity_report.weights.memory import ModuleWeights

    if not isinstance(model, nn.Module):
        raise SparsityReportError(
            f"cannot open a {type(model).__name__}: give a Hub id, a path, an nn.Module or nothing"
        )
    return ModuleWeights(model, name=name, blacklist=blacklist, groups=groups)


def _open_config(
    directory: Path, name: str, blacklist: Collection[str], groups: Mapping[str, str] | None
) -> Weights:
    from sparsity_report.weights.structure import ConfigWeights

    return ConfigWeights(directory, name=name, blacklist=blacklist, groups=groups)


def _outline(weights: Weights) -> Weights:
    from sparsity_report.weights.structure import Outline

    return Outline(weights)


def _has_headers(directory: Path) -> bool:
    return any(file.suffix in {".safetensors", ".gguf"} for file in directory.iterdir())


def _open_path(
    path: Path,
    name: str,
    blacklist: Collection[str],
    groups: Mapping[str, str] | None,
    allow_pickle: bool,
) -> Weights:
    from sparsity_report.weights.gguf import GGUFWeights
    from sparsity_report.weights.pickle import PickleWeights, pickle_files
    from sparsity_report.weights.safetensors import SafetensorsWeights, shard_files

    if path.is_dir():
        if shard_files(path):
            return SafetensorsWeights(path, name=name, blacklist=blacklist, groups=groups)
        ggufs = sorted(path.glob("*.gguf"))
        if len(ggufs) == 1:
            return GGUFWeights(ggufs[0], name=name, blacklist=blacklist, groups=groups)
        if ggufs:
            raise SparsityReportError(
                f"{path} holds {len(ggufs)} GGUF files; name the one to open, e.g. {ggufs[0].name}"
            )
        if not pickle_files(path):
            raise SparsityReportError(
                f"{path} holds no weights: no .safetensors, .gguf or pytorch_model.bin file"
            )
    elif not path.is_file():
        raise SparsityReportError(f"{path} is neither a regular file nor a directory")
    elif path.suffix == ".safetensors":
        return SafetensorsWeights(path, name=name, blacklist=blacklist, groups=groups)
    elif path.suffix == ".gguf":
        return GGUFWeights(path, name=name, blacklist=blacklist, groups=groups)
    elif path.suffix not in _PICKLES:
        raise SparsityReportError(
            f"{path}: unknown kind of file; give .safetensors, .gguf or a transformers directory"
        )
    if not allow_pickle:
        raise SparsityReportError(
            f"{path}: PyTorch pickles are not opened unless asked for; convert to safetensors, "
            "or trust it with allow_pickle=True (--allow-pickle)"
        )
    return PickleWeights(path, name=name, blacklist=blacklist, groups=groups)
