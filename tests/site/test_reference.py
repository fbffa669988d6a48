"""The reference names every public name, command, option, limit and runtime."""

import re
from pathlib import Path

import generated_pages
import house
import pytest
from typer.main import get_command

from sparsity_report.cli.application import app
from sparsity_report.sparse.runtime_support import LAYOUTS, RUNTIMES
from sparsity_report.untrusted import limits

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
COMMANDS = get_command(app).commands


def test_the_index_lists_each_public_name_once():
    stub = (ROOT / "sparsity_report" / "__init__.pyi").read_text(encoding="utf-8")
    index = (REFERENCE / "api" / "index.md").read_text(encoding="utf-8")
    lists = re.findall(r"^.. autosummary::\n(?:   :.*\n)+\n((?:   \w+\n)+)", index, re.M)
    listed = [name for names in lists for name in names.split()]
    assert len(lists) > 8
    assert sorted(listed) == sorted(house.public_names(stub))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_of_a_command_is_on_its_page(name):
    sections = re.split(r"^\(([\w-]+)\)=\n", generated_pages.commands(), flags=re.M)
    section = dict(zip(sections[1::2], sections[2::2], strict=True))[name]
    described = set(re.findall(r"^````\{option\} (.*)$", section, re.M))
    described = {option for line in described for option in re.findall(r"--?[a-z][\w-]*", line)}
    assert described == {
        option
        for parameter in COMMANDS[name].params
        if parameter.param_type_name == "option" and not parameter.hidden
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    arguments = [p for p in COMMANDS[name].params if p.param_type_name == "argument"]
    assert section.count("\n: ") == len(arguments)
    codes = re.search(r"Exit codes: ([\d, ]+);", section)[1].split(", ")
    assert ("1" in codes) == (name == "check")
    assert {"0", "2", "130", "143"} <= {*codes}


def test_defaults_are_those_of_the_program():
    run = generated_pages.commands().partition("(count)=")[0]
    assert re.search(r"\{option\} .*--out.* FOLDER\nOutput folder.* \[default: results\]", run)
    assert "Sparsity of prunable weights: 30%,50%. [default: 0.3]" in run


def test_the_limits_are_all_there():
    entries = generated_pages.limits()
    constants = [name for name in vars(limits) if name.isupper()]
    assert len(constants) > 20
    for name in constants:  # each with a reason
        value = re.escape(f"{getattr(limits, name):,}")
        assert re.search(rf"^`{name}` = {value}\n: \w.+\.$", entries, re.M), name


def test_each_verdict_has_its_source():
    text = generated_pages.runtimes()
    for runtime in RUNTIMES.values():
        section = text.partition(f"## {runtime.name}\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (?!layout|---).*\|$", section, re.M)
        assert len(rows) == len(LAYOUTS)
        for row, layout in zip(rows, LAYOUTS, strict=True):
            cell = runtime.cells[layout]
            assert (cell.source or "—") in row
            assert (cell.version or "—") in row
            assert row.endswith(f"[{cell.looked_at}]{{.nowrap}} |" if cell.source else "| — |")


def test_pages_name_parts_that_exist():
    named = {
        match
        for path in REFERENCE.glob("*.md")
        for match in re.findall(r"^% generated: (\w+)$", path.read_text("utf-8"), re.M)
    }
    assert named == {*generated_pages.PARTS}
