"""``sparsity-report notebook``: execute a notebook and export it."""

from pathlib import Path
from typing import Annotated

import typer

from sparsity_report.cli.options import NotebookOptions, dataclass_options
from sparsity_report.cli.outputs import check_writable
from sparsity_report.cli.terminal import tell


@dataclass_options
def notebook(
    model: Annotated[
        str | None, typer.Argument(help="Model, as for run. [default: the demo model]")
    ] = None,
    *,
    export: NotebookOptions,
) -> None:
    """Execute a notebook on a model and export it with its outputs."""
    from sparsity_report.cli.policy_grid import read_sparsity

    level = read_sparsity(export.sparsity)
    check_writable(export.out)
    import sparsity_report as sr

    target = export.out / f"{Path(export.notebook).stem}.{export.to}"
    sr.write_notebook(
        model,
        target,
        notebook=export.notebook,
        sparsity=level,
        hide_inputs=export.hide_inputs,
        language=export.language,
        template_dir=export.template_dir,
    )
    tell(f"Written to {target}")
