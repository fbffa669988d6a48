"""Caches derived from configurations, held against those that transformers allocates."""

import json

import pytest
import torch
import transformers

from sparsity_report.untrusted import limits
from sparsity_report.weights.anatomy.cache_geometry import REASONS, cache_geometry, gguf_cache
from sparsity_report.weights.gguf.gguf_header import read_header
from sparsity_report.weights.sources.memory import ModuleWeights
from tests.support.cache_models import FILE, figure, of_model, run

_SMALL = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
    "num_hidden_layers": 5, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
_GROUPED = _SMALL | {"num_key_value_heads": 2}
_LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8}
_LATENT = {
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 5,
}  # fmt: skip
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, "vocab_size": 50}
# Full, multi-query and grouped attention, windows, chunks, latent and cross attention, shared keys,
# states of Mamba 1 and 2, convolutions, linear attention, and mixtures.
_TINY = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 50},
    "llama": _GROUPED,
    "gemma": _GROUPED | {"head_dim": 16, "num_key_value_heads": 1},
    "falcon": {k: v for k, v in _SMALL.items() if k != "intermediate_size"},
    "mistral": _GROUPED | {"sliding_window": 8},
    "qwen2": _GROUPED | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    "gemma2": _GROUPED | {"head_dim": 8, "sliding_window": 8},
    "gemma3_text": _GROUPED | {"head_dim": 8, "sliding_window": 8, "num_hidden_layers": 7},
    "gemma3n_text": _GROUPED | {
        "head_dim": 8, "sliding_window": 8, "num_hidden_layers": 10, "num_kv_shared_layers": 5,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 50, "laurel_rank": 4,
    },
    "llama4_text": _GROUPED | {
        "head_dim": 8, "attention_chunk_size": 8, "num_local_experts": 2,
        "intermediate_size_mlp": 48,
    },
    "deepseek_v3": _SMALL | _LATENT,
    "mamba": {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8},
    "mamba2": {
        "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8,
        "num_heads": 4, "head_dim": 16, "n_groups": 2,
    },
    "jamba": _GROUPED | {
        "num_experts": 2, "mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False,
    },
    "falcon_h1": _GROUPED | _MAMBA | {"mamba_d_ssm": 64, "head_dim": 8},
    "granitemoehybrid": _GROUPED | _MAMBA | {
        "layer_types": ["mamba", "attention", "mamba", "mamba", "attention"],
        "num_local_experts": 2, "num_experts_per_tok": 1, "shared_intermediate_size": 16,
    },
    "lfm2": _GROUPED | {"full_attn_idxs": [1, 3]},
    "qwen3_next": _GROUPED | _LINEAR | {
        "head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "t5": _T5,
    "bart": {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "vocab_size": 50,
    },
}  # fmt: skip


def tiny(kind):
    config = transformers.AutoConfig.for_model(kind, **_TINY[kind])
    is_pair = config.is_encoder_decoder
    auto = transformers.AutoModelForSeq2SeqLM if is_pair else transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    return auto.from_config(config).eval()


@pytest.mark.parametrize("kind", _TINY)
def test_caches_of_transformers(kind):
    model = tiny(kind)
    written = json.loads(model.config.to_json_string(use_diff=False))
    for dtype, *sizes in ((torch.float32, 5, 1, 4), (torch.bfloat16, 20, 2, 2)):
        measured = run(model.to(dtype), *sizes[:2])
        assert figure(of_model(model), *sizes) == measured
        # What the class computes is not always written.
        for config in (written, {"model_type": kind, **_TINY[kind]}):
            assert figure(config, *sizes) in {measured, "layer_kinds"}


def test_layer_kinds_are_known_without_a_class():
    for kind in ("llama", "mistral", "gemma2", "gemma3_text", "mamba2", "qwen3_next", "t5", "gpt2"):
        assert cache_geometry({"model_type": kind, **_TINY[kind]}).entries, kind
    pattern = _TINY["gemma3_text"] | {"sliding_window_pattern": 2}
    kinds = [e.layers for e in cache_geometry({"model_type": "gemma3_text", **pattern}).entries]
    assert kinds == [4, 3]
    for deciding in ({"no_rope_layers": [1, 0]}, {"attn_layer_period": 3}, {"hybrid_pattern": "M"}):
        odd = {"model_type": "gemma2", **_TINY["gemma2"], **deciding}
        assert cache_geometry(odd).reason == "layer_kinds"


def test_the_text_model_of_a_larger_one():
    text = {"model_type": "gemma3_text", **_TINY["gemma3_text"]}
    whole = {"model_type": "gemma3", "text_config": text, "dtype": "bfloat16"}
    assert cache_geometry(whole).entries == cache_geometry(text).entries
    assert cache_geometry(whole).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model_type": "unheard_of"}, "unknown_type"),
        ({"model_type": None}, "unknown_type"),
        ({"model_type": ["llama"]}, "unknown_type"),
        ({"layer_types": ["full_attention"]}, "layer_kinds"),
        ({"layer_types": ["psychic_attention"] * 5}, "layer_kinds"),
        ({"layer_types": "full_attention"}, "layer_kinds"),
        ({"layer_types": [["x"]] * 5}, "sizes"),
        ({"num_hidden_layers": 10**12}, "sizes"),
        ({"num_hidden_layers": -1}, "sizes"),
        ({"num_hidden_layers": True}, "sizes"),
        ({"num_key_value_heads": 10**30}, "sizes"),
        ({"num_attention_heads": 0, "num_key_value_heads": None}, "sizes"),
        ({"hidden_size": "wide"}, "sizes"),
        ({"head_dim": 1.5}, "sizes"),
        ({"sliding_window": 1, "layer_types": ["sliding_attention"] * 5}, "sizes"),
        ({"sliding_window": limits.POSITIONS + 1}, "sizes"),
        ({"num_kv_shared_layers": "all"}, "sizes"),
    ],
)
def test_configurations_that_settle_nothing(changed, reason):
    known = cache_geometry({"model_type": "llama", **_TINY["llama"], **changed})
    assert (known.entries, known.reason) == (None, reason)
    assert reason in REASONS


def test_heads_removed_in_memory():
    model = tiny("llama")
    assert ModuleWeights(model).cache.entries[0].values == 2 * 2 * 8
    layer = model.model.layers[1].self_attn
    layer.k_proj.weight = torch.nn.Parameter(layer.k_proj.weight[:8])
    assert ModuleWeights(model).cache.reason == "shapes"


def test_metadata_of_a_gguf_file(smollm2_path):
    metadata, _ = read_header(smollm2_path)
    cache = gguf_cache(metadata)
    # 30 layers of 3 key-value heads of 64, keys and values.
    assert [(e.layers, e.values, e.positions) for e in cache.entries] == [(30, 2 * 3 * 64, None)]
    assert (cache.limit, cache.dtype) == (8192, "float16")
    assert gguf_cache(metadata | {"llama.attention.sliding_window": 128}).reason == "gguf"
    assert gguf_cache(metadata | {"general.architecture": "x"}).entries is None
    assert gguf_cache({}).reason == "unknown_type"


def test_the_file_of_model_types_has_those_of_this_version():
    models = json.loads(FILE.read_text("utf-8"))
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    assert len(models) > 100
    assert set(_TINY) - set(models) == set()
    for kind, entry in models.items():
        assert ("text" in entry) != ("names" in entry), kind
    missing = {kind for kind in models if kind not in known}
    assert missing == set(), "run tests/support/cache_models.py"
