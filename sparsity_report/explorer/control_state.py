"""State of an explorer's controls as one value."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from sparsity_report.counting.bounds import Bounds

# Values of traits, which are the same in every language, and the keys of their labels.
MASKED_AT_LEVEL, CSR_AT_LEVEL = "Masked at level", "CSR at level"
LIVE = {MASKED_AT_LEVEL: "explorer.masked_at_level", CSR_AT_LEVEL: "explorer.csr_at_level"}
MODEL_ORDER, LARGEST_FIRST, SMALLEST_FIRST = "model order", "largest first", "smallest first"
SORTS = {
    MODEL_ORDER: "explorer.sort_model_order",
    LARGEST_FIRST: "explorer.sort_largest_first",
    SMALLEST_FIRST: "explorer.sort_smallest_first",
}
QUALITY, COSTS = "quality", "bytes"
CURVES = {QUALITY: "explorer.curve_quality", COSTS: "label.bytes"}
GROUPINGS = {"group": "label.group", "projection": "name.projection", "block": "kind.block"}


class State(NamedTuple):
    """Values of the traits, and the width of the picture."""

    variant: str
    policy: str
    sparsity: float
    metric: str
    modules: str
    grouping: str
    sort: str
    log_scale: bool
    selection: tuple[str, ...]
    detail: str | None
    bounds: Bounds
    against: str
    curve: str
    width: int

    @property
    def live(self) -> bool:
        """True if a level is in view, not a variant."""
        return self.variant in LIVE

    @property
    def masked(self) -> bool:
        """True if a level is in view with its zeros in dense tensors."""
        return self.variant == MASKED_AT_LEVEL


def order_of(values: Sequence[float], sort: str) -> list[int]:
    """Return the places of values in an order of the menu; unknown values are last."""
    if sort == MODEL_ORDER:
        return list(range(len(values)))
    known = pd.Series(values, dtype=float)
    return known.sort_values(ascending=sort == SMALLEST_FIRST, kind="stable").index.tolist()
