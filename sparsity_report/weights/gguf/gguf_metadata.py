"""What a GGUF file says of its model, each length and size checked before it is believed.

The public readers trust them: 49 bytes that announce 2⁶⁰ entries keep one busy for ever, and a
model of 10⁹ blocks would be built.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Any, Protocol

from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer
from sparsity_report.weights.tensor_slices import Origin

#: How many words there are, as a fact: of the vocabulary nothing else is kept.
WORDS = "tokenizer.ggml.tokens"
ARCHITECTURE = "general.architecture"

# The scalar value types 0 … 12 as struct writes them; 7 is true or false, 8 a string, 9 an array.
_SCALARS = dict(zip((*range(8), 10, 11, 12), "BbHhIifBQqd", strict=True))
_BOOL, _STRING, _ARRAY = 7, 8, 9
# Bytes that a fact and a tensor take at least: lengths of names, types, a value, a place.
_FACT, _TENSOR = 13, 24

# What sizes of a model are called, and the most that they may be.
_SIZES = {
    r"block_count|nextn_predict_layers": limits.BLOCKS,
    r"expert\w*_count": limits.EXPERTS,
    r"head_count\w*|\w*(group|bucket)s?_count": limits.HEADS,
    r"vocab_size": limits.VOCABULARY,
    r"\w*context_length": limits.POSITIONS,
    r"\w*_(length|size|rank|kernel)|dimension_count|l_cache": limits.WIDTH,
}


class Opened(Protocol):
    """A file that is read from its begin."""

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer before the end."""

    def seek(self, count: int, whence: int, /) -> object:
        """Pass over bytes, with :data:`os.SEEK_CUR`."""


class HeaderReader:
    """A header read from its begin, never beyond its end.

    Attributes
    ----------
    origin : Origin
    place : int
        Of the next byte.
    """

    def __init__(self, file: Opened, origin: Origin) -> None:
        self.origin, self.place = origin, 0
        self._file, self._end = file, min(origin.size, limits.GGUF_HEADER_BYTES)
        self._listed = 0

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Read numbers as :mod:`struct` writes them, the low byte first."""
        layout = f"<{layout}"
        return struct.unpack(layout, self._read(struct.calcsize(layout)))

    def name(self) -> str:
        """Read a length and so many bytes of text."""
        (length,) = self.numbers("Q")
        if length > limits.NAME_LENGTH:
            raise ValueError(f"a name of {length:,} bytes at {self.place:,}")
        return self._read(length).decode("utf-8")

    def value(self, key: str, kind: int) -> object:
        """Read a value; of long texts and lists no more than how many words there are.

        Returns
        -------
        object
            A number, a truth, a text or a list of numbers; None: something else.
        """
        if kind in _SCALARS:
            return self._scalars(kind, 1)[0]
        if kind == _STRING:
            (length,) = self.numbers("Q")
            if length > limits.NAME_LENGTH:
                self._skip(length)
                return None
            # What is shown of a model need be no text; what chooses a reader is.
            errors = "strict" if key == ARCHITECTURE else "replace"
            return self._read(length).decode("utf-8", errors)
        if kind != _ARRAY:
            raise ValueError(f"{key!r} is of value type {kind}")
        item, count = self.numbers("IQ")
        if item in _SCALARS:
            if count <= limits.BLOCKS:
                return self._scalars(item, count)
            self._skip(count * struct.calcsize(f"<{_SCALARS[item]}"))
            return None
        if item != _STRING:
            raise ValueError(f"{key!r} is an array of value type {item}")
        self._skip_texts(count)
        return count if key == WORDS else None

    def check_counts(self, tensors: int, facts: int) -> None:
        """Refuse more tensors and facts than there can be, or than are opened."""
        if tensors > limits.TENSORS:
            raise ValueError(
                f"it announces {tensors:,} tensors, more than the {limits.TENSORS:,} that are "
                "opened together"
            )
        if facts > limits.GGUF_FACTS or self.place + _TENSOR * tensors + _FACT * facts > self._end:
            raise ValueError(
                f"{tensors:,} tensors and {facts:,} facts announced, it has "
                f"{self.origin.size:,} bytes"
            )

    def _scalars(self, kind: int, count: int) -> list[Any]:
        values = list(self.numbers(f"{count}{_SCALARS[kind]}"))
        if kind != _BOOL:
            return values
        if not set(values) <= {0, 1}:
            raise ValueError("a truth that is neither 0 nor 1")
        return [bool(value) for value in values]

    def _skip_texts(self, count: int) -> None:
        self._check(8 * count)  # that many lengths
        self._listed += count
        if self._listed > limits.GGUF_TEXTS:
            raise ValueError(f"lists of more than {limits.GGUF_TEXTS:,} texts")
        for _ in range(count):
            self._skip(*self.numbers("Q"))

    def _read(self, count: int) -> bytes:
        self._check(count)
        raw = self._file.read(count)
        if len(raw) != count:
            raise ValueError(f"it ends at {self.place + len(raw):,}")
        self.place += count
        return raw

    def _skip(self, count: int) -> None:
        self._check(count)
        self._file.seek(count, os.SEEK_CUR)
        self.place += count

    def _check(self, count: int) -> None:
        if self.place + count <= self._end:
            return
        if self._end < self.origin.size:
            raise ValueError(f"its header is longer than {self._end:,} bytes")
        raise ValueError(
            f"{count:,} bytes announced at {self.place:,}, it has {self.origin.size:,}"
        )


def read_facts(reader: HeaderReader, count: int) -> dict[str, Any]:
    """Return what a file says of its model, its sizes within limits.

    Raises
    ------
    ValueError
        It says something twice, or what cannot be.
    """
    facts: dict[str, Any] = {}
    for _ in range(count):
        key = reader.name()
        if key in facts:
            raise ValueError(f"it says {key!r} twice")
        (kind,) = reader.numbers("I")
        facts[key] = reader.value(key, kind)
    architecture = facts.get(ARCHITECTURE, "")
    if not isinstance(architecture, str):
        raise ValueError(f"{ARCHITECTURE} is no text")
    for key, value in facts.items():
        if key.startswith(f"{architecture}."):
            _check_size(key, value)
    words = (f"{architecture}.expert_used_count", f"{architecture}.expert_count")
    if all(facts.get(key) is not None for key in words):
        used, held = (check_integer(facts[key], key) for key in words)
        if not (used == held == 0 or 0 < used <= held):
            raise ValueError(f"it says that {used:,} of {held:,} experts are used")
    return facts


def _check_size(key: str, value: object) -> None:
    name = key.rpartition(".")[2]
    for pattern, most in _SIZES.items():
        if re.fullmatch(pattern, name):
            # Some sizes are told block by block.
            for each in value if isinstance(value, list) else [value]:
                check_integer(each, key, high=most)
