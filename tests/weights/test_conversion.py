"""Directories that transformers keeps in another form than a model in memory."""

import pytest
import torch
import transformers
from helpers import refused, same_counts, set_config, small_llama, study_of
from safetensors.torch import load_file, save_file
from transformers import conversion_mapping
from transformers.core_model_loading import Chunk, Concatenate, Transpose, WeightConverter

import sparsity_report as sr
from sparsity_report.counting.counts import count_weights
from sparsity_report.study.variants import fingerprint
from sparsity_report.weights.sources import checkpoint
from sparsity_report.weights.tensor_slices import FileSlice

SIZE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HEADS = {"num_key_value_heads": 4, "head_dim": 8}
EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
LAYERS = {f"{side}_layers": 1 for side in ("encoder", "decoder")}
MARIAN = {
    "d_model": 32, "vocab_size": 64, "max_position_embeddings": 16, "pad_token_id": 63,
    "decoder_start_token_id": 63, "eos_token_id": 0, **LAYERS,
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")},
}  # fmt: skip

# By class: its config, and what transformers does with its files.
CASES = {
    # q, k and v in one tensor
    "NomicBertForMaskedLM": ("NomicBertConfig", {**SIZE, **HEADS, "intermediate_size": 48}),
    # these and both halves of the MLP
    "GteForMaskedLM": ("GteConfig", {**SIZE, "intermediate_size": 48}),
    "HrmTextForCausalLM": (
        "HrmTextConfig",
        {**SIZE, "head_dim": 8, "intermediate_size": 48, "num_layers_per_stack": 1},
    ),
    # rows of four sizes
    "LaraMiniForCausalLM": (
        "LaraMiniConfig",
        {
            **SIZE, **HEADS, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 48,
            "layer_types": ["linear_attention", "sliding_attention"],
            **{f"linear_{side}_head_dim": 8 for side in ("key", "value")},
            **{f"linear_num_{side}_heads": 4 for side in ("key", "value")},
        },
    ),
    # gate and up row by row, and an output head that is padded
    "Inkling2ForCausalLM": (
        "Inkling2TextConfig",
        {
            **SIZE, **HEADS, **EXPERTS, "n_routed_experts": 4, "unpadded_vocab_size": 61,
            "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_head_dim": 8,
            "rel_extent": 16, "layer_types": ["hybrid_sliding", "hybrid"],
        },
    ),
    # a name that a rule would change, and that is that of memory
    "DeepseekV4ForCausalLM": (
        "DeepseekV4Config",
        {
            **SIZE, **EXPERTS, "num_hidden_layers": 4, "n_routed_experts": 4, "q_lora_rank": 16,
            "o_lora_rank": 16, "o_groups": 2, "head_dim": 8, "qk_rope_head_dim": 4,
            "index_head_dim": 8, "index_n_heads": 4,
        },
    ),
    # sinusoids that are never saved
    "MarianMTModel": ("MarianConfig", MARIAN),
}  # fmt: skip


def saved(folder, name):
    """Save a small model of a class."""
    if not hasattr(transformers, name):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    config, facts = CASES[name]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**facts))
    model.save_pretrained(folder)
    return model


def ruled(monkeypatch, *rules):
    """Let transformers have rules for every model, and ask it for every file."""
    monkeypatch.setattr(checkpoint, "decide", lambda *_: None)
    monkeypatch.setattr(conversion_mapping, "get_model_conversion_mapping", lambda *_: [*rules])


@pytest.mark.parametrize("name", CASES)
def test_a_directory_is_the_model_that_was_saved(name, tmp_path):
    model = saved(tmp_path, name)
    weights, module = sr.load(tmp_path), sr.load(model)
    live = dict(model.named_parameters(remove_duplicate=False))
    for parameter in module.stored:
        assert torch.equal(weights.tensor(parameter.name), live[parameter.name]), parameter.name
    same_counts(weights, module)
    prints = [fingerprint(w, count_weights(w)) for w in (weights, module)]
    assert prints[0] == prints[1]
    one, other = (study_of(w) for w in (weights, module))
    for table in ("layers", "groups", "totals"):
        left, right = (getattr(study, table) for study in (one, other))
        columns = left.columns.difference(["file_bytes", "variant"])
        assert left[columns].equals(right[columns]), table
    for kept in ("name", "shape", "dtype", "prunable", "tied_to", "matrix"):
        assert [getattr(p, kept) for p in weights.parameters] == [
            getattr(p, kept) for p in module.parameters
        ]
    again = dict(weights.module().named_parameters(remove_duplicate=False))
    assert all(torch.equal(again[key], value) for key, value in live.items())


@pytest.mark.parametrize("name", [*CASES][:4])
def test_bytes_of_parameters_are_those_of_the_file(name, tmp_path):
    saved(tmp_path, name)
    held = load_file(tmp_path / "model.safetensors")
    taken = sum(p.file_bytes for p in sr.load(tmp_path).stored)
    assert taken == sum(tensor.nbytes for tensor in held.values())


def test_rows_are_read_from_the_file_as_they_are_counted(tmp_path):
    saved(tmp_path, "NomicBertForMaskedLM")
    weights = sr.load(tmp_path)
    layer = "nomic_bert.layers.1.self_attn"
    slices = [[*weights.slices(f"{layer}.{part}_proj.weight")] for part in "qkv"]
    assert all(isinstance(part, FileSlice) for (part,) in slices)
    offsets = [part.offset for (part,) in slices]
    assert offsets == [offsets[0] + 4 * 32 * 32 * place for place in range(3)]


def test_a_pickle_is_taken_apart_as_well(tmp_path):
    model = saved(tmp_path, "NomicBertForMaskedLM")
    file = tmp_path / "model.safetensors"
    torch.save(load_file(file), tmp_path / "pytorch_model.bin")
    file.unlink()
    same_counts(sr.load(tmp_path, allow_pickle=True), sr.load(model))


def test_a_file_of_another_name_runs_with_its_values(tmp_path):
    model = saved(tmp_path, "NomicBertForMaskedLM")
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    loaded = dict(sr.load(tmp_path / "other.safetensors").module().named_parameters())
    for name, values in model.named_parameters():
        assert torch.equal(loaded[name], values)


@pytest.mark.parametrize(
    ("operations", "memory"),
    [([Chunk(dim=1)], lambda fused: fused.chunk(2, dim=1)),
     ([Transpose(0, 1, check_dims=False), Chunk(dim=0)], lambda fused: fused.T.chunk(2))],
)  # fmt: skip
def test_columns_come_through_transformers_own_operation(operations, memory, tmp_path, monkeypatch):
    model = small_llama()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    held, fused = load_file(file), {}
    for layer in range(2):
        owner = f"model.layers.{layer}.self_attn"
        for leaf in ("k_proj", "v_proj"):
            del held[f"{owner}.{leaf}.weight"]
        shape = (16, 64) if len(operations) == 1 else (32, 32)
        fused[owner] = held[f"{owner}.kv.weight"] = torch.randn(shape)
    save_file(held, file, {"format": "pt"})
    targets = ["self_attn.k_proj.weight", "self_attn.v_proj.weight"]
    ruled(monkeypatch, WeightConverter(["self_attn.kv.weight"], targets, operations))
    weights = sr.load(tmp_path)
    for owner, values in fused.items():
        for leaf, part in zip(("k_proj", "v_proj"), memory(values), strict=True):
            name = f"{owner}.{leaf}.weight"
            assert torch.equal(weights.tensor(name), part)
            assert count_weights(weights)[name].nonzero == 16 * 32
            assert weights[name].file_bytes == values.nbytes // 2


def test_columns_that_are_put_side_by_side_are_in_the_order_of_memory(tmp_path, monkeypatch):
    model = small_llama()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    held = load_file(file)
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.up_proj"
        left, right = held.pop(f"{name}.weight").chunk(2, dim=1)
        held |= {f"{name}.left": left.contiguous(), f"{name}.right": right.contiguous()}
    save_file(held, file, {"format": "pt"})
    sources = ["up_proj.left", "up_proj.right"]
    ruled(monkeypatch, WeightConverter(sources, "up_proj.weight", [Concatenate(dim=1)]))
    weights = sr.load(tmp_path)
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        assert torch.equal(weights.tensor(name), model.get_parameter(name))


def test_tensors_that_fit_no_rule_are_refused(tmp_path, monkeypatch):
    small_llama().save_pretrained(tmp_path)
    rule = WeightConverter("o_proj.weight", "o_proj.weight", [Transpose(0, 2)])
    ruled(monkeypatch, rule)
    refused(r"model.safetensors: transformers makes .*0\.self_attn\.o_proj.*cannot", tmp_path)


def test_unsaved_parameters_are_not_guessed(tmp_path, monkeypatch):
    saved(tmp_path, "MarianMTModel")
    monkeypatch.setattr(transformers.MarianMTModel, "_init_weights", lambda *_: None)
    for part in ("MarianEncoder", "MarianDecoder", "MarianPreTrainedModel"):
        kind = getattr(transformers.models.marian.modeling_marian, part)
        monkeypatch.setattr(kind, "_init_weights", lambda *_: None)
    refused("embed_positions.weight' is never saved, and what", tmp_path)


def test_no_more_is_computed_than_a_config_may_ask_for(tmp_path):
    saved(tmp_path, "MarianMTModel")
    set_config(tmp_path, max_position_embeddings=2**27)
    refused(
        "embed_positions.weight' is never saved, and config.json gives it 4,294,967,296", tmp_path
    )


def test_names_of_other_code_differ_from_a_missing_part(tmp_path):
    small_llama().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    held = load_file(file)
    save_file({key.replace("q_proj", "query"): t for key, t in held.items()}, file)
    refused(
        r"2 tensor.s. of the checkpoint have no place in LlamaForCausalLM, first .*query.*"
        r"and 2 of its parameters have no tensor, first .*q_proj.*names are those of other code",
        tmp_path,
    )


@pytest.mark.parametrize("told", [(), ("OfTheirOwn",)])
@pytest.mark.parametrize(
    "name", ["BertModel", "BertForPreTraining", "BertForTokenClassification", "LlamaModel"]
)
def test_a_config_without_a_class_is_of_the_one_that_the_tensors_fit(name, told, tmp_path):
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**SIZE, intermediate_size=48, max_position_embeddings=16))
    model.save_pretrained(tmp_path)
    set_config(tmp_path, architectures=[*told])
    weights = sr.load(tmp_path)
    assert {p.name for p in weights.stored} == {name for name, _ in model.named_parameters()}
    same_counts(weights, sr.load(model))


def test_a_config_of_two_stacks_without_a_class_has_both(tmp_path):
    model = saved(tmp_path, "MarianMTModel")
    set_config(tmp_path, architectures=[])
    same_counts(sr.load(tmp_path), sr.load(model))
    assert sr.load(tmp_path).architecture == "MarianMTModel"


def test_a_checkpoint_in_float8_runs_in_float32(tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        vocab_size=64, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    state = transformers.LlamaForCausalLM(config).state_dict()
    state = {
        name: value.to(torch.float8_e4m3fn) if "proj" in name else value
        for name, value in state.items()
    }
    config.dtype = "float8_e4m3fn"
    config.save_pretrained(tmp_path)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    weights = sr.load(tmp_path)
    assert any("float8" in str(note) for note in weights.notes)
    pruning = sr.global_magnitude(weights, 0.5)
    for variant in (sr.dense(weights), sr.masked(pruning), sr.csr(pruning)):
        model = variant.module()
        assert model(torch.arange(8)[None]).logits.isfinite().all()
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    dense = dict(sr.dense(weights).module().named_parameters())
    assert all(torch.equal(dense[name], value.float()) for name, value in state.items())
