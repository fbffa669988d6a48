"""How far variants are from dense, against numbers computed alone in double precision."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import small_llama
from scoring import log_probabilities

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.measure import perplexity

TEXT = (DEMO / "eval.txt").read_text(encoding="utf-8")[:700]


@pytest.mark.parametrize(
    ("window", "stride", "kept"), [(64, 64, 2**27), (64, 24, 2**27), (64, 24, 1)]
)
def test_equals_numpy(demo, monkeypatch, window, stride, kept):
    monkeypatch.setattr(perplexity, "KEPT", kept)  # of 1 each batch is a part of its own
    prunings = [sr.global_magnitude(demo, share) for share in (0.3, 0.8)]
    variants = [sr.masked(prunings[0]), sr.csr(prunings[1]), sr.dense(demo), sr.masked(prunings[1])]
    frame = sr.perplexity(variants, TEXT, window=window, stride=stride)
    ids = demo.tokenizer()(TEXT, return_tensors="pt")["input_ids"][0]
    dense, targets = log_probabilities(demo.module().eval(), ids, window, stride)
    assert frame["against"].tolist() == ["Dense"] * 4
    for row, variant in zip(frame.itertuples(), variants, strict=True):
        other, _ = log_probabilities(variant.module().eval(), ids, window, stride)
        kl = (np.exp(dense) * (dense - other)).sum(axis=1).mean()
        guesses = [each.argmax(axis=1) for each in (dense, other)]
        right = [guess == targets for guess in guesses]
        assert row.scored == len(targets)
        assert row.kl == pytest.approx(kl, rel=1e-4, abs=1e-9)
        assert row.agreement == pytest.approx((guesses[0] == guesses[1]).mean())
        assert row.flips == pytest.approx((right[0] != right[1]).mean())
        assert row.nll == pytest.approx(-other[range(len(targets)), targets].mean(), rel=1e-5)
    dense = frame.loc[2, ["kl", "agreement", "flips"]].tolist()
    assert dense == [0.0, 1.0, 0.0]
    assert frame["kl"][3] > 10 * frame["kl"][0] > 0


def test_variants_without_a_dense_one_have_no_distance(demo):
    pruning = sr.global_magnitude(demo, 0.5)
    other = sr.load(sr.masked(pruning).module(), name="pruned elsewhere")
    variants = [sr.masked(pruning), sr.csr(pruning), sr.dense(other, name="Wanda50")]
    frame = sr.perplexity(variants, TEXT[:300], tokenizer=demo.tokenizer())
    unknown = frame[["against", "kl", "agreement", "flips"]]
    assert unknown.isna().all(axis=None)


COMPARED = ["kl", "agreement", "flips", "nll", "span_kl", "span_agreed"]


def test_a_pruned_checkpoint_has_the_distance_of_its_pruning(demo):
    """``run BASE PRUNED --perplexity``: two files, whose logits are those of one model pruned."""
    pruning = sr.global_magnitude(demo, 0.5)
    module, tokenizer = sr.masked(pruning).module(), demo.tokenizer()
    other = sr.dense(sr.load(module, name="pruned"), name="Pruned")
    frame = sr.perplexity([sr.dense(demo), other], TEXT, window=64, tokenizer=tokenizer)
    expected = sr.perplexity([sr.dense(demo), sr.masked(pruning)], TEXT, window=64)
    assert frame["against"].tolist() == [None, "Dense"]
    pd.testing.assert_frame_equal(frame[COMPARED][1:], expected[COMPARED][1:])
    assert frame["kl"][1] > 0
    again = [sr.dense(demo), other, sr.masked(pruning), sr.masked(sr.n_m(demo, 2, 4))]
    third = sr.perplexity(again, TEXT, window=64, tokenizer=tokenizer)
    pd.testing.assert_series_equal(third[COMPARED].iloc[1], frame[COMPARED].iloc[1])
    assert third["against"].tolist() == ["Dense"] * 4


def test_models_that_read_other_tokens_have_no_distance(demo, monkeypatch):
    other = sr.load(demo.module(), name="other")
    ids = demo.tokenizer()(TEXT[:300], return_tensors="pt")["input_ids"].flip(-1)
    monkeypatch.setattr(other, "tokenizer", lambda: lambda *_, **__: {"input_ids": ids})
    frame = sr.perplexity([sr.dense(demo), sr.dense(other, name="O")], TEXT[:300], window=64)
    assert frame["against"].isna().all()


def test_impossible_tokens_add_no_divergence():
    """Some models have logits of minus infinity, where a vocabulary is padded."""
    model = small_llama()

    def padded(_, __, logits):
        return torch.cat([logits[..., :-1], torch.full_like(logits[..., -1:], -torch.inf)], dim=-1)

    model.lm_head.register_forward_hook(padded)
    weights = sr.load(model, name="padded")
    ids = torch.arange(60) * 7 % 59
    pruning = sr.global_magnitude(weights, 0.5)
    frame = sr.perplexity([sr.dense(weights), sr.masked(pruning)], ids, window=32)
    logs = [
        log_probabilities(v.module().eval(), ids, 32, 16)[0][:, :-1]
        for v in (sr.dense(weights), sr.masked(pruning))
    ]
    expected = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1).mean()
    assert frame["kl"][1] == pytest.approx(expected, rel=1e-4)


def test_a_model_is_opened_once_and_put_back(demo, monkeypatch):
    """Whatever came before it, a variant has the numbers it has alone."""
    opened, module = [], type(demo).module
    monkeypatch.setattr(type(demo), "module", lambda self: opened.append(self) or module(self))
    low, high = (sr.global_magnitude(demo, share) for share in (0.4, 0.9))
    pattern = sr.n_m(demo, 2, 4)
    name = demo.prunable[0].name.removesuffix(".weight")
    rule = lambda module: 0.5 if module.name == name else 0  # noqa: E731
    part = sr.layerwise_magnitude(demo, None, allocation=rule)
    variants = [
        sr.masked(high), sr.csr(low), sr.masked(low), sr.masked(part), sr.csr(high), sr.dense(demo),
        sr.masked(pattern), sr.csr(pattern), sr.masked(low, name="again"),
    ]  # fmt: skip
    monkeypatch.setattr(perplexity, "KEPT", 2**17)
    together = sr.perplexity(variants, TEXT[:600], window=64)
    assert len(opened) == 1
    alone = [sr.perplexity(variant, TEXT[:600], window=64) for variant in variants]
    same = ["variant", "layout", "method", "sparsity", "scored", "nll", "top1"]
    expected = pd.concat(alone, ignore_index=True)[same]
    pd.testing.assert_frame_equal(together[same], expected, rtol=1e-7)
    assert together["nll"][2] == together["nll"][8]


def test_progress_is_the_time_from_first_windows(demo, monkeypatch):
    """By a clock on which a token takes 1 second, and 5 in CSR."""
    told, now, run = [], [0], perplexity._run

    def step(model, passage, batch):
        is_sparse = any(isinstance(module, sr.LinearCSR) for module in model.modules())
        now[0] += batch.read * (5 if is_sparse else 1)
        return run(model, passage, batch)

    monkeypatch.setattr(perplexity, "_run", step)
    monkeypatch.setattr(perplexity, "perf_counter", lambda: now[0])
    monkeypatch.setattr(perplexity, "_LOGITS", 1)  # a batch is a window
    pruning = sr.global_magnitude(demo, 0.4)
    variants = [sr.masked(pruning), sr.dense(demo), sr.csr(pruning)]
    sr.perplexity(
        [*variants, sr.dense(sr.load(), name="Again")], TEXT[:900], window=64, stride=64,
        progress=lambda *said: told.append((now[0], *said)),
    )  # fmt: skip
    assert told[0][1] == 0
    assert told[-1][1] == told[-1][2]
    assert {name for *_, name in told} == {"Dense", "Masked40", "CSR40", "Again"}
    # Each model has its share by FLOPs: three variants, and two with the base that is read again.
    (first,) = {whole for _, _, whole, _ in told}
    of_first = [
        (time, done * 5 / first) for time, done, _, name in told[1:] if done <= first * 3 / 5
    ]
    end = of_first[-1][0]
    for time, done in of_first:
        assert done == pytest.approx(3 * time / end, rel=1e-4)
