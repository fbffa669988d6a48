"""One order of modules and parameters for all sources, from their names.

Ties at a threshold are broken by position, so a file and the module in memory need the same order,
which neither the files nor the classes of transformers agree on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

# Words of dotted names without numbers at their end, in the order of computation. Siblings keep
# their order if two of them have other words; one such word is a prefix of the model.
_WORDS = """
weight bias shared wte word_embeddings embed_tokens embed_in tok_embeddings token_embd cls_token
wpe position_embeddings embed_positions position_embd token_type_embeddings
patch_embeddings projection embeddings
project_in project_out conv encoder transformer decoder h layers layer block blocks blk
self_attn SelfAttention self attn attention encoder_attn EncDecAttention crossattention
c_attn query_key_value qkv_proj
q q_proj q_lin query attn_q k k_proj k_lin key attn_k v v_proj v_lin value attn_v
o o_proj out_proj out_lin attn_output relative_attention_bias
gate ffn_gate_inp mlp ffn DenseReluDense intermediate output
wi wo fc c_fc c_proj lin dense_h_to_4h dense_4h_to_h experts
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

_NUMBERED = re.compile(r"(.*?)_?(\d{0,9})", re.ASCII)
Rank = tuple[int, int, int, str]
_FIRST: Rank = (-1, 0, 0, "")


@lru_cache(maxsize=4096)
def rank(word: str) -> Rank | None:
    """Return the place of a word of a dotted name among its siblings; None for an unknown one.

    Examples
    --------
    >>> rank("q_proj") < rank("k_proj") < rank("2") < rank("10") < rank("norm") < rank("lm_head")
    True
    """
    match = _NUMBERED.fullmatch(word)
    stem, number = match.groups() if match else (word, "")
    if stem in _RANKS:
        return 0, _RANKS[stem], int(number or 0), word
    if number and not stem:
        return 1, int(number), 0, word
    if word in _LAST:
        return 3, _LAST[word], 0, word
    return (2, 0, 0, word) if _NORM.search(word) else None


def positions(names: Iterable[str]) -> dict[str, int]:
    """Return the position of each dotted name, parents before their children.

    Examples
    --------
    >>> positions(["lm_head", "h.1.fc2", "h.1.fc1", "h.0.fc1"])
    {'h.0.fc1': 0, 'h.1.fc1': 1, 'h.1.fc2': 2, 'lm_head': 3}
    """
    first_places: dict[str, int] = {}
    unknown: dict[str, set[str]] = defaultdict(set)
    paths: dict[str, list[tuple[str, str, Rank | None]]] = {}
    for name in names:
        paths[name], prefix = [], ""
        for word in name.split("."):
            around, prefix, place = prefix, f"{prefix}.{word}", rank(word)
            first_places.setdefault(prefix, len(first_places))
            paths[name].append((around, prefix, place))
            if place is None:
                unknown[around].add(word)
    unsorted = {around for around, words in unknown.items() if len(words) > 1}

    def key(name: str) -> list[tuple[Rank, int]]:
        return [
            (_FIRST, first_places[prefix]) if around in unsorted else (place or _FIRST, 0)
            for around, prefix, place in paths[name]
        ]

    return {name: place for place, name in enumerate(sorted(paths, key=key))}


def is_ordered(names: Iterable[str]) -> bool:
    """Return whether names decide the order: all words are known, but for one common prefix."""
    unknown = {
        (place, word)
        for name in names
        for place, word in enumerate(name.split("."))
        if rank(word) is None
    }
    return len(unknown) <= 1 and all(place == 0 for place, _ in unknown)
