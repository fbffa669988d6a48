"""Counts kept on disk, so that the same checkpoint, or an interrupted run, is not counted twice.

A key says what was counted: the length and the time of change of the file, where in it the values
stand, and four blocks of 64 KiB of every slice, which is all of it up to 256 KiB. A key over every
byte would cost as much reading as counting does; what this one cannot see is a change that keeps
length and time of the file and avoids all those blocks. ``Cache(folder, verify=True)`` counts
anyway, and sees it. The path is not part of the key: a copy that keeps its time is recognised. Of a
file of the Hub, the key says where it is, at which commit and its etag, which is a digest of its
content; nothing of it is read for a key.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.disk_cache import CacheFolder, Entries
from sparsity_report.counting.histogram import Floats, Integers, Magnitudes, bucket_of, smallest_of
from sparsity_report.counting.quantization_steps import Steps
from sparsity_report.weights.anatomy.parameters import Parameter
from sparsity_report.weights.tensor_slices import FileSlice, LocalFile, Slice, read_at
from sparsity_report.weights.weights import Weights

# Part of every key, so that entries of another version are not even looked at.
_VERSION = "sparsity-report counts 3"
_BLOCKS, _BLOCK = 4, 2**16
_SMALL = 2**20
# Nonzeros, NaN, near, buckets, steps; then values and counts of the two.
_HEAD = struct.Struct("<5q")


class KeptCounts:
    """The counts of a model in a folder."""

    def __init__(self, cache: CacheFolder) -> None:
        self._entries = Entries(cache, "counts")
        self._keys: dict[str, str] = {}

    def look_up(self, weights: Weights, parameters: Iterable[Parameter]) -> dict[str, Magnitudes]:
        """Return what is kept of some parameters; nothing where all is to be verified."""
        tallies = {}
        for p in parameters:
            slices = list(weights.slices(p.name))
            if (key := key_of(slices, p.prunable)) is None:
                continue
            self._keys[p.name] = key
            if not self._entries.verify:
                decoded = partial(_decoded, slices, p.prunable)
                if tally := self._entries.get(key, p.name, decoded):
                    tallies[p.name] = tally
        return tallies

    def put(self, name: str, tally: Magnitudes) -> None:
        """Keep the counts of a parameter that was looked up."""
        if key := self._keys.get(name):
            payload = _encoded(tally)
            if self._entries.verify:
                self._entries.compare(key, name, payload)
            self._entries.put(key, payload)

    def notes(self) -> Iterator[str]:
        """Say once what was not believed, and why nothing more is kept."""
        return self._entries.notes()


def key_of(slices: Sequence[Slice], histogram: bool) -> str | None:
    """Return the key of a tensor; None where it is in memory or as quickly counted again.

    Parameters
    ----------
    slices : sequence of Slice
        All of it.
    histogram : bool
        Whether its magnitudes are counted, too, which takes long of a small one.
    """
    sources = [part.sources() for part in slices]
    small = not histogram and sum(s.nbytes for stretches in sources for s in stretches) <= _SMALL
    if small or not all(sources):
        return None
    digest = hashlib.sha256(f"{_VERSION} {histogram}".encode())
    for part, stretches in zip(slices, sources, strict=True):
        digest.update(part.identity().encode())
        for stretch in stretches:
            for block in _sample(stretch):
                digest.update(block.data)
    return digest.hexdigest()


def _sample(part: FileSlice) -> Iterator[npt.NDArray[np.uint8]]:
    if not isinstance(part.file, LocalFile):
        return
    whole = part.nbytes <= _BLOCKS * _BLOCK
    starts = [0] if whole else [(part.nbytes - _BLOCK) * i // (_BLOCKS - 1) for i in range(_BLOCKS)]
    with part.opened() as file:
        for start in starts:
            yield read_at(file, part.offset + start, part.nbytes if whole else _BLOCK)


def _encoded(tally: Magnitudes) -> bytes:
    """Write what counting found; what the slices know is not written."""
    arrays, steps = [(tally.values, tally.counts)], tally.steps
    if steps:
        arrays.append((steps.values, steps.counts))
    near, step_values = (steps.near, steps.values.size) if steps else (0, 0)
    head = _HEAD.pack(tally.nonzero, tally.nan, near, tally.values.size, step_values)
    pairs = (v.astype("<f8").tobytes() + c.astype("<i8").tobytes() for v, c in arrays)
    return head + b"".join(pairs)


def _decoded(slices: Sequence[Slice], histogram: bool, data: bytes) -> Magnitudes:
    """Return counts that could be those of some slices.

    Raises
    ------
    ValueError
        They cannot.
    """
    if len(data) < _HEAD.size:
        raise ValueError("too short")
    nonzero, nan, near, buckets, step_values = _HEAD.unpack_from(data)
    total = sum(part.total for part in slices)
    few = all(0 <= number <= total for number in (nonzero, nan, near, buckets, step_values))
    if not few or len(data) != _HEAD.size + 16 * (buckets + step_values):
        raise ValueError("of another length")
    numbers = np.frombuffer(data, "<u8", offset=_HEAD.size)
    (values, counts), (step_sizes, step_counts) = (
        (part[: part.size // 2].view("<f8").astype(float), part[part.size // 2 :].astype(np.int64))
        for part in np.split(numbers, [2 * buckets])
    )
    roundings = {part.rounding for part in slices} if histogram else {None}
    rounding = roundings.pop() if len(roundings) == 1 else None
    # As count_slice chooses how to count.
    exact = all(part.rounding is None and part.dtype.itemsize <= 2 for part in slices)
    tally = Magnitudes(total, nonzero, nan, values, counts, exact or not histogram)
    if histogram:
        _check_buckets(tally)
    elif buckets or nan:
        raise ValueError("a histogram that was not asked for")
    if rounding is None:
        if step_values or near:
            raise ValueError("steps of what was not rounded")
        return tally
    _check_pairs(step_sizes[~np.isnan(step_sizes)], step_counts, total)
    steps = Steps(rounding, step_sizes, step_counts, near)
    return Magnitudes(total, nonzero, nan, values, counts, exact, steps)


def _check_buckets(tally: Magnitudes) -> None:
    """Refuse a histogram that does not fit the counts beside it."""
    values, counts = tally.values, tally.counts
    _check_pairs(values, counts, tally.total)
    zeros = tally.total - tally.nonzero
    lowest = int(counts[0]) if values.size and values[0] == 0 else 0
    # The lowest bucket of a wide dtype holds what is nearly zero, too.
    fits = zeros == lowest if tally.exact else zeros <= lowest
    if sum(counts.tolist()) + tally.nan != tally.total or not fits:
        raise ValueError("counts that do not add up")
    if not tally.exact and not np.array_equal(smallest_of(bucket_of(values)), values):
        raise ValueError("buckets that there are not")


def _check_pairs(values: Floats, counts: Integers, most: int) -> None:
    """Refuse magnitudes that do not rise from zero, and counts of nothing or too many."""
    rising = not np.signbit(values).any() and bool((np.diff(values, prepend=-1.0) > 0).all())
    if not rising or (counts < 1).any() or sum(counts.tolist()) > most:
        raise ValueError("magnitudes out of order")
