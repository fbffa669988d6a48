"""The command line as a person runs it: last lines, exit codes; as a process where that counts."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest
import torch
import typer
from helpers import Tiny, command, small_llama
from payloads import decode
from safetensors.torch import save_file

import sparsity_report as sr
from sparsity_report.cli.application import app
from sparsity_report.cli.options import PANELS
from sparsity_report.cli.terminal import workers
from sparsity_report.files.package_data import DEMO
from sparsity_report.findings.strip_text import strip_texts

QUICK = ("--write", "study")


def process(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "sparsity_report", *map(str, arguments)], capture_output=True,
        text=True, cwd=cwd, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    """A run on the demo."""
    folder = tmp_path_factory.mktemp("a run")
    return process("run", cwd=folder), folder / "results"


def test_run_on_the_demo(demo_run):
    run, out = demo_run
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    *sentences, last = run.stdout.splitlines()
    study = sr.read_study(out / "study.json")
    figures = strip_texts(study.facts)
    expected = [f"{each['title']}: {each['number']} ({each['note']})" for each in figures]
    assert sentences[:-2] == [sr.summarize(study)[0], *expected]
    assert [line.partition(":")[0] for line in sentences[-2:]] == ["Next", "Runs as"]
    assert last.startswith("Written to results: study.json")
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"report.html", "study.json", "structural_layers/layers_csr30.csv"} <= written
    assert not [name for name in written if name.endswith(".png")]
    pruned = study.totals.set_index("variant").loc["CSR30", "pruned"]
    assert pruned == round(0.3 * 4 * (4 * 128**2 + 2 * 128 * 512))


def test_render_gives_the_same_report(demo_run, tmp_path):
    """But for histograms, which only weights give; the page says why it has none."""
    _, out = demo_run
    run = command("render", out / "study.json", "--write", "html,csv", "--out", tmp_path / "again")
    assert run.returncode == 0, run.stderr
    table = "structural_layers/comparison.csv"
    assert (tmp_path / "again" / table).read_bytes() == (out / table).read_bytes()
    first, again = (
        (folder / "report.html").read_text("utf-8") for folder in (out, tmp_path / "again")
    )
    data = re.compile(r'data-payload="([^"]*)"')
    is_the_same = data.sub("", again) == data.sub("", first)
    assert is_the_same  # of texts this long it would take minutes to show the difference
    (with_, header), (without, other) = (
        (arrays, header)
        for header, arrays in (decode(b64decode(data.search(text)[1])) for text in (first, again))
    )
    assert header["histograms"] is not None
    assert other["histograms"] is None
    assert "no weights" in other["whyNoHistogram"]
    counts = [part["arrays"] for part in header["variants"]]
    for mine, yours in zip(counts, [part["arrays"] for part in other["variants"]], strict=True):
        for key in mine:
            assert with_[mine[key]].tobytes() == without[yours[key]].tobytes()


def test_an_edited_study_is_rendered_with_a_word_or_refused(demo_run, tmp_path):
    _, out = demo_run
    edited = tmp_path / "edited.json"
    text = (out / "study.json").read_text(encoding="utf-8")
    edited.write_text(text.replace('"notes": []', '"notes": ["reviewed"]'), encoding="utf-8")
    plain = ["--write", "csv", "--out", tmp_path / "again"]
    run = command("render", edited, *plain)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("This study was edited by hand after it was written")
    run = command("render", edited, *plain, "--strict")
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith(f"sparsity-report: {edited}: this study was edited by hand")
    assert run.stderr.count("\n") == 1
    run = command("render", out / "study.json", *plain, "--strict")
    assert run.returncode == 0, run.stderr


def test_a_report_with_templates_of_ones_own(demo_run, tmp_path):
    _, out = demo_run
    (tmp_path / "mine" / "sections").mkdir(parents=True)
    (tmp_path / "mine" / "sections" / "storage.html.j2").write_text("<p>My words</p>")
    run = command(
        "render", out / "study.json", "--out", tmp_path / "o", "--template-dir", tmp_path / "mine",
        "--write", "html",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "My words" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    gone = command("run", "--template-dir", tmp_path / "gone", "--out", tmp_path / "p")
    refused(gone, "is not a folder")
    assert not (tmp_path / "p").exists()


def test_choosing_what_is_written(tmp_path):
    run = command("run", "--sparsity", "50%", "--out", tmp_path / "o", "--write", "study,csv")
    assert run.returncode == 0, run.stderr
    written = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert written == [".sparsity-report.sha256", "structural_layers", "study.json"]
    assert run.stdout.startswith("With 50 % of 786 k prunable weights zero, ")
    study = sr.read_study(tmp_path / "o" / "study.json")
    assert study.variants["variant"].tolist() == ["Dense", "Masked50", "CSR50"]


def test_paper_and_thesis(demo_run, tmp_path):
    _, out = demo_run
    run = command(
        "render", out / "study.json", "--out", tmp_path, "--write", "pdf,md", "--write", "thesis",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("report.pdf, report.md, thesis/*\n")
    assert (tmp_path / "report.md").read_text("utf-8").startswith("# With 30")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert (tmp_path / "thesis" / "figures" / "csr_bytes_text.svg").is_file()
    assert not (tmp_path / "report.html").exists()


def test_options_reach_the_model(tmp_path):
    run = command(
        "run", "--out", tmp_path, "--blacklist", "fc1", "--name", "mine", *QUICK,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    study = sr.read_study(tmp_path / "study.json")
    assert set(study.variants["model"]) == {"mine"}
    prunable = study.layers.loc[study.layers["prunable"], "module_name"]
    assert not prunable.str.contains("fc1").any()


def test_workers_and_cache(demo_run, tmp_path):
    _, out = demo_run
    common = ["--cache", tmp_path / "cache", "--out", tmp_path / "o", *QUICK]
    run = command("run", "--workers", "2", *common)
    assert run.returncode == 0, run.stderr
    study, plain = (sr.read_study(o / "study.json") for o in (tmp_path / "o", out))
    assert study.layers.equals(plain.layers)
    assert study.patterns.equals(plain.patterns)
    entries = [*(tmp_path / "cache").iterdir()]
    assert len(entries) == 24
    for entry in entries:
        entry.write_bytes(b"")
    run = command("run", *common)
    assert run.returncode == 0, run.stderr
    assert "the cache held damaged counts" in run.stderr
    assert run.stderr.count("\n") == 1
    assert sr.read_study(tmp_path / "o" / "study.json").layers.equals(plain.layers)


def test_notes_on_how_a_model_was_opened_are_printed(tmp_path):
    shutil.copyfile(DEMO / "model.safetensors", tmp_path / "model.safetensors")
    run = command("run", tmp_path, "--out", tmp_path / "o", *QUICK)
    assert run.returncode == 0
    said = "sparsity-report: no config.json: groups follow from tensor names and shapes alone\n"
    assert run.stderr == said


def test_loading_draws_no_bars(capfd):
    sr.load(DEMO).module()
    assert capfd.readouterr() == ("", "")


def test_run_on_real_checkpoints(minilm_path, tmp_path):
    run = command("run", minilm_path, *QUICK, "--out", tmp_path / "m")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("With 30 % of 10.6 M prunable weights zero, ")
    study = sr.read_study(tmp_path / "m" / "study.json")
    # Six blocks, 384 wide.
    weights = 6 * (4 * 384**2 + 2 * 384 * 1536)
    assert set(study.totals["prunable_total"]) == {weights}
    assert f" of {weights:_} prunable weights".replace("_", "\u202f") in sr.summarize(study)[1]


def test_a_grid_of_policies_and_models_pruned_elsewhere(demo, tmp_path):
    text = tmp_path / "calibration.txt"
    text.write_text("def f(x):\n    return x + 1\n" * 60, encoding="utf-8")
    pruned = tmp_path / "my wanda"
    sr.masked(sr.layerwise_magnitude(demo, 0.5)).module().save_pretrained(pruned)
    small_llama().save_pretrained(tmp_path / "other")
    run = command(
        "run", DEMO, pruned, tmp_path / "other", "--out", tmp_path / "o", *QUICK, "--policy",
        "magnitude,wanda", "--policy", "owl,2:4,WANDA-2:4", "--sparsity", "0.3, 0.5", "--sparsity",
        ".30", "--calibration", text,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    study = sr.read_study(tmp_path / "o" / "study.json")
    assert study.variants["variant"].tolist() == [
        "Dense", "Masked30", "Masked50", "Masked30Wanda", "Masked50Wanda", "Masked30WandaOWL",
        "Masked50WandaOWL", "Masked2:4", "Masked2:4Wanda", "my wanda", "other",
    ]  # fmt: skip
    weights = sr.load()
    calibration = sr.calibrate(weights, text)
    due = sr.masked(sr.wanda(weights, 0.5, calibration, allocation="owl")).layers()
    counted = study.layers[study.layers["variant"] == "Masked50WandaOWL"].reset_index(drop=True)
    assert counted["nonzero"].tolist() == due["nonzero"].tolist()
    rows = study.variants.set_index("variant")
    assert set(rows["basis_fingerprint"].dropna()) == {calibration.fingerprint}
    assert rows.loc[["Dense", "my wanda", "other"], "pruned"].isna().all()
    assert "my wanda" in study.facts.prunings


def test_further_models_are_compared_as_they_are(tmp_path):
    paths = []
    for number, name in enumerate("abc"):
        torch.manual_seed(number)
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "tiny.safetensors")
        save_file({k: v.contiguous() for k, v in Tiny(tied=False).state_dict().items()}, paths[-1])
    options = ("--sparsity", "30%,0.5", *QUICK)
    cache = ("--cache", tmp_path / "cache")
    for models, names in ((paths, map(str, paths[1:])), (paths[:2], ["tiny"])):
        run = command("run", *models, *options, *cache, "--out", tmp_path / "o")
        assert run.returncode == 0, run.stderr
        study = sr.read_study(tmp_path / "o" / "study.json")
        variants = study.variants["variant"].tolist()
        assert variants == ["Dense", "Masked30", "Masked50", *names]
    # The first and the last variant are of different models.
    first, last = map(sr.load, paths[:2])
    due = sr.compare(sr.dense(first), sr.dense(last, name="tiny")).layers["weight_nonzero"]
    ends = study.layers[study.layers["variant"].isin(("Dense", "tiny"))]
    assert ends["weight_nonzero"].tolist() == due.tolist()
    assert len({path.name for path in (tmp_path / "cache").iterdir()}) == 3 * len(first.prunable)
    run = command("run", *paths[:2], *QUICK, "--out", tmp_path / "o")
    study = sr.read_study(tmp_path / "o" / "study.json")
    assert study.variants["variant"].tolist() == ["Dense", "tiny"]
    # Refused before the first is counted.
    refused(command("run", paths[0], "./nowhere", "--out", tmp_path / "p"), "no such file")
    refused(command("run", *paths, "--curve"), "several are compared as they are; add --sparsity")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sparsity-report re", ["render"]), ("sparsity-report run --spar", ["--sparsity"]),
        ("sparsity-report render --s", ["--strict"]),
    ],
)  # fmt: skip
def test_the_shell_completes(monkeypatch, typed, offered):
    words = typed.split()
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_SPARSITY_REPORT_COMPLETE", "complete_bash")
    script = Path(sys.executable).with_name("sparsity-report")
    code = (
        "import sys; from sparsity_report.cli import main; sys.argv = ['sparsity-report']; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == offered, run.stderr
    assert script.is_file()


def test_the_steps_of_the_curve_are_those_of_the_policy(tmp_path):
    run = command(
        "run", "--out", tmp_path / "o", *QUICK, "--policy", "layerwise", "--curve", "--text",
        "def f(x):\n    return x + 1\n" * 3,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    study = sr.read_study(tmp_path / "o" / "study.json")
    assert study.variants["variant"].tolist() == ["Dense", "Masked30Layerwise", "CSR30Layerwise"]
    assert len(study.quality) == 11
    assert set(study.quality["method"].dropna()) == {"layerwise_magnitude"}


def test_unknown_policies_are_refused(tmp_path):
    out = ("--out", tmp_path / "o")
    for options, message in (
        (["--policy", "sparsegpt"], "--policy 'sparsegpt' is unknown; use magnitude, layerw"),
        (["--policy", "magnitude,"], "--policy '' is unknown"),
        (["--sparsity", "0.3,", "--policy", "2:4"], "--sparsity '' is not a share; use 0 to 1"),
        (["--sparsity", "0.3", "--policy", "2:4"], "has no effect on --policy 2:4, whose pattern"),
        (["--policy", "5:4"], "n_m keeps n of every m weights"),
        (["--policy", "3:5"], "do not divide into groups of 5"),
        (["--calibration", "some words"], "--calibration has no effect; add --policy wanda or owl"),
        (["--policy", "wanda", "--calibration", "no/such/file.txt"], "there is no file"),
        (["--policy", "wanda", "--calibration", "too short"], "fewer than 1 windows of 256"),
        (["--policy", "wanda", "--stream"], "the policies wanda and owl, which run it on a text"),
        (["--curve", "--policy", "wanda,2:4"], "--curve prunes by one policy"),
        (["--write", "html,json"], "--write 'json' is unknown; use html, pdf, md, thesis, csv"),
    ):
        refused(command("run", *options, *out), message)
    assert not (tmp_path / "o").exists()


def refused(run, *parts):
    assert run.returncode == 2
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    for part in parts:
        assert part in run.stderr


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["run", "--nope"], "run "), (["run", "--workers", "x"], "run "), (["check"], "check "),
        (["pair", "a"], "pair "), (["count", "--zeros=3"], ""), (["nothing"], ""),
    ],
)  # fmt: skip
def test_errors_of_options_take_one_line(words, place):
    refused(command(*words), f"; see sparsity-report {place}--help\n")


def test_workers_are_at_most_the_cores():
    with workers(99_999) as pool:
        assert pool._max_workers == os.cpu_count()


@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan", "a lot", "inf", "130%", "-1%", "%", "3%%"])
def test_impossible_sparsity(tmp_path, value):
    run = command("run", f"--sparsity={value}", "--out", tmp_path / "o")
    refused(run, "use 0 to 1", "30 % is 0.3")


def test_bad_models(tmp_path):
    refused(command("run", "./nowhere", "--out", tmp_path / "o"), "./nowhere", "no such file")
    (tmp_path / "empty").mkdir()
    refused(command("run", tmp_path / "empty", "--out", tmp_path / "o"), "holds no weights")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x10\x00")
    refused(command("run", bad, "--out", tmp_path / "o"), "bad.safetensors", "download it again")
    torch.save(Tiny().state_dict(), tmp_path / "x.bin")
    refused(command("run", tmp_path / "x.bin", "--out", tmp_path / "o"), "--allow-pickle")
    save_file({"norm.weight": torch.ones(3)}, tmp_path / "norm.safetensors")
    refused(command("run", tmp_path / "norm.safetensors", "--out", tmp_path / "o"), "no prunable")
    weight = torch.ones(4, 4)
    weight[0, :2] = torch.nan
    save_file({"layers.0.fc1.weight": weight}, tmp_path / "nan.safetensors")
    run = command("run", tmp_path / "nan.safetensors", "--out", tmp_path / "o")
    refused(run, "layers.0.fc1.weight holds 2 NaN")
    assert not (tmp_path / "o").exists()


def test_outputs_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("kept")
    refused(command("run", "--out", tmp_path / "file"), "Not a directory")
    refused(command("run", "--out", "/proc/nowhere"), "cannot write to the folder")
    assert (tmp_path / "file").read_text() == "kept"
    (tmp_path / "o" / "report.html").mkdir(parents=True)
    run = command("run", "--out", tmp_path / "o", "--write", "html")
    assert run.returncode == 2
    assert "report.html: it exists and is not a regular file" in run.stderr


def test_render_refuses_what_is_no_study(tmp_path):
    (tmp_path / "s.json").write_text("{}")
    refused(command("render", tmp_path / "s.json", "--out", tmp_path / "o"), "is not a study")
    refused(command("render", tmp_path / "gone.json", "--out", tmp_path / "o"), "no such file")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", typer.main.get_command(app).commands)
def test_help_has_every_option_in_a_panel_on_one_line(name, monkeypatch):
    """A list of names after a colon may go on on a second line, and in words beyond twelve."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = command(name, "--help").stdout
    titles = re.findall(r"^([A-Z][A-Za-z ]+):$", shown, re.M)
    assert titles == [title for title in ("Arguments", *PANELS, "Help") if title in titles]
    for title, listed in zip(
        titles, re.split(r"^[A-Z][A-Za-z ]+:$", shown, flags=re.M)[1:], strict=True
    ):
        for record in re.split(r"\n(?=  \S)", listed.rstrip())[1:]:
            if title == "Arguments":
                assert re.match(r"  [A-Z]+ ", record)
                continue
            assert re.match(r"  -", record)
            assert (title == "Help") == record.strip().startswith("--help"), record
            text = re.split(r" {2,}", record.strip(), maxsplit=1)[1]
            sentence, _, default = " ".join(text.split()).partition(" [")
            assert sentence.count(". ") == 0, record
            assert re.match(r"[A-Zrs-].*\.$", sentence) or title == "Help", record
            assert not re.match("(What|Which|Whether|Who|How|That|Of) ", sentence), record
            assert not default or default.endswith("]"), record
            if ":" not in sentence.replace("N:M", ""):
                assert "\n" not in record, record
                assert len(sentence.split()) <= 12, record


def test_the_installed_command():
    script = Path(sys.executable).with_name("sparsity-report")
    run = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"sparsity-report {sr.__version__}\n"
    assert json.dumps(run.stderr) == '""'


@pytest.mark.usefixtures("small_cache")
def test_measurements_go_into_everything(tmp_path):
    text = tmp_path / "some.txt"
    text.write_text("def f(x):\n    return x + 1\n" * 12, encoding="utf-8")
    done = command(
        "run", "--out", tmp_path / "o", "--latency", "--seconds", "1", "--perplexity", "--curve",
        "--sensitivity", "group", "--text", text, "--write", "html,csv,png,study",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    study = sr.read_study(tmp_path / "o" / "study.json")
    assert set(study.latency["tokens"]) == {1, 16, 128}
    assert set(study.latency["cache"].dropna()) == {"in cache", "out of cache"}
    assert len(study.quality) == 3 + 8  # 30 % is there already
    assert study.sensitivity["part"].tolist() == ["attention_linear", "mlp_linear"]
    for name in ("latency", "quality", "sensitivity", "storage"):
        assert (tmp_path / "o" / "structural_layers" / f"{name}.csv").is_file()
    for name in ("speed", "quality", "sensitivity"):
        assert (tmp_path / "o" / "figures" / f"{name}.png").is_file()
    before, after = study.quality["nll"].map(math.exp)[:2]
    verdict, perplexity, *_ = done.stdout.splitlines()
    assert f"raises perplexity from {before:.1f} to {after:.1f}." in verdict
    assert perplexity.startswith(f"Perplexity: {before:.1f} → {after:.1f} (some.txt, ")
    text_of_findings = " ".join(sr.summarize(study))
    most, least = sorted(study.sensitivity["nll_increase"], reverse=True)
    for phrase in (
        " at a time, ", "pruned alone at 30 %", f"costs most (+{most:.3f} nats per token)",
        f"costs least (+{least:.3f})",
    ):  # fmt: skip
        assert phrase in text_of_findings
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "some.txt" in page
    assert 'id="quality"' in page


@pytest.mark.parametrize(
    ("options", "clock"), [([], {}), (["--seconds", "9"], {"budget": 9.0})], ids=str
)
def test_seconds_reach_the_clock(monkeypatch, tmp_path, options, clock):
    given = []

    def measure(_, *, clock):
        given.append(clock)
        raise sr.SparsityReportError("enough")

    monkeypatch.setattr(sr, "latency", measure)
    run = command("run", "--latency", *options, "--out", tmp_path / "o")
    budget = f"Timing 3 variants: up to {sr.Clock(**clock).budget:.0f} s"
    assert (run.returncode, run.stderr) == (2, f"{budget}\nsparsity-report: enough\n")
    assert given == [sr.Clock(**clock)]


def test_a_clock_that_cannot_run(tmp_path):
    for seconds in ("0", "nan"):
        message = f"budget must be a positive number, not {float(seconds)}"
        refused(command("run", "--latency", "--seconds", seconds, "--out", tmp_path / "o"), message)
    assert not (tmp_path / "o").exists()


def test_bad_measurements_are_refused_before_counting(tmp_path):
    refused(
        command("run", "--sensitivity", "head", "--out", tmp_path / "o"), "block, group or layer"
    )
