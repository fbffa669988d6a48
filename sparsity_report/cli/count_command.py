"""``sparsity-report count``: parameters, formats and bytes of models from their headers."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from sparsity_report.cli.compared_models import check_paths
from sparsity_report.cli.options import CountOptions, dataclass_options
from sparsity_report.cli.terminal import print_line, print_warning
from sparsity_report.errors import SparsityReportError


@dataclass_options
def count(
    models: Annotated[
        list[str],
        typer.Argument(help="Hub ids, directories, .safetensors or .gguf files.", metavar="MODEL"),
    ],
    *,
    options: CountOptions,
) -> None:
    """Count the parameters of models from headers alone."""
    failed, between = False, list[str]()
    for model in models:
        try:
            counts = _counts(model, options)
        except SparsityReportError as error:
            print_warning(str(error))
            failed = True
            continue
        for line in [json.dumps(counts)] if options.json else [*between, *_lines(counts)]:
            print_line(line)
        between = [""]
    if failed:
        raise typer.Exit(2)


def _counts(model: str, options: CountOptions) -> dict[str, Any]:
    check_paths(model, options.base)
    from sparsity_report.weights.loading import open_to_count

    weights = open_to_count(model, **options.opening)
    from sparsity_report.findings.model_counts import model_counts

    differences, values = list[str](), None
    if options.zeros:
        from sparsity_report.counting.n_m_patterns import KNOWN
        from sparsity_report.findings.deployment_notes import announced_pattern, missing_sparsity
        from sparsity_report.findings.model_counts import count_tensors

        patterns = dict.fromkeys(filter(None, (*KNOWN, announced_pattern(weights))))
        values = count_tensors(weights, lambda _: True, [*patterns])
        differences += missing_sparsity(values)
    return model_counts(weights, differences, values)


def _lines(counts: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table for a terminal, and sentences below it."""
    from sparsity_report.findings.model_counts import expert_sentences, zero_experts
    from sparsity_report.sparse.shares import ratio
    from sparsity_report.words.display_names import group_name, head
    from sparsity_report.words.number_format import count as written
    from sparsity_report.words.number_format import figures, percent, scaled
    from sparsity_report.words.sentences import say

    yield say("count.model", **{key: counts[key] for key in ("model", "files", "file_bytes")})
    is_read = counts["zeros"] is not None
    heads = [say("count.group"), head("total"), say("count.size"), say("count.bits")]
    heads += [*[say("count.zeros")] * is_read, head("stored_as")]
    rows = [(group_name(key), row) for key, row in (counts["groups"] or {}).items()]
    formats = () if rows else counts["formats"]
    # Without the duplicates of tied tensors, which are counted once.
    size = sum(row["stored_bytes"] for row in counts["formats"].values())
    row = {**counts, "stored_bytes": size, "formats": formats}
    cells = [
        (name, written(row["parameters"]), scaled(row["stored_bytes"], "B"),
         figures(row["bits_per_weight"], ".2f"),
         *[percent(ratio(row["zeros"], row["parameters"]))] * is_read, ", ".join(row["formats"]))
        for name, row in (*rows, (say("count.all"), row))
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for first, *numbers, last in (heads, *cells):
        padded = (text.rjust(size) for text, size in zip(numbers, widths[1:], strict=False))
        yield "  ".join((first.ljust(widths[0]), *padded, last)).rstrip()
    if tied := counts["tied"]:
        yield say(f"count.tied.{tied['reason']}", names=tied["names"])
    if experts := counts["experts"]:
        yield from expert_sentences(experts)
        if (rows := experts["modules"]) and all(row["all_zero"] is not None for row in rows):
            places, total = zero_experts(experts), sum(row["experts"] for row in rows)
            names = [say("check.expert", module=name, expert=number) for name, number in places]
            key = "count.zero_experts" if names else "count.no_zero_experts"
            yield say(key, number=len(names), experts=total, names=names)
    if patterns := counts["patterns"]:
        for pattern, number in patterns["patterns"].items():
            yield say("count.pattern", pattern=pattern, count=number, total=patterns["matrices"])
    if is_read and any(row["packed"] for row in counts["formats"].values()):
        yield say("count.packed_zeros")
    yield from counts["differences"]
    yield from (say("format.note_sentence", note=note) for note in counts["notes"])
