"""A CSR matrix times tokens, split as MKL's kernels are fast on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad

# Inputs of more bytes than a core's cache holds are multiplied so many tokens at a time: by a
# matrix of 4096 × 11008 MKL's kernel took up to four times as long for 128 in one call.
_CACHE, _BLOCK = 2**20, 32
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
        self.dtype = values.dtype
        self._fill = values.is_cpu and values.numel() >= _WORTH_FILLING * shape[1]

    def times(self, tokens: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return the product, and the bias added, laid out as the result of ``nn.Linear``.

        Parameters
        ----------
        tokens : torch.Tensor
            Shape ``(tokens, in)``, of the matrix's dtype.
        bias : torch.Tensor, optional
            Shape ``(out,)``.
        """
        count = len(tokens)
        on_cpu = tokens.is_cpu
        if 0 < count < _FOUR and on_cpu:  # torch multiplies by a vector per token
            turned = self._turned
            return torch.mm(tokens, turned) if bias is None else torch.addmm(bias, tokens, turned)
        if on_cpu and tokens.nbytes > _CACHE:
            return torch.cat([self._block(part, bias) for part in tokens.split(_BLOCK)])
        return self._block(tokens, bias).clone(memory_format=torch.contiguous_format)

    def _block(self, tokens: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        left = -len(tokens) % _FOUR
        if not left or not self._fill:
            return self._as_columns(tokens, bias)
        return self._as_columns(pad(tokens, (0, 0, 0, left)), bias)[:-left]

    def _as_columns(self, tokens: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return the product as a view of what torch computes, a column per token."""
        if bias is None:
            return torch.mm(self.rows, tokens.t()).t()
        return torch.addmm(bias.unsqueeze(1), self.rows, tokens.t()).t()
