"""Bytes that a model takes to serve: weights by layout, keys and values, and states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparsity_report.study.schema import TABLES, plain_table, typed
from sparsity_report.weights.anatomy.cache_bytes import cache_bytes
from sparsity_report.weights.anatomy.cache_geometry import NO_CONFIG, CacheEntry, CacheGeometry

if TYPE_CHECKING:
    from sparsity_report.study.derived.facts import Facts
    from sparsity_report.study.frames import StudyFrames
    from sparsity_report.study.variants import Variant


def cache_frame(variants: Iterable[Variant]) -> pd.DataFrame:
    """Return the table ``cache`` of a study: the tensors that each variant keeps between tokens."""
    rows = [
        (variant.name, *entry, cache.dtype, cache.limit, cache.reason)
        for variant in variants
        for cache in [variant.weights.cache]
        for entry in [astuple(each) for each in cache.entries or ()] or [(None,) * 4]
    ]
    return typed("cache", pd.DataFrame(rows, columns=list(TABLES["cache"].names)))


def caches(study: StudyFrames) -> dict[str, CacheGeometry]:
    """Return the cache of each variant of a study."""
    known = dict.fromkeys(study.variants["variant"], NO_CONFIG)
    if study.cache is None:
        return known
    for variant, rows in study.cache.groupby("variant", sort=False):
        plain = plain_table(rows)["rows"]
        _, kind, *_, dtype, limit, reason = plain[0]
        entries = kind and tuple(CacheEntry(*entry) for _, *entry, _, _, _ in plain)
        known[str(variant)] = CacheGeometry(entries, dtype, limit, reason)
    return known


def memory_frame(
    facts: Facts, context: int | None, batch: int, kv_dtype: str | None
) -> pd.DataFrame:
    """Return the bytes of each variant in each layout, see :meth:`Study.memory`."""
    rows = []
    for variant, cache in caches(facts.study).items():
        keys_values, states, dtype, _ = cache_bytes(cache, context, batch, kv_dtype)
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
