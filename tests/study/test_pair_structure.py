"""Removed parts of a base are found exactly, and with certainty despite noise on the others."""

import pytest
import structural
import torch
import transformers
from safetensors.torch import load_file
from structural import Left, fused, renamed, shuffled, turned, written
from wording import of_key, values_of, wording

import sparsity_report as sr
from sparsity_report.findings.study_findings import study_findings

BLOCKS, HEADS, KV, EXPERTS = [0, 1, 3], [0, 1, 3, 4, 6, 7], [3, 1], [7, 0, 1, 3, 4, 6]
CUTS = {
    "llama": {
        "block": Left(blocks=BLOCKS, config={"num_hidden_layers": 3}),
        "channel": Left(channels=shuffled(96, 128), config={"intermediate_size": 96}),
        "head": Left(heads=HEADS, config={"num_attention_heads": 6}),
        "as many heads as keys": Left(heads=[6, 0, 3, 5], config={"num_attention_heads": 4}),
        "kv_head": Left(kv_heads=KV, config={"num_key_value_heads": 2}),
        "vocabulary": Left(vocabulary=shuffled(70, 96), config={"vocab_size": 70}),
        "width": Left(width=shuffled(48, 64), config={"hidden_size": 48}),
        "all": Left(
            blocks=BLOCKS, channels=shuffled(96, 128), heads=HEADS, kv_heads=KV,
            vocabulary=[*range(80)], width=shuffled(48, 64),
            config={
                "num_hidden_layers": 3, "intermediate_size": 96, "num_attention_heads": 6,
                "num_key_value_heads": 2, "vocab_size": 80, "hidden_size": 48,
            },
        ),
    },
    "mixtral": {
        "expert": Left(experts=EXPERTS, config={"num_local_experts": 6}),
        "all": Left(
            blocks=BLOCKS, channels=shuffled(24, 32), heads=HEADS, kv_heads=KV, experts=EXPERTS,
            config={
                "num_hidden_layers": 3, "intermediate_size": 24, "num_attention_heads": 6,
                "num_key_value_heads": 2, "num_local_experts": 6,
            },
        ),
    },
    "opt": {
        "all": Left(
            blocks=BLOCKS, channels=shuffled(96, 128), heads=HEADS,
            config={"num_hidden_layers": 3, "ffn_dim": 96, "num_attention_heads": 6},
        )
    },
    "gpt2": {
        "all": Left(
            blocks=BLOCKS, channels=shuffled(96, 128), heads=HEADS,
            config={"n_layer": 3, "n_inner": 96, "n_head": 6},
        ),
    },
    "bert": {
        "all": Left(
            blocks=BLOCKS, channels=shuffled(96, 128), heads=HEADS,
            config={
                "num_hidden_layers": 3, "intermediate_size": 96, "num_attention_heads": 6
            },
        )
    },
}  # fmt: skip
CASES = [
    (kind, cut, noise)
    for kind, cuts in CUTS.items()
    for cut in cuts
    for noise in ((0.0, 0.01) if cut == "all" else (0.0,))
]
OF = {
    "block": 4, "head": 8, "kv_head": 4, "channel": 128, "expert": 8, "vocabulary": 96, "width": 64,
}  # fmt: skip


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    return structural.bases_of(tmp_path_factory)


@pytest.fixture(scope="session")
def opened(bases):
    return {kind: sr.load(bases(kind)) for kind in CUTS}


def due(left, kind):
    """Numbers that are gone, by kind, in each place of it."""
    of = OF | ({"channel": 32} if kind == "mixtral" else {})
    numbers = {
        "block": left.blocks, "head": left.heads, "kv_head": left.kv_heads,
        "channel": left.channels, "expert": left.experts, "vocabulary": left.vocabulary,
        "width": left.width,
    }  # fmt: skip
    return {k: sorted(set(range(of[k])) - set(n)) for k, n in numbers.items() if n is not None}


@pytest.mark.parametrize(("kind", "cut", "noise"), CASES, ids=lambda value: str(value))
def test_found(bases, opened, tmp_path, kind, cut, noise):
    left = CUTS[kind][cut]
    left.noise = noise
    after = structural.pruned(bases(kind), tmp_path / "after", left)
    pair = sr.compare_checkpoints(opened[kind], after)
    gone = due(left, kind)
    assert set(pair.removed["kind"]) == set(gone)
    for what, numbers in gone.items():
        rows = pair.removed[pair.removed["kind"] == what]
        for module, some in rows.groupby("module"):
            if what != "block":
                assert sorted(some["index"]) == numbers, (what, module)
        if what == "block":
            assert sorted(rows["index"]) == numbers
        sure = rows["certainty"]
        assert (sure == 1).all() if not noise else ((sure > 0.9) & (sure < 1)).all()
    layers = pair.matches
    assert (layers["weight_before"] - layers["compared"]).sum() == pair.removed["weights"].sum()
    assert layers["weight_after"].sum() == layers["compared"].sum()
    assert not layers["alignment"].isin(["added"]).any()
    before, after = pair.totals["total"]
    assert before - after == pair.removed["parameters"].sum()
    if not noise:
        assert layers["changed"].sum() == layers["revived"].sum() == layers["new"].sum() == 0
    else:
        there = layers[layers["compared"] > 1000]
        assert (there["relative_change"] < 0.012).all()


def test_channels_whose_gates_are_much_alike(bases, tmp_path):
    """As in trained models: what lets one pass is much like another one, what passes is not."""
    tensors, config = structural.read(bases("llama"))
    torch.manual_seed(5)
    for name, values in tensors.items():
        if "gate_proj" in name:
            values[64:] = values[:64] * (1 + 0.001 * torch.randn(64, 64))
    base = written(tmp_path / "base", tensors, config)
    left = Left(channels=shuffled(96, 128), noise=0.01, config={"intermediate_size": 96})
    pair = sr.compare_checkpoints(base, structural.pruned(base, tmp_path / "after", left))
    for _, some in pair.removed.groupby("module"):
        assert sorted(some["index"]) == due(left, "llama")["channel"]
    assert (pair.removed["certainty"] > 0.5).all()
    assert (pair.matches["relative_change"].dropna() < 0.012).all()


@pytest.mark.parametrize(
    ("kind", "other", "ways"),
    [("llama", renamed, {"renamed", "name"}), ("llama", fused, {"fused", "name"}),
     ("gpt2", turned, {"turned", "name"})],
)  # fmt: skip
@pytest.mark.parametrize("back", [False, True])
def test_the_same_in_other_words(bases, tmp_path, kind, other, ways, back):
    tensors = other(load_file(bases(kind) / "model.safetensors"))
    models = [bases(kind), written(tmp_path / "other", tensors)]
    pair = sr.compare_checkpoints(*models[:: -1 if back else 1])
    assert set(pair.matches["alignment"]) == ways
    assert pair.matches["untouched"].all()
    assert pair.matches["weight_before"].equals(pair.matches["compared"])
    assert pair.matches["weight_after"].equals(pair.matches["compared"])
    assert pair.removed.empty


def test_a_model_whose_layers_differ_in_shape(bases, tmp_path):
    """As LLM-Pruner and Puzzletron leave it: some channels of block 1, some heads of block 2."""
    tensors, config = structural.read(bases("llama"))
    channels, heads = shuffled(40, 128), [0, 2, 3, 4, 5, 6]
    rows = structural.rows_of_heads(heads)
    for name, values in tensors.items():
        if "layers.1.mlp" in name:
            tensors[name] = values[:, channels] if "down" in name else values[channels]
        elif "layers.2.self_attn.q_proj" in name:
            tensors[name] = values[rows]
        elif "layers.2.self_attn.o_proj" in name:
            tensors[name] = values[:, rows]
    pair = sr.compare_checkpoints(bases("llama"), written(tmp_path / "uneven", tensors, config))
    assert any("opened by names and shapes" in str(note) for note in pair.notes)
    gone = pair.removed.groupby(["kind", "module"])["index"].agg(sorted)
    assert gone["channel", "model.layers.1.mlp"] == sorted(set(range(128)) - set(channels))
    assert gone["head", "model.layers.2.self_attn"] == [1, 7]
    assert len(gone) == 2
    rows = pair.matches.set_index("module_name")
    assert rows.loc["model.layers.1.mlp.up_proj", "alignment"] == "content"
    assert rows.loc["model.layers.0.mlp.up_proj", "alignment"] == "name"


def test_unrelated_models_are_refused(bases, tmp_path):
    torch.manual_seed(99)
    structural.MODELS["llama"]().save_pretrained(tmp_path / "apart")
    blocks = structural.pruned(tmp_path / "apart", tmp_path / "blocks", CUTS["llama"]["block"])
    channels = structural.pruned(tmp_path / "apart", tmp_path / "ffn", CUTS["llama"]["channel"])
    narrow = structural.pruned(bases("llama"), tmp_path / "narrow", CUTS["llama"]["width"])
    for before, after, said in (
        (bases("llama"), tmp_path / "apart", "look unrelated.* correlate by -?0.0"),
        (bases("llama"), blocks, "look unrelated: of the 3 blocks"),
        (bases("llama"), channels, "look unrelated: of the 96 channels"),
        (bases("llama"), bases("gpt2"), "LlamaForCausalLM and GPT2LMHeadModel look unrel"),
        (bases("gpt2"), bases("bert"), "look unrelated"),
        (narrow, bases("llama"), "give the larger model first, as the base$"),
    ):
        with pytest.raises(sr.SparsityReportError, match=said):
            sr.compare_checkpoints(before, after)
    config = transformers.AutoConfig.from_pretrained(bases("llama"))
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(sr.SparsityReportError, match=r"are not known|no values"):
        sr.compare_checkpoints(bases("llama"), empty)


def test_swapped_layers_are_reported(bases, tmp_path):
    tensors, config = structural.read(bases("llama"))
    one, other = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up"))
    tensors[one], tensors[other] = tensors[other], tensors[one]
    pair = sr.compare_checkpoints(bases("llama"), written(tmp_path / "swapped", tensors, config))
    (finding,) = of_key(study_findings(pair), "pair.unrelated_values")
    assert "model.layers.0.mlp.gate_proj and model.layers.0.mlp.up_proj" in str(finding)


def test_a_head_that_is_the_embedding_now(bases, tmp_path):
    tensors, config = structural.read(bases("llama"))
    head = tensors.pop("lm_head.weight").numel()
    tied = written(tmp_path / "tied", tensors, config | {"tie_word_embeddings": True})
    pair = sr.compare_checkpoints(bases("llama"), tied)
    (row,) = pair.removed.to_dict("records")
    assert (row["kind"], row["module"], row["parameters"]) == ("layer", "lm_head", head)
    assert row["flops_per_token"] == 0
    (finding,) = of_key(study_findings(pair), "pair.head_tied_and_untied")
    assert values_of(finding, "pair.head_tied_and_untied")["tied"] == "tied"
    gone = wording("pair.removed_besides_prunable", parts="lm_head")
    assert gone in pair.sentences()
    back = sr.compare_checkpoints(tied, bases("llama"))
    row = back.matches.set_index("module_name").loc["lm_head"]
    assert (row["alignment"], row["weight_before"], row["weight_after"]) == ("added", 0, head)
    # The same file says nothing of a head where no config does.
    alone = sr.compare_checkpoints(tied, written(tmp_path / "alone", tensors))
    changes = alone.changes.set_index(["group", "figure"])
    for group in (None, "lm_head"):
        flops = changes.loc[(group, "flops_per_token")]
        assert flops["before"] >= 2 * head
        assert flops[["after", "removed", "share"]].isna().all()
    assert any("the FLOPs of the two are not compared" in said for said in alone.sentences())
    assert changes.loc["mlp_linear", "removed"].notna().all()


def test_other_vocabularies(bases, tmp_path):
    """Tokens that were added are refused, as nothing of the base says what they were."""
    tensors, config = structural.read(bases("llama"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.randn(4, 64)])
    longer = written(tmp_path / "longer", tensors, config | {"vocab_size": 100})
    with pytest.raises(sr.SparsityReportError, match="has 100 tokens in longer and 96 in") as told:
        sr.compare_checkpoints(bases("llama"), longer)
    assert "\n" not in str(told.value)
    gone = sr.compare_checkpoints(longer, bases("llama")).removed
    assert {*zip(gone["kind"], gone["index"], strict=True)} == {
        ("vocabulary", number) for number in range(96, 100)
    }
