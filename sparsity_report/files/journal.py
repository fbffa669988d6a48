"""The journal of a set of files, and recovery from the journal of a killed run.

A set waits in its folder as ``JOURNAL-<n>.new``; the files that it replaces are kept as
``JOURNAL-<n>.old``. The journal is locked while its process lives. Before the first file is moved
it records each target, its digest, and whether it is new. Removing the journal commits the set. A
journal without a lock belongs to a killed run, and a waiting file without a journal is litter.
"""

import json
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from sparsity_report.files.filesystem import create, file_digest, lock, sync_folder
from sparsity_report.files.manifest import check_name

_MARK = ".sparsity-report-"
_TEMPORARY = re.compile(rf"({re.escape(_MARK)}[0-9a-f]{{12}})(-[0-9a-f]{{16}}\.(new|old))?")
# Largest journal in bytes: about a hundred for each file.
_LONGEST = 2**24


def new_journal(folder: Path) -> Path:
    """Return an unused name for a journal."""
    return folder / f"{_MARK}{secrets.token_hex(6)}"


def is_journal(name: str) -> bool:
    """Return True for the name of a journal, or of a hidden folder."""
    match = _TEMPORARY.fullmatch(name)
    return match is not None and match[2] is None


def waiting(journal: Path, name: str, kind: str = "new") -> Path:
    """Return the path at which a file of a set waits, or at which its ``old`` one is kept."""
    place = sha256(os.fsencode(name)).hexdigest()[:16]
    return journal.with_name(f"{journal.name}-{place}.{kind}")


def keep_file(journal: Path, name: str) -> bool:
    """Keep a file that is about to be replaced; return False if there is none."""
    target, old = journal.parent / name, waiting(journal, name, "old")
    if not os.path.lexists(target):
        return False
    try:
        os.link(target, old)
    except OSError:  # a file system without links
        create(old, target.read_bytes())
    return True


def place(journal: Path, name: str, digest: str | None) -> None:
    """Move a file of a set to its target; without a digest, remove the target."""
    target = journal.parent / name
    if digest is None:
        target.unlink(missing_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        waiting(journal, name).replace(target)


def recover(folder: Path) -> None:
    """Undo unfinished switches of killed runs in a folder, and remove their temporary files."""
    for path in list(folder.iterdir()):
        name = _TEMPORARY.fullmatch(path.name)
        # Damaged journals, and those of other users, stay.
        with suppress(OSError, ValueError, TypeError, RecursionError):
            if name and name[2]:
                if not (folder / name[1]).exists():
                    path.unlink()
            elif name and not path.is_symlink() and path.stat().st_size <= _LONGEST:
                with path.open("r+b") as journal:  # fails for a pipe
                    if lock(journal.fileno()):
                        undo(path)


def undo(journal: Path) -> str:
    """Restore what a set replaced, except where a target was written to since; then sweep."""
    folder = journal.parent
    record, end, _ = journal.read_text(encoding="ascii").partition("\n")
    files = json.loads(record) if end else []  # cut off before anything was moved
    for name, digest, is_new in files:
        target, old = folder / check_name(name), waiting(journal, name, "old")
        if not waiting(journal, name).exists() and file_digest(target) == digest:
            if is_new:
                target.unlink(missing_ok=True)
            elif old.exists():
                old.replace(target)
    # Last, as the files above need their folders.
    remove_empty(folder / up for name, _, is_new in files if is_new for up in Path(name).parents)
    return _sweep(journal)


def commit(journal: Path) -> str:
    """Make a set permanent: remove its journal, then sweep."""
    try:
        journal.unlink()
    except OSError:
        if journal.exists():
            raise
    sync_folder(journal.parent)
    return _sweep(journal)


def _sweep(journal: Path) -> str:
    """Remove the temporary files of a set; return a sentence about those that stay."""
    left = []
    for path in (*sorted(journal.parent.glob(f"{journal.name}-*")), journal):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if os.path.lexists(path):
                left.append(f"{path} ({error.strerror or error})")
    number = f"{len(left)} temporary file{'s' * (len(left) > 1)} could not be removed"
    return f"{number}, first {left[0]}; the next run into the folder does" if left else ""


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those folders that are empty."""
    for folder in folders:
        with suppress(OSError, ValueError):
            folder.rmdir()
