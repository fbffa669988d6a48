"""``sparsity-report run``: count models and write everything about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from sparsity_report.cli.compared_models import opened, others, pruned
from sparsity_report.cli.libraries import quiet_libraries
from sparsity_report.cli.measurements import clock_of, studied
from sparsity_report.cli.options import Analysis, Choice, Outputs
from sparsity_report.cli.outputs import check_outputs, remark, write
from sparsity_report.cli.terminal import speak
from sparsity_report.errors import SparsityReportError

if TYPE_CHECKING:
    from sparsity_report.cli.policy_grid import Grid
    from sparsity_report.study.comparison import Comparison


def run(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Hub id, transformers directory, .safetensors or .gguf file; several are "
            "compared. Nothing: the built-in demo model.",
            metavar="MODEL",
        ),
    ] = None,
    *,
    choice: Choice,
    outputs: Outputs,
    analysis: Analysis,
) -> None:
    """Count a model as Dense, Masked and CSR and write the report, tables and figures.

    Of several prunings, every --policy at every --sparsity, it compares Dense and Masked; several
    models are compared in one report.
    """
    from sparsity_report.cli.policy_grid import Grid

    grid = Grid.of(choice.policy, choice.sparsity)
    speak(ctx, outputs.language, outputs.template_dir)
    check_outputs(outputs)
    _check(analysis, choice, grid, len(models or ()))
    with quiet_libraries():
        study, refused = _study(models or [], choice, grid, analysis)
        remark(study)
        write(study, outputs)
    if refused:
        raise typer.Exit(2)


def _study(
    models: Sequence[str], choice: Choice, grid: Grid, analysis: Analysis
) -> tuple[Comparison, bool]:
    """Study each model, the first with those pruned elsewhere, and put the studies together."""
    import sparsity_report as sr

    weights = opened(models, analysis)
    elsewhere = others(choice.also, analysis)
    studies: list[Comparison] = []
    refused = False
    for model in weights:
        compared = pruned(model, choice, grid, analysis)
        if not studies:
            compared = replace(compared, variants=(*compared.variants, *elsewhere))
        study, wrong = studied(compared, analysis)
        studies.append(study)
        refused |= wrong
    return studies[0] if len(studies) == 1 else sr.combine(*studies), refused


def _check(analysis: Analysis, choice: Choice, grid: Grid, models: int) -> None:
    """Refuse options that contradict each other before minutes of counting, not after."""
    if analysis.sensitivity not in {None, "block", "group", "layer"}:
        raise SparsityReportError(
            f"--sensitivity must be block, group or layer, not {analysis.sensitivity!r}"
        )
    clock_of(analysis)
    if models > 1:
        _check_of_one(analysis)
    scored = analysis.perplexity or analysis.sensitivity
    if analysis.stream and (analysis.latency or scored or analysis.prompt is not None):
        raise SparsityReportError(
            "--stream keeps no copy of a model, so nothing can be run: leave it out, or --latency, "
            "--perplexity, --sensitivity and --prompt"
        )
    if analysis.stream and grid.calibrates:
        raise SparsityReportError(
            "--stream keeps no copy of a model, so nothing can be run: leave it out, or the "
            "policies wanda and owl, which run it on a text"
        )
    if choice.calibration is not None and not grid.calibrates:
        raise SparsityReportError("--calibration is read by the policies wanda and owl alone")
    if analysis.cache_verify and analysis.cache is None:
        raise SparsityReportError("--cache-verify needs --cache, the folder to verify")
    if analysis.protocol is not None and not scored:
        raise SparsityReportError("--protocol needs --perplexity or --sensitivity")
    if analysis.zstd:
        from sparsity_report.study.zstd_sizes import check_zstd

        check_zstd()
    if analysis.text is not None or scored:
        from sparsity_report.measure.protocols import Passages

        # Refused before minutes of counting, not after.
        Passages({"text": analysis.text, "protocol": analysis.protocol})
    if choice.calibration is not None:
        from sparsity_report.measure.texts import names_file

        names_file(choice.calibration)


def _check_of_one(analysis: Analysis) -> None:
    """Refuse what is of one model, or measured of one, where there are several."""
    given = ("name", "base", "file", "subfolder", "revision", "latency", "sensitivity")
    if one := [f"--{name}" for name in given if getattr(analysis, name)]:
        raise SparsityReportError(
            f"{', '.join(one)}: for one model; leave it out, or run each model by itself and put "
            "the studies together by sr.combine"
        )
