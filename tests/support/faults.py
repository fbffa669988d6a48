"""Faults of the system: each call that changes a folder can fail, be interrupted or killed."""

import errno
import os
from contextlib import contextmanager
from pathlib import Path

from sparsity_report.files.atomic import write_file

OLD, NEW = b"old page", b"\x00" * 99
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EINTR)
CALLS = ("open", "write", "fsync", "close", "mkdir", "replace", "chmod", "unlink", "rmdir")


def fail(code):
    """Return what happens when a call fails."""

    def happen():
        raise OSError(code, os.strerror(code))

    return happen


@contextmanager
def calls(folder, happen=None, at=0, after=False):
    """Note the calls by which files in a folder change; let something happen at one of them.

    Parameters
    ----------
    folder : pathlib.Path
    happen : callable, optional
    at : int
        Number of the call at which it does.
    after : bool
        The call is done, and then fails all the same.
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
            now = happen is not None and number == at
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


def kill_at_each(arguments):
    """Write a page into folders, each in a process that is killed at the folder's number."""
    for folder in map(Path, arguments[1:]):
        child = os.fork()
        if not child:
            with calls(folder, lambda: os._exit(9), int(folder.name), arguments[0] == "after"):
                write_file(folder / "report.html", NEW)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
