"""The program of all commands, with its options, errors and exit codes."""

import shlex
import sys
import warnings
from typing import Annotated, Any

import typer
import typer.core

import sparsity_report
from sparsity_report.cli.check_command import check
from sparsity_report.cli.count_command import count
from sparsity_report.cli.explore_command import explore
from sparsity_report.cli.notebook_command import notebook
from sparsity_report.cli.options import PANELS
from sparsity_report.cli.pair_command import pair
from sparsity_report.cli.prune_command import expand, prune
from sparsity_report.cli.run_command import render, run
from sparsity_report.cli.terminal import flush, print_line, print_warning
from sparsity_report.errors import SparsityReportError, within_memory
from sparsity_report.study.provenance import COMMAND
from sparsity_report.weights.torch_extra import TORCH_COMMAND

app = typer.Typer(
    name="sparsity-report",
    help="Open a Transformer and see exactly what pruning does to it as Dense, Masked and CSR.",
    epilog="Exit codes: 0 done; 1 check found violations; 2 bad input, or "
    "something could not be written; 130 Ctrl-C, 143 SIGTERM.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# Base class of errors about options and arguments, which typer does not export.
_UsageError: Any = typer.BadParameter.__base__

# Advice when memory runs out.
_LESS = "use a machine with more, or --write csv,study, or fewer --workers"


class _PanelCommand(typer.core.TyperCommand):
    """A command whose help has its options under headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options of each panel."""
        panels: dict[str, list[Any]] = {title: [] for title in ("Arguments", *PANELS, "Help")}
        for parameter in self.get_params(ctx):
            rest = "Arguments" if parameter.param_type_name == "argument" else "Help"
            panel = getattr(parameter, "rich_help_panel", None) or rest
            name, text = parameter.get_help_record(ctx) or ("", "")
            panels[panel].append((name.partition(" <")[0] if rest == "Arguments" else name, text))
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


commands = (run, count, pair, check, prune, expand, render, explore, notebook)
for command in commands:
    app.command(cls=_PanelCommand)(command)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"sparsity-report {sparsity_report.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def execute() -> int:
    """Run the command of the command line; print errors and return the exit code."""
    try:
        try:
            with warnings.catch_warnings(), within_memory("this run", _LESS):
                COMMAND.set(shlex.join([str(app.info.name), *sys.argv[1:]]))
                warnings.showwarning = lambda message, *_: print_warning(str(message))
                return app(prog_name=app.info.name, standalone_mode=False) or 0
        finally:
            COMMAND.set(None)
            flush()
    except SparsityReportError as error:
        print_warning(str(error))
        return 2
    except _UsageError as error:
        message = error.format_message()
        if "\n" in message:  # the help, where no command is named
            for line in message.split("\n"):
                print_line(line, sys.stderr)
        else:
            place = error.ctx.command_path if error.ctx else app.info.name
            print_warning(f"{message.rstrip('.')}; see {place} --help")
        return int(error.exit_code)
    except ModuleNotFoundError as error:
        is_extra = error.name in {"torch", "transformers"}
        advice = TORCH_COMMAND if is_extra else f"run pip install {error.name}"
        print_warning(f"{error.name} is not installed; {advice}")
        return 2
    except OSError as error:  # the system failed outside any file of ours
        print_warning(f"{error.filename or 'the system'}: {error.strerror or error}")
        return 2
