"""Tiny mixtures of experts of six architectures, with random weights."""

import torch
import transformers

COMMON = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts_per_tok": 2,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "tie_word_embeddings": False,
}  # fmt: skip
SMALL = {"moe_intermediate_size": 12}
RANKS = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8, "first_k_dense_replace": 0,
}  # fmt: skip
GROUPS = {"n_group": 2, "topk_group": 1}
# Class of the model, and its settings besides the common ones; E is the number of experts.
SETTINGS = {
    "Mixtral": {"num_local_experts": 8},
    "Qwen2Moe": {"num_experts": 8, "shared_expert_intermediate_size": 16, **SMALL},
    "Qwen3Moe": {"num_experts": 8, "head_dim": 8, **SMALL}, "Olmoe": {"num_experts": 8},
    "DeepseekV3": {"n_routed_experts": 8, **SMALL, **RANKS, **GROUPS},
    "GptOss": {"num_local_experts": 8, "head_dim": 8, "sliding_window": 8},
}  # fmt: skip
MIXTURES = tuple(SETTINGS)


def mixture(kind, step=None, **changed):
    """A tiny model of one architecture: 8 experts, of which a token uses 2, in two blocks.

    Multiples of a step compress better than random numbers.
    """
    torch.manual_seed(5)
    config = getattr(transformers, f"{kind}Config")(**COMMON | SETTINGS.get(kind, {}) | changed)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            # The defaults are so small that routers and outputs hardly differ, and biases are 0.
            if "norm" not in name and "inv_freq" not in name:
                tensor.normal_(std=0.5 if "bias" in name else 0.3)
                if step:
                    tensor.div_(step).round_().mul_(step)
    return model
