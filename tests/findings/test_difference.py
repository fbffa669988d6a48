"""Two studies side by side: what changed is said, and nothing else."""

import dataclasses

import measurements
import pytest
import torch
from helpers import Tiny, command, study_of
from wording import of_key, wording

import sparsity_report as sr
from sparsity_report.findings.difference_findings import difference_findings
from sparsity_report.words.sentences import say

PRUNABLE = 2 * (6 * 6 + 2 * 6 * 10)


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    return sr.load(Tiny(**options), name="tiny")


@pytest.fixture(scope="module")
def before():
    return study_of(tiny(), 0.3)


def facts(changed, **where):
    rows = changed.changes
    for column, value in where.items():
        rows = rows[rows[column].isna() if value is None else rows[column] == value]
    return {row["what"]: (row["before"], row["after"]) for row in rows.to_dict("records")}


def test_the_same_weights_make_no_difference(before, tmp_path):
    path = before.save(tmp_path / "study.json")
    for other in (before, study_of(tiny(), 0.3), path):
        changed = sr.diff(before, other)
        assert not changed
        assert changed.changes.empty
        assert str(changed) == wording("difference.none", count="3 variants")


def test_another_level_changes_counts_but_no_shape(before):
    named = dict(zip(("masked", "csr"), ("Masked30", "CSR30"), strict=True))
    weights = tiny()
    pruning = sr.global_magnitude(weights, 0.5)
    after = sr.compare(
        sr.dense(weights),
        sr.masked(pruning, name=named["masked"]),
        sr.csr(pruning, name=named["csr"]),
    )
    changed = sr.diff(before, after)
    assert changed
    assert set(changed.changes["variant"]) == {"Masked30", "CSR30"}
    masked = facts(changed, variant="Masked30", module_name=None)
    assert masked["pruned"] == (round(0.3 * PRUNABLE), round(0.5 * PRUNABLE))
    assert masked["asked_sparsity"] == (0.3, 0.5)
    assert "stored_bytes" not in masked
    assert "flops_per_token" not in masked
    csr = facts(changed, variant="CSR30", module_name=None)
    fewer = round(0.3 * PRUNABLE) - round(0.5 * PRUNABLE)
    assert csr["stored_bytes"][1] - csr["stored_bytes"][0] == fewer * (4 + 4)
    assert csr["flops_per_token"][1] - csr["flops_per_token"][0] == 2 * fewer
    layer = facts(changed, variant="Masked30", module_name="layers.0.fc1")
    assert set(layer) == {"nonzero", "useful_flops_per_token"}
    assert f"Masked30, {say('column.asked_sparsity')}: 30 % → 50 %" in changed.sentences()


def test_variants_and_modules_that_come_and_go(before):
    after = study_of(tiny(blocks=3, hidden=12), 0.5)
    changed = sr.diff(before, after)
    assert facts(changed, variant="Masked30", module_name=None)["variant"] == ("masked", None)
    assert facts(changed, variant="CSR50", module_name=None)["variant"] == (None, "csr")
    # Of variants that only one study has no module is listed.
    assert set(changed.changes["variant"][changed.changes["module_name"].notna()]) == {"Dense"}
    assert facts(changed, module_name="layers.2.fc1")["module"] == (None, (12, 6))
    assert facts(changed, module_name="layers.0.fc1")["shape"] == ((10, 6), (12, 6))
    assert facts(changed, module_name="layers.0.fc1")["total"] == (10 * 7, 12 * 7)
    back = sr.diff(after, before)
    assert facts(back, module_name="layers.2.fc1")["module"] == ((12, 6), None)
    assert not of_key(difference_findings(changed), "difference.modules_removed")
    (added,) = of_key(difference_findings(changed), "difference.modules_added")
    leaves = ("self_attn.q_proj", "fc1", "fc2", "norm")
    names = tuple(f"layers.2.{leaf}" for leaf in leaves)
    assert added.values == {"variant": "Dense", "names": names}
    sentences = "\n".join(changed.sentences())
    assert f"CSR30 → CSR50, {say('column.asked_sparsity')}: 30 % → 50 %" in sentences
    assert "layers.0.fc1: 10 × 6 → 12 × 6" in sentences


def test_levels_are_matched_by_layout_and_policy_only_where_one_of_each_is_left():
    weights = tiny()

    def of(*prunings, make=sr.masked):
        return sr.compare(*(make(p, name=f"{n}") for n, p in enumerate(prunings)))

    low, high = (sr.global_magnitude(weights, s) for s in (0.3, 0.9))
    layerwise = sr.layerwise_magnitude(weights, 0.5)
    *fewer, csr = (
        sr.masked(low, name="a"), sr.masked(layerwise, name="b"), sr.csr(low, name="c")
    )  # fmt: skip
    one = sr.compare(*fewer, csr)
    other = sr.compare(
        sr.csr(high, name="x"), sr.masked(sr.layerwise_magnitude(weights, 0.6), name="y"),
        sr.masked(high, name="z"),
    )  # fmt: skip
    matched = {match.before: match.after for match in sr.diff(one, other).matches}
    assert matched == {"a": "z", "b": "y", "c": "x"}
    two = sr.compare(sr.masked(low, name="d"), sr.masked(high, name="e"))
    assert sr.diff(one, two).matches == ()
    assert sr.diff(one, two).sentences()[:3] == [
        wording("difference.no_common_variant"),
        "Removed: a (masked), b (masked) and c (CSR)", "Added: d (masked) and e (masked)"
    ]  # fmt: skip
    assert "Removed: c (CSR)" in sr.diff(one, sr.compare(*fewer)).sentences()


@pytest.mark.parametrize(
    ("speed", "far", "machine", "told"),
    [
        (0.4, 1.04, "some machine", "0.40 (0.38 to 0.42) and 0.40 (0.38 to 0.42) over Dense"),
        # As far apart as the same kernel, timed twice, was.
        (0.46, 1.1, "some machine", "0.40 (0.38 to 0.42) and 0.46 (0.44 to 0.48) over Dense"),
        (2.5, 1.04, "some machine", "at a time: 0.40 (0.38 to 0.42) → 2.50 (2.38 to 2.62)"),
        # Noise, of which the study after tells no speed.
        (2.5, 6.0, "some machine", ""),
        (2.5, 1.04, "another machine", ""),
    ],
)
def test_speeds_are_told_where_both_are_stated_and_their_intervals_are_apart(
    speed, far, machine, told
):
    weights = tiny()
    one = measurements.latency()
    other = measurements.latency(variants=("Dense", "Masked90", "CSR90"))
    ends = ["realised_speedup", "realised_low", "realised_high"]
    other.loc[other["variant"] == "CSR90", ends] = (speed, speed * 0.95, speed * 1.05)
    other = other.assign(control_high=far, machine=machine)
    changed = sr.diff(
        *(
            measurements.put_in(study_of(weights, share), latency=frame)
            for share, frame in ((0.3, one), (0.9, other))
        )
    )
    speeds = [f for f in difference_findings(changed) if f.key.startswith("difference.speed_up")]
    # With 1 and with 128 tokens; Dense is its own reference, Masked runs the same kernels.
    assert len(speeds) == (2 if told else 0)
    assert all(f.values["name"] == "CSR30 → CSR90" and told in str(f) for f in speeds)


def test_perplexities_are_compared_of_one_text_scored_in_one_way():
    weights = tiny(vocabulary=2000)
    levels = (((0.0, 10.0), (0.3, 12.5)), ((0.0, 10.0), (0.9, 1234.5)))
    studies = [
        measurements.put_in(
            study_of(weights, own[1][0]),
            quality=measurements.quality(own, ("Dense", f"Masked{own[1][0] * 100:.0f}")),
        )
        for own in levels
    ]
    changed = sr.diff(*studies)
    perplexities = [s for s in changed.sentences() if "perplexity" in s]
    assert perplexities == [
        "Masked30 → Masked90: perplexity on some.txt rises from 12.50 to 1\u202f234.50. It has no "
        "interval: the scores are unpaired, because the study keeps no losses."
    ]
    for column, value in (("window", 128), ("dtype", "float16"), ("text_fingerprint", "b")):
        scored = studies[1].quality.assign(**{column: value})
        other = sr.diff(studies[0], measurements.put_in(studies[1], quality=scored))
        assert other.measured.empty
    # What was measured differs from run to run: alone it is no change.
    again = studies[0].quality.assign(perplexity=[10.0, 12.6])
    same = sr.diff(studies[0], measurements.put_in(studies[0], quality=again))
    assert not same
    assert same.sentences()[1:] == [
        "Masked30: perplexity on some.txt rises from 12.50 to 12.60. It has no interval: "
        "the scores are unpaired, because the study keeps no losses."
    ]


def test_names_in_what_changed_are_those_for_people():
    torch.manual_seed(0)
    model = Tiny()
    weights = sr.load(model, name="tiny")
    one = sr.compare(sr.masked(sr.global_magnitude(weights, 0.3), name="M"))
    layerwise = sr.csr(sr.layerwise_magnitude(weights, 0.3), name="M")
    regrouped = sr.load(model, name="tiny", groups={"*.fc1": "attention_linear"})
    sentences = sr.diff(one, sr.compare(layerwise)).sentences()
    assert "M, layout: masked → CSR" in sentences
    assert "M, method: global magnitude → layerwise magnitude" in sentences
    assert any(s.endswith(": dense → CSR") and "layout of 6 modules" in s for s in sentences)
    spared = sr.compare(sr.masked(sr.global_magnitude(regrouped, 0.3), name="M"))
    assert any(": MLP → attention" in s for s in sr.diff(one, spared).sentences())
    layers = one.layers.assign(prunable=False)
    closed = dataclasses.replace(one, layers=layers)
    assert any(s.endswith(": yes → no") for s in sr.diff(one, closed).sentences())


def test_the_convention_is_part_of_the_numbers(before):
    after = study_of(tiny(), 0.3, convention="notebook", context=8)
    study = facts(sr.diff(before, after), variant=None)
    assert study == {"convention": ("standard", "notebook"), "context": (None, 8)}


def test_the_unknown_equals_only_itself(before):
    layers = before.layers.copy()
    layers["stored_bytes"] = layers["stored_bytes"].astype("Int64")
    layers.loc[0, "stored_bytes"] = None
    unknown = dataclasses.replace(before, layers=layers)
    assert not sr.diff(unknown, unknown)
    (row,) = sr.diff(before, unknown).changes.dropna(subset="module_name").to_dict("records")
    assert (row["what"], row["before"], row["after"]) == ("stored_bytes", 11 * 6 * 4, None)


def test_command_line_and_page(before, tmp_path):
    one = before.save(tmp_path / "one.json")
    other = study_of(tiny(seed=1), 0.3).save(tmp_path / "two.json")
    same = command("diff", one, one)
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout == wording("difference.none", count="3 variants") + "\n"
    run = command("diff", one, other, "-o", tmp_path / "diff.html", "--language", "fr")
    assert run.returncode == 1
    assert "Dense, empreinte" in run.stdout
    page = (tmp_path / "diff.html").read_text(encoding="utf-8")
    assert '<html lang="fr">' in page
    assert "layers.0.fc1" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    for wrong in ([one, tmp_path / "gone.json"], [one, __file__]):
        refused = command("diff", *wrong)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert len(refused.stderr.splitlines()) == 1


def test_hostile_names_in_what_changed(tmp_path):
    name = "</script><script>hacked=1</script>{{7*7}}\u202e" + "x" * 5000

    def between(name):
        return sr.diff(*(sr.compare(sr.dense(tiny(seed=seed), name=name)) for seed in (0, 1)))

    harmless, text = (
        sr.write_diff(between(called), tmp_path / "d.html").read_text(encoding="utf-8")
        for called in ("plain", name)
    )
    assert text.count("<script") == harmless.count("<script") > 0
    assert "\u202e" not in text
    with pytest.raises(sr.SparsityReportError, match=r"\.html or \.md file"):
        sr.write_diff(between(name), tmp_path / "d.txt")


def test_modules_that_come_and_go_have_their_shape_in_the_page(tmp_path):
    models = [torch.nn.Sequential(torch.nn.Linear(1200, 3)), torch.nn.Linear(1200, 3)]
    studies = [sr.compare(sr.dense(sr.load(model, name="m"))) for model in models]
    page = sr.write_diff(sr.diff(*studies), tmp_path / "d.html").read_text(encoding="utf-8")
    assert page.count("3 × 1200") == 2
