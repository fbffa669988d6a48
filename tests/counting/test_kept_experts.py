"""Lists of kept experts: as values, as files of this and other programs, and hostile ones."""

import json

import pytest
import torch
from mixtures import mixture
from torch import nn

import sparsity_report as sr
from sparsity_report.counting.kept_experts import KeptExperts, checked_stacks, expert_groups

FIRST, SECOND = (f"model.layers.{block}.mlp.experts" for block in (0, 1))
SIX = (0, 2, 3, 4, 6, 7)


@pytest.fixture(scope="module")
def mixtral():
    return sr.load(mixture("Mixtral"), name="mix")


@pytest.fixture(scope="module")
def grouped():
    """Two groups of four experts, of which a router chooses one group."""
    return sr.load(mixture("DeepseekV3"), name="deep")


def test_a_value_has_the_experts_of_every_module(mixtral):
    kept = KeptExperts(mixtral, {FIRST: [*SIX], SECOND: [*SIX]})
    assert kept.kept == {FIRST: SIX, SECOND: SIX}
    assert kept.counts == {FIRST: 8, SECOND: 8}
    assert (kept.label, kept.removed) == ("6of8", 4)
    uneven = KeptExperts(mixtral, {SECOND: SIX})
    assert uneven.kept == {FIRST: tuple(range(8)), SECOND: SIX}
    assert (uneven.label, uneven.removed) == ("14of16", 2)
    assert repr(kept) == "Experts of mix: 12 of 16 kept in 2 modules, by a given list"


@pytest.mark.parametrize(
    ("kept", "message"),
    [({"model.layers.0.mlp.gate": SIX}, r"^mix has 0 modules .* 'model\.layers\.0\.mlp\.gate'"),
     ({FIRST: (0, 1, 8)}, r"^mix has experts 0 to 7 in \S+0\.mlp\.experts, but the list"),
     ({FIRST: (-1, 0, 1)}, "0 to 7 in"), ({FIRST: (0, True)}, "0 to 7 in"),
     ({FIRST: (0, 1.0)}, "0 to 7 in"), ({FIRST: (0, 1, 1)}, r"or one twice"),
     ({FIRST: SIX, 0: SIX}, r"^mix has two lists of experts for model\.layers\.0"),
     ({FIRST: (5,)}, r"keep 1 of the 8 experts of \S+, .* can reach 1, but it uses 2; keep"),
     ({FIRST: ()}, r"keep 0 of the 8")],
)  # fmt: skip
def test_a_bad_choice_is_one_line(mixtral, kept, message):
    with pytest.raises(sr.SparsityReportError, match=message):
        KeptExperts(mixtral, kept)


def test_a_model_without_experts_is_one_line():
    with pytest.raises(sr.SparsityReportError, match=r"^demo has no modules with several experts"):
        sr.reap(sr.load(), keep=0.5, score="magnitude")


def test_groups_keep_equal_numbers(grouped):
    assert expert_groups(checked_stacks(grouped)[FIRST]) == [range(4), range(4, 8)]
    assert KeptExperts(grouped, {FIRST: (0, 1, 6, 7)}).label == "12of16"
    with pytest.raises(sr.SparsityReportError, match=r"keep 2 to 4 experts of the groups"):
        KeptExperts(grouped, {FIRST: (0, 1, 4, 5, 6, 7)})
    # Two of eight are as many as a token uses, but a token reaches one group only.
    with pytest.raises(sr.SparsityReportError, match=r"can reach 1, but it uses 2;"):
        KeptExperts(grouped, {FIRST: (0, 4)})


def test_tied_experts_are_one_line():
    model = mixture("Mixtral")
    one, other = (layer.mlp.experts for layer in model.model.layers)
    other.down_proj = one.down_proj
    with pytest.raises(sr.SparsityReportError, match=r"shares the experts of .*layers\.1.* with "):
        KeptExperts(sr.load(model), {})


class DenseExperts(nn.Module):
    """Matrices of which every token uses all."""

    def __init__(self):
        super().__init__()
        self.up_proj = nn.Parameter(torch.randn(4, 6, 6))

    def forward(self, x):
        return torch.einsum("...i,eoi->...eo", x, self.up_proj).sum(-2)


def test_matrices_that_every_token_uses_are_no_choice():
    weights = sr.load(nn.Sequential(nn.Linear(6, 6), DenseExperts()))
    assert weights["1.up_proj"].experts == 4
    with pytest.raises(sr.SparsityReportError, match="no modules with several experts"):
        KeptExperts(weights, {})


def test_overlap_counts_the_experts_of_both(mixtral):
    one = KeptExperts(mixtral, {FIRST: (0, 1, 2), SECOND: (0, 1)})
    other = KeptExperts(mixtral, {FIRST: (1, 2, 3, 4, 5), SECOND: (2, 3)})
    frame = one.overlap(other)
    assert frame.to_dict("list") == {
        "module_name": [FIRST, SECOND], "experts": [8, 8],
        "both": [2, 0], "first": [1, 2], "second": [3, 2], "overlap": [2 / 6, 0.0],
    }  # fmt: skip
    few = sr.load(mixture("Mixtral", num_local_experts=4), name="few")
    with pytest.raises(sr.SparsityReportError, match=r"^mix has other experts than few"):
        one.overlap(KeptExperts(few, {}))


def test_a_saved_list_is_read_back(mixtral, tmp_path):
    ids = torch.arange(32) % 61
    for kept in (
        sr.reap(mixtral, ids, keep=6, window=16), sr.reap(mixtral, keep=6, score="magnitude"),
        sr.read_experts(mixtral, {0: SIX}),
    ):  # fmt: skip
        back = sr.read_experts(mixtral, kept.save(tmp_path / "kept.json"))
        assert (back.kept, back.counts) == (kept.kept, kept.counts)
        assert (back.method, back.basis, back.label) == (kept.method, kept.basis, kept.label)


def test_a_saved_list_of_other_weights_is_one_line(mixtral, tmp_path):
    path = KeptExperts(mixtral, {}).save(tmp_path / "kept.json")
    few = sr.load(mixture("Mixtral", num_local_experts=4), name="few")
    with pytest.raises(
        sr.SparsityReportError, match=r"^few has other experts than those of kept\.json"
    ):
        sr.read_experts(few, path)
    with pytest.raises(sr.SparsityReportError, match=r"^demo has other experts than"):
        sr.read_experts(sr.load(), path)


# What other programs write: llm-compressor's report_path, reap-mlx's plan, and plain lists.
LISTS = [
    {"model.layers.0.mlp": [*SIX], "model.layers.1.mlp": [*reversed(SIX)]},
    {"version": "1.0",
     "kept": [{"layer": b, "expert": e, "signal": 1.5} for e in SIX for b in (1, 0)],
     "pruned": [{"layer": 0, "expert": 1}]},
    {"0": [*SIX], "1": [*SIX]}, {FIRST: [*SIX], SECOND: [*SIX]},
]  # fmt: skip


@pytest.mark.parametrize("data", LISTS)
def test_lists_of_other_programs(mixtral, tmp_path, data):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(data))
    kept = sr.read_experts(mixtral, path)
    assert kept.kept == {FIRST: SIX, SECOND: SIX}
    assert (kept.method, kept.basis.name, kept.basis.windows) == ("expert_list", "list.json", None)
    mapped = sr.read_experts(mixtral, data)
    assert mapped.kept == kept.kept
    assert mapped.basis.fingerprint == kept.basis.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [("", r"list\.json is damaged"), ("[]", r"not a JSON object"),
     ('{"0": [0, 1], "0": [2, 3]}', r"a name twice"), ('{"0": [0, NaN]}', r"NaN is not a number"),
     ('{"0": 5}', r"^list\.json: TypeError.*; give experts"),
     ('{"0": null}', r"^list\.json: TypeError.*; give experts"), ('{"0": "01"}', "0 to 7 in"),
     ('{"0": [0, true]}', "0 to 7 in"), ('{"0": [[0], [1]]}', "0 to 7 in"),
     ('{"0": [0, 99]}', "^mix has experts 0 to 7"), ('{"0": [0, 0, 1]}', r"twice"),
     ('{"7": [0, 1]}', r"^mix has 0 modules of experts that '7' may name"),
     ('{"\\u001b[31m": [0, 1]}', "has 0 modules"),
     ('{"0": [0, 1], "model.layers.0.mlp": [0, 2]}', "two lists of experts"),
     ('{"kept": [{"layer": 0}]}', r"^list\.json: KeyError\('expert'\)"),
     ('{"kept": [[0, 1]]}', r"^list\.json: TypeError"),
     ('{"kept": [{"layer": [0], "expert": 1}]}', r"^list\.json: TypeError"),
     ('{"0": [0, ' + "9" * 50 + "]}", r"a number of 50 digits"),
     ('{"format": "sparsity-report/experts"}', r"^list\.json: KeyError\('method'\)")],
)  # fmt: skip
def test_hostile_files_are_one_line(mixtral, tmp_path, text, message):
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(sr.SparsityReportError, match=message) as error:
        sr.read_experts(mixtral, path)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("version", 2, "is damaged or of another version; give"), ("version", "1", "another version"),
     ("method", "best", "another version"), ("method", ["reap"], "another version"),
     ("basis", {"name": "a"}, "TypeError"), ("basis", {"name": 1, "fingerprint": "b"}, "damaged"),
     ("basis", {"name": "a", "fingerprint": "b", "windows": 1}, "damaged"),
     ("basis", {"name": "a", "fingerprint": "b", "windows": 1.5, "window": 2}, "damaged"),
     ("kept", {FIRST: [0, 1, 99]}, "0 to 7 in"), ("kept", [0], "TypeError"),
     ("kept", {FIRST: 3}, "TypeError"), ("kept", None, "AttributeError"),
     ("counts", {FIRST: 8}, r"^mix has other experts than those of kept\.json")],
)  # fmt: skip
def test_edited_files_are_one_line(mixtral, tmp_path, name, value, message):
    path = KeptExperts(mixtral, {}).save(tmp_path / "kept.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(sr.SparsityReportError, match=message):
        sr.read_experts(mixtral, path)
