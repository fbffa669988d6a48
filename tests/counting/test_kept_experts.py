"""Lists of kept experts: as values, as files of this and other programs, and hostile ones."""

import json

import pytest
import torch
from mixtures import mixture
from torch import nn

import sparsity_report as sr
from sparsity_report.counting.kept_experts import KeptExperts, checked_stacks, expert_groups
from sparsity_report.words.sentences import say

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
     ({FIRST: (0, 1.0)}, "0 to 7 in"), ({FIRST: (0, 1, 1)}, r"has 1 twice;"),
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
    alike = sr.load(mixture("Mixtral"), name="alike")
    sr.read_experts(alike, path)
    note = say("note.list_of_model", file="kept.json", model="mix")
    assert (alike.notes.count(note), note in mixtral.notes) == (1, False)


def rows(layers, numbers):
    return [{"layer": layer, "expert": expert} for layer in layers for expert in numbers]


# Files of other programs, by hand from the sources that `expert_lists` names: two blocks that lose
# experts 1 and 5.
GONE = (1, 5)
REMOVED = [[block, expert] for block in (0, 1) for expert in GONE]
LISTS = [
    {"model.layers.0.mlp": [*SIX], "model.layers.1.mlp": [*reversed(SIX)]},  # llm-compressor
    {"version": 1, "model": "mix", "workload": "live capture", "pruned_experts": REMOVED},  # vllm
    {"version": 2, "routing_mode": "pre_topk_mask", "pruned_experts": REMOVED[::-1]},
    {"format": "llama-moe-prune", "version": 1, "mode": "soft",
     "model": {"architecture": "gemma4", "model_hash": "sha256:0", "expert_tensor_hash": "sha256:1",
               "expert_count": 8, "experts_used": 2},
     "calibration": {"dataset_hash": "sha256:2", "ppl_mask": "assistant", "metric": "reap",
                     "evaluated_tokens": 48},
     "pruning": {"requested_ratio": 0.25, "actual_ratio": 0.25,
                 "layers": {str(block): {"disabled_experts": [*GONE]} for block in (0, 1)}}},
    {"version": "1.0", "modelName": "mix", "saliencyMethod": "reap",
     "stats": {"totalExperts": 16, "prunedExperts": 4, "keptExperts": 12},
     "kept": [row | {"signal": 1.5, "rank": 1} for row in rows((1, 0), SIX)],
     "pruned": rows((0, 1), GONE)},  # 0xSero/reap-mlx
    {"kept": rows((0, 1), SIX)},
    {"version": 2, "model_name": "mix", "prune_method": "reap", "compression_ratio": 0.25,
     "saliency_by_layer": None, "keep_by_layer": {"0": [*SIX], "1": [*SIX]}},  # egesabanci/reap-mlx
    {str(block): {"kept": [*SIX], "keep": 6} for block in (0, 1)},  # 0xSero/glm-5.2-nonuniform
    {"base_model_id": "mix", "original_experts_per_layer": 8, "kept_experts_per_layer": 6,
     "hash_routed_layers": [], "keep_maps": {  # reap_plan.json of 0xSero's models
        "keep_by_layer": {"0": [*SIX], "1": [*SIX]},
        "ranked_by_layer": {"0": [*SIX, *GONE], "1": [*SIX, *GONE]}}},
    {"0": [*SIX], "1": [*SIX]}, {FIRST: [*SIX], SECOND: [*SIX]},
    {"layers.0": [*SIX], "model.layers.1": [*SIX]}, {"layer_0": [*SIX], "blk.1": [*SIX]},
]  # fmt: skip


@pytest.mark.parametrize("data", LISTS)
def test_lists_of_other_programs(mixtral, tmp_path, data):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(data, indent=1))
    kept = sr.read_experts(mixtral, path)
    assert kept.kept == {FIRST: SIX, SECOND: SIX}
    assert (kept.method, kept.basis.name, kept.basis.windows) == ("expert_list", "list.json", None)
    mapped = sr.read_experts(mixtral, data)
    assert mapped.kept == kept.kept
    assert mapped.basis.fingerprint == kept.basis.fingerprint


KEPT, OTHERS = {FIRST: SIX, SECOND: (0, 1, 2, 3, 4, 5)}, rows((0,), GONE) + rows((1,), (6, 7))
# The lines of files for other programs, by hand from the code that reads them.
WRITTEN = {
    "llm-compressor": [{"model.layers.0.mlp": [*SIX], "model.layers.1.mlp": [0, 1, 2, 3, 4, 5]}],
    "vllm": [{"version": 1, "model": "mix", "pruned_experts": [[0, 1], [0, 5], [1, 6], [1, 7]]}],
    "vllm-ascend": [{"0": [*SIX]}, {"1": [0, 1, 2, 3, 4, 5]}],
    "reap-mlx": [{"version": "1.0", "modelName": "mix",
                  "kept": rows((0,), SIX) + rows((1,), range(6)), "pruned": OTHERS}],
    "0xsero": [{"0": {"kept": [*SIX], "keep": 6}, "1": {"kept": [0, 1, 2, 3, 4, 5], "keep": 6}}],
}  # fmt: skip


@pytest.mark.parametrize("program", WRITTEN)
def test_lists_for_other_programs(mixtral, tmp_path, program):
    path = KeptExperts(mixtral, KEPT).save(tmp_path / "list", program=program)
    assert [*map(json.loads, path.read_text().splitlines())] == WRITTEN[program]
    assert sr.read_experts(mixtral, path).kept == KEPT
    uneven = KeptExperts(mixtral, {FIRST: SIX})
    if program not in {"vllm-ascend", "reap-mlx"}:
        assert sr.read_experts(mixtral, uneven.save(path, program=program)).kept == uneven.kept
        return
    with pytest.raises(sr.SparsityReportError, match=r"^mix would keep 6 to 8 experts .* one num"):
        uneven.save(path, program=program)
    assert sr.read_experts(mixtral, path).kept == KEPT


def test_a_list_for_an_unknown_program_is_one_line(mixtral, tmp_path):
    with pytest.raises(sr.SparsityReportError, match=r"accepts sparsity-report, vllm, .* 'best'"):
        KeptExperts(mixtral, {}).save(tmp_path / "list", program="best")
    assert [*tmp_path.iterdir()] == []


def test_rankings_say_how_many_experts_stay(mixtral, tmp_path):
    """Files of vllm-ascend hold all experts, the best first, and the ratio stands elsewhere."""
    path = tmp_path / "math.jsonl"
    path.write_text('{"0": [7, 3, 5, 1, 0, 2, 4, 6]}\n\n{"1": [0, 2, 4, 6, 1, 3, 5, 7]}\n')
    for keep in (4, 0.5, 0.6):
        assert sr.read_experts(mixtral, path, keep=keep).kept == {
            FIRST: (1, 3, 5, 7), SECOND: (0, 2, 4, 6)
        }  # fmt: skip
    with pytest.raises(sr.SparsityReportError, match=r"and math\.jsonl ranks them all; shorten"):
        sr.read_experts(mixtral, path)
    for keep in (0, -4, 9, 1.5, float("nan"), "6"):
        with pytest.raises(sr.SparsityReportError, match=r"^math\.jsonl: "):
            sr.read_experts(mixtral, path, keep=keep)
    with pytest.raises(sr.SparsityReportError, match="ranks no 1 experts"):
        sr.read_experts(mixtral, {"pruned_experts": REMOVED}, keep=1)


def test_layers_without_experts_count(tmp_path):
    weights = sr.load(mixture("DeepseekV3", first_k_dense_replace=1), name="deep")
    with pytest.raises(sr.SparsityReportError, match=r"no experts in block 0, .* but in 1;"):
        sr.read_experts(weights, {"0": [0, 1, 4, 5]})
    path = sr.read_experts(weights, {"1": [0, 1, 4, 5]}).save(tmp_path / "list", program="vllm")
    assert json.loads(path.read_text())["pruned_experts"] == [[1, 2], [1, 3], [1, 6], [1, 7]]


def test_blocks_of_two_models_have_no_number_of_their_own(tmp_path):
    models = nn.ModuleDict({name: mixture("Mixtral").model for name in "ab"})
    kept = KeptExperts(sr.load(models, name="two"), {"a.layers.0": SIX})
    with pytest.raises(sr.SparsityReportError, match=r"has 2 modules of experts that 0 may name"):
        kept.save(tmp_path / "list", program="vllm")
    path = kept.save(tmp_path / "list", program="llm-compressor")
    assert sr.read_experts(kept.weights, path).kept == kept.kept


@pytest.mark.parametrize(
    ("data", "message"),
    [({"removed": REMOVED}, "seems to be a list of removed experts, of a program"),
     ({"experts_to_drop": {"0": [1]}}, "seems to be a list of removed experts"),
     ({"0": {"reap": [0.5] * 8}}, r"seems to be scores of experts, which reap\(\) reads"),
     ({"mode": "dynamic_core_specialist", "perLayer": {"layer_0": {"coreExperts": [1]}}},
      "a plan of the experts that stay on a GPU, which removes none"),
     ({"kept": rows((0,), SIX), "pruned_experts": REMOVED}, "has both pruned_experts and kept"),
     ({"kept": rows((0,), SIX), "pruned": rows((0,), (0, 1))}, "removes other experts of layer 0"),
     ({"version": 2, "routing_mode": "post_topk_drop", "pruned_experts": []}, "post_topk_drop"),
     ({"pruned_experts": [[0, 1], [0, 1]]}, "the list has 1 twice;"),
     ({"pruned_experts": [[0, 8]]}, r"^mix has experts 0 to 7.*the list has 8;"),
     ({"pruned_experts": [3]}, "no lists"),
     ({"pruned_experts": [[0, e] for e in range(7)]}, "keep 1 of the 8 experts of"),
     ({"pruning": {"layers": {"0": {"disabled_experts": [1]}}}, "model": {"expert_count": 16}},
      r"^list: it is for 16 experts in model\.layers\.0\.mlp\.experts, not 8; give"),
     ({"keep_maps": {"keep_by_layer": {"0": [1]}}, "original_experts_per_layer": 16}, "is for 16"),
     ({"layers": {"0": [1, 2]}}, "has 2 modules of experts that 'layers' may name")],
)  # fmt: skip
def test_lists_that_are_not_understood_are_one_line(mixtral, data, message):
    with pytest.raises(sr.SparsityReportError, match=message):
        sr.read_experts(mixtral, data)


def test_scores_of_torch_are_one_line(mixtral, tmp_path):
    torch.save({0: {"reap": torch.ones(8)}}, tmp_path / "observations.pt")
    with pytest.raises(sr.SparsityReportError, match=r"^observations\.pt seems to hold scores"):
        sr.read_experts(mixtral, tmp_path / "observations.pt")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", r"^list\.json: it is not JSON; give"),
     ("{}", "has no layers"), ('{"foo": 3}', "no lists or scores"), ("[]", r"not a JSON object"),
     ('{"0": [0, 1], "0": [2, 3]}', r"a name twice"), ('{"0": [0, NaN]}', r"NaN is not a number"),
     ('{"0": 5}', r"^list\.json: it has no lists.*; give experts"),
     ('{"0": null}', r"^list\.json: it has no lists.*; give experts"), ('{"0": "01"}', "0 to 7 in"),
     ('{"0": [0, true]}', "0 to 7 in"), ('{"0": [[0], [1]]}', "0 to 7 in"),
     ('{"0": [0, 99]}', "^mix has experts 0 to 7.*the list has 99;"),
     ('{"0": [0, 0, 1]}', r"twice"),
     ('{"7": [0, 1]}', r"^mix has no experts in block 7, which the list names, but in 0, 1; give"),
     ('{"\\u001b[31m": [0, 1]}', "has 0 modules"),
     ('{"0": [0, 1], "model.layers.0.mlp": [0, 2]}', "two lists of experts"),
     ('{"kept": [{"layer": 0}]}', r"^list\.json: it lacks 'expert'"),
     ('{"kept": [[0, 1]]}', r"^list\.json: it has no lists"),
     ('{"kept": [{"layer": [0], "expert": 1}]}', r"^list\.json: it has no lists"),
     ('{"0": [0, ' + "9" * 50 + "]}", r"a number of 50 digits"),
     ('{"format": "sparsity-report/experts"}', r"^list\.json: it lacks 'method'")],
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
     ("basis", {"name": "a"}, "no lists"), ("basis", {"name": 1, "fingerprint": "b"}, "damaged"),
     ("basis", {"name": "a", "fingerprint": "b", "windows": 1}, "damaged"),
     ("basis", {"name": "a", "fingerprint": "b", "windows": 1.5, "window": 2}, "damaged"),
     ("kept", {FIRST: [0, 1, 99]}, "0 to 7 in"), ("kept", [0], "no lists"),
     ("kept", {FIRST: 3}, "no lists"), ("kept", None, "no lists"),
     ("counts", {FIRST: 8}, r"^mix has other experts than those of kept\.json")],
)  # fmt: skip
def test_edited_files_are_one_line(mixtral, tmp_path, name, value, message):
    path = KeptExperts(mixtral, {}).save(tmp_path / "kept.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(sr.SparsityReportError, match=message):
        sr.read_experts(mixtral, path)
