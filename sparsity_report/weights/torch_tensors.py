"""Conversion between tensors of torch and NumPy arrays, and values of live tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import ml_dtypes
import numpy as np
import torch

from sparsity_report.weights.array_dtypes import Array, array_dtype, dtype_name
from sparsity_report.weights.tensor_slices import HeldSlice, Slice

# Integers of as many bytes as a float that NumPy lacks, in both libraries.
_BITS: dict[int, tuple[torch.dtype, Any]] = {1: (torch.uint8, np.uint8), 2: (torch.int16, np.int16)}


def to_array(tensor: torch.Tensor) -> Array:
    """Return the values of a dense tensor, without a copy if they are on the CPU."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = tensor_dtype(tensor.dtype)
    if not hasattr(ml_dtypes, name):
        return tensor.numpy()
    return tensor.view(_BITS[tensor.itemsize][0]).numpy().view(array_dtype(name))


def to_tensor(array: Array) -> torch.Tensor:
    """Return the values of an array, without a copy."""
    name = dtype_name(array.dtype)
    if not hasattr(ml_dtypes, name):
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(_BITS[array.itemsize][1])).view(torch_dtype(name))


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch dtype of a name."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def tensor_dtype(dtype: torch.dtype) -> str:
    """Return the name of a torch dtype, e.g. ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True, eq=False)
class TensorSlice(HeldSlice):
    """Values of a tensor on any device, moved to the CPU when they are read."""

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor, nbytes: int | None = None) -> TensorSlice:
        """Return the values of a tensor."""
        flat = tensor.detach().reshape(-1)
        return cls(flat.numel(), tensor_dtype(flat.dtype), flat, nbytes)

    def pieces(self) -> Iterator[Array]:
        """Yield the values, without a copy if they are contiguous on the CPU."""
        yield np.ascontiguousarray(to_array(self.values))


def tensor_slices(tensor: torch.Tensor) -> Iterator[Slice]:
    """Yield the values of a live tensor as slices of whole rows."""
    return TensorSlice.from_tensor(tensor).cut(tuple(tensor.shape))


def is_shard(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is distributed over processes."""
    return hasattr(tensor, "to_local")


def local_values(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values of a tensor that this process holds."""
    return cast(Any, tensor).to_local() if is_shard(tensor) else tensor


def is_strided(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is dense in memory."""
    semi_structured = isinstance(tensor, torch.sparse.SparseSemiStructuredTensor)
    return tensor.layout == torch.strided and not semi_structured


def sparse_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of the arrays of a sparse tensor, explicit zeros included."""
    if tensor.layout == torch.sparse_coo:
        arrays = [tensor._values(), tensor._indices()]
    elif tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        arrays = [tensor.values(), tensor.crow_indices(), tensor.col_indices()]
    else:
        arrays = [tensor.values(), tensor.ccol_indices(), tensor.row_indices()]
    return sum(array.nbytes for array in arrays)
