"""Text of values for ``repr``: weights, prunings, variants, studies, pairs and differences."""

from functools import singledispatch
from typing import Any

from sparsity_report.counting.pruning import Pruning
from sparsity_report.findings.difference import Difference
from sparsity_report.findings.verdict import verdict
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.schema import MEASURED
from sparsity_report.study.variants import Variant
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.weights.weights import Weights
from sparsity_report.words.display_names import layout_name, method_name
from sparsity_report.words.sentences import first, say, some


def describe(value: Any) -> str:
    """Return the text of a value in a few lines, in the language in use."""
    return "\n".join(_lines(value))


@singledispatch
def _lines(value: Any) -> list[str]:
    raise TypeError(type(value).__name__)


@_lines.register
def _(weights: Weights) -> list[str]:
    name, architecture = short_name(weights.name), short_name(weights.architecture or "–")
    total, modules = sum(p.total for p in weights.stored), len(weights.modules)
    prunable = sum(p.total for p in weights.prunable)
    count = sum(p.experts for p in weights.prunable)
    return [
        say("repr.weights_source", name=name, architecture=architecture, source=weights.source),
        say("repr.parameters_in_modules", total=total, modules=modules),
        say("repr.prunable_matrices", total=prunable, count=count),
    ]


@_lines.register
def _(pruning: Pruning) -> list[str]:
    name, method = short_name(pruning.weights.name), short_name(method_name(pruning.method))
    total = sum(p.total for p in pruning.weights.prunable)
    pruned, share = pruning.pruned, ratio(pruning.pruned, total)
    threshold = say("repr.no_single_threshold")
    if pruning.threshold is not None:
        threshold = say("repr.pruning_threshold", threshold=pruning.threshold)
    return [
        say("repr.pruning_target", name=name, method=method, sparsity=pruning.sparsity),
        say("repr.pruned_weights", pruned=pruned, total=total, share=share),
        threshold,
    ]


@_lines.register
def _(variant: Variant) -> list[str]:
    name, layout = short_name(variant.name), layout_name(variant.layout)
    title = say("repr.variant_layout", variant=name, layout=layout)
    return [title, *_lines(variant.pruning or variant.weights)[:2]]


@_lines.register
def _(study: Comparison) -> list[str]:
    models, names = (list(study.variants[key].unique()) for key in ("model", "variant"))
    title = say(
        "repr.study_summary",
        models=[*map(short_name, models)],
        variants=some([*map(short_name, names)], 8),
        modules=study.layers["module_name"].nunique(),
    )
    measured = [name for name in MEASURED if getattr(study, name) is not None]
    frames = ["layers", "groups", "totals", "storage", *measured]
    return [title, str(verdict(study)), say("repr.frame_names", frames=frames)]


@_lines.register
def _(pair: Pair) -> list[str]:
    before, after = map(short_name, pair.models["model"])
    title = say("repr.pair_models", before=before, after=after)
    frames = ["layers", "removed", "survival", "groups", "totals", "sparsities"]
    return [title, pair.sentences()[0], say("repr.frame_names", frames=frames)]


@_lines.register
def _(difference: Difference) -> list[str]:
    before, after = (
        short_name(study.variants["model"].iloc[0])
        for study in (difference.before, difference.after)
    )
    title = say("difference.title", before=before, after=after)
    return [title, *first(difference.sentences(), 1)]
