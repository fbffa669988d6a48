"""What is said on a terminal or into a pipe: lines, complaints and bars."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from sparsity_report.cli.signals import PIPE, Stopped
from sparsity_report.counting import progress
from sparsity_report.errors import SparsityReportError, legible

if TYPE_CHECKING:
    from sparsity_report.counting.progress import Progress


def tell(text: str, stream: TextIO | None = None) -> None:
    """Print a line: no name moves the terminal, and what its encoding lacks is spelled out."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(legible(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def complain(text: str) -> None:
    """Print a line of what is wrong."""
    with suppress(OSError):  # nobody reads it
        tell(f"sparsity-report: {text}", sys.stderr)


def flush() -> None:
    """Print what waits to be printed, while it can still be said that it cannot be."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # Python tries once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise Stopped(PIPE) from error
        raise SparsityReportError(f"cannot print: {error.strerror}") from error


def speak(ctx: typer.Context, language: str, template_dir: Path | None) -> None:
    """Say everything this command says in one language."""
    import sparsity_report as sr

    ctx.with_resource(sr.speaking(language, template_dir))


def bar(what: str, unit: str = "B") -> AbstractContextManager[Progress]:
    """Show progress on a terminal from the first moment; nothing in a pipe."""
    return progress.bar(what, unit, after=0)
