"""A folder of results that are kept: what an entry is, and when it is not believed.

An entry is one file: ``_MAGIC``, the key that it answers (32 bytes), the SHA-256 of both and the
payload (32 bytes), the payload. What is damaged, cut short or was copied from another key fails
that, and is not believed; nor is a payload that makes no sense, since whoever writes into the
folder can compute a SHA-256, too: it tells damage, and is no signature. Entries are written whole
or not at all, so of two processes the last one's stands.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_entry
from sparsity_report.files.folders import check_folder
from sparsity_report.untrusted import limits

_Result = TypeVar("_Result")

# How notes begin that speak of what is kept.
CACHE_NOTES = ("kept ", "counts could not be kept", "scores could not be kept")
_MAGIC = b"sparsity-report kept 3\n"
_DIGEST = hashlib.sha256().digest_size
# Neither a pipe that nobody writes to nor what a link leads to is waited for or read.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
# Names that a note tells.
_NAMED = 3


@dataclass(frozen=True)
class Cache:
    """A folder where counts and scores are kept and looked up, for ``cache=``.

    Attributes
    ----------
    folder : path-like
    verify : bool
        Count all tensors as if nothing were kept, and compare: of what a key of samples cannot
        see, and of what was forged, ``study.notes`` tell, and the right counts are kept. Scores
        have a key over every byte of the model and need no more.

    Examples
    --------
    >>> import tempfile
    >>> import sparsity_report as sr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pruning = sr.global_magnitude(sr.load(), 0.3, cache=sr.Cache(folder, verify=True))
    """

    folder: str | os.PathLike[str]
    verify: bool = False


#: What ``cache=`` takes: a folder, or one with how it is to be used.
CacheFolder = str | os.PathLike[str] | Cache


class Entries:
    """The entries of one kind in a folder.

    Parameters
    ----------
    cache : path-like or Cache
    kind : str
        ``"counts"`` or ``"scores"``; their files end so.

    Attributes
    ----------
    verify : bool
        As the cache says.

    Raises
    ------
    SparsityReportError
        There can be no such folder.
    """

    def __init__(self, cache: CacheFolder, kind: str) -> None:
        told = cache if isinstance(cache, Cache) else Cache(cache)
        self.verify = told.verify
        self._folder, self._kind, self._trouble = Path(told.folder), kind, ""
        self._damaged: list[str] = []
        self._outdated: list[str] = []
        try:
            check_folder(self._folder)
        except SparsityReportError as error:
            if not self._folder.is_dir():
                raise
            self._trouble = str(error)

    def get(self, key: str, name: str, decoded: Callable[[bytes], _Result]) -> _Result | None:
        """Return what is kept under a key; None where nothing is, or nothing to be believed.

        Parameters
        ----------
        key : str
            64 hexadecimal digits.
        name : str
            Of what it is about, for a note.
        decoded : callable
            Makes the result of the payload; raises a ValueError where that makes no sense.
        """
        try:
            payload = self._payload(key)
            return None if payload is None else decoded(payload)
        except ValueError:
            self._damaged.append(name)
            return None

    def compare(self, key: str, name: str, payload: bytes) -> None:
        """Note where something else is kept under a key than what is right."""
        if self.get(key, name, bytes) not in {None, payload}:
            self._outdated.append(name)

    def put(self, key: str, payload: bytes) -> None:
        """Keep a payload under a key; a full disk ends the keeping, not the work."""
        if self._trouble:
            return
        head = _MAGIC + bytes.fromhex(key)
        digest = hashlib.sha256(head + payload).digest()
        try:
            write_entry(self._path(key), head + digest + payload)
        except SparsityReportError as error:
            self._trouble = str(error)

    def notes(self) -> Iterator[str]:
        """Say once what was not believed, and why nothing more is kept."""
        for names, wrong in (
            (self._damaged, "damaged"),
            (self._outdated, "not those of the files"),
        ):
            if names:
                yield f"kept {self._kind} were {wrong}, so these were taken anew: {_named(names)}"
        if self._trouble:
            yield f"{self._kind} could not be kept: {self._trouble}"

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.{self._kind}"

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


def _named(names: list[str]) -> str:
    more = ", …" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} ({len(names):,})"
