"""Unpacking of integers of a few bits, lowest bits first."""

from functools import lru_cache

import numpy as np

from sparsity_report.weights.tensor_slices import Bytes, Floats

#: Values of the sixteen codes of a 4-bit float: a sign, two exponent bits, one fraction bit.
#: OCP Microscaling Formats (MX) Specification 1.0, table 5: E2M1.
E2M1 = tuple(sign * value for sign in (1.0, -1.0) for value in (0, 0.5, 1, 1.5, 2, 3, 4, 6))
#: Values of the 6-bit float E2M3, three fraction bits, table 4.
E2M3 = tuple(
    sign * 2.0 ** max(0, code // 8 - 1) * (code % 8 / 8 + (code > 7))
    for sign in (1.0, -1.0)
    for code in range(32)
)

#: Weights per scale in microscaling formats and in NVIDIA's.
MX_GROUP, NV_GROUP = 32, 16


def integer_values(bits: int, offset: float = 0) -> tuple[float, ...]:
    """Return the values of integer codes of a width, from -`offset`."""
    return tuple(code - offset for code in range(2**bits))


def decode_codes(
    packed: Bytes, bits: int, values: tuple[float, ...] = (), high_first: bool = False
) -> Floats:
    """Return the value of each code in rows of bytes.

    Parameters
    ----------
    packed : numpy.ndarray
        uint8, (rows, bytes), codes side by side from the lowest bit of the first byte.
    bits : int
        Of a code, 1 to 8.
    values : tuple of float
        What the ``2**bits`` codes stand for; by default their integers.
    high_first : bool
        The high half of a byte comes first, of 4-bit codes.

    Returns
    -------
    numpy.ndarray
        float32, (rows, codes).

    Examples
    --------
    >>> decode_codes(np.array([[0x21, 0x43]], np.uint8), 4)
    array([[1., 2., 3., 4.]], dtype=float32)
    """
    rows, values = len(packed), values or integer_values(bits)
    if 8 % bits == 0:
        # Decode two bytes at a time: their table of values fits a core's cache.
        table = _table(bits, values, high_first)
        if bits < 8 and packed.shape[1] % 2 == 0 and packed.flags.c_contiguous:
            wide = _wide_table(bits, values, high_first)
            return wide.take(packed.view("<u2"), axis=0).reshape(rows, -1)
        return table.take(packed, axis=0).reshape(rows, -1)
    return np.array(values, np.float32)[unpack_codes(packed, bits)]


def unpack_codes(packed: Bytes, bits: int) -> Bytes:
    """Return the codes in rows of bytes, also those that straddle bytes.

    Examples
    --------
    >>> unpack_codes(np.array([[0b11_010_001, 0b0, 0b111_00000]], np.uint8), 3).tolist()
    [[1, 2, 3, 0, 0, 0, 0, 7]]
    """
    rows, size = packed.shape
    # Eight codes of b bits fill b bytes.
    eights = -(-size // bits)
    padded = np.zeros((rows, eights * bits), np.uint8)
    padded[:, :size] = packed
    word = np.zeros((rows, eights), np.uint64)
    for place in range(bits):
        word |= padded[:, place::bits].astype(np.uint64) << np.uint64(8 * place)
    parted = np.empty((rows, eights, 8), np.uint8)
    for place in range(8):
        parted[:, :, place] = (word >> np.uint64(bits * place)) & np.uint64(2**bits - 1)
    return parted.reshape(rows, -1)[:, : size * 8 // bits]


@lru_cache(maxsize=64)
def _table(bits: int, values: tuple[float, ...], high_first: bool) -> Floats:
    every = np.arange(256, dtype=np.uint8)
    places = np.arange(0, 8, bits)
    parted = every[:, None] >> places[:: -1 if high_first else 1] & (2**bits - 1)
    table: Floats = np.array(values, np.float32)[parted]
    return table


@lru_cache(maxsize=16)
def _wide_table(bits: int, values: tuple[float, ...], high_first: bool) -> Floats:
    table = _table(bits, values, high_first)
    first, second = np.meshgrid(np.arange(256), np.arange(256))
    return np.concatenate([table[first.ravel()], table[second.ravel()]], axis=1)
