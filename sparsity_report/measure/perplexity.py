"""Perplexity, next-token accuracy and distance from the dense model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, groupby
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias, Unpack

import numpy as np
import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import check_options
from sparsity_report.measure import protocols
from sparsity_report.measure.model_stage import Stage, logits_of
from sparsity_report.measure.protocols import Passage, ProtocolOptions
from sparsity_report.measure.texts import Text
from sparsity_report.study.layers import total_frame
from sparsity_report.study.losses import FIGURES, kept_sums, span_of
from sparsity_report.study.schema import SLIDING, typed
from sparsity_report.study.variants import Variant, dense, listed
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

# Most logits of one batch.
_LOGITS = 2**25
# Logits of dense kept while the other variants run: half a gigabyte in float32.
KEPT = 2**27
# Logits converted to double precision at a time: as many as the cache of a processor holds, and
# more on an accelerator, where a call costs more than the memory.
_SLICE, _LONG_SLICE = 2**17, 2**22
# Tokens of a first pass, which is slower than the next ones.
_WARM = 8
# Called with the fraction done and the variant's name.
_Report: TypeAlias = Callable[[float, str], None]
# Names of the means of sums, and columns that compare with dense.
_MEANS = ("nll", "top1", "kl", "agreement", "flips")
_COMPARED = ("kl", "agreement", "flips", "span_kl", "span_agreed")


class Sums(NamedTuple):
    """Figures of each scored token, or their sums over spans of tokens.

    Attributes
    ----------
    nll : array or tensor
        Negative log likelihood in nats.
    hits
        Tokens that were the model's first guess.
    kl
        Σ p·(ln p − ln q) over the vocabulary, p of dense, in nats.
    agreed
        Tokens at which the first guess is that of dense.
    flipped
        Tokens that exactly one of the two guesses right.
    """

    nll: Any
    hits: Any
    kl: Any
    agreed: Any
    flipped: Any


class Score:
    """Sums over consecutive spans of the tokens scored.

    Parameters
    ----------
    scored : int
        Tokens to score.
    """

    def __init__(self, scored: int) -> None:
        self.scored, self.span, self._done = scored, span_of(scored), 0
        self.sums = Sums(*np.zeros((len(Sums._fields), -(-scored // self.span))))

    def add(self, table: torch.Tensor) -> None:
        """Add figures of the tokens that come next in the text, in the order of :class:`Sums`."""
        spans = (self._done + np.arange(table.shape[1])) // self.span
        for sums, figures in zip(self.sums, table.cpu().numpy(), strict=True):
            sums += np.bincount(spans, figures, len(sums))
        self._done += len(spans)

    @property
    def nll(self) -> float:
        """Sum of the negative log likelihood in nats."""
        return float(self.sums.nll.sum())

    @property
    def hits(self) -> int:
        """Tokens that were the model's first guess."""
        return int(self.sums.hits.sum())

    def facts(self) -> dict[str, object]:
        """Return means per scored token, and the perplexity ``exp(nll)``."""
        means = [float(sums.sum()) / self.scored for sums in self.sums]
        # JSON has no infinity.
        perplexity = math.exp(means[0]) if means[0] < 700 else None
        return {"perplexity": perplexity, **dict(zip(_MEANS, means, strict=True))}

    def losses(self) -> dict[str, object]:
        """Return the sums of each span."""
        sums = self.sums._asdict()
        kept = {f"span_{name}": kept_sums(sums[name]) for name in FIGURES}
        counts = ("hits", "agreed")
        return kept | {f"span_{name}": tuple(sums[name].astype(int).tolist()) for name in counts}


class Batch(NamedTuple):
    """Windows of one length with one number of last tokens to score."""

    begins: list[int]
    length: int
    last: int

    @property
    def scored(self) -> int:
        """Number of tokens to score."""
        return len(self.begins) * self.last

    @property
    def read(self) -> int:
        """Number of tokens to read."""
        return len(self.begins) * self.length


class Predicted(NamedTuple):
    """Predictions for the tokens of a batch.

    Attributes
    ----------
    logits : torch.Tensor
    sums : torch.Tensor
        Logsumexp of the logits of each token.
    guesses : torch.Tensor
        The most likely tokens.
    figures : torch.Tensor
        A row for each figure of :class:`Sums`, compared with itself if with no other variant.
    """

    logits: torch.Tensor
    sums: torch.Tensor
    guesses: torch.Tensor
    figures: torch.Tensor


class _Base(NamedTuple):
    """The first variant that is not pruned, its passage, and the size of its vocabulary."""

    variant: Variant
    passage: Passage
    vocabulary: int

    def reads(self, passage: Passage, vocabulary: int) -> bool:
        """Return True if a model reads the same tokens in the same windows."""
        mine = self.vocabulary, self.passage.window, self.passage.stride
        its = vocabulary, passage.window, passage.stride
        return mine == its and torch.equal(self.passage.ids, passage.ids)


@with_bar("scoring", unit="")
def perplexity(
    variants: Variant | Sequence[Variant],
    text: Text | None = None,
    *,
    progress: Progress | None = None,
    **scoring: Unpack[ProtocolOptions],
) -> pd.DataFrame:
    """Score a text with causal language models: perplexity, accuracy, distance from dense.

    Perplexity is ``exp`` of the mean negative log likelihood of a token given the tokens before it
    in its window. The mean is over all scored tokens. The protocol decides the windows:

    - ``"sliding"``, as in https://huggingface.co/docs/transformers/perplexity: the window moves by
      `stride`, and each token is scored once. If the stride is a whole window, the first token of
      each window has no context and is not scored.
    - ``"wikitext2-2048"``: the test split of wikitext-2-raw-v1 joined by blank lines, in disjoint
      windows of 2,048 tokens. The first token of each is not scored, and the rest of the text is
      dropped. The result equals that of the code of SparseGPT and Wanda, where the mean of a
      window over 2,047 tokens has weight 2,048 in sum and divisor.
    - ``"wikitext2-max"``: the same with windows as long as the model accepts.
    - ``"c4-256x2048"``: the first 256 windows of 2,048 tokens of the first 1,100 texts of the
      first validation file of C4, joined by blanks.

    All variants of a model are scored together: it is loaded once, pruned and restored in place.
    A model with one variant, not pruned here, is scored together with the first such variant, if
    both read the text as the same tokens. Both models are then in memory.

    Parameters
    ----------
    variants : Variant or sequence of Variant
        Models to score.
    text : str, pathlib.Path, iterable of str, dataset or 1-d tensor of token ids, optional
        A path, or a string that names a file, is read as UTF-8 of at most 2**28 characters. A
        string without white space that looks like a path and names no file is refused. Any other
        string is the text itself. Items, or their key ``"text"``, are joined by blank lines. The
        default is 11 KB of held-out Python source that ships with the demo model. If the protocol
        has a data set, a file or items are its rows (lines, JSON lines or Parquet), a string is
        its joined text, and by default the library ``datasets`` fetches it.
    progress : callable, optional
        Called with the work done, the work in total of all variants, and the variant's name. Work
        is proportional to time: tokens × FLOPs of the model, and measured for CSR.
    **scoring
        ``protocol``: one of the names above, ``"sliding"`` by default. ``tokenizer``: a callable,
        by default that of the model. ``window``, ``stride``: tokens, for ``"sliding"`` only; by
        default the model's limit or 1,024, whichever is less, and half a window.

    Returns
    -------
    pandas.DataFrame
        One row per variant. ``nll`` is in nats per token, ``top1`` the share of tokens that were
        the model's first guess, ``sparsity`` that of the prunable weights. The first variant of a
        model that is not pruned is the dense one, named in ``against``. A model with one variant
        is compared with the first dense one of all. Compared with it in the same pass: ``kl``, the
        mean of KL(dense ‖ variant) = Σ p·(ln p − ln q) over the vocabulary, in nats per scored
        token; ``agreement``, the share of tokens with the same first guess; ``flips``, the share
        that exactly one of the two guesses right (Dutta et al., Accuracy is Not All You Need,
        arXiv:2407.09141). These are null without a dense variant to compare with.
        ``span_nll``, ``span_hits``, ``span_kl`` and ``span_agreed`` are sums
        over consecutive spans of ``span`` scored tokens, from which comparisons are paired.
        ``study.with_measured(quality=…)`` adds the frame to a study, whose ``losses`` have a row
        per span.

    Raises
    ------
    SparsityReportError
        The model has no causal head or no tokenizer; the text cannot be read or is shorter than
        two tokens or a protocol's window; a window exceeds the model's; or the loss is not a
        number.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> frame = sr.perplexity(sr.dense(sr.load()))
    >>> frame[["perplexity", "top1"]].round(2).values.tolist()
    [[13.5, 0.43]]
    """
    check_options("perplexity", scoring, ProtocolOptions.__annotations__)
    chosen = listed("perplexity", variants)
    passages = protocols.Passages({"text": text, **scoring})
    rows: dict[int, dict[str, object]] = {}
    base: _Base | None = None
    before, work = 0, _work(chosen)
    for weights, share in work.items():
        places = [place for place, v in enumerate(chosen) if v.weights is weights]
        mine = [chosen[place] for place in places]
        reported = progress and partial(_report, progress, before, share, sum(work.values()))
        scored, base = _rows(weights, mine, passages, base, reported)
        rows |= zip(places, scored, strict=True)
        before += share
    return typed("quality", pd.DataFrame([rows[place] for place in sorted(rows)]))


def _work(variants: Sequence[Variant]) -> dict[Weights, int]:
    """Return the FLOPs of a token in all variants of each model; 1 each if they are unknown."""
    work = {variant.weights: 0 for variant in variants}
    flops = {w: int(dense(w).layers()["flops_per_token"].sum()) or 1 for w in work}
    base = next((v.weights for v in variants if v.pruning is None), None)
    for weights, pruning in ((v.weights, v.pruning) for v in variants):
        # The base is scored again beside another model, see `_rows`.
        is_beside = base not in {None, weights} and pruning is None
        work[weights] += flops[weights] + (flops[base] if base and is_beside else 0)
    return work


def _report(
    progress: Progress, before: int, share: int, total: int, done: float, name: str
) -> None:
    """Report the part of a model's share of the work that is done."""
    progress(before + round(share * done), total, name)


def _rows(
    weights: Weights,
    variants: Sequence[Variant],
    passages: protocols.Passages,
    base: _Base | None,
    progress: _Report | None,
) -> tuple[list[dict[str, object]], _Base | None]:
    """Return the rows of all variants of one model, and the base of the models after it."""
    stage = Stage(weights)
    passage, model = passages.passage(weights, stage.model), stage.model
    vocabulary = protocols.vocabulary_of(model)
    scored, stages = [*variants], {weights: stage}
    if base and [v.pruning for v in variants] == [None] and base.reads(passage, vocabulary):
        scored.insert(0, base.variant)
        stages[base.variant.weights] = Stage(base.variant.weights)
    scores, against = score_variants(stages, passage, scored, vocabulary, progress)
    facts = passage.facts(model)
    rows: list[dict[str, object]] = [
        {
            "variant": variant.name,
            "model": variant.weights.name,
            "method": variant.pruning.method if variant.pruning else None,
            "layout": variant.layout,
            "sparsity": total_frame(variant.layers()).loc[0, "sparsity_prunable"],
            **score.facts(),
            "against": against,
            "scored": score.scored,
            **facts,
            "span": score.span,
            **score.losses(),
            **({} if against else dict.fromkeys(_COMPARED)),
        }
        for variant, score in zip(scored, scores, strict=True)
    ]
    first = next((v for v in variants if v.pruning is None), None)
    return rows[-len(variants) :], base or (_Base(first, passage, vocabulary) if first else None)


def score_text(model: nn.Module, passage: Passage, name: str) -> Score:
    """Run a model over every window of a passage."""
    score = Score(tokens_scored(passage))
    for batch in _batches(passage, protocols.vocabulary_of(model)):
        score.add(_predicted(*_run(model, passage, batch), _no_score(name, batch)).figures)
    return score


def score_variants(
    stages: Mapping[Weights, Stage],
    passage: Passage,
    variants: Sequence[Variant],
    vocabulary: int,
    progress: _Report | None,
) -> tuple[list[Score], str | None]:
    """Score variants, and compare each with the first that is not pruned.

    Its name is returned after the scores, None if there is nothing to compare. Its logits are kept
    for some windows while the others run over them.

    Parameters
    ----------
    stages : mapping
        Models by their weights.
    passage : Passage
    variants : sequence of Variant
    vocabulary : int
        Logits of a token.
    progress : callable or None
        Called with the fraction of the time and the variant's name.
    """
    dense = next(
        (n for n, v in enumerate(variants) if v.pruning is None and len(variants) > 1), None
    )
    scores = [Score(tokens_scored(passage)) for _ in variants]
    # All dense kernels take the time of the first; those of CSR depend on the zeros.
    sparse = [n for n, variant in enumerate(variants) if variant.layout == "csr"]
    order = list(dict.fromkeys([dense or 0, *sparse, *range(len(variants))]))
    timed = order[: len({order[0], *sparse})]
    for number in timed:  # a first pass is slower
        model = stages[variants[number].weights].become(variants[number])
        logits_of(model, passage.ids[None, :_WARM])
    if progress:
        progress(0.0, variants[order[0]].name)
    first, *rest = _batches(passage, vocabulary)
    tokens, done = sum(batch.read for batch in (first, *rest)), [0] * len(variants)
    costs: dict[int, float] = {}
    for part in ([first], *_parts(rest, 0 if dense is None else vocabulary)):
        kept: list[Predicted] = []
        for number in order:
            variant = variants[number]
            model = stages[variant.weights].become(variant)
            for place, batch in enumerate(part):
                start, against = perf_counter(), None if dense in {None, number} else kept[place]
                outputs, missing = _run(model, passage, batch), _no_score(variant.name, batch)
                predicted = _predicted(*outputs, missing, against)
                if number == dense:
                    kept.append(predicted)
                scores[number].add(predicted.figures)
                done[number] += batch.read
                if number in timed:
                    costs.setdefault(number, (perf_counter() - start) / batch.read)
                if progress and len(costs) == len(timed):
                    each = [costs[n if n in costs else order[0]] for n in range(len(variants))]
                    progress(float(np.dot(done, each)) / (sum(each) * tokens), variant.name)
    return scores, None if dense is None else variants[dense].name


def tokens_scored(passage: Passage) -> int:
    """Return the number of scored tokens."""
    return sum(count for *_, count in _windows(passage))


def _run(model: nn.Module, passage: Passage, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of the tokens to score, and these tokens."""
    tokens = torch.stack([passage.ids[begin : begin + batch.length] for begin in batch.begins])
    # The logits at a position predict the next token.
    logits = logits_of(model, tokens)[:, -batch.last - 1 : -1].flatten(0, 1)
    return logits, tokens[:, -batch.last :].flatten().to(logits.device)


@torch.inference_mode()
def _predicted(
    logits: torch.Tensor, targets: torch.Tensor, missing: str, against: Predicted | None = None
) -> Predicted:
    """Return the predictions of tokens, with figures in double precision."""
    rows = max((_SLICE if logits.is_cpu else _LONG_SLICE) // logits.shape[-1], 1)
    totals, figures, guesses = [], [], logits.argmax(dim=-1)
    right = guesses == targets
    for begin in range(0, len(targets), rows):
        part = slice(begin, begin + rows)
        wide = logits[part].double()
        top = wide.gather(-1, guesses[part, None])
        total = top.squeeze(-1) + (wide - top).exp_().sum(dim=-1).log()
        nll = total - wide.gather(-1, targets[part, None]).squeeze(-1)
        if not nll.isfinite().all():
            raise protocols.NoScoreError(missing)
        totals.append(total)
        nothing = torch.zeros_like(nll)
        distance = nothing, nothing + 1, nothing
        if against:
            dense, sums = against.logits[part].double(), against.sums[part]
            gaps = dense - wide
            # Σ p·(ln p − ln q) = Σ p·(l − l′) − s + s′, as ln p = l − s. Rounding can make it
            # negative.
            kl = _weighted(gaps, dense.sub_(sums[:, None]).exp_()) + total - sums
            others = against.guesses[part]
            flipped = right[part] != (others == targets[part])
            distance = kl.clamp(min=0), guesses[part] == others, flipped
        figures.append(torch.stack([each.double() for each in (nll, right[part], *distance)]))
    return Predicted(logits, torch.cat(totals), guesses, torch.cat(figures, dim=1))


def _weighted(gaps: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return the sum of each token's gaps, weighted by shares."""
    mean: torch.Tensor = torch.linalg.vecdot(shares, gaps)
    if not mean.isfinite().all():  # a token of probability 0 adds nothing
        mean = (shares * gaps).where(shares > 0, 0.0).sum(dim=-1)
    return mean


def _no_score(name: str, batch: Batch) -> str:
    first, last = batch.begins[0], batch.begins[-1] + batch.length
    return say("note.loss_not_finite", variant=name, first=first, last=last)


def _parts(batches: Sequence[Batch], vocabulary: int) -> Iterator[list[Batch]]:
    """Yield groups of batches whose logits can be kept; one group if `vocabulary` is 0."""
    ends = accumulate(batch.scored * vocabulary for batch in batches)
    for _, part in groupby(zip(batches, ends, strict=True), lambda pair: pair[1] // KEPT):
        yield [batch for batch, _ in part]


def _batches(passage: Passage, vocabulary: int) -> Iterator[Batch]:
    """Yield batches of equal windows."""
    most = max(_LOGITS // (passage.window * vocabulary), 1)
    for shape, alike in groupby(_windows(passage), key=lambda window: window[1:]):
        begins = [begin for begin, *_ in alike]
        for first in range(0, len(begins), most):
            yield Batch(begins[first : first + most], *shape)


def _windows(passage: Passage) -> Iterator[tuple[int, int, int]]:
    """Yield begin, length and number of tokens to score of each window."""
    tokens = len(passage.ids)
    if passage.protocol != SLIDING:  # the rest is dropped
        tokens -= tokens % passage.window
    done = 1
    for begin in range(0, tokens, passage.stride):
        end = min(begin + passage.window, tokens)
        # The first token of a window that overlaps no other has no context.
        if (count := min(end - done, end - begin - 1)) > 0:
            yield begin, end - begin, count
        done = max(done, end)
