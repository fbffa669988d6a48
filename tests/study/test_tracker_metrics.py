"""Flat metrics: equal to the frames, and named as experiment trackers accept names."""

import math
import posixpath
import re

import measurements
import pandas as pd
import pytest
from helpers import Tiny

import sparsity_report as sr

# mlflow.utils.validation 3.17 accepts metric names of at most 250 letters that this matches and
# that posixpath.normpath leaves as they are; its check for Windows lacks the colon.
MLFLOW = re.compile(r"^[/\w.\- ]*$")
# TensorBoard's summaries replace other letters by underscores.
TENSORBOARD = re.compile(r"^[-/\w.]+$", re.ASCII)
HOSTILE = (
    "a/b", "a b", "a_b", "a:b", "..", "/", "", "%s", "é", "\u202e", "\n", "x" * 300, "x" * 299,
    "<script>", "Dense/sparsity", "sparsity",
)  # fmt: skip


def check_names(metrics):
    assert metrics
    for name, value in metrics.items():
        assert MLFLOW.fullmatch(name), name
        assert TENSORBOARD.fullmatch(name), name
        assert len(name) <= 250
        assert posixpath.normpath(name) == name
        assert not name.startswith(("/", ".."))
        assert type(value) is float
        assert math.isfinite(value)


def test_figures_are_those_of_the_frames(demo_study):
    metrics = demo_study.metrics()
    check_names(metrics)
    totals = demo_study.totals.set_index("variant")
    for variant in ("Dense", "Masked30", "CSR30"):
        row = totals.loc[variant]
        expected = {
            "sparsity/prunable": 1 - row["prunable_nonzero"] / row["prunable_total"],
            "sparsity/non_embedding": 1 - row["non_embedding_nonzero"] / row["non_embedding_total"],
            "sparsity/model": 1 - row["nonzero"] / row["total"], "parameters/total": row["total"],
            "parameters/nonzero": row["nonzero"], "bytes/stored": row["stored_bytes"],
            "bytes/stored_ratio": row["stored_bytes"] / totals.loc["Dense", "stored_bytes"],
            "flops/performed_per_token": row["flops_per_token"],
            "flops/useful_per_token": row["useful_flops_per_token"],
        }  # fmt: skip
        assert {key: metrics[f"{variant}/{key}"] for key in expected} == pytest.approx(expected)
    for row in demo_study.groups.dropna(subset=["sparsity"]).itertuples():
        assert metrics[f"{row.variant}/sparsity/group/{row.group}"] == pytest.approx(row.sparsity)


def test_default_names_stay_and_colons_become_underscores():
    study = sr.compare(sr.masked(sr.n_m(sr.load(), 2, 4)))
    assert study.metrics()["Masked2_4/sparsity/prunable"] == 0.5


def test_hostile_names_stay_apart_and_in_their_part():
    weights = sr.load(Tiny(), name="t")
    prunings = [sr.global_magnitude(weights, 0.01 * n) for n in range(len(HOSTILE))]
    named = zip(prunings, HOSTILE, strict=True)
    study = sr.compare(*(sr.masked(pruning, name=name or " ") for pruning, name in named))
    metrics = study.metrics()
    check_names(metrics)
    shares = {k: v for k, v in metrics.items() if re.fullmatch(r"[^/]+/sparsity/prunable", k)}
    assert [*shares.values()] == pytest.approx([*study.totals["sparsity_prunable"]])
    assert "a_b/sparsity/prunable" in shares
    assert study.metrics() == metrics


def test_unknown_figures_are_left_out():
    study = sr.compare(sr.dense(Tiny().to("meta")))
    metrics = study.metrics()
    check_names(metrics)
    assert "Dense/parameters/total" in metrics
    assert not [name for name in metrics if "nonzero" in name or "sparsity" in name]


def test_scores_that_differ_under_one_name_are_left_out(demo_study):
    names = ("Dense", "Masked30")
    scores = measurements.quality(((0.0, 10.0), (0.3, 12.5)), names)
    measured = demo_study.with_measured(quality=scores).metrics()
    text = scores["text"][0]
    protocol = f"{scores['protocol'][0]}_64_32"
    assert measured[f"Masked30/perplexity/{text}/{protocol}"] == 12.5
    again = scores.assign(text_fingerprint="0" * 16, perplexity=[11.0, 12.0])
    again["nll"] = again["perplexity"].map(math.log)
    both = demo_study.with_measured(quality=pd.concat([scores, again])).metrics()
    assert not [name for name in both if "/perplexity/" in name]


def test_a_pair_has_the_fate_of_its_zeros():
    weights = sr.load()
    pruned = sr.masked(sr.global_magnitude(weights, 0.5)).module()
    pair = sr.compare_checkpoints(sr.load(pruned, name="pruned"), sr.load(), progress=None)
    metrics = pair.metrics()
    check_names(metrics)
    total = sum(p.total for p in weights.prunable)
    assert metrics["Before/sparsity/prunable"] == pytest.approx(0.5, abs=1 / total)
    assert metrics["After/sparsity/prunable"] == metrics["sparsity/prunable/gone_of_base"] == 0
    assert metrics["zeros/revived"] == metrics["zeros/before"] == round(total / 2)
    assert metrics["zeros/kept"] == 0
    parameters = sum(p.total for p in weights.stored)
    assert metrics["parameters/before"] == metrics["Before/parameters/total"] == parameters
