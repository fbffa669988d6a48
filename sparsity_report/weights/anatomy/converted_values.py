"""Values of parameters that transformers makes of several tensors on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.tensor_slices import Entry, Shape, Slice

# Values of a converted slice yielded at a time.
_CHUNK = 2**19


@dataclass(frozen=True, eq=False)
class Converted(Slice):
    """Values of a parameter as converted by transformers, all at once.

    Attributes
    ----------
    parts : sequence of Entry
        Tensors on disk that transformers combines.
    convert : callable
        Returns the values of the parameter, flattened.
    span : tuple of int
        Start, stop and total among the values that the conversion makes.
    """

    parts: Sequence[Entry]
    convert: Callable[[], Array]
    span: tuple[int, int, int]

    @property
    def nbytes(self) -> int | None:
        """Share of the bytes of all combined tensors."""
        size = Entry.file_bytes(self.parts)
        start, stop, total = self.span
        return None if size is None else size * stop // total - size * start // total

    @property
    def packing(self) -> str:
        """Packing of the source tensors."""
        return Entry.packings(self.parts)

    def cut(self, shape: Shape) -> Iterator[Slice]:  # noqa: ARG002
        """Yield the values in one slice, since the conversion makes all at once."""
        if self.total:
            yield self

    def pieces(self) -> Iterator[Array]:
        """Read the tensors, convert them and yield the values of the parameter."""
        values = self.convert()
        for start in range(0, self.total, _CHUNK):
            yield values[start : start + _CHUNK]
