"""Files survive failing calls, signals, kills and full disks; no file of another study stays."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import torch
from faults import ERRORS, NEW, OLD, calls, fail, tree
from helpers import Tiny, command, small_files, study_of
from safetensors.torch import save_file

import sparsity_report as sr
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_file
from sparsity_report.files.filesystem import file_digest, scratch
from sparsity_report.files.manifest import MANIFEST, Manifest

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(autouse=True)
def interruptible():
    """Who is started in the background of a shell ignores what Ctrl-C sends."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def folders(tmp_path):
    """Return a folder with an old page for each call by which a new one is written."""
    (tmp_path / "counted").mkdir()
    with calls(tmp_path / "counted") as seen:
        write_file(tmp_path / "counted" / "report.html", OLD)
        before = len(seen)
        write_file(tmp_path / "counted" / "report.html", NEW)
    assert set(seen[before:]) >= {"open", "write", "fsync", "close", "chmod", "replace"}
    places = [tmp_path / f"{at}" for at in range(len(seen) - before)]
    for folder in places:
        write_file(folder / "report.html", OLD)
    return places


def complaint(path):
    """Write the new page; return the line that says why that could not be."""
    try:
        write_file(path, NEW)
    except (SparsityReportError, KeyboardInterrupt) as error:
        return str(error) or "interrupted"
    return ""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("signalled", [False, True], ids=["failure", "signal"])
def test_a_call_that_fails_or_is_interrupted(folders, after, signalled):
    complaints = []
    for at, folder in enumerate(folders):
        error = ERRORS[at % len(ERRORS)]
        happen = (lambda: signal.raise_signal(signal.SIGINT)) if signalled else fail(error)
        with calls(folder, happen, at, after):
            trouble = complaint(folder / "report.html")
        contents = [NEW] if not trouble else [OLD, NEW] if after else [OLD]
        assert tree(folder) in [{"report.html": content} for content in contents], at
        if trouble and not signalled:
            assert trouble.startswith(f"cannot write {folder}")
            assert after or os.strerror(error) in trouble
        complaints += [trouble] * bool(trouble)
    assert len(complaints) > len(folders) / 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill(folders, when):
    child = subprocess.run(
        [sys.executable, "-c", "import faults, sys; faults.kill_at_each(sys.argv[1:])", when,
         *folders],
        env=ENVIRONMENT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout.split() == ["9"] * len(folders)
    for folder in folders:
        assert (folder / "report.html").read_bytes() in {OLD, NEW}
        assert {path.name[:16] for path in folder.iterdir()} <= {"report.html", ".sparsity-report"}
        assert write_file(folder / "report.html", NEW).read_bytes() == NEW


def test_a_full_disk(tmp_path):
    write_file(tmp_path / "report.html", OLD)
    with small_files(4096), pytest.raises(SparsityReportError, match="File too large"):
        write_file(tmp_path / "report.html", b"x" * 5000)
    assert tree(tmp_path) == {"report.html": OLD}


def test_no_room_for_temporary_files(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    with pytest.raises(SparsityReportError, match="no folder for temporary files"), scratch():
        pass


def test_threads_that_write_the_same_file(tmp_path):
    contents = [letter * 10_000 for letter in (b"a", b"b")]
    path = write_file(tmp_path / "entry", contents[0])
    with ThreadPoolExecutor(2) as threads:
        tasks = [threads.submit(write_file, path, contents[n % 2]) for n in range(100)]
        while not all(task.done() for task in tasks):
            assert path.read_bytes() in contents
    assert [task.result() for task in tasks] == [path] * 100
    assert [each.name for each in tmp_path.iterdir()] == ["entry"]


def record(folder, files, source="", done=True):
    """Write files and list them; return what the list says of those of earlier runs."""
    manifest = Manifest(folder, source)
    manifest.add([write_file(folder / name, content) for name, content in files.items()])
    return manifest.remove_others() if done else None


def test_no_file_of_another_study_stays(tmp_path):
    """Those of the same study, the user's and changed ones stay."""
    record(tmp_path, {"study.json": "1", "a/1.csv": "1", "b/2.csv": "2"})
    digest = file_digest(tmp_path / "study.json")
    assert record(tmp_path, {"report.pdf": "of study 1"}, digest) == (0, [])
    assert {"study.json", "a/1.csv", "b/2.csv", "report.pdf"} <= tree(tmp_path).keys()
    check = subprocess.run(["sha256sum", "--quiet", "-c", MANIFEST], cwd=tmp_path)
    assert check.returncode == 0
    (tmp_path / "a" / "1.csv").write_text("changed")
    (tmp_path / "mine.txt").write_text("mine")
    record(tmp_path, {"figure.png": "of a run that is killed"}, done=False)
    assert record(tmp_path, {"study.json": "2"}) == (3, ["a/1.csv"])
    assert tree(tmp_path).keys() == {"a", "a/1.csv", "mine.txt", "study.json", MANIFEST}


def test_render_removes_the_files_of_another_study(tmp_path):
    out, tables = tmp_path / "out", tmp_path / "out" / "structural_layers"
    runs = []
    for level in (0.3, 0.5):
        torch.manual_seed(0)
        study_of(sr.load(Tiny(), name="tiny"), level).save(tmp_path / "study.json")
        line = ("render", tmp_path / "study.json", "--write", "csv", "--out", out)
        runs.append(command(*line))
        assert runs[-1].returncode == 0, runs[-1].stderr
        if level == 0.3:
            (tables / "groups_masked30.csv").write_text("changed")
    assert "removed" not in runs[0].stdout + runs[0].stderr
    assert "; removed 3 files of another run\n" in runs[1].stdout
    assert "changed since and stay, structural_layers/groups_masked30.csv; delete" in runs[1].stderr
    left = {path.name for path in tables.iterdir() if "30" in path.name}
    assert left == {"groups_masked30.csv"}


@pytest.mark.parametrize(
    "name", ["../kept.txt", "{}/kept.txt", "x/../../kept.txt", "link/kept.txt"]
)
def test_a_forged_list_removes_nothing_outside(tmp_path, name):
    (tmp_path / "kept.txt").write_text("kept")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "link").symlink_to(tmp_path)
    digest = file_digest(tmp_path / "kept.txt")
    (tmp_path / "results" / MANIFEST).write_text(f"{digest}  {name.format(tmp_path)}\n")
    assert record(tmp_path / "results", {"a": "b"}) == (0, [])
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_a_cache_that_cannot_be_written(tmp_path):
    """Counting goes on; what is kept is right, and nothing else lies there."""
    weight = torch.arange(1.0, 65.0).reshape(8, 8)
    save_file({f"layers.{n}.fc1.weight": weight + n for n in range(2)}, tmp_path / "m.safetensors")

    def threshold(cache):
        return sr.global_magnitude(sr.load(tmp_path / "m.safetensors"), 0.3, cache=cache).threshold

    with calls(tmp_path) as seen:
        right = threshold(tmp_path / "counts")
    kept = tree(tmp_path / "counts")
    assert len(kept) == 2
    refused = []
    for at in range(0, len(seen), 3):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        with calls(folder, fail(ERRORS[at % len(ERRORS)]), at):
            try:
                assert threshold(folder / "counts") == right
            except SparsityReportError:
                refused.append(at)
        assert threshold(folder / "counts") == right
        assert tree(folder / "counts") == kept
    assert set(refused) <= {0}  # where the folder is looked at


def test_notebook_stops_on_interrupt(tmp_path):
    """Its kernel ends with it."""
    code = (
        "MODEL = None\nimport os, signal, time\n"
        "open('kernel', 'w').write(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(100)\n"
    )
    cell = nbformat.v4.new_code_cell(code, metadata={"tags": ["parameters"]}, id="a")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "mine.ipynb")
    done = command(
        "notebook", "--notebook", tmp_path / "mine.ipynb", "-o", tmp_path / "out" / "a.html"
    )
    assert done == (143, "", "sparsity-report: stopped by SIGTERM\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kernel"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "out" / "kernel").read_text()), 0)


def process(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "sparsity_report", *map(str, arguments)],
        stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True,
        # Who is started in the background of a shell ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options,
    )  # fmt: skip


def wait_for_numpy(run):
    """Wait until a process has begun to do what it was started for."""
    while (
        run.poll() is None and "_multiarray_umath" not in Path(f"/proc/{run.pid}/maps").read_text()
    ):
        time.sleep(0.05)


def test_a_process_that_is_stopped_during_its_imports():
    run = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "sparsity_report", "run"],
        stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert any("typer._click" in line for line in run.stderr)
    run.send_signal(signal.SIGINT)
    *_, last = run.communicate()[1].splitlines()
    assert (run.returncode, last) == (130, "sparsity-report: stopped by SIGINT")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_process_that_is_stopped(tmp_path, name):
    """As a terminal does it: all processes of the group are told, workers too."""
    options = ["--write", "csv,study", "--out", tmp_path / "out"]
    options += ["--workers", "1"] if name == "SIGINT" else []
    run = process("run", *options, stdout=subprocess.PIPE)
    wait_for_numpy(run)  # all before is Python's own start
    os.killpg(run.pid, signal.Signals[name])
    out, err = run.communicate()
    assert (run.returncode, out) == (128 + signal.Signals[name], "")
    assert err == f"sparsity-report: stopped by {name}\n"
    assert list(tmp_path.iterdir()) == []


def test_nobody_reads_what_is_printed():
    reader, writer = os.pipe()
    os.close(reader)
    run = process("--help", stdout=writer)
    os.close(writer)
    assert run.communicate()[1] == ""
    assert run.returncode in {1, 141}
    with Path("/dev/full").open("w") as full:
        run = process("--help", stdout=full)
        assert run.communicate()[1].count("\n") == 1
        assert run.returncode == 2
