"""``sparsity-report pair`` and ``distance``: two models, their weights or their predictions."""

import json
from typing import Annotated, Any

import typer

from sparsity_report.cli.compared_models import check_paths
from sparsity_report.cli.libraries import quiet_libraries
from sparsity_report.cli.options import DistanceOptions, PairOptions, dataclass_options
from sparsity_report.cli.outputs import check_pair_outputs, write_pair_outputs
from sparsity_report.cli.terminal import complain, tell
from sparsity_report.cli.worker_processes import workers

#: Weights from which compiling the loops pays, estimated from pairs of a tenth as many.
MANY = 10**9
_MODEL = "Hub id, transformers directory, .safetensors or .gguf file"


@dataclass_options
def pair(
    before: Annotated[str, typer.Argument(help=f"Base model: {_MODEL}.")],
    after: Annotated[str, typer.Argument(help=f"Pruned or fine-tuned model: {_MODEL}.")],
    *,
    options: PairOptions,
) -> None:
    """Compare two checkpoints weight by weight: removed parts, and zeros kept, lost and gained."""
    check_paths(before, after)
    import sparsity_report as sr
    from sparsity_report.pairing.value_loops import fastest_loops
    from sparsity_report.report.tables import pair_tables
    from sparsity_report.report.tables.plain_text import to_text

    check_pair_outputs(options)
    with quiet_libraries(), workers(options.workers) as executor:
        models: list[Any] = [before, sr.load(after, base=before) if options.adapter else after]
        comparison = sr.compare_checkpoints(*models, executor=executor, cache=options.cache)
    if comparison.before["total"].sum() >= MANY and not fastest_loops().is_compiled:
        complain("numba compares large models about twice as fast; run pip install numba")
    for sentence in comparison.sentences():
        tell(sentence)
    for table in pair_tables.small(comparison):
        tell("")
        for line in to_text(table).splitlines():
            tell(line)
    write_pair_outputs(comparison, options)


@dataclass_options
def distance(
    a: Annotated[str, typer.Argument(help=f"Reference: {_MODEL}.")],
    b: Annotated[str, typer.Argument(help=f"Pruned, quantized or fine-tuned model: {_MODEL}.")],
    *,
    options: DistanceOptions,
) -> None:
    """Compare the predictions of two models with one tokenizer: KL divergence and agreement."""
    check_paths(a, b)
    import sparsity_report as sr

    with quiet_libraries():
        measured = sr.distance(a, b, options.text, protocol=options.protocol)
    sentences = measured.sentences()
    if not options.json:
        for sentence in sentences:
            tell(sentence)
        return
    frames = {"figures": measured.figures, "largest": measured.largest}
    rows = {key: json.loads(frame.to_json(orient="records")) for key, frame in frames.items()}
    tell(json.dumps({"a": measured.a, "b": measured.b, **measured.protocol, **rows}))
