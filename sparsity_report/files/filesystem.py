"""Calls of the system on one file or folder: writes synced to the disk, and digests."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from sparsity_report.errors import SparsityReportError, explained


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file or folder; ignore errors of closing, as its content is safe already."""
    handle = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
    try:
        yield handle
    finally:
        with suppress(OSError):
            os.close(handle)


def create(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a new file through to the disk."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as handle:
        write_all(handle, memoryview(data))
        os.fsync(handle)
        if mode is not None:
            path.chmod(stat.S_IMODE(mode))


def write_all(handle: int, data: memoryview) -> None:
    """Write bytes to an open file."""
    while data:
        data = data[os.write(handle, data) :]


def sync_folder(folder: Path) -> None:
    """Write the names in a folder through to the disk, where the system can."""
    with suppress(OSError), opened(folder) as handle:
        os.fsync(handle)


def regular_file_mode(path: Path) -> int | None:
    """Return the mode of a regular file, None if nothing is there; refuse anything else."""
    mode = path.lstat().st_mode if os.path.lexists(path) else None
    if mode is not None and not stat.S_ISREG(mode):
        raise SparsityReportError(
            f"cannot write {path}: it exists and is not a regular file; choose another path"
        )
    return mode


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a regular file, None of a missing one, "" of anything else."""
    if not os.path.lexists(path):
        return None
    is_regular = stat.S_ISREG(path.lstat().st_mode)
    return hashlib.sha256(path.read_bytes()).hexdigest() if is_regular else ""


def one_line_errors(target: Path) -> AbstractContextManager[None]:
    """Turn errors of the system into one line that names the file."""

    def explain(error: Exception) -> str:
        reason = getattr(error, "strerror", None) or error
        return f"cannot write {target}: {reason}; choose a folder you can write to, with space left"

    # ValueError: a null byte, or text that is not UTF-8.
    return explained(explain, OSError, ValueError)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty temporary folder and remove it when the block ends."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="sparsity-report-", ignore_cleanup_errors=True)
    except OSError as error:
        raise SparsityReportError(
            f"no folder for temporary files: {error.strerror or error}; make space there, or set "
            "TMPDIR to a folder with space left"
        ) from error
    with folder as name:
        yield Path(name)
