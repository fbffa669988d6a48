"""Writing files so that nobody finds half of one, nor some of a set beside those of another.

A set (:func:`together`) is written beside its places under hidden names, each file fsynced; then,
under a lock of the folder, what stands there is kept by a hard link, every file is renamed into
place, and the folders are fsynced. Whatever fails or is interrupted before that is done undoes
all of it. A journal, locked as long as its run lives, tells the next run into the folder what one
that was killed has left: of a switch that was not done the old files are put back.
"""

import errno
import hashlib
import os
import re
import secrets
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sparsity_report.errors import SparsityReportError

if sys.platform != "win32":
    import fcntl

_PACKAGE = Path(__file__).parent

#: Folder of the demo model.
DEMO = _PACKAGE / "demo"

#: Lists the files of a folder that one run has written, as ``sha256sum`` does.
MANIFEST = ".sparsity-report.sha256"
# Begins the names of all that is there for a while only.
_MARK = ".sparsity-report-"
# Seconds after which what a run has left is litter where no lock tells whether it lives.
_LONG = 86_400
# Bytes of a journal: a hundred for each file.
_LONGEST = 2**24
#: Signals by which somebody wants a process to stop.
STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def shipped(kind: str) -> list[Path]:
    """Return where the package's own ``templates`` or ``notebooks`` may lie.

    Installed, they are inside the package; in a source checkout, and only there, beside it.
    """
    checkout = _PACKAGE.parent
    beside = [checkout / kind] if (checkout / "pyproject.toml").is_file() else []
    return [_PACKAGE / kind, *beside]


def file_name(name: str) -> str:
    """Turn any name into a plain lower-case file name part.

    Examples
    --------
    >>> file_name("Masked30"), file_name("../my model"), file_name("§")
    ('masked30', 'my-model', 'unnamed')
    """
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:80] or "unnamed"


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
    part = path.with_name(f"{_MARK}{secrets.token_hex(6)}.part")
    with _telling(path):
        _mode_of_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _create(part, content, then=path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


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
        self._files: dict[Path, _File] = {}
        self._made: list[Path] = []
        self._journal: _Journal | None = None
        self._whole, self._done, self._stuck = True, False, False
        self.removed: list[Path] = []

    def holds(self, path: Path) -> bool:
        """Whether a file would stand in the folder, or in one inside it."""
        inside = self._folder in path.parents
        return inside and ".." not in path.relative_to(self._folder).parts

    def begin(self) -> None:
        """Make the folder, put right what a killed run has left in it, and open a journal."""
        with _telling(self._folder):
            self._make(self._folder)
            with _locked(self._folder), undisturbed():
                _recover(self._folder)
                self._journal = _Journal(self._folder)

    def add(self, target: Path, content: str | bytes) -> None:
        """Write a file beside its place."""
        with _telling(target):
            mode = _mode_of_file(target)
            data = content.encode() if isinstance(content, str) else content
            self._make(target.parent)
            if target in self._files:
                self._files[target].forget()
            self._whole = False
            _create(self._expect(target, hashlib.sha256(data).hexdigest()).new, data, mode)
            self._whole = True

    def switch(self) -> None:
        """Move all files to their places; if one cannot be moved, put all back."""
        assert self._journal is not None
        if not self._whole:
            raise SparsityReportError(f"cannot write {self._folder}: one of its files failed")
        with _telling(self._folder), _locked(self._folder), undisturbed():
            if self._source is not None:
                self._list(self._source)
            files = list(self._files.values())
            folders = {file.target.parent for file in files}
            folders |= {folder.parent for folder in self._made}
            for file in files:
                file.keep()
            for folder in folders:
                _sync(folder)
            self._journal.begin(files)
            try:
                with _telling(self._folder):
                    for file in files:
                        with _telling(file.target):
                            file.place()
                    for folder in folders:
                        _sync(folder)
                    self._journal.done()
            except BaseException as error:
                self._put_back(files, error)
                raise
            self._done = True
            self.removed = [file.target for file in files if file.digest is None]

    def end(self) -> None:
        """Leave nothing but files in their places."""
        if self._journal is None:
            _unmake(self._made)
        elif not self._stuck:
            # The last one of a folder that goes leaves it empty.
            empty = [path.parent for path in self.removed] if self._done else self._made
            _sweep(self._journal.path, self._files.values(), empty)
        if self._journal is not None:
            self._journal.close()

    def _put_back(self, files: Iterable["_File"], error: BaseException) -> None:
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

    def _expect(self, target: Path, digest: str | None) -> "_File":
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
        former_source, former = _read_manifest(self._folder)
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
        lines = [f"{digest}  {name}\n" for name, digest in sorted(listed.items())]
        head = f"# Files of one run of sparsity-report, for sha256sum -c\n# study {source}\n"
        self.add(self._folder / MANIFEST, head + "".join(lines))


_OPEN: ContextVar[FileSet | None] = ContextVar("open set of files", default=None)


@dataclass
class _File:
    """A file of a set: where it goes, what it holds (None: it is to go), its names until then."""

    target: Path
    digest: str | None
    stem: str
    fresh: bool = False

    @property
    def new(self) -> Path:
        return self.target.with_name(f"{self.stem}.new")

    @property
    def old(self) -> Path:
        return self.target.with_name(f"{self.stem}.old")

    def keep(self) -> None:
        """Keep what stands in its place, for :meth:`take_back`."""
        mode = _mode(self.target)
        if mode is None:
            self.fresh = True
            return
        try:
            os.link(self.target, self.old)
        except OSError:  # a file system without links
            _create(self.old, self.target.read_bytes(), mode)

    def place(self) -> None:
        """Move it to its place."""
        if self.digest is None:
            self.target.unlink(missing_ok=True)
        else:
            self.new.replace(self.target)

    def take_back(self) -> None:
        """Undo :meth:`place`, if that was done and nobody has written there since."""
        if self.new.exists() or file_digest(self.target) != self.digest:
            return
        if self.fresh:
            self.target.unlink(missing_ok=True)
        elif self.old.exists():
            self.old.replace(self.target)

    def forget(self) -> None:
        """Leave nothing beside its place."""
        self.new.unlink(missing_ok=True)
        self.old.unlink(missing_ok=True)


class _Journal:
    """What a set does where, noted before it does, for whoever finds what is left of it.

    The file is locked as long as the process lives.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{_MARK}{secrets.token_hex(6)}"
        self._count = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._handle = os.open(self.path, flags, 0o666)
        _hold(self._handle)

    def expect(self, target: Path, digest: str | None) -> _File:
        """Note a file that is to be written, or, without a digest, one that is to go."""
        file = _File(target, digest, f"{self.path.name}-{self._count}")
        self._count += 1
        self._note("file", digest or "-", file.stem, self._name(target))
        return file

    def make(self, folder: Path) -> None:
        """Note a folder that is to be made."""
        self._note("made", self._name(folder))

    def begin(self, files: Iterable[_File]) -> None:
        """Note that files are moved from now on, and which of them have none to keep."""
        self._note("switch", *(file.stem for file in files if file.fresh))
        os.fsync(self._handle)

    def done(self) -> None:
        """Note that there is nothing to put back; if that fails, it is not noted."""
        size = os.fstat(self._handle).st_size
        try:
            self._note("done")
            os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, size)
            raise

    def close(self) -> None:
        """Let others see that nobody is at work."""
        _close(self._handle)

    def _name(self, path: Path) -> str:
        return quote_from_bytes(os.fsencode(path.relative_to(self.path.parent)))

    def _note(self, *words: str) -> None:
        _fill(self._handle, f"{' '.join(words)}\n".encode())


def _recover(folder: Path) -> None:
    """Put right what runs that were killed have left in a folder."""
    pattern = re.compile(re.escape(_MARK) + r"[0-9a-f]{12}(\.part)?")
    for path in [path for path in folder.iterdir() if pattern.fullmatch(path.name)]:
        with suppress(OSError, ValueError, LookupError):  # somebody else's, or damaged: it stays
            handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                state = os.fstat(handle)
                if not stat.S_ISREG(state.st_mode) or not _is_dead(handle):
                    continue
                if path.suffix:
                    path.unlink()
                elif state.st_size <= _LONGEST:
                    _undo(path)
            finally:
                _close(handle)


def _undo(journal: Path) -> None:
    """Put back what a journal says was being replaced, and leave nothing of its set."""
    folder = journal.parent
    files: dict[str, _File] = {}
    made: list[Path] = []
    state = ""
    for line in journal.read_text(encoding="ascii").split("\n")[:-1]:  # the last may be cut off
        word, *more = line.split(" ")
        if word == "file":
            digest, stem, name = more
            if stem.rpartition("-")[0] != journal.name:
                raise ValueError(f"{stem} is not of this journal")
            target = folder / _inside(os.fsdecode(unquote_to_bytes(name)))
            files[stem] = _File(target, None if digest == "-" else digest, stem)
        elif word == "made":
            made.append(folder / _inside(os.fsdecode(unquote_to_bytes(more[0]))))
        else:
            state = word
            for stem in more:
                files[stem].fresh = True
    if state == "switch":
        for file in files.values():
            file.take_back()
    _sweep(journal, files.values(), () if state == "done" else made)


def _sweep(journal: Path, files: Iterable[_File], made: Iterable[Path]) -> None:
    """Leave nothing that was there for a while; what cannot be removed keeps its journal."""
    litter = False
    for file in files:
        try:
            file.forget()
        except OSError:
            litter = True
    if not litter:
        with suppress(OSError):
            journal.unlink(missing_ok=True)
    _unmake(made)


def _unmake(folders: Iterable[Path]) -> None:
    for folder in reversed(list(folders)):
        with suppress(OSError, ValueError):  # there is something in it, or it was never one
            folder.rmdir()


def _read_manifest(folder: Path) -> tuple[str, dict[str, str]]:
    """Return of which study file the files of a folder were made, and their digests by name."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        files = re.findall(r"^([0-9a-f]{64})  (.+)$", text, flags=re.M)
        source = re.search(r"^# study ([0-9a-f]{64})$", text, flags=re.M)
        return source[1] if source else "", {_inside(name): digest for digest, name in files}
    except (OSError, ValueError):
        return "", {}


def _inside(name: str) -> str:
    """Return a name that stays in its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"{name!r} is not in this folder")
    return name


def _create(path: Path, data: bytes, mode: int | None = None, then: Path | None = None) -> None:
    """Write a new file through to the disk; rename it while it is locked, if it is to be."""
    binary = getattr(os, "O_BINARY", 0)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o666)
    try:
        _hold(handle)
        _fill(handle, data)
        if mode is not None:
            path.chmod(stat.S_IMODE(mode))
        os.fsync(handle)
        if then is not None and sys.platform != "win32":
            path.replace(then)
    finally:
        os.close(handle)
    if then is not None and sys.platform == "win32":  # where an open file keeps its name
        path.replace(then)


def _fill(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _close(handle: int) -> None:
    """Close what holds nothing that could still be lost."""
    with suppress(OSError):
        os.close(handle)


def _sync(folder: Path) -> None:
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
        _close(handle)


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def _mode_of_file(path: Path) -> int | None:
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise SparsityReportError(
            f"cannot write {path}: it exists and is not a regular file; choose another path"
        )
    return mode


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a regular file, nothing of what else stands there, None of nothing."""
    mode = _mode(path)
    if mode is None:
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else ""


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
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
        _close(handle)


def _hold(handle: int) -> None:
    """Show as long as a file is open that somebody is at work with it."""
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_dead(handle: int) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:
            pass
    return time.time() - os.fstat(handle).st_mtime > _LONG


@contextmanager
def _telling(target: Path) -> Iterator[None]:
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


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C, and whoever else wants this process to stop, wait for a few milliseconds."""
    waiting: list[int] = []
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                handler = signal.getsignal(number)
                if callable(handler) or handler is signal.SIG_DFL:
                    before[number] = handler
                    signal.signal(number, lambda number, _: waiting.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(waiting):
            signal.raise_signal(number)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder for a while, where the system keeps such."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="sparsity-report-", ignore_cleanup_errors=True)
    except OSError as error:
        raise SparsityReportError(
            f"no folder for temporary files: {error.strerror or error}; make space there, or set "
            "TMPDIR to a folder with space left"
        ) from error
    with folder as name:
        yield Path(name)


def check_folder(path: Path) -> None:
    """Refuse a folder that files could not be written to; put right what killed runs left in it."""
    whole = path.absolute()
    nearest = next(p for p in (whole, *whole.parents) if p.exists() or p.is_symlink())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
        if nearest == whole:
            with _locked(path), undisturbed():
                _recover(path)
    except OSError as error:
        raise SparsityReportError(
            f"cannot write to the folder {path}: {error.strerror or error}; choose another"
        ) from error
