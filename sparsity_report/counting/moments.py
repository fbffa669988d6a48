"""Mean magnitude, standard deviation and smallest nonzero magnitude of weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsity_report.deferred import torch

# Values converted to double at a time, so that they stay in the processor's cache.
_RUN = 2**15


@dataclass(slots=True)
class Moments:
    """Sums in double precision over the values added so far.

    Examples
    --------
    >>> sums = Moments()
    >>> sums.add(torch.tensor([3.0, -3.0]))
    >>> sums.add(torch.tensor([[1.0], [-1.0]]))
    >>> sums.mean_abs, sums.std, sums.least_abs
    (2.0, 2.23606797749979, 1.0)

    Attributes
    ----------
    least_abs : float
        Smallest nonzero magnitude; infinite if there is none.
    """

    count: int = 0
    total: float = 0.0
    absolute: float = 0.0
    squares: float = 0.0
    least_abs: float = math.inf

    def add(self, tensor: torch.Tensor) -> None:
        """Add the values of a tensor."""
        for run in tensor.reshape(-1).split(_RUN):
            # In NumPy: torch would start a team of threads for every run.
            values = run.to(torch.float64).numpy()
            self.count += values.size
            with np.errstate(invalid="ignore", over="ignore"):
                self.total += float(values.sum())
                sizes = np.abs(values)
                self.absolute += float(sizes.sum())
                least = sizes.min(where=sizes > 0, initial=math.inf)
                self.least_abs = min(self.least_abs, float(least))
                self.squares += float(np.square(values).sum())

    @property
    def mean_abs(self) -> float:
        """Mean magnitude; not finite if a value is not."""
        return self.absolute / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        """Population standard deviation of the values; not finite if a value is not."""
        if not self.count:
            return 0.0
        return math.sqrt(max(self.squares / self.count - (self.total / self.count) ** 2, 0.0))
