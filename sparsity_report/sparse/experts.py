"""Experts that a model keeps in one tensor, stored as CSR matrices."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.linear_csr import LinearCSR

_MATMUL = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


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
        super().__init__(
            ExpertCSR(matrix.T if transposed else matrix, transposed) for matrix in weight.detach()
        )
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
