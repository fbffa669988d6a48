"""``sparsity-report diff``: what changed between two studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsity_report.cli.options import Telling
from sparsity_report.cli.terminal import speak, tell


def diff(
    ctx: typer.Context,
    before: Annotated[Path, typer.Argument(help="study.json of an earlier run.")],
    after: Annotated[Path, typer.Argument(help="study.json of a later run.")],
    *,
    telling: Telling,
) -> None:
    """Say what changed and moved between two studies; exits with 0 for nothing, 1 for a change."""
    import sparsity_report as sr

    speak(ctx, telling.language, telling.template_dir)
    changed = sr.diff(*(sr.read_study(study, strict=telling.strict) for study in (before, after)))
    for sentence in changed.sentences():
        tell(sentence)
    if telling.html is not None:
        names = (str(before), str(after))
        sr.write_diff(changed, telling.html, names=names, template_dir=telling.template_dir)
    raise typer.Exit(1 if changed else 0)
