"""FLOPs and bytes of one matrix from integers alone.

One multiply-add is 2 FLOPs; `v` is the bytes of a value, `i` the bytes of an index.
"""

import re
from functools import lru_cache

#: Largest share of zeros that is only a trace, as no pruning leaves.
TRACE = 0.01


def linear_flops(out_features: int, in_features: int) -> int:
    """Return the FLOPs of a dense linear layer for one token, ``2·out·in``.

    Examples
    --------
    >>> linear_flops(3072, 768)
    4718592
    """
    return 2 * out_features * in_features


def sparse_flops(nonzero: int) -> int:
    """Return the FLOPs of a sparse matrix times one token, ``2·nnz``."""
    return 2 * nonzero


def dense_bytes(total: int, v: int) -> int:
    """Return the bytes of a dense tensor, ``n·v``."""
    return total * v


def csr_bytes(nonzero: int, rows: int, v: int, i: int) -> int:
    """Return the bytes of a CSR matrix, ``nnz·(v + i) + (rows + 1)·i``.

    Examples
    --------
    A 3072 × 768 float32 matrix, 30 % zeros, int32 indices, against its dense 9,437,184 bytes:

    >>> csr_bytes(1651507, 3072, 4, 4)
    13224348
    """
    return nonzero * (v + i) + (rows + 1) * i


@lru_cache(maxsize=64)
def value_bytes(dtype: str) -> int:
    """Return the bytes of one value of a torch dtype by its name, at least 1.

    Examples
    --------
    >>> [value_bytes(d) for d in ("float32", "bfloat16", "float8_e4m3fn", "uint4", "bool")]
    [4, 2, 1, 1, 1]
    """
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1


def index_bytes(nonzero: int, columns: int) -> int:
    """Return the bytes of a CSR index: 4 if int32 holds every nonzero and column, else 8.

    Examples
    --------
    >>> index_bytes(2**31 - 1, 4096), index_bytes(2**31, 4096)
    (4, 8)
    """
    most = 2**31 - 1
    return 8 - 4 * ((nonzero <= most) & (columns <= most))


def bsr_bytes(filled: int, block: int, block_rows: int, v: int, i: int) -> int:
    """Return the bytes in block sparse row format, ``filled·(b²·v + i) + (block rows + 1)·i``.

    Examples
    --------
    A 3072 × 768 float32 matrix in 16 × 16 blocks, half of them empty:

    >>> bsr_bytes(192 * 48 // 2, 16, 192, 4, 4)
    4737796
    """
    return filled * (block * block * v + i) + (block_rows + 1) * i


def bitmask_bytes(total: int, nonzero: int, v: int) -> int:
    """Return the bytes of the nonzeros and a mask of one bit per weight, ``nnz·v + n/8``.

    Examples
    --------
    >>> bitmask_bytes(1024, 512, 2)
    1152
    """
    return nonzero * v - -total // 8


def two_four_bytes(total: int, v: int) -> int:
    """Return the bytes of a 2:4 sparse matrix, ``n·v/2 + n/8``.

    Two of four values are stored, with a 2-bit index each. That is 9/16 of dense for 16-bit values:
    Mishra et al. 2021, arXiv:2104.08378, figure 2.

    Examples
    --------
    >>> two_four_bytes(1024, 2) / (1024 * 2)
    0.5625
    """
    return total // 2 * v - -total // 8
