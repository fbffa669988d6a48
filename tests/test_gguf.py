"""GGUF of an architecture transformers knows: the same model as in memory, value by value."""

import gguf
import numpy as np
import pytest
import torch
import transformers
from conftest import study_of

import sparsity_report as sr

SIZE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def metadata(writer, config):
    writer.add_block_count(2)
    writer.add_context_length(1024)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_vocab_size(64)
    writer.add_token_list([f"t{i}" for i in range(64)])
    if getattr(config, "num_key_value_heads", None):
        writer.add_head_count_kv(config.num_key_value_heads)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if hasattr(config, "layer_norm_epsilon"):
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_layer_norm_rms_eps(1e-5)


def as_llama_cpp_keeps_it(architecture, name, tensor):
    """What llama.cpp's converter does to a tensor, written out."""
    if architecture == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
        heads = 4 if "attn_q" in name else 2
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, -1)
        return halves.swapaxes(1, 2).reshape(tensor.shape)
    if (
        architecture == "gpt2"
        and "norm" not in name
        and name.startswith("blk")
        and tensor.ndim == 2
    ):
        return tensor.T
    if architecture in {"gemma2", "gemma3"} and "norm" in name:
        return tensor + 1
    return tensor


def write(path, model, architecture, kind):
    writer = gguf.GGUFWriter(path, architecture)
    metadata(writer, model.config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], 2)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for name, tensor in model.state_dict().items():
        if name in tied:
            continue
        stem, _, leaf = name.rpartition(".")
        target = f"{names.get_name(stem)}.{leaf}"
        data = np.ascontiguousarray(as_llama_cpp_keeps_it(architecture, target, tensor.numpy()))
        if kind and data.ndim == 2 and data.shape[1] % 32 == 0:
            writer.add_tensor(target, gguf.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama():
    return transformers.LlamaConfig(
        intermediate_size=48, num_key_value_heads=2, tie_word_embeddings=False,
        max_position_embeddings=16, **SIZE,
    )  # fmt: skip


def qwen2():
    return transformers.Qwen2Config(
        intermediate_size=48, num_key_value_heads=2, tie_word_embeddings=True,
        max_position_embeddings=16, **SIZE,
    )  # fmt: skip


def gemma2():
    return transformers.Gemma2Config(
        intermediate_size=48, num_key_value_heads=2, head_dim=8, max_position_embeddings=16, **SIZE
    )


def gemma3():
    return transformers.Gemma3TextConfig(
        intermediate_size=48, num_key_value_heads=2, head_dim=8, max_position_embeddings=1024,
        **SIZE,
    )  # fmt: skip


def stablelm():
    return transformers.StableLmConfig(
        intermediate_size=48, num_key_value_heads=2, max_position_embeddings=1024, **SIZE
    )


def falcon():
    return transformers.FalconConfig(**SIZE)


def gpt2():
    return transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=1024)


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("llama", llama),
        ("qwen2", qwen2),
        ("gemma2", gemma2),
        ("gemma3", gemma3),
        ("stablelm", stablelm),
        ("falcon", falcon),
        ("gpt2", gpt2),
    ],
)
def test_file_and_module_agree(tmp_path, architecture, config):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    path = tmp_path / "model.gguf"
    write(path, model, architecture, None)
    weights = sr.load(path, name="x")
    assert weights.architecture == type(model).__name__
    assert not weights.notes
    state = model.state_dict()
    for parameter in weights.stored:
        assert torch.allclose(weights.tensor(parameter.name), state[parameter.name], atol=1e-6)
    assert study_of(weights).layers.equals(study_of(sr.load(model, name="x")).layers)


def test_quantised_files_count_what_their_blocks_stand_for(tmp_path):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(llama())
    path = tmp_path / "model.gguf"
    write(path, model, "llama", gguf.GGMLQuantizationType.Q4_0)
    weights = sr.load(path, name="x")
    assert "quantised blocks (Q4_0)" in weights.notes[0]
    values = gguf.GGUFReader(path).tensors
    zeros = sum(
        int((gguf.dequantize(t.data, t.tensor_type) == 0).sum())
        for t in values
        if t.tensor_type == gguf.GGMLQuantizationType.Q4_0 and t.name.startswith("blk")
    )
    prunable = sr.compare(sr.dense(weights)).totals.loc[0]
    assert prunable["prunable_total"] - prunable["prunable_nonzero"] == zeros > 0
    real, _ = sr.analyze_layers(sr.dense(weights).module(), "Dense")
    assert real["nonzero"].tolist() == sr.dense(weights).layers()["nonzero"].tolist()


def test_the_reader_and_ours_agree_on_a_real_header(smollm2_path):
    from sparsity_report.weights.gguf import read_header

    theirs = {
        t.name: (tuple(int(n) for n in reversed(t.shape)), t.tensor_type.name, int(t.data_offset))
        for t in gguf.GGUFReader(smollm2_path).tensors
    }
    architecture, tensors = read_header(smollm2_path)
    assert architecture == "llama"
    assert {t.name: (t.shape, t.kind, t.offset) for t in tensors} == theirs
