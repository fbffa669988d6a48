"""Permuted units are aligned by their values, and unpermuted ones stay in place."""

import re

import pytest
import structural
import torch
from safetensors.torch import load_file
from structural import Left, fused, renamed, shuffled, turned, written
from wording import count_of, of_key, values_of

import sparsity_report as sr
from sparsity_report.findings.study_findings import study_findings

BLOCKS, HEADS, KV, EXPERTS = [2, 0, 3, 1], shuffled(8, 8), [3, 1, 0, 2], shuffled(8, 8)
ORDERS = {
    ("llama", "blocks"): Left(blocks=BLOCKS),
    ("llama", "heads"): Left(heads=HEADS),
    ("llama", "key-value heads"): Left(kv_heads=KV),
    ("llama", "channels"): Left(channels=shuffled(128, 128)),
    ("llama", "tokens"): Left(vocabulary=shuffled(96, 96)),
    ("llama", "channels of the width"): Left(width=shuffled(64, 64)),
    ("mixtral", "experts"): Left(experts=EXPERTS),
    ("mixtral", "channels"): Left(channels=shuffled(32, 32)),
    ("gpt2", "heads"): Left(heads=HEADS),
    ("bert", "channels"): Left(channels=shuffled(128, 128)),
    ("llama", ""): Left(
        blocks=BLOCKS, heads=HEADS, kv_heads=KV, channels=shuffled(128, 128),
        width=shuffled(64, 64),
    ),
    ("mixtral", ""): Left(
        blocks=BLOCKS, heads=HEADS, experts=EXPERTS, channels=shuffled(32, 32),
        vocabulary=shuffled(96, 96),
    ),
    ("gpt2", ""): Left(blocks=BLOCKS, channels=shuffled(128, 128), heads=HEADS),
}  # fmt: skip
NAMES = {
    "blocks": "blocks", "heads": "heads", "kv_heads": "key-value heads", "channels": "channels",
    "experts": "experts", "vocabulary": "tokens", "width": "channels of the width",
}  # fmt: skip


def moved(pair):
    """Units in another order, and how many there are, by their name."""
    key = "note.moved_units"
    return {
        values_of(note, key)["units"]: tuple(count_of(note, key, n) for n in ("moved", "total"))
        for note in of_key(pair.notes, key)
    }


def due(kind, left):
    """The notes due: every kind of unit but three is in each of four blocks."""
    notes = {}
    for name, units in NAMES.items():
        if (order := getattr(left, name)) is None:
            continue
        places = 1 if name in {"blocks", "vocabulary", "width"} else 4
        if kind == "mixtral" and name == "channels":
            places *= 8
        elsewhere = sum(number != place for place, number in enumerate(order))
        notes[units] = (places * elsewhere, places * len(order))
    return notes


@pytest.mark.parametrize(
    ("kind", "axis", "noise"),
    [(*which, noise) for which in ORDERS for noise in ((0.0,) if which[1] else (0.0, 0.01))],
    ids=str,
)
def test_another_order(bases, tmp_path, kind, axis, noise):
    left = ORDERS[kind, axis]
    left.noise = noise
    pair = sr.compare_checkpoints(
        bases(kind), structural.pruned(bases(kind), tmp_path / "after", left)
    )
    layers = pair.matches
    assert pair.removed.empty
    assert moved(pair) == due(kind, left)
    message = [sentence for sentence in pair.sentences() if "in another order than" in sentence]
    assert len(message) == len(due(kind, left))
    assert layers["compared"].equals(layers["weight_before"])
    assert layers["compared"].equals(layers["weight_after"])
    assert set(layers["alignment"]) <= {"name", "reordered"}
    assert "reordered" in set(layers["alignment"])
    if noise:
        there = layers[layers["compared"] > 1000]
        assert (there["relative_change"] < 0.012).all()
        assert ((layers["certainty"] > 0.9) & (layers["certainty"] <= 1)).all()
    else:
        assert layers["untouched"].all()
        assert (layers["certainty"] == 1).all()


def changed(base, folder, change):
    """Write a base with other values for some of its tensors."""
    tensors, config = structural.read(base)
    change(tensors)
    return written(folder, tensors, config)


FFN = [f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")]


def dead(tensors):
    for name in FFN:
        tensors[name][:] = 0


def of_one_value(tensors):
    for name in FFN:
        tensors[name][:] = 0.01


def anew(tensors):
    torch.manual_seed(5)
    for name in FFN:
        tensors[name] = 0.02 * torch.randn_like(tensors[name])


def copied(tensors):
    """A copy of channel 5 in the place of channel 3 is no permutation."""
    for name in FFN:
        rows = tensors[name].T if "down" in name else tensors[name]
        rows[3] = rows[5]


def half_dead(tensors):
    for name in FFN:
        (tensors[name].T if "down" in name else tensors[name])[::2] = 0


def swapped(tensors):
    """Equal units that swap places are not moved."""
    one, other = tensors[FFN[0]][3].clone(), tensors[FFN[0]][5].clone()
    tensors[FFN[0]][3], tensors[FFN[0]][5] = other, one


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (dead, dead), (dead, anew), (anew, dead), (of_one_value, of_one_value), (copied, copied),
        (None, anew), (None, copied), (None, dead), (None, half_dead), (half_dead, None),
        (None, of_one_value), (copied, swapped),
    ],
    ids=lambda change: getattr(change, "__name__", "-"),
)  # fmt: skip
def test_values_without_evidence_keep_their_order(bases, tmp_path, before, after):
    one, other = bases("llama"), bases("llama")
    if before is not None:
        one = other = changed(one, tmp_path / "before", before)
    if after is not None:
        other = changed(other if after is swapped else bases("llama"), tmp_path / "after", after)
    pair = sr.compare_checkpoints(one, other)
    assert not moved(pair)
    assert pair.removed.empty
    assert set(pair.matches["alignment"]) == {"name"}
    assert (pair.matches["certainty"] == 1).all()


def test_equal_experts_keep_their_places(bases, tmp_path):
    def alike(tensors):
        for name in tensors:
            if ".experts." in name or "block_sparse_moe.gate" in name:
                same = re.sub(r"experts\.\d", "experts.0", name)
                tensors[name] = tensors[same].clone() if ".experts." in name else tensors[name] * 0

    one = changed(bases("mixtral"), tmp_path / "one", alike)
    pair = sr.compare_checkpoints(
        one, structural.pruned(one, tmp_path / "other", Left(experts=EXPERTS))
    )
    assert not moved(pair)
    assert pair.matches["untouched"].all()
    left = Left(experts=EXPERTS[:6], config={"num_local_experts": 6})
    cut = sr.compare_checkpoints(one, structural.pruned(one, tmp_path / "cut", left))
    assert not moved(cut)
    assert (cut.removed["certainty"] == 0.25).all()  # two of eight, whichever they are
    assert cut.matches["changed"].sum() == 0


@pytest.mark.parametrize("value", [None, 0.0], ids=["copied", "zero"])
@pytest.mark.parametrize(("copies", "left"), [((1, 2), 3), ((0, 1, 2, 3), 2)], ids=str)
def test_one_of_several_blocks_alike_is_gone(bases, tmp_path, value, copies, left):
    def alike(tensors):
        for name in tensors:
            number = re.search(r"layers\.(\d)", name)
            if number and int(number[1]) in copies:
                source = name.replace(number[0], f"layers.{copies[0]}")
                tensors[name] = tensors[source] * (1 if value is None else value)

    one = changed(bases("llama"), tmp_path / "one", alike)
    kept = Left(blocks=[*range(left - 1), 3], config={"num_hidden_layers": left})
    pair = sr.compare_checkpoints(one, structural.pruned(one, tmp_path / "other", kept))
    assert set(pair.removed["kind"]) == {"block"}
    assert (pair.removed["certainty"] == 0.5).all()
    assert pair.matches["changed"].sum() == pair.matches["revived"].sum() == 0
    assert not moved(pair)
    assert any("certain" in text and "50.0" in text for text in pair.sentences())


def test_a_nearly_empty_model_is_related(bases, tmp_path):
    """A model with one percent of the base's weights is still related to it."""
    generator = torch.Generator().manual_seed(2)

    def sparse(tensors):
        for values in tensors.values():
            if values.ndim == 2:
                values.mul_(torch.rand(values.shape, generator=generator) < 0.003)

    pair = sr.compare_checkpoints(bases("llama"), changed(bases("llama"), tmp_path / "a", sparse))
    assert set(pair.matches["alignment"]) == {"name"}
    assert pair.matches["changed"].sum() == 0
    assert not of_key(study_findings(pair), "pair.unrelated_values")


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(
    ("kind", "other"), [("llama", renamed), ("llama", fused), ("gpt2", turned)],
    ids=lambda value: getattr(value, "__name__", value),
)  # fmt: skip
def test_permutation_between_naming_conventions(bases, tmp_path, kind, other, back):
    """Permuted units are found in renamed, fused, split or transposed parameters, too."""
    left = Left(blocks=BLOCKS, heads=HEADS, channels=shuffled(128, 128))
    if kind == "llama":
        left.kv_heads = KV
    after = structural.pruned(bases(kind), tmp_path / "after", left)
    models = [bases(kind), after]
    tensors = other(load_file(models[back] / "model.safetensors"))
    models[back] = written(tmp_path / "other", tensors)
    pair = sr.compare_checkpoints(*models)
    assert pair.removed.empty
    assert pair.matches["untouched"].all()
    assert pair.matches["weight_before"].equals(pair.matches["compared"])
    assert moved(pair) == due(kind, left)


def test_cut_and_fused(bases, tmp_path):
    left = Left(blocks=[0, 1, 3], heads=HEADS[:6], kv_heads=[3, 1], channels=shuffled(96, 128))
    after = structural.pruned(bases("llama"), tmp_path / "after", left)
    tensors = fused(load_file(after / "model.safetensors"))
    pair = sr.compare_checkpoints(bases("llama"), written(tmp_path / "fused", tensors))
    due = {"block": [2], "head": sorted(HEADS[6:]), "kv_head": [0, 2]}
    due["channel"] = sorted(set(range(128)) - set(left.channels))
    for (kind, _), rows in pair.removed.groupby(["kind", "module"]):
        assert sorted(rows["index"]) == due[kind]
    assert set(pair.removed["kind"]) == set(due)
    assert pair.matches["changed"].sum() == 0
