"""Folders: one that is there for a while, and whether one can be written to."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsity_report.errors import SparsityReportError
from sparsity_report.files.journal import recover
from sparsity_report.files.locks import locked
from sparsity_report.files.stop_signals import undisturbed


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
            with locked(path), undisturbed():
                recover(path)
    except OSError as error:
        raise SparsityReportError(
            f"cannot write to the folder {path}: {error.strerror or error}; choose another"
        ) from error
