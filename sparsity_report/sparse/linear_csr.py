"""Linear layers and experts whose weights are stored as CSR.

Products run in batches that suit the kernels of MKL.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError, explained
from sparsity_report.sparse.cost import index_bytes
from sparsity_report.sparse.shares import zero_share

# On the CPU torch has no product of a float16 or bfloat16 CSR matrix.
_HALF = (torch.float16, torch.bfloat16)
_DTYPES = (torch.float32, torch.float64, *_HALF)
# Inputs larger than the cache of a core are multiplied in blocks of tokens: for a matrix of
# 4096 × 11008, one call with 128 tokens took MKL up to four times as long as four blocks.
_CACHE, _BLOCK = 2**21, 32
# The kernel processes four tokens together and is up to twice as slow for a remainder.
_FOUR = 4
# Fewest nonzeros per input for which padding to a multiple of four pays.
_WORTH_PADDING = 64
_UNCHECKED: dict[str, Any] = {"check_invariants": False}
_MATMUL = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
_ARRAYS = ("crow_indices", "col_indices", "values")


class LinearCSR(nn.Module):
    """``y = x Wᵀ + b`` with W in compressed sparse row (CSR) format.

    The three CSR arrays are plain buffers, so ``deepcopy``, ``state_dict``, ``.to()`` and
    safetensors work as for any module; ``load_state_dict`` accepts any number of nonzeros. Indices
    are int32 where they fit. Up to three tokens use the matrix-vector kernel. More use the
    matrix-matrix kernel on the transposed input, on the CPU in blocks of 32 padded to multiples of
    four; the result has the memory layout of ``nn.Linear``. These kernels were the fastest of torch
    and scipy, see ``tests/benchmarks``.

    On the CPU torch has no float16 or bfloat16 CSR product. There the layer keeps, from its first
    forward on, a float32 copy of its values (4 bytes more per nonzero), computes in float32 and
    rounds the result once. Under ``torch.autocast`` values, input and bias are rounded to its
    dtype, which is also that of the result.

    Parameters
    ----------
    weight : torch.Tensor
        Shape ``(out_features, in_features)``, dense or sparse, of dtype float32, float64, float16
        or bfloat16. Zeros are dropped, explicit zeros of a sparse tensor included.
    bias : torch.Tensor, optional
        Shape ``(out_features,)``.

    Attributes
    ----------
    transposed : bool
        True if the layer replaces a tensor of shape ``(in_features, out_features)``, as in
        ``Conv1D``.

    Raises
    ------
    SparsityReportError
        The weight is not a matrix, has another dtype, or is a CSR tensor with invalid indices.

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
    transposed: bool = False
    _cached: tuple[Any, ...] | None = None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        if weight.ndim != 2:
            raise SparsityReportError(
                f"LinearCSR: the weight has shape {tuple(weight.shape)}; give a matrix (out, in)"
            )
        if weight.dtype not in _DTYPES:
            raise SparsityReportError(
                f"LinearCSR cannot multiply {str(weight.dtype).removeprefix('torch.')} weights; "
                "convert the model first, such as with model.float()"
            )
        self.out_features, self.in_features = weight.shape
        self.assign_(weight)
        self.bias: nn.Parameter | None
        copy = None if bias is None else nn.Parameter(bias.detach().clone(), bias.requires_grad)
        self.register_parameter("bias", copy)

    # Tensors of inference mode do not count their changes, see _matrix.
    @torch.inference_mode(False)
    def assign_(self, weight: torch.Tensor) -> None:
        """Set the nonzeros from another :attr:`weight`.

        Parameters
        ----------
        weight : torch.Tensor
            Dense or sparse tensor of the shape :attr:`weight_shape`.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.assign_(torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]))
        >>> layer.values.tolist(), layer.col_indices.tolist(), layer.crow_indices.tolist()
        ([3.0], [1], [0, 1, 1])
        """
        weight = weight.detach()
        if weight.layout == torch.sparse_csr:
            arrays = [getattr(weight, name)() for name in _ARRAYS]
            _check(arrays, (weight.shape[0], weight.shape[1]), "weight")
        if weight.layout != torch.strided:
            weight = weight.to_dense()
        if self.transposed:
            weight = weight.T
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
        """Number of nonzero weights.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.nnz
        2
        """
        return int(torch.count_nonzero(self.values))

    @property
    def total(self) -> int:
        """Number of weights of the dense matrix, without the bias.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.total
        6
        """
        return self.out_features * self.in_features

    @property
    def sparsity(self) -> float:
        """Share of zeros in the dense matrix.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.sparsity
        0.6666666666666667
        """
        return zero_share(self.total, self.nnz) or 0.0

    @property
    def dense_shape(self) -> tuple[int, int]:
        """``(out_features, in_features)``.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.dense_shape
        (2, 3)
        """
        return (self.out_features, self.in_features)

    @property
    def weight_shape(self) -> tuple[int, int]:
        """Shape of :attr:`weight`.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.weight_shape
        (2, 3)
        """
        return self.dense_shape[::-1] if self.transposed else self.dense_shape

    @property
    def computes_in(self) -> torch.dtype:
        """Dtype of the product: float32 for float16 and bfloat16 on the CPU, else the values'.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.computes_in, layer.to(torch.bfloat16).computes_in
        (torch.float32, torch.float32)
        """
        return self._product_dtype(self.values.dtype)

    def _product_dtype(self, dtype: torch.dtype) -> torch.dtype:
        half = self.values.device.type == "cpu" and dtype in _HALF
        return torch.float32 if half else dtype

    @property
    def weight(self) -> torch.Tensor:
        """The dense weight, built on every access; for reading, not for computing.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.weight.tolist()
        [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]
        """
        rows = torch.repeat_interleave(self.crow_indices.diff().to(torch.int64))
        dense = self.values.new_zeros(self.dense_shape)
        dense = dense.index_put((rows, self.col_indices.to(torch.int64)), self.values)
        return dense.T if self.transposed else dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer.

        Parameters
        ----------
        x : torch.Tensor
            Input of shape ``(…, in_features)``.

        Returns
        -------
        torch.Tensor
            Output of shape ``(…, out_features)`` in the dtype of `x`.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.forward(torch.tensor([[1.0, 1.0, 1.0]])).tolist()
        [[3.0, 0.0]]
        """
        # Few calls on purpose: a small sparse product takes as long as ten Python calls.
        kind = "cpu" if x.is_cpu else x.device.type
        if (
            kind != "meta"
            and torch.is_autocast_enabled(kind)
            and torch.float64 not in (x.dtype, self.values.dtype)
        ):
            dtype, bias = torch.get_autocast_dtype(kind), self.bias
            with torch.autocast(kind, enabled=False):
                rounded = None if bias is None else bias.to(dtype)
                return self._matrix(dtype).times(x.to(dtype), rounded)
        values = cast(torch.Tensor, self._buffers["values"])
        return self._matrix(values.dtype).times(x, self._parameters["bias"])

    def _matrix(self, rounded: torch.dtype) -> CSRMatrix:
        """Return the matrix for products in a dtype, cached until an array changes."""
        arrays, cached = self._buffers, self._cached
        values = cast(torch.Tensor, arrays["values"])
        if (
            cached is not None
            and cached[0] is values
            and cached[1] is arrays["col_indices"]
            and cached[2] is arrays["crow_indices"]
            and cached[3] == rounded
            # A copy in another dtype misses changes of the values in place.
            and (cached[4] is None or cached[4] == values._version)
        ):
            return cast(CSRMatrix, cached[5])
        computed = values.to(rounded).to(self._product_dtype(rounded))
        arrays_now = (self.crow_indices, self.col_indices, computed)
        matrix = CSRMatrix(arrays_now, self.dense_shape)
        if computed is not values and values.is_inference():
            return matrix  # such a tensor does not count its changes
        version = None if computed is values else values._version
        self._cached = (
            values, arrays["col_indices"], arrays["crow_indices"], rounded, version, matrix
        )  # fmt: skip
        return matrix

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_cached"}

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        arrays = {name: state_dict[key] for name in _ARRAYS if (key := prefix + name) in state_dict}
        if len(arrays) == len(_ARRAYS):
            _check(arrays.values(), self.dense_shape, prefix.rstrip(".") or "LinearCSR")
            for name, array in arrays.items():
                dtype = self.values.dtype if name == "values" else array.dtype
                buffer = torch.empty(array.shape, dtype=dtype, device=self.values.device)
                self.register_buffer(name, buffer)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """Return the part of ``repr`` that describes the layer.

        Returns
        -------
        str
            Sizes, number of nonzeros, sparsity, and True if there is a bias.

        Examples
        --------
        >>> import torch
        >>> layer = LinearCSR(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
        >>> layer.extra_repr()
        'in_features=3, out_features=2, nnz=2, sparsity=0.6667, bias=False'
        """
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, nnz={self.nnz}, "
            f"sparsity={self.sparsity:.4f}, bias={self.bias is not None}"
        )


class ExpertCSR(LinearCSR):
    """The matrix of one expert, used through ``F.linear`` or ``@``."""

    def __init__(self, weight: torch.Tensor, transposed: bool) -> None:
        super().__init__(weight)
        self.transposed = transposed

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """Compute a product with the matrix; refuse every other operation."""
        x, expert, *rest = (*args, *(kwargs or {}).values())
        known = _MATMUL if getattr(expert, "transposed", False) else (nn.functional.linear,)
        if func not in known or not isinstance(expert, cls):
            raise SparsityReportError(
                f"an expert stored as CSR cannot run {getattr(func, '__name__', func)}; "
                "use the model's eager experts, or masked(pruning).module()"
            )
        out = expert(x)
        assert isinstance(out, torch.Tensor)
        return out if not rest or rest[0] is None else out + rest[0]


class ExpertsCSR(nn.ModuleList):
    """E matrices that a model indexes one at a time as ``experts[e]``.

    Parameters
    ----------
    weight : torch.Tensor
        Shape ``(E, out, in)``.
    transposed : bool
        True if the shape is ``(E, in, out)``, for models that compute ``x @ weight[e]``.

    Examples
    --------
    >>> import torch
    >>> experts = ExpertsCSR(torch.eye(3).expand(2, 3, 3))
    >>> torch.nn.functional.linear(torch.ones(1, 3), experts[1])
    tensor([[1., 1., 1.]])
    """

    def __init__(self, weight: torch.Tensor, *, transposed: bool = False) -> None:
        matrices = weight.detach().mT if transposed else weight.detach()
        super().__init__(ExpertCSR(matrix, transposed) for matrix in matrices)
        self.transposed = transposed

    def __iter__(self) -> Iterator[ExpertCSR]:
        return iter(self._modules.values())  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Any:
        """Return one expert; `index` may be a tensor."""
        return super().__getitem__(int(index))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of :attr:`weight`."""
        rows, columns = self[0].dense_shape
        return (len(self), columns, rows) if self.transposed else (len(self), rows, columns)

    @property
    def weight(self) -> torch.Tensor:
        """The dense tensor, built on every access; for reading, not for computing."""
        return torch.stack([expert.weight for expert in self])

    def assign_(self, weight: torch.Tensor) -> None:
        """Set the nonzeros from another tensor of the same shape."""
        for expert, matrix in zip(self, weight, strict=True):
            expert.assign_(matrix)


def convert_experts_to_csr_(module: nn.Module, name: str) -> None:
    """Replace the parameter `name` of `module`, of shape (E, …, …), by :class:`ExpertsCSR`."""
    weight = module._parameters.pop(name)
    assert weight is not None
    experts = ExpertsCSR(weight, transposed=bool(getattr(module, "is_transposed", False)))
    module.add_module(name, experts.train(module.training))


def _check(arrays: Iterable[torch.Tensor], shape: tuple[int, int], where: str) -> None:
    """Refuse CSR arrays whose indices lie outside the matrix."""

    def explain(error: RuntimeError) -> str:
        reason = str(error).splitlines()[0]
        return f"{where} is not a CSR matrix of shape {shape}: {reason}; save the layer again"

    with explained(explain, RuntimeError):
        crow, col, values = arrays
        torch._validate_sparse_csr_tensor_args(crow, col, values, shape)


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
        crow, col, values = arrays
        # Torch warns once per process that CSR is in beta; a user cannot act on it.
        with torch.inference_mode(False), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CS[RC] tensor support is in beta")
            self.rows = torch.sparse_csr_tensor(crow, col, values, shape, **_UNCHECKED)
            self._transposed = torch.sparse_csc_tensor(crow, col, values, shape[::-1], **_UNCHECKED)
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
            out = _product(tokens, self._transposed, bias)
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
        product = _product(self.rows, columns, None if bias is None else bias.unsqueeze(1))
        return product[:, :-padding] if padding else product


def _product(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.mm(left, right) if bias is None else torch.addmm(bias, left, right)


def _padded(tokens: torch.Tensor, padding: int) -> torch.Tensor:
    """Return the tokens as columns in the layout of the kernel, followed by columns of zeros."""
    count, width = tokens.shape
    columns = tokens.new_zeros(width, count + padding)
    columns[:, :count].copy_(tokens.t())
    return columns
