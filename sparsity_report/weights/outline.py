"""A model as the headers of its files describe it, read without torch.

Names and shapes decide on groups, since no model is built. ``config.json`` and the metadata of GGUF
decide which tensors are tied and how many experts a token is sent to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sparsity_report.errors import SparsityReportError, explained, printable, writable
from sparsity_report.weights.anatomy.matrix_direction import Matrix
from sparsity_report.weights.anatomy.names_only import (
    ReaderOptions,
    describe_names,
    expert_stacks,
    experts_per_token,
    named_parts,
    text_settings,
    tied_head,
)
from sparsity_report.weights.gguf import gguf_shards
from sparsity_report.weights.packed.format_detection import check_weights, detect_parameters
from sparsity_report.weights.packed.packed_format import Scheme
from sparsity_report.weights.packed.packed_tensor import is_remote
from sparsity_report.weights.packed.quantization_config import read_scheme, read_settings
from sparsity_report.weights.sources.hub import Request, fetch, find, named_place
from sparsity_report.weights.sources.model_files import (
    choose_files,
    gather_entries,
    model_name,
    remote_entries,
    remote_headers,
)
from sparsity_report.weights.sources.model_paths import local_path
from sparsity_report.weights.tensor_slices import Entry, FileSlice, LocalFile, Origin
from sparsity_report.weights.weights import Module, Parameter

# Classes of models that have an output head.
_WITH_HEAD = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
# Most values of two tables that are compared on this disk and over the network.
_COMPARED, _COMPARED_REMOTELY = 2**26, 2**14


@dataclass(frozen=True)
class Tensor:
    """A parameter with its place in the model and in the files.

    Attributes
    ----------
    module : Module
    parameter : Parameter
    entry : Entry
    is_settled : bool
        Whether the direction of its matrix is known.
    is_stored : bool
        False for a tied head without a tensor; `entry` is then the embedding's.
    """

    module: Module
    parameter: Parameter
    entry: Entry
    is_settled: bool = True
    is_stored: bool = True

    @property
    def name(self) -> str:
        """Module, or the parameter where it is not the module's weight."""
        is_weight = self.parameter.name.rpartition(".")[2] == "weight"
        return self.module.name if is_weight else self.parameter.name

    @property
    def format(self) -> str:
        """Packing, or the dtype of plain values."""
        return self.parameter.packing or self.parameter.dtype

    @property
    def stored_bytes(self) -> int:
        """Bytes of all its tensors in the files, scales included."""
        return self.parameter.file_bytes or 0 if self.is_stored else 0

    @property
    def matrix(self) -> Matrix | None:
        """Sizes of a prunable matrix; None for other tensors."""
        each = self.parameter
        if each.matrix is None or not each.prunable or each.tied_to:
            return None
        return Matrix(*each.matrix, each.experts, each.transposed)


@dataclass(frozen=True)
class Outline:
    """A model as the headers of its files describe it.

    Attributes
    ----------
    name, source : str
        Name, and ``safetensors`` or ``gguf``.
    path : pathlib.Path
        File or folder; for a model on the Hub, the local folder of its configuration.
    files : tuple of Origin
    config : mapping
        ``config.json``, or the metadata of a GGUF model; empty without them.
    scheme : Scheme
        Quantization settings.
    tensors : tuple of Tensor
        In the order of the files, tied ones included.
    stacks : mapping of str to int
        Number of experts of each stack.
    stored_values : int or None
        Values of all tensors as they are stored, packed words, scales and duplicates included;
        None for GGUF.
    tie : str
        Reason for which parameters are tied: the head is ``absent``, bytes are ``equal``, or empty.
    notes : tuple of str
        Remarks on how the files were read.
    """

    name: str
    source: str
    path: Path
    files: tuple[Origin, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    scheme: Scheme = field(default_factory=Scheme)
    tensors: tuple[Tensor, ...] = ()
    stacks: Mapping[str, int] = field(default_factory=dict)
    stored_values: int | None = None
    tie: str = ""
    notes: tuple[str, ...] = ()

    @property
    def file_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)

    @property
    def folder(self) -> Path:
        """Folder of the configuration and of the model card."""
        return self.path.parent if self.path.is_file() else self.path

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the configuration, with those of its text model."""
        return text_settings(self.config)

    @property
    def per_token(self) -> int | None:
        """Experts of a stack that a token is sent to; None if unknown or there are none."""
        return experts_per_token(self.config)

    @cached_property
    def stored(self) -> tuple[Tensor, ...]:
        """Parameters that are counted: each tied tensor once."""
        return tuple(each for each in self.tensors if each.parameter.tied_to is None)

    @property
    def total(self) -> int:
        """Number of logical parameters."""
        return sum(each.parameter.total for each in self.stored)

    @property
    def active_total(self) -> int | None:
        """Parameters outside of experts and of the experts that a token is sent to.

        None if there are no experts, or their number per token is unknown.
        """
        if not self.stacks or self.per_token is None:
            return None
        return int(sum(each.parameter.total * each.parameter.uses for each in self.stored))


def read_outline(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    file: str | None = None,
    allow_pickle: bool = False,
) -> Outline:
    """Read the headers of a model: of local files, or of those on the Hub by range requests.

    Parameters
    ----------
    model : str or path
        A Hub id, a directory, a ``.safetensors`` or a ``.gguf`` file.
    revision, subfolder, file : str, optional
        As for :func:`sparsity_report.load`.
    allow_pickle : bool
        Read PyTorch pickles, which have no headers.

    Raises
    ------
    SparsityReportError
        The model cannot be found, read or understood.
    """
    where = os.fspath(model)

    def explain(error: OSError) -> str:
        place = printable(str(error.filename or where), 200)
        return f"{place} cannot be read: {error.strerror or error}"

    with explained(explain, OSError):
        if (path := local_path(where, subfolder or "", file or "")) is not None:
            return _local(path, writable(model_name(path)), allow_pickle)
        request = Request(revision, subfolder or "", file or "", False, True, False)
        place, request = named_place(where, request)
        name = (
            model_name(Path(place, request.file)) if request.file else where.removeprefix("hf://")
        )
        remote = find(place, request)
        if not remote.files and allow_pickle:
            wanted = replace(request, allow_pickle=True, stream=False, values=True)
            path, notes = fetch(place, wanted)
            return replace(_local(path, name, allow_pickle), notes=notes)
        if not remote.files:  # offline, with a copy in the cache or without one
            try:
                return _local(remote.folder / request.file, name)
            except SparsityReportError as error:
                raise SparsityReportError(
                    f"{where} has no headers to read: {remote.notes[-1]}; name a model with "
                    "safetensors or GGUF files"
                ) from error
        outline = Outline(name, "safetensors", remote.folder, remote.files, notes=remote.notes)
        if remote.files[0].name.endswith(".gguf"):
            return _gguf(outline, remote_headers(remote))
        read = remote_entries(remote)
        return _safetensors(outline, gather_entries(remote.folder, read, read.__getitem__))


def _local(path: Path, name: str, allow_pickle: bool = False) -> Outline:
    source, shards = choose_files(path)
    if source == "pickle" and not allow_pickle:
        raise SparsityReportError(
            f"{path}: PyTorch pickles have no header to read; convert them to safetensors, or "
            "allow their values to be read (--allow-pickle)"
        )
    is_gguf = source == "gguf"
    headers = gguf_shards.read_headers(shards.files[0]) if is_gguf else {}
    outline = Outline(name, source, path, tuple(map(LocalFile.look_up, headers or shards.files)))
    if is_gguf:
        return _gguf(outline, headers)
    if source != "pickle":
        return _safetensors(outline, gather_entries(path, shards.files, shards.read))
    from sparsity_report.weights.sources.pickles import read_pickle  # loads torch

    return _safetensors(outline, gather_entries(path, shards.files, read_pickle))


def _gguf(outline: Outline, headers: gguf_shards.Headers) -> Outline:
    _, metadata, entries = gguf_shards.read_model(headers)
    outline = replace(outline, source="gguf", config=metadata)
    outline = _described(outline, gguf_shards.named_parts(entries))
    if not gguf_shards.has_tied_head(entries, metadata):
        return outline
    held = {each.parameter.name: each for each in outline.tensors}
    return _with_tied_head(outline, "output", held[gguf_shards.EMBEDDING])


def _safetensors(outline: Outline, entries: Mapping[str, Entry]) -> Outline:
    config, scheme = read_settings(outline.folder / "config.json"), read_scheme(outline.folder)
    known, _ = detect_parameters(entries, scheme)
    parts = named_parts(known)
    for tensors in parts.values():
        check_weights(*tensors)
    stored_values = sum(entry.total for entry in entries.values())
    outline = replace(outline, config=config, scheme=scheme, stored_values=stored_values)
    return _tied(_described(outline, parts))


def _described(outline: Outline, parts: Mapping[str, list[Entry]]) -> Outline:
    options, is_gguf = ReaderOptions(outline.name), outline.source == "gguf"
    description = describe_names(parts, options, outline.per_token, outputs_first=is_gguf)
    tensors = tuple(
        Tensor(module, each, parts[each.name][0], each.name not in description.unsettled)
        for module in description.modules
        for each in module.parameters
    )
    return replace(outline, tensors=tensors, stacks=expert_stacks(parts))


def _tied(outline: Outline) -> Outline:
    """Tie tables of equal bytes, or an absent output head, to the embedding."""
    groups = {each.module.group for each in outline.tensors}
    held = [each for each in outline.tensors if each.module.group == "embedding"]
    tables = [each for each in held if len(each.parameter.shape) == 2]
    embedding = max(tables, key=lambda each: each.parameter.shape[0], default=None)
    settings = outline.settings
    if embedding is None or settings.get("tie_word_embeddings") is False:
        return outline
    classes = settings.get("architectures") or ()
    if "lm_head" not in groups and any(str(name).endswith(_WITH_HEAD) for name in classes):
        return _with_tied_head(outline, "lm_head", embedding)

    def tied(each: Tensor) -> Tensor:
        if each is embedding or not _equal(each, embedding):
            return each
        parameter = replace(each.parameter, tied_to=embedding.parameter.name)
        return replace(each, parameter=parameter)

    tensors = tuple(map(tied, outline.tensors))
    has_tied = any(each.parameter.tied_to for each in tensors)
    return replace(outline, tensors=tensors, tie="equal" if has_tied else "")


def _with_tied_head(outline: Outline, name: str, embedding: Tensor) -> Outline:
    head = tied_head(name, embedding.parameter)
    absent = Tensor(head, head.parameters[0], embedding.entry, is_stored=False)
    return replace(outline, tensors=(*outline.tensors, absent), tie="absent")


def _equal(one: Tensor, other: Tensor) -> bool:
    """Return True if the compared bytes of two tables are equal."""
    entries = [one.entry, other.entry]
    files = [entry.values for entry in entries if isinstance(entry.values, FileSlice)]
    kinds = {(each.parameter.shape, each.parameter.dtype) for each in (one, other)}
    if len(kinds) > 1 or len(files) < 2:
        return False
    most = min(entries[0].total, _COMPARED_REMOTELY if is_remote(entries) else _COMPARED)
    return all(map(np.array_equal, *(values.part(0, most).raw() for values in files)))
