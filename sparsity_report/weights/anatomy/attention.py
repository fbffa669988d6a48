"""Attention layers: their heads."""

import re
from collections.abc import Sequence
from functools import lru_cache

from torch import nn

from sparsity_report.weights.anatomy.module_uses import declared

OUTPUT_WORDS = ("o_proj", "out_proj", "dense", "c_proj", "o", "wo", "out_lin", "Wo", "output")


def head_dim(around: Sequence[nn.Module]) -> int | None:
    """Width of a head of the attention a matrix belongs to."""
    # BERT's output projection is a sibling of the module that knows its heads.
    tellers = (m for a in around[:2] if _is_attention(a) for m in (a, *a.children()))
    return declared(tellers, "head_dim", "attention_head_size", "key_value_proj_dim", "head_size")


@lru_cache(maxsize=1024)
def _says_attention(class_name: str) -> bool:
    # RWKV's "attention" is a recurrence without scores.
    return bool(re.search(r"^(?!Rwkv).*(Attention|Attn)", class_name))


def _is_attention(module: nn.Module) -> bool:
    return _says_attention(type(module).__name__)
