"""Quality against bytes as the curve of the explorer: what is measured, and what is not."""

from itertools import pairwise

import pandas as pd
import pytest
from explored import widgets
from helpers import study_of
from measurements import TEXT, frame, put_in, quality

import sparsity_report as sr
from sparsity_report.explorer.box_explorer import Picture
from sparsity_report.study.schema import TABLES

NAMES = ("Dense", "Masked30", "CSR30", "Masked70", "Masked2:4")
SCORES = (10.0, 12.5, 12.5, 40.0, 20.0)


def scored(names=NAMES, scores=SCORES, **columns):
    rows = quality([(0.0, 1.0)] * len(names), names).assign(perplexity=scores)
    return rows.assign(**columns)


@pytest.fixture(scope="module")
def bare(demo):
    first, second = (sr.global_magnitude(demo, share) for share in (0.3, 0.7))
    variants = (sr.masked(first), sr.csr(first), sr.masked(second), sr.masked(sr.n_m(demo, 2, 4)))
    return sr.compare(sr.dense(demo), *variants)


@pytest.fixture(scope="module")
def study(bare):
    return put_in(bare, quality=scored())


def live(study, width=900):
    built = sr.explore(study)
    built._shell.width = width
    return built


@pytest.fixture
def explorer(study):
    return live(study)


def data(explorer, name):
    return explorer.chart["datasets"][name]


def pull(explorer, at):
    (picture,) = [one for one in widgets(explorer) if isinstance(one, Picture)]
    picture.pulled = [at, (picture.pulled or [None, 0])[1] + 1]


def bitmask(demo, zeros):
    """Bytes of float32 matrices as values and a bit for each weight."""
    total = sum(demo.tensor(p.name).numel() for p in demo.prunable)
    return 4 * (total - zeros) + total // 8


def test_marks_stand_at_the_smallest_lossless_bytes(explorer, demo):
    marks = {row["variant"]: row for row in data(explorer, "points")}
    # Equal scores at one place share a mark.
    assert [*marks] == ["Dense", "Masked30, CSR30", "Masked70", "Masked2:4"]
    total = sum(demo.tensor(p.name).numel() for p in demo.prunable)
    wanted = [4 * total, *(bitmask(demo, round(s * total)) for s in (0.3, 0.7, 0.5))]
    assert [row["bytes"] for row in marks.values()] == wanted
    assert [row["value"] for row in marks.values()] == [10.0, 12.5, 40.0, 20.0]
    assert [row["layout"] for row in marks.values()] == ["dense", *["bitmask"] * 3]
    lines = pd.DataFrame(data(explorer, "curve")).groupby("line", sort=False)["value"].agg(list)
    assert lines.to_dict() == {"global magnitude": [10.0, 12.5, 40.0], "2:4": [10.0, 20.0]}
    wording = explorer.chart["description"].replace("\u202f", " ")
    assert "perplexity against bytes: 10.0 at 3.15 MB (Dense), 12.5 at 2.30 MB (Masked30" in wording


def test_a_level_has_bytes_and_no_quality(explorer, demo):
    total = sum(demo.tensor(p.name).numel() for p in demo.prunable)
    explorer.sparsity = 0.45
    (level,) = data(explorer, "level")
    assert level["bytes"] == pytest.approx(bitmask(demo, round(0.45 * total)), rel=1e-4)
    assert level["label"].endswith("\nnot measured")
    assert (level["open"], level["on"]) == (True, None)
    assert "not measured at this level" in level["tip"]
    assert not any(row["on"] for row in data(explorer, "points"))
    # A scored variant of the policy is named.
    explorer.sparsity = 0.7
    (level,) = data(explorer, "level")
    assert level["tip"].endswith("measured as Masked70")
    assert [row["variant"] for row in data(explorer, "points") if row["on"]] == ["Masked70"]
    assert explorer.variant == "Masked at level"
    # No variant of another policy, and none within bounds, was scored.
    explorer.policy = "layerwise_magnitude"
    assert data(explorer, "level")[0]["open"]
    explorer.policy = "global_magnitude"
    explorer.bounds = {"attention_linear": 0.5}
    explorer.sparsity = 0.7
    assert data(explorer, "level")[0]["open"]


def test_pulling_lands_on_a_level_by_its_bytes_and_snaps_to_marks(explorer):
    pulls = data(explorer, "pulls")
    bands = [row for row in pulls if not isinstance(row["id"], str)]
    assert bands[0]["from"] == 0
    assert all(a["to"] == b["from"] for a, b in pairwise(bands))
    sizes = explorer.study.by_level.smallest.set_index("sparsity")["bytes"]
    for band in bands:
        assert band["from"] <= sizes[band["id"]] <= band["to"]
    # Dense is as small as a bitmask of few zeros: the level meant is that of none.
    assert bands[-1]["id"] == 0
    snaps = {row["id"]: row for row in pulls if isinstance(row["id"], str)}
    marks = {row["id"]: row for row in data(explorer, "points")}
    assert [marks[at]["variant"] for at in snaps] == ["Dense", "Masked30, CSR30", "Masked70"]
    assert all(row["from"] < marks[at]["bytes"] <= row["to"] for at, row in snaps.items())
    pull(explorer, 0.62)
    assert (explorer.sparsity, explorer.variant) == (0.62, "Masked at level")
    pull(explorer, "2")
    assert (explorer.variant, explorer.sparsity) == ("Masked70", 0.7)
    (level,) = data(explorer, "level")
    assert level["label"].split("\n")[1] == "perplexity: 40.0"
    pull(explorer, 0.7)
    assert explorer.variant == "Masked at level"
    for wrong in ("9", "", "x", "-1"):
        pull(explorer, wrong)
        assert explorer.variant == "Masked at level"
    explorer.policy = "N:4"
    snaps = [row["id"] for row in data(explorer, "pulls") if isinstance(row["id"], str)]
    assert [marks[at]["variant"] for at in snaps] == ["Dense", "Masked2:4"]


def test_the_switch_keeps_all_in_its_place_and_is_a_step(explorer, bare):
    def frames(spec):
        if isinstance(spec, dict):
            if "name" in spec and "height" in spec and isinstance(spec["height"], int | float):
                yield spec["name"], spec["height"], spec.get("width")
            for part in spec.values():
                yield from frames(part)
        elif isinstance(spec, list):
            for part in spec:
                yield from frames(part)

    assert explorer.curve == "quality"
    before = list(frames(explorer.chart.to_dict(validate=False)))
    explorer.curve = "bytes"
    assert list(frames(explorer.chart.to_dict(validate=False))) == before
    assert {"even", "curve"} < {*explorer.chart["datasets"]}
    assert "explorer.curve = 'bytes'" in explorer.copied("python")
    explorer.undo()
    assert explorer.curve == "quality"
    with pytest.raises(sr.SparsityReportError, match=r"curve: .*; use one of quality, bytes"):
        explorer.curve = "speed"
    plain = live(bare)
    assert plain.curve == "bytes"
    assert "Curve" not in [getattr(one, "description", "") for one in widgets(plain)]


def shape(explorer):
    return explorer._scene.quality.shape


def test_of_several_texts_the_one_most_variants_were_scored_on(bare):
    other = scored(NAMES[:2], (7.0, 8.0), text="other.txt", text_fingerprint="fedcba9876543210")
    built = live(put_in(bare, quality=pd.concat([other, scored()])))
    assert [row["value"] for row in data(built, "points")] == [10.0, 12.5, 40.0, 20.0]
    note = next(row["text"] for row in data(built, "notes") if row["panel"] == "curve")
    assert note == "some.txt (sliding), whole model; only the marks are measured"
    # The note names infinite scores; a single place has no curve.
    broken = scored(scores=(10.0, 12.5, 12.5, float("inf"), 20.0))
    note = next(
        row["text"]
        for row in data(live(put_in(bare, quality=broken)), "notes")
        if row["panel"] == "curve"
    )
    assert note.endswith("not drawn: Masked70")
    alone = put_in(bare, quality=scored(("Masked30", "CSR30"), (12.5, 13.0)))
    assert alone.tradeoff is None
    assert live(alone).curve == "bytes"


def tasks(**columns):
    rows = [
        {"variant": name, "task": "lambada", "metric": "acc", "value": value, "stderr": 0.01,
         "higher_is_better": True, "filter": "none"}
        for name, value in zip(NAMES, (0.6, 0.55, 0.55, 0.2, 0.4), strict=True)
    ]  # fmt: skip
    return frame("tasks", rows).assign(**columns)


def test_a_task_has_its_direction_and_its_error(bare):
    built = live(put_in(bare, tasks=tasks()))
    assert shape(built).titles[1] == "lambada, acc (higher is better)"
    first = data(built, "points")[0]
    assert (first["low"], first["high"]) == (pytest.approx(0.59), pytest.approx(0.61))
    assert shape(built).domain[0] < 0.19
    assert shape(live(put_in(bare, tasks=tasks(higher_is_better=False)))).titles[1] == (
        "lambada, acc (lower is better)"
    )
    unknown = live(put_in(bare, tasks=tasks(higher_is_better=pd.NA)))
    assert shape(unknown).titles[1] == "lambada, acc"
    # Perplexity comes before tasks.
    both = live(put_in(bare, tasks=tasks(), quality=scored()))
    assert shape(both).titles[1] == "perplexity (lower is better)"


def test_far_apart_they_stand_on_a_logarithmic_axis(bare):
    near, far = (
        live(put_in(bare, quality=scored(scores=(10.0, 12.5, 12.5, most, 20.0))))
        for most in (79.0, 81.0)
    )
    assert (shape(near).log, shape(far).log) == (False, True)


def test_a_model_of_other_tokens_is_not_on_the_curve(bare):
    assert {"tokens", "text_fingerprint"} <= {*TABLES["quality"].names}
    mixed = scored(tokens=[100, 100, 100, 100, 90], **TEXT)
    built = live(put_in(bare, quality=mixed))
    assert [row["variant"] for row in data(built, "points")] == [
        "Dense",
        "Masked30, CSR30",
        "Masked70",
    ]


def test_a_study_with_levels_alone_is_as_before(demo):
    built = live(study_of(demo))
    assert (built.curve, built._view.curves) == ("bytes", ["bytes"])
