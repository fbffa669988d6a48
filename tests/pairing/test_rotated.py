"""A rotated width, cut or not, is recognized and not compared."""

import json

import pytest
import structural
import torch
from safetensors.torch import load_file
from structural import WIDTH, Left, shuffled, written
from wording import of_key, values_of

import sparsity_report as sr
from sparsity_report.findings.pair_findings import pair_findings, pair_verdict
from sparsity_report.words.sentences import says

WIDE = ("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
NARROW = ("o_proj", "down_proj")


def orthogonal(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))[0]


def rotated(base, folder, left, per_block=True):
    """Rotate the width like SliceGPT, by one matrix per block, and cut its end off."""
    tensors = {}
    for name, values in load_file(base / "model.safetensors").items():
        words = name.split(".")
        block = int(words[2]) + 1 if "layers" in words and per_block else 0
        turn = orthogonal(block)[:, :left]
        if any(word in name for word in WIDE):
            tensors[name] = (values.double() @ turn).float()
        elif any(word in name for word in NARROW):
            tensors[name] = (turn.T @ values.double()).float()
        else:
            tensors[name] = torch.ones(left)  # norms are in the matrices that follow
    if per_block:
        for block in range(4):
            turn = orthogonal(block)[:, :left].T @ orthogonal(block + 1)[:, :left]
            tensors[f"model.layers.{block}.attn_shortcut_Q"] = turn.float()
    config = json.loads((base / "config.json").read_text()) | {"hidden_size": left}
    return written(folder, tensors, None if per_block else config)


@pytest.mark.parametrize(("left", "per_block"), [(56, True), (56, False), (64, False)], ids=str)
def test_rotated(bases, tmp_path, left, per_block):
    base = bases("llama")
    pair = sr.compare_checkpoints(base, rotated(base, tmp_path / "after", left, per_block))
    layers, share = pair.layers, (WIDTH - left) / WIDTH
    wide = layers[layers["weight_before"] > 0]
    assert (wide["alignment"] == "rotated").all()
    assert (layers["compared"] == 0).all()
    assert layers["iou"].isna().all()
    assert layers["relative_change"].isna().all()
    assert not layers["untouched"].any()
    assert pair.survival["kept_share"].isna().all()
    # Every matrix and every norm has one side in the width.
    added = layers.loc[layers["alignment"] == "added", "weight_after"].sum()
    assert added == (4 * left * left if per_block else 0)
    totals = pair.totals.set_index("figure")
    assert totals.loc["prunable_weights", "share"] == share
    assert pair.taken == totals.loc["prunable_weights", "removed"]
    assert totals.loc["parameters", "removed"] + added == share * wide["weight_before"].sum()
    for column, figure in (("parameters", "parameters"), ("bytes", "stored_bytes")):
        size = 4 if column == "bytes" else 1
        assert pair.removed[column].sum() == totals.loc[figure, "removed"] + size * added
    if not per_block:
        assert pair.removed["flops_per_token"].sum() == totals.loc["flops_per_token", "removed"]
    assert len(pair.removed) == WIDTH - left
    assert pair.removed["index"].isna().all()
    assert (pair.removed["certainty"] == 0).all()
    sentences = pair.sentences()
    parent = pair.sparsities.set_index("of")["gone_of_base"]
    assert parent["prunable"] == (share if share else 0)
    assert parent.isna().any() == per_block
    if per_block:
        assert "model.layers.0.attn_shortcut_Q" in set(layers["module_name"])
    assert of_key(pair_findings(pair), "pair.rotated_width")
    assert not of_key(pair_findings(pair), "pair.matched_by_values")
    pair.save(tmp_path / "pair.json")
    assert sr.read_pair(tmp_path / "pair.json").sentences() == sentences
    assert says(pair_verdict(pair)[0], "pair.verdict_rotated")
    key = "pair.removed_rest_dense"
    shares = [values_of(finding, key)["share"] for finding in of_key(pair_findings(pair), key)]
    assert shares == ([f"{100 * share:.1f}"] if left < WIDTH else [])


def test_a_rotation_with_fewer_heads_is_refused(bases, tmp_path):
    """Removed heads cannot be identified in a rotated width."""
    fewer = Left(heads=[0, 1, 3, 4, 6, 7], config={"num_attention_heads": 6})
    less = structural.pruned(bases("llama"), tmp_path / "fewer", fewer)
    with pytest.raises(sr.SparsityReportError, match="looks rotated, so that nothing tells which"):
        sr.compare_checkpoints(bases("llama"), rotated(less, tmp_path / "after", 56, False))


def test_cut_or_permuted_and_changed_widths_are_not_rotated(bases, tmp_path):
    for order, number in ((shuffled(48, 64), 48), (shuffled(64, 64), 64)):
        left = Left(width=order, noise=0.3, config={"hidden_size": number})
        after = structural.pruned(bases("llama"), tmp_path / str(number), left)
        pair = sr.compare_checkpoints(bases("llama"), after)
        assert pair.removed["index"].tolist() == sorted(set(range(64)) - set(order))
        assert not (pair.layers["alignment"] == "rotated").any()


@pytest.mark.parametrize("left", [48, 64])
def test_norms_that_are_all_one_tell_nothing(bases, tmp_path, left):
    """Two unrelated models with one vocabulary and norms of ones are refused."""

    def plain(tensors):
        return {name: torch.ones_like(v) if v.ndim == 1 else v for name, v in tensors.items()}

    config = json.loads((bases("llama") / "config.json").read_text())
    tensors = plain(load_file(bases("llama") / "model.safetensors"))
    one = written(tmp_path / "one", tensors, config)
    generator = torch.Generator().manual_seed(1)
    cut = {
        name: 0.02 * torch.randn([left if n == 64 else n for n in v.shape], generator=generator)
        for name, v in tensors.items()
    }
    other = written(tmp_path / "other", plain(cut))
    with pytest.raises(sr.SparsityReportError, match="look unrelated"):
        sr.compare_checkpoints(one, other)
