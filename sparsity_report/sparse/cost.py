"""FLOPs and bytes of one matrix from integers alone.

Conventions: one multiply-add is 2 FLOPs; `v` is the bytes of a value, `i` the bytes of an index.
"""

import re
from functools import lru_cache


def linear_flops(out_features: int, in_features: int) -> int:
    """Floating-point operations of a dense linear layer for one token, ``2·out·in``.

    Examples
    --------
    >>> linear_flops(3072, 768)
    4718592
    """
    return 2 * out_features * in_features


def sparse_flops(nonzero: int) -> int:
    """Floating-point operations of a sparse matrix times one token, ``2·nnz``."""
    return 2 * nonzero


def dense_bytes(total: int, v: int) -> int:
    """Bytes of a dense tensor, ``n·v``."""
    return total * v


def csr_bytes(nonzero: int, rows: int, v: int, i: int) -> int:
    """Bytes of a CSR matrix, ``nnz·(v + i) + (rows + 1)·i``.

    Examples
    --------
    A 3072 × 768 float32 matrix, 30 % zeros, int32 indices, against its dense 9,437,184 bytes:

    >>> csr_bytes(1651507, 3072, 4, 4)
    13224348
    """
    return nonzero * (v + i) + (rows + 1) * i


@lru_cache(maxsize=64)
def value_bytes(dtype: str) -> int:
    """Bytes of one value of a torch dtype, by its name; a byte at least.

    Examples
    --------
    >>> [value_bytes(d) for d in ("float32", "bfloat16", "float8_e4m3fn", "uint4", "bool")]
    [4, 2, 1, 1, 1]
    """
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1


def index_bytes(nonzero: int, columns: int) -> int:
    """Bytes of one CSR index: 4 where int32 can number every nonzero and column, else 8.

    Examples
    --------
    >>> index_bytes(2**31 - 1, 4096), index_bytes(2**31, 4096)
    (4, 8)
    """
    most = 2**31 - 1
    return 8 - 4 * ((nonzero <= most) & (columns <= most))


def coo_bytes(nonzero: int, v: int, i: int) -> int:
    """Bytes of a matrix in coordinate format (COO), ``nnz·(v + 2·i)``.

    Examples
    --------
    >>> coo_bytes(1000, 4, 8)
    20000
    """
    return nonzero * (v + 2 * i)


def bsr_bytes(filled: int, block: int, block_rows: int, v: int, i: int) -> int:
    """Bytes in block sparse row (BSR) format, ``filled·(b²·v + i) + (block rows + 1)·i``.

    Examples
    --------
    A 3072 × 768 float32 matrix in 16 × 16 blocks, half of them empty:

    >>> bsr_bytes(192 * 48 // 2, 16, 192, 4, 4)
    4737796
    """
    return filled * (block * block * v + i) + (block_rows + 1) * i


def bitmask_bytes(total: int, nonzero: int, v: int) -> int:
    """Bytes of the nonzeros and one bit per weight that says where they are, ``nnz·v + n/8``.

    Examples
    --------
    >>> bitmask_bytes(1024, 512, 2)
    1152
    """
    return nonzero * v - -total // 8


def two_four_bytes(total: int, v: int) -> int:
    """Bytes of a 2:4 sparse matrix, ``n·v/2 + n/8``: two values of four, two bits each to place.

    That is 9/16 of dense for 16-bit values: Mishra et al. 2021, arXiv:2104.08378, figure 2.

    Examples
    --------
    >>> two_four_bytes(1024, 2) / (1024 * 2)
    0.5625
    """
    return total // 2 * v - -total // 8
