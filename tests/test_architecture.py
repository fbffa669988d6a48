"""Architecture: imports point down, private names stay private, modules stay small and light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import house
import pytest
from house import Module

import sparsity_report

ROOT = Path(sparsity_report.__file__).parent
STUB = (ROOT / "__init__.pyi").read_text(encoding="utf-8")
PUBLIC = house.public_names(STUB)
MODULES = house.read(ROOT)
PACKAGES = {module.name for module in MODULES if module.is_package}
BELOW = house.WINGS[house.WINGS.index("findings") :]
# Public signatures whose keywords users name.
KEPT = {"draw.charts.bar_plot: 8 parameters", "report.notebook.write_notebook: 7 parameters"}
HEAVY = {
    "ipywidgets", "jinja2", "numba", "pandas", "torch", "transformers", "typst",
    "vl_convert",
}  # fmt: skip


def test_every_room_stands_in_a_wing():
    assert {module.wing for module in MODULES} == set(house.WINGS)


def test_imports_point_down():
    assert house.wrong_arrows(MODULES, PUBLIC) == []
    assert house.unreadable_imports(MODULES, PUBLIC) == []


def test_no_two_modules_import_each_other():
    assert house.cycles(MODULES, PUBLIC) == []


def test_folders_of_a_wing_import_in_one_direction():
    assert house.folder_cycles(MODULES, PUBLIC) == []


def test_folder_cycles_are_found():
    down = ("study.derived.facts", "from sparsity_report.study.frames import x")
    up = ("study.frames", f"{LATE}from sparsity_report.study.derived.losses import x")
    modules = [Module(*each) for each in (down, up, ("study.derived.losses", ""))]
    assert house.cycles(modules, PUBLIC) == []
    assert house.folder_cycles(modules, PUBLIC) == ["study.derived", "study.frames"]
    assert house.folder_cycles(modules[::2], PUBLIC) == []


def test_folders_are_small_and_files_have_names_of_their_own():
    assert house.crowded(MODULES) == []
    assert house.repeated_names(MODULES) == {}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_room(module):
    assert [said for said in house.too_large(module) if said not in KEPT] == []
    assert house.private_crossings(module) == []
    if module.wing in BELOW:
        assert house.showing(module, PUBLIC) == []
    elif module.wing not in {"cli", "__main__"}:
        assert house.prints(module) == []


def test_signatures_between_wings_have_types():
    assert house.untyped(MODULES, PUBLIC) == ["untrusted.gates.parse_json"]
    called = Module("report.page", "from sparsity_report.study.figures import f, C")
    text = "def f(x: {0}): ...\ndef g(x: Any): ...\nclass C:\n    def m(self) -> {0}: ..."
    for annotation, complaints in (("dict[str, Any]", []), ("list[Any]", ["f", "m"])):
        modules = [called, Module("study.figures", text.format(annotation))]
        assert house.untyped(modules, {}) == [f"study.figures.{name}" for name in complaints]


def test_formulas_and_words_need_no_library():
    light = {
        module.name: {each.target.partition(".")[0] for each in house.imports(module, PUBLIC)}
        for module in MODULES
        if module.wing in {"words", "files", "untrusted", "errors"}
        or module.name in {"sparse.cost", "weights.anatomy.groups"}
    }
    assert len(light) > 8
    for name, targets in light.items():
        assert not targets & {"numpy", "pandas", "torch", "transformers"}, name


@pytest.mark.parametrize(
    "wing", [module for module in MODULES if module.is_package], ids=lambda module: module.name
)
def test_a_wing_names_its_rooms(wing):
    described = ast.get_docstring(wing.tree) or ""
    inside = [m.name.removeprefix(f"{wing.name}.") for m in MODULES]
    rooms = {
        name.partition(".")[0] for name, m in zip(inside, MODULES, strict=True) if name != m.name
    }
    assert rooms - set(re.findall(r"`(\w+)`", described)) == set()


def rules(*modules):
    """All complaints of all rules about a few modules, given as name=text."""
    modules = [Module(name, text, is_package=name in PACKAGES) for name, text in modules]
    said = house.wrong_arrows(modules, PUBLIC) + house.cycles(modules, PUBLIC)
    said += house.unreadable_imports(modules, PUBLIC)
    for module in modules:
        said += house.private_crossings(module) + house.too_large(module)
        said += house.showing(module, PUBLIC) if module.wing in BELOW else house.prints(module)
    return said


PAGE, STUDY = ("report.page", ""), ("study.figures", "")
UP = ["study.figures imports report.page"]
LATE = "def f():\n    "
ARROWS = [
    "from sparsity_report.report.page import x", "import sparsity_report.report.page",
    "import sparsity_report.report.page as page", "from sparsity_report.report import page",
    "from ..report import page", "from ..report.page import x",
    "from sparsity_report import write_report",
    "import sparsity_report\nsparsity_report.write_report",
    "import sparsity_report as sr\nsr.write_report(1)",
    "import sparsity_report as sr\nsr.report.page.x",
    f"{LATE}import sparsity_report as sr\n    return sr.write_report",
    f"{LATE}from sparsity_report.report.page import x",
    "f = lambda: __import__('sparsity_report.report.page')",
    "from importlib import import_module\nimport_module('sparsity_report.report.page')",
    "import importlib\nimportlib.import_module('sparsity_report.report.page')",
    "import typing\nif typing.TYPE_CHECKING:\n    from sparsity_report.report.page import x",
    "try:\n    from sparsity_report.report.page import x\nexcept ImportError:\n    pass",
    "class A:\n    from sparsity_report.report.page import x",
]  # fmt: skip


@pytest.mark.parametrize("text", ARROWS)
def test_each_way_to_import_is_seen(text):
    assert rules(PAGE, ("report", ""), ("study.figures", text)) == UP
    down = text.replace("report.page", "errors").replace(
        "..report import page", "..errors import x"
    )
    down = down.replace("write_report", "SparsityReportError").replace(
        "sparsity_report.report import page", "sparsity_report.errors import page"
    )
    assert rules(PAGE, ("errors", ""), ("study.figures", down)) == []


WRONG = [
    ("no private name", "from sparsity_report.sparse.cost import _clip", "_clip"),
    ("no private module", "from sparsity_report.sparse._cost import clip", "_cost"),
    ("no reaching in", "from sparsity_report.sparse import cost\ncost._clip()", "_clip"),
    ("no reaching into a value", "def f(weights):\n    return weights._entries", "_entries"),
    ("short functions", "def f():\n" + "    x = 1\n" * 60, "f: 61 lines"),
    ("short classes", "class A:\n" + "    x = 1\n" * 300, "A: 301 lines"),
    ("short signatures", "def f(a, b, c, *, d, e, g, h): ...", "7 parameters"),
    ("short methods", "class A:\n    def f(self, a, b, c, d, e, g, h): ...", "7 parameters"),
    ("no charts", "import vl_convert", "imports vl_convert"),
    ("no widgets", f"{LATE}from ipywidgets import Box", "imports ipywidgets"),
    ("no templates", "from jinja2 import Environment", "imports jinja2"),
    ("no options", "import typer", "imports typer"), ("no print", "print(1)", "prints"),
    ("no stdout", "import sys\nsys.stdout.write('1')", "prints"),
    ("no made names", f"from importlib import import_module\n{LATE}import_module(x)", "line 3"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text", "said"), WRONG, ids=[rule for rule, *_ in WRONG])
def test_each_rule_can_fail(rule, text, said):
    (complaint,) = rules(("study.figures", text), ("sparse.cost", ""), ("sparse", ""))
    assert said in complaint, rule


ALLOWED = [
    "class A:\n    def f(self):\n        self._x = 1\n        return self._x",
    "from __future__ import annotations\ndef _f(): ...\nx = _f",
    "def f(t):\n    return t._replace(a=1)._nnz()",
    'def f():\n    """' + "long\n" * 80 + '"""\n' + "    # why\n" * 80 + "    return 1",
    "def f(self, a, b, c, d, e, g): ...",
]


@pytest.mark.parametrize("text", ALLOWED)
def test_allowed_code_passes(text):
    assert rules(("study.figures", text)) == []


def test_circles_are_found():
    wing = ("study", "")
    up = ("study.layers", f"{LATE}from sparsity_report.study import totals")
    down = ("study.totals", "from sparsity_report.study.layers import x")
    assert rules(up, down, wing) == ["study.layers", "study.totals"]
    assert rules(up, wing, ("study.totals", "")) == []
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
    typed = ("study.layers", f"{typed}from sparsity_report.study.totals import x")
    assert rules(typed, down, wing) == ["study.layers", "study.totals"]
    assert rules(("study.layers", ""), down, wing) == []


def test_crowded_folders_and_repeated_names_are_found():
    modules = [Module(f"draw.m{n}", "") for n in range(21)] + [Module("report.m1", "")]
    assert house.crowded(modules) == ["draw: 21 modules"]
    assert house.repeated_names(modules) == {"m1": ["draw.m1", "report.m1"]}


TOP = Path(__file__).parents[1]
OUTSIDE = [TOP / "README.md", *TOP.glob("notebooks/*.ipynb"), *TOP.glob("templates/**/*.j2")]
for part in ("*.md", "tutorials/*.md", "how-to/*.md", "explanation/*.md", "gallery/scripts/*.py"):
    OUTSIDE += sorted(TOP.glob(f"docs/{part}"))


def inner_names(text):
    """Names below the package that a text imports or reaches for."""
    pattern = r"(?:from|import)\s+sparsity_report\.(\w+)|sparsity_report\.(\w+)\.\w+\b(?!/)"
    names = [one or other for one, other in re.findall(pattern, text)]
    names += re.findall(r"from sparsity_report import (\w+)", text)
    return sorted({name for name in names if name in house.WINGS or name not in PUBLIC})


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.name)
def test_others_use_public_names_only(path):
    text = path.read_text(encoding="utf-8")
    assert [name for name in inner_names(text) if name != "title"] == []
    used = set(re.findall(r"\bsr\.(\w+)", text))
    assert used <= {*PUBLIC, "__version__"}


@pytest.mark.parametrize(
    "text",
    [
        "from sparsity_report.draw.charts import x", "import sparsity_report.draw",
        "from sparsity_report import draw", "said through `sparsity_report.words.sentences.say`",
    ],
)  # fmt: skip
def test_inner_names_are_seen(text):
    assert inner_names(text) != []
    assert inner_names("from sparsity_report import load\nimport sparsity_report as sr") == []


def loaded(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stderr.split())


@pytest.mark.parametrize("statement", ["import sparsity_report", "import sparsity_report.errors"])
def test_import_is_light(statement):
    said = loaded(f"{statement}; import sys; print(*sys.modules, file=sys.stderr)")
    assert "sparsity_report" in said
    assert not (HEAVY | {"numpy", "typer"}) & said


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["run", "/nope"], ["run", "x", "--base", "/nope"],
     ["run", "x", "/nope"], ["pair", "x", "/nope"], ["notebook", "/nope"]],
)  # fmt: skip
def test_help_and_paths_that_lead_nowhere_are_light(arguments):
    said = loaded(
        "import sys\nfrom sparsity_report.cli import main\n"
        f"sys.argv[1:] = {arguments}\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    assert "sparsity_report.cli.application" in said
    assert ("/nope:" in said) == ("/nope" in arguments)
    assert not HEAVY & said


def test_showing_two_models_does_not_load_the_comparison():
    said = loaded(
        "import sys, sparsity_report as sr\n"
        "sr.write_report, sr.write_thesis, sr.explore, sr.summarize, sr.read_study\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    assert "sparsity_report.study.survival" in said
    assert not {"numba", "torch", "sparsity_report.api.checkpoints"} & said


def test_public_names_are_those_of_the_stub():
    assert set(sparsity_report.__all__) == {*PUBLIC, "__version__"}
    assert set(sparsity_report.__all__) <= set(dir(sparsity_report))
    assert (ROOT / "py.typed").is_file()
    for name, module in PUBLIC.items():
        value = getattr(sparsity_report, name)
        assert value.__module__.startswith(f"sparsity_report.{module}"), name
        assert not isinstance(value, type(ast)), f"{name} is a module, not what it promises"
    with pytest.raises(AttributeError, match="no_such"):
        sparsity_report.no_such  # noqa: B018
