"""Continuations of prompts by each variant."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.measure import protocols
from sparsity_report.measure.model_stage import Stage, logits_of
from sparsity_report.study.schema import typed
from sparsity_report.study.variants import Variant, listed
from sparsity_report.weights.sources.tokenizer import decode
from sparsity_report.weights.weights import Tokenizer, Weights
from sparsity_report.words.sentences import say

# Most tokens to write.
MOST = 4096


@with_bar("writing", unit="token")
def continuations(
    variants: Variant | Sequence[Variant],
    prompt: str | Sequence[str],
    *,
    tokens: int = 40,
    tokenizer: Tokenizer | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Continue prompts with causal language models, by greedy decoding.

    The model runs over the text without a key-value cache for each token. Of equally likely tokens
    the first in the vocabulary is chosen. The checkpoint's generation settings are ignored, except
    for its end-of-text tokens.

    Parameters
    ----------
    variants : Variant or sequence of Variant
        Models that continue the prompts.
    prompt : str or sequence of str
        Texts to continue.
    tokens : int
        Most tokens to write, from 1 to 4,096.
    tokenizer : callable, optional
        By default that of the model.
    progress : callable, optional
        Called with tokens written, tokens in total of one model's variants, and the variant's name.

    Returns
    -------
    pandas.DataFrame
        One row per variant and prompt with columns ``variant, prompt, continuation``.
        ``study.with_measured(continuations=…)`` adds the frame to a study.

    Raises
    ------
    SparsityReportError
        The model has no causal head or no tokenizer, a prompt is empty or too long, or a logit
        is not a number.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.continuations(sr.dense(sr.load()), "import", tokens=1)["continuation"].tolist()
    ['lib']
    """
    chosen, prompts = listed("continuations", variants), _prompts(prompt)
    protocols.check_range("tokens", tokens, 1, MOST, f"{MOST:,}")
    rows: dict[tuple[int, int], dict[str, str]] = {}
    for weights in dict.fromkeys(variant.weights for variant in chosen):
        stage = Stage(weights)
        protocols.check_causal(stage.model, weights.name)
        words = tokenizer or weights.tokenizer()
        ids = [_ids(text, tokens, stage.model, weights, words) for text in prompts]
        places = [place for place, v in enumerate(chosen) if v.weights is weights]
        jobs = [*product(places, range(len(prompts)))]
        for done, (place, number) in enumerate(jobs):
            variant = chosen[place]
            if progress:
                progress(done * tokens, len(jobs) * tokens, variant.name)
            written = _written(stage.become(variant), ids[number], tokens, variant.name)
            rows[place, number] = {
                "variant": variant.name,
                "prompt": prompts[number],
                "continuation": writable(decode(words, written, weights.name)),
            }
        if progress:
            progress(len(jobs) * tokens, len(jobs) * tokens, "")
    return typed("continuations", pd.DataFrame([rows[key] for key in sorted(rows)]))


def _prompts(prompt: str | Sequence[str]) -> list[str]:
    """Return the distinct prompts; refuse those that are empty or not text."""
    given = [prompt] if isinstance(prompt, str) or not isinstance(prompt, Sequence) else [*prompt]
    for text in given or [""]:
        if not isinstance(text, str) or not text or writable(text) != text:
            raise SparsityReportError("the prompt to continue is empty or not text; give a string")
    return list(dict.fromkeys(given))


def _ids(
    prompt: str, tokens: int, model: nn.Module, weights: Weights, tokenizer: Tokenizer
) -> torch.Tensor:
    """Return the tokens of a prompt; refuse one that the model cannot continue."""
    ids = protocols.token_ids(prompt, weights, tokenizer)
    limit = protocols.limit_of(model)
    if not len(ids) or (limit is not None and len(ids) + tokens > limit):
        raise SparsityReportError(
            f"the prompt has {len(ids):,} tokens, and the model accepts {limit:,}; shorten the "
            f"prompt, or write fewer than {tokens:,} tokens"
            if len(ids)
            else "the prompt has no tokens; give a longer text"
        )
    return ids


def _written(model: nn.Module, ids: torch.Tensor, tokens: int, name: str) -> list[int]:
    """Return the tokens that a model writes after a prompt, without an end-of-text token."""
    ends, text = _ends(model), ids
    written: list[int] = []
    for _ in range(tokens):
        logits = logits_of(model, text[None])[0, -1]
        # The maximum of numbers that include NaN is NaN.
        if not logits.max().isfinite():
            raise protocols.NoScoreError(say("note.logits_not_finite", variant=name))
        token = int(logits.argmax())
        if token in ends:
            break
        written.append(token)
        text = torch.cat([text, text.new_tensor([token])])
    return written


def _ends(model: nn.Module) -> set[int]:
    """Return the end-of-text tokens of the checkpoint."""
    known: Any = getattr(model, "generation_config", None) or model.config
    end = getattr(known, "eos_token_id", None)
    return {end} if isinstance(end, int) else set(end or ())
