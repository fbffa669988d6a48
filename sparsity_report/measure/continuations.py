"""Continuations of prompts by each variant, and figures of each text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from operator import itemgetter
from typing import Any, TypedDict, Unpack

import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.errors import SparsityReportError, check_options, writable
from sparsity_report.measure import protocols
from sparsity_report.measure.model_stage import Stage, logits_of
from sparsity_report.measure.texts import fingerprint
from sparsity_report.study.schema import typed
from sparsity_report.study.variants import Variant, listed
from sparsity_report.weights.sources.tokenizer import decode
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

# Most tokens to write, most sampled continuations of a prompt, and bounds of the temperature.
MOST, SEEDS, COLDEST, HOTTEST = 4096, 1000, 0.01, 100


class SamplingOptions(TypedDict, total=False):
    """Options of sampling, see :func:`continuations`."""

    seeds: int
    temperature: float


@with_bar("writing", unit="token")
def continuations(
    variants: Variant | Sequence[Variant],
    prompt: str | Sequence[str],
    *,
    tokens: int = 40,
    tokenizer: Any = None,
    progress: Progress | None = None,
    **sampling: Unpack[SamplingOptions],
) -> pd.DataFrame:
    """Continue prompts with causal language models, by greedy decoding and by sampling.

    The model runs over the text without a key-value cache for each token. Of equally likely tokens
    the first in the vocabulary is chosen. The checkpoint's generation settings are ignored, except
    for its end-of-text tokens.

    ``repeated`` is the share of 4-grams of tokens that repeat an earlier one, 1 − distinct 4-grams
    ÷ 4-grams: *seq-rep-4* of Welleck et al. (2020, arXiv:1908.04319). ``distinct`` is distinct
    pairs of neighboring tokens ÷ pairs, the *distinct-2* of Li et al. (2016, arXiv:1510.03055) per
    pair instead of per token. ``dense_nll`` is the mean negative log-likelihood in nats per token
    of the continuation after its prompt, according to the variant ``against``: the first of the
    same checkpoint that is not pruned. No figure includes an end-of-text token. Longer texts
    repeat more, so compare equal limits of tokens.

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
    **sampling
        ``seeds``: sampled continuations of each prompt besides the greedy one, 0 by default, up
        to 1,000. A number from 0 seeds each one, together with the prompt, equally for all
        variants. ``temperature``: divisor of the logits of sampled tokens, 1 by default, from
        0.01 to 100.

    Returns
    -------
    pandas.DataFrame
        One row per variant, prompt and seed with columns ``variant, prompt, continuation, seed,
        temperature, token_limit, written, repeated, distinct, against, dense_nll``. ``written``
        counts tokens. ``seed`` and ``temperature`` are null for greedy decoding, figures where a
        text is too short for two n-grams, or empty, or no variant is dense.
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
    check_options("continuations", sampling, SamplingOptions.__annotations__)
    seeds, temperature = sampling.get("seeds", 0), sampling.get("temperature", 1.0)
    chosen, prompts = listed("continuations", variants), _prompts(prompt)
    protocols.check_range("tokens", tokens, 1, MOST, f"{MOST:,}")
    protocols.check_range("seeds", seeds, 0, SEEDS, f"{SEEDS:,}")
    protocols.check_range("temperature", temperature, COLDEST, HOTTEST, f"{HOTTEST}")
    draws = [(text, seed) for text in prompts for seed in (None, *range(seeds))]
    rows: list[tuple[int, dict[str, object]]] = []
    for weights in dict.fromkeys(variant.weights for variant in chosen):
        stage = Stage(weights)
        protocols.check_causal(stage.model, weights.name)
        words = tokenizer or weights.tokenizer()
        ids = {text: _ids(text, tokens, stage.model, weights, words) for text in prompts}
        places = [place for place, v in enumerate(chosen) if v.weights is weights]
        dense = next((chosen[place] for place in places if chosen[place].pruning is None), None)
        jobs, texts = [*product(places, draws)], []
        for number, (place, (text, seed)) in enumerate(jobs):
            if progress:
                progress(number * tokens, len(jobs) * tokens, chosen[place].name)
            model, noise = stage.become(chosen[place]), _noise(text, seed)
            draw = partial(_draw, noise=noise, temperature=temperature)
            texts.append(_written(model, ids[text], tokens, chosen[place].name, draw))
        if progress:
            progress(len(jobs) * tokens, len(jobs) * tokens, "")
        scorer = stage.become(dense) if dense else None
        for (place, (text, seed)), written in zip(jobs, texts, strict=True):
            row = {
                "variant": chosen[place].name,
                "prompt": text,
                "continuation": writable(decode(words, written, weights.name)),
                "seed": seed,
                "temperature": None if seed is None else temperature,
                "token_limit": tokens,
                "against": dense.name if dense else None,
                **_figures(written, ids[text], scorer),
            }
            rows.append((place, row))
    frame = pd.DataFrame([row for _, row in sorted(rows, key=itemgetter(0))])
    return typed("continuations", frame)


def _prompts(prompt: str | Sequence[str]) -> list[str]:
    """Return the distinct prompts; refuse those that are empty or not text."""
    given = [prompt] if isinstance(prompt, str) or not isinstance(prompt, Sequence) else [*prompt]
    for text in given or [""]:
        if not isinstance(text, str) or not text or writable(text) != text:
            raise SparsityReportError("the prompt to continue is empty or not text; give a string")
    return list(dict.fromkeys(given))


def _ids(
    prompt: str, tokens: int, model: nn.Module, weights: Weights, tokenizer: Any
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


def _noise(prompt: str, seed: int | None) -> torch.Generator | None:
    """Return the random numbers of a sampled continuation; None for greedy decoding."""
    if seed is None:
        return None
    return torch.Generator().manual_seed(int(fingerprint(f"{seed} {prompt}"), 16))


def _draw(logits: torch.Tensor, noise: torch.Generator | None, temperature: float) -> int:
    """Return the most likely token, or a random one."""
    if noise is None:
        return int(logits.argmax())
    shares = (logits.double().cpu() / temperature).softmax(0)
    return int(torch.multinomial(shares, 1, generator=noise))


def _written(
    model: nn.Module, ids: torch.Tensor, tokens: int, name: str, draw: Callable[[torch.Tensor], int]
) -> list[int]:
    """Return the tokens that a model writes after a prompt, without an end-of-text token."""
    ends, text = _ends(model), ids
    written: list[int] = []
    for _ in range(tokens):
        logits = logits_of(model, text[None])[0, -1]
        # The maximum of numbers that include NaN is NaN.
        if not logits.max().isfinite():
            raise protocols.NoScoreError(say("note.logits_not_finite", variant=name))
        token = draw(logits)
        if token in ends:
            break
        written.append(token)
        text = torch.cat([text, text.new_tensor([token])])
    return written


def _figures(written: list[int], ids: torch.Tensor, dense: nn.Module | None) -> dict[str, object]:
    """Return the figures of a continuation, see :func:`continuations`."""
    pairs = _repeated(written, 2)
    return {
        "written": len(written),
        "repeated": _repeated(written, 4),
        "distinct": None if pairs is None else 1 - pairs,
        "dense_nll": _nll(dense, ids, written) if dense and written else None,
    }


def _repeated(tokens: Sequence[int], size: int) -> float | None:
    """Return the share of n-grams that repeat an earlier one; None for fewer than two."""
    grams = [*zip(*(tokens[start:] for start in range(size)), strict=False)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else None


def _nll(model: nn.Module, ids: torch.Tensor, written: list[int]) -> float:
    """Return the mean negative log-likelihood of a continuation after its prompt."""
    targets = ids.new_tensor(written)
    logits = logits_of(model, torch.cat([ids, targets])[None, :-1])[0, len(ids) - 1 :]
    return float(nn.functional.cross_entropy(logits.cpu().double(), targets))


def _ends(model: nn.Module) -> set[int]:
    """Return the end-of-text tokens of the checkpoint."""
    known: Any = getattr(model, "generation_config", None) or model.config
    end = getattr(known, "eos_token_id", None)
    return {end} if isinstance(end, int) else set(end or ())
