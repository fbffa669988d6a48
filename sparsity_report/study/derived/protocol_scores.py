"""Perplexities that may be compared: scores of one text by one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

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
    text : str
    perplexity : float
    before : float or None
    key : tuple
        The text and the protocol, see :func:`key_of`.
    """

    variant: str
    text: str
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
    rows = _comparable(quality)
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
    if quality is None:
        return None
    scores, others = (quality[quality["variant"] == name] for name in (variant, baseline))
    pairs = pairs_by_protocol(scores, others, how="left")
    if pairs.empty:
        return None
    # Rows for which the baseline was scored come first.
    pair = pairs.sort_values("perplexity_other", key=pd.isna, kind="stable").iloc[0]
    before = pair["perplexity_other"]
    known = None if variant == baseline or pd.isna(before) else float(before)
    perplexity = float(pair["perplexity"])
    return Scored(variant, str(pair["text"]), perplexity, known, key_of(pair))


def pairs_by_protocol(
    quality: pd.DataFrame, other: pd.DataFrame, how: str = "inner"
) -> pd.DataFrame:
    """Return the perplexities of one variant beside those of another by the same protocol.

    Parameters
    ----------
    quality, other : pandas.DataFrame
        Rows of ``study.quality``, of one variant each.
    how : {"inner", "left"}
        ``"left"`` keeps scores for which the other variant has none.

    Returns
    -------
    pandas.DataFrame
        The columns of :data:`PROTOCOL`, ``perplexity`` and ``perplexity_other``.
    """
    columns = [*PROTOCOL, "perplexity"]
    known = (_comparable(rows[rows["perplexity"].notna()])[columns] for rows in (quality, other))
    one, two = (rows.drop_duplicates(list(PROTOCOL)) for rows in known)
    return one.merge(two, on=list(PROTOCOL), how=how, suffixes=("", "_other"))  # type: ignore[arg-type]


def _comparable(quality: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose protocols compare by value, unknown parts included."""
    return quality.astype(dict.fromkeys(PROTOCOL, object))
