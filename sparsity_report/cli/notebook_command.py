"""``sparsity-report notebook``: execute a notebook and export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsity_report.cli.options import Export
from sparsity_report.cli.outputs import check_writable
from sparsity_report.cli.terminal import tell
from sparsity_report.errors import SparsityReportError
from sparsity_report.words.number_format import read_share


def notebook(
    model: Annotated[str | None, typer.Argument(help="As for run; nothing: the demo.")] = None,
    *,
    export: Export,
) -> None:
    """Execute a notebook on a model and export it with its outputs."""
    level = _share(export.sparsity)
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


def _share(text: str) -> float:
    try:
        share = read_share(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise SparsityReportError(
            f"--sparsity must be a number from 0 to 1, or 0% to 100%, not {text!r}"
        )
    return share
