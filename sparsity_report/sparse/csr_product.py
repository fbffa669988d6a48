"""A CSR matrix times tokens, split as MKL's kernels are fast on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

# Inputs of more bytes than a core's cache holds are multiplied so many tokens at a time: by a
# matrix of 4096 × 11008 MKL's kernel took up to four times as long for 128 in one call.
_CACHE, _BLOCK = 2**21, 32
# That kernel takes tokens in fours, and up to twice as long for any that are left over.
_FOUR = 4
# Below so many nonzeros per input the zeros that fill a four up cost more than they save.
_WORTH_FILLING = 64
_UNCHECKED: dict[str, Any] = {"check_invariants": False}


class CSRMatrix:
    """What torch multiplies by, wrapped once, as wrapping costs 10 µs.

    Parameters
    ----------
    arrays : sequence of torch.Tensor
        Row pointers, column indices and values.
    shape : (int, int)
        ``(out, in)``.
    """

    def __init__(self, arrays: Sequence[torch.Tensor], shape: tuple[int, int]) -> None:
        pointers, indices, values = arrays
        # Said once per process, of every CSR tensor: nothing the user could act on.
        with torch.inference_mode(False), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CS[RC] tensor support is in beta")
            self.rows = torch.sparse_csr_tensor(pointers, indices, values, shape, **_UNCHECKED)
            self._turned = torch.sparse_csc_tensor(
                pointers, indices, values, shape[::-1], **_UNCHECKED
            )
        self.dtype, self._in = values.dtype, shape[1]
        self._fill = values.is_cpu and values.numel() >= _WORTH_FILLING * shape[1]

    def times(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return ``x Wᵀ + b``, computed in the matrix's dtype, laid out as of ``nn.Linear``.

        Parameters
        ----------
        x : torch.Tensor
            Shape ``(…, in)``; the result has its dtype.
        bias : torch.Tensor, optional
            Shape ``(out,)``.
        """
        dtype, given = self.dtype, x.dtype
        if given != dtype:
            x = x.to(dtype)
        if bias is not None and bias.dtype != dtype:
            bias = bias.to(dtype)
        tokens = x if x.ndim == 2 else x.reshape(-1, self._in)
        count, on_cpu = len(tokens), tokens.is_cpu
        if count == 1:
            one, rows = tokens.reshape(-1), self.rows
            out = rows.mv(one) if bias is None else torch.addmv(bias, rows, one)
            out = out.unsqueeze(0)
        elif 0 < count < _FOUR and on_cpu:  # torch multiplies by a vector per token
            turned = self._turned
            out = torch.mm(tokens, turned) if bias is None else torch.addmm(bias, tokens, turned)
        elif count > _BLOCK and on_cpu and tokens.nbytes > _CACHE:
            out = torch.cat([self._as_columns(part, bias).t() for part in tokens.split(_BLOCK)])
        else:
            out = self._as_columns(tokens, bias).t().clone(memory_format=torch.contiguous_format)
        if given != dtype:
            out = out.to(given)
        return out if x.ndim == 2 else out.view(*x.shape[:-1], out.shape[1])

    def _as_columns(self, tokens: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        left = -len(tokens) % _FOUR if self._fill else 0
        columns = _filled(tokens, left) if left else tokens.t()
        if bias is None:
            product = torch.mm(self.rows, columns)
        else:
            product = torch.addmm(bias.unsqueeze(1), self.rows, columns)
        return product[:, :-left] if left else product


def _filled(tokens: torch.Tensor, left: int) -> torch.Tensor:
    """Return the tokens as columns, laid out as the kernel wants them, and columns of zeros."""
    count, width = tokens.shape
    columns = tokens.new_zeros(width, count + left)
    columns[:, :count].copy_(tokens.t())
    return columns
