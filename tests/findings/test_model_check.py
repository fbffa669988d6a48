"""Rules against arithmetic on the tensors of a model, and refusals that come before any reading."""

import json
import re
import shutil
from fractions import Fraction

import gguf
import numpy as np
import packing
import pytest
import structural
import torch
from helpers import command, write_gguf
from safetensors.torch import load_file, save_file
from wording import count_of, key_of, of_key, values_of

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.findings.wanted_bounds import read_rules
from sparsity_report.sparse.runtime_support import RUNTIMES
from sparsity_report.words.catalogue import catalogue
from sparsity_report.words.sentences import say

F32 = gguf.GGMLQuantizationType.F32
NOTES = [key for key in catalogue() if key.startswith(("check.", "audit.zero", "note.undecided"))]
LINEAR = re.compile(r"(q|k|v|out)_proj\.weight$|fc\d\.weight$")


def changed(folder, change, base=DEMO):
    """Write the demo with its matrices changed in place by a function of name and values."""
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, values in tensors.items():
        if LINEAR.search(name):
            change(name, values)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def scattered(share):
    random = torch.Generator().manual_seed(0)
    return lambda _, values: values.mul_(torch.rand(values.shape, generator=random) >= share)


def matrices(folder):
    tensors = load_file(folder / "model.safetensors")
    return {name: values for name, values in tensors.items() if LINEAR.search(name)}


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return changed(tmp_path_factory.mktemp("half") / "model", scattered(0.5))


def keys(checked):
    return [key_of(note, NOTES) for note in checked.notes]


def note_of(folder, key):
    """Return the one note of a key."""
    (note,) = of_key(sr.check(folder).notes, key)
    return note


def modules_of(folder, key):
    """Return the modules that a note lists, each with its count."""
    listed = values_of(note_of(folder, key), key)["modules"]
    found = [re.fullmatch(r"(\S+) \((\d+)\)", text) for text in re.split(", | and ", listed)]
    return {match[1]: int(match[2]) for match in found}


def test_zeros_are_counted_among_prunable_weights(half):
    values = matrices(half)
    zeros = sum(int((each == 0).sum()) for each in values.values())
    total = sum(each.numel() for each in values.values())
    checked = sr.check(half, zeros=">=49%")
    assert (checked.zeros, checked.prunable, bool(checked)) == (zeros, total, True)
    digits = 10**12 * zeros // total
    just, over = f">=0.{digits:012}", f">=0.{digits + 1:012}"
    assert sr.check(half, zeros=just)
    (violation,) = sr.check(half, zeros=over).violations
    assert (violation.rule, violation.module) == ("zeros", checked.name)
    assert violation.actual == say("check.share", share=zeros / total, zeros=zeros, total=total)


def test_each_matrix_has_its_bound(half):
    shares = {name: float((v == 0).double().mean()) for name, v in matrices(half).items()}
    limit = sorted(shares.values())[len(shares) // 2]
    broken = sr.check(half, layers=f"<={limit:.9f}").violations
    expected = {
        name.removesuffix(".weight") for name, share in shares.items() if share > limit + 1e-9
    }
    assert {each.module for each in broken} >= expected != set()
    assert len(broken) - len(expected) <= 1  # the one that the limit was written from


@pytest.mark.parametrize("kind", ["opt", "gpt2"])
def test_patterns_run_along_the_inputs(kind, tmp_path):
    base = structural.base_of(kind, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    names = [n for n in tensors if re.search(r"(proj|fc\d|c_attn|c_fc)\.weight$", n)]
    kept = torch.tensor([1.0, 1, 0, 0])
    for name in names:
        values = tensors[name].T if kind == "gpt2" else tensors[name]
        values = values * kept.repeat(values.shape[1] // 4)
        tensors[name] = (values.T if kind == "gpt2" else values).contiguous()
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    assert sr.check(base, pattern="2:4", zeros=">=50%").violations == ()
    assert len(sr.check(base, pattern="1:4").violations) == len(names)
    tensors[names[0]][0, 0] = tensors[names[0]][0, 1] = 0
    tensors[names[1]].view(-1)[:] = 1.0
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    (violation,) = sr.check(base, pattern="2:4").violations
    assert violation.module == names[1].removesuffix(".weight")
    groups = tensors[names[1]].numel() // 4
    place = say("check.place", row=0, first=0, last=3)
    assert violation.actual == say("check.broken", broken=groups, groups=groups, place=place)


def test_a_group_that_breaks_a_pattern_is_named(tmp_path):
    def two_four(name, values):
        values.view(-1, 4)[:, 1::2] = 0
        if name.endswith("layers.1.fc1.weight"):
            values[5, 8:12] = 1

    folder = changed(tmp_path / "m", two_four)
    (violation,) = sr.check(folder, pattern="2:4").violations
    assert violation.module.endswith("layers.1.fc1")
    assert count_of(violation.actual, "check.broken", "broken") == 1
    assert "row 5, columns 8 to 11" in str(violation)
    inputs = matrices(folder)[f"{violation.module}.weight"].shape[1]
    lines = [*map(str, sr.check(folder, pattern="5:7").violations)]
    assert f"{violation.module}: wanted 5:7, found {inputs} inputs, no multiple of 7" in lines


def test_revived_zeros_are_counted(half, tmp_path):
    def add(name, values):
        if name.endswith("layers.0.fc2.weight"):
            values[0] += 1

    merged = changed(tmp_path / "merged", add, base=half)
    (violation,) = sr.check(merged, mask_of=str(half)).violations
    before, after = (matrices(each)[f"{violation.module}.weight"] for each in (half, merged))
    revived = int(((before == 0) & (after != 0)).sum())
    assert violation.module.endswith("layers.0.fc2")
    assert count_of(violation.actual, "check.revived", "revived") == revived > 0
    assert count_of(violation.wanted, "check.mask", "zeros") == int((before == 0).sum())
    assert sr.check(half, mask_of=DEMO)  # the parent has no zeros


def test_parents_of_other_shapes_are_refused(half, tmp_path):
    tensors = load_file(half / "model.safetensors")
    name = next(name for name in tensors if LINEAR.search(name))
    folder = shutil.copytree(half, tmp_path / "m")
    for change, words in ((tensors[name][:4].clone(), "holds it as"), (None, "lacks it")):
        kept = {k: v for k, v in tensors.items() if k != name}
        save_file(
            kept | ({name: change} if change is not None else {}), folder / "model.safetensors"
        )
        with pytest.raises(sr.SparsityReportError, match=words):
            sr.check(sr.load(folder, config=False), mask_of=str(half))
        with pytest.raises(sr.SparsityReportError, match="has no known prunable weights: "):
            sr.check(folder, mask_of=str(half))


def test_parameters_are_counted_from_headers(half, monkeypatch):
    total = sum(p.total for p in sr.load().stored)
    monkeypatch.setattr("sparsity_report.findings.model_counts.count_entry", None)
    checked = sr.check(half, params="0.9M..1M")
    assert checked
    assert (checked.parameters, checked.prunable, checked.notes) == (total, None, ())
    (violation,) = sr.check(half, params=">=1M").violations
    assert violation.actual == say("check.size", count=total)


def test_special_numbers(tmp_path):
    def spoil(name, values):
        if name.endswith("layers.0.fc1.weight"):
            values[0, :2] = torch.tensor([np.nan, np.inf])

    folder = changed(tmp_path / "m", spoil)
    (violation,) = sr.check(folder, no_nan=True).violations
    assert violation.actual == say("check.not_finite", nan=1, infinite=1)
    kinds = ("nan", "infinite")
    notes = {say(f"check.{kind}", count=1, modules=[violation.module]) for kind in kinds}
    assert {*sr.check(folder).notes} == notes
    audited = sr.check(folder, audit=True)
    assert len(audited.violations) == 2
    assert audited.notes == ()


def test_embeddings_are_read_where_a_rule_is_about_all_tensors(tmp_path):
    folder = shutil.copytree(DEMO, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "embed_tokens" in name)
    tensors[name][0, 0] = np.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert sr.check(folder, zeros="<=1%").notes == ()
    (violation,) = sr.check(folder, no_nan=True).violations
    assert violation.module == name.removesuffix(".weight")
    assert keys(sr.check(folder)) == ["check.nan"]


def test_heads_of_a_fused_projection(tmp_path):
    folder = structural.base_of("gpt2", tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("h.1.attn.c_attn.weight"))
    tensors[name][:, structural.HEAD : 2 * structural.HEAD] = 0  # inputs × outputs
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert modules_of(folder, "audit.zero.heads") == {name.removesuffix(".weight"): 1}


def test_dead_parts(tmp_path):
    def kill(name, values):
        if name.endswith("layers.0.fc1.weight"):
            values.zero_()
        if name.endswith("layers.1.self_attn.q_proj.weight"):
            values[:32] = 0  # one of its heads
        if name.endswith("layers.1.self_attn.out_proj.weight"):
            values[:, 32:64] = 0

    folder = changed(tmp_path / "m", kill)
    config = json.loads((folder / "config.json").read_text())
    assert config["hidden_size"] // config["num_attention_heads"] == 32
    dead = sr.weight_patterns(sr.dense(sr.load(folder)))
    for key, column, size in (
        ("rows", "zero_rows", "rows"),
        ("columns", "zero_columns", "columns"),
    ):
        counts = modules_of(folder, f"audit.zero.{key}")
        assert sum(counts.values()) == round((dead[column] * dead[size]).sum())
    heads = modules_of(folder, "audit.zero.heads")
    shares = [share for row in dead["head_sparsity"].dropna() for share in row]
    assert sum(heads.values()) == shares.count(1) == 2
    key = "audit.zero.layers"
    assert values_of(note_of(folder, key), key)["modules"].endswith("layers.0.fc1")


def test_dead_experts(tmp_path):
    folder = structural.base_of("mixtral", tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    dead = re.compile(r"layers\.(0\.block_sparse_moe\.experts\.3\.w2|1\.\w+\.experts\.2\.)")
    for name in filter(dead.search, tensors):
        tensors[name].zero_()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    note, modules = note_of(folder, "check.zero_experts"), "model.layers.{}.mlp.experts{}"
    # An expert that is zero in all of its matrices is named by its module.
    names = zip((modules.format(0, ".down_proj"), modules.format(1, "")), (3, 2), strict=True)
    places = [say("check.expert", module=name, expert=number) for name, number in names]
    assert values_of(note, "check.zero_experts")["modules"] == " and ".join(places)
    experts = json.loads(command("count", folder, "--zeros", "--json").stdout)["experts"]
    assert [row["all_zero"] for row in experts["modules"]] == [[], [2], [], []]
    assert sr.check(folder).experts == experts
    total = sum(row["experts"] for row in experts["modules"])
    line = say("count.zero_experts", number=1, experts=total, names=places[1:])
    assert line in command("count", folder, "--zeros").stdout
    assert line not in command("count", folder).stdout
    stack = {
        "mlp.experts.gate_up_proj": torch.randn(4, 32, 128),
        "mlp.experts.down_proj": torch.randn(4, 64, 32),
    }
    stack["mlp.experts.down_proj"][2] = 0
    structural.written(tmp_path / "fused", stack)
    note = note_of(tmp_path / "fused", "check.zero_experts")
    assert "mlp.experts.down_proj (expert 2)" in note


def announced(folder, base, **settings):
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sparsity_config": settings}))
    return folder


def test_announced_sparsity(half, tmp_path):
    one = announced(tmp_path / "one", half, global_sparsity=0.5, sparsity_structure="unstructured")
    assert not [key for key in keys(sr.check(one)) if "announced" in key]
    two = announced(tmp_path / "two", half, global_sparsity=0.7, sparsity_structure="2:4")
    share = values_of(note_of(two, "check.announced_share"), "check.announced_share")
    assert share["announced"] == "70.0"
    key = "check.announced_pattern"
    numbers = [count_of(note_of(two, key), key, name) for name in ("broken", "matrices")]
    assert numbers == [len(matrices(half))] * 2
    names = [name.removesuffix(".weight") for name in matrices(half)]
    three = announced(tmp_path / "three", half, sparsity_structure="2:4", ignore=names[1:])
    assert f"1 of 1 prunable matrix breaks it, first {names[0]} with " in note_of(three, key)


def test_blocks_of_different_shapes(tmp_path):
    base = structural.base_of("llama", tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    for name in ("gate_proj", "up_proj"):
        key = f"model.layers.2.mlp.{name}.weight"
        tensors[key] = tensors[key][:96].clone()
    key = "model.layers.2.mlp.down_proj.weight"
    tensors[key] = tensors[key][:, :96].clone()
    assert "check.varying" not in keys(sr.check(base))
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    modules = values_of(note_of(base, "check.varying"), "check.varying")["modules"]
    assert {*re.split(", | and ", modules)} == {
        f"model.layers.*.mlp.{name}_proj.weight" for name in ("gate", "up", "down")
    }
    config = json.loads((base / "config.json").read_text())
    listed = {"per_layer_config": {"2": {"intermediate_size": 96}}}
    (base / "config.json").write_text(json.dumps(config | listed))
    assert "check.varying_listed" in keys(sr.check(base))


def test_numbered_layers_that_are_no_blocks(tmp_path):
    tensors = {"head.0.weight": torch.randn(8, 4), "head.1.weight": torch.randn(2, 8)}
    structural.written(tmp_path / "m", tensors, {"num_hidden_layers": 4, "bos_token_id": 1})
    assert keys(sr.check(tmp_path / "m")) == ["note.undecided"]


def test_matrices_of_unknown_direction(tmp_path):
    kept = torch.tensor([1.0, 1, 0, 0])
    square = {"a.fc1.weight": torch.ones(4, 4) * kept, "a.fc1.bias": torch.ones(4)}
    structural.written(tmp_path / "one", square)
    with pytest.raises(sr.SparsityReportError, match="2:4 in one direction"):
        sr.check(tmp_path / "one", pattern="2:4")
    assert keys(sr.check(tmp_path / "one")) == ["check.unsettled"]
    structural.written(tmp_path / "both", square | {"a.fc1.weight": torch.eye(4)})
    assert sr.check(tmp_path / "both", pattern="2:4")
    structural.written(tmp_path / "none", square | {"a.fc1.weight": torch.ones(4, 4)})
    assert not sr.check(tmp_path / "none", pattern="2:4")


def test_tensors_that_belong_to_no_model(tmp_path):
    base = structural.base_of("llama", tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    assert sr.check(base).notes == ()
    first = "model.layers.0.self_attn.q_proj.weight"
    extra = {f"{first}.exp_avg": tensors[first] * 2, f"ema.{first}": tensors[first] * 3}
    extra["model.layers.4.mlp.up_proj.weight"] = torch.randn(128, 64)
    save_file(tensors | extra, base / "model.safetensors", {"format": "pt"})
    left, beyond = (note_of(base, f"check.{kind}") for kind in ("leftovers", "beyond"))
    assert count_of(left, "check.leftovers", "count") == 2
    assert values_of(left, "check.leftovers")["twin"] == first
    assert [count_of(beyond, "check.beyond", name) for name in ("count", "blocks")] == [1, 4]


@pytest.mark.parametrize("way", ["gptq-4-v1", "mxfp4", "sparse-bitmask"])
def test_packed_weights_are_decoded(tmp_path, way):
    packing.packed_llama(tmp_path, way)
    weights = sr.load(tmp_path / "packed")
    checked = sr.check(tmp_path / "packed", zeros=">=0%")
    counted = sr.compare(sr.dense(weights)).layers
    rows = counted[counted["prunable"]]
    assert checked.prunable == rows["weight_total"].sum()
    assert checked.zeros == checked.prunable - rows["weight_nonzero"].sum()


def test_gguf(tmp_path):
    values = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    values[:, ::2] = 0
    write_gguf(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": (values, F32)}, architecture="mystery")
    assert sr.check(tmp_path / "m.gguf", zeros="==50%", pattern="2:4", no_nan=True)


def test_runtimes(half, tmp_path):
    packing.packed_llama(tmp_path, "sparse-24")
    (violation,) = sr.check(tmp_path / "packed", runtime="vllm").violations
    cell = RUNTIMES["vllm"].cells["sparse-24-bitmask"]
    assert (violation.rule, cell.verdict) == ("runtime", "refused")
    assert cell.source in str(violation)
    assert "sparse-24-bitmask of compressed-tensors, refused in vLLM" in str(violation)
    (note,) = sr.check(half, runtime="vllm").notes
    assert note.startswith("a dense checkpoint with zeros, runs as dense in vLLM")
    assert sr.check(DEMO, runtime="vllm").notes == ()


RULES = [
    ({"zeros": ">=60%,<=40%"}, "contradicts itself"),
    ({"zeros": ">=60%", "layers": "≤ 40%"}, "contradicts layers"),
    ({"zeros": "<=40%", "pattern": "2:4"}, "contradicts pattern 2:4"),
    ({"layers": "0.1..0.3", "pattern": "2:4"}, "contradicts"), ({"zeros": "<=50"}, "no bound"),
    ({"zeros": ">=120%"}, "no bound"), ({"zeros": "~50%"}, "no bound"),
    ({"params": "<=7%"}, "no bound"), ({"params": "many"}, "no bound"),
    ({"pattern": "4:2"}, "no pattern"), ({"pattern": "2:99999"}, "no pattern"),
    ({"runtime": "vlm"}, "unknown runtime 'vlm'; use vllm"),
    ({"zeroes": "50%"}, "unknown rule 'zeroes'; use zeros"),
    ({"no_nan": "perhaps"}, "neither True nor False"),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "words"), RULES, ids=lambda each: str(each)[:40])
def test_impossible_rules_are_refused_before_the_model_is_read(rules, words):
    with pytest.raises(sr.SparsityReportError, match=re.escape(words)):
        sr.check("no such model", **rules)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [(">=50%", "0.5", "0.4999999"), ("≤ 60%", "0.6", "0.6000001"), ("<=0.6", "0", "0.61"),
     ("==50%", "0.504", "0.506"), ("==50%", "0.496", "0.494"), ("==50.0%", "0.5004", "0.5006"),
     ("40%..60%", "0.4", "0.39"), (">=40%, <=60%", "0.6", "0.61")],
)  # fmt: skip
def test_bounds(text, inside, outside):
    bound = read_rules({"zeros": text}).zeros
    assert Fraction(inside) in bound
    assert Fraction(outside) not in bound


def test_rules_that_only_touch_do_not_contradict():
    rules = read_rules({"zeros": "<=50%", "layers": ">=0.5", "pattern": "2:4"})
    assert (rules.zeros.high, rules.layers.low) == (Fraction(1, 2), Fraction(1, 2))


def test_sizes():
    bound = read_rules({"params": "6.5B..7.5B"}).params
    assert 6_500_000_000 in bound
    assert 7_500_000_001 not in bound
    assert 6_738_415_616 in read_rules({"params": "==6.7B"}).params
    assert 134_515_008 in read_rules({"params": ">=134M,<=135M"}).params
