"""What a variant still knows: perplexity and next-token accuracy."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.counts import Progress
from sparsity_report.errors import SparsityReportError, printable, without_panics, writable
from sparsity_report.files.shipped import DEMO
from sparsity_report.study.layers import total_frame
from sparsity_report.study.schema import typed
from sparsity_report.study.variants import Variant, materialized
from sparsity_report.weights.tensors import dtype_name
from sparsity_report.weights.weights import Weights

Text = str | Path | Iterable[str | Mapping[str, Any]] | torch.Tensor

# Windows of long models are cut to this; the one Hugging Face's guide uses for GPT-2.
_WINDOW = 1024
# Logits held at a time.
_LOGITS = 2**25
# Characters of a file: some 60 million tokens, more than anyone waits for.
LONGEST = 2**28
# What a word ends in that is meant as the name of a file.
_TEXT_FILES = (
    *(".txt", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".csv", ".tsv", ".json", ".jsonl"),
    *(".parquet", ".arrow", ".raw", ".tokens", ".gz", ".bz2", ".xz", ".zst", ".zip"),
)


class ScoringOptions(TypedDict, total=False):
    """What is scored and how, see :func:`perplexity`."""

    text: Text | None
    tokenizer: Any
    window: int | None
    stride: int | None


class Protocol(NamedTuple):
    """How a text is scored."""

    ids: torch.Tensor
    window: int
    stride: int
    text: str
    fingerprint: str

    def facts(self, model: nn.Module) -> dict[str, object]:
        """Return what a table says of it."""
        return {
            "tokens": len(self.ids),
            "window": self.window,
            "stride": self.stride,
            "dtype": dtype_name(next(model.parameters()).dtype),
            "text": self.text,
            "text_fingerprint": self.fingerprint,
        }


class Score(NamedTuple):
    """Negative log likelihood in nats and correct guesses, summed over the tokens scored."""

    nll: float
    hits: int
    scored: int

    def facts(self) -> dict[str, object]:
        """Return means: perplexity is ``exp(nll)``."""
        nll = self.nll / self.scored
        # Where even the exponential of a mean overflows, infinity would not be JSON.
        perplexity = math.exp(nll) if nll < 700 else None
        return {"perplexity": perplexity, "nll": nll, "top1": self.hits / self.scored}


def perplexity(
    variants: Variant | Sequence[Variant],
    text: Text | None = None,
    *,
    tokenizer: Any = None,
    window: int | None = None,
    stride: int | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Run causal language models over a text and score every token but the first.

    Perplexity is ``exp`` of the mean negative log likelihood of a token given those before it in
    a sliding window, as in https://huggingface.co/docs/transformers/perplexity: the window moves
    on by `stride`, and only tokens not yet scored are. The mean is over all scored tokens exactly.
    Where the stride is a whole window, the first token of each has no context and is not scored.

    Parameters
    ----------
    variants : Variant or sequence of Variant
    text : str, pathlib.Path, iterable of str, dataset or 1-d tensor of token ids, optional
        A path, or a string that names a file, is read as UTF-8, of at most 2**28 characters. A
        string without white space that looks like a path and names no file is refused; any other
        is the text itself. Items, or their key ``"text"``, are always texts and are joined by
        blank lines. By default the 11 KB of held-out Python source that come with the demo model.
    tokenizer : callable, optional
        By default the one that came with the model.
    window : int, optional
        Tokens the model sees at most; by default its own limit or 1,024, whichever is less.
    stride : int, optional
        Tokens the window moves by; by default half a window.
    progress : callable, optional
        Called with tokens scored, tokens in all and the variant's name.

    Returns
    -------
    pandas.DataFrame
        One row per variant: ``nll`` in nats per token, ``top1`` the share of tokens that were the
        model's first guess, ``sparsity`` of the prunable weights, and the protocol.
        ``study.with_measured(quality=…)`` keeps it.

    Raises
    ------
    SparsityReportError
        The model has no causal head or no tokenizer, the text is empty, one token long or a file
        that cannot be read, the window exceeds the model's, or the loss is not a number.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> frame = sr.perplexity(sr.dense(sr.load()))
    >>> frame[["perplexity", "top1"]].round(2).values.tolist()
    [[13.5, 0.43]]
    """
    chosen = [variants] if isinstance(variants, Variant) else list(variants)
    scoring = ScoringOptions(text=text, tokenizer=tokenizer, window=window, stride=stride)
    protocols: dict[Weights, Protocol] = {}
    rows = []
    for variant, model in materialized(chosen):
        weights = variant.weights
        if weights not in protocols:
            protocols[weights] = protocol_of(weights, model, scoring)
        protocol = protocols[weights]
        score = score_text(model, protocol, variant.name, progress)
        rows.append(
            {
                "variant": variant.name,
                "model": weights.name,
                "method": variant.pruning.method if variant.pruning else None,
                "layout": variant.layout,
                "sparsity": total_frame(variant.layers()).loc[0, "sparsity_prunable"],
                **score.facts(),
                "scored": score.scored,
                **protocol.facts(model),
            }
        )
    return typed("quality", pd.DataFrame(rows))


def _check_causal(model: nn.Module, name: str) -> None:
    """Refuse a model that does not predict the next token."""
    config = getattr(model, "config", None)
    generates = getattr(model, "can_generate", lambda: False)()
    if not generates or getattr(config, "is_encoder_decoder", False):
        raise SparsityReportError(
            f"{name} is a {type(model).__name__} without a causal language model head, so it has "
            "no perplexity; everything else works"
        )


def protocol_of(weights: Weights, model: nn.Module, scoring: ScoringOptions) -> Protocol:
    """Settle how a text is scored with a model, which must be a causal one."""
    _check_causal(model, weights.name)
    name, given = read_text(scoring.get("text"))
    if isinstance(given, torch.Tensor):
        ids = given.to(torch.int64)
        data = ids.numpy().tobytes()
    else:
        if not given.strip():
            raise SparsityReportError("the text to score is empty")
        if writable(given) != given:
            raise SparsityReportError("the text to score holds halves of characters: save it anew")
        tokenizer = scoring.get("tokenizer") or weights.tokenizer()
        with without_panics():
            ids = tokenizer(given, return_tensors="pt", verbose=False)["input_ids"][0]
        data = given.encode()
    if len(ids) < 2:
        raise SparsityReportError(
            f"the text to score has {len(ids)} token; at least two are needed"
        )
    window, stride = _window(model, len(ids), scoring.get("window"), scoring.get("stride"))
    vocabulary = _vocabulary(model)
    if int(ids.max()) >= vocabulary or int(ids.min()) < 0:
        raise SparsityReportError(
            f"the text holds token {int(ids.max())}, beyond the model's {vocabulary:,}; "
            "is the tokenizer another model's?"
        )
    return Protocol(ids, window, stride, name, hashlib.sha256(data).hexdigest()[:16])


def _window(
    model: nn.Module, tokens: int, window: int | None, stride: int | None
) -> tuple[int, int]:
    """Return window and stride, defaults filled in."""
    config: Any = model.config
    limit = getattr(config, "max_position_embeddings", None) or _WINDOW
    size = min(limit, _WINDOW) if window is None else window
    if not 2 <= size <= limit:
        raise SparsityReportError(
            f"window must be from 2 to the model's {limit:,} positions, not {size}"
        )
    size = min(size, tokens)
    step = max(size // 2, 1) if stride is None else stride
    if not 1 <= step <= size:
        raise SparsityReportError(f"stride must be from 1 to the window of {size}, not {step}")
    return size, step


def read_text(text: Text | None) -> tuple[str, str | torch.Tensor]:
    """Return what to call a text, and its words or token ids; see :func:`perplexity`."""
    if text is None:
        text = DEMO / "eval.txt"
    if isinstance(text, str):
        if not names_file(text):
            return "text", text
        text = Path(text)
    if isinstance(text, torch.Tensor):
        return "token ids", text.reshape(-1)
    if isinstance(text, Path):
        return writable(text.name), _read_file(text)
    try:
        items = (item["text"] if isinstance(item, Mapping) else item for item in text)
        return "dataset", "\n\n".join(items)
    except (KeyError, TypeError) as error:
        raise SparsityReportError(
            "the text to score must be a str, a Path, a tensor of token ids, or items that are "
            f"texts or have a key 'text': {error!r}"
        ) from error


def names_file(text: str) -> bool:
    """Whether a string names a file; one that only looks as if it did is refused."""
    if os.path.exists(text) and not os.path.isdir(text):  # noqa: PTH110, PTH112 - never raise
        return True
    one_word = len(text.split()) == 1 and len(text) <= 4096
    if one_word and (set(text) & set("/\\") or text.lower().endswith(_TEXT_FILES)):
        raise SparsityReportError(
            f"there is no file {printable(text, 200)!r} to score; if this is the text itself, "
            "give it in a list: [text]"
        )
    return False


def _read_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except (OSError, ValueError) as error:
        raise SparsityReportError(f"cannot read the text {path}: {error}") from error
    if len(text) > LONGEST:
        raise SparsityReportError(
            f"the text {path} is longer than {LONGEST:,} characters; score a part of it"
        )
    return text


@torch.inference_mode()
def score_text(model: nn.Module, protocol: Protocol, name: str, progress: Progress | None) -> Score:
    """Run a model over every window of the text."""
    ids = protocol.ids.to(next(model.parameters()).device)
    nll, hits, scored = 0.0, 0, 0
    for begins, length, count in _batches(protocol, _vocabulary(model)):
        batch = torch.stack([ids[begin : begin + length] for begin in begins])
        logits = model(input_ids=batch, use_cache=False).logits
        # The logits at a place are about the token after it.
        guesses = logits[:, -count - 1 : -1].flatten(0, 1).float()
        targets = batch[:, -count:].flatten()
        # Flattened, as torch sums over a strided class dimension with errors of 1e-4.
        loss = nn.functional.cross_entropy(guesses, targets, reduction="none").double()
        if not loss.isfinite().all():
            raise SparsityReportError(
                f"{name}: the loss is not a number in tokens {begins[0]:,} to "
                f"{begins[-1] + length:,}; look for NaN or infinite weights, or convert the model "
                "to float32"
            )
        nll += float(loss.sum())
        hits += int((guesses.argmax(dim=-1) == targets).sum())
        scored += targets.numel()
        if progress:
            progress(scored, len(protocol.ids) - 1, name)
    return Score(nll, hits, scored)


def tokens_scored(protocol: Protocol) -> int:
    """Return how many tokens are scored."""
    return sum(count for *_, count in _windows(protocol))


def _batches(protocol: Protocol, vocabulary: int) -> Iterator[tuple[list[int], int, int]]:
    """Yield the begins of windows alike, their length and how many tokens of each to score."""
    most = max(_LOGITS // (protocol.window * vocabulary), 1)
    for shape, alike in groupby(_windows(protocol), key=lambda window: window[1:]):
        begins = [begin for begin, *_ in alike]
        for first in range(0, len(begins), most):
            yield begins[first : first + most], *shape


def _windows(protocol: Protocol) -> Iterator[tuple[int, int, int]]:
    """Yield begin, length and number of tokens to score of each window."""
    done, tokens = 1, len(protocol.ids)
    for begin in range(0, tokens, protocol.stride):
        end = min(begin + protocol.window, tokens)
        # The first token of a window that overlaps no other has nothing before it.
        if (count := min(end - done, end - begin - 1)) > 0:
            yield begin, end - begin, count
        done = max(done, end)


def _vocabulary(model: nn.Module) -> int:
    return int(cast(Any, model).get_input_embeddings().weight.shape[0])
