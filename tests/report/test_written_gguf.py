"""GGUF models without some experts, against files that the library writes from kept blocks."""

import json
import os
import shutil

import gguf
import numpy as np
import pytest
from helpers import command, finish
from smaller_mixtures import saved

import sparsity_report as sr
from sparsity_report.errors import SparsityReportError
from sparsity_report.files import filesystem
from sparsity_report.findings.model_counts import model_counts

ALL = {block: [*range(12)] for block in (0, 1)}
KEPT = {0: [0, 2, 10], 1: [1, 9, 11]}


def values(name, *shape):
    return np.random.default_rng([*name.encode()]).normal(size=shape).astype(np.float32)


def blocks(name, kind, *shape):
    """Return blocks that a name decides, random ones where the library cannot quantize."""
    try:
        return gguf.quantize(values(name, *shape), kind)
    except NotImplementedError:
        sizes = gguf.quant_shape_to_byte_shape(shape, kind)
        return np.random.default_rng([*name.encode()]).integers(0, 256, sizes, np.uint8)


def write(
    path,
    kept=ALL,
    kind="F16",
    numbered=False,
    extra=(),
    count=None,
    groups=0,
    alignment=64,
    **options,
):
    """Write a mixture of experts in two of three blocks, in the manner of an odd DeepSeek."""
    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "deepseek2", **options)
    writer.add_uint16("deepseek2.expert_count", count or len(kept[0]))
    writer.add_expert_used_count(2)
    writer.add_expert_shared_count(1)
    if groups:
        writer.add_expert_group_count(groups)
        writer.add_expert_group_used_count(1)
    writer.add_token_list([b"\xff is not UTF-8", b"", "\u00e9".encode()])
    writer.add_array("tokenizer.ggml.scores", [0.5, float("nan")])
    writer.add_custom_alignment(alignment)
    writer.add_tensor("blk.2.ffn_gate.weight", values("dense", 3, 256))
    for block, picks in kept.items():
        # As many rows as there are experts, but for all of them.
        writer.add_tensor(f"blk.{block}.ffn_gate_inp_shexp.weight", values("shared", 12))
        for leaf in ("ffn_gate_inp.weight", "ffn_gate_inp.bias", "exp_probs_b.bias"):
            shape = (256,) * leaf.endswith("weight")
            rows = [values(f"{leaf} {block} {number}", *shape) for number in picks]
            writer.add_tensor(f"blk.{block}.{leaf}", np.stack(rows))
        for word in ("gate", "up", "down"):
            names = [f"{word} {block} {number}" for number in picks]
            each = [blocks(name, kind, 8, 256) for name in names]
            if not numbered:
                writer.add_tensor(
                    f"blk.{block}.ffn_{word}_exps.weight", np.stack(each), raw_dtype=kind
                )
                biases = np.stack([values(name, 8) for name in names])
                writer.add_tensor(f"blk.{block}.ffn_{word}_exps.bias", biases)
            for new, data in enumerate(each) if numbered else ():
                writer.add_tensor(f"blk.{block}.ffn_{word}.{new}.weight", data, raw_dtype=kind)
    for name, *shape in extra:
        writer.add_tensor(name, values(name, *shape))
    finish(writer)
    return path


def smaller(path, kept=KEPT):
    return sr.without_experts(sr.KeptExperts(sr.load(path), kept))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K", "MXFP4", "F16", "BF16", "IQ2_XXS", "Q8_0"])
@pytest.mark.parametrize("numbered", [False, True])
def test_a_file_is_the_one_of_the_kept_blocks(kind, numbered, tmp_path):
    given = {"kind": kind, "numbered": numbered}
    whole = write(tmp_path / "whole.gguf", **given)
    expected = write(tmp_path / "expected.gguf", KEPT, **given)
    before, variant = whole.read_bytes(), smaller(whole)
    written = sr.write_checkpoint(variant, tmp_path / "out.gguf")
    assert written.read_bytes() == expected.read_bytes()
    shapes = [{p.name: p.shape for p in w.parameters} for w in (variant.weights, sr.load(expected))]
    assert shapes[0] == shapes[1]
    assert sr.write_checkpoint(smaller(whole, ALL), tmp_path / "same.gguf").read_bytes() == before
    assert whole.read_bytes() == before


@pytest.mark.parametrize("empty", [False, True], ids=["shards", "first shard without tensors"])
def test_shards_become_one_file(empty, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    # Shards after the first do not name the alignment, so it must be the usual one.
    given = {"alignment": 32}
    write(folder / "x.gguf", split_max_tensors=5, small_first_shard=empty, **given)
    shards = sorted(folder.iterdir())
    assert len(shards) > 3
    written = sr.write_checkpoint(smaller(shards[1]), folder / "out.gguf")
    assert written.read_bytes() == write(tmp_path / "expected.gguf", KEPT, **given).read_bytes()


@pytest.mark.parametrize("numbered", [False, True])
def test_experts_are_scored_by_all_matrices_of_a_block(numbered, tmp_path):
    words = ("gate", "up", "down")
    squares = [
        [sum(np.square(values(f"{word} {block} {n}", 8, 256)).sum() for word in words) for n in of]
        for block, of in ALL.items()
    ]
    weights = sr.load(write(tmp_path / "x.gguf", kind="F32", numbered=numbered))
    kept = sr.reap(weights, keep=4, score="magnitude")
    best = [tuple(sorted(np.argsort(row)[-4:].tolist())) for row in squares]
    assert [*kept.kept.values()] == best
    assert (kept.removed, [*kept.counts.values()]) == (16, [12, 12])


def test_groups_of_the_metadata_keep_equal_numbers(tmp_path):
    weights = sr.load(write(tmp_path / "x.gguf", groups=2))
    for numbers in sr.reap(weights, keep=6, score="magnitude").kept.values():
        assert sum(number < 6 for number in numbers) == 3
    with pytest.raises(SparsityReportError, match="keep 1 to 2 experts of the groups"):
        sr.KeptExperts(weights, KEPT)


@pytest.mark.parametrize(
    "tensor",
    [
        ("blk.0.ffn_norm_exps.weight", 256), ("blk.1.ffn_up_chexps.weight", 6, 8, 256),
        ("blk.0.ffn_gate_tid2eid.weight", 3, 2), ("blk.2.ffn_gate_inp.weight", 12, 256),
    ],
    ids=lambda tensor: tensor[0],
)  # fmt: skip
def test_tensors_in_unknown_layouts_are_refused(tensor, tmp_path):
    with pytest.raises(SparsityReportError, match=f"'{tensor[0]}' .* no known layout of 12"):
        smaller(write(tmp_path / "x.gguf", extra=[tensor]))


def test_another_number_than_that_of_the_tensors_is_refused(tmp_path):
    with pytest.raises(SparsityReportError, match=r"and 13 as deepseek2.expert_count, .* no known"):
        smaller(write(tmp_path / "x.gguf", count=13))


def test_what_is_no_block_of_a_gguf_model_is_refused(tmp_path):
    whole, out = write(tmp_path / "x.gguf"), tmp_path / "out.gguf"
    saved(tmp_path / "mixtral", "Mixtral")
    weights = sr.load(whole)
    for variant, options in (
        (sr.dense(sr.load(tmp_path / "mixtral")), {}),
        (sr.masked(sr.layerwise_magnitude(weights, 0.5)), {}),
        (sr.dense(weights), {"unpack": True}),
    ):
        with pytest.raises(
            SparsityReportError,
            match=r"(is no GGUF model|values would change); choose .* with llama.cpp$",
        ):
            sr.write_checkpoint(variant, out, **options)
    with pytest.raises(SparsityReportError, match=r"or lacks some already"):
        sr.without_experts(sr.KeptExperts(smaller(whole).weights, {0: [0, 1], 1: [0, 1]}))


def test_a_failure_leaves_nothing_and_the_source(tmp_path, monkeypatch):
    whole, out = write(tmp_path / "x.gguf"), tmp_path / "new" / "out.gguf"
    variant, before = smaller(whole), whole.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    def write_zeros(handle, data):
        os.write(handle, data if bytes(data[:4]) == b"GGUF" else bytes(len(data)))

    with pytest.raises(KeyboardInterrupt):
        sr.write_checkpoint(variant, out, progress=interrupt)
    free = shutil.disk_usage(tmp_path)._replace(free=99)
    for module, name, fake, wrong in (
        (shutil, "disk_usage", lambda _: free, r"needs [\d,]+ bytes and the disk has 99 left"),
        (filesystem, "write_all", write_zeros, "out.gguf: was written with other bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fake)
            with pytest.raises(SparsityReportError, match=wrong):
                sr.write_checkpoint(variant, out)
    with pytest.raises(SparsityReportError, match="it is inside the model that is read"):
        sr.write_checkpoint(variant, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]
    assert whole.read_bytes() == before
    whole.write_bytes(before + b" ")
    with pytest.raises(SparsityReportError, match="changed after it was opened"):
        sr.write_checkpoint(variant, out)
    assert not out.parent.exists()


def test_prune_writes_a_file(tmp_path):
    whole = write(tmp_path / "x.gguf", kind="Q4_0")
    names = {block: f"model.layers.{block}.mlp.experts" for block in KEPT}
    lists = {"counts": dict.fromkeys(names.values(), 12)}
    lists["kept"] = {names[block]: picks for block, picks in KEPT.items()}
    (tmp_path / "list.json").write_text(json.dumps(lists))
    given = ("prune", whole, "--keep-experts", tmp_path / "list.json", "--by-names")
    out = command(*given, "--sparsity", "50%", "--out", tmp_path / "out.gguf")
    assert (out.returncode, out.stderr.count("\n")) == (2, 1)
    assert "its values would change" in out.stderr
    out = command(*given, "--out", tmp_path / "out.gguf")
    assert (out.returncode, out.stderr) == (0, "")
    assert "6 of 24 experts" in out.stdout
    expected = write(tmp_path / "expected.gguf", KEPT, kind="Q4_0").read_bytes()
    assert (tmp_path / "out.gguf").read_bytes() == expected


@pytest.mark.parametrize("numbered", [False, True])
def test_an_expert_has_the_matrices_and_biases_of_its_block(tmp_path, numbered):
    weights = sr.load(write(tmp_path / "m.gguf", numbered=numbered), config=False)
    each = 3 * (8 * 256 + 8 * (not numbered))
    size = 3 * (8 * 256 * 2 + 8 * 4 * (not numbered))  # float16, and float32 biases
    rows = model_counts(weights, [])["experts"]["modules"]
    assert [(row["parameters"], row["bytes"]) for row in rows] == [(each, size)] * len(KEPT)


def test_an_expert_of_gpt_oss_has_its_biases(tmp_path):
    config = saved(tmp_path, "GptOss").config
    hidden, inner = config.hidden_size, config.intermediate_size
    each = 3 * hidden * inner + 2 * inner + hidden
    rows = model_counts(sr.load(tmp_path), [])["experts"]["modules"]
    assert {row["parameters"] for row in rows} == {each}
