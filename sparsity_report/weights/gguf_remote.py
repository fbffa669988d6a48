"""GGUF models of the Hub, read where they lie: only their headers are copied, and for a while."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from sparsity_report.weights.describe import ReaderOptions
from sparsity_report.weights.gguf import GGUFWeights
from sparsity_report.weights.gguf_header import Header, parse_header
from sparsity_report.weights.remote import HubFile
from sparsity_report.weights.tensors import Reader, read_at

# Bytes of a header, with the vocabulary that is in it; the largest known take some tens of MB.
_LARGEST = 2**28
_CHUNK = 2**16
_AT_ONCE = 8


def open_remote(files: Sequence[HubFile], folder: Path, options: ReaderOptions) -> GGUFWeights:
    """Open the pieces of a model, the first one first.

    Transformers reads what a header says from a file on this disk: a copy of it that is as long
    as the whole file, and empty where the values would be.

    Parameters
    ----------
    files : sequence of HubFile
    folder : pathlib.Path
        Where the repository's configuration lies on this disk.
    options : ReaderOptions
    """
    with TemporaryDirectory() as copies, ThreadPoolExecutor(_AT_ONCE) as pool:
        places = [Path(copies, file.name) for file in files]
        headers = dict(zip(places, pool.map(_copy_header, files, places), strict=True))
        weights = GGUFWeights(places[0], options, headers.__getitem__)
    weights.path = folder
    return weights


def _copy_header(file: HubFile, place: Path) -> Header:
    with file.opened(0, file.size) as reader, place.open("wb") as copy:
        header = parse_header(_Copied(reader, copy, file.size), file)
        copy.truncate(file.size)
    return header


class _Copied:
    """A file that is read from its begin, and copied as far as it is read."""

    def __init__(self, reader: Reader, copy: BinaryIO, size: int) -> None:
        self._reader, self._copy, self._size = reader, copy, size

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._copy.tell()

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer before the end."""
        place = self.tell()
        if place + count > _LARGEST:
            raise ValueError(f"its header is longer than {_LARGEST:,} bytes")
        raw = read_at(self._reader, place, min(count, self._size - place)).tobytes()
        self._copy.write(raw)
        return raw

    def seek(self, count: int, whence: int, /) -> None:  # noqa: ARG002
        """Pass over bytes, all of which the file has."""
        while count:
            count -= len(self.read(min(count, _CHUNK)))
