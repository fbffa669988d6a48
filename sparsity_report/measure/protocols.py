"""Evaluation protocols: the tokens and windows of a text, under the names that papers use."""

from typing import Any, NamedTuple, TypedDict, cast

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.measure.texts import Corpus, Text, fingerprint, read_text
from sparsity_report.study.schema import PROTOCOLS, SLIDING
from sparsity_report.weights.sources.tokenizer import encode
from sparsity_report.weights.torch_tensors import tensor_dtype
from sparsity_report.weights.weights import Tokenizer, Weights
from sparsity_report.words.sentences import say

# Longest default window; Hugging Face's guide uses it for GPT-2.
WINDOW = 1024

# Numbers of rows are those on the pages of the data sets.
_WIKITEXT = Corpus(
    title="wikitext-2-raw-v1 test",
    source=("Salesforce/wikitext", "wikitext-2-raw-v1"),
    split="test",
    joint="\n\n",
    rows=4358,
    bring="wiki.test.raw of wikitext-2-raw-v1, or test-00000-of-00001.parquet from "
    "Salesforce/wikitext",
)
_C4 = Corpus(
    title="C4 validation",
    source=("allenai/c4",),
    split="validation",
    files="en/c4-validation.00000-of-00008.json.gz",
    rows=1100,
    first=True,
    bring="en/c4-validation.00000-of-00008.json.gz from allenai/c4",
)


#: Data sets of named protocols. They are cut into disjoint windows and the rest is dropped, as in
#: the code of SparseGPT (github.com/IST-DASLab/sparsegpt, ``llama_eval``) and of Wanda
#: (github.com/locuslab/wanda, ``lib/eval.py``).
CORPORA = {"wikitext2-2048": _WIKITEXT, "wikitext2-max": _WIKITEXT, "c4-256x2048": _C4}


class ProtocolOptions(TypedDict, total=False):
    """Options of scoring, see :func:`sparsity_report.perplexity`."""

    protocol: str | None
    tokenizer: Tokenizer | None
    window: int | None
    stride: int | None


class ScoringOptions(ProtocolOptions, total=False):
    """Options of scoring, and the text."""

    text: Text | None


class Passage(NamedTuple):
    """Tokens to score, and their windows."""

    ids: torch.Tensor
    protocol: str
    window: int
    stride: int
    text: str
    fingerprint: str

    def facts(self, model: nn.Module) -> dict[str, object]:
        """Return the columns that describe the passage."""
        return {
            "protocol": self.protocol,
            "tokens": len(self.ids),
            "window": self.window,
            "stride": self.stride,
            "dtype": tensor_dtype(next(model.parameters()).dtype),
            "text": self.text,
            "text_fingerprint": self.fingerprint,
            "tokens_fingerprint": fingerprint(self.ids),
        }


class NoScoreError(SparsityReportError):
    """A model that has no score, though the request was right."""


class Passages:
    """Passages of one text, which is read once, and tokenized once by a given tokenizer.

    Raises
    ------
    SparsityReportError
        The protocol is unknown or has fixed windows, or the text cannot be read.
    """

    def __init__(self, scoring: ScoringOptions) -> None:
        self._scoring = scoring
        name = scoring.get("protocol")
        self._name = SLIDING if name is None else name
        if self._name not in PROTOCOLS:
            raise SparsityReportError(
                f"there is no protocol {name!r}; use one of {', '.join(PROTOCOLS)}"
            )
        corpus, text = CORPORA.get(self._name), scoring.get("text")
        given = [key for key in ("window", "stride") if scoring.get(key) is not None]
        if corpus and given:
            raise SparsityReportError(
                f"protocol {self._name} has fixed windows; leave {' and '.join(given)} out"
            )
        self._title, self._text = read_text(text, corpus)
        if isinstance(self._text, str):
            if not self._text.strip():
                raise SparsityReportError("the text to score is empty; give at least two tokens")
            if writable(self._text) != self._text:
                raise SparsityReportError(
                    "the text to score holds unpaired surrogates; save it as UTF-8"
                )
        self._fingerprint = fingerprint(self._text)
        self._ids: torch.Tensor | None = None

    def passage(self, weights: Weights, model: nn.Module) -> Passage:
        """Return the passage for a causal language model; refuse any other model."""
        check_causal(model, weights.name)
        tokenizer = self._scoring.get("tokenizer")
        if self._ids is None or not tokenizer:
            self._ids = token_ids(self._text, weights, tokenizer)
        ids = self._ids
        if len(ids) < 2:
            raise SparsityReportError(f"the text to score has {len(ids)} token; give at least two")
        check_vocabulary(ids, model, "text", weights.name)
        if self._name not in CORPORA:
            window, stride = self._scoring.get("window"), self._scoring.get("stride")
            sizes = _sliding(model, len(ids), window, stride)
        else:
            window = self._fixed(model, len(ids))
            sizes = window, window
            _, windows = PROTOCOLS[self._name]
            ids = ids[: windows and windows * window]
        return Passage(ids, self._name, *sizes, self._title, self._fingerprint)

    def _fixed(self, model: nn.Module, tokens: int) -> int:
        """Return the window of a named protocol."""
        limit = limit_of(model)
        window = PROTOCOLS[self._name][0] or limit
        if window is None:
            raise SparsityReportError(
                f"protocol {self._name} uses the model's window, which its config does not state; "
                "use wikitext2-2048"
            )
        if limit is not None and window > limit:
            raise SparsityReportError(
                f"protocol {self._name} has windows of {window:,} tokens, but the model accepts "
                f"{limit:,}; use wikitext2-max"
            )
        if tokens < window:
            raise SparsityReportError(
                f"the text to score has {tokens:,} tokens, too few for protocol {self._name}; give "
                f"at least one window of {window:,}"
            )
        return window


def token_ids(
    text: str | torch.Tensor, weights: Weights, tokenizer: Tokenizer | None
) -> torch.Tensor:
    """Return the tokens of a text, by the tokenizer of a model if none is given."""
    if isinstance(text, torch.Tensor):
        return text.to(torch.int64).cpu()
    return encode(tokenizer or weights.tokenizer(), text, weights.name)


def check_causal(model: nn.Module, name: str) -> None:
    """Refuse a model that does not predict the next token."""
    config = getattr(model, "config", None)
    generates = getattr(model, "can_generate", lambda: False)()
    if not generates or getattr(config, "is_encoder_decoder", False):
        raise NoScoreError(say("note.no_causal_head", model=name, kind=type(model).__name__))


def vocabulary_of(model: nn.Module) -> int:
    """Return the size of a model's vocabulary."""
    return int(cast(Any, model).get_input_embeddings().weight.shape[0])


def check_vocabulary(ids: torch.Tensor, model: nn.Module, text: str, name: str) -> None:
    """Refuse tokens that a model does not have."""
    vocabulary = vocabulary_of(model)
    if int(ids.max()) >= vocabulary or int(ids.min()) < 0:
        raise SparsityReportError(
            f"the {text} holds token {int(ids.max())}, beyond the {vocabulary:,} of {name}; give "
            "the tokenizer of this model"
        )


def limit_of(model: nn.Module) -> int | None:
    """Return the longest sequence of a model according to its config, None if it is not stated."""
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def check_range(option: str, number: float, first: float, last: float, limit: str) -> None:
    """Refuse a number that is out of range; `limit` describes the last one."""
    if not first <= number <= last:
        raise SparsityReportError(f"{option}={number} is out of range; use {first} to {limit}")


def _sliding(
    model: nn.Module, tokens: int, window: int | None, stride: int | None
) -> tuple[int, int]:
    """Return window and stride in tokens, with defaults filled in."""
    limit = limit_of(model) or WINDOW
    size = min(limit, WINDOW) if window is None else window
    check_range("window", size, 2, limit, f"the model's {limit:,} positions")
    size = min(size, tokens)
    step = max(size // 2, 1) if stride is None else stride
    check_range("stride", step, 1, size, f"the window of {size}")
    return size, step
