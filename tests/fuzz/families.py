"""All families by name."""

from __future__ import annotations

from fuzz.adapter import ADAPTER
from fuzz.checkpoint import CHECKPOINT
from fuzz.config import CONFIG
from fuzz.count_cache import CACHE, SCORES
from fuzz.family import Family
from fuzz.gguf import GGUF
from fuzz.masks import MASKS
from fuzz.packed import PACKED
from fuzz.pair import PAIR
from fuzz.results import RESULTS
from fuzz.safetensors import SAFETENSORS
from fuzz.study import STUDY
from fuzz.tokenizer import TOKENIZER

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        SAFETENSORS,
        CHECKPOINT,
        CONFIG,
        ADAPTER,
        TOKENIZER,
        GGUF,
        PACKED,
        CACHE,
        SCORES,
        STUDY,
        PAIR,
        RESULTS,
        MASKS,
    )
}
