"""What became of weights, kept on disk: two checkpoints that were compared are not read again."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import astuple, fields
from typing import Any

from sparsity_report.counting.count_cache import key_of
from sparsity_report.counting.disk_cache import CacheFolder, Entries
from sparsity_report.counting.n_m_patterns import KNOWN
from sparsity_report.pairing.tally import Tally
from sparsity_report.weights.tensor_slices import Slice

_VERSION = "sparsity-report pairs 2"
# Nine counts, five sums, groups of each side, and how many were looked at.
_FORM = struct.Struct(f"<9q5d{2 * len(KNOWN)}q2q")


class KeptTallies:
    """What was found of two models, in a folder; see :mod:`.count_cache`."""

    def __init__(self, cache: CacheFolder) -> None:
        self._entries = Entries(cache, "pairs")

    def key(self, sides: Iterable[Iterable[Slice]], how: str) -> str | None:
        """Return what two tensors, and how they are compared, are known by; None in memory."""
        digest = hashlib.sha256(f"{_VERSION} {how}".encode())
        for side in sides:
            slices = list(side)
            if (key := key_of(slices, histogram=True) if slices else "") is None:
                return None
            digest.update(f"{key};".encode())
        return digest.hexdigest()

    def get(self, key: str, name: str) -> Tally | None:
        """Return what is kept; nothing where all is to be verified."""
        return None if self._entries.verify else self._entries.get(key, name, _decoded)

    def put(self, key: str, name: str, tally: Tally) -> None:
        """Keep what was found."""
        *counts, before, after, one, other = astuple(tally)
        payload = _FORM.pack(*counts, *before, *after, one, other)
        if self._entries.verify:
            self._entries.compare(key, name, payload)
        self._entries.put(key, payload)

    def notes(self) -> Iterator[str]:
        """Say once what was not believed, and why nothing more is kept."""
        return self._entries.notes()


def _decoded(payload: bytes) -> Tally:
    """Return what is kept.

    Raises
    ------
    ValueError
        It cannot be.
    """
    if len(payload) != _FORM.size:
        raise ValueError("of another length")
    numbers = _FORM.unpack(payload)
    some = len(KNOWN)
    groups = numbers[14 : 14 + some], numbers[14 + some : 14 + 2 * some]
    values = (*numbers[:14], *groups, *numbers[-2:])
    facts: dict[str, Any] = {f.name: v for f, v in zip(fields(Tally), values, strict=True)}
    tally = Tally(**facts)
    if min(numbers[:9]) < 0 or tally.surviving < tally.changed:
        raise ValueError("counts that do not add up")
    return tally
