"""A config of transformers made tiny: every whole number of it by the role that its name tells.

Nothing is known of a model but its default config, which says what numbers, lists and inner configs
there are. Numbers with one role get one size, so that what fits together in the default config fits
together in the tiny one; roles differ in size, so that a wrong shape is seen. Of the layers, each
combination of kinds is kept once.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from transformers import PreTrainedConfig

LAYERS, MOST_LAYERS = 2, 6
WIDTH, HEADS, HEAD, FORWARD, VOCABULARY, POSITIONS = 32, 4, 8, 48, 96, 64

# Pattern of the whole name and size; the first that matches. What is smaller by default stays.
ROLES = [
    (r".*(key_value_heads|kv_n?_?heads)|num_query_groups", 2),
    (r"mamba_(n|num)_heads|mamba_d_head|mamba_head_?dim|n_mamba_heads", 8),
    (r"(.*_)?(n_|num_)?heads?|.*attention_heads|.*_n_heads?|heads_per_ngram", HEADS),
    (r".*rope_head_dim|rotary_dim", 4),
    (r"v_head_dim|qk_head_dim", 12),
    (r".*head_dim|d_kv|d_head|kv_channels|dim_head|attention_head_size", HEAD),
    (r"query_pre_attn_scalar", HEAD),
    (r".*q_lora_rank", 20),
    (r".*kv_lora_rank", 12),
    (r".*_?rank|.*bottleneck_size|hc_lowrank|d_rel", 8),
    (r".*shared.*_intermediate_size|share_expert_dim", 40),
    (r".*(moe|expert).*_(intermediate|hidden)_size|moe_hidden_size|expert_ffn_hidden_size", 24),
    (r".*(intermediate_size|ffn_dim|d_ff|mlp_dim|ffn_hidden_size|linear_units).*", FORWARD),
    (r"dim_ff|dff|d_inner|n_inner|feed_forward_size|intermediate_multiple_size", FORWARD),
    (r".*vocab(_size)?(_.*)?|num_embed(ding)?s|num_codevectors_.*", VOCABULARY),
    (r".*sparse_step", 2),
    (r"num_self_attends_per_block", LAYERS),
    (r"codebook_size", 64),  # a power of two
    (r"num_filters", 4),
    (r"num_res_blocks", 1),
    (r"channel_multiplier", 1),
    (r".*initial_channel|upsample_groups", WIDTH),
    (r"(.*_)?(n|num)_(.*_)?experts|zero_expert_num", 4),
    (r".*(experts_per_tok(en)?|topk?|top_?k|moe_k|selected_experts)(_group)?", 2),
    (r"n_groups?|num_expert_group|mamba_n_?groups|o_groups", 2),
    (r".*layer.*_(index|id|interval|period|offset|frequency|step)|first_k_dense_replace", 1),
    (r"num_mem_blocks|max_window_layers|num_dense_layers|.*hidden_groups", 1),
    (r".*(num|n)_(.*_)?layers|.*(encoder|decoder)_layers", LAYERS),
    (r"layers|.*depths?|n_layers?|num_blocks", LAYERS),
    (r".*(sliding_window|window_size|attention_chunk_size|local_attention).*", POSITIONS),
    (r"(mamba_)?chunk_size", 32),  # all lengths are within one chunk
    (r"block_size|.*attn_chunk_length", 8),
    (r".*(positions?|position_embeddings|seq_len(gth)?|context_length)", POSITIONS),
    (r"n_ctx|.*max_length", POSITIONS),
    (r".*(state_size|d_state)", 8),
    (r"time_step_rank|mamba_dt_rank", 4),
    (r".*(image_size|img_size|resolution)", 32),
    (r"patch_size", 8),
    (r".*num_mel_bins|.*mel_(dim|bins)|input_feat.*|feature_size", 16),
    (r"num_(codebooks|quantizers|code_groups)", 3),
    (r".*(query_tokens|latents|landmarks|image_tokens|queries|query_num)", 4),
    (r".*(hidden_sizes?|hidden_dim|embed_dims?|n_embd|emb_dim|embedding_size|d_model)", WIDTH),
    (r"hidden_size_global", WIDTH),
    (r".*(_dim|_dims|_width|_channels|_size|_units)|size|dim|channels", WIDTH),
]  # fmt: skip
_ROLES = [(re.compile(pattern), size) for pattern, size in ROLES]
_KEY_VALUE = re.compile(r".*(key_value_heads|kv_n?_?heads)")
_HEADS = re.compile(r"num_attention_heads|num_heads|n_heads?|decoder_attention_heads")
_HEAD = re.compile(r"qk_rope_head_dim|head_dim")
_DEPTH = re.compile(r"num_hidden_layers|num_layers|n_layers?|encoder_layers|depth")
# Ids of special tokens stay distinct and small; which layers something stands in stays in range.
_SPECIAL = re.compile(r"(?!.*(layer|active)).*_(token_ids?|token_index|id|index)")
_CHOICE = re.compile(r"(?!.*per_layer).*(ind(ex|ic)es|idxs|layer_ids|_layers|_layer)")
_AS_IT_IS = re.compile(
    r".*kernel.*|.*dilation.*|.*strides?|.*merge_size|num_channels|in_channels|"
    r"temporal_patch_size|audio_channels"
)


def tiny(config: PreTrainedConfig, exceptions: Mapping[str, Mapping[str, Any]]) -> PreTrainedConfig:
    """Return a tiny config of the same class; exceptions by class name have the last word."""
    return _Shrinker(exceptions)(config)


class _Shrinker:
    def __init__(self, exceptions: Mapping[str, Mapping[str, Any]]) -> None:
        self._exceptions = exceptions
        # A special token has one id in all configs of a model.
        self._ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

    def __call__(self, config: PreTrainedConfig) -> PreTrainedConfig:
        kind, values, changed = type(config), _values(config), {}
        kept, alone = _layers(values), _alone(kind)
        for name, default in fields(kind).items():
            value = values[name]
            if name == "rope_parameters":
                small = _rope(value, values)
            elif default is None and type(value) is int and value == alone.get(name):
                continue  # derived from others
            elif _KEY_VALUE.fullmatch(name) and value == _first(values, _HEADS):
                small = HEADS  # every head has its keys
            else:
                small = self._small(name, value, kept)
            if repr(small) != repr(default):
                changed[name] = small
        return kind(**{**changed, **self._exceptions.get(kind.__name__, {})})

    def _small(self, name: str, value: Any, kept: Layers) -> Any:
        if isinstance(value, PreTrainedConfig):
            inner = self(value)
            # Classes of transformers 5.0 take an inner config as a dictionary.
            return inner if dataclasses.is_dataclass(inner) else inner.to_dict()
        if isinstance(value, bool) or _AS_IT_IS.fullmatch(name):
            return value
        if isinstance(value, int):
            return self._number(name, value, kept)
        if isinstance(value, list | tuple):
            return type(value)(self._listed(name, list(value), kept))
        if isinstance(value, dict):
            return {key: self._small(str(key), inner, kept) for key, inner in value.items()}
        return value

    def _listed(self, name: str, values: list[Any], kept: Layers) -> list[Any]:
        if values == list(range(kept.depth)):
            return list(range(len(kept.shown)))
        numbers = all(isinstance(value, int) for value in values)
        if _CHOICE.fullmatch(name) and numbers and len(values) != kept.depth:
            last = len(kept.shown) - 1
            return list(dict.fromkeys(min(max(value, -last), last) for value in values))
        if len(values) == kept.depth:
            values = [values[index] for index in kept.shown]
        return [self._small(name, value, kept) for value in values]

    def _number(self, name: str, value: int, kept: Layers) -> int:
        if value <= 0:
            return value
        if _SPECIAL.fullmatch(name):
            return self._ids.setdefault(name, len(self._ids))
        size = next((size for pattern, size in _ROLES if pattern.fullmatch(name)), value)
        return len(kept.shown) if value == kept.depth and size == LAYERS else min(value, size)


class Layers(NamedTuple):
    """How many layers a default config has, and which of them show every kind once."""

    depth: int
    shown: list[int]


def _values(config: PreTrainedConfig) -> dict[str, Any]:
    """What a config says of all its layers alike; some refuse to tell by attribute."""
    return {name: vars(config).get(name, default) for name, default in fields(type(config)).items()}


def _alone(kind: type[PreTrainedConfig]) -> dict[str, Any]:
    try:
        return vars(kind())
    except Exception:  # some classes have no defaults that go together
        return {}


def _first(values: Mapping[str, Any], names: re.Pattern[str]) -> int:
    numbers = (v for n, v in values.items() if names.fullmatch(n) and isinstance(v, int))
    return next(numbers, 0)


def _rope(rope: Any, values: Mapping[str, Any]) -> Any:
    """Give each axis of a rotation its share of a smaller head."""
    if not isinstance(rope, dict) or not (sections := rope.get("mrope_section")):
        return rope
    half = sum(sections)
    full = _first(values, _HEAD) or values["hidden_size"] // _first(values, _HEADS)
    small = half * (4 if values.get("qk_rope_head_dim") else HEAD) // full
    ends = [round(small * sum(sections[: i + 1]) / half) for i in range(len(sections))]
    return {**rope, "mrope_section": [b - a for a, b in pairwise([0, *ends])]}


def _layers(values: Mapping[str, Any]) -> Layers:
    depth = _first(values, _DEPTH)
    kinds = [
        value
        for value in values.values()
        if isinstance(value, list | tuple) and len(value) == depth > LAYERS
        and list(value) != list(range(depth))
    ]  # fmt: skip
    first: dict[str, int] = {}
    for index, row in enumerate(zip(*kinds, strict=True)):
        first.setdefault(repr(row), index)
    shown = list(first.values())[:MOST_LAYERS]
    return Layers(depth, shown if len(shown) >= LAYERS else list(range(LAYERS)))


def fields(kind: type[PreTrainedConfig]) -> dict[str, Any]:
    """Names and defaults of what a config class takes, a dataclass or a plain class."""
    if dataclasses.is_dataclass(kind):
        names = {f.name: f.default for f in dataclasses.fields(kind)}
        common = {f.name for f in dataclasses.fields(PreTrainedConfig)} - {"is_encoder_decoder"}
        return {name: default for name, default in names.items() if name not in common}
    takes = inspect.signature(kind.__init__).parameters.values()
    return {
        p.name: p.default for p in takes if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"
    }
