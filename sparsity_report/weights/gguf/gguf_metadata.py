"""Metadata of a GGUF file, with every length and size checked against limits.

The public readers trust these numbers: a file of 49 bytes that announces 2⁶⁰ entries keeps them
busy for ever, and they would build a model of 10⁹ blocks.
"""

import re
import struct
from typing import Any

from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer
from sparsity_report.weights.tensor_slices import Origin, Reader, read_at

#: Key of the vocabulary; its value is kept as the number of tokens.
TOKENS = "tokenizer.ggml.tokens"
ARCHITECTURE = "general.architecture"

# Format characters of struct by scalar value type; 7 is a boolean, 8 a string, 9 an array.
_SCALARS = dict(zip((*range(8), 10, 11, 12), "BbHhIifBQqd", strict=True))
_BOOL, _STRING, _ARRAY = 7, 8, 9
# Fewest bytes of a metadata pair and of a tensor: length of the name, type, value, offset.
_PAIR, _TENSOR = 13, 24
# Bytes of the header that are read at a time.
_CHUNK = 2**16

# Names of sizes of a model, and their largest values.
_SIZES = {
    r"block_count|nextn_predict_layers": limits.BLOCKS,
    r"expert\w*_count": limits.EXPERTS,
    r"head_count\w*|\w*(group|bucket)s?_count": limits.HEADS,
    r"vocab_size": limits.VOCABULARY,
    r"\w*context_length": limits.POSITIONS,
    r"\w*_(length|size|rank|kernel)|dimension_count|l_cache": limits.WIDTH,
}


class HeaderReader:
    """A header read from its beginning, never beyond its end.

    Attributes
    ----------
    origin : Origin
    place : int
        Offset of the next byte.
    """

    def __init__(self, file: Reader, origin: Origin) -> None:
        self.origin, self.place = origin, 0
        self._file, self._end = file, min(origin.size, limits.GGUF_HEADER_BYTES)
        # The last bytes that were read, their offset in the file, and the number of skipped texts.
        self._chunk, self._begin, self._texts = b"", 0, 0

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Read numbers in a layout of :mod:`struct`, little-endian."""
        layout = f"<{layout}"
        return struct.unpack(layout, self._read(struct.calcsize(layout)))

    def name(self) -> str:
        """Read a length and a text of that length."""
        (length,) = self.numbers("Q")
        if length > limits.NAME_LENGTH:
            raise ValueError(f"a name of {length:,} bytes at {self.place:,}")
        return self._read(length).decode("utf-8")

    def value(self, key: str, kind: int) -> object:
        """Read a value, and skip long texts and lists.

        Returns
        -------
        object
            A number, boolean, text or list of numbers; for the vocabulary the number of tokens;
            None for a value that is skipped.
        """
        if kind in _SCALARS:
            return self._scalars(kind, 1)[0]
        if kind == _STRING:
            (length,) = self.numbers("Q")
            if length > limits.NAME_LENGTH:
                self._read(length)
                return None
            # Other texts are only displayed, so invalid bytes in them do no harm.
            errors = "strict" if key == ARCHITECTURE else "replace"
            return self._read(length).decode("utf-8", errors)
        if kind != _ARRAY:
            raise ValueError(f"{key!r} is of value type {kind}")
        item, count = self.numbers("IQ")
        if item in _SCALARS:
            if count <= limits.BLOCKS:
                return self._scalars(item, count)
            self._read(count * struct.calcsize(f"<{_SCALARS[item]}"))
            return None
        if item != _STRING:
            raise ValueError(f"{key!r} is an array of value type {item}")
        self._skip_texts(count)
        return count if key == TOKENS else None

    def check_counts(self, tensors: int, pairs: int) -> None:
        """Refuse more tensors and metadata pairs than the limits or the file size allow."""
        if tensors > limits.TENSORS:
            raise ValueError(
                f"it announces {tensors:,} tensors, more than the limit of {limits.TENSORS:,}"
            )
        least = self.place + _TENSOR * tensors + _PAIR * pairs
        if pairs > limits.GGUF_PAIRS or least > self._end:
            raise ValueError(
                f"it announces {tensors:,} tensors and {pairs:,} metadata pairs but has "
                f"{self.origin.size:,} bytes"
            )

    def _scalars(self, kind: int, count: int) -> list[Any]:
        values = list(self.numbers(f"{count}{_SCALARS[kind]}"))
        if kind != _BOOL:
            return values
        if not set(values) <= {0, 1}:
            raise ValueError("a boolean that is neither 0 nor 1")
        return [bool(value) for value in values]

    def _skip_texts(self, count: int) -> None:
        self._check(8 * count)  # their lengths alone
        self._texts += count
        if self._texts > limits.GGUF_TEXTS:
            raise ValueError(f"lists of more than {limits.GGUF_TEXTS:,} texts")
        for _ in range(count):
            self._read(*self.numbers("Q"))

    def _read(self, count: int) -> bytes:
        """Return the next bytes; all are read in order, as over one connection."""
        self._check(count)
        start = self.place - self._begin
        if (lacking := start + count - len(self._chunk)) > 0:
            stop = self._begin + len(self._chunk)
            raw = read_at(self._file, stop, min(max(lacking, _CHUNK), self._end - stop))
            self._chunk, self._begin = self._chunk[start:] + raw.tobytes(), self.place
            start = 0
        self.place += count
        return self._chunk[start : start + count]

    def _check(self, count: int) -> None:
        if self.place + count <= self._end:
            return
        if self._end < self.origin.size:
            raise ValueError(f"its header is longer than the limit of {self._end:,} bytes")
        raise ValueError(
            f"it announces {count:,} bytes at {self.place:,} but has {self.origin.size:,}"
        )


def read_metadata(reader: HeaderReader, count: int) -> dict[str, Any]:
    """Return the metadata of a model, with its sizes within limits.

    Raises
    ------
    ValueError
        A key is there twice, or a value is impossible.
    """
    metadata: dict[str, Any] = {}
    for _ in range(count):
        key = reader.name()
        if key in metadata:
            raise ValueError(f"the key {key!r} is there twice")
        (kind,) = reader.numbers("I")
        metadata[key] = reader.value(key, kind)
    architecture = metadata.get(ARCHITECTURE, "")
    if not isinstance(architecture, str):
        raise ValueError(f"{ARCHITECTURE} is not text")
    for key, value in metadata.items():
        if key.startswith(f"{architecture}."):
            _check_size(key, value)
    keys = (f"{architecture}.expert_used_count", f"{architecture}.expert_count")
    if all(metadata.get(key) is not None for key in keys):
        used, total = (check_integer(metadata[key], key) for key in keys)
        if not (used == total == 0 or 0 < used <= total):
            raise ValueError(f"{used:,} of {total:,} experts are used, which cannot be")
    return metadata


def _check_size(key: str, value: object) -> None:
    name = key.rpartition(".")[2]
    for pattern, most in _SIZES.items():
        if re.fullmatch(pattern, name):
            # Some sizes are lists with one item per block.
            for each in value if isinstance(value, list) else [value]:
                check_integer(each, key, high=most)
