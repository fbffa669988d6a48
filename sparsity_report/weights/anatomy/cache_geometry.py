"""Tensors that a model keeps between tokens: keys, values and states, by layer.

Everything follows from a configuration or from the metadata of a GGUF file, without torch. A model
type is known if its rules were held against the caches that transformers allocates, see
``cache_models.json``, which `tests/support/cache_models.py` writes. Any other type is unknown.

Layouts are those of the dynamic cache of transformers. A layer with a sliding window or chunks of n
positions keeps the last n − 1. Latent attention (DeepSeek) keeps the compressed keys and values and
the rotary keys, as runtimes aware of it do. Recurrent states are float32; convolution states have
the dtype of the cache.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer

#: Reasons why a cache is unknown; the catalogue has their texts.
REASONS = ("no_config", "unknown_type", "layer_kinds", "sizes", "shapes", "gguf")
#: Kinds of tensors that grow with the context, and those that do not.
GROWING = ("keys_values", "latent", "cross")
STATES = ("convolution", "recurrent")
_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention", "indexed_attention")
# Settings of the positions that an attention sees.
_WINDOWS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
_HYBRID = {"hybrid": "full_attention", "hybrid_sliding": "sliding_attention"}
_RECURRENT = ("linear_attention", "conv", *_HYBRID)
_WITHOUT = ("moe", "mlp", "dummy")
_OTHER_NAMES = {
    "mamba": "linear_attention",
    "mamba2": "linear_attention",
    "attention": "full_attention",
    "deepseek_sparse_attention": "indexed_attention",
}
# Settings that say of how many layers one is of full attention.
_EVERY = ("sliding_window_pattern", "full_attention_interval")
# Settings that may decide the kinds of layers in ways that only the class of a config knows.
_DECIDING = re.compile(
    r"(layer|block|attn|attention|window|hybrid).*"
    r"(pattern|period|interval|type|offset|freq|idx|indice|_ids|every|layers)|no_rope|max_window"
)
_PROJECTION = re.compile(r"\.([kv]_proj|attn_[kv])\.weight$")
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")
# Metadata of a GGUF file that mean more than attention to all positions.
_UNUSUAL = re.compile(
    r"\.(ssm|wkv|shortconv|xlstm|decoder|posnet|convnext|kda|nextn)|sliding_window|chunk|lora_rank"
    r"|shared_kv|indexer|full_attention|causal|token_shift|recurrent|_mla"
)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Tensors that each of some layers keeps for each sequence.

    Attributes
    ----------
    kind : str
        ``"keys_values"``, ``"latent"``, ``"cross"`` (keys and values of a source as long as the
        context), ``"convolution"`` or ``"recurrent"``.
    layers : int
        Number of layers alike.
    values : int
        Numbers per position, or per sequence for states.
    positions : int or None
        Largest number of kept positions; None for all.
    """

    kind: str
    layers: int
    values: int
    positions: int | None = None

    def size(self, context: int, batch: int, itemsize: int) -> int:
        """Return the bytes of these tensors, `itemsize` per number that is no recurrent state."""
        kept = 1 if self.kind in STATES else min(context, self.positions or context)
        number = 4 if self.kind == "recurrent" else itemsize
        return self.layers * self.values * kept * batch * number


@dataclass(frozen=True, slots=True)
class CacheGeometry:
    """The cache of a model.

    Attributes
    ----------
    entries : tuple of CacheEntry or None
        None if unknown.
    dtype : str or None
        The dtype that the model names.
    limit : int or None
        Largest context that the model names.
    reason : str or None
        One of `REASONS` if unknown.
    """

    entries: tuple[CacheEntry, ...] | None
    dtype: str | None = None
    limit: int | None = None
    reason: str | None = None

    def size(self, kinds: tuple[str, ...], context: int, batch: int, itemsize: int) -> int | None:
        """Return the bytes of tensors of some kinds; None if unknown."""
        if self.entries is None:
            return None
        alike = (entry for entry in self.entries if entry.kind in kinds)
        return sum(entry.size(context, batch, itemsize) for entry in alike)


NO_CONFIG = CacheGeometry(None, reason="no_config")


class _UnknownError(Exception):
    """A cache that the settings do not determine; its argument is the reason."""


def cache_geometry(config: Mapping[str, Any]) -> CacheGeometry:
    """Return the cache of the model of a configuration, as JSON or completed by its class.

    Examples
    --------
    >>> config = {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16}
    >>> config |= {"num_attention_heads": 32, "num_key_value_heads": 8}
    >>> cache_geometry(config).entries
    (CacheEntry(kind='keys_values', layers=16, values=1024, positions=None),)
    >>> cache_geometry({"model_type": "mamba3"}).reason
    'unknown_type'
    """
    dtype, limit = config.get("dtype", config.get("torch_dtype")), None
    try:
        settings, known = _settings(config)
        limit = next((n for key in _LIMITS if type(n := settings.get(key)) is int and n > 0), None)
        dtype = dtype or settings.get("dtype", settings.get("torch_dtype"))
        rows = Counter(_rows(settings, known))
        entries = tuple(CacheEntry(kind, n, *rest) for (kind, *rest), n in rows.items())
        reason = None
    except _UnknownError as error:
        entries, reason = None, str(error)
    except (ArithmeticError, KeyError, TypeError, ValueError):  # of missing or impossible sizes
        entries, reason = None, "sizes"
    named = dtype.removeprefix("torch.") if isinstance(dtype, str) else None
    return CacheGeometry(entries, named, limit, reason)


def gguf_cache(metadata: Mapping[str, Any]) -> CacheGeometry:
    """Return the cache of the model of a GGUF file, as the model type of the same name has it."""
    architecture = metadata.get("general.architecture", "")
    sizes = {k: v for k, v in metadata.items() if k.startswith(f"{architecture}.")}
    limit = sizes.get(f"{architecture}.context_length")
    keys = {
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "hidden_size": "embedding_length",
        "head_dim": "attention.key_length",
        "v_head_dim": "attention.value_length",
    }
    config = {name: sizes.get(f"{architecture}.{key}") for name, key in keys.items()}
    geometry = cache_geometry({"model_type": architecture, "dtype": "float16", **config})
    if any(value and _UNUSUAL.search(key) for key, value in sizes.items()):
        geometry = CacheGeometry(None, "float16", reason="gguf")
    return CacheGeometry(geometry.entries, "float16", limit, geometry.reason)


def cache_of(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> CacheGeometry:
    """Return the cache of a model from its completed configuration, see :func:`checked`."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_dict"):
        return NO_CONFIG
    settings = config.to_dict()
    if isinstance(settings.get("text_config"), dict):
        text = config.get_text_config(decoder=True)
        settings["text_config"] = text.to_dict() | _computed(text)
    return checked(settings | _computed(config), shapes)


def checked(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> CacheGeometry:
    """Return the cache of a configuration; unknown if the projections have other sizes.

    Parameters
    ----------
    config : mapping
        A configuration, or the metadata of a GGUF file.
    shapes : mapping of str to tuple of int
        Shapes of all parameters; heads may have been removed.
    """
    known = (gguf_cache if "general.architecture" in config else cache_geometry)(config)
    is_alone = "text_config" not in config and not config.get("is_encoder_decoder")
    rows = sum(shape[0] for name, shape in shapes.items() if _PROJECTION.search(name))
    entries = [entry for entry in known.entries or () if entry.kind == "keys_values"]
    due = sum(entry.layers * entry.values for entry in entries)
    if is_alone and entries and rows not in (0, due):
        return replace(known, entries=None, reason="shapes")
    return known


def _computed(config: Any) -> dict[str, Any]:
    """Return what a class computes from other settings."""
    kinds = getattr(config, "layer_types", None)
    return {"layer_types": [*kinds]} if kinds else {}


@lru_cache(maxsize=1)
def _models() -> Mapping[str, Any]:
    text = Path(__file__).with_name("cache_models.json").read_text(encoding="utf-8")
    models: Mapping[str, Any] = json.loads(text)
    return models


def _settings(config: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the settings of the text model under their common names, with their defaults."""
    known = _models().get(str(config.get("model_type")))
    text = config.get("text_config")
    if known and isinstance(text, Mapping):
        config = {"model_type": known.get("text"), **text}
        known = _models().get(str(config["model_type"]))
    if known is None or "names" not in known:
        raise _UnknownError("unknown_type")
    names = known["names"]
    return known["defaults"] | {names.get(key, key): config[key] for key in config}, known


def _rows(settings: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield kind, values and positions of each tensor of each layer."""
    count = _first(settings, "decoder_layers", "num_decoder_layers", "num_hidden_layers")
    check_integer(count, "layers", 1, limits.BLOCKS)
    kinds = _kinds(settings, known, count)
    if len(kinds) != count:
        raise _UnknownError("layer_kinds")
    for kind in kinds[: count - (settings.get("num_kv_shared_layers") or 0)]:
        attention = _HYBRID.get(kind, kind)
        if attention in _ATTENTION:
            key = _WINDOWS.get(attention)
            kept = check_integer(settings[key], key, 2, limits.POSITIONS) - 1 if key else None
            latent = "latent" if settings.get("kv_lora_rank") else "keys_values"
            yield latent, _width(settings, attention), kept
        if kind in _RECURRENT:
            convolved, recurrent = _states(settings, kind)
            yield "convolution", convolved, None
            if recurrent:
                yield "recurrent", recurrent, None
        if settings.get("is_encoder_decoder"):
            yield "cross", _width(settings, attention), None


def _kinds(settings: Mapping[str, Any], known: Mapping[str, Any], count: int) -> list[str]:
    """Return the kind of each layer, as the config lists them or as its class derives them."""
    given = settings.get("layer_types") or settings.get("layers_block_type")
    window = settings.get("sliding_window") if settings.get("use_sliding_window", True) else None
    if not given:
        every = _first(settings, *_EVERY)
        pattern = known.get("pattern", ())
        deciding = {k for k, v in settings.items() if v and _DECIDING.search(k)}
        deciding -= {*_EVERY, *known["defaults"]}
        if pattern is None:  # as transformers infers
            chunk = settings.get("attention_chunk_size")
            pattern = ["chunked_attention" if chunk else "full_attention"]
            pattern, deciding = pattern if window is None else ["sliding_attention"], set()
        elif window is None and pattern and {*pattern} <= {"full_attention", "sliding_attention"}:
            pattern, deciding = ["full_attention"], {k for k in deciding if "window" not in k}
        elif type(every) is int and every > 0 and pattern[1:]:
            pattern = [*pattern[:1] * (every - 1), "full_attention"]
        elif every:
            raise _UnknownError("layer_kinds")
        if deciding:
            raise _UnknownError("layer_kinds")
        given = [pattern[i % len(pattern)] for i in range(count)] if pattern else ()
    kinds = [_OTHER_NAMES.get(kind, kind) for kind in given]
    if not kinds or not {*kinds} <= {*_ATTENTION, *_RECURRENT, *_WITHOUT}:
        raise _UnknownError("layer_kinds")
    return kinds


def _width(settings: Mapping[str, Any], kind: str) -> int:
    """Return the numbers that a layer of attention keeps per position."""
    if rank := settings.get("kv_lora_rank"):
        width = rank + settings["qk_rope_head_dim"]
    else:
        heads = _first(settings, "decoder_attention_heads", "num_attention_heads")
        shared = _first(settings, "num_key_value_heads", "num_kv_heads")
        if settings.get("multi_query") and not settings.get("new_decoder_architecture"):
            shared = 1
        size = _first(settings, "head_dim", "d_kv") or settings["hidden_size"] // heads
        width = (shared or heads) * (size + (settings.get("v_head_dim") or size))
    if kind == "indexed_attention":
        width += settings["index_head_dim"]
    return check_integer(width, "the width of keys and values", 1, limits.WIDTH)


def _states(settings: Mapping[str, Any], kind: str) -> tuple[int, int]:
    """Return the numbers of the convolution and of the recurrent state of a layer."""
    kernels = ("linear_conv_kernel_dim", "mamba_d_conv", "conv_kernel", "conv_L_cache")
    kernel = _first(settings, *kernels)
    hidden, recurrent = settings["hidden_size"], 0
    if kind == "conv":
        convolved = hidden
    elif heads := settings.get("linear_num_value_heads"):
        keys = settings["linear_num_key_heads"] * settings["linear_key_head_dim"]
        values = heads * settings["linear_value_head_dim"]
        convolved, recurrent = 2 * keys + values, values * settings["linear_key_head_dim"]
    elif heads := settings.get("linear_num_heads"):
        convolved = 3 * heads * settings["linear_head_dim"]
        recurrent = heads * settings["linear_head_dim"] ** 2
    else:
        state = _first(settings, "mamba_d_state", "state_size")
        heads = _first(settings, "mamba_n_heads", "num_heads")
        size = _first(settings, "mamba_d_head", "head_dim")
        groups = _first(settings, "mamba_n_groups", "n_groups")
        inner = heads * size if groups and type(size) is int else 0
        inner = inner or settings.get("mamba_d_ssm")
        inner = inner or _first(settings, "mamba_expand", "expand") * hidden
        convolved, recurrent = inner + 2 * (groups or 0) * state, inner * state
    check_integer(recurrent, "the recurrent state", 0, limits.WIDTH)
    return check_integer(convolved * kernel, "the convolution", 1, limits.WIDTH), recurrent


def _first(settings: Mapping[str, Any], *keys: str) -> Any:
    """Return the first setting that is given; None if none is."""
    return next((value for key in keys if (value := settings.get(key)) is not None), None)
