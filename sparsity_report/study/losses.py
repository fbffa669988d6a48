"""Losses kept with scores: sums over consecutive spans of the scored tokens of a text.

A span has a power of two of tokens, 16 at least, and more where a text has more than 200 spans, so
that a long text keeps sums over several windows. Sums of losses have six significant digits.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.study.block_bootstrap import Mean, mean_over
from sparsity_report.study.layers import records

# Fewest tokens of a span, most spans of a score, and most losses of a table of parts.
_TOKENS, _SPANS, _LOSSES = 16, 200, 8192
#: Columns of scores that hold a figure of each span.
FIGURES = ("nll", "hits", "kl", "agreed")
# Columns in which scores differ that cannot be paired, by reason.
_DIFFERENT = {
    "text": ("text_fingerprint",),
    "tokens": ("tokens_fingerprint", "tokens"),
    "protocol": ("protocol", "window", "stride", "scored", "span"),
}


def span_of(scored: int, parts: int = 1) -> int:
    """Return the span length for a number of scored tokens.

    Examples
    --------
    >>> span_of(300), span_of(4137), span_of(341_469), span_of(4137, parts=200)
    (16, 32, 2048, 128)
    """
    span = _TOKENS
    while scored > _SPANS * span or (scored > 64 * span and scored * parts > _LOSSES * span):
        span *= 2
    return span


def token_counts(scored: int, span: int) -> npt.NDArray[np.float64]:
    """Return the number of tokens of each span."""
    counts = np.full(-(-scored // span), float(span))
    counts[-1] -= len(counts) * span - scored
    return counts


def kept_sums(sums: npt.ArrayLike) -> tuple[float, ...] | None:
    """Return sums as a study keeps them; None if one is not finite."""
    known = np.asarray(sums, dtype=np.float64)
    if not np.isfinite(known).all():
        return None
    return tuple(float(f"{each:.6g}") for each in known.tolist())


def check_losses(frame: pd.DataFrame) -> None:
    """Refuse spans that are not those of the text, or do not sum to the score.

    Raises
    ------
    ValueError
        Names the row and what is wrong with it.
    """
    means = {"span_increase": "nll_increase", "span_nll": "nll", "span_hits": "top1"}
    means |= {"span_kl": "kl", "span_agreed": "agreement"}
    for place, row in enumerate(records(frame)):
        for column, mean in means.items():
            if (sums := row.get(column)) is None:
                continue
            wrong = f"row {place}, {column}:"
            if pd.isna(row["span"]) or len(sums) != -(-row["scored"] // row["span"]):
                raise ValueError(f"{wrong} is not one number for each span")
            total = float(np.sum(sums))
            if not abs(total - row[mean] * row["scored"]) <= 1e-4 * (1 + abs(total)):
                raise ValueError(f"{wrong} is not {mean} in sum")


def losses_frame(quality: pd.DataFrame | None) -> pd.DataFrame | None:
    """Return the losses of each variant by protocol and span; None where none are kept."""
    if quality is None or quality["span"].isna().all():
        return None
    frames = []
    for row in records(quality[quality["span"].notna()]):
        counts = token_counts(row["scored"], int(row["span"])).astype(int)
        keys = {key: row[key] for key in ("variant", "protocol", "text", "tokens_fingerprint")}
        figures = {key: row[f"span_{key}"] for key in FIGURES}
        frames.append(
            pd.DataFrame({**keys, "begin": np.cumsum(counts) - counts, "tokens": counts, **figures})
        )
    return pd.concat(frames, ignore_index=True)


def why_unpaired(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return why two scores cannot be compared span by span; empty if they can.

    Returns
    -------
    str
        ``"losses"``: one keeps none. ``"text"``, ``"tokens"``, ``"protocol"``: these differ.
        ``"window"``: one window holds the whole text.
    """
    if one["span_nll"] is None or other["span_nll"] is None:
        return "losses"
    for reason, keys in _DIFFERENT.items():
        if any(one[key] != other[key] for key in keys):
            return reason
    return "window" if one["scored"] < one["window"] else ""


def paired_mean(
    one: Mapping[str, Any], other: Mapping[str, Any] | None = None, figure: str = "nll"
) -> Mean | None:
    """Return the mean of a figure per token, less another score's, from losses that pair.

    Parameters
    ----------
    one, other : mapping
        Rows of ``study.quality``.
    figure : str
        One of :data:`FIGURES`.
    """
    sums = [row[f"span_{figure}"] for row in (one, other) if row is not None]
    if None in sums:
        return None
    counts = token_counts(one["scored"], one["span"])
    return mean_over(np.subtract(*sums) if len(sums) > 1 else sums[0], counts)
