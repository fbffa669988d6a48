"""GGUF models that metadata and names of tensors decide, for which no class is asked.

The tensors get their names in memory, and the metadata become the configuration that transformers
reads from them. The rules for files with ``config.json`` then describe the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy.typing as npt

from sparsity_report.weights.anatomy.config_sizes import parameters_for
from sparsity_report.weights.anatomy.decided_files import decide
from sparsity_report.weights.anatomy.names_only import ReaderOptions, incomplete
from sparsity_report.weights.sources.checkpoint import Contents
from sparsity_report.weights.sources.gguf_files import ARCHITECTURE, TOKENS, Metadata
from sparsity_report.weights.tensor_slices import Entry

# Types in llama.cpp, which calls Mistral a Llama, with their classes.
_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
# Settings that decide shapes, and further ones, by their keys in the metadata.
_SIZES = {
    "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}  # fmt: skip
_FURTHER = {
    "context_length": "max_position_embeddings", "rope.freq_base": "rope_theta",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}  # fmt: skip
_TOKEN_IDS = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
# Modules of a block in the file and in memory, in the order of their classes.
_BLOCK = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
_BIASED = ("attn_q", "attn_k", "attn_v")


@dataclass(frozen=True)
class InterleavedRows:
    """Order of the rows of queries and keys, which llama.cpp interleaves for Llama.

    Attributes
    ----------
    heads : mapping of str to int
        Number of heads of each matrix with such rows, by its word in the names of tensors.
    """

    heads: Mapping[str, int]

    def turns(self, key: str) -> bool:
        """Return whether the rows of a tensor are in another order in memory."""
        return any(word in key for word in self.heads)

    def process(self, array: npt.NDArray[Any], key: str, **_: object) -> Any:
        """Return a matrix as it is in memory, as a processor of transformers does."""
        heads = next(heads for word, heads in self.heads.items() if word in key)
        halves = array.reshape(heads, len(array) // heads // 2, 2, *array.shape[1:])
        return SimpleNamespace(weights=halves.swapaxes(1, 2).reshape(array.shape))


def decided_contents(
    entries: Mapping[str, Entry], metadata: Metadata, options: ReaderOptions
) -> tuple[Contents, InterleavedRows] | None:
    """Return the tensors and modules in memory, and the order of rows; None if undecided.

    Raises
    ------
    SparsityReportError
        Tensors of the model are missing.
    """
    kind, config = str(metadata.get(ARCHITECTURE)), configuration_of(metadata)
    if config is None:
        return None
    config["tie_word_embeddings"] = "output.weight" not in entries
    # Rotary tables, which llama.cpp precomputes, are not parameters.
    stored = {key: entry for key, entry in entries.items() if not key.startswith("rope_")}
    names = _names(kind, config["num_hidden_layers"], not config["tie_word_embeddings"])
    if stored.keys() - names or len(names) > parameters_for(len(entries)):
        return None
    if missing := [name for key, name in names.items() if key not in stored]:
        raise incomplete(options.name, missing)
    renamed = {name: stored[key] for key, name in names.items()}
    if (decided := decide(renamed, options, config)) is None:
        return None
    contents = Contents(entries, settings=config)
    heads = {".attn_q.": config["num_attention_heads"], ".attn_k.": config["num_key_value_heads"]}
    order = InterleavedRows(heads if kind == "llama" else {})
    return contents.with_modules(*decided, architecture=_CLASSES[kind]), order


def configuration_of(metadata: Metadata) -> dict[str, Any] | None:
    """Return the configuration that transformers reads from metadata; None if undecided."""
    kind = str(metadata.get(ARCHITECTURE))
    # Transformers asks another class for a Llama of this name.
    if kind not in _CLASSES or metadata.get("general.name") == "mistral":
        return None
    settings: dict[str, Any] = {
        k.removeprefix(f"{kind}."): v for k, v in metadata.items() if k.startswith(f"{kind}.")
    }
    sizes: dict[str, Any] = {name: settings.get(key) for key, name in _SIZES.items()}
    sizes["vocab_size"] = settings.get("vocab_size", metadata.get(TOKENS))
    if any(type(size) is not int or size <= 0 for size in sizes.values()):
        return None
    usual = sizes["hidden_size"] // sizes["num_attention_heads"]
    rotated = settings.get("rope.dimension_count", usual) if kind == "llama" else usual
    head_dim = settings.get("attention.key_length", None if kind == "qwen3" else rotated)
    if type(head_dim) is not int or head_dim <= 0 or (kind == "qwen2" and head_dim != usual):
        return None
    known = {"architectures": [_CLASSES[kind]], "model_type": kind, "sliding_window": None, **sizes}
    if kind != "qwen2":
        known["head_dim"] = head_dim
    further = {name: settings.get(key) for key, name in _FURTHER.items()}
    for word, name in _TOKEN_IDS.items():
        further[f"{name}_token_id"] = metadata.get(f"tokenizer.ggml.{word}_token_id")
    return known | {name: value for name, value in further.items() if value is not None}


def _names(kind: str, blocks: int, is_headed: bool) -> dict[str, str]:
    """Return the names in memory of all tensors of a model, by those in the file."""
    names = {"token_embd.weight": "model.embed_tokens.weight"}
    for number in range(blocks):
        for word, module in _BLOCK.items():
            leaves = ["weight"] * (kind == "qwen3" or not module.endswith("_norm"))
            leaves += ["bias"] * (kind == "qwen2" and word in _BIASED)
            for leaf in leaves:
                names[f"blk.{number}.{word}.{leaf}"] = f"model.layers.{number}.{module}.{leaf}"
    names["output_norm.weight"] = "model.norm.weight"
    return names | ({"output.weight": "lm_head.weight"} if is_headed else {})
