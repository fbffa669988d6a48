"""GGUF models under the names of llama.cpp, read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparsity_report.weights.anatomy.names_only import (
    ReaderOptions,
    describe_names,
    experts_per_token,
)
from sparsity_report.weights.sources.checkpoint import CheckpointWeights, Contents
from sparsity_report.weights.sources.gguf_files import ARCHITECTURE, Headers, Metadata, read_model
from sparsity_report.weights.sources.model_files import check_tensors
from sparsity_report.weights.tensor_slices import Entry, Origin
from sparsity_report.words.sentences import say

# Token embedding of every model, and the output head of some.
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"


def named_contents(
    entries: Mapping[str, Entry], metadata: Metadata, options: ReaderOptions
) -> Contents:
    """Return the tensors of a model under the names in the file.

    Rotary tables, which llama.cpp precomputes, are not parameters. A causal model without an
    output head uses its embedding.
    """
    parts = {
        key if key.endswith((".weight", ".bias")) else f"{key}.values": [entry]
        for key, entry in entries.items()
        if not key.startswith("rope_")
    }
    description = describe_names(parts, options, experts_per_token(metadata), outputs_first=True)
    is_causal = metadata.get(f"{metadata.get(ARCHITECTURE)}.attention.causal", True)
    if is_causal and _HEAD not in entries and _EMBEDDING in entries:
        description = description.with_ties({_HEAD: _EMBEDDING})
        description = replace(description, notes=(say("note.tied_output_head"),))
    return Contents(entries, settings=metadata).with_modules(parts, description)


def open_names(
    headers: Headers, options: ReaderOptions, files: Sequence[Origin]
) -> CheckpointWeights:
    """Open a model for counting, described by names."""
    path, metadata, entries = read_model(headers)
    check_tensors(path, entries)
    contents = replace(named_contents(entries, metadata, options), files=tuple(files))
    return CheckpointWeights(path, options, "gguf", contents)
