"""Packed formats of MLX: integers with scale and bias, or microscaling floats."""

import math
from typing import ClassVar

from sparsity_report.weights.packed.packed_format import PackedFormat, Parts
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.rowwise import E2M1, MX_GROUP, NV_GROUP, Blocks, Rowwise
from sparsity_report.weights.tensor_slices import FLOATS


class Mlx(PackedFormat):
    """Weights of MLX: integers with scale and bias, or microscaling floats."""

    needs = ("weight", "scales")
    allows = ("biases",)
    common = frozenset({"scales", "biases"})
    layouts: ClassVar = {"mlx-": ("mlx",)}
    signs = ("quantization", "group_size")

    def decode(self, parts: Parts) -> Packed:
        """Return the decoder."""
        codes, scale = parts.need("weight", "uint32"), parts["scales"]
        override = parts.scheme.settings.get(parts.owner)
        settings = {**parts.scheme.settings, **(override if isinstance(override, dict) else {})}
        bits, size = settings.get("bits"), settings.get("group_size")
        mode = settings.get("mode", "affine")
        if type(bits) is not int or type(size) is not int or not (0 < bits <= 8 and size > 0):
            why = "only config.json declares the bits of a weight of MLX"
            raise parts.wrong("weight", why, "add config.json")
        if len(codes.shape) < 2 or codes.shape[:-1] != scale.shape[:-1]:
            raise parts.wrong("scales", f"its shape is {scale.shape}, that of weight {codes.shape}")
        columns, down = scale.shape[-1] * size, math.prod(codes.shape[:-1])
        if columns * bits != codes.shape[-1] * 32:
            why = f"its shape is {codes.shape} for {columns:,} columns of {bits} bits"
            raise parts.wrong("weight", why)
        shape = (*codes.shape[:-1], columns)
        flat = codes.seen_as(down, codes.shape[-1])
        across = scale.seen_as(down, scale.shape[-1])
        if mode == "affine":
            parts.need("scales", *FLOATS)
            bias = parts.need("biases", *FLOATS, shape=scale.shape)
            name, blocks = f"mlx-{bits}bit-g{size}", Blocks(across, 1, size)
            biases = Blocks(bias.seen_as(down, scale.shape[-1]), 1, size)
            return Rowwise(shape, name, parts.all, flat, bits, scales=(blocks,), bias=biases)
        parts.only("weight", "scales")
        parts.need("scales", "uint8")
        form = str(mode), bits, size
        if form == ("nvfp4", 4, NV_GROUP):
            scales = Blocks(across.as_dtype("float8_e4m3fn"), 1, size)
        elif form in {("mxfp4", 4, MX_GROUP), ("mxfp8", 8, MX_GROUP)}:
            scales = Blocks(across, 1, size, exponent=True)
        else:
            raise parts.wrong("weight", f"mode {mode!r} of MLX with {bits} bits is not supported")
        name = f"mlx-{mode}"
        if bits == 8:
            floats = codes.seen_as(down, columns).as_dtype("float8_e4m3fn")
            return Rowwise(shape, name, parts.all, floats, scales=(scales,))
        return Rowwise(shape, name, parts.all, flat, 4, E2M1, scales=(scales,))
