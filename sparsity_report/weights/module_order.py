"""One order of modules and parameters for all sources, from their names.

Ties at a threshold are broken by position, so a file and the module in memory need the same order,
which neither the files nor the classes of transformers agree on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

# Words of dotted names in the order of computation; siblings with other words keep their order.
_WORDS = """
weight bias shared wte word_embeddings embed_tokens embed_in tok_embeddings token_embd cls_token
wpe position_embeddings embed_positions position_embd token_type_embeddings
patch_embeddings projection embeddings
project_in project_out conv1 conv2 encoder transformer decoder h layers layer block blocks blk
self_attn SelfAttention self attn attention encoder_attn EncDecAttention crossattention
c_attn query_key_value qkv_proj
q q_proj q_lin query attn_q k k_proj k_lin key attn_k v v_proj v_lin value attn_v
o o_proj out_proj out_lin attn_output relative_attention_bias
gate ffn_gate_inp mlp ffn DenseReluDense intermediate output
wi wi_0 wi_1 wo fc1 fc2 c_fc c_proj lin1 lin2 dense_h_to_4h dense_4h_to_h experts
gate_proj gate_up_proj ffn_gate up_proj ffn_up down_proj ffn_down dense
shared_expert shared_experts shared_expert_gate
q_norm k_norm input_layernorm post_attention_layernorm pre_feedforward_layernorm
post_feedforward_layernorm
"""
_RANKS = {word: rank for rank, word in enumerate(_WORDS.split())}
_NORM = re.compile(r"norm|^ln_|^ln\d", re.IGNORECASE)
_HEADS = """
pooler vocab_transform pre_classifier transform cls predictions lm_head vocab_projector proj_out
classifier score qa_outputs
"""
_LAST = {word: rank for rank, word in enumerate(_HEADS.split())}

Rank = tuple[int, int, str]
_UNKNOWN: Rank = (2, 0, "")


@lru_cache(maxsize=4096)
def rank(word: str) -> Rank | None:
    """Return the place of a word of a dotted name among its siblings; None for an unknown one.

    Examples
    --------
    >>> rank("q_proj") < rank("k_proj") < rank("2") < rank("10") < rank("norm") < rank("lm_head")
    True
    """
    if word in _RANKS:
        return 0, _RANKS[word], ""
    if word.isdecimal() and len(word) < 10:
        return 1, int(word), word
    if word in _LAST:
        return 4, _LAST[word], ""
    return (3, 0, word) if _NORM.search(word) else None


def positions(names: Iterable[str]) -> dict[str, int]:
    """Return the position of each dotted name, parents before their children.

    Examples
    --------
    >>> positions(["lm_head", "h.1.fc2", "h.1.fc1", "h.0.fc1"])
    {'h.0.fc1': 0, 'h.1.fc1': 1, 'h.1.fc2': 2, 'lm_head': 3}
    """
    seen: dict[str, int] = {}
    keys: dict[str, list[tuple[Rank, int]]] = {}
    for name in names:
        key, prefix = [], ""
        for word in name.split("."):
            prefix = f"{prefix}.{word}"
            first, place = seen.setdefault(prefix, len(seen)), rank(word)
            key.append((place, 0) if place else (_UNKNOWN, first))
        keys[name] = key
    return {name: place for place, name in enumerate(sorted(keys, key=keys.__getitem__))}


def is_ordered(names: Iterable[str]) -> bool:
    """Return whether names decide the order: all words are known, but for one common prefix."""
    unknown = {
        (place, word)
        for name in names
        for place, word in enumerate(name.split("."))
        if rank(word) is None
    }
    return len(unknown) <= 1 and all(place == 0 for place, _ in unknown)
