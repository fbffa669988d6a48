"""A rotated width, and channels without evidence, are recognized and refused."""

import pytest
import structural
import torch
from structural import WIDTH, Left, shuffled, written

import sparsity_report as sr

WIDE = ("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
NARROW = ("o_proj", "down_proj")


def orthogonal(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))[0]


def rotated(base, folder, left, per_block=True):
    """Rotate the width like SliceGPT, by one matrix per block, and cut its end off."""
    (before, config), tensors = structural.read(base), {}
    for name, values in before.items():
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
    return written(folder, tensors, None if per_block else config | {"hidden_size": left})


@pytest.mark.parametrize(("left", "per_block"), [(56, True), (56, False), (64, False)], ids=str)
def test_rotated(bases, tmp_path, left, per_block):
    base = bases("llama")
    after = rotated(base, tmp_path / "after", left, per_block)
    with pytest.raises(sr.SparsityReportError, match="width looks rotated") as error:
        sr.compare_checkpoints(base, after)
    assert str(error.value).isprintable()


def test_cut_or_permuted_and_changed_widths_are_not_rotated(bases, tmp_path):
    for order, number in ((shuffled(48, 64), 48), (shuffled(64, 64), 64)):
        left = Left(width=order, noise=0.3, config={"hidden_size": number})
        after = structural.pruned(bases("llama"), tmp_path / str(number), left)
        pair = sr.compare_checkpoints(bases("llama"), after)
        assert pair.removed["index"].tolist() == sorted(set(range(64)) - set(order))


@pytest.mark.parametrize("left", [48, 64])
def test_constant_norms_are_no_evidence(bases, tmp_path, left):
    """Two unrelated models with one vocabulary and norms of ones are refused."""

    def plain(tensors):
        return {name: torch.ones_like(v) if v.ndim == 1 else v for name, v in tensors.items()}

    tensors, config = structural.read(bases("llama"))
    one = written(tmp_path / "one", plain(tensors), config)
    generator = torch.Generator().manual_seed(1)
    cut = {
        name: 0.02 * torch.randn([left if n == 64 else n for n in v.shape], generator=generator)
        for name, v in tensors.items()
    }
    other = written(tmp_path / "other", plain(cut))
    with pytest.raises(sr.SparsityReportError, match="look unrelated"):
        sr.compare_checkpoints(one, other)


@pytest.mark.parametrize(
    ("width", "tokens", "why"),
    [(48, 70, "both the width and the vocabulary were cut"), (64, 96, "look unrelated")],
)
def test_channels_without_evidence_are_refused(bases, tmp_path, width, tokens, why):
    """Neither the first tokens nor anything before the channels is where it was."""
    left = Left(
        width=shuffled(width, 64), vocabulary=shuffled(tokens, 96, 4),
        config={"hidden_size": width, "vocab_size": tokens},
    )  # fmt: skip
    after = structural.pruned(bases("llama"), tmp_path / "after", left)
    with pytest.raises(sr.SparsityReportError, match=why):
        sr.compare_checkpoints(bases("llama"), after)
