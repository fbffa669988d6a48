"""Small mixtures of experts, and the use of their experts by a router."""

import numpy as np
import pandas as pd
import torch
from transformers import MixtralConfig, MixtralForCausalLM

import sparsity_report as sr
from sparsity_report.study.schema import TABLES


def mixture(blocks=2, count=4, hidden=48, inner=16):
    """A Mixtral of which a token uses two experts; matrices of 2·inner × hidden and their like."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=32, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=blocks,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=count,
        num_experts_per_tok=2,
    )  # fmt: skip
    model = MixtralForCausalLM(config).to(torch.bfloat16)
    return sr.load(model, name=f"mixture {blocks} × {count}")


def use(blocks, count, tokens=2048):
    """Router use as of ``sr.calibrate``; no token reaches one expert of every second block."""
    rng, rows = np.random.default_rng(blocks * count), []
    for block in range(blocks):
        tokens_of = rng.multinomial(2 * tokens, rng.dirichlet(np.full(count, 1.5)))
        tokens_of[block % count] *= block % 2 == 0
        for expert, number in enumerate(tokens_of.tolist()):
            gates, norm = number * rng.uniform(0.3, 0.7), (1 + block) * rng.uniform(1, 3)
            rows.append({
                "module_name": f"model.layers.{block}.mlp.experts", "block": block,
                "expert": expert, "tokens": number, "gate_mass": gates,
                "output_norm": norm if number else None,
                "saliency": norm * gates / number if number else None,
            })  # fmt: skip
    return pd.DataFrame(rows)


def table(variant, blocks, count):
    """Use as a study holds it; a variant named ``Kept`` lacks the first expert of each block."""
    frame = use(blocks, count)
    lacks = frame["expert"].eq(0) & (variant == "Kept")
    return frame.assign(variant=variant, is_kept=~lacks)[[*TABLES["experts"]]]
