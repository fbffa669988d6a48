"""Counts of earlier runs in a folder: keys, entries, and the checks when they are read.

The key of a tensor covers the length and the modification time of its file, the position of the
values in it, and four blocks of 64 KiB of every slice (all of a slice up to 256 KiB). Reading every
byte for a key would take as long as counting. The key therefore misses a change that keeps length
and time and avoids these blocks. The path is not part of the key, so that a copy with the same time
is recognized. The key of a file on the Hub covers its address, its commit and its etag, a digest of
its content; nothing is read.

An entry is one file: ``_MAGIC``, its key (32 bytes), the SHA-256 of both and the payload (32
bytes), and the payload. The cache rejects entries that are damaged, cut short or copied from
another key. The digest detects damage and is not a signature: anyone who can write into the folder
can compute it. The reader therefore rejects a payload with impossible values, too. Entries are
written atomically, so that the last of two processes wins.
"""

import hashlib
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.histogram import (
    Floats,
    Integers,
    Magnitudes,
    Steps,
    bucket_of,
    is_exact,
    smallest_of,
)
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import check_folder, write_file
from sparsity_report.untrusted import limits
from sparsity_report.weights.tensor_slices import FileSlice, LocalFile, Slice
from sparsity_report.words.sentences import say

# Part of every key: entries of other versions are never found.
_VERSION = "sparsity-report counts 3"
_BLOCKS, _BLOCK = 4, 2**16
_SMALL = 2**20
# Nonzeros, NaN, near, buckets, steps; then values and counts of the two.
_HEAD = struct.Struct("<5q")

_MAGIC = b"sparsity-report kept 3\n"
_DIGEST = hashlib.sha256().digest_size
# Opening must not wait for a pipe, nor follow a link.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
# Names that a note lists.
_NAMED = 3


#: Accepted by ``cache=``: the path of a folder.
CacheFolder = str | os.PathLike[str]


class Entries:
    """The counts in a cache.

    Parameters
    ----------
    cache : path-like, optional
        None: no entry is found, and none is written.

    Raises
    ------
    SparsityReportError
        The folder cannot be created.
    """

    def __init__(self, cache: CacheFolder | None) -> None:
        self.in_use = cache is not None
        self._folder, self._trouble = Path(cache or ""), ""
        self._damaged: list[str] = []
        self._keys: dict[str, str | None] = {}
        try:
            if self.in_use:
                check_folder(self._folder)
        except SparsityReportError as error:
            if not self._folder.is_dir():
                raise
            self._trouble = str(error)

    def get(self, name: str, slices: Sequence[Slice], histogram: bool) -> Magnitudes | None:
        """Return the counts of a tensor; None if there is no valid entry."""
        self._keys[name] = key = count_key(slices, histogram)
        try:
            payload = None if key is None else self._payload(key)
            return None if payload is None else decode_counts(slices, histogram, payload)
        except ValueError:
            self._damaged.append(name)
            return None

    def put(self, name: str, tally: Magnitudes) -> None:
        """Write the counts of a tensor; write nothing more after a failure, such as a full disk."""
        if (key := self._keys.get(name)) is None or self._trouble:
            return
        head, payload = _MAGIC + bytes.fromhex(key), encode_counts(tally)
        digest = hashlib.sha256(head + payload).digest()
        try:
            write_file(self._path(key), head + digest + payload)
        except SparsityReportError as error:
            self._trouble = str(error)

    def notes(self) -> Iterator[str]:
        """Yield notes about damaged entries, and about a folder that cannot be written."""
        if names := self._damaged:
            yield say("note.cache_damaged", count=len(names), names=names[:_NAMED])
        if self._trouble:
            yield say("note.cache_unwritable", reason=self._trouble)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.counts"

    def _payload(self, key: str) -> bytes | None:
        try:
            with os.fdopen(os.open(self._path(key), _READ), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None
                data = file.read(limits.ENTRY_BYTES + 1)
        except OSError:
            return None
        head = _MAGIC + bytes.fromhex(key)
        digest, payload = data[len(head) :][:_DIGEST], data[len(head) + _DIGEST :]
        if data[: len(head)] != head or hashlib.sha256(head + payload).digest() != digest:
            raise ValueError("damaged")
        return payload


def count_key(slices: Sequence[Slice], histogram: bool) -> str | None:
    """Return the cache key of a tensor; None if it is in memory or quickly counted again.

    Parameters
    ----------
    slices : sequence of Slice
        All slices of the tensor.
    histogram : bool
        Whether its magnitudes are counted, too, which is slow even for a small tensor.
    """
    sources = [part.sources() for part in slices]
    small = not histogram and sum(s.nbytes for stretches in sources for s in stretches) <= _SMALL
    if small or not all(sources):
        return None
    digest = hashlib.sha256(f"{_VERSION} {histogram}".encode())
    for part, stretches in zip(slices, sources, strict=True):
        digest.update(repr(part).encode())
        for stretch in stretches:
            for block in _sample(stretch):
                digest.update(block.data)
    return digest.hexdigest()


def _sample(part: FileSlice) -> Iterator[npt.NDArray[np.uint8]]:
    if not isinstance(part.file, LocalFile):
        return
    is_small = part.nbytes <= _BLOCKS * _BLOCK
    last = part.nbytes - _BLOCK
    starts = [0] if is_small else [last * i // (_BLOCKS - 1) for i in range(_BLOCKS)]
    for start in starts:
        yield part.file.read(part.offset + start, part.nbytes if is_small else _BLOCK)


def encode_counts(tally: Magnitudes) -> bytes:
    """Return the cache entry of counts, without the sizes that the slices hold."""
    arrays, steps = [(tally.values, tally.counts)], tally.steps
    if steps:
        arrays.append((steps.values, steps.counts))
    near, step_values = (steps.near, steps.values.size) if steps else (0, 0)
    head = _HEAD.pack(tally.nonzero, tally.nan, near, tally.values.size, step_values)
    pairs = (v.astype("<f8").tobytes() + c.astype("<i8").tobytes() for v, c in arrays)
    return head + b"".join(pairs)


def decode_counts(slices: Sequence[Slice], histogram: bool, data: bytes) -> Magnitudes:
    """Return the counts in a cache entry.

    Raises
    ------
    ValueError
        The counts are impossible for these slices.
    """
    if len(data) < _HEAD.size:
        raise ValueError("too short")
    nonzero, nan, near, buckets, step_values = _HEAD.unpack_from(data)
    total = sum(part.total for part in slices)
    few = all(0 <= number <= total for number in (nonzero, nan, near, buckets, step_values))
    if not few or len(data) != _HEAD.size + 16 * (buckets + step_values):
        raise ValueError("wrong length")
    numbers = np.frombuffer(data, "<u8", offset=_HEAD.size)
    (values, counts), (step_sizes, step_counts) = (
        (part[: part.size // 2].view("<f8").astype(float), part[part.size // 2 :].astype(np.int64))
        for part in np.split(numbers, [2 * buckets])
    )
    roundings = {part.rounding for part in slices} if histogram else {None}
    rounding = roundings.pop() if len(roundings) == 1 else None
    exact = all(map(is_exact, slices))
    tally = Magnitudes(total, nonzero, nan, values, counts, exact or not histogram)
    if histogram:
        _check_buckets(tally)
    elif buckets or nan:
        raise ValueError("unexpected histogram")
    if rounding is None:
        if step_values or near:
            raise ValueError("unexpected quantization steps")
        return tally
    _check_pairs(step_sizes[~np.isnan(step_sizes)], step_counts, total)
    steps = Steps(rounding, step_sizes, step_counts, near)
    return Magnitudes(total, nonzero, nan, values, counts, exact, steps)


def _check_buckets(tally: Magnitudes) -> None:
    """Refuse a histogram that contradicts the number of nonzeros."""
    values, counts = tally.values, tally.counts
    _check_pairs(values, counts, tally.total)
    zeros = tally.total - tally.nonzero
    lowest = int(counts[0]) if values.size and values[0] == 0 else 0
    # The lowest bucket of a wide dtype holds tiny values besides zeros.
    fits = zeros == lowest if tally.exact else zeros <= lowest
    if sum(counts.tolist()) + tally.nan != tally.total or not fits:
        raise ValueError("inconsistent counts")
    if not tally.exact and not np.array_equal(smallest_of(bucket_of(values)), values):
        raise ValueError("magnitudes between buckets")


def _check_pairs(values: Floats, counts: Integers, most: int) -> None:
    """Refuse magnitudes that are not ascending from zero, and counts that are not positive."""
    rising = not np.signbit(values).any() and bool((np.diff(values, prepend=-1.0) > 0).all())
    if not rising or (counts < 1).any() or sum(counts.tolist()) > most:
        raise ValueError("magnitudes out of order")
