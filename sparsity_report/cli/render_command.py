"""``sparsity-report render``: reports of a saved study."""

from pathlib import Path
from typing import Annotated

import typer

from sparsity_report.cli.options import RenderOptions, dataclass_options
from sparsity_report.cli.outputs import check_outputs, write
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
