"""A study of several models with every measurement; its weights depend on no random numbers."""

import experts as routing
import measurements
import numpy as np
import torch
import transformers
from helpers import Tiny

import sparsity_report as sr


def filled(model):
    with torch.no_grad():
        for parameter in model.parameters():
            steps = torch.arange(parameter.numel()) * 37 % 101 - 50
            parameter.copy_((steps / 64).reshape(parameter.shape))
    return model


def experts():
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, num_local_experts=3,
            num_experts_per_tok=2,
        )
    )  # fmt: skip


def pooled():
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=12, max_position_embeddings=8,
        )
    )  # fmt: skip


def study():
    tiny, mixture, bert = (
        sr.load(filled(model), name=name)
        for model, name in ((Tiny(), "tiny"), (experts(), "experts"), (pooled(), "pooled"))
    )
    half = sr.global_magnitude(tiny, 0.5)
    others = [sr.csr(sr.global_magnitude(m, 0.4), name=f"CSR of {m.name}") for m in (mixture, bert)]
    compared = sr.compare(
        sr.dense(tiny), sr.masked(half, name="Masked30"), sr.csr(half, name="CSR30"),
        sr.dense(mixture, name="Experts"), *others, patterns=True, context=16,
    )  # fmt: skip
    return compared.with_measured(**measured(compared.totals.set_index("variant")))


def measured(totals):
    """Measurements that are made up, but could be: they agree with each other and the study."""
    flops = totals["flops_per_token"]
    latency, quality = measurements.latency(), measurements.quality()
    parts = measurements.sensitivity(2)
    latency["runs"] = 9
    promised = flops["Dense"] / latency["variant"].map(flops)
    latency["promised_speedup"] = promised.where(
        latency["scope"] == "model", latency["promised_speedup"]
    )
    quality["layout"] = ["dense", "masked", "masked"]
    quality["sparsity"] = [*totals.loc[["Dense", "Masked30"], "sparsity_prunable"], 0.9]
    quality["top1"] = 33 / quality["scored"]
    parts["perplexity"] = parts["dense_perplexity"] * np.exp(parts["nll_increase"])
    use = {"experts": routing.table("Experts", 1, 3)} if "Experts" in totals.index else {}
    return {
        "latency": latency, "quality": quality, "sensitivity": parts,
        "continuations": measurements.continuations(), "tasks": measurements.tasks(), **use,
    }  # fmt: skip
