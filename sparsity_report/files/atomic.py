"""Files that are replaced whole or not at all."""

import os
import secrets
import tempfile
from contextlib import suppress
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
        new = target.parent / hidden_name()
        try:
            filesystem.create(new, content.encode() if isinstance(content, str) else content, mode)
            new.replace(target)
        except BaseException:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise
    return target


def hidden_name() -> str:
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
