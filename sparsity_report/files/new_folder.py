"""A folder of large files that appears whole when it is complete, or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sparsity_report.errors import SparsityReportError
from sparsity_report.files import filesystem
from sparsity_report.files.atomic import hidden_name

_HIDDEN = re.compile(r"\.sparsity-report-[0-9a-f]{12}")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a hidden folder beside `target`, and rename it to `target` when the block ends.

    The files in it are written through to the disk first. An error or an interruption removes it.
    A hidden folder that a killed run left there is removed, too.

    Raises
    ------
    SparsityReportError
        `target` exists and is not an empty folder, or something cannot be written.
    """
    hidden = target.parent / hidden_name()
    missing = [path for path in target.parents if not path.exists()]
    with ExitStack() as locks:
        try:
            with filesystem.one_line_errors(target):
                check_free(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                with filesystem.locked(target.parent):
                    _remove_abandoned(target.parent)
                    hidden.mkdir()
                    locks.enter_context(filesystem.locked(hidden))
            yield hidden
            with filesystem.one_line_errors(target):
                for file in filter(Path.is_file, hidden.rglob("*")):
                    with filesystem.opened(file, os.O_RDWR) as handle:
                        os.fsync(handle)
                filesystem.sync_folder(hidden)
                with suppress(FileNotFoundError):
                    target.rmdir()
                hidden.replace(target)
                filesystem.sync_folder(target.parent)
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
        raise SparsityReportError(
            f"cannot write {target}: it exists and is not an empty folder; choose another path"
        )


def _remove_abandoned(folder: Path) -> None:
    """Remove the hidden folders of killed runs, which no process has locked."""
    for path in folder.iterdir():
        if _HIDDEN.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with suppress(OSError), filesystem.opened(path) as handle:
                if filesystem.lock(handle):
                    shutil.rmtree(path, ignore_errors=True)
