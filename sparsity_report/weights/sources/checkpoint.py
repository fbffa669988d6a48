"""Checkpoints whose tensors are matched with the model of ``config.json``.

The model is built on the meta device, and the renaming rules of transformers map tensors on disk
to parameters in memory, so files and modules in memory give the same counts. Without a config,
names and shapes decide. Without values, the config alone gives the structure.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy.cache_geometry import cache_of
from sparsity_report.weights.anatomy.describe import describe
from sparsity_report.weights.anatomy.meta_model import parameters_for, read_config, without_head
from sparsity_report.weights.anatomy.names_only import ReaderOptions, describe_names
from sparsity_report.weights.anatomy.parameter_places import walk
from sparsity_report.weights.anatomy.tensor_names import fits, memory_parts, without_tensor
from sparsity_report.weights.packed.format_detection import check_weights, detect_parameters
from sparsity_report.weights.packed.packed_tensor import Packed, is_remote
from sparsity_report.weights.packed.quantization_config import read_scheme, read_settings
from sparsity_report.weights.sources.memory import ModuleWeights
from sparsity_report.weights.sources.model_files import gather_entries
from sparsity_report.weights.sources.model_paths import DEFAULTS
from sparsity_report.weights.sources.quiet import without_bars
from sparsity_report.weights.sources.tokenizer import open_tokenizer
from sparsity_report.weights.tensor_slices import Entry, Origin, Slice, join_slices, pieces
from sparsity_report.weights.weights import Weights, float8_notes
from sparsity_report.words.sentences import say

T = TypeVar("T", bound=Path | Origin)


@dataclass(frozen=True)
class Contents:
    """The tensors of a checkpoint and its model.

    Attributes
    ----------
    entries : mapping of str to Entry
        Tensors on disk by key.
    parts : mapping of str to list of Entry
        Tensors that make up each parameter or buffer.
    model : nn.Module or None
        The model on the meta device; None if transformers has no class for it.
    notes : tuple of str
        Remarks on how the files were read.
    per_token : int or None
        Experts that a token is routed to, for files without a model.
    raw : mapping of str to Entry or None
        Tensors of the files in order, parts of packed weights included; None if none is packed.
    settings : mapping or None
        Changed ``config.json``; None if it is that of the folder.
    """

    entries: Mapping[str, Entry]
    parts: Mapping[str, list[Entry]]
    model: nn.Module | None
    notes: tuple[str, ...] = ()
    per_token: int | None = None
    raw: Mapping[str, Entry] | None = None
    settings: Mapping[str, Any] | None = None


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
        model, parts = contents.model, contents.parts
        untied: tuple[str, ...] = ()
        if model is None:
            is_gguf = source == "gguf"
            description = describe_names(
                parts, options, contents.per_token, outputs_first=is_gguf
            ).settled()
        else:
            untied = _untie_(model, parts)
            parts = _complete(options.name, model, parts, any_arrangement=source == "gguf")
            description = describe(walk(model), options, parts)

        architecture = "" if model is None else type(model).__name__
        modules, widths = description.modules, description.attention_widths
        notes = options.notes + contents.notes + untied
        notes += float8_notes(modules) + description.notes
        cache = cache_of(model, {p.name: p.shape for each in modules for p in each.parameters})
        super().__init__(options.name, source, architecture, modules, widths, notes, cache)
        self.path, self.options, self.contents = path, options, contents
        self.settings = contents.settings
        self.raw = contents.entries if contents.raw is None else contents.raw
        self.unpacked, self._parts, self._outline = contents.entries, parts, model
        saved = {} if model is None else dict(model.named_buffers())
        self._buffers = {name: contents.parts[name] for name in saved if name in contents.parts}

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

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of a parameter, stacked if several tensors make it up on disk."""
        dtype = self.entries(name)[0].values.dtype
        return join_slices(self.slices(name), dtype, self[name].shape)

    def entries(self, name: str) -> list[Entry]:
        """Return the tensors on disk that make up a parameter."""
        if name not in self._parts:
            raise self.wrong(f"has no tensor for {name!r}; see weights.parameters")
        return self._parts[name]

    def tokenizer(self) -> Any:
        """Open the tokenizer beside the weights or in a GGUF file, without running code."""
        return open_tokenizer(self.directory, self.path if self.source == "gguf" else None)

    def module(self) -> nn.Module:
        """Load a runnable model with transformers in its dtype.

        Packed and float8 weights, for which torch has no products, are loaded as float32.
        """
        self.require_runnable()
        if any(isinstance(entry.values, Packed) for entry in self.unpacked.values()):
            return self.filled_module()
        dtype = torch.float32 if float8_notes(self.modules) else "auto"
        if self.settings is None and _is_default(self.path, self.source):
            return self._load(self.directory, dtype=dtype)
        # transformers would look for its default file names and perhaps load other weights.
        values = {key: entry.read() for key, entry in self.unpacked.items()}
        return self._load(None, dtype=dtype, state_dict=values)

    def filled_module(self) -> nn.Module:
        """Return a runnable model in float32 with the counted values."""
        self.require_runnable()
        values = {p.name: self.tensor(p.name).float() for p in self.stored}
        return self._load(None, dtype=torch.float32, state_dict=values | self.buffers())

    def buffers(self) -> dict[str, torch.Tensor]:
        """Return the values of the saved buffers."""
        values: dict[str, torch.Tensor] = {}
        for name, entries in self._buffers.items():
            assert self._outline is not None
            shape = self._outline.get_buffer(name).shape
            if sum(entry.total for entry in entries) != shape.numel():
                raise SparsityReportError(
                    f"{self.name}: {name} has shape {entries[0].shape} on disk but "
                    f"{tuple(shape)} in the model of config.json; it can be counted but not run"
                )
            parts = (part for entry in entries for part in self.cut(entry))
            values[name] = join_slices(parts, entries[0].values.dtype, tuple(shape))
        return values

    def configuration(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        return dict(self.settings or read_settings(self.directory / "config.json"))

    def _load(self, folder: Path | None, **options: Any) -> nn.Module:
        """Load a model from a folder or from given values; refuse missing tensors."""
        import transformers

        outline = self.require_runnable()
        with without_bars():
            model, info = getattr(transformers, self.architecture).from_pretrained(
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
        assert isinstance(model, nn.Module)
        return model.eval()

    def require_runnable(self) -> nn.Module:
        """Return the model on the meta device; refuse one without class or copy on disk."""
        entries = self.unpacked.values()
        if any(is_remote(e.values.parts if isinstance(e.values, Packed) else [e]) for e in entries):
            raise self.wrong(
                "is streamed from the Hub, so it can be counted but not run; load it without "
                "stream, which keeps a copy on this disk"
            )
        if self._outline is None:
            raise self.wrong(
                "can be counted but not run: transformers has no class for it; load it with that "
                "class and pass the nn.Module"
            )
        return self._outline


def open_checkpoint(
    path: Path,
    options: ReaderOptions,
    source: str,
    files: Iterable[T],
    read: Callable[[T], Iterable[Entry]],
) -> CheckpointWeights:
    """Open the tensors of files and match them with the model of their ``config.json``."""
    return match_entries(path, options, source, gather_entries(path, files, read))


def match_entries(
    path: Path,
    options: ReaderOptions,
    source: str,
    entries: Mapping[str, Entry],
    settings: Mapping[str, Any] | None = None,
) -> CheckpointWeights:
    """Match tensors with the model of the ``config.json`` beside them, or of changed settings."""
    folder = _folder(path)

    def is_fitting(model: nn.Module) -> bool:
        return fits(model, detect_parameters(entries, read_scheme(folder, settings))[0])

    model: nn.Module | None = None
    notes: tuple[str, ...] = (say("note.config_unused"),)
    if options.config:
        model, notes = read_config(folder, is_fitting, parameters_for(len(entries)), settings)
    known, packed_notes = detect_parameters(entries, read_scheme(folder, settings))
    if model is not None and (body := _saved_body(model, known)):
        classes = {"named": type(model).__name__, "model": type(body).__name__}
        model, notes = body, (*notes, say("note.body_only", **classes))
    parts, left_out = memory_parts(model, known)
    buffers = set() if model is None else {name for name, _ in model.named_buffers()}
    for name, tensors in parts.items():
        if name not in buffers:
            check_weights(*tensors)
    contents = Contents(
        known, parts, model, notes + packed_notes + left_out, None, entries, settings
    )
    return CheckpointWeights(path, options, source, contents)


def _saved_body(model: nn.Module, entries: Mapping[str, Entry]) -> nn.Module | None:
    """Return the model without a head if its class wrote the files: no name has a body's prefix."""
    prefix = str(getattr(model, "base_model_prefix", ""))
    is_prefixed = not prefix or any(key.startswith(f"{prefix}.") for key in entries)
    if is_prefixed or fits(model, entries) or not hasattr(model, prefix):
        return None
    body = without_head(model, parameters_for(len(entries)))
    return body if fits(body, entries) else None


def _is_default(path: Path, source: str) -> bool:
    """Return True if transformers, given the folder, loads the opened files."""
    files = (name for name in DEFAULTS if (_folder(path) / name).is_file())
    first = next(files, "")
    return first == path.name if path.is_file() else DEFAULTS.get(first) == source


def _folder(path: Path) -> Path:
    return path.parent if path.is_file() else path


def _complete(
    name: str, model: nn.Module, parts: Mapping[str, list[Entry]], any_arrangement: bool
) -> dict[str, list[Entry]]:
    """Return the tensors of each parameter, tied ones included; refuse missing tensors."""
    twins = _twins(model)
    if missing := without_tensor(model, parts):
        raise SparsityReportError(
            f"{name}: {len(missing)} tensor(s) are missing from the checkpoint, "
            f"first {missing[0]!r}; download the whole checkpoint. If it is complete, config.json "
            "names another class than the saved one"
        )
    complete: dict[str, list[Entry]] = {}
    for parameter, names in twins.items():
        entries = next(parts[twin] for twin in names if twin in parts)
        shape = entries[0].shape
        # A stack of one expert may lack its first dimension.
        same_shape = tuple(parameter.shape) in {shape, (1, *shape)} or any_arrangement
        same_size = sum(entry.total for entry in entries) == parameter.numel()
        if not same_size or (len(entries) == 1 and not same_shape):
            shapes = ", ".join(str(e.shape) for e in entries[:3])
            raise SparsityReportError(
                f"{name}: {names[0]} has shape {shapes} on disk but {tuple(parameter.shape)} "
                "in the model of config.json; give the config.json of these weights"
            )
        complete |= dict.fromkeys(names, entries)
    return complete


def _untie_(model: nn.Module, parts: Mapping[str, list[Entry]]) -> tuple[str, ...]:
    """Untie parameters whose values on disk differ, as transformers does, and return a note."""
    apart = []
    for parameter, names in _twins(model).items():
        first, *others = [name for name in names if name in parts] or names[:1]
        for name in others:
            if not _equal(parts[first], parts[name]):
                parent, _, leaf = name.rpartition(".")
                untied = nn.Parameter(torch.empty_like(parameter), parameter.requires_grad)
                model.get_submodule(parent).register_parameter(leaf, untied)
                apart.append(name)
    return (say("note.untied", names=apart),) if apart else ()


def _twins(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Return all names of each parameter; tied ones have several."""
    twins: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        twins[parameter].append(name)
    return twins


def _equal(one: Sequence[Entry], other: Sequence[Entry]) -> bool:
    """Return True if tensors are equal bit by bit."""
    if [(e.shape, e.dtype) for e in one] != [(e.shape, e.dtype) for e in other]:
        return False
    values = (pieces(part for e in entries for part in e.slices()) for entries in (one, other))
    pairs = zip(*values, strict=True)
    return all(
        torch.equal(left.view(torch.uint8), right.view(torch.uint8)) for left, right in pairs
    )


class Outline(Weights):
    """A model of known names, shapes, dtypes, FLOPs and dense bytes, and unknown zeros."""

    def tensor(self, name: str) -> torch.Tensor:
        """Refuse to read values."""
        raise self.wrong(f"was opened without values, so {name} cannot be read; load it with them")

    def module(self) -> nn.Module:
        """Refuse to run."""
        raise self.wrong("was opened without values and cannot be run; load it with them")


def without_values(weights: Weights) -> Outline:
    """Return the structure of an opened model."""
    shown = {field.name: getattr(weights, field.name) for field in fields(Weights)}
    modules = tuple(m.changed(lambda p: replace(p, known=False)) for m in weights.modules)
    return Outline(**shown | {"modules": modules})


def from_config(directory: Path, options: ReaderOptions) -> Outline:
    """Return the structure of a model from its transformers config."""
    model, notes = read_config(directory)
    if model is None:
        raise SparsityReportError(
            f"{options.name} cannot be opened without values: {notes[0]}; open it with them"
        )
    # Some classes create parameters with values even on the meta device.
    outline = without_values(ModuleWeights(model, options))
    outline.source = "config"
    outline.notes = (*options.notes, say("note.config_promise"), *outline.notes)
    return outline
