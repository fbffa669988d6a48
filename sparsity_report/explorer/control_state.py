"""What the controls of an explorer say, as one value."""

from __future__ import annotations

from typing import NamedTuple

from sparsity_report.counting.bounds import Bounds

LIVE = (MASKED_AT_LEVEL, CSR_AT_LEVEL) = ("explorer.masked_at_level", "explorer.csr_at_level")
SORTS = (MODEL_ORDER, LARGEST_FIRST, SMALLEST_FIRST) = (
    "explorer.sort_model_order",
    "explorer.sort_largest_first",
    "explorer.sort_smallest_first",
)
QUALITY, COSTS = "quality", "bytes"
CURVES = {QUALITY: "explorer.curve_quality", COSTS: "label.bytes"}
GROUPINGS = ("label.group", "name.projection", "name.block")


class State(NamedTuple):
    """What the controls say."""

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
        """Whether a level is shown, not a variant."""
        return self.variant in LIVE
