"""Wanda and OWL against code in the shape of their authors', and calibration against hooks."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Tiny, counts_as_derived, small_llama
from torch import nn
from wording import of_key
from zoo.cases import CASES

import sparsity_report as sr
from sparsity_report.findings.audit import audit
from sparsity_report.words.sentences import say

IDS = torch.arange(3 * 16).reshape(-1) * 7 % 61


MODELS = ("Llama", "GPT-2", "Mixtral", "T5", "BERT")


def model_of(name):
    torch.manual_seed(0)
    return next(case for case in CASES if case.name.startswith(name)).build().eval()


calibrations = {}


def calibrated(name):
    """A model, its calibration in windows of 16, made once."""
    if name not in calibrations:
        weights = sr.load(model_of(name), name=name)
        calibrations[name] = weights, sr.calibrate(weights, IDS, window=16)
    return calibrations[name]


def rows(parameter, tensor):
    """The matrices of a parameter with inputs last."""
    stack = torch.as_tensor(tensor).reshape(-1, *tensor.shape[-2:])
    return stack.mT if parameter.transposed else stack


@pytest.mark.parametrize("kind", MODELS)
def test_norms_are_those_that_hooks_see(kind):
    weights, calibration = calibrated(kind)
    model = model_of(kind)
    sums = {}

    def add(name, x):
        squares = x.detach().double().reshape(-1, x.shape[-1]).square().sum(dim=0)
        sums[name] = sums.get(name, 0) + squares

    for name, module in model.named_modules():
        if f"{name}.weight" in calibration.scales:
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: add((f"{name}.weight", 0), inputs[0])
            )
    for name, module in model.named_modules():
        if "Experts" in type(module).__name__:
            forward_by_expert(module, lambda leaf, e, x, name=name: add((f"{name}.{leaf}", e), x))
    with torch.no_grad():
        for window in IDS.reshape(-1, 16):
            extra = {"decoder_input_ids": window[None]} if kind == "T5" else {}
            model(input_ids=window[None], **extra)
    names = {(p.name, e) for p in weights.prunable for e in range(p.experts)}
    assert set(sums) == names
    for (name, expert), squares in sums.items():
        found = calibration.scales[name].norms[expert]
        np.testing.assert_allclose(found, squares.sqrt().numpy(), rtol=1e-5)
    assert all(sum(counts) > 0 for counts in calibration.tokens.values())
    assert (calibration.windows, calibration.window) == (3, 16)


def forward_by_expert(module, seen):
    """Compute experts one by one, as the paper's sum over those that a token is sent to."""

    def forward(hidden, top_index, top_weights):
        out = torch.zeros_like(hidden)
        for expert in range(len(module.gate_up_proj)):
            token, place = torch.where(top_index == expert)
            if not len(token):
                continue
            x = hidden[token]
            seen("gate_up_proj", expert, x)
            gate, up = (x @ module.gate_up_proj[expert].T).chunk(2, dim=-1)
            inner = module.act_fn(gate) * up
            seen("down_proj", expert, inner)
            y = inner @ module.down_proj[expert].T * top_weights[token, place, None]
            out.index_add_(0, token, y)
        return out

    module.forward = forward


def reference(weight, norms, sparsity=0.5, prune_n=0, prune_m=0):
    """`prune_wanda` of github.com/locuslab/wanda, lib/prune.py, for one layer: True is pruned."""
    scaler_row = torch.from_numpy(norms.copy()) ** 2
    metric = torch.abs(weight.double()) * torch.sqrt(scaler_row.reshape((1, -1)))
    mask = torch.zeros_like(metric) == 1
    if prune_n:
        for ii in range(0, metric.shape[1], prune_m):
            group = metric[:, ii : ii + prune_m]
            mask.scatter_(1, ii + torch.topk(group, prune_n, dim=1, largest=False)[1], True)
    else:
        order = torch.sort(metric, dim=-1, stable=True)[1]
        mask.scatter_(1, order[:, : int(metric.shape[1] * sparsity)], True)
    return mask


def matrices(pruning, calibration):
    """Yield parameter, pruned places, weights and input norms of each matrix."""
    for p in pruning.weights.prunable:
        kept, values = (
            rows(p, each) for each in (pruning.mask(p.name), pruning.weights.tensor(p.name))
        )
        norms = calibration.scales[p.name].norms
        yield from ((p, ~kept[e], values[e], norms[e]) for e in range(len(norms)))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("asked", [0.3, (2, 4)])
def test_masks_are_those_of_the_reference(kind, asked):
    weights, calibration = calibrated(kind)
    pattern = asked if isinstance(asked, tuple) else None
    pruning = sr.wanda(weights, None if pattern else asked, calibration, n_m=pattern)
    pruned, total = 0, sum(p.total for p in weights.prunable)
    options = {"prune_n": asked[1] - asked[0], "prune_m": asked[1]} if pattern else {}
    for p, gone, weight, norms in matrices(pruning, calibration):
        due = reference(weight, norms, 0.0 if pattern else asked, **options)
        if pattern or (asked * weight.shape[1]).is_integer():
            assert torch.equal(gone, due), p.name
        assert (gone | ~due).all(), p.name
        assert ((gone & ~due).sum(dim=1) <= 1).all(), p.name
        pruned += int(gone.sum())
    assert pruning.pruned == pruned == round((0.5 if pattern else asked) * total)
    assert pruning.method == ("wanda_one_pass" + (f", {asked[0]}:{asked[1]}" if pattern else ""))
    counts_as_derived(sr.masked(pruning), sr.csr(pruning))
    if kind not in {"GPT-2", "Mixtral"}:
        return
    patterns = sr.weight_patterns(sr.masked(pruning))
    zeros = patterns["sparsity"] * patterns["rows"] * patterns["columns"]
    assert round(zeros.sum()) == pruned  # nothing was zero before
    if pattern == (2, 4):
        assert set(patterns["n_m"]) <= {"2:4", "4:8"}


@pytest.mark.filterwarnings("ignore")  # advice of transformers on kernels that are not installed
@pytest.mark.parametrize("name", ["GPT-OSS", "Mamba"])
def test_other_ways_to_multiply(name):
    model = model_of(name)
    weights = sr.load(model, name="other")
    words = model.get_input_embeddings().weight.shape[0]
    calibration = sr.calibrate(weights, torch.randint(3, words, (512,)), window=8)
    pruning = sr.wanda(weights, 0.5, calibration)
    for p, gone, weight, norms in matrices(pruning, calibration):
        assert torch.equal(gone, reference(weight, norms)), p.name
    counts_as_derived(sr.masked(pruning))


def owl_reference(weights, calibration, sparsity, m, lam):
    """`prune_wanda_outlier` of github.com/luuyin/OWL, lib/prune_all.py: sparsity of each block."""
    blocks = {}
    for p in weights.prunable:
        name = re.match(r".*?\.\d+(?=\.)", p.name)[0]
        for expert, weight in enumerate(rows(p, weights.tensor(p.name))):
            norms = torch.from_numpy(calibration.scales[p.name].norms[expert])
            blocks.setdefault(name, []).append((weight.double().abs() * norms).flatten())
    ratios = []
    for metric in (torch.cat(parts) for parts in blocks.values()):
        ratios.append(float((metric > metric.mean() * m).sum()) / metric.numel() * 100)
    ratios = np.array(ratios)
    scaled = (ratios - ratios.min()) * (1 / (ratios.max() - ratios.min()) * lam * 2)
    density = scaled - np.mean(scaled) + (1 - sparsity)
    return dict(zip(blocks, 1 - density, strict=True))


@pytest.mark.parametrize(("kind", "m", "lam"), [("Llama", 3, 0.08), ("Mixtral", 2.5, 0.05)])
def test_owl_is_that_of_the_reference(kind, m, lam):
    weights, calibration = calibrated(kind)
    frame = sr.owl(weights, 0.6, calibration, m=m, lam=lam)
    due = owl_reference(weights, calibration, 0.6, m, lam)
    assert len(set(due.values())) == 2
    for row in frame.to_dict("records"):
        block = re.match(r".*?\.\d+(?=\.)", row["module_name"])[0]
        assert row["sparsity"] == pytest.approx(due[block], rel=1e-12)
    pruning = sr.wanda(weights, 0.6, calibration, allocation=frame)
    total = sum(p.total for p in weights.prunable)
    assert pruning.pruned == round(0.6 * total)
    assert (pruning.label, pruning.method) == ("60WandaOWL", "wanda_one_pass, owl")
    for p in weights.prunable:
        gone = (~rows(p, pruning.mask(p.name))).sum(dim=-1).flatten()
        assert gone.max() - gone.min() <= 1
        assert (gone.diff() <= 0).all()  # the first rows lose the ones left over
        block = re.match(r".*?\.\d+(?=\.)", p.name)[0]
        assert abs(int(gone.sum()) - due[block] * p.total) < 1


def test_owl_by_name_is_owl_with_its_defaults():
    weights, calibration = calibrated("Llama")
    frame = sr.owl(weights, 0.5, calibration)
    named = sr.wanda(weights, 0.5, calibration, allocation="owl")
    given_frame = sr.wanda(weights, 0.5, calibration, allocation=frame)
    assert all(np.array_equal(named.mask(n), given_frame.mask(n)) for n in named.cuts)
    assert {name: cut.pruned for name, cut in named.cuts.items()} == {
        name: cut.pruned
        for name, cut in sr.layerwise_magnitude(weights, 0.5, allocation=frame).cuts.items()
    }


def test_blocks_of_other_sizes_come_to_what_was_asked():
    model = Tiny(tied=False)
    model.layers[0]["fc1"] = nn.Linear(6, 40)
    model.layers[0]["fc2"] = nn.Linear(40, 6)
    weights = sr.load(model)
    calibration = sr.calibrate(weights, IDS % 11, window=16)
    frame = sr.owl(weights, 0.5, calibration, m=2)
    assert frame["sparsity"].nunique() == 2
    assert frame["sparsity"] @ frame["weights"] / frame["weights"].sum() == pytest.approx(0.5)
    pruning = sr.wanda(weights, 0.5, calibration, allocation=frame)
    assert pruning.pruned == round(0.5 * frame["weights"].sum())


def test_blocks_alike_get_the_same():
    weights, calibration = calibrated("Llama")
    frame = sr.owl(weights, 0.5, calibration, m=1e9)
    assert set(frame["outlier_ratio"]) == {0.0}
    assert set(frame["sparsity"]) == {0.5}


@pytest.fixture(scope="module")
def on_two_texts():
    """Prunings calibrated on two texts, the first twice, and one without a text."""
    weights, calibration = calibrated("Llama")
    other = sr.calibrate(weights, IDS.flip(0), window=16)
    assert other.fingerprint != calibration.fingerprint
    texts = {"One": calibration, "Other": other, "Again": calibration}
    variants = [sr.masked(sr.wanda(weights, 0.5, each), name=name) for name, each in texts.items()]
    variants.append(sr.masked(sr.global_magnitude(weights, 0.5)))
    return variants, sr.compare(sr.dense(weights), *variants), other.fingerprint


def test_a_study_says_what_it_was_calibrated_on(on_two_texts, tmp_path):
    _, study, fingerprint = on_two_texts
    study.save(tmp_path / "study.json")
    read = sr.read_study(tmp_path / "study.json", strict=True)
    rows = read.variants.set_index("variant")
    assert rows.loc["One", "basis"] == "token ids"
    assert rows.loc["One", ["basis_windows", "basis_window"]].tolist() == [3, 16]
    assert rows["basis_fingerprint"].nunique() == 2
    assert rows.loc["Dense", "basis_windows"] is pd.NA
    assert read.facts.prunings == ("One", "Other", "Masked50")
    source = {"name": "token ids", "fingerprint": fingerprint}
    assert say("note.calibrated", windows=3, window=16, **source) in read.notes


def test_scores_on_the_calibration_text_are_flagged(on_two_texts):
    variants, study, _ = on_two_texts
    key = "audit.calibrated_on_evaluation_text"
    assert not of_key(audit(study), key)
    scored = study.with_measured(quality=sr.perplexity(variants, IDS))
    (finding,) = of_key(audit(scored), key)
    assert finding == say(key, variants=["One", "Again"], text="token ids")


def small(**options):
    return sr.load(small_llama(**options), name="small")


TOO_SHORT = r"has 48 tokens, fewer than {} windows of {}; give a longer text"
REFUSED = [
    ({"window": 33}, "window=33 is out of range; use 1 to the model's 32 positions"),
    ({"windows": 4, "window": 16}, TOO_SHORT.format(4, 16)),
    ({"text": IDS[:31]}, "has 31 tokens, fewer than 1 windows of 32"),
    ({"text": IDS[:0]}, "has 0 tokens, fewer than 1"),
    ({"window": 0}, "window must be a whole number from 1, not 0"),
    ({"windows": True}, "windows must be a whole number from 1, not True"),
    ({"text": IDS + 60, "window": 16}, "holds token 120, beyond the 64 of small"),
    ({"text": "words"}, "came without a tokenizer"),
    ({"text": "no/such/file.txt"}, "there is no file"),
    ({"stride": 3}, "calibrate.. accepts tokenizer, windows, window, not 'stride'"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=range(len(REFUSED)))
def test_models_that_cannot_be_calibrated_are_refused(options, said):
    options = {"text": IDS, **options}
    with pytest.raises(sr.SparsityReportError, match=said):
        sr.wanda(small(), 0.5, options.pop("text"), **options)


def test_activations_that_are_not_finite_are_one_line():
    model = small_llama()
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = torch.nan
    with pytest.raises(
        sr.SparsityReportError, match=r"the inputs of model\.layers\.0\.\S+ hold NaN"
    ):
        sr.wanda(sr.load(model), 0.5, IDS, window=16)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(sr.SparsityReportError, match=r"up_proj\.weight holds 1 NaN"):
        sr.wanda(sr.load(model), 0.5, IDS, window=16)


class Twice(nn.Module):
    """Multiplies by its matrix from the other side, or by a part of it, or by a copy."""

    def __init__(self, how):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.fc1 = nn.Linear(6, 6, bias=False)
        self.how = how

    def forward(self, ids):
        x = self.embed(ids)
        weight = self.fc1.weight
        return {
            "across": lambda: x @ weight,
            "part": lambda: x @ weight[:3].T,
            "copy": lambda: x @ weight.clone().T,
            "vector": lambda: torch.stack([weight @ each for each in x[0]]),
            "first": lambda: weight @ x[0].T,
        }[self.how]()


@pytest.mark.parametrize("how", ["across", "part", "copy", "vector", "first"])
def test_only_what_is_multiplied_row_by_row(how):
    torch.manual_seed(0)
    model = Twice(how)
    weights, ids = sr.load(model, name="twice"), IDS[:16] % 11
    if how in {"across", "part", "copy"}:
        said = "did not use" if how == "copy" else "by a part or the transpose of fc1.weight"
        with pytest.raises(sr.SparsityReportError, match=said):
            sr.calibrate(weights, ids, window=8)
        return
    found = sr.calibrate(weights, ids, window=8).scales["fc1.weight"].norms[0]
    due = model.embed(ids).double().square().sum(dim=0).sqrt()
    np.testing.assert_allclose(found, due.detach().numpy(), rtol=1e-12)


def test_models_without_text_input_are_refused():
    picture = nn.Sequential(nn.Linear(3, 3))
    picture.config = SimpleNamespace()
    with pytest.raises(sr.SparsityReportError, match="reads no token ids"):
        sr.calibrate(sr.load(picture), IDS, window=16)
    with pytest.raises(sr.SparsityReportError, match="cannot be run on a text to calibrate: "):
        sr.calibrate(sr.load(nn.Linear(3, 3)), IDS, window=16)


def test_wrong_combinations_are_one_line():
    weights, calibration = calibrated("Llama")
    others, _ = calibrated("GPT-2")
    for options, said in (
        ({"n_m": (2, 4), "allocation": "owl"}, "leave sparsity= and allocation= out"),
        ({"n_m": (2, 4), "sparsity": 0.3}, "prunes 0.5 of every layer"),
        ({"n_m": (2, 5)}, "do not divide into groups of 5"),
        ({"sparsity": 2}, "a number from 0 to 1"),
        ({"sparsity": 0.99, "allocation": "owl"}, "use a smaller lam="),
        ({"sparsity": 0.5, "window": 8}, "window= does not apply"),
    ):
        with pytest.raises(sr.SparsityReportError, match=said):
            sr.wanda(weights, options.pop("sparsity", None), calibration, **options)
    with pytest.raises(sr.SparsityReportError, match="belongs to other weights, Llama"):
        sr.wanda(others, 0.5, calibration)
    with pytest.raises(sr.SparsityReportError, match="m=0 is not a number above 0"):
        sr.owl(weights, 0.5, calibration, m=0)
    flat = sr.load(nn.ModuleDict({"fc1": nn.Linear(2, 2)}))
    with pytest.raises(sr.SparsityReportError, match="cannot be run"):
        sr.owl(flat, 0.5, IDS, window=16)
