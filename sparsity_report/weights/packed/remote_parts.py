"""Parts on the Hub, each read over one connection while values are decoded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

from sparsity_report.weights.sources.http_ranges import HubFile
from sparsity_report.weights.tensor_slices import Entry, FileSlice, Origin, Reader

T = TypeVar("T")

# Largest read that is kept, so that a slice is not read twice.
_REMEMBERED = 2**22


class Span(NamedTuple):
    """Range of values from `start` to `stop`, of `total`."""

    start: int
    stop: int
    total: int


@dataclass(frozen=True, eq=False)
class _Connected(Origin):
    """File with a reader that stays open."""

    origin: Origin
    reader: Reader

    def __str__(self) -> str:
        return str(self.origin)

    @property
    def name(self) -> str:
        return self.origin.name

    @property
    def size(self) -> int:  # type: ignore[override]  # read only, as is the origin
        return self.origin.size

    def opened(self, start: int, stop: int) -> AbstractContextManager[Reader]:  # noqa: ARG002
        return nullcontext(self.reader)


class _Repeating:
    """Reader that keeps its last read: scales are read again for rounding steps."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._at = reader, 0
        self._last = 0, b""

    def seek(self, offset: int, /) -> None:
        self._at = offset

    def readinto(self, buffer: memoryview, /) -> int:
        begin, held = self._last
        if (begin, len(held)) == (self._at, len(buffer)):
            buffer[:] = held
        else:
            self._reader.seek(self._at)
            self._reader.readinto(buffer)
            if len(buffer) <= _REMEMBERED:
                self._last = self._at, bytes(buffer)
        return len(buffer)


def is_remote(parts: Sequence[Entry]) -> bool:
    """Return whether a part is on the Hub."""
    values = [part.values for part in parts]
    return any(isinstance(v, FileSlice) and isinstance(v.file, HubFile) for v in values)


@contextmanager
def connected(decoder: T, span: Span) -> Iterator[T]:
    """Yield a decoder of a range of values, each part read over one connection.

    Parameters
    ----------
    decoder : dataclass
    span : Span
        The values to be decoded.
    """
    opened: dict[tuple[Origin, int, int], Reader] = {}
    with ExitStack() as stack:

        def bring(entry: Entry) -> Entry:
            values = entry.values
            if not isinstance(values, FileSlice):
                return entry
            key = values.file, values.offset, values.nbytes
            if key not in opened:
                opened[key] = _Repeating(stack.enter_context(_opened(values, span)))
            file = _Connected(values.file, opened[key])
            return replace(entry, values=replace(values, file=file))

        yield _changed(decoder, bring)


def _opened(values: FileSlice, span: Span) -> AbstractContextManager[Reader]:
    """Open a part at the position that corresponds to a span of values."""
    first, last = (-(-values.nbytes * place // span.total) for place in (span.start, span.stop))
    return values.file.opened(values.offset + first, values.offset + last)


def _changed(value: Any, change: Callable[[Entry], Entry]) -> Any:
    """Return a copy of a decoder with a function applied to each of its entries."""
    if isinstance(value, Entry):
        return change(value)
    if isinstance(value, tuple):
        return tuple(map(partial(_changed, change=change), value))
    if not is_dataclass(value) or isinstance(value, type):
        return value
    inside = {f.name: _changed(getattr(value, f.name), change) for f in fields(value)}
    return replace(value, **inside)
