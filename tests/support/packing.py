"""Matrices packed by each format's published rule, a number at a time, and what they stand for.

Every function takes a float matrix (outputs, inputs), both multiples of 32, and returns the tensors
a file would hold, the matrix they stand for, and what ``config.json`` would say. The rules:

* GPTQ, AWQ: AutoGPTQ's and AutoAWQ's ``pack``; GPTQ's first version writes zero points minus one.
* compressed-tensors: docs of ``pack_to_int32``; the sparse formats of releases before 0.13.
* FP4, E8M0: OCP Microscaling Formats (MX) Specification 1.0, sections 5.3.3 and 5.4.1.
* FP8 in blocks: the model card of DeepSeek-V3. gpt-oss: its ``config.json`` and model card.
* bitsandbytes: ``QuantState.as_dict`` and ``quantize_4bit``. MLX: ``mlx.core.quantize``.
"""

import json
from functools import partial

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

import sparsity_report as sr

FP4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
FP4 += [-value for value in FP4]
# https://arxiv.org/abs/2305.14314, appendix E.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


def words(matrix, bits):
    """Pack rows of codes one after the other, the lowest bit first, into words of 32 bits."""
    codes = np.asarray(matrix).astype(np.uint8)
    stream = np.unpackbits(codes[..., None], axis=2, count=bits, bitorder="little")
    stream = stream.reshape(len(codes), -1)
    filled = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    packed = np.packbits(filled, axis=1, bitorder="little")
    return torch.from_numpy(packed.view("<i4"))


def rounded(weight, bits, group, symmetric):
    """Return codes, and by group scale (float16) and zero point."""
    parted = weight.reshape(len(weight), -1, group)
    low, high = parted.amin(-1).clamp(max=0), parted.amax(-1).clamp(min=0)
    if symmetric:
        scale = 2 * torch.maximum(high, -low) / (2**bits - 1)
        zero = torch.full_like(scale, 2 ** (bits - 1))
    else:
        scale = (high - low) / (2**bits - 1)
        zero = (-low / scale.clamp(min=2.0**-14)).round().clamp(1, 2**bits - 1)
    # A group of zeros has a scale, too.
    scale = scale.clamp(min=2.0**-14).half()
    codes = (parted / scale.float()[..., None]).round() + zero[..., None]
    codes = codes.clamp(0, 2**bits - 1)
    means = ((codes - zero[..., None]) * scale.float()[..., None]).reshape(weight.shape)
    return codes.reshape(weight.shape).int(), scale, zero.int(), means


def gptq(weight, bits=4, group=32, symmetric=True, version=1, shuffled=False):
    codes, scale, zero, means = rounded(weight, bits, group, symmetric)
    order = torch.arange(weight.shape[1]) // group
    if shuffled:
        mixed = torch.randperm(len(order), generator=torch.Generator().manual_seed(1))
        codes, order, means = codes[:, mixed], order[mixed], means[:, mixed]
    written = zero - 1 if version == 1 else zero
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric}
    config["desc_act"] = shuffled
    config |= {"checkpoint_format": "gptq_v2"} if version == 2 else {}
    tensors = {
        "qweight": words(codes, bits).T, "qzeros": words(written.T, bits), "scales": scale.T,
        "g_idx": order.int(),
    }  # fmt: skip
    return tensors, means, {"quantization_config": config}


def awq(weight, group=32):
    codes, scale, zero, means = rounded(weight, 4, group, False)

    def across(matrix):
        eights = matrix.reshape(len(matrix), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
        return words(eights.reshape(len(matrix), -1), 4)

    tensors = {"qweight": across(codes.T), "qzeros": across(zero.T), "scales": scale.T}
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True}
    return tensors, means, {"quantization_config": config}


def pack_quantized(weight, bits=4, group=32, symmetric=True, shuffled=False):
    codes, scale, zero, means = rounded(weight, bits, group, symmetric)
    tensors = {
        "weight_packed": words(codes, bits), "weight_scale": scale,
        "weight_shape": torch.tensor(weight.shape),
    }  # fmt: skip
    if not symmetric:
        tensors["weight_zero_point"] = words(zero.T, bits).T
    if shuffled:
        mixed = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(1))
        tensors["weight_g_idx"] = (torch.arange(weight.shape[1]) // group)[mixed].int()
        tensors["weight_packed"], means = words(codes[:, mixed], bits), means[:, mixed]
    weights = {"num_bits": bits, "type": "int", "group_size": group, "symmetric": symmetric}
    return tensors, means, compressed("pack-quantized", weights)


def compressed(form, weights=None):
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}} if weights else {}
    config = {"quant_method": "compressed-tensors", "format": form, "config_groups": groups}
    return {"quantization_config": config}


def masked(weight):
    """Bits of what is not zero, eight to a byte, the first the lowest."""
    return torch.from_numpy(np.packbits(weight.numpy() != 0, axis=1, bitorder="little"))


def bitmask(weight, owner=""):
    weight = weight.half()
    starts = (weight != 0).sum(1).cumsum(0).roll(1)
    starts[0] = 0
    tensors = {
        f"{owner}compressed": weight[weight != 0], f"{owner}bitmask": masked(weight),
        f"{owner}shape": torch.tensor(weight.shape), f"{owner}row_offsets": starts,
    }  # fmt: skip
    told = {"quantization_config": {"sparsity_config": {"format": "sparse-bitmask"}}}
    return tensors, weight.float(), told


def two_four(weight, owner=""):
    """Keep the two largest of each four; one that is kept may be zero itself."""
    fours = weight.half().reshape(len(weight), -1, 4)
    kept = torch.zeros_like(fours, dtype=torch.bool)
    kept.scatter_(-1, fours.abs().topk(2).indices, True)
    pruned = (fours * kept).reshape(weight.shape)
    bits = masked(kept.reshape(weight.shape))
    tensors = {
        f"{owner}compressed": fours[kept].reshape(len(weight), -1), f"{owner}bitmask": bits,
        f"{owner}shape": torch.tensor(weight.shape),
    }  # fmt: skip
    told = {"quantization_config": {"sparsity_config": {"format": "sparse-24-bitmask"}}}
    return tensors, pruned.float(), told


def fp8_blocks(weight, size=128, exponents=False):
    down, across = -(-weight.shape[0] // size), -(-weight.shape[1] // size)
    scale, codes = torch.empty(down, across), torch.empty_like(weight)
    for row in range(down):
        for column in range(across):
            block = (slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size))
            scale[row, column] = weight[block].abs().max() / 448
            if exponents:
                scale[row, column] = 2 ** scale[row, column].log2().ceil()
            codes[block] = weight[block] / scale[row, column]
    small = codes.to(torch.float8_e4m3fn)
    spread = scale.repeat_interleave(size, 0).repeat_interleave(size, 1)
    means = small.float() * spread[: weight.shape[0], : weight.shape[1]]
    config = {"quant_method": "fp8", "weight_block_size": [size, size]}
    scale = scale.to(torch.float8_e8m0fnu) if exponents else scale
    return {"weight": small, "weight_scale_inv": scale}, means, {"quantization_config": config}


def nearest(values, table):
    """Return the code of the nearest value of a table, of two the lower."""
    ordered, codes = torch.tensor(table).sort(stable=True)
    return codes[torch.bucketize(values, (ordered[1:] + ordered[:-1]) / 2)]


def nibbles(codes, high_first=False):
    first, second = codes[..., ::2], codes[..., 1::2]
    return ((first << 4 | second) if high_first else (second << 4 | first)).to(torch.uint8)


def modelopt(weight):
    parted = weight.reshape(len(weight), -1, 16)
    whole = weight.abs().max() / (6 * 448)
    scale = (parted.abs().amax(-1) / 6 / whole).to(torch.float8_e4m3fn)
    each = scale.float() * whole
    codes = nearest(parted / each[..., None].clamp(min=1e-20), FP4)
    means = (torch.tensor(FP4)[codes] * each[..., None]).reshape(weight.shape)
    tensors = {
        "weight": nibbles(codes.reshape(weight.shape)), "weight_scale": scale,
        "weight_scale_2": whole, "input_scale": torch.tensor(0.5),
    }  # fmt: skip
    config = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    return tensors, means, {"quantization_config": config}


def microscaled(weight):
    """FP4 codes, (…, 32) to a group, exponents plus 127, and what they stand for."""
    parted = weight.reshape(*weight.shape[:-1], -1, 32)
    power = parted.abs().amax(-1).clamp(min=2.0**-100).log2().floor() - 2
    codes = nearest(parted / 2 ** power[..., None], FP4)
    means = (torch.tensor(FP4)[codes] * 2 ** power[..., None]).reshape(weight.shape)
    return codes, (power + 127).to(torch.uint8), means


def mxfp4(weight):
    codes, power, means = microscaled(weight)
    tensors = {"weight_packed": nibbles(codes.reshape(weight.shape)), "weight_scale": power}
    weights = {"num_bits": 4, "type": "float", "group_size": 32}
    return tensors, means, compressed("mxfp4-pack-quantized", weights)


def gpt_oss(weight):
    """Pack experts, (experts, inputs, outputs); the file has outputs before inputs."""
    codes, power, means = microscaled(weight.transpose(1, 2).contiguous())
    tensors = {"blocks": nibbles(codes), "scales": power}
    config = {"quantization_config": {"quant_method": "mxfp4"}}
    return tensors, means.transpose(1, 2), config


def nf4(weight, block=64):
    parted = weight.reshape(-1, block)
    largest = parted.abs().amax(1)
    codes = nearest(parted / largest[:, None], NF4)
    means = (torch.tensor(NF4)[codes] * largest[:, None]).reshape(weight.shape)
    told = {"quant_type": "nf4", "blocksize": block, "dtype": "float32", "shape": [*weight.shape]}
    tensors = {
        "weight": nibbles(codes.reshape(-1), high_first=True)[:, None],
        "weight.absmax": largest,
        "weight.quant_map": torch.tensor(NF4),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(
            list(json.dumps(told).encode()), dtype=torch.uint8
        ),
    }
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    return tensors, means, {"quantization_config": config}


def int8(weight):
    largest = weight.abs().amax(1)
    codes = (127 * weight / largest[:, None]).round().to(torch.int8)
    tensors = {"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    means = codes.float() * (largest / 127)[:, None]
    return tensors, means, {"quantization_config": config}


def mlx(weight, bits=4, group=32, dtype=torch.float32):
    """Pack so that zero falls on a code, as far as a scale and a bias of `dtype` can say it."""
    parted = weight.reshape(len(weight), -1, group)
    low, high = parted.amin(-1), parted.amax(-1)
    scale = (high - low).clamp(min=1e-7) / (2**bits - 1)
    negative = low.abs() > high.abs()
    scale, edge = torch.where(negative, scale, -scale), torch.where(negative, low, high)
    steps = (edge / scale).round()
    scale, bias = torch.where(steps == 0, scale, edge / steps), torch.where(steps == 0, 0, edge)
    codes = ((parted - bias[..., None]) / scale[..., None]).round().clamp(0, 2**bits - 1)
    scale, bias = scale.to(dtype), bias.to(dtype)
    means = codes * scale.float()[..., None] + bias.float()[..., None]
    packed = words(codes.reshape(weight.shape), bits)
    tensors = {"weight": packed.view(torch.uint32), "scales": scale, "biases": bias}
    return tensors, means.reshape(weight.shape), {
        "quantization": {"bits": bits, "group_size": group}
    }  # fmt: skip


#: Every way of packing a matrix, by name.
WAYS = {
    "awq": awq, "pack-quantized-shuffled": partial(pack_quantized, symmetric=False, shuffled=True),
    "sparse-bitmask": bitmask, "sparse-bitmask-weight": partial(bitmask, owner="weight."),
    "sparse-24": two_four, "sparse-24-weight": partial(two_four, owner="weight."),
    "fp8-blocks": partial(fp8_blocks, size=32),
    "fp8-blocks-exponents": partial(fp8_blocks, size=32, exponents=True),
    "nvfp4-modelopt": modelopt, "mxfp4": mxfp4, "nf4": nf4, "int8": int8,
    **{f"mlx-{bits}": partial(mlx, bits=bits) for bits in (2, 3, 4, 6, 8)},
}  # fmt: skip
for bits in (2, 3, 4, 8):
    WAYS[f"pack-quantized-{bits}-symmetric"] = partial(pack_quantized, bits=bits)
    WAYS[f"pack-quantized-{bits}-zero"] = partial(pack_quantized, bits=bits, symmetric=False)
    WAYS[f"gptq-{bits}-v1-zero"] = partial(gptq, bits=bits, symmetric=False)
    for version in (1, 2):
        way = partial(gptq, bits=bits, version=version, symmetric=version == 1)
        WAYS[f"gptq-{bits}-v{version}"] = way
        WAYS[f"gptq-{bits}-v{version}-shuffled"] = partial(way, shuffled=True)

#: Formats by the cases of them: of ``WAYS``, and of the library's fixtures after a slash.
FORMATS = {
    "compressed-tensors, integers of 2, 3, 4, 5, 8 bits": (
        "pack-quantized-2-symmetric", "pack-quantized-3-zero", "pack-quantized-4-symmetric",
        "pack-quantized-8-zero", "pack-quantized-shuffled", "/pack-quantized-5-True",
    ),
    "compressed-tensors, int8 and FP8": (
        "/int-quantized", "/int-quantized-zero", "/float-quantized",
    ),
    "compressed-tensors, NVFP4, MXFP4, MXFP6, MXFP8": (
        "mxfp4", "/nvfp4", "/mxfp4", "/mxfp6", "/mxfp8",
    ),
    "compressed-tensors, sparse-bitmask and sparse-24-bitmask": (
        "sparse-bitmask", "sparse-bitmask-weight", "sparse-24", "sparse-24-weight",
    ),
    "FP8 in blocks (DeepSeek)": ("fp8-blocks", "fp8-blocks-exponents"),
    "NVFP4 of ModelOpt": ("nvfp4-modelopt",),
    "GPTQ, 2, 3, 4, 8 bits, symmetric": (
        "gptq-2-v1", "gptq-3-v1", "gptq-4-v1-shuffled", "gptq-8-v1",
    ),
    "GPTQ with zero points, version 1 and 2": (
        "gptq-4-v1-zero", "gptq-2-v2", "gptq-4-v2-shuffled", "gptq-8-v2",
    ),
    "GPTQ of auto-round, without order": (
        "/auto_round-4-False", "/auto_round:auto_gptq-3-False", "/auto_round:auto_gptq-4-True",
    ),
    "AWQ (GEMM), of auto-round too": ("awq", "/auto_round-awq"),
    "bitsandbytes, NF4 and FP4, nested too": ("nf4", "/nf4-True", "/fp4-False"),
    "bitsandbytes, LLM.int8()": ("int8",),
    "MLX, 2, 3, 4, 5, 6, 8 bits": ("mlx-2", "mlx-3", "mlx-6", "mlx-8", "/mlx-5"),
    "MLX, MXFP4, MXFP8, NVFP4": ("/mlx-mxfp4", "/mlx-mxfp8", "/mlx-nvfp4"),
    "torchao, int8, FP8, int4 in bytes, NVFP4, MXFP4, MXFP8": (
        "/torchao-int8", "/torchao-fp8", "/torchao-intx", "/torchao-nvfp4-True",
        "/torchao-mxfp4-True-136", "/torchao-mxfp8-True-32",
    ),
}  # fmt: skip


def table(outcome):
    """Return the reference's table of packed formats.

    Parameters
    ----------
    outcome : callable
        Says of a case, with and without its configuration, whether it is counted or refused.
    """
    lines = ["| packed as | with `config.json` | the file alone |", "|---|---|---|"]
    for form, cases in FORMATS.items():
        cells = []
        for told in (True, False):
            (result,) = {outcome(case, told) for case in cases}
            cells.append(result)
        lines.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gaussian(pruned=0.0):
    """Return a matrix of deviation 0.02, the smallest share of it set to zero."""
    weight = 0.02 * torch.randn(512, 1024, generator=torch.Generator().manual_seed(3))
    if pruned:
        weight[weight.abs() <= weight.abs().quantile(pruned)] = 0
    return weight


def packed_matrix(folder, way, weight):
    """Write a checkpoint of one packed matrix; return it opened, and what it stands for."""
    folder.mkdir(exist_ok=True)
    tensors, means, config = WAYS[way](weight)
    named = {f"layers.0.q_proj.{leaf}": part.contiguous() for leaf, part in tensors.items()}
    save_file(named, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "mine", **config}))
    return sr.load(folder, config=False), means


def packed_llama(folder, way, **options):
    """Write a Llama with its linears packed, and one with what they stand for."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32, **options,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    plain, packed, told = {}, {}, {}
    for name, tensor in model.state_dict().items():
        owner, leaf = name.rpartition(".")[::2]
        if leaf == "weight" and tensor.dim() == 2 and "proj" in owner:
            tensors, means, told = WAYS[way](tensor)
            packed |= {f"{owner}.{key}": part.contiguous() for key, part in tensors.items()}
            plain[name] = means.contiguous()
        else:
            plain[name] = packed[name] = tensor.clone()
    for kind, tensors, config in (("plain", plain, {}), ("packed", packed, told)):
        model.config.save_pretrained(folder / kind)
        save_file(tensors, folder / kind / "model.safetensors", metadata={"format": "pt"})
        path = folder / kind / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder / "packed", folder / "plain"
