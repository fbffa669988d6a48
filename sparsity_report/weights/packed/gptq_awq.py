"""GPTQ and AWQ: integers with a scale and a zero point to each group of inputs."""

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.weights.packed.columnwise import Columnwise
from sparsity_report.weights.packed.packed_integers import unpack_codes
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.part_slices import FLOATS, integers, rows
from sparsity_report.weights.packed.quantization_config import Scheme
from sparsity_report.weights.packed.tensor_groups import Parts
from sparsity_report.weights.tensor_slices import Entry


def gptq_or_awq(parts: Parts, scheme: Scheme) -> Packed:
    """Return the decoder of GPTQ (words of several inputs) or AWQ (words of several outputs)."""
    parts.only("qweight", "scales", "qzeros", "g_idx")
    codes, scales = parts.need("qweight", torch.int32), parts.need("scales", *FLOATS)
    if len(codes.shape) != 2 or len(scales.shape) != 2 or 0 in (*codes.shape, *scales.shape):
        raise parts.wrong("qweight", f"its shape is {codes.shape}, that of scales {scales.shape}")
    groups, outputs = scales.shape
    zeros, order = parts.need("qzeros", torch.int32), parts.get("g_idx")
    across = codes.shape[1] != outputs
    if not across and order is None and scheme.settings.get("desc_act") is not False:
        raise parts.wrong("qweight", "its g_idx is missing, so the groups of inputs are unknown")
    bits = _bits(parts, scheme, across)
    inputs = codes.shape[0] if across else codes.shape[0] * 32 // bits
    if order is not None:
        inputs = order.total
        if not across and -(-inputs * bits // 32) != codes.shape[0]:
            raise parts.wrong("g_idx", f"it has {inputs:,} inputs, qweight room for others")
        parts.check_order("g_idx", groups)
        order = None if _follows(integers(order), groups) else order
    if inputs % groups and order is None:
        raise parts.wrong("scales", f"{inputs:,} inputs cannot be shared by {groups:,} groups")
    parts.check("qzeros", (groups, -(-outputs * bits // 32)))
    shape = (outputs, inputs)
    size = scheme.number("group_size", "q_group_size")
    if (
        size
        and groups != (-(-inputs // size) if size > 0 else 1)
        and "dynamic" not in scheme.settings
    ):
        why = (
            f"it has {groups:,} groups for {inputs:,} inputs, in groups of {size} by configuration"
        )
        raise parts.wrong("scales", why)
    group = f"-g{size or inputs // groups}" if groups > 1 else ""
    shift = 0 if across else _zero_point_shift(parts, scheme, zeros, bits)
    name = f"{'awq' if across else 'gptq'}-{bits}bit{group}"
    return Columnwise(shape, name, parts.all, codes, scales, zeros, bits, across, shift, order)


def _bits(parts: Parts, scheme: Scheme, across: bool) -> int:
    """Return the bits of a code, on which shapes and configuration must agree."""
    codes, outputs = parts.leaves["qweight"], parts.leaves["scales"].shape[1]
    declared, order = scheme.number("bits", "w_bit"), parts.get("g_idx")
    if across:
        shown = codes.shape[1] * 32 / outputs
    elif order is not None:
        shown = codes.shape[0] * 32 / max(1, order.total)
    else:
        shown = parts.leaves["qzeros"].shape[-1] * 32 / outputs
    known = (4,) if across else (2, 3, 4, 8)
    if shown not in known:
        raise parts.wrong("qweight", f"its shape {codes.shape} leaves no whole bits for a weight")
    if declared not in {None, shown} and "dynamic" not in scheme.settings:
        raise parts.wrong(
            "qweight", f"it has {shown:g} bits a weight, {declared} by the configuration"
        )
    return int(shown)


def _zero_point_shift(parts: Parts, scheme: Scheme, zeros: Entry, bits: int) -> int:
    """Return 1 if zero points are stored minus one (GPTQ version 1), 0 otherwise."""
    if scheme.method:
        form = scheme.settings.get("checkpoint_format") or "gptq"
        if form not in {"gptq", "gptq_v2"}:
            raise parts.wrong("qweight", f"checkpoint_format {form!r} of GPTQ is not supported")
        return 0 if form == "gptq_v2" else 1
    middle, stored = 2 ** (bits - 1), np.unique(unpack_codes(rows(zeros, 0, zeros.shape[0]), bits))
    if len(stored) == 1 and middle - stored[0] in {0, 1}:
        return int(middle - stored[0])
    raise parts.wrong(
        "qzeros", "only the configuration names its version of GPTQ", "add config.json"
    )


def _follows(order: npt.NDArray[np.int64], groups: int) -> bool:
    """Return whether groups are consecutive and of equal size."""
    return len(order) % groups == 0 and bool(
        (order == np.arange(len(order)) // (len(order) // groups)).all()
    )
