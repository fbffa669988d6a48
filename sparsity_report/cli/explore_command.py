"""``sparsity-report explore``: the explorer as a local page, without a notebook."""

from __future__ import annotations

import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from sparsity_report.cli.compared_models import check_paths, compared
from sparsity_report.cli.libraries import quiet_libraries
from sparsity_report.cli.options import (
    Analysis,
    Choice,
    ExploreOptions,
    Models,
    dataclass_options,
)
from sparsity_report.cli.terminal import Stopped, flush, open_page, print_line
from sparsity_report.untrusted.display_text import clip

if TYPE_CHECKING:
    from sparsity_report.cli.loopback_server import PageServer


@dataclass_options
def explore(models: Models = None, *, choice: Choice, options: ExploreOptions) -> None:
    """Serve the explorer of models as a page on this machine until Ctrl-C."""
    check_paths(*(models or ()), options.base)
    import sparsity_report as sr
    from sparsity_report.cli.loopback_server import PageServer  # loads an HTTP server
    from sparsity_report.report.explore_page import explorer_page

    try:
        with quiet_libraries():
            variants = compared(models or [], choice, Analysis(**options.opening)).variants
            study = sr.compare(*variants)
            with PageServer(*explorer_page(study)) as server:
                name = clip(study.variants["model"].iloc[0])
                print_line(f"Explorer of {name}: {server.address} (Ctrl-C ends it)")
                flush()
                _serve(server, options.is_opened)
    except Stopped as stopped:
        if stopped.args[0] != signal.SIGINT:
            raise
        raise typer.Exit from None


def _serve(server: PageServer, is_opened: bool) -> None:
    """Serve a page, and open it in the browser if it is to be shown."""
    if not is_opened:
        server.serve()
        return
    with (folder := TemporaryDirectory(prefix="sparsity-report-")) as place:
        open_page(_redirect(Path(place), server.address))
        server.serve(folder.cleanup)


def _redirect(place: Path, address: str) -> str:
    """Return the address of a private file that leads to a page.

    Every user of a machine can read the command line of a browser, and thus a token on it.
    """
    file = place / "open.html"
    file.touch(0o600)
    file.write_text(f'<meta http-equiv="refresh" content="0; url={address}">', encoding="utf-8")
    return file.as_uri()
