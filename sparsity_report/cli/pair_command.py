"""``sparsity-report pair``: two checkpoints, weight by weight."""

import json
from typing import Annotated, Any

import typer

from sparsity_report.cli.compared_models import check_paths
from sparsity_report.cli.options import PairOptions, dataclass_options
from sparsity_report.cli.terminal import print_line, print_warning, quiet_libraries, workers
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import check_folder
from sparsity_report.words.sentences import say

#: Weights from which compiling the loops pays, estimated from pairs of a tenth as many.
MANY = 10**9
# Suffixes of reports.
_REPORTS = (".html", ".pdf", ".md")
_MODEL = "Hub id, transformers directory, .safetensors or .gguf file"


@dataclass_options
def pair(
    before: Annotated[str, typer.Argument(help=f"Base model: {_MODEL}.", metavar="BEFORE")],
    after: Annotated[
        str, typer.Argument(help=f"Pruned or fine-tuned model: {_MODEL}.", metavar="AFTER")
    ],
    *,
    options: PairOptions,
) -> None:
    """Compare two checkpoints weight by weight: removed parts, and zeros kept, lost and gained.

    --base belongs to AFTER.
    """
    check_paths(before, after, options.base)
    for path in options.out:
        if path.suffix.lower() not in (*_REPORTS, ".json"):
            raise SparsityReportError(
                f"--out {path} has an unknown suffix; use {', '.join(_REPORTS)} or .json"
            )
    if options.thesis is not None:
        check_folder(options.thesis)
    import sparsity_report as sr
    from sparsity_report.pairing.value_loops import compiled_compare
    from sparsity_report.report.tables import checkpoint_tables
    from sparsity_report.report.tables.plain_text import to_text

    with quiet_libraries(), workers(options.workers) as executor:
        models: list[Any] = [before, after]
        if options.allow_pickle:
            models[0] = sr.load(before, allow_pickle=True)
        if any(options.opening.values()):
            models[1] = sr.load(after, **options.opening)
        study = sr.compare_checkpoints(*models, executor=executor)
    if study.totals["total"].iloc[0] >= MANY and compiled_compare() is None:
        print_warning("numba compares large models about twice as fast; run pip install numba")
    lines = [json.dumps(study.to_json())] if options.json else [*study.sentences()]
    for table in [] if options.json else checkpoint_tables.small(study):
        lines += ["", *to_text(table).splitlines()]
    for line in lines:
        print_line(line)
    for path in options.out:
        if path.suffix.lower() == ".json":
            study.save(path)
        else:
            sr.write_report(study, path, template_dir=options.template_dir)
    if options.thesis is not None:
        sr.write_thesis(study, options.thesis, template_dir=options.template_dir)
    written = [*map(str, options.out), *([f"{options.thesis}/*"] if options.thesis else [])]
    for name in [] if options.json else written:
        print_line(say("cli.written_path", path=name))
