"""Errors of rounding a weight matrix to few bits, with one scale per group of its inputs.

Symmetric rounding to nearest without calibration, as llm-compressor's: the scale of a group is
``max|w| · 2 / (2^b − 1)`` as bfloat16, and codes range from ``−2^(b−1)`` to ``2^(b−1) − 1``.
At 16 bits values have no scales and are kept, or rounded to bfloat16 if they are wider.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsity_report.deferred import torch

GROUP = 64
"""Weights along the inputs that share a scale."""
UNSCALED = 16
WIDTHS = (UNSCALED, 8, 4, 3)
"""Bits of a weight."""
ROUNDING = ("weight_norm", *(f"rounding_{bits}" for bits in WIDTHS))
"""Names of the norm of a matrix, and of the norms of its errors by the bits."""
_SCALE_BITS = 16
# Groups rounded at a time, so that they stay in the processor's cache.
_RUN = 2**11


class RoundingErrors:
    """Sums of squared errors of rounding one matrix, added block by block.

    Examples
    --------
    At 3 bits, codes from −4 to 3 are steps of 2 apart:

    >>> errors = RoundingErrors()
    >>> errors.add(torch.tensor([[7.0, -7.0, 3.0, 2.0]]))
    >>> errors.squares[3]  # 6, −8 (half to even), 4 (half to even), 2
    3.0
    """

    def __init__(self) -> None:
        self.weights, self.squares = 0.0, dict.fromkeys(WIDTHS, 0.0)

    def norms(self) -> dict[str, float]:
        """Return the norms of the matrix and of its errors by name."""
        sums = (self.weights, *self.squares.values())
        return dict(zip(ROUNDING, map(math.sqrt, sums), strict=True))

    def add(self, matrix: torch.Tensor) -> None:
        """Add rows of outputs, or columns of a multiple of :data:`GROUP` inputs."""
        if matrix.element_size() * 8 > UNSCALED:
            left = (matrix - matrix.to(torch.bfloat16)).float()
            self.squares[UNSCALED] += float(left.square().sum(dtype=torch.float64))
        padded = torch.nn.functional.pad(matrix.float(), (0, -matrix.shape[1] % GROUP))
        for groups in padded.reshape(-1, GROUP).split(_RUN):
            values = groups.numpy()
            self.weights += _squared(values)
            largest = torch.from_numpy(np.abs(values).max(axis=1, keepdims=True))
            for bits in WIDTHS[1:]:
                self.squares[bits] += _squares(values, largest, bits)


def rounded_bytes(rows: int, columns: int, bits: int) -> int:
    """Return the bytes of a matrix of outputs × inputs rounded to some bits, scales included.

    Examples
    --------
    >>> rounded_bytes(2, 128, 4), rounded_bytes(2, 128, 16)
    (136, 512)
    """
    groups = 0 if bits == UNSCALED else -(-columns // GROUP)
    return -(-rows * columns * bits // 8) + rows * groups * _SCALE_BITS // 8


def _squares(values: npt.NDArray[np.float32], largest: torch.Tensor, bits: int) -> float:
    """Return the squared error of groups, given the largest magnitude of each."""
    half = 2 ** (bits - 1)
    scales = (largest * (2 / (2**bits - 1))).to(torch.bfloat16).float().numpy()
    with np.errstate(invalid="ignore", over="ignore"):
        errors = values / np.where(scales == 0, np.float32(1), scales)
        np.clip(np.rint(errors, out=errors), -half, half - 1, out=errors)
        errors *= scales
        return _squared(errors - values)


def _squared(values: npt.NDArray[Any]) -> float:
    # Sums of 64 squares in float32 are accurate to six digits.
    return float(np.einsum("ij,ij->i", values, values).sum(dtype=np.float64))
