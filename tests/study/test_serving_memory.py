"""Bytes to serve a study's variants: arithmetic on its tables, files and bad arguments."""

import json

import pytest

import sparsity_report as sr
from sparsity_report.weights.anatomy.cache_bytes import KV_DTYPES, parsed_memory
from tests.support.cache_models import run


@pytest.fixture(scope="module")
def study():
    weights = sr.load()
    pruning = sr.global_magnitude(weights, 0.6)
    return sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))


def test_memory_is_weights_and_cache(study):
    frame = study.memory(context=100, batch=3, kv_dtype="float16")
    cache = run(study.weights.module().half(), 100, 3)
    storage = study.storage.query("scope == 'model'").set_index(["variant", "layout"])["bytes"]
    assert {"dense", "csr_int32", "bitmask"} <= set(frame["layout"])
    assert "2:4" not in set(frame["layout"])
    for row in frame.to_dict("records"):
        assert row["weight_memory"] == storage[row["variant"], row["layout"]]
        assert (row["kv_cache_memory"], row["state_memory"]) == (cache, 0)
        assert row["memory"] == row["weight_memory"] + cache
        assert row["cache_dtype"] == "float16"


def test_defaults_are_those_of_the_model(study):
    row = study.memory().iloc[0]
    # OPT of 256 positions, 4 layers of width 128, in float32.
    assert row["kv_cache_memory"] == 2 * 4 * 128 * 256 * 4
    assert row["cache_dtype"] == "float32"
    sizes = {name: study.memory(10, 1, name)["kv_cache_memory"].iloc[0] for name in KV_DTYPES}
    assert (
        sizes["float32"] == 2 * sizes["bfloat16"] == 4 * sizes["int8"] == 4 * sizes["float8_e5m2"]
    )


def test_saved_studies_answer_alike(study, tmp_path):
    path = study.save(tmp_path / "study.json")
    read = sr.read_study(path, strict=True)
    assert read.memory(50, 2).equals(study.memory(50, 2))
    assert read.storage.equals(study.storage)
    data = json.loads(path.read_text("utf-8"))
    del data["cache"]
    path.write_text(json.dumps(data), "utf-8")
    old = sr.read_study(path)
    assert old.cache is None
    frame = old.memory()
    assert frame["weight_memory"].notna().all()
    assert frame[["kv_cache_memory", "state_memory", "memory"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("cached", "soul"),
        ("cached", None),
        ("alike_layers", -1),
        ("cached_values", 1.5),
        ("unknown_cache", "because"),
        ("variant", "Nobody"),
    ],
)
def test_files_with_impossible_caches(study, tmp_path, column, cell):
    path = study.save(tmp_path / "study.json")
    data = json.loads(path.read_text("utf-8"))
    place = data["cache"]["columns"].index(column)
    data["cache"]["rows"][0][place] = cell
    path.write_text(json.dumps(data), "utf-8")
    with pytest.raises(sr.SparsityReportError, match=r"study\.json"):
        sr.read_study(path)


def test_variants_of_several_models(study):
    other = sr.compare(sr.dense(sr.load(), name="Again"))
    both = sr.combine(study, other)
    assert set(both.cache["variant"]) == {*study.variants["variant"], "Again"}
    assert both.memory().groupby("variant")["memory"].first().notna().all()
    more = study.with_variants(sr.dense(study.weights, name="More"))
    assert more.memory().query("variant == 'More'")["memory"].notna().all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"context": 0},
        {"context": -1},
        {"context": 2**40},
        {"context": 1.5},
        {"context": True},
        {"batch": 0},
        {"batch": 10**9},
        {"kv_dtype": "int3"},
        {"kv_dtype": ""},
        {"context": 2**27, "batch": 2**20},
    ],
)
def test_arguments_out_of_range(study, arguments):
    with pytest.raises(sr.SparsityReportError, match=r"; (give|use)"):
        study.memory(**arguments)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * 10**9),
        ("24 GiB", 24 * 2**30),
        ("0.5TB", 5 * 10**11),
        ("80gb", 80 * 10**9),
        ("512MiB", 2**29),
    ],
)
def test_sizes_of_memory(text, size):
    assert parsed_memory(text) == size


@pytest.mark.parametrize(
    "text", ["", "24", "GB", "-1GB", "0GB", "1e9GB", "24GBit", "9" * 20 + "GB"]
)
def test_texts_that_are_no_sizes(text):
    with pytest.raises(sr.SparsityReportError, match="no size of memory"):
        parsed_memory(text)
