"""What sentences say at their limits, in which order, and where they are silent."""

import dataclasses
import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import transformers
from helpers import Tiny, study_of
from measurements import latency, put_in, quality, sensitivity
from torch import nn

import sparsity_report as sr
from sparsity_report.findings import rounding_findings
from sparsity_report.findings.study_findings import conventions
from sparsity_report.study.derived.rounded_zeros import Rounded
from sparsity_report.study.derived.speedups import reference


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return sr.load(Tiny(), name="tiny")


@pytest.fixture(scope="module")
def study(weights):
    return study_of(weights)


def with_zeros(study, **shares):
    """A dense study whose layers have such shares of zeros among 1000 weights each."""
    layers = study.layers[study.layers["variant"] == "Dense"].reset_index(drop=True)
    total = layers["weight_total"].astype("Int64").mask(layers["prunable"], 1000)
    left = total.copy()
    for name, share in shares.items():
        left = left.mask(layers["module_name"].str.endswith(name), round(1000 * (1 - share)))
    layers = layers.assign(weight_total=total, weight_nonzero=left)
    variants = study.variants.iloc[[0]].reset_index(drop=True)
    return dataclasses.replace(study, layers=layers, variants=variants)


@pytest.mark.parametrize(("share", "told"), [(0.95, False), (0.951, True)])
def test_very_sparse_is_more_than_95_percent(study, share, told):
    said = with_zeros(study, **{"0.fc1": share}).audit
    assert any("leaves 1 of 6 prunable layers" in sentence for sentence in said) is told


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [(0.051, 0.0, True), (0.049, 0.0, False), (0.5, 0.004, True), (0.5, 0.005, False)],
)
def test_some_blocks_only_is_a_twentieth_against_nearly_nothing(study, one, other, told):
    shares = {f"{block}.{name}": share for block, share in ((0, one), (1, other))
              for name in ("q_proj", "fc1", "fc2")}  # fmt: skip
    shares = {name.replace("0.q_proj", "0.self_attn.q_proj"): s for name, s in shares.items()}
    shares = {name.replace("1.q_proj", "1.self_attn.q_proj"): s for name, s in shares.items()}
    said = with_zeros(study, **shares).audit
    assert any("stand in 1 of 2 blocks only" in sentence for sentence in said) is told


def test_dead_heads_are_told_once_and_module_by_module():
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        hidden_size=8, ffn_dim=8, num_attention_heads=2, num_hidden_layers=2, vocab_size=16,
        word_embed_proj_dim=8,
    )  # fmt: skip
    model = transformers.OPTForCausalLM(config)
    layers = model.model.decoder.layers
    with torch.no_grad():
        layers[1].self_attn.k_proj.weight[4:] = 0
        layers[0].self_attn.v_proj.weight[:] = 0
    study = sr.compare(*(sr.dense(model, name=name) for name in "ZA"), patterns=True)
    said = [s for s in study.audit if "attention heads" in s]
    modules = "{0}.0.self_attn.v_proj (2) and {0}.1.self_attn.k_proj (1)".format(
        "model.decoder.layers"
    )
    assert said == [f"Z and A have attention heads without a nonzero weight: {modules}."]


def test_a_head_is_told_of_where_more_than_a_twentieth_of_its_embedding_is_zero():
    for zeros, told in ((2, False), (4, True)):
        model = Tiny(vocabulary=10, width=6)
        with torch.no_grad():
            model.embed_tokens.weight.fill_(1).view(-1)[:zeros] = 0
        said = sr.compare(sr.dense(model, name="D")).audit
        assert any("prunes the output head lm_head" in s for s in said) is told
    free = sr.compare(sr.dense(Tiny(tied=False), name="D")).audit
    assert not any("output head lm_head" in sentence for sentence in free)


def test_a_note_that_numbers_are_none_opens_the_audit_as_a_sentence():
    model = Tiny()
    with torch.no_grad():
        model.layers[0]["fc1"].weight[0, 0] = math.inf
    study = sr.compare(sr.dense(model, name="D"))
    (note,) = (note for note in map(str, study.notes) if "0.fc1" in note)
    assert study.audit[0][1:] == f"{note[1:]}."
    assert study.audit[0][0] == note[0].upper() != note[0]


# Whether rounding explains zeros.


@pytest.mark.parametrize(
    ("near", "expected", "verdict"),
    [
        (0.1199, 0.1, "alike"), (0.1201, 0.1, "undecided"), (0.1699, 0.1, "undecided"),
        (0.1701, 0.1, "more"), (0.005, 0.0, "alike"), (0.0051, 0.0, "undecided"),
        (0.02, 0.0, "undecided"), (0.0201, 0.0, "more"),
    ],
)  # fmt: skip
def test_rounding_explains_a_seventh_more_than_a_gaussian_has(near, expected, verdict):
    """And half as much again is clearly more; of few zeros nothing can be told."""
    part = Rounded(True, ["nf4"], 1000, near, near, expected)
    assert rounding_findings._verdict(part) == verdict


@pytest.mark.parametrize(
    ("near", "shown", "hinted"),
    [
        (0.1, "nothing shows that it was pruned", "nothing hints that it was pruned"),
        (0.15, "whether some were zero before cannot be told", "pruned before cannot be told"),
        (0.5, "it was sparse before it was packed", "a hint that it was pruned before"),
    ],
)
def test_what_is_concluded_follows_from_the_numbers(near, shown, hinted):
    parts = [Rounded(exact, ["w4"], 10_000, 0.05 + near / 2, near, 0.1) for exact in (True, False)]
    facts = SimpleNamespace(rounded=lambda _: parts)
    study = SimpleNamespace(variants=pd.DataFrame({"variant": ["D"]}), facts=facts)
    (explained,), (hidden,) = (
        rounding_findings.zeros_explained(study),
        rounding_findings.zeros_hidden(study, "D"),
    )
    assert shown in explained
    assert hinted in hidden
    for said in (explained, hidden):
        assert f"{100 * (0.05 + near / 2):.1f} % of the 10\u202f000 prunable weights of D" in said
        assert "10.0 %" in said
    assert f"{100 * near:.1f} % within half a step" in hidden


@pytest.mark.parametrize(("share", "told"), [(0.0005, 0), (0.0006, 1)])
def test_few_zeros_are_no_question(share, told):
    part = Rounded(True, ["nf4"], 10_000, share, share, share)
    facts = SimpleNamespace(rounded=lambda _: [part])
    study = SimpleNamespace(variants=pd.DataFrame({"variant": ["D"]}), facts=facts)
    assert len([*rounding_findings.zeros_explained(study)]) == told


# What was measured.


def spoken(study, **frames):
    return sr.summarize(put_in(study, **frames))


def test_the_reference_is_the_first_whose_speed_is_always_one():
    frame = latency(("Z", "A", "C"))
    assert reference(frame) == "Z"
    turned = pd.concat([frame[frame["variant"] != "Z"], frame[frame["variant"] == "Z"]])
    assert reference(turned) == "Z"
    two = frame.assign(realised_speedup=frame["realised_speedup"].where(frame["variant"] == "C", 1))
    assert reference(two) == "Z"


def test_speeds_and_texts_are_told_in_the_order_of_their_tables(study):
    said = spoken(study, latency=latency())
    speeds = [
        sentence.split(" runs ")[0].split(" ")[-1]
        for sentence in said
        if " times as fast " in sentence
    ]
    assert speeds == ["CSR30"]
    frames = [quality(names=("Dense", "Masked30", "CSR30")).assign(text=name) for name in "ba"]
    both = spoken(study, quality=pd.concat(frames, ignore_index=True))
    assert [s.split(" ")[2] for s in both if s.startswith("Perplexity on")] == ["b", "a"]


@pytest.mark.parametrize(("parts", "told"), [(1, False), (2, True)])
def test_of_one_part_alone_nothing_is_told(study, parts, told):
    frame = sensitivity(parts).assign(sparsity=1 / 3)
    said = [s for s in spoken(study, sensitivity=frame) if s.startswith("Pruned alone")]
    assert bool(said) is told
    if told:
        assert said[0].startswith("Pruned alone at 33.33 %, block 0 costs most")


def test_where_csr_overtakes_for_no_layer_nothing_is_told(study):
    never = latency().assign(crossover_sparsity=None, crossover_low=0.99, crossover_high=None)
    said = spoken(
        study, latency=never.astype({"crossover_sparsity": "Float64", "crossover_high": "Float64"})
    )
    assert not any("overtake" in sentence for sentence in said)


# Conventions.


def named(*paths):
    root = nn.ModuleDict()
    for path in paths:
        place = root
        *inner, leaf = path.split(".")
        for word in inner:
            if word not in place:
                place[word] = nn.ModuleDict()
            place = place[word]
        place[leaf] = nn.Linear(4, 4)
    return sr.compare(sr.dense(sr.load(root, name="n")))


def test_conventions_are_those_that_matter(study):
    plain = conventions(study)
    for words in ("mixture of experts", "once per sequence", "encoder-decoder"):
        assert not any(words in sentence for sentence in plain)
    for stacks, told in (
        (["encoder"], False),
        (["decoder"], False),
        (["encoder", "decoder"], True),
    ):
        said = conventions(named(*(f"{stack}.layers.fc1" for stack in stacks)))
        assert any("encoder-decoder" in sentence for sentence in said) is told
    config = transformers.BertConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    pooled = sr.compare(sr.dense(sr.load(transformers.BertModel(config), name="b")))
    assert any("once per sequence" in sentence for sentence in conventions(pooled))


# What changed.


def test_facts_of_the_whole_study_are_named(weights):
    before, after = (study_of(weights, convention=c, context=n) for c, n in
                     (("standard", None), ("notebook", 8)))  # fmt: skip
    said = sr.diff(before, after).sentences()
    assert said[:2] == [
        "study, convention: standard → notebook", "study, positions of context: – → 8",
    ]  # fmt: skip


def test_changes_are_told_in_the_order_of_the_studies(weights):
    prunings = [sr.global_magnitude(weights, share) for share in (0.3, 0.5)]
    before, after = (
        sr.compare(*(sr.masked(pruning, name=name) for name in "ZA")) for pruning in prunings
    )
    everything = sr.diff(before, after).sentences()
    # Both are one pruning, whose zeros are told once.
    assert {s[0] for s in everything if s[1] == ":"} == {"Z"}
    said = [s for s in everything if s[1] != ":"]
    whole = [s for s in said if " modules, first " not in s]
    assert [s[0] for s in whole] == sorted((s[0] for s in whole), reverse=True)
    modules = [s for s in said if " modules, first " in s]
    assert [s[0] for s in modules] == ["Z", "Z", "A", "A"]
    assert [s.split(" of ")[0][3:] for s in modules[:2]] == ["nonzero", "useful FLOPs per token"]


def test_the_first_module_that_changed_is_named(study):
    layers = study.layers.copy()
    inside = (layers["variant"] == "Dense") & layers["module_name"].str.endswith("fc2")
    layers.loc[inside, "stored_bytes"] += 8
    (said,) = [
        s for s in sr.diff(study, dataclasses.replace(study, layers=layers)).sentences()
        if "modules" in s
    ]  # fmt: skip
    first = layers[inside].iloc[0]
    assert said == (
        f"Dense, stored bytes of 2 modules, first {first['module_name']}: "
        f"{first['stored_bytes'] - 8} → {first['stored_bytes']}"
    )
