"""Decide which weights go: exact magnitude pruning as a value, and in place."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from sparsity_report.counting.histogram import (
    Magnitudes,
    Progress,
    count_slices,
    count_weights,
    in_order,
)
from sparsity_report.counting.ranks import look_into, select, settle
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights import Weights
from sparsity_report.weights.skeleton import describe, locate, put_, value, walk
from sparsity_report.weights.slices import Slice, held

# Weights masked at a time: bounds the memory beyond the one copy that is written to.
_BLOCK = 2**22


class Cut(ABC):
    """What pruning takes from one tensor."""

    __slots__ = ()

    @property
    @abstractmethod
    def pruned(self) -> int:
        """Number of elements pruned, those that were zero already counted in."""

    @abstractmethod
    def nonzero_after(self, seen: Magnitudes) -> int:
        """Return the nonzeros left of a tensor that had `seen` before."""

    @abstractmethod
    def _stay(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield True for what stays of each of the tensor's views."""

    def _views(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        return _blocks(tensor)

    def mask(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return True for what stays; shape of `tensor`, whose values are not touched."""
        tensor = tensor.detach()
        keep = torch.empty_like(tensor, dtype=torch.bool)
        for stays, part in zip(self._stay(tensor), self._views(keep), strict=True):
            part.copy_(stays)
        return keep

    def apply_(self, tensor: torch.Tensor) -> None:
        """Set what is pruned to zero in place, block by block."""
        for stays, part in zip(self._stay(tensor), self._views(tensor), strict=True):
            part.masked_fill_(~stays, 0)


@dataclass(frozen=True, slots=True)
class ThresholdCut(Cut):
    """All below a threshold, and some exactly on it.

    Attributes
    ----------
    threshold : float
        Magnitudes below it are pruned.
    below : int
        How many elements lie below it.
    ties : int
        How many elements exactly on it are pruned too, the first by position.
    """

    threshold: float
    below: int
    ties: int

    @property
    def pruned(self) -> int:
        """Number of elements pruned, those that were zero already counted in."""
        return self.below + self.ties

    def nonzero_after(self, seen: Magnitudes) -> int:
        """Return the nonzeros left of a tensor that had `seen` before."""
        zeros = seen.total - seen.nonzero
        return seen.total - max(self.pruned, zeros)

    def _stay(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        ties, removed = self.ties, 0
        for part in self._views(tensor):
            magnitude = _magnitude(part, self.threshold)
            stays = magnitude >= self.threshold
            on_it = torch.nonzero(magnitude == self.threshold)[:ties]
            stays[tuple(on_it.T)] = False
            ties -= len(on_it)
            removed += stays.numel() - int(torch.count_nonzero(stays))
            yield stays
        _check_unchanged(removed, self.pruned)


@dataclass(frozen=True, slots=True)
class GroupCut(Cut):
    """All but the `keep` largest of every `of` consecutive weights along the input dimension.

    Attributes
    ----------
    keep, of : int
    total : int
        Number of weights.
    nonzero : int
        How many of those kept are not zero.
    input_first : bool
        Whether the input dimension is the last but one, as in ``Conv1D``.
    """

    keep: int
    of: int
    total: int
    nonzero: int
    input_first: bool = False

    @property
    def pruned(self) -> int:
        """Number of elements pruned, those that were zero already counted in."""
        return self.total // self.of * (self.of - self.keep)

    def nonzero_after(self, seen: Magnitudes) -> int:
        """Return the nonzeros left of the tensor."""
        return min(self.nonzero, seen.nonzero)

    def _views(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        return _blocks(tensor.mT if self.input_first else tensor)

    def _stay(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        nonzero = 0
        for part in self._views(tensor):
            magnitude = _magnitude(part, 0.0).reshape(-1, self.of)
            # How many of its group come before a weight when the smallest go first.
            rank = torch.zeros_like(magnitude, dtype=torch.int16)
            for i in range(self.of):
                one = magnitude[:, i : i + 1]
                rank += one < magnitude
                rank[:, i + 1 :] += one == magnitude[:, i + 1 :]
            stays = rank >= self.of - self.keep
            nonzero += int(torch.count_nonzero(stays & (magnitude != 0)))
            yield stays.reshape(part.shape)
        _check_unchanged(nonzero, self.nonzero)


@dataclass(frozen=True)
class Pruning:
    """A decision which weights go; nothing is modified.

    Attributes
    ----------
    weights : Weights
        What it was decided for.
    sparsity : float
        Share of the prunable weights that was asked for.
    method : str
        ``"global_magnitude"``, ``"layerwise_magnitude"``, or a pattern such as ``"2:4"``.
    cuts : mapping of str to Cut
        By parameter name.
    """

    weights: Weights
    sparsity: float
    method: str
    cuts: Mapping[str, Cut]

    @property
    def pruned(self) -> int:
        """Number of weights pruned, those that were zero already counted in."""
        return sum(cut.pruned for cut in self.cuts.values())

    @property
    def threshold(self) -> float | None:
        """Magnitude of the last weight pruned; None where none is, or where there is not one."""
        found = {getattr(cut, "threshold", None) for cut in self.cuts.values()}
        return found.pop() if len(found) == 1 else None

    @property
    def label(self) -> str:
        """What names of variants say of it: ``30``, ``30Layerwise``, ``2:4``."""
        if ":" in self.method:
            return self.method
        percent = f"{round(100 * self.sparsity, 10):g}"
        kinds = {"global_magnitude": "", "layerwise_magnitude": "Layerwise"}
        return percent + kinds.get(self.method, "Partly")

    def mask(self, name: str) -> torch.Tensor:
        """Return True for the weights of parameter `name` that stay."""
        tensor = self.weights.tensor(name)
        if name in self.cuts:
            return self.cuts[name].mask(tensor)
        return torch.ones_like(tensor, dtype=torch.bool)

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> nn.Module:
        """Set the pruned weights of `model`, a copy without masks, to zero in place."""
        places = locate(walk(model))
        for name, cut in self.cuts.items():
            module, leaf = places[name]
            tensor = value(module, leaf)
            cut.apply_(tensor)
            put_(module, leaf, tensor)
        return model


def global_magnitude(
    weights: Weights,
    sparsity: float,
    *,
    modules: Collection[str] | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Pruning:
    """Prune the smallest magnitudes over all prunable weights together, exactly.

    Of n prunable weights ``round(sparsity·n)`` go (half to even, as
    ``torch.nn.utils.prune.global_unstructured``). Weights that are zero already count towards
    it. Equal magnitudes go in the model's order, then by position in the tensor.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsity : float
        Between 0 and 1.
    modules : collection of str, optional
        Names of the modules to choose from, all others stay as they are; n is their weights.
    progress, executor, cache : optional
        See :func:`sparsity_report.counting.histogram.count_weights`.

    Returns
    -------
    Pruning

    Raises
    ------
    SparsityReportError
        `sparsity` is not a number from 0 to 1, nothing is prunable, a module is not, or a weight
        is NaN.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pruning = sr.global_magnitude(weights, sparsity=0.5)
    >>> pruning.pruned == round(0.5 * sum(p.total for p in weights.prunable))
    True
    """
    level = check_sparsity(sparsity)
    counts = prunable_counts(weights, progress, executor, cache)
    method = "global_magnitude"
    if modules is not None:
        inside = {m.name for m in weights.modules if any(p.prunable for p in m.parameters)}
        if unknown := sorted(set(modules) - inside):
            raise SparsityReportError(f"{weights.name} has no prunable module {unknown[0]!r}")
        names = {p.name for m in weights.modules if m.name in set(modules) for p in m.parameters}
        counts = {name: seen for name, seen in counts.items() if name in names}
        method = f"global_magnitude in {len(set(modules))} of {len(inside)} modules"
    cuts = _cut(counts, weights.slices, level, executor)
    return Pruning(weights, level, method, cuts)


def layerwise_magnitude(
    weights: Weights,
    sparsity: float,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Pruning:
    """Prune the smallest magnitudes of each prunable weight tensor on its own, exactly.

    Of the n weights of every tensor ``round(sparsity·n)`` go (half to even, as
    ``torch.nn.utils.prune.l1_unstructured``); equal magnitudes go by position. Parameters, result
    and errors are those of :func:`global_magnitude`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.layerwise_magnitude(sr.load(), sparsity=0.5)
    >>> {pruning.cuts[p.name].pruned / p.total for p in pruning.weights.prunable}
    {0.5}
    """
    level = check_sparsity(sparsity)
    cuts: dict[str, Cut] = {}
    for name, seen in prunable_counts(weights, progress, executor, cache).items():
        cuts |= _cut({name: seen}, weights.slices, level, executor)
    return Pruning(weights, level, "layerwise_magnitude", cuts)


def n_m(
    weights: Weights,
    n: int,
    m: int,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Pruning:
    """Keep the `n` largest magnitudes of every `m` consecutive weights of an output.

    The pattern sparse tensor cores multiply by: groups run along the input dimension. Of equal
    magnitudes in a group the first go.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    n, m : int
        ``n_m(weights, 2, 4)`` keeps two of four.
    progress, executor, cache : optional
        See :func:`sparsity_report.counting.histogram.count_weights`.

    Returns
    -------
    Pruning
        Its sparsity is ``1 − n/m``.

    Raises
    ------
    SparsityReportError
        `n` is not between 0 and `m`, the inputs of a matrix do not divide by `m`, nothing is
        prunable, or a weight is NaN.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sr.masked(sr.n_m(sr.load(), 2, 4)).name
    'Masked2:4'
    """
    if not (isinstance(n, int) and isinstance(m, int) and 0 <= n <= m and 0 < m < 2**15):
        raise SparsityReportError(f"n_m keeps n of every m weights, 0 ≤ n ≤ m, not {n!r} of {m!r}")
    cuts = {}
    for p in weights.prunable:
        assert p.matrix is not None
        if p.matrix[1] % m:
            raise SparsityReportError(
                f"{p.name} has {p.matrix[1]:,} inputs, which do not divide into groups of {m}"
            )
        cuts[p.name] = GroupCut(n, m, p.total, 0, p.transposed)
    prunable_counts(weights, progress, executor, cache)

    def jobs() -> Iterator[tuple[str, Slice, Callable[[Slice], int]]]:
        for name, cut in cuts.items():
            turned = cut.input_first
            slices = held(weights.tensor(name).mT) if turned else weights.slices(name)
            yield from ((name, part, partial(_nonzero_kept, n=n, m=m)) for part in slices)

    for name, _, nonzero in in_order(jobs(), executor):
        cuts[name] = replace(cuts[name], nonzero=cuts[name].nonzero + nonzero)
    return Pruning(weights, 1 - n / m, f"{n}:{m}", cuts)


def check_sparsity(sparsity: float) -> float:
    """Return `sparsity` as a float or refuse it."""
    if (
        isinstance(sparsity, bool)
        or not isinstance(sparsity, int | float | np.number)
        or not 0 <= sparsity <= 1
    ):
        raise SparsityReportError(
            f"sparsity must be a number from 0 to 1, not {sparsity!r}; 30 % is 0.3"
        )
    return float(sparsity)


def prunable_counts(
    weights: Weights,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> dict[str, Magnitudes]:
    """Count a model and return what pruning chooses from, in the order that breaks ties."""
    if not weights.prunable:
        raise SparsityReportError(
            f"{weights.name} has no prunable linear layer; see the groups of its modules"
        )
    if unknown := [p.name for p in weights.prunable if not p.known]:
        raise SparsityReportError(
            f"{weights.name}: {unknown[0]} has no values to count; load the model with them"
        )
    counts = count_weights(weights, progress, executor=executor, cache=cache)
    return _ranked({p.name: counts[p.name] for p in weights.prunable})


def select_prunable_linears(
    model: nn.Module, blacklist: Collection[str] = ("lm_head",)
) -> list[nn.Module]:
    """Return the linear layers of `model` that pruning may choose from, in its order.

    ``nn.Linear`` and transformers' ``Conv1D`` count; output heads, tied weights, routers, fused
    experts and modules with a `blacklist` word in their dotted name do not.

    Examples
    --------
    >>> model = nn.ModuleDict({"fc1": nn.Linear(2, 2), "lm_head": nn.Linear(2, 2)})
    >>> len(select_prunable_linears(model)), len(select_prunable_linears(model, blacklist=()))
    (1, 1)
    """
    if isinstance(blacklist, str):
        blacklist = (blacklist,)
    places = walk(model)
    holders = locate(places)
    return [
        holders[parameter.name][0]
        for module in describe(places, blacklist=blacklist)
        for parameter in module.parameters
        if parameter.prunable and parameter.layout == "dense" and len(parameter.shape) == 2
    ]


def prune_global_magnitude_(layers: Sequence[nn.Module], amount: float) -> Sequence[nn.Module]:
    """Mask the smallest magnitudes over all `layers` together, exactly, in place.

    Like ``torch.nn.utils.prune.global_unstructured`` with ``L1Unstructured`` it keeps
    ``weight_orig`` and ``weight_mask`` until :func:`freeze_pruning_`; unlike it, it neither
    concatenates nor sorts, and equal magnitudes go by position.

    Parameters
    ----------
    layers : sequence of nn.Module
        Layers with a ``weight``, e.g. from :func:`select_prunable_linears`.
    amount : float
        Share of their weights to prune, between 0 and 1.

    Returns
    -------
    sequence of nn.Module
        The same `layers`.

    Examples
    --------
    >>> layer = nn.Linear(10, 10)
    >>> _ = freeze_pruning_(prune_global_magnitude_([layer], amount=0.3))
    >>> int((layer.weight == 0).sum())
    30
    """
    level = check_sparsity(amount)
    named = {f"layers[{i}].weight": layer for i, layer in enumerate(dict.fromkeys(layers))}
    if not named:
        raise SparsityReportError("there is no layer to prune; select_prunable_linears found none?")

    def slices(name: str) -> Iterator[Slice]:
        yield from held(value(named[name], "weight"))

    cuts = _cut(_ranked(count_slices({name: slices(name) for name in named})), slices, level)
    for name, layer in named.items():
        weight = value(layer, "weight")
        keep = cuts[name].mask(weight) if name in cuts else torch.ones_like(weight)
        prune.custom_from_mask(layer, "weight", keep)
    return layers


def freeze_pruning_(layers: Sequence[nn.Module]) -> Sequence[nn.Module]:
    """Make the masks of `layers` permanent: zeros are written into ``weight``, masks are dropped.

    Layers that carry no mask stay as they are.
    """
    for layer in layers:
        if prune.is_pruned(layer):
            prune.remove(layer, "weight")
    return layers


def _ranked(counts: dict[str, Magnitudes]) -> dict[str, Magnitudes]:
    for name, seen in counts.items():
        if seen.nan:
            raise SparsityReportError(
                f"{name} holds {seen.nan:,} NaN: its magnitudes cannot be ranked; "
                "repair the checkpoint before pruning it"
            )
    return counts


def _cut(
    counts: Mapping[str, Magnitudes],
    slices: Callable[[str], Iterable[Slice]],
    sparsity: float,
    executor: Executor | None = None,
) -> dict[str, Cut]:
    """Find the one threshold over several tensors and what it takes from each."""
    target = round(sparsity * sum(seen.total for seen in counts.values()))
    if target == 0:
        return {}
    (level,) = select(counts, [target])
    if not level.exact:
        level = settle(level, look_into(counts, slices, level.bucket, level.bucket, executor))
    return {
        name: ThresholdCut(level.threshold, int(below), int(ties))
        for name, below, ties in zip(counts, level.below, level.ties, strict=True)
    }


def _nonzero_kept(part: Slice, n: int, m: int) -> int:
    values = torch.cat(list(part.pieces()))
    if values.dtype.itemsize == 1:
        values = values.float()
    nonzero = (values != 0).reshape(-1, m).sum(dim=1, dtype=torch.int16)
    return int(nonzero.clamp(max=n).sum())


def _blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield views that cover a tensor of any strides in order, of whole rows."""
    if tensor.ndim > 2:
        for inner in tensor:
            yield from _blocks(inner)
    elif tensor.ndim:
        row = max(tensor[0].numel(), 1) if len(tensor) else 1
        yield from tensor.split(max(_BLOCK // row, 1))
    else:
        yield tensor


def _magnitude(tensor: torch.Tensor, threshold: float) -> torch.Tensor:
    """Magnitudes in a dtype that holds them and the threshold exactly."""
    if tensor.is_complex():
        return tensor.abs()
    wide = tensor.dtype.itemsize > 4 or float(np.float32(threshold)) != threshold
    return tensor.to(torch.float64 if wide or tensor.dtype == torch.int32 else torch.float32).abs()


def _check_unchanged(found: int, counted: int) -> None:
    if found != counted:
        raise SparsityReportError(
            f"the weights changed since they were counted: {found:,} instead of {counted:,} "
            "would be taken; load them again and prune anew"
        )
