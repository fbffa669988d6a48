"""``sparsity-report run`` and ``render``: reports of models or of a saved study.

A refused measurement does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsity_report.cli.compared_models import Compared, check_paths, compared, sets_zeros
from sparsity_report.cli.options import (
    Analysis,
    Choice,
    Models,
    Outputs,
    RenderOptions,
    dataclass_options,
)
from sparsity_report.cli.outputs import check_outputs, write
from sparsity_report.cli.terminal import print_time, print_warning, quiet_libraries, timed_bar
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files.filesystem import file_digest
from sparsity_report.weights.torch_extra import need_torch

if TYPE_CHECKING:
    import pandas as pd

    from sparsity_report.api.study import Study
    from sparsity_report.measure.clock import Clock


@dataclass_options
def run(models: Models = None, *, choice: Choice, outputs: Outputs, analysis: Analysis) -> None:
    """Count a model as Dense, Masked and CSR and write the report, tables and figures.

    Several policies or sparsities are compared as Dense and Masked, each policy at each sparsity.
    An already-pruned model is counted as it is unless --sparsity prunes it further. Of several
    models, the first is the base, and the others are compared with it as they are; --sparsity or
    --policy prunes the first as well.
    """
    check_paths(*(models or ()), analysis.base)
    _check(analysis, choice, len(models or ()))
    check_outputs(outputs)
    with quiet_libraries():
        study, refused = _studied(compared(models or [], choice, analysis), analysis)
        for note in study.notes:
            print_warning(printable(note))
        write(study, outputs)
    if refused:
        raise typer.Exit(2)


def _check(analysis: Analysis, choice: Choice, models: int) -> None:
    """Refuse contradictory options before counting."""
    from sparsity_report.cli.policy_grid import calibrates, check_experts, read_policies
    from sparsity_report.counting.pruning_policies import calibrated_names
    from sparsity_report.weights.sources.model_paths import is_imatrix

    choices = read_policies(choice.policy, choice.sparsity)
    if analysis.sensitivity not in {None, "block", "group", "layer"}:
        raise SparsityReportError(
            f"--sensitivity {analysis.sensitivity!r} is unknown; use block, group or layer"
        )
    scored = analysis.scores or analysis.sensitivity
    runs = None
    if calibrates(choices):
        runs = f"the policies {' and '.join(calibrated_names())}, which run it on a text"
    if choice.keep_experts is not None:
        runs = "--keep-experts"
    if analysis.latency or scored or analysis.prompt:
        runs = "--perplexity, --curve, --prompt, --latency and --sensitivity"
    if analysis.stream and runs:
        raise SparsityReportError(
            f"--stream keeps no copy of the model, so it cannot run; leave out --stream, or {runs}"
        )
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
    if analysis.protocol is not None and not scored:
        raise SparsityReportError("--protocol scores nothing; add --perplexity, or leave it out")
    if analysis.text is not None or scored:
        from sparsity_report.study.schema import PROTOCOLS

        if analysis.protocol not in {None, *PROTOCOLS}:
            raise SparsityReportError(
                f"--protocol {analysis.protocol!r} is unknown; use {', '.join(PROTOCOLS)}"
            )
    check_experts(choice, choices)
    asked: dict[str, Any] = {
        "--latency": analysis.latency, "--perplexity": analysis.scores or analysis.text,
        "--sensitivity": analysis.sensitivity, "--prompt": analysis.prompt,
        "--calibration": [text for text in choice.calibration if not is_imatrix(text)],
    }  # fmt: skip
    if needing := [name for name, value in asked.items() if value]:
        need_torch(needing[-1])
    _clock(analysis)
    if analysis.text is not None or scored:
        from sparsity_report.measure.protocols import Passages

        Passages({"text": analysis.text, "protocol": analysis.protocol})
    for text in asked["--calibration"]:
        from sparsity_report.measure.texts import names_file

        names_file(text)


def _clock(analysis: Analysis) -> Clock | None:
    """Return the clock of --latency, None without that option."""
    if not analysis.latency:
        if analysis.seconds is not None:
            raise SparsityReportError("--seconds times nothing; add --latency, or leave it out")
        return None
    from sparsity_report.measure.clock import Clock

    return Clock() if analysis.seconds is None else Clock(budget=analysis.seconds)


def _studied(given: Compared, analysis: Analysis) -> tuple[Study, bool]:
    """Compare and measure the variants; return the study, and True if a request was wrong."""
    import sparsity_report as sr

    variants = given.variants
    study = sr.compare(*variants, patterns=True)
    if clock := _clock(analysis):
        print_time("cli.timing", len(variants), clock.budget)
        study = study.with_measured(latency=sr.latency(variants, clock=clock))
    asked: dict[str, Callable[[], pd.DataFrame]] = {}
    if analysis.scores:
        asked["quality"] = partial(_quality, given, analysis)
    if analysis.sensitivity is not None:
        asked["sensitivity"] = partial(_sensitivity, given, analysis)
    if analysis.prompt:
        asked["continuations"] = partial(sr.continuations, variants, analysis.prompt)
    refused = False
    for name, measure in asked.items():
        try:
            study = study.with_measured(**{name: measure()})
        except SparsityReportError as error:
            from sparsity_report.measure.protocols import NoScoreError

            refused |= not isinstance(error, NoScoreError)
            if (note := str(error)) not in study.notes:
                study = replace(study, notes=(*study.notes, note))
    return study, refused


def _quality(given: Compared, analysis: Analysis) -> pd.DataFrame:
    """Score a text with the variants; with --curve, at each tenth of sparsity, too."""
    import sparsity_report as sr

    scored = list(given.variants)
    if analysis.curve:
        if given.at_level is None:
            raise SparsityReportError(
                "--curve prunes by a policy at every 10 %, and none is chosen; add --sparsity"
            )
        known = {variant.name for variant in scored}
        steps = filter(sets_zeros, (given.at_level(step / 10) for step in range(1, 10)))
        scored += [step for step in map(sr.masked, steps) if step.name not in known]
    with timed_bar("scoring", "cli.scoring", len(scored)) as progress:
        return sr.perplexity(scored, analysis.text, protocol=analysis.protocol, progress=progress)


def _sensitivity(given: Compared, analysis: Analysis) -> pd.DataFrame:
    """Score a text with one part pruned at a time."""
    import sparsity_report as sr

    pruning, by = next(iter(given.prunings), None), analysis.sensitivity or "block"
    if pruning is None or pruning.target is None:
        raise SparsityReportError(
            "--sensitivity prunes one part at a time; add --sparsity with a share above that of "
            "the zeros that the model has"
        )
    with timed_bar("pruning parts", "cli.scoring_parts", 1) as progress:
        return sr.sensitivity(
            pruning.weights, pruning.sparsity, by,
            text=analysis.text, protocol=analysis.protocol, progress=progress,
        )  # fmt: skip


@dataclass_options
def render(
    saved: Annotated[
        Path, typer.Argument(help="study.json of a run, or log of track().", metavar="STUDY")
    ],
    *,
    outputs: RenderOptions,
) -> None:
    """Write the report, tables and figures of a saved study again, without the model."""
    if not saved.exists():
        raise SparsityReportError(f"{saved}: no such file; give a study.json or a log of track()")
    check_outputs(outputs)
    import sparsity_report as sr

    loaded = sr.read_study(saved, strict=outputs.strict)
    write(loaded, outputs, file_digest(saved.resolve()) or "")
