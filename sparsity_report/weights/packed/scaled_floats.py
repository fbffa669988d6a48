"""Small floats and integers with scales: FP8, int8, FP4, ModelOpt, gpt-oss and torchao."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sparsity_report.weights.packed.packed_format import PackedFormat, Parts
from sparsity_report.weights.packed.packed_tensor import Packed, grouped
from sparsity_report.weights.packed.rowwise import E2M1, MX_GROUP, NV_GROUP, Blocks, Rowwise
from sparsity_report.weights.tensor_slices import E8M0, FP4, FP8, Floats, Rounding

_SCALES = ("weight_scale", "weight_scale_inv")


class Scaled(PackedFormat):
    """int8, FP8 or FP4 with scales per tensor, row, block or group; ModelOpt's with one of all."""

    needs = ("weight",)
    allows = (*_SCALES, "weight_zero_point", "weight_scale_2")
    layouts: ClassVar = {
        "int8": ("compressed-tensors", "int-quantized"),
        "fp8": ("compressed-tensors", "float-quantized", "fp8", "fbgemm-fp8", "modelopt"),
        "mxfp8": ("compressed-tensors", "mxfp8-quantized", "modelopt"),
        "nvfp4": ("modelopt",),
    }
    files: ClassVar = {"hf_quant_config.json": ("quantization", "modelopt")}

    def fits(self, parts: Parts) -> bool:
        """Return whether a scale is among the parts."""
        return "weight" in parts and not parts.keys().isdisjoint(_SCALES)

    def decode(self, parts: Parts) -> Packed:
        """Return the decoder."""
        leaf, codes = next(filter(parts.__contains__, _SCALES)), parts.need("weight")
        if "weight_scale_2" in parts or codes.kind == FP4:
            parts.only("weight", leaf, "weight_scale_2")
            parts.need("weight", "uint8", FP4)
            if "weight_scale_2" in parts:
                parts.need(leaf, *FP8)
            return _group_scaled(parts, "weight", leaf, "weight_scale_2")
        *outer, across = codes.shape
        is_grouped = parts[leaf].shape == (*outer, across // MX_GROUP)
        if codes.values.dtype in FP8 and parts[leaf].values.dtype == "uint8" and is_grouped:
            parts.only("weight", leaf)
            return _group_scaled(parts, "weight", leaf, "")
        return _eight_bits(parts, ("weight", leaf, "weight_zero_point"), parts.scheme.blocks())


class TorchAo(PackedFormat):
    """Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, NVFP4Tensor and MXTensor of torchao."""

    needs = ("_weight_qdata", "_weight_scale")
    allows = (r"_weight_\w+",)
    layouts: ClassVar = {"torchao-": ("torchao",)}

    def decode(self, parts: Parts) -> Packed:
        """Return the decoder."""
        scale = parts.need("_weight_scale")
        if scale.kind == E8M0 or scale.values.dtype in FP8:
            leaves = (*self.needs, "_weight_per_tensor_scale")
            parts.only(*leaves, "_weight_act_per_tensor_scale")
            return _group_scaled(parts, *leaves, "torchao-")
        packed = _eight_bits(parts, ("_weight_qdata", "_weight_scale", "_weight_zero_point"), ())
        return replace(packed, packing=f"torchao-{packed.packing}")


def _group_scaled(
    parts: Parts, codes_leaf: str, scale_leaf: str, whole_leaf: str, prefix: str = ""
) -> Packed:
    """Return the decoder of FP4 or FP8 with a scale per group, and possibly one of the whole."""
    scale, (down, size) = parts.need(scale_leaf), parts.matrix(codes_leaf)
    family, width = ("nv", NV_GROUP) if scale.values.dtype in FP8 else ("mx", MX_GROUP)
    codes = parts.need(codes_leaf, "uint8", FP4, *(FP8 if family == "mx" else ()))
    bits, table = (0, ()) if codes.values.dtype in FP8 else (4, E2M1)
    shape = (down, 2 * size if bits else size)
    # The scales of torchao may be in tiles.
    scales = [parts.grouped(scale_leaf, shape, width, tiled=bool(prefix))]
    if whole_leaf in parts:
        scales.append(parts.scales(whole_leaf, shape))
        if scales[1].part.total != 1:
            raise parts.wrong(whole_leaf, "it is not one number")
    name = f"{prefix}{family}fp{bits or 8}"
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


class FusedMxfp4(PackedFormat):
    """Experts of gpt-oss: (experts, outputs, groups, 16 bytes), transposed."""

    needs = ("blocks", "scales")
    fused = True
    layouts: ClassVar = {"mxfp4": ("mxfp4",)}

    def decode(self, parts: Parts) -> Packed:
        """Return the decoder."""
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
