"""The transformers configuration of a model from the metadata of its GGUF file."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFValueType, GGUFWriter

from sparsity_report.errors import SparsityReportError
from sparsity_report.files.filesystem import scratch
from sparsity_report.untrusted import limits
from sparsity_report.weights.gguf.gguf_metadata import ARCHITECTURE, TOKENS

# Metadata that the reader of transformers ignores, and the attributes they belong to.
_IGNORED = {
    "attention.key_length": "head_dim",
    "context_length": "n_positions",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}

_VALUE_TYPES = {
    bool: GGUFValueType.BOOL,
    int: GGUFValueType.INT64,
    float: GGUFValueType.FLOAT64,
    str: GGUFValueType.STRING,
}


def read_config(metadata: Mapping[str, Any], names: Collection[str]) -> Any:
    """Return the configuration of a model, as transformers reads it from a header.

    The reader of transformers trusts every length in a file. It gets a new file instead, with the
    checked metadata and one tensor of a single value for each kind of tensor name.

    Parameters
    ----------
    metadata : mapping
        From :func:`~sparsity_report.weights.gguf.gguf_metadata.read_metadata`.
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


def _amend_(config: Any, metadata: Mapping[str, Any], names: Collection[str]) -> None:
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


def _write_header(path: Path, metadata: Mapping[str, Any], names: Collection[str]) -> None:
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
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:
        raise SparsityReportError(
            f"{path}: cannot be written: {error.strerror}; free space for temporary files"
        ) from error
    finally:
        writer.close()
