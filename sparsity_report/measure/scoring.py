"""Scores of a passage: likelihood and accuracy of its tokens, and distance from dense."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import nn

from sparsity_report.counting.progress import Progress
from sparsity_report.measure.model_stage import Stage
from sparsity_report.measure.protocols import NoScoreError, Passage, vocabulary_of
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.study.schema import SLIDING
from sparsity_report.study.variants import Variant

# Most logits of one batch.
_LOGITS = 2**25
# Logits of dense kept while the other variants run: half a gigabyte in float32.
KEPT = 2**27
# Logits converted to double precision at a time.
_SLICE = 2**21


class Score(NamedTuple):
    """Negative log likelihood in nats and correct guesses, summed over the tokens scored."""

    nll: float
    hits: int
    scored: int

    def facts(self) -> dict[str, object]:
        """Return means per scored token; perplexity is ``exp(nll)``."""
        nll = self.nll / self.scored
        # JSON has no infinity.
        perplexity = math.exp(nll) if nll < 700 else None
        return {"perplexity": perplexity, "nll": nll, "top1": self.hits / self.scored}


class Distance(NamedTuple):
    """Distance of predictions from those of dense, summed over the tokens scored.

    Attributes
    ----------
    kl : float
        Σ p·(ln p − ln q) over the vocabulary, p of dense, in nats.
    agreed : int
        Tokens at which the first guesses are the same.
    flipped : int
        Tokens that exactly one of the two guesses right.
    against : str
        Name of the dense variant.
    """

    kl: float
    agreed: int
    flipped: int
    against: str

    def facts(self, scored: int) -> dict[str, object]:
        """Return means and shares."""
        return {
            "against": self.against,
            "kl": self.kl / scored,
            "agreement": self.agreed / scored,
            "flips": self.flipped / scored,
        }


class _Batch(NamedTuple):
    """Windows of one length with one number of last tokens to score."""

    begins: list[int]
    length: int
    last: int

    @property
    def scored(self) -> int:
        return len(self.begins) * self.last


class _Kept(NamedTuple):
    """Predictions of dense for a batch: logits, their logsumexp, first guesses."""

    logits: torch.Tensor
    sums: torch.Tensor
    guesses: torch.Tensor


@dataclass
class _Sums:
    """Running sums of a score and of a distance."""

    nll: float = 0.0
    hits: int = 0
    scored: int = 0
    kl: float = 0.0
    agreed: int = 0
    flipped: int = 0

    @property
    def score(self) -> Score:
        return Score(self.nll, self.hits, self.scored)

    def distance(self, against: str) -> Distance:
        return Distance(self.kl, self.agreed, self.flipped, against)


def score_text(model: nn.Module, passage: Passage, name: str, progress: Progress | None) -> Score:
    """Run a model over every window of a passage."""
    sums, total = _Sums(), tokens_scored(passage)
    for batch in _batches(passage, vocabulary_of(model)):
        _add(sums, *_run(model, passage, batch), _no_score(name, batch))
        if progress:
            progress(sums.scored, total, name)
    return sums.score


def score_variants(
    stage: Stage, passage: Passage, variants: Sequence[Variant], progress: Progress | None
) -> list[tuple[Score, Distance | None]]:
    """Score variants of one model; compare each with the first that is not pruned.

    The logits of that one are kept for some windows while the others run over them.
    """
    dense = next((n for n, v in enumerate(variants) if v.pruning is None), None)
    if len(variants) == 1:  # nothing to compare
        dense = None
    order = sorted(range(len(variants)), key=lambda n: n != dense)
    sums = [_Sums() for _ in variants]
    vocabulary = vocabulary_of(stage.model)
    total, done = tokens_scored(passage) * len(variants), 0
    held = 0 if dense is None else vocabulary
    for part in _parts(_batches(passage, vocabulary), held):
        kept: list[_Kept] = []
        for number in order:
            name, model = variants[number].name, stage.become(variants[number])
            for place, batch in enumerate(part):
                logits, targets = _run(model, passage, batch)
                against = None if number == dense or dense is None else kept[place]
                missing = _no_score(name, batch)
                predictions = _add(sums[number], logits, targets, missing, against)
                if number == dense:
                    sums[number].agreed += batch.scored
                    kept.append(predictions)
                done += batch.scored
                if progress:
                    progress(done, total, name)
    if dense is None:
        return [(each.score, None) for each in sums]
    return [(each.score, each.distance(variants[dense].name)) for each in sums]


def tokens_scored(passage: Passage) -> int:
    """Return the number of scored tokens."""
    return sum(count for *_, count in _windows(passage))


@torch.inference_mode()
def _run(model: nn.Module, passage: Passage, batch: _Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of the tokens to score, and these tokens."""
    device = next(model.parameters()).device
    ids = [passage.ids[begin : begin + batch.length] for begin in batch.begins]
    tokens = torch.stack(ids).to(device)
    logits = model(input_ids=tokens, use_cache=False).logits
    # The logits at a position predict the next token.
    return logits[:, -batch.last - 1 : -1].flatten(0, 1), tokens[:, -batch.last :].flatten()


@torch.inference_mode()
def _add(
    sums: _Sums,
    logits: torch.Tensor,
    targets: torch.Tensor,
    missing: Phrase,
    against: _Kept | None = None,
) -> _Kept:
    """Add the score of tokens in double precision and return the predictions."""
    rows = max(_SLICE // logits.shape[-1], 1)
    totals, guesses = [], logits.argmax(dim=-1)
    for begin in range(0, len(targets), rows):
        part = slice(begin, begin + rows)
        wide = logits[part].double()
        total = wide.logsumexp(dim=-1)
        nll = total - wide.gather(-1, targets[part, None]).squeeze(-1)
        if not nll.isfinite().all():
            raise NoScoreError(missing)
        sums.nll += float(nll.sum())
        totals.append(total)
        if against:
            sums.kl += _divergence(against, part, wide, total)
    right = guesses == targets
    sums.hits += int(right.sum())
    sums.scored += len(targets)
    if against:
        sums.agreed += int((guesses == against.guesses).sum())
        sums.flipped += int((right != (against.guesses == targets)).sum())
    return _Kept(logits, torch.cat(totals), guesses)


def _divergence(dense: _Kept, part: slice, wide: torch.Tensor, total: torch.Tensor) -> float:
    """Return the sum over tokens of KL(dense ‖ variant) from logits and their logsumexp.

    ln p = l − s of each, so that Σ p·(ln p − ln q) = Σ p·(l − l′) − s + s′.
    """
    logits, sums = dense.logits[part].double(), dense.sums[part]
    share = (logits - sums[:, None]).exp()
    terms = share * (logits - wide)
    if not terms.isfinite().all():  # a token of probability 0 adds nothing
        terms = terms.where(share > 0, torch.zeros_like(terms))
    # Rounding can make it negative.
    return float((terms.sum(dim=-1) - sums + total).clamp(min=0).sum())


def _no_score(name: str, batch: _Batch) -> Phrase:
    first, last = batch.begins[0], batch.begins[-1] + batch.length
    return phrase("note.loss_not_finite", variant=name, first=first, last=last)


def _parts(batches: Iterator[_Batch], vocabulary: int) -> Iterator[list[_Batch]]:
    """Yield groups of batches whose logits can be kept; one group if `vocabulary` is 0."""
    part: list[_Batch] = []
    held = 0
    for batch in batches:
        size = batch.scored * vocabulary
        if part and held + size > KEPT:
            yield part
            part, held = [], 0
        part.append(batch)
        held += size
    yield part


def _batches(passage: Passage, vocabulary: int) -> Iterator[_Batch]:
    """Yield batches of equal windows."""
    most = max(_LOGITS // (passage.window * vocabulary), 1)
    for shape, alike in groupby(_windows(passage), key=lambda window: window[1:]):
        begins = [begin for begin, *_ in alike]
        for first in range(0, len(begins), most):
            yield _Batch(begins[first : first + most], *shape)


def _windows(passage: Passage) -> Iterator[tuple[int, int, int]]:
    """Yield begin, length and number of tokens to score of each window."""
    tokens = len(passage.ids)
    if passage.protocol != SLIDING:  # disjoint, and the rest is dropped
        for begin in range(0, tokens - passage.window + 1, passage.window):
            yield begin, passage.window, passage.window - 1
        return
    done = 1
    for begin in range(0, tokens, passage.stride):
        end = min(begin + passage.window, tokens)
        # The first token of a window that overlaps no other has no context.
        if (count := min(end - done, end - begin - 1)) > 0:
            yield begin, end - begin, count
        done = max(done, end)
