"""The command line.

- `run_command`, `pair_command`, `render_command`, `diff_command`, `explore_command`,
  `notebook_command`: one command each.
- `options`: the options of the commands in dataclasses, and these for typer.
- `compared_models`: models to open and prune. `policy_grid`: policies by name and their levels.
- `measurements`: scores and times of a study. `outputs`: files of a study or pair.
- `terminal`: lines, warnings and progress bars; no other module prints.
- `signals`: Ctrl-C and SIGTERM as an exception. `worker_processes`: processes that count.
- `libraries`: late imports, so that ``--help`` and completion start quickly.
"""

import io
import signal
import sys
from typing import Annotated, Any

import typer

from sparsity_report import __version__
from sparsity_report.cli.diff_command import diff
from sparsity_report.cli.explore_command import explore
from sparsity_report.cli.notebook_command import notebook
from sparsity_report.cli.pair_command import pair
from sparsity_report.cli.render_command import render
from sparsity_report.cli.run_command import run
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

# Base class of errors about options and arguments, which typer does not export.
_UsageError: Any = typer.BadParameter.__base__

# Advice when memory runs out.
_LESS = "use a machine with more, or add --no-patterns, --no-png, --no-html, or fewer --workers"

for command in (run, pair, render, diff, explore, notebook):
    app.command()(command)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"sparsity-report {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
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
            message = io.StringIO()
            error.show(message)  # may quote the name of a file
            for line in message.getvalue().rstrip("\n").split("\n"):
                tell(line, sys.stderr)
            code = error.exit_code
        except OSError as error:  # the system failed outside any file of ours
            complain(f"{error.filename or 'the system'}: {error.strerror or error}")
            code = 2
        except Stopped as stopped:
            (number,) = stopped.args
            if number != PIPE:
                complain(f"stopped by {signal.Signals(number).name}")
            code = 128 + number
    sys.exit(code)
