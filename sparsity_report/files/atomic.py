"""Files that are replaced whole or not at all, and folders that appear so."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparsity_report.errors import SparsityReportError
from sparsity_report.files import filesystem


def write_file(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` to `path` whole or not at all; an older file survives any failure.

    The content is written beside the target, synced to the disk, and renamed.

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
    with filesystem.one_line_errors(target):
        mode = filesystem.regular_file_mode(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.parent / _hidden_name()
        try:
            filesystem.create(new, content.encode() if isinstance(content, str) else content, mode)
            new.replace(target)
        except BaseException:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise
    return target


def _hidden_name() -> str:
    """Return an unused name for a file or folder that is not complete."""
    return f".sparsity-report-{secrets.token_hex(6)}"


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be written to."""
    folder = path.absolute()
    nearest = next(p for p in (folder, *folder.parents) if p.exists() or p.is_symlink())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise SparsityReportError(
            f"cannot write to the folder {path}: {error.strerror or error}; choose another"
        ) from error


@contextmanager
def new_folder(target: Path, is_file: bool = False) -> Iterator[Path]:
    """Give a hidden folder beside `target`, and rename it to `target` when the block ends.

    If `target` is a file, the one of its name in the folder is renamed. The files in it are
    written through to the disk first. An error or an interruption removes it.

    Raises
    ------
    SparsityReportError
        `target` exists and is not an empty folder, or something cannot be written.
    """
    hidden = target.parent / _hidden_name()
    missing = [path for path in target.parents if not path.exists()]
    try:
        with filesystem.one_line_errors(target):
            check_free(target)
            hidden.mkdir(parents=True)
        yield hidden
        with filesystem.one_line_errors(target):
            for file in filter(Path.is_file, hidden.rglob("*")):
                with filesystem.opened(file, os.O_RDWR) as handle:
                    os.fsync(handle)
            filesystem.sync_folder(hidden)
            with suppress(FileNotFoundError):
                target.rmdir()
            (hidden / target.name if is_file else hidden).replace(target)
            filesystem.sync_folder(target.parent)
        shutil.rmtree(hidden, ignore_errors=True)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):  # not empty
                folder.rmdir()
        raise


def check_free(target: Path) -> None:
    """Refuse a target that is there, except an empty folder."""
    if os.path.lexists(target) and (
        target.is_symlink() or not target.is_dir() or any(target.iterdir())
    ):
        kind = " and is not empty" if target.is_dir() else ""
        raise SparsityReportError(f"cannot write {target}: it exists{kind}; choose another path")
