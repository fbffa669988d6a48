"""A folder that caches results of earlier runs, each in a file that is checked when it is read.

An entry is one file: ``_MAGIC``, its key (32 bytes), the SHA-256 of both and the payload (32
bytes), and the payload. The cache rejects entries that are damaged, cut short or copied from
another key. The digest detects damage and is not a signature: anyone who can write into the folder
can compute it. The reader therefore rejects a payload with impossible values, too. Entries are
written atomically, so that the last of two processes wins.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import check_folder, write_file
from sparsity_report.untrusted import limits
from sparsity_report.words.sentences import say

_Result = TypeVar("_Result")

_DAMAGED, _OUTDATED = "note.cache_damaged", "note.cache_outdated"
_UNWRITABLE = "note.cache_unwritable"
_MAGIC = b"sparsity-report kept 3\n"
_DIGEST = hashlib.sha256().digest_size
# Opening must not wait for a pipe, nor follow a link.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
# Names of the kinds of entries.
_KINDS = {
    "counts": "note.cached_counts",
    "pairs": "note.cached_comparisons",
}
# Names that a note lists.
_NAMED = 3


@dataclass(frozen=True)
class Cache:
    """A folder that caches counts, for ``cache=``.

    Parameters
    ----------
    folder : path-like
        Created when it is missing.
    verify : bool
        Count every tensor again and compare the result with the cache. ``study.notes`` lists the
        entries that were wrong, and the cache keeps the new counts.

    Examples
    --------
    >>> import tempfile
    >>> import sparsity_report as sr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pruning = sr.global_magnitude(sr.load(), 0.3, cache=sr.Cache(folder, verify=True))
    """

    folder: str | os.PathLike[str]
    verify: bool = False


#: Accepted by ``cache=``: a folder, or a folder and its options.
CacheFolder = str | os.PathLike[str] | Cache


class Entries:
    """The entries of one kind in a cache.

    Parameters
    ----------
    cache : path-like or Cache, optional
        None: no entry is found, and none is written.
    kind : str
        ``"counts"`` or ``"pairs"``: the suffix of their files.

    Raises
    ------
    SparsityReportError
        The folder cannot be created.
    """

    def __init__(self, cache: CacheFolder | None, kind: str) -> None:
        self.in_use = cache is not None
        cache = cache if isinstance(cache, Cache) else Cache(cache or "")
        self._verify = cache.verify
        self._folder, self._kind, self._trouble = Path(cache.folder), kind, ""
        self._rejected: dict[str, list[str]] = {_DAMAGED: [], _OUTDATED: []}
        try:
            if self.in_use:
                check_folder(self._folder)
        except SparsityReportError as error:
            if not self._folder.is_dir():
                raise
            self._trouble = str(error)

    def get(self, key: str | None, name: str, decode: Callable[[bytes], _Result]) -> _Result | None:
        """Return the result under a key; None if there is no valid one, or when verifying.

        Parameters
        ----------
        key : str or None
            64 hexadecimal digits; None has no entry.
        name : str
            The tensor, for notes.
        decode : callable
            Returns the result in a payload, or raises a ValueError if the payload is impossible.
        """
        return None if key is None or self._verify else self._get(key, name, decode)

    def _get(self, key: str, name: str, decode: Callable[[bytes], _Result]) -> _Result | None:
        try:
            payload = self._payload(key)
            return None if payload is None else decode(payload)
        except ValueError:
            self._rejected[_DAMAGED].append(name)
            return None

    def put(self, key: str | None, name: str, payload: bytes) -> None:
        """Write a payload under a key; after a failure, such as a full disk, write nothing more.

        When verifying, note an entry that differs from the payload.
        """
        if key is None:
            return
        if self._verify and self._get(key, name, bytes) not in {None, payload}:
            self._rejected[_OUTDATED].append(name)
        if self._trouble:
            return
        head = _MAGIC + bytes.fromhex(key)
        digest = hashlib.sha256(head + payload).digest()
        try:
            write_file(self._path(key), head + digest + payload)
        except SparsityReportError as error:
            self._trouble = str(error)

    def notes(self) -> Iterator[str]:
        """Yield notes about rejected entries, and about a folder that cannot be written."""
        kind = say(_KINDS[self._kind])
        for key, names in self._rejected.items():
            if names:
                yield say(key, kind=kind, count=len(names), names=names[:_NAMED])
        if self._trouble:
            yield say(_UNWRITABLE, kind=kind, reason=self._trouble)

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
