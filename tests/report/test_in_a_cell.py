"""Values in notebook cells: short lines, small HTML without a script, numbers of the frames."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import hostile
import numpy as np
import pandas as pd
import pytest
import torch
from drawings import map_cells
from helpers import Tiny, study_of
from page_elements import Page
from papers import Tables
from torch import nn

import sparsity_report as sr
from sparsity_report.draw.heat_maps import sparsity_map
from sparsity_report.findings.verdict import verdict
from sparsity_report.report import value_display
from sparsity_report.report.value_display import bundle

LIMIT = 60_000


def alone():
    return sr.compare(sr.dense(sr.load(Tiny(), name="t")))


def flat():
    return study_of(sr.load(nn.ModuleDict({"fc1": nn.Linear(20, 30)}), name="flat"), 0.5)


def nothing():
    return sr.compare(sr.dense(sr.load(nn.LayerNorm(4), name="n")))


def meta():
    with torch.device("meta"):
        return sr.compare(sr.dense(sr.load(Tiny(), name="meta")))


def seventeen():
    weights = sr.load(Tiny(), name="t")
    levels = (sr.global_magnitude(weights, n / 20) for n in range(1, 17))
    return sr.compare(sr.dense(weights), *map(sr.masked, levels))


STUDIES = {
    "demo": lambda: study_of(sr.load()), "alone": alone, "no blocks": flat, "nothing": nothing,
    "meta": meta, "seventeen": seventeen,
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_shows_its_verdict_and_totals(name):
    study = STUDIES[name]()
    lines = repr(study).split("\n")
    assert len(lines) == 3
    assert lines[1] == str(verdict(study))
    made = study._repr_mimebundle_()
    assert set(made) == {"text/html", "text/plain"}
    assert made["text/plain"] == repr(study)
    page = Page(made["text/html"])
    (opening, *_) = page.all("p")
    assert opening[1] == str(verdict(study))
    assert len(made["text/html"]) < LIMIT
    assert not page.all("script")
    head, *rows = rows_of(made["text/html"])
    assert head[0] == "Variant"
    assert [row[0] for row in rows] == study.totals["variant"].tolist()
    dense = study.totals["stored_bytes"].iloc[0]
    for row, (_, due) in zip(rows, study.totals.iterrows(), strict=True):
        shares = (due["sparsity_prunable"], due["sparsity_model"])
        assert row[1:3] == ["–" if pd.isna(s) else f"{100 * s:.1f}\u202f%" for s in shares]
        size = due["stored_bytes"]
        ratio = "–" if pd.isna(size) else f"{size / dense:.2f}\u202f×"
        assert row[3:] == [thin(size), ratio, thin(due["flops_per_token"])]
    drawn = study.facts.cells(study.facts.headline)
    assert bool(page.all("svg")) == (not drawn.empty)


def rows_of(html):
    """Return the texts of the one table."""
    (table,) = Tables(html).tables
    return [[cell["text"] for cell in row] for row in (*table["heads"], *table["rows"])]


def thin(number):
    return "–" if pd.isna(number) else f"{int(number):,}".replace(",", "\u202f")


def test_the_map_is_that_of_the_report(demo):
    """The cells of the notebook's map have the values and the colors of the page's map."""
    study = study_of(demo)
    made = study._repr_mimebundle_()["text/html"]
    drawn = map_cells(made)
    large = sparsity_map(study, "CSR30")
    due = {
        (large.blocks.index(cell.block), large.names.index(cell.name)): large.paint(cell.value)[0]
        for cell in large.cells
    }
    assert {place: cell.color for place, cell in drawn.items()} == due
    assert made.count(">0 %<") == made.count(">100 %<") == 1


def test_the_largest_map_there_is_stays_small():
    check_size([str(n) for n in range(120)], [f"projection {n}" for n in range(41)])


def check_size(blocks, names):
    """Draw a map in which each cell differs from its neighbors, as a cell of a notebook does."""
    places = [(block, name) for name in names for block in blocks]
    frame = pd.DataFrame(places, columns=["block", "projection"])
    frame["share"] = [((7 * n) % 101) / 100 for n in range(len(frame))]
    grid = SimpleNamespace(blocks=blocks, projections=names)
    drawn = value_display._figure(value_display._map("all", grid, frame, "share"))
    assert len(map_cells(drawn)) == len(frame)
    assert len(drawn) < LIMIT - 10_000  # what else there is, see below


def test_all_but_the_map_takes_little(demo):
    levels = (sr.global_magnitude(demo, n / 40) for n in range(1, 31))
    variants = [sr.masked(p, name=f"{n} {'long name ' * 9}") for n, p in enumerate(levels)]
    made = bundle(sr.compare(sr.dense(demo), *variants))["text/html"]
    assert len(made) - len(made.partition("<figure")[2].partition("</figure>")[0]) < 10_000
    assert len(rows_of(made)) == 21
    assert ">11 more<" in made


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """Every kind of value, named as whoever means harm would."""
    study = hostile.study(tmp_path_factory.mktemp("hostile"))
    pruning = sr.global_magnitude(study.weights, 0.5)
    variant = sr.csr(pruning, name=hostile.TEXTS["image"])
    return [study, study.weights, pruning, variant]


def test_hostile_names_are_text(values):
    for value in values:
        assert hostile.UNSEEN.findall(repr(value).replace("\n", "")) == []
    made = values[0]._repr_mimebundle_()["text/html"]
    page = Page(made)
    tags = [tag for tag, _ in page.elements]
    assert not {"script", "img", "iframe", "a", "link", "object"} & {*tags}
    assert tags.count("style") == 1
    attributes = [each for _, attrs in page.elements for each in attrs.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "href"]
    assert "http" not in "".join(v or "" for _, v in attributes)
    assert "url(" not in made
    assert len(made) < LIMIT
    assert hostile.UNSEEN.findall("".join(page.texts.values()).replace("\n", "")) == []


def test_every_value_has_three_lines(values):
    for value in values:
        assert len(repr(value).split("\n")) == 3
        assert max(map(len, repr(value).split("\n"))) < 420


def test_a_pruning_is_shown_by_its_counts(demo):
    pruning = sr.global_magnitude(demo, 0.3)
    first, second, third = repr(pruning).split("\n")
    assert first == "Pruning of demo: global magnitude, target sparsity 30 %"
    assert second.removeprefix("Pruning zeroed ").startswith(
        f"{pruning.pruned:,} of 786,432 prunable weights".replace(",", "\u202f")
    )
    assert third.startswith("threshold |w| ≤ ")
    assert np.float32(third.split()[-1]) == pruning.threshold


def test_no_library_of_charts_is_loaded_for_it():
    code = (
        "import sys, sparsity_report as sr\nw = sr.load()\n"
        "made = sr.compare(sr.csr(sr.global_magnitude(w, 0.3)))._repr_mimebundle_()\n"
        "print(len(made), {'vl_convert', 'ipywidgets'} & {*sys.modules})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert run.stdout == "2 set()\n"


def test_maps_of_a_pair_show_shares_of_the_weights_of_the_base(monkeypatch):
    # Layers of different sizes, so that counts have another order than shares.
    pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    pair = sr.compare_checkpoints(sr.global_magnitude(sr.load(), sparsity=0.2), pruning)
    maps = []
    monkeypatch.setattr(value_display, "_figure", lambda shape: maps.append(shape) or "")
    bundle(pair)
    shown = [{(cell.block, cell.name): cell.value for cell in one.cells} for one in maps]
    rows = pair.matches[pair.matches["group"].isin(["attention_linear", "mlp_linear"])]
    assert len(rows) == len(shown[0]) == len(shown[1]) > 20
    for row in rows.to_dict("records"):
        block, name = re.search(r"layers\.(\d+)\.(?:\w+\.)?(\w+)$", row["module_name"]).groups()
        weights = row["weight_before"]
        assert shown[0][block, name] == pytest.approx(row["zeros_before"] / weights)
        assert shown[1][block, name] == pytest.approx(row["zeros_after"] / weights)
