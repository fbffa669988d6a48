"""``sparsity-report run`` and ``render``: reports of models or of a saved study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsity_report.cli.compared_models import check_paths, compared
from sparsity_report.cli.libraries import quiet_libraries
from sparsity_report.cli.measurements import clock_of, studied
from sparsity_report.cli.options import (
    Analysis,
    Choice,
    Models,
    Outputs,
    RenderOptions,
    dataclass_options,
)
from sparsity_report.cli.outputs import check_outputs, print_notes, write
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.filesystem import file_digest


@dataclass_options
def run(
    models: Models = None,
    *,
    choice: Choice,
    outputs: Outputs,
    analysis: Analysis,
) -> None:
    """Count a model as Dense, Masked and CSR and write the report, tables and figures.

    Several policies or sparsities are compared as Dense and Masked, each policy at each sparsity.
    An already-pruned model is counted as it is unless --sparsity prunes it further. Of several
    models, the first is the base, and the others are compared with it as they are; --sparsity or
    --policy prunes the first as well.
    """
    check_paths(*(models or ()), analysis.base)
    check_outputs(outputs)
    _check(analysis, choice, len(models or ()))
    with quiet_libraries():
        study, refused = studied(compared(models or [], choice, analysis), analysis)
        print_notes(study)
        write(study, outputs)
    if refused:
        raise typer.Exit(2)


def _check(analysis: Analysis, choice: Choice, models: int) -> None:
    """Refuse contradictory options before counting."""
    from sparsity_report.cli.policy_grid import calibrates, check_experts, read_policies
    from sparsity_report.counting.policies.policy_registry import calibrated_names

    choices = read_policies(choice.policy, choice.sparsity)
    if analysis.sensitivity not in {None, "block", "group", "layer"}:
        raise SparsityReportError(
            f"--sensitivity {analysis.sensitivity!r} is unknown; use block, group or layer"
        )
    clock_of(analysis)
    scored = analysis.scores or analysis.sensitivity
    runs = None
    if calibrates(choices):
        runs = f"the policies {' and '.join(calibrated_names())}, which run it on a text"
    if choice.keep_experts is not None:
        runs = "--keep-experts"
    if analysis.latency is not None or scored or analysis.prompt:
        runs = "--perplexity, --curve, --prompt, --latency and --sensitivity"
    if analysis.stream and runs:
        raise SparsityReportError(
            f"--stream keeps no copy of the model, so it cannot run; leave out --stream, or {runs}"
        )
    check_experts(choice, choices)
    policies = {policy for policy, _ in choices}
    if analysis.curve and (len(policies) > 1 or any(policy.pattern for policy in policies)):
        raise SparsityReportError(
            "--curve prunes by one policy at every 10 %; give one without a pattern, or leave it "
            "out"
        )
    if analysis.curve and models > 1 and not (choice.sparsity or choice.policy):
        raise SparsityReportError(
            "--curve prunes the first model, and several are compared as they are; add --sparsity, "
            "or leave it out"
        )
    if analysis.text is not None or scored:
        from sparsity_report.study.schema import PROTOCOLS

        if analysis.protocol not in {None, *PROTOCOLS}:
            raise SparsityReportError(
                f"--perplexity {analysis.protocol!r} is no protocol; use {', '.join(PROTOCOLS)}; "
                "if it is a model, put it before the options"
            )
        from sparsity_report.measure.protocols import Passages

        Passages({"text": analysis.text, "protocol": analysis.protocol})
    if choice.calibration is not None:
        from sparsity_report.measure.texts import names_file

        names_file(choice.calibration)


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
