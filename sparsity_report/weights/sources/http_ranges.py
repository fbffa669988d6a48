"""Files on the Hub read by HTTP range requests, without a copy on disk.

A file is pinned on the first look-up: every later response must show the same commit, etag and
length, and hold exactly the requested bytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, TypeVar

import numpy as np

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.tensor_slices import Bytes, Origin

T = TypeVar("T")

# Seconds before each retry, four minutes in all; seconds without data until a request fails.
_WAITS = tuple(2.0**n for n in range(8))
_TIMEOUT = 30.0
_LONGEST_WAIT = 300.0
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
# Ranges up to the first size are read in cached blocks of the second size: small tensors are
# neighbors, and parts of packed tensors are read repeatedly.
_SMALL, _BLOCK = 2**19, 2**16


@dataclass(frozen=True)
class HubFile(Origin):
    """A file of a repository at a commit, as it was on look-up.

    Attributes
    ----------
    endpoint : str
        URL of the Hub.
    model, commit, path : str
    etag : str
        Digest of the content.
    size : int
        Size in bytes.
    """

    endpoint: str
    model: str
    commit: str
    path: str
    etag: str
    size: int
    is_remote: ClassVar[bool] = True

    @classmethod
    def look_up(cls, model: str, commit: str, path: str) -> HubFile:
        """Return a file with its etag and length.

        Raises
        ------
        SparsityReportError
            The file is missing, gated or unreachable, or the server omits its etag or length.
        """
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

        url, name = hf_hub_url(model, path, revision=commit), f"{model}/{path}"
        metadata = _retry(partial(get_hf_file_metadata, url, timeout=_TIMEOUT), name, model)
        if metadata.commit_hash != commit or not metadata.etag or metadata.size is None:
            raise SparsityReportError(
                f"{name}: the server sends no commit, etag or length, so a change would go "
                "unnoticed; download it and open the copy"
            )
        return cls(constants.ENDPOINT, model, commit, path, metadata.etag, metadata.size)

    def __str__(self) -> str:
        return f"{self.model}/{self.path}"

    def read(self, start: int, size: int) -> Bytes:
        """Return `size` bytes from an offset."""
        stop = start + size
        if size > _SMALL:
            return np.frombuffer(_fetch(self, start, stop), np.uint8)
        first, last = start // _BLOCK * _BLOCK, min(-(-stop // _BLOCK) * _BLOCK, self.size)
        return np.frombuffer(_block(self, first, last)[start - first : stop - first], np.uint8)


@lru_cache(maxsize=32)
def _block(file: HubFile, start: int, stop: int) -> bytearray:
    return _fetch(file, start, stop)


def _fetch(file: HubFile, start: int, stop: int) -> bytearray:
    """Return a range of bytes, continued after each loss of the connection."""
    received = bytearray()
    if start < stop:
        _retry(partial(_receive, file, start, stop, received), str(file), file.model)
    return received


def _receive(file: HubFile, start: int, stop: int, received: bytearray) -> None:
    """Append the bytes of a range that are not held yet."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    begin = start + len(received)
    url = hf_hub_url(file.model, file.path, revision=file.commit, endpoint=file.endpoint)
    # Without this encoding a server may compress the file, and ranges count compressed bytes.
    headers = {"Range": f"bytes={begin}-{stop - 1}", "Accept-Encoding": "identity"}
    request = partial(get_session().stream, "GET", url, timeout=_TIMEOUT, follow_redirects=True)
    with request(headers=build_hf_headers() | headers) as response:
        _check(response, file, begin, stop)
        for chunk in response.iter_raw():
            wanted = stop - start - len(received)
            received += chunk[:wanted]
            if len(chunk) > wanted:  # more than was asked for, perhaps without end
                return
    if len(received) < stop - start:
        raise EOFError("the connection ended early")


def _check(response: Any, file: HubFile, start: int, stop: int) -> None:
    """Refuse a response that is not the requested range of the pinned file."""
    from huggingface_hub import constants, hf_raise_for_status

    changed = SparsityReportError(
        f"{file} is no longer the file that was opened at commit {file.commit[:12]}; load it and "
        "count again"
    )
    if response.status_code == 416:
        raise changed
    hf_raise_for_status(response)
    # The Hub names commit and etag; the server that it redirects to does not.
    trail = [each.headers for each in (response, *reversed(response.history))]
    commit = constants.HUGGINGFACE_HEADER_X_REPO_COMMIT
    pinned: Any = next((headers for headers in trail if commit in headers), {})
    etag = pinned.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG) or pinned.get("ETag", "")
    if (pinned.get(commit), etag.removeprefix("W/").strip('"')) != (file.commit, file.etag):
        raise changed
    if response.status_code != 206:
        raise SparsityReportError(
            f"{file}: the server ignores Range and sends whole files, so it cannot be streamed; "
            "download it and open the copy"
        )
    place = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", place)
    numbers = [int(number) for number in match.groups()] if match else []
    if numbers[2:] not in ([], [file.size]):
        raise changed
    encoding = response.headers.get("Content-Encoding", "identity")
    if numbers != [start, stop - 1, file.size] or encoding != "identity":
        raise SparsityReportError(
            f"{file}: the server sent {place or 'nothing'!r} ({encoding}) for bytes {start} "
            f"to {stop - 1}; download it and open the copy"
        )


def _retry(attempt: Callable[[], T], name: str, model: str) -> T:
    """Return the result of an attempt, retrying after temporary errors with growing waits."""
    waits = iter(_WAITS)
    while True:
        try:
            return attempt()
        except SparsityReportError:
            raise
        except Exception as error:  # HTTP clients raise many exceptions
            wait = next(waits, None)
            response = getattr(error, "response", None)
            if final := refusal(error, model, None) or _final(error, response, name):
                raise final from error
            if wait is None:
                status = getattr(response, "status_code", None)
                reason = f"HTTP {status}" if status else type(error).__name__
                raise SparsityReportError(
                    f"{name}: the connection to the Hub is lost ({reason}), also after "
                    f"{len(_WAITS)} retries; start again (with cache=, only missing tensors are "
                    "read)"
                ) from error
            time.sleep(max(wait, _requested_wait(response)))


def _requested_wait(response: Any) -> float:
    """Return the seconds that a server asks clients to wait."""
    if response is None:
        return 0.0
    seconds = response.headers.get("Retry-After", "")
    if response.status_code == 429 and not seconds:
        # `"resolvers";r=0;t=171`: requests left, and seconds until there are more.
        seconds = response.headers.get("RateLimit", "").rpartition(";t=")[2]
    return min(float(seconds), _LONGEST_WAIT) if re.fullmatch(r"[0-9]{1,9}", seconds) else 0.0


def refusal(error: Exception, model: str, revision: str | None) -> SparsityReportError | None:
    """Return the error for a gated or missing model; None for any other exception."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        how = "accept its terms on its Hub page and run `hf auth login`"
        return SparsityReportError(f"{model} is gated: {how}")
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
        name = model if revision is None else f"{model} at revision {revision}"
        return SparsityReportError(
            f"{name} is neither a local path nor a model on the Hub; "
            "if it is private, run `hf auth login`"
        )
    return None


def _final(error: Exception, response: Any, name: str) -> SparsityReportError | None:
    """Return the error for an exception that a retry does not resolve; else None."""
    from huggingface_hub import errors

    if isinstance(error, errors.EntryNotFoundError):
        return SparsityReportError(f"{name} is not on the Hub; ask its owner for it")
    if isinstance(error, errors.OfflineModeIsEnabled):
        how = "unset HF_HUB_OFFLINE, or open a copy on this disk"
        return SparsityReportError(f"{name} cannot be read offline; {how}")
    if response is not None and response.status_code not in _RETRIED:
        return SparsityReportError(f"{name} cannot be read: HTTP {response.status_code}")
    return None
