"""Transformers' configuration of the model that a GGUF file tells of."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping
from typing import Any

from sparsity_report.files.atomic import write_file
from sparsity_report.files.filesystem import scratch
from sparsity_report.untrusted import limits
from sparsity_report.weights.gguf.gguf_metadata import ARCHITECTURE, WORDS

# What the file says of the model and transformers' reader leaves at its default.
_UNREAD = {
    "attention.key_length": "head_dim",
    "context_length": "n_positions",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}


def read_config(facts: Mapping[str, Any], names: Collection[str]) -> Any:
    """Return the configuration of a model, as transformers reads it from a header.

    Its readers trust what a file announces, so they see a file that is written here: what was
    checked of sizes and words, and the names of all tensors, each with one value.

    Parameters
    ----------
    facts : mapping
        What the file says, see :func:`~sparsity_report.weights.gguf.gguf_metadata.read_facts`.
    names : collection of str
        Of the tensors of all pieces.

    Raises
    ------
    Exception
        Transformers knows no such architecture, or cannot make a model of what is said.
    """
    from transformers import AutoConfig

    with scratch() as folder:
        write_file(folder / "model.gguf", _header(facts, names))
        config: Any = AutoConfig.from_pretrained(
            folder, gguf_file="model.gguf", local_files_only=True, trust_remote_code=False
        )
    _amend_(config, facts, names)
    return config


def _amend_(config: Any, facts: Mapping[str, Any], names: Collection[str]) -> None:
    """Set what transformers leaves at its default, and what the written file does not tell it."""
    architecture, known = facts.get(ARCHITECTURE, ""), config.to_dict()
    for key, attribute in _UNREAD.items():
        if attribute in known and f"{architecture}.{key}" in facts:
            setattr(config, attribute, facts[f"{architecture}.{key}"])
    words = facts.get(f"{architecture}.vocab_size", facts.get(WORDS))
    if words is not None:
        config.vocab_size = words
    if not any(".ffn_gate" in name for name in names) and "is_gated_act" in known:
        config.is_gated_act = False  # transformers takes every T5 for a gated one


def _header(facts: Mapping[str, Any], names: Collection[str]) -> bytes:
    """Write a header of facts, and of tensors that all have the same value."""
    # Of tensors transformers asks which kinds there are.
    kinds = {re.sub(r"\d+", "0", name): name for name in names}
    if len(kinds) > limits.BLOCKS:
        raise ValueError(f"it holds {len(kinds):,} kinds of tensors")
    begins = (f"{facts.get(ARCHITECTURE, '')}.", ARCHITECTURE, "general.name")
    told = {key: value for key, value in facts.items() if key.startswith(begins)}
    told |= {
        key: value
        for key, value in facts.items()
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
    }
    written = {key: _written(value) for key, value in told.items() if value is not None}
    if WORDS in facts:
        written[WORDS] = struct.pack("<IIQ", 9, 8, 1) + _text("")
    pairs = [_text(key) + value for key, value in written.items()]
    tensors = [_text(name) + struct.pack("<IQIQ", 1, 1, 0, 0) for name in kinds.values()]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs))
    header = b"".join([head, *pairs, *tensors])
    return header + bytes(-len(header) % 32) + bytes(32)


def _written(value: object) -> bytes:
    """Write a value and its type as GGUF has them."""
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<IQ" if value >= 2**63 else "<Iq", 10 + (value < 2**63), value)
        case float():
            return struct.pack("<Id", 12, value)
        case list():
            # All of one type, and each is written after it.
            items = [_written(item) for item in value] or [struct.pack("<I", 4)]
            each = b"".join(item[4:] for item in items)
            return struct.pack("<I", 9) + items[0][:4] + struct.pack("<Q", len(value)) + each
        case _:
            return struct.pack("<I", 8) + _text(str(value))


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw
