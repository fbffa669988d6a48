"""What packed matrices stand for, by each format's published rule, as :mod:`packing` has them.

Another way than the package's: a whole tensor at once, bit by bit. Where parts do not fit each
other it fails somehow; what a format does not state is None.
"""

import json
import math

import numpy as np
import torch
from packing import FP4

E2M3 = [2.0 ** max(0, c // 8 - 1) * (c % 8 / 8 + (c > 7)) for c in range(32)]
E2M3 += [-value for value in E2M3]


def codes(packed, bits):
    """Take rows of words or bytes apart, the lowest bit first: (rows, codes)."""
    raw = np.ascontiguousarray(packed.contiguous().numpy()).view(np.uint8)
    stream = np.unpackbits(raw.reshape(len(packed), -1), axis=1, bitorder="little")
    stream = stream[:, : stream.shape[1] // bits * bits].reshape(len(packed), -1, bits)
    return (stream.astype(np.int64) << np.arange(bits)).sum(2)


def floats(part):
    """Numbers of a part; of bytes that are scales, powers of two."""
    if part.dtype in {torch.uint8, torch.float8_e8m0fnu}:
        powers = part.view(torch.uint8).numpy().astype(np.float64)
        return np.where(powers == 255, np.nan, 2.0 ** (powers - 127)).astype(np.float32)
    return part.float().numpy()


def spread(numbers, shape, block=None):
    """Numbers of blocks as a number to each weight, of equal blocks if none is declared."""
    numbers = np.atleast_1d(numbers)
    numbers = numbers.reshape(len(numbers), -1) if numbers.size > 1 else numbers.reshape(1, 1)
    height, width = block or (-(-n // m) for n, m in zip(shape, numbers.shape, strict=True))
    return numbers.repeat(height, 0).repeat(width, 1)[: shape[0], : shape[1]]


def unpacked(leaves, config):
    """Return the matrix that the parts of a weight stand for.

    Parameters
    ----------
    leaves : dict of str to torch.Tensor
        By the end of their names.
    config : dict
        What ``config.json`` holds; nothing: it is not there.

    Returns
    -------
    numpy.ndarray or None
        float32.
    """
    told = config.get("quantization_config") or config.get("quantization") or {}
    # The sparse formats have their parts below a weight or beside it.
    leaves = {leaf.removeprefix("weight."): part for leaf, part in leaves.items()}
    ways = {
        "qweight": gptq_or_awq, "compressed": bitmasked, "blocks": gpt_oss, "SCB": int8,
        "_weight_qdata": scaled, "absmax": bitsandbytes, "weight_shape": pack_quantized,
        "weight_packed": small_floats, "weight_scale_2": small_floats, "weight_scale": scaled,
        "weight_scale_inv": scaled, "scales": mlx, "weight": alone,
    }  # fmt: skip
    way = next(way for leaf, way in ways.items() if leaf in leaves)
    with np.errstate(all="ignore"):
        return way(leaves, told)


def gptq_or_awq(leaves, told):
    scale, order = floats(leaves["scales"]), leaves.get("g_idx")
    groups, outputs = scale.shape
    if leaves["qweight"].shape[1] != outputs:
        eights = np.array([0, 4, 1, 5, 2, 6, 3, 7])
        both = [codes(leaves[leaf], 4) for leaf in ("qweight", "qzeros")]
        weight, zero = (c.reshape(len(c), -1, 8)[:, :, eights].reshape(len(c), -1) for c in both)
    else:
        bits = leaves["qzeros"].shape[1] * 32 // outputs
        inputs = len(leaves["qweight"]) * 32 // bits if order is None else len(order)
        bits = len(leaves["qweight"]) * 32 // inputs
        weight = codes(leaves["qweight"].T, bits).T[:inputs]
        zero = codes(leaves["qzeros"], bits)[:, :outputs]
        form = told.get("packing_format") or told.get("checkpoint_format")
        if form or told.get("quant_method") == "gptq":
            # Version 1 writes no zero point of 0.
            zero = zero + {"gptq_v2": 0, "auto_round": 0, "auto_round:gptqmodel": 0}.get(form, 1)
        elif len(set(zero.flat)) == 1 and zero.flat[0] in {2 ** (bits - 1), 2 ** (bits - 1) - 1}:
            zero = np.full_like(zero, 2 ** (bits - 1))
        else:
            return None
    group = np.arange(len(weight)) // -(-len(weight) // groups)
    group = group if order is None else order.numpy()
    if group.min() < 0:
        return None
    return ((weight - zero[group]).astype(np.float32) * scale[group]).T


def pack_quantized(leaves, told):
    shape = leaves["weight_shape"].tolist()
    groups = (told.get("config_groups") or {}).values()
    weights = [group.get("weights") or {} for group in groups if isinstance(group, dict)]
    bits = next((each["num_bits"] for each in weights if each.get("num_bits")), 0)
    words = leaves["weight_packed"].shape[1]
    bits = bits or next(b for b in (2, 3, 4, 5, 6, 8) if -(-shape[1] * b // 32) == words)
    values = codes(leaves["weight_packed"], bits)[:, : shape[1]] - 2 ** (bits - 1)
    scale, order = floats(leaves["weight_scale"]), leaves.get("weight_g_idx")
    scale = scale.reshape(len(scale), -1)
    columns = np.arange(shape[1]) // -(-shape[1] // scale.shape[1])
    columns = columns if order is None or (order < 0).all() else order.numpy()
    if columns.min() < 0:
        return None
    if "weight_zero_point" in leaves:
        zero = codes(leaves["weight_zero_point"].T, bits).T[: shape[0]] - 2 ** (bits - 1)
        values = values - zero[:, columns]
    return values.astype(np.float32) * scale[:, columns]


def bitmasked(leaves, _):
    rows, columns = leaves["shape"].tolist()
    there = codes(leaves["bitmask"], 1)
    if there[:, columns:].any() or there.sum() != leaves["compressed"].numel():
        return None
    values = np.zeros((rows, columns), np.float32)
    values[there[:, :columns] == 1] = floats(leaves["compressed"]).reshape(-1)
    return values


def scaled(leaves, told):
    if leaves.get("_weight_scale", torch.empty(0)).element_size() == 1:
        return tiled(leaves)
    name = "_weight_qdata" if "_weight_qdata" in leaves else "weight"
    values = leaves[name].float().numpy()
    for leaf, part in leaves.items():
        if leaf.endswith("zero_point"):
            values = values - spread(part.float().numpy(), values.shape)
    for leaf, part in leaves.items():
        if leaf.endswith(("scale", "scale_inv")) and leaf != "input_scale":
            in_blocks = part.dim() == 2 and part.shape[1] > 1
            block = declared_block(told) if in_blocks else None
            values = values * spread(floats(part), values.shape, block)
    return values


def declared_block(told):
    """Height and width of the blocks that a configuration declares, of several the first."""
    groups = (told.get("config_groups") or {}).values()
    weights = [group.get("weights") or {} for group in groups if isinstance(group, dict)]
    blocks = [told.get("weight_block_size"), *(each.get("block_structure") for each in weights)]
    return next(filter(None, blocks), None)


def tiled(leaves):
    """NVFP4 and MX of torchao: scales as they are, or in the tiles of cuBLAS, one by one."""
    packed, scale = leaves["_weight_qdata"], floats(leaves["_weight_scale"])
    four = packed.dtype == torch.uint8
    values = np.array(FP4, np.float32)[codes(packed, 4)] if four else packed.float().numpy()
    width = 32 if leaves["_weight_scale"].dtype == torch.float8_e8m0fnu else 16
    rows, groups = np.indices((len(values), values.shape[1] // width))
    if scale.shape != rows.shape:
        tile = rows // 128 * -(-groups.shape[1] // 4) + groups // 4
        place = tile * 512 + rows % 32 * 16 + rows % 128 // 32 * 4 + groups % 4
        scale = scale.reshape(-1)[place]
    whole = leaves.get("_weight_per_tensor_scale", torch.tensor(1.0))
    return values * spread(scale, values.shape) * float(whole)


def alone(leaves, _):
    """A weight of floats, without anything that says more of it."""
    return leaves["weight"].float().numpy() if leaves["weight"].is_floating_point() else None


def small_floats(leaves, _):
    packed = leaves.get("weight_packed", leaves.get("weight"))
    scale = leaves["weight_scale"]
    six = packed.shape[1] * 8 == 6 * 32 * scale.shape[1] and scale.dtype == torch.uint8
    table = np.array(E2M3 if six else FP4, np.float32)
    values = table[codes(packed, 6 if six else 4)]
    values = values * spread(floats(scale), values.shape)
    if "weight_scale_2" in leaves:
        return values * leaves["weight_scale_2"].numpy().reshape(-1)
    if "weight_global_scale" in leaves:
        return values * np.float32(1 / float(leaves["weight_global_scale"]))
    return values


def gpt_oss(leaves, _):
    blocks, scale = leaves["blocks"], floats(leaves["scales"])
    flat = np.array(FP4, np.float32)[codes(blocks.reshape(-1, 16), 4)]
    return flat * scale.reshape(-1, 1)


def int8(leaves, _):
    scale = leaves["SCB"].numpy().reshape(-1, 1)
    return leaves["weight"].float().numpy() * scale * np.float32(1 / 127)


def bitsandbytes(leaves, _):
    (state,) = (part for leaf, part in leaves.items() if "quant_state" in leaf)
    told = json.loads(bytes(state.tolist()))
    raw = leaves["weight"].contiguous().reshape(-1).view(torch.uint8)
    pairs = codes(raw.reshape(-1, 1), 4)[:, ::-1].reshape(-1)[: math.prod(told["shape"])]
    scale = leaves["absmax"].numpy()
    if "nested_absmax" in leaves:
        nested = leaves["nested_absmax"].numpy().repeat(told["nested_blocksize"])
        scale = leaves["nested_quant_map"].numpy()[scale] * nested[: len(scale)]
        scale = scale + np.float32(told["nested_offset"])
    values = leaves["quant_map"].numpy()[pairs]
    if -(-len(values) // told["blocksize"]) != len(scale) or len(values) != math.prod(
        told["shape"]
    ):
        return None
    return values * scale.repeat(told["blocksize"])[: len(values)]


def mlx(leaves, told):
    if "mode" not in told or told["mode"] == "affine":
        values = codes(leaves["weight"], told["bits"]).astype(np.float32)
        values = values * spread(floats(leaves["scales"]), values.shape)
        return values + spread(floats(leaves["biases"]), values.shape)
    if told["mode"] == "nvfp4":
        scale = leaves["scales"].view(torch.float8_e4m3fn).float().numpy()
    else:
        scale = floats(leaves["scales"])
    if told["bits"] == 8:
        values = leaves["weight"].view(torch.float8_e4m3fn).float().numpy()
    else:
        values = np.array(FP4, np.float32)[codes(leaves["weight"], 4)]
    return values * spread(scale, values.shape)
