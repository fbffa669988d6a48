"""A pruned and a quantized checkpoint through every command and every renderer."""

import json
import re
import shutil

import nbformat
import numpy as np
import packing
import pytest
import torch
from helpers import command, write_gguf
from payloads import decode
from torch.nn.utils import prune

import sparsity_report as sr
from sparsity_report.cli.compared_models import compared
from sparsity_report.cli.options import Analysis, Choice
from sparsity_report.files.package_data import DEMO
from sparsity_report.viewer.study_payload import study_payload

# Prunable weights of the demo model: 4 blocks of 4 · 128² + 2 · 128 · 512.
WEIGHTS = 4 * (4 * 128**2 + 2 * 128 * 512)
QUICK = ("--write", "study")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The demo model, pruned by half by torch and saved by transformers, with its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "half"
    weights = sr.load()
    model = weights.module()
    parts = [(model.get_submodule(p.name.rpartition(".")[0]), "weight") for p in weights.prunable]
    prune.global_unstructured(parts, prune.L1Unstructured, amount=0.5)
    for part in parts:
        prune.remove(*part)
    model.save_pretrained(folder)
    for path in DEMO.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A Llama in 4 bits that was dense before; rounding makes its zeros."""
    packed, _ = packing.packed_llama(tmp_path_factory.mktemp("models"), "nf4")
    return packed


@pytest.fixture(scope="module")
def full_run(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    run = command(
        "run", checkpoint, "--write", "html,pdf,md,thesis,study", "--perplexity", "--out", out
    )
    assert run.returncode == 0, run.stderr
    return run, out


def statements(out):
    """Return the findings in a folder's study as one text, numbers without spaces."""
    study = json.loads((out / "study.json").read_text(encoding="utf-8"))
    return " ".join(study["findings"]).replace("\u202f", "")


def test_run_counts_the_zeros_as_they_are(full_run):
    run, out = full_run
    assert run.stdout.startswith(
        "The model came with 50.0 % of its 786 k prunable weights zero, including "
    )
    text = statements(out)
    assert f"{WEIGHTS // 2} of {WEIGHTS} prunable weights (50.0 %) were zero when" in text
    assert "Pruning zeroed" not in text
    study = sr.read_study(out / "study.json")
    assert study.variants["variant"].tolist() == ["Dense", "Pruned50", "CSR50"]
    zeros = study.totals["prunable_total"] - study.totals["prunable_nonzero"]
    assert zeros.tolist() == [WEIGHTS // 2] * 3
    assert study.quality["perplexity"].round(3).nunique() == 1


@pytest.mark.tools
def test_page_pdf_and_thesis_name_what_they_found(full_run):
    _, out = full_run
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF-")
    texts = [(out / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]
    for text in texts:
        plain = re.sub(r"\s+", " ", re.sub("<[^>]*>", "", text))
        assert "The model came with 50.0 % of its 786 k prunable weights zero, including " in plain
        assert "were zero when the model was opened, and Pruned50 and CSR50 add none" in plain
        assert "pruned to" not in plain
        assert not re.search(r"Masked\d", plain)
    numbers = (out / "thesis" / "numbers.tex").read_text(encoding="utf-8")
    assert r"\PrunedFiftySparsityPrunable" in numbers


def test_run_prunes_further(checkpoint, tmp_path):
    new = round(0.6 * WEIGHTS) - WEIGHTS // 2
    run = command("run", checkpoint, "--sparsity", "0.6", *QUICK, "--out", tmp_path / "o")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("With 60 % of 786 k prunable weights zero, ")
    text = statements(tmp_path / "o")
    assert f"Pruning zeroed {new} of {WEIGHTS} prunable weights in each of Masked" in text
    before = f"{WEIGHTS // 2} prunable weights were zero before"
    assert f"{before}, so {WEIGHTS // 2 + new} are zero in all" in text
    assert "a single threshold" in text


@pytest.mark.parametrize(
    ("levels", "names", "left_out"),
    [
        (
            "0,10%,30%,50%",
            ["Dense", "Pruned50", "CSR50"],
            "they zero no further weight of half: Masked0, Masked10, Masked30 and Masked50",
        ),
        (
            "30%,60%",
            ["Dense", "Pruned50", "Masked60", "CSR50", "CSR60"],
            "it zeroes no further weight of half: Masked30",
        ),
    ],
)
def test_levels_below_the_zeros_are_one_row_and_one_note(checkpoint, levels, names, left_out):
    given = compared([str(checkpoint)], Choice(sparsity=[levels]), Analysis())
    assert [variant.name for variant in given.variants] == names
    (note,) = [n for n in sr.compare(*given.variants).notes if "no further weight" in n]
    assert note.endswith(left_out)


def test_as_is_counts_any_model(tmp_path, checkpoint):
    for model, names in (
        ([], ["Dense", "AsIs0", "CSR0"]),
        ([checkpoint, "--sparsity", "60%"], ["Dense", "Pruned50", "Masked60", "CSR50", "CSR60"]),
    ):
        run = command("run", *model, "--as-is", *QUICK, "--out", tmp_path / "o")
        assert run.returncode == 0, run.stderr
        study = sr.read_study(tmp_path / "o" / "study.json")
        assert study.variants["variant"].tolist() == names


def test_a_policy_needs_a_level_and_a_pattern_does_not(checkpoint, tmp_path):
    run = command("run", checkpoint, "--policy", "layerwise", *QUICK, "--out", tmp_path / "o")
    assert run.returncode == 2
    assert "add --sparsity for --policy layerwise" in run.stderr
    run = command("run", checkpoint, "--policy", "2:4", *QUICK, "--out", tmp_path / "o")
    assert run.returncode == 0, run.stderr
    weights = sr.load(checkpoint)
    new = sr.n_m(weights, 2, 4)
    left = sum(np.count_nonzero(weights.array(p.name) * new.mask(p.name)) for p in weights.prunable)
    text = statements(tmp_path / "o")
    assert f"Pruning zeroed {WEIGHTS // 2 - left} of {WEIGHTS} prunable weights" in text


def test_sensitivity_and_curve_need_a_level(checkpoint, tmp_path):
    asked = ("--sensitivity", "block", "--curve")
    run = command("run", checkpoint, *asked, *QUICK, "--out", tmp_path / "o")
    assert run.returncode == 2
    assert "--curve prunes by a policy at every 10 %, and none is chosen" in run.stderr
    assert "--sensitivity prunes one part at a time; add --sparsity" in run.stderr


def test_another_model_is_reported(checkpoint, tmp_path):
    run = command("run", DEMO, checkpoint, *QUICK, "--out", tmp_path / "o")
    assert run.stdout.startswith(
        "half came with 50.0 % of its 786 k prunable weights zero, including "
    )
    study = sr.read_study(tmp_path / "o" / "study.json")
    assert study.variants["variant"].tolist() == ["Dense", "half"]
    text = statements(tmp_path / "o")
    assert f"{WEIGHTS // 2} of {WEIGHTS} prunable weights (50.0 %) of half were zero" in text
    run = command("run", checkpoint, DEMO, *QUICK, "--out", tmp_path / "o")
    assert run.returncode == 0, run.stderr


def test_render_and_pair(full_run, checkpoint, tmp_path):
    run, out = full_run
    again = command("render", out / "study.json", "--write", "csv", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[:-1] == run.stdout.splitlines()[:-1]
    pair = command("pair", DEMO, checkpoint, "--out", tmp_path / "pair.html")
    assert pair.returncode == 0, pair.stderr
    assert f"{WEIGHTS // 2}" in pair.stdout.replace("\u202f", "")


def test_the_explorer_starts_from_the_zeros_found(checkpoint):
    variants = compared([str(checkpoint)], Choice(), Analysis()).variants
    header, _ = decode(study_payload(sr.compare(*variants)))
    assert "sr.existing_zeros(weights)" in header["code"]
    commands = {variant["name"]: variant["command"] for variant in header["variants"]}
    assert commands["Pruned50"] == "--as-is"


@pytest.mark.sweep
def test_the_notebook_says_what_it_zeroed(checkpoint, tmp_path):
    run = command("notebook", checkpoint, "-o", tmp_path / "structural_csr_analysis.ipynb")
    assert run.returncode == 0, run.stderr
    (path,) = tmp_path.glob("*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    printed = "".join(o.get("text", "") for cell in cells for o in cell.get("outputs", ()))
    plain = printed.replace("\u202f", "")
    assert f"Pruning zeroed 0 of {WEIGHTS} prunable weights in each of Masked30" in plain


def test_a_quantized_checkpoint_is_pruned_as_before(quantized, tmp_path):
    run = command("run", quantized, *QUICK, "--out", tmp_path / "o")
    assert run.returncode == 0, run.stderr
    study = sr.read_study(tmp_path / "o" / "study.json")
    assert study.variants["variant"].tolist() == ["Dense", "Masked30", "CSR30"]
    weights = sr.load(quantized)
    before = sum(int((weights.tensor(p.name) == 0).sum()) for p in weights.prunable)
    assert before > 0
    assert f" {before} prunable weights were zero before" in statements(tmp_path / "o")


def test_a_gguf_of_a_pruned_model(tmp_path):
    torch.manual_seed(0)
    values = {f"blk.0.{name}.weight": torch.randn(64, 64) for name in ("attn_q", "ffn_up")}
    for tensor in values.values():
        tensor[tensor.abs() <= tensor.abs().median()] = 0
    tensors = {name: (tensor.numpy(), None) for name, tensor in values.items()}
    write_gguf(tmp_path / "half.gguf", tensors, "mystery", block_count=1)
    run = command("run", tmp_path / "half.gguf", *QUICK, "--out", tmp_path / "o")
    assert run.returncode == 0, run.stderr
    assert "4096 of 8192 prunable weights (50.0 %) were zero" in statements(tmp_path / "o")
