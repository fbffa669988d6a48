"""Faults of the system: whatever is asked of it in a folder can fail, be interrupted or killed.

Light, as processes that are killed import it.
"""

import errno
import os
import time
from contextlib import contextmanager
from pathlib import Path

from sparsity_report.files.atomic import together, write_entry, write_file

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EINTR)
CALLS = (
    "open", "write", "fsync", "close", "mkdir", "link", "replace", "chmod", "unlink", "rmdir",
)  # fmt: skip
OLD = {
    "report.html": "old page", "tables/a.csv": "old", "tables/gone.csv": "of another run",
    "only/old.csv": "in a folder that holds nothing else",
}  # fmt: skip
NEW = {
    "report.html": "new page", "tables/a.csv": "new", "figures/deep/b.png": b"\x00" * 99,
    "only/new.csv": "in the same folder",
}  # fmt: skip
# What cannot be undone leaves something behind, which the next run removes.
CLEANING = ("unlink", "rmdir")


def fail(code):
    """Return what happens when a call fails."""

    def happen():
        raise OSError(code, os.strerror(code))

    return happen


@contextmanager
def calls(folder, happen=None, at=0, after=False, forever=False):
    """Note the calls by which files in a folder change; let something happen at one of them.

    Parameters
    ----------
    folder : pathlib.Path
    happen : callable, optional
    at : int
        Number of the call at which it does.
    after : bool
        The call is done, and then fails all the same.
    forever : bool
        At every call from then on.
    """
    real = {name: getattr(os, name) for name in CALLS}
    handles, seen = set(), []

    def wrap(name):
        def call(first, *more, **options):
            number = len(seen)
            ours = first in handles if isinstance(first, int) else folder in around(first)
            if not ours:
                return real[name](first, *more, **options)
            seen.append(name)
            now = happen is not None and (number == at or (forever and number > at))
            if now and not after and name != "close":
                happen()
            # Nothing here needs to outlive the power; a failing close closes on Linux.
            try:
                result = None if name == "fsync" else real[name](first, *more, **options)
            except OSError:
                if now:
                    happen()
                raise
            if name == "open":
                handles.add(result)
            if name == "close":
                handles.discard(first)
            if now and (after or name == "close"):
                if name == "open":
                    handles.discard(result)
                    real["close"](result)
                happen()
            return result

        return call

    def around(path):
        path = Path(path)
        return (path, *path.parents)

    for name in CALLS:
        setattr(os, name, wrap(name))
    try:
        yield seen
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def tree(folder):
    """Return everything in a folder: contents by name, None for folders."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def write(folder, files, source=""):
    """Write a set of files."""
    with together(folder, source):
        for name, content in files.items():
            write_file(folder / name, content)


def kill_at_each(arguments):
    """Write the new set into folders, each in a process that is killed at the folder's number."""
    for folder in map(Path, arguments[1:]):
        child = os.fork()
        if not child:
            with calls(folder, lambda: os._exit(9), int(folder.name), arguments[0] == "after"):
                write(folder, NEW)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def write_again(arguments):
    """Write sets of files that all hold one letter, until a time is over."""
    folder, letter, seconds = arguments
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        write(Path(folder), letters(letter))
        write_entry(Path(folder, "cache", "entry"), letter.encode() * 9999)


def letters(letter):
    """Return a set of files, one of which the set of another letter has not."""
    names = ["one.txt", "two/three.txt", "two/four.txt", "five.txt", f"only/{letter}.txt"]
    return dict.fromkeys(names, letter * 1000)
