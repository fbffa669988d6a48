"""Weights of GGUF files, in one or several shards, dequantized as they are read."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gguf import GGUFValueType, GGUFWriter
from torch import nn

from sparsity_report.errors import SparsityReportError, explained, printable
from sparsity_report.files.filesystem import scratch
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.untrusted import limits
from sparsity_report.weights.adapters.lora import check_tensors
from sparsity_report.weights.anatomy.describe import ReaderOptions, on_disk
from sparsity_report.weights.anatomy.meta_model import meta_model, parameters_for
from sparsity_report.weights.gguf.gguf_header import (
    ARCHITECTURE,
    TOKENS,
    BlockSlice,
    Header,
    Metadata,
    read_header,
)
from sparsity_report.weights.sources.checkpoint import CheckpointWeights, Contents
from sparsity_report.weights.tensor_slices import Entry, Slice, memory_slices
from sparsity_report.weights.weights import ONCE, Module, Parameter

# Smaller tensors may hold converted values in the file; larger ones are at most rearranged.
_UNCHANGED_SIZE = 2**16
# Metadata that the reader of transformers ignores, and the attributes they belong to.
_IGNORED = {
    "attention.key_length": "head_dim",
    "context_length": "n_positions",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}

_VALUE_TYPES = {
    bool: GGUFValueType.BOOL, int: GGUFValueType.INT64, float: GGUFValueType.FLOAT64,
    str: GGUFValueType.STRING,
}  # fmt: skip
_Headers = Mapping[Path, Header]
# Block number in the name of a tensor.
_BLOCK = re.compile(r"(?:.+\.)?blk\.(\d+)\.")
# Models in shards, as llama.cpp names them.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


class GGUFWeights(CheckpointWeights):
    """A GGUF model, whose quantized blocks are counted as their float32 values."""

    def __init__(self, path: Path, options: ReaderOptions, headers: _Headers | None = None) -> None:
        path, metadata, entries = _read_model(path, headers)
        check_tensors(path, entries)
        _check_scales(path, entries)
        contents, self._processor = _match(path, entries, metadata)
        if types := {entry.values.packing for entry in entries.values()} - {""}:
            note = phrase("note.gguf_blocks", kinds=sorted(types))
            contents = replace(contents, notes=(*contents.notes, note))
        super().__init__(path, options, "gguf", contents)
        if contents.model is None and (head := _tied_head(entries, metadata)):
            self.modules += head
            self.notes += (phrase("note.tied_output_head"),)

    def cut(self, entry: Entry) -> Iterable[Slice]:
        """Return one tensor as slices, which are dequantized as they are read."""
        # llama.cpp stores some values converted, e.g. the norms of Gemma plus one.
        if entry.total >= _UNCHANGED_SIZE and not entry.key.endswith(".ssm_a"):
            return entry.slices()
        return memory_slices(self._in_memory(entry))

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of a parameter as the model in memory arranges them."""
        entries = self.entries(name)
        if len(entries) > 1:  # gate and up of each expert, stacked in memory
            return torch.cat([self._in_memory(entry) for entry in entries], dim=1)
        return self._in_memory(entries[0]).reshape(self[name].shape)

    def as_in_memory(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter as the model in memory arranges them."""
        return self.slices(name) if self.gives_some(name) else memory_slices(self.tensor(name))

    def gives_some(self, name: str) -> bool:
        """Return True if the values in memory are those of one tensor in the file."""
        entry, *others = self.entries(name)
        return not others and self._is_unchanged(entry)

    def _is_unchanged(self, entry: Entry) -> bool:
        """Return True if transformers uses a tensor as it is in the file, as it does experts."""
        return self._processor is None or "_exps" in entry.key

    def module(self) -> nn.Module:
        """Load the dequantized model with transformers, in float32."""
        # The reader of transformers is ten times slower and reads only the first shard.
        return self.filled_module()

    def _in_memory(self, entry: Entry) -> torch.Tensor:
        values = entry.read()
        if self._is_unchanged(entry):
            return values
        # NumPy has no bfloat16; float32 represents all of its values.
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()

        def explain(error: Exception) -> str:
            return (
                f"{self.path}: the size of {entry.key!r} does not fit the number of heads in the "
                f"metadata: {error}; download it again"
            )

        with np.errstate(all="ignore"), explained(explain, ValueError, ZeroDivisionError):
            into: dict[str, Any] = {"tensors": {}}
            processed = self._processor.process(array, entry.key, parsed_parameters=into)
        return torch.from_numpy(np.ascontiguousarray(processed.weights)).to(values.dtype)


def _check_scales(path: Path, entries: Mapping[str, Entry]) -> None:
    """Refuse blocks with a separate tensor of scales, as NVFP4 and BitNet may have."""
    for key in entries:
        weight = entries.get(f"{key.removesuffix('.scale')}.weight")
        if key.endswith(".scale") and weight and isinstance(weight.values, BlockSlice):
            raise SparsityReportError(
                f"{path}: {key!r} multiplies the blocks ({weight.values.block_type}) of "
                f"{weight.key!r}, which is not supported; give a file of another type"
            )


def _tied_head(entries: Mapping[str, Entry], metadata: Metadata) -> tuple[Module, ...]:
    """Return the output head of a causal model that uses the embedding as its head."""
    embedding = entries.get("token_embd.weight")
    is_causal = metadata.get(f"{metadata.get(ARCHITECTURE)}.attention.causal", True)
    if embedding is None or "output.weight" in entries or not is_causal:
        return ()
    rows, columns = embedding.shape
    shape, held = (rows, columns), on_disk([embedding])
    head = Parameter("output.weight", shape, matrix=shape, tied_to=embedding.key, **held)
    return (Module("output", "", "lm_head", (head,)),)


def _experts_used(metadata: Metadata) -> Fraction:
    """Return the share of the experts that a token is routed to."""
    architecture = metadata.get(ARCHITECTURE)
    used = metadata.get(f"{architecture}.expert_used_count")
    total = metadata.get(f"{architecture}.expert_count")
    return Fraction(used, total) if used and total else ONCE


def _match(path: Path, entries: Mapping[str, Entry], metadata: Metadata) -> tuple[Contents, Any]:
    """Match tensors with the model of transformers; return them and its value converter."""
    from transformers import modeling_gguf_pytorch_utils as utils

    try:
        config = _read_config(metadata, entries)
    except SparsityReportError:
        raise  # no space for a temporary file
    except Exception as error:  # transformers supports only some GGUF architectures
        return _unmatched(entries, metadata, printable(str(error), 200)), None
    config.name_or_path = str(path.parent)
    _check_blocks(path, config, entries)
    try:
        model = meta_model(config, path, most=parameters_for(len(entries)))
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
        return _unmatched(entries, metadata, printable(str(error), 200)), None
    if unknown:
        class_name = type(model).__name__
        reason = phrase("note.tensor_without_place", class_name=class_name, tensor=unknown[0])
        return _unmatched(entries, metadata, reason), None
    parts: dict[str, list[Entry]] = defaultdict(list)
    for key, name in names.items():
        parts[name].append(entries[key])
    return Contents(entries, dict(parts), model), processor


def _check_blocks(path: Path, config: Any, entries: Collection[str]) -> None:
    """Refuse a model with more blocks than the file holds, before it is built."""
    blocks = {match[1] for match in map(_BLOCK.match, entries) if match}
    expected = getattr(config, "num_hidden_layers", None) or 0
    if expected > len(blocks):
        raise SparsityReportError(
            f"{path}: its model has {expected:,} blocks, but it holds tensors of {len(blocks):,}; "
            "download it again"
        )


def _unmatched(entries: Mapping[str, Entry], metadata: Metadata, reason: str | Phrase) -> Contents:
    """Return the tensors under their names in the file."""
    parts = {
        key if key.endswith((".weight", ".bias")) else f"{key}.values": [entry]
        for key, entry in entries.items()
    }
    architecture = printable(metadata.get(ARCHITECTURE, ""), 40)
    note = phrase("note.gguf_names", architecture=architecture, reason=reason)
    return Contents(entries, parts, None, (note,), _experts_used(metadata))


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
        elif value_type := _VALUE_TYPES.get(type(value)):
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


def shard_names(name: str) -> list[str]:
    """Return the names of all shards of the model that a file belongs to, in order.

    Examples
    --------
    >>> shard_names("x-00002-of-00002.gguf"), shard_names("x.gguf")
    (['x-00001-of-00002.gguf', 'x-00002-of-00002.gguf'], ['x.gguf'])
    """
    match = _SHARD.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return [name]
    total = int(match["count"])
    return [f"{match['stem']}-{number:05}-of-{total:05}.gguf" for number in range(1, total + 1)]


def model_names(names: Iterable[str]) -> list[str]:
    """Return the name of the first shard of each GGUF model among files, present or not.

    Examples
    --------
    >>> model_names(["b.gguf", "a-00002-of-00002.gguf", "a-00001-of-00002.gguf", "a.txt"])
    ['a-00001-of-00002.gguf', 'b.gguf']
    """
    return sorted({shard_names(name)[0] for name in names if name.endswith(".gguf")})


def unsharded_name(name: str) -> str:
    """Return the name that the file of a model would have without shards.

    Examples
    --------
    >>> unsharded_name("x-00002-of-00003.gguf")
    'x.gguf'
    """
    return name if len(shard_names(name)) == 1 else _SHARD.sub(r"\g<stem>.gguf", name)


def _read_model(path: Path, headers: _Headers | None) -> tuple[Path, Metadata, dict[str, Entry]]:
    """Return the first shard of a model, its metadata, and the tensors of all shards.

    Parameters
    ----------
    path : pathlib.Path
        Any shard.
    headers : mapping, optional
        Headers of all shards in order, if they were read before.

    Raises
    ------
    SparsityReportError
        A shard is missing, or shards belong to different models.
    """
    headers = _read_headers(path) if headers is None else headers
    first, *_ = headers
    metadata, _ = headers[first]
    entries: dict[str, Entry] = {}
    for number, (file, (claims, tensors)) in enumerate(headers.items()):
        _check_claims(file, claims, number, len(headers))
        for key in ("split.tensors.count", "general.architecture"):
            if claims.get(key, metadata.get(key)) != metadata.get(key):
                raise SparsityReportError(
                    f"{file}: {key} is {claims[key]} but {metadata.get(key)} in {first.name}, so "
                    "they are shards of two models; download all shards of one again"
                )
        if repeated := sorted(entries.keys() & tensors):
            raise SparsityReportError(
                f"{file}: tensor {repeated[0]!r} is in {entries[repeated[0]].origin} too, so they "
                "are shards of two models; download all shards of one again"
            )
        entries |= tensors
    if len(headers) > 1 and len(entries) != metadata.get("split.tensors.count"):
        raise SparsityReportError(
            f"{first}: its shards hold {len(entries)} tensors, but split.tensors.count is "
            f"{metadata.get('split.tensors.count')}; download all shards again"
        )
    return first, metadata, entries


def _read_headers(path: Path) -> _Headers:
    files = [path.with_name(name) for name in shard_names(path.name)]
    if missing := [file.name for file in files if not file.is_file()]:
        raise SparsityReportError(
            f"{path.with_name(unsharded_name(path.name))} is in {len(files)} shards, and "
            f"{len(missing)} of them are missing, first {missing[0]}; download all into one folder"
        )
    return {file: read_header(file) for file in files}


def _check_claims(file: Path, claims: Metadata, number: int, count: int) -> None:
    """Refuse a file whose header and name disagree on the shard."""
    claimed_number, claimed_count = claims.get("split.no", 0), claims.get("split.count", 1)
    if (claimed_number, claimed_count) == (number, count):
        return
    if count == 1:
        raise SparsityReportError(
            f"{file} is one of {claimed_count} shards of a model; give each the name that "
            "llama.cpp gives it, such as name-00001-of-00003.gguf, and put all into one folder"
        )
    raise SparsityReportError(
        f"{file}: split.no is {claimed_number} and split.count {claimed_count}, but its name "
        f"means {number} and {count}; download it again, or give it its original name"
    )
