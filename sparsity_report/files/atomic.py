"""Sets of files that appear all at once or not at all.

The files of a set (:func:`together`) are written to hidden names in the folder and fsynced. Then,
under a lock of the folder, a hard link keeps each file that is replaced, every file is renamed into
place, and the folders are fsynced. A failure or an interruption before that undoes all of it.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from sparsity_report.errors import SparsityReportError
from sparsity_report.files import filesystem, journal
from sparsity_report.files.manifest import MANIFEST, manifest, read_manifest
from sparsity_report.files.stop_signals import undisturbed

_OPEN: ContextVar["FileSet | None"] = ContextVar("open set of files", default=None)


class LeftoverWarning(UserWarning):
    """Temporary files that stay beside a complete set of files."""


@contextmanager
def together(folder: str | os.PathLike[str], source: str | None = None) -> Iterator["FileSet"]:
    """Write the files of a block all at once when it ends, or none of them.

    Inside another such block whose folder holds this one, the files join that set.

    Parameters
    ----------
    folder : path-like
        Holds all files; made if it is missing.
    source : str, optional
        If given, :data:`MANIFEST` lists the files written. Files that it listed before are removed
        unless they were changed since or show the same study. `source` is the digest of the file
        from which the study was read, or empty for a new study.

    Yields
    ------
    FileSet
        The open set, to which :func:`write_file` adds.

    Raises
    ------
    SparsityReportError
        A file cannot be written; the folder is as it was.
    """
    outer, path = _OPEN.get(), Path(folder)
    if outer is not None and outer.holds(path / "file"):
        yield outer
        return
    with filesystem.one_line_errors(path):
        files = FileSet(path)
    with ExitStack() as locks:
        try:
            files.begin(locks)
            locks.callback(_OPEN.reset, _OPEN.set(files))
            yield files
            with filesystem.one_line_errors(path):
                locks.enter_context(filesystem.locked(path))
            left = files.switch(source)
        except BaseException as error:
            with undisturbed():
                files.put_back(error)
            raise
    if left:
        warnings.warn(left, LeftoverWarning, stacklevel=3)


class FileSet:
    """An open set of files of one folder.

    Attributes
    ----------
    removed : list of pathlib.Path
        Files of an earlier run that this set removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        self._digests: dict[str, str | None] = {}  # by name; None removes the file
        self._journal = journal.new_journal(folder)  # there until the set is committed or undone
        self.removed: list[Path] = []

    def holds(self, path: Path) -> bool:
        """Return whether a path lies in the folder or below it."""
        return self._folder in path.parents and ".." not in path.relative_to(self._folder).parts

    def begin(self, locks: ExitStack) -> None:
        """Make the folder, repair what a killed run left in it, and open a journal."""
        with filesystem.one_line_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with filesystem.locked(self._folder), undisturbed():
                journal.recover(self._folder)
                new_file = os.O_RDWR | os.O_CREAT | os.O_EXCL
                self._handle = locks.enter_context(filesystem.opened(self._journal, new_file))
                filesystem.lock(self._handle)

    def add(self, target: Path, content: str | bytes) -> None:
        """Write a file that waits for the switch."""
        name = target.relative_to(self._folder).as_posix()
        with filesystem.one_line_errors(target):
            mode, new = filesystem.regular_file_mode(target), journal.waiting(self._journal, name)
            data = content.encode() if isinstance(content, str) else content
            if self._digests.pop(name, None):
                new.unlink()
            filesystem.create(new, data, mode)
        self._digests[name] = hashlib.sha256(data).hexdigest()

    def switch(self, source: str | None) -> str:
        """Move all files to their targets and commit; return a sentence about what stays."""
        path, folder = self._journal, self._folder
        with filesystem.one_line_errors(folder), undisturbed():
            if source is not None:
                self._list_files(source)
            moves = [
                (name, digest, not journal.keep_file(path, name))
                for name, digest in self._digests.items()
            ]
            filesystem.sync_folder(folder)
            filesystem.write_through(self._handle, f"{json.dumps(moves)}\n".encode())
            for name, digest in self._digests.items():
                with filesystem.one_line_errors(folder / name):
                    journal.place(path, name, digest)
            for inner in {inner for name in self._digests for inner in Path(name).parents}:
                filesystem.sync_folder(folder / inner)
            left = journal.commit(path)
            self.removed = [folder / name for name, sha in self._digests.items() if sha is None]
            journal.remove_empty(file.parent for file in self.removed)
        return left

    def put_back(self, error: BaseException) -> None:
        """Leave the folder as it was unless the set is committed; report both errors on failure."""
        left = ""
        try:
            if self._journal.exists():
                left = journal.undo(self._journal)
        except OSError as trouble:
            raise SparsityReportError(
                f"{error}; not all of {self._folder} could be put back "
                f"({trouble.strerror or trouble}): the next run into it puts that right"
            ) from error
        journal.remove_empty(self._made)
        if left and isinstance(error, Exception):
            raise SparsityReportError(f"{error}; {left}") from error

    def _list_files(self, source: str) -> None:
        """Add the manifest, and remove files of another study that would stay beside this one."""
        former_source, former = read_manifest(self._folder)
        listed = {name: digest or "" for name, digest in self._digests.items()}
        others = {
            name: digest
            for name, digest in former.items()
            if name not in listed and filesystem.file_digest(self._folder / name) == digest
        }
        if source and source in {former_source, *former.values()}:
            listed |= others
        else:
            self._digests |= dict.fromkeys(others)
        self.add(self._folder / MANIFEST, manifest(source, listed))


def write_file(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` to `path` whole or not at all; an older file survives any failure.

    Inside :func:`together` the file joins the set and appears with it.

    Parameters
    ----------
    path : path-like
        Missing parent directories are made.
    content : str or bytes
        Text is written as UTF-8 with newlines as they are.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    SparsityReportError
        If the destination is not a regular file or cannot be written.
    """
    target = Path(path)
    with together(target.parent) as files:
        files.add(target, content)
    return target


def write_entry(path: Path, content: bytes) -> None:
    """Write an entry of a cache whole or not at all, outside any set."""
    new = journal.waiting(journal.new_journal(path.parent), path.name)
    with filesystem.one_line_errors(path):
        filesystem.regular_file_mode(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with filesystem.locked(path.parent):
            try:
                filesystem.create(new, content)
                new.replace(path)
            finally:
                with suppress(OSError):
                    new.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be written to; repair what killed runs left in it."""
    folder = path.absolute()
    nearest = next(p for p in (folder, *folder.parents) if p.exists() or p.is_symlink())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
        if nearest == folder:
            with filesystem.locked(path), undisturbed():
                journal.recover(path)
    except OSError as error:
        raise SparsityReportError(
            f"cannot write to the folder {path}: {error.strerror or error}; choose another"
        ) from error
