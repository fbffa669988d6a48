"""Zeros of a model in training, counted against a mask of one bit per weight."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import distributed, nn

from sparsity_report.counting.histogram import Magnitudes, nonzero_flags
from sparsity_report.counting.pruning import Pruning
from sparsity_report.counting.workers import unflushed
from sparsity_report.pairing.tally import SideCount, Tally
from sparsity_report.pairing.value_loops import count_values
from sparsity_report.study.layers import LayerTable
from sparsity_report.weights.anatomy.parameter_places import locate, value, walk
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.sources.memory import ModuleWeights
from sparsity_report.weights.torch_tensors import is_shard, local_values, to_array
from sparsity_report.weights.weights import Module, Parameter

# Values counted at a time, a multiple of eight.
_RUN = 2**20
# Share of the weights that a mask may leave zero by chance.
_TRACE = 0.001
_BITS = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)

T = TypeVar("T")


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
        with _as_before_sharding(model):
            self.weights, self._model = ModuleWeights(model), model
        if any(type(o).__name__ == "FullyShardedDataParallel" for o in model.modules()):
            raise self.weights.wrong(
                "is flattened by FullyShardedDataParallel; shard it with fully_shard"
            )
        for p in self.weights.stored:
            if not p.known or p.layout != "dense":
                raise self.weights.wrong(
                    f"has no dense values of {p.name} in memory; load it whole and dense"
                )
        self._places, self._shapes = self._read_places()
        self.is_sharded = self._has_shards()
        modules = [m for m in self.weights.modules if any(p.prunable for p in m.parameters)]
        self.masked = {p.name: p for m in modules for p in m.weights}
        kept = {} if pruning is None else self._read_masks(pruning)
        # One bit per weight, set where it is pruned, inputs last.
        self._bits = {
            name: torch.from_numpy(np.packbits(~kept.get(name, nonzero_flags(self._values(p)))))
            for name, p in self.masked.items()
        }
        self._patterns, self._grouped = dict[str, str | None](), {*self.masked}

    @property
    def is_first(self) -> bool:
        """True in the process that writes the log."""
        # Trainers begin the distributed run after a model is tracked.
        is_begun = distributed.is_available() and distributed.is_initialized()
        return int(distributed.get_rank() if is_begun else os.environ.get("RANK", 0)) == 0

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
    def count(self) -> pd.DataFrame:
        """Return the layers of the model with the fate of their weights.

        ``filled`` are the zeros that a merge of the adapter would fill. N:M patterns are those of
        the first count.

        Raises
        ------
        SparsityReportError
            The parameters are not those of the start, or a weight is NaN.
        """
        places, shapes = self._read_places()
        if shapes != self._shapes:
            name = min(name for name, _ in shapes.items() ^ self._shapes.items())
            raise self.weights.wrong(
                f"has other parameters than at the start, as {name}; track it anew"
            )
        self._places = places
        self._reshard()
        stored = list(self.weights.stored)
        adapters = {} if self.is_sharded else _adapters(self._model)
        table = torch.tensor([self._count(p, adapters) for p in stored], dtype=torch.int64)
        if self.is_sharded:
            table = table.to(local_values(self._tensor(stored[0])).device)
            distributed.all_reduce(table)
        counts, fates, filled = dict[str, Magnitudes](), dict[str, Tally](), dict[str, int]()
        for p, (nan, pruned, kept, adapted, lost, zeros, grouped, *groups) in zip(
            stored, table.tolist(), strict=True
        ):
            if nan:
                raise self.weights.wrong(f"holds NaN in {p.name}; go back to a checkpoint without")
            counts[p.name] = Magnitudes(p.total, p.total - zeros)
            side = SideCount(p.total, zeros, tuple(groups), grouped)
            fates[p.name] = Tally(after=side, kept=kept, revived=pruned - kept, new=zeros - kept)
            filled |= {p.name: lost} if adapted else {}
        layers = LayerTable(self.weights, counts).frame("")
        zero = layers["weight_total"] - layers["weight_nonzero"]
        rows = [self._fate(module, fates, filled) for module in self.weights.modules]
        columns = ["kept", "revived", "new", "n_m", "n_m_kept", "filled"]
        return layers.assign(zeros=zero).join(pd.DataFrame(rows, columns=columns))

    def _fate(
        self, module: Module, fates: Mapping[str, Tally], filled: Mapping[str, int]
    ) -> dict[str, Any]:
        """Return the fate of the masked weights of a module; null without a mask."""
        names = [p.name for p in module.weights if p.name in self.masked]
        if not names:
            return {}
        sums = sum((fates[name] for name in names), Tally())
        pattern = self._patterns.setdefault(module.name, sums.after.n_m)
        if not pattern:
            self._grouped -= {*names}
        lost = [filled[name] for name in names if name in filled]
        return {
            **{name: getattr(sums, name) for name in ("kept", "revived", "new")},
            "n_m": pattern,
            "n_m_kept": sums.after.shares.get(pattern) if pattern else None,
            "filled": sum(lost) if lost else None,
        }

    def hold_(self) -> None:
        """Set the prunable weights that the mask prunes, and their gradients, to zero."""
        self._reshard()
        for name in (name for name, p in self.masked.items() if p.prunable):
            module, leaf = self._places[name]
            gradient, flags = getattr(getattr(module, leaf), "grad", None), None
            for tensor in (value(module, leaf), gradient):
                if tensor is not None:
                    local = local_values(tensor.detach())
                    local = local.transpose(-1, -2) if self.masked[name].inputs_outputs else local
                    flags = self._flags(name, local) if flags is None else flags
                    local.masked_fill_(flags, 0)

    def check_mask(self) -> None:
        """Refuse a mask of another model, in which the zeros of this one lie by chance."""
        sums = self.count()[["kept", "revived", "new"]].sum()
        self._patterns, self._grouped = {}, {*self.masked}  # those of the held weights
        weights = sum(p.total for p in self.masked.values())
        zeros, pruned = sums["kept"] + sums["new"], sums["kept"] + sums["revived"]
        by_chance = zeros * pruned / max(weights, 1)
        if sums["new"] > _TRACE * weights and 2 * sums["kept"] < zeros + by_chance:
            raise self.weights.wrong(
                f"has {zeros:,} zeros, and the mask prunes {sums['kept']:,} of them alone; give "
                "the mask of this model"
            )

    def _has_shards(self) -> bool:
        return any(is_shard(self._tensor(p)) for p in self.weights.stored)

    def _reshard(self) -> None:
        """Reshard what a pass gathered."""
        for module in _fully_sharded(self._model):
            module.reshard()
        if self._has_shards() != self.is_sharded:
            raise self.weights.wrong("was sharded after track(); call track() after fully_shard()")
        for p in self.weights.stored:
            if self._tensor(p).is_meta:
                raise self.weights.wrong(f"has no values of {p.name} any more; load them again")

    def _count(self, p: Parameter, adapters: dict[int, list[Any]]) -> list[int]:
        """Return NaN, pruned, kept, adapted and filled weights, and the numbers of the side."""
        tensor, side, kept, filled = self._tensor(p), SideCount(), 0, 0
        if not self._counts_here(tensor):
            return [0] * (7 + len(side.groups))
        local, values = local_values(tensor), self._values(p)
        bits = self._bits[p.name].cpu().numpy() if p.name in self._bits else None
        is_matrix = p.matrix and (is_shard(tensor) or values.shape[-1] == p.matrix[1])
        # Groups are whole in a shard whose rows begin and end with one.
        inputs = values.shape[-1] if is_matrix else 1
        flat = np.ascontiguousarray(values).reshape(-1)
        for start in range(0, flat.size, _RUN):
            run = flat[start : start + _RUN]
            side += count_values(run, p.name in self._grouped and inputs % 8 == 0)
            if bits is not None:
                nonzero = np.packbits(nonzero_flags(run))
                kept += _ones(bits[start // 8 :][: nonzero.size] & ~nonzero)
        layers = adapters.get(id(getattr(*self._places[p.name])), []) if bits is not None else []
        for layer in layers:
            filled += int(((local == 0) & (_merged(layer) != 0)).sum())
        is_nan = local.is_floating_point() and bool(torch.isnan(local.float().sum()))
        nan = int(is_nan and bool(torch.isnan(local).any()))
        pruned = 0 if bits is None else _ones(bits)
        return [nan, pruned, kept, len(layers), filled, side.zeros, side.grouped, *side.groups]

    def _counts_here(self, tensor: torch.Tensor) -> bool:
        """Return whether the counts of this process are those of its values alone."""
        if not is_shard(tensor):
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
        array = to_array(local_values(self._tensor(p)))
        return array.swapaxes(-1, -2) if p.inputs_outputs else array

    def _read_places(self) -> tuple[dict[str, tuple[nn.Module, str]], dict[str, tuple[int, ...]]]:
        """Return the places of all parameters, and their shapes."""
        places = locate(walk(self._model))
        return places, {name: value(*place).shape for name, place in places.items()}

    def _read_masks(self, pruning: Pruning) -> dict[str, Array]:
        """Return the kept weights of each pruned parameter in this process, inputs last."""
        for name in pruning.cuts:
            shape = pruning.weights[name].shape
            if name not in self.masked or self.masked[name].shape != shape:
                raise self.weights.wrong(
                    f"has no prunable {name} of shape {shape}, which the mask of "
                    f"{pruning.weights.name} prunes; give a pruning of this model"
                )
        return {name: self._local(self.masked[name], pruning.mask(name)) for name in pruning.cuts}

    def _local(self, p: Parameter, kept: Array) -> Array:
        """Return the part of a mask that is in this process, inputs last."""
        mesh: Any = self._tensor(p)
        if is_shard(mesh):
            from torch.distributed.tensor import distribute_tensor

            places = mesh.device_mesh, mesh.placements
            mask = torch.from_numpy(kept).to(mesh.to_local().device)
            kept = distribute_tensor(mask, *places, src_data_rank=None).to_local().cpu().numpy()
        return kept.swapaxes(-1, -2) if p.inputs_outputs else kept


def _ones(bits: Any) -> int:
    return int(np.count_nonzero(np.unpackbits(bits)))


@contextmanager
def _as_before_sharding(model: nn.Module) -> Iterator[None]:
    """Undo for a while what ``fully_shard`` did to the classes and the hooks of modules."""
    states = [
        (module, type(module), module._forward_pre_hooks, module._forward_hooks)
        for module in _fully_sharded(model)
    ]
    for module, kind, _, _ in states:
        module.__class__ = kind.__bases__[1]
        module._forward_pre_hooks, module._forward_hooks = {}, {}
    try:
        yield
    finally:
        for module, kind, before, after in states:
            module.__class__ = kind
            module._forward_pre_hooks, module._forward_hooks = before, after


def _fully_sharded(model: nn.Module) -> list[Any]:
    """Return the modules to which ``fully_shard`` was applied."""
    return [o for o in model.modules() if "FSDPModule" in (c.__name__ for c in type(o).__mro__)]


def _adapters(model: nn.Module) -> dict[int, list[Any]]:
    """Return layers of PEFT with adapters that are not merged, by the id of their base's weight."""
    layers: dict[int, list[Any]] = {}
    every: Iterable[Any] = model.modules()
    for layer in every:
        if hasattr(layer, "merged_adapters") and not getattr(layer, "merged", True):
            layers.setdefault(id(_base_weight(layer)), []).append(layer)
    return layers


def _base_weight(layer: Any) -> torch.Tensor:
    name = getattr(layer, "parameter_name", "weight")
    weight: torch.Tensor = getattr(layer.get_base_layer(), name)
    return weight


def _merged(layer: Any) -> torch.Tensor:
    """Return the weight of a copy of a layer that merges its active adapters."""
    twin = copy.deepcopy(layer)
    twin.merge()
    return _base_weight(twin)
