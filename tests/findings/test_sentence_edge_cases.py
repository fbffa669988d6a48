"""Edge cases of sentences: their limits, their order, and omitted findings."""

import dataclasses
import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from helpers import Tiny, named, study_of
from measurements import latency, put_in, sensitivity
from wording import count_of, of_key, values_of
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.findings import already_pruned
from sparsity_report.findings.audit import audit
from sparsity_report.findings.study_findings import conventions, study_findings
from sparsity_report.study.derived.speedups import reference
from sparsity_report.study.rounded_zeros import Rounded, origin


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return sr.load(Tiny(), name="tiny")


@pytest.fixture(scope="module")
def study(weights):
    return study_of(weights)


def with_zeros(study, **shares):
    """A dense study whose layers have such shares of zeros among 1000 weights each."""
    layers = study.layers[study.layers["variant"] == "Dense"].reset_index(drop=True)
    total = layers["weight_total"].astype("Int64").mask(layers["prunable"], 1000)
    left = total.copy()
    for name, share in shares.items():
        left = left.mask(layers["module_name"].str.endswith(name), round(1000 * (1 - share)))
    layers = layers.assign(weight_total=total, weight_nonzero=left)
    variants = study.variants.iloc[[0]].reset_index(drop=True)
    return dataclasses.replace(study, layers=layers, variants=variants)


@pytest.mark.parametrize(("share", "told"), [(0.95, False), (0.951, True)])
def test_very_sparse_is_more_than_95_percent(study, share, told):
    key = "audit.very_sparse_layers"
    flags = of_key(audit(with_zeros(study, **{"0.fc1": share})), key)
    counts = [[count_of(flag, key, name) for name in ("count", "layers")] for flag in flags]
    assert counts == told * [[1, 6]]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [(0.051, 0.0, True), (0.049, 0.0, False), (0.5, 0.004, True), (0.5, 0.005, False)],
)
def test_model_pruned_in_some_blocks_is_flagged(study, one, other, told):
    shares = {f"{block}.{name}": share for block, share in ((0, one), (1, other))
              for name in ("q_proj", "fc1", "fc2")}  # fmt: skip
    shares = {name.replace("0.q_proj", "0.self_attn.q_proj"): s for name, s in shares.items()}
    shares = {name.replace("1.q_proj", "1.self_attn.q_proj"): s for name, s in shares.items()}
    key = "audit.some_blocks_only"
    flags = of_key(audit(with_zeros(study, **shares)), key)
    counts = [[count_of(flag, key, name) for name in ("touched", "blocks")] for flag in flags]
    assert counts == told * [[1, 2]]


def test_tied_head_is_flagged_above_five_percent_zeros():
    for zeros, told in ((2, False), (4, True)):
        model = Tiny(vocabulary=10, width=6)
        with torch.no_grad():
            model.embed_tokens.weight.fill_(1).view(-1)[:zeros] = 0
        key = "audit.tied_head_pruned"
        flags = of_key(audit(sr.compare(sr.dense(model, name="D"))), key)
        assert [values_of(flag, key)["head"] for flag in flags] == told * ["lm_head"]
    free = audit(sr.compare(sr.dense(Tiny(tied=False), name="D")))
    assert not of_key(free, "audit.tied_head_pruned")


def test_audit_opens_with_a_note_on_infinity():
    model = Tiny()
    with torch.no_grad():
        model.layers[0]["fc1"].weight[0, 0] = math.inf
    study = sr.compare(sr.dense(model, name="D"))
    (note,) = (note for note in study.notes if "0.fc1" in note)
    assert study.audit[0][1:] == f"{note[1:]}."
    assert study.audit[0][0] == note[0].upper() != note[0]


# Whether rounding explains zeros.


@pytest.mark.parametrize(
    ("near", "expected", "verdict"),
    [
        (0.1199, 0.1, "alike"), (0.1201, 0.1, "undecided"), (0.1699, 0.1, "undecided"),
        (0.1701, 0.1, "more"), (0.005, 0.0, "alike"), (0.0051, 0.0, "undecided"),
        (0.02, 0.0, "undecided"), (0.0201, 0.0, "more"),
    ],
)  # fmt: skip
def test_rounding_explains_a_seventh_more_than_a_gaussian_has(near, expected, verdict):
    """And half as much again is clearly more; of few zeros nothing can be told."""
    part = Rounded(True, ["nf4"], 1000, near, near, expected)
    assert origin(part) == verdict


@pytest.mark.parametrize(("share", "told"), [(0.0005, 0), (0.0006, 1)])
def test_few_zeros_have_no_explanation(monkeypatch, share, told):
    part = Rounded(True, ["nf4"], 10_000, share, share, share)
    monkeypatch.setattr(already_pruned, "rounded", lambda layers: layers)
    facts = SimpleNamespace(layers=lambda _: [part])
    study = SimpleNamespace(variants=pd.DataFrame({"variant": ["D"]}), facts=facts)
    assert len([*already_pruned.zeros_explained(study)]) == told


# What was measured.


def of_measured(key, study, **frames):
    return of_key(study_findings(put_in(study, **frames)), key)


def test_reference_of_speeds_has_ratio_one():
    frame = latency(("Z", "A", "C"))
    assert reference(frame) == "Z"
    turned = pd.concat([frame[frame["variant"] != "Z"], frame[frame["variant"] == "Z"]])
    assert reference(turned) == "Z"
    two = frame.assign(realised_speedup=frame["realised_speedup"].where(frame["variant"] == "C", 1))
    assert reference(two) == "Z"


@pytest.mark.parametrize(("parts", "told"), [(1, False), (2, True)])
def test_single_part_has_no_finding(study, parts, told):
    frame = sensitivity(parts).assign(sparsity=1 / 3)
    extremes = of_measured("finding.sensitivity_extremes", study, sensitivity=frame)
    assert bool(extremes) is told
    for finding in extremes:
        assert "33.33 % " in str(finding)
        assert "block 0 costs most" in str(finding)


# Conventions.


def test_conventions_depend_on_the_model(study):
    extra = ("mixture_of_experts", "flops_per_sequence", "encoder_decoder")
    experts, sequence, stacks_apart = (f"convention.{name}" for name in extra)
    plain = conventions(study)
    assert not any(of_key(plain, key) for key in (experts, sequence, stacks_apart))
    for stacks, told in (
        (["encoder"], False),
        (["decoder"], False),
        (["encoder", "decoder"], True),
    ):
        model = named([f"{stack}.layers.fc1" for stack in stacks])
        used = conventions(sr.compare(sr.dense(sr.load(model, name="n"))))
        assert bool(of_key(used, stacks_apart)) is told
    model = built(next(case for case in CASES if case.per_sequence))
    pooled = sr.compare(sr.dense(sr.load(model, name="b")))
    assert of_key(conventions(pooled), sequence)
