"""All families by name."""

from __future__ import annotations

from fuzz.adapter import ADAPTER
from fuzz.cards import CARDS
from fuzz.checkpoint import CHECKPOINT
from fuzz.family import Family
from fuzz.gguf import GGUF
from fuzz.packed import PACKED
from fuzz.pickles import PICKLES
from fuzz.safetensors import SAFETENSORS
from fuzz.study import STUDY

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (SAFETENSORS, CHECKPOINT, ADAPTER, GGUF, PACKED, PICKLES, CARDS, STUDY)
}
