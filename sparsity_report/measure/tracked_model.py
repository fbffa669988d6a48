"""Zeros of a model in training, counted against a mask of one bit per weight."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import distributed, nn

from sparsity_report.counting.histogram import nonzero_flags
from sparsity_report.counting.pruning import Pruning
from sparsity_report.counting.workers import unflushed
from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.tally import SideCount, Tally
from sparsity_report.pairing.value_loops import count_values
from sparsity_report.weights.anatomy.parameter_places import locate, value, walk
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.sources.memory import ModuleWeights
from sparsity_report.weights.torch_tensors import to_array
from sparsity_report.weights.weights import Parameter

# Values counted at a time, a multiple of eight.
_RUN = 2**20
_BITS = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)

T = TypeVar("T")
# Counts of each parameter, and zeros that merging an adapter would fill.
Fates = tuple[dict[str, Tally], dict[str, int]]


class TrackedModel:
    """A live model with a mask of the weights that were zero when tracking began.

    The matrices of prunable modules have masks. In a distributed run each process has the masks of
    its shards, and counts are sums over all processes.

    Parameters
    ----------
    model : nn.Module
        A model with dense values, wrapped or not.
    pruning : Pruning, optional
        Weights to mask; by default the zeros that the model has.
    """

    def __init__(self, model: nn.Module, pruning: Pruning | None = None) -> None:
        self.weights, self._model = ModuleWeights(model), model
        if any(type(o).__name__ == "FullyShardedDataParallel" for o in model.modules()):
            self._refuse("is flattened by FullyShardedDataParallel; shard it with fully_shard")
        for p in self.weights.stored:
            if not p.known or p.layout != "dense":
                self._refuse(f"has no dense values of {p.name} in memory; load it whole and dense")
        self._places = locate(walk(model))
        self._shapes = self._read_shapes()
        self.is_sharded = any(_is_shard(self._tensor(p)) for p in self.weights.stored)
        modules = [m for m in self.weights.modules if any(p.prunable for p in m.parameters)]
        self.masked = {p.name: p for m in modules for p in m.weights}
        masks = {} if pruning is None else self._read_masks(pruning)
        # One bit per weight, set where it is pruned, inputs last.
        self._bits: dict[str, torch.Tensor] = {}
        for name, p in self.masked.items():
            kept = masks[name] if name in masks else nonzero_flags(self._values(p))
            self._bits[name] = torch.from_numpy(np.packbits(~kept))

    @property
    def is_first(self) -> bool:
        """True in the process that writes the log."""
        return not distributed.is_initialized() or distributed.get_rank() == 0

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of names, shapes, types and masks."""
        stored = [(p.name, p.shape, p.dtype) for p in self.weights.stored]
        digest = hashlib.sha256(repr(stored).encode())
        for bits in self._bits.values():
            digest.update(bits.cpu().numpy().data)
        return hashlib.sha256(repr(self.gathered(digest.hexdigest())).encode()).hexdigest()[:16]

    def gathered(self, value: T) -> list[T]:
        """Return a value of each process that holds a shard."""
        values = [value]
        if self.is_sharded:
            values *= distributed.get_world_size()
            distributed.all_gather_object(values, value)
        return values

    @unflushed()
    def count(self, patterned: Collection[str] | None = None) -> Fates:
        """Return the counts of each stored parameter, and the zeros that a merge would fill.

        Parameters
        ----------
        patterned : collection of str, optional
            Masked parameters whose N:M patterns are counted; by default all.

        Raises
        ------
        SparsityReportError
            The parameters are not those of the start, or a weight is NaN.
        """
        if (shapes := self._read_shapes()) != self._shapes:
            name = min(name for name, _ in shapes.items() ^ self._shapes.items())
            self._refuse(f"has other parameters than at the start, as {name}; track it anew")
        self._places = locate(walk(self._model))
        patterned = self.masked if patterned is None else patterned
        adapters, stored = _adapters(self._model), list(self.weights.stored)
        rows = [self._count(p, p.name in patterned, adapters) for p in stored]
        table = torch.tensor(rows, dtype=torch.int64)
        if self.is_sharded:
            table = table.to(_local(self._tensor(stored[0])).device)
            distributed.all_reduce(table)
        tallies, filled = dict[str, Tally](), dict[str, int]()
        for p, (nan, pruned, kept, adapted, lost, *side) in zip(
            stored, table.tolist(), strict=True
        ):
            if nan:
                self._refuse(f"holds NaN in {p.name}; go back to a checkpoint without")
            zeros, grouped, *groups = side
            after = SideCount(p.total, zeros, tuple(groups), grouped)
            ends, fates = (SideCount(p.total, pruned), after), (kept, pruned - kept, zeros - kept)
            tallies[p.name] = Tally(*ends, p.total, *fates)
            filled |= {p.name: lost} if adapted else {}
        return tallies, filled

    def hold_(self) -> None:
        """Set the prunable weights that the mask prunes, and their gradients, to zero."""
        for name, p in self.masked.items():
            module, leaf = self._places[name]
            gradient = getattr(getattr(module, leaf), "grad", None)
            for tensor in (value(module, leaf), gradient) if p.prunable else ():
                if tensor is not None:
                    local = _local(tensor.detach())
                    local = local.transpose(-1, -2) if p.inputs_outputs else local
                    local.masked_fill_(self._flags(name, local), 0)

    def _count(self, p: Parameter, is_patterned: bool, adapters: dict[int, list[Any]]) -> list[int]:
        """Return NaN, pruned, kept, adapted and filled weights, and the numbers of the side."""
        tensor, side, kept, filled = self._tensor(p), SideCount(), 0, 0
        if not self._counts_here(tensor):
            return [0] * (7 + len(side.groups))
        local, values = _local(tensor), self._values(p)
        bits = self._bits[p.name].cpu().numpy() if p.name in self._bits else None
        # All groups of a matrix are whole if a shard has whole rows.
        inputs = values.shape[-1] if p.matrix and values.shape[-1] == p.matrix[1] else 1
        flat = np.ascontiguousarray(values).reshape(-1)
        for start in range(0, flat.size, _RUN):
            run = flat[start : start + _RUN]
            side += count_values(run, is_patterned and inputs % 8 == 0)
            if bits is not None:
                nonzero = np.packbits(nonzero_flags(run))
                kept += _ones(bits[start // 8 :][: nonzero.size] & ~nonzero)
        layers = adapters.get(id(getattr(self._places[p.name][0], self._places[p.name][1])), [])
        for delta in _deltas(layers):
            filled = int(((local == 0) & (delta.to(local.dtype) != 0)).sum())
        is_nan = local.is_floating_point() and bool(torch.isnan(local.float().sum()))
        nan = int(is_nan and bool(torch.isnan(local).any()))
        pruned = 0 if bits is None else _ones(bits)
        return [nan, pruned, kept, len(layers), filled, side.zeros, side.grouped, *side.groups]

    def _counts_here(self, tensor: torch.Tensor) -> bool:
        """Return whether the counts of this process are those of its values alone."""
        if not _is_shard(tensor):
            return self.is_first or not self.is_sharded
        mesh: Any = tensor
        places = zip(mesh.placements, mesh.device_mesh.get_coordinate(), strict=True)
        return all(place.is_shard() or at == 0 for place, at in places)

    def _flags(self, name: str, local: torch.Tensor) -> torch.Tensor:
        """Return True for the weights that the mask prunes, in the shape of a shard."""
        bits = self._bits[name] = self._bits[name].to(local.device)
        flags = (bits[:, None] & _BITS.to(local.device)).flatten()[: local.numel()]
        return flags.view(local.shape).bool()

    def _tensor(self, p: Parameter) -> torch.Tensor:
        return value(*self._places[p.name])

    def _values(self, p: Parameter) -> Array:
        """Return the values of a parameter in this process, inputs last."""
        array = to_array(_local(self._tensor(p)))
        return array.swapaxes(-1, -2) if p.inputs_outputs else array

    def _read_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            place.full_name(leaf): tuple(tensor.shape)
            for place in walk(self._model)
            for leaf, tensor in place.tensors.items()
        }

    def _read_masks(self, pruning: Pruning) -> dict[str, Any]:
        """Return the kept weights of each pruned parameter in this process, inputs last."""
        masks = {}
        for name in pruning.cuts:
            shape = pruning.weights[name].shape
            if name not in self.masked or self.masked[name].shape != shape:
                self._refuse(
                    f"has no prunable {name} of shape {shape}, which the mask of "
                    f"{pruning.weights.name} prunes; give a pruning of this model"
                )
            p, kept, tensor = self.masked[name], pruning.mask(name), self._tensor(self.masked[name])
            if _is_shard(tensor):
                kept = _sharded(torch.from_numpy(kept), tensor).numpy()
            masks[name] = kept.swapaxes(-1, -2) if p.inputs_outputs else kept
        return masks

    def _refuse(self, reason: str) -> NoReturn:
        raise SparsityReportError(f"{self.weights.name}: {reason}")


def _ones(bits: Any) -> int:
    return int(np.count_nonzero(np.unpackbits(bits)))


def _is_shard(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "to_local")


def _local(tensor: Any) -> torch.Tensor:
    """Return the values that this process holds."""
    local: torch.Tensor = tensor.to_local() if _is_shard(tensor) else tensor
    return local


def _sharded(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """Return the part of a tensor that this process holds of a distributed one."""
    from torch.distributed.tensor import distribute_tensor

    tensor = tensor.to(like.to_local().device)
    places = like.device_mesh, like.placements
    return distribute_tensor(tensor, *places, src_data_rank=None).to_local().cpu()


def _adapters(model: nn.Module) -> dict[int, list[Any]]:
    """Return layers of PEFT with adapters that are not merged, by the id of their base's weight."""
    layers: dict[int, list[Any]] = {}
    every: Iterable[Any] = model.modules()
    for layer in every:
        if hasattr(layer, "get_delta_weight") and not getattr(layer, "merged", True):
            base = layer.get_base_layer()
            layers.setdefault(id(base.weight), []).append(layer)
    return layers


def _deltas(layers: list[Any]) -> Iterator[torch.Tensor]:
    """Yield the sum of what the active adapters of layers add to a weight."""
    parts: list[torch.Tensor] = [
        layer.get_delta_weight(name)
        for layer in layers
        for name in layer.active_adapters
        if any(name in getattr(layer, kind) for kind in layer.adapter_layer_names)
    ]
    if parts:
        yield sum(parts[1:], parts[0])
