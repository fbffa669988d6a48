"""A linear layer whose weight is stored as CSR, and the swap that puts it into a model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from sparsity_report.cost import index_bytes
from sparsity_report.errors import SparsityReportError

_COMPUTED_IN_FLOAT32 = (torch.float16, torch.bfloat16)


class LinearCSR(nn.Module):
    """``y = x Wᵀ + b`` with W in compressed sparse row (CSR) format.

    The three CSR arrays are plain buffers, so that ``deepcopy``, ``state_dict``, ``.to()`` and
    safetensors work as for any module. Indices are int32 where they fit. On the CPU torch has no
    float16 or bfloat16 CSR product: there values and input are converted to float32 for the
    product and the result is rounded back once.

    Parameters
    ----------
    weight : torch.Tensor
        Dense weight, shape ``(out_features, in_features)``. Zeros are dropped.
    bias : torch.Tensor, optional
        Shape ``(out_features,)``.

    Examples
    --------
    >>> import torch
    >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
    >>> layer.nnz, layer.total, layer.sparsity, layer.dense_shape
    (2, 6, 0.6666666666666667, (2, 3))
    >>> layer(torch.ones(1, 3))
    tensor([[3., 0.]])
    """

    crow_indices: torch.Tensor
    col_indices: torch.Tensor
    values: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        if weight.ndim != 2:
            raise SparsityReportError(
                f"LinearCSR needs a weight of shape (out, in), not {tuple(weight.shape)}"
            )
        self.out_features, self.in_features = weight.shape
        self.assign_(weight)
        self.bias = (
            None if bias is None else nn.Parameter(bias.detach().clone(), bias.requires_grad)
        )

    def assign_(self, weight: torch.Tensor) -> None:
        """Take the nonzeros of another dense weight of the same shape."""
        weight = weight.detach()
        rows, columns = torch.nonzero(weight, as_tuple=True)
        small = index_bytes(rows.numel(), self.in_features) == 4
        index = torch.int32 if small else torch.int64
        crow = torch.zeros(self.out_features + 1, dtype=torch.int64, device=weight.device)
        crow[1:] = torch.bincount(rows, minlength=self.out_features).cumsum(0)
        self.register_buffer("crow_indices", crow.to(index))
        self.register_buffer("col_indices", columns.to(index))
        self.register_buffer("values", weight[rows, columns])

    @property
    def nnz(self) -> int:
        """Number of nonzero weights."""
        return int(torch.count_nonzero(self.values))

    @property
    def total(self) -> int:
        """Number of weights of the dense matrix, bias left out."""
        return self.out_features * self.in_features

    @property
    def sparsity(self) -> float:
        """Share of zeros in the dense matrix."""
        return 1 - self.nnz / self.total if self.total else 0.0

    @property
    def dense_shape(self) -> tuple[int, int]:
        """``(out_features, in_features)``."""
        return (self.out_features, self.in_features)

    @property
    def weight(self) -> torch.Tensor:
        """The dense weight, made anew at each call: for reading, not for computing."""
        rows = torch.repeat_interleave(self.crow_indices.diff().to(torch.int64))
        dense = self.values.new_zeros(self.dense_shape)
        return dense.index_put((rows, self.col_indices.to(torch.int64)), self.values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer to ``x`` of shape ``(…, in_features)``."""
        on_cpu_half = x.device.type == "cpu" and self.values.dtype in _COMPUTED_IN_FLOAT32
        values, tokens = self.values, x.reshape(-1, self.in_features)
        if on_cpu_half:
            values, tokens = values.float(), tokens.float()
        matrix = torch.sparse_csr_tensor(
            self.crow_indices, self.col_indices, values, self.dense_shape, check_invariants=False
        )
        # One token: the matrix-vector kernel avoids the transposes of the general product.
        out = matrix.mv(tokens[0])[None] if tokens.shape[0] == 1 else (matrix @ tokens.T).T
        if self.bias is not None:
            out = out + (self.bias.float() if on_cpu_half else self.bias)
        return out.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Describe the layer in ``repr`` as torch's own layers do."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, nnz={self.nnz}, "
            f"sparsity={self.sparsity:.4f}, bias={self.bias is not None}"
        )


def convert_linears_to_csr_(model: nn.Module, layers: Iterable[nn.Module]) -> nn.Module:
    """Replace `layers` inside `model` by :class:`LinearCSR`, in place.

    Parameters
    ----------
    model : nn.Module
        The model that holds them, e.g. after ``prune_global_magnitude_`` and ``freeze_pruning_``.
    layers : iterable of nn.Module
        ``nn.Linear`` or transformers ``Conv1D`` modules of `model`, e.g. from
        ``select_prunable_linears``. A module used in several places stays one module.

    Returns
    -------
    nn.Module
        The same `model`.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    >>> convert_linears_to_csr_(model, [model[0]])[0].total
    8
    """
    wanted = {id(layer): layer for layer in layers}
    made: dict[int, LinearCSR] = {}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is None or id(child) not in wanted:
                continue
            if hasattr(child, "weight_orig"):
                raise SparsityReportError(
                    f"layer {name!r} still carries a pruning mask; call freeze_pruning_ first"
                )
            if id(child) not in made:
                made[id(child)] = _as_csr(child).train(child.training)
            setattr(parent, name, made[id(child)])
    if missing := len(wanted) - len(made):
        raise SparsityReportError(f"{missing} of the layers to convert are not part of the model")
    return model


def _as_csr(layer: nn.Module) -> LinearCSR:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, torch.Tensor)
    transposed = type(layer).__name__ == "Conv1D"
    return LinearCSR(
        weight.T if transposed else weight, bias if isinstance(bias, torch.Tensor) else None
    )
