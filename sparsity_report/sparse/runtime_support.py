"""Runtimes and the sparse layouts they use, run as dense or refuse, with a source per cell.

``runtime_support.json`` holds the table with the date and the source of each cell. A cell without
a source is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

SPARSE, DENSE, SOME, MISREAD, REFUSED, UNKNOWN = VERDICTS = (
    "sparse", "dense", "some", "misread", "refused", "unknown",
)  # fmt: skip
"""Verdicts: sparse kernels; dense kernels; only some architectures load; loads with random weights
in place of the stored ones; does not load; not known."""


class Support(NamedTuple):
    """Support of a layout by a runtime.

    Attributes
    ----------
    runtime, layout : str
        Keys.
    verdict : str
        One of :data:`VERDICTS`.
    version : str or None
        Version of the runtime that the verdict is about.
    source : str or None
        Address of the documentation, code or issue that the verdict follows from.
    looked_at : str
        ISO date.
    note : str or None
        Key of a condition, such as an option that selects the sparse kernels.
    """

    runtime: str
    layout: str
    verdict: str
    version: str | None
    source: str | None
    looked_at: str
    note: str | None


class Runtime(NamedTuple):
    """A runtime.

    Attributes
    ----------
    key, name, version : str
    ended : str or None
        ISO date from which nobody maintains it.
    cells : dict of str to Support
        By layout.

    Examples
    --------
    >>> RUNTIMES["vllm"].cells["sparse-24-bitmask"].verdict
    'refused'
    """

    key: str
    name: str
    version: str
    ended: str | None
    cells: dict[str, Support]


_TABLE = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
#: ISO date on which the table was last looked at.
LOOKED_AT: str = _TABLE["looked_at"]
#: Keys of layouts in the order of the table.
LAYOUTS: tuple[str, ...] = tuple(_TABLE["layouts"])
RUNTIMES: dict[str, Runtime] = {
    row["key"]: Runtime(**row)._replace(
        cells={layout: Support(row["key"], layout, **cell) for layout, cell in row["cells"].items()}
    )
    for row in _TABLE["runtimes"]
}
# Layouts of compressed-tensors, with which the names of packings start.
_PACKED = ("sparse-24-bitmask", "sparse-bitmask")


def layouts_of(
    packings: Collection[str] = (),
    *,
    is_gguf: bool = False,
    is_csr: bool = False,
    has_zeros: bool = False,
    is_2_4: bool = False,
    is_uneven: bool = False,
) -> tuple[str, ...]:
    """Return the layouts of the table that describe weights as they are stored.

    Parameters
    ----------
    packings : collection of str
        Packed formats of the weights; empty for plain values.
    is_gguf, is_csr : bool
        Whether the weights are in a GGUF file, or CSR tensors in a state dict.
    has_zeros : bool
        Whether weights were pruned; zeros that rounding explains do not count.
    is_2_4 : bool
        Whether the zeros comply with 2:4.
    is_uneven : bool
        Whether one projection has different shapes in different blocks.

    Returns
    -------
    tuple of str
        Empty for dense weights of even shapes, and for packed formats that are not in the table.

    Examples
    --------
    >>> layouts_of(has_zeros=True), layouts_of(has_zeros=True, is_2_4=True)
    (('zeros',), ('2:4',))
    >>> layouts_of(["sparse-bitmask"], is_uneven=True)
    ('sparse-bitmask', 'uneven')
    """
    packed = [name for name in _PACKED if any(each.startswith(name) for each in packings)]
    if is_csr:
        stored = ["csr"]
    elif packed or not has_zeros:
        stored = packed
    elif is_gguf:
        stored = ["gguf"]
    elif packings:
        stored = []
    else:
        stored = ["2:4" if is_2_4 else "zeros"]
    return (*stored, *(["uneven"] if is_uneven else []))
