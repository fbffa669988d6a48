"""What a pruning takes: the cut of each tensor, and how it is applied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.n_m_patterns import parse_pattern
from sparsity_report.errors import SparsityReportError
from sparsity_report.hooks import Presentable
from sparsity_report.weights.anatomy.parameter_places import locate, put_, value, walk
from sparsity_report.weights.weights import Weights

# What names of variants say of rules and allocations.
_WORDS = {
    "global_magnitude": "",
    "layerwise_magnitude": "Layerwise",
    "random": "Random",
    "wanda_one_pass": "Wanda",
    "given": "Given",
    "owl": "OWL",
    "bounded": "Bounded",
}
# Weights masked at a time: bounds the memory beyond the one copy that is written to.
_BLOCK = 2**22
# Integers of as many bytes as a weight.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def turned(tensor: torch.Tensor, sizes: tuple[int, int]) -> torch.Tensor:
    """Return a view with the inputs last of a tensor of matrices whose inputs come first.

    Examples
    --------
    >>> turned(torch.arange(6).reshape(2, 3), (2, 3)).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    return tensor.view(-1, *sizes).mT if tensor.shape[-2:] != sizes else tensor.mT


def keep_(tensor: torch.Tensor, stays: torch.Tensor) -> None:
    """Set to zero in place what does not stay; of all else no bit changes.

    Examples
    --------
    >>> values = torch.tensor([1.0, float("nan"), -2.0])
    >>> keep_(values, torch.tensor([True, False, True]))
    >>> values.tolist()
    [1.0, 0.0, -2.0]
    """
    # A product of integers takes an eighth of the time of masked_fill, which float8 does not have.
    if (bits := _BITS.get(tensor.itemsize)) is not None:
        tensor.view(bits).mul_(stays)
    else:
        tensor.masked_fill_(~stays, 0)


class Cut(ABC):
    """What pruning takes from one tensor."""

    __slots__ = ()
    # Sizes of the matrices in a tensor whose inputs come before the outputs, as in ``Conv1D``.
    input_first: tuple[int, int] | None = None

    @property
    @abstractmethod
    def pruned(self) -> int:
        """Number of elements pruned, those that were zero already counted in."""

    @abstractmethod
    def nonzero_after(self, before: Magnitudes) -> int:
        """Return the nonzeros left of a tensor that had these magnitudes before."""

    @abstractmethod
    def _stay(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield True for what stays of each part of the tensor, inputs last."""

    def _views(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        return _blocks(turned(tensor, self.input_first) if self.input_first else tensor)

    def mask(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return True for what stays; shape of `tensor`, whose values are not touched."""
        tensor = tensor.detach()
        keep = torch.empty_like(tensor, dtype=torch.bool)
        for stays, part in zip(self._stay(self._views(tensor)), self._views(keep), strict=True):
            part.copy_(stays)
        return keep

    def masks(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield the mask of each part of a tensor as it comes.

        Parameters
        ----------
        parts : iterable of torch.Tensor
            Whole rows in order, all of them in the end; whole matrices where `input_first` is.
        """
        if self.input_first is None:
            return self._stay(parts)
        return (stays.mT for stays in self._stay(part.mT for part in parts))

    def apply_(self, tensor: torch.Tensor) -> None:
        """Set what is pruned to zero in place, block by block."""
        for stays, part in zip(self._stay(self._views(tensor)), self._views(tensor), strict=True):
            keep_(part, stays)


class Scale(Protocol):
    """Ranks the weights of a tensor by more than their magnitudes."""

    def scores(self, part: torch.Tensor, first: int) -> torch.Tensor:
        """Return the scores of whole rows, the first of which has a number in the tensor."""


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

    def nonzero_after(self, before: Magnitudes) -> int:
        """Return the nonzeros left of a tensor that had these magnitudes before."""
        return before.total - max(self.pruned, before.total - before.nonzero)

    def _stay(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        ties, removed = self.ties, 0
        for part in parts:
            size = magnitude(part, self.threshold)
            stays = size >= self.threshold
            if ties and (on_it := int(torch.count_nonzero(tied := size == self.threshold))):
                if on_it > ties:  # finding places is slow, and wanted in one block at most
                    tied[tuple(torch.nonzero(tied)[ties:].T)] = False
                stays &= ~tied
                ties -= min(ties, on_it)
            removed += stays.numel() - int(torch.count_nonzero(stays))
            yield stays
        check_unchanged(removed, self.pruned)


class CountedCut(Cut):
    """A cut that knows how many of what it keeps are not zero, by looking."""

    __slots__ = ()
    nonzero: int

    @abstractmethod
    def _chosen(self, parts: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield each part of the tensor, inputs last, and True for what stays of it."""

    def nonzero_after(self, before: Magnitudes) -> int:
        """Return the nonzeros left of the tensor."""
        return min(self.nonzero, before.nonzero)

    def kept(self, parts: Iterable[torch.Tensor]) -> int:
        """Count the nonzeros kept of a tensor that is given in parts."""
        return sum(nonzeros(part, stays) for part, stays in self._chosen(parts))

    def _stay(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        nonzero = 0
        for part, stays in self._chosen(parts):
            nonzero += nonzeros(part, stays)
            yield stays
        check_unchanged(nonzero, self.nonzero)


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
    input_first : tuple of int or None
        Inputs and outputs of the matrices where they come in this order, as in ``Conv1D``.
    scale : Scale or None
        What is ranked instead of magnitudes.
    """

    keep: int
    of: int
    total: int
    nonzero: int
    input_first: tuple[int, int] | None = None
    scale: Scale | None = None

    @property
    def pruned(self) -> int:
        """Number of elements pruned, those that were zero already counted in."""
        return self.total // self.of * (self.of - self.keep)

    def nonzero_after(self, before: Magnitudes) -> int:
        """Return the nonzeros left of the tensor."""
        return min(self.nonzero, before.nonzero)

    def _stay(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        nonzero = first = 0
        for part in parts:
            size = magnitude(part)
            score = self.scale.scores(part, first) if self.scale else size
            first += len(part)
            stays = (group_ranks(score.reshape(-1, self.of)) >= self.of - self.keep).reshape(
                part.shape
            )
            nonzero += int(torch.count_nonzero(stays & (size != 0)))
            yield stays
        check_unchanged(nonzero, self.nonzero)


def group_ranks(scores: torch.Tensor) -> torch.Tensor:
    """Return how many of its row come before each score when the smallest go first.

    Examples
    --------
    >>> group_ranks(torch.tensor([[3.0, 1.0, 3.0, 0.0]])).tolist()
    [[2, 1, 3, 0]]
    """
    rank = torch.zeros_like(scores, dtype=torch.int16)
    for i in range(scores.shape[1]):
        one = scores[:, i : i + 1]
        rank += one < scores
        rank[:, i + 1 :] += one == scores[:, i + 1 :]
    return rank


@dataclass(frozen=True)
class Basis:
    """What a pruning rests on besides the weights: a calibration text, or masks made elsewhere.

    Attributes
    ----------
    name : str
        Of the text or the file.
    fingerprint : str
        Sixteen hexadecimal digits that stand for what is in it, as far as it was read.
    windows, window : int or None
        How many runs of how many tokens of a text were read.
    """

    name: str
    fingerprint: str
    windows: int | None = None
    window: int | None = None

    @property
    def note(self) -> str:
        """What a careful reader should know."""
        if self.windows is None:
            return f"masks made elsewhere: {self.name} (fingerprint {self.fingerprint})"
        return (
            f"calibrated on {self.windows:,} windows of {self.window:,} tokens of {self.name} "
            f"(fingerprint {self.fingerprint}), in one pass over the dense model"
        )


@dataclass(frozen=True, repr=False)
class Pruning(Presentable):
    """A decision which weights go; nothing is modified.

    Attributes
    ----------
    weights : Weights
        What it was decided for.
    sparsity : float
        Share of the prunable weights that was asked for.
    method : str
        A rule such as ``"global_magnitude"`` or ``"random"``, or a pattern such as ``"2:4"``;
        after commas what there is more to say of it, such as ``"seed 0"`` or ``"owl"``.
    cuts : mapping of str to Cut
        By parameter name.
    basis : Basis or None
        What it rests on besides the weights.
    """

    weights: Weights
    sparsity: float
    method: str
    cuts: Mapping[str, Cut]
    basis: Basis | None = None

    @property
    def pruned(self) -> int:
        """Number of weights pruned, those that were zero already counted in."""
        return sum(cut.pruned for cut in self.cuts.values())

    @property
    def threshold(self) -> float | None:
        """Magnitude of the last weight pruned; None where none is, or where there is not one."""
        thresholds = {getattr(cut, "threshold", None) for cut in self.cuts.values()}
        return thresholds.pop() if len(thresholds) == 1 else None

    @property
    def label(self) -> str:
        """What names of variants say of it: ``30``, ``30Layerwise``, ``2:4``, ``50Wanda``."""
        rule, *parts = self.method.split(", ")
        if rule == "imported_masks":  # nobody asked for a level
            return "Imported"
        pattern = parse_pattern(self.method)
        words = [_WORDS.get(rule, "" if rule == str(pattern) else "Partly")]
        words += [_WORDS.get(part, "") for part in parts]
        words += [f"Seed{part[5:]}" for part in parts if part[:5] == "seed " and part != "seed 0"]
        return str(pattern or f"{round(100 * self.sparsity, 10):g}") + "".join(words)

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


def magnitude(tensor: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """Return magnitudes in a dtype that holds them and the threshold exactly."""
    if tensor.is_complex():
        return tensor.abs()
    wide = tensor.dtype.itemsize > 4 or float(np.float32(threshold)) != threshold
    return tensor.to(torch.float64 if wide or tensor.dtype == torch.int32 else torch.float32).abs()


def nonzeros(part: torch.Tensor, stays: torch.Tensor) -> int:
    """Count the nonzeros that stay."""
    return int(torch.count_nonzero(stays & (magnitude(part) != 0)))


def check_unchanged(taken: int, counted: int) -> None:
    """Refuse to take other weights than those that were counted."""
    if taken != counted:
        raise SparsityReportError(
            f"the weights changed since they were counted: {taken:,} instead of {counted:,} "
            "would be taken; load them again and prune anew"
        )
