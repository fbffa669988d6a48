"""Weights that stay on the Hub: counted as if they were here, whatever happens on the way."""

import gc
import json
import multiprocessing
import struct
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import gguf
import numpy as np
import packing
import pytest
import torch
from helpers import command, known_counts, same_counts, small_llama, study_of, write_gguf
from hubs import LATER, MAIN, Hub
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.counting import count_cache as cache_module
from sparsity_report.counting.counts import count_weights
from sparsity_report.untrusted import limits
from sparsity_report.weights import tensor_slices
from sparsity_report.weights.loading import open_to_count
from sparsity_report.weights.sources import http_ranges
from sparsity_report.words.sentences import say

NAME, FILE, INDEX = "someone/small", "model.safetensors", "model.safetensors.index.json"
BIG = 300_000


@pytest.fixture
def hub(monkeypatch, tmp_path):
    http_ranges._block.cache_clear()
    with Hub(monkeypatch, tmp_path / "cache") as served:
        yield served


@pytest.fixture
def waits(monkeypatch):
    """Nothing waits; how long it would have."""
    seconds = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


@pytest.fixture
def folder(hub, tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    hub.repositories[NAME] = folder
    return folder


@pytest.fixture
def piecewise(monkeypatch):
    """Tensors of a few kilobytes are read over connections of their own, in several slices."""
    monkeypatch.setattr(http_ranges, "_SMALL", 0)
    monkeypatch.setattr(http_ranges, "_BLOCK", 1)
    monkeypatch.setattr(tensor_slices, "_SLICE", 2**10)
    monkeypatch.setattr(tensor_slices, "_BUFFER", 2**8)


def big(folder, seed=0):
    """Write one tensor of 1.2 MB, of float32."""
    values = torch.randn(3, BIG // 3, generator=torch.Generator().manual_seed(seed))
    values[values.abs() < 0.1] = 0
    save_file({"layers.0.fc1.weight": values}, folder / FILE)
    return folder / FILE


def stream(place="", **options):
    return sr.load(f"{NAME}{place}", stream=True, **options)


def refused(match, action):
    with pytest.raises(sr.SparsityReportError, match=match) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert "Signature" not in str(caught.value)


def no_weights(hub):
    assert not [name for name in hub.kept() if name.endswith((".safetensors", ".incomplete"))]
    assert not hub.served or not any(name.endswith(".safetensors") for name in hub.served)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.usefixtures("piecewise")
def test_a_streamed_model_counts_like_a_copy(hub, folder, sharded):
    model = small_llama().to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="20KB" if sharded else "1GB")
    weights, copy = stream(), sr.load(folder, name=NAME)
    assert weights.notes == (say("note.streamed", commit=MAIN),)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    values = sum(p.total * p.itemsize for p in weights.stored)
    assert hub.sent == size - values
    assert study_of(weights).layers.equals(study_of(copy).layers)
    same_counts(weights, copy)
    assert hub.sent == size
    for name in ("lm_head.weight", "model.norm.weight"):
        assert torch.equal(weights.tensor(name), copy.tensor(name))
    no_weights(hub)


@pytest.mark.parametrize(
    ("way", "small"),
    [
        pytest.param(way, False, marks=[pytest.mark.sweep] * (place % 4 > 0))
        for place, way in enumerate(packing.WAYS)
    ]
    + [("nf4", True), ("awq", True)],
)
def test_packed_weights_are_decoded_as_they_come(hub, folder, monkeypatch, way, small):
    values = torch.randn(96, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    parts, means, config = packing.WAYS[way](values)
    named = {f"layers.0.mlp.up_proj.{leaf}": part.contiguous() for leaf, part in parts.items()}
    save_file(named, folder / FILE)
    (folder / "config.json").write_text(json.dumps({"model_type": "custom", **config}))
    if not small:
        monkeypatch.setattr(http_ranges, "_BLOCK", 1)
        monkeypatch.setattr(http_ranges, "_SMALL", 64)
        monkeypatch.setattr("sparsity_report.weights.packed.packed_tensor._SLICE", 2**11)
        monkeypatch.setattr("sparsity_report.weights.packed.packed_tensor._BUFFER", 2**10)
    weights, copy = stream(config=False), sr.load(folder, name=NAME, config=False)
    hub.asked.clear()
    tensor = weights.tensor("layers.0.mlp.up_proj.weight")
    requests, size = len(hub.asked), sum(last + 1 - first for _, first, last in hub.asked)
    assert torch.equal(tensor, copy.tensor("layers.0.mlp.up_proj.weight"))
    torch.testing.assert_close(tensor, means.float(), rtol=1e-2, atol=1e-6)
    same_counts(weights, copy)
    no_weights(hub)
    if small:
        assert requests == 0  # all of it stands in the block that has the header
    else:
        slices = len(list(weights.slices("layers.0.mlp.up_proj.weight")))
        assert slices == (1 if way.startswith(("gptq", "awq")) else 3)
        assert requests <= slices * len(parts)
        # Input orders, here without the cache of small ranges, are read for scale and zero point.
        assert size <= 1.35 * sum(part.nbytes for part in parts.values())
        # Scales are read again for the rounding steps.
        assert len(hub.asked) <= 3 * slices * len(parts)


def test_structure_from_headers_alone(hub, folder):
    model = small_llama()
    model.save_pretrained(folder)  # config.json says float32
    size = 2**21
    state = {key: value.bfloat16() for key, value in model.state_dict().items()}
    save_file({**state, "lm_head.weight": torch.ones(64, 32)}, folder / FILE)
    outline, copy = stream(), sr.load(folder, name=NAME)
    assert list(outline.parameters) == list(copy.parameters)
    assert {p.dtype for p in outline.parameters} == {"bfloat16", "float32"}
    assert open_to_count(NAME).notes == ()
    assert sr.compare(sr.dense(outline)).layers.equals(sr.compare(sr.dense(copy)).layers)

    save_file({"layers.0.fc1.weight": torch.ones(4, size)}, folder / FILE)
    (folder / "config.json").unlink()
    hub.repositories["someone/other"], hub.sent = folder, 0
    outline = open_to_count("someone/other")
    assert [(p.shape, p.dtype) for p in outline.parameters] == [((4, size), "float32")]
    assert hub.asked[-1] == (FILE, 0, 2**16 - 1)
    assert hub.sent == 2**16
    no_weights(hub)


def test_tables_that_differ_further_on_are_not_tied(hub, folder):
    table = torch.zeros(2048, 32)
    other = torch.cat([table[:1024], table[1024:] + 1])
    for head, total in ((table, 2048 * 32), (other, 2 * 2048 * 32)):
        http_ranges._block.cache_clear()
        save_file({"embed_tokens.weight": table, "lm_head.weight": head.clone()}, folder / FILE)
        assert open_to_count(NAME).total == total
    no_weights(hub)


@pytest.mark.parametrize("way", ["gptq-4-v1", "pack-quantized-3-zero", "nf4"])
def test_structure_of_packed_weights_from_headers(hub, folder, way):
    parts, _, config = packing.WAYS[way](torch.randn(512, 4096))
    named = {f"layers.0.mlp.up_proj.{leaf}": part.contiguous() for leaf, part in parts.items()}
    save_file(named, folder / FILE)
    (folder / "config.json").write_text(json.dumps({"model_type": "custom", **config}))
    outline, copy = open_to_count(NAME), open_to_count(folder)
    assert list(outline.parameters) == list(copy.parameters)
    (parameter,) = outline.parameters
    assert parameter.shape == (512, 4096)
    assert parameter.file_bytes == sum(part.nbytes for part in parts.values())
    assert parameter.packing
    # What tells of shapes and orders is read, weights are not.
    assert hub.sent <= 3 * 2**16 < parameter.file_bytes / 4
    no_weights(hub)


def test_one_of_several_models(folder):
    for number, name in enumerate(("a", "b")):
        (folder / "inner").mkdir(exist_ok=True)
        save_file(
            {"layers.0.fc1.weight": torch.full((2, 2), float(number))}, folder / "inner" / name
        )
        (folder / "inner" / name).rename(folder / "inner" / f"{name}.safetensors")
    refused(r"2 models; name the file of one, as in .*/inner/a\.sa", partial(stream, "/inner"))
    weights = stream("/inner/b.safetensors")
    assert weights.name == "b.safetensors"
    assert weights.notes[0] == say(
        "note.weights_file", file="b.safetensors", folder=f"{NAME}/inner"
    )
    refused("has no file 'c.safetensors'", partial(stream, "/inner/c.safetensors"))


def test_a_long_header_is_read_to_its_end(folder):
    state = {f"layers.{i}.fc1.weight": torch.full((2, 2), float(i)) for i in range(2000)}
    save_file(state, folder / FILE)
    weights = stream()
    assert len(list(weights.stored)) == 2000
    assert torch.equal(weights.tensor("layers.1999.fc1.weight"), torch.full((2, 2), 1999.0))


def test_a_real_gguf_is_counted_where_it_lies(hub, folder, smollm2_path, smollm2):
    (folder / smollm2_path.name).symlink_to(smollm2_path)
    hub.held[folder / smollm2_path.name] = smollm2_path.read_bytes()
    outline = open_to_count(NAME)
    size = smollm2_path.stat().st_size
    # The header, and what was on its way when there was enough.
    assert hub.sent < size / 4
    assert sorted((p.total, p.file_bytes) for p in outline.parameters) == sorted(
        (p.total, p.file_bytes) for p in smollm2.parameters
    )
    hub.sent, weights = 0, stream()
    assert weights.notes[0] == say("note.weights_file", file=smollm2_path.name, folder=NAME)
    assert study_of(weights).layers.equals(study_of(smollm2).layers)
    assert weights.architecture == "LlamaForCausalLM"
    # Thresholds of float32 values take a second look.
    assert hub.sent < 2.2 * size
    refused("counted but not run", sr.dense(weights).module)
    assert not [name for name in hub.kept() if name.endswith(".gguf")]


def write_gguf_shards(folder):
    rng = np.random.default_rng(0)
    for number, name in enumerate(("token_embd.weight", "blk.0.ffn_up.weight")):
        values = rng.normal(size=(64, 64)).astype("f4")
        write_gguf(
            folder / f"x-{number + 1:05}-of-00002.gguf",
            {name: (values, gguf.GGMLQuantizationType.Q4_0)}, architecture="mystery",
            uint16=[("split.no", number), ("split.count", 2)], int32=[("split.tensors.count", 2)],
        )  # fmt: skip


def test_all_shards_of_a_gguf_are_streamed(hub, folder):
    write_gguf_shards(folder)
    copy = sr.load(folder, name=NAME)
    for place in ("", "/x-00002-of-00002.gguf"):
        weights = stream(place)
        assert study_of(weights).layers.equals(study_of(copy).layers)
        same_counts(weights, copy)
    refused("counted but not run", sr.dense(weights).module)
    outline = open_to_count(NAME)
    assert outline.source == "gguf"
    assert [p.file_bytes for p in outline.parameters] == [p.file_bytes for p in copy.parameters]
    assert not [name for name in hub.kept() if name.endswith(".gguf")]
    (folder / "x-00001-of-00002.gguf").unlink()
    refused("has no x-00001-of-00002.gguf, one of 2 shards", stream)


def test_damaged_gguf_headers_on_the_hub_are_refused(folder, monkeypatch):
    write_gguf_shards(folder)
    with monkeypatch.context() as patched:
        patched.setattr(limits, "GGUF_HEADER_BYTES", 100)
        refused(f"{NAME}/x-0000.-of-00002.gguf cannot be read as GGUF: its header is long", stream)
    first = folder / "x-00001-of-00002.gguf"
    whole = first.read_bytes()
    for raw, why in ((whole[:40], "announces"), (b"GGML" + whole[4:], "little-endian")):
        first.write_bytes(raw)
        refused(f"{NAME}/.* cannot be read as GGUF: .*({why})", stream)


def test_models_without_headers_are_not_streamed(hub, folder, monkeypatch):
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    path = f"{NAME}/pytorch_model.bin"
    refused(f"{NAME} is neither .*nothing else is streamed", stream)
    refused(f"{path} is neither", lambda: stream("/pytorch_model.bin"))
    refused(f"{NAME} is neither .*nothing else is streamed", lambda: open_to_count(NAME))

    big(folder)
    hub.repositories["someone/third"] = folder
    from huggingface_hub import snapshot_download

    snapshot_download("someone/third", allow_patterns=[FILE])
    (folder / "adapter_config.json").write_text("{}")  # which older versions did not fetch
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("cannot be read from the Hub", lambda: sr.load("someone/third", stream=True))
    (parameter,) = open_to_count("someone/third").parameters
    assert parameter.name == "layers.0.fc1.weight"


@pytest.mark.parametrize("at", [1, 500_000, 1_000_000])
def test_a_dropped_connection_goes_on_at_its_byte(hub, folder, waits, at):
    file = big(folder)
    weights = stream()
    begin = file.stat().st_size - 4 * BIG
    hub.faults += [
        partial(hub.send_part, stop=begin + at), partial(hub.send_part, stop=begin + at + 9),
    ]  # fmt: skip
    hub.asked.clear()
    tensor = weights.tensor("layers.0.fc1.weight")
    assert torch.equal(tensor, load_file(file)["layers.0.fc1.weight"])
    starts = [first - begin for _, first, _ in hub.asked]
    assert starts == [0, at, at + 9]
    assert waits == [1.0, 2.0]
    same_counts(weights, sr.load(file))


def answer(status, content=b"", **headers):
    """A fault: answer with something else."""

    def send(request, *_):
        request.send_response(status)
        told = {
            "Content-Length": len(content), **{k.replace("_", "-"): v for k, v in headers.items()},
        }  # fmt: skip
        for key, value in told.items():
            request.send_header(key, str(value))
        request.end_headers()
        request.wfile.write(content)

    return send


def test_a_busy_hub_is_asked_again(hub, folder, waits):
    file = big(folder)
    weights = stream()
    hub.faults += [
        503, answer(429, RateLimit='"resolvers";r=0;t=171'), answer(500),
        answer(502, Retry_After=9999), answer(503, Retry_After="x"),
    ]  # fmt: skip
    assert torch.equal(
        weights.tensor("layers.0.fc1.weight"), load_file(file)["layers.0.fc1.weight"]
    )
    assert waits == [7.0, 171.0, 4.0, 300.0, 16.0]


@pytest.mark.parametrize(
    ("fault", "said"),
    [(answer(200, b"x" * 100), "ignores Range"), (answer(206, b"x" * 100), "sent 'nothing'"),
     (answer(206, b"x" * 100, Content_Range="bytes 0-99/*"), r"sent 'bytes 0-99/\*'"),
     (answer(206, b"x" * 100, Content_Range="bytes 0-99/1200096"), "sent 'bytes 0-99/1200096'"),
     (answer(206, b"x" * 100, Content_Range="bytes 96-1200095/1200097"), "no longer the file"),
     (answer(403), "cannot be read: HTTP 403"), (answer(416), "no longer the file"),
     (404, "cannot be read: HTTP 404")],
)  # fmt: skip
def test_invalid_answers_of_a_server_are_refused(hub, folder, waits, fault, said):
    file = big(folder)
    assert file.stat().st_size == 1_200_096
    weights = stream()
    hub.faults.append(fault)
    refused(f"{NAME}/{FILE}.*{said}", lambda: count_weights(weights))
    assert waits == []
    assert not known_counts(weights)
    hub.faults.append(lambda *a: hub.send_part(*a, **{"Content-Encoding": "gzip"}))
    refused(r"\(gzip\) for bytes 96 to 1200095", lambda: count_weights(weights))
    same_counts(weights, sr.load(file))


def test_more_than_was_asked_for_is_not_believed(hub, folder, waits, monkeypatch):
    file = big(folder)
    (part,) = stream().slices("layers.0.fc1.weight")
    monkeypatch.setattr(http_ranges, "_SMALL", 0)

    def generous(request, content, first, last):
        body = content[first : last + 1] + b"\xff" * 1000
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    hub.asked.clear()
    hub.faults.append(generous)
    read = [part.file.read(at, 60).tobytes() for at in (100, 160)]
    assert read == [file.read_bytes()[100:160], file.read_bytes()[160:220]]
    assert hub.asked == [(FILE, 100, 159), (FILE, 160, 219)]
    assert waits == []


@pytest.mark.usefixtures("waits")
def test_a_file_that_changes_is_refused(hub, folder):
    file = big(folder)
    weights = stream()
    before = file.read_bytes()
    file.write_bytes(before[:-1] + b"\x01")  # the same length, another etag
    refused(
        "no longer the file that was opened at commit aaaaaaaaaaaa", partial(count_weights, weights)
    )
    again = stream()

    def drop_and_change(request, content, first, last):
        file.write_bytes(before[:-1] + b"\x02")
        hub.send_part(request, content, first, last, stop=600_000)

    hub.faults.append(drop_and_change)
    refused("load it and count again", partial(count_weights, again))
    assert not known_counts(weights)
    assert not known_counts(again)
    same_counts(stream(), sr.load(folder))


def test_a_branch_that_moves_on_changes_nothing(hub, folder, tmp_path):
    file = big(folder)
    later = tmp_path / "later"
    later.mkdir()
    big(later, seed=1)
    weights = stream()
    hub.later[NAME] = later
    hub.moved.add(NAME)
    same_counts(weights, sr.load(file))
    moved = stream()
    assert moved.notes[0] == say("note.streamed", commit=LATER)
    same_counts(moved, sr.load(later))
    same_counts(stream(f"@{MAIN}"), sr.load(file))
    pinned = stream(f"@{MAIN}")
    hub.claimed = LATER
    refused("no longer the file that was opened", lambda: count_weights(pinned))
    refused("sends no commit, etag or length", lambda: stream(f"@{MAIN}"))
    del hub.repositories[NAME]
    refused("neither a local path nor a model on the Hub", lambda: stream(f"@{MAIN}"))


def test_missing_files_are_refused_in_one_line(hub, folder):
    big(folder)
    refused("neither a local path nor a model on the Hub", lambda: sr.load("no/where", stream=True))
    refused("at revision v9 is neither", lambda: stream("@v9"))
    weights = stream()
    hub.gated.add(NAME)
    refused("fc1.weight: someone/small is gated: accept its terms", lambda: count_weights(weights))
    refused("is gated: accept its terms", lambda: open_to_count(NAME))
    hub.gated.clear()
    del hub.repositories[NAME]
    refused("neither a local path nor a model on the Hub", lambda: count_weights(weights))


def test_a_shard_missing_on_the_hub_is_refused(hub, folder):
    small_llama().save_pretrained(folder, max_shard_size="20KB")
    index = json.loads((folder / INDEX).read_text())
    shard = sorted(set(index["weight_map"].values()))[1]
    (folder / shard).unlink()
    refused(f"{NAME}/{shard} is not on the Hub", stream)
    index["weight_map"]["x"] = "../secret.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    hub.repositories["someone/other"] = folder
    refused("names a shard outside its folder", lambda: sr.load("someone/other", stream=True))


@pytest.mark.parametrize("length", [2**63, 10**9, 200])
def test_a_damaged_header_on_the_hub_is_refused(folder, length):
    text = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
    (folder / FILE).write_bytes(struct.pack("<Q", length) + text + bytes(40))
    refused(f"{NAME}/{FILE} cannot be read as safetensors", lambda: open_to_count(NAME))
    refused(f"{NAME}/{FILE} cannot be read as safetensors", stream)


def test_counting_resumes_after_a_lost_connection(hub, folder, tmp_path, waits, monkeypatch):
    monkeypatch.setattr(cache_module, "_SMALL", -1)
    names = [f"layers.{i}.fc1.weight" for i in range(8)]
    torch.manual_seed(0)
    save_file({name: torch.randn(256, 1024) for name in names}, folder / FILE)  # 1 MiB each
    place = folder / FILE
    begin = place.stat().st_size - 8 * 2**20

    def lose(request, *_):
        request.close_connection = True

    weights = stream()
    fifth = begin + 4 * 2**20

    def send(request, content, first, last):
        hub.faults.insert(0, send)
        return (lose if first >= fifth else hub.send_part)(request, content, first, last)

    hub.faults.append(send)
    refused(
        r"layers.4.fc1.weight: .* the connection to the Hub is lost \(\w+\), also after 8 retries",
        lambda: sr.global_magnitude(weights, 0.3, cache=tmp_path / "kept"),
    )
    assert sorted({*waits}) == [2.0**n for n in range(8)]
    assert set(known_counts(weights)) == set(names[:4])
    hub.faults.clear()
    hub.asked.clear()
    again = stream()
    hub.asked.clear()
    count_weights(again, cache=tmp_path / "kept")
    assert sorted(first for _, first, _ in hub.asked) == [begin + i * 2**20 for i in range(4, 8)]
    hub.asked.clear()
    same_counts(again, sr.load(folder))
    count_weights(stream(), cache=tmp_path / "kept")
    assert hub.asked == []  # the header is still known
    hub.later[NAME] = folder
    count_weights(stream(f"@{LATER}"), cache=tmp_path / "kept")
    assert len(hub.asked) == 9


def test_a_slice_is_one_request_and_memory_is_that_of_slices(hub, folder, monkeypatch):
    save_file({"fc1.weight": torch.ones(2048, 4096)}, folder / FILE)  # 32 MiB
    weights = stream()
    hub.held[folder / FILE] = (folder / FILE).read_bytes()
    monkeypatch.setattr(tensor_slices, "_SLICE", 2**20)  # 4 MiB
    hub.asked.clear()
    gc.collect()
    tracemalloc.start()
    try:
        for part in weights.slices("fc1.weight"):
            assert sum(map(len, part.pieces())) == part.total
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [last + 1 - first for _, first, last in hub.asked] == 8 * [2**22]
    assert peak < 14 * 2**20


def test_other_processes_read_for_themselves(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    big(folder)
    weights = stream()
    here = len(hub.asked)
    monkeypatch.setattr(tensor_slices.FileSlice, "pieces", None)  # in this process only
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        count_weights(weights, executor=pool)
    monkeypatch.undo()
    assert len(hub.asked) == here + 1
    same_counts(weights, sr.load(folder))


def test_the_token_stays_with_the_hub(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    big(folder)
    asked = []
    real = hub.answer
    hub.front.answer = lambda r: asked.append(r.headers.get("Authorization")) or real(r)
    count_weights(stream())
    assert set(asked) == {"Bearer hf_secret"}
    assert set(hub.tokens) == {None}


def test_a_streamed_model_does_not_run(hub, folder):
    small_llama().save_pretrained(folder)
    weights = stream()
    refused("counted but not run; load it without stream", sr.dense(weights).module)
    refused("counted but not run", lambda: sr.perplexity([sr.dense(weights)], "text"))
    no_weights(hub)


def test_an_adapter_is_not_streamed_as_a_model(folder):
    lora = {"base_model.model.x.lora_A.weight": torch.ones(1, 1)}
    save_file(lora, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "facebook/opt-125m"}')
    refused("is an adapter of facebook/opt-125m, not a model", stream)
    refused("is an adapter of facebook/opt-125m, not a model", lambda: open_to_count(NAME))


def test_stream_on_the_command_line(hub, folder, tmp_path):
    small_llama().to(torch.bfloat16).save_pretrained(folder)
    options = ("--write", "study", "--out")
    done = command("run", NAME, "--stream", *options, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    study = sr.read_study(tmp_path / "out" / "study.json")
    expected = study_of(sr.load(folder, name=NAME))
    assert study.layers.equals(expected.layers)
    no_weights(hub)
    done = command("run", NAME, "--stream", "--perplexity", "--out", tmp_path / "other")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--stream keeps no copy" in done.stderr


def test_stream_means_nothing_for_what_is_here(folder):
    file = big(folder)
    same_counts(sr.load(file, stream=True), sr.load(file))


def test_a_file_that_the_hub_sends_itself(hub, folder):
    file = big(folder)
    hub.direct.add(FILE)
    weights = stream()
    same_counts(weights, sr.load(file))
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    refused("no longer the file", lambda: weights.tensor("layers.0.fc1.weight"))


def test_files_about_weights_are_fetched_with_them(hub, folder):
    parts, means, config = packing.WAYS["gptq-4-v2"](torch.randn(64, 64))
    named = {f"layers.0.mlp.up_proj.{leaf}": part.contiguous() for leaf, part in parts.items()}
    save_file(named, folder / FILE)
    (folder / "quantize_config.json").write_text(json.dumps(config["quantization_config"]))
    names = ("spiece.model", "source.spm", "tekken.json", "tiktoken.model", "bpe.codes", "dict.txt")
    for name in (*names, "x.bin"):
        (folder / name).write_text("{}")
    weights = stream()
    torch.testing.assert_close(
        weights.tensor("layers.0.mlp.up_proj.weight"), means, rtol=1e-2, atol=1e-6
    )
    assert not {*names} & {*hub.kept()}
    same_counts(weights, sr.load(NAME))
    assert {*names} <= {*hub.kept()}
    assert "x.bin" not in hub.served


def test_an_adapter_goes_onto_a_streamed_base(hub, folder, tmp_path):
    small_llama().save_pretrained(folder)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    name = "model.layers.0.self_attn.q_proj"
    pair = {f"base_model.model.{name}.lora_A.weight": torch.randn(2, 32)}
    pair[f"base_model.model.{name}.lora_B.weight"] = torch.randn(32, 2)
    save_file(pair, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": NAME}
    config["target_modules"] = [name]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    merged, copy = sr.load(adapter, base=NAME, stream=True), sr.load(adapter, base=folder)
    assert torch.equal(merged.tensor(f"{name}.weight"), copy.tensor(f"{name}.weight"))
    same_counts(merged, copy)
    refused("counted but not run", sr.dense(merged).module)
    no_weights(hub)
