"""Verdicts on pairs whose fate of zeros and weights is chosen here."""

import copy
from dataclasses import replace

import hostile
import pytest
import torch
import transformers
from helpers import Tiny
from torch import nn
from wording import count_of, of_key

import sparsity_report as sr
from sparsity_report.findings.checkpoint_findings import (
    checkpoint_topics,
    checkpoint_verdict,
    share_of,
)
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
    assert added == say("pair.verdict_zeros_added", new=new, share=new / PRUNABLE)
    back = sr.compare_checkpoints(dense(), model_of())
    assert checkpoint_verdict(back)[0] == f"50.0 % of the {PRUNABLE} prunable weights became zero."


def test_layer_with_most_revived_weights_is_named():
    first = next(p for p in model_of().parameters if p.prunable)
    zeros = int((model_of().tensor(first.name) == 0).sum())
    for number in (1, 5):
        (named,) = of_key(checkpoint_topics(compared(revive(number)))["where"], "pair.most_revived")
        module, share = first.name.removesuffix(".weight"), number / zeros
        numbers = {"zeros": zeros, "nonzero": first.total - zeros}
        assert named == say("pair.most_revived", module=module, share=share, **numbers)


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
