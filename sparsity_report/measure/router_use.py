"""Router use: the tokens that each expert of a model receives, their gates and its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

from sparsity_report.counting.kept_experts import routed_stacks
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.weights import Weights

Paused = Callable[[], AbstractContextManager[None]]


class RouterUse:
    """Sums over the tokens that routers send to each expert, recorded while a model runs.

    The experts of transformers are modules that are called with tokens, the numbers of the experts
    of each token, and their gates. They are called once more with gates of 1, which gives the
    outputs of single experts whatever their formula is. A module whose output is not the sum of
    these outputs times the gates routes in another way and is left out.

    Parameters
    ----------
    weights : Weights
    places : mapping of str to (nn.Module, str)
        Module and attribute of each parameter of the running model.
    paused : callable
        Return a context in which products are not observed.
    """

    def __init__(
        self, weights: Weights, places: Mapping[str, tuple[nn.Module, str]], paused: Paused
    ) -> None:
        self._weights, self._paused = weights, paused
        self._sums: dict[str, torch.Tensor] = {}
        for name, stack in routed_stacks(weights).items():
            self._sums[name] = torch.zeros(4, stack.experts, dtype=torch.float64)
            module, _ = places[stack.name]
            module.register_forward_hook(partial(self._add, name), with_kwargs=True)

    def _add(self, name: str, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Add the tokens of one call."""
        known = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        x, chosen, gates = (*known.values(), None, None)[:3]
        if name not in self._sums or not _is_routing(x, chosen, gates):
            self._sums.pop(name, None)
            return
        with self._paused():
            each = module.forward(
                x.repeat_interleave(chosen.shape[1], dim=0),
                chosen.reshape(-1, 1),
                torch.ones_like(gates).reshape(-1, 1),
            ).to(torch.float64)
            summed = (each.reshape(*chosen.shape, -1) * gates[..., None]).sum(dim=1)
            if (output - summed).abs().max() > 0.05 * summed.abs().max():
                del self._sums[name]
                return
            gate, norm = gates.reshape(-1).to(torch.float64), torch.linalg.vector_norm(each, dim=1)
            rows = torch.stack([torch.ones_like(gate), gate, norm, gate * norm])
            if not rows.isfinite().all():
                raise SparsityReportError(
                    f"{self._weights.name}: the outputs of {name} hold NaN or infinity; load the "
                    "model in float32"
                )
            self._sums[name].index_add_(1, chosen.reshape(-1).cpu(), rows.cpu())

    def frame(self) -> pd.DataFrame:
        """Return one row per expert, see :class:`Calibration`."""
        blocks = {module.name: module.block for module in self._weights.modules}
        rows = []
        for name, sums in self._sums.items():
            means = torch.cat([sums[:2], sums[2:] / sums[0]])  # NaN without tokens
            rows += [
                (name, blocks[name], expert, *row) for expert, row in enumerate(means.T.tolist())
            ]
        dtypes = {
            "module_name": "str", "block": "Int64", "expert": "int64", "tokens": "int64",
            "gate_mass": "float64", "output_norm": "Float64", "saliency": "Float64",
        }  # fmt: skip
        return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def _is_routing(x: Any, chosen: Any, gates: Any) -> bool:
    """Return whether arguments are tokens, the experts of each, and their gates."""
    if not all(isinstance(each, torch.Tensor) and each.dim() == 2 for each in (x, chosen, gates)):
        return False
    return chosen.dtype in (torch.int64, torch.int32) and chosen.shape == gates.shape
