"""``sparsity-report run``: count models; write reports, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from sparsity_report.cli.compared_models import check_paths, opened, others, pruned
from sparsity_report.cli.libraries import quiet_libraries
from sparsity_report.cli.measurements import clock_of, studied
from sparsity_report.cli.options import Analysis, Choice, Outputs, dataclass_options
from sparsity_report.cli.outputs import check_outputs, remark, write
from sparsity_report.errors import SparsityReportError

if TYPE_CHECKING:
    from sparsity_report.cli.policy_grid import Grid
    from sparsity_report.study.comparison import Study


@dataclass_options
def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Hub ids, transformers directories, .safetensors or .gguf files. "
            "[default: the demo model]",
            metavar="MODEL",
        ),
    ] = None,
    *,
    choice: Choice,
    outputs: Outputs,
    analysis: Analysis,
) -> None:
    """Count a model as Dense, Masked and CSR and write the report, tables and figures.

    Several policies or sparsities are compared as Dense and Masked, each policy at each sparsity.
    Further models are compared with the first one as they are, and nothing is pruned unless
    --policy or --sparsity prunes the first. An already-pruned model is counted as it is unless
    --sparsity prunes it further.
    """
    first, choice = (models or [])[:1], replace(choice, also=[*(models or [])[1:], *choice.also])
    check_paths(*first, *choice.also, analysis.base)
    from sparsity_report.cli.policy_grid import Grid

    grid = Grid.parse(choice.policy, choice.sparsity)
    check_outputs(outputs)
    _check(analysis, choice, grid)
    with quiet_libraries():
        study, refused = _study(first, choice, grid, analysis)
        remark(study)
        write(study, outputs)
    if refused:
        raise typer.Exit(2)


def _study(
    models: Sequence[str], choice: Choice, grid: Grid, analysis: Analysis
) -> tuple[Study, bool]:
    """Study a model together with other models, which are compared as they are."""
    (weights,) = opened(models, analysis)
    pruned_models = others(choice.also, analysis)
    compared = pruned(weights, choice, grid, analysis)
    compared = replace(compared, variants=(*compared.variants, *pruned_models))
    return studied(compared, analysis)


def _check(analysis: Analysis, choice: Choice, grid: Grid) -> None:
    """Refuse contradictory options before counting."""
    from sparsity_report.cli.policy_grid import check_experts

    if analysis.sensitivity not in {None, "block", "group", "layer"}:
        raise SparsityReportError(
            f"--sensitivity {analysis.sensitivity!r} is unknown; use block, group or layer"
        )
    clock_of(analysis)
    scored = analysis.perplexity or analysis.sensitivity
    runs = None
    if grid.calibrates:
        runs = "the policies wanda and owl, which run it on a text"
    if choice.keep_experts is not None:
        runs = "--keep-experts"
    if analysis.latency or scored or analysis.prompt:
        runs = "--latency, --perplexity, --sensitivity and --prompt"
    if analysis.stream and runs:
        raise SparsityReportError(
            f"--stream keeps no copy of the model, so it cannot run; leave out --stream, or {runs}"
        )
    check_experts(choice, grid.calibrates)
    if analysis.cache_verify and analysis.cache is None:
        raise SparsityReportError("--cache-verify has no folder; add --cache")
    if analysis.protocol is not None and not scored:
        raise SparsityReportError("--protocol has no effect; add --perplexity or --sensitivity")
    if analysis.text is not None or scored:
        from sparsity_report.measure.protocols import Passages

        Passages({"text": analysis.text, "protocol": analysis.protocol})
    if choice.calibration is not None:
        from sparsity_report.measure.texts import names_file

        names_file(choice.calibration)
