"""Every write fails once, at every place and in every way: the old files are whole, or the new."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import pytest
from faults import CLEANING, ERRORS, NEW, OLD, calls, fail, tree, write

from sparsity_report.errors import SparsityReportError
from sparsity_report.files import MANIFEST, check_folder, together, write_entry, write_file

ALL = "SPARSITY_REPORT_FAULTS" in os.environ  # every place with every error, in minutes


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


def test_a_set_replaces_a_set(sets):
    old, new, seen = sets
    assert {*OLD, MANIFEST, "tables/mine.csv", "tables"} == old.keys()
    assert {*NEW, MANIFEST, "tables/mine.csv", "tables", "figures", "figures/deep"} == new.keys()
    assert new["report.html"] == b"new page"
    assert set(seen) == {*faults.CALLS} - {"ftruncate"}
    assert len(seen) > 60


def complaint(folder):
    """Write the new set; return the line that says why that could not be."""
    try:
        write(folder, NEW)
    except SparsityReportError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("code", ERRORS if ALL else [None], ids=str)
def test_a_call_that_fails(sets, place, code, after):
    old, new, seen = sets
    for at, name in enumerate(seen):
        folder, error = place(at), code or ERRORS[at % len(ERRORS)]
        with calls(folder, fail(error), at, after):
            said = complaint(folder)
        if after or name in CLEANING:
            check_folder(folder)
        assert tree(folder) == (old if said else new), (at, name)
        if said:
            assert said.startswith(f"cannot write {folder}")
            assert after or os.strerror(error) in said


def test_a_disk_that_is_gone(sets, place):
    """From one call on everything fails, also what would put back; the next run does."""
    old, new, seen = sets
    stuck = 0
    for at, name in enumerate(seen):
        folder = place(at)
        with calls(folder, fail(errno.EROFS), at, forever=True):
            said = complaint(folder)
        check_folder(folder)
        left = tree(folder)
        assert left == old if said else left == new, (at, name)
        stuck += "the next run into it does" in said
    assert stuck > 3


def test_ctrl_c(sets, place):
    old, new, seen = sets
    late = 0
    for at, name in enumerate(seen):
        folder = place(at)
        with (
            pytest.raises(KeyboardInterrupt),
            calls(folder, lambda: signal.raise_signal(signal.SIGINT), at),
        ):
            write(folder, NEW)
        done = tree(folder) == new
        late += done
        assert done or tree(folder) == old, (at, name)
    assert 0 < late < len(seen)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill(sets, place, after):
    """Each file is whole at once; all are of one run when the next one has been there."""
    old, new, seen = sets
    folders = [place(at) for at in range(len(seen))]
    code = "import faults, sys; faults.kill_at_each(sys.argv[1:])"
    arguments = ["after" if after else "before", *map(str, folders)]
    told = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    codes = told.stdout.split()
    assert codes == ["9"] * len(seen)
    for at, folder in enumerate(folders):
        for name, content in tree(folder).items():
            assert (
                content in {old.get(name, b""), new.get(name, b"")} or ".sparsity-report-" in name
            )
        check_folder(folder)
        done = tree(folder) == new
        assert done or tree(folder) == old, (at, seen[at])
