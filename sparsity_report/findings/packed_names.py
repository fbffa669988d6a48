"""Names of packed weights and of the types they are unpacked to."""

from __future__ import annotations

from collections.abc import Sequence

from sparsity_report.phrases import Phrase, phrase


def unpacked_name(name: str, dtypes: Sequence[str]) -> str | Phrase:
    """Return the name of weights, with the types they are unpacked to if they are packed."""
    return phrase("name.unpacked_to", name=name, dtypes=dtypes) if dtypes else name


def dtype_names(dtypes: Sequence[str], unpacked: Sequence[str]) -> list[str | Phrase]:
    """Return the names of types; types that packed weights are unpacked to say so."""
    return [phrase("name.unpacked_dtype", dtype=d) if d in unpacked else d for d in dtypes]
