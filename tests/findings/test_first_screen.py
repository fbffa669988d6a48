"""The head of a report: lengths of verdicts, intervals of the table, advice that runs, alerts."""

import re
from dataclasses import replace

import measurements
import numpy as np
import pytest
from helpers import Tiny, study_of
from torch import nn

import sparsity_report as sr
from sparsity_report.counting.pruning_policies import read_option
from sparsity_report.findings.first_screen import first_screen
from sparsity_report.findings.verdict import verdict
from sparsity_report.report.study_sections import study_document
from sparsity_report.report.tables.method_tables import results
from sparsity_report.words.sentences import say


def line(study, label="Next"):
    (found,) = [each for each in first_screen(study)["lines"] if each.label == label]
    return found


def scored(*shares, weights=None, losses):
    """Prunings of a small model with losses by span, the dense ones first."""
    weights = weights or sr.load(Tiny(), name="tiny")
    names = [f"M{share:.0%}"[:-1] for share in shares]
    prunings = [sr.global_magnitude(weights, share) for share in shares]
    masked = [sr.masked(p, name=n) for p, n in zip(prunings, names, strict=True)]
    levels = [(share, 1.0) for share in (0.0, *shares)]
    frame = measurements.quality(levels, ("Dense", *names))
    text, *noise = np.random.default_rng(1).normal(size=(2 + len(shares), 100))
    sums = [24 + 3 * text + 16 * mean + each / 5 for mean, each in zip(losses, noise, strict=True)]
    frame = measurements.with_losses(frame, sums)
    return measurements.put_in(sr.compare(sr.dense(weights), *masked), quality=frame)


def test_an_interval_is_that_of_the_table():
    study = scored(0.5, losses=(0, 0.3))
    low, high = re.search(r"\((\S+)–(\S+) ×, 95 % interval\)", verdict(study)).groups()
    cells = " ".join(cell.text for row in results(study).rows for cell in row.cells)
    ends = [float(end) for end in re.search(r"\((\S+)–(\S+)\)", cells).groups()]
    ratios = np.divide(ends, study.quality["perplexity"][0])
    assert ratios == pytest.approx([float(low), float(high)], abs=0.006)


def test_the_command_prunes_as_the_study_does(demo):
    """Its options, read again, are the methods and the sparsities of the variants."""
    prunings = [sr.global_magnitude(demo, 0.35), sr.layerwise_magnitude(demo, 0.35)]
    study = sr.compare(sr.dense(demo), *map(sr.masked, prunings))
    given = re.fullmatch(
        r"sparsity-report run MODEL --sparsity (\S+) --policy (\S+) --perplexity", line(study).code
    )
    shares = {float(text.removesuffix("%")) / 100 for text in given[1].split(",")}
    assert shares == {*study.variants["asked_sparsity"].dropna()}
    methods = {read_option(text).method for text in given[2].split(",")}
    assert methods == {*study.variants["method"].dropna()}
    pattern = sr.compare(sr.dense(demo), sr.masked(sr.n_m(demo, 4, 8)))
    assert line(pattern).code == "sparsity-report run MODEL --policy 4:8 --perplexity"


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ((0, 0.001, 0.001), "Prune more: at 60 % sparsity, "),
        ((0, 0.001, 0.5), "Prune less: at 30 % sparsity, "),
        ((0, 0.4, 0.5), "Perplexity already rises at 30 % "),
    ],
)
def test_levels_to_prune_to_follow_from_intervals(losses, text):
    noisy = scored(0.3, 0.6, losses=losses)
    assert line(noisy).text.startswith(text)
    low, high = map(float, re.search(r"\((\S+)–(\S+) ×", line(noisy).text).groups())
    assert (low <= 1 <= high) == ("not rise" in line(noisy).text)


def test_one_level_asks_for_others():
    assert "--policy layerwise,wanda" in line(scored(0.5, losses=(0, 0.4))).code
    assert "--sparsity 25% " in line(scored(0.5, losses=(0, 4.0))).code


def test_kernels_need_the_pattern_in_matrices_of_their_size(demo):
    study = sr.compare(sr.dense(demo), sr.masked(sr.n_m(demo, 2, 4)), patterns=True)
    assert line(study).code == "torch.sparse.to_sparse_semi_structured"
    assert "are optional in TensorRT-LLM and OpenVINO" in line(study, "Runs as").text
    small = sr.load(nn.ModuleDict({"fc1": nn.Linear(32, 48)}), name="small")
    other = sr.compare(sr.dense(small), sr.masked(sr.n_m(small, 2, 4)), patterns=True)
    assert line(other).code.startswith("sparsity-report run MODEL --policy 2:4")


def test_alerts_lead_to_sections(demo):
    masked = [
        sr.masked(make(demo, *n)) for make, *n in ((sr.n_m, 2, 4), (sr.global_magnitude, 0.9))
    ]
    pattern = sr.compare(masked[0], patterns=True)
    many = sr.compare(sr.dense(demo), *masked, patterns=True)
    many = replace(many, notes=(say("note.study_edited"), *many.notes))
    for study in (pattern, many, sr.compare_checkpoints(sr.n_m(demo, 2, 4), demo)):
        document = study_document(study, "page")
        keys = {section.key for section in document["sections"]}
        assert 1 <= len(document["alerts"]) <= 4
        assert {finding.section for finding in document["alerts"]} <= keys
    assert document["alerts"][0].alert == "2:4 kept in 0 of 24 matrices"
    assert first_screen(many)["alerts"][0].alert == say("alert.edited")


def test_alerts_count_what_is_dead(demo):
    study = study_of(demo, 0.5)
    dead = sr.compare(sr.dense(demo), sr.masked(sr.global_magnitude(demo, 0.5)), patterns=True)
    rows = columns = 0
    pruning = sr.global_magnitude(demo, 0.5)
    for name in pruning.cuts:
        kept = pruning.mask(name) & (demo.tensor(name) != 0).numpy()
        rows += int((~kept.any(axis=1)).sum())
        columns += int((~kept.any(axis=0)).sum())
    alerts = [finding.alert for finding in first_screen(dead)["alerts"]]
    assert alerts == [f"{rows} all-zero rows", f"{columns} all-zero columns"]
    assert first_screen(study)["alerts"] == []
