"""Single files and folders: written through to the disk, read as digests, said in one line."""

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsity_report.errors import SparsityReportError
from sparsity_report.files.locks import close, hold


@contextmanager
def telling(target: Path) -> Iterator[None]:
    """Say in one line what cannot be written and why."""
    try:
        yield
    except SparsityReportError:
        raise
    except OSError as error:
        raise SparsityReportError(
            f"cannot write {target}: {error.strerror or error}; "
            "choose a folder you can write to, with space left"
        ) from error
    except ValueError as error:  # a path with a null byte, text that UTF-8 does not have
        raise SparsityReportError(f"cannot write {target}: {error}") from error


def create(path: Path, data: bytes, mode: int | None = None, then: Path | None = None) -> None:
    """Write a new file through to the disk; rename it while it is locked, if it is to be."""
    binary = getattr(os, "O_BINARY", 0)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o666)
    try:
        hold(handle)
        fill(handle, data)
        if mode is not None:
            path.chmod(stat.S_IMODE(mode))
        os.fsync(handle)
        if then is not None and sys.platform != "win32":
            path.replace(then)
    finally:
        os.close(handle)
    if then is not None and sys.platform == "win32":  # where an open file keeps its name
        path.replace(then)


def fill(handle: int, data: bytes) -> None:
    """Write all of some bytes."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def sync_folder(folder: Path) -> None:
    """Write the names in a folder through to the disk."""
    if sys.platform == "win32":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it can be written to, and not be read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # file systems that do without
            raise
    finally:
        close(handle)


def mode_of(path: Path) -> int | None:
    """Return what stands at a path, and who may do what with it; None of nothing."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def mode_of_file(path: Path) -> int | None:
    """Return the mode of a file; refuse what is none."""
    mode = mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise SparsityReportError(
            f"cannot write {path}: it exists and is not a regular file; choose another path"
        )
    return mode


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a regular file, nothing of what else stands there, None of nothing."""
    mode = mode_of(path)
    if mode is None:
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else ""
