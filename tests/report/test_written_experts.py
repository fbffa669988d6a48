"""Models without some experts on disk, opened by transformers, and the options that write them."""

import json
import re

import pytest
import torch
import transformers
from helpers import command
from mixtures import MIXTURES
from smaller_mixtures import PACKED, by_hand, keep, logits, packed, saved

import sparsity_report as sr
from sparsity_report.errors import SparsityReportError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", MIXTURES)
def test_transformers_opens_what_is_written(kind, tmp_path):
    model = saved(tmp_path / "whole", kind, shard=20_000)
    kept = keep(sr.load(tmp_path / "whole"))
    variant = sr.without_experts(kept)
    folder = sr.write_checkpoint(variant, tmp_path / "smaller")
    opened = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(logits(opened), logits(by_hand(model, kept.kept, kind)))
    assert json.loads((folder / "config.json").read_text()) == variant.weights.settings
    again = sr.compare(variant, sr.dense(sr.load(folder), name="again")).totals
    same = again.drop(columns=["variant"])
    assert same.loc[0].equals(same.loc[1].rename(0))


def test_pruned_experts_are_written(tmp_path):
    model = saved(tmp_path / "whole", "GptOss")
    kept = keep(sr.load(tmp_path / "whole"))
    smaller = sr.without_experts(kept).weights
    pruned = sr.masked(sr.layerwise_magnitude(smaller, 0.5))
    with pytest.raises(SparsityReportError, match="inside the model"):
        sr.write_checkpoint(pruned, tmp_path / "whole" / "smaller")
    folder = sr.write_checkpoint(pruned, tmp_path / "smaller")
    opened = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(logits(opened), logits(pruned.module()))
    stack = opened.model.layers[0].mlp.experts.down_proj
    assert int((stack == 0).sum()) == stack.numel() // 2
    whole = model.model.layers[0].mlp.experts.down_proj[
        list(kept.kept["model.layers.0.mlp.experts"])
    ]
    assert torch.equal(stack[stack != 0], whole[stack != 0])


@pytest.mark.parametrize("way", ["int4", "mxfp4"])  # a tensor for each expert, and for all
def test_packed_experts_are_written_packed(way, tmp_path):
    kind, pack = PACKED[way]
    means = packed(tmp_path / "whole", kind, pack)
    kept = keep(sr.load(tmp_path / "whole"))
    variant = sr.without_experts(kept)
    written = sr.load(sr.write_checkpoint(variant, tmp_path / "smaller"))
    assert torch.equal(logits(written.module()), logits(by_hand(means, kept.kept, kind)))
    assert written.raw.keys() == variant.weights.raw.keys()
    for key, entry in written.raw.items():
        ours = variant.weights.raw[key]
        assert (entry.dtype, entry.shape) == (ours.dtype, ours.shape)
        assert entry.rows().tobytes() == ours.rows().tobytes()


def plain(text):
    """Return a text with plain spaces between words and none in numbers."""
    return re.sub(r"\s", " ", re.sub(r"(?<=\d)\s(?=\d)", "", text))


def test_prune_keeps_experts_by_number_share_and_list(tmp_path):
    model = saved(tmp_path / "whole", "Mixtral")
    weights = sr.load(tmp_path / "whole")
    keep(weights).save(tmp_path / "list.json")
    norms = [
        [sum(float(stack[e].square().sum()) for stack in (m.gate_up_proj, m.down_proj))
         for e in range(8)]
        for m in (layer.mlp.experts for layer in model.model.layers)
    ]  # fmt: skip
    largest = {
        f"model.layers.{block}.mlp.experts": sorted(sorted(range(8), key=lambda e: -row[e])[:6])
        for block, row in enumerate(norms)
    }
    for name, asked, expected in (
        ("number", ["6", "--score", "magnitude"], largest),
        ("share", ["75%", "--score", "magnitude"], largest),
        ("list", [tmp_path / "list.json"], keep(weights).kept),
    ):
        out = command(
            "prune", tmp_path / "whole", "--keep-experts", *asked, "--out", tmp_path / name
        )
        assert (out.returncode, out.stderr) == (0, "")
        opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name).eval()
        assert torch.equal(logits(opened), logits(by_hand(model, expected, "Mixtral")))
        card = (tmp_path / name / "README.md").read_text()
        assert "is whole without 4 of the 16 experts in 2 modules" in card
        before, after = (sum(p.numel() for p in m.parameters()) for m in (model, opened))
        counts = f"{after} of the {before} parameters of whole"
        assert counts in plain(card)
        assert "are zero" not in card
        assert f"12 of 16 experts and {after} of {before} parameters kept" in plain(out.stdout)
        assert "are zero" not in out.stdout  # nothing was pruned but experts
        assert "pruning makes them no smaller" not in card
    out = command(
        "prune", tmp_path / "whole", "--keep-experts", tmp_path / "list.json", "--sparsity", "50%",
        "--out", tmp_path / "both",
    )  # fmt: skip
    assert out.returncode == 0
    row = sr.compare(sr.dense(sr.load(tmp_path / "both"))).totals.loc[0]
    assert row["prunable_total"] - row["prunable_nonzero"] == round(row["prunable_total"] / 2)
    card = (tmp_path / "both" / "README.md").read_text()
    assert "without 4 of the 16 experts" in card
    assert "global magnitude" in card
    zeros = row["prunable_total"] - row["prunable_nonzero"]
    assert f"{zeros} are zero (50.0 %)" in plain(card)
    share = 100 * zeros / row["total"]
    assert (
        f"{zeros} of {row['prunable_total']} prunable weights are zero (50.0 %), and {share:.1f} % "
        f"of all {row['total']} parameters." in plain(out.stdout)
    )


def test_run_adds_the_model_without_experts(tmp_path):
    saved(tmp_path / "whole", "Qwen3Moe")
    keep(sr.load(tmp_path / "whole")).save(tmp_path / "list.json")
    out = command(
        "run", tmp_path / "whole", "--keep-experts", tmp_path / "list.json", "--write", "study",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    study = sr.read_study(tmp_path / "out" / "study.json")
    assert study.variants["variant"].tolist() == ["Dense", "Experts6of8"]
    totals = study.totals.set_index("variant")["total"]
    assert totals["Dense"] - totals["Experts6of8"] == 2 * 2 * (3 * 16 * 12 + 16)
    before, after = (f"{totals[name] / 1e3:#.3g}" for name in ("Dense", "Experts6of8"))
    assert f"Parameters: {before}\u202fk → {after}\u202fk\n" in out.stdout


WRONG = [
    (["--keep-experts", "no such"], "is neither a number, nor a share such as 75%, nor a file"),
    (["--keep-experts", "6", "--score", "x"], "--score 'x' is unknown; use reap, frequency, magn"),
    (["--keep-experts", "6", "--score", "reap,random"], "--score has 2 values; give at most 1"),
    (["--score", "reap"], "--score has no effect; add --keep-experts"),
    (["--keep-experts", "LIST", "--score", "reap"], "--score has no effect; add --keep-experts"),
    (
        ["--keep-experts", "6", "--score", "magnitude", "--calibration", "x"],
        "--calibration has no effect; add --policy wanda or owl, or --keep-experts",
    ),
    (["--keep-experts", "9"], "nor a number from 1 to 8 in steps of 1"),
    (["--keep-experts", "1", "--score", "magnitude"], "it uses 2; keep more"),
    (["--keep-experts", "LIST"], "whole has other experts than those of"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A mixture, and a list of the kept experts of another."""
    folder = tmp_path_factory.mktemp("models")
    saved(folder / "whole", "Mixtral")
    saved(folder / "other", "Mixtral", num_hidden_layers=3)
    keep(sr.load(folder / "other")).save(folder / "LIST")
    return folder


@pytest.mark.parametrize(("options", "wrong"), WRONG)
def test_wrong_options_end_with_a_line(options, wrong, folder):
    out = command("prune", "whole", *options, "--out", "out", cwd=folder)
    assert out.returncode == 2
    assert wrong in out.stderr
    assert out.stderr.count("\n") == 1
    assert not (folder / "out").exists()
