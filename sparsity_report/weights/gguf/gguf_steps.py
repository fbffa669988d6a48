"""Rounding steps of GGUF blocks, which the public decoder does not return.

Layout of the blocks: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from gguf.quants import Q4_K

from sparsity_report.weights.anatomy.rounding_levels import Rounding

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def block_steps(kind: str, blocks: Bytes) -> Floats:
    """Return the steps of blocks in order; each step covers equally many weights.

    Parameters
    ----------
    kind : str
        One of :data:`ROUNDINGS`.
    blocks : numpy.ndarray
        uint8, shape (blocks, bytes of a block).
    """
    steps: Floats = np.abs(_STEPS[kind](blocks)).astype(np.float32, copy=False)
    return steps


def _half(blocks: Bytes, place: int) -> Floats:
    """Return the 16-bit float at a byte offset of each block, shape (blocks, 1)."""
    number = np.ascontiguousarray(blocks[:, place : place + 2]).view(np.float16)
    return number.astype(np.float32)


def _q2_k(blocks: Bytes) -> Floats:
    return _half(blocks, 80) * (blocks[:, :16] & 15)


def _q3_k(blocks: Bytes) -> Floats:
    low: Bytes = np.concatenate([blocks[:, 96:104] & 15, blocks[:, 96:104] >> 4], axis=1)
    shifts = np.array([[0], [2], [4], [6]], np.uint8)
    high = (blocks[:, None, 104:108] >> shifts & 3).reshape(-1, 16)
    return _half(blocks, 108) * ((low | high << 4).astype(np.int16) - 32)


def _q4_k(blocks: Bytes) -> Floats:
    scales: Bytes = Q4_K.get_scale_min(np.ascontiguousarray(blocks[:, 4:16]))[0]
    return _half(blocks, 0) * scales


def _q6_k(blocks: Bytes) -> Floats:
    return _half(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)


def _mxfp4(blocks: Bytes) -> Floats:
    return np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 127)


def _first(blocks: Bytes) -> Floats:
    return _half(blocks, 0)


_STEPS: Mapping[str, Callable[[Bytes], Floats]] = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "Q4_1", "Q5_1"), _first),
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q4_k,
    "Q6_K": _q6_k,
    "MXFP4": _mxfp4,
}
_AFFINE = ("Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K")

#: Rounding by type of blocks. Missing are ternary types, whose models are trained to be ternary,
#: and types that look up runs of weights in a table.
ROUNDINGS: Mapping[str, Rounding] = {
    **dict.fromkeys(_STEPS, Rounding()),
    **dict.fromkeys(_AFFINE, Rounding(has_zero=False)),
    "MXFP4": Rounding(0.25, 0.25),
}
