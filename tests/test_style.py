"""Style: prose opens plainly, names say something, public docstrings follow numpydoc."""

import ast
import io
import re
import tokenize
from importlib.util import find_spec
from pathlib import Path

import house
import pytest
from api_members import public_members
from helpers import need

import sparsity_report

ROOT = Path(sparsity_report.__file__).parent
PUBLIC = house.public_names((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
SCRIPTS = [*(ROOT / "viewer").glob("*.js"), *(ROOT / "viewer" / "page").glob("*.js")]
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
OPENERS = re.compile(r"(What|Which|Whether|Who|Whoever|Whose|That|Of|As far as|Where|How|Why)\b")
RIDDLES = re.compile(
    r"\b(is told|are told|be told|is said|are said|be said|stands? in\b(?! for)|by itself|"
    r"of its own|of their own|which is which|whoever|somebody|as far as)\b",
    re.IGNORECASE,
)
EMPTY_NAMES = {"found", "made", "of", "own", "said", "seen", "told", "what", "whole"}


def prose(text):
    """Yield the line, the kind and the text of each docstring and each comment."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and (docstring := ast.get_docstring(node)):
            yield node.body[0].lineno, docstring
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")


def names(text):
    """Yield the line and each name that a module gives: variables, arguments, functions."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name.strip("_")


def faults(text):
    for line, words in prose(text):
        if OPENERS.match(words) or RIDDLES.search(words):
            yield f"line {line}: {words.splitlines()[0]}"
    for line, name in names(text):
        if name in EMPTY_NAMES:
            yield f"line {line}: the name {name}"


@pytest.mark.parametrize("module", MODULES)
def test_prose_and_names_are_plain(module):
    assert list(faults((ROOT / module).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_plain(path):
    text = path.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > 100] == []
    assert not re.search(r"\{[%#]", text), "a template"
    comments = re.findall(r"(?:^|\s)(?://|/?\*\*?) ([^@\s].*)", text)
    assert comments
    assert [each for each in comments if OPENERS.match(each) or RIDDLES.search(each)] == []


def test_screen_composes_other_classes():
    text = (ROOT / "viewer" / "viewer.js").read_text(encoding="utf-8")
    (body,) = re.findall(r"^class Viewer \{(.*?)^\}", text, re.M | re.S)
    assert len(body.splitlines()) <= 150


@pytest.mark.parametrize(
    "text",
    [
        '"""Which measured speeds may be quoted."""',
        'def f():\n    """What remains of a model."""', "# Whoever calls this waits.",
        "# Nothing is said twice.", "told = 1", "def f(found): ...", "for own in (): ...",
    ],
)  # fmt: skip
def test_each_fault_is_seen(text):
    assert list(faults(text))


def test_plain_prose_passes():
    text = '"""Ratios that exceed noise."""\n# The cache rejects damaged entries.\nratio = 1\n'
    assert list(faults(text)) == []


@pytest.mark.tools
@pytest.mark.filterwarnings("ignore")  # numpydoc reads deprecated attributes of widgets
@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstrings_follow_numpydoc(name):
    need(find_spec("numpydoc") is not None, "numpydoc")
    from numpydoc.hooks.validate_docstrings import parse_config

    config = parse_config(Path(__file__).parents[1])
    value = getattr(sparsity_report, name)
    names = [name, *(f"{name}.{member}" for member in public_members(value))]
    faults = {each: numpydoc_faults(f"sparsity_report.{each}", config) for each in names}
    assert {each: errors for each, errors in faults.items() if errors} == {}


def numpydoc_faults(name, config):
    """Return the errors that `numpydoc lint` would report under the settings of pyproject.toml."""
    from numpydoc.validate import validate

    report, overrides = validate(name), config["overrides"]
    return [
        (code, message)
        for code, message in report["errors"]
        if code in config["checks"]
        and not (code in overrides and overrides[code].search(report["docstring"]))
    ]


def test_members_of_public_classes_are_validated():
    assert {"weight", "forward"} <= {*public_members(sparsity_report.LinearCSR)}
    assert {"save", "totals", "pivot"} <= {*public_members(sparsity_report.Study)}
    assert "select" in public_members(sparsity_report.Explorer)
    assert "comm" not in public_members(sparsity_report.Explorer)
    assert public_members(sparsity_report.compare) == []
