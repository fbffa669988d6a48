"""Packed formats of compressed-tensors: sparse, integer, NVFP4, MXFP4 and MXFP6."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sparsity_report.weights.packed.packed_format import PackedFormat, Parts
from sparsity_report.weights.packed.packed_tensor import Packed, grouped
from sparsity_report.weights.packed.rowwise import E2M1, E2M3, MX_GROUP, NV_GROUP, Blocks, Rowwise
from sparsity_report.weights.tensor_slices import FLOATS, FP4, FP8, Entry, Floats, Rounding

#: Its method in a configuration.
METHOD = "compressed-tensors"
# Parts that settings of the weights declare.
_DECLARED = {"weight_zero_point": ("symmetric", False), "weight_g_idx": ("actorder", "group")}


@dataclass(frozen=True, eq=False)
class Bitmasked(Packed):
    """Matrix of the next stored value for each set bit, and zero for the others.

    Attributes
    ----------
    kept : Entry
        Stored values in the order of the rows.
    mask : Entry
        uint8, (rows, bytes), the lowest bit first.
    starts : Entry or None
        Position of the first value of each row; None if all rows keep equally many.
    scales : tuple of Blocks
    """

    kept: Entry
    mask: Entry
    starts: Entry | None
    scales: tuple[Blocks, ...] = ()

    @property
    def exact_dtype(self) -> str:
        """Name of the dtype of the stored values unless they are scaled."""
        return self.dtype if self.scales else self.kept.values.dtype

    @property
    def rounding(self) -> Rounding | None:
        """Nothing is rounded to zero; None for scaled values."""
        return None if self.scales else Rounding(0.0, 0.0)

    def steps(self, first: int, last: int) -> Floats:  # noqa: ARG002
        """Return one step for all values, which are unrounded."""
        return np.ones(1, np.float32)

    def values(self, first: int, last: int) -> Floats:
        """Return values of whole rows."""
        columns = self.row
        bits = np.unpackbits(self.mask.rows(first, last), axis=1, bitorder="little")
        there = bits[:, :columns].astype(bool)
        begin, end = self._places(first, last)
        if there.sum() != end - begin or bits[:, columns:].any():
            raise self.mask.wrong(
                f"and {self.kept.key!r} disagree on how many weights rows {first} to {last - 1} "
                "keep; fetch the file again"
            )
        values = np.zeros((last - first, columns), np.float32)
        kept = self.kept.seen_as(self.kept.total)
        values[there] = kept.numbers(kept.rows(begin, end)).reshape(-1)
        for scale in self.scales:
            scale.combine_(values, np.multiply, first)
        return values

    def _places(self, first: int, last: int) -> tuple[int, int]:
        """Return the range of stored values of a range of rows."""
        if self.starts is None:
            each = self.kept.total // self.shape[0]
            return first * each, last * each
        starts = [*self.starts.integers().tolist(), self.kept.total]
        begin, end = starts[first], starts[last]
        if not 0 <= begin <= end <= self.kept.total:
            raise self.starts.wrong(f"points outside of {self.kept.key!r}; fetch the file again")
        return begin, end


class SparseBitmask(PackedFormat):
    """``sparse-bitmask`` or ``sparse-24-bitmask`` of compressed-tensors before version 0.13.

    ``row_offsets`` are missing if every row keeps half of its values.
    """

    needs = ("compressed", "bitmask", "shape")
    allows = ("row_offsets", "weight_scale")
    common = frozenset({"shape"})
    layouts: ClassVar = {"sparse-": (METHOD, "pack-quantized", "int-quantized", "float-quantized")}

    def decode(self, parts: Parts) -> Packed:
        """Return the decoder."""
        shape = parts.declared_shape("shape")
        mask = parts.need("bitmask", "uint8", shape=(shape[0], -(-shape[1] // 8)))
        scaled = "weight_scale" in parts
        kept = parts.need("compressed", *(("int8", *FP8) if scaled else FLOATS))
        starts = parts.get("row_offsets")
        name = "sparse-24-bitmask" if starts is None else "sparse-bitmask"
        declared = parts.scheme.settings.get("sparsity_config", {})
        if isinstance(declared, dict) and declared.get("format", name) != name:
            why = f"it is {name}, {declared['format']} by the configuration"
            raise parts.wrong("compressed", why)
        if starts is None:
            parts.check("compressed", (shape[0], shape[1] // 2))
        elif starts.shape not in {(shape[0],), (shape[0], 1)}:
            raise parts.wrong("row_offsets", f"its shape is {starts.shape} for {shape[0]} rows")
        scales = (parts.scales("weight_scale", shape),) if scaled else ()
        return Bitmasked(shape, name, parts.all, kept, mask, starts, scales)


class PackQuantized(PackedFormat):
    """Packed integers, NVFP4, MXFP4 and MXFP6 of compressed-tensors."""

    needs = ("weight_packed", "weight_scale")
    allows = ("weight_shape", "weight_zero_point", "weight_g_idx", "weight_global_scale")
    calibrates = frozenset((needs[1], *allows[1:]))
    layouts: ClassVar = {
        "pack-quantized-": (METHOD, "pack-quantized"),
        "nvfp4": (METHOD, "nvfp4-pack-quantized"),
        "mxfp4": (METHOD, "mxfp4-pack-quantized"),
        "mxfp6": (METHOD, "mxfp6-pack-quantized"),
    }
    signs = ("compression_config", "sparsity_config", "config_groups")

    def decode(self, parts: Parts) -> Packed:
        """Return the decoder."""
        if parts["weight_packed"].values.dtype == "int32":
            return _pack_quantized(parts)
        codes = parts.need("weight_packed", "uint8", FP4)
        parts.only("weight_packed", "weight_scale", "weight_global_scale")
        (down, size), divisor = parts.matrix("weight_packed"), parts.get("weight_global_scale")
        six = not codes.kind and size * 8 == 6 * MX_GROUP * parts.matrix("weight_scale")[1]
        small = "nvfp4" if divisor else "mxfp4"
        bits, table, name = (6, E2M3, "mxfp6") if six else (4, E2M1, small)
        shape = (down, size * 8 // bits)
        if (declared := parts.scheme.bits()) and bits not in declared:
            why = f"it has {bits} bits a weight, {declared} by configuration"
            raise parts.wrong("weight_packed", why)
        scale, factor = parts.grouped("weight_scale", shape, NV_GROUP if divisor else MX_GROUP), 1.0
        if divisor:
            whole_scale = float(divisor.numbers()[0]) if divisor.total == 1 else math.nan
            if not (math.isfinite(whole_scale) and whole_scale):
                raise parts.wrong("weight_global_scale", "it is not one nonzero number")
            factor = 1 / whole_scale
        return Rowwise(shape, name, parts.all, codes, bits, table, scales=(scale,), factor=factor)


def _pack_quantized(parts: Parts) -> Packed:
    parts.only("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
    codes, shape = parts["weight_packed"], parts.declared_shape("weight_shape")
    declared = parts.scheme.bits()
    fitting = [
        bits
        for bits in declared or (2, 3, 4, 5, 6, 8)
        if 0 < bits <= 8 and codes.shape == (shape[0], -(-shape[1] * bits // 32))
    ]
    if len(fitting) != 1:
        width = f" of {', '.join(map(str, declared))} bits" if declared else ""
        raise parts.wrong("weight_packed", f"its shape is {codes.shape} for {shape} weights{width}")
    bits, offset = fitting[0], 2.0 ** (fitting[0] - 1)
    scale = parts.scales("weight_scale", shape, parts.scheme.blocks())
    if scale.height != 1 and scale.part.total != 1:
        raise parts.wrong("weight_scale", f"its shape is {scale.part.shape} for {shape[0]:,} rows")
    if scale.part.total > 1 and shape[1] % scale.width:  # the library packs no such shape
        why = f"rows of {shape[1]:,} weights are not groups of {scale.width:,}"
        raise parts.wrong("weight_scale", why)
    order = parts.get("weight_g_idx")
    for leaf, (key, value) in _DECLARED.items():
        declarations = [weights.get(key) == value for weights in parts.scheme.weights()]
        if leaf not in parts and declarations and all(declarations):
            raise parts.wrong("weight_packed", f"its {leaf} is missing")
    if order is not None and order.shape != (shape[1],):
        raise parts.wrong("weight_g_idx", f"its shape is {order.shape} for {shape[1]} columns")
    order = None if order is None or (order.integers() < 0).all() else order
    if order is not None:
        parts.check_order("weight_g_idx", scale.part.shape[1])
    scale = Blocks(scale.part, scale.height, scale.width, order=order)
    zero = None
    if "weight_zero_point" in parts:
        size = -(-shape[0] * bits // 32), scale.part.shape[1]
        codes_of_zero = parts.need("weight_zero_point", "int32", shape=size)
        zero = Blocks(codes_of_zero, 1, scale.width, bits=bits, offset=offset, order=order)
    return Rowwise(
        shape, f"pack-quantized-{bits}bit{grouped(scale.width, shape)}", parts.all, codes,
        bits, offset=offset, zero=zero, scales=(scale,),
    )  # fmt: skip
