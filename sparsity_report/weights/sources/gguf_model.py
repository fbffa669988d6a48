"""Weights of GGUF files, in one or several shards, dequantized as they are read.

For counting, the names of llama.cpp describe a model without torch. Metadata and names also decide
complete models of some architectures, for which no class is asked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsity_report.errors import SparsityReportError, explained, printable
from sparsity_report.files.filesystem import scratch
from sparsity_report.untrusted import limits
from sparsity_report.weights.anatomy.names_only import (
    ReaderOptions,
    describe_names,
    experts_per_token,
)
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.sources.checkpoint import CheckpointWeights, Contents
from sparsity_report.weights.sources.gguf_decided import InterleavedRows, decided_contents
from sparsity_report.weights.sources.gguf_files import (
    ARCHITECTURE,
    TOKENS,
    Headers,
    Metadata,
    read_model,
)
from sparsity_report.weights.sources.model_files import check_tensors
from sparsity_report.weights.tensor_slices import Entry, Origin, Slice, memory_slices
from sparsity_report.weights.torch_extra import need_torch
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from torch import nn

# Smaller tensors may hold converted values in the file; larger ones are at most rearranged.
_UNCHANGED_SIZE = 2**16
# Metadata that the reader of transformers ignores, and the attributes they belong to.
_IGNORED = {
    "attention.key_length": "head_dim",
    "context_length": "n_positions",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
# Token embedding of every model, and the output head of some.
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
# One of the matrices that older files hold for each expert.
_ONE_EXPERT = re.compile(r"(?<=\.ffn_)(gate|up|down)\.\d+(?=\.)")


def _named_contents(
    entries: Mapping[str, Entry], metadata: Metadata, options: ReaderOptions
) -> Contents:
    """Return the tensors of a model under the names in the file.

    Rotary tables, which llama.cpp precomputes, are not parameters. A causal model without an
    output head uses its embedding. Experts of a block are one parameter, also in older files.
    """
    parts = defaultdict[str, list[Entry]](list)
    for key, entry in entries.items():
        if not key.startswith("rope_"):
            name = key if key.endswith((".weight", ".bias")) else f"{key}.values"
            parts[_ONE_EXPERT.sub(r"\1_exps", name)].append(entry)
    for tensors in parts.values():
        tensors.sort(key=lambda entry: (len(entry.key), entry.key))  # by the number of the expert
    is_causal = metadata.get(f"{metadata.get(ARCHITECTURE)}.attention.causal", True)
    is_tied = is_causal and _HEAD not in entries and _EMBEDDING in entries
    ties = {_HEAD: _EMBEDDING} if is_tied else {}
    per_token = experts_per_token(metadata)
    description = describe_names(parts, options, per_token, ties, outputs_first=True)
    keys = (f"{metadata.get(ARCHITECTURE)}.expert_group_{word}" for word in ("count", "used_count"))
    count, used = (metadata.get(key) or 1 for key in keys)
    modules = [
        m.changed(lambda p: p if p.experts % count else replace(p, expert_groups=(count, used)))
        for m in description.modules
    ]
    description = replace(description, modules=tuple(modules))
    if is_tied:
        description = replace(description, notes=(say("note.tied_output_head"),))
    return Contents(entries, settings=metadata).with_modules(parts, description)


class GGUFWeights(CheckpointWeights):
    """A GGUF model, whose quantized blocks are counted as their float32 values."""

    def __init__(self, headers: Headers, options: ReaderOptions, files: Sequence[Origin]) -> None:
        path, metadata, entries = read_model(headers)
        check_tensors(path, entries)
        types = {entry.values.packing for entry in entries.values()} - {""}
        self._processor: Any = None
        self.metadata, self.header = metadata, files[0]
        if options.only_counted:
            contents = _named_contents(entries, metadata, options)
        elif not options.config:
            contents = _unmatched(options, entries, metadata, "config=False (--by-names) was given")
        elif decided := decided_contents(entries, metadata, options):
            contents, self._processor = decided
        else:
            contents, self._processor = _match(path, options, entries, metadata)
        if types and not options.only_counted:
            note = say("note.gguf_blocks", kinds=sorted(types))
            contents = replace(contents, notes=(*contents.notes, note))
        super().__init__(path, options, "gguf", replace(contents, files=tuple(files)))

    def cut(self, entry: Entry) -> Iterable[Slice]:
        """Return one tensor as slices, which are dequantized as they are read."""
        # llama.cpp stores some values converted, e.g. the norms of Gemma plus one.
        is_large = entry.total >= _UNCHANGED_SIZE and not entry.key.endswith(".ssm_a")
        if is_large or self._is_unchanged(entry):
            return entry.slices()
        return memory_slices(self._in_memory(entry))

    def array(self, name: str) -> Array:
        """Return the values of a parameter as the model in memory arranges them."""
        if self._processor is None:
            return super().array(name)
        entries = self.entries(name)
        if len(entries) > 1:  # gate and up of each expert, stacked in memory
            return np.concatenate([self._in_memory(entry) for entry in entries], axis=1)
        return self._in_memory(entries[0]).reshape(self[name].shape)

    def as_in_memory(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter as the model in memory arranges them."""
        return self.slices(name) if self.gives_some(name) else memory_slices(self.array(name))

    def gives_some(self, name: str) -> bool:
        """Return True if the values in memory are those of one tensor in the file."""
        entry, *others = self.entries(name)
        return not others and self._is_unchanged(entry)

    def _is_unchanged(self, entry: Entry) -> bool:
        """Return True if transformers uses a tensor as it is in the file, as it does experts."""
        if self._processor is None or "_exps" in entry.key:
            return True
        return isinstance(self._processor, InterleavedRows) and not self._processor.turns(entry.key)

    def buffers(self) -> dict[str, Array]:
        """Return the values of the saved buffers; a model that names decide has none."""
        return super().buffers() if self.contents.model else {}

    def with_experts(self, entries: Mapping[str, Entry], count: int, name: str) -> GGUFWeights:
        """Return the model with other tensors of a number of experts, in one file."""
        metadata = {k: v for k, v in self.metadata.items() if not k.startswith("split.")}
        metadata[f"{metadata[ARCHITECTURE]}.expert_count"] = count
        options = replace(self.options, name=name)
        fewer = GGUFWeights({self.path: (metadata, {**entries})}, options, [self.header])
        fewer.files = ()
        return fewer

    def match_class(self) -> tuple[nn.Module | None, Mapping[str, list[Entry]]]:
        """Return the model on the meta device and its tensors by asking the class."""
        need_torch(self.name)
        contents, _ = _match(self.path, self.options, self.unpacked, self.metadata)
        return contents.model, contents.parts

    def configuration(self) -> dict[str, Any]:
        """Return the configuration that transformers reads from the header, or its metadata."""
        if (model := self.contents.model) is None:
            return dict(self.settings or {})
        from sparsity_report.weights.sources.memory import settings_of

        return settings_of(model)

    def _in_memory(self, entry: Entry) -> Array:
        values = entry.read()
        if self._is_unchanged(entry):
            return values
        # Transformers converts float32, which represents all values of bfloat16.
        array = values.astype(np.float32) if entry.dtype == "bfloat16" else values

        def explain(error: Exception) -> str:
            return (
                f"{self.path}: the size of {entry.key!r} does not fit the number of heads in the "
                f"metadata: {error}; download it again"
            )

        with np.errstate(all="ignore"), explained(explain, ValueError, ZeroDivisionError):
            into: dict[str, Any] = {"tensors": {}}
            processed = self._processor.process(array, entry.key, parsed_parameters=into)
        return np.ascontiguousarray(processed.weights).astype(values.dtype, copy=False)


def _match(
    path: Path, options: ReaderOptions, entries: Mapping[str, Entry], metadata: Metadata
) -> tuple[Contents, Any]:
    """Match tensors with the model of transformers; return them and its value converter."""
    if metadata.get(ARCHITECTURE) == "llama" and metadata.get("llama.expert_count"):
        return _unmatched(options, entries, metadata, say("note.llama_mixture")), None
    need_torch(options.name, "names and metadata")
    from transformers import modeling_gguf_pytorch_utils as utils

    from sparsity_report.weights.anatomy.config_sizes import parameters_for
    from sparsity_report.weights.anatomy.meta_model import meta_model
    from sparsity_report.weights.sources.class_match import describe_class

    try:
        config = _read_config(metadata, entries)
    except SparsityReportError:
        raise  # no space for a temporary file
    except Exception as error:  # transformers supports only some GGUF architectures
        return _unmatched(options, entries, metadata, printable(str(error), 200)), None
    config.name_or_path = str(path.parent)
    try:
        model = meta_model(config, path, parameters_for(len(entries)))
        kinds, kind = utils.TENSOR_PROCESSORS, metadata.get(ARCHITECTURE)
        processor = kinds.get(kind, utils.TensorProcessor)(config=config.to_dict())
        # As one module first: transformers takes seconds to map a large model module by module.
        config, state = model.config, model.state_dict
        childless = SimpleNamespace(config=config, state_dict=state, named_children=list)
        for module in (childless, model):
            names, unknown = _names(entries, utils.get_gguf_hf_weights_map(module, processor))
            if not unknown:
                break
    except Exception as error:  # models raise many exceptions
        return _unmatched(options, entries, metadata, printable(str(error), 200)), None
    if unknown:
        class_name = type(model).__name__
        reason = say("note.tensor_without_place", class_name=class_name, tensor=unknown[0])
        return _unmatched(options, entries, metadata, reason), None
    parts: dict[str, list[Entry]] = defaultdict(list)
    for key, name in names.items():
        parts[name].append(entries[key])
    complete, description, untied = describe_class(options, model, parts, any_arrangement=True)
    contents = Contents(entries, dict(parts), description, model, untied, complete=complete)
    return replace(contents, architecture=type(model).__name__), processor


def _unmatched(
    options: ReaderOptions, entries: Mapping[str, Entry], metadata: Metadata, reason: str
) -> Contents:
    """Return the tensors under their names in the file."""
    architecture = printable(metadata.get(ARCHITECTURE, ""), 40)
    note = say("note.gguf_names", architecture=architecture, reason=reason)
    return replace(_named_contents(entries, metadata, options), notes=(note,), settings=None)


def _names(entries: Collection[str], known: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Map tensors to parameters, gate before up, and list those without a parameter."""
    # Rotary tables, which llama.cpp precomputes, are not parameters.
    keys = sorted(key for key in entries if not key.startswith("rope_"))
    # The map may lack the `.weight` of experts.
    names = {key: known.get(key) or known.get(key.removesuffix(".weight")) for key in keys}
    placed = {key: name for key, name in names.items() if name}
    return placed, [key for key in keys if key not in placed]


def _read_config(metadata: Metadata, names: Collection[str]) -> Any:
    """Return the configuration of a model, as transformers reads it from a header.

    The reader of transformers trusts every length in a file. It gets a new file instead, with the
    checked metadata and one tensor of a single value for each kind of tensor name.

    Parameters
    ----------
    metadata : mapping
        Checked metadata of a header.
    names : collection of str
        Names of the tensors of all shards.

    Raises
    ------
    Exception
        Transformers does not know the architecture, or cannot build its configuration.
    """
    from transformers import AutoConfig

    with scratch() as folder:
        _write_header(folder / "model.gguf", metadata, names)
        config: Any = AutoConfig.from_pretrained(
            folder, gguf_file="model.gguf", local_files_only=True, trust_remote_code=False
        )
    _amend_(config, metadata, names)
    return config


def _amend_(config: Any, metadata: Metadata, names: Collection[str]) -> None:
    """Set what the reader of transformers ignores and what the written file lacks."""
    architecture, known = metadata.get(ARCHITECTURE, ""), config.to_dict()
    for key, attribute in _IGNORED.items():
        if attribute in known and f"{architecture}.{key}" in metadata:
            setattr(config, attribute, metadata[f"{architecture}.{key}"])
    vocabulary = metadata.get(f"{architecture}.vocab_size", metadata.get(TOKENS))
    if vocabulary is not None:
        config.vocab_size = vocabulary
    if not any(".ffn_gate" in name for name in names) and "is_gated_act" in known:
        config.is_gated_act = False  # transformers assumes that every T5 is gated


def _write_header(path: Path, metadata: Metadata, names: Collection[str]) -> None:
    """Write a GGUF file of metadata and of tensors that all have the same value."""
    from gguf import GGUFValueType, GGUFWriter

    value_types = {
        bool: GGUFValueType.BOOL, int: GGUFValueType.INT64, float: GGUFValueType.FLOAT64,
        str: GGUFValueType.STRING,
    }  # fmt: skip
    # Transformers only asks which kinds of tensors there are.
    kinds = {re.sub(r"\d+", "0", name): name for name in names}
    if len(kinds) > limits.BLOCKS:
        raise ValueError(f"it holds {len(kinds):,} kinds of tensors")
    architecture = metadata.get(ARCHITECTURE, "")
    writer = GGUFWriter(path, architecture)
    for key, value in metadata.items():
        is_token = key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
        if not (is_token or key.startswith((f"{architecture}.", "general.name"))):
            continue
        if isinstance(value, list) and value:
            writer.add_array(key, value)
        elif value_type := value_types.get(type(value)):
            is_huge = value_type == GGUFValueType.INT64 and value >= 2**63
            writer.add_key_value(key, value, GGUFValueType.UINT64 if is_huge else value_type)
    if TOKENS in metadata:
        writer.add_array(TOKENS, [""])
    for name in kinds.values():
        writer.add_tensor(name, np.zeros(1, np.float32))

    def explain(error: OSError) -> str:
        return f"{path}: cannot be written: {error.strerror}; free space for temporary files"

    with closing(writer), explained(explain, OSError):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
