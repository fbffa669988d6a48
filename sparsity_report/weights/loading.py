"""Open a model: choose the reader for its source."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from sparsity_report.errors import (
    SparsityReportError,
    check_options,
    explained,
    printable,
    within_memory,
)
from sparsity_report.files.package_data import DEMO
from sparsity_report.weights.adapters.lora import TENSORS, read_adapter
from sparsity_report.weights.anatomy.names_only import ReaderOptions
from sparsity_report.weights.sources.checkpoint import CheckpointWeights, open_checkpoint
from sparsity_report.weights.sources.gguf_files import read_header, read_headers
from sparsity_report.weights.sources.gguf_model import GGUFWeights
from sparsity_report.weights.sources.hub import Remote, fetch, find
from sparsity_report.weights.sources.model_files import (
    check_allowed,
    choose_files,
    model_name,
    read_in_parallel,
)
from sparsity_report.weights.sources.model_paths import HubPlace, find_model
from sparsity_report.weights.sources.safetensors import Shards
from sparsity_report.weights.tensor_slices import LocalFile
from sparsity_report.weights.torch_extra import need_torch
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from torch import nn


class Reading(TypedDict, total=False):
    """Options of reading files, see :func:`load`."""

    allow_pickle: bool
    stream: bool
    config: bool


def load(
    model: str | os.PathLike[str] | nn.Module | Weights | None = None,
    *,
    name: str | None = None,
    blacklist: Collection[str] | None = None,
    groups: Mapping[str, str] | None = None,
    base: str | os.PathLike[str] | nn.Module | None = None,
    **reading: Unpack[Reading],
) -> Weights:
    """Open a model for counting and pruning; values are read when they are needed.

    Parameters
    ----------
    model : str, path, nn.Module, Weights or None
        A Hub id, a transformers directory, a ``.safetensors`` or ``.gguf`` file, or a module in
        memory. A Hub id may name a revision and a folder or file, as the command ``hf`` writes
        them: ``owner/name@revision/path``. None opens the built-in demo model. Any shard of a GGUF
        model, such as ``name-00001-of-00003.gguf``, opens the whole model. Weights are returned as
        they are.
    name : str, optional
        Name in tables and reports. By default the Hub id, folder or file name; ``model``, the name
        of the default file, has its folder before it.
    blacklist : collection of str, optional
        Words in the dotted names of linear layers that are not pruned; ``lm_head`` stands for the
        output head under any name. By default, only linear layers inside blocks are pruned: inside
        numbered modules such as ``layers.0``. In a model without blocks, all linear layers but
        the output head are pruned.
    groups : mapping of pattern to group, optional
        Groups of modules by pattern, e.g. ``{"*.adapter.*": "mlp_linear"}``; the first match
        wins over the built-in rules.
    base : str, path or nn.Module, optional
        Base model of `model`, which is then a LoRA adapter of PEFT. Counted are the merged
        weights ``W + scaling · B · A`` in the dtype of the base. `stream` applies to the base.
    **reading
        ``allow_pickle`` (False): open PyTorch pickles, with ``weights_only=True``.

        ``stream`` (False): read safetensors or GGUF of a Hub id over the network, without a copy
        on disk. Such a model can be counted but not run. Patterns and the exact thresholds of
        float32 and packed weights read the values a second time. A packed matrix of GPTQ or AWQ is
        held in memory as a whole. With ``cache=``, counting resumes where it stopped.

        ``config`` (True): False ignores ``config.json``, so that groups follow from names and
        shapes of tensors. This opens models whose layers differ in shape, as after structural
        pruning, and those of types that transformers does not know.

    Returns
    -------
    Weights
        The opened model.

    Raises
    ------
    SparsityReportError
        The model cannot be found, read or understood.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.load().architecture
    'OPTForCausalLM'
    """
    check_options("load", reading, Reading.__annotations__)
    options = ReaderOptions(name or "", blacklist, groups, **reading)
    if isinstance(model, Weights):
        if base is not None or options != ReaderOptions():
            raise model.wrong("is open already; give its path to open it with other options")
        return model
    if model is None and base is None:
        model, options = DEMO, replace(options, name=options.name or "demo")

    if isinstance(model, str | os.PathLike):
        return _open(os.fspath(model), options, base)
    if base is not None:
        raise SparsityReportError(
            f"base= goes with the path or Hub id of an adapter, not with {type(model).__name__}"
        )
    # Without torch there are no modules.
    if "torch" not in sys.modules or not isinstance(model, sys.modules["torch"].nn.Module):
        raise SparsityReportError(
            f"cannot open a {type(model).__name__}: give a Hub id, a path, an nn.Module or nothing"
        )
    from sparsity_report.weights.sources.memory import ModuleWeights

    return ModuleWeights(model, options)


def open_to_count(
    model: str | os.PathLike[str] | nn.Module | Weights,
    base: str | os.PathLike[str] | nn.Module | None = None,
    *,
    allow_pickle: bool = False,
) -> Weights:
    """Open a model for counting alone: headers describe it where they decide, without torch.

    Files on the Hub are read by ranges. Files whose headers do not decide are described by their
    class. If there is none or it refuses them, all but parameters and values is unknown.
    """
    if base is not None or not isinstance(model, str | os.PathLike):
        return load(model, base=base, allow_pickle=allow_pickle)
    options = ReaderOptions(allow_pickle=allow_pickle, stream=True, only_counted=True)
    return _open(os.fspath(model), options)


def _open(
    model: str, options: ReaderOptions, base: str | os.PathLike[str] | nn.Module | None = None
) -> Weights:
    def explain(error: OSError) -> str:
        place = printable(str(error.filename or model), 200)
        return f"{place} cannot be read: {error.strerror or error}"

    with (
        explained(explain, OSError),
        within_memory(f"{model} cannot be opened", "open it on a larger machine"),
    ):
        if base is None:
            return _open_path(model, options)
        beneath = load(
            base, blacklist=options.blacklist, groups=options.groups,
            allow_pickle=options.allow_pickle, stream=options.stream,
        )  # fmt: skip
        return _open_adapted(model, beneath, options)


def _open_adapted(model: str, base: Weights, options: ReaderOptions) -> Weights:
    from sparsity_report.weights.adapters.merged_adapter import AdaptedWeights

    allow_pickle = options.allow_pickle
    path = find_model(model)
    if isinstance(path, HubPlace):
        path, notes = fetch(replace(path, file=path.file or TENSORS), allow_pickle=allow_pickle)
        name = options.name or model.removeprefix("hf://")
        options = replace(options, name=name, notes=notes)
    options = replace(options, name=options.name or model_name(path))
    return AdaptedWeights(base, read_adapter(path, allow_pickle), options)


def _open_path(model: str, options: ReaderOptions) -> CheckpointWeights:
    path = find_model(model)
    if isinstance(path, HubPlace):
        label = model_name(Path(path.model, path.file)) if path.file else model
        options = replace(options, name=options.name or label.removeprefix("hf://"))
        if not options.stream:
            path, notes = fetch(path, allow_pickle=options.allow_pickle)
            options = replace(options, notes=notes)
        else:
            chosen = find(path, options.only_counted, options.allow_pickle)
            if isinstance(chosen, Remote):
                return _open_remote(chosen, options)
            path = chosen
    options = replace(options, name=options.name or model_name(path))
    kind, shards = choose_files(path)
    if kind == "gguf":
        headers = read_headers(shards.files[0])
        return GGUFWeights(headers, options, [*map(LocalFile.look_up, headers)])
    if kind == "pickle":
        check_allowed(path, options.allow_pickle)
        need_torch(str(path))
        from sparsity_report.weights.sources.pickles import read_pickle

        return open_checkpoint(path, options, kind, shards.files, read_pickle)
    return open_checkpoint(path, options, kind, shards.files, shards.read)


def _open_remote(remote: Remote, options: ReaderOptions) -> CheckpointWeights:
    streamed = say("note.streamed", commit=remote.files[0].commit)
    notes = remote.notes if options.only_counted else (*remote.notes, streamed)
    options = replace(options, notes=notes)
    if remote.files[0].name.endswith(".gguf"):
        headers = read_in_parallel(remote.files, read_header).items()
        named = {remote.folder / file.name: header for file, header in headers}
        weights = GGUFWeights(named, options, remote.files)
        weights.path = remote.folder
        return weights
    entries = read_in_parallel(remote.files, Shards(remote.files, remote.weight_map).read)
    return open_checkpoint(remote.folder, options, "safetensors", entries, entries.__getitem__)
