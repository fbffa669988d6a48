"""Interface of a packed format, and what it decodes: the parts of one weight and their settings."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

from sparsity_report.errors import SparsityReportError
from sparsity_report.untrusted import limits
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.rowwise import (
    MX_GROUP,
    TILE_COLUMNS,
    TILE_ROWS,
    Blocks,
    TiledBlocks,
)
from sparsity_report.weights.tensor_slices import E8M0, FLOATS, FP8, Entry

_ADVICE = "fetch the checkpoint again, or give one that is not packed"
# Height and width of a matrix or block.
_Size = tuple[int, int]


@dataclass(frozen=True)
class Scheme:
    """Quantization settings; empty for a checkpoint that declares none.

    Attributes
    ----------
    method : str
        Such as ``"gptq"``; empty without settings.
    settings : mapping
        All settings of the file.
    file : pathlib.Path or None
        File that holds the settings.
    """

    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    def number(self, *keys: str) -> int | None:
        """Return the first integer set under one of the keys."""
        values = (self.settings.get(key) for key in keys)
        return next((int(value) for value in values if value is not None), None)

    def weights(self) -> list[Mapping[str, Any]]:
        """Return the weight settings of each group of compressed-tensors."""
        groups = (self.settings.get("config_groups") or {}).values()
        # A group may also be a list of modules for a preset.
        return [g["weights"] for g in groups if isinstance(g, dict) and g.get("weights")]

    def bits(self) -> list[int]:
        """Return the code widths in bits that compressed-tensors declares."""
        widths = (weights.get("num_bits") for weights in self.weights())
        return sorted({bits for bits in widths if isinstance(bits, int)})

    def blocks(self) -> list[tuple[int, int]]:
        """Return height and width of each declared block that shares a scale."""
        blocks = [self.settings.get("weight_block_size")]
        for weights in self.weights():
            blocks += [weights.get("block_structure"), [1, weights.get("group_size")]]
        return [(height, width) for height, width in filter(is_pair, blocks)]


class Parts(dict[str, Entry]):
    """Parts of one packed weight, by the last component of their names.

    Attributes
    ----------
    owner : str
        Name of the module or of the fused parameter.
    fused : bool
        Whether the owner is a fused parameter.
    scheme : Scheme
        Settings of the checkpoint.
    """

    def __init__(self, owner: str, fused: bool, scheme: Scheme) -> None:
        super().__init__()
        self.owner, self.fused, self.scheme = owner, fused, scheme

    @property
    def name(self) -> str:
        """Name of the packed weight."""
        return self.owner if self.fused else f"{self.owner}.weight"

    @property
    def all(self) -> tuple[Entry, ...]:
        """All parts."""
        return tuple(self.values())

    def add(self, leaf: str, entry: Entry) -> None:
        """Add a part; refuse a second one under the same leaf."""
        if leaf in self:
            raise self.wrong(leaf, f"{self[leaf].key!r} has the same role")
        self[leaf] = entry

    def need(self, leaf: str, *dtypes: str, shape: Sequence[int] | None = None) -> Entry:
        """Return a required part; refuse other dtypes and another shape than those given."""
        if leaf not in self:
            first = next(iter(self))
            raise self.wrong(first, f"its {leaf} is missing")
        part = self[leaf]
        if dtypes and (part.kind or part.values.dtype) not in dtypes:
            raise self.wrong(leaf, f"it holds {part.dtype}")
        if shape is not None:
            self.check(leaf, shape)
        return part

    def only(self, *leaves: str) -> None:
        """Refuse parts other than those of the format, given as regular expressions."""
        known = re.compile("|".join(leaves))
        if further := sorted(leaf for leaf in self if not known.fullmatch(leaf)):
            raise self.wrong(further[0], "this format has no such tensor")

    def check(self, leaf: str, shape: Sequence[int]) -> None:
        """Refuse a part of another shape."""
        if self[leaf].shape != tuple(shape):
            raise self.wrong(leaf, f"its shape is {self[leaf].shape}, not {tuple(shape)}")

    def matrix(self, leaf: str) -> tuple[int, int]:
        """Return the shape of a part that is a matrix."""
        shape = self[leaf].shape
        if len(shape) != 2 or 0 in shape:
            raise self.wrong(leaf, f"its shape is {shape}")
        return shape[0], shape[1]

    def declared_shape(self, leaf: str) -> tuple[int, int]:
        """Return the shape of the weight, from the part that holds it."""
        part = self.need(leaf, "int64", "int32")
        sizes = part.integers().tolist() if part.total == 2 else []
        if len(sizes) != 2 or min(sizes) < 1:
            raise self.wrong(leaf, f"it does not hold a shape: {sizes}")
        return sizes[0], sizes[1]

    def check_order(self, leaf: str, groups: int) -> None:
        """Refuse an input order that names a group without a scale."""
        order = self[leaf].integers()
        if order.size and not 0 <= order.min() <= order.max() < groups:
            raise self.wrong(leaf, f"it names groups beyond the {groups:,} that have a scale")

    def wrong(self, leaf: str, why: str, advice: str = _ADVICE) -> SparsityReportError:
        """Return the error for a faulty part."""
        return self[leaf].wrong(f"looks packed and cannot be unpacked: {why}; {advice}")

    def scales(self, leaf: str, shape: _Size, blocks: Sequence[_Size] = (), *dtypes: str) -> Blocks:
        """Return the scales of a matrix: one in all, or one per row, group or square block.

        Parameters
        ----------
        leaf : str
        shape : tuple of int
            Shape of the matrix.
        blocks : sequence of tuple of int
            Heights and widths of blocks that the configuration declares.
        *dtypes : str
            Allowed dtypes, by default floats and powers of two.
        """
        part, (down, across) = self.need(leaf, *(dtypes or (*FLOATS, E8M0))), shape
        exponent = part.kind == E8M0
        if part.total == 1:
            return Blocks(part.seen_as(1, 1), max(1, down), max(1, across), exponent=exponent)
        grid = (*part.shape, 1) if len(part.shape) == 1 else part.shape
        sizes = _block_sizes(grid, shape, {*blocks} if grid != (down, 1) else ())
        if not sizes:
            raise self.wrong(leaf, f"its shape is {part.shape} for a matrix of {shape}")
        if len(sizes) > 1:
            fitting = " and ".join(f"{height}×{width}" for height, width in sorted(sizes))
            raise self.wrong(
                leaf, f"blocks of {fitting} fit its shape", "declare the block in config.json"
            )
        return Blocks(part.seen_as(*grid), *sizes.pop(), exponent=exponent)

    def grouped(
        self, leaf: str, shape: tuple[int, int], width: int, *, tiled: bool = False
    ) -> Blocks:
        """Return the scales of groups within rows, as in NVFP4 and microscaling formats.

        Powers of two are stored as exponents in bytes, other scales as FP8; `tiled` ones may be
        in the tiles of a GPU kernel, which never have the shape of plain ones.
        """
        exponent = width == MX_GROUP
        part = self.need(leaf, *(("uint8", E8M0) if exponent else FP8))
        if shape[1] % width:
            raise self.wrong(leaf, f"rows of {shape[1]:,} weights are not groups of {width}")
        across = shape[1] // width
        tiles = -(-shape[0] // TILE_ROWS), -(-across // TILE_COLUMNS)
        if tiled and part.shape == (32 * tiles[0], 16 * tiles[1]):
            part = part.seen_as(tiles[0], TILE_ROWS * TILE_COLUMNS * tiles[1])
            return TiledBlocks(part, 1, width, exponent=exponent, across=across)
        self.check(leaf, (shape[0], across))
        return Blocks(part, 1, width, exponent=exponent)


class PackedFormat(ABC):
    """A way to store one weight as several tensors; :data:`.format_detection.FORMATS` lists all."""

    #: Parts by which it is recognized, the last components of their names.
    needs: ClassVar[tuple[str, ...]]
    #: Further parts, as regular expressions.
    allows: ClassVar[tuple[str, ...]] = ()
    #: Parts that may accompany weights that were calibrated and saved unpacked.
    calibrates: ClassVar[frozenset[str]] = frozenset()
    #: Parts that parameters of models without packed weights may be called, too.
    common: ClassVar[frozenset[str]] = frozenset()
    #: True if part names follow the name of the parameter after an underscore.
    fused: ClassVar[bool] = False
    #: Beginnings of the names of its layouts, see ``Packed.packing``, each with the settings that
    #: declare it: ``quant_method``, ``format``, or a key that is true. A format that no setting
    #: declares uses the name of its layout.
    layouts: ClassVar[Mapping[str, tuple[str, ...]]]
    #: Keys of settings that imply the first of these if ``quant_method`` is missing.
    signs: ClassVar[tuple[str, ...]] = ()
    #: Files of settings beside ``config.json``, each with the key of the settings and the method.
    files: ClassVar[Mapping[str, tuple[str, str]]] = {}

    @property
    def method(self) -> str:
        """Method that its keys imply."""
        return next(iter(self.layouts.values()))[0]

    def fits(self, parts: Parts) -> bool:
        """Return whether tensors are a weight in this format."""
        return parts.keys() >= {*self.needs}

    @abstractmethod
    def decode(self, parts: Parts) -> Packed:
        """Return the decoder of a weight: values, zeros and bytes follow from it.

        Raises
        ------
        SparsityReportError
            Parts are missing or do not fit each other or the configuration.
        """


def _block_sizes(grid: tuple[int, ...], shape: _Size, declared: Collection[_Size]) -> set[_Size]:
    """Return the sizes of blocks of a matrix that leave a grid of scales.

    Undeclared blocks are rows or squares. Their side is a power of two, or divides the matrix.
    """
    powers = {2**power for power in range(max(shape).bit_length() + 1)}
    pairs = zip(shape, grid, strict=False)
    even = {size // number for size, number in pairs if 0 < number <= size}
    sides = powers | even
    sizes = declared or {(height, side) for side in sides for height in (1, side)}
    return {
        (min(height, shape[0]), min(width, shape[1]))
        for height, width in sizes
        if grid == (math.ceil(shape[0] / height), math.ceil(shape[1] / width))
    }


def is_pair(value: object) -> TypeGuard[list[int]]:
    """Return whether a value is a list of two positive integers."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(each) is int and 0 < each <= limits.WIDTH for each in value)
    )
