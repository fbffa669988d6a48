"""Write ``library.safetensors``: a matrix packed by the formats' own libraries.

Run by hand, ``python tests/weights/packed/write.py``, with ``pip install auto-round
compressed-tensors bitsandbytes torchao mlx``; the file names their versions. Each case has the
packed tensors, what the library makes of them again, and what ``config.json`` would say.
"""

import json
from importlib.metadata import version
from pathlib import Path

import bitsandbytes.functional as bnb
import mlx.core as mx
import numpy as np
import torch
from auto_round.export.export_to_autoround.export import dynamic_import_quant_linear_for_packing
from auto_round.export.export_to_awq.utils import WQLinear_GEMM
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file
from torchao.prototype.mx_formats import NVFP4WeightOnlyConfig
from torchao.prototype.mx_formats.mx_tensor import MXTensor
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    quantize_,
)
from torchao.quantization.granularity import PerGroup

ROWS, COLUMNS = 40, 64
LIBRARIES = ("auto-round", "compressed-tensors", "bitsandbytes", "torchao", "mlx")


def matrix(rows: int = ROWS, columns: int = COLUMNS) -> torch.Tensor:
    """A matrix of which 40 % are zero."""
    torch.manual_seed(0)
    weight = torch.randn(rows, columns) * 0.1
    weight[torch.rand_like(weight) < 0.4] = 0
    return weight


def auto_round(form: str, bits: int = 4, symmetric: bool = False, columns: int = COLUMNS):
    rows, size = 32, 32
    linear = torch.nn.Linear(columns, rows, bias=False).half()
    linear.weight.data = matrix(rows, columns).half()
    groups = linear.weight.data.float().split(size, 1)
    low = torch.stack([group.amin(1).clamp(max=0) for group in groups], 1)
    high = torch.stack([group.amax(1).clamp(min=0) for group in groups], 1)
    if symmetric:
        scale = 2 * torch.maximum(high, -low) / (2**bits - 1)
        zero = torch.full_like(scale, 2 ** (bits - 1))
    else:
        scale = (high - low) / (2**bits - 1)
        zero = (-low / scale).round().clamp(1, 2**bits - 1)
    scale = scale.half()
    if form == "auto_round:auto_awq":
        layer = WQLinear_GEMM.from_linear(linear, bits, size, scales=scale.T, zeros=zero.T)
    else:
        kind = dynamic_import_quant_linear_for_packing(form, bits, size, symmetric, 16)
        layer = kind(bits, size, columns, rows, bias=False)
        layer.device = torch.device("cpu")
        layer.pack(linear, scale, zero, None, device="cpu")
    again = layer(torch.eye(columns)).T
    told = {"bits": bits, "group_size": size, "sym": symmetric, "data_type": "int"}
    config = {"quant_method": "auto-round", "packing_format": form, **told}
    return layer.state_dict(), again, {"quantization_config": config}


def compressed(form: str, **told: object):
    args = QuantizationArgs(**told)
    weight = matrix()
    groups = weight.reshape(ROWS, -1, told.get("group_size") or COLUMNS)
    state, further = {"weight": weight}, {}
    if form.startswith("nvfp4"):
        state["weight_global_scale"] = torch.tensor([448 * 6 / weight.abs().max()])
        further = {"global_scale": state["weight_global_scale"]}
    state["weight_scale"], state["weight_zero_point"] = calculate_qparams(
        groups.amin(-1), groups.amax(-1), args, **further
    )
    return pack(state, form, args)


def pack(state: dict[str, torch.Tensor], form: str, args: QuantizationArgs):
    compressor = BaseCompressor.get_value_from_registry(form)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    packed = compressor.compress(state, scheme)
    again = compressor.decompress(dict(packed), scheme)["weight"]
    config = {
        "quant_method": "compressed-tensors", "format": form,
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": args.model_dump(mode="json")}
        },
    }  # fmt: skip
    tensors = {name: tensor for name, tensor in packed.items() if tensor is not None}
    return tensors, again, {"quantization_config": config}


def blocks(size: int, rows: int, columns: int):
    args = QuantizationArgs(
        num_bits=8, type="float", strategy="block", block_structure=[size, size]
    )  # fmt: skip
    weight, (down, across) = matrix(rows, columns), (-(-rows // size), -(-columns // size))
    padded = torch.zeros(down * size, across * size)
    padded[:rows, :columns] = weight
    largest = padded.reshape(down, size, across, size).abs().amax((1, 3))
    return pack({"weight": weight, "weight_scale": largest / 448}, "float-quantized", args)


def four_bits(kind: str, nested: bool, weight: torch.Tensor | None = None, **further: object):
    weight = matrix() if weight is None else weight
    packed, state = bnb.quantize_4bit(
        weight, quant_type=kind, compress_statistics=nested, blocksize=64, **further
    )
    told = {f"weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    return (
        {"weight": packed, **told}, bnb.dequantize_4bit(packed, state),
        {"quantization_config": config},
    )  # fmt: skip


def mlx(bits: int, size: int, mode: str = "affine"):
    parts = mx.quantize(mx.array(matrix().numpy()), group_size=size, bits=bits, mode=mode)
    again = mx.dequantize(*parts, group_size=size, bits=bits, mode=mode).astype(mx.float32)
    names = ("weight", "scales", "biases")
    tensors = {n: torch.from_numpy(np.array(p)) for n, p in zip(names, parts, strict=False)}
    told = {"bits": bits, "group_size": size, "mode": mode}
    return tensors, torch.from_numpy(np.array(again)), {"quantization": told}


def ao(config: object, weight: torch.Tensor | None = None):
    weight = matrix() if weight is None else weight
    linear = torch.nn.Linear(*weight.T.shape, bias=False)
    linear.weight.data = weight
    quantize_(linear, config)
    return flat(linear.weight.data)


def flat(tensor: torch.Tensor):
    tensors, _ = flatten_tensor_state_dict({"m.weight": tensor})
    plain = {name.removeprefix("m."): tensor for name, tensor in tensors.items()}
    told = {"quantization_config": {"quant_method": "torchao"}}
    return plain, tensor.dequantize(), told


def integers(bits: int, symmetric: bool, size: int | None):
    told = {"strategy": "group", "group_size": size} if size else {"strategy": "channel"}
    return compressed("pack-quantized", num_bits=bits, type="int", symmetric=symmetric, **told)


def cases():
    for form in ("auto_round", "auto_round:gptqmodel", "auto_round:auto_gptq"):
        for bits, symmetric in ((4, True), (4, False), (3, False)):
            yield f"{form}-{bits}-{symmetric}", auto_round(form, bits, symmetric)
    for bits in (2, 8):
        yield f"auto_round-{bits}", auto_round("auto_round", bits)
    yield "auto_round-awq", auto_round("auto_round:auto_awq")
    for bits in (2, 3, 4, 5, 8):
        for symmetric in (True, False):
            yield f"pack-quantized-{bits}-{symmetric}", integers(bits, symmetric, 32)
    yield "pack-quantized-4-channel", integers(4, True, None)
    yield "pack-quantized-4-channel-zero", integers(4, False, None)
    eight = {"num_bits": 8, "strategy": "channel"}
    yield "int-quantized", compressed("int-quantized", type="int", symmetric=True, **eight)
    yield "int-quantized-zero", compressed("int-quantized", type="int", symmetric=False, **eight)
    yield "float-quantized", compressed("float-quantized", type="float", symmetric=True, **eight)
    yield "float-quantized-blocks", blocks(16, 40, 72)
    eights = {"num_bits": 8, "type": "int", "strategy": "group", "group_size": 32}
    yield "int-quantized-groups", compressed("int-quantized", symmetric=True, **eights)
    four = {"num_bits": 4, "type": "float", "symmetric": True}
    yield (
        "nvfp4", compressed("nvfp4-pack-quantized", strategy="tensor_group", group_size=16, **four),
    )  # fmt: skip
    yield "mxfp4", compressed("mxfp4-pack-quantized", strategy="group", group_size=32, **four)
    mx = {"type": "float", "symmetric": True, "strategy": "group", "group_size": 32}
    for bits, form in ((6, "mxfp6-pack-quantized"), (8, "mxfp8-quantized")):
        yield f"mxfp{bits}", compressed(form, num_bits=bits, scale_dtype=torch.uint8, **mx)
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            yield f"{kind}-{nested}", four_bits(kind, nested)
        yield f"{kind}-odd", four_bits(kind, True, matrix(13, 31))
    for storage in (torch.bfloat16, torch.float32):
        yield f"nf4-{storage}", four_bits("nf4", False, matrix(10, 28), quant_storage=storage)
    for bits in (2, 3, 4, 5, 6, 8):
        yield f"mlx-{bits}", mlx(bits, 32)
    for mode, bits, size in (("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)):
        yield f"mlx-{mode}", mlx(bits, size, mode)
    yield "torchao-int8", ao(Int8WeightOnlyConfig(version=2))
    yield "torchao-fp8", ao(Float8WeightOnlyConfig())
    yield (
        "torchao-intx", ao(IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))),
    )  # fmt: skip
    for scaled, rows in ((True, 144), (False, 48)):
        config = NVFP4WeightOnlyConfig(use_dynamic_per_tensor_scale=scaled)
        yield f"torchao-nvfp4-{scaled}", ao(config, matrix(rows, 48))
    # Scales in tiles may have the shape of scales of smaller blocks.
    small, four = torch.float8_e4m3fn, torch.float4_e2m1fn_x2
    for dtype, tiled, shape in (
        (small, True, (32, 128)), (small, True, (128, 64)), (small, False, (136, 32)),
        (four, True, (136, 32)), (four, False, (32, 128)),
    ):  # fmt: skip
        name = f"torchao-mxfp{8 if dtype == small else 4}-{tiled}-{shape[0]}"
        yield name, flat(MXTensor.to_mx(matrix(*shape), dtype, 32, is_swizzled_scales=tiled))


def main() -> None:
    tensors, configs = {}, {}
    for case, (packed, again, config) in cases():
        configs[case] = config
        tensors |= {f"{case}/{name}": t.contiguous() for name, t in packed.items()}
        tensors[f"{case}/again"] = again.float().contiguous()
    told = {"configs": json.dumps(configs)} | {name: version(name) for name in LIBRARIES}
    save_file(tensors, Path(__file__).with_name("library.safetensors"), metadata=told)


if __name__ == "__main__":
    main()
