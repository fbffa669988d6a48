"""The atlas of pruned checkpoints: figures by arithmetic, resuming, budgets, damage and lies."""

import csv
import json
import re
import shutil

import atlas_models
import pytest
import torch
import yaml
from hubs import LATER, MAIN, Hub
from safetensors.torch import save_file

import sparsity_report as sr

pytestmark = pytest.mark.slow(seconds=15)

DOCS = atlas_models.DOCS
ATLAS = atlas_models.script()
# Of the fixtures that are Llamas: 2 blocks of 64 × 64, 32 × 64 and 96 × 64 matrices and 2 norms,
# an embedding and a head of 64 × 64, one norm.
PRUNABLE = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64)
OUTSIDE = PRUNABLE + 5 * 64
LLAMA = OUTSIDE + 2 * 64 * 64


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory):
    return atlas_models.write(tmp_path_factory.mktemp("fixtures"))


@pytest.fixture(scope="module")
def finished(fixtures, tmp_path_factory):
    """Folder of a run over all fixtures."""
    out = tmp_path_factory.mktemp("atlas")
    assert ATLAS.main([str(fixtures), "--out", str(out)]) is None
    return out


def rows_of(out):
    rows = json.loads((out / "atlas.json").read_text(encoding="utf-8"))["rows"]
    return {row["model"]: row for row in rows}


def listed(folder, *checkpoints, **more):
    path = folder / "list.yaml"
    entries = [{"model": each} if isinstance(each, str) else each for each in checkpoints]
    path.write_text(yaml.safe_dump({"checkpoints": entries, **more}), encoding="utf-8")
    return path


def atlas(path, out, *options):
    ATLAS.main([str(path), "--out", str(out), *options])
    return rows_of(out)


def test_figures(finished):
    figures = {name: row["figures"] for name, row in rows_of(finished).items()}
    half = ["sparsegpt-50", "wanda-50", "sparse-llama-2of4", "packed-sparse-24"]
    for name in half:
        each = figures[name]
        assert (each["parameters"], each["prunable weights"]) == (LLAMA, PRUNABLE)
        assert each["prunable zeros"] == PRUNABLE // 2
        words = ("the non-embedding parameters", "all parameters")
        shares = [each[f"zeros of {name}"] for name in words]
        assert shares == pytest.approx([PRUNABLE / 2 / OUTSIDE, PRUNABLE / 2 / LLAMA], rel=1e-12)
        rows = 2 * (64 + 32 + 32 + 64 + 96 + 96 + 64)
        rest = 4 * (LLAMA - PRUNABLE)
        assert each["bytes dense"] == 4 * LLAMA
        assert each["bytes CSR"] == rest + 8 * PRUNABLE // 2 + 4 * (rows + 14)
        assert each["bytes bitmask"] == rest + 4 * PRUNABLE // 2 + PRUNABLE // 8
    two_four = "2:4 in 14 of 14 prunable matrices"
    patterns = [figures[name]["pattern"] for name in half]
    assert patterns == ["unstructured, 50.0 % to 50.0 % by layer"] * 2 + [two_four] * 2
    sizes = [figures[name]["bytes 2:4"] for name in half]
    held = 4 * (LLAMA - PRUNABLE) + 4 * PRUNABLE // 2 + PRUNABLE // 8
    assert sizes == [None, None, held, held]
    assert figures["overstated"]["prunable zeros"] == PRUNABLE // 4


def test_smaller_models(finished):
    rows = rows_of(finished)
    # Two blocks: 6 experts of 3 matrices of 12 × 16, of which a token uses 2; a router of 6 rows.
    experts, attention, norms = 2 * 6 * 3 * 12 * 16, 2 * 4 * 16 * 16, 2 * (2 * 16 + 2 * 8) + 16
    total = experts + attention + norms + 2 * 6 * 16 + 2 * 64 * 16
    reap = rows["reap-6-of-8"]["figures"]
    assert (reap["parameters"], reap["experts"], reap["blocks"]) == (total, "6", 2)
    assert reap["active parameters"] == total - experts + experts // 3
    narrow = 4 * (2 * 64 * 48 + 2 * 32 * 48 + 3 * 96 * 48 + 2 * 48) + 48 + 2 * 96 * 48
    assert rows["minitron-width"]["figures"]["parameters"] == narrow
    attention, ffn = 2 * 64 * 64 + 2 * 32 * 64, 3 * 64 * 128
    blocks = [
        attention + 64, 64 * 64 + 64 + ffn // 2 + 64, ffn + 64,
        2 * 64 * 64 + 2 * 16 * 64 + 64 + 64 * 64 + 64,
    ]  # fmt: skip
    puzzle = rows["puzzletron"]["figures"]
    assert puzzle["parameters"] == sum(blocks) + 64 + 2 * 96 * 64
    assert "vllm" in puzzle["some architectures"]


def test_packed_models(finished):
    figures = {name: row["figures"] for name, row in rows_of(finished).items()}
    rest = 4 * (LLAMA - PRUNABLE)
    # Four bits a weight, a float16 scale for each 32, two int64 numbers of the shape.
    int4 = figures["packed-int4"]
    assert int4["bytes in files"] == rest + PRUNABLE // 2 + PRUNABLE // 32 * 2 + 14 * 16
    assert int4["parameters"] == LLAMA
    # The step is 2/15 of the largest of 32 weights, of about 2.1 standard deviations.
    assert 0.08 < int4["zeros of the prunable weights"] < 0.18
    assert int4["pattern"] is None
    assert figures["packed-sparse-24"]["random weights"] == "transformers"
    assert figures["packed-fp8"]["bytes in files"] == rest + PRUNABLE + 4 * PRUNABLE // 32**2


def test_lies_and_damage(finished):
    rows = rows_of(finished)
    shares = [PRUNABLE / 4 / total for total in (PRUNABLE, OUTSIDE, LLAMA)]
    one, two, three = (f"{100 * share:.1f} %" for share in shares)
    assert rows["overstated"]["discrepancies"] == [
        f"{LLAMA:,} parameters counted, 40K claimed",
        "2 blocks counted, 3 claimed",
        f"{one} of the prunable weights, {two} of the non-embedding parameters, {three} of all "
        "parameters are zero, 50% claimed",
        "unstructured, 25.0 % to 25.0 % by layer, 2:4 claimed",
    ]
    assert not any(row["discrepancies"] for name, row in rows.items() if name != "overstated")
    damaged = rows.pop("damaged")
    assert (damaged["state"], damaged["figures"]) == ("refused", {})
    assert re.match(r"damaged/model\.safetensors .*; download it again$", damaged["reason"])
    assert {row["state"] for row in rows.values()} == {"counted"}


def test_the_page_of_fixtures_is_current(finished):
    """After a change: ``python tests/support/atlas_models.py``."""
    page = (finished / "atlas.md").read_text(encoding="utf-8")
    assert page == (DOCS / "fixtures.md").read_text(encoding="utf-8")


def test_the_sheet_has_a_row_for_each_checkpoint(finished):
    with (finished / "atlas.csv").open(encoding="utf-8") as file:
        sheet = {row["model"]: row for row in csv.DictReader(file)}
    assert [*sheet] == [*rows_of(finished)]
    assert sheet["wanda-50"]["prunable zeros"] == str(PRUNABLE // 2)
    assert sheet["damaged"]["parameters"] == ""


def test_the_public_list_is_current(tmp_path):
    rows = atlas(DOCS / "checkpoints.yaml", tmp_path, "--claims-only")
    assert {row["state"] for row in rows.values()} == {"waiting"}
    assert all(row["claims"] and row["source"] and row["read_on"] for row in rows.values())
    page = (tmp_path / "atlas.md").read_text(encoding="utf-8")
    assert page == (DOCS / "public.md").read_text(encoding="utf-8")


def test_a_finished_checkpoint_is_not_read_again(finished, fixtures, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    read = []
    load = sr.load
    monkeypatch.setattr(
        sr, "load", lambda place, **more: read.append(place.name) or load(place, **more)
    )
    before = rows_of(out)
    # Only what could not be read is read again.
    assert atlas(fixtures, out) == before
    assert read == ["damaged"]
    entries = yaml.safe_load(fixtures.read_text(encoding="utf-8"))["checkpoints"]
    entries = [each for each in entries if each["model"] in {"wanda-50", "reap-6-of-8"}]
    entries[0]["claims"]["parameters"] = "8B"
    path = listed(fixtures.parent, *entries)
    rows = atlas(path, out)
    assert read == ["damaged"]
    assert rows["wanda-50"]["discrepancies"] == [f"{LLAMA:,} parameters counted, 8B claimed"]
    # A claim about zeros needs their pattern, and changed files are read again.
    entries[1]["claims"]["sparsity"] = "25%"
    file = fixtures.parent / "wanda-50" / "config.json"
    file.write_text(file.read_text() + "\n")
    rows = atlas(listed(fixtures.parent, *entries), out)
    assert read == ["damaged", "wanda-50", "wanda-50", "reap-6-of-8", "reap-6-of-8"]
    assert rows["reap-6-of-8"]["discrepancies"][0].endswith("are zero, 25% claimed")


def test_an_interrupted_run_goes_on(fixtures, tmp_path, monkeypatch, capsys):
    path = listed(fixtures.parent, "wanda-50", "packed-int4", "puzzletron")
    stopping, existing_zeros = ["packed-int4"], sr.existing_zeros

    def stop(weights, **options):
        if weights.name in stopping:
            raise KeyboardInterrupt
        return existing_zeros(weights, **options)

    monkeypatch.setattr(sr, "existing_zeros", stop)
    with pytest.raises(SystemExit) as left:
        ATLAS.main([str(path), "--out", str(tmp_path)])
    assert left.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
    states = [row["state"] for row in rows_of(tmp_path).values()]
    assert states == ["counted", "waiting", "waiting"]
    stopping[:] = ["wanda-50"]  # is finished
    rows = atlas(path, tmp_path)
    assert {row["state"] for row in rows.values()} == {"counted"}


def test_the_cache_keeps_counts_of_an_interrupted_checkpoint(tmp_path, monkeypatch):
    """Of four tensors of 2 MiB, two are counted before the interruption."""
    folder = tmp_path / "model"
    folder.mkdir()
    matrix = torch.randn(1024, 1024, dtype=torch.float16)
    tensors = {f"layers.{number}.fc1.weight": matrix + number for number in range(4)}
    save_file(tensors, folder / "model.safetensors")
    existing_zeros = sr.existing_zeros

    def stop(done, total, _):
        if done >= total / 2:
            raise KeyboardInterrupt

    with Hub(monkeypatch, tmp_path / "cache") as hub:
        hub.repositories["org/model"] = folder
        path = listed(tmp_path, "org/model")
        with monkeypatch.context() as patch:
            patch.setattr(
                sr, "existing_zeros", lambda *a, **b: existing_zeros(*a, progress=stop, **b)
            )
            with pytest.raises(SystemExit):
                ATLAS.main([str(path), "--out", str(tmp_path)])
        kept = len([*(tmp_path / "counts").iterdir()])
        assert 1 <= kept <= 3
        hub.sent = 0
        assert atlas(path, tmp_path)["org/model"]["state"] == "counted"
        assert (4 - kept) * 2**21 <= hub.sent < (4 - kept) * 2**21 + 2**20


def test_a_budget_of_bytes(fixtures, tmp_path):
    path = listed(fixtures.parent, "sparsegpt-50", "wanda-50", "packed-fp8", "reap-6-of-8")
    first, second, fp8, reap = atlas(path, tmp_path, "--budget", "400K").values()
    left = 400_000 - 4 * LLAMA
    size = f"would read {4 * PRUNABLE / 1000:.0f} kB, and {left / 1000:.0f} kB are left"
    assert first["reason"] == f"pattern not read: {size}"
    assert (first["state"], first["figures"]["prunable zeros"]) == ("counted", PRUNABLE // 2)
    assert second["reason"].startswith("not counted: would read 280 kB")
    assert second["state"] == "structure"
    assert second["figures"]["parameters"] == LLAMA
    assert second["figures"]["prunable zeros"] is None
    # A smaller one still fits.
    assert fp8["state"] == "counted"
    assert reap["state"] == "structure"
    assert "not counted: would read 280 kB" in (tmp_path / "atlas.md").read_text(encoding="utf-8")
    rows = atlas(path, tmp_path)
    assert all(row["state"] == "counted" and not row["reason"] for row in rows.values())


def test_models_of_the_hub_are_streamed(fixtures, tmp_path, monkeypatch):
    claims = {"sparsity": "50%"}
    with Hub(monkeypatch, tmp_path / "cache") as hub:
        hub.repositories["org/wanda"] = fixtures.parent / "wanda-50"
        hub.later["org/wanda"] = fixtures.parent / "overstated"
        path = listed(tmp_path, {"model": "org/wanda", "claims": claims}, "org/absent")
        rows = atlas(path, tmp_path)
        row = rows["org/wanda"]
        assert (row["commit"], row["state"], row["discrepancies"]) == (MAIN, "counted", [])
        assert row["figures"]["prunable zeros"] == PRUNABLE // 2
        assert not [name for name in hub.kept() if name.endswith("safetensors")]
        assert rows["org/absent"]["reason"].startswith("commit unknown: RepositoryNotFoundError")
        hub.sent = 0
        assert atlas(path, tmp_path)["org/wanda"] == row
        assert hub.sent == 0
        hub.moved.add("org/wanda")
        row = atlas(path, tmp_path)["org/wanda"]
        assert row["commit"] == LATER
        assert row["discrepancies"][0].startswith("25.0 % of the prunable weights")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    kept = atlas(path, tmp_path)["org/wanda"]
    assert kept["figures"] == row["figures"]
    assert kept["reason"].startswith("commit unknown: ")


def test_names_are_data(tmp_path):
    entry = {"model": "a|b\n# c_<img src=x>", "claims": {}, "source": "=HYPERLINK(1)"}
    atlas(listed(tmp_path, entry, title="<b>`x`"), tmp_path, "--claims-only")
    page = (tmp_path / "atlas.md").read_text(encoding="utf-8")
    assert page.startswith("# &lt;b&gt;\\`x\\`\n")
    assert r"- a\|b \# c\_&lt;img src=x&gt;: =HYPERLINK\(1\)" in page
    assert ",'=HYPERLINK(1)," in (tmp_path / "atlas.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "while parsing"),
        ("checkpoints: 3", "'str' object"),
        ("title: x", "'checkpoints'"),
        ("checkpoints: [{model: [5]}]", "['5'] has an unknown name"),
        ("checkpoints: [{model: a, claims: {zeros: 5}}]", "'a' has an unknown zeros"),
        ("checkpoints: [{model: a, claims: {parameters: many}}]", "'many' is not a number"),
        ("checkpoints: [{model: a, claims: {sparsity: 0.5}}]", "'0.5' is not a number such as 50%"),
        ("checkpoints: [{model: a, claims: {pattern: x}}]", "neither N:M nor unstructured"),
    ],
)
def test_bad_lists_are_one_line(text, reason, tmp_path, capsys):
    (tmp_path / "list.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        ATLAS.main([str(tmp_path / "list.yaml"), "--out", str(tmp_path / "out")])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("claimed", "counted", "is_true"),
    [
        ("8B", 8_540_000_000, True),  # cut off
        ("8.03B", 8_030_261_248, True),
        ("8B", 7_400_000_000, True),
        ("8B", 9_000_000_000, False),
        ("1,234", 1234, True),
        ("1,234", 1235, False),
        ("246B", 248_000_000_000, False),
    ],
)
def test_rounded_sizes_are_no_difference(claimed, counted, is_true):
    figures = {"parameters": counted, "non-embedding parameters": counted}
    row = {"figures": figures, "claims": {"parameters": claimed}, "has_pattern": False}
    assert [*ATLAS.differences(row)] == [f"{counted:,} parameters counted, {claimed} claimed"] * (
        not is_true
    )


@pytest.mark.parametrize(
    ("claimed", "shares", "is_true"),
    [
        ("50%", (0.5049, 0.49, 0.4), True),
        ("50%", (0.5051, 0.49, 0.4), False),
        ("50%", (0.61, 0.6, 0.4951), True),  # of all parameters
        ("50.0%", (0.5049, 0.49, 0.4), False),
    ],
)
def test_shares_agree_at_the_digits_written(claimed, shares, is_true):
    figures = {
        f"zeros {words}": share for words, share in zip(ATLAS.SHARES.values(), shares, strict=True)
    }
    row = {"figures": figures, "claims": {"sparsity": claimed}, "has_pattern": False}
    assert (not [*ATLAS.differences(row)]) is is_true


@pytest.mark.parametrize(
    ("claimed", "pattern", "is_true"),
    [
        ("2:4", "2:4 in 14 of 14 prunable matrices", True),
        ("2:4", "2:4 in 13 of 14 prunable matrices", False),
        ("2:4", "4:8 in 14 of 14 prunable matrices", False),
        ("2:4", "unstructured, 50.0 % to 50.0 % by layer", False),
        ("unstructured", "unstructured, 50.0 % to 50.0 % by layer", True),
        ("unstructured", "no structure known", True),
        ("unstructured", "3 whole heads", False),
    ],
)
def test_patterns_are_held_to_claims(claimed, pattern, is_true):
    row = {"figures": {"pattern": pattern}, "claims": {"pattern": claimed}, "has_pattern": True}
    wrong = [f"{pattern}, {claimed} claimed"] * (not is_true)
    assert [*ATLAS.differences(row)] == wrong
