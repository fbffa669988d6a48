"""``sparsity-report pair``: what was taken away between two checkpoints."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sparsity_report.cli.libraries import quiet_libraries
from sparsity_report.cli.options import Pairing
from sparsity_report.cli.outputs import check_pair_outputs, write_pair_outputs
from sparsity_report.cli.terminal import bar, speak, tell
from sparsity_report.cli.worker_processes import workers

_MODEL = "Hub id, transformers directory, .safetensors or .gguf file"


def pair(
    ctx: typer.Context,
    before: Annotated[str, typer.Argument(help=f"{_MODEL}: the base.")],
    after: Annotated[str, typer.Argument(help=f"{_MODEL}: what became of it.")],
    *,
    pairing: Pairing,
) -> None:
    """Compare two checkpoints weight by weight: what was taken away, what became of the zeros."""
    import sparsity_report as sr
    from sparsity_report.report.tables import pair_tables
    from sparsity_report.report.tables.plain_text import to_text

    speak(ctx, pairing.language, pairing.template_dir)
    check_pair_outputs(pairing)
    with quiet_libraries(), workers(pairing.workers) as executor:
        models: list[Any] = [before, sr.load(after, base=before) if pairing.adapter else after]
        with bar("comparing") as progress:
            found = sr.compare_checkpoints(
                *models, executor=executor, cache=pairing.cache, progress=progress
            )
    for sentence in found.sentences():
        tell(sentence)
    for table in pair_tables.small(found):
        tell("")
        for line in to_text(table).splitlines():
            tell(line)
    write_pair_outputs(found, pairing)
