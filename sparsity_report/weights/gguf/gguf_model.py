"""Weights in GGUF, in one file or several, quantised blocks dequantised as they are read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.weights.adapters.adapter_files import check_tensors
from sparsity_report.weights.anatomy.config_limits import parameters_for
from sparsity_report.weights.anatomy.describe import ReaderOptions, on_disk
from sparsity_report.weights.anatomy.meta_model import meta_model
from sparsity_report.weights.anatomy.parameters import ONCE, Module, Parameter
from sparsity_report.weights.gguf.gguf_config import read_config
from sparsity_report.weights.gguf.gguf_header import BlockSlice, Header
from sparsity_report.weights.gguf.gguf_metadata import ARCHITECTURE
from sparsity_report.weights.gguf.gguf_shards import read_model
from sparsity_report.weights.sources.checkpoint import CheckpointWeights, Contents
from sparsity_report.weights.tensor_slices import Entry, Slice, held, joined

# Vectors, convolutions and other small tensors; matrices are at most rearranged.
_MAY_DIFFER = 2**16
# The number of the block that a tensor is of.
_BLOCK = re.compile(r"(?:.+\.)?blk\.(\d+)\.")


class GGUFWeights(CheckpointWeights):
    """A GGUF model: quantised blocks are counted as the float32 values they stand for."""

    def __init__(
        self, path: Path, options: ReaderOptions, headers: Mapping[Path, Header] | None = None
    ) -> None:
        path, facts, entries = read_model(path, headers)
        check_tensors(path, entries)
        _check_scales(path, entries)
        contents, self._processor = _match(path, entries, facts)
        blocks = {
            e.values.quantisation for e in entries.values() if isinstance(e.values, BlockSlice)
        }
        if quantised := sorted(blocks):
            note = phrase("note.gguf_blocks", kinds=quantised)
            contents = replace(contents, notes=(*contents.notes, note))
        super().__init__(path, options, "gguf", contents)
        if contents.model is None and (head := _tied_head(entries, facts)):
            self.modules += head
            self.notes += (phrase("note.tied_output_head"),)

    def cut(self, entry: Entry) -> Iterable[Slice]:
        """Return one tensor as slices of its file, which are dequantised as they are read."""
        # llama.cpp keeps some values as a function of the model's, e.g. Gemma's norms plus one.
        if entry.total >= _MAY_DIFFER and not entry.key.endswith(".ssm_a"):
            return entry.slices()
        return held(self._in_memory(entry))

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of a parameter as they are arranged in the model in memory."""
        entries = self.entries(name)
        if len(entries) > 1:  # of each expert gate and up, one above the other in memory
            return torch.cat([self._in_memory(entry) for entry in entries], dim=1)
        return self._in_memory(entries[0]).reshape(self[name].shape)

    def as_in_memory(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter as they are arranged in the model in memory."""
        entry, *others = self.entries(name)
        if others or not self._stays(entry):
            yield from held(self.tensor(name))
        else:
            yield from self.cut(entry)

    def gives_some(self, name: str) -> bool:
        """Whether the values are in memory as they are in the file."""
        entry, *others = self.entries(name)
        return not others and self._stays(entry)

    def _stays(self, entry: Entry) -> bool:
        """Whether transformers leaves a tensor as it is in the file."""
        # Experts come as they are, one after the other.
        return self._processor is None or "_exps" in entry.key

    def module(self) -> nn.Module:
        """Load the dequantised model with transformers, in float32."""
        # transformers' reader takes ten times as long, and of a model in pieces reads the first.
        return self.filled_module()

    def _in_memory(self, entry: Entry) -> torch.Tensor:
        values = joined(list(entry.slices()), entry.values.dtype, entry.shape)
        if self._stays(entry):
            return values
        # numpy has no bfloat16; float32 holds every value of it.
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        try:
            with np.errstate(all="ignore"):
                done = self._processor.process(array, entry.key, parsed_parameters={"tensors": {}})
        except (ValueError, ZeroDivisionError) as error:
            raise SparsityReportError(
                f"{self.path}: {entry.key!r} has not the values of as many heads as the file "
                f"tells of: {error}; fetch it again"
            ) from error
        return torch.from_numpy(np.ascontiguousarray(done.weights)).to(values.dtype)


def _check_scales(path: Path, entries: Mapping[str, Entry]) -> None:
    """Refuse blocks that a tensor beside them multiplies, as NVFP4 and BitNet may have it."""
    for key in entries:
        weight = entries.get(f"{key.removesuffix('.scale')}.weight")
        if key.endswith(".scale") and weight and isinstance(weight.values, BlockSlice):
            raise SparsityReportError(
                f"{path}: {key!r} multiplies the blocks ({weight.values.quantisation}) of "
                f"{weight.key!r}, which is not understood yet; give a file of another type"
            )


def _tied_head(entries: Mapping[str, Entry], facts: Mapping[str, Any]) -> tuple[Module, ...]:
    """Return the output head that a causal model without one has in its embedding."""
    embedding = entries.get("token_embd.weight")
    causal = facts.get(f"{facts.get(ARCHITECTURE)}.attention.causal", True)
    if embedding is None or "output.weight" in entries or not causal:
        return ()
    rows, columns = embedding.shape
    head = Parameter(
        name="output.weight",
        shape=(rows, columns),
        matrix=(rows, columns),
        tied_to=embedding.key,
        **on_disk([embedding]),
    )
    return (Module("output", "", "lm_head", (head,)),)


def _experts_used(facts: Mapping[str, Any]) -> Fraction:
    """Share of the experts that a token is sent to."""
    architecture = facts.get(ARCHITECTURE)
    used, held = (facts.get(f"{architecture}.expert_{word}count") for word in ("used_", ""))
    return Fraction(used, held) if used and held else ONCE


def _match(
    path: Path, entries: Mapping[str, Entry], facts: Mapping[str, Any]
) -> tuple[Contents, Any]:
    """Find the transformers model, the name of each tensor in it, and what converts values."""
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    try:
        config = read_config(facts, entries)
    except SparsityReportError:
        raise  # there is no room for a file
    except Exception as error:  # transformers knows only some GGUF architectures
        return _unmatched(entries, facts, printable(str(error), 200)), None
    config.name_or_path = str(path.parent)
    _check_blocks(path, config, entries)
    try:
        model = meta_model(config, path, most=parameters_for(len(entries)))
        kind = TENSOR_PROCESSORS.get(facts.get(ARCHITECTURE), TensorProcessor)
        processor = kind(config=config.to_dict())
        # Whole models first: transformers asks every module anew, seconds for a large one.
        names, unknown = _names(entries, get_gguf_hf_weights_map(_Childless(model), processor))
        if unknown:
            names, unknown = _names(entries, get_gguf_hf_weights_map(model, processor))
    except Exception as error:  # each model fails in its own way
        return _unmatched(entries, facts, printable(str(error), 200)), None
    if unknown:
        class_name = type(model).__name__
        reason = phrase("note.tensor_without_place", class_name=class_name, tensor=unknown[0])
        return _unmatched(entries, facts, reason), None
    parts: dict[str, list[Entry]] = defaultdict(list)
    for key, name in names.items():
        parts[name].append(entries[key])
    return Contents(entries, dict(parts), model), processor


def _check_blocks(path: Path, config: Any, entries: Collection[str]) -> None:
    """Refuse a model with more blocks than there are tensors of, before it is built."""
    there = {match[1] for match in map(_BLOCK.match, entries) if match}
    told = getattr(config, "num_hidden_layers", None) or 0
    if told > len(there):
        raise SparsityReportError(
            f"{path}: its model has {told:,} blocks, and it holds tensors of {len(there):,}; "
            "counting would be wrong. Fetch it again"
        )


def _unmatched(
    entries: Mapping[str, Entry], facts: Mapping[str, Any], reason: str | Phrase
) -> Contents:
    """Return the tensors under their own names."""
    parts = {
        key if key.endswith((".weight", ".bias")) else f"{key}.values": [entry]
        for key, entry in entries.items()
    }
    architecture = printable(facts.get(ARCHITECTURE, ""), 40)
    note = phrase("note.gguf_names", architecture=architecture, reason=reason)
    return Contents(entries, parts, None, (note,), _experts_used(facts))


def _names(entries: Collection[str], known: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Map tensors to parameters, gate before up, and list those that have no place."""
    # llama.cpp precomputes rotary tables; they are not parameters.
    keys = sorted(key for key in entries if not key.startswith("rope_"))
    # The map may leave the `.weight` of experts out.
    names = {key: known.get(key) or known.get(key.removesuffix(".weight")) for key in keys}
    placed = {key: name for key, name in names.items() if name}
    return placed, [key for key in keys if key not in placed]


class _Childless:
    """A model seen as one module by transformers' name map."""

    def __init__(self, model: nn.Module) -> None:
        self.config, self.state_dict = model.config, model.state_dict

    def named_children(self) -> list[tuple[str, nn.Module]]:
        return []
