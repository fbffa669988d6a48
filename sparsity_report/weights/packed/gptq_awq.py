"""GPTQ and AWQ: integers with a scale and a zero point to each group of inputs.

Rows of the file are inputs of a layer and columns are outputs, transposed in the model.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from sparsity_report.weights.packed.packed_format import PackedFormat, Parts
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.rowwise import decode_codes, unpack_codes
from sparsity_report.weights.tensor_slices import FLOATS, Entry, Floats, Rounding

# Position of each of the eight outputs in a word of AWQ.
_INTERLEAVED = [0, 4, 1, 5, 2, 6, 3, 7]
# Numbers to add to stored zero points, by the name of their layout in a configuration.
_SHIFTS = {
    "gptq": 1, "gptq_v2": 0,
    "auto_round:auto_gptq": 1, "auto_round:gptqmodel": 0, "auto_round": 0,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Columnwise(Packed):
    """``(code − zero) · scale``, in groups of inputs.

    Attributes
    ----------
    codes : Entry
        GPTQ: (words of the inputs, outputs). AWQ: (inputs, words of the outputs).
    scales : Entry
        (groups, outputs).
    zeros : Entry
        (groups, words of the outputs).
    bits : int
    interleaved : bool
        True for AWQ.
    shift : int
        Number to add to stored zero points: 1 for the first version of GPTQ.
    order : Entry or None
        Group of each input; None if groups are of equal size and in order.
    """

    codes: Entry
    scales: Entry
    zeros: Entry
    bits: int
    interleaved: bool = False
    shift: int = 0
    order: Entry | None = None

    crosswise: ClassVar[bool] = True
    pads_bias: ClassVar[bool] = True

    def loaded(self) -> Packed:
        """Return the decoder with its parts in memory."""
        codes, scales, zeros = self.codes.loaded(), self.scales.loaded(), self.zeros.loaded()
        # Refuse here, where the file is known.
        self.scales.finite(scales.numbers())
        order = self.order and self.order.loaded()
        return replace(self, codes=codes, scales=scales, zeros=zeros, order=order)

    @property
    def rounding(self) -> Rounding | None:
        """Rounding interval: half a step on either side, as codes and zero points are integers."""
        return Rounding()

    def steps(self, first: int, last: int) -> Floats:
        """Return the scales of whole outputs, one per input if inputs are ordered."""
        scale = np.abs(self._scales(first, last))
        return scale if self.order is None else scale[self.order.integers()]

    def values(self, first: int, last: int) -> Floats:
        """Return values of whole outputs."""
        if self.interleaved:
            values = self._across(self.codes, first, last).T
        else:
            words = self.codes.columns(first, last).view("<u4")
            down = np.ascontiguousarray(words.T).view(np.uint8)
            values = decode_codes(down, self.bits)[:, : self.shape[1]]
        scale = self._scales(first, last)
        zero = self._across(self.zeros, first, last) + np.float32(self.shift)
        if (zero == 2**self.bits).any():
            raise self.zeros.wrong(
                f"holds zero points of {2**self.bits - 1} stored minus one, which libraries read "
                "differently; give the checkpoint in the format gptq_v2"
            )
        if self.order is not None:
            groups = self.order.integers()
            return (values - zero[groups].T) * scale[groups].T
        parted = np.ascontiguousarray(values).reshape(last - first, len(scale), -1)
        parted -= zero.T[:, :, None]
        parted *= scale.T[:, :, None]
        return parted

    def _scales(self, first: int, last: int) -> Floats:
        """Return the scales of a range of outputs, (groups, outputs)."""
        return self.scales.finite(self.scales.numbers(self.scales.columns(first, last)))

    def _across(self, part: Entry, first: int, last: int) -> Floats:
        """Return codes packed along the outputs, (rows of the part, outputs)."""
        words = first * self.bits // 32, -(-last * self.bits // 32)
        codes = decode_codes(part.columns(*words), self.bits)
        if self.interleaved:
            codes = codes.reshape(len(codes), -1, 8)[:, :, _INTERLEAVED].reshape(len(codes), -1)
        return codes[:, : last - first]


class GptqAwq(PackedFormat):
    """GPTQ (words of several inputs) and AWQ (words of several outputs)."""

    needs = ("qweight", "scales")
    allows = ("qzeros", "g_idx")
    common = frozenset({"scales", "g_idx"})
    layouts: ClassVar = {"gptq-": ("gptq", "auto-round"), "awq-": ("awq", "auto-round")}
    files: ClassVar = {"quantize_config.json": ("", "gptq"), "quant_config.json": ("", "awq")}

    def decode(self, parts: Parts) -> Packed:
        """Return the decoder."""
        codes, scales = parts.need("qweight", "int32"), parts.need("scales", *FLOATS)
        settings = parts.scheme.settings
        if len(codes.shape) != 2 or len(scales.shape) != 2 or 0 in (*codes.shape, *scales.shape):
            why = f"its shape is {codes.shape}, that of scales {scales.shape}"
            raise parts.wrong("qweight", why)
        groups, outputs = scales.shape
        zeros, order = parts.need("qzeros", "int32"), parts.get("g_idx")
        across = codes.shape[1] != outputs
        # auto-round keeps the order of inputs.
        in_order = settings.get("desc_act") is False or "packing_format" in settings
        if not across and order is None and not in_order:
            raise parts.wrong("qweight", "its g_idx is missing, which gives the groups of inputs")
        bits = _bits(parts, across)
        inputs = codes.shape[0] if across else codes.shape[0] * 32 // bits
        if order is not None:
            inputs = order.total
            if not across and -(-inputs * bits // 32) != codes.shape[0]:
                raise parts.wrong("g_idx", f"it has {inputs:,} inputs, qweight room for others")
            parts.check_order("g_idx", groups)
            order = None if _follows(order.integers(), groups) else order
        varies = _varies(parts)
        size = None if varies else parts.scheme.number("group_size", "q_group_size")
        # Groups in order are even; those that no setting fixes have a power of two of inputs.
        width = inputs // groups
        fitting = size or (2 ** inputs.bit_length() if varies else width)
        if "g_idx" not in parts and groups > 1 and (inputs % groups or fitting % width):
            raise parts.wrong("scales", f"{inputs:,} inputs cannot be shared by {groups:,} groups")
        parts.check("qzeros", (groups, -(-outputs * bits // 32)))
        shape = (outputs, inputs)
        expected = -(-inputs // size) if size and size > 0 else 1
        if size and groups != expected:
            why = f"it has {groups:,} groups for {inputs:,} inputs, not of {size} as configured"
            raise parts.wrong("scales", why)
        group = f"-g{size or width}" if groups > 1 else ""
        shift = 0 if across else _zero_point_shift(parts, zeros, bits)
        name = f"{'awq' if across else 'gptq'}-{bits}bit{group}"
        return Columnwise(shape, name, parts.all, codes, scales, zeros, bits, across, shift, order)


def _bits(parts: Parts, across: bool) -> int:
    """Return the bits of a code, on which shapes and configuration must agree."""
    codes, outputs = parts["qweight"], parts["scales"].shape[1]
    declared, order = parts.scheme.number("bits", "w_bit"), parts.get("g_idx")
    if across:
        bits = codes.shape[1] * 32 / outputs
    elif order is not None:
        bits = codes.shape[0] * 32 / max(1, order.total)
    else:
        bits = parts["qzeros"].shape[-1] * 32 / outputs
    known = (4,) if across else (2, 3, 4, 8)
    if bits not in known:
        raise parts.wrong("qweight", f"its shape {codes.shape} leaves no whole bits for a weight")
    if declared not in {None, bits} and not _varies(parts):
        raise parts.wrong("qweight", f"it has {bits:g} bits a weight, {declared} by configuration")
    return int(bits)


def _varies(parts: Parts) -> bool:
    """Return whether the configuration has settings of single layers, here or of auto-round."""
    return bool(parts.scheme.settings.keys() & {"dynamic", "extra_config"})


def _zero_point_shift(parts: Parts, zeros: Entry, bits: int) -> int:
    """Return 1 if zero points are stored minus one, 0 otherwise."""
    keys = "packing_format", "checkpoint_format", "format"
    forms = {form for key in keys if (form := parts.scheme.settings.get(key))}
    if not forms and parts.scheme.method == "gptq":
        forms = {"gptq"}
    if forms:
        shift, *others = {_SHIFTS.get(form) for form in forms}
        if shift is None or others:
            named = " and ".join(sorted(map(repr, forms)))
            raise parts.wrong("qzeros", f"how {named} stores zero points is not known")
        return shift
    middle, stored = 2 ** (bits - 1), np.unique(unpack_codes(zeros.rows(), bits))
    if len(stored) == 1 and middle - stored[0] in {0, 1}:
        return int(middle - stored[0])
    why = "only the configuration names its version of GPTQ"
    raise parts.wrong("qzeros", why, "add config.json")


def _follows(order: npt.NDArray[np.int64], groups: int) -> bool:
    """Return whether groups are consecutive and of equal size."""
    size, rest = divmod(len(order), groups)
    return not rest and bool((order == np.arange(len(order)) // size).all())
