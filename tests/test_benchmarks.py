"""The benchmarks run, and the table of the documentation is one that they print."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks.cases import CASES

PAGE = benchmarks.ROOT / "docs" / "explanation" / "benchmarks.md"


def test_the_table_of_the_page_has_the_form_of_a_run():
    text = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- benchmarks -->\n(.*?)\n<!-- /benchmarks -->", text, flags=re.S)
    head, rows = block[: len(benchmarks.HEAD)], block[len(benchmarks.HEAD) + 1 :].splitlines()
    assert head == benchmarks.HEAD
    for row in rows:
        assert re.fullmatch(r"\| .+, (s|MB) (\| [0-9.e+-]+ ){3}\|", row), row
    for word in ("`run` on the demo", "`compare`", "`sweep`, 100 levels", "pair of 2 GB", "page"):
        assert any(word in row for row in rows), word


def test_two_revisions_are_measured_in_turn(monkeypatch, tmp_path):
    order = []

    def measure(case, tree, folder, short):  # noqa: ARG001
        order.append(tree)
        return {"a, s": float(len(order))}

    monkeypatch.setattr(benchmarks, "measure", measure)
    assert benchmarks.rounds(["new", "old"], "pair", tmp_path, 2, True) == {
        "a, s": [(1.0, 2.0), (3.0, 4.0)]
    }
    assert order == ["new", "old"] * 2
    assert benchmarks.row("a, s", [1, 2, 4]) == "| a, s | 2 | 1 | 4 |"


def test_a_command_runs_the_package_of_its_tree(tmp_path, monkeypatch):
    """Also where the benchmarks start in a checkout with a package of the same name."""
    monkeypatch.chdir(benchmarks.ROOT)
    package = tmp_path / "tree" / "sparsity_report"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import pathlib, sys\n"
        "out = pathlib.Path(sys.argv[-1])\n"
        "out.mkdir()\n"
        "(out / 'report.html').write_text('x' * 1234)\n"
    )
    values = benchmarks.measure("run_demo", tmp_path / "tree", tmp_path, short=True)
    assert values["page of the demo, MB"] == 0.001234


@pytest.mark.sweep
@pytest.mark.parametrize("case", ["compare", "count"])
def test_a_case_prints_its_values(case, tmp_path):
    values = benchmarks.measure(case, benchmarks.ROOT, tmp_path, short=True)
    assert json.dumps(values)
    assert all(value > 0 for value in values.values())
    assert case in CASES
