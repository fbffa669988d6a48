"""The tensors that make up one packed weight, and what does not fit among them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.packed.block_scales import Blocks
from sparsity_report.weights.packed.packed_integers import MX_GROUP
from sparsity_report.weights.packed.part_slices import E8M0, FLOATS, FP8, integers, origin
from sparsity_report.weights.tensor_slices import Entry

# What a number of a block stands for where the file does not say: DeepSeek's 128 × 128.
_BLOCK = 128


class Parts:
    """Tensors by the end of their names.

    Attributes
    ----------
    owner : str
        What stands before: a module, or a fused parameter.
    fused : bool
        It is a parameter itself.
    leaves : dict of str to Entry
    """

    def __init__(self, owner: str, fused: bool) -> None:
        self.owner, self.fused = owner, fused
        self.leaves: dict[str, Entry] = {}

    @property
    def name(self) -> str:
        """Of the weight that they make up."""
        return self.owner if self.fused else f"{self.owner}.weight"

    @property
    def all(self) -> tuple[Entry, ...]:
        """Every part."""
        return tuple(self.leaves.values())

    def add(self, leaf: str, entry: Entry) -> None:
        """Take in a tensor; refuse a second one for the same purpose."""
        if leaf in self.leaves:
            raise self.wrong(leaf, f"{self.leaves[leaf].key!r} says the same")
        self.leaves[leaf] = entry

    def get(self, leaf: str) -> Entry | None:
        """Return a part that may be missing."""
        return self.leaves.get(leaf)

    def need(self, leaf: str, *dtypes: torch.dtype | str) -> Entry:
        """Return a part, of one of some dtypes if any are given, by the file's name or torch's."""
        if leaf not in self.leaves:
            first = next(iter(self.leaves))
            raise self.wrong(first, f"its {leaf} is missing")
        part = self.leaves[leaf]
        if dtypes and (part.kind or part.values.dtype) not in dtypes:
            raise self.wrong(leaf, f"it holds {part.dtype}")
        return part

    def only(self, *leaves: str) -> None:
        """Refuse a part that the format does not have."""
        if further := sorted(self.leaves.keys() - {*leaves}):
            raise self.wrong(further[0], "this format has no such tensor")

    def check(self, leaf: str, shape: Sequence[int]) -> None:
        """Refuse a part that has not the shape it must have."""
        if self.leaves[leaf].shape != tuple(shape):
            raise self.wrong(leaf, f"its shape is {self.leaves[leaf].shape}, not {tuple(shape)}")

    def matrix(self, leaf: str) -> tuple[int, int]:
        """Return the shape of a part that is a matrix."""
        shape = self.leaves[leaf].shape
        if len(shape) != 2 or 0 in shape:
            raise self.wrong(leaf, f"its shape is {shape}")
        return shape[0], shape[1]

    def told_shape(self, leaf: str) -> tuple[int, int]:
        """Return the shape that a part tells of the weight."""
        part = self.need(leaf, torch.int64, torch.int32)
        told = integers(part).tolist() if part.total == 2 else []
        if len(told) != 2 or min(told) < 1:
            raise self.wrong(leaf, f"it does not tell a shape: {told}")
        return told[0], told[1]

    def check_order(self, leaf: str, groups: int) -> None:
        """Refuse an order of inputs that names a group without a scale."""
        order = integers(self.leaves[leaf])
        if order.size and not 0 <= order.min() <= order.max() < groups:
            raise self.wrong(leaf, f"it names groups beyond the {groups:,} that have a scale")

    def wrong(
        self,
        leaf: str,
        why: str,
        advice: str = "fetch the checkpoint again, or give one that is not packed",
    ) -> SparsityReportError:
        """Return an error about one of the parts."""
        entry = self.leaves[leaf]
        return SparsityReportError(
            f"{origin(entry)}: {entry.key!r} looks packed and cannot be unpacked: {why}; {advice}"
        )

    def scales(
        self,
        leaf: str,
        shape: tuple[int, int],
        block: tuple[int, int] | None = None,
        dtypes: Sequence[torch.dtype] = FLOATS,
    ) -> Blocks:
        """Return numbers for blocks of a matrix: one, one a row, some across, or one a square.

        Parameters
        ----------
        leaf : str
        shape : tuple of int
            Of the matrix.
        block : tuple of int, optional
            Height and width of a block, where the configuration says it.
        dtypes : sequence of torch.dtype
            That the numbers may have.
        """
        part, (down, across) = self.need(leaf, *dtypes), shape
        if part.total == 1:
            return Blocks(Entry(part.key, (1, 1), part.values), max(1, down), max(1, across))
        told = (*part.shape, 1) if len(part.shape) == 1 else part.shape
        if len(told) != 2:
            raise self.wrong(leaf, f"its shape is {part.shape} for a matrix of {shape}")
        part = Entry(part.key, told, part.values)
        even, square = self._even(told, shape), (_BLOCK, _BLOCK)
        inverse = leaf == "weight_scale_inv"
        told_so = inverse and block is not None
        for size in (block,) if told_so else (square, even) if inverse else (block, even, square):
            if size and told == (math.ceil(down / size[0]), math.ceil(across / size[1])):
                return Blocks(part, *size)
        raise self.wrong(leaf, f"its shape is {part.shape} for a matrix of {shape}")

    def grouped(self, leaf: str, shape: tuple[int, int], width: int) -> Blocks:
        """Return a number for each group of a row, as NVFP4 and microscaling have them.

        Powers of two are written as their exponents, in bytes; other numbers as FP8.
        """
        exponent = width == MX_GROUP
        self.need(leaf, *((torch.uint8, E8M0) if exponent else FP8))
        if shape[1] % width:
            raise self.wrong(leaf, f"rows of {shape[1]:,} weights are not groups of {width}")
        self.check(leaf, (shape[0], shape[1] // width))
        return Blocks(self.leaves[leaf], 1, width, exponent=exponent)

    @staticmethod
    def _even(told: tuple[int, ...], shape: tuple[int, int]) -> tuple[int, int] | None:
        if 0 in told or any(whole % part for whole, part in zip(shape, told, strict=True)):
            return None
        height, width = shape[0] // told[0], shape[1] // told[1]
        return (height, width) if height in {1, width} else None
