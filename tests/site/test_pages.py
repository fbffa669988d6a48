"""Code of README and of the documentation runs as it stands there."""

import re
import shutil
from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace

import page_code
import pytest
from helpers import command
from test_style import OPENERS, RIDDLES

import sparsity_report as sr

PAGES = {path.relative_to(page_code.ROOT).as_posix(): path for path in page_code.pages()}
WITH_CODE = [name for name, path in PAGES.items() if page_code.blocks(path.read_text("utf-8"))]
# Programs that pages name beside ours: installers, trackers, schedulers, other people's tools.
INSTALLERS = {
    "mypy", "ruff", "pip", "python", "pytest", "git", "apt-get", "npm", "nox", "hf", "uv",
    "pre-commit",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    page_code.put_models(folder)
    return folder


def run_commands(block, folder):
    """Run the lines that call ``sparsity-report``; a comment announces another exit code than 0."""
    expected = 1 if "exit code 1" in block.code else 0
    for words in block.commands:
        if "sparsity-report" not in words:
            assert words[0] in INSTALLERS, words
            continue
        run = command(*words[words.index("sparsity-report") + 1 :], cwd=folder)
        assert run.returncode in {0, expected}, f"{' '.join(words)}: {run.stderr}"
        # A text block after a command holds its output.
        if block.output is not None:
            assert run.stdout.rstrip() == block.output.rstrip()


@pytest.mark.sweep
@pytest.mark.parametrize("name", WITH_CODE)
@pytest.mark.usefixtures("small_cache")
def test_code(name, models, tmp_path, monkeypatch):
    folder = tmp_path / "page"
    shutil.copytree(models, folder)
    monkeypatch.chdir(folder)
    # Pages time for as long as a reader waits; here nobody reads the figures.
    monkeypatch.setattr("sparsity_report.measure.clock.DEFAULT", sr.Clock(budget=1))
    module = SimpleNamespace(__name__="__main__")
    for number, block in enumerate(page_code.blocks(PAGES[name].read_text(encoding="utf-8"))):
        if block.language != "python":
            if block.runs:
                run_commands(block, folder)
            continue
        code = compile(block.code, f"{name}, block {number + 1}", "exec")
        if block.runs:
            with redirect_stdout(StringIO()) as printed:
                exec(code, vars(module))
            # A text block after code holds what the code prints.
            if block.output is not None:
                assert printed.getvalue().rstrip() == block.output.rstrip()


@pytest.mark.parametrize("name", PAGES)
def test_prose(name):
    text = re.sub(
        r"^(`{3,}).*?^\1$", "", PAGES[name].read_text(encoding="utf-8"), flags=re.M | re.S
    )
    assert RIDDLES.findall(text) == []
    headings = re.findall(r"^#+ (.*)", text, re.M)
    assert [heading for heading in headings if OPENERS.match(heading)] == []
    assert headings


def test_blocks_are_read():
    page = "```python\na = 1\n```\n\n```text\n1\n```\n\n"
    page += "```{code-block} bash\n:class: not-run\nsrun \\\n  x # y\n```\n"
    one, other = page_code.blocks(page)
    assert (one.language, one.code, one.runs) == ("python", "a = 1\n", True)
    assert (one.output, other.output) == ("1\n", None)
    assert (other.runs, other.commands) == (False, [["srun", "x"]])
