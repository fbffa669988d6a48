"""Sensitivity: the loss in perplexity and accuracy when one part of a model is pruned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, Unpack

import numpy as np
import pandas as pd
import torch
import transformers
from torch import nn

from sparsity_report.counting.allocation import check_sparsity
from sparsity_report.counting.counts import add_notes, count_weights
from sparsity_report.counting.disk_cache import CacheFolder, Entries
from sparsity_report.counting.histogram import Moments
from sparsity_report.counting.policies.magnitude_policies import global_magnitude, prune_together
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Pruning
from sparsity_report.errors import SparsityReportError, check_options
from sparsity_report.measure.model_stage import Stage
from sparsity_report.measure.perplexity import Score, score_text, tokens_scored
from sparsity_report.measure.protocols import Passage, Passages, ScoringOptions
from sparsity_report.sparse.shares import ratio, zero_share
from sparsity_report.study.layers import layer_frame
from sparsity_report.study.losses import kept_sums, span_of, token_counts
from sparsity_report.study.schema import PARTS, typed
from sparsity_report.weights.anatomy.parameter_places import locate, value, walk
from sparsity_report.weights.tensor_slices import is_strided, pieces
from sparsity_report.weights.weights import Module, Weights

# Part of every cache key, so that entries of other versions are not found.
_VERSION = "sparsity-report scores 4"


@with_bar("pruning parts", unit="part")
def sensitivity(
    weights: Weights,
    sparsity: float,
    by: str = "block",
    *,
    cache: CacheFolder | None = None,
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
    cache : path-like, optional
        Folder that keeps the score of each part, so that an interrupted run continues. The key
        covers every byte of the model, its config and the tokens, but not the code of your own
        module classes.
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
    entries = Entries(cache, "scores")
    run = _run_key(stage.model, passage) if entries.in_use else None
    scorer = _Scorer(stage, passage, entries, run)
    dense = scorer.score("dense")
    span = span_of(dense.scored, len(parts))
    everywhere = global_magnitude(weights, level)
    pruned_layers = layer_frame(weights, counts, variant="", pruning=everywhere)
    pruned_layers = pruned_layers.set_index("module_name")
    rows = []
    for number, (part, modules) in enumerate(parts.items()):
        if progress:
            progress(number, len(parts), part)
        names = [module.name for module in modules]
        chosen = {p.name: counts[p.name] for m in modules for p in m.parameters if p.prunable}
        pruning = prune_together(weights, level, chosen)
        score = scorer.score(part, pruning)
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
                "span_increase": _increases(score, dense, span),
            }
        )
    if progress:
        progress(len(parts), len(parts), "")
    add_notes(weights, entries.notes())
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


class _Scorer(NamedTuple):
    """Scores of one model on one passage, with a cache."""

    stage: Stage
    passage: Passage
    entries: Entries
    run: str | None

    def score(self, part: str, pruning: Pruning | None = None) -> Score:
        """Return the score of the model with a pruning, from the cache if it is there."""
        cuts = sorted(pruning.cuts.items()) if pruning else None
        key = self.run and hashlib.sha256(f"{self.run} {cuts}".encode()).hexdigest()
        if known := self.entries.get(key, part, self._decoded):
            return known
        self.stage.prune(pruning)
        score = score_text(self.stage.model, self.passage, part)
        self.entries.put(key, np.stack(score.sums[:2]).tobytes())
        return score

    def _decoded(self, payload: bytes) -> Score:
        """Return the score of a cache entry; raise ValueError if it cannot be one of this text."""
        score = Score(tokens_scored(self.passage))
        if len(payload) != score.sums.nll.nbytes * 2:
            raise ValueError("of another length")
        sums = np.frombuffer(payload).reshape(2, -1)
        counts = token_counts(score.scored, score.span)
        if not (np.isfinite(sums[0]) & (sums >= 0) & (sums[1] <= counts)).all():
            raise ValueError("no score of this text")
        score.sums = score.sums._replace(nll=sums[0], hits=sums[1])
        return score


def _increases(score: Score, dense: Score, span: int) -> tuple[float, ...] | None:
    """Return the increase of the loss in each span."""
    increases = score.sums.nll - dense.sums.nll
    return kept_sums(np.add.reduceat(increases, np.arange(0, len(increases), span // score.span)))


@torch.inference_mode()
def _run_key(model: nn.Module, passage: Passage) -> str:
    """Return a digest of all that a score depends on, except the pruning."""
    config: Any = model.config
    settings = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    settings = {name: each for name, each in settings.items() if name != "_name_or_path"}
    versions = (_VERSION, torch.__version__, transformers.__version__, type(model).__qualname__)
    description = (*versions, passage[1:], json.dumps(settings, sort_keys=True, default=str))
    digest = hashlib.sha256(repr(description).encode())
    digest.update(passage.ids.cpu().numpy().tobytes())
    parameters = ((name, value(*place)) for name, place in locate(walk(model)).items())
    for name, tensor in chain(parameters, model.named_buffers()):
        dense = tensor if is_strided(tensor) else tensor.to_dense()
        digest.update(repr((name, dense.dtype, dense.shape)).encode())
        digest.update(dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
