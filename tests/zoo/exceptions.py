"""What the names of a config's numbers do not tell, with a reason each."""

from __future__ import annotations

from typing import Any

# By name of the config class; what is given here has the last word.
EXCEPTIONS: dict[str, dict[str, Any]] = {
    # Layers of both kinds, where the default has one kind or counts them by a period.
    "BambaConfig": {"attn_layer_indices": [1]},
    "GraniteMoeHybridConfig": {"layer_types": ["linear_attention", "full_attention"]},
    "JambaConfig": {
        "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False,
    },
    "RecurrentGemmaConfig": {"num_hidden_layers": 3},
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 1]]},
    "ZambaConfig": {
        "num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
    },
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention"]},
    "DeepseekOcr2TextConfig": {
        "mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2,
    },
    # Width of the inner state = heads × width of a head.
    "FalconH1Config": {"mamba_d_ssm": 64, "mamba_d_head": 8},
    "Mamba2Config": {"num_heads": 8, "head_dim": 8},
    "XLNetConfig": {"d_head": 8},
    # Layers before, within and after the loop.
    "DoryConfig": {
        "num_hidden_layers": 4, "n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    # By default without experts.
    "DeepseekV2Config": {"num_experts_per_tok": 2},
    "Dots1Config": {
        "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
        "first_k_dense_replace": 1,
    },
    # Full attention has wider heads.
    "Gemma4TextConfig": {"global_head_dim": 16},
    "Gemma4UnifiedTextConfig": {"global_head_dim": 16},
    "Gemma4AssistantConfig full": {
        "text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0},
    },
    "DiffusionGemmaTextConfig": {
        "global_head_dim": 16, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24,
    },
    "NeoMMEConfig": {"head_dim": 16},  # a quarter of it turns in two directions
    "Qwen4ExpTextConfig": {
        "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    },
    "ReformerConfig": {
        "axial_pos_embds_dim": (12, 20), "axial_pos_shape": (8, 8),
        "attn_layers": ("local", "lsh"),
    },
    "Glm5NextTextConfig": {"index_kpool": 2},
    "FunAsrNanoAdaptorConfig": {"intermediate_size": 8},  # a quarter of the width
    # No defaults.
    "DbrxAttentionConfig": {"rope_theta": 10_000.0, "clip_qkv": 8.0, "kv_n_heads": 2},
    "HunYuanDenseV1Config": {"head_dim": 8},
    "HunYuanMoEV1Config": {"head_dim": 8},
    "HunYuanVLTextConfig": {
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    },
    "MinistralConfig": {"head_dim": 8},
    "ChameleonConfig": {"vocabulary_map": {"<image>": 3}},
    "Emu3Config": {"vocabulary_map": {"<image>": 3, "<|extra_200|>": 4}},
    "CohereCompassTextConfig": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}},
    },
    "Granite4VisionConfig": {
        "deepstack_layer_map": [[-1, 0]], "downsample_rate": "1/2", "spatial_target_layers": [1],
    },
    "EsmConfig": {"pad_token_id": 0, "vocab_size": 96, "mask_token_id": 3},
    "NemotronConfig": {"num_key_value_heads": 2},
    "Dots3NoteTextConfig": {
        "swa_num_attention_heads": 2, "swa_num_key_value_heads": 2, "swa_q_lora_rank": 20,
        "swa_kv_lora_rank": 12, "swa_head_dim": 12, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8,
    },
    "Apertus1p5Config": {"image_token_offset": 96, "audio_token_offset": 160},
    "Apertus1p5TextConfig": {"vocab_size": 256},
    "Ernie4_5_VLMoeTextConfig": {
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    },
    "MoonshineStreamingConfig": {"num_key_value_heads": 4},
    "Qwen3OmniMoeTalkerConfig": {"spatial_merge_size": 2},
    "LongcatFlashConfig": {"head_dim": 4},
    "Mistral4Config": {"qk_nope_head_dim": 4},
    "xLSTMConfig": {"hidden_size": 128, "num_heads": 4},  # inner widths are rounded up to 64
    "Step3p7TextConfig": {"sliding_window": 64},
    "LEDConfig": {"attention_window": [8, 8]},
    "LongformerConfig": {"attention_window": [8, 8]},
    "NystromformerConfig": {"num_landmarks": 64, "segment_means_seq_len": 64},
    # Wider and deeper from stage to stage.
    "SwinConfig": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    "HieraConfig": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    "Qwen3OmniMoeTalkerTextConfig": {"shared_expert_intermediate_size": 40},
    "VibeVoiceAsrConfig": {"acoustic_tokenizer_chunk_size": 6400},
    # Parts of a rotation, where the default config has none and the model's own are too large.
    **{
        f"{name}TextConfig": {
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2],
                "partial_rotary_factor": 1.0,
            }
        }
        for name in (
            "Glm4v", "Glm4vMoe", "GlmOcr", "PaddleOCR", "Qwen2_5Omni", "Qwen2_5_VL", "Qwen2VL",
        )
    },
    # The token that stands for a query of a picture.
    **{
        f"{name}Config": {"image_token_index": 3}
        for name in ("Blip2", "InstructBlip", "InstructBlipVideo")
    },
}  # fmt: skip

# By name of the model class, where its config serves others too.
OF_MODEL: dict[str, dict[str, Any]] = {
    "ReformerModelWithLMHead": {"is_decoder": True},
    "XmodForCausalLM": {"default_language": "en_XX"},
    "XmodForMaskedLM": {"default_language": "en_XX"}, "Wav2Vec2BertForCTC": {"vocab_size": 96},
    "Wav2Vec2ConformerForCTC": {"vocab_size": 96},
}  # fmt: skip
