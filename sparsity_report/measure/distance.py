"""Distance between the predictions of two models: KL divergence and agreement, token by token."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Unpack

import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Pruning
from sparsity_report.errors import SparsityReportError, check_options, legible
from sparsity_report.measure.model_stage import Stage, logits_of
from sparsity_report.measure.perplexity import Step, Sums, predictions
from sparsity_report.measure.protocols import Passage, Passages, ProtocolOptions
from sparsity_report.measure.texts import Text
from sparsity_report.study.layers import records
from sparsity_report.study.model_distance import Distance
from sparsity_report.study.variants import Variant, dense, masked
from sparsity_report.weights.sources.tokenizer import decode
from sparsity_report.weights.weights import Weights

Model = Variant | Pruning | Weights | str | os.PathLike[str] | nn.Module
# Likely tokens that are compared; tokens that are shown as text, and tokens and characters before
# each.
_TOP, _SHOWN, _BEFORE, _CHARACTERS = 5, 10, 24, 60


@with_bar("scoring", unit="token")
def distance(
    a: Model,
    b: Model,
    text: Text | None = None,
    *,
    together: bool = True,
    progress: Progress | None = None,
    **scoring: Unpack[ProtocolOptions],
) -> Distance:
    """Measure how far the predictions of a model are from those of another, token by token.

    Both models predict the same tokens from the same windows, see :func:`perplexity`. For a model
    and its pruning by one protocol, the means equal ``kl`` and ``agreement`` of that function.

    The definitions are those of ``llama-perplexity --kl-divergence``, whose base is `a`: its
    *mean*, *median*, *99.0 %* and *maximum KLD*, *same top p*, *RMS Δp* and *PPL(Q)/PPL(base)*.
    It scores the second half of disjoint windows that begin with a BOS token, rounds the base to
    16 bits and leaves out tokens less likely than e⁻¹⁶, so its figures differ slightly. Its ± are
    standard errors of independent tokens; the intervals here resample blocks of windows.

    The softmax runs over all rows of the output head, as in transformers and llama.cpp: rows that
    pad a vocabulary beyond its tokenizer count as tokens.

    Parameters
    ----------
    a, b : Variant, Pruning, Weights, path, Hub id or nn.Module
        The reference and the model to compare with it. Both have one tokenizer.
    text : str, pathlib.Path, iterable of str, dataset or 1-d tensor of token ids, optional
        The text to score, see :func:`perplexity`.
    together : bool
        Keep both models in memory. If False, each is opened in turn for every 2²⁷ logits.
    progress : callable, optional
        Called with tokens scored, tokens in total of both models, and the model's name.
    **scoring
        ``protocol, tokenizer, window, stride``, see :func:`perplexity`. The default window is the
        smaller of the two models'. A module in memory needs ``tokenizer``.

    Returns
    -------
    Distance
        ``figures`` has KL(a ‖ b), its reverse, agreement and perplexities with intervals,
        ``tokens`` the figures of each token, ``largest`` the tokens that differ most, as text.

    Raises
    ------
    SparsityReportError
        The models have different vocabularies or read the text as different tokens, or one of them
        cannot score it, see :func:`perplexity`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> apart = sr.distance(weights, sr.global_magnitude(weights, 0.5), "import os, sys")
    >>> apart.figures["figure"].tolist()[:2]
    ['kl', 'reverse_kl']
    """
    check_options("distance", scoring, ProtocolOptions.__annotations__)
    models, passages = _Models(together), Passages({"text": text, **scoring})
    one, other = _variant(a), _variant(b)
    if one.name == other.name:
        other = replace(other, name=f"{other.name} (2)")
    # The first to run is the last to be opened.
    sides = [_Side.opened(models.become(v), v, passages) for v in (other, one)][::-1]
    _check_tokens(*sides)
    chosen = min(sides, key=lambda side: side.passage.window)
    steps = predictions(models.become, chosen.passage, (one, other), 0, chosen.width, progress)
    frames = [frame for step in steps for frame in _tokens(step, chosen.passage.ids)]
    tokens = pd.concat(frames, ignore_index=True)
    tokenizer = scoring.get("tokenizer")
    largest = _as_text(tokens.nlargest(_SHOWN, "kl"), chosen.passage.ids, tokenizer, one)
    dtypes = {"dtype": sides[0].facts["dtype"], "dtype_b": sides[1].facts["dtype"]}
    return Distance(one.name, other.name, tokens, largest, chosen.facts | dtypes)


class _Models:
    """Models in memory: all that were asked for, or one at a time."""

    def __init__(self, together: bool) -> None:
        self._together = together
        self._stages: dict[Weights, Stage] = {}

    def become(self, variant: Variant) -> nn.Module:
        """Return the model of a variant; release another one first unless both are kept."""
        if variant.weights not in self._stages:
            if not self._together:
                self._stages.clear()
            self._stages[variant.weights] = Stage(variant.weights)
        return self._stages[variant.weights].become(variant)


class _Side(NamedTuple):
    """One of the two models: its name, passage, number of logits, and facts of the passage."""

    name: str
    passage: Passage
    width: int
    facts: dict[str, object]

    @classmethod
    def opened(cls, model: nn.Module, variant: Variant, passages: Passages) -> _Side:
        """Return the side of a variant; refuse a model that is not causal."""
        passage = passages.passage(variant.weights, model)
        width = logits_of(model, passage.ids[None, :1]).shape[-1]
        return cls(variant.name, passage, width, passage.facts(model))


def _variant(model: Model) -> Variant:
    """Return a model as a variant."""
    if isinstance(model, Variant):
        return model
    if isinstance(model, Pruning):
        return masked(model)
    variant = dense(model)
    return replace(variant, name=variant.weights.name)


def _check_tokens(a: _Side, b: _Side) -> None:
    """Refuse models with different vocabularies, or that read the text as different tokens."""
    ids, others, reason = a.passage.ids, b.passage.ids, ""
    if a.width != b.width:
        reason = f"{a.name} has {a.width:,} logits, {b.name} has {b.width:,}"
    elif len(ids) != len(others):
        reason = f"the text has {len(ids):,} tokens in {a.name}, {len(others):,} in {b.name}"
    elif len(places := (ids != others).nonzero()):
        at = int(places[0])
        reason = f"token {at:,} of the text is {ids[at]} in {a.name}, {others[at]} in {b.name}"
    if reason:
        raise SparsityReportError(f"distance: {reason}; compare models with one tokenizer")


def _tokens(step: Step, ids: torch.Tensor) -> Iterator[pd.DataFrame]:
    """Yield the figures of each token of a batch, if it has the predictions of both models."""
    if (a := step.against) is None:
        return
    b, positions = step.predicted, step.batch.positions
    ours, theirs = Sums(*b.figures), a.figures[0]
    tops = [side.logits.topk(min(_TOP, side.logits.shape[-1])).indices for side in (a, b)]
    columns = {
        "position": positions,
        "token": ids[positions],
        "guess_a": a.guesses,
        "guess_b": b.guesses,
        "nll_a": theirs,
        "nll_b": ours.nll,
        "kl": ours.kl,
        "reverse_kl": ours.reverse_kl,
        "top5_agreement": (tops[0][:, :, None] == tops[1][:, None]).any(-1).double().mean(-1),
    }
    yield pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


def _as_text(tokens: pd.DataFrame, ids: torch.Tensor, given: Any, variant: Variant) -> pd.DataFrame:
    """Return tokens as text with their context; null where no tokenizer writes text."""
    try:
        tokenizer = given or variant.weights.tokenizer()
    except SparsityReportError:  # token ids were scored
        tokenizer = None

    def text(tokens: Sequence[int]) -> str | None:
        if not hasattr(tokenizer, "decode"):
            return None
        return legible(decode(tokenizer, tokens, variant.name)[-_CHARACTERS:])

    rows = []
    for row in records(tokens):
        at = row["position"]
        before = text(ids[max(at - _BEFORE, 0) : at].tolist())
        words = {name: text([row[name]]) for name in ("token", "guess_a", "guess_b")}
        rows.append({"position": at, "kl": row["kl"], "context": before, **words})
    return pd.DataFrame(rows)
