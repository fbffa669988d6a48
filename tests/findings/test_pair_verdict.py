"""Verdicts on pairs whose fate of zeros and weights is chosen here."""

import copy
import re
from dataclasses import replace

import hostile
import packing
import pairs
import pytest
import structural
import torch
import transformers
from helpers import Tiny
from safetensors.torch import load_file, save_file
from structural import Left
from torch import nn
from wording import count_of, of_key

import sparsity_report as sr
from sparsity_report.findings.checkpoint_findings import (
    checkpoint_topics,
    checkpoint_verdict,
    share_of,
)  # fmt: skip
from sparsity_report.findings.strip_text import strip_texts
from sparsity_report.findings.study_findings import study_findings
from sparsity_report.report.tables.checkpoint_tables import changes
from sparsity_report.words.sentences import say, says

PRUNABLE = 2 * (6 * 6 + 2 * 6 * 10)


def model_of(change=None):
    """A model half of whose weights are zero, after a change of its first prunable matrix."""
    torch.manual_seed(0)
    model = Tiny()
    sr.global_magnitude(sr.load(model), 0.5).apply_(model)
    with torch.no_grad():
        if change:
            change(next(m for m in model.modules() if isinstance(m, nn.Linear)).weight)
    return sr.load(model, name="m")


def dense(change=None):
    torch.manual_seed(0)
    model = Tiny()
    with torch.no_grad():
        if change:
            change(model)
    return sr.load(model, name="dense")


def revive(number):
    def change(weight):
        flat = weight.view(-1)
        flat[(flat == 0).nonzero()[:number, 0]] = 1.0

    return change


def compared(change=None):
    return sr.compare_checkpoints(model_of(), model_of(change))


@pytest.mark.parametrize("number", [1, 5, 9])
def test_revived_zeros_come_first(number):
    """No pair says that nothing changed while pruned weights came back."""
    first, *others = checkpoint_verdict(compared(revive(number)))
    share = f"{100 * number / (PRUNABLE // 2):.1f} %"
    assert first == f"{share} of the {PRUNABLE // 2} pruned weights came back."
    assert others == [say("pair.weights_unchanged")]


def test_all_zeros_may_come_back():
    pair = sr.compare_checkpoints(model_of(), dense())
    assert checkpoint_verdict(pair)[0] == f"All {PRUNABLE // 2} pruned weights came back."


def test_zeros_that_stayed_and_others():
    def prune(weight):
        weight.zero_()

    pair = compared(prune)
    new = int(pair.matches["new"].sum())
    assert 0 < new < 36
    stayed, added = checkpoint_verdict(pair)
    assert count_of(stayed, "pair.verdict_zeros_stayed", "zeros") == PRUNABLE // 2
    assert added == say("pair.verdict_zeros_added", new=new, share=new / (PRUNABLE // 2))
    back = sr.compare_checkpoints(dense(), model_of())
    assert checkpoint_verdict(back)[0] == f"50.0 % of the {PRUNABLE} prunable weights became zero."


def test_layers_with_the_largest_share_are_named_whatever_their_size():
    """Shares of matrices of several sizes, against numbers of weights."""
    first = next(p for p in model_of().parameters if p.prunable)
    zeros = int((model_of().tensor(first.name) == 0).sum())
    for number in (1, 5):
        topics = checkpoint_topics(compared(revive(number)))
        (named,) = of_key(topics["where"], "pair.largest_revived_share")
        modules, share = [first.name.removesuffix(".weight")], number / zeros
        assert named == say("pair.largest_revived_share", modules=modules, share=share)


def test_all_layers_that_share_the_largest_share_are_named(demo):
    """Half of each matrix becomes zero in two layers of unlike sizes, a quarter in a third."""
    names = ["0.self_attn.k_proj", "1.fc2", "0.fc1"]
    changed = sr.load().module()
    for name, number in zip(names, (8192, 32768, 16384), strict=True):
        weight = changed.get_submodule(f"model.decoder.layers.{name}").weight
        with torch.no_grad():
            weight.view(-1)[:number] = 0
    pair = sr.compare_checkpoints(demo, sr.load(changed))
    (named,) = of_key(checkpoint_topics(pair)["where"], "pair.largest_new_share")
    modules = [f"model.decoder.layers.{name}" for name in names[:2]]
    assert named == say("pair.largest_new_share", modules=modules, share=0.5)


def test_identical_weights_are_not_merely_unchanged():
    assert checkpoint_verdict(compared()) == [say("pair.verdict_identical")]
    shifted = dense(lambda model: model.layers[0]["norm"].bias.add_(1))
    (other,) = checkpoint_verdict(sr.compare_checkpoints(dense(), shifted))
    assert other == say("pair.verdict_others_changed", modules=1)


def test_other_modules_change_beside_surviving_weights():
    """No sentence says that weights kept their values where some became zero."""

    def change(model):
        model.layers[0]["norm"].bias.add_(1)
        next(m for m in model.modules() if isinstance(m, nn.Linear)).weight[0] = 0

    zeros, others = checkpoint_verdict(sr.compare_checkpoints(dense(), dense(change)))
    assert says(zeros, "pair.verdict_zeros_new")
    assert others.startswith("The surviving prunable weights kept their values, but 1 other")


def test_a_change_of_type_is_a_change_of_size():
    pair = sr.compare_checkpoints(dense(), dense(lambda model: model.half()))
    (smaller,) = of_key(checkpoint_verdict(pair), "pair.verdict_size_smaller")
    assert smaller == say("pair.verdict_size_smaller", share=0.5)


def test_the_size_of_a_quantized_copy_is_that_of_its_file(tmp_path):
    packed, plain = packing.packed_llama(tmp_path, "nf4")
    pair = sr.compare_checkpoints(plain, packed)
    files = [load_file(folder / "model.safetensors") for folder in (plain, packed)]
    before, after = (sum(tensor.nbytes for tensor in file.values()) for file in files)
    assert after < before
    share = f"{100 * (1 - after / before):.0f}"
    assert checkpoint_verdict(pair)[1] == f"The stored model is {share} % smaller."
    tile = strip_texts(pair.facts)[-1]
    assert tile["number"] == f"{before / 1000:.0f}\u202fkB → {after / 1000:.1f}\u202fkB"
    rows = {row.cells[0].text: [c.text for c in row.cells[1:3]] for row in changes(pair).rows}
    assert [int(re.sub(r"\s", "", n)) for n in rows["Bytes in the file"]] == [before, after]
    # A pruning in memory has no file.
    pruned = sr.compare_checkpoints(packed, sr.global_magnitude(sr.load(packed), 0.5))
    assert strip_texts(pruned.facts)[-1]["number"] == say("strip.unknown")


def test_routers_without_the_rows_of_removed_experts_did_not_change(tmp_path):
    base = structural.base_of("mixtral", tmp_path / "base")
    left = Left(experts=[7, 0, 1, 3, 4, 6], config={"num_local_experts": 6})
    after = structural.pruned(base, tmp_path / "after", left)
    lost, unchanged = checkpoint_verdict(sr.compare_checkpoints(base, after))
    assert lost.startswith("The model lost 2 of 8 experts in every block")
    assert unchanged == say("pair.weights_unchanged")
    tensors = load_file(after / "model.safetensors")
    gate = next(name for name in tensors if name.endswith("gate.weight"))
    tensors[gate][0, 0] += 1
    save_file(tensors, after / "model.safetensors", metadata={"format": "pt"})
    _, changed = checkpoint_verdict(sr.compare_checkpoints(base, after))
    assert changed == say("pair.verdict_others_changed", modules=1)


def test_a_certainty_is_not_rounded_up(demo):
    """At least 99.9 % is not said of 0.9896, and not “at least > 99.9 %”."""
    for certainty, text in ((0.98960, "98.9"), (0.99987, "99.9")):
        pair = pairs.two_policies(demo, [pairs.gone("head", pairs.LOST, 1, 8, 2, certainty)])
        (said,) = of_key(checkpoint_topics(pair)["removed"], "pair.matched_by_values")
        assert re.search(rf"with a certainty of at least {text}\s%\.$", said)


def test_tables_and_captions_speak_of_zeros_only_where_there_are_some(tmp_path):
    base = structural.base_of("llama", tmp_path / "base")
    left = Left(blocks=[0, 1, 3], config={"num_hidden_layers": 3})
    pair = sr.compare_checkpoints(base, structural.pruned(base, tmp_path / "after", left))
    text = sr.write_report(pair, tmp_path / "pair.html").read_text(encoding="utf-8")
    assert say("caption.pair_blocks_removed") in text
    for key in ("caption.pair_blocks", "caption.zero_survival"):
        assert say(key) not in text
    assert say("pair.removed_names_note") in text
    assert say("convention.csr_bytes") not in text
    same = sr.compare_checkpoints(base, base)
    assert study_findings(same) == [say("pair.verdict_identical")]
    text = sr.write_report(same, tmp_path / "same.html").read_text(encoding="utf-8")
    assert say("pair.removed_names_note") not in text


def test_removed_blocks_and_their_parameters():
    torch.manual_seed(0)
    base, smaller = Tiny(), Tiny(blocks=1)
    smaller.load_state_dict(base.state_dict(), strict=False)
    pair = sr.compare_checkpoints(sr.load(base, name="b"), sr.load(smaller, name="s"))
    (lost,) = of_key(checkpoint_verdict(pair), "pair.verdict_parts_removed")
    before, after = (sum(p.numel() for p in m.parameters()) for m in (base, smaller))
    share = f"{100 * (1 - after / before):.0f}"
    assert lost == f"The model lost 1 of 2 blocks and has {share} % fewer parameters."


def test_blocks_of_an_encoder_are_not_every_block():
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    base = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, vocab_size=64))
    smaller = copy.deepcopy(base)
    for stack, where in (("encoder", "2 blocks"), ("decoder", "every block")):
        for block in getattr(smaller, stack).block:
            feed_forward = block.layer[-1].DenseReluDense
            feed_forward.wi.weight = nn.Parameter(feed_forward.wi.weight[:40])
            feed_forward.wo.weight = nn.Parameter(feed_forward.wo.weight[:, :40])
        pair = sr.compare_checkpoints(sr.load(base, name="b"), sr.load(smaller, name="s"))
        assert "lost 24 of 64 channels in " + where in checkpoint_verdict(pair)[0]


def test_nothing_is_left_nothing_was_prunable_and_hostile_names():
    pair = compared(revive(3))
    empty = {"weight_after": 0, "compared": 0, "kept": 0, "revived": 0, "new": 0, "changed": 0}
    matches = pair.matches.assign(**empty, alignment="removed")
    is_left = pair.layers["variant"].eq("Before") | ~pair.layers["prunable"]
    gone = replace(pair, matches=matches, layers=pair.layers[is_left])
    assert checkpoint_verdict(gone)[0] == f"All {PRUNABLE} prunable weights were removed."
    scaled = nn.LayerNorm(4)
    nn.init.constant_(scaled.weight, 2)
    pair = sr.compare_checkpoints(sr.load(nn.LayerNorm(4), name="n"), sr.load(scaled, name="n"))
    assert checkpoint_verdict(pair)[0] == say("pair.verdict_nothing_prunable", before="n")
    named = replace(pair, variants=pair.variants.assign(model=hostile.NAMES[:2]))
    for sentence in named.sentences():
        assert not hostile.UNSEEN.search(sentence)


def test_shares_are_written_so_that_a_sentence_can_start_with_them():
    weights = say("pair.prunable_weights")
    for number in (1, 4, 5, 4321, 9994, 9995, 9996, 9999, 10_000):
        text = share_of(number, 10_000, weights)
        assert text[0] not in "<>"
        if number < 5:
            assert text.startswith(f"{number} of the ")
        elif number <= 9995:
            shown = float(text.partition(" of ")[0].replace("%", ""))
            assert shown == pytest.approx(number / 100, abs=0.05)
        else:
            assert text.startswith(f"all but {10_000 - number} " if number < 10_000 else "all 10")
