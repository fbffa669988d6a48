"""Decide which weights go: exact global magnitude pruning as a value, and in place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from sparsity_report.errors import SparsityReportError
from sparsity_report.linear_csr import LinearCSR
from sparsity_report.magnitudes import (
    Magnitudes,
    Progress,
    bucket_of,
    count,
    count_weights,
    refine,
)
from sparsity_report.weights import Weights
from sparsity_report.weights.skeleton import describe, locate, value


@dataclass(frozen=True)
class Cut:
    """What pruning takes from one tensor: all below the threshold, and some exactly on it.

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

    def mask(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return True for what stays; shape of `tensor`, whose values are not touched."""
        magnitude = _magnitude(tensor.detach(), self.threshold)
        keep = magnitude >= self.threshold
        on_it = torch.nonzero((magnitude == self.threshold).reshape(-1))[: self.ties, 0]
        keep.view(-1)[on_it] = False
        if (removed := int(keep.numel() - torch.count_nonzero(keep))) != self.pruned:
            raise SparsityReportError(
                f"the weights changed since they were counted: {removed:,} instead of "
                f"{self.pruned:,} would be pruned; load them again and prune anew"
            )
        return keep


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
        ``"global_magnitude"``.
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
        """Magnitude of the last weight pruned; None where none is."""
        return next((cut.threshold for cut in self.cuts.values()), None)

    def mask(self, name: str) -> torch.Tensor:
        """Return True for the weights of parameter `name` that stay."""
        tensor = self.weights.tensor(name)
        if name in self.cuts:
            return self.cuts[name].mask(tensor)
        return torch.ones_like(tensor, dtype=torch.bool)

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> nn.Module:
        """Set the pruned weights of `model`, a copy without masks, to zero in place."""
        places = locate(model)
        for name, cut in self.cuts.items():
            module, leaf = places[name]
            tensor = value(module, leaf)
            removed = ~cut.mask(tensor)
            if isinstance(module, LinearCSR):
                module.assign_(tensor.masked_fill(removed, 0))
            else:
                tensor.masked_fill_(removed, 0)
        return model


def global_magnitude(
    weights: Weights, sparsity: float, *, progress: Progress | None = None
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
    progress : callable, optional
        See :func:`sparsity_report.magnitudes.count_weights`.

    Returns
    -------
    Pruning

    Raises
    ------
    SparsityReportError
        `sparsity` is not a number from 0 to 1, nothing is prunable, or a weight is NaN.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pruning = sr.global_magnitude(weights, sparsity=0.5)
    >>> pruning.pruned == round(0.5 * sum(p.total for p in weights.prunable))
    True
    """
    level = check_sparsity(sparsity)
    names = [parameter.name for parameter in weights.prunable]
    if not names:
        raise SparsityReportError(
            f"{weights.name} has no prunable linear layer; see the groups of its modules"
        )
    counts = count_weights(weights, progress)
    cuts = _cut({name: counts[name] for name in names}, weights.tensor, level)
    return Pruning(weights, level, "global_magnitude", cuts)


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


def _magnitude(tensor: torch.Tensor, threshold: float) -> torch.Tensor:
    """Magnitudes in a dtype that holds them and the threshold exactly."""
    if tensor.is_complex():
        return tensor.abs()
    wide = tensor.dtype.itemsize > 4 or float(np.float32(threshold)) != threshold
    return tensor.to(torch.float64 if wide or tensor.dtype == torch.int32 else torch.float32).abs()


def _cut(
    counts: Mapping[str, Magnitudes], tensor: Callable[[str], torch.Tensor], sparsity: float
) -> dict[str, Cut]:
    """Find the one threshold over several tensors and what it takes from each."""
    for name, seen in counts.items():
        if seen.nan:
            raise SparsityReportError(
                f"{name} holds {seen.nan:,} NaN: its magnitudes cannot be ranked; "
                "repair the checkpoint before pruning it"
            )
    target = round(sparsity * sum(seen.total for seen in counts.values()))
    if target == 0:
        return {}
    numbers = {name: bucket_of(seen.values) for name, seen in counts.items()}
    tally = np.zeros(2**15 + 1, dtype=np.int64)
    for name, seen in counts.items():
        np.add.at(tally, numbers[name], seen.counts)
    reached = np.cumsum(tally)
    bucket = int(np.searchsorted(reached, target))
    rank = target - int(reached[bucket - 1] if bucket else 0)

    inside = {}
    for name, seen in counts.items():
        here = numbers[name] == bucket
        if seen.exact or not here.any():
            inside[name] = (seen.values[here], seen.counts[here])
        else:
            inside[name] = refine(tensor(name), float(seen.values[here][0]))
    values = np.concatenate([v for v, _ in inside.values()])
    tallies = np.concatenate([c for _, c in inside.values()])
    order = np.argsort(values, kind="stable")
    position = int(np.searchsorted(np.cumsum(tallies[order]), rank))
    threshold = float(values[order][position])

    ties_left = rank - int(tallies[values < threshold].sum())
    cuts = {}
    for name, seen in counts.items():
        values_here, counts_here = inside[name]
        below = int(seen.counts[numbers[name] < bucket].sum())
        below += int(counts_here[values_here < threshold].sum())
        ties = min(ties_left, int(counts_here[values_here == threshold].sum()))
        ties_left -= ties
        cuts[name] = Cut(threshold, below, ties)
    return cuts


def select_prunable_linears(
    model: nn.Module, blacklist: Collection[str] = ("lm_head",)
) -> list[nn.Module]:
    """Return the linear layers of `model` that pruning may choose from, in its order.

    ``nn.Linear`` and transformers' ``Conv1D`` count; output heads, tied weights, routers and
    modules with a `blacklist` word in their dotted name do not.

    Examples
    --------
    >>> model = nn.ModuleDict({"fc1": nn.Linear(2, 2), "lm_head": nn.Linear(2, 2)})
    >>> len(select_prunable_linears(model)), len(select_prunable_linears(model, blacklist=()))
    (1, 1)
    """
    if isinstance(blacklist, str):
        blacklist = (blacklist,)
    places = locate(model)
    return [
        places[parameter.name][0]
        for module in describe(model, blacklist=blacklist)
        for parameter in module.parameters
        if parameter.prunable and parameter.layout == "dense"
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
    counts = {name: count(value(layer, "weight")) for name, layer in named.items()}
    cuts = _cut(counts, lambda name: value(named[name], "weight"), level)
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
