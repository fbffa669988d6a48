"""Mean magnitude and standard deviation of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch

# Values made double at a time: they stay in the processor's cache.
_RUN = 2**15


def moments(tensors: Iterable[torch.Tensor]) -> tuple[float, float]:
    """Return the mean magnitude and the standard deviation of all values together.

    Sums are taken in double precision; the deviation is that of the values themselves, divided by
    their number. With NaN or infinity among them neither need be finite.

    Examples
    --------
    >>> moments([torch.tensor([3.0, -3.0]), torch.tensor([[1.0], [-1.0]])])
    (2.0, 2.23606797749979)
    """
    count, total, absolute, squares = 0, 0.0, 0.0, 0.0
    for tensor in tensors:
        for run in tensor.reshape(-1).split(_RUN):
            # In NumPy: torch would start a team of threads for every run.
            values = run.to(torch.float64).numpy()
            count += values.size
            with np.errstate(invalid="ignore", over="ignore"):
                total += float(values.sum())
                absolute += float(np.abs(values).sum())
                squares += float(np.square(values).sum())
    if not count:
        return 0.0, 0.0
    return absolute / count, math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
