"""README names commands, pages and files that exist; tests/site/test_pages.py runs its code."""

import re
from pathlib import Path

import page_code

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_commands():
    lines = [
        line
        for block in page_code.blocks(README)
        if block.language == "console"
        for line in block.code.splitlines()
    ]
    assert [line for line in lines if line.startswith("pip")] == [
        "pip install . && sparsity-report run", "pip install '.[torch]'",
        "pip install '.[test]' && pytest",
    ]  # fmt: skip


def test_continuous_integration_runs_the_command_of_the_tests():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r'grep -x "(.*)" README', script)
    assert len(re.findall(f"^{pattern}$", README, re.M)) == 1
    assert 'bash -ec "$1"' in script
    parts = re.findall(r'^readme "\$\{command(.*)\}"$', script, re.M)
    assert parts == ["%% && *", "#* && "]


def test_links_are_files_of_the_repository():
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_promises_are_proved_by_tests_that_exist():
    """SECURITY.md names a file, or a test in it; ``::`` alone goes on in the file before."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table, file, named = text.partition("## Promised")[2].partition("\n## ")[0], "", 0
    for before, test in re.findall(r"`([\w/]+\.py)?(?:::(\w+))?`", table):
        file = before or file
        held = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in held, (file, test)
        named += 1
    assert named > 20
