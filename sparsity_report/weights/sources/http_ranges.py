"""Files of the Hub read where they lie: by range, over as many connections as it takes.

Nothing of them is written to disk. A file is pinned when it is looked at first: each connection
must show the same commit, etag and length, and then exactly the bytes that were asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.tensor_slices import Origin, Reader, read_at

T = TypeVar("T")

# Seconds before each further attempt, four minutes in all, and without a byte before it is one.
_WAITS = tuple(2.0**n for n in range(8))
_TIMEOUT = 30.0
_LONGEST_WAIT = 300.0
_TOO_BUSY = {408, 425, 429, 500, 502, 503, 504}
# Stretches up to so many bytes are read with what stands around them in blocks of so many, and
# kept for a while: small tensors are neighbours, and parts of packed ones are read again and again.
_SMALL, _BLOCK = 2**19, 2**16


@dataclass(frozen=True)
class HubFile(Origin):
    """A file of a repository at a commit, as it was when it was looked at.

    Attributes
    ----------
    endpoint : str
        Where the Hub is.
    model, commit, path : str
    etag : str
        Digest of the content.
    length : int
        Bytes.
    """

    endpoint: str
    model: str
    commit: str
    path: str
    etag: str
    length: int

    @classmethod
    def of(cls, model: str, commit: str, path: str) -> HubFile:
        """Look at a file.

        Raises
        ------
        SparsityReportError
            It is not there, is gated, cannot be reached, or the server does not tell what it is.
        """
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

        url, name = hf_hub_url(model, path, revision=commit), f"{model}/{path}"
        facts = _patiently(partial(get_hf_file_metadata, url, timeout=_TIMEOUT), name, model)
        if facts.commit_hash != commit or not facts.etag or facts.size is None:
            raise SparsityReportError(
                f"{name}: the server does not tell commit, etag and length of it, so it cannot be "
                "known whether it changes; fetch it and open the copy"
            )
        return cls(constants.ENDPOINT, model, commit, path, facts.etag, facts.size)

    def __str__(self) -> str:
        return f"{self.model}/{self.path}"

    @property
    def name(self) -> str:
        """Name without the folder."""
        return self.path.rpartition("/")[2]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.length

    def opened(self, start: int, stop: int) -> AbstractContextManager[Reader]:
        """Open it to read bytes from `start` to `stop`; it is connected when they are asked for."""
        if stop - start > _SMALL:
            return closing(_Reader(self, stop))
        first, last = start // _BLOCK * _BLOCK, min(-(-stop // _BLOCK) * _BLOCK, self.size)
        return closing(_Reader(self, last, first, _block(self, first, last)))


class _Reader:
    """A remote file, one connection as long as reads follow each other."""

    def __init__(self, file: HubFile, stop: int, begin: int = 0, chunk: bytes = b"") -> None:
        self._file, self._stop = file, stop
        # What was received last, where in the file it begins, and where the next read does.
        self._chunk, self._begin, self._at = chunk, begin, begin
        # What is still to come, and where it ends; nothing where that is no further.
        self._chunks: Iterator[bytes] = iter(())
        self._end = 0
        self._connection = ExitStack()

    def seek(self, offset: int, /) -> None:
        """Go to a byte."""
        self._at = offset

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a buffer."""
        done = 0
        while done < len(buffer):
            inside = self._at - self._begin
            if not 0 <= inside < len(self._chunk):
                receive = partial(self._receive, len(buffer) - done)
                chunk = _patiently(receive, str(self._file), self._file.model)
                self._chunk, self._begin, inside = chunk, self._at, 0
            part = self._chunk[inside : inside + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)
            self._at += len(part)
        return done

    def close(self) -> None:
        """Leave the connection."""
        self._end = 0
        self._connection.close()

    def _receive(self, wanted: int) -> bytes:
        """Return the next bytes, some of those that are wanted or more."""
        follows = self._at == self._begin + len(self._chunk)
        try:
            if not follows or self._at >= self._end:
                self._connect(max(self._stop, self._at + wanted))
            if chunk := next(self._chunks, b""):
                return chunk[: self._end - self._at]
            raise EOFError("the connection ended early")
        except BaseException:
            self.close()
            raise

    def _connect(self, end: int) -> None:
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        self.close()
        file = self._file
        url = hf_hub_url(file.model, file.path, revision=file.commit, endpoint=file.endpoint)
        # What is asked for are bytes of the file, not of what a server makes of it on the way.
        asked = {"Range": f"bytes={self._at}-{end - 1}", "Accept-Encoding": "identity"}
        response = self._connection.enter_context(
            get_session().stream(
                "GET",
                url,
                headers=build_hf_headers() | asked,
                timeout=_TIMEOUT,
                follow_redirects=True,
            )
        )
        _check(response, file, self._at, end)
        self._chunks, self._end = response.iter_raw(), end


@lru_cache(maxsize=32)
def _block(file: HubFile, start: int, stop: int) -> bytes:
    with closing(_Reader(file, stop)) as reader:
        return read_at(reader, start, stop - start).tobytes()


def _check(response: Any, file: HubFile, start: int, stop: int) -> None:
    """Refuse an answer that is not these bytes of this file."""
    from huggingface_hub import constants, hf_raise_for_status

    changed = SparsityReportError(
        f"{file} is no longer the file that was opened at commit {file.commit[:12]}; load it again "
        "and count anew"
    )
    if response.status_code == 416:
        raise changed
    hf_raise_for_status(response)
    # The Hub tells which file it is, where it sends us for the bytes they have no name.
    trail = [answer.headers for answer in (response, *reversed(response.history))]
    commit = constants.HUGGINGFACE_HEADER_X_REPO_COMMIT
    told: Any = next((headers for headers in trail if commit in headers), {})
    etag = told.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG) or told.get("ETag", "")
    if (told.get(commit), etag.removeprefix("W/").strip('"')) != (file.commit, file.etag):
        raise changed
    if response.status_code != 206:
        raise SparsityReportError(
            f"{file}: the server sends whole files only (it ignores Range), so it cannot be read "
            "where it lies; fetch it and open the copy"
        )
    place = response.headers.get("Content-Range", "")
    told_place = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", place)
    numbers = [int(number) for number in told_place.groups()] if told_place else []
    if numbers[2:] not in ([], [file.size]):
        raise changed
    encoding = response.headers.get("Content-Encoding", "identity")
    if numbers != [start, stop - 1, file.size] or encoding != "identity":
        raise SparsityReportError(
            f"{file}: the server sent {place or 'nothing known'!r} ({encoding}) for bytes {start} "
            f"to {stop - 1}; fetch it and open the copy"
        )


def _patiently(attempt: Callable[[], T], name: str, model: str) -> T:
    """Do what may fail for a while, waiting longer before each further attempt."""
    waits = iter(_WAITS)
    while True:
        try:
            return attempt()
        except SparsityReportError:
            raise
        except Exception as error:  # clients raise as many different ones
            wait = next(waits, None)
            response = getattr(error, "response", None)
            if (final := refusal(error, model)) or (final := _final(error, response, name)):
                raise final from error
            if wait is None:
                why = type(error).__name__ if response is None else f"HTTP {response.status_code}"
                raise SparsityReportError(
                    f"{name}: the connection to the Hub is lost ({why}), after {len(_WAITS)} "
                    "further attempts, too; start again (with cache= only what is missing is read)"
                ) from error
            time.sleep(max(wait, _asked_wait(response)))


def _asked_wait(response: Any) -> float:
    """Return for how many seconds a server asks not to be asked."""
    if response is None:
        return 0.0
    asked = response.headers.get("Retry-After", "")
    if response.status_code == 429 and not asked:
        # `"resolvers";r=0;t=171`: how many requests remain, and when there are more again.
        asked = response.headers.get("RateLimit", "").rpartition(";t=")[2]
    return min(float(asked), _LONGEST_WAIT) if re.fullmatch(r"[0-9]{1,9}", asked) else 0.0


def refusal(
    error: Exception, model: str, revision: str | None = None
) -> SparsityReportError | None:
    """Return what the Hub's refusal to give a model means; None where it is no refusal."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return SparsityReportError(
            f"{model} is gated: accept its terms on its Hub page and run `hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
        what = model if revision is None else f"{model} at revision {revision}"
        return SparsityReportError(
            f"{what} is neither a local path nor a model on the Hub; "
            "if it is private, run `hf auth login`"
        )
    return None


def _final(error: Exception, response: Any, name: str) -> SparsityReportError | None:
    """Return what an error means that further attempts do not mend."""
    from huggingface_hub import errors

    if isinstance(error, errors.EntryNotFoundError):
        return SparsityReportError(f"{name} is not on the Hub; ask its owner for it")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return SparsityReportError(
            f"{name} cannot be read offline; unset HF_HUB_OFFLINE, or open a copy on this disk"
        )
    if response is not None and response.status_code not in _TOO_BUSY:
        return SparsityReportError(f"{name} cannot be read: HTTP {response.status_code}")
    return None
