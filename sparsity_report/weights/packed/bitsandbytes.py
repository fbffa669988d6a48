"""Packed formats of bitsandbytes: NF4, FP4 and LLM.int8()."""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from sparsity_report.sparse.cost import value_bytes
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, parse_json
from sparsity_report.weights.packed.packed_format import PackedFormat, Parts
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.rowwise import Blocks, NestedBlocks, Rowwise

# Limit on the bytes of a quantization state; real ones have some hundreds.
_LARGEST_STATE = 2**16


class FourBit(PackedFormat):
    """NF4 or FP4 of bitsandbytes: blocks of the flattened matrix, possibly nested scales."""

    needs = ("weight", "absmax", "quant_map")
    allows = ("nested_absmax", "nested_quant_map", r"quant_state\.bitsandbytes__\w+")
    layouts: ClassVar = dict.fromkeys(("nf4", "fp4"), ("bitsandbytes", "load_in_4bit"))
    signs = ("load_in_4bit",)

    def decode(self, parts: Parts) -> Packed:
        """Return the decoder."""
        state = next((leaf for leaf in parts if leaf.startswith("quant_state.")), None)
        if state is None:
            raise parts.wrong("weight", "its quant_state is missing")
        parts.only(*self.needs, *self.allows[:2], re.escape(state))
        settings, codes = _state(parts, state), parts["weight"]
        shape, size = tuple(settings["shape"]), settings["blocksize"]
        total, itemsize = math.prod(shape), value_bytes(codes.values.dtype)
        blocks, table = -(-total // size), parts.need("quant_map", "float32").numbers()
        # The bytes of codes may be stored as any dtype.
        if codes.total * itemsize != -(-total // 2):
            raise parts.wrong("weight", f"its shape is {codes.shape} for {shape} weights")
        if len(table) != 16 or not np.isfinite(table).all():
            raise parts.wrong("quant_map", "it does not hold 16 numbers")
        if parts["absmax"].total != blocks:
            raise parts.wrong("absmax", f"{parts['absmax'].total:,} scales for {blocks:,} blocks")
        # A row is a block, or the whole matrix where the last block is shorter.
        rows = 1 if total % size else blocks
        return Rowwise(
            shape, settings["quant_type"], parts.all, codes.seen_as(rows, codes.total // rows), 4,
            tuple(table.tolist()), high_first=True, scales=(_absmax(parts, settings, rows, size),),
            columns=total // rows,
        )  # fmt: skip


def _state(parts: Parts, leaf: str) -> dict[str, Any]:
    """Return the quantization state, JSON in a tensor."""
    try:
        part = parts.need(leaf, "uint8")
        text = part.integers() if part.total <= _LARGEST_STATE else np.zeros(0)
        state = parse_json(text.astype(np.uint8).tobytes(), once=True)
        shape, size = state["shape"], check_integer(state["blocksize"], "blocksize", 2)
        for each in shape:
            check_integer(each, "shape", 1)
        if size % 2 == 0 and shape and state["quant_type"] in {"nf4", "fp4"}:
            return dict(state)
    except (ValueError, KeyError, TypeError):
        pass
    raise parts.wrong(leaf, "it lacks a valid shape, blocksize or quant_type")


def _absmax(parts: Parts, state: Mapping[str, Any], rows: int, size: int) -> Blocks:
    blocks = parts["absmax"].total
    part = parts["absmax"].seen_as(rows, blocks // rows)
    if (nested := parts.get("nested_absmax")) is None:
        parts.need("absmax", "float32")
        return Blocks(part, 1, size)
    table = parts.need("nested_quant_map", "float32")
    parts.need("nested_absmax", "float32")
    every, more = state.get("nested_blocksize", 0), state.get("nested_offset", math.nan)
    is_offset = isinstance(more, float) and math.isfinite(more)
    if type(every) is not int or not 0 < every <= limits.VALUES or not is_offset:
        raise parts.wrong("nested_absmax", "quant_state lacks its size or offset")
    if table.total != 256:
        raise parts.wrong("nested_quant_map", "it does not hold 256 numbers")
    if nested.total != -(-blocks // every):
        raise parts.wrong("nested_absmax", f"{nested.total:,} scales for {blocks:,} blocks")
    parts.need("absmax", "uint8")
    return NestedBlocks(part, 1, size, table=table, nested=nested, size=every, more=more)


class LlmInt8(PackedFormat):
    """LLM.int8() of bitsandbytes: a scale of 127 steps per row."""

    needs = ("weight", "SCB")
    allows = ("weight_format",)
    layouts: ClassVar = {"bitsandbytes-": ("bitsandbytes", "load_in_8bit")}
    signs = ("load_in_8bit",)

    def decode(self, parts: Parts) -> Packed:
        """Return the decoder."""
        codes = parts.need("weight", "int8")
        if parts.get("weight_format") and parts.need("weight_format", "uint8").integers().any():
            raise parts.wrong("weight_format", "weights in kernel order are not supported")
        shape = parts.matrix("weight")
        scale = parts.scales("SCB", shape)
        if (scale.height, scale.width) != (1, shape[1]):
            raise parts.wrong("SCB", f"its shape is {parts['SCB'].shape} for {shape[0]:,} rows")
        name = "bitsandbytes-int8"
        return Rowwise(shape, name, parts.all, codes, scales=(scale,), factor=1 / 127)
