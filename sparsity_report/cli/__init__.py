"""The command line: ``run_command``, ``pair_command``, ``render_command``, ``diff_command``, ``explore_command``, ``notebook_command``, in rooms.

The commands call the functions of the package: ``compared_models`` opens and prunes models, ``measurements``
measures, ``outputs`` writes and opens the page, ``terminal`` says what has to be heard; only that
room prints. ``options`` are values whose fields are options, and ``dataclass_options`` shows them to typer.
``signals`` end a run whole, ``worker_processes`` count beside it, ``libraries`` are imported late: nothing
heavy before a command runs, so that ``--help`` and the shell's completion are quick.
"""

from __future__ import annotations

import io
import signal
import sys
from typing import Annotated, Any

import typer

from sparsity_report import __version__
from sparsity_report.cli import (
    diff_command,
    explore_command,
    notebook_command,
    pair_command,
    render_command,
    run_command,
)
from sparsity_report.cli.dataclass_options import spread
from sparsity_report.cli.signals import PIPE, Stopped, stoppable
from sparsity_report.cli.terminal import complain, flush, tell
from sparsity_report.errors import SparsityReportError, within_memory

app = typer.Typer(
    name="sparsity-report",
    help="Open a Transformer and see exactly what pruning does to it as Dense, Masked and CSR.",
    epilog="Exit codes: 0 done; 1 diff found changes; 2 bad input, or something could not be "
    "written; 130 Ctrl-C, 143 SIGTERM.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# Wrong options and arguments; typer does not export what they have in common.
_UsageError: Any = typer.BadParameter.__base__

# What to do where memory runs out.
_LESS = "give it more, or leave out what takes most: --no-patterns, --no-png, --no-html, --workers"

for command in (
    run_command.run,
    pair_command.pair,
    render_command.render,
    diff_command.diff,
    explore_command.explore,
    notebook_command.notebook,
):
    app.command()(spread(command))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sparsity-report {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; bad input ends with one line and exit code 2."""
    code = 0
    with stoppable():
        try:
            try:
                with within_memory("this run", _LESS):
                    code = app(standalone_mode=False) or 0
            finally:
                flush()
        except SparsityReportError as error:
            complain(str(error))
            code = 2
        except _UsageError as error:
            said = io.StringIO()
            error.show(said)  # with what was given, which may be the name of a file
            for line in said.getvalue().rstrip("\n").split("\n"):
                tell(line, sys.stderr)
            code = error.exit_code
        except OSError as error:  # of the machine, where nothing more is known about it
            complain(f"{error.filename or 'the system'}: {error.strerror or error}")
            code = 2
        except Stopped as stopped:
            (number,) = stopped.args
            if number != PIPE:
                complain(f"stopped by {signal.Signals(number).name}")
            code = 128 + number
    sys.exit(code)
