"""Published figures of kernels for sparse weights, none of which was measured here.

``published_kernels.json`` holds them. Each figure quotes its source: the abstract of a paper, or
the README of the authors' code. Values that neither states, such as the crossover sparsity, are
null.
"""

import json
from pathlib import Path
from typing import NamedTuple


class Published(NamedTuple):
    """One figure of a kernel.

    Attributes
    ----------
    kernel : str
    layout : str
        As in ``study.storage``; ``"csr"`` for any CSR.
    zeros : str
        Sparsity at which it was measured.
    speedup : str
        Speed-up over `against`.
    against : str
        Key of a name, or the name of a product.
    crossover : float or None
        Sparsity from which it is faster than dense, if the source states it.
    hardware : str
    words : str
        Quotation from the source.
    source : str
    """

    kernel: str
    layout: str
    zeros: str
    speedup: str
    against: str
    crossover: float | None
    hardware: str
    words: str
    source: str


_FILE = Path(__file__).with_suffix(".json")
#: Figures in the order of the table.
PUBLISHED = tuple(Published(**row) for row in json.loads(_FILE.read_text(encoding="utf-8")))
