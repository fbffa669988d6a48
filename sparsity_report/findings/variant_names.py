"""Names of variants and of their bytes, as findings mention them."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from sparsity_report.words.sentences import say

_Key = TypeVar("_Key")


def group_names(pairs: Iterable[tuple[_Key, str]]) -> dict[_Key, list[str]]:
    """Return names by the key they share, in order of first appearance.

    Examples
    --------
    >>> group_names([(0.3, "Masked30"), (0.5, "Masked50"), (0.3, "CSR30")])
    {0.3: ['Masked30', 'CSR30'], 0.5: ['Masked50']}
    """
    groups: dict[_Key, list[str]] = {}
    for key, name in pairs:
        groups.setdefault(key, []).append(name)
    return groups


def unpacked_name(name: str, dtypes: Sequence[str]) -> str:
    """Return the name of weights, with the types they are unpacked to if they are packed."""
    return say("name.unpacked_to", name=name, dtypes=dtypes) if dtypes else name


def counted_bytes(dtypes: Sequence[str]) -> str:
    """Return the bytes to which a layout of some variants is compared.

    Parameters
    ----------
    dtypes : sequence of str
        Types that packed weights are unpacked to; empty for weights that are not packed.
    """
    if dtypes:
        return say("finding.their_unpacked_bytes", dtypes=dtypes)
    return say("finding.their_dense_bytes")
