"""Attention layers: their widths, windows and heads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, cast

from torch import nn

from sparsity_report.sparse.linear import LinearCSR
from sparsity_report.weights.places import Place
from sparsity_report.weights.uses import declared, uses_per_token

QUERY_WORDS = ("q_proj", "query", "q", "q_b_proj", "q_lin", "Wq")
OUTPUT_WORDS = ("o_proj", "out_proj", "dense", "c_proj", "o", "wo", "out_lin", "Wo", "output")


def attention_widths(places: Sequence[Place]) -> dict[int | None, int] | None:
    """Sum query and value widths over the attention layers; None where one cannot be told.

    Scores and weighted values of one token cost ``2·(query width + value width)`` FLOPs for
    every position it attends to: of all, or of a sliding window, by which the sums are kept.
    """
    totals: dict[int | None, Fraction] = {}
    for place in places:
        module = place.module
        if not _is_attention(module) or any(map(_is_attention, module.children())):
            continue  # not attention, or a wrapper around the attention proper, as in BERT
        leaves = {
            name.rpartition(".")[2]: child
            for name, child in module.named_modules()
            if name.count(".") <= 1
        }
        query = _out_features(next((leaves[n] for n in QUERY_WORDS if n in leaves), None))
        value = _in_features(next((leaves[n] for n in OUTPUT_WORDS if n in leaves), None)) or query
        if value is None:
            return None
        width = ((query or value) + value) * uses_per_token(places[0].module, module, place.around)
        window = _window(places[0].module, module)
        totals[window] = totals.get(window, Fraction(0)) + width
    return {window: round(total) for window, total in totals.items()} or None


def head_dim(around: Sequence[nn.Module]) -> int | None:
    """Width of a head of the attention a matrix belongs to."""
    attention = filter(_is_attention, around[:2])
    return declared(attention, "head_dim", "attention_head_size", "key_value_proj_dim", "head_size")


def _window(model: nn.Module, attention: nn.Module) -> int | None:
    """Positions an attention layer can see, by its word or the config's for all layers alike."""
    config: Any = getattr(model, "config", None)
    # A config may carry words its model does not know, and may say it layer by layer.
    alike = hasattr(type(config), "sliding_window") and not getattr(config, "layer_types", None)
    window = getattr(attention, "sliding_window", config.sliding_window if alike else None)
    return window if isinstance(window, int) else None


@lru_cache(maxsize=1024)
def _says_attention(class_name: str) -> bool:
    # RWKV's "attention" is a recurrence without scores.
    return bool(re.search(r"^(?!Rwkv).*(Attention|Attn)", class_name))


def _is_attention(module: nn.Module) -> bool:
    return _says_attention(type(module).__name__)


def _out_features(layer: nn.Module | None) -> int | None:
    return layer.out_features if isinstance(layer, nn.Linear | LinearCSR) else None


def _in_features(layer: nn.Module | None) -> int | None:
    if type(layer).__name__ == "Conv1D":
        return int(cast(Any, layer).weight.shape[0])
    return layer.in_features if isinstance(layer, nn.Linear | LinearCSR) else None
