"""Grids of scores by method, sparsity and model: every cell is a score of the study."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import small_llama
from measurements import seven

import sparsity_report as sr
from sparsity_report.report.markdown_report import to_markdown
from sparsity_report.report.tables.html import to_html
from sparsity_report.report.tables.latex import to_latex
from sparsity_report.report.tables.method_tables import method_grids, task_grid
from sparsity_report.words.sentences import say

TEXT = torch.arange(60) * 7 % 31


def variants_of(model, name):
    """Dense and pruned variants of a model, all with its name at the end of their own."""
    weights = sr.load(model, name=name)
    variants = [
        sr.dense(weights),
        *(sr.masked(policy(weights, share)) for share in (0.3, 0.6)
          for policy in (sr.global_magnitude, sr.layerwise_magnitude)),
        sr.csr(sr.global_magnitude(weights, 0.3)),
        sr.masked(sr.n_m(weights, 2, 4)),
    ]  # fmt: skip
    return [replace(variant, name=f"{variant.name} ({name})") for variant in variants]


def scored(variants, ids):
    study = sr.compare(*variants)
    frames = [sr.perplexity(variants, text) for text in ids]
    return study.with_measured(quality=pd.concat(frames, ignore_index=True))


def scored_models(*ids):
    models = [small_llama().eval() for _ in range(2)]
    torch.manual_seed(1)
    for parameter in models[1].parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    variants = [v for pair in zip(models, ("one", "two"), strict=True) for v in variants_of(*pair)]
    return scored(variants, ids)


@pytest.fixture(scope="module")
def study():
    return scored_models(TEXT)


def read(text):
    """Rows of a table in Markdown by section and name."""
    found, section = {}, ""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        first, *cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if first.startswith("**"):
            section = first.strip("*")
        else:
            found[section, first] = cells
    return found


def written(perplexity):
    """As in a table of models with 64 tokens."""
    return f"{perplexity:,.2f}" if perplexity < 64 else say("name.worse_than_uniform_guessing")


def test_every_cell_is_a_score(study):
    (table,) = method_grids(study)
    perplexity = study.quality.set_index("variant")["perplexity"]
    labels = {
        ("", "Dense"): "Dense",
        ("30 %", "Global magnitude"): "Masked30",
        ("30 %", "Layerwise magnitude"): "Masked30Layerwise",
        ("60 %", "Global magnitude"): "Masked60",
        ("60 %", "Layerwise magnitude"): "Masked60Layerwise",
        ("2:4", "Magnitude"): "Masked2:4",
    }
    assert read(to_markdown(table)) == {
        key: [written(perplexity[f"{variant} ({model})"]) for model in ("one", "two")]
        for key, variant in labels.items()
    }


def test_all_formats_say_the_same(study):
    (table,) = method_grids(study)
    rows = read(to_markdown(table)).values()
    due = [cell for row in rows for cell in row]
    assert re.findall(r"<td>([^<]+)", to_html(table)) == due
    cells = re.findall(r"& (\{worse[^}]*\}|[\d.]+)", to_latex(table, "t"))
    assert [cell.strip("{}") for cell in cells] == due


def test_protocols_are_not_mixed():
    study = scored_models(TEXT, TEXT[:30])
    tables = method_grids(study)
    assert [table.key for table in tables] == ["perplexity_grid", "perplexity_grid_2"]
    for table, text in zip(tables, (TEXT, TEXT[:30]), strict=True):
        frame = study.quality[study.quality["tokens"] == len(text)].set_index("variant")
        due = written(frame["perplexity"]["Masked30 (one)"])
        assert read(to_markdown(table))["30 %", "Global magnitude"][0] == due


@pytest.fixture(scope="module")
def tried(study):
    """Both models, with accuracies of seven tasks that no rule gives."""
    draws = np.random.default_rng(0)
    names = [name for name in study.variants["variant"] if not name.startswith("CSR")]
    rows = pd.concat([seven(name, None, 0.0) for name in names], ignore_index=True)
    rows["value"] = draws.integers(2000, 8000, len(rows)) / 10_000
    rows["stderr"] = draws.integers(50, 300, len(rows)) / 10_000
    return study.with_measured(tasks=rows)


TASKS = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
PLACES = {
    ("", "Dense"): "Dense",
    (", 30 %", "Global magnitude"): "Masked30",
    (", 30 %", "Layerwise magnitude"): "Masked30Layerwise",
    (", 60 %", "Global magnitude"): "Masked60",
    (", 60 %", "Layerwise magnitude"): "Masked60Layerwise",
    (", 2:4", "Magnitude"): "Masked2:4",
}


def test_accuracies_by_method_and_task(tried):
    table = task_grid(tried)
    rows = read(to_markdown(table))
    scores = tried.tasks.pivot(index="variant", columns="task", values="value")[[*TASKS]]
    scores["mean"] = scores.mean(axis=1)
    assert [(model + kind, label) for model in ("one", "two") for kind, label in PLACES] == [*rows]
    for model in ("one", "two"):
        for (kind, label), variant in PLACES.items():
            due = [f"{100 * value:.2f}" for value in scores.loc[f"{variant} ({model})"]]
            assert rows[model + kind, label] == due
    errors = tried.tasks["stderr"].to_numpy().reshape(-1, 7)
    means = np.sqrt((errors**2).sum(axis=1)) / 7
    said = say("caption.standard_errors", error=errors.max(), mean=means.max())
    assert said in table.caption


def test_accuracies_in_every_format(tried):
    table = task_grid(tried)
    due = [cell for row in read(to_markdown(table)).values() for cell in row]
    assert re.findall(r"<td>([\d.]+)", to_html(table)) == due
    assert re.findall(r"& ([\d.]+)", to_latex(table, "t")) == due


def test_two_unpruned_variants_keep_their_names():
    weights = sr.load(small_llama().eval(), name="one")
    twice = [sr.dense(weights), sr.dense(weights, name="Again")]
    study = sr.compare(*twice, *(sr.masked(sr.global_magnitude(weights, s)) for s in (0.3, 0.6)))
    rows = pd.concat(
        [seven(name, None, less / 64) for less, name in enumerate(study.variants["variant"])]
    )
    rows = read(to_markdown(task_grid(study.with_measured(tasks=rows))))
    assert [key for key in rows if not key[0]] == [("", "Dense"), ("", "Again")]


def test_different_versions_of_a_task_are_named(tried):
    other = tried.tasks.copy()
    at = (other["task"] == "rte") & (other["variant"] == "Masked30 (one)")
    other["task_version"] = np.where(at, "2.0", "1.0")
    table = task_grid(tried.with_measured(tasks=other))
    assert say("caption.task_versions_differ", tasks=["RTE"]) in table.caption
    unknown = tried.with_measured(tasks=tried.tasks.assign(stderr=float("nan")))
    assert say("caption.no_standard_error") in task_grid(unknown).caption


def test_no_grid_of_tasks_without_two_prunings(tried):
    for kept in (["Dense (one)", "Masked30 (one)"], ["Masked30 (one)", "Masked60 (one)"]):
        rows = tried.tasks[tried.tasks["variant"].isin(kept)]
        assert (task_grid(tried.with_measured(tasks=rows)) is None) == ("Dense (one)" in kept)
    six = tried.tasks[tried.tasks["task"] != "rte"]
    assert task_grid(tried.with_measured(tasks=six)) is None


def test_no_grid_of_one_pruning():
    weights = sr.load(small_llama().eval(), name="one")
    variants = [sr.dense(weights), sr.masked(sr.global_magnitude(weights, 0.5))]
    study = sr.compare(*variants).with_measured(quality=sr.perplexity(variants, TEXT))
    assert method_grids(study) == []
