"""Protocols: how a text becomes tokens and windows, under the names that papers use."""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict, cast

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError, without_panics, writable
from sparsity_report.measure.texts import Corpus, Text, fingerprint, read_corpus, read_text
from sparsity_report.study.schema import PROTOCOLS, SLIDING
from sparsity_report.weights.tensor_slices import dtype_name
from sparsity_report.weights.weights import Weights

# Windows of long models are cut to this; the one Hugging Face's guide uses for GPT-2.
_WINDOW = 1024

# Rows are those of the data sets' own pages.
_WIKITEXT = Corpus(
    title="wikitext-2-raw-v1 test",
    source=("Salesforce/wikitext", "wikitext-2-raw-v1"),
    split="test",
    column="text",
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
    column="text",
    joint=" ",
    rows=1100,
    first=True,
    bring="en/c4-validation.00000-of-00008.json.gz from allenai/c4",
)
_PTB = Corpus(
    title="ptb_text_only test",
    source=("ptb-text-only/ptb_text_only", "penn_treebank"),
    split="test",
    column="sentence",
    joint=" ",
    rows=3761,
    bare=True,
    bring="ptb.test.txt",
)


#: What named protocols score. They cut it into windows that do not overlap and drop what is left,
#: as the code of SparseGPT (github.com/IST-DASLab/sparsegpt, ``llama_eval``) and of Wanda
#: (github.com/locuslab/wanda, ``lib/eval.py``) does.
CORPORA = {"wikitext2-2048": _WIKITEXT, "wikitext2-max": _WIKITEXT, "c4-256x2048": _C4, "ptb": _PTB}


class ProtocolOptions(TypedDict, total=False):
    """How a text is scored, see :func:`sparsity_report.perplexity`."""

    protocol: str | None
    tokenizer: Any
    window: int | None
    stride: int | None


class ScoringOptions(ProtocolOptions, total=False):
    """What is scored and how."""

    text: Text | None


class Passage(NamedTuple):
    """Tokens to score, and in which windows."""

    ids: torch.Tensor
    protocol: str
    window: int
    stride: int
    text: str
    fingerprint: str

    def facts(self, model: nn.Module) -> dict[str, object]:
        """Return what a table says of it."""
        return {
            "protocol": self.protocol,
            "tokens": len(self.ids),
            "window": self.window,
            "stride": self.stride,
            "dtype": dtype_name(next(model.parameters()).dtype),
            "text": self.text,
            "text_fingerprint": self.fingerprint,
        }


class NoScoreError(SparsityReportError):
    """A model has no score, of no fault of whoever asks for it."""


class Passages:
    """The passages of models for one text, which is read once and tokenised once a tokenizer.

    Raises
    ------
    SparsityReportError
        There is no such protocol, it takes no window of one's own, or the text cannot be read.
    """

    def __init__(self, scoring: ScoringOptions) -> None:
        self._scoring = scoring
        self._name = check_protocol(scoring.get("protocol"))
        corpus, text = CORPORA.get(self._name), scoring.get("text")
        given = [key for key in ("window", "stride") if scoring.get(key) is not None]
        if corpus and given:
            raise SparsityReportError(
                f"protocol {self._name} has its own windows; leave {' and '.join(given)} out"
            )
        self._title, self._text = read_corpus(corpus, text) if corpus else read_text(text)
        self._ids: dict[int, tuple[Any, torch.Tensor]] = {}
        if isinstance(self._text, str):
            if not self._text.strip():
                raise SparsityReportError("the text to score is empty")
            if writable(self._text) != self._text:
                raise SparsityReportError(
                    "the text to score holds halves of characters: save it anew"
                )
        self._fingerprint = fingerprint(self._text)

    def of(self, weights: Weights, model: nn.Module) -> Passage:
        """Return what is scored of a model, which must be a causal one."""
        check_causal(model, weights.name)
        ids = self._tokens(weights)
        if len(ids) < 2:
            raise SparsityReportError(
                f"the text to score has {len(ids)} token; at least two are needed"
            )
        vocabulary = vocabulary_of(model)
        if int(ids.max()) >= vocabulary or int(ids.min()) < 0:
            raise SparsityReportError(
                f"the text holds token {int(ids.max())}, beyond the model's {vocabulary:,}; "
                "is the tokenizer another model's?"
            )
        if self._name not in CORPORA:
            window, stride = self._scoring.get("window"), self._scoring.get("stride")
            sizes = _sliding(model, len(ids), window, stride)
        else:
            window = self._fixed(model, len(ids))
            sizes = window, window
            _, windows = PROTOCOLS[self._name]
            ids = ids[: windows and windows * window]
        return Passage(ids, self._name, *sizes, self._title, self._fingerprint)

    def _tokens(self, weights: Weights) -> torch.Tensor:
        """Return the tokens of the text for a model."""
        if isinstance(self._text, torch.Tensor):
            return self._text.to(torch.int64)
        tokenizer = self._scoring.get("tokenizer") or weights.tokenizer()
        if id(tokenizer) not in self._ids:
            with without_panics():
                ids = tokenizer(self._text, return_tensors="pt", verbose=False)["input_ids"][0]
            self._ids[id(tokenizer)] = tokenizer, ids  # kept alive, as its id is
        return self._ids[id(tokenizer)][1]

    def _fixed(self, model: nn.Module, tokens: int) -> int:
        """Return the window of a protocol that has one."""
        limit = limit_of(model)
        window = PROTOCOLS[self._name][0] or limit
        if window is None:
            raise SparsityReportError(
                f"protocol {self._name} takes the model's own window, and this one tells none; "
                "take wikitext2-2048"
            )
        if limit is not None and window > limit:
            raise SparsityReportError(
                f"protocol {self._name} has windows of {window:,} tokens, the model takes "
                f"{limit:,}; wikitext2-max has the model's own"
            )
        if tokens < window:
            raise SparsityReportError(
                f"the text to score has {tokens:,} tokens; protocol {self._name} needs a window "
                f"of {window:,} at least"
            )
        return window


def check_protocol(name: str | None) -> str:
    """Return the name of a protocol, ours where none is given; refuse one that is none."""
    if name is None:
        return SLIDING
    if name not in PROTOCOLS:
        raise SparsityReportError(
            f"there is no protocol {name!r}; there are {', '.join(PROTOCOLS)}"
        )
    return name


def check_causal(model: nn.Module, name: str) -> None:
    """Refuse a model that does not predict the next token."""
    config = getattr(model, "config", None)
    generates = getattr(model, "can_generate", lambda: False)()
    if not generates or getattr(config, "is_encoder_decoder", False):
        raise NoScoreError(
            f"{name} is a {type(model).__name__} without a causal language model head, so it has "
            "no perplexity; everything else works"
        )


def vocabulary_of(model: nn.Module) -> int:
    """Return how many tokens a model knows."""
    return int(cast(Any, model).get_input_embeddings().weight.shape[0])


def limit_of(model: nn.Module) -> int | None:
    """Return how many tokens a model takes, as its config tells."""
    config: Any = model.config
    return getattr(config, "max_position_embeddings", None) or None


def _sliding(
    model: nn.Module, tokens: int, window: int | None, stride: int | None
) -> tuple[int, int]:
    """Return window and stride, defaults filled in."""
    limit = limit_of(model) or _WINDOW
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
