"""A folder that caches counts of earlier runs, each in a file that is checked when it is read.

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
from pathlib import Path
from typing import TypeVar

from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import check_folder, write_file
from sparsity_report.untrusted import limits
from sparsity_report.words.sentences import say

_Result = TypeVar("_Result")

_DAMAGED, _UNWRITABLE = "note.cache_damaged", "note.cache_unwritable"
_MAGIC = b"sparsity-report kept 3\n"
_DIGEST = hashlib.sha256().digest_size
# Opening must not wait for a pipe, nor follow a link.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
# Names that a note lists.
_NAMED = 3


#: Accepted by ``cache=``: the path of a folder.
CacheFolder = str | os.PathLike[str]


class Entries:
    """The counts in a cache.

    Parameters
    ----------
    cache : path-like, optional
        None: no entry is found, and none is written.

    Raises
    ------
    SparsityReportError
        The folder cannot be created.
    """

    def __init__(self, cache: CacheFolder | None) -> None:
        self.in_use = cache is not None
        self._folder, self._trouble = Path(cache or ""), ""
        self._damaged: list[str] = []
        try:
            if self.in_use:
                check_folder(self._folder)
        except SparsityReportError as error:
            if not self._folder.is_dir():
                raise
            self._trouble = str(error)

    def get(self, key: str | None, name: str, decode: Callable[[bytes], _Result]) -> _Result | None:
        """Return the result under a key; None if there is no valid one.

        Parameters
        ----------
        key : str or None
            64 hexadecimal digits; None has no entry.
        name : str
            The tensor, for notes.
        decode : callable
            Returns the result in a payload, or raises a ValueError if the payload is impossible.
        """
        try:
            payload = None if key is None else self._payload(key)
            return None if payload is None else decode(payload)
        except ValueError:
            self._damaged.append(name)
            return None

    def put(self, key: str | None, payload: bytes) -> None:
        """Write a payload under a key; after a failure, such as a full disk, write nothing more."""
        if key is None or self._trouble:
            return
        head = _MAGIC + bytes.fromhex(key)
        digest = hashlib.sha256(head + payload).digest()
        try:
            write_file(self._path(key), head + digest + payload)
        except SparsityReportError as error:
            self._trouble = str(error)

    def notes(self) -> Iterator[str]:
        """Yield notes about damaged entries, and about a folder that cannot be written."""
        if names := self._damaged:
            yield say(_DAMAGED, count=len(names), names=names[:_NAMED])
        if self._trouble:
            yield say(_UNWRITABLE, reason=self._trouble)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.counts"

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
