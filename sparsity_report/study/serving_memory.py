"""Bytes that a model takes to serve: weights by layout, keys and values, and states."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.study.layers import records
from sparsity_report.study.schema import TABLES, typed
from sparsity_report.untrusted import limits
from sparsity_report.weights.anatomy.cache_geometry import (
    GROWING,
    NO_CONFIG,
    STATES,
    CacheEntry,
    CacheGeometry,
)

if TYPE_CHECKING:
    from sparsity_report.study.derived.facts import Facts
    from sparsity_report.study.frames import StudyFrames
    from sparsity_report.study.variants import Variant

#: Default context, if the model names no smaller limit.
CONTEXT = 8192
#: Types of numbers in which runtimes keep keys and values.
KV_DTYPES = ("float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int8")
# The type where the model names none of them.
_USUAL = "bfloat16"
_LARGEST_BATCH = 2**20
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([MGT])(i?)B", re.IGNORECASE)
_ENTRY = ["cached", "alike_layers", "cached_values", "cached_positions"]


def cache_frame(variants: Iterable[Variant]) -> pd.DataFrame:
    """Return the table ``cache`` of a study: the tensors that each variant keeps between tokens."""
    rows = [
        dict(zip(_ENTRY, astuple(entry) if entry else [None] * 4, strict=True))
        | {
            "variant": variant.name,
            "cache_dtype": cache.dtype,
            "context_limit": cache.limit,
            "unknown_cache": cache.reason,
        }
        for variant in variants
        for cache in [variant.weights.cache]
        for entry in cache.entries or [None]
    ]
    return typed("cache", pd.DataFrame(rows, columns=list(TABLES["cache"].names)))


def caches(study: StudyFrames) -> dict[str, CacheGeometry]:
    """Return the cache of each variant of a study."""
    known = dict.fromkeys(study.variants["variant"], NO_CONFIG)
    if study.cache is None:
        return known
    for variant, rows in study.cache.groupby("variant", sort=False):
        plain = records(rows.astype(object).where(rows.notna(), None))
        entries = tuple(CacheEntry(*(row[key] for key in _ENTRY)) for row in plain)
        settings = (plain[0][key] for key in ("cache_dtype", "context_limit", "unknown_cache"))
        known[str(variant)] = CacheGeometry(entries if plain[0]["cached"] else None, *settings)
    return known


def cache_bytes(
    cache: CacheGeometry, context: int | None, batch: int, kv_dtype: str | None
) -> tuple[int | None, int | None, str]:
    """Return the bytes of keys and values, those of states, and the type of the numbers.

    Bytes are None if the cache is unknown. By default the context is 8,192 or the smaller limit of
    the model, and the type is that of the model, or bfloat16.

    Raises
    ------
    SparsityReportError
        An argument is out of range, or the sum exceeds any memory.
    """
    for name, number, most in (
        ("context", context or (CONTEXT if context is None else 0), limits.POSITIONS),
        ("batch", batch, _LARGEST_BATCH),
    ):
        if type(number) is not int or not 1 <= number <= most:
            raise SparsityReportError(
                f"{name}: {str(number)[:30]} is not a whole number from 1 to {most:,}; give another"
            )
    if kv_dtype not in (None, *KV_DTYPES):
        raise SparsityReportError(
            f"kv_dtype: {str(kv_dtype)[:30]!r} is no type of a cache; use one of "
            f"{', '.join(KV_DTYPES)}"
        )
    dtype = kv_dtype or (cache.dtype if cache.dtype in KV_DTYPES else _USUAL)
    positions = context or min(CONTEXT, cache.limit or CONTEXT)
    each = positions, batch, value_bytes(dtype)
    sizes = cache.size(GROWING, *each), cache.size(STATES, *each)
    if max(size or 0 for size in sizes) > limits.ALL_VALUES:
        raise SparsityReportError(
            f"context and batch: the cache would take {sum(size or 0 for size in sizes):,} bytes, "
            "more than any memory; give smaller numbers"
        )
    return *sizes, dtype


def memory_frame(
    facts: Facts, context: int | None, batch: int, kv_dtype: str | None
) -> pd.DataFrame:
    """Return the bytes of each variant in each layout, see :meth:`Comparison.memory`."""
    rows = []
    for variant, cache in caches(facts.study).items():
        keys_values, states, dtype = cache_bytes(cache, context, batch, kv_dtype)
        for layout, weights in _weights(facts, variant):
            parts = [weights, keys_values, states]
            total = None if None in parts else sum(map(int, parts))
            rows.append((variant, layout, *parts, total, dtype))
    return typed("memory", pd.DataFrame(rows, columns=list(TABLES["memory"].names)))


def _weights(facts: Facts, variant: str) -> Iterator[tuple[str, Any]]:
    """Yield lossless layouts of a variant's model with the bytes of its weights."""
    if facts.packings(variant) and (size := facts.total(variant, "file_bytes")) is not None:
        yield "file", int(size)
    sizes = facts.lossless(variant, "model")["bytes"]
    if sizes.empty:
        stored = facts.total(variant, "stored_bytes")
        yield "dense", None if stored is None else int(stored)
    yield from ((str(layout), int(size)) for layout, size in sizes.items())


def parsed_memory(text: str) -> int:
    """Return the bytes of a size of memory; GB is 10⁹ bytes and GiB 2³⁰.

    Raises
    ------
    SparsityReportError
        The text is no such size.

    Examples
    --------
    >>> parsed_memory("24GB"), parsed_memory("1.5 GiB")
    (24000000000, 1610612736)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise SparsityReportError(
            f"--fits: {text[:30]!r} is no size of memory; give one such as 24GB or 24GiB"
        )
    power = "MGT".index(match[2].upper()) + 2
    unit: int = (1024 if match[3] else 1000) ** power
    return round(float(match[1]) * unit)
