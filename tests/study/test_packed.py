"""Bytes of a file: of packed weights and plain ones, once each, and null where they are not."""

import gguf
import packing
import pytest
import torch
import transformers
from helpers import study_of, write_gguf
from safetensors import safe_open

import sparsity_report as sr


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    packed, _ = packing.packed_llama(tmp_path_factory.mktemp("llama"), "gptq-4-v1")
    return study_of(sr.load(packed, name="llama"))


def in_file(path):
    """Bytes of all tensors of a safetensors file, by the library."""
    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(key).nbytes for key in file.keys())  # noqa: SIM118


def test_sums_are_those_of_the_file(study, tmp_path):
    packed, _ = packing.packed_llama(tmp_path, "gptq-4-v1")
    size = in_file(packed / "model.safetensors")
    dense = study.totals.iloc[0]
    groups = study.groups[study.groups["variant"] == "Dense"]
    assert dense["file_bytes"] == groups["file_bytes"].sum() == size
    # Two blocks: q, o of 64 × 64, k, v of 32 × 64, gate and up of 96 × 64, down of 64 × 96; as
    # many weights ÷ 32 scales; a group number to each input; embedding, head and norms plain.
    weights = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64)
    inputs = 2 * (6 * 64 + 96)
    plain = 2 * 64 * 64 + 5 * 64
    assert size == weights // 2 + weights // 32 * (2 + 0.5) + 4 * inputs + 4 * plain
    assert study.facts.bits_per_weight("Dense") == 8 * size / (weights + plain)
    assert study.facts.packings() == study.facts.packings("CSR30") == ["gptq-4bit-g32"]
    assert dense["stored_bytes"] == 4 * (weights + plain)


def test_pruned_weights_have_no_file_bytes(study):
    for variant in ("Masked30", "CSR30"):
        rows = study.facts.layers(variant)
        assert rows.loc[rows["prunable"], "file_bytes"].isna().all()
        assert rows.loc[~rows["prunable"], "file_bytes"].notna().all()
        assert study.facts.total(variant, "file_bytes") is None
        assert study.facts.bits_per_weight(variant) is None


@pytest.mark.parametrize("convention", ["standard", "notebook"])
def test_a_tied_weight_is_in_the_file_once(convention, tmp_path):
    packed, _ = packing.packed_llama(tmp_path, "gptq-4-v1", tie_word_embeddings=True)
    twice = in_file(packed / "model.safetensors")  # it is written under both names
    study = sr.compare(sr.dense(sr.load(packed)), convention=convention)
    assert study.totals["file_bytes"].item() == twice - 4 * 64 * 64
    bits = study.facts.bits_per_weight("Dense")
    assert (bits is None) == (convention == "notebook")  # which counts the weight twice


def test_pieces_on_disk_add_up(tmp_path):
    """Experts, one matrix each on disk, are one parameter in memory."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2,
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).bfloat16().save_pretrained(tmp_path)
    weights = sr.load(tmp_path)
    experts = [p for p in weights.parameters if len(p.shape) == 3]
    assert [p.file_bytes for p in experts] == [2 * p.total for p in experts]
    assert len(weights.entries(experts[0].name)) > 1
    total = sr.compare(sr.dense(weights)).totals["file_bytes"].item()
    assert total == in_file(tmp_path / "model.safetensors")


def test_in_memory_it_is_unknown(tiny):
    study = sr.compare(sr.dense(sr.load(tiny)))
    assert study.layers["file_bytes"].isna().all()
    assert study.groups["file_bytes"].isna().all()
    assert study.facts.bits_per_weight("Dense") is None
    assert study.facts.packings() == []


def test_file_bytes_of_a_pickle_are_those_of_its_values(tiny, tmp_path):
    torch.save(tiny.state_dict(), tmp_path / "pytorch_model.bin")
    study = sr.compare(sr.dense(sr.load(tmp_path, allow_pickle=True)))
    assert study.layers["file_bytes"].tolist() == (4 * study.layers["total"]).tolist()
    assert study.facts.packings() == []


def test_blocks_of_gguf_are_as_the_format_says(tmp_path):
    """Q4_1 packs 32 weights into two half-precision numbers and 16 bytes; Q8_0 into 34."""
    values = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).numpy()
    kinds = gguf.GGMLQuantizationType
    tensors = {
        "token_embd.weight": (values, kinds.Q8_0), "blk.0.attn_q.weight": (values, kinds.Q4_1),
        "output_norm.weight": (values[0], None),
    }  # fmt: skip
    write_gguf(tmp_path / "m.gguf", tensors, "unheard-of")
    weights = sr.load(tmp_path / "m.gguf")
    assert {p.name: (p.file_bytes, p.packing) for p in weights.parameters} == {
        "token_embd.weight": (64 * 64 // 32 * 34, "Q8_0"),
        "blk.0.attn_q.weight": (64 * 64 // 32 * 20, "Q4_1"),
        "output_norm.weight": (64 * 4, ""),
        "output.weight": (64 * 64 // 32 * 34, "Q8_0"),  # tied, so not counted again:
    }
    total = sr.compare(sr.dense(weights)).totals["file_bytes"].item()
    assert total == 64 * 64 // 32 * (34 + 20) + 64 * 4


def test_file_bytes_of_real_weights_are_those_of_the_file(smollm2, smollm2_path):
    tensors = {t.name: t for t in gguf.GGUFReader(smollm2_path).tensors}
    frame = sr.compare(sr.dense(smollm2))
    assert frame.totals["file_bytes"].item() == sum(int(t.n_bytes) for t in tensors.values())
    row = frame.layers.set_index("module_name").loc["model.layers.3.mlp.up_proj"]
    assert row["file_bytes"] == tensors["blk.3.ffn_up.weight"].n_bytes
    assert row["packing"] == tensors["blk.3.ffn_up.weight"].tensor_type.name
