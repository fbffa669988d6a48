"""Small floats and integers with scales: FP8, int8, FP4, ModelOpt, gpt-oss and torchao."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsity_report.weights.packed.packed_tensor import Packed, grouped
from sparsity_report.weights.packed.rowwise import (
    E2M1,
    MX_GROUP,
    NV_GROUP,
    Blocks,
    Rowwise,
)
from sparsity_report.weights.packed.tensor_groups import Parts
from sparsity_report.weights.tensor_slices import E8M0, FP4, FP8, Entry, Floats, Rounding


def scaled(parts: Parts) -> Packed:
    """Return the decoder of int8, FP8 or FP4 with scales per tensor, row, block or group."""
    leaf = "weight_scale_inv" if parts.get("weight_scale_inv") else "weight_scale"
    codes = parts.need("weight")
    if codes.kind == FP4:
        return _fp4(parts, leaf)
    *outer, across = codes.shape
    is_grouped = parts[leaf].shape == (*outer, across // MX_GROUP)
    if codes.values.dtype in FP8 and parts[leaf].values.dtype == "uint8" and is_grouped:
        parts.only("weight", leaf)
        shape = parts.matrix("weight")
        powers = parts.grouped(leaf, shape, MX_GROUP)
        return Rowwise(shape, "mxfp8", parts.all, codes, scales=(powers,))
    return _eight_bits(parts, ("weight", leaf, "weight_zero_point"), parts.scheme.blocks())


def torchao(parts: Parts) -> Packed:
    """Return the decoder of a torchao tensor.

    Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, NVFP4Tensor and MXTensor are supported.
    """
    scale = parts.need("_weight_scale")
    if scale.kind == E8M0 or scale.values.dtype in FP8:
        return _torchao_groups(parts, MX_GROUP if scale.kind else NV_GROUP)
    packed = _eight_bits(parts, ("_weight_qdata", "_weight_scale", "_weight_zero_point"), ())
    return replace(packed, packing=f"torchao-{packed.packing}")


def _torchao_groups(parts: Parts, width: int) -> Packed:
    """Return the decoder of NVFP4Tensor or MXTensor, whose scales may be in tiles."""
    parts.only(
        "_weight_qdata", "_weight_scale", "_weight_per_tensor_scale", "_weight_act_per_tensor_scale"
    )
    codes = parts.need("_weight_qdata", "uint8", *(FP8 if width == MX_GROUP else ()))
    four, (down, size) = codes.values.dtype == "uint8", parts.matrix("_weight_qdata")
    shape = (down, 2 * size if four else size)
    scales = [parts.grouped("_weight_scale", shape, width, tiled=True)]
    if "_weight_per_tensor_scale" in parts:
        scales.append(parts.scales("_weight_per_tensor_scale", shape))
        parts.check("_weight_per_tensor_scale", ())
    name = f"torchao-{'nv' if width == NV_GROUP else 'mx'}fp{4 if four else 8}"
    bits, table = (4, E2M1) if four else (0, ())
    return Rowwise(shape, name, parts.all, codes, bits, table, scales=(*scales,))


def _eight_bits(
    parts: Parts, leaves: tuple[str, str, str], blocks: Sequence[tuple[int, int]]
) -> Rowwise:
    """Return the decoder of int8 or FP8, from the names of codes, scales and zero points."""
    parts.only(*leaves)
    codes, shape = parts.need(leaves[0], "int8", *FP8), parts.matrix(leaves[0])
    scale, zero = parts.scales(leaves[1], shape, blocks), None
    if parts.get(leaves[2]):
        zero = parts.scales(leaves[2], shape, blocks, "int8")
    size = "-block" if 1 < scale.height < shape[0] else grouped(scale.width, shape)
    name = ("int8" if codes.values.dtype == "int8" else "fp8") + size
    return Rowwise(shape, name, parts.all, codes, zero=zero, scales=(scale,))


def _fp4(parts: Parts, leaf: str) -> Packed:
    """Return the decoder of FP4 in safetensors: NVFP4 without a tensor scale, or MXFP4."""
    parts.only("weight", leaf)
    codes, (down, half) = parts["weight"], parts.matrix("weight")
    shape = (down, 2 * half)
    small = parts[leaf].values.dtype in FP8
    scale = parts.grouped(leaf, shape, NV_GROUP if small else MX_GROUP)
    name = "nvfp4" if small else "mxfp4"
    return Rowwise(shape, name, parts.all, codes, 4, E2M1, scales=(scale,))


def unscaled(entry: Entry) -> Packed:
    """Return the decoder of FP4 in safetensors without scales."""
    *outer, half = entry.shape
    codes = entry.seen_as(math.prod(outer), half)
    return Rowwise((*outer, 2 * half), "fp4", (entry,), codes, 4, E2M1)


def modelopt(parts: Parts) -> Packed:
    """Return the decoder of ModelOpt's NVFP4: two codes per byte, two levels of scales."""
    parts.only("weight", "weight_scale", "weight_scale_2")
    codes, (down, half) = parts.need("weight", "uint8", FP4), parts.matrix("weight")
    shape = (down, 2 * half)
    scales = (parts.grouped("weight_scale", shape, NV_GROUP), parts.scales("weight_scale_2", shape))
    if scales[1].part.total != 1:
        raise parts.wrong("weight_scale_2", "it is not one number")
    return Rowwise(shape, "nvfp4", parts.all, codes, 4, E2M1, scales=scales)


@dataclass(frozen=True, eq=False)
class Experts(Packed):
    """Matrices of experts, transposed in the model: (experts, inputs, outputs).

    Attributes
    ----------
    matrices : Rowwise
        All of them, (experts · outputs, inputs).
    """

    matrices: Rowwise

    aligned = 1

    @property
    def row(self) -> int:
        """Values of one expert."""
        return self.shape[1] * self.shape[2]

    @property
    def rounding(self) -> Rounding | None:
        """Rounding levels of the matrices."""
        return self.matrices.rounding

    def steps(self, first: int, last: int) -> Floats:
        """Return the steps of whole experts, in the order of the matrices."""
        return self.matrices.steps(first * self.shape[2], last * self.shape[2])

    def values(self, first: int, last: int) -> Floats:
        """Return values of whole experts."""
        values = self.matrices.values(first * self.shape[2], last * self.shape[2])
        turned: Floats = values.reshape(-1, self.shape[2], self.shape[1]).transpose(0, 2, 1)
        return turned.copy()


def fused_mxfp4(parts: Parts) -> Packed:
    """Return the decoder of gpt-oss experts: (experts, outputs, groups, 16 bytes), transposed."""
    parts.only("blocks", "scales")
    codes, scale = parts.need("blocks", "uint8", FP4), parts.need("scales", "uint8", E8M0)
    if len(codes.shape) != 4 or codes.shape[3] * 2 != MX_GROUP:
        raise parts.wrong("blocks", f"its shape is {codes.shape}")
    parts.check("scales", codes.shape[:3])
    experts, outputs, groups, _ = codes.shape
    inputs, down = groups * MX_GROUP, experts * outputs
    scales = Blocks(scale.seen_as(down, groups), 1, MX_GROUP, exponent=True)
    flat = codes.seen_as(down, inputs // 2)
    matrices = Rowwise((down, inputs), "mxfp4", parts.all, flat, 4, E2M1, scales=(scales,))
    return Experts((experts, inputs, outputs), "mxfp4", parts.all, matrices)
