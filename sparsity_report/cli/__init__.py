"""The command line.

- `application`: all commands as one program, and exit codes.
- `run_command` (also ``render``), `count_command`, `check_command`, `pair_command`,
  `prune_command` (also ``expand``), `explore_command`, `notebook_command`: the commands.
- `options`: the options of the commands in dataclasses, and these for typer.
- `compared_models`: models to open, prune and compare. `policy_grid`: policies by name, their
  levels, and experts to keep.
- `outputs`: files of a study.
- `terminal`: lines and warnings; no other module prints. Silence of libraries; Ctrl-C and SIGTERM
  as an exception; processes that count files.

Commands import libraries late, so that ``--help`` and completion start quickly.
"""

import signal
import sys

from sparsity_report.cli.terminal import PIPE, Stopped, print_warning, stoppable


def main() -> None:
    """Run the command line; bad input ends with one line and exit code 2."""
    with stoppable():
        try:
            from sparsity_report.cli.application import execute  # slow enough to be interrupted

            code = execute()
        except Stopped as stopped:
            (number,) = stopped.args
            if number != PIPE:
                print_warning(f"stopped by {signal.Signals(number).name}")
            code = 128 + number
    sys.exit(code)
