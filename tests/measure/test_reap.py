"""Scores of experts against numpy, and the numbers that are kept."""

import hashlib
import struct

import gguf
import numpy as np
import pytest
import torch
from mixtures import mixture

import sparsity_report as sr

IDS = torch.arange(3 * 16) * 7 % 61


def best(scores, keep):
    """The positions of the highest scores, the first of equal ones, in order."""
    return tuple(sorted(np.argsort(-np.asarray(scores), kind="stable")[:keep].tolist()))


@pytest.fixture(scope="module")
def weights():
    return sr.load(mixture("Mixtral"), name="mix")


@pytest.fixture(scope="module")
def calibration(weights):
    return sr.calibrate(weights, IDS, window=16)


@pytest.mark.parametrize(("score", "column"), [("reap", "saliency"), ("frequency", "tokens")])
@pytest.mark.parametrize("keep", [2, 5, 6, 8])
def test_the_highest_scores_of_each_module_are_kept(weights, calibration, score, column, keep):
    kept = sr.reap(weights, calibration, keep=keep, score=score)
    for name, rows in calibration.experts.groupby("module_name"):
        assert kept.kept[name] == best(rows[column].fillna(0).to_numpy(float), keep)
    assert (kept.method, kept.label) == (score, f"{keep}of8")
    assert kept.basis == calibration.basis
    assert kept.use is calibration.experts


@pytest.mark.parametrize("kind", ["Mixtral", "GptOss"])
def test_magnitude_is_the_root_mean_square_of_the_matrices(kind):
    model = mixture(kind)
    with torch.no_grad():
        for layer in model.model.layers:
            for tensor in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
                tensor.mul_((1 + torch.randperm(8) / 10)[:, None, None])
            layer.mlp.experts.down_proj[2, 0, 0] = 50.0  # a large square, a small magnitude
    kept = sr.reap(sr.load(model), keep=3, score="magnitude")
    for name, numbers in kept.kept.items():
        stack = model.get_submodule(name)
        sizes = [
            np.sqrt(np.mean(np.concatenate([t[e].detach().numpy().ravel() ** 2.0 for t in both])))
            for both in [(stack.gate_up_proj, stack.down_proj)]
            for e in range(8)
        ]
        assert numbers == best(sizes, 3)
    assert (kept.method, kept.basis, kept.use) == ("magnitude", None, None)


def test_equal_scores_keep_the_first_by_position():
    model = mixture("Mixtral")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.experts.gate_up_proj.fill_(0.5)
            layer.mlp.experts.down_proj.fill_(0.5)
            layer.mlp.experts.down_proj[5].fill_(0.75)
    kept = sr.reap(sr.load(model), keep=3, score="magnitude")
    assert set(kept.kept.values()) == {(0, 1, 5)}


def test_an_expert_without_tokens_scores_zero(weights):
    calibration = sr.calibrate(weights, IDS[:1], window=1)
    use = calibration.experts
    kept = sr.reap(weights, calibration, keep=3)
    for name, rows in use.groupby("module_name"):
        used = rows.loc[rows["tokens"] > 0, "expert"].tolist()
        idle = rows.loc[rows["tokens"] == 0, "expert"].tolist()
        assert kept.kept[name] == tuple(sorted([*used, idle[0]]))


def test_a_share_is_rounded_and_keeps_whole_groups(weights):
    for share, label in ((0.75, "6of8"), (1.0, "8of8"), (0.3125, "2of8"), (0.4375, "4of8")):
        assert sr.reap(weights, keep=share, score="magnitude").label == label
    grouped = sr.load(mixture("DeepseekV3"), name="deep")
    for share, label in ((0.75, "6of8"), (0.6, "4of8")):
        assert sr.reap(grouped, keep=share, score="magnitude").label == label
    with pytest.raises(sr.SparsityReportError, match=r"keep=5 .* from 2 to 8 in steps of 2, for"):
        sr.reap(grouped, keep=5, score="magnitude")


def test_each_group_keeps_its_best():
    weights = sr.load(mixture("DeepseekV3"))
    calibration = sr.calibrate(weights, IDS, window=16)
    kept = sr.reap(weights, calibration, keep=6)
    for name, rows in calibration.experts.groupby("module_name"):
        scores = rows["saliency"].fillna(0).to_numpy(float)
        second = (4 + number for number in best(scores[4:], 3))
        assert kept.kept[name] == (*best(scores[:4], 3), *second)


def test_a_text_is_calibrated(weights, calibration):
    assert sr.reap(weights, IDS, keep=5, window=16).kept == (
        sr.reap(weights, calibration, keep=5).kept
    )


def test_observations_of_reap(weights):
    """Blocks to tensors, as the authors' observer saves them with torch."""
    scores = torch.rand(2, 8, dtype=torch.float64)
    observed = {
        block: {
            "total_tokens": torch.tensor(48), "reap": scores[block],
            "expert_frequency": torch.arange(8) if block else 7 - torch.arange(8),
        }
        for block in (0, 1)
    }  # fmt: skip
    kept = sr.reap(weights, observed, keep=5)
    assert [*kept.kept.values()] == [best(scores[block], 5) for block in (0, 1)]
    assert (kept.method, kept.basis.name, kept.use) == ("reap", "observations", None)
    stats = {
        str(block): {"total_tokens": 48, "reap": row["reap"].tolist(), "never_activated": 1}
        | {"activation_counts": row["expert_frequency"].tolist()}
        for block, row in observed.items()
    }  # expert_stats.json of llama.cpp's pull request 20454
    assert sr.reap(weights, stats, keep=5).kept == kept.kept
    for each in (observed, stats):
        kept = sr.reap(weights, each, keep=2, score="frequency")
        assert [*kept.kept.values()] == [(0, 1), (6, 7)]
    for changed, message in (
        ({0: {"reap": scores[0]}}, r"no scores of the experts of model\.layers\.1"),
        ({0: {}}, r"^observations: it lacks 'reap'"),
        ({0: {"reap": [1.0, 2.0]}}, "block 0 has 2 scores for 8 experts; give"),
        ({0: {"reap": [float("nan")] * 8}}, "block 0 has 0 scores for 8 experts"),
        ({0: {"reap": ["a"] * 8}}, r"^observations: could not convert"),
        ({0: None}, "it has no lists or scores by layer"),
        ({9: {"reap": scores[0]}}, "^mix has no experts in block 9"),
    ):
        with pytest.raises(sr.SparsityReportError, match=message):
            sr.reap(weights, changed, keep=5)


@pytest.mark.parametrize("kind", ["Mixtral", "DeepseekV3"])
def test_random_experts_are_those_of_the_highest_words(kind):
    weights = sr.load(mixture(kind), name="mix")
    for seed in (0, 3):
        kept = sr.reap(weights, keep=6, score="random", seed=seed)
        for name, numbers in kept.kept.items():
            key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16], "little")
            words = np.random.Philox(key=key).random_raw(8).astype(float)
            halves = [best(words[:4], 3), (4 + n for n in best(words[4:], 3))]
            whole = best(words, 6) if kind == "Mixtral" else tuple(n for h in halves for n in h)
            assert numbers == whole
        assert (kept.method, kept.basis) == (f"random, seed {seed}", None)
    with pytest.raises(sr.SparsityReportError, match="seed must be a whole number"):
        sr.reap(weights, keep=6, score="random", seed=-1)


def imatrix(path, counts, kind="imatrix"):
    """Write an imatrix as llama.cpp's ``save_imatrix`` does, of all matrices of the experts."""
    writer = gguf.GGUFWriter(path, "none")
    writer.add_string("general.type", kind)
    for block, row in enumerate(counts):
        for matrix, width in (("gate", 16), ("up", 16), ("down", 24)):
            stem = f"blk.{block}.ffn_{matrix}_exps.weight"
            writer.add_tensor(f"{stem}.in_sum2", np.ones((len(row), width), np.float32))
            writer.add_tensor(f"{stem}.counts", np.float32(row)[:, None])
    for finish in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{finish}_to_file")()
    writer.close()
    return path


def test_an_imatrix_is_read_as_frequency(weights, tmp_path):
    counts = [[5, 0, 9, 9, 1, 30, 2, 8], [1, 2, 3, 4, 5, 6, 7, 8]]
    path = imatrix(tmp_path / "i.gguf", counts)
    for given in (path, str(path)):
        kept = sr.reap(weights, given, keep=5, score="frequency")
        assert [*kept.kept.values()] == [best(row, 5) for row in counts]
    assert (kept.method, kept.basis.name) == (
        "frequency",
        "i.gguf, an imatrix of llama.cpp with tokens by expert in a text that it does not name",
    )
    assert "imatrix" in sr.KeptExperts(weights, kept.kept, "frequency", kept.basis).basis.note
    # The older format: entries, then name, calls and values of each; no count by expert.
    old = tmp_path / "i.dat"
    name = b"blk.0.ffn_up_exps.weight"
    old.write_bytes(struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii2f", 3, 2, 1, 1))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:-40])
    for file, message in (
        (old, "holds no tokens by expert"), (cut, "cannot be read as GGUF"),
        (imatrix(tmp_path / "model.gguf", counts, "model"), "holds no tokens by expert"),
        (imatrix(tmp_path / "few.gguf", [[1, 2]] * 2), "2 scores for 8 experts"),
        (imatrix(tmp_path / "one.gguf", counts[:1]), "no scores of the experts of"),
        (imatrix(tmp_path / "more.gguf", counts * 2), "has no experts in block 2"),
        (imatrix(tmp_path / "low.gguf", [[-1] * 8] * 2), "negative numbers of tokens"),
    ):  # fmt: skip
        with pytest.raises(sr.SparsityReportError, match=message) as refused:
            sr.reap(weights, file, keep=5, score="frequency")
        assert "\n" not in str(refused.value)
    with pytest.raises(sr.SparsityReportError, match="use score='frequency'"):
        sr.reap(weights, path, keep=5)


@pytest.mark.parametrize("keep", [0, -1, 9, 1.5, 0.0, True, "6", None, float("nan")])
def test_a_bad_number_is_one_line(weights, keep):
    with pytest.raises(
        sr.SparsityReportError, match=r"^keep=.* is neither a share .* nor a number from 1 to 8 in"
    ):
        sr.reap(weights, keep=keep, score="magnitude")


def test_bad_options_are_one_line(weights, calibration):
    for options, message in (
        ({"keep": 1}, "can reach 1, but it uses 2; keep more"),
        (
            {"keep": 6, "score": "best"},
            "score must be reap or frequency or magnitude or random",
        ),
        ({"keep": 6, "window": 3}, "window= does not apply to a finished calibration"),
    ):
        with pytest.raises(sr.SparsityReportError, match=message):
            sr.reap(weights, calibration, **options)
    with pytest.raises(sr.SparsityReportError, match="reads no text"):
        sr.reap(weights, IDS, keep=6, score="magnitude")
    with pytest.raises(sr.SparsityReportError, match="belongs to other weights, mix"):
        sr.reap(sr.load(mixture("Mixtral")), calibration, keep=6)
    model = mixture("Mixtral")
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj[3, 2, 1] = torch.nan
    with pytest.raises(sr.SparsityReportError, match=r"layers\.1\.mlp\.experts\.down_proj holds N"):
        sr.reap(sr.load(model), keep=6, score="magnitude")
