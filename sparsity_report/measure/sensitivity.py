"""What each part of a model is worth: prune one at a time and score a text."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from sparsity_report.counting.counts import Progress, count_weights
from sparsity_report.counting.policies import check_sparsity, global_magnitude
from sparsity_report.errors import SparsityReportError
from sparsity_report.files import check_folder, write_file
from sparsity_report.measure.perplexity import Score, Text, check_causal, protocol_of, score_text
from sparsity_report.study.layers import layer_frame
from sparsity_report.study.variants import fingerprint
from sparsity_report.weights.parameters import Module
from sparsity_report.weights.places import locate, value, walk
from sparsity_report.weights.weights import Weights

SENSITIVITY_COLUMNS = (
    "by",
    "part",
    "modules",
    "weight_total",
    "pruned",
    "sparsity",
    "perplexity",
    "dense_perplexity",
    "nll_increase",
    "top1",
    "top1_drop",
    "threshold",
    "std",
    "global_sparsity",
    "window",
    "stride",
    "dtype",
    "text",
    "text_fingerprint",
)


PARTS = ("block", "group", "layer")


def sensitivity(
    weights: Weights,
    sparsity: float,
    by: str = "block",
    *,
    text: Text | None = None,
    tokenizer: Any = None,
    window: int | None = None,
    stride: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Prune one part of a model at a time and see what that does to perplexity and accuracy.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float
        Share of the part's own prunable weights, smallest magnitudes of the part first.
    by : {"block", "group", "layer"}
    text, tokenizer, window, stride : optional
        See :func:`perplexity`.
    cache : path-like, optional
        Folder where the score of every part is kept and looked up, for runs that are interrupted.
    progress : callable, optional
        Called with parts done, parts in all and the part's name.

    Returns
    -------
    pandas.DataFrame
        One row per part, columns ``SENSITIVITY_COLUMNS``: ``nll_increase`` in nats per token and
        ``top1_drop`` against the dense model; ``threshold`` the largest magnitude pruned, ``std``
        of the part's weights, ``global_sparsity`` what pruning the whole model at `sparsity`
        would take of the part.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> frame = sr.sensitivity(sr.load(), 0.5, by="group")
    >>> frame["part"].tolist()
    ['attention_linear', 'mlp_linear']
    """
    level, parts = check_sparsity(sparsity), _parts(weights, by)
    model = weights.module().eval()
    check_causal(model, weights.name)
    protocol = protocol_of(weights, model, text, tokenizer, window, stride)
    counts = count_weights(weights)
    scores = _Scores(cache, f"{fingerprint(weights, counts)} {protocol[1:]}")
    dense = scores.get("dense") or scores.put("dense", score_text(model, protocol, "dense", None))
    whole = layer_frame(
        weights, counts, variant="", pruning=global_magnitude(weights, level)
    ).set_index("module_name")
    places, base, rows = locate(walk(model)), dense.facts(), []
    for number, (part, modules) in enumerate(parts.items()):
        if progress:
            progress(number, len(parts), part)
        names = [module.name for module in modules]
        pruning = global_magnitude(weights, level, modules=names)
        key = f"{level} {by} {part}"
        if (score := scores.get(key)) is None:
            tensors = [value(*places[name]) for name in pruning.cuts]
            before = [tensor.clone() for tensor in tensors]
            pruning.apply_(model)
            score = scores.put(key, score_text(model, protocol, part, None))
            for tensor, values in zip(tensors, before, strict=True):
                tensor.copy_(values)
        facts, own = score.facts(), whole.loc[names]
        total = int(own["weight_total"].sum())
        rows.append(
            {
                "by": by,
                "part": part,
                "modules": len(modules),
                "weight_total": total,
                "pruned": pruning.pruned,
                "sparsity": pruning.pruned / total,
                "perplexity": facts["perplexity"],
                "dense_perplexity": base["perplexity"],
                "nll_increase": (score.nll - dense.nll) / dense.scored,
                "top1": facts["top1"],
                "top1_drop": (dense.hits - score.hits) / dense.scored,
                "threshold": pruning.threshold,
                "std": _std(weights, modules),
                "global_sparsity": 1 - int(own["weight_nonzero"].sum()) / total,
                **protocol.facts(model),
            }
        )
    if progress:
        progress(len(parts), len(parts), "")
    return pd.DataFrame(rows)[list(SENSITIVITY_COLUMNS)]


def sensitivity_correlation(frame: pd.DataFrame) -> pd.DataFrame:
    """Rank how well structure foretells sensitivity: Spearman's ρ with ``nll_increase``.

    Parameters
    ----------
    frame : pandas.DataFrame
        From :func:`sensitivity`.

    Returns
    -------
    pandas.DataFrame
        ``structure, rho, parts``, strongest first; ``position`` is the order of the parts in the
        model. Null where a column is constant or fewer than three parts were measured.
    """
    columns = ["position", "weight_total", "threshold", "std", "global_sparsity"]
    numbers = frame.assign(position=range(len(frame)))[[*columns, "nll_increase"]].astype(float)
    rho = numbers.rank().corr()["nll_increase"].drop("nll_increase")
    rows = pd.DataFrame({"structure": columns, "rho": rho.to_numpy(), "parts": len(frame)})
    if len(frame) < 3:
        rows["rho"] = float("nan")
    order = rows["rho"].abs().sort_values(ascending=False, kind="stable").index
    return rows.loc[order].reset_index(drop=True)


def _parts(weights: Weights, by: str) -> dict[str, list[Module]]:
    if by not in PARTS:
        raise SparsityReportError(f"by must be one of {', '.join(PARTS)}, not {by!r}")
    parts: dict[str, list[Module]] = {}
    for module in weights.modules:
        if not any(p.prunable for p in module.parameters):
            continue
        block = "outside blocks" if module.block is None else f"block {module.block}"
        name = {"block": block, "group": module.group, "layer": module.name}[by]
        parts.setdefault(name, []).append(module)
    return parts


def _std(weights: Weights, modules: Iterable[Module]) -> float:
    total, first, second = 0, 0.0, 0.0
    for parameter in (p for m in modules for p in m.parameters if p.prunable):
        for part in weights.slices(parameter.name):
            for piece in part.pieces():
                numbers = piece.double()
                total += numbers.numel()
                first += float(numbers.sum())
                second += float(numbers.square().sum())
    return math.sqrt(max(second / total - (first / total) ** 2, 0.0))


class _Scores:
    """Scores by part, on disk where a folder is given."""

    def __init__(self, folder: str | os.PathLike[str] | None, key: str) -> None:
        self._folder, self._key = None if folder is None else Path(folder), key
        if self._folder is not None:
            check_folder(self._folder)

    def _path(self, part: str) -> Path | None:
        digest = hashlib.sha256(f"{self._key} {part}".encode()).hexdigest()
        return None if self._folder is None else self._folder / f"{digest}.score"

    def get(self, part: str) -> Score | None:
        path = self._path(part)
        try:
            return None if path is None else Score(*json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, part: str, score: Score) -> Score:
        if path := self._path(part):
            write_file(path, json.dumps(score))
        return score
