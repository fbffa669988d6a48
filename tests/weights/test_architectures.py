"""Every architecture counted by hand, by its file, by its module and by torch's FLOP counter."""

import pytest
import torch
import transformers
from helpers import counted
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from zoo.cases import CASES, built, table
from zoo.page import PAGE

import sparsity_report as sr


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


def test_groups_are_the_products(case):
    model = built(case)
    weights = sr.load(model)
    study = sr.compare(sr.dense(weights))
    assert study.groups.set_index("group")["total"].to_dict() == case.groups
    assert sum(case.groups.values()) == model.num_parameters()
    assert sum(p.total for p in weights.prunable) == case.prunable
    assert len(study.unclassified) == case.unclassified == 0


def test_flops_are_the_products(case):
    totals = sr.compare(sr.dense(built(case))).totals.loc[0]
    assert totals["flops_per_token"] == 2 * case.flops
    assert totals["flops_per_sequence"] == 2 * case.per_sequence


@pytest.mark.filterwarnings("ignore")  # advice of transformers on kernels that are not installed
def test_flops_against_the_counter(case):
    model, inputs = built(case), case.reads()
    model.set_attn_implementation("eager")
    model.set_experts_implementation("eager")
    tokens = inputs["input_ids"].shape[1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    totals = sr.compare(sr.dense(model), context=tokens).totals.loc[0]
    attention = totals["attention_flops_per_token"] if case.name != "Mamba" else 0
    ours = tokens * (totals["flops_per_token"] + attention) + totals["flops_per_sequence"]
    if not case.beyond:
        assert counter.get_total_flops() == ours
        return
    seen = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in seen.items() if str(op) in {"aten.mm", "aten.addmm"})
    assert products == tokens * totals["flops_per_token"]
    assert counter.get_total_flops() > ours


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_file_and_module_agree(case, tmp_path):
    model = built(case)
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    pruned = []
    for source in (model, tmp_path):
        pruning = sr.global_magnitude(sr.load(source, name=case.name), 0.4)
        pruned.append(sr.compare(sr.masked(pruning), sr.csr(pruning), context=9))
    memory, files = pruned
    assert counted(memory.layers).equals(counted(files.layers))
    assert counted(memory.totals).equals(counted(files.totals))
    assert memory.variants["fingerprint"].equals(files.variants["fingerprint"])


def test_masked_models_run_and_count_the_same(case):
    variant = sr.masked(sr.global_magnitude(sr.load(built(case)), 0.4))
    model = variant.module()
    real, _ = sr.analyze_layers(model, variant.name)
    assert real.equals(variant.layers())
    with torch.no_grad():
        output = model(**case.reads())
    assert torch.isfinite(output[0]).all()


def test_the_table_of_the_page_is_this_data():
    assert table() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["vit", "whisper", "clip"])
def test_vision_and_audio_add_up(kind, tmp_path):
    small = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48,
    }  # fmt: skip
    picture = {**small, "image_size": 16, "patch_size": 8}
    text = {**small, "vocab_size": 64, "max_position_embeddings": 16}
    audio = {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "vocab_size": 64, "num_mel_bins": 8, "max_source_positions": 16,
        "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }  # fmt: skip
    model = {
        "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**picture)),
        "clip": lambda: transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=picture, projection_dim=16)
        ),
        "whisper": lambda: transformers.WhisperForConditionalGeneration(
            transformers.WhisperConfig(**audio)
        ),
    }[kind]()
    layers = sr.dense(model).layers()
    assert layers["total"].sum() == model.num_parameters()
    model.save_pretrained(tmp_path)
    assert counted(sr.dense(tmp_path).layers()).equals(counted(layers))


def test_many_small_modules():
    """How long more of them take, tests/test_sizes.py knows."""
    model = nn.Module()
    model.layers = nn.ModuleList(
        nn.ModuleDict({"fc1": nn.Linear(2, 2, bias=False)}) for _ in range(10_000)
    )
    study = sr.compare(sr.masked(sr.global_magnitude(sr.load(model), 0.5)))
    assert len(study.layers) == 10_000
    assert study.totals.loc[0, "prunable_nonzero"] == 20_000
