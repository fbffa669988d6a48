"""Continuations of a prompt by each variant."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.measure import protocols
from sparsity_report.measure.model_stage import Stage
from sparsity_report.phrases import phrase
from sparsity_report.study.schema import typed
from sparsity_report.study.variants import Variant, listed
from sparsity_report.weights.sources.tokenizer import decode

# Most tokens to write.
MOST = 4096


@with_bar("writing", unit="token")
def continuations(
    variants: Variant | Sequence[Variant],
    prompt: str,
    *,
    tokens: int = 40,
    tokenizer: Any = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Continue a prompt with causal language models by greedy decoding.

    The model runs over the text without a key-value cache for each token. Of equally likely tokens
    the first in the vocabulary is chosen. The checkpoint's generation settings are ignored, except
    for its end-of-text tokens.

    Parameters
    ----------
    variants : Variant or sequence of Variant
        Models that continue the prompt.
    prompt : str
        Text to continue.
    tokens : int
        Most tokens to write, from 1 to 4,096.
    tokenizer : callable, optional
        By default that of the model.
    progress : callable, optional
        Called with tokens written, tokens in total of one model's variants, and the variant's name.

    Returns
    -------
    pandas.DataFrame
        One row per variant with columns ``variant, prompt, continuation``.
        ``study.with_measured(continuations=…)`` adds the frame to a study.

    Raises
    ------
    SparsityReportError
        The model has no causal head or no tokenizer, the prompt is empty or too long, or a logit
        is not a number.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.continuations(sr.dense(sr.load()), "import", tokens=1)["continuation"].tolist()
    ['lib']
    """
    chosen = listed("continuations", variants)
    if not isinstance(prompt, str) or not prompt or writable(prompt) != prompt:
        raise SparsityReportError("the prompt to continue is empty or not text; give a string")
    protocols.check_range("tokens", tokens, 1, MOST, f"{MOST:,}")
    texts: dict[int, str] = {}
    for weights in dict.fromkeys(variant.weights for variant in chosen):
        stage = Stage(weights)
        protocols.check_causal(stage.model, weights.name)
        words = tokenizer or weights.tokenizer()
        ids = protocols.token_ids(prompt, weights, words)
        limit = protocols.limit_of(stage.model)
        if not len(ids) or (limit is not None and len(ids) + tokens > limit):
            raise SparsityReportError(
                f"the prompt has {len(ids):,} tokens, and the model accepts {limit:,}; shorten the "
                f"prompt, or write fewer than {tokens:,} tokens"
                if len(ids)
                else "the prompt has no tokens; give a longer text"
            )
        places = [place for place, v in enumerate(chosen) if v.weights is weights]
        for number, place in enumerate(places):
            if progress:
                progress(number * tokens, len(places) * tokens, chosen[place].name)
            written = _written(stage.become(chosen[place]), ids, tokens, chosen[place].name)
            texts[place] = writable(decode(words, written, weights.name))
        if progress:
            progress(len(places) * tokens, len(places) * tokens, "")
    rows = [
        {"variant": variant.name, "prompt": prompt, "continuation": texts[place]}
        for place, variant in enumerate(chosen)
    ]
    return typed("continuations", pd.DataFrame(rows))


@torch.inference_mode()
def _written(model: nn.Module, ids: torch.Tensor, tokens: int, name: str) -> list[int]:
    """Return the tokens that a model writes after a prompt, without an end-of-text token."""
    ends, text = _ends(model), ids.to(next(model.parameters()).device)[None]
    written: list[int] = []
    for _ in range(tokens):
        logits = model(input_ids=text, use_cache=False).logits[0, -1]
        if logits.isnan().any():
            raise protocols.NoScoreError(phrase("note.logits_not_finite", variant=name))
        token = logits.argmax()
        if int(token) in ends:
            break
        written.append(int(token))
        text = torch.cat([text, token.view(1, 1)], dim=1)
    return written


def _ends(model: nn.Module) -> set[int]:
    """Return the end-of-text tokens of the checkpoint."""
    known: Any = getattr(model, "generation_config", None) or model.config
    end = getattr(known, "eos_token_id", None)
    return {end} if isinstance(end, int) else set(end or ())
