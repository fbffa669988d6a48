"""What a set of files does where, noted before it does, for whoever finds what is left of it.

A journal is locked as long as its run lives. Of a run that was killed the next one into the folder
puts the old files back, if they were being replaced, and removes what was there for a while.
"""

import os
import re
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sparsity_report.files.durable_writes import create, file_digest, fill, mode_of
from sparsity_report.files.locks import close, hold, is_dead
from sparsity_report.files.manifest import inside

# Begins the names of all that is there for a while only.
MARK = ".sparsity-report-"
# Bytes of a journal: a hundred for each file.
_LONGEST = 2**24


@dataclass
class SetFile:
    """A file of a set: where it goes, what it holds (None: it is to go), its names until then."""

    target: Path
    digest: str | None
    stem: str
    fresh: bool = False

    @property
    def new(self) -> Path:
        """Where it is written."""
        return self.target.with_name(f"{self.stem}.new")

    @property
    def old(self) -> Path:
        """Where what stood in its place is kept."""
        return self.target.with_name(f"{self.stem}.old")

    def keep(self) -> None:
        """Keep what stands in its place, for :meth:`take_back`."""
        mode = mode_of(self.target)
        if mode is None:
            self.fresh = True
            return
        try:
            os.link(self.target, self.old)
        except OSError:  # a file system without links
            create(self.old, self.target.read_bytes(), mode)

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


class Journal:
    """What a set does where, noted before it does, for whoever finds what is left of it.

    The file is locked as long as the process lives.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{MARK}{secrets.token_hex(6)}"
        self._count = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._handle = os.open(self.path, flags, 0o666)
        hold(self._handle)

    def expect(self, target: Path, digest: str | None) -> SetFile:
        """Note a file that is to be written, or, without a digest, one that is to go."""
        file = SetFile(target, digest, f"{self.path.name}-{self._count}")
        self._count += 1
        self._note("file", digest or "-", file.stem, self._name(target))
        return file

    def make(self, folder: Path) -> None:
        """Note a folder that is to be made."""
        self._note("made", self._name(folder))

    def begin(self, files: Iterable[SetFile]) -> None:
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
        close(self._handle)

    def _name(self, path: Path) -> str:
        return quote_from_bytes(os.fsencode(path.relative_to(self.path.parent)))

    def _note(self, *words: str) -> None:
        fill(self._handle, f"{' '.join(words)}\n".encode())


def recover(folder: Path) -> None:
    """Put right what runs that were killed have left in a folder."""
    pattern = re.compile(re.escape(MARK) + r"[0-9a-f]{12}(\.part)?")
    for path in [path for path in folder.iterdir() if pattern.fullmatch(path.name)]:
        with suppress(OSError, ValueError, LookupError):  # somebody else's, or damaged: it stays
            handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                state = os.fstat(handle)
                if not stat.S_ISREG(state.st_mode) or not is_dead(handle):
                    continue
                if path.suffix:
                    path.unlink()
                elif state.st_size <= _LONGEST:
                    _undo(path)
            finally:
                close(handle)


def _undo(journal: Path) -> None:
    """Put back what a journal says was being replaced, and leave nothing of its set."""
    folder = journal.parent
    files: dict[str, SetFile] = {}
    made: list[Path] = []
    state = ""
    for line in journal.read_text(encoding="ascii").split("\n")[:-1]:  # the last may be cut off
        word, *more = line.split(" ")
        if word == "file":
            digest, stem, name = more
            if stem.rpartition("-")[0] != journal.name:
                raise ValueError(f"{stem} is not of this journal")
            target = folder / inside(os.fsdecode(unquote_to_bytes(name)))
            files[stem] = SetFile(target, None if digest == "-" else digest, stem)
        elif word == "made":
            made.append(folder / inside(os.fsdecode(unquote_to_bytes(more[0]))))
        else:
            state = word
            for stem in more:
                files[stem].fresh = True
    if state == "switch":
        for file in files.values():
            file.take_back()
    sweep(journal, files.values(), () if state == "done" else made)


def sweep(journal: Path, files: Iterable[SetFile], made: Iterable[Path]) -> None:
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
    unmake(made)


def unmake(folders: Iterable[Path]) -> None:
    """Remove folders that were made and are empty, the last first."""
    for folder in reversed(list(folders)):
        with suppress(OSError, ValueError):  # there is something in it, or it was never one
            folder.rmdir()
