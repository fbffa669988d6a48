"""GGUF on the Hub: the headers are read over the network, and nothing is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sparsity_report.weights.anatomy.describe import ReaderOptions
from sparsity_report.weights.gguf.gguf_header import Header, parse_header
from sparsity_report.weights.gguf.gguf_model import GGUFWeights
from sparsity_report.weights.sources.http_ranges import HubFile
from sparsity_report.weights.tensor_slices import Reader, read_at

_CHUNK = 2**16
_AT_ONCE = 8


def open_remote(files: Sequence[HubFile], folder: Path, options: ReaderOptions) -> GGUFWeights:
    """Open the pieces of a model, the first one first.

    Parameters
    ----------
    files : sequence of HubFile
    folder : pathlib.Path
        Where the repository's configuration lies on this disk.
    options : ReaderOptions
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        read = pool.map(_read_header, files)
        headers = {folder / file.name: header for file, header in zip(files, read, strict=True)}
    weights = GGUFWeights(folder / files[0].name, options, headers)
    weights.path = folder
    return weights


def _read_header(file: HubFile) -> Header:
    with file.opened(0, file.size) as reader:
        return parse_header(_Following(reader, file.size), file)


class _Following:
    """A file that is read from its begin; what is passed over is read, too, on one connection."""

    def __init__(self, reader: Reader, size: int) -> None:
        self._reader, self._size, self._place = reader, size, 0

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer before the end."""
        raw = read_at(self._reader, self._place, min(count, self._size - self._place))
        self._place += len(raw)
        return raw.tobytes()

    def seek(self, count: int, whence: int, /) -> None:  # noqa: ARG002
        """Pass over bytes, all of which the file has."""
        while count:
            count -= len(self.read(min(count, _CHUNK)))
