"""What variants write: a prompt, continued by each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import SparsityReportError, without_panics, writable
from sparsity_report.measure.model_stage import Stage
from sparsity_report.measure.protocols import NoScoreError, check_causal, limit_of
from sparsity_report.study.schema import typed
from sparsity_report.study.variants import Variant

# Tokens to write at most; every one is a run over all before it.
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
    """Let causal language models continue a prompt, each token the likeliest one.

    Every token is a run over all before it, without a cache; of two that are equally likely it is
    the first of the vocabulary. No setting of the checkpoint's for generation plays a part but its
    tokens that end a text.

    Parameters
    ----------
    variants : Variant or sequence of Variant
    prompt : str
    tokens : int
        How many to write at most.
    tokenizer : callable, optional
        By default the one that came with the model.
    progress : callable, optional
        Called with tokens written, tokens in all of one model's variants, and the variant's name.

    Returns
    -------
    pandas.DataFrame
        ``variant, prompt, continuation``; ``study.with_measured(continuations=…)`` keeps it.

    Raises
    ------
    SparsityReportError
        The model has no causal head or no tokenizer, the prompt is empty or too long, or what the
        model says is not a number.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.continuations(sr.dense(sr.load()), "import", tokens=1)["continuation"].tolist()
    ['lib']
    """
    chosen = [variants] if isinstance(variants, Variant) else list(variants)
    if not isinstance(prompt, str) or not prompt or writable(prompt) != prompt:
        raise SparsityReportError("the prompt to continue must be text, and not empty")
    if not 1 <= tokens <= MOST:
        raise SparsityReportError(f"tokens must be from 1 to {MOST:,}, not {tokens}")
    texts: dict[int, str] = {}
    for weights in dict.fromkeys(variant.weights for variant in chosen):
        stage = Stage(weights)
        check_causal(stage.model, weights.name)
        words = tokenizer or weights.tokenizer()
        with without_panics():
            ids = words(prompt, return_tensors="pt", verbose=False)["input_ids"][0]
        limit = limit_of(stage.model)
        if not len(ids) or (limit is not None and len(ids) + tokens > limit):
            raise SparsityReportError(
                f"the prompt has {len(ids):,} tokens; with {tokens:,} more the model takes "
                f"{limit:,} at most"
                if len(ids)
                else "the prompt has no tokens"
            )
        places = [place for place, v in enumerate(chosen) if v.weights is weights]
        for number, place in enumerate(places):
            if progress:
                progress(number * tokens, len(places) * tokens, chosen[place].name)
            written = _written(stage.become(chosen[place]), ids, tokens, chosen[place].name)
            with without_panics():
                text = words.decode(written, skip_special_tokens=True)
            texts[place] = writable(text)
        if progress:
            progress(len(places) * tokens, len(places) * tokens, "")
    rows = [
        {"variant": variant.name, "prompt": prompt, "continuation": texts[place]}
        for place, variant in enumerate(chosen)
    ]
    return typed("continuations", pd.DataFrame(rows))


@torch.inference_mode()
def _written(model: nn.Module, ids: torch.Tensor, tokens: int, name: str) -> list[int]:
    """Return the tokens that a model puts after others, the last of them none that ends a text."""
    ends, seen = _ends(model), ids.to(next(model.parameters()).device)[None]
    written: list[int] = []
    for _ in range(tokens):
        logits = model(input_ids=seen, use_cache=False).logits[0, -1]
        if logits.isnan().any():
            raise NoScoreError(
                f"{name}: what it says of the next token is not a number; look for NaN or infinite "
                "weights, or convert the model to float32"
            )
        token = logits.argmax()
        if int(token) in ends:
            break
        written.append(int(token))
        seen = torch.cat([seen, token.view(1, 1)], dim=1)
    return written


def _ends(model: nn.Module) -> set[int]:
    """Return the tokens that end a text, as the checkpoint tells."""
    known: Any = getattr(model, "generation_config", None) or model.config
    end = getattr(known, "eos_token_id", None)
    return {end} if isinstance(end, int) else set(end or ())
