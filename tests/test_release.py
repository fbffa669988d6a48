"""The checks of docs/tools/release.py, on a small repository."""

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import need

ROOT = Path(__file__).parents[1]
TOOL = runpy.run_path(str(ROOT / "docs/tools/release.py"))
LOG = """# Changelog

## [1.2.0] - unreleased

### Added

- One.

## [1.1.0] - 2020-01-02

- Zero.
"""


def git(folder, *arguments):
    need(shutil.which("git") is not None, "git")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "CHANGELOG.md").write_text(LOG, encoding="utf-8")
    (tmp_path / "CITATION.cff").write_text(
        "title: x\nversion: 1.1.0\ndate-released: 2020-01-02\n", encoding="utf-8"
    )
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    return tmp_path


def refused(name, *arguments):
    with pytest.raises(TOOL["ReleaseError"]) as raised:
        TOOL[name](*arguments)
    return str(raised.value)


def test_a_version_needs_an_entry_with_items():
    assert TOOL["entry"]("1.2.0", LOG) == "unreleased"
    assert TOOL["entry"]("1.1.0", LOG) == "2020-01-02"
    assert "no items of 1.3.0" in refused("entry", "1.3.0", LOG)
    assert "no items of 1.2.0" in refused("entry", "1.2.0", LOG.replace("- One.", "One."))


@pytest.mark.tools
def test_date_and_version_are_written_once(tree):
    TOOL["write_date"]("1.2.0", "2021-03-04", tree)
    assert "## [1.2.0] - 2021-03-04\n" in (tree / "CHANGELOG.md").read_text(encoding="utf-8")
    lines = (tree / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert lines == ["title: x", "version: 1.2.0", "date-released: 2021-03-04"]
    assert "has a date" in refused("write_date", "1.2.0", "2021-03-05", tree)


@pytest.mark.tools
def test_tag_changelog_and_citation_agree(tree):
    assert "has no tag v1.1.0" in refused("check_dates", "1.1.0", tree)
    git(tree, "tag", "v1.1.0")
    TOOL["check_dates"]("1.1.0", tree)
    git(tree, "tag", "v1.2.0")
    assert 'CITATION.cff: "version: 1.2.0" is missing' in refused("check_dates", "1.2.0", tree)
    TOOL["check_clean"](tree)
    (tree / "new.txt").write_text("x", encoding="utf-8")
    assert "the checkout has changes" in refused("check_clean", tree)


def test_the_entries_of_the_changelog_are_those_of_releases():
    """One entry at most is unreleased, the first; the others are newer at the top."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = [line.split() for line in text.splitlines() if line.startswith("## ")]
    versions = [tuple(map(int, words[1].strip("[]").split("."))) for words in headings]
    assert versions == sorted(versions, reverse=True)
    dates = [" ".join(words[3:]) for words in headings]
    assert "unreleased" not in dates[1:]
    for version in versions:
        assert TOOL["entry"](".".join(map(str, version)), text)
