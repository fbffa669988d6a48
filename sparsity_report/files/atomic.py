"""Files written so that nobody finds half of one, nor some of a set beside those of another.

A set (:func:`together`) is written beside its places under hidden names, each file fsynced; then,
under a lock of the folder, what stands there is kept by a hard link, every file is renamed into
place, and the folders are fsynced. Whatever fails or is interrupted before that is done undoes
all of it.
"""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from sparsity_report.errors import SparsityReportError
from sparsity_report.files.durable_writes import (
    create,
    file_digest,
    mode_of_file,
    sync_folder,
    telling,
)
from sparsity_report.files.journal import MARK, Journal, SetFile, recover, sweep, unmake
from sparsity_report.files.locks import locked
from sparsity_report.files.manifest import MANIFEST, manifest, read_manifest
from sparsity_report.files.stop_signals import undisturbed

_OPEN: ContextVar["FileSet | None"] = ContextVar("open set of files", default=None)


@contextmanager
def together(folder: str | os.PathLike[str], source: str | None = None) -> Iterator["FileSet"]:
    """Write the files of a block all at once when it ends, or none of them.

    Inside another such block whose folder holds this one, the files are part of that set.

    Parameters
    ----------
    folder : path-like
        Holds all files; made if it is missing.
    source : str, optional
        If given, :data:`MANIFEST` lists what is written, and files that it listed before are
        removed unless they were changed since or belong to the same study: `source` is the digest
        of the file a study was read from, or empty for a new study.

    Raises
    ------
    SparsityReportError
        A file cannot be written; all of the folder is as it was.
    """
    outer, path = _OPEN.get(), Path(folder)
    if outer is not None and outer.holds(path / "file"):
        yield outer
        return
    files = FileSet(path, source)
    try:
        files.begin()
        token = _OPEN.set(files)
        try:
            yield files
        finally:
            _OPEN.reset(token)
        files.switch()
    finally:
        with undisturbed():
            files.end()


class FileSet:
    """Files on the way to their places in a folder.

    Attributes
    ----------
    removed : list of pathlib.Path
        Files of an earlier run that had no place among the new ones.
    """

    def __init__(self, folder: Path, source: str | None) -> None:
        self._folder, self._source = folder, source
        self._files: dict[Path, SetFile] = {}
        self._made: list[Path] = []
        self._journal: Journal | None = None
        self._whole, self._done, self._stuck = True, False, False
        self.removed: list[Path] = []

    def holds(self, path: Path) -> bool:
        """Whether a file would stand in the folder, or in one inside it."""
        inside = self._folder in path.parents
        return inside and ".." not in path.relative_to(self._folder).parts

    def begin(self) -> None:
        """Make the folder, put right what a killed run has left in it, and open a journal."""
        with telling(self._folder):
            self._make(self._folder)
            with locked(self._folder), undisturbed():
                recover(self._folder)
                self._journal = Journal(self._folder)

    def add(self, target: Path, content: str | bytes) -> None:
        """Write a file beside its place."""
        with telling(target):
            mode = mode_of_file(target)
            data = content.encode() if isinstance(content, str) else content
            self._make(target.parent)
            if target in self._files:
                self._files[target].forget()
            self._whole = False
            create(self._expect(target, hashlib.sha256(data).hexdigest()).new, data, mode)
            self._whole = True

    def switch(self) -> None:
        """Move all files to their places; if one cannot be moved, put all back."""
        assert self._journal is not None
        if not self._whole:
            raise SparsityReportError(f"cannot write {self._folder}: one of its files failed")
        with telling(self._folder), locked(self._folder), undisturbed():
            if self._source is not None:
                self._list(self._source)
            files = list(self._files.values())
            folders = {file.target.parent for file in files}
            folders |= {folder.parent for folder in self._made}
            for file in files:
                file.keep()
            for folder in folders:
                sync_folder(folder)
            self._journal.begin(files)
            try:
                with telling(self._folder):
                    for file in files:
                        with telling(file.target):
                            file.place()
                    for folder in folders:
                        sync_folder(folder)
                    self._journal.done()
            except BaseException as error:
                self._put_back(files, error)
                raise
            self._done = True
            self.removed = [file.target for file in files if file.digest is None]

    def end(self) -> None:
        """Leave nothing but files in their places."""
        if self._journal is None:
            unmake(self._made)
        elif not self._stuck:
            # The last one of a folder that goes leaves it empty.
            empty = [path.parent for path in self.removed] if self._done else self._made
            sweep(self._journal.path, self._files.values(), empty)
        if self._journal is not None:
            self._journal.close()

    def _put_back(self, files: Iterable["SetFile"], error: BaseException) -> None:
        assert self._journal is not None
        self._stuck = True
        try:
            for file in files:
                file.take_back()
        except OSError as trouble:
            raise SparsityReportError(
                f"{error}; not all of {self._folder} could be put back "
                f"({trouble.strerror or trouble}): the next run into it puts that right"
            ) from error
        self._stuck = False
        with suppress(OSError):
            self._journal.done()

    def _expect(self, target: Path, digest: str | None) -> "SetFile":
        assert self._journal is not None
        self._files[target] = file = self._journal.expect(target, digest)
        return file

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make(folder.parent)
        if self._journal is not None:
            self._journal.make(folder)
        self._made.append(folder)
        try:
            folder.mkdir()
        except FileExistsError:
            self._made.remove(folder)
            if not folder.is_dir():  # else another run was first
                raise

    def _list(self, source: str) -> None:
        """List the files of this set, and remove those of another that it would stand beside."""
        former_source, former = read_manifest(self._folder)
        listed = {
            target.relative_to(self._folder).as_posix(): file.digest or ""
            for target, file in self._files.items()
        }
        others = {
            name: digest
            for name, digest in former.items()
            if name not in listed and file_digest(self._folder / name) == digest
        }
        if source and source in {former_source, *former.values()}:
            listed |= others
        else:
            for name in others:
                self._expect(self._folder / name, None)
        self.add(self._folder / MANIFEST, manifest(source, listed))


def write_file(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` to `path` whole or not at all; an older file survives any failure.

    Inside :func:`together` the file is one of the set, and there when the set is.

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
        When the destination is not a regular file or cannot be written.
    """
    target = Path(path)
    with together(target.parent) as files:
        files.add(target, content)
    return target


def write_entry(path: Path, content: bytes) -> None:
    """Write an entry of a cache: whole or not at all, not to be seen in folders between."""
    part = path.with_name(f"{MARK}{secrets.token_hex(6)}.part")
    with telling(path):
        mode_of_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            create(part, content, then=path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
