"""Sensitivity: the loss in perplexity and accuracy when one part of a model is pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import pandas as pd

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import Moments
from sparsity_report.counting.policies.magnitude_policies import global_magnitude, prune_together
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning_policies import check_sparsity
from sparsity_report.errors import SparsityReportError, check_options
from sparsity_report.measure.model_stage import Stage
from sparsity_report.measure.perplexity import score_text
from sparsity_report.measure.protocols import Passages, ScoringOptions
from sparsity_report.sparse.shares import ratio, zero_share
from sparsity_report.study.layers import LayerTable
from sparsity_report.study.losses import kept_sums, span_of
from sparsity_report.study.schema import PARTS, typed
from sparsity_report.weights.tensor_slices import pieces
from sparsity_report.weights.weights import Module, Weights


@with_bar("pruning parts", unit="part")
def sensitivity(
    weights: Weights,
    sparsity: float,
    by: str = "block",
    *,
    progress: Progress | None = None,
    **scoring: Unpack[ScoringOptions],
) -> pd.DataFrame:
    """Prune one part of a model at a time and measure perplexity and accuracy.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float
        Share of the part's prunable weights to prune by magnitude, from 0 to 1.
    by : {"block", "group", "layer"}
        Kind of part.
    progress : callable, optional
        Called with parts done, parts in total and the part's name.
    **scoring
        ``text, protocol, tokenizer, window, stride``, see :func:`sparsity_report.perplexity`.

    Returns
    -------
    pandas.DataFrame
        One row per part. ``nll_increase`` in nats per token and ``top1_drop``, a share of tokens,
        compare it with the dense model. ``threshold`` is the largest magnitude pruned, ``std`` the
        standard deviation of the part's weights, ``global_sparsity`` the part's sparsity when the
        whole model is pruned at `sparsity`.

    Raises
    ------
    SparsityReportError
        `by` or `sparsity` is not valid, or the text cannot be scored, see
        :func:`sparsity_report.perplexity`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> frame = sr.sensitivity(sr.load(), 0.5, by="group")
    >>> frame["part"].tolist()
    ['attention_linear', 'mlp_linear']
    """
    check_options("sensitivity", scoring, ScoringOptions.__annotations__)
    level, parts = check_sparsity(sparsity), _parts(weights, by)
    passages, stage = Passages(scoring), Stage(weights)
    passage = passages.passage(weights, stage.model)
    counts = count_weights(weights)
    dense = score_text(stage.model, passage, "dense")
    span = span_of(dense.scored, len(parts))
    starts = np.arange(0, len(dense.sums.nll), span // dense.span)
    everywhere = global_magnitude(weights, level)
    pruned_layers = LayerTable(weights, counts).frame("", everywhere).set_index("module_name")
    rows = []
    for number, (part, modules) in enumerate(parts.items()):
        if progress:
            progress(number, len(parts), part)
        names = [module.name for module in modules]
        chosen = {p.name: counts[p.name] for m in modules for p in m.parameters if p.prunable}
        pruning = prune_together(weights, level, chosen)
        stage.prune(pruning)
        score = score_text(stage.model, passage, part)
        increases = np.add.reduceat(score.sums.nll - dense.sums.nll, starts)
        total, nonzero = pruned_layers.loc[names, ["weight_total", "weight_nonzero"]].sum().tolist()
        rows.append(
            {
                "by": by,
                "part": part,
                "modules": len(modules),
                "weight_total": total,
                "pruned": pruning.pruned,
                "sparsity": ratio(pruning.pruned, total),
                "dense_perplexity": dense.facts()["perplexity"],
                **score.facts(),
                "nll_increase": (score.nll - dense.nll) / dense.scored,
                "top1_drop": (dense.hits - score.hits) / dense.scored,
                "threshold": pruning.threshold,
                "std": _deviation(weights, modules),
                "global_sparsity": zero_share(total, nonzero),
                **passage.facts(stage.model),
                "scored": score.scored,
                "span": span,
                "span_increase": kept_sums(increases),
            }
        )
    if progress:
        progress(len(parts), len(parts), "")
    return typed("sensitivity", pd.DataFrame(rows))


def _parts(weights: Weights, by: str) -> dict[str, list[Module]]:
    if by not in PARTS:
        raise SparsityReportError(f"by={by!r} is unknown; use one of {', '.join(PARTS)}")
    parts: dict[str, list[Module]] = {}
    for module in weights.modules:
        if not any(p.prunable for p in module.parameters):
            continue
        block = "outside blocks" if module.block is None else f"block {module.block}"
        name = {"block": block, "group": module.group, "layer": module.name}[by]
        parts.setdefault(name, []).append(module)
    return parts


def _deviation(weights: Weights, modules: Sequence[Module]) -> float:
    """Return the standard deviation of the prunable weights of modules."""
    moments = Moments()
    for parameter in (p for m in modules for p in m.parameters if p.prunable):
        for piece in pieces(weights.slices(parameter.name)):
            moments.add(piece)
    return moments.std
