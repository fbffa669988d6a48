"""Small models of the architectures people prune, with their counts written out as products.

d width, f feed-forward width, v vocabulary, b blocks, h heads of width k, p positions, g key/value
heads, e experts of width m of which a token sees t.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import transformers as tf

d, f, v, b, h, k, p, g = 32, 48, 64, 2, 4, 8, 16, 2
e, m, t = 4, 24, 2
kv = g * k
SIZE = {"hidden_size": d, "num_hidden_layers": b, "num_attention_heads": h, "vocab_size": v}
GQA = {**SIZE, "intermediate_size": f, "num_key_value_heads": g}

# Matrices of one block, biases left out.
attention, grouped = 4 * d * d, 2 * d * d + 2 * d * kv
gated, plain, wide = 3 * d * f, 2 * d * f, 2 * d * 4 * d
experts, active = e * 3 * d * m, t * 3 * d * m
latent = d * 16 + 16 * h * 12 + d * (12 + 4) + 12 * h * 16 + h * 8 * d
# Matrices of a Mamba of width 2·d and state 4, and its other parameters.
mamba = 2 * d * 2 * d + 2 * d * (2 + 2 * 4) + 2 * 2 * d + 2 * d * d
beside_mamba = 2 * d + (4 * 2 * d + 2 * d) + 2 * d * 4 + 2 * d


@dataclass
class Case:
    """One architecture; groups and matrices as products."""

    name: str
    build: Callable[[], torch.nn.Module]
    groups: dict[str, int]
    prunable: int
    flops: int = 0  # multiply-adds per token; by default of what is prunable and the head
    per_sequence: int = 0
    reads: Callable[[], dict] = field(default=lambda: {"input_ids": torch.arange(7)[None]})
    unclassified: int = 0
    gguf: str = ""  # what GGUF calls it
    from_names: bool = False  # transformers cannot read it from GGUF

    def __post_init__(self):
        self.flops = self.flops or self.prunable + v * d


def of_blocks(embedding, attention, mlp, norm, head, **further):
    """Return the groups of a decoder, and further ones."""
    return {
        "embedding": embedding, "attention_linear": attention, "mlp_linear": mlp, "norm": norm,
        "lm_head": head, **further,
    }  # fmt: skip


def causal(config, **options):
    return lambda: tf.AutoModelForCausalLM.from_config(config(**options))


def both():
    ids = torch.arange(7)[None]
    return {"input_ids": ids, "decoder_input_ids": ids}


CASES = [
    Case(
        "OPT",
        causal(
            tf.OPTConfig, ffn_dim=f, word_embed_proj_dim=d, max_position_embeddings=p, **SIZE
        ),
        of_blocks(
            v * d + (p + 2) * d, b * (attention + 4 * d), b * (plain + f + d), (2 * b + 1) * 2 * d,
            0,
        ),
        prunable=b * (attention + plain),
    ),
    Case(
        "OPT-350m (projected embeddings)",
        causal(
            tf.OPTConfig, ffn_dim=f, word_embed_proj_dim=16, do_layer_norm_before=False,
            max_position_embeddings=p, **SIZE,
        ),
        of_blocks(
            v * 16 + (p + 2) * d, b * (attention + 4 * d), b * (plain + f + d), 2 * b * 2 * d, 0,
            other_linear=2 * 16 * d,
        ),
        prunable=b * (attention + plain),
        flops=b * (attention + plain) + 2 * 16 * d + v * 16,
    ),
    Case(
        "GPT-2 (Conv1D)",
        causal(tf.GPT2Config, n_embd=d, n_layer=b, n_head=h, vocab_size=v, n_positions=p),
        of_blocks(
            v * d + p * d, b * (attention + 4 * d), b * (wide + 5 * d), (2 * b + 1) * 2 * d, 0,
        ),
        prunable=b * (attention + wide),
        gguf="gpt2",
    ),
    Case(
        "GPT-J",
        causal(
            tf.GPTJConfig, n_embd=d, n_layer=b, n_head=h, vocab_size=v, n_positions=p, rotary_dim=4
        ),
        of_blocks(v * d, b * attention, b * (wide + 5 * d), (b + 1) * 2 * d, v * d + v),
        prunable=b * (attention + wide),
        gguf="gptj",
        from_names=True,
    ),
    Case(
        "GPT-NeoX, Pythia (fused qkv)",
        causal(tf.GPTNeoXConfig, intermediate_size=f, **SIZE),
        of_blocks(v * d, b * (attention + 4 * d), b * (plain + f + d), (2 * b + 1) * 2 * d, v * d),
        prunable=b * (attention + plain),
        gguf="gptneox",
        from_names=True,
    ),
    Case(
        "Bloom (fused qkv)",
        causal(tf.BloomConfig, hidden_size=d, n_layer=b, n_head=h, vocab_size=v),
        of_blocks(v * d, b * (attention + 4 * d), b * (wide + 5 * d), (2 * b + 2) * 2 * d, 0),
        prunable=b * (attention + wide),
        gguf="bloom",
    ),
    Case(
        "Falcon (multi-query)",
        causal(tf.FalconConfig, **SIZE),
        of_blocks(v * d, b * (2 * d * d + 2 * d * k), b * wide, (b + 1) * 2 * d, 0),
        prunable=b * (2 * d * d + 2 * d * k + wide),
        gguf="falcon",
    ),
    Case(
        "MPT",
        causal(tf.MptConfig, d_model=d, n_layers=b, n_heads=h, vocab_size=v),
        of_blocks(v * d, b * attention, b * wide, (2 * b + 1) * d, 0),
        prunable=b * (attention + wide),
        gguf="mpt",
        from_names=True,
    ),
    Case(
        "Llama (grouped queries)",
        causal(tf.LlamaConfig, **GQA),
        of_blocks(v * d, b * grouped, b * gated, (2 * b + 1) * d, v * d),
        prunable=b * (grouped + gated),
        gguf="llama",
    ),
    Case(
        "Mistral",
        causal(tf.MistralConfig, **GQA),
        of_blocks(v * d, b * grouped, b * gated, (2 * b + 1) * d, v * d),
        prunable=b * (grouped + gated),
        gguf="llama",
    ),
    Case(
        "Qwen2",
        causal(tf.Qwen2Config, tie_word_embeddings=True, **GQA),
        of_blocks(v * d, b * (grouped + d + 2 * kv), b * gated, (2 * b + 1) * d, 0),
        prunable=b * (grouped + gated),
        gguf="qwen2",
    ),
    Case(
        "Qwen3 (q/k norms)",
        causal(tf.Qwen3Config, head_dim=k, **GQA),
        of_blocks(v * d, b * grouped, b * gated, (2 * b + 1) * d + b * 2 * k, v * d),
        prunable=b * (grouped + gated),
        gguf="qwen3",
    ),
    Case(
        "Gemma 2 (scaled embeddings)",
        causal(tf.Gemma2Config, head_dim=k, **GQA),
        of_blocks(v * d, b * grouped, b * gated, (4 * b + 1) * d, 0),
        prunable=b * (grouped + gated),
        gguf="gemma2",
    ),
    Case(
        "Gemma 3 (q/k norms)",
        causal(tf.Gemma3TextConfig, head_dim=k, **GQA),
        of_blocks(v * d, b * grouped, b * gated, (4 * b + 1) * d + b * 2 * k, 0),
        prunable=b * (grouped + gated),
        gguf="gemma3",
    ),
    Case(
        "Phi",
        causal(tf.PhiConfig, intermediate_size=f, **SIZE),
        of_blocks(v * d, b * (attention + 4 * d), b * (plain + f + d), (b + 1) * 2 * d, v * d + v),
        prunable=b * (attention + plain),
        gguf="phi2",
        from_names=True,
    ),
    Case(
        "Phi-3 (fused qkv and gate)",
        causal(tf.Phi3Config, intermediate_size=f, pad_token_id=0, **SIZE),
        of_blocks(v * d, b * attention, b * gated, (2 * b + 1) * d, v * d),
        prunable=b * (attention + gated),
        gguf="phi3",
    ),
    Case(
        "StableLM",
        causal(tf.StableLmConfig, **GQA),
        of_blocks(v * d, b * grouped, b * gated, (2 * b + 1) * 2 * d, v * d),
        prunable=b * (grouped + gated),
        gguf="stablelm",
    ),
    Case(
        "BERT (pooler)",
        lambda: tf.BertModel(
            tf.BertConfig(intermediate_size=f, max_position_embeddings=p, **SIZE)
        ),
        {
            "embedding": v * d + p * d + 2 * d,
            "attention_linear": b * (attention + 4 * d),
            "mlp_linear": b * (plain + f + d),
            "norm": (2 * b + 1) * 2 * d,
            "other_linear": d * d + d,
        },
        prunable=b * (attention + plain),
        flops=b * (attention + plain),
        per_sequence=d * d,
    ),
    Case(
        "RoBERTa (masked LM)",
        lambda: tf.RobertaForMaskedLM(
            tf.RobertaConfig(intermediate_size=f, max_position_embeddings=p, **SIZE)
        ),
        of_blocks(
            v * d + p * d + 2 * d, b * (attention + 4 * d), b * (plain + f + d),
            (2 * b + 2) * 2 * d, v, other_linear=d * d + d,
        ),
        prunable=b * (attention + plain),
        flops=b * (attention + plain) + d * d + v * d,
    ),
    Case(
        "ALBERT (one block, used b times)",
        lambda: tf.AlbertForMaskedLM(
            tf.AlbertConfig(
                embedding_size=16, intermediate_size=f, max_position_embeddings=p, **SIZE
            )
        ),
        of_blocks(
            (v + p + 2) * 16, attention + 4 * d, plain + f + d, 2 * 2 * d + 2 * 2 * 16, v,
            other_linear=2 * 16 * d + d + 16,
        ),
        prunable=attention + plain,
        flops=b * (attention + plain) + 2 * 16 * d + v * 16,
    ),
    Case(
        "T5 (encoder-decoder)",
        lambda: tf.T5ForConditionalGeneration(
            tf.T5Config(d_model=d, d_kv=k, d_ff=f, num_layers=b, num_heads=h, vocab_size=v)
        ),
        of_blocks(
            v * d + 2 * 32 * h, 3 * b * attention, 2 * b * plain, (2 * b + 1 + 3 * b + 1) * d, 0,
        ),
        prunable=3 * b * attention + 2 * b * plain,
        reads=both,
        gguf="t5",
    ),
    Case(
        "BART (encoder-decoder)",
        lambda: tf.BartForConditionalGeneration(
            tf.BartConfig(
                d_model=d, encoder_layers=b, decoder_layers=b, encoder_attention_heads=h,
                decoder_attention_heads=h, encoder_ffn_dim=f, decoder_ffn_dim=f, vocab_size=v,
                max_position_embeddings=p,
            )
        ),
        of_blocks(
            v * d + 2 * (p + 2) * d, 3 * b * (attention + 4 * d), 2 * b * (plain + f + d),
            (2 * b + 3 * b + 2) * 2 * d, 0,
        ),
        prunable=3 * b * attention + 2 * b * plain,
        reads=both,
    ),
    Case(
        "Mixtral (fused experts)",
        causal(tf.MixtralConfig, num_local_experts=e, num_experts_per_tok=t, **GQA),
        of_blocks(
            v * d, b * grouped, b * e * gated, (2 * b + 1) * d, v * d, router=b * e * d
        ),
        prunable=b * (grouped + e * gated),
        flops=b * (grouped + t * gated + e * d) + v * d,
        gguf="llama",
        from_names=True,
    ),
    Case(
        "Qwen2-MoE (shared expert)",
        causal(
            tf.Qwen2MoeConfig, moe_intermediate_size=m, shared_expert_intermediate_size=40,
            num_experts=e, num_experts_per_tok=t, **GQA,
        ),
        of_blocks(
            v * d, b * (grouped + d + 2 * kv), b * (experts + 3 * d * 40), (2 * b + 1) * d, v * d,
            router=b * (e * d + d),
        ),
        prunable=b * (grouped + experts + 3 * d * 40),
        flops=b * (grouped + active + 3 * d * 40 + e * d + d) + v * d,
        gguf="qwen2moe",
    ),
    Case(
        "Qwen3-MoE",
        causal(
            tf.Qwen3MoeConfig, moe_intermediate_size=m, num_experts=e, num_experts_per_tok=t,
            head_dim=k, **GQA,
        ),
        of_blocks(
            v * d, b * grouped, b * experts, (2 * b + 1) * d + b * 2 * k, v * d, router=b * e * d
        ),
        prunable=b * (grouped + experts),
        flops=b * (grouped + active + e * d) + v * d,
        gguf="qwen3moe",
    ),
    Case(
        "DeepSeek-V3 (latent attention)",
        causal(
            tf.DeepseekV3Config, intermediate_size=f, moe_intermediate_size=m, n_routed_experts=e,
            num_experts_per_tok=t, n_shared_experts=1, n_group=1, topk_group=1,
            first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=12, qk_rope_head_dim=4,
            qk_nope_head_dim=8, v_head_dim=8, num_key_value_heads=h, **SIZE,
        ),
        of_blocks(
            v * d, b * latent, gated + experts + 3 * d * m, (2 * b + 1) * d + b * (16 + 12), v * d,
            router=e * d,
        ),
        prunable=b * latent + gated + experts + 3 * d * m,
        flops=b * latent + gated + active + 3 * d * m + e * d + v * d,
        gguf="deepseek2",
        from_names=True,
    ),
    Case(
        "GPT-OSS (transposed experts)",
        causal(
            tf.GptOssConfig, num_local_experts=e, num_experts_per_tok=t, head_dim=k,
            **{**GQA, "intermediate_size": m},
        ),
        of_blocks(
            v * d, b * (grouped + 2 * d + 2 * kv + h), b * (experts + e * (2 * m + d)),
            (2 * b + 1) * d, v * d, router=b * (e * d + e),
        ),
        prunable=b * (grouped + experts),
        flops=b * (grouped + active + e * d) + v * d,
        gguf="gpt-oss",
        from_names=True,
    ),
    Case(
        "Mamba",
        causal(tf.MambaConfig, hidden_size=d, num_hidden_layers=b, vocab_size=v, state_size=4),
        {
            "embedding": v * d, "ssm": b * (mamba + beside_mamba), "norm": (b + 1) * d,
            "lm_head": 0,
        },
        prunable=b * mamba,
        gguf="mamba",
    ),
    Case(
        "Jamba (Mamba, attention, experts)",
        causal(
            tf.JambaConfig, hidden_size=d, num_hidden_layers=4, vocab_size=v, intermediate_size=f,
            num_attention_heads=h, num_key_value_heads=g, num_experts=e, num_experts_per_tok=t,
            attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
            expert_layer_offset=1, mamba_d_state=4, mamba_d_conv=4, use_mamba_kernels=False,
        ),
        of_blocks(
            v * d, 2 * grouped, 2 * gated + 2 * e * gated, (2 * 4 + 1) * d + 2 * (2 + 4 + 4), v * d,
            ssm=2 * (mamba + beside_mamba), router=2 * e * d,
        ),
        prunable=2 * (grouped + mamba) + 2 * gated + 2 * e * gated,
        flops=2 * (grouped + mamba) + 2 * gated + 2 * t * gated + 2 * e * d + v * d,
        gguf="jamba",
        from_names=True,
    ),
]  # fmt: skip


def table() -> str:
    """Return the reference's table of architectures."""
    lines = [
        "| architecture | groups | prunable | unclassified | GGUF |", "|---|---|---:|---:|---|",
    ]  # fmt: skip
    for case in CASES:
        share = 100 * case.prunable / sum(case.groups.values())
        names = ", ".join(name.removesuffix("_linear") for name in sorted(case.groups))
        kept = ("from names" if case.from_names else "yes") if case.gguf else "—"
        lines.append(f"| {case.name} | {names} | {share:.0f} % | {case.unclassified} | {kept} |")
    return "\n".join(lines)


_BUILT = {}


def built(case):
    if case.name not in _BUILT:
        torch.manual_seed(0)
        _BUILT[case.name] = case.build().eval()
    return _BUILT[case.name]
