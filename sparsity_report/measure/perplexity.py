"""What a variant still knows: perplexity, next-token accuracy, and the distance from dense."""

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
    """Run causal language models over a text and score its tokens.

    Perplexity is ``exp`` of the mean negative log likelihood of a token given those before it in
    its window; the mean is over all scored tokens exactly. How windows lie is the protocol:

    - ``"sliding"``, as in https://huggingface.co/docs/transformers/perplexity: the window moves on
      by `stride`, and only tokens not yet scored are. Where the stride is a whole window, the
      first token of each has no context and is not scored.
    - ``"wikitext2-2048"``: the test split of wikitext-2-raw-v1 joined by blank lines, in windows
      of 2,048 tokens that do not overlap; the first token of each is not scored, the tail is
      dropped. It is what the code of SparseGPT and Wanda computes: there a window's mean over
      2,047 tokens counts 2,048 times, in the sum and in what it is divided by.
    - ``"wikitext2-max"``: the same in windows as long as the model takes.
    - ``"c4-256x2048"``: the first 1,100 texts of the first validation file of C4 joined by
      blanks, of these the first 256 windows of 2,048 tokens.
    - ``"ptb"``: the test split of ptb_text_only joined by blanks, windows of 2,048 tokens.

    Windows of one model are scored for all its variants together: it is opened once, pruned and
    put back in place.

    Parameters
    ----------
    variants : Variant or sequence of Variant
    text : str, pathlib.Path, iterable of str, dataset or 1-d tensor of token ids, optional
        A path, or a string that names a file, is read as UTF-8, of at most 2**28 characters. A
        string without white space that looks like a path and names no file is refused; any other
        is the text itself. Items, or their key ``"text"``, are always texts and are joined by
        blank lines. By default the 11 KB of held-out Python source that come with the demo model.
        Of a protocol with a data set a file or items are its rows (lines, JSON lines or Parquet),
        and as many as it has; words are its joined text; by default the library ``datasets``
        fetches it.
    protocol : str, optional
        ``"sliding"`` unless told.
    tokenizer : callable, optional
        By default the one that came with the model.
    window : int, optional
        Of ``"sliding"``: tokens the model sees at most; by default its own limit or 1,024,
        whichever is less.
    stride : int, optional
        Of ``"sliding"``: tokens the window moves by; by default half a window.
    progress : callable, optional
        Called with tokens scored and tokens in all, of the variants of one model, and the
        variant's name.

    Returns
    -------
    pandas.DataFrame
        One row per variant: ``nll`` in nats per token, ``top1`` the share of tokens that were the
        model's first guess, ``sparsity`` of the prunable weights, and the protocol. From the same
        pass, against the first of several variants of a model that is not pruned, which is named
        in ``against`` and called dense: ``kl``, the mean of KL(dense ‖ variant) =
        Σ p·(ln p − ln q) over the vocabulary, p of dense, in nats per scored token; ``agreement``,
        the share of tokens at which both guess the same first; ``flips``, the share that one of
        them guesses right and the other wrong (Dutta et al., Accuracy is Not All You Need,
        arXiv:2407.09141). Null where there is no such variant.
        ``study.with_measured(quality=…)`` keeps it.

    Raises
    ------
    SparsityReportError
        The model has no causal head or no tokenizer, the text is empty, one token long, shorter
        than a protocol's window or a file that cannot be read, a window exceeds the model's, or
        the loss is not a number.

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
        passage = passages.of(weights, stage.model)
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
    """Return what a table says of a variant itself."""
    return {
        "variant": variant.name,
        "model": variant.weights.name,
        "method": variant.pruning.method if variant.pruning else None,
        "layout": variant.layout,
        "sparsity": total_frame(variant.layers()).loc[0, "sparsity_prunable"],
    }
