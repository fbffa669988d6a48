"""Cache keys and cache entries of compared parameters."""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from typing import Any

from sparsity_report.counting.count_cache import count_key
from sparsity_report.counting.n_m_patterns import KNOWN
from sparsity_report.pairing.tally import Tally
from sparsity_report.weights.tensor_slices import Slice

# Part of every key: entries of other versions are never found.
_VERSION = "sparsity-report pairs 2"
# Nine counts, five sums, complying groups of both models, and the weights in such groups.
_FORM = struct.Struct(f"<9q5d{2 * len(KNOWN)}q2q")


def tally_key(sides: Iterable[Sequence[Slice]], method: str) -> str | None:
    """Return the cache key of two tensors and of the way to compare them; None in memory."""
    digest = hashlib.sha256(f"{_VERSION} {method}".encode())
    for slices in sides:
        if (key := count_key(slices, histogram=True) if slices else "") is None:
            return None
        digest.update(f"{key};".encode())
    return digest.hexdigest()


def encode_tally(tally: Tally) -> bytes:
    """Return the cache entry of a tally."""
    *counts, groups_before, groups_after, grouped_before, grouped_after = astuple(tally)
    return _FORM.pack(*counts, *groups_before, *groups_after, grouped_before, grouped_after)


def decode_tally(payload: bytes) -> Tally:
    """Return the tally in a cache entry.

    Raises
    ------
    ValueError
        The payload has another length, or its counts are impossible.
    """
    if len(payload) != _FORM.size:
        raise ValueError("wrong length")
    numbers = _FORM.unpack(payload)
    n = len(KNOWN)
    groups = numbers[14 : 14 + n], numbers[14 + n : 14 + 2 * n]
    values = (*numbers[:14], *groups, *numbers[-2:])
    facts: dict[str, Any] = {f.name: v for f, v in zip(fields(Tally), values, strict=True)}
    tally = Tally(**facts)
    if min(numbers[:9]) < 0 or tally.surviving < tally.changed:
        raise ValueError("inconsistent counts")
    return tally
