"""The transformers configuration of a model from the metadata of its GGUF file."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping
from typing import Any

from sparsity_report.files.atomic import write_file
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
        write_file(folder / "model.gguf", _header(metadata, names))
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


def _header(metadata: Mapping[str, Any], names: Collection[str]) -> bytes:
    """Return a GGUF file of metadata and of tensors that all have the same value."""
    # Transformers only asks which kinds of tensors there are.
    kinds = {re.sub(r"\d+", "0", name): name for name in names}
    if len(kinds) > limits.BLOCKS:
        raise ValueError(f"it holds {len(kinds):,} kinds of tensors")
    needed = re.compile(
        rf"{re.escape(metadata.get(ARCHITECTURE, ''))}\..*|{re.escape(ARCHITECTURE)}.*|"
        r"general\.name.*|tokenizer\.ggml\..*_token_id",
        re.DOTALL,
    )
    pairs = [
        _text(key) + _value(value)
        for key, value in metadata.items()
        if value is not None and needed.fullmatch(key)
    ]
    if TOKENS in metadata:
        pairs.append(_text(TOKENS) + struct.pack("<IIQ", 9, 8, 1) + _text(""))
    tensors = [_text(name) + struct.pack("<IQIQ", 1, 1, 0, 0) for name in kinds.values()]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs))
    header = b"".join([head, *pairs, *tensors])
    return header + bytes(-len(header) % 32) + bytes(32)


def _value(value: object) -> bytes:
    """Return the type and the bytes of a value in GGUF."""
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<IQ" if value >= 2**63 else "<Iq", 10 + (value < 2**63), value)
        case float():
            return struct.pack("<Id", 12, value)
        case list():
            # All items have one type, which is written once.
            items = [_value(item) for item in value] or [struct.pack("<I", 4)]
            contents = b"".join(item[4:] for item in items)
            return struct.pack("<I", 9) + items[0][:4] + struct.pack("<Q", len(value)) + contents
        case _:
            return struct.pack("<I", 8) + _text(str(value))


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw
