"""The distance between two models, against products written out, scipy, torch and llama.cpp's."""

import gc
import json
import math
import weakref
from unittest import mock

import llama_perplexity
import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from bigrams import Bigram
from helpers import command
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.measure import distance as measuring
from sparsity_report.measure import perplexity
from sparsity_report.study.derived.block_bootstrap import mean_over
from sparsity_report.study.derived.losses import token_counts

TEXT = (DEMO / "eval.txt").read_text(encoding="utf-8")
IDS = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])


def value(distance, figure):
    return distance.figures.set_index("figure").loc[figure, "value"]


def logits_of(weights, ids, window):
    """Logits before each token of disjoint windows, in float32."""
    model = weights.module().eval()
    with torch.no_grad():
        return [model(ids[None, at : at + window]).logits[0].numpy()
                for at in range(0, len(ids) - window + 1, window)]  # fmt: skip


def test_products_of_two_tokens_written_out():
    """After token 0: (3/4, 1/4) and (1/2, 1/2); after token 1: (1/2, 1/2) and (1/8, 7/8)."""
    a = Bigram([[math.log(3), 0.0], [0.0, 0.0]])
    b = Bigram([[0.0, 0.0], [0.0, math.log(7)]])
    apart = sr.distance(a, b, IDS)
    kl = [
        0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2),
        0.5 * math.log(4) + 0.5 * math.log(4 / 7),
    ]
    back = [
        0.5 * math.log(2 / 3) + 0.5 * math.log(2),
        1 / 8 * math.log(1 / 4) + 7 / 8 * math.log(7 / 4),
    ]
    before = IDS[:-1].tolist()
    tokens = apart.tokens
    assert tokens["position"].tolist() == [*range(1, 8)]
    assert tokens["token"].tolist() == IDS[1:].tolist()
    assert tokens["kl"].tolist() == pytest.approx([kl[token] for token in before], rel=1e-6)
    assert tokens["reverse_kl"].tolist() == pytest.approx([back[t] for t in before], rel=1e-6)
    probabilities = {
        (0, 0): (3 / 4, 1 / 2),
        (0, 1): (1 / 4, 1 / 2),
        (1, 0): (1 / 2, 1 / 8),
        (1, 1): (1 / 2, 7 / 8),
    }
    p, q = zip(
        *(probabilities[pair] for pair in zip(before, IDS[1:].tolist(), strict=True)), strict=True
    )
    assert tokens["nll_a"].tolist() == pytest.approx([-math.log(each) for each in p], rel=1e-6)
    assert value(apart, "kl") == pytest.approx((4 * kl[0] + 3 * kl[1]) / 7, rel=1e-6)
    assert value(apart, "kl_median") == pytest.approx(sorted(kl)[0], rel=1e-6)
    assert value(apart, "kl_max") == pytest.approx(max(kl), rel=1e-6)
    # Of equal logits the first is the guess.
    assert value(apart, "agreement") == 4 / 7
    assert value(apart, "top5_agreement") == 1
    assert value(apart, "perplexity_ratio") == pytest.approx(
        (math.prod(p) / math.prod(q)) ** (1 / 7)
    )
    changes = [(y - x) ** 2 for x, y in zip(p, q, strict=True)]
    assert value(apart, "rms_delta_p") == pytest.approx(math.sqrt(sum(changes) / 7))
    # Seven tokens have no interval, and no perplexity is called the lower one.
    assert apart.figures[["low", "high"]].isna().all(axis=None)
    assert "does not separate the perplexities" in str(apart)


def test_a_pruning_has_the_figures_of_its_quality(demo):
    """One figure, one value: those of `sr.perplexity` by the same protocol."""
    text, pruning = TEXT[:1500], sr.global_magnitude(demo, 0.5)
    apart = sr.distance(demo, pruning, text, window=64)
    dense, masked = sr.perplexity([sr.dense(demo), sr.masked(pruning)], text, window=64).to_dict(
        "records"
    )
    assert (apart.a, apart.b) == (demo.name, "Masked50")
    for figure in ("kl", "agreement"):
        assert value(apart, figure) == pytest.approx(masked[figure], rel=1e-12)
    for side, row in (("a", dense), ("b", masked)):
        assert value(apart, f"perplexity_{side}") == pytest.approx(row["perplexity"], rel=1e-12)
    assert len(apart.tokens) == dense["scored"]
    about = dict(apart.protocol)
    assert about.pop("dtype_b") == "float32"
    assert {key: dense[key] for key in about} == about
    counts = token_counts(masked["scored"], masked["span"])
    figures = apart.figures.set_index("figure")
    for figure, sums in (("kl", "span_kl"), ("reverse_kl", "span_reverse_kl")):
        ends = mean_over(masked[sums], counts).interval()
        assert figures.loc[figure, ["low", "high"]].tolist() == pytest.approx(ends, rel=1e-4)
    losses = np.subtract(masked["span_nll"], dense["span_nll"])
    ends = np.exp(mean_over(losses, counts).interval())
    assert figures.loc["perplexity_ratio", ["low", "high"]].tolist() == pytest.approx(
        ends, rel=1e-3
    )
    rows = {name: row.tolist() for name, row in figures.iterrows()}
    first, spread, agreement, scores, *_ = apart.sentences()
    number = "{:#.3g} (95 % CI {:#.3g} to {:#.3g})"
    assert number.format(*rows["kl"]) + " nats per token, and the reverse" in first
    assert first.endswith(f"is {number.format(*rows['reverse_kl'])}.")
    for figure in ("kl_median", "kl_p99", "kl_max"):
        assert f"{rows[figure][0]:#.3g}" in spread
    for figure in ("agreement", "top5_agreement"):
        shares = (f"{100 * each:.1f}" for each in rows[figure])
        assert "{} % (95 % CI {} % to {} %)".format(*shares) in agreement.replace("\u202f", " ")
    ratio = "Masked50 has {:#.4g} (95 % CI {:#.4g} to {:#.4g}) times the perplexity of demo: "
    both = "{:.2f} against {:.2f}.".format(*(rows[f"perplexity_{side}"][0] for side in "ba"))
    assert scores == ratio.format(*rows["perplexity_ratio"]) + both
    reverse = sr.distance(sr.masked(pruning), sr.dense(demo), text, window=64)
    swapped = {"nll_a": "nll_b", "nll_b": "nll_a", "guess_a": "guess_b", "guess_b": "guess_a",
               "kl": "reverse_kl", "reverse_kl": "kl"}  # fmt: skip
    pd.testing.assert_frame_equal(
        reverse.tokens.rename(columns=swapped)[apart.tokens.columns], apart.tokens, rtol=1e-9
    )


def test_equals_scipy_and_torch(demo):
    other = sr.masked(sr.global_magnitude(demo, 0.7)).module()
    ids = demo.tokenizer()(TEXT[:900], return_tensors="pt")["input_ids"][0][:256]
    apart = sr.distance(demo, other, ids, window=64, stride=64, tokenizer=demo.tokenizer())
    a, b = (np.concatenate([each[:-1] for each in logits_of(w, ids, 64)]).astype(float)
            for w in (demo, sr.load(other)))  # fmt: skip
    p, q = scipy.special.softmax(a, axis=1), scipy.special.softmax(b, axis=1)
    assert apart.tokens["kl"].to_numpy() == pytest.approx(
        scipy.special.rel_entr(p, q).sum(axis=1), rel=1e-4
    )
    logs = [torch.log_softmax(torch.from_numpy(each), dim=-1) for each in (b, a)]
    back = torch.nn.functional.kl_div(logs[1], logs[0], reduction="none", log_target=True).sum(
        dim=1
    )
    assert apart.tokens["reverse_kl"].to_numpy() == pytest.approx(back.numpy(), rel=1e-4)
    tops = [np.argsort(-each, axis=1, kind="stable")[:, :5] for each in (a, b)]
    shares = [len({*x} & {*y}) / 5 for x, y in zip(*tops, strict=True)]
    assert apart.tokens["top5_agreement"].tolist() == pytest.approx(shares)
    assert value(apart, "agreement") == (tops[0][:, 0] == tops[1][:, 0]).mean()
    assert value(apart, "kl_p99") == llama_perplexity.percentile(apart.tokens["kl"], 0.99)
    row = apart.largest.iloc[0]
    at = int(np.argmax(apart.tokens["kl"]))
    assert row["position"] == apart.tokens["position"][at]
    decode = demo.tokenizer().decode
    assert row["token"] == decode([ids[row["position"]]]).replace("\n", "\\n")
    assert row["guess_b"] == decode([tops[1][at, 0]]).replace("\n", "\\n")
    before = decode(ids[: row["position"]]).replace("\n", "\\n")
    assert before.endswith(row["context"] or "none")


def test_definitions_are_those_of_llama_cpp(demo):
    """Its tokens have its figures, but for its 16 bits and its cut at e⁻¹⁶."""
    window = 64
    ids = demo.tokenizer()(TEXT[:1100], return_tensors="pt")["input_ids"][0]
    pruning = sr.global_magnitude(demo, 0.5)
    apart = sr.distance(demo, pruning, ids, window=window, stride=window // 2)
    places = llama_perplexity.scored(window)
    parts = [
        llama_perplexity.statistics(
            base[places - 1], other[places - 1], ids[at * window + places].numpy()
        )
        for at, (base, other) in enumerate(
            zip(
                *(logits_of(w, ids, window) for w in (demo, sr.load(sr.masked(pruning).module()))),
                strict=True,
            )
        )
    ]
    theirs = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    chosen = [at * window + place for at in range(len(parts)) for place in places]
    tokens = apart.tokens.set_index("position").loc[chosen]
    ours = tokens["kl"].to_numpy()
    assert len(ours) > 100
    assert ours == pytest.approx(theirs["kld"], abs=1e-3)
    assert ours.mean() == pytest.approx(theirs["kld"].mean(), abs=1e-4)
    for fraction in (0.5, 0.99, 1):
        assert np.quantile(ours, fraction) == pytest.approx(
            llama_perplexity.percentile(theirs["kld"], fraction), abs=1e-3
        )
    same = tokens["guess_a"] == tokens["guess_b"]
    assert same.to_numpy().mean() == pytest.approx(theirs["same_top"].mean(), abs=0.01)
    p_diff = np.exp(-tokens["nll_b"]) - np.exp(-tokens["nll_a"])
    assert p_diff.to_numpy() == pytest.approx(theirs["p_diff"], abs=1e-3)
    ratio = math.exp((tokens["nll_b"] - tokens["nll_a"]).mean())
    assert ratio == pytest.approx(math.exp((theirs["nll"] - theirs["nll_base"]).mean()), rel=1e-3)


def tokenizer_of(ids):
    """A tokenizer that reads every text as the same tokens."""
    return lambda *_, **__: {"input_ids": torch.tensor([ids])}


@pytest.mark.parametrize(
    ("width", "ids", "message"),
    [
        (3, [0, 1, 1], "a has 2 logits, b has 3"),
        (2, [0, 1], "the text has 3 tokens in a, 2 in b"),
        (2, [0, 1, 0], "token 2 of the text is 1 in a, 0 in b"),
    ],
)
def test_models_with_other_tokens_are_refused(monkeypatch, width, ids, message):
    a, b = (sr.load(Bigram(torch.zeros(n, n)), name=name) for n, name in ((2, "a"), (width, "b")))
    monkeypatch.setattr(a, "tokenizer", lambda: tokenizer_of([0, 1, 1]))
    monkeypatch.setattr(b, "tokenizer", lambda: tokenizer_of(ids))
    with pytest.raises(sr.SparsityReportError, match=message) as refused:
        sr.distance(a, b, "any text")
    assert str(refused.value).endswith("; compare models with one tokenizer")


def test_refusals(demo):
    case = next(case for case in CASES if case.name.startswith("BERT"))
    for models in ((demo, built(case)), (built(case), demo)):
        with pytest.raises(sr.SparsityReportError, match="without a causal language model head"):
            sr.distance(*models, TEXT[:100])
    with pytest.raises(sr.SparsityReportError, match="came without a tokenizer; pass tokenizer="):
        sr.distance(demo, demo.module(), TEXT[:100])
    with pytest.raises(
        sr.SparsityReportError, match=r"distance\(\) accepts protocol, .*, not 'windows'"
    ):
        sr.distance(demo, demo, TEXT[:100], windows=3)
    with pytest.raises(sr.SparsityReportError, match="at least two"):
        sr.distance(demo, demo, torch.tensor([3]))


@pytest.mark.parametrize("broken", ["a", "b"])
def test_logits_that_are_not_numbers_are_refused_with_model_and_window(broken):
    logits = {"a": torch.zeros(3, 3), "b": torch.ones(3, 3)}
    logits[broken][2, 0] = math.nan
    a, b = (sr.load(Bigram(each), name=name) for name, each in logits.items())
    ids = torch.tensor([0, 1, 0, 1, 2, 0, 1, 1])
    with pytest.raises(
        sr.SparsityReportError, match=f"{broken}: the loss is not a number in tokens 0"
    ):
        sr.distance(a, b, ids, window=4, stride=4)


def test_an_excluded_token_counts_nothing_or_all():
    """Rows that pad a vocabulary are tokens; one that only `b` excludes is infinitely far."""
    padded = torch.tensor([[0.0, 1.0, -math.inf], [0.5, 0.0, -math.inf], [0.0, 0.0, 0.0]])
    a, b = Bigram(torch.zeros(3, 3)), Bigram(padded)
    for each in (a, b):
        each.fc1 = torch.nn.Identity()
    there, back = sr.distance(a, b, IDS), sr.distance(b, a, IDS)
    p = scipy.special.softmax(padded[:2].double().numpy(), axis=1)
    expected = scipy.special.rel_entr(p, 1 / 3).sum(axis=1)[IDS[:-1].numpy()]
    assert back.tokens["kl"].to_numpy() == pytest.approx(expected, rel=1e-6)
    assert np.isinf(there.tokens["kl"]).all()
    assert np.isinf(value(there, "kl"))
    assert np.isnan(there.figures.set_index("figure").loc["kl", "low"])
    assert "KL(Bigram ‖ Bigram (2)) is inf nats" in str(there)


def test_the_smaller_window_is_used():
    a, b = (
        sr.load(Bigram(torch.eye(2), window=size), name=name) for size, name in ((8, "a"), (4, "b"))
    )
    for one, other in ((a, b), (b, a)):
        apart = sr.distance(one, other, IDS)
        assert (apart.protocol["window"], apart.protocol["stride"]) == (4, 2)


@pytest.mark.parametrize("together", [True, False])
def test_models_can_be_in_memory_one_at_a_time(monkeypatch, together):
    """Parts of the text alternate between the models; the figures are the same."""
    models = [sr.load(Bigram(torch.eye(5) * scale), name=str(scale)) for scale in (1, 2)]
    ids = torch.arange(200) * 7 % 5
    expected = sr.distance(*models, ids, window=8)
    monkeypatch.setattr(perplexity, "KEPT", 400)
    monkeypatch.setattr(perplexity, "_LOGITS", 80)
    alive, opened = [], measuring.Stage

    def stage(weights):
        gc.collect()
        alive.append(sum(each() is not None for each in held))
        opening = opened(weights)
        held.append(weakref.ref(opening.model))
        return opening

    held = []
    monkeypatch.setattr(measuring, "Stage", stage)
    apart = sr.distance(*models, ids, window=8, together=together)
    pd.testing.assert_frame_equal(apart.tokens, expected.tokens)
    assert alive == [0, 1] if together else (len(alive) > 5 and set(alive) == {0})


def test_two_of_a_name_are_told_apart():
    a, b = Bigram(torch.eye(2)), Bigram(torch.eye(2))
    same = sr.distance(a, b, IDS)
    assert (same.a, same.b) == ("Bigram", "Bigram (2)")
    assert not same.tokens[["kl", "reverse_kl"]].any(axis=None)
    assert repr(same) == "\n".join(same.sentences()) == "\n".join(sr.summarize(same))


def test_texts_are_one_line_and_short(demo):
    text = "a = '\x1b[31m'\n\n\n" + "# " + "\u202eb" * 90 + "\nimport os\n" * 9
    apart = sr.distance(demo, sr.global_magnitude(demo, 0.6), [text], window=32)
    texts = apart.largest[["context", "token", "guess_a", "guess_b"]]
    assert texts.notna().all(axis=None)
    joined = "".join(texts.to_numpy().ravel())
    assert joined.isprintable()
    assert "\\n" in joined
    assert texts["context"].str.replace(r"\\u....|\\x..|\\.", "?", regex=True).str.len().max() <= 60


def test_progress_counts_to_the_end():
    calls = []
    sr.distance(
        Bigram(torch.eye(2)), Bigram(torch.eye(2)), IDS, progress=lambda *call: calls.append(call)
    )
    assert calls[-1][:2] == (14, 14)


def test_command(tmp_path, demo):
    sr.masked(sr.global_magnitude(demo, 0.5)).module().save_pretrained(tmp_path / "pruned")
    demo.tokenizer().save_pretrained(tmp_path / "pruned")
    (tmp_path / "short.txt").write_text(TEXT[:500], encoding="utf-8")
    words = ["distance", DEMO, tmp_path / "pruned", "--text", tmp_path / "short.txt"]
    shown = command(*words)
    assert shown.returncode == 0, shown.stderr
    expected = sr.distance(demo, sr.global_magnitude(demo, 0.5), tmp_path / "short.txt")
    assert shown.stdout.splitlines() == [
        each.replace("Masked50", "pruned") for each in expected.sentences()
    ]
    data = json.loads(command(*words, "--json").stdout)
    assert (data["a"], data["b"], data["protocol"]) == ("demo", "pruned", "sliding")
    figures = {row["figure"]: row["value"] for row in data["figures"]}
    assert figures["kl"] == pytest.approx(value(expected, "kl"))
    assert len(data["largest"]) == 10
    refused = command("distance", DEMO, tmp_path / "nowhere")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


@st.composite
def scored_models(draw):
    """A model, one pruned from it, tokens, and windows."""
    size = draw(st.integers(2, 7))
    draws = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    model = Bigram(draws.normal(size=(size, size)) * draw(st.sampled_from([0.1, 1, 30])))
    with torch.no_grad():
        model.fc1.weight.copy_(torch.from_numpy(draws.normal(size=(size, size))))
    weights = sr.load(model, name="random")
    pruning = sr.global_magnitude(weights, draw(st.floats(0, 1)))
    ids = torch.from_numpy(draws.integers(0, size, draw(st.integers(2, 300))))
    window = draw(st.integers(2, len(ids)))
    return weights, pruning, ids, {"window": window, "stride": draw(st.integers(1, window))}


@settings(max_examples=12)
@given(scored_models(), st.sampled_from([1, 50, 2**27]))
def test_distance_and_perplexity_agree_on_every_model(models, kept):
    """Whatever the windows and the parts in which logits are kept."""
    weights, pruning, ids, windows = models
    with mock.patch.object(perplexity, "KEPT", kept):
        apart = sr.distance(weights, pruning, ids, **windows)
        frame = sr.perplexity([sr.dense(weights), sr.masked(pruning)], ids, **windows)
    tokens = apart.tokens
    assert frame["scored"].tolist() == [len(tokens)] * 2
    assert tokens["position"].is_monotonic_increasing
    assert tokens["position"].is_unique
    assert tokens["token"].tolist() == ids[tokens["position"]].tolist()
    for side, row in zip("ab", frame.to_dict("records"), strict=True):
        nll = tokens[f"nll_{side}"]
        assert nll.mean() == pytest.approx(row["nll"], rel=1e-12, abs=1e-12)
        assert (tokens[f"guess_{side}"] == tokens["token"]).mean() == pytest.approx(row["top1"])
    assert value(apart, "kl") == pytest.approx(row["kl"], rel=1e-12, abs=1e-15)
    assert value(apart, "agreement") == pytest.approx(row["agreement"])
    figures = apart.figures.set_index("figure")
    assert (tokens[["kl", "reverse_kl"]] >= 0).all(axis=None)
    ordered = figures.loc[["kl_median", "kl_p99", "kl_max"], "value"]
    assert ordered.is_monotonic_increasing
    ratio = figures.loc["perplexity_b", "value"] / figures.loc["perplexity_a", "value"]
    assert figures.loc["perplexity_ratio", "value"] == pytest.approx(ratio, rel=1e-9)
    known = figures.dropna()
    assert (known["low"] <= known["value"]).all()
    assert (known["value"] <= known["high"]).all()
