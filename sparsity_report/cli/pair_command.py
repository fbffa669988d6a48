"""``sparsity-report pair``: two checkpoints, weight by weight."""

from functools import partial
from typing import Annotated, Any

import typer

from sparsity_report.cli.compared_models import check_paths
from sparsity_report.cli.libraries import import_altair, quiet_libraries
from sparsity_report.cli.options import PairOptions, dataclass_options
from sparsity_report.cli.outputs import check_files, write_pair
from sparsity_report.cli.terminal import print_warning
from sparsity_report.cli.worker_processes import workers
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import check_folder

#: Weights from which compiling the loops pays, estimated from pairs of a tenth as many.
MANY = 10**9
# Suffixes of reports of a pair.
_REPORTS = (".html", ".pdf", ".md")
_MODEL = "Hub id, transformers directory, .safetensors or .gguf file"


@dataclass_options
def pair(
    before: Annotated[str, typer.Argument(help=f"Base model: {_MODEL}.")],
    after: Annotated[str, typer.Argument(help=f"Pruned or fine-tuned model: {_MODEL}.")],
    *,
    options: PairOptions,
) -> None:
    """Compare two checkpoints weight by weight: removed parts, and zeros kept, lost and gained.

    --base applies to both models if it is given once, to one each if given twice.
    """
    check_paths(before, after, *options.base)
    import sparsity_report as sr
    from sparsity_report.pairing.value_loops import fastest_loops
    from sparsity_report.report.tables import pair_tables
    from sparsity_report.report.tables.plain_text import to_text

    check_files(options.out, *_REPORTS, ".json")
    if options.thesis is not None:
        check_folder(options.thesis)
    if options.thesis or any(path.suffix.lower() in _REPORTS for path in options.out):
        import_altair()
    with quiet_libraries(), workers(options.workers) as executor:
        models = _opened(before, after, options)
        comparison = sr.compare_checkpoints(*models, executor=executor, cache=options.cache)
    if comparison.before["total"].sum() >= MANY and not fastest_loops().is_compiled:
        print_warning("numba compares large models about twice as fast; run pip install numba")
    lines = comparison.sentences()
    for table in pair_tables.small(comparison):
        lines += ["", *to_text(table).splitlines()]
    report = partial(sr.write_report, comparison, template_dir=options.template_dir)
    thesis = partial(sr.write_thesis, comparison, template_dir=options.template_dir)
    folders = {options.thesis: thesis} if options.thesis else {}
    write_pair(comparison, lines, options, report, folders)


def _opened(first: str, second: str, options: PairOptions) -> list[Any]:
    """Open the models for which there are reading options; others stay paths."""
    import sparsity_report as sr

    openings = options.openings
    if options.adapter:
        if openings[1]["base"]:
            raise SparsityReportError(
                "--adapter opens BEFORE as the base of AFTER; leave out --base, or --adapter"
            )
        openings[1]["base"] = first
    given = zip((first, second), openings, strict=True)
    return [sr.load(each, **opening) if any(opening.values()) else each for each, opening in given]
