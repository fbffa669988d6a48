"""Use counts and heads of modules from class names and configurations, without a run."""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.anatomy.parameter_places import Place
from sparsity_report.weights.weights import NEVER, ONCE

_PER_SEQUENCE_CLASS = re.compile("Pooler|ClassificationHead")
_PER_SEQUENCE_WORDS = frozenset(
    ("classifier", "score", "pooler", "pre_classifier", "text_projection", "visual_projection")
)
# RWKV's "attention" is a recurrence without scores.
_ATTENTION = re.compile("^(?!Rwkv).*(Attention|Attn)")
#: Names of the output projection of attention.
OUTPUT_WORDS = ("o_proj", "out_proj", "dense", "c_proj", "o", "wo", "out_lin", "Wo", "output")
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "moe_topk", "num_selected_experts")


def uses_by_rule(model: nn.Module, place: Place) -> tuple[Fraction, Fraction]:
    """Return the uses of a module per token and per sequence."""
    classes = tuple(type(module).__name__ for module in place.around)
    words = place.path.split(".")
    if any(map(_PER_SEQUENCE_CLASS.search, classes)) or not _PER_SEQUENCE_WORDS.isdisjoint(words):
        return NEVER, ONCE * place.times
    return _uses_per_token(model, place) * place.times, NEVER


def _uses_per_token(model: nn.Module, place: Place) -> Fraction:
    module, around = place.module, place.around
    if not re.search(r"Expert|Mo[eE]", " ".join(type(m).__name__ for m in (module, *around))):
        return ONCE
    config: Any = getattr(model, "config", None)
    if type(module).__name__.endswith("Experts") and not isinstance(module, nn.ModuleList):
        experts = place.shape(next(iter(place.tensors)))[0]
        return _share(_top_k(config, around), experts)
    for inner, outer in zip([module, *around], around, strict=False):
        if isinstance(outer, nn.ModuleList) and re.search("Expert|MLP", type(inner).__name__):
            block = around[around.index(outer) + 1 :]
            if block and re.search(r"Moe|MoE", type(block[0]).__name__):
                return _share(_top_k(config, block), len(outer))
    return ONCE


def _share(chosen: int | None, experts: int) -> Fraction:
    """Return the share of experts per token; 1 if no number is known."""
    if chosen is None or not experts:
        return ONCE
    if chosen > experts:
        raise SparsityReportError(
            f"the configuration sends a token to {chosen:,} of {experts:,} experts, which cannot "
            "be; is it of the same model?"
        )
    return Fraction(chosen, experts)


def _top_k(config: Any, around: Sequence[nn.Module]) -> int | None:
    """Return the experts per token, from the router, the block or the config."""
    block = (*around[0].children(), around[0]) if around else ()
    configs, names = (config, getattr(config, "text_config", None)), _EXPERTS_PER_TOKEN
    return declared(block, "top_k") or declared(configs, *names)


def declared(sources: Iterable[object], *names: str) -> int | None:
    """Return the first positive integer that a source has under one of the names."""
    values = (getattr(source, name, None) for source in sources for name in names)
    return next((n for n in values if isinstance(n, int) and n is not True and n > 0), None)


def head_dim(around: Sequence[nn.Module]) -> int | None:
    """Width of a head of the attention a matrix belongs to."""
    # BERT's output projection is a sibling of the module that knows its heads.
    layers = (a for a in around[:2] if _ATTENTION.search(type(a).__name__))
    tellers = (module for layer in layers for module in (layer, *layer.children()))
    return declared(tellers, "head_dim", "attention_head_size", "key_value_proj_dim", "head_size")
