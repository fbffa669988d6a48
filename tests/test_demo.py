import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparsity_report.files.package_data import DEMO


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(DEMO).eval()


def test_small_enough_to_ship():
    assert sum(f.stat().st_size for f in DEMO.iterdir()) <= 4_000_000
    assert not list(DEMO.glob("*.py"))


def test_parameters(demo, model):
    width, hidden = 128, 512
    block = 4 * (width**2 + width) + 2 * width * hidden + hidden + width + 4 * width
    total = 1024 * width + (256 + 2) * width + 4 * block + 2 * width
    assert total == model.num_parameters() == sum(p.total for p in demo.stored) == 957_440


def perplexity(model, text, window=256):
    """Exp of the mean negative log likelihood; windows do not overlap, written out plainly."""
    ids = AutoTokenizer.from_pretrained(DEMO)(text, return_tensors="pt", verbose=False)["input_ids"]
    losses, scored = 0.0, 0
    for start in range(0, ids.shape[1], window):
        piece = ids[:, start : start + window]
        if piece.shape[1] < 2:
            continue
        with torch.no_grad():
            log_p = torch.log_softmax(model(piece).logits[0, :-1].double(), dim=-1)
        losses -= float(log_p.gather(1, piece[0, 1:, None]).sum())
        scored += piece.shape[1] - 1
    return math.exp(losses / scored)


def test_it_is_really_trained(model):
    """The card's perplexity, computed anew; untrained it would be about the vocabulary, 1,024."""
    text = (DEMO / "eval.txt").read_text(encoding="utf-8")
    card = (DEMO / "README.md").read_text(encoding="utf-8")
    stated = float(card.split("`eval.txt` perplexity |")[1].split("|")[0])
    assert perplexity(model, text) == pytest.approx(stated, rel=1e-3)
    assert stated < 25
