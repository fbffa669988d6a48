"""Errors of rounding a weight matrix to few bits, with one scale per group of its inputs.

Symmetric rounding to nearest without calibration, as llm-compressor's: the scale of a group is
``max|w| · 2 / (2^b − 1)`` as bfloat16, and codes range from ``−2^(b−1)`` to ``2^(b−1) − 1``.
At 16 bits values have no scales and are kept, or rounded to bfloat16 if they are wider.
"""

from __future__ import annotations

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


def squared_errors(matrix: torch.Tensor) -> npt.NDArray[np.float64]:
    """Return the sums of squares of a matrix and of its errors, in the order of :data:`ROUNDING`.

    Sums of several are those of rows of outputs, or of columns of a multiple of :data:`GROUP`
    inputs.

    Examples
    --------
    At 3 bits, codes from −4 to 3 are steps of 2 apart:

    >>> sums = squared_errors(torch.tensor([[7.0, -7.0, 3.0, 2.0]]))
    >>> float(sums[ROUNDING.index("rounding_3")])  # 6, −8 (half to even), 4 (half to even), 2
    3.0
    """
    padded = torch.nn.functional.pad(matrix.float(), (0, -matrix.shape[1] % GROUP))
    sums = np.zeros(len(ROUNDING))
    for groups in padded.reshape(-1, GROUP).split(_RUN):
        values, largest = groups.numpy(), groups.abs().amax(dim=1, keepdim=True)
        is_wide = matrix.element_size() * 8 > UNSCALED
        rounded = groups.bfloat16().float().numpy() if is_wide else values
        with np.errstate(invalid="ignore", over="ignore"):
            errors = [values, rounded - values]
            errors += [_rounded(values, largest, bits) - values for bits in WIDTHS[1:]]
            # Sums of 64 squares in float32 are accurate to six digits.
            sums += [np.einsum("ij,ij->i", e, e).sum(dtype=np.float64) for e in errors]
    return sums


def rounded_bytes(rows: int, columns: int, bits: int) -> int:
    """Return the bytes of a matrix of outputs × inputs rounded to some bits, scales included.

    Examples
    --------
    >>> rounded_bytes(2, 128, 4), rounded_bytes(2, 128, 16)
    (136, 512)
    """
    groups = 0 if bits == UNSCALED else -(-columns // GROUP)
    return -(-rows * columns * bits // 8) + rows * groups * _SCALE_BITS // 8


def _rounded(
    values: npt.NDArray[np.float32], largest: torch.Tensor, bits: int
) -> npt.NDArray[np.float32]:
    """Return groups after rounding, given the largest magnitude of each."""
    scales: npt.NDArray[np.float32] = (largest * (2 / (2**bits - 1))).bfloat16().float().numpy()
    codes = np.rint(values / np.where(scales == 0, np.float32(1), scales))
    return codes.clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scales
