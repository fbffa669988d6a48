"""What variants still know, and how far that is from dense, in sentences with their numbers."""

from __future__ import annotations

from collections.abc import Iterator

from sparsity_report.study.comparison import Comparison
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.number_format import figures
from sparsity_report.words.sentences import say

# Of a prompt, and of what is written after it.
_LETTERS = 200
# What of a row says what was scored, and how.
PASSAGE = ("protocol", "text", "text_fingerprint", "scored", "tokens", "window", "stride")


def perplexities(study: Comparison) -> Iterator[str]:
    """Say what perplexity and accuracy are left, once per text and protocol."""
    if study.quality is None:
        return
    frame = study.quality[study.quality["variant"].isin(study.variants["variant"])]
    for passage, rows in frame.groupby([*PASSAGE], sort=False):
        scores = [
            say(
                "finding.perplexity_of_variant",
                perplexity=figures(row["perplexity"], ",.2f"),
                variant=row["variant"],
                top1=row["top1"],
            )
            for row in records(rows)
        ]
        yield say("finding.perplexity", **dict(zip(PASSAGE, passage, strict=True)), scores=scores)


def distances(study: Comparison) -> Iterator[str]:
    """Say how far next-token distributions are from those of dense, once per text and protocol."""
    if study.quality is None:
        return
    frame = study.quality[study.quality["variant"].isin(study.variants["variant"])]
    others = frame[frame["kl"].notna() & (frame["variant"] != frame["against"])]
    for (against, text, *_), rows in others.groupby(["against", "text", *PASSAGE], sort=False):
        told = [
            say(
                "finding.kl_divergence_of_variant",
                kl=figures(row["kl"], "#.3g"),
                variant=row["variant"],
                agreement=row["agreement"],
            )
            for row in records(rows)
        ]
        yield say("finding.kl_divergence", against=against, text=text, told=told)


def continued(study: Comparison) -> Iterator[str]:
    """Say what variants wrote after each prompt, once for all that wrote the same."""
    if (frame := study.continuations) is None:
        return
    one = "finding.continuation_one"
    many = "finding.continuation_many"
    for (prompt, text), rows in frame.groupby(["prompt", "continuation"], sort=False):
        yield say(
            one if len(rows) == 1 else many,
            prompt=_on_one_line(str(prompt)),
            variants=rows["variant"].tolist(),
            continuation=_on_one_line(str(text)),
        )


def _on_one_line(text: str) -> str:
    return clip(" ".join(text.split()), _LETTERS)
