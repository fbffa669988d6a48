"""The distance of quantized copies from their float originals, against torch, gguf and numpy."""

import json

import gguf
import numpy as np
import packing
import pytest
import torch
from helpers import small_llama, write_gguf
from safetensors.torch import save_file

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO

WINDOW = 32
Q = gguf.GGMLQuantizationType


def expected_of(a, b, ids):
    """KL in both directions and equal guesses, of each token in disjoint windows."""
    windows = ids.reshape(-1, WINDOW)
    with torch.no_grad():
        p, q = (
            each(input_ids=windows).logits[:, :-1].double().log_softmax(-1).flatten(0, 1)
            for each in (a, b)
        )
    return (
        (p.exp() * (p - q)).sum(-1).numpy(),
        (q.exp() * (q - p)).sum(-1).numpy(),
        (p.argmax(-1) == q.argmax(-1)).numpy(),
    )


def interval_of(values):
    """95 % interval by explicit draws of blocks of √n spans of 16 tokens, around a circle."""
    sums = np.add.reduceat(values.astype(float), np.arange(0, len(values), 16))
    counts = np.add.reduceat(np.ones(len(values)), np.arange(0, len(values), 16))
    block = round(len(sums) ** 0.5)
    draws = np.random.default_rng(0).integers(0, len(sums), (20_000, -(-len(sums) // block)))
    places = ((draws[:, :, None] + np.arange(block)) % len(sums)).reshape(len(draws), -1)
    means = sums[places].sum(axis=1) / counts[places].sum(axis=1)
    return np.quantile(means, [0.025, 0.975])


def check(apart, a, b, ids):
    kl, back, same = expected_of(a, b, ids)
    assert apart.tokens["kl"].to_numpy() == pytest.approx(kl, rel=1e-3, abs=1e-9)
    assert apart.tokens["reverse_kl"].to_numpy() == pytest.approx(back, rel=1e-3, abs=1e-9)
    figures = apart.figures.set_index("figure")
    assert figures.loc["agreement", "value"] == same.mean() < 1
    assert 0 < figures.loc["kl", "value"] == pytest.approx(kl.mean(), rel=1e-4)
    assert figures.loc["kl_p99", "value"] == pytest.approx(np.quantile(kl, 0.99), rel=1e-3)
    assert figures.loc["kl_max", "value"] == pytest.approx(kl.max(), rel=1e-3)
    assert apart.largest["position"][0] == apart.tokens["position"][kl.argmax()]
    for figure, values in (("kl", kl), ("reverse_kl", back), ("agreement", same)):
        low, high = figures.loc[figure, ["low", "high"]]
        first, last = interval_of(values)
        # Student's quantile is wider than that of draws.
        assert 1 < (high - low) / (last - first) < 1.35
        assert abs((low + high) - (first + last)) < 0.2 * (high - low)


def is_in_blocks(array):
    """The narrower matrices keep their floats, as in llama.cpp."""
    return array.ndim == 2 and array.shape[1] % 32 == 0


def as_file(model, kind):
    """The tensors of a Llama under llama.cpp's names, its matrices quantized."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, parameter in model.named_parameters():
        stem, _, leaf = name.rpartition(".")
        array = parameter.detach().numpy()
        heads = {"q_proj": 4, "k_proj": 2}.get(stem.rpartition(".")[2])
        if heads:  # llama.cpp keeps the halves of a head interleaved
            halves = array.reshape(heads, 2, len(array) // heads // 2, -1)
            array = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
        yield f"{names.get_name(stem)}.{leaf}", (array, kind if is_in_blocks(array) else None)


@pytest.mark.parametrize("kind", [Q.Q8_0, Q.Q4_0])
def test_a_gguf_file_and_its_float_original(tmp_path, kind):
    original = small_llama(initializer_range=0.4)
    original.save_pretrained(tmp_path / "float")
    write_gguf(
        tmp_path / "copy.gguf", dict(as_file(original, kind)), block_count=2, context_length=32,
        embedding_length=32, feed_forward_length=48, vocab_size=64, head_count=4, head_count_kv=2,
        layer_norm_rms_eps=original.config.rms_norm_eps,
        token_list=([f"t{number}" for number in range(64)],), pad_token_id=(0,),
    )  # fmt: skip
    copy = small_llama()
    with torch.no_grad():
        for parameter, source in zip(copy.parameters(), original.parameters(), strict=True):
            values = source.numpy()
            if is_in_blocks(values):
                values = gguf.dequantize(gguf.quantize(values, kind), kind)
            parameter.copy_(torch.from_numpy(values))
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 64, 40 * WINDOW))
    apart = sr.distance(tmp_path / "float", tmp_path / "copy.gguf", ids, window=32, stride=32)
    check(apart, original, copy, ids)
    assert apart.largest[["context", "token"]].isna().all(axis=None)


def test_the_demo_packed_in_four_bits(tmp_path, demo):
    """A compressed-tensors copy with the tokenizer of the original."""
    plain, packed, told = demo.module().eval(), {}, {}
    copy = demo.module().eval()
    linears = {name: part for name, part in copy.named_modules() if "fc" in name or "_proj" in name}
    for name, tensor in plain.state_dict().items():
        owner, leaf = name.rpartition(".")[::2]
        if owner in linears and leaf == "weight":
            tensors, means, told = packing.pack_quantized(tensor)
            packed |= {f"{owner}.{key}": part.contiguous() for key, part in tensors.items()}
            with torch.no_grad():
                linears[owner].weight.copy_(means)
        elif name != "lm_head.weight":
            packed[name] = tensor.clone()
    plain.config.save_pretrained(tmp_path)
    demo.tokenizer().save_pretrained(tmp_path)
    save_file(packed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | told))
    text = (DEMO / "eval.txt").read_text(encoding="utf-8")[:3000]
    ids = demo.tokenizer()(text, return_tensors="pt")["input_ids"][0]
    ids = ids[: len(ids) // WINDOW * WINDOW]
    assert len(ids) > 700
    apart = sr.distance(DEMO, tmp_path, ids, window=WINDOW, stride=WINDOW)
    check(apart, plain, copy, ids)
    assert apart.largest.notna().all(axis=None)
