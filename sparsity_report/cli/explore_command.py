"""``sparsity-report explore``: the explorer as a local page, without a notebook."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import typer

from sparsity_report.cli.compared_models import check_paths, opened, others, pruned
from sparsity_report.cli.libraries import quiet_libraries
from sparsity_report.cli.options import Analysis, Choice, ExploreOptions, Model, dataclass_options
from sparsity_report.cli.signals import Stopped
from sparsity_report.cli.terminal import flush, open_page, tell
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.untrusted.display_text import clip

if TYPE_CHECKING:
    from sparsity_report.study.comparison import Study

_NEEDED = ("voila", "ipykernel")
_PREFIX = "sparsity-report-"
# Most seconds for the server to start and to end.
_START, _END = 60.0, 10.0
_SERVER = "sparsity_report.cli.page_server"
# Sockets need short paths; other systems have TCP only.
_SOCKETS = "/tmp" if hasattr(socket, "AF_UNIX") else None


@dataclass_options
def explore(
    model: Model = None,
    *,
    choice: Choice,
    options: ExploreOptions,
) -> None:
    """Serve the explorer of a model as a page on this machine until Ctrl-C."""
    check_paths(model, *choice.also, options.base)
    if options.kernel and not all(map(find_spec, _NEEDED)):
        raise SparsityReportError(
            "explore --kernel needs more libraries; run pip install voila ipykernel"
        )
    with quiet_libraries():
        given = {"model": model, "choice": asdict(choice), "files": options.opening, "cache": None}
        try:
            if options.kernel:
                _run_kernel(given, options.language, options.shown)
            else:
                _run_page(given, options.shown)
        except Stopped as stopped:
            if stopped.args[0] != signal.SIGINT:
                raise
            raise typer.Exit from None


def _run_page(given: Mapping[str, Any], shown: bool) -> None:
    """Serve a page that holds all it shows."""
    from sparsity_report.cli.loopback_server import PageServer  # loads an HTTP server
    from sparsity_report.report.explore_page import explorer_page

    study = explored(given)
    with PageServer(*explorer_page(study)) as server:
        _announce(study, server.address)
        if not shown:
            server.serve()
            return
        with (folder := TemporaryDirectory(prefix=_PREFIX)) as place:
            open_page(_redirect(Path(place), server.address))
            server.serve(folder.cleanup)


def _run_kernel(given: dict[str, Any], language: str, shown: bool) -> None:
    """Serve the explorer with a kernel until it ends."""
    with TemporaryDirectory(prefix=_PREFIX) as folder:
        place = Path(folder)
        # Errors show here, and the page finds the counts in the cache.
        given |= {"cache": str(place / "counts")}
        study = explored(given)
        with _served(place, _notebook(given, language)) as (server, address):
            _announce(study, address)
            if shown:
                open_page(_redirect(place, address))
            server.wait()
            raise _server_error(place, "ended")


def _announce(study: Study, address: str) -> None:
    name = clip(study.variants["model"].iloc[0])
    tell(f"Explorer of {name}: {address} (Ctrl-C ends it)")
    flush()


def explored(given: Mapping[str, Any]) -> Study:
    """Count and prune a model by the options of ``explore``, here or in the kernel of the page."""
    import sparsity_report as sr
    from sparsity_report.cli.policy_grid import Grid

    choice = Choice(**given["choice"])
    analysis = Analysis(cache=given["cache"] and Path(given["cache"]), **given["files"])
    grid = Grid.parse(choice.policy, choice.sparsity)
    (weights,) = opened([given["model"]] if given["model"] else [], analysis)
    pruned_models = others(choice.also, analysis)
    return sr.compare(*pruned(weights, choice, grid, analysis).variants, *pruned_models)


def _notebook(given: Mapping[str, Any], language: str) -> str:
    """Return a notebook with one cell that shows the explorer."""
    import nbformat

    cell = (
        "import sparsity_report as sr\n"
        "from sparsity_report.cli.explore_command import explored\n\n"
        f"speaking = sr.speaking({language!r})\n"
        "speaking.__enter__()\n"
        f"sr.explore(explored({dict(given)!r}))"
    )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells, metadata = [nbformat.v4.new_code_cell(cell)], {"kernelspec": kernel}
    return str(nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=metadata)))


def _redirect(place: Path, address: str) -> str:
    """Return the address of a private file that leads to a page.

    Every user of a machine can read the command line of a browser, and thus a token on it.
    """
    file = place / "open.html"
    file.touch(0o600)
    file.write_text(f'<meta http-equiv="refresh" content="0; url={address}">', encoding="utf-8")
    return file.as_uri()


@contextmanager
def _served(place: Path, notebook: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Serve a notebook on this machine behind a secret token, until the block ends."""
    # The server shows files of this folder, so nothing else is in it.
    source = place / "page" / "explorer.ipynb"
    source.parent.mkdir()
    source.write_text(notebook, encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_urlsafe(24)
    (place / "config").mkdir()
    with TemporaryDirectory(prefix="sr-", dir=_SOCKETS) as sockets:
        options = _settings(port, token, sockets)
        (place / "config" / "voila.json").write_text(json.dumps(options), encoding="utf-8")
        disposable = os.pathsep.join((sockets, str(place)))
        command = [sys.executable, "-m", _SERVER, disposable, str(source), "--no-browser"]
        command += ["--Voila.ip=127.0.0.1", f"--port={port}", "--Voila.port_retries=0"]
        command += [f"--Voila.config_file_paths={place / 'config'}"]
        environment = os.environ | {"IPYTHONDIR": str(place / "ipython"), "TMPDIR": str(place)}
        for part in ("CONFIG", "DATA", "RUNTIME"):
            environment[f"JUPYTER_{part}_DIR"] = str(place / part.lower())
        environment["TQDM_DISABLE"] = "1"  # finished bars would stay in the page
        with (place / "log").open("wb") as log:
            server = subprocess.Popen(
                command, cwd=source.parent, env=environment, stdin=subprocess.PIPE,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            _wait_for(server, port, place)
            yield server, f"http://127.0.0.1:{port}/?token={token}"
        finally:
            cast(BinaryIO, server.stdin).close()
            try:
                server.wait(_END)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _settings(port: int, token: str, sockets: str) -> dict[str, Any]:
    """Return the settings of the server, which are secret because they hold the token."""
    # Keeps the page of Voilà from loading fonts and icons from other hosts.
    policy = f"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob: ws://127.0.0.1:{port}"
    # Only names of this machine pass as Host, only its own pages as Origin.
    tornado = {"headers": {"Content-Security-Policy": policy}, "allow_remote_access": False}
    voila = {"token": token, "tornado_settings": tornado, "connection_dir_root": sockets}
    kernel = {"transport": "ipc"} if _SOCKETS else {}
    return {"Voila": voila, "KernelManager": kernel}


def _wait_for(server: subprocess.Popen[bytes], port: int, place: Path) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise _server_error(place, "did not start")


def _server_error(place: Path, event: str) -> SparsityReportError:
    """Return the error of a server, with the last line of its log."""
    lines = (place / "log").read_text(encoding="utf-8", errors="replace").split("\n")
    last = printable(next((line for line in lines[::-1] if line.strip()), "its log is empty"), 300)
    return SparsityReportError(f"the server of the page {event}: {last}; run the command again")
