"""GGUF models on the Hub: headers read over the network, without a copy on disk."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sparsity_report.weights.anatomy.describe import ReaderOptions
from sparsity_report.weights.gguf.gguf_header import Header, parse_header
from sparsity_report.weights.gguf.gguf_model import GGUFWeights
from sparsity_report.weights.sources.http_ranges import HubFile
from sparsity_report.weights.tensor_slices import Reader, read_at

_CHUNK = 2**16
_PARALLEL = 8


def open_remote(files: Sequence[HubFile], folder: Path, options: ReaderOptions) -> GGUFWeights:
    """Open a model from its shards.

    Parameters
    ----------
    files : sequence of HubFile
        All shards in order.
    folder : pathlib.Path
        Local folder of the repository's configuration.
    options : ReaderOptions
    """
    with ThreadPoolExecutor(_PARALLEL) as pool:
        headers = dict(
            zip((folder / file.name for file in files), pool.map(_read_header, files), strict=True)
        )
    weights = GGUFWeights(folder / files[0].name, options, headers)
    weights.path = folder
    return weights


def _read_header(file: HubFile) -> Header:
    with file.opened(0, file.size) as reader:
        return parse_header(_SequentialReader(reader, file.size), file)


class _SequentialReader:
    """A file read from its beginning; skipped bytes are read too, on the same connection."""

    def __init__(self, reader: Reader, size: int) -> None:
        self._reader, self._size, self._place = reader, size, 0

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer before the end."""
        raw = read_at(self._reader, self._place, min(count, self._size - self._place))
        self._place += len(raw)
        return raw.tobytes()

    def seek(self, count: int, whence: int, /) -> None:  # noqa: ARG002
        """Skip bytes, all of which the file has."""
        while count:
            count -= len(self.read(min(count, _CHUNK)))
