"""Numbers written out as products, and the same model counted by independent programs."""

import pytest
import torch
import transformers
from helpers import Tiny, study_of
from torch.utils.flop_counter import FlopCounterMode

import sparsity_report as sr
from sparsity_report.study.schema import TABLES


def on_meta(cls, config):
    with torch.device("meta"):
        return cls(config)


def totals_by_group(weights):
    totals = {}
    for module in weights.modules:
        own = sum(p.total for p in module.parameters if p.tied_to is None)
        totals[module.group] = totals.get(module.group, 0) + own
    return totals


OPT = {
    "embedding": 50_272 * 768 + (2048 + 2) * 768, "attention_linear": 12 * 4 * (768 * 768 + 768),
    "mlp_linear": 12 * (2 * 768 * 3072 + 3072 + 768), "norm": (2 * 12 + 1) * 2 * 768, "lm_head": 0,
}  # fmt: skip


def test_opt_125m_structure():
    weights = sr.load(on_meta(transformers.OPTForCausalLM, transformers.OPTConfig()))
    assert totals_by_group(weights) == OPT
    assert list(OPT.values())[:4] == [40_183_296, 28_348_416, 56_669_184, 38_400]
    assert sum(OPT.values()) == 125_239_296
    assert (
        sum(p.total for p in weights.prunable) == 12 * (4 * 768**2 + 2 * 768 * 3072) == 84_934_656
    )
    assert weights["lm_head.weight"].tied_to == "model.decoder.embed_tokens.weight"


def test_pythia_410m_structure():
    config = transformers.GPTNeoXConfig(
        vocab_size=50_304, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
        intermediate_size=4096,
    )  # fmt: skip
    weights = sr.load(on_meta(transformers.GPTNeoXForCausalLM, config))
    totals = totals_by_group(weights)
    assert totals["lm_head"] == 50_304 * 1024 == 51_511_296
    assert sum(totals.values()) == 405_334_016
    assert sum(p.total for p in weights.prunable) == 24 * 12 * 1024**2 == 301_989_888


@pytest.fixture(scope="module")
def opt_125m():
    torch.manual_seed(0)
    return sr.load(transformers.OPTForCausalLM(transformers.OPTConfig()), name="OPT-125m, random")


def test_opt_125m_at_30_percent(opt_125m):
    study = study_of(opt_125m)
    totals = study.totals.set_index("variant")
    # 0.3 · 84,934,656 = 25,480,396.8
    assert totals.loc["Masked30", "pruned"] == 25_480_397
    zeros = totals["prunable_total"] - totals["prunable_nonzero"]
    assert zeros["Masked30"] == zeros["CSR30"] == 25_480_397
    flops = study.pivot("flops_per_token")
    dense = {
        "embedding": 0, "attention_linear": 12 * 4 * 2 * 768 * 768,
        "mlp_linear": 12 * 2 * 2 * 768 * 3072, "norm": 0, "lm_head": 2 * 50_272 * 768,
    }  # fmt: skip
    assert flops["Dense"].to_dict() == flops["Masked30"].to_dict() == dense
    pruned_flops = sum(flops["CSR30"]) - dense["lm_head"]
    assert pruned_flops == 2 * (84_934_656 - 25_480_397)
    stored = totals["stored_bytes"]
    assert stored["Dense"] == stored["Masked30"] == 4 * 125_239_296
    rows = 12 * (4 * 768 + 3072 + 768)
    kept = 84_934_656 - 25_480_397
    linears = 12 * 6
    expected = 4 * (125_239_296 - 84_934_656) + kept * (4 + 4) + (rows + linears) * 4
    assert stored["CSR30"] == expected


def test_the_notebooks_convention(opt_125m):
    study = sr.compare(sr.dense(opt_125m), convention="notebook")
    groups = study.groups.set_index("group")
    assert groups["flops_per_token"].to_dict() == {
        "embedding": 80_366_592, "attention_linear": 56_623_104, "mlp_linear": 113_246_208,
        "lm_head": 77_217_792, "norm": 0,
    }  # fmt: skip
    assert groups.loc["embedding", "flops_per_token"] == 2 * 40_183_296
    assert groups.loc["lm_head", "total"] == 50_272 * 768
    assert groups["total"].sum() == 125_239_296 + 50_272 * 768
    assert groups["stored_bytes"].sum() == 4 * 125_239_296
    share = (50_272 * 768) / (125_239_296 + 50_272 * 768)
    assert groups.loc["lm_head", "param_frac"] == share


def attention_flops(layers, width, tokens):
    """Scores and weighted values: two products of tokens × tokens × width per layer."""
    return layers * 2 * (2 * tokens * tokens * width)


@pytest.mark.parametrize("family", ["opt", "pythia", "llama"])
def test_flops_are_those_of_the_flop_counter(family):
    shared = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = {
        "opt": lambda: transformers.OPTConfig(
            vocab_size=101, ffn_dim=96, word_embed_proj_dim=64, **shared
        ),
        "pythia": lambda: transformers.GPTNeoXConfig(
            vocab_size=101, intermediate_size=96, **shared
        ),
        "llama": lambda: transformers.LlamaConfig(
            vocab_size=101, intermediate_size=96, num_key_value_heads=2, **shared
        ),
    }[family]()
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    tokens = 7
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(tokens)[None])
    ours = sr.compare(sr.dense(sr.load(model))).totals.loc[0, "flops_per_token"]
    assert counter.get_total_flops() == tokens * ours + attention_flops(3, 64, tokens)


@pytest.mark.parametrize(
    ("config", "full", "windowed"),
    [
        (transformers.MistralConfig, 0, 4),
        (transformers.Gemma3TextConfig, 1, 3),  # every other kind below: one layer in n sees all
        (transformers.GptOssConfig, 2, 2),
        (transformers.LlamaConfig, 4, 0),
        (transformers.GPTNeoConfig, 2, 2),
    ],
)
def test_attention_sees_no_more_than_its_window(config, full, windowed):
    options = {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]}
    small = config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, intermediate_size=16, vocab_size=32, sliding_window=10, window_size=10,
        attention_types=[[["global", "local"], 2]],
        **(options if config is transformers.Gemma3TextConfig else {}),
    )  # fmt: skip
    dense = sr.dense(on_meta(transformers.AutoModelForCausalLM.from_config, small))
    for context in (7, 25):
        seen = full * context + windowed * min(context, 10)
        totals = sr.compare(dense, context=context).totals
        assert totals["attention_flops_per_token"].tolist() == [2 * seen * (32 + 32)]


def test_columns_and_sums(demo_study):
    layers, groups, totals = demo_study.layers, demo_study.groups, demo_study.totals
    assert list(layers.columns) == [*TABLES["layers"]]
    assert list(groups.columns) == [*TABLES["groups"]]
    for column in ("total", "nonzero", "flops_per_token", "stored_bytes"):
        for variant in totals["variant"]:
            expected = int(totals.set_index("variant").loc[variant, column])
            for frame in (layers, groups):
                assert frame.loc[frame["variant"] == variant, column].sum() == expected
    assert (layers["nonzero"] <= layers["total"]).all()
    assert groups.groupby("variant")["param_frac"].sum().round(12).eq(1).all()


def test_tiny_by_hand(tiny):
    study = study_of(sr.load(tiny), 0.5)
    dense = study.layers[study.layers["variant"] == "Dense"].set_index("module_name")
    assert dense.loc["layers.1.fc1", "total"] == 6 * 10 + 10
    assert dense.loc["layers.1.fc1", "weight_total"] == 6 * 10
    assert dense.loc["layers.1.fc1", "flops_per_token"] == 2 * 6 * 10
    assert dense.loc["layers.1.fc1", "block"] == 1
    assert dense.loc["layers.1.fc1", "shape"] == (10, 6)
    assert dense.loc["lm_head", "total"] == 0
    assert dense.loc["lm_head", "flops_per_token"] == 2 * 11 * 6
    assert dense.loc["lm_head", "tied_to"] == "embed_tokens.weight"
    assert dense["total"].sum() == sum(p.numel() for p in tiny.parameters())
    totals = study.totals.set_index("variant").loc["Masked50"]
    assert totals["sparsity_prunable"] == 0.5
    outside = 2 * (6 + 10 + 6) + 2 * 12  # biases and norms
    zero_biases = sum(int((p == 0).sum()) for p in tiny.parameters() if p.ndim == 1)
    zeros = 156 + zero_biases
    assert totals["sparsity_non_embedding"] == pytest.approx(zeros / (312 + outside))
    assert totals["sparsity_model"] == pytest.approx(zeros / (312 + outside + 66))


def test_an_untied_head_is_not_part_of_the_non_embedding_parameters():
    totals = sr.compare(sr.dense(Tiny(tied=False))).totals.loc[0]
    assert totals["total"] - totals["non_embedding_total"] == 2 * 66


def test_conv1d_multiplies_the_other_way_round():
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=12, n_positions=5)
    study = study_of(sr.load(transformers.GPT2LMHeadModel(config)), 0.5)
    fc = study.layers[study.layers["module_name"] == "transformer.h.0.mlp.c_fc"]
    assert fc["shape"].tolist() == [(8, 32)] * 3
    assert fc["flops_per_token"].tolist()[0] == 2 * 8 * 32
    kept = fc["weight_nonzero"].tolist()[2]
    assert fc["stored_bytes"].tolist()[2] == kept * 8 + (32 + 1) * 4 + 32 * 4


def test_conventions_are_closed():
    with pytest.raises(sr.SparsityReportError, match="standard, notebook"):
        sr.compare(sr.dense(Tiny()), convention="other")


def test_params_size_and_sparsity():
    model = on_meta(transformers.OPTForCausalLM, transformers.OPTConfig())
    with pytest.raises(sr.SparsityReportError, match="meta device"):
        sr.params_size_and_sparsity(model)
    tiny = Tiny()
    stats = sr.params_size_and_sparsity(tiny)
    zeros = sum(int((p == 0).sum()) for p in tiny.parameters())
    total = sum(p.numel() for p in tiny.parameters())
    assert stats == {
        "nonzero": total - zeros, "total": total, "sparsity": 1 - (total - zeros) / total,
        "size_mb": total * 4 / 2**20,
    }  # fmt: skip
