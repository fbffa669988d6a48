"""Locks: one run at a time switches the files of a folder, and whether a run still lives."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# Seconds after which what a run has left is litter where no lock tells whether it lives.
_LONG = 86_400


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one run at a time switch the files of a folder, where its file system has locks."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        close(handle)


def hold(handle: int) -> None:
    """Show as long as a file is open that somebody is at work with it."""
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_dead(handle: int) -> bool:
    """Whether nobody holds an open file any more."""
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:
            pass
    return time.time() - os.fstat(handle).st_mtime > _LONG


def close(handle: int) -> None:
    """Close what holds nothing that could still be lost."""
    with suppress(OSError):
        os.close(handle)
