"""Counts kept on disk, so that the same checkpoint, or an interrupted run, is not counted twice.

A key says what was counted: the length and the time of change of the file, where in it the values
stand, and four blocks of 64 KiB of every slice, which is all of it up to 256 KiB. A key over every
byte would cost as much reading as counting does; what this one cannot see is a change that keeps
length and time of the file and avoids all those blocks. The path is not part of the key: a copy
that keeps its time is recognised. Of a file of the Hub, the key says where it is, at which commit
and its etag, which is a digest of its content; nothing of it is read for a key.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.steps import Steps
from sparsity_report.errors import SparsityReportError
from sparsity_report.files import check_folder, write_file
from sparsity_report.weights.rounding import Rounding
from sparsity_report.weights.tensors import FileSlice, LocalFile, Slice, read_at

# Part of every key, so that entries of another version are not even looked at.
_VERSION = "sparsity-report counts 2"
_BLOCKS, _BLOCK = 4, 2**16
_SMALL = 2**20
_DIGEST = hashlib.sha256().digest_size


class Cache:
    """A folder of counts, each file led by the digest of its content.

    Attributes
    ----------
    trouble : str
        Why nothing more is kept; empty while all is well.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self.trouble = ""
        check_folder(self._folder)

    def key(self, slices: Sequence[Slice], histogram: bool) -> str | None:
        """Return the key of a tensor; None where it is in memory or as quickly counted again."""
        sources = [part.sources() for part in slices]
        small = (
            not histogram and sum(s.nbytes for stretches in sources for s in stretches) <= _SMALL
        )
        if small or not all(sources):
            return None
        digest = hashlib.sha256(f"{_VERSION} {histogram}".encode())
        for part, stretches in zip(slices, sources, strict=True):
            digest.update(part.identity().encode())
            for stretch in stretches:
                for block in _sample(stretch):
                    digest.update(block.data)
        return digest.hexdigest()

    def get(self, key: str) -> Magnitudes | None:
        """Return the counts kept under a key; None where there are none or they are damaged."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return None
        with np.load(io.BytesIO(data[_DIGEST:])) as arrays:
            facts, values, counts, *rounded = (arrays[name] for name in arrays.files)
        total, nonzero, nan, exact = facts.tolist()
        steps = None
        if rounded:
            (below, above, has_zero), (near,), step_values, step_counts = rounded
            rounding = Rounding(float(below), float(above), bool(has_zero))
            steps = Steps(rounding, step_values, step_counts, int(near))
        return Magnitudes(total, nonzero, nan, values, counts, bool(exact), steps)

    def put(self, key: str, tally: Magnitudes) -> None:
        """Keep counts under a key; a full disk ends the keeping, not the counting."""
        if self.trouble:
            return
        facts = np.array([tally.total, tally.nonzero, tally.nan, tally.exact], dtype=np.int64)
        buffer = io.BytesIO()
        rounded: list[npt.ArrayLike] = []
        if steps := tally.steps:
            ends = (steps.rounding.below, steps.rounding.above, float(steps.rounding.has_zero))
            rounded = [ends, (steps.near,), steps.values, steps.counts]
        np.savez(buffer, facts, tally.values, tally.counts, *rounded)
        data = buffer.getvalue()
        try:
            write_file(self._path(key), hashlib.sha256(data).digest() + data)
        except SparsityReportError as error:
            self.trouble = str(error)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.counts"


def _sample(part: FileSlice) -> Iterator[npt.NDArray[np.uint8]]:
    if not isinstance(part.file, LocalFile):
        return
    whole = part.nbytes <= _BLOCKS * _BLOCK
    starts = [0] if whole else [(part.nbytes - _BLOCK) * i // (_BLOCKS - 1) for i in range(_BLOCKS)]
    with part.opened() as file:
        for start in starts:
            yield read_at(file, part.offset + start, part.nbytes if whole else _BLOCK)
