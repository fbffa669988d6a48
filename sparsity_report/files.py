"""Writing files so that nobody ever finds half of one: temporary name, fsync, rename."""

import os
import re
import stat
import tempfile
from pathlib import Path

from sparsity_report.errors import SparsityReportError

_PACKAGE = Path(__file__).parent

#: Folder of the demo model.
DEMO = _PACKAGE / "demo"


def shipped(kind: str) -> list[Path]:
    """Return where the package's own ``templates`` or ``notebooks`` may lie.

    Installed, they are inside the package; in a source checkout, and only there, beside it.
    """
    checkout = _PACKAGE.parent
    beside = [checkout / kind] if (checkout / "pyproject.toml").is_file() else []
    return [_PACKAGE / kind, *beside]


def write_file(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` to `path` whole or not at all; an older file survives any failure.

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
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or (target.exists() and not stat.S_ISREG(target.stat().st_mode)):
            raise SparsityReportError(
                f"cannot write {target}: it exists and is not a regular file; choose another path"
            )
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:50]}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask()
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
        temporary = None
    except OSError as error:
        raise SparsityReportError(
            f"cannot write {target}: {error.strerror or error}; "
            "choose a folder you can write to, with space left"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return target


def file_name(name: str) -> str:
    """Turn any name into a plain lower-case file name part.

    Examples
    --------
    >>> file_name("Masked30"), file_name("../my model"), file_name("§")
    ('masked30', 'my-model', 'unnamed')
    """
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:80] or "unnamed"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_folder(path: Path) -> None:
    """Refuse a folder that files could not be written to; make it if it is missing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise SparsityReportError(
            f"cannot write to the folder {path}: {error.strerror or error}; choose another"
        ) from error
