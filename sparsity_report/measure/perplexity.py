"""Perplexity, next-token accuracy and distance from the dense model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import check_options
from sparsity_report.measure.model_stage import Stage
from sparsity_report.measure.protocols import Passages, ProtocolOptions
from sparsity_report.measure.scoring import score_variants
from sparsity_report.measure.texts import Text
from sparsity_report.study.layers import total_frame
from sparsity_report.study.schema import typed
from sparsity_report.study.variants import Variant

if TYPE_CHECKING:
    from typing_extensions import Unpack

_UNKNOWN = dict.fromkeys(("against", "kl", "agreement", "flips"))


@with_bar("scoring", unit="token")
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
    - ``"ptb"``: the test split of ptb_text_only joined by blanks, in windows of 2,048 tokens.

    All variants of a model are scored together: it is loaded once, pruned and restored in place.

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
        Called with tokens scored, tokens in total of the variants of one model, and the variant's
        name.
    **scoring
        ``protocol``: one of the names above, ``"sliding"`` by default. ``tokenizer``: a callable,
        by default that of the model. ``window``, ``stride``: tokens, for ``"sliding"`` only; by
        default the model's limit or 1,024, whichever is less, and half a window.

    Returns
    -------
    pandas.DataFrame
        One row per variant. ``nll`` is in nats per token, ``top1`` the share of tokens that were
        the model's first guess, ``sparsity`` that of the prunable weights. The first variant of a
        model that is not pruned is the dense one, named in ``against``. Compared with it in the
        same pass: ``kl``, the mean of KL(dense ‖ variant) = Σ p·(ln p − ln q) over the vocabulary,
        in nats per scored token; ``agreement``, the share of tokens with the same first guess;
        ``flips``, the share that exactly one of the two guesses right (Dutta et al., Accuracy is
        Not All You Need, arXiv:2407.09141). These are null if no variant is dense or there is
        only one. ``study.with_measured(quality=…)`` adds the frame to a study.

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
    chosen = [variants] if isinstance(variants, Variant) else list(variants)
    passages = Passages({"text": text, **scoring})
    rows: dict[int, dict[str, object]] = {}
    for weights in dict.fromkeys(variant.weights for variant in chosen):
        stage = Stage(weights)
        passage = passages.passage(weights, stage.model)
        places = [place for place, v in enumerate(chosen) if v.weights is weights]
        scored = score_variants(stage, passage, [chosen[place] for place in places], progress)
        for place, (score, distance) in zip(places, scored, strict=True):
            rows[place] = {
                **_described(chosen[place]),
                **score.facts(),
                **(distance.facts(score.scored) if distance else _UNKNOWN),
                "scored": score.scored,
                **passage.facts(stage.model),
            }
    return typed("quality", pd.DataFrame([rows[place] for place in sorted(rows)]))


def _described(variant: Variant) -> dict[str, object]:
    """Return the columns that describe a variant."""
    return {
        "variant": variant.name,
        "model": variant.weights.name,
        "method": variant.pruning.method if variant.pruning else None,
        "layout": variant.layout,
        "sparsity": total_frame(variant.layers()).loc[0, "sparsity_prunable"],
    }
