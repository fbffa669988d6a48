"""The house: imports point down, heavy libraries load late, nothing prints below the CLI."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparsity_report

PACKAGE = Path(sparsity_report.__file__).parent

# From the top down; a module may import only from lines below its own (weights among itself).
FLOORS = [
    {"__main__"},
    {"cli"},
    {"thesis", "explorer"},
    {"scene", "report", "notebook"},
    {"panels", "context", "typesetting", "figures"},
    {"slider", "measured_charts"},
    {"charts", "latex", "vega"},
    {"display"},
    {"findings", "difference"},
    {"verdicts"},
    {"comparison"},
    {"storage", "latency", "quality"},
    {"patterns", "audit", "agreement"},
    {"variants", "levels"},
    {"structure"},
    {"pruning"},
    {"selection"},
    {"magnitudes"},
    {"cache"},
    {"weights"},
    {"groups", "experts_csr"},
    {"linear_csr"},
    {"wording"},
    {"cost", "files", "language"},
    {"errors"},
]
HEAVY = {"altair", "ipywidgets", "jinja2", "typer", "typst", "vl_convert", "torch", "transformers"}
HEAVY |= {"pandas"}
SHOWING = {"altair", "ipywidgets", "jinja2", "typer", "typst", "vl_convert", "tqdm"}


def floor(module: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if module in names)


def sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in {"demo", "__init__"}:
            yield parts[0], path


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_module_has_a_floor():
    assert {module for module, _ in sources()} == set().union(*FLOORS)


def test_imports_point_down():
    for module, path in sources():
        for name in imported(path):
            package, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if package != "sparsity_report" or not target or target == module == "weights":
                continue
            assert floor(target) > floor(module), f"{path.name} imports {name}"


def test_what_shows_things_stays_on_top():
    for module, path in sources():
        if floor(module) >= floor("comparison"):
            roots = {name.partition(".")[0] for name in imported(path)}
            assert not roots & SHOWING, f"{path.name} imports {roots & SHOWING}"


def test_cost_and_groups_need_no_torch():
    for module, path in sources():
        if module in {"cost", "groups", "files", "errors"}:
            assert "torch" not in {name.partition(".")[0] for name in imported(path)}


def test_nothing_prints_below_the_command_line():
    for module, path in sources():
        if module in {"cli", "__main__"}:
            continue
        calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
        assert not [c for c in calls if getattr(c.func, "id", "") == "print"], path.name


@pytest.mark.parametrize("statement", ["import sparsity_report", "import sparsity_report.errors"])
def test_import_is_light(statement):
    code = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())


def test_help_loads_neither_torch_nor_pandas():
    code = (
        "import sys\nfrom sparsity_report.cli import app\n"
        "try: app(['run', '--help'])\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--sparsity" in run.stdout
    assert not (HEAVY - {"typer"}) & set(run.stderr.split())


def test_public_names_exist_and_do_not_collide_with_modules():
    for name in sparsity_report.__all__:
        value = getattr(sparsity_report, name)
        assert not isinstance(value, type(ast)), f"{name} is a module, not what it promises"
    assert set(sparsity_report.__all__) <= set(dir(sparsity_report))
    with pytest.raises(AttributeError, match="no_such"):
        sparsity_report.no_such  # noqa: B018
