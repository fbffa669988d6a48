"""Every write fails once, at every place and in every way: the old files are whole, or the new.

What runs takes seconds and a sample of the places; ``SPARSITY_REPORT_FAULTS=1`` takes all of them,
``=5`` every fifth, with every error and what reports really hold.
"""

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from unittest import mock

import faults
import nbformat
import pandas as pd
import pytest
import torch
from faults import CLEANING, ERRORS, NEW, OLD, calls, fail, tree, write
from helpers import Tiny, command, small_files, study_of
from safetensors.torch import save_file

import sparsity_report as sr
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import LeftoverWarning, check_folder, together, write_file
from sparsity_report.files.filesystem import file_digest, scratch
from sparsity_report.files.manifest import MANIFEST

pytestmark = pytest.mark.filterwarnings("ignore::sparsity_report.files.atomic.LeftoverWarning")
ALL = int(os.environ.get("SPARSITY_REPORT_FAULTS", "0"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
LETTERS = "ab"
DIGEST = sha256(b"kept").hexdigest()


def some(seen, step):
    """The places where calls fail: every so many of them."""
    return list(enumerate(seen))[:: ALL or step]


def python(code, *arguments):
    """Start a process that imports next to nothing."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import faults, sys; {code}", *map(str, arguments)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def interruptible():
    """Who is started in the background of a shell ignores what Ctrl-C sends."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "results"
    write(folder, OLD)
    (folder / "tables" / "mine.csv").write_text("the user's")
    return folder


@pytest.fixture(scope="module")
def sets(before, tmp_path_factory):
    """All of the folder before, and after a run, and the calls of that."""
    folder = tmp_path_factory.mktemp("new") / "results"
    shutil.copytree(before, folder)
    with calls(folder) as seen:
        write(folder, NEW)
    return tree(before), tree(folder), seen


@pytest.fixture
def place(before, tmp_path):
    """Return for each case the folder as it was before."""

    def place(number):
        folder = tmp_path / f"{number}"
        shutil.copytree(before, folder)
        return folder

    return place


def complaint(folder):
    """Write the new set; return the line that says why that could not be."""
    try:
        write(folder, NEW)
    except SparsityReportError as error:
        return str(error)
    return ""


def test_a_set_replaces_a_set(sets):
    old, new, seen = sets
    both = {MANIFEST, "tables/mine.csv", "tables", "only"}
    assert old.keys() == {*OLD, *both}
    assert new.keys() == {*NEW, *both, "figures", "figures/deep"}
    assert new["report.html"] == b"new page"
    assert set(seen) == {*faults.CALLS}
    assert len(seen) > 60


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("code", ERRORS if ALL else [None], ids=str)
def test_a_call_that_fails(sets, place, code, after):
    old, new, seen = sets
    for at, name in some(seen, 3 if after else 1):
        folder, error = place(at), code or ERRORS[at % len(ERRORS)]
        with calls(folder, fail(error), at, after):
            said = complaint(folder)
        if after or name in CLEANING:
            check_folder(folder)
        assert tree(folder) == (old if said else new), (at, name)
        if said:
            assert said.startswith(f"cannot write {folder}")
            assert after or os.strerror(error) in said


def test_temporary_files_that_stay_are_named(sets, place):
    """In a folder that lets nobody remove files, and at the end of a set that is complete."""
    old, new, seen = sets
    folder = place("forever")
    with (
        mock.patch("os.unlink", side_effect=PermissionError(errno.EPERM, "not permitted")),
        pytest.raises(
            SparsityReportError, match=r"cannot write .* could not be removed, first .*; t"
        ),
    ):
        write_file(folder / "report.html", "newer")
    assert len(list(folder.glob(".sparsity-report-*"))) == 1
    check_folder(folder)
    assert tree(folder) == old
    folder = place("once")
    *_, last, _ = (at for at, name in enumerate(seen) if name == "unlink")
    with (
        calls(folder, fail(errno.EPERM), last),
        pytest.warns(LeftoverWarning, match="1 temporary file could not be removed, first .*; the"),
    ):
        write(folder, NEW)
    assert len(list(folder.glob(".sparsity-report-*"))) == 1
    check_folder(folder)
    assert tree(folder) == new


def test_a_disk_that_is_gone(sets, place):
    """From one call on everything fails, also what would put back; the next run does."""
    old, new, seen = sets
    stuck = 0
    for at, name in some(seen, 3):
        folder = place(at)
        with calls(folder, fail(errno.EROFS), at, forever=True):
            said = complaint(folder)
        check_folder(folder)
        left, later = tree(folder), "the next run into it puts that right" in said
        # Where even the last word of the journal cannot be taken back, all new files are in place.
        assert left == old if said and not (later and left == new) else left == new, (at, name)
        stuck += later
    assert stuck > 3


def test_ctrl_c(sets, place):
    old, new, seen = sets
    late = 0
    for at, name in some(seen, 3):
        folder = place(at)
        interrupt = calls(folder, lambda: signal.raise_signal(signal.SIGINT), at)
        with pytest.raises(KeyboardInterrupt), interrupt:
            write(folder, NEW)
        done = tree(folder) == new
        late += done
        assert done or tree(folder) == old, (at, name)
    assert 0 < late < len(seen)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill(sets, place, after):
    """Each file is whole at once; all are of one run when the next one has been there."""
    old, new, seen = sets
    folders = [place(at) for at, _ in some(seen, 4)]
    when = "after" if after else "before"
    child = python("faults.kill_at_each(sys.argv[1:])", when, *folders)
    assert child.communicate()[0].split() == ["9"] * len(folders)
    for folder in folders:
        for name, content in tree(folder).items():
            whole = {content} & {each.get(name, b"") for each in (old, new)}
            assert whole or ".sparsity-report-" in name
        check_folder(folder)
        done = tree(folder) == new
        assert done or tree(folder) == old, folder.name


def test_a_living_run_is_left_alone(tmp_path):
    with together(tmp_path):
        write_file(tmp_path / "a" / "b.txt", "first")
        check_folder(tmp_path)
        other = Thread(target=write, args=(tmp_path, {"a/b.txt": "second"}))
        other.start()
        other.join()
        assert (tmp_path / "a" / "b.txt").read_text() == "second"
    assert tree(tmp_path).keys() == {"a", "a/b.txt", MANIFEST}
    assert (tmp_path / "a" / "b.txt").read_text() == "first"


def test_what_somebody_wrote_since_a_kill_stays(sets, place):
    """The journal of a killed run puts back its own files only."""
    old, _, seen = sets
    folder = place(max(at for at, name in enumerate(seen) if name == "replace"))
    python("faults.kill_at_each(sys.argv[1:])", "after", folder).communicate()
    assert (folder / "report.html").read_bytes() == b"new page"
    (folder / "report.html").write_text("written by hand")
    check_folder(folder)
    assert tree(folder) == {**old, "report.html": b"written by hand"}


@pytest.mark.parametrize(
    "line",
    [
        f'[["../kept.txt", "{DIGEST}", true]]',
        f'[["{{}}/kept.txt", "{DIGEST}", true]]',
        f'[["x/../../kept.txt", "{DIGEST}", true]]',
        '[["../kept.txt", null, true]]',
        '[["../folder/x", null, true]]',
        '[["kept.txt", null, false]]',
        '[["kept.txt"]]',
        "[[1, 2, 3]]",
        '{"kept.txt": 1}',
        "7",
        "[" * 100_000,
        "\N{SNOWMAN}",
    ],
)
def test_a_journal_that_somebody_made_up(tmp_path, line):
    inside = tmp_path / "results"
    (tmp_path / "folder").mkdir()
    inside.mkdir()
    (tmp_path / "kept.txt").write_text("kept")
    (inside / "kept.txt").write_text("kept, too")
    line = line.replace("{}", str(tmp_path))
    (inside / ".sparsity-report-000000000000").write_text(f"{line}\n", encoding="utf-8")
    before = tree(tmp_path)
    check_folder(inside)
    assert (
        tree(tmp_path).items() >= {k: v for k, v in before.items() if "report-0" not in k}.items()
    )


def test_links_and_pipes_among_journals(tmp_path):
    (tmp_path / "kept").write_text("kept")
    (tmp_path / ".sparsity-report-000000000000").symlink_to("kept")
    os.mkfifo(tmp_path / ".sparsity-report-000000000001")
    check_folder(tmp_path)
    write(tmp_path, {"a": "b"})
    assert (tmp_path / "kept").read_text() == "kept"


def test_files_of_another_run(tmp_path):
    """They go with it; those of the same study, the user's and what he changed stay."""
    write(tmp_path, {"study.json": "1", "a/1.csv": "1", "b/2.csv": "2"})
    digest = file_digest(tmp_path / "study.json")
    write(tmp_path, {"report.pdf": "of study 1"}, digest)
    assert {"study.json", "a/1.csv", "b/2.csv", "report.pdf"} <= tree(tmp_path).keys()
    check = subprocess.run(["sha256sum", "--quiet", "-c", MANIFEST], cwd=tmp_path)
    assert check.returncode == 0
    (tmp_path / "a" / "1.csv").write_text("changed")
    (tmp_path / "mine.txt").write_text("mine")
    with together(tmp_path, "") as files:
        write_file(tmp_path / "study.json", "2")
    assert sorted(path.name for path in files.removed) == ["2.csv", "report.pdf"]
    assert tree(tmp_path).keys() == {"a", "a/1.csv", "mine.txt", "study.json", MANIFEST}


def test_a_list_that_somebody_made_up(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    digest = file_digest(tmp_path / "kept.txt")
    for name in ("../kept.txt", str(tmp_path / "kept.txt"), "x/../../kept.txt"):
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / MANIFEST).write_text(f"{digest}  {name}\n")
        write(tmp_path / "results", {"a": "b"})
        assert (tmp_path / "kept.txt").read_text() == "kept"


def test_file_systems_without_links_or_locks(sets, place, monkeypatch):
    """FAT has no links, and some that are shared no locks."""

    def none(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("os.link", none)
    monkeypatch.setattr("fcntl.flock", none)
    old, new, _ = sets
    folder = place("counted")
    with calls(folder) as seen:
        write(folder, NEW)
    assert tree(folder) == new
    for at in [at for at, name in enumerate(seen) if name in {"open", "replace", "fsync"}]:
        folder = place(at)
        with calls(folder, fail(errno.EIO), at):
            said = complaint(folder)
        assert tree(folder) == (old if said else new)
    folder = place("again")
    write(folder, NEW)
    (folder / ".sparsity-report-000000000000").write_text("")
    check_folder(folder)
    assert tree(folder) == new


@contextmanager
def full_disk(folder, size):
    """Give a folder less space than is needed: a file system of its own, or a limit on files."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") and not subprocess.run(mount, capture_output=True).returncode:
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)
        return
    # Only root may mount; what is too large for one file is refused as well.
    with small_files(size // 2):
        yield


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 6, 20])
def test_a_full_disk(tmp_path, left):
    page = 4096
    with full_disk(tmp_path, 32 * page):
        write(tmp_path, OLD)
        with suppress(OSError), (tmp_path / "ballast").open("wb", buffering=0) as file:
            while file.write(b"x" * page) == page:
                pass
        size = (tmp_path / "ballast").stat().st_size
        os.truncate(tmp_path / "ballast", max(0, size - left * page))
        before = tree(tmp_path)
        large = {"report.html": "x" * 10 * page, "tables/a.csv": "y" * 5 * page, "d/e": "z" * page}
        if left == 20:
            write(tmp_path, large)
            assert (tmp_path / "report.html").read_text() == large["report.html"]
            return
        with pytest.raises(SparsityReportError, match=r"No space left|File too large"):
            write(tmp_path, large)
        assert tree(tmp_path) == before


def test_no_room_for_temporary_files(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    with pytest.raises(SparsityReportError, match="no folder for temporary files"), scratch():
        pass


def test_two_runs_into_one_folder_and_one_cache(tmp_path):
    """Whoever holds the folder's lock finds one whole set; so does everybody in the end."""
    write(tmp_path, faults.letters("a"))
    seconds = 20 if ALL else 0.7
    children = [
        python("faults.write_again(sys.argv[1:])", tmp_path, letter, seconds) for letter in LETTERS
    ]
    seen = []
    while any(child.poll() is None for child in children):
        handle = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_SH)
        paths = list(tmp_path.rglob("[!.]*.txt"))
        files = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in paths}
        os.close(handle)
        seen.append(files["one.txt"][0])
        assert files == faults.letters(seen[-1])
        with suppress(FileNotFoundError):
            entry = (tmp_path / "cache" / "entry").read_text()
            assert entry in {letter * 9999 for letter in LETTERS}
    assert [(child.communicate(), child.returncode)[1] for child in children] == [0, 0]
    assert set(seen) == set(LETTERS)
    left = {name for name, data in tree(tmp_path).items() if data is not None}
    assert left == {*faults.letters((tmp_path / "one.txt").read_text()[0]), MANIFEST, "cache/entry"}


def test_processes_that_are_killed_at_random(tmp_path):
    random.seed(0)
    write(tmp_path, faults.letters("a"))
    for number in range(100 if ALL else 4):
        letter = LETTERS[number % 2]
        child = python("faults.write_again(sys.argv[1:])", tmp_path, letter, 60)
        while child.poll() is None and not list(tmp_path.glob(".sparsity-report-*")):
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        child.kill()
        child.communicate()
        for folder in (tmp_path, tmp_path / "cache"):
            check_folder(folder)
        files = {name for name, data in tree(tmp_path).items() if data is not None}
        letter = (tmp_path / "one.txt").read_text()[0]
        assert files - {"cache/entry"} == {*faults.letters(letter), MANIFEST}
        for name, content in faults.letters(letter).items():
            assert (tmp_path / name).read_text() == content


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
    for at, _ in some(seen, 3):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        for error in ERRORS if ALL else ERRORS[:1]:
            with calls(folder, fail(error), at):
                try:
                    assert threshold(folder / "counts") == right
                except SparsityReportError:
                    refused.append(at)
            assert threshold(folder / "counts") == right
            assert tree(folder / "counts") == kept
            shutil.rmtree(folder / "counts")
    assert set(refused) <= {0}  # where the folder is looked at


RENDERED = ("--write", "html,csv,png,study,pdf,thesis")
STAND_INS = (
    "study.json", "report.html", "report.pdf", "structural_layers/totals.csv", "figures/{}.png",
    "figures/all.png", "thesis/numbers.tex", "thesis/figures/map_{}.pdf",
)  # fmt: skip


class Recorded(NamedTuple):
    """A study whose reports are in a folder already: to make them takes seconds."""

    folder: Path
    continuations = None
    sentences = list
    before = pd.DataFrame({"total": [1]})

    def save(self, path):
        return self.report(path)

    def to_json(self):
        return (self.folder / "study.json").read_text(encoding="utf-8")

    def report(self, path, **_):
        return write_file(path, (self.folder / path.name).read_bytes())

    def several(self, folder, **_):
        there = self.folder / folder.name
        names = [path.relative_to(there) for path in sorted(there.rglob("*")) if path.is_file()]
        with together(folder):
            return [write_file(folder / name, (there / name).read_bytes()) for name in names]


@pytest.fixture
def studies(tmp_path_factory):
    """Two studies with all that a report consists of, taken from there by the command line."""
    folders = [tmp_path_factory.mktemp("study") / level for level in ("30", "50")]
    for folder in folders:
        if not ALL:
            write(folder, {name.format(folder.name): f"{name} of {folder}" for name in STAND_INS})
            continue
        torch.manual_seed(0)
        study_of(sr.load(Tiny(), name="tiny"), int(folder.name) / 100).save(folder / "study.json")
        done = command("render", folder / "study.json", *RENDERED, "--out", folder)
        assert done.returncode == 0, done.stderr
    stand_ins = {
        "read_study": lambda path, strict=False: Recorded(path.parent),  # noqa: ARG005
        "compare_checkpoints": lambda _, after, **__: Recorded(Path(after).parent),
        "write_report": Recorded.report,
        **dict.fromkeys(("write_csv", "write_figures", "write_thesis"), Recorded.several),
    }
    with (
        mock.patch.multiple(sr, **stand_ins),
        mock.patch("sparsity_report.cli.outputs.import_altair"),
        mock.patch("sparsity_report.cli.pair_command.import_altair"),
        mock.patch("sparsity_report.cli.outputs.answer", return_value=[]),
        mock.patch("sparsity_report.report.tables.pair_tables.small", return_value=[]),
    ):
        yield [folder / "study.json" for folder in folders]


def happenings(at):
    """What may happen at one call, and the exit code and words that follow."""
    for code in ERRORS if ALL else [ERRORS[at % len(ERRORS)]]:
        yield fail(code), 2, os.strerror(code)
    for number in (signal.SIGINT, signal.SIGTERM):
        yield lambda number=number: signal.raise_signal(number), 128 + number, number.name


def render_line(study, folder):
    return "render", study, *RENDERED, "--out", folder


def pair_line(study, folder):
    pages = [part for name in ("report.html", "report.pdf") for part in ("-o", folder / name)]
    return (
        "pair",
        study,
        study,
        *pages,
        "-o",
        folder / "study.json",
        "--thesis",
        folder / "thesis",
    )


@pytest.mark.parametrize("line", [render_line, pair_line])
def test_a_report_is_of_one_run(studies, tmp_path, line):
    old, new = studies
    before = tmp_path / "before"
    assert command(*line(old, before)).returncode == 0
    shutil.copytree(before, tmp_path / "new")
    with calls(tmp_path / "new") as seen:
        assert command(*line(new, tmp_path / "new")).returncode == 0
    trees = tree(before), tree(tmp_path / "new")
    assert any("30" in name for name in trees[1]) == (line is pair_line)
    for at, name in some(seen, 16):
        for number, (happen, code, said) in enumerate(happenings(at)):
            folder = tmp_path / f"{at}-{number}"
            shutil.copytree(before, folder)
            with calls(folder, happen, at):
                done = command(*line(new, folder))
            if name in CLEANING:
                check_folder(folder)
            due = trees[done.returncode == 0]
            assert tree(folder) == due or (code > 128 and tree(folder) == trees[1]), (at, name)
            if done.returncode:
                assert done.returncode == code
                assert done.stderr.count("\n") == 1
                assert said in done.stderr
            shutil.rmtree(folder)


def test_a_notebook_is_whole(tmp_path):
    """Nothing of its cells is run here, but all else."""
    cell = nbformat.v4.new_code_cell("MODEL = None", metadata={"tags": ["parameters"]}, id="a")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "mine.ipynb")

    def export(sparsity):
        return command(
            "notebook", "--notebook", tmp_path / "mine.ipynb", "--sparsity", sparsity, "-o",
            tmp_path / "out" / "mine.ipynb",
        )  # fmt: skip

    with mock.patch("sparsity_report.report.notebook._run"):
        assert export(0.3).returncode == 0
        old = tree(tmp_path / "out")
        with calls(tmp_path / "out") as seen:
            assert export(0.3).returncode == 0
        for at, name in some(seen, 3):
            for happen, code, said in happenings(at):
                with calls(tmp_path / "out", happen, at):
                    done = export(0.5)
                if name in CLEANING:
                    check_folder(tmp_path / "out")
                if done.returncode:
                    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
                    assert said in done.stderr
                if tree(tmp_path / "out") != old:
                    assert done.returncode in {0, 130, 143}
                    assert b"0.5" in tree(tmp_path / "out")["mine.ipynb"]
                    assert tree(tmp_path / "out").keys() == {"mine.ipynb"}
                    assert export(0.3).returncode == 0


def test_a_notebook_stops_when_it_is_told_to(tmp_path):
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


def wait_for_torch(run):
    """Wait until a process has begun to do what it was started for."""
    while run.poll() is None and "libtorch" not in Path(f"/proc/{run.pid}/maps").read_text():
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
    wait_for_torch(run)  # all before is Python's own start
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
