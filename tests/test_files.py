"""Files written as a whole or not at all, with their mode."""

import os

import pytest

from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import check_folder, write_file


def test_writes_text_and_bytes(tmp_path):
    assert write_file(tmp_path / "a" / "b.txt", "é\n").read_bytes() == "é\n".encode()
    assert write_file(tmp_path / "c", b"\x00").read_bytes() == b"\x00"


def test_replaces_and_keeps_the_mode(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(0o640)
    write_file(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)


def test_new_files_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        assert write_file(tmp_path / "x", "").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)


def test_special_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to("target")
    for name in ("pipe", "folder", "link"):
        with pytest.raises(SparsityReportError, match="not a regular file"):
            write_file(tmp_path / name, "x")
    assert (tmp_path / "target").read_text() == "kept"
    with pytest.raises(SparsityReportError, match="not a regular file"):
        write_file("/dev/null", "x")
    with pytest.raises(SparsityReportError, match="cannot write"):
        write_file(tmp_path / "target" / "below", "x")


def test_check_folder(tmp_path):
    check_folder(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []  # whoever writes there makes it
    (tmp_path / "file").write_text("")
    with pytest.raises(SparsityReportError, match="cannot write to the folder"):
        check_folder(tmp_path / "file")
