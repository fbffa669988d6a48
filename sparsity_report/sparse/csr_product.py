"""A CSR matrix times tokens, in batches that suit the kernels of MKL."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

# Inputs larger than the cache of a core are multiplied in blocks of tokens: for a matrix of
# 4096 × 11008, one call with 128 tokens took MKL up to four times as long as four blocks.
_CACHE, _BLOCK = 2**21, 32
# The kernel processes four tokens together and is up to twice as slow for a remainder.
_FOUR = 4
# Fewest nonzeros per input for which padding to a multiple of four pays.
_WORTH_PADDING = 64
_UNCHECKED: dict[str, Any] = {"check_invariants": False}


class CSRMatrix:
    """A matrix in torch's sparse tensors, which take 10 µs to create.

    Parameters
    ----------
    arrays : sequence of torch.Tensor
        Row pointers, column indices and values.
    shape : (int, int)
        ``(out, in)``.
    """

    def __init__(self, arrays: Sequence[torch.Tensor], shape: tuple[int, int]) -> None:
        pointers, indices, values = arrays
        # Torch warns once per process that CSR is in beta; a user cannot act on it.
        with torch.inference_mode(False), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CS[RC] tensor support is in beta")
            self.rows = torch.sparse_csr_tensor(pointers, indices, values, shape, **_UNCHECKED)
            self._transposed = torch.sparse_csc_tensor(
                pointers, indices, values, shape[::-1], **_UNCHECKED
            )
        self.dtype, self._in = values.dtype, shape[1]
        self._pads = values.is_cpu and values.numel() >= _WORTH_PADDING * shape[1]

    def times(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return ``x Wᵀ + b``, computed in the dtype of the matrix, contiguous as ``nn.Linear``.

        Parameters
        ----------
        x : torch.Tensor
            Shape ``(…, in)``; the result has its dtype.
        bias : torch.Tensor, optional
            Shape ``(out,)``.
        """
        dtype, input_dtype = self.dtype, x.dtype
        if input_dtype != dtype:
            x = x.to(dtype)
        if bias is not None and bias.dtype != dtype:
            bias = bias.to(dtype)
        tokens = x if x.ndim == 2 else x.reshape(-1, self._in)
        count, on_cpu = len(tokens), tokens.is_cpu
        if count == 1:
            one, rows = tokens.reshape(-1), self.rows
            out = rows.mv(one) if bias is None else torch.addmv(bias, rows, one)
            out = out.unsqueeze(0)
        elif 0 < count < _FOUR and on_cpu:  # torch multiplies token by token
            transposed = self._transposed
            out = (
                torch.mm(tokens, transposed)
                if bias is None
                else torch.addmm(bias, tokens, transposed)
            )
        elif count > _BLOCK and on_cpu and tokens.nbytes > _CACHE:
            out = torch.cat([self._as_columns(part, bias).t() for part in tokens.split(_BLOCK)])
        else:
            out = self._as_columns(tokens, bias).t().clone(memory_format=torch.contiguous_format)
        if input_dtype != dtype:
            out = out.to(input_dtype)
        return out if x.ndim == 2 else out.view(*x.shape[:-1], out.shape[1])

    def _as_columns(self, tokens: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        padding = -len(tokens) % _FOUR if self._pads else 0
        columns = _padded(tokens, padding) if padding else tokens.t()
        if bias is None:
            product = torch.mm(self.rows, columns)
        else:
            product = torch.addmm(bias.unsqueeze(1), self.rows, columns)
        return product[:, :-padding] if padding else product


def _padded(tokens: torch.Tensor, padding: int) -> torch.Tensor:
    """Return the tokens as columns in the layout of the kernel, followed by columns of zeros."""
    count, width = tokens.shape
    columns = tokens.new_zeros(width, count + padding)
    columns[:, :count].copy_(tokens.t())
    return columns
