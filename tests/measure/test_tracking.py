"""Zeros over training: recounted by plain torch from the weights of each step."""

import copy
import json
import signal
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import prune

import sparsity_report as sr
from sparsity_report import SparsityReportError

IDS = torch.arange(24).reshape(2, 12) % 50


def opt(**settings):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    common = {"vocab_size": 50, "word_embed_proj_dim": 16, "max_position_embeddings": 16}
    config = transformers.OPTConfig(**sizes, **common, dropout=0.0, **settings)
    return transformers.OPTForCausalLM(config)


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def pruned(model, policy=None):
    choose = policy or (lambda weights: sr.global_magnitude(weights, 0.5))
    return sr.masked(choose(sr.load(model))).module()


def trained(model, tracker, steps, saved=None):
    """Train by plain SGD, and keep the weights of each step."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        tracker.step()
        if saved is not None:
            saved.append(copy.deepcopy(model.state_dict()))
        optimizer.zero_grad()


MODELS = {
    "opt": (opt, None),
    "opt-bfloat16": (lambda: opt().to(torch.bfloat16), None),
    "gpt2-inputs-first": (gpt2, None),
    "gpt2-2:4": (gpt2, lambda weights: sr.n_m(weights, 2, 4)),
    "opt-2:4": (opt, lambda weights: sr.n_m(weights, 2, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_record_equals_a_recount_of_the_weights(name):
    build, policy = MODELS[name]
    model = pruned(build(), policy)
    masks = {key: value == 0 for key, value in model.state_dict().items()}
    states = [copy.deepcopy(model.state_dict())]
    tracker = sr.track(model, every=1)
    trained(model, tracker, 3, saved=states)
    rows, layers = tracker.history, tracker.study().layers
    prunable = set(layers.loc[layers["prunable"], "module_name"])
    assert prunable
    for row in rows.to_dict("records"):
        state, key = states[row["step"]], f"{row['module_name']}.weight"
        if row["module_name"] == "lm_head":  # tied, so it owns nothing
            assert (row["nonzero"], row["zeros"]) == (0, 0)
            continue
        zeros, mask = state[key] == 0, masks[key]
        assert row["zeros"] == int(zeros.sum())
        own = [value for name, value in state.items() if name.rpartition(".")[0] == key[:-7]]
        assert row["nonzero"] == sum(int(value.count_nonzero()) for value in own)
        if row["module_name"] not in prunable:
            assert all(
                row[column] is None or row[column] != row[column] for column in ("n_m", "n_m_kept")
            )
            continue
        fate = (int((mask & zeros).sum()), int((mask & ~zeros).sum()), int((~mask & zeros).sum()))
        assert (row["kept"], row["revived"], row["new"]) == fate
        if policy:
            inputs_last = zeros.T if "gpt2" in name else zeros
            nonzero = (~inputs_last).reshape(-1, 4).sum(1)
            assert row["n_m"] == "2:4"
            assert row["n_m_kept"] == float((nonzero <= 2).double().mean())
    # Revived weights are what SGD makes of most of them at once.
    assert int(rows[rows["step"] == 3]["revived"].sum()) > 1000


def test_totals_and_groups_are_sums_with_three_denominators():
    model = pruned(opt())
    tracker = sr.track(model, every=1)
    trained(model, tracker, 2)
    after = sr.compare(sr.dense(model)).totals.iloc[0]
    last = tracker.totals.iloc[-1]
    for share in (
        "sparsity_prunable",
        "sparsity_non_embedding",
        "sparsity_model",
        "total",
        "nonzero",
    ):
        assert last[share] == after[share]
    history = tracker.history[tracker.history["step"] == 2]
    for column in ("kept", "revived", "new"):
        assert last[column] == history[column].sum()
        assert tracker.groups.query("step == 2")[column].sum() == history[column].sum()
    pruned_weights = int(last["kept"] + last["revived"])
    assert last["kept_share"] == float(Fraction(int(last["kept"]), pruned_weights))
    assert tracker.metrics()["zeros/kept_share"] == last["kept_share"]
    assert tracker.metrics()["sparsity/model"] == last["sparsity_model"]


def test_a_shared_module_counts_once():
    shared = nn.Linear(4, 4, bias=False)
    shared.weight.data[0] = 0
    model = nn.ModuleDict({"one": shared, "other": shared})
    assert sr.track(model).history["kept"].tolist() == [4]


@pytest.mark.parametrize(("every", "place"), [(1, "at step 3"), (2, "between steps 2 and 4")])
def test_the_first_revival_is_exact_or_an_interval(every, place):
    model = nn.ModuleDict({"fc1": nn.Linear(4, 4), "fc2": nn.Linear(4, 4)})
    for layer in model.values():
        nn.init.ones_(layer.weight).data[:2] = 0
    tracker = sr.track(model, every=every)
    for step in range(1, 5):
        if step == 3:
            model["fc2"].weight.data[0, 0] = 1
        tracker.step()
    share = str(tracker).replace("\u202f", " ")
    assert (
        share == f"Step 4: 6.2 % of the 16 pruned weights are nonzero again, first in fc2 {place}."
    )


def test_raise_ends_training_at_the_first_loss():
    model = pruned(opt())
    tracker = sr.track(model, every=1, mode="raise")
    with pytest.raises(SparsityReportError, match="at step 1; go on") as error:
        trained(model, tracker, 5)
    assert "\n" not in str(error.value)
    assert tracker.history["step"].max() == 1


@pytest.mark.parametrize("build", [opt, gpt2])
def test_hold_keeps_what_torch_prune_keeps(build):
    pruning = sr.global_magnitude(sr.load(model := build().double()), 0.5)
    reference = copy.deepcopy(model)
    for name in pruning.cuts:
        owner = reference.get_submodule(name.rpartition(".")[0])
        prune.custom_from_mask(owner, "weight", torch.from_numpy(pruning.mask(name)))
    tracker = sr.track(model, every=1, mode="hold", mask=pruning)
    held = {name: torch.from_numpy(~pruning.mask(name)) for name in pruning.cuts}
    optimizers = [torch.optim.SGD(each.parameters(), 0.1) for each in (model, reference)]
    for _ in range(3):
        for each, optimizer in zip((model, reference), optimizers, strict=True):
            optimizer.zero_grad()
            each(input_ids=IDS, labels=IDS).loss.backward()
            optimizer.step()
        tracker.step()
        for name, mask in held.items():
            parameter = model.get_parameter(name)
            assert not parameter[mask].any()
            assert not parameter.grad[mask].any()
    assert tracker.history["revived"].sum() == 0
    assert tracker.totals["kept"].tolist() == [pruning.pruned] * 4
    for name in pruning.cuts:
        owner = reference.get_submodule(name.rpartition(".")[0])
        kept = owner.weight_orig * owner.weight_mask  # .weight is that of the last product
        torch.testing.assert_close(model.get_parameter(name), kept)


def test_a_mask_is_checked_against_the_model():
    model = opt()
    pruning = sr.global_magnitude(sr.load(model), 0.5)
    with pytest.raises(SparsityReportError, match="nonzero weights where the mask prunes"):
        sr.track(model, mask=pruning)
    with pytest.raises(SparsityReportError, match="give a pruning of this model"):
        sr.track(gpt2(), mask=pruning)
    other = sr.random_unstructured(sr.load(model), 0.5)
    taken = other.apply_(copy.deepcopy(model))
    before = copy.deepcopy(taken.state_dict())
    with pytest.raises(SparsityReportError, match="give the mask of this model"):
        sr.track(taken, mask=pruning, mode="hold")
    assert all(torch.equal(value, before[name]) for name, value in taken.state_dict().items())
    tracker = sr.track(pruning.apply_(copy.deepcopy(model)), mask=pruning)
    assert int(tracker.history["kept"].sum()) == pruning.pruned


def test_a_log_is_read_back_and_continued(tmp_path):
    log = tmp_path / "logs" / "zeros.jsonl"
    model = pruned(opt())
    start = copy.deepcopy(model)
    tracker = sr.track(model, every=1, log=log)
    trained(model, tracker, 2)
    read = sr.read_track(log)
    assert read.history.equals(tracker.history)
    assert read.study().fingerprint == tracker.study().fingerprint
    study = sr.read_study(tracker.study().save(tmp_path / "study.json"))
    assert study.history.equals(tracker.history)
    with log.open("a") as file:
        file.write('{"columns":["st')  # the run was killed
    assert sr.read_track(log).history.equals(tracker.history)
    again = sr.track(start, every=1, log=log)
    with pytest.raises(SparsityReportError, match="has records up to step 2; give the number"):
        again.step()
    again.step(3)
    assert again.history["step"].unique().tolist() == [0, 1, 2, 3]
    again.step(2)
    assert again.history["step"].unique().tolist() == [0, 1, 2]
    assert sr.read_track(log).history.equals(again.history)
    other = pruned(opt(), lambda weights: sr.global_magnitude(weights, 0.4))
    before = log.read_bytes()
    with pytest.raises(SparsityReportError, match="log of another run"):
        sr.track(other, log=log)
    with pytest.raises(SparsityReportError, match="log of another run"):
        sr.track(pruned(opt()), every=2, log=log)
    assert log.read_bytes() == before
    log.unlink()  # meanwhile
    again.step()
    assert sr.read_track(log).history.equals(again.history)


KILLED = """
import os, sys, torch, sparsity_report as sr
model = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False))
model[0].weight.data.fill_(1)[:4] = 0
tracker = sr.track(model, every=1, log=sys.argv[1])
for step in range(int(sys.argv[2])):
    model[0].weight.data.view(-1)[:step] += 1
    tracker.step(int(sys.argv[4]) + step + 1)
    if step == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
"""


def test_a_killed_run_keeps_its_records(tmp_path):
    log = tmp_path / "zeros.jsonl"
    run = [sys.executable, "-c", KILLED, str(log)]
    assert subprocess.run([*run, "9", "2", "0"], check=False).returncode == -signal.SIGKILL
    assert sr.read_track(log).history["step"].unique().tolist() == [0, 1, 2, 3]
    subprocess.run([*run, "2", "9", "3"], check=True)
    assert sr.read_track(log).history["step"].unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_damaged_logs_are_refused_in_one_line(tmp_path):
    log = tmp_path / "zeros.jsonl"
    tracker = sr.track(pruned(opt()), every=1, log=log)
    tracker.step()
    header, first, second = log.read_text().splitlines()
    row = json.loads(second)
    row["rows"][3][row["columns"].index("kept")] = -1
    for lines, reason in [
        ([], "is no log of zeros"),
        (["{}"], "is no log of zeros"),
        ([first, header], "is no log of zeros"),
        ([header.replace('"every":1', '"every":0')], "is damaged"),
        ([header.replace('"report"', '"other"')], "is damaged"),
        ([header, first[:-9], second], "line 2 is damaged"),
        ([header, first, json.dumps(row)], "line 3 is damaged: history, row 3, kept"),
        ([header, first.replace("fc1", "fc9"), second], "line 2 is damaged"),
    ]:
        log.write_text("".join(f"{line}\n" for line in lines))
        with pytest.raises(SparsityReportError, match=reason) as error:
            sr.read_track(log)
        assert "\n" not in str(error.value)


def test_what_cannot_be_counted_is_refused_and_the_log_kept(tmp_path):
    for options in ({"every": 0}, {"every": True}, {"mode": "hard"}):
        with pytest.raises(SparsityReportError, match="track: "):
            sr.track(opt(), **options)
    for model in (sr.load(), "opt"):
        with pytest.raises(SparsityReportError, match=r"needs an nn\.Module"):
            sr.track(model)
    with torch.device("meta"):
        meta = opt()
    with pytest.raises(SparsityReportError, match="no dense values"):
        sr.track(meta)
    log = tmp_path / "zeros.jsonl"
    model = pruned(opt())
    tracker = sr.track(model, every=1, log=log)
    weight = model.model.decoder.layers[0].fc1.weight
    weight.data[0, 0] = float("nan")
    with pytest.raises(SparsityReportError, match=r"holds NaN in .*layers\.0\.fc1\.weight"):
        tracker.step()
    weight.data[0, 0] = float("inf")
    tracker.step()
    for number in (-1, 2.0, "a"):
        with pytest.raises(SparsityReportError, match="is no number of a step"):
            tracker.step(number)
    model.model.decoder.layers[0].extra = nn.Linear(2, 2)
    with pytest.raises(SparsityReportError, match="other parameters than at the start"):
        tracker.step()
    assert sr.read_track(log).history["step"].unique().tolist() == [0, 2]
    with pytest.raises(SparsityReportError, match="a history needs two"):
        sr.track(opt()).study()
