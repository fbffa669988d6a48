"""A GGUF model in several files, as llama.cpp splits it: ``name-00001-of-00003.gguf`` and on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.gguf.gguf_header import Header, read_header
from sparsity_report.weights.tensor_slices import Entry, FileSlice

_PIECE = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def piece_names(name: str) -> list[str]:
    """Return the names of all files of the model that a file belongs to, the first one first.

    Examples
    --------
    >>> piece_names("x-00002-of-00002.gguf"), piece_names("x.gguf")
    (['x-00001-of-00002.gguf', 'x-00002-of-00002.gguf'], ['x.gguf'])
    """
    match = _PIECE.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return [name]
    total = int(match["count"])
    return [f"{match['stem']}-{number:05}-of-{total:05}.gguf" for number in range(1, total + 1)]


def model_names(names: Iterable[str]) -> list[str]:
    """Return the first file of each GGUF model among files, whether it is there or not.

    Examples
    --------
    >>> model_names(["b.gguf", "a-00002-of-00002.gguf", "a-00001-of-00002.gguf", "a.txt"])
    ['a-00001-of-00002.gguf', 'b.gguf']
    """
    return sorted({piece_names(name)[0] for name in names if name.endswith(".gguf")})


def whole_name(name: str) -> str:
    """Return what the file of a model would be called if it were not split.

    Examples
    --------
    >>> whole_name("x-00002-of-00003.gguf")
    'x.gguf'
    """
    return name if len(piece_names(name)) == 1 else _PIECE.sub(r"\g<stem>.gguf", name)


def read_model(
    path: Path, headers: Mapping[Path, Header] | None = None
) -> tuple[Path, dict[str, Any], dict[str, Entry]]:
    """Return the first file of a model, what that says of it, and the tensors of all its files.

    Parameters
    ----------
    path : pathlib.Path
        Of any piece.
    headers : mapping, optional
        Of all pieces, the first one first, where they were read already.

    Raises
    ------
    SparsityReportError
        A piece is missing, or pieces disagree on the model that they are of.
    """
    headers = _read_headers(path) if headers is None else headers
    first, *_ = files = [*headers]
    facts, _ = headers[first]
    entries: dict[str, Entry] = {}
    for number, (file, (claims, tensors)) in enumerate(headers.items()):
        _check_claims(file, claims, number, len(files))
        for key in ("split.tensors.count", "general.architecture"):
            if claims.get(key, facts.get(key)) != facts.get(key):
                raise SparsityReportError(
                    f"{file} says {key} {claims[key]}, {first.name} says {facts.get(key)}: they "
                    "are pieces of two models; fetch all pieces of one again"
                )
        if twice := sorted(entries.keys() & tensors):
            raise SparsityReportError(
                f"{file}: tensor {twice[0]!r} is in {_file(entries[twice[0]])} too, so they are "
                "pieces of two models; fetch all pieces of one again"
            )
        entries |= tensors
    if len(files) > 1 and len(entries) != facts.get("split.tensors.count"):
        raise SparsityReportError(
            f"{first} and its other pieces hold {len(entries)} tensors, but say "
            f"{facts.get('split.tensors.count')}; fetch all pieces again"
        )
    return first, facts, entries


def _read_headers(path: Path) -> dict[Path, Header]:
    files = [path.with_name(name) for name in piece_names(path.name)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise SparsityReportError(
            f"{path.with_name(whole_name(path.name))} is in {len(files)} pieces, and "
            f"{len(missing)} of them are missing, first {missing[0]}; fetch all into one folder"
        )
    return {file: read_header(file) for file in files}


def _check_claims(file: Path, claims: Mapping[str, Any], number: int, count: int) -> None:
    """Refuse a file whose header and name do not say the same piece."""
    told = claims.get("split.no", 0), claims.get("split.count", 1)
    if told == (number, count):
        return
    if count == 1:
        raise SparsityReportError(
            f"{file} is one of {told[1]} pieces of a model; give each the name that llama.cpp "
            "gives it, such as name-00001-of-00003.gguf, and put all into one folder"
        )
    raise SparsityReportError(
        f"{file} says split.no {told[0]} and split.count {told[1]}, but its name stands for "
        f"{number} and {count}; fetch it again, or give it its right name"
    )


def _file(entry: Entry) -> str:
    return entry.values.file.name if isinstance(entry.values, FileSlice) else ""
