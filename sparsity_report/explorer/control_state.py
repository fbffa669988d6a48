"""What the controls of an explorer say, as one value."""

from __future__ import annotations

from typing import NamedTuple

from sparsity_report.counting.bounds import Bounds
from sparsity_report.words.sentences import message

LIVE = (MASKED_AT_LEVEL, CSR_AT_LEVEL) = (message("Masked at level"), message("CSR at level"))
SORTS = (MODEL_ORDER, LARGEST_FIRST, SMALLEST_FIRST) = (
    message("model order"),
    message("largest first"),
    message("smallest first"),
)
QUALITY, COSTS = "quality", "bytes"
CURVES = {QUALITY: message("quality"), COSTS: message("bytes")}
GROUPINGS = (message("group"), message("projection"), message("block"))


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
