"""All families by name."""

from __future__ import annotations

from fuzz.family import Family
from fuzz.gguf import GGUF
from fuzz.kept import CACHE, SCORES
from fuzz.packed import PACKED
from fuzz.safetensors import SAFETENSORS

FAMILIES: dict[str, Family] = {
    family.name: family for family in (SAFETENSORS, GGUF, PACKED, CACHE, SCORES)
}
