"""What one variant scored beside the baseline, on one text by one protocol."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

#: Columns of ``study.quality`` in which two scores agree that may be compared.
ALIKE = [
    "protocol", "text", "text_fingerprint", "scored", "tokens", "window", "stride", "dtype",
]  # fmt: skip


class Scored(NamedTuple):
    """A variant's perplexity, and the baseline's on the same text where that is known."""

    text: str
    perplexity: float
    before: float | None


def scored(quality: pd.DataFrame | None, variant: str, baseline: str) -> Scored | None:
    """Return a variant's perplexity beside the baseline's; None where it has none.

    Of several texts or protocols the first on which both were scored is taken, else the first.

    Parameters
    ----------
    quality : pandas.DataFrame or None
        Of :func:`sparsity_report.perplexity`.
    variant, baseline : str
    """
    if quality is None:
        return None
    rows = quality[quality["perplexity"].notna()].astype(dict.fromkeys(ALIKE, object))
    of = {name: rows[rows["variant"] == name] for name in (variant, baseline)}
    pairs = of[variant].merge(of[baseline], on=ALIKE, how="left", suffixes=("", "_before"))
    if pairs.empty:
        return None
    pair = pairs.sort_values("perplexity_before", key=pd.isna, kind="stable").iloc[0]
    before = pair["perplexity_before"]
    return Scored(
        str(pair["text"]),
        float(pair["perplexity"]),
        None if variant == baseline or pd.isna(before) else float(before),
    )
