"""Bytes of the cache of a model for a context, a batch and a type of numbers, without pandas."""

from __future__ import annotations

import re

from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import value_bytes
from sparsity_report.untrusted import limits
from sparsity_report.weights.anatomy.cache_geometry import GROWING, STATES, CacheGeometry

#: Default context, if the model names no smaller limit.
CONTEXT = 8192
#: Types of numbers in which runtimes keep keys and values.
KV_DTYPES = ("float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int8")
# The type where the model names none of them.
_USUAL = "bfloat16"
_LARGEST_BATCH = 2**20
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([MGT])(i?)B", re.IGNORECASE)


def cache_bytes(
    cache: CacheGeometry, context: int | None, batch: int, kv_dtype: str | None
) -> tuple[int | None, int | None, str, int]:
    """Return the bytes of keys and values, those of states, the type of numbers, and the context.

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
    return *sizes, dtype, positions


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
