"""Losses kept with scores: what they sum to, which of them pair, and what they cost."""

import json

import numpy as np
import pytest
from scoring import log_probabilities

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.study.losses import paired_mean, span_of, token_counts, why_unpaired

TEXT = (DEMO / "eval.txt").read_text(encoding="utf-8")[:700]


@pytest.fixture(scope="module")
def study(demo):
    pruning = sr.global_magnitude(demo, 0.6)
    variants = [sr.dense(demo), sr.masked(pruning)]
    scores = sr.perplexity(variants, TEXT, window=64, stride=24)
    return sr.compare(*variants).with_measured(quality=scores)


def test_spans_equal_numpy(demo, study):
    """Sums by span of 16 tokens, across windows whose scored tokens are 24 apart."""
    ids = demo.tokenizer()(TEXT, return_tensors="pt")["input_ids"][0]
    dense, targets = log_probabilities(demo.module().eval(), ids, 64, 24)
    pruned = sr.masked(sr.global_magnitude(demo, 0.6)).module().eval()
    other, _ = log_probabilities(pruned, ids, 64, 24)
    places = range(len(targets))
    figures = {
        "nll": -other[places, targets],
        "hits": other.argmax(axis=1) == targets,
        "kl": (np.exp(dense) * (dense - other)).sum(axis=1),
        "agreed": other.argmax(axis=1) == dense.argmax(axis=1),
    }
    rows = study.losses[study.losses["variant"] == "Masked60"]
    assert rows["tokens"].sum() == len(targets)
    assert rows["begin"].tolist() == list(range(0, len(targets), 16))
    for name, values in figures.items():
        sums = np.add.reduceat(values.astype(float), rows["begin"].to_numpy())
        assert rows[name].to_numpy(float) == pytest.approx(sums, rel=1e-4), name


def test_a_saved_study_keeps_them(study, tmp_path):
    path = study.save(tmp_path / "study.json")
    assert sr.read_study(path).losses.equals(study.losses)


def test_a_study_without_losses_is_read(study, tmp_path):
    """Files of versions that kept none."""
    path = study.save(tmp_path / "study.json")
    data = json.loads(path.read_text())
    last = data["quality"]["columns"].index("tokens_fingerprint")
    data["quality"]["columns"] = data["quality"]["columns"][:last]
    data["quality"]["rows"] = [row[:last] for row in data["quality"]["rows"]]
    path.write_text(json.dumps(data))
    read = sr.read_study(path)
    assert read.losses is None
    rows = read.quality.to_dict("records")
    assert why_unpaired(rows[0], rows[1]) == "losses"


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [("span_nll", lambda sums: sums[:-1], "span_nll: is not one number for each span"),
     ("span_nll", lambda sums: [2 * each for each in sums], "span_nll: is not nll in sum"),
     ("span_kl", lambda sums: [1.0 for _ in sums], "span_kl: is not kl in sum"),
     ("span_hits", lambda sums: [16 for _ in sums], "span_hits: is not top1 in sum"),
     ("span_kl", lambda sums: [-1.0 for _ in sums], "span_kl: is less than 0"),
     ("span_nll", lambda sums: ["x" for _ in sums], "span_nll"),
     ("span", lambda _: None, "is not one number for each span")],
)  # fmt: skip
def test_impossible_losses_are_refused(study, tmp_path, column, change, message):
    path = study.save(tmp_path / "study.json")
    data = json.loads(path.read_text())
    place = data["quality"]["columns"].index(column)
    data["quality"]["rows"][1][place] = change(data["quality"]["rows"][1][place])
    path.write_text(json.dumps(data))
    with pytest.raises(sr.SparsityReportError, match=message):
        sr.read_study(path)


def test_losses_of_one_text_pair(demo, study):
    dense, pruned = study.quality.to_dict("records")
    assert why_unpaired(dense, pruned) == ""
    mean = paired_mean(pruned, dense)
    assert mean.estimate == pytest.approx(pruned["nll"] - dense["nll"], abs=1e-5)
    assert mean.interval()[0] > 0

    def again(text, **options):
        return sr.perplexity(sr.dense(demo), text, **options).to_dict("records")[0]

    same = again(TEXT, window=64, stride=24)
    assert why_unpaired(dense, same) == ""
    assert paired_mean(same, dense).estimate == pytest.approx(0, abs=1e-6)
    other = TEXT[:-1] + chr(ord(TEXT[-1]) + 1)
    assert why_unpaired(dense, again(other, window=64, stride=24)) == "text"
    assert why_unpaired(dense, again(TEXT, window=64, stride=32)) == "protocol"
    tokens = demo.tokenizer()

    def elsewhere(text, **options):
        return {"input_ids": tokens(text, **options)["input_ids"].flip(1)}

    others = again(TEXT, window=64, stride=24, tokenizer=elsewhere)
    assert why_unpaired(dense, others) == "tokens"
    one = again(TEXT[:200], window=256)
    assert why_unpaired(one, one) == "window"


@pytest.mark.parametrize("scored", [1, 15, 17, 3200, 3201, 4137, 341_469, 10_000 * 2047])
def test_spans_are_few(scored):
    span = span_of(scored)
    counts = token_counts(scored, span)
    assert counts.sum() == scored
    assert len(counts) <= 200
    assert span == 16 or len(counts) > 100
    assert (counts[:-1] == span).all()
    assert 0 < counts[-1] <= span
