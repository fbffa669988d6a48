"""A model as the headers of its files describe it, read without torch.

Names and shapes decide on groups, since no model is built. ``config.json`` and the metadata of GGUF
decide which tensors are tied and how many experts a token is sent to.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sparsity_report.errors import SparsityReportError, explained, printable, writable
from sparsity_report.phrases import Phrase
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_nesting, read_json
from sparsity_report.weights.anatomy.names_only import (
    ReaderOptions,
    describe_names,
    expert_stacks,
    experts_per_token,
    named_parts,
)
from sparsity_report.weights.gguf import gguf_shards
from sparsity_report.weights.packed.format_detection import check_weights, detect_parameters
from sparsity_report.weights.packed.packed_tensor import is_remote
from sparsity_report.weights.packed.quantization_config import Scheme, read_scheme
from sparsity_report.weights.sources.hub import Request, find
from sparsity_report.weights.sources.model_files import (
    choose_files,
    gather_entries,
    model_name,
    remote_entries,
    remote_headers,
)
from sparsity_report.weights.sources.model_paths import local_path
from sparsity_report.weights.tensor_slices import Entry, FileSlice, LocalFile, Origin, Shape
from sparsity_report.weights.weights import Module, Parameter

# Classes of models that have an output head.
_WITH_HEAD = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
# Most values of two tables that are compared on this disk and over the network.
_COMPARED, _COMPARED_REMOTELY = 2**26, 2**14


@dataclass(frozen=True)
class OutlineParameter:
    """A parameter as headers describe it.

    Attributes
    ----------
    name, module_name, group : str
    shape : tuple of int
        Logical shape: a packed weight has that of the matrix it stands for.
    dtype, packing : str
        Dtype of the values, float32 for packed ones, and the packing; empty if unpacked.
    stored_bytes : int
        Bytes of all its tensors in the files, scales included; 0 for a tied tensor without one.
    is_tied : bool
        Whether it has the values of another parameter, under which it is counted.
    uses : Fraction
        Share of it that a token is multiplied by: k/E for experts.
    entry : Entry or None
        Its tensor; None for a tied parameter without one.
    """

    name: str
    module_name: str
    group: str
    shape: Shape
    dtype: str
    packing: str
    stored_bytes: int
    is_tied: bool
    uses: Fraction
    entry: Entry | None

    @property
    def total(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


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
        ``config.json``; empty without one.
    metadata : mapping
        Metadata of a GGUF model.
    scheme : Scheme
        Quantization settings.
    parameters : tuple of OutlineParameter
        In the order of the files, tied ones included.
    stacks : mapping of str to int
        Number of experts of each stack.
    per_token : int or None
        Experts of a stack that a token is sent to; None if unknown or there are none.
    stored_values : int or None
        Values of all tensors as they are stored, packed words, scales and duplicates included;
        None for GGUF.
    tie : str
        Reason for which parameters are tied: the head is ``absent``, bytes are ``equal``, or empty.
    notes : tuple of Phrase
        Remarks on how the files were read.
    """

    name: str
    source: str
    path: Path
    files: tuple[Origin, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    scheme: Scheme = field(default_factory=Scheme)
    parameters: tuple[OutlineParameter, ...] = ()
    stacks: Mapping[str, int] = field(default_factory=dict)
    per_token: int | None = None
    stored_values: int | None = None
    tie: str = ""
    notes: tuple[Phrase, ...] = ()

    @property
    def file_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)

    @cached_property
    def stored(self) -> tuple[OutlineParameter, ...]:
        """Parameters that are counted: each tied tensor once."""
        return tuple(each for each in self.parameters if not each.is_tied)

    @property
    def total(self) -> int:
        """Number of logical parameters."""
        return sum(each.total for each in self.stored)

    @property
    def active_total(self) -> int | None:
        """Parameters outside of experts and of the experts that a token is sent to.

        None if there are no experts, or their number per token is unknown.
        """
        if not self.stacks or self.per_token is None:
            return None
        return int(sum(each.total * each.uses for each in self.stored))


def read_outline(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    file: str | None = None,
) -> Outline:
    """Read the headers of a model: of local files, or of those on the Hub by range requests.

    Parameters
    ----------
    model : str or path
        A Hub id, a directory, a ``.safetensors`` or a ``.gguf`` file.
    revision, subfolder, file : str, optional
        As for :func:`sparsity_report.load`.

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
            return _local(path, writable(model_name(path)))
        request = Request(revision, subfolder or "", file or "", False, True, False)
        name = model_name(Path(where, file)) if file else where
        remote = find(where, request)
        if not remote.files:  # offline, with a copy in the cache or without one
            try:
                return _local(remote.folder / (file or ""), name)
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


def _local(path: Path, name: str) -> Outline:
    source, shards = choose_files(path)
    if source == "pickle":
        raise SparsityReportError(
            f"{path}: PyTorch pickles have no header to read; convert them to safetensors, or "
            "open them with load or run"
        )
    if source == "gguf":
        headers = gguf_shards.read_headers(shards.files[0])
        files = tuple(map(LocalFile.look_up, headers))
        outline = Outline(name, source, path, files)
        return _gguf(outline, headers)
    files = tuple(map(LocalFile.look_up, shards.files))
    return _safetensors(
        Outline(name, source, path, files), gather_entries(path, shards.files, shards.read)
    )


def _gguf(outline: Outline, headers: gguf_shards.Headers) -> Outline:
    _, metadata, entries = gguf_shards.read_model(headers)
    parts = gguf_shards.named_parts(entries)
    per_token = gguf_shards.experts_per_token({**metadata})
    modules = describe_names(parts, ReaderOptions(outline.name), per_token).modules
    head = gguf_shards.tied_head(entries, {**metadata})
    described = _parameters(modules, parts) + tuple(
        replace(each, is_tied=True, stored_bytes=0) for each in _parameters(head, {})
    )
    return replace(
        outline, source="gguf", metadata=metadata, parameters=described, per_token=per_token,
        stacks=expert_stacks(parts), tie="absent" if head else "",
    )  # fmt: skip


def _safetensors(outline: Outline, entries: Mapping[str, Entry]) -> Outline:
    path = outline.path
    folder = path.parent if path.is_file() else path
    config, scheme = _read_config(folder / "config.json"), read_scheme(folder)
    known, _ = detect_parameters(entries, scheme)
    parts = named_parts(known)
    for tensors in parts.values():
        check_weights(*tensors)
    per_token = experts_per_token(config)
    modules = describe_names(parts, ReaderOptions(outline.name), per_token).modules
    described = _parameters(modules, parts)
    tie, described = _tied(described, config)
    return replace(
        outline, config=config, scheme=scheme, parameters=described, per_token=per_token, tie=tie,
        stacks=expert_stacks(parts),
        stored_values=sum(entry.total for entry in entries.values()),
    )  # fmt: skip


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with explained(lambda e: f"{path}: cannot be read as JSON ({e}); fetch the file again"):
        config = read_json(path, most=limits.CONFIG_BYTES)
        check_nesting(config)
    return config


def _parameters(
    modules: Iterable[Module], parts: Mapping[str, list[Entry]]
) -> tuple[OutlineParameter, ...]:
    return tuple(
        _parameter(each, module, parts) for module in modules for each in module.parameters
    )


def _parameter(
    each: Parameter, module: Module, parts: Mapping[str, list[Entry]]
) -> OutlineParameter:
    entry = next(iter(parts.get(each.name, ())), None)
    return OutlineParameter(
        each.name, module.name, module.group, each.shape, each.dtype, each.packing,
        each.file_bytes or 0, False, each.uses, entry,
    )  # fmt: skip


def _tied(
    parameters: tuple[OutlineParameter, ...], config: Mapping[str, Any]
) -> tuple[str, tuple[OutlineParameter, ...]]:
    """Tie tables of equal bytes, or an absent output head, to the embedding; return the reason."""
    inner = config.get("text_config")
    settings = {**(inner if isinstance(inner, dict) else {}), **config}
    tables = [each for each in parameters if each.group == "embedding" and len(each.shape) == 2]
    embedding = max(tables, key=lambda each: each.shape[0], default=None)
    if embedding is None or settings.get("tie_word_embeddings") is False:
        return "", parameters
    classes = settings.get("architectures") or ()
    if any(str(name).endswith(_WITH_HEAD) for name in classes) and not any(
        each.group == "lm_head" for each in parameters
    ):
        head = replace(
            embedding, name="lm_head.weight", module_name="lm_head", group="lm_head",
            stored_bytes=0, is_tied=True, entry=None,
        )  # fmt: skip
        return "absent", (*parameters, head)
    same = {each.name for each in parameters if each is not embedding and _equal(each, embedding)}
    tied = (replace(each, is_tied=True) if each.name in same else each for each in parameters)
    return ("equal", tuple(tied)) if same else ("", parameters)


def _equal(one: OutlineParameter, other: OutlineParameter) -> bool:
    """Return True if the compared bytes of two tables are equal."""
    entries = [each.entry for each in (one, other) if each.entry is not None]
    files = [entry.values for entry in entries if isinstance(entry.values, FileSlice)]
    if (one.shape, one.dtype) != (other.shape, other.dtype) or len(files) < 2:
        return False
    most = min(one.total, _COMPARED_REMOTELY if is_remote(entries) else _COMPARED)
    return all(map(np.array_equal, *(values.part(0, most).raw() for values in files)))
