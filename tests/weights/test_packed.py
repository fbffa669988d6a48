"""Packed weights: values of each format, by its library and by its rule, or a refusal."""

import json
import math
import multiprocessing
import pickle
import struct
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import packing
import pytest
import torch
import transformers
from fuzz.packed import library
from helpers import command, refused, swept, turned_on_loading
from mixtures import mixture
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.weights import tensor_slices
from sparsity_report.weights.loading import open_to_count

OWNER = "layers.0.mlp.up_proj"
open_by_names = partial(sr.load, config=False)
LIBRARY = library()


def write(folder, tensors, config=None, owner=OWNER, **further):
    """Write a checkpoint of one packed weight and a norm."""
    folder.mkdir(exist_ok=True)
    named = {f"{owner}.{leaf}": tensor.contiguous() for leaf, tensor in tensors.items()}
    named |= {"layers.0.norm.weight": torch.ones(8), **further}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": "custom", **config}))
    return folder


def matrix(rows=64, columns=128, seed=0):
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.1
    return torch.where(values.abs() < 0.05, 0.0, values)


def packed_as(way):
    """A matrix packed by rule, or of the library if its name begins with a slash."""
    return LIBRARY[way[1:]] if way[0] == "/" else packing.WAYS[way](matrix())


def agrees(weights, expected, name=f"{OWNER}.weight"):
    """The weights stand for a matrix: values, zeros, number."""
    values = weights.tensor(name)
    assert values.shape == expected.shape
    assert torch.equal(values == 0, expected == 0)
    torch.testing.assert_close(values, expected.float(), rtol=1e-2, atol=1e-6)
    dense = sr.compare(sr.dense(weights))
    row = dense.layers.set_index("module_name").loc[name.removesuffix(".weight")]
    assert (row["total"], row["nonzero"]) == (expected.numel(), int((expected != 0).sum()))


@pytest.mark.parametrize("way", [*(f"/{case}" for case in LIBRARY), *packing.WAYS])
def test_weights_packed_by_a_library_or_by_rule_decode_to_their_values(way, tmp_path):
    tensors, means, config = packed_as(way)
    weights = open_by_names(write(tmp_path / "m", tensors, config))
    agrees(weights, means)
    assert any("packed weights" in str(note) for note in weights.notes)


# Of these, the bits or the zero point stand in the configuration alone.
NEEDS_CONFIG = ("mlx", *(w for w in packing.WAYS if "-v2" in w or "v1-zero" in w))


@pytest.mark.parametrize("way", swept(packing.WAYS, 3))
def test_alone_it_is_right_or_refused(way, tmp_path):
    tensors, means, _ = packed_as(way)
    folder = write(tmp_path / "m", tensors)
    if way.startswith(NEEDS_CONFIG):
        refused(r"add config.json", folder, config=False)
    else:
        agrees(open_by_names(folder), means)
        agrees(open_by_names(folder / "model.safetensors"), means)


@pytest.mark.parametrize("way", swept(packing.WAYS, 3))
def test_any_part_of_a_weight_can_be_had(way, tmp_path):
    """Slices of a packed weight are picklable and begin anywhere a unit does."""
    tensors, means, config = packing.WAYS[way](matrix(96, 64))
    weights = open_by_names(write(tmp_path / "m", tensors, config))
    (whole,) = pickle.loads(pickle.dumps([*weights.slices(f"{OWNER}.weight")]))
    packed = whole.packed
    flat = means.reshape(-1)
    for start in range(0, flat.numel(), packed.unit):
        part = torch.from_numpy(
            packed.values(start // packed.row, min(start + packed.unit, flat.numel()) // packed.row)
        )
        expected = flat[start : start + packed.unit]
        torch.testing.assert_close(part.reshape(-1), expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    "way", ["gptq-4-v1", "awq", "pack-quantized-4-symmetric", "nf4", "fp8-blocks", "sparse-bitmask",
            "nvfp4-modelopt", "mxfp4", "int8", "mlx-8"]
)  # fmt: skip
def test_a_known_model_is_the_one_it_was_packed_from(way, tmp_path):
    packed, plain = map(sr.load, packing.packed_llama(tmp_path, way))
    frames = [
        sr.compare(sr.dense(w), sr.masked(sr.global_magnitude(w, 0.5))) for w in (packed, plain)
    ]
    for column in ("module_name", "group", "total", "nonzero", "prunable", "flops_per_token"):
        assert frames[0].layers[column].equals(frames[1].layers[column]), column
    model = sr.masked(sr.global_magnitude(packed, 0.5)).module()
    assert isinstance(model, transformers.LlamaForCausalLM)
    zeros = sum(int((p == 0).sum()) for p in model.parameters())
    totals = frames[0].totals.iloc[1]
    assert zeros == totals["total"] - totals["nonzero"]
    assert [p.shape for p in packed.parameters] == [p.shape for p in plain.parameters]


def test_weights_that_transformers_turns_are_counted_turned(monkeypatch, tmp_path):
    packed, plain = packing.packed_llama(tmp_path, "gptq-4-v1")
    told = sr.load(plain)
    totals = sr.compare(sr.dense(told)).totals
    turned_on_loading(monkeypatch, "q_proj.weight")
    weights = sr.load(packed)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert weights[name].packing == "gptq-4bit-g32"
    for column in ("total", "nonzero"):
        assert sr.compare(sr.dense(weights)).totals[column][0] == totals[column][0]
    model = weights.module()
    for values in (weights.tensor(name), model.get_parameter(name)):
        assert torch.equal(values, told.tensor(name).T)


def test_buffers_that_are_saved_are_filled_in(tmp_path):
    model = mixture("DeepseekV3")
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    model.get_buffer(name).copy_(torch.arange(8))
    model.save_pretrained(tmp_path)
    filled = sr.load(tmp_path).filled_module()
    assert filled.get_buffer(name).tolist() == [*range(8)]
    file = tmp_path / "model.safetensors"
    save_file(load_file(file) | {name: torch.ones(3)}, file, {"format": "pt"})
    with pytest.raises(
        sr.SparsityReportError, match=rf"{name} has shape \(3,\) on disk but \(8,\)"
    ):
        sr.load(tmp_path).filled_module()


@pytest.mark.parametrize("way", swept(packing.WAYS, 3))
def test_file_bytes_are_those_of_all_parts(way, tmp_path):
    tensors, _, config = packed_as(way)
    weights = open_by_names(write(tmp_path / "m", tensors, config))
    weight, norm = weights[f"{OWNER}.weight"], weights["layers.0.norm.weight"]
    assert weight.file_bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert weight.packing.startswith(PACKINGS[next(p for p in PACKINGS if way.startswith(p))])
    assert (norm.file_bytes, norm.packing) == (8 * 4, "")
    row = sr.compare(sr.dense(weights)).layers.set_index("module_name").loc[OWNER]
    assert (row["file_bytes"], row["packing"]) == (weight.file_bytes, weight.packing)


# What each way is called, by the begin of its name.
PACKINGS = {
    "gptq": "gptq-", "awq": "awq-4bit-g32", "pack-quantized": "pack-quantized-", "mlx": "mlx-",
    "sparse-24": "sparse-24-bitmask", "sparse-bitmask": "sparse-bitmask", "fp8": "fp8-block",
    "nvfp4": "nvfp4", "mxfp4": "mxfp4", "nf4": "nf4", "int8": "bitsandbytes-int8",
}  # fmt: skip


def test_experts_of_gpt_oss_lie_as_in_memory(tmp_path):
    experts = matrix(3 * 64, 96).reshape(3, 64, 96)
    tensors, means, config = packing.gpt_oss(experts)
    named = {f"gate_up_proj_{leaf}": tensor for leaf, tensor in tensors.items()}
    folder = write(tmp_path / "m", named, config, owner="layers.0.mlp.experts")
    values = open_by_names(folder).tensor("layers.0.mlp.experts.gate_up_proj")
    assert torch.equal(values, means)


def test_scales_of_activations_are_no_parameters(tmp_path):
    tensors, means, config = packing.fp8_blocks(matrix(), 32)
    beside = {f"{OWNER}.input_scale": torch.tensor(0.1), "layers.0.attn.k_scale": torch.ones(1)}
    weights = open_by_names(write(tmp_path / "m", tensors, config, **beside))
    assert sum(p.total for p in weights.stored) == means.numel() + 8
    held = [*tensors.values(), *beside.values()]
    assert weights[f"{OWNER}.weight"].file_bytes == sum(tensor.nbytes for tensor in held)


@pytest.mark.parametrize("way", [None, "gptq-4-v1", "nf4", "mxfp4", "mlx-4"])
@pytest.mark.parametrize(
    "leaves",
    [("layers.1.attn.scales",), ("layers.1.attn.weight", "layers.1.attn.scales"),
     ("layers.1.head_scales",), (f"{OWNER}_scales",), (f"{OWNER}_blocks", f"{OWNER}_scales"),
     ("layers.1.attn.weight", "layers.1.attn.weight_scales"), ("layers.1.scale",)],
)  # fmt: skip
def test_a_float_scale_of_no_packed_weight_is_a_parameter(way, leaves, tmp_path):
    tensors, means, config = packed_as(way) if way else ({}, torch.zeros(0), None)
    beside = {leaf: torch.ones(4, 4) for leaf in leaves}
    beside[leaves[-1]][0] = 0
    weights = open_by_names(write(tmp_path / "m", tensors, config, **beside))
    totals = sr.compare(sr.dense(weights)).totals.iloc[0]
    assert totals["total"] == means.numel() + 16 * len(leaves) + 8
    assert totals["total"] - totals["nonzero"] == int((means == 0).sum()) + 4


def test_scales_of_activations_are_parameters_where_nothing_is_packed(tmp_path):
    tensors = {"weight": matrix(), "input_scale": torch.ones(())}
    weights = open_by_names(write(tmp_path / "m", tensors))
    assert sum(p.total for p in weights.stored) == matrix().numel() + 1 + 8


ALIASES = {
    "of its module": ({}, {OWNER: torch.ones(4)}),
    "packed and plain": ({"gate_blocks": "blocks", "gate_scales": "scales"},
                         {"gate": torch.ones(64, 32)}),
    "packed twice": ({"weight_blocks": "blocks", "weight_scales": "scales"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", ALIASES)
def test_a_weight_that_is_there_twice_is_refused(case, tmp_path):
    fused, beside = ALIASES[case]
    blocks = packing.gpt_oss(matrix(64, 32)[None])[0]
    tensors = {} if "gate_blocks" in fused else packing.gptq(matrix())[0]
    tensors |= {leaf: blocks[part] for leaf, part in fused.items()}
    named = {key if key == OWNER else f"{OWNER}.{key}": value for key, value in beside.items()}
    with pytest.raises(sr.SparsityReportError, match=r"both stand for .* keep one of them"):
        open_by_names(write(tmp_path / "m", tensors, **named))


def write_raw(path, tensors):
    """Write a safetensors file of bytes: dtype as the format calls it, shape in values."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {
            "dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)],
        }  # fmt: skip
        data += raw
    told = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(told)) + told + data)
    return path


def raw(tensor, dtype):
    """Bytes of a tensor by the name of a dtype, with the shape that the values have then."""
    halves = 2 if dtype == "F4" else 1
    shape = [*tensor.shape[:-1], halves * tensor.shape[-1]]
    return dtype, shape, tensor.contiguous().view(torch.uint8).numpy().tobytes()


FP4_WAYS = {
    "mxfp4": (packing.mxfp4, {"weight_packed": "F4", "weight_scale": "F8_E8M0"}),
    "modelopt": (
        packing.modelopt, {"weight": "F4", "weight_scale": "F8_E4M3", "weight_scale_2": "F32"},
    ),
    "mxfp4, plainly": (
        lambda w: ((p := packing.mxfp4(w))[0] | {"weight": p[0]["weight_packed"]}, *p[1:]),
        {"weight": "F4", "weight_scale": "F8_E8M0"},
    ),
    "nvfp4, plainly": (
        lambda w: ((p := packing.modelopt(w))[0], p[1] / p[0]["weight_scale_2"], p[2]),
        {"weight": "F4", "weight_scale": "F8_E4M3"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", FP4_WAYS)
@pytest.mark.parametrize("told", [True, False])
def test_codes_called_fp4_are_unpacked_as_bytes_are(way, told, tmp_path):
    pack, dtypes = FP4_WAYS[way]
    tensors, means, config = pack(matrix())
    file = write_raw(
        tmp_path / "model.safetensors",
        {f"{OWNER}.{leaf}": raw(tensors[leaf].reshape(-1, 1) if tensors[leaf].dim() == 0
                                else tensors[leaf], dtype) for leaf, dtype in dtypes.items()},
    )  # fmt: skip
    if told:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "custom", **config}))
    agrees(open_by_names(file), means)


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "match"),
    [("F6_E2M3", [8, 4], 24, "F6_E2M3, which is not known"),
     ("F4", [8, 4], 16, "holds F4 and has no scale; fetch the whole checkpoint"),
     ("F4", [8, 3], 12, r"F4 and shape \(8, 3\), not rows of whole bytes"),
     ("F4", [0, 4], 0, r"F4 and shape \(0, 4\), not rows of whole bytes"),
     ("F8_E8M0", [8, 4], 32, "holds F8_E8M0, not weights"),
     ("U16", [8, 4], 64, "holds uint16, not weights"),
     ("U32", [8, 4], 128, "holds uint32, not weights"),
     ("U64", [8, 4], 256, "holds uint64, not weights")],
)  # fmt: skip
def test_dtypes_that_are_no_weights_are_refused(dtype, shape, size, match, tmp_path):
    file = write_raw(
        tmp_path / "model.safetensors", {f"{OWNER}.weight": (dtype, shape, bytes(size))}
    )
    for opened in (sr.load, open_to_count):
        with pytest.raises(sr.SparsityReportError, match=match) as told:
            opened(file)
        assert str(file) in str(told.value)


@pytest.mark.parametrize(
    ("dtype", "zeros"),
    [("F8_E4M3", [0x00, 0x80]), ("F8_E5M2", [0x00, 0x80]),
     # One zero only: its negative is what is not a number.
     ("F8_E4M3FNUZ", [0x00]), ("F8_E5M2FNUZ", [0x00])],
)  # fmt: skip
def test_zeros_of_small_floats_are_those_of_their_codes(dtype, zeros, tmp_path):
    codes = torch.arange(256, dtype=torch.uint8).repeat(2)
    file = write_raw(tmp_path / "model.safetensors", {"layers.0.norm.weight": raw(codes, dtype)})
    row = sr.compare(sr.dense(open_by_names(file))).layers.iloc[0]
    assert (row["total"], row["nonzero"]) == (512, 512 - 2 * len(zeros))
    # With a scale and no code that is not a number they are counted the same.
    kept = codes[:256].reshape(8, 32).clone()
    kept[torch.isnan(kept.view(getattr(torch, TORCH[dtype])).float())] = 1
    write_raw(file, {
        f"{OWNER}.weight": raw(kept, dtype), f"{OWNER}.weight_scale": raw(torch.ones(1), "F32"),
    })  # fmt: skip
    zero = int(sum((kept == code).sum() for code in zeros))
    row = sr.compare(sr.dense(open_by_names(file))).layers.iloc[0]
    assert (row["total"], row["nonzero"]) == (256, 256 - zero)


TORCH = {
    f"F8_{name.upper()}{unsigned.upper()}": f"float8_{name}{unsigned or fine}"
    for name, fine in (("e4m3", "fn"), ("e5m2", ""))
    for unsigned in ("", "fnuz")
}


def gptq_without(leaf):
    tensors, _, config = packing.gptq(matrix())
    return {k: v for k, v in tensors.items() if k != leaf}, config


def changed(way, **leaves):
    tensors, _, config = packed_as(way)
    return {**tensors, **{leaf: change(tensors[leaf]) for leaf, change in leaves.items()}}, config


def told(way, **config):
    tensors, _, known = packed_as(way)
    return tensors, {"quantization_config": known["quantization_config"] | config}


WRONG = {
    "kept integers": (
        changed("sparse-bitmask", compressed=lambda t: t.to(torch.uint8)), "it holds uint8",
    ),
    "no codes of MLX": (
        ({"scales": torch.ones(32, 2), "biases": torch.ones(32, 2)}, None),
        "no known packed format",
    ),
    "no zero points": (gptq_without("qzeros"), "qzeros is missing"),
    "no order": ((gptq_without("g_idx")[0], None), "g_idx is missing"),
    "no order where inputs are": (
        (gptq_without("g_idx")[0], told("gptq-4-v1", desc_act=True)[1]), "g_idx is missing",
    ),
    "no zero points, said to be": (
        told("pack-quantized-4-symmetric", config_groups={
            "g": {"weights": {"num_bits": 4, "symmetric": False}}}), "zero_point is missing",
    ),
    "another mask": (
        told("sparse-24", sparsity_config={"format": "sparse-bitmask"}), "sparse-bitmask by",
    ),
    "no scale": (({"weight": torch.zeros(8, 8).to(torch.float8_e4m3fn)},
                  told("fp8-blocks")[1]), "but none is"),
    "FP4 without scale": (
        ({**packing.fp8_blocks(matrix(), 32)[0],
          "more": packing.mxfp4(matrix())[0]["weight_packed"].view(torch.float4_e2m1fn_x2)},
         told("fp8-blocks")[1]), "holds F4 and has no scale",
    ),
    "codes that are exponents": (
        changed("mxfp4", weight_packed=lambda t: t.view(torch.float8_e8m0fnu)), "holds F8_E8M0",
    ),
    "exponents that are FP4": (
        changed("mxfp4", weight_scale=lambda t: t.repeat(1, 1).view(torch.float4_e2m1fn_x2)),
        "holds F4",
    ),
    "a weight without scale": (
        ({**packing.fp8_blocks(matrix(), 32)[0],
          "more": torch.zeros(8, 8).to(torch.float8_e4m3fn)}, told("fp8-blocks")[1]),
        "has no scale",
    ),
    "a scale that does not fit": (changed("nf4", **{"weight.absmax": lambda t: t[:-1]}), "scales"),
    "more scales than rows": (changed("int8", weight=lambda t: t[:8]), "SCB.*its shape is"),
    "a group too few": (changed("gptq-4-v1", scales=lambda t: t[:-1]), "groups"),
    "no scales": (gptq_without("scales"), "no known packed format"),
    "other bits": (told("gptq-4-v1", bits=8), "4 bits a weight, 8 by"),
    "another method": (told("gptq-4-v1", quant_method="awq"), "but they are gptq-4bit"),
    "an unknown method": (told("gptq-4-v1", quant_method="hqq"), "which is not supported"),
    "an unknown version": (told("gptq-4-v1", checkpoint_format="gptq_v9"), "'gptq_v9' stores zero"),
    "an unknown packing": (
        told("/auto_round-4-False", packing_format="auto_round:new"), "_round:new' stores",
    ),
    "no packing": (told("/auto_round:gptqmodel-4-False", packing_format=None), "add config"),
    "two versions": (
        told("gptq-4-v1", checkpoint_format="gptq_v2", format="gptq"), "'gptq' and 'gptq_v2'",
    ),
    "a lie": (({"weight": matrix()}, told("gptq-4-v1")[1]), "but none is"),
    "two forms": (({**packing.awq(matrix())[0], "weight": matrix()}, None), "no such tensor"),
    "a truncated pack": (
        changed("pack-quantized-4-symmetric", weight_packed=lambda t: t[:-1]), "its shape",
    ),
    "a bomb": (
        changed("sparse-bitmask", shape=lambda _: torch.tensor([2**40, 2**20])), "its shape",
    ),
    "a group of nothing": (
        (packing.mlx(matrix())[0], {"quantization": {"bits": 4, "group_size": 0}}),
        "a group size of 0 weights",
    ),
    "groups of nothing": (told("gptq-4-v1", group_size=0), "a group size of 0 weights"),
    "groups of less than nothing": (told("awq", group_size=-32), "group_size is -32, not a"),
    "groups of nothing, by groups": (
        told("pack-quantized-4-symmetric", config_groups={
            "g": {"weights": {"num_bits": 4, "group_size": 0}}}), "a group size of 0 weights",
    ),
    "other bits of pack-quantized": (
        told("pack-quantized-4-symmetric", config_groups={"g": {"weights": {"num_bits": 8}}}),
        "weights of 8 bits",
    ),
    "other bits of FP4": (
        told("mxfp4", config_groups={"g": {"weights": {"num_bits": 8}}}), "has 4 bits a weight",
    ),
    "other bits of AWQ": (told("awq", bits=8), "4 bits a weight, 8 by"),
    "other bits of MLX": (
        (packing.mlx(matrix())[0], {"quantization": {"bits": 8, "group_size": 32}}), "of 8 bits",
    ),
    "other bits of bitsandbytes": (
        told("nf4", load_in_4bit=False, load_in_8bit=True), "load_in_8bit True, but they are nf4",
    ),
    "another format": (
        told("mxfp4", format="nvfp4-pack-quantized"), "nvfp4-pack-quantized, but they are mxfp4",
    ),
    "a row without an end": (
        ({"compressed": torch.zeros(0), "bitmask": torch.zeros(1, 2**21, dtype=torch.uint8),
          "shape": torch.tensor([1, 2**24]), "row_offsets": torch.tensor([0])}, None),
        "unpacked to the shape",
    ),
    "a state without an end": (
        changed("nf4", **{"weight.quant_state.bitsandbytes__nf4":
                lambda t: torch.cat([t, torch.full((2**16,), 32, dtype=torch.uint8)])}),
        "lacks a valid shape",
    ),
    "more weights told than there are": (
        changed("nf4", **{"weight.quant_state.bitsandbytes__nf4": lambda _: torch.tensor(
            list(b'{"quant_type": "nf4", "blocksize": 64, "shape": [1000000, 1000000]}'),
            dtype=torch.uint8)}), "its shape is",
    ),
    "groups that are not whole": (
        changed("mxfp4", weight_packed=lambda t: torch.cat([t, t[:, :1]], 1)), "groups of 32",
    ),
    "codes in three dimensions": (changed("mxfp4", weight_packed=lambda t: t[None]), "its shape"),
    "codes of NVFP4 in three": (changed("nvfp4-modelopt", weight=lambda t: t[None]), "its shape"),
    "a zero point of FP4": (
        ({"weight": packing.mxfp4(matrix())[0]["weight_packed"].view(torch.float4_e2m1fn_x2),
          "weight_scale": packing.mxfp4(matrix())[0]["weight_scale"],
          "weight_zero_point": torch.zeros(64, 1)}, None), "zero_point'.*no such tensor",
    ),
    "a zero point of MXFP8": (
        (LIBRARY["mxfp8"][0] | {"weight_zero_point": torch.zeros(40, 2, dtype=torch.int8)}, None),
        "zero_point'.*no such tensor",
    ),
    "MXFP6 with a scale of all": (
        (LIBRARY["mxfp6"][0] | {"weight_global_scale": torch.ones(1)}, None), "it holds uint8",
    ),
    "MXFP6 that is called FP4": (
        (LIBRARY["mxfp6"][0] | {
            "weight_packed": LIBRARY["mxfp6"][0]["weight_packed"].view(torch.float4_e2m1fn_x2)},
         None), "its shape is",
    ),
    "two scales of a tensor": (
        changed("nvfp4-modelopt", weight_scale_2=lambda t: t.repeat(64)), "not one number",
    ),
    "an order of groups that do not divide a row": (
        (gptq_without("g_idx")[0], told("gptq-4-v1", group_size=33)[1]), "cannot be shared",
    ),
    "groups of AWQ that do not divide a row": (told("awq", group_size=33), "cannot be shared"),
    "groups that do not divide a row": (
        told("pack-quantized-4-symmetric", config_groups={"g": {
            "weights": {"num_bits": 4, "group_size": 33}}}), "are not groups of 33",
    ),
    "an order that is no numbers": (
        changed("gptq-4-v1-shuffled", g_idx=lambda t: t > 1), "holds bool, not integers",
    ),
    "an order out of range": (changed("gptq-4-v1-shuffled", g_idx=lambda t: t + 9), "groups"),
    "integers alone": (({"codes": torch.zeros(8, 8, dtype=torch.int32)}, None), "holds int32"),
    "a state that is none": (
        changed("nf4", **{"weight.quant_state.bitsandbytes__nf4": lambda t: t[:-3]}),
        "lacks a valid shape",
    ),
    "a state of numbers that are none": (
        changed("nf4", **{"weight.quant_state.bitsandbytes__nf4": lambda _: torch.tensor(
            list(b'{"quant_type": "nf4", "blocksize": true, "shape": [64, 128]}'),
            dtype=torch.uint8)}), "lacks a valid shape",
    ),
    "a state that says it twice": (
        changed("nf4", **{"weight.quant_state.bitsandbytes__nf4": lambda t: torch.tensor(
            list(b'{"blocksize": 2, ' + bytes(t.tolist())[1:]), dtype=torch.uint8)}),
        "lacks a valid shape",
    ),
    "scales of scales without end": (
        ({k: torch.tensor(list(bytes(t.tolist()).replace(b'"nested_blocksize": 256',
                                                         b'"nested_blocksize": ' + b"9" * 30)),
                          dtype=torch.uint8) if "quant_state" in k else t
          for k, t in LIBRARY["fp4-True"][0].items()}, None), "lacks its size or offset",
    ),
    "a mode that is not text": (
        (packing.mlx(matrix())[0], {"quantization": {"bits": 4, "group_size": 32, "mode": {}}}),
        "biases'.*no such tensor",
    ),
    "a mode of MLX that is not text": (
        (LIBRARY["mlx-mxfp4"][0], {"quantization": {"bits": 4, "group_size": 32, "mode": {}}}),
        "mode {} of MLX",
    ),
    "true bits": (told("gptq-4-v1", bits=True), "bits is true, not a whole number"),
    "bits that are a fraction": (told("awq", bits=4.0), r"bits is 4\.0, not a whole number"),
    "bits in words": (
        told("pack-quantized-4-symmetric", config_groups={"g": {"weights": {"num_bits": "4"}}}),
        'num_bits is "4", not a whole number',
    ),
    "groups that are a number": (
        told("pack-quantized-4-symmetric", config_groups=1e3), "config_groups is not a JSON object",
    ),
    "a group that is a number": (
        told("pack-quantized-4-symmetric", config_groups={"g": 2}), "is not a JSON object",
    ),
    "weights of a group that are a number": (
        told("pack-quantized-4-symmetric", config_groups={"g": {"weights": 2**64}}),
        "weights is not a JSON object",
    ),
    "a version that is not text": (
        told("gptq-4-v1", checkpoint_format=["gptq_v2"]), "checkpoint_format is not text",
    ),
    "a format that is not text": (
        ({"weight": matrix()}, packing.compressed({"a": 1})), "format is not text",
    ),
    "blocks of one number": (told("fp8-blocks", weight_block_size=[32]), "is not two numbers"),
    "nothing that is known of it": (
        (packing.gptq(matrix())[0], {"quantization_config": 3.0}),
        "quantization_config is not a JSON object",
    ),
    "a table of fifteen": (
        changed("nf4", **{"weight.quant_map": lambda t: t[:-1]}), "does not hold 16 numbers",
    ),
    "weights in a kernel's order": (changed("int8", weight_format=lambda t: t + 1), "kernel"),
    "a shape that is none": (
        changed("pack-quantized-4-symmetric", weight_shape=lambda t: -t), "does not hold a shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("opened", [sr.load, open_to_count])
def test_misfit_is_refused_in_one_line(case, opened, tmp_path):
    (tensors, config), match = WRONG[case]
    with pytest.raises(sr.SparsityReportError, match=match) as caught:
        opened(write(tmp_path / "m", tensors, config))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [(f'{{"bits": {"9" * 5000}}}', "a number of 5,000 digits"), ("[" * 100_000, "nested too deep"),
     (r'{"bits": "\ud800"}', "not Unicode"), ("", "Expecting value")],
)  # fmt: skip
def test_a_file_beside_that_is_no_json_is_refused(text, match, tmp_path):
    folder = write(tmp_path / "m", packing.gptq(matrix())[0])
    (folder / "quantize_config.json").write_text(text)
    refused(rf"quantize_config\.json: cannot .*{match}", folder, config=False)


def test_presets_and_pairs_are_no_mistakes(tmp_path):
    tensors, config = told("int8", config_groups={"W8A8": ["Linear"]})
    agrees(open_by_names(write(tmp_path / "m", tensors, config)), packing.int8(matrix())[1])
    tensors, means, _ = packing.modelopt(matrix())
    config = {"quant_method": "modelopt", "config_groups": {"g": {"weights": {"num_bits": [2, 1]}}}}
    agrees(open_by_names(write(tmp_path / "m", tensors, {"quantization_config": config})), means)


METHODS = (
    "gptq-4-v1", "awq", "pack-quantized-4-symmetric", "nf4", "fp8-blocks", "mxfp4", "mlx-4",
    "nvfp4-modelopt",
)  # fmt: skip


@pytest.mark.parametrize("way", METHODS)
def test_weights_packed_against_their_configuration_are_refused(way, tmp_path):
    """On all routes: a model that is known, one that is not, and what is said beside a file."""
    _, plain = packing.packed_llama(tmp_path, way)
    config = json.loads((plain / "config.json").read_text())
    lie = packed_as(way)[2]
    for further in (lie, {**lie, "model_type": "custom"}):
        (plain / "config.json").write_text(json.dumps(config | further))
        for path in (plain, plain / "model.safetensors"):
            for opened in (sr.load, open_to_count):
                with pytest.raises(sr.SparsityReportError, match="but none is"):
                    opened(path)
    (plain / "config.json").unlink()
    assert sr.load(plain)["model.layers.0.mlp.up_proj.weight"].shape == (96, 64)


@pytest.mark.parametrize("way", ["int8", "fp8-blocks", "nf4", "gptq-4-v1", "mxfp4"])
def test_a_smaller_weight_is_not_that_of_a_known_model(way, tmp_path):
    """It is whole by itself, and not what ``config.json`` tells of."""
    packed, _ = packing.packed_llama(tmp_path, way)
    owner = "model.layers.0.mlp.up_proj"
    tensors = load_file(packed / "model.safetensors")
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(owner)}
    parts, _, _ = packing.WAYS[way](matrix(64, 64))
    tensors |= {f"{owner}.{leaf}": part.contiguous() for leaf, part in parts.items()}
    save_file(tensors, packed / "model.safetensors", metadata={"format": "pt"})
    refused(r"shape \(64, 64\) on disk but \(96, 64\)", packed)


# Cut, they are the codes of a smaller matrix, and nothing in the file says that there was more.
SMALLER = {("fp8-blocks", "weight"), ("fp8-blocks-exponents", "weight"), ("int8", "weight")}


@pytest.mark.parametrize("way", swept(packing.WAYS, 4))
def test_a_part_that_is_cut_or_turned_is_refused(way, tmp_path):
    tensors, means, config = packed_as(way)
    for leaf, part in tensors.items():
        if leaf == "input_scale" or (way, leaf) in SMALLER:
            continue
        axes = range(part.dim())
        harmed = [part.narrow(a, 0, size) for a in axes for size in {0, part.shape[a] - 1}]
        harmed += [part.T] if part.dim() == 2 else []
        for tensor in harmed:
            if tensor.shape == part.shape:
                continue
            for told_so in (config, None):
                folder = write(tmp_path / "m", {**tensors, leaf: tensor}, told_so)
                with suppress(sr.SparsityReportError):
                    assert open_to_count(folder)[f"{OWNER}.weight"].shape == means.shape
                with suppress(sr.SparsityReportError):
                    agrees(open_by_names(folder), means)
                    # It can be read as it was: from the order of bytes nothing was lost.
                    assert tensor.numel() == part.numel()
                (tmp_path / "m" / "config.json").unlink(missing_ok=True)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("way", "leaf"),
    [("gptq-4-v1", "scales"), ("gptq-4-v1-shuffled", "scales"), ("awq", "scales"),
     ("pack-quantized-4-zero", "weight_scale"), ("fp8-blocks", "weight_scale_inv"),
     ("nf4", "weight.absmax"), ("/nf4-True", "weight.nested_absmax"),
     ("/nf4-True", "weight.nested_quant_map"), ("int8", "SCB"), ("mxfp4", "weight_scale"),
     ("/mlx-mxfp8", "scales"), ("mlx-4", "scales"), ("mlx-4", "biases"),
     ("nvfp4-modelopt", "weight_scale"), ("nvfp4-modelopt", "weight_scale_2"),
     ("/nvfp4", "weight_scale"), ("/nvfp4", "weight_global_scale"),
     ("/torchao-int8", "_weight_scale"), ("/float-quantized", "weight_scale")],
)  # fmt: skip
def test_a_scale_that_is_no_number_is_refused_when_it_is_met(way, leaf, number, tmp_path):
    tensors, _, config = packed_as(way)
    part = tensors[leaf]
    if part.dtype == torch.uint8:
        part = torch.full_like(part, 255)
    else:
        # Eight bits have no infinity.
        part = torch.full(part.shape, number if part.itemsize > 1 else math.nan).to(part.dtype)
    tensors = {**tensors, leaf: part}
    folder = write(tmp_path / "m", tensors, config)
    with pytest.raises(sr.SparsityReportError, match=r"not (a|one nonzero|one) number"):
        sr.compare(sr.dense(open_by_names(folder)))


def test_a_zero_point_that_version_1_cannot_write_is_refused_when_it_is_met(tmp_path):
    """Of 15 plus one, libraries make 0, 16, or 0 with a carry to the next zero point."""
    tensors, config = changed("gptq-4-v1-zero", qzeros=lambda t: t | 15)
    weights = open_by_names(write(tmp_path / "m", tensors, config))
    with pytest.raises(sr.SparsityReportError, match=r"qzeros' holds zero points of 15 stored"):
        sr.compare(sr.dense(weights))


def test_layers_of_auto_round_may_have_other_bits(tmp_path):
    tensors, again, _ = LIBRARY["auto_round-8"]
    _, config = told("/auto_round-8", bits=4, group_size=128)
    refused("has 8 bits a weight, 4 by", write(tmp_path / "m", tensors, config), config=False)
    config["quantization_config"]["extra_config"] = {OWNER: {"bits": 8, "group_size": 32}}
    agrees(open_by_names(write(tmp_path / "m", tensors, config)), again)
    # Groups of 128 for 192 inputs, or of 96.
    tensors, _, _ = packing.gptq(matrix(64, 192), group=96)
    del tensors["g_idx"]
    with pytest.raises(sr.SparsityReportError, match="192 inputs cannot be shared by 2 groups"):
        open_by_names(write(tmp_path / "m", tensors, config))


def test_steps_that_overflow_are_counted(tmp_path):
    tensors, means, config = packing.modelopt(matrix())
    tensors["weight_scale_2"] = torch.tensor(3e38)
    weights = open_by_names(write(tmp_path / "m", tensors, config))
    row = sr.compare(sr.dense(weights)).layers.set_index("module_name").loc[OWNER]
    assert row["nonzero"] == int((means != 0).sum())


BESIDE = {
    "ComfyUI": (
        {"weight": matrix().to(torch.float8_e4m3fn), "scale_weight": torch.tensor(0.5)},
        None,
    ),
    "ModelOpt": (
        {**packing.modelopt(matrix())[0], "pre_quant_scale": torch.ones(128)},
        packing.modelopt(matrix())[2],
    ),
    "auto-round": (
        {**LIBRARY["auto_round-4-False"][0], "w_bf16_to_fp8_scale": torch.ones(1)},
        LIBRARY["auto_round-4-False"][2],
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_an_unknown_tensor_beside_a_packed_weight_is_refused(case, tmp_path):
    tensors, config = BESIDE[case]
    biased = write(tmp_path / "m", {**tensors, "bias": torch.ones(64)}, config)
    refused(r"scale\w*' is beside the packed weight of", biased, config=False)


def test_a_bias_of_zeros_beside_gptq_is_one_if_the_class_has_it(tmp_path):
    packed = packing.packed_llama(tmp_path, "gptq-4-v1")[0]
    known = sr.compare(sr.dense(sr.load(packed))).totals
    file = packed / "model.safetensors"
    tensors = load_file(file)
    biases = {
        key.replace("qweight", "bias"): torch.zeros(tensors[key].shape[1])
        for key in tensors
        if key.endswith("qweight")
    }
    save_file(tensors | biases, file, {"format": "pt"})
    assert sr.compare(sr.dense(sr.load(packed))).totals.equals(known)
    counted = json.loads(command("count", packed, "--json").stdout)
    checked = json.loads(command("check", packed, "--no-nan", "--json").stdout)
    assert counted["parameters"] == checked["parameters"] == known["total"][0]
    assert checked["prunable"] == known["prunable_total"][0]
    refused(r"bias' is zero, .*; add config\.json", packed, config=False)
    save_file(tensors | {key: bias + 1 for key, bias in biases.items()}, file, {"format": "pt"})
    total = sr.compare(sr.dense(sr.load(packed, config=False))).totals["total"][0]
    assert total == known["total"][0] + sum(map(len, biases.values()))
    refused("have no place in LlamaForCausalLM", packed)


@pytest.mark.parametrize("shape", [(200, 300), (64, 300), (200, 301)])
@pytest.mark.parametrize("height", [1, 128])
@pytest.mark.parametrize("leaf", ["weight_scale", "weight_scale_inv"])
def test_blocks_are_those_of_the_configuration_or_the_only_that_fit(leaf, height, shape, tmp_path):
    codes = matrix(*shape).to(torch.float8_e4m3fn)
    places = torch.arange(shape[0]) // height, torch.arange(shape[1]) // 128
    scale = torch.rand(int(places[0][-1]) + 1, 3) + 0.5
    means = codes.float() * scale[places[0]][:, places[1]]
    config = {"quant_method": "fp8", "weight_block_size": [height, 128]}
    tensors = {"weight": codes, leaf: scale}
    agrees(open_by_names(write(tmp_path / "m", tensors, {"quantization_config": config})), means)
    alone = write(tmp_path / "alone", tensors)
    if shape[1] == 301:
        agrees(open_by_names(alone), means)
    else:
        refused(r"blocks of \d+×100 and \d+×128 fit", alone, config=False)
    config["weight_block_size"] = [height, 64]
    with pytest.raises(sr.SparsityReportError, match="its shape is"):
        open_by_names(write(tmp_path / "m", tensors, {"quantization_config": config}))


def test_a_mask_that_disagrees_with_its_values_is_refused(tmp_path):
    tensors, config = changed("sparse-bitmask", bitmask=lambda t: t ^ 1)
    weights = open_by_names(write(tmp_path / "m", tensors, config))
    with pytest.raises(sr.SparsityReportError, match="disagree"):
        sr.compare(sr.dense(weights))


@pytest.fixture(scope="module")
def pool():
    """A process that knows nothing of this one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as started:
        yield started


@pytest.mark.parametrize("way", ["gptq-4-v1-shuffled", "nf4", "sparse-bitmask", "mxfp4"])
def test_other_processes_and_a_cache_count_the_same(way, pool, tmp_path):
    tensors, _, config = packing.WAYS[way](matrix(512, 1024))
    weights = open_by_names(write(tmp_path / "m", tensors, config))
    here = sr.global_magnitude(weights, 0.7).threshold
    again = open_by_names(tmp_path / "m")
    assert sr.global_magnitude(again, 0.7, executor=pool).threshold == here
    cache = tmp_path / "cache"
    for _ in range(2):
        again = open_by_names(tmp_path / "m")
        assert sr.global_magnitude(again, 0.7, cache=cache).threshold == here
    assert len([*cache.iterdir()]) == 1
    # What is kept is of this way of decoding.
    part = next(iter(weights.slices(f"{OWNER}.weight")))
    assert type(part.packed).__name__ in repr(part)


@pytest.mark.parametrize("way", ["gptq-4-v1", "gptq-3-v1-shuffled", "awq"])
def test_parts_of_a_weight_stored_by_inputs_are_read_whole(way, monkeypatch, tmp_path):
    """Each part is read once, not once for each piece."""
    tensors, means, config = packing.WAYS[way](matrix(1024, 2048))
    weights, reads = open_by_names(write(tmp_path / "m", tensors, config)), []
    read = tensor_slices.LocalFile.read
    monkeypatch.setattr(tensor_slices.LocalFile, "read", lambda *a: reads.append(a[2]) or read(*a))
    (whole,) = weights.slices(f"{OWNER}.weight")
    pieces = [*whole.pieces()]
    leaves = ["qweight", "scales", "qzeros", *["g_idx"][: "shuffled" in way]]
    assert (len(pieces), reads) == (2, [tensors[leaf].nbytes for leaf in leaves])
    values = torch.from_numpy(np.concatenate(pieces))
    torch.testing.assert_close(values, means.reshape(-1), rtol=1e-2, atol=1e-6)


@pytest.mark.sweep
def test_the_reference_has_the_table_of_formats(tmp_path):
    def outcome(case, told):
        tensors, means, config = packed_as(case)
        name = f"{case.replace('/', 'library-')}-{told}"
        folder = write(tmp_path / name, tensors, config if told else None)
        try:
            weights = open_by_names(folder)
        except sr.SparsityReportError:
            return "refused"
        agrees(weights, means)
        return "counted"

    page = Path(__file__).parents[2] / "docs" / "reference" / "packed-formats.md"
    assert packing.table(outcome) in page.read_text(encoding="utf-8")


# Of Gaussian weights, in the group sizes that are usual, rounding makes so many zero.
ROUNDED = {
    "int3": (partial(packing.pack_quantized, bits=3, group=128), 0.31),
    "int4": (partial(packing.gptq, group=128), 0.15), "nf4": (packing.nf4, 0.09),
    "mxfp4": (packing.mxfp4, 0.08), "nvfp4": (packing.modelopt, 0.07), "int8": (packing.int8, 0.01),
    "fp8": (packing.fp8_blocks, 0.00),
}  # fmt: skip


@pytest.mark.parametrize("form", ROUNDED)
def test_rounding_makes_as_many_zeros_as_is_known(form, tmp_path):
    pack, share = ROUNDED[form]
    weight = 0.02 * torch.randn(512, 2048, generator=torch.Generator().manual_seed(0))
    tensors, _, config = pack(weight)
    study = sr.compare(sr.dense(open_by_names(write(tmp_path / "m", tensors, config))))
    row = study.layers.set_index("module_name").loc[OWNER]
    assert row["total"] == weight.numel()
    assert (row["total"] - row["nonzero"]) / row["total"] == pytest.approx(share, abs=0.005)
