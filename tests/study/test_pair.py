"""Two checkpoints compared: every count against NumPy, every file read back."""

import json
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import packing
import pytest
import structural
import torch
from helpers import command, small_llama
from safetensors.torch import load_file, save_file
from structural import written
from wording import of_key

import sparsity_report as sr
from sparsity_report.findings.checkpoint_findings import checkpoint_verdict
from sparsity_report.findings.study_findings import study_findings
from sparsity_report.pairing.paired_reading import PairedSlice
from sparsity_report.study.files.value_bounds import check_study
from sparsity_report.weights.tensor_slices import HeldSlice
from sparsity_report.weights.torch_tensors import to_array
from sparsity_report.words.sentences import say


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A small Llama, half of its weights zero, as a folder."""
    folder = tmp_path_factory.mktemp("parent")
    sr.global_magnitude(sr.load(small_llama()), 0.5).apply_(model := small_llama())
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def child(parent, tmp_path_factory):
    """The same after a step that changed q and v of block 0 and one bit of the last norm."""
    tensors, config = structural.read(parent)
    torch.manual_seed(1)
    for name in ("q_proj", "v_proj"):
        key = f"model.layers.0.self_attn.{name}.weight"
        tensors[key] += (
            0.01 * torch.randn(tensors[key].shape) * (torch.rand(tensors[key].shape) > 0.3)
        )
    tensors["model.norm.weight"][3] += 1
    return written(tmp_path_factory.mktemp("child") / "model", tensors, config)


def arrays(folder):
    return {name: t.numpy() for name, t in load_file(folder / "model.safetensors").items()}


def by_numpy(one, other):
    """Count the fate of weights with NumPy alone."""
    both = (one != 0) & (other != 0)
    change = np.linalg.norm((other - one)[both]) / np.linalg.norm(one[both])
    either = ((one == 0) | (other == 0)).sum()
    kept = int(((one == 0) & (other == 0)).sum())
    return {
        "zeros_before": int((one == 0).sum()), "zeros_after": int((other == 0).sum()),
        "compared": one.size, "kept": kept, "revived": int(((one == 0) & (other != 0)).sum()),
        "new": int(((one != 0) & (other == 0)).sum()),
        "changed": int((both & (one != other)).sum()), "iou": kept / either if either else None,
        "relative_change": float(change),
    }  # fmt: skip


def test_layers_are_those_of_numpy(parent, child):
    pair = sr.compare_checkpoints(parent, child)
    one, other = arrays(parent), arrays(child)
    rows = pair.matches.set_index("module_name")
    assert len(rows) == len(one) + ("lm_head.weight" not in one)
    for key, values in one.items():
        row, due = rows.loc[key.removesuffix(".weight")], by_numpy(values, other[key])
        for name, value in due.items():
            if value is not None:
                assert row[name] == pytest.approx(value, rel=1e-5), (key, name)
        assert row["untouched"] == np.array_equal(values, other[key])
    whole = pair.survival.iloc[0]
    assert whole["revived"] == rows.loc[rows["prunable"], "revived"].sum() > 0
    assert whole["untouched"] == whole["modules"] - 2
    assert pair.removed.empty
    (revived,) = of_key(checkpoint_verdict(pair), "pair.verdict_zeros_revived")
    share = f"{100 * whole['revived'] / whole['zeros_before']:.1f} %"
    assert revived.startswith(f"{share} of the {whole['zeros_before']:,} ".replace(",", "\u202f"))


def test_saved_and_read_back(parent, child, tmp_path):
    pair = sr.compare_checkpoints(parent, child)
    path = pair.save(tmp_path / "pair.json")
    again = sr.read_study(path, strict=True)
    for part in ("variants", "layers", "matches", "removed", "survival", "changes"):
        assert getattr(again, part).equals(getattr(pair, part)), part
    assert repr(again) == repr(pair)
    assert again.fingerprint == pair.fingerprint
    assert len(repr(pair).splitlines()) == 3
    data = json.loads(path.read_text())
    column = data["matches"]["columns"].index("revived")
    next(row for row in data["matches"]["rows"] if row[column])[column] -= 1
    path.write_text(json.dumps(data))
    with pytest.raises(sr.SparsityReportError, match=r"pair\.json .*should be"):
        sr.read_study(path)
    for part in ("matches", "removed", "changes"):
        path.write_text(json.dumps({**data, part: None}))
        with pytest.raises(sr.SparsityReportError, match=r"pair\.json is damaged"):
            sr.read_study(path)


def test_fingerprints_differ_where_weights_do(parent, tmp_path):
    """Doubled weights have as many zeros as before."""
    tensors, config = structural.read(parent)
    doubled = {name: 2 * values for name, values in tensors.items()}
    twice = written(tmp_path / "doubled", doubled, config)
    same, other = (sr.compare_checkpoints(parent, after) for after in (parent, twice))
    assert same.variants["fingerprint"].nunique() == 1
    assert other.variants["fingerprint"].nunique() == 2
    assert other.variants["fingerprint"][0] == same.variants["fingerprint"][0]
    assert other.totals["nonzero"].nunique() == 1


def test_prunings_of_one_model(demo):
    prunings = sr.global_magnitude(demo, 0.5), sr.n_m(demo, 2, 4)
    pair = sr.compare_checkpoints(prunings[0], sr.masked(prunings[1]))
    masks = [
        np.concatenate([p.mask(each.name).ravel() for each in demo.prunable]) for p in prunings
    ]
    whole = pair.survival.iloc[0]
    assert whole["kept"] == (~masks[0] & ~masks[1]).sum()
    assert whole["iou"] == (~masks[0] & ~masks[1]).sum() / (~masks[0] | ~masks[1]).sum()
    rows = pair.matches[pair.matches["prunable"]]
    assert set(rows["n_m_after"]) == {"2:4"}
    assert rows["n_m_before"].isna().all()
    key = "pair.n_m_pattern_kept"
    assert not of_key(study_findings(pair), key)
    back = sr.compare_checkpoints(prunings[1], prunings[0])
    (kept,) = of_key(study_findings(back), key)
    assert kept == say(key, pattern="2:4", kept=0, modules=24)


def test_command(parent, child, tmp_path):
    out = command("pair", parent, child, "-o", tmp_path / "pair.json")
    assert out.returncode == 0, out.stderr
    pair = sr.read_study(tmp_path / "pair.json")
    text, _, table = out.stdout.partition("\n\n")
    assert text.splitlines() == pair.sentences()
    rows = [re.split(r"\s{2,}", line) for line in table.splitlines()[-len(pair.survival) - 1 : -1]]
    for row, (_, due) in zip(rows, pair.survival.iterrows(), strict=True):
        shown = [int(cell.replace("\u202f", "")) for cell in row[1:5]]
        assert shown == [due[key] for key in ("compared", "kept", "revived", "new")]


def test_merged_adapter_revives_zeros(parent, tmp_path):
    """Counted in the files by NumPy, and the same without a merged file."""
    (tensors, config), scaled = structural.read(parent), {}
    merged = dict(tensors)
    torch.manual_seed(3)
    for block in range(2):
        for name in ("q_proj", "v_proj"):
            key = f"model.layers.{block}.self_attn.{name}"
            outputs, inputs = tensors[f"{key}.weight"].shape
            # Some outputs and inputs are left alone, so that some zeros stay.
            a = torch.randint(-2, 3, (8, inputs)) * (torch.rand(inputs) > 0.5) / 64
            b = torch.randint(-2, 3, (outputs, 8)) / 64
            scaled[f"base_model.model.{key}.lora_A.weight"] = a
            scaled[f"base_model.model.{key}.lora_B.weight"] = b
            merged[f"{key}.weight"] = tensors[f"{key}.weight"] + 2 * (b @ a)
    (tmp_path / "adapter").mkdir()
    save_file(scaled, tmp_path / "adapter" / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(told))
    written(tmp_path / "merged", merged, config)
    pair = sr.compare_checkpoints(parent, tmp_path / "merged")
    one, other = arrays(parent), arrays(tmp_path / "merged")
    revived = sum(((one[key] == 0) & (other[key] != 0)).sum() for key in one)
    assert pair.matches["revived"].sum() == pair.survival.iloc[0]["revived"] == revived > 100
    assert pair.survival.iloc[0]["kept"] > 100
    beside = sr.compare_checkpoints(parent, sr.load(tmp_path / "adapter", base=parent))
    assert beside.matches[pair.matches.columns].equals(pair.matches)
    out = command("pair", parent, tmp_path / "adapter", "--base", parent)
    assert out.stdout.partition("\n\n")[0].splitlines()[1:] == beside.sentences()[1:]


@pytest.mark.parametrize("way", ["nf4", "mlx-3", "gptq"])
def test_zeros_that_rounding_makes_and_destroys(tmp_path, way):
    way = next(name for name in packing.WAYS if name.startswith(way))
    weight = packing.gaussian(0.5)
    after, means = packing.packed_matrix(tmp_path / "packed", way, weight)
    before = written(tmp_path / "plain", {"layers.0.q_proj.weight": weight})
    pair = sr.compare_checkpoints(before, after)
    (row,) = pair.matches.to_dict("records")
    due = by_numpy(weight.numpy(), means.float().numpy().reshape(weight.shape))
    assert {name: row[name] for name in ("kept", "revived", "new", "zeros_after")} == {
        name: due[name] for name in ("kept", "revived", "new", "zeros_after")
    }


def cut(values, sizes):
    return tuple(HeldSlice.from_array(to_array(part)) for part in values.split(sizes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_groups_are_those_of_the_matrix_wherever_it_is_cut(dtype):
    """2:4 seen from the second weight on would be another pattern."""
    before = torch.tensor([1.0, 2, 0, 0] * 8 + [0, 0, 0, 0] * 2, dtype=dtype)
    after = torch.tensor([0.0, 0, 3, 4] * 4 + [1, 0, 0, 2] * 4 + [0, 0, 0, 0] * 2, dtype=dtype)
    whole = PairedSlice(40, str(dtype), cut(before, [40]), cut(after, [40]), True).tally()
    # By 1:4, 2:8, 2:4 and 4:8.
    assert (whole.before.groups, whole.after.groups) == ((2, 1, 10, 5), (2, 1, 10, 5))
    for sizes in ([3, 8, 29], [1, 39], [16, 9, 8, 7]):
        cuts = (cut(before, sizes), cut(after, [16, 24]))
        assert PairedSlice(40, str(dtype), *cuts, True).tally() == whole
        alone = PairedSlice(40, str(dtype), cut(before, sizes), (), True).tally()
        assert alone.before == whole.before


class Watched(ProcessPoolExecutor):
    """Counts what it is given to do."""

    given = 0

    def submit(self, *job):
        self.given += 1
        return super().submit(*job)


def test_workers_find_the_same(parent, child):
    alone = sr.compare_checkpoints(parent, child)
    with Watched(1, mp_context=multiprocessing.get_context("fork")) as pool:
        pair = sr.compare_checkpoints(parent, child, executor=pool)
    assert pair.matches.equals(alone.matches)
    assert pair.survival.equals(alone.survival)
    assert pool.given >= len(load_file(parent / "model.safetensors"))


@pytest.mark.parametrize(
    ("column", "most"),
    [("revived", "zeros_before"), ("new", "zeros_after"), ("changed", "compared")],
)
def test_parts_of_more_weights_than_there_are_are_refused(column, most):
    """One more than the zeros of a side, or than all compared weights."""
    weights = sr.load()
    study = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
    check_study(study)
    matches = study.matches.copy()
    row = int(matches["new"].argmax())
    matches.loc[row, column] += matches["compared"][row] if column == "changed" else 1
    message = f"matches, row {row}, {most}: is less than its parts"
    with pytest.raises(ValueError, match=message):
        check_study(replace(study, matches=matches))
