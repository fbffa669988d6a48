"""Checkpoints whose tensors are described by names, or matched with the class of ``config.json``.

Names and shapes describe decided files, and files without a configuration.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sparsity_report.errors import SparsityReportError, first_line
from sparsity_report.weights.anatomy.decided_files import check_sizes, decide
from sparsity_report.weights.anatomy.names_only import (
    Description,
    ReaderOptions,
    describe_names,
    named_parts,
    tied_names,
)
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.packed.format_detection import check_weights, detect_parameters
from sparsity_report.weights.packed.packed_tensor import Packed, is_remote
from sparsity_report.weights.packed.quantization_config import read_scheme, read_settings
from sparsity_report.weights.sources.model_files import gather_entries
from sparsity_report.weights.sources.model_paths import DEFAULTS
from sparsity_report.weights.tensor_slices import (
    Entry,
    FileSlice,
    LocalFile,
    Origin,
    Slice,
    join_slices,
)
from sparsity_report.weights.torch_extra import need_torch
from sparsity_report.weights.weights import Parameter, Tokenizer, Weights, float8_notes
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T", bound=Path | Origin)
_FACTS = "names, shapes and config.json"
_NOTHING = Description((), None)


@dataclass(frozen=True)
class Contents:
    """The tensors of a checkpoint and its modules.

    Attributes
    ----------
    entries : mapping of str to Entry
        Tensors on disk by key, each packed weight as one.
    parts : mapping of str to list of Entry
        Tensors that make up each stored parameter or buffer.
    description : Description
        Modules, by names or by the class of the model.
    model : nn.Module or None
        The model on the meta device; None if names describe the modules.
    notes : tuple of str
        Remarks on how the files were read.
    files : tuple of Origin
        Files of the model.
    raw : mapping of str to Entry or None
        Tensors of the files in order, parts of packed weights included; None if none is packed.
    settings : mapping or None
        Changed ``config.json``, or metadata in its place; None if it is that of the folder.
    complete : mapping of str to list of Entry
        Tensors of each parameter, tied ones included.
    architecture : str
        Class of the model; empty if unknown.
    """

    entries: Mapping[str, Entry]
    parts: Mapping[str, list[Entry]] = field(default_factory=dict)
    description: Description = _NOTHING
    model: nn.Module | None = None
    notes: tuple[str, ...] = ()
    files: tuple[Origin, ...] = ()
    raw: Mapping[str, Entry] | None = None
    settings: Mapping[str, Any] | None = None
    complete: Mapping[str, list[Entry]] = field(default_factory=dict)
    architecture: str = ""

    def named(
        self, options: ReaderOptions, config: Mapping[str, Any], note: str, undecided: str = ""
    ) -> Contents:
        """Return the contents with modules by names, and a further note."""
        parts = named_parts(self.entries)
        ties = tied_names(parts, config) if options.config else {}
        if undecided:
            ties = {name: owner for name, owner in ties.items() if name in parts}
        described = describe_names(parts, options, None, ties, undecided=undecided)
        return replace(self, notes=(note, *self.notes)).with_modules(parts, described)

    def with_modules(
        self, parts: Mapping[str, list[Entry]], description: Description, architecture: str = ""
    ) -> Contents:
        """Return the contents with modules by names, whose tensors are weights."""
        for tensors in parts.values():
            check_weights(*tensors)
        ties = {p.name: p.tied_to for m in description.modules for p in m.parameters if p.tied_to}
        complete = {**parts, **{name: parts[owner] for name, owner in ties.items()}}
        return replace(
            self, parts=parts, description=description, complete=complete, architecture=architecture
        )


class CheckpointWeights(Weights):
    """Weights read from files on demand.

    Attributes
    ----------
    path : pathlib.Path
        File or directory of the weights.
    raw : mapping of str to Entry
        Tensors as the files hold them, words and scales of packed weights included, in order.
    unpacked : mapping of str to Entry
        The same with each packed weight as one tensor.
    settings : mapping or None
        Changed ``config.json`` of the model; None if it is that of the folder.
    options : ReaderOptions
    contents : Contents
    """

    def __init__(self, path: Path, options: ReaderOptions, source: str, contents: Contents) -> None:
        described = contents.description
        notes = options.notes + contents.notes + float8_notes(described.modules) + described.notes
        super().__init__(
            name=options.name,
            source=source,
            architecture=contents.architecture,
            modules=described.modules,
            attention_widths=described.attention_widths,
            notes=notes,
            files=contents.files,
            unsettled=described.unsettled,
            undecided=described.undecided,
        )
        self.path, self.options, self.contents = path, options, contents
        self.settings = contents.settings
        self.raw = contents.entries if contents.raw is None else contents.raw
        self.unpacked, self._parts = contents.entries, contents.complete

    @property
    def directory(self) -> Path:
        """Folder of config and tokenizer."""
        return _folder(self.path)

    def cut(self, entry: Entry) -> Iterable[Slice]:
        """Return one tensor of a file as slices."""
        return entry.slices()

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter, tensor after tensor if several make it up on disk."""
        for entry in self.entries(name):
            yield from self.cut(entry)

    def array(self, name: str) -> Array:
        """Return the values of a parameter, stacked if several tensors make it up on disk."""
        dtype = self.entries(name)[0].values.dtype
        return join_slices(self.slices(name), dtype, self[name].shape)

    def entries(self, name: str) -> list[Entry]:
        """Return the tensors on disk that make up a parameter."""
        if name not in self._parts:
            raise self.wrong(f"has no tensor for {name!r}; see weights.parameters")
        return self._parts[name]

    def entry(self, parameter: Parameter) -> Entry:
        """Return one parameter as a tensor, that of the file if it holds the values in order."""
        first, *others = self.entries(parameter.name)
        if others or first.total != parameter.total or not isinstance(first.values, FileSlice):
            return super().entry(parameter)
        return replace(first, shape=parameter.shape)

    def tokenizer(self) -> Tokenizer:
        """Open the tokenizer beside the weights or in a GGUF file, without running code."""
        need_torch(f"{self.name}: its tokenizer")
        from sparsity_report.weights.sources.tokenizer import open_tokenizer

        return open_tokenizer(self.directory, self.path if self.source == "gguf" else None)

    def module(self) -> nn.Module:
        """Load a runnable model with transformers in its dtype.

        Packed and float8 weights are loaded as float32, because torch has no products for them.
        GGUF is, too, because transformers reads only its first shard.
        """
        self.require_runnable()
        is_packed = any(isinstance(entry.values, Packed) for entry in self.unpacked.values())
        if is_packed or self.source == "gguf":
            return self.filled_module()
        dtype = "float32" if float8_notes(self.modules) else "auto"
        if self.settings is None and _is_default(self.path, self.source):
            return self._load(self.directory, dtype=dtype)
        # transformers would look for its default file names and perhaps load other weights.
        from sparsity_report.weights.torch_tensors import to_tensor

        values = {key: to_tensor(entry.read()) for key, entry in self.unpacked.items()}
        return self._load(None, dtype=dtype, state_dict=values)

    def filled_module(self) -> nn.Module:
        """Return a runnable model in float32 with the counted values."""
        self.require_runnable()
        from sparsity_report.weights.torch_tensors import to_tensor

        values = {p.name: self.tensor(p.name).float() for p in self.stored}
        values |= {name: to_tensor(array) for name, array in self.buffers().items()}
        return self._load(None, dtype="float32", state_dict=values)

    def buffers(self) -> dict[str, Array]:
        """Return the values of the saved buffers."""
        model, parts = self._matched
        values: dict[str, Array] = {}
        for name, buffer in [] if model is None else model.named_buffers():
            if (entries := parts.get(name)) is None:
                continue
            if sum(entry.total for entry in entries) != buffer.numel():
                raise SparsityReportError(
                    f"{self.name}: {name} has shape {entries[0].shape} on disk but "
                    f"{tuple(buffer.shape)} in the model of config.json; it can be counted but not "
                    "run"
                )
            slices = (part for entry in entries for part in self.cut(entry))
            values[name] = join_slices(slices, entries[0].values.dtype, tuple(buffer.shape))
        return values

    @cached_property
    def _matched(self) -> tuple[nn.Module | None, Mapping[str, list[Entry]]]:
        """Model on the meta device, None without a class, and the tensors that it is made of.

        The class of a decided file is first asked here.
        """
        contents = self.contents
        if contents.model is not None or not self.architecture:
            return contents.model, contents.parts
        try:
            model, parts = self.match_class()
        except SparsityReportError as error:
            raise self.wrong(f"can be counted but not run: {error}") from error
        if model is None:
            return None, contents.parts
        shapes = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
        named = {p.name: p.shape for p in self.parameters}
        if other := sorted(shapes.items() ^ named.items()):
            raise self.wrong(
                f"can be counted but not run: {other[0][0]!r} is not the same in its files and in "
                f"{type(model).__name__}; download the whole checkpoint with its config.json"
            )
        return model, parts

    def match_class(self) -> tuple[nn.Module | None, Mapping[str, list[Entry]]]:
        """Return the model on the meta device and its tensors by asking the class."""
        need_torch(self.name)
        from sparsity_report.weights.sources.class_match import match_class

        return match_class(self.directory, self.unpacked, len(self.raw), self.settings)[:2]

    def configuration(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        return dict(self.settings or read_settings(self.directory / "config.json"))

    def _load(self, folder: Path | None, **options: Any) -> nn.Module:
        """Load a model from a folder or from given values; refuse missing tensors."""
        outline = self.require_runnable()
        with without_bars():
            model, info = cast(Any, type(outline)).from_pretrained(
                folder,
                # The config in the folder may name code to run.
                config=outline.config,
                # An impossible subfolder stops transformers from loading an adapter in the folder.
                adapter_kwargs={"subfolder": "\0"},
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
        if bad := [*info["missing_keys"], *info["mismatched_keys"]]:
            raise SparsityReportError(
                f"{self.name}: {len(bad)} tensor(s) missing or mis-shaped on loading, "
                f"first {bad[0]}; download the whole checkpoint"
            )
        model.config.name_or_path = str(folder or self.name)
        runnable: nn.Module = model.eval()
        return runnable

    @property
    def is_decided(self) -> bool:
        """True if names describe the model of a known class."""
        return self.contents.model is None and bool(self.architecture)

    def require_runnable(self) -> nn.Module:
        """Return the model on the meta device; refuse one without class or copy on disk."""
        self.require_local()
        if (model := self._matched[0]) is None:
            experts = (
                ", or score experts by --score magnitude,random or by --score frequency "
                "--calibration IMATRIX"
            ) * any(p.experts > 1 for p in self.parameters)
            raise self.wrong(
                "can be counted but not run: transformers has no class for it; load it with that "
                f"class and pass the nn.Module{experts}"
            )
        return model

    def require_local(self) -> None:
        """Refuse a model without a copy on this disk."""
        entries = self.unpacked.values()
        if any(is_remote(e.values.parts if isinstance(e.values, Packed) else [e]) for e in entries):
            raise self.wrong(
                "is streamed from the Hub, so it can be counted but not run; load it without "
                "stream, which keeps a copy on this disk"
            )


def open_checkpoint(
    path: Path,
    options: ReaderOptions,
    source: str,
    files: Iterable[T],
    read: Callable[[T], Iterable[Entry]],
) -> CheckpointWeights:
    """Open the tensors of files, described by names or by the class of their ``config.json``."""
    files = tuple(files)
    entries = gather_entries(path, files, read)
    local = tuple(LocalFile.look_up(each) if isinstance(each, Path) else each for each in files)
    return match_entries(path, options, source, entries, files=local)


def match_entries(
    path: Path,
    options: ReaderOptions,
    source: str,
    entries: Mapping[str, Entry],
    settings: Mapping[str, Any] | None = None,
    files: tuple[Origin, ...] = (),
) -> CheckpointWeights:
    """Describe tensors by names, or by the class of ``config.json`` or of changed settings."""
    folder = _folder(path)
    known, notes = detect_parameters(entries, read_scheme(folder, settings))
    if options.only_counted:
        notes = ()  # on values, which the opened model may never read
    contents = Contents(known, notes=notes, files=files, raw=entries, settings=settings)
    return CheckpointWeights(path, options, source, _described(contents, folder, options))


def _described(contents: Contents, folder: Path, options: ReaderOptions) -> Contents:
    """Return contents with their modules, for which the class is asked unless names decide."""
    file = folder / "config.json"
    if not options.config:
        return contents.named(options, {}, say("note.config_unused"))
    if contents.settings is None and not os.path.lexists(file):
        return contents.named(options, {}, say("note.no_config"))
    config = contents.settings or read_settings(file)
    try:
        if decided := decide(contents.entries, options, config):
            return contents.with_modules(*decided, architecture=config["architectures"][0])
        check_sizes(contents.entries, options, config)
        return _of_class(contents, folder, options)
    except SparsityReportError as error:
        if not options.only_counted:
            raise
        reason = first_line(error)
        return contents.named(options, config, say("note.undecided", reason=reason), reason)


def _of_class(contents: Contents, folder: Path, options: ReaderOptions) -> Contents:
    """Return contents with the modules of their class."""
    need_torch(options.name, "" if options.only_counted else _FACTS)
    from sparsity_report.weights.sources.class_match import describe_class, match_class

    settings, count = contents.settings, len(contents.raw or contents.entries)
    model, parts, notes = match_class(folder, contents.entries, count, settings)
    complete, description, untied = describe_class(options, model, parts, any_arrangement=False)
    notes += contents.notes + untied
    if options.only_counted:
        by = {"model": type(model).__name__, "version": version("transformers")}
        notes += (say("note.described_by_class", **by),)
    contents = replace(contents, parts=parts, description=description, model=model, notes=notes)
    return replace(contents, complete=complete, architecture=type(model).__name__)


def _is_default(path: Path, source: str) -> bool:
    """Return True if transformers, given the folder, loads the opened files."""
    files = (name for name in DEFAULTS if (_folder(path) / name).is_file())
    first = next(files, "")
    return first == path.name if path.is_file() else DEFAULTS.get(first) == source


def _folder(path: Path) -> Path:
    return path.parent if path.is_file() else path


@contextmanager
def without_bars() -> Iterator[None]:
    """Switch off progress bars of transformers, which also draws them into pipes."""
    from transformers.utils import logging

    is_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_enabled:
            logging.enable_progress_bar()
