"""Perplexities that may be compared: scores of one text by one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.study.layers import records

#: Columns of ``study.quality`` in which two scores agree that may be compared.
PROTOCOL = (
    "protocol", "text", "text_fingerprint", "scored", "tokens", "window", "stride", "dtype"
)  # fmt: skip
#: The same for models with different tokenizers, which split one text into more or fewer tokens.
ANY_TOKENIZER = tuple(name for name in PROTOCOL if name not in {"scored", "tokens"})


class Scored(NamedTuple):
    """A variant's perplexity, and the baseline's by the same protocol; None if unknown.

    Attributes
    ----------
    variant : str
    perplexity : float
    before : float or None
    key : tuple
        The text and the protocol, see :func:`key_of`.
    """

    variant: str
    perplexity: float
    before: float | None
    key: tuple[Any, ...]


def key_of(row: Mapping[str, Any] | pd.Series[Any]) -> tuple[Any, ...]:
    """Return the text and the protocol of a score, in the order of :data:`PROTOCOL`."""
    return tuple(None if pd.isna(row[name]) else row[name] for name in PROTOCOL)


def by_protocol(
    quality: pd.DataFrame | None, columns: tuple[str, ...] = PROTOCOL
) -> Iterator[pd.DataFrame]:
    """Yield the scores of each text and protocol, in the order of the table; none of None.

    Parameters
    ----------
    quality : pandas.DataFrame or None
        As of a study.
    columns : tuple of str
        :data:`PROTOCOL`, or :data:`ANY_TOKENIZER` for several models.
    """
    if quality is None:
        return
    # Protocols compare by value, unknown parts included.
    rows = quality.astype(dict.fromkeys(PROTOCOL, object))
    for _, scores in rows.groupby(list(columns), sort=False, dropna=False):
        yield scores


def scored(quality: pd.DataFrame | None, variant: str, baseline: str) -> Scored | None:
    """Return a variant's perplexity beside the baseline's; None where it has none.

    Of several protocols, the first by which both were scored counts, else the first.

    Parameters
    ----------
    quality : pandas.DataFrame or None
        Of :func:`sparsity_report.perplexity`.
    variant, baseline : str
    """
    scores, others = (scores_by_protocol(quality, name) for name in (variant, baseline))
    # Protocols by which the baseline was scored come first.
    for key in sorted(scores, key=lambda key: key not in others):
        row, known = scores[key], variant != baseline and key in others
        before = float(others[key]["perplexity"]) if known else None
        return Scored(variant, float(row["perplexity"]), before, key)
    return None


def scores_by_protocol(
    quality: pd.DataFrame | None, variant: str
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the first known perplexity of a variant by each text and protocol.

    Returns
    -------
    dict of tuple to dict
        Rows of ``study.quality`` by :func:`key_of`, in their order.
    """
    scores: dict[tuple[Any, ...], dict[str, Any]] = {}
    if quality is not None:
        known = quality[quality["variant"].eq(variant) & quality["perplexity"].notna()]
        for row in records(known):
            scores.setdefault(key_of(row), row)
    return scores
