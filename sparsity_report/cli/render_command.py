"""``sparsity-report render`` and ``diff``: reports of a saved study, and changes between two."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparsity_report.cli.options import DiffOptions, RenderOptions, dataclass_options
from sparsity_report.cli.outputs import check_files, check_outputs, give, write
from sparsity_report.files.filesystem import file_digest


@dataclass_options
def render(
    saved: Annotated[Path, typer.Argument(help="study.json of an earlier run.", metavar="STUDY")],
    *,
    outputs: RenderOptions,
) -> None:
    """Write the report, tables and figures of a saved study again, without the model."""
    import sparsity_report as sr

    check_outputs(outputs)
    loaded = sr.read_study(saved, strict=outputs.strict)
    write(loaded, outputs, file_digest(saved.resolve()) or "")


@dataclass_options
def diff(
    before: Annotated[Path, typer.Argument(help="study.json of an earlier run.")],
    after: Annotated[Path, typer.Argument(help="study.json of a later run.")],
    *,
    options: DiffOptions,
) -> None:
    """Print the changes between two studies; exit with 0 if there are none, 1 otherwise."""
    import sparsity_report as sr

    check_files(options.out, ".html", ".md", ".json")
    changed = sr.diff(*(sr.read_study(study, strict=options.strict) for study in (before, after)))
    names = (str(before), str(after))
    report = partial(sr.write_diff, changed, names=names, template_dir=options.template_dir)
    give(changed, changed.sentences(), options, report)
    raise typer.Exit(1 if changed else 0)
